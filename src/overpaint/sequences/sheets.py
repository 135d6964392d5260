"""Labelled sheets: pictures in rows and columns, with titles on both sides, margins between, and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

from PIL import Image, ImageDraw, ImageFont

from overpaint.request import Picture

_INK, _PALE = "#101010", "#707070"
_SMALLEST, _LARGEST = 10, 40  # points
_SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")

SheetFont = ImageFont.FreeTypeFont | ImageFont.ImageFont


def labelled_sheet(
    pictures: Sequence[Picture | None],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    margin: int = 0,
    background: str = "white",
    titles: tuple[str, str] = ("", ""),
    legend: str = "",
) -> Picture:
    """Pictures in reading order, as many as columns times rows; a missing one leaves its place empty.

    `titles` are the names of the axes, across and down. With titles beside its rows a sheet has room on its other
    sides, too; one of bare pictures has none.
    """
    size = _cell(pictures)
    font = sheet_font(size, "".join((*columns, *rows, *titles, legend)))
    table = _table(pictures, len(columns), len(rows), size, margin, background)
    top = _strip(columns, size[0], margin, font, background) if any(columns) else None
    left = _side(rows, size[1], margin, font, background, limit=max(2 * size[0], 96)) if any(rows) else None
    head = _heading(titles, font, background)
    room = line_height(font) // 2 if left else 0
    wide = (left.width if left else 0) + table.width + room
    foot = _paragraph(legend, font, wide, background) if legend else None
    parts = [each for each in (head, top) if each is not None]
    high = sum(each.height for each in parts) + table.height + (foot.height if foot else room)
    sheet = Image.new("RGB", (max([wide, *([head.width] if head else [])]), high), background)
    y = 0
    if head is not None:
        sheet.paste(head, (0, y))
        y += head.height
    x = left.width if left else 0
    if top is not None:
        sheet.paste(top, (x, y))
        y += top.height
    if left is not None:
        sheet.paste(left, (0, y))
    sheet.paste(table, (x, y))
    if foot is not None:
        sheet.paste(foot, (0, y + table.height))
    return sheet


def stacked_sheets(
    sheets: Sequence[Picture], labels: Sequence[str], background: str = "white", legend: str = ""
) -> Picture:
    """Sheets side by side, each under its own label: the third axis of a grid."""
    return labelled_sheet(sheets, labels, [""], margin=_gap(sheets), background=background, legend=legend)


def _gap(sheets: Sequence[Picture]) -> int:
    return max(4, sheets[0].width // 50)


def _cell(pictures: Sequence[Picture | None]) -> tuple[int, int]:
    there = [each for each in pictures if each is not None]
    return max((each.width for each in there), default=64), max((each.height for each in there), default=64)


def _table(
    pictures: Sequence[Picture | None], across: int, down: int, size: tuple[int, int], margin: int, background: str
) -> Picture:
    wide, high = size
    table = Image.new("RGB", (across * (wide + margin) - margin, down * (high + margin) - margin), background)
    for i, each in enumerate(pictures):
        if each is not None:
            row, column = divmod(i, across)
            x, y = column * (wide + margin), row * (high + margin)
            table.paste(on_white(each), (x + (wide - each.width) // 2, y + (high - each.height) // 2))
    return table


def on_white(picture: Picture) -> Picture:
    """Transparent parts on white, so that what cannot be seen is not shown black."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    return ground


def sheet_font(size: tuple[int, int], text: str) -> SheetFont:
    """Pillow's own, the same everywhere; it knows little but ASCII, so other letters take a font of the system."""
    points = min(_LARGEST, max(_SMALLEST, min(size) // 14))
    for name in () if text.isascii() else _SYSTEM_FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, points)
    return ImageFont.load_default(points)


def line_height(font: SheetFont) -> int:
    _, top, _, bottom = font.getbbox("Agj|")
    return math.ceil((bottom - top) * 1.35)


def wrapped(text: str, font: SheetFont, width: int) -> list[str]:
    """The text in lines of at most this width; a word that is longer is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if font.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            line = _shortened(word, font, width)
        lines.append(line)
    return lines


def _shortened(word: str, font: SheetFont, width: int) -> str:
    if font.getlength(word) <= width:
        return word
    while len(word) > 1 and font.getlength(word + "...") > width:
        word = word[:-1]
    return word + "..."


def _strip(labels: Sequence[str], width: int, margin: int, font: SheetFont, background: str) -> Picture:
    """Titles over columns."""
    lines = [wrapped(each, font, max(width - 4, 8)) for each in labels]
    step = line_height(font)
    high = max(map(len, lines)) * step + step // 2
    strip = Image.new("RGB", (len(labels) * (width + margin) - margin, high), background)
    draw = ImageDraw.Draw(strip)
    for i, own in enumerate(lines):
        y = high - len(own) * step - step // 4
        for line in own:
            x = i * (width + margin) + (width - font.getlength(line)) / 2
            draw.text((x, y), line, fill=_INK, font=font)
            y += step
    return strip


def _side(labels: Sequence[str], height: int, margin: int, font: SheetFont, background: str, limit: int) -> Picture:
    """Titles beside rows."""
    step = line_height(font)
    lines = [wrapped(each, font, limit) for each in labels]
    widest = math.ceil(max(font.getlength(line) for own in lines for line in own))
    side = Image.new("RGB", (widest + step, len(labels) * (height + margin) - margin), background)
    draw = ImageDraw.Draw(side)
    for i, own in enumerate(lines):
        shown = own[: max(1, height // step)]
        y = i * (height + margin) + (height - len(shown) * step) // 2
        for line in shown:
            draw.text((side.width - step // 2 - font.getlength(line), y), line, fill=_INK, font=font)
            y += step
    return side


def _heading(titles: tuple[str, str], font: SheetFont, background: str) -> Picture | None:
    """The names of the axes: across, then down."""
    across, down = titles
    text = ", ".join(part for part in (across and f"across: {across}", down and f"down: {down}") if part)
    if not text:
        return None
    step = line_height(font)
    head = Image.new("RGB", (math.ceil(font.getlength(text)) + step, 2 * step), background)
    ImageDraw.Draw(head).text((step // 2, step // 2), text, fill=_PALE, font=font)
    return head


def _paragraph(text: str, font: SheetFont, width: int, background: str) -> Picture:
    step = line_height(font)
    lines = wrapped(text, font, max(width - step, 32))
    foot = Image.new("RGB", (width, (len(lines) + 1) * step), background)
    draw = ImageDraw.Draw(foot)
    for i, line in enumerate(lines):
        draw.text((step // 2, step // 2 + i * step), line, fill=_PALE, font=font)
    return foot
