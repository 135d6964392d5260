"""What several commands take, and how much they tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from overpaint.errors import RequestError

STOPPED = 130
STDOUT = "-"

Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        help="A file (white, or opaque where it has alpha: repaint), or a mask in words, such as "
        "'ellipse 10,10,90,60 | feather 8'; `overpaint mask --help` has the words.",
    ),
]
StrengthMap = Annotated[
    str | None,
    typer.Option(
        "--strength-map", help="A gray file, or a mask in words: how much of --strength each place has; black stays."
    ),
]
Out = Annotated[
    str | None, typer.Option("--output", "-o", help="File, FOLDER/, or - for stdout (default: a new name here).")
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="png, tif, webp, bmp, jpg, avif or heic (default: by the name; else the source's, if it keeps every "
        "pixel; else png).",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Open = Annotated[bool, typer.Option("--open", help="Show what was painted.")]
_PROMPT = typer.Argument(metavar="PROMPT", help="What it should show; --prompt says the same.", show_default=False)
Prompt = Annotated[str, _PROMPT]
NewPrompt = Annotated[str | None, _PROMPT]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")]


@dataclass(frozen=True)
class Telling:
    """How much is told, and to whom."""

    as_json: bool = False
    quiet: bool = False
    show: bool = False  # open the pictures
    here: bool = False  # show them in the terminal

    @property
    def hushed(self) -> bool:
        return self.quiet or self.as_json

    def __post_init__(self) -> None:
        if self.here and self.as_json:
            raise RequestError("--show", None, "--json prints JSON and nothing else; leave out one of them")
