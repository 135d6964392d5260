"""`overpaint mask`: a mask in words, drawn on a picture, to keep or to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overpaint.cli.arguments import AsJson, Open, Overwrite
from overpaint.cli.output import say, say_json, table
from overpaint.cli.results import choose_target
from overpaint.cli.terminal_pictures import show_pictures
from overpaint.errors import MaskTextError, RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import Target
    from overpaint.request import Picture

Look = Annotated[
    bool, typer.Option("--show", help="Write the picture with the mask over it, too, and show that in the terminal.")
]
Words = Annotated[bool, typer.Option("--words", help="List the words and what they mean.")]
Place = Annotated[str | None, typer.Option("--output", "-o", help="File or FOLDER/ (default: a new name here).")]


def mask(
    picture: Annotated[
        Path | None, typer.Argument(metavar="PICTURE", help="The picture it is for.", show_default=False)
    ] = None,
    expression: Annotated[
        str | None, typer.Argument(metavar="EXPRESSION", help="The mask in words.", show_default=False)
    ] = None,
    output: Place = None,
    show: Look = False,
    words: Words = False,
    overwrite: Overwrite = False,
    open_it: Open = False,
    as_json: AsJson = False,
) -> int:
    """Draw a mask that is written in words.

    Shapes are joined by + (either), - (not the second) and & (both), and changed by steps after |, read from left to
    right; brackets group. Places are pixels of the picture, or parts such as 50%. --words lists the words.
    `paint`, `plan`, `again`, `submit`, `batch` and `overpaint.img2img` take the same words for a mask.
    """
    if words:
        say(_listed())
        return 0
    if picture is None or expression is None:
        raise RequestError("EXPRESSION", None, "give a PICTURE and a mask in words; --words lists them")
    from overpaint import masks
    from overpaint.cli.jobs import opened
    from overpaint.cli.told import is_stdin
    from overpaint.settings import Settings

    with _named_as_here():
        understood = masks.parse(expression)
    stem = "stdin" if is_stdin(picture) else picture.stem
    target = choose_target(output, f"{stem}-mask", overwrite)
    source = opened(picture, Settings())
    with _named_as_here():
        drawn = masks.draw(understood, source)
    written = _written(drawn, target)
    overlay = masks.overlay(source, drawn) if show else None
    shown = _written(overlay, _beside(written, overwrite)) if overlay is not None else None
    percent = round(masks.coverage(drawn), 2)
    if as_json:
        box = drawn.getbbox()
        account = {"path": str(written), "size": list(drawn.size), "coverage": percent, "box": box and list(box)}
        say_json({**account, "shown": None if shown is None else str(shown)})
    else:
        say(f"{written}  {percent:g} % of {drawn.width}x{drawn.height}" + ("" if shown is None else f"  {shown}"))
    if overlay is not None and not as_json:
        show_pictures([overlay], hushed=True)
    if open_it:
        typer.launch(str(shown or written))
    return 0


@contextmanager
def _named_as_here() -> Iterator[None]:
    """What other commands take as --mask is the EXPRESSION of this one."""
    try:
        yield
    except MaskTextError as error:
        raise error.of("EXPRESSION") from error


def _beside(mask: Path, overwrite: bool) -> Target:
    from overpaint.files.keeping import Target

    return Target(mask.with_name(f"{mask.stem}-shown.png"), overwrite)


def _written(picture: Picture, target: Target) -> Path:
    from overpaint.files.metadata import encode_picture
    from overpaint.files.saving import save_bytes

    return save_bytes(target.path, encode_picture(picture, target.path.suffix), replace=target.overwrite)


def _listed() -> str:
    from overpaint.masks.vocabulary import SHAPES, STEPS

    rows = [("shapes:", ""), *((f"  {each.usage}", each.meaning) for each in SHAPES.values())]
    rows += [("steps, after |:", ""), *((f"  {each.usage}", each.meaning) for each in STEPS.values())]
    return table(rows)
