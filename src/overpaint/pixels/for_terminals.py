"""A picture as text that a terminal shows as a picture: Kitty's, iTerm2's and Sixel graphics, or coloured blocks."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Graphics = Literal["kitty", "iterm2", "sixel", "blocks"]
Colours = Literal["true", "256"]

_ESC, _BEL = "\x1b", "\x07"
_END = f"{_ESC}\\"
_CHUNK = 4096  # characters of one of Kitty's messages
_GROUND = "#808080"  # shows through where a picture is transparent
_CUBE = (0, 95, 135, 175, 215, 255)  # the levels of the 216 colours of a terminal's table
_UPPER_HALF = "\u2580"


def as_kitty(picture: Image.Image, columns: int, rows: int) -> str:
    """Kitty's graphics protocol: a PNG, placed where the cursor is; no answer is asked for."""
    data = base64.b64encode(_png(picture)).decode("ascii")
    chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        more = int(number < len(chunks) - 1)
        head = f"a=T,f=100,q=2,c={columns},r={rows},m={more}" if number == 0 else f"q=2,m={more}"
        parts.append(f"{_ESC}_G{head};{chunk}{_END}")
    return "".join(parts) + "\n"


def as_iterm2(picture: Image.Image, columns: int, rows: int) -> str:
    """Inline images of iTerm2."""
    data = _png(picture)
    head = f"inline=1;size={len(data)};width={columns};height={rows};preserveAspectRatio=1"
    return f"{_ESC}]1337;File={head}:{base64.b64encode(data).decode('ascii')}{_BEL}\n"


def as_sixel(picture: Image.Image, size: tuple[int, int]) -> str:
    """Sixel graphics: up to 256 colours, six rows of pixels at a time."""
    indexed = _opaque(picture).resize(size, Image.Resampling.LANCZOS).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    values = np.asarray(indexed)
    colours = np.array(indexed.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = np.unique(values)
    palette = "".join(f"#{i};2;{';'.join(str(round(each / 2.55)) for each in colours[i])}" for i in used)
    bands = (_band(values[top : top + 6]) for top in range(0, values.shape[0], 6))
    return f'{_ESC}P0;1q"1;1;{size[0]};{size[1]}{palette}{"-".join(bands)}{_END}\n'


def as_blocks(picture: Image.Image, columns: int, rows: int, colours: Colours = "true", *, unicode: bool = True) -> str:
    """Two pixels a character, the upper one in the colour of the letter and the lower one in that of its ground.

    Without Unicode it is one pixel a character.
    """
    size = (columns, 2 * rows if unicode else rows)
    pixels = np.asarray(_opaque(picture).resize(size, Image.Resampling.LANCZOS))
    lines = (_line(pixels[2 * row], pixels[2 * row + 1], colours) for row in range(rows))
    if not unicode:
        lines = (_line(None, pixels[row], colours) for row in range(rows))
    return "".join(f"{line}{_ESC}[0m\n" for line in lines)


def fitted_cells(picture: Image.Image, columns: int, rows: int, cell: tuple[int, int]) -> tuple[int, int]:
    """How many cells wide and high a picture is shown: in its own shape, within the room, never larger than it is."""
    wide, high = picture.width / cell[0], picture.height / cell[1]
    scale = min(columns / wide, rows / high, 1.0)
    return max(1, round(wide * scale)), max(1, round(high * scale))


def _png(picture: Image.Image) -> bytes:
    shown = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGBA")
    data = io.BytesIO()
    shown.save(data, "PNG")
    return data.getvalue()


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGB", picture.size, _GROUND)
    ground.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    return ground


def _band(rows: npt.NDArray[np.uint8]) -> str:
    """Each colour's sixels in turn, all from the left; `$` goes back there."""
    weights = (1 << np.arange(len(rows)))[:, None]
    found = []
    for colour in np.unique(rows):
        sixels = ((rows == colour) * weights).sum(axis=0)
        found.append(f"#{colour}{''.join(_runs(sixels))}")
    return "$".join(found)


def _runs(sixels: npt.NDArray[np.int64]) -> Iterator[str]:
    """Equal neighbours as a count; what is empty at the end is left out."""
    shown = sixels[: int(np.flatnonzero(sixels)[-1]) + 1]
    for run in np.split(shown, np.flatnonzero(np.diff(shown)) + 1):
        letter = chr(63 + int(run[0]))
        yield f"!{len(run)}{letter}" if len(run) > 3 else letter * len(run)


def _line(upper: npt.NDArray[np.uint8] | None, lower: npt.NDArray[np.uint8], colours: Colours) -> str:
    """A colour is said only where it changes."""
    found, before = [], ("", "")
    for i in range(len(lower)):
        fore = "" if upper is None else _colour(upper[i], 38, colours)
        back = _colour(lower[i], 48, colours)
        found.append(f"{fore if fore != before[0] else ''}{back if back != before[1] else ''}")
        found.append(" " if upper is None else _UPPER_HALF)
        before = fore, back
    return "".join(found)


def _colour(pixel: npt.NDArray[np.uint8], kind: int, colours: Colours) -> str:
    red, green, blue = (int(each) for each in pixel)
    if colours == "true":
        return f"{_ESC}[{kind};2;{red};{green};{blue}m"
    places = [min((abs(level - each), i) for i, level in enumerate(_CUBE))[1] for each in (red, green, blue)]
    return f"{_ESC}[{kind};5;{16 + 36 * places[0] + 6 * places[1] + places[2]}m"
