"""Contact sheets: pictures small and side by side, each with its caption below it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from overpaint.request import Picture
from overpaint.sequences.sheets import SheetFont, line_height, on_white, sheet_font, wrapped

_INK, _PALE, _FRAME = "#101010", "#5a5a5a", "#d0d0d0"
_MOST_LINES = 6  # of one caption


def contact_sheet(
    pictures: Sequence[Picture | None],
    captions: Sequence[Sequence[str]],
    *,
    columns: int,
    cell: int,
    background: str = "white",
) -> Picture:
    """Pictures in reading order in squares of `cell` pixels. A missing one leaves its frame empty.

    A caption is a few texts, each wrapped; the first is its title.
    """
    gap = max(8, cell // 20)
    font = sheet_font((cell, cell), "".join(text for each in captions for text in each))
    lines = [_caption(each, font, cell) for each in captions]
    step = line_height(font)
    heights = [
        cell + (step * max(map(len, own)) + step // 2 if any(own) else 0)
        for own in (lines[i : i + columns] for i in range(0, len(lines), columns))
    ]
    width = columns * (cell + gap) + gap
    sheet = Image.new("RGB", (width, sum(heights) + gap * (len(heights) + 1)), background)
    draw = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        x, y = gap + column * (cell + gap), gap + sum(heights[:row]) + gap * row
        _place(sheet, draw, picture, (x, y), cell)
        for number, (line, is_title) in enumerate(lines[i]):
            place = x, y + cell + step // 3 + number * step
            draw.text(place, line, fill=_INK if is_title else _PALE, font=font)
    return sheet


def sheet_columns(count: int, cell: int, wanted: int | None = None) -> int:
    """As many as were asked for, else those of a sheet that is somewhat wider than high."""
    return max(1, min(count, wanted or math.ceil(math.sqrt(count * 1.4)), 60_000 // (cell + cell // 20)))


def shown_small(picture: Picture, cell: int) -> Picture:
    """Within a square; a small picture grows by a whole factor, so that its pixels stay what they are."""
    scale = cell / max(picture.size)
    factor = scale if scale < 1 else float(int(scale))
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    way = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    return on_white(picture).resize(size, way)


def _place(
    sheet: Picture, draw: ImageDraw.ImageDraw, picture: Picture | None, place: tuple[int, int], cell: int
) -> None:
    x, y = place
    if picture is None:
        far_x, far_y = x + cell - 1, y + cell - 1
        draw.rectangle((x, y, far_x, far_y), fill="#f0f0f0", outline=_FRAME)
        draw.line((x, y, far_x, far_y), fill=_FRAME)
        draw.line((x, far_y, far_x, y), fill=_FRAME)
        return
    small = shown_small(picture, cell)
    sheet.paste(small, (x + (cell - small.width) // 2, y + (cell - small.height) // 2))


def _caption(texts: Sequence[str], font: SheetFont, cell: int) -> list[tuple[str, bool]]:
    lines = [(line, number == 0) for number, text in enumerate(texts) for line in wrapped(text, font, cell)]
    if len(lines) <= _MOST_LINES:
        return lines
    last, is_title = lines[_MOST_LINES - 1]
    return [*lines[: _MOST_LINES - 1], (f"{last.rstrip('.')} ...", is_title)]
