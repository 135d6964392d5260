"""`overpaint upscale`: finished pictures made larger."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.arguments import STDOUT, STOPPED, AsJson, Kind, Open, Out, Overwrite, Quiet, Telling
from overpaint.cli.jobs import opened
from overpaint.cli.options import JOB_OPTIONS, GivenOptions, read_size, takes
from overpaint.cli.output import Meter, note, say, say_json, warn
from overpaint.cli.results import choose_target
from overpaint.cli.terminal_pictures import Show, show_results
from overpaint.cli.webui_told import refuse_webui_place, tell_webui
from overpaint.errors import PaintingCancelled, PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.events import Control
    from overpaint.extras import ExtrasResult
    from overpaint.files.keeping import Target
    from overpaint.pixels.resize import Upscaler
    from overpaint.request import Picture
    from overpaint.settings import Settings

_OPTIONS = tuple(
    each for each in JOB_OPTIONS if each.name in ("models", "webui", "quality", "set", "reference", "device")
)
_FLAGS = {"scale": "--scale", "size": "--size", "second_visibility": "--visibility"}
_BUILT_IN = ("", "None", "Lanczos", "Nearest")

Pictures = Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="The pictures.", show_default=False)]
Name = Annotated[str, typer.Option("--upscaler", help="Lanczos, Nearest, a file, or its name in esrgan_dir.")]
Second = Annotated[str, typer.Option("--second", help="Another one, to blend with.", show_default=False)]
Visibility = Annotated[float, typer.Option("--visibility", help="How much of the second one shows, 0 to 1.")]
Scale = Annotated[float | None, typer.Option("--scale", help="The factor to enlarge by (default 2).")]
Size = Annotated[str | None, typer.Option("--size", help="WIDTHxHEIGHT to cover, instead of a factor.")]
Crop = Annotated[bool, typer.Option("--crop/--no-crop", help="Cut off what --size does not cover.")]


@takes(*_OPTIONS)
def upscale(
    *,
    pictures: Pictures,
    upscaler: Name = "Lanczos",
    scale: Scale = None,
    size: Size = None,
    crop: Crop = True,
    second: Second = "None",
    visibility: Visibility = 0.5,
    output: Out = None,
    kind: Kind = None,
    overwrite: Overwrite = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Make finished pictures larger.

    With resampling, or with the network of an ESRGAN or Real-ESRGAN file.
    """
    started = time.monotonic()
    refuse_webui_place(asked, output)
    telling = Telling(as_json, quiet, show, here)
    targets = _targets(pictures, output, overwrite, kind)
    if scale is not None and size is not None:
        raise RequestError("--size", size, "give --scale or --size, not both")
    settings = asked.settings()
    tell_webui(asked, quiet or as_json)
    found = _Upscalers.named(upscaler, second, settings)
    fields: dict[str, Any] = {"upscaler": found.names[0], "second_upscaler": found.names[1], "crop": crop}
    fields |= {"scale": 2 if scale is None else scale, "size": None if size is None else read_size("--size", size)}
    fields |= {"second_visibility": visibility if found.names[1] != "None" else 0.0}
    account: list[dict[str, Any]] = []
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(quiet or as_json))
        known = found.callables(settings, asked, meter, control)
        stack.enter_context(suppress(PaintingCancelled))
        for number, (path, target) in enumerate(zip(pictures, targets, strict=True)):
            if control.message is not None:
                break
            meter.update("pictures", number, len(pictures))
            made = _enlarged(path, fields, settings, known)
            account.append(_kept(made, target, settings, account))
            if not as_json:
                warn(account[-1]["warnings"], quiet)
                say("{path}  {width}x{height}".format(**account[-1]))
            show_results([made[1].image] if here else [], quiet)
    stopped = len(account) < len(pictures)
    if as_json:
        say_json({"pictures": account, "stopped": stopped, "seconds": round(time.monotonic() - started, 3)})
    elif stopped:
        note(f"stopped; {len(account)} of {len(pictures)} pictures were finished")
    for each in account if telling.show else ():
        typer.launch(each["path"])
    return STOPPED if stopped else 0


def _enlarged(
    path: Path, fields: Mapping[str, Any], settings: Settings, known: Mapping[str, Upscaler] | None
) -> tuple[Picture, ExtrasResult]:
    """The source and what became of it."""
    from overpaint.extras import ExtrasRequest, run_extras

    source = opened(path, settings)
    with _in_flags():
        (result,) = run_extras(ExtrasRequest(images=(source,), **fields), settings, known)
    return source, result


@contextmanager
def _in_flags() -> Iterator[None]:
    """A request's complaint in the words of this command."""
    try:
        yield
    except RequestError as error:
        if error.field not in _FLAGS:
            raise
        raise RequestError(_FLAGS[error.field], error.value, error.remedy) from error


def _targets(pictures: list[Path], output: str | None, overwrite: bool, kind: str | None) -> list[Target]:
    """Refuse places and pictures that cannot be used, before any work is done."""
    from overpaint.files.keeping import is_folder

    if len(pictures) > 1 and output is not None and not is_folder(output):
        raise RequestError("--output", output, "for several pictures give a folder, as in results/")
    for path in pictures:
        if not path.is_file():
            raise PictureError(f"{path}: there is no such file")
    if output == STDOUT:
        raise RequestError("--output", output, "enlarged pictures are written to files; give a name or a folder")
    return [choose_target(output, f"{path.stem}-upscaled", overwrite, kind, path) for path in pictures]


@dataclass(frozen=True)
class _Upscalers:
    """The two upscalers' own names, and the files that were named by their path."""

    names: tuple[str, str]
    files: Mapping[str, Path]

    @classmethod
    def named(cls, first: str, second: str, settings: Settings) -> _Upscalers:
        from overpaint.models.catalog import UPSCALER
        from overpaint.models.upscaler_names import find_upscaler_name

        names, files = [], {}
        for flag, name in (("--upscaler", first), ("--second", second)):
            path = Path(name)
            if path.suffix in UPSCALER.suffixes and path.is_file():
                files[path.stem] = path
                names.append(path.stem)
            else:
                names.append(find_upscaler_name(name, settings, flag).name)
        return cls((names[0], names[1]), files)

    def callables(
        self, settings: Settings, asked: GivenOptions, meter: Meter, control: Control
    ) -> Mapping[str, Upscaler] | None:
        """NOTE: torch is needed only where a network is."""
        if all(name in _BUILT_IN for name in self.names):
            return None
        from overpaint.models.find import choose_device
        from overpaint.painting.upscaling import Watch, known_upscalers

        watch = Watch(lambda done, total: meter.update("upscaling", done, total), lambda: control.message is not None)
        return known_upscalers(settings, choose_device(asked.text("device", "auto")), watch, self.files)


def _kept(
    made: tuple[Picture, ExtrasResult], target: Target, settings: Settings, before: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write a picture with what its source carried; two of one name do not replace each other."""
    from overpaint.extras import INFO_ITEM
    from overpaint.files.keeping import lost_in
    from overpaint.files.metadata import encode_picture, format_for
    from overpaint.files.saving import save_bytes
    from overpaint.pictures import source_extras

    source, result = made
    extras, shown = source_extras(source), settings.enable_pnginfo
    wished = target.path.suffix.lower().removeprefix(".")
    infotext = result.infotext if shown else None
    extension = format_for(result.image, wished, infotext)
    path = target.path if extension == wished else target.path.with_suffix(f".{extension}")
    data = encode_picture(
        result.image,
        extension,
        infotext=infotext,
        items={INFO_ITEM: result.info} if shown and result.info else None,
        **extras.beside,
        quality=settings.jpeg_quality,
        lossless=settings.webp_lossless or extras.lossless,
        background=settings.img2img_background_color,
    )
    is_own = str(path) in (each["path"] for each in before)
    path = save_bytes(path, data, replace=target.overwrite and not is_own)
    size = {"width": result.image.width, "height": result.image.height}
    warnings = [f"{path.name}: {each}" for each in result.warnings]
    told = {"infotext": result.infotext, "warnings": [*warnings, *lost_in(result.image, path.name)]}
    return {"path": str(path), **size, "done": dict(result.fields), **told}
