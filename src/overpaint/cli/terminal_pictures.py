"""`--show`: pictures in the terminal itself, as well as it can.

What the environment says of the terminal counts first, then what it answers within a time limit; coloured blocks work
everywhere else. Nothing is written where stdout is no terminal.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from overpaint.cli.output import note
from overpaint.cli.standing import SHOW_VARIABLE
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

    from overpaint.pixels.for_terminals import Colours, Graphics

Show = Annotated[bool, typer.Option("--show", help="Show it here, in the terminal.")]

_ANSWER_SECONDS = 0.5
_USUAL_CELL = (8, 16)  # pixels of a character, where the terminal does not tell
_USUAL_SIZE = (80, 24)
_MOST_ROWS = 40
# Each asks something; a terminal that knows none of it still answers the last, which says what it is.
_QUESTION = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[c"
_IS = re.compile(rb"\x1b\[\?([\d;]*)c")
_CELL = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_KITTY_OK = b"\x1b_Gi=31;OK"


@dataclass(frozen=True)
class Terminal:
    """What stdout's terminal can do."""

    graphics: Graphics
    columns: int
    rows: int
    cell: tuple[int, int] = _USUAL_CELL
    colours: Colours = "true"
    unicode: bool = True


def show_pictures(pictures: Sequence[Image.Image], hushed: bool = False) -> None:
    """Show them one below the other, where there is somebody to see them."""
    terminal = terminal_here(os.environ)
    if terminal is None:
        if not hushed:
            note("--show: stdout is no terminal that shows pictures, so nothing is shown")
        return
    for each in pictures:
        sys.stdout.write(drawn(each, terminal))
    sys.stdout.flush()


def show_results(pictures: Sequence[Image.Image], hushed: bool = False) -> None:
    """One picture as it is, several on one sheet."""
    from overpaint.pixels.grid import grid_shape, image_grid

    if len(pictures) > 1:
        rows, _ = grid_shape(len(pictures), 1)
        show_pictures([image_grid(pictures, rows, "white")], hushed)
    elif pictures:
        show_pictures(pictures, hushed)


def drawn(picture: Image.Image, terminal: Terminal) -> str:
    """The text that shows a picture there."""
    from overpaint.pixels import for_terminals

    columns, rows = terminal.columns, min(max(terminal.rows - 2, 4), _MOST_ROWS)
    cells = for_terminals.fitted_cells(picture, columns, rows, terminal.cell)
    if terminal.graphics == "kitty":
        return for_terminals.as_kitty(picture, *cells)
    if terminal.graphics == "iterm2":
        return for_terminals.as_iterm2(picture, *cells)
    if terminal.graphics == "sixel":
        scale = min(1.0, columns * terminal.cell[0] / picture.width, rows * terminal.cell[1] / picture.height)
        return for_terminals.as_sixel(
            picture, (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
        )
    # A block is half as high as a character; a small picture takes one for each of its pixels.
    wide, high = for_terminals.fitted_cells(picture, columns, rows, (1, 2))
    return for_terminals.as_blocks(picture, wide, high, terminal.colours, unicode=terminal.unicode)


def terminal_here(environment: Mapping[str, str]) -> Terminal | None:
    """The terminal behind stdout; None where there is none, or one that shows text alone."""
    from overpaint.pixels.for_terminals import Graphics

    named = environment.get(SHOW_VARIABLE, "")
    if named and named not in (*get_args(Graphics), "none"):
        raise RequestError(SHOW_VARIABLE, named, f"choose one of {', '.join(get_args(Graphics))}, none")
    if named == "none" or not sys.stdout.isatty() or environment.get("TERM") == "dumb":
        return None
    answer = b"" if named else _answer_of_terminal()
    graphics = cast("Graphics", named) if named else graphics_of(environment, answer)
    columns, rows, cell = _room(answer)
    true = environment.get("COLORTERM") in ("truecolor", "24bit") or graphics != "blocks" or os.name == "nt"
    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    return Terminal(graphics, columns, rows, cell, "true" if true else "256", unicode)


def graphics_of(environment: Mapping[str, str], answer: bytes = b"") -> Graphics:
    """The best kind of pictures that a terminal is known for, or says that it can show."""
    program, term = environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")
    is_inside = "TMUX" in environment or term.startswith(("screen", "tmux"))  # which keeps most of it to itself
    if not is_inside:
        if "KITTY_WINDOW_ID" in environment or term == "xterm-kitty" or program == "ghostty" or _KITTY_OK in answer:
            return "kitty"
        if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    found = _IS.search(answer)
    return "sixel" if found is not None and b"4" in found[1].split(b";")[1:] else "blocks"


def _room(answer: bytes) -> tuple[int, int, tuple[int, int]]:
    """Columns and rows of the terminal, and the pixels of a character."""
    import shutil

    size = shutil.get_terminal_size(_USUAL_SIZE)
    found = _CELL.search(answer)
    if found is not None and int(found[1]) and int(found[2]):
        return size.columns, size.lines, (int(found[2]), int(found[1]))
    return size.columns, size.lines, _USUAL_CELL


def _answer_of_terminal() -> bytes:
    """What the terminal says of itself. One that says nothing costs half a second, once."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        return b""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():  # in the background the system would stop us
            return b""
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal, termios.TCSANOW)
            os.write(terminal, _QUESTION)
            return _read_answer(terminal)
        finally:
            termios.tcsetattr(terminal, termios.TCSANOW, before)
            termios.tcflush(terminal, termios.TCIFLUSH)
    except (OSError, termios.error):
        return b""
    finally:
        os.close(terminal)


def _read_answer(terminal: int) -> bytes:
    import select

    answer, end = b"", time.monotonic() + _ANSWER_SECONDS
    while _IS.search(answer) is None and (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            answer += os.read(terminal, 1024)
    return answer
