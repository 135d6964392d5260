"""One line: a text in, with a picture or without, and a picture out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from overpaint.errors import PictureError, RequestError, RequestTypeError
from overpaint.files.keeping import Origins
from overpaint.models.find import check_named
from overpaint.painted import PaintedPicture, with_stories
from overpaint.pictures import open_picture
from overpaint.planning.preflight import check
from overpaint.request import Img2ImgRequest, PaintRequest, Txt2ImgRequest
from overpaint.request_help import IMG2IMG_HELP, TXT2IMG_HELP
from overpaint.settings import Settings
from overpaint.watching import check_watcher

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from overpaint.engine import Engine
    from overpaint.request_fields import Img2ImgOptions, Txt2ImgOptions
    from overpaint.taking import PictureLike
    from overpaint.watching import Watcher

    Source: TypeAlias = PictureLike | bytes | str | os.PathLike[str]

Checkpoint = str | os.PathLike[str]


@overload
def img2img(
    image: Source,
    prompt: str = "",
    *,
    mask: Source | None = None,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Unpack[Img2ImgOptions],
) -> PaintedPicture: ...


@overload
def img2img(
    image: Source | Sequence[Source],
    prompt: str | list[str] | tuple[str, ...] = "",
    *,
    batch_size: int,
    iterations: int = 1,
    mask: Source | None = None,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Unpack[Img2ImgOptions],
) -> list[PaintedPicture]: ...


@overload
def img2img(
    image: Source,
    prompt: str | list[str] | tuple[str, ...] = "",
    *,
    iterations: int,
    mask: Source | None = None,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Unpack[Img2ImgOptions],
) -> list[PaintedPicture]: ...


def img2img(
    image: Any = None,
    prompt: Any = "",
    *,
    mask: Source | None = None,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Any,
) -> PaintedPicture | list[PaintedPicture]:
    """Paint over a picture.

    `image` and `mask` are paths, file contents, PIL pictures, numpy arrays or torch tensors; a mask may be words, too,
    as in "ellipse 10,10,90,90 | feather 8" (`overpaint.masks`). All other fields are those of `Img2ImgRequest`. With a
    `batch_size` or `iterations` a list of that many pictures comes back, otherwise one.

    Give an `engine` to paint more than once without loading the model again; without one, `checkpoint` is the model,
    and the built-in one if there is none. `progress=True` shows a bar, and a function is called with each step.
    What to know about the job, such as a smaller size than that of the picture, is an `OverpaintWarning`.
    """
    if image is None:
        raise RequestError("image", None, "give the picture to paint over")
    painter = _Painter(engine, checkpoint, settings, progress)
    limit = pixel_limit(fields.get("overrides"), settings or getattr(engine, "settings", None))
    several = isinstance(image, list | tuple)
    images = tuple(opened_source(each, limit) for each in image) if several else (opened_source(image, limit),)
    opened = None if mask is None else _mask(mask, images, limit)
    if isinstance(fields.get("strength_map"), str | os.PathLike):
        fields["strength_map"] = _mask(fields["strength_map"], images, limit)
    _open_references(fields, limit)
    request = Img2ImgRequest(images=images, prompt=prompt, mask=opened, **fields)
    place = None if opened is None or _is_words(mask) else source_path(mask)
    origins = Origins(None if several else source_path(image), {} if place is None else {"mask": place})
    return _painted(request, painter, origins, fields)


@overload
def txt2img(
    prompt: str,
    *,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Unpack[Txt2ImgOptions],
) -> PaintedPicture: ...


@overload
def txt2img(
    prompt: str | list[str] | tuple[str, ...],
    *,
    batch_size: int,
    iterations: int = 1,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Unpack[Txt2ImgOptions],
) -> list[PaintedPicture]: ...


@overload
def txt2img(
    prompt: str | list[str] | tuple[str, ...],
    *,
    iterations: int,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Unpack[Txt2ImgOptions],
) -> list[PaintedPicture]: ...


def txt2img(
    prompt: Any = "",
    *,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Any,
) -> PaintedPicture | list[PaintedPicture]:
    """Paint a picture from noise.

    All other fields are those of `Txt2ImgRequest`, such as `hires=Hires(scale=2)`. With a `batch_size` or `iterations`
    a list of that many pictures comes back, otherwise one. The rest is as in `img2img`.
    """
    _open_references(fields, pixel_limit(fields.get("overrides"), settings or getattr(engine, "settings", None)))
    request = Txt2ImgRequest(prompt=prompt, **fields)
    return _painted(request, _Painter(engine, checkpoint, settings, progress), Origins(), fields)


img2img.__doc__ = f"{img2img.__doc__}\n{IMG2IMG_HELP}"
txt2img.__doc__ = f"{txt2img.__doc__}\n{TXT2IMG_HELP}"


class _Painter:
    """The engine that is given, or one of its own; a checkpoint may be named either way."""

    def __init__(
        self, engine: Engine | None, checkpoint: Checkpoint | None, settings: Settings | None, progress: Watcher
    ) -> None:
        check_named(checkpoint)
        if engine is not None and not hasattr(engine, "paint"):
            raise RequestTypeError("engine", engine, "give an overpaint.Engine; a model's file is the checkpoint")
        if settings is not None and not isinstance(settings, Settings):
            raise RequestTypeError("settings", settings, "give an overpaint.Settings")
        check_watcher(progress)
        self._named = None if checkpoint is None else os.fspath(checkpoint)
        self._engine, self._settings, self._progress = engine, settings, progress

    def paint(self, request: PaintRequest) -> Any:
        if self._engine is not None:
            asked = request if self._named is None else request.with_changes(checkpoint=self._named)
            return self._engine.paint(asked, self._settings, progress=self._progress)
        # What cannot be painted is told before torch is imported.
        check(request, self._settings or Settings(), self._named)
        from overpaint.engine import Engine

        with Engine(self._named, settings=self._settings) as own:
            return own.paint(request, progress=self._progress)


def checked_painter(
    engine: Engine | None, checkpoint: Checkpoint | None, settings: Settings | None, progress: Watcher
) -> None:
    """Refuse what is often given in the place of these."""
    _Painter(engine, checkpoint, settings, progress)


def _painted(
    request: PaintRequest, painter: _Painter, origins: Origins, fields: Mapping[str, Any]
) -> PaintedPicture | list[PaintedPicture]:
    result = with_stories(painter.paint(request), origins)
    pictures = [each for each in result.images if isinstance(each, PaintedPicture)]
    return pictures if {"batch_size", "iterations"} & fields.keys() else pictures[0]


def opened_source(source: Source, limit: int) -> Any:
    """Complaints name the file."""
    try:
        return open_picture(source, max_pixels=limit)
    except PictureError as error:
        if not isinstance(source, str | os.PathLike):
            raise
        name, said = os.fspath(source), str(error)
        raise type(error)(said if said.startswith(name) else f"{name}: {said}") from error


def _open_references(fields: dict[str, Any], limit: int) -> None:
    """Those that are files."""
    given = fields.get("references", ())
    several = list(given) if isinstance(given, list | tuple) else [given]
    if any(isinstance(each, str | os.PathLike) for each in several):
        named = (isinstance(each, str | os.PathLike) for each in several)
        fields["references"] = [
            opened_source(each, limit) if is_file else each for each, is_file in zip(several, named, strict=True)
        ]


def _mask(mask: Source, images: Sequence[Any], limit: int) -> Any:
    """A file or a picture, or a mask in words, drawn on the first of the pictures."""
    if not (images and isinstance(mask, str) and _is_words(mask)):
        return opened_source(mask, limit)
    from overpaint import masks

    return masks.draw(mask, images[0], masks.files_in(Path(), limit))


def _is_words(mask: object) -> bool:
    from overpaint.masks import means_mask

    return means_mask(mask)


def source_path(source: object) -> Path | None:
    return Path(source).absolute() if isinstance(source, str | os.PathLike) else None


def pixel_limit(overrides: object, site: object) -> int:
    given = overrides.get("max_source_pixels") if isinstance(overrides, Mapping) else None
    return given if isinstance(given, int) else (site if isinstance(site, Settings) else Settings()).max_source_pixels
