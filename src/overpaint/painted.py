"""A painted picture: a PIL picture that knows how it was made, and keeps that when it is saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from PIL import Image

from overpaint.deep import DeepPicture
from overpaint.errors import RequestTypeError
from overpaint.files.formats import FILE_FORMATS, KINDS
from overpaint.files.keeping import (
    KeptPicture,
    Origins,
    Target,
    choose_target,
    contents_of,
    finished_pictures,
    lost_in,
    numbered,
    save_one,
)
from overpaint.files.metadata import INFOTEXT_ITEM, encode_picture, format_for, write_picture
from overpaint.files.saving import save_bytes
from overpaint.pictures import source_extras
from overpaint.planning.plans import Plan
from overpaint.settings import Settings
from overpaint.watching import warn

if TYPE_CHECKING:
    from overpaint.files.recipe import JobFiles
    from overpaint.outcome import Processed

DEFAULT_NAME = "painted.png"


class PaintedPicture(DeepPicture):
    """A picture that was painted. It is a PIL picture, and `save` works as PIL's does.

    What `save` writes holds the recipe (in PNG), the infotext, and the source's EXIF and colour profile, as far as the
    format can. `overpaint.save` writes the recipe beside other formats, and never over another file. What is made of it
    with `resize`, `crop` and the like is a plain picture, since the recipe would no longer be true.
    """

    infotext: str
    seed: int
    subseed: int
    _painted: KeptPicture
    _made: Processed  # without its pictures
    _origins: Origins

    @classmethod
    def of(cls, painted: KeptPicture, made: Processed, origins: Origins) -> PaintedPicture:
        """The same pixels, with their story."""
        picture = cls()
        vars(picture).update(vars(painted.image))
        picture.infotext, picture.seed, picture.subseed = painted.infotext, painted.seed, painted.subseed
        picture._painted, picture._made, picture._origins = replace(painted, image=_NOTHING), made, origins
        return picture

    @property
    def recipe(self) -> dict[str, Any]:
        """All that is needed to paint it again, as plain values."""
        from overpaint.files.recipe import recipe_of

        return recipe_of(
            self._made, self._painted.index, self._origins.records(None, self._made.plan.settings)
        ).to_json()

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As PIL saves, over what is there; `params` go before what is known of the picture.

        A format without transparency gets a background behind what is transparent, and an `OverpaintWarning` says so.
        """
        is_path = isinstance(fp, str | os.PathLike)
        kind = (format or (_kind_of(fp) if is_path else None) or "").upper()
        kind = "JPEG" if kind == "JPG" else kind
        if kind not in FILE_FORMATS:
            super().save(fp, format, **params)
            return
        contents = contents_of(self._own(), self._made, self._records(Path(fp).parent if is_path else None))
        warn(lost_in(self, Path(fp).name if is_path else f"picture.{kind.lower()}", self._made))
        write_picture(self, fp, kind, contents, format, params)

    def _records(self, folder: Path | None) -> JobFiles:
        return self._origins.records(folder, self._made.plan.settings)

    @property
    def story(self) -> tuple[KeptPicture, Processed]:
        """What is to be written of it: the pixels as they are now, and the job that they come from."""
        return self._own(), self._made

    def _own(self) -> KeptPicture:
        """What is to be written: the pixels as they are now."""
        return replace(self._painted, image=self)

    def __getstate__(self) -> list[Any]:
        own = (self.infotext, self.seed, self.subseed, self._painted, self._made, self._origins)
        return [super().__getstate__(), own]

    def __setstate__(self, state: list[Any]) -> None:
        pixels, (self.infotext, self.seed, self.subseed, self._painted, self._made, self._origins) = state
        super().__setstate__(pixels)


_NOTHING = Image.new("1", (1, 1))


def _kind_of(path: str | os.PathLike[str]) -> str | None:
    suffix = Path(path).suffix.lower()
    Image.init()
    return Image.EXTENSION.get(suffix) or KINDS.get(suffix.removeprefix("."))


def with_stories(processed: Processed, origins: Origins | None = None) -> Processed:
    """The result with its pictures as painted ones; grids and masks stay plain pictures."""
    made = replace(processed, plan=_lean(processed.plan), images=(), infotexts=())
    told = origins or Origins()
    stories = {id(each.image): PaintedPicture.of(each, made, told) for each in finished_pictures(processed)}
    return replace(processed, images=tuple(stories.get(id(each), each) for each in processed.images))


def _lean(plan: Plan) -> Plan:
    """A plan without what only painting needs, so that a picture keeps no canvases alive."""
    second = None if plan.hires is None else replace(plan.hires, plan=_lean(plan.hires.plan), upscaler=None)
    return replace(plan, canvases=(), mask=None, controls=(), upscaler=None, hires=second)


@overload
def save(
    picture: Image.Image, path: str | os.PathLike[str], *, overwrite: bool = False, quality: int | None = None
) -> Path: ...


@overload
def save(
    picture: Processed | Sequence[Image.Image],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    quality: int | None = None,
) -> tuple[Path, ...]: ...


def save(
    picture: Image.Image | Processed | Sequence[Image.Image],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    quality: int | None = None,
) -> Path | tuple[Path, ...]:
    """Write a picture with all that is known of it: recipe, infotext, EXIF, colour profile.

    The file is there whole or not at all, and a file that is there already is not replaced unless `overwrite` is true.
    The ending chooses the format: .png, .jpg, .webp, .avif, .heic, .tif or .bmp. PNG holds the recipe; of the others
    it lies beside the picture as NAME.overpaint.json. A `path` that ends in a slash is a folder, which is made if it is
    not there. `quality`, 1 to 100, is that of JPEG, lossy WebP, AVIF and HEIC (95 if nobody says otherwise). JPEG and
    BMP hold no transparency: white, or the option `img2img_background_color`, is put behind it, and an
    `OverpaintWarning` says so.

    Returns where the picture is. Of a result, or of several pictures, each is written under a number, and all places
    are returned.
    """
    several = picture if isinstance(picture, Sequence) else getattr(picture, "images", None)
    if not isinstance(picture, Image.Image) and several is None:
        raise RequestTypeError("picture", picture, "give what img2img, txt2img or Engine.paint returned")
    if not isinstance(path, str | os.PathLike):
        raise RequestTypeError("path", path, "give the name of a file")
    if quality is not None:
        Settings(jpeg_quality=quality)  # which refuses a wrong one
    target = choose_target(path, DEFAULT_NAME, overwrite)
    if isinstance(picture, Image.Image):
        return _save_one(picture, target, quality)
    pictures = _without_grids(picture)
    if len(pictures) == 1:
        return (_save_one(pictures[0], target, quality),)
    targets = (
        replace(target, path=target.path.with_name(numbered(target.path.name, i + 1))) for i in range(len(pictures))
    )
    return tuple(starmap(_save_one, ((each, place, quality) for each, place in zip(pictures, targets, strict=True))))


def _without_grids(result: Processed | Sequence[Image.Image]) -> Sequence[Image.Image]:
    if isinstance(result, Sequence):
        return result
    made = replace(result, plan=_lean(result.plan), images=(), infotexts=())
    return [
        each.image if isinstance(each.image, PaintedPicture) else PaintedPicture.of(each, made, Origins())
        for each in finished_pictures(result)
    ]


def _save_one(picture: Image.Image, target: Target, quality: int | None) -> Path:
    warn(lost_in(picture, target.path.name, picture._made if isinstance(picture, PaintedPicture) else None))
    if isinstance(picture, PaintedPicture):
        made = _with_quality(picture._made, quality)
        records = picture._origins.records(target.path.parent, made.plan.settings)
        return save_one(picture._own(), made, target, records)
    infotext = picture.info.get(INFOTEXT_ITEM)
    infotext = infotext if isinstance(infotext, str) else None
    wished = target.path.suffix.lower().removeprefix(".")
    kept = format_for(picture, wished, infotext)
    extras = source_extras(picture)
    data = encode_picture(
        picture,
        kept,
        infotext=infotext,
        **extras.beside,
        quality=quality or Settings.jpeg_quality,
        lossless=extras.lossless,
        background=Settings.img2img_background_color,
    )
    path = target.path if kept == wished else target.path.with_suffix(f".{kept}")
    return save_bytes(path, data, replace=target.overwrite)


def _with_quality(made: Processed, quality: int | None) -> Processed:
    if quality is None:
        return made
    return replace(made, plan=replace(made.plan, settings=made.plan.settings.with_changes({"jpeg_quality": quality})))
