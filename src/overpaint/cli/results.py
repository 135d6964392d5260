"""Where the results of a command go: a place that is refused before any work is done, and the files in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.cli.arguments import STDOUT
from overpaint.cli.told import is_stdin
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import KeptPicture, Origins, Target
    from overpaint.outcome import Processed


def choose_target(
    output: str | None, stem: str, overwrite: bool, kind: str | None = None, source: Path | None = None
) -> Target:
    """Refuse a place or a format that cannot be used, before any work is done."""
    from overpaint.files import keeping
    from overpaint.files.formats import own_ending

    ending = ending_of(kind, stem)
    if output == STDOUT:
        return keeping.Target(Path(STDOUT), overwrite, ending or "png")
    named = Path(output).suffix.lower() if output and not keeping.is_folder(output) else ""
    if ending is not None and named and named != f".{ending}":
        raise RequestError("--format", kind, f"the name {output} says another one; leave out one of them")
    own = "png" if source is None or is_stdin(source) else own_ending(source)
    return keeping.choose_target(output or "./", f"{stem}.{ending or own}", overwrite, "--output")


def ending_of(kind: str | None, stem: str) -> str | None:
    """The format that was asked for, as files end in it."""
    from overpaint.files.keeping import check_format

    ending = None if kind is None else kind.lower().removeprefix(".")
    if ending is not None:
        check_format(f"{stem}.{ending}", "--format", kind)
    return ending


def keep(processed: Processed, target: Target, origins: Origins) -> list[tuple[Path, KeptPicture]]:
    """Write every finished picture; one that cannot be written leaves those before it where they are."""
    from overpaint.files.keeping import finished_pictures, save_painted

    if is_stdout(target):
        return [_poured(each, processed, target) for each in finished_pictures(processed)]
    return list(save_painted(processed, target, origins))


def lost_in_files(kept: list[tuple[Path, KeptPicture]], processed: Processed | None) -> tuple[str, ...]:
    """What the formats of the files do not hold."""
    from overpaint.files.keeping import lost_in

    files = [(each.image, path.name) for path, each in kept if str(path) != STDOUT]
    return tuple(told for image, name in files for told in lost_in(image, name, processed))


def seam_told(processed: Processed | None, index: int) -> dict[str, Any] | None:
    """How visible the mask's edge is in a picture, for JSON; None where nothing was inpainted."""
    seams = processed.seams if processed is not None else ()
    seam = seams[index] if index < len(seams) else None
    return None if seam is None else {"seam": vars(seam)}


def is_stdout(target: Target) -> bool:
    return str(target.path) == STDOUT


def _poured(painted: KeptPicture, processed: Processed, target: Target) -> tuple[Path, KeptPicture]:
    """To stdout, with its infotext and, in a PNG, its recipe."""
    from overpaint.files.keeping import files_of
    from overpaint.files.recipe import JobFiles

    *_, (_, data) = files_of(painted, processed, f"painted.{target.ending}", JobFiles())
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return target.path, painted
