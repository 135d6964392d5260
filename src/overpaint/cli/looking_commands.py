"""`overpaint compare` and `sheet`: what changed between two pictures, and many pictures at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overpaint.cli.arguments import AsJson, Open, Overwrite, Quiet, Telling
from overpaint.cli.output import Meter, say, say_json, table, warn
from overpaint.cli.results import choose_target
from overpaint.cli.terminal_pictures import Show, show_results
from overpaint.cli.told import is_stdin
from overpaint.errors import OverpaintError, PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import Target
    from overpaint.pixels.comparison import Comparison
    from overpaint.pixels.seams import Seam
    from overpaint.request import Picture

Before = Annotated[Path, typer.Argument(metavar="BEFORE", help="The one picture.", show_default=False)]
After = Annotated[Path, typer.Argument(metavar="AFTER", help="The other, of the same size.", show_default=False)]
Mask = Annotated[
    str | None, typer.Option("--mask", help="What was to change: a file, or a mask in words, drawn on BEFORE.")
]
Blur = Annotated[int, typer.Option("--mask-blur", help="Softness of the mask's edge in pixels, as it was painted.")]
SheetPlace = Annotated[
    str | None, typer.Option("--output", "-o", help="File or FOLDER/ for the sheet; without it there is none.")
]
Places = Annotated[
    list[Path], typer.Argument(metavar="FOLDER|PICTURE...", help="Folders, pictures, or both.", show_default=False)
]
Place = Annotated[str | None, typer.Option("--output", "-o", help="File or FOLDER/ (default: a new name here).")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Sub-folders too.")]
Columns = Annotated[int | None, typer.Option("--columns", help="Pictures side by side (default: as many as fit well).")]
Cell = Annotated[int, typer.Option("--cell", help="Pixels a side that each picture gets.")]

_CELL = 512  # of a comparison
_MOST_PICTURES, _MOST_PIXELS = 1000, 100_000_000


def compare(
    before: Before,
    after: After,
    mask: Mask = None,
    mask_blur: Blur = 4,
    output: SheetPlace = None,
    overwrite: Overwrite = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Say what differs between two pictures, and show it.

    The sheet has both pictures, and the difference: brighter where more changed. With a mask it is also told how many
    pixels changed outside it and its soft edge, and how visible that edge is.
    """
    from overpaint.pixels.comparison import compared
    from overpaint.pixels.seams import measure_seam

    telling = Telling(as_json, quiet, show, here)
    if mask_blur < 0:
        raise RequestError("--mask-blur", mask_blur, "give 0 or more")
    if show and output is None:
        raise RequestError("--open", None, "there is no file to open; name the sheet with --output")
    target = None if output is None else _target(output, f"{_stem(before)}-compared", overwrite)
    first, second, area = _pair(before, after, mask, mask_blur)
    found = compared(first, second, area)
    seam = measure_seam(first, second, area) if area is not None else None
    sheet = _sheet_of_two((before, after), (first, second), area, found) if target is not None or here else None
    path = _written(sheet, target) if sheet is not None and target is not None else None
    if as_json:
        told = {**asdict(found), "seam": None if seam is None else asdict(seam)}
        say_json({**told, "sheet": None if path is None else str(path)})
    else:
        say(table(_rows(found, seam)))
        for each in () if path is None else (path,):
            say(str(each))
    if sheet is not None and here:
        show_results([sheet], quiet)
    if telling.show and path is not None:
        typer.launch(str(path))
    return 0


def sheet(
    places: Places,
    output: Place = None,
    captions: Annotated[
        str, typer.Option("--captions", help="Lines below each: some of name, settings, prompt, model, size; or none.")
    ] = "name,settings,prompt",
    columns: Columns = None,
    cell: Cell = 256,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Put many pictures on one sheet, with captions.

    How each was painted is read from the pictures themselves: their infotexts and recipes.
    """
    from overpaint.cli.captions import caption_of, caption_words

    telling = Telling(as_json, quiet, show, here)
    words = caption_words(captions)
    if not 32 <= cell <= 2048:
        raise RequestError("--cell", cell, "give 32 to 2048 pixels")
    if columns is not None and columns < 1:
        raise RequestError("--columns", columns, "give at least 1")
    target = _target(output, "sheet", overwrite)
    files = _files(places, recursive, target.path)
    _check_room(len(files), cell)
    pictures: list[Picture | None] = []
    texts: list[Sequence[str]] = []
    problems: list[str] = []
    with Meter(telling.hushed) as meter:
        for number, file in enumerate(files):
            meter.update("pictures", number, len(files))
            try:
                picture = _small(file, cell)
                text = caption_of(file, picture, words)
            except OverpaintError as error:
                problems.append(str(error))
                picture, text = None, [file.name, "it cannot be read"]
            pictures.append(picture)
            texts.append(text)
        meter.update("pictures", len(files), len(files))
    made = _contact_sheet(pictures, texts, columns, cell)
    path = _written(made, target)
    if as_json:
        say_json({"path": str(path), "size": list(made.size), "pictures": list(map(str, files)), "problems": problems})
    else:
        warn(problems, quiet)
        say(f"{path}  {len(files)} pictures, {made.width}x{made.height}")
    show_results([made] if here else [], quiet)
    if telling.show:
        typer.launch(str(path))
    return 0


# -- two pictures ----------------------------------------------------------------------------------------------------


def _pair(before: Path, after: Path, mask: str | None, blur: int) -> tuple[Picture, Picture, Picture | None]:
    from overpaint.cli.jobs import Files, opened
    from overpaint.settings import Settings

    settings = Settings()
    if is_stdin(before) and is_stdin(after):
        raise RequestError("AFTER", "-", "stdin can be one file only; name the other")
    first, second = opened(before, settings), opened(after, settings)
    if first.size != second.size:
        sizes = " and ".join(f"{each.width}x{each.height}" for each in (first, second))
        raise RequestError("AFTER", str(after), f"the pictures have different sizes, {sizes}; give two of one size")
    area = Files(mask=mask).opened_masks(first, settings).get("mask")
    if area is not None and area.size != first.size:
        told = (
            f"it is {area.width}x{area.height}, the pictures are {first.width}x{first.height}; give one of their size"
        )
        raise RequestError("--mask", mask, told)
    return first, second, None if area is None else _softened(area, blur)


def _softened(mask: Picture, blur: int) -> Picture:
    """As painting reads a mask: what is opaque, where it has alpha; and its edge as soft as it lets it be."""
    from overpaint.pixels.mask import blur_mask, to_gray_mask

    return blur_mask(to_gray_mask(mask, round_=False), blur, blur, never_darker=True)


def _rows(found: Comparison, seam: Seam | None) -> list[tuple[str, str]]:
    total = found.width * found.height
    rows = [("changed", f"{found.changed} of {total} pixels, {found.share:.4g} %")]
    if found.box is not None:
        left, top, right, bottom = found.box
        rows.append(("where", f"{left},{top} to {right},{bottom}"))
        rows.append(("by how much", f"{found.largest} levels at most, {found.mean:.4g} on average"))
    if found.outside is not None:
        rows.append(("in the mask", f"{found.inside} pixels"))
        rows.append(("outside it", f"{found.outside} pixels"))
    if seam is not None:
        rows.append(
            ("its edge", f"a colour step of {seam.step:.3g}, {seam.step_p95:.3g} at the worst places (delta E)")
        )
    return rows


def _sheet_of_two(
    names: tuple[Path, Path], pictures: tuple[Picture, Picture], mask: Picture | None, found: Comparison
) -> Picture:
    from overpaint import masks
    from overpaint.pixels.comparison import difference_picture
    from overpaint.sequences.contact import contact_sheet

    told = (
        "nothing differs" if not found.changed else f"{found.share:.3g} % of the pixels, {found.largest} levels at most"
    )
    captions = [("before", _shown_name(names[0])), ("after", _shown_name(names[1])), ("difference", told)]
    shown = [*pictures, difference_picture(*pictures, _CELL)]
    if mask is not None:
        outside = "nothing changed outside" if not found.outside else f"{found.outside} pixels changed outside"
        shown.insert(1, masks.overlay(pictures[0], mask))
        captions.insert(1, ("mask", outside))
    return contact_sheet(shown, captions, columns=len(shown), cell=_CELL)


def _shown_name(path: Path) -> str:
    return "stdin" if is_stdin(path) else path.name


def _stem(path: Path) -> str:
    return "stdin" if is_stdin(path) else path.stem


# -- many pictures ---------------------------------------------------------------------------------------------------


def _files(places: list[Path], recursive: bool, target: Path) -> list[Path]:
    """Pictures that are named, and those of folders in natural order; not the sheet that is to be."""
    from overpaint.files.rows import PICTURE_SUFFIXES
    from overpaint.models.catalog import natural_key

    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = place.rglob("*") if recursive else place.iterdir()
            shown = (each for each in inside if not any(part.startswith(".") for part in each.relative_to(place).parts))
            own = [each for each in shown if each.suffix.lower() in PICTURE_SUFFIXES and each.is_file()]
            found += sorted(own, key=lambda each: natural_key(str(each)))
        elif place.exists():
            found.append(place)
        else:
            raise PictureError(f"{place}: there is no such file or folder")
    found = [each for each in dict.fromkeys(found) if each.absolute() != target.absolute()]
    if not found:
        remedy = "; --recursive looks into sub-folders" if not recursive else ""
        raise PictureError(f"{', '.join(map(str, places))}: there are no pictures in it{remedy}")
    return found


def _check_room(count: int, cell: int) -> None:
    if count > _MOST_PICTURES:
        raise RequestError("FOLDER", f"{count} pictures", f"a sheet holds {_MOST_PICTURES}; make several")
    if count * (cell + cell // 20) ** 2 > _MOST_PIXELS:
        fits = int((_MOST_PIXELS / count) ** 0.5 / 1.05)
        raise RequestError(
            "--cell", cell, f"{count} pictures of that size are too much for a sheet; give at most {fits}"
        )


def _small(file: Path, cell: int) -> Picture:
    """Read one at a time and made small at once: memory does not grow with what the folder holds."""
    from overpaint.cli.jobs import opened
    from overpaint.sequences.contact import shown_small
    from overpaint.settings import Settings

    picture = opened(file, Settings())
    small = shown_small(picture, cell)
    small.info = {"size": picture.size}
    return small


def _contact_sheet(
    pictures: list[Picture | None], captions: list[Sequence[str]], columns: int | None, cell: int
) -> Picture:
    from overpaint.sequences.contact import contact_sheet, sheet_columns

    across = sheet_columns(len(pictures), cell, columns)
    return contact_sheet(pictures, captions, columns=across, cell=cell)


def _target(output: str | None, stem: str, overwrite: bool) -> Target:
    if output == "-":
        raise RequestError("--output", "-", "a sheet is written to a file; give its name")
    return choose_target(output, stem, overwrite)


def _written(picture: Picture, target: Target) -> Path:
    from overpaint.files.metadata import encode_picture
    from overpaint.files.saving import save_bytes

    return save_bytes(target.path, encode_picture(picture, target.path.suffix), replace=target.overwrite)
