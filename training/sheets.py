"""Contact sheets: prompts from nothing, sources at rising strength, one mask filled in many ways."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.masks import around
from training.painting import Painter
from training.scenes.art import Art
from training.scenes.labels import Item, Labels
from training.scenes.scene import render
from training.store import HELD_OUT

_PROMPTS = (
    "a red sports car on a road",
    "a blue sports car on a road",
    "a red car in a city",
    "a green car on a white background",
    "a fox on a beach at sunset",
    "a fox in a forest",
    "a dog in a meadow",
    "a cat on a blue background",
    "a watercolor painting of a forest",
    "an oil painting of a lake",
    "a pencil sketch of a house",
    "pixel art of a castle",
    "a flat illustration of mountains",
    "a black and white photo of a city",
    "an autumn forest",
    "a beach",
    "a forest at night",
    "a city at night",
    "snow",
    "a meadow in falling snow",
    "mountains at sunset",
    "a desert",
    "a sailboat on the sea",
    "a rocket in space",
    "a tree in a meadow",
    "a penguin in the snow",
    "a red balloon in the mountains",
    "a snowman in the snow",
    "a palm tree on a beach",
    "an apple on a white background",
    "a robot in a city",
    "a house in a meadow at night",
)
_CHANGES = (
    (Labels(place="meadow", items=(Item("house"),)), "a watercolor painting of a house in a meadow"),
    (Labels(place="road", items=(Item("car", "blue"),)), "a red car on a road at night"),
    (Labels(place="beach", items=(Item("dog"),)), "a fox on a beach at sunset"),
    (Labels(place="forest"), "a watercolor painting of a forest"),
    (Labels(place="road", items=(Item("sports car", "blue"),)), "a red sports car on a road"),
)
_STRENGTHS = (0.3, 0.45, 0.6, 0.75, 0.9)
_FILLINGS: tuple[tuple[Labels, tuple[str, ...]], ...] = (
    (
        Labels(place="road"),
        tuple(f"{thing} on a road" for thing in ("a red sports car", "a blue car", "a bus", "a horse")),
    ),
    (
        Labels(place="beach", time="sunset"),
        tuple(f"a {thing} on a beach at sunset" for thing in ("fox", "dog", "palm tree", "castle")),
    ),
    (Labels(place="meadow"), tuple(f"a {thing} in a meadow" for thing in ("house", "tree", "snowman", "robot"))),
)
_HOLE = (0.1875, 0.375, 0.8125, 0.875)

Cell: TypeAlias = tuple[NDArray[np.uint8], str]


def write_sheets(painter: Painter, art: Art, folder: Path, size: int) -> None:
    """Painted as users do it, at the product's defaults."""
    painted = painter.from_nothing(_PROMPTS, size)
    cells = list(zip(painted, _PROMPTS, strict=True))
    contact_sheet([cells[i : i + 8] for i in range(0, len(cells), 8)]).save(folder / "sheet-txt2img.png")
    contact_sheet(_img2img(painter, art, size)).save(folder / "sheet-img2img.png")
    contact_sheet(_inpainting(painter, art, size)).save(folder / "sheet-inpaint.png")


def _img2img(painter: Painter, art: Art, size: int) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for number, (labels, prompt) in enumerate(_CHANGES):
        source = render((HELD_OUT, 50_000 + number), size, art, labels).pixels[None]
        series = [(painter.over(source, [prompt], 1, strength=each)[0], f"{each}: {prompt}") for each in _STRENGTHS]
        rows.append([(source[0], "source"), (painter.through_codec(source)[0], "through the codec"), *series])
    return rows


def _inpainting(painter: Painter, art: Art, size: int) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    hole = around(_HOLE, size)
    for number, (labels, prompts) in enumerate(_FILLINGS):
        source = render((HELD_OUT, 60_000 + number), size, art, labels).pixels
        shown = np.where(hole[..., None], source // 3 + 80, source).astype(np.uint8)
        masks, sources = (np.stack([each] * len(prompts)) for each in (hole.astype(np.uint8) * 255, source))
        filled = painter.inside(masks, sources, prompts, 2, strength=1.0)
        rows.append([(source, "source"), (shown, "mask"), *zip(filled, prompts, strict=True)])
    return rows


def contact_sheet(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Rows of pictures, each with its words below."""
    side, words = rows[0][0][0].shape[0], 30
    width = max(len(row) for row in rows) * (side + 4)
    sheet = Image.new("RGB", (width, len(rows) * (side + words)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (pixels, text) in enumerate(row):
            corner = (x * (side + 4), y * (side + words))
            sheet.paste(Image.fromarray(pixels), corner)
            lines = textwrap.wrap(text, max(12, side // 5))[:2]
            pen.multiline_text((corner[0], corner[1] + side + 1), "\n".join(lines), fill="black", font_size=9)
    return sheet
