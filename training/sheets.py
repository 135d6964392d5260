"""Contact sheets: prompts from nothing, sources at rising strength, one mask filled in many ways."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from overpaint.engine import Engine
from overpaint.request import Img2ImgRequest
from training.sampling import Manner, Sampler
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


def write_sheets(sampler: Sampler, checkpoint: Path, art: Art, folder: Path, manner: Manner) -> None:
    """From nothing with the plain sampler; over pictures with the project's own engine, as users do."""
    painted = sampler.paint(_PROMPTS, manner)
    cells = list(zip(painted, _PROMPTS, strict=True))
    contact_sheet([cells[i : i + 8] for i in range(0, len(cells), 8)]).save(folder / "sheet-txt2img.png")
    with Engine(checkpoint) as engine:
        contact_sheet(_img2img(sampler, engine, art, manner)).save(folder / "sheet-img2img.png")
        contact_sheet(_inpainting(engine, art, manner)).save(folder / "sheet-inpaint.png")


def _img2img(sampler: Sampler, engine: Engine, art: Art, manner: Manner) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for number, (labels, prompt) in enumerate(_CHANGES):
        source = render((HELD_OUT, 50_000 + number), manner.size, art, labels).pixels
        codec = sampler.decode(sampler.encode(source[None]))[0]
        row: list[Cell] = [(source, "source"), (codec, "through the codec")]
        for strength in _STRENGTHS:
            request = Img2ImgRequest(
                images=(Image.fromarray(source),), prompt=prompt, strength=strength, cfg_scale=manner.guidance, seed=1
            )
            row.append((_pixels(engine.paint(request).images[0]), f"{strength}: {prompt}"))
        rows.append(row)
    return rows


def _inpainting(engine: Engine, art: Art, manner: Manner) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    hole = Image.new("L", (manner.size, manner.size))
    ImageDraw.Draw(hole).rectangle(tuple(side * manner.size for side in _HOLE), fill=255)
    for number, (labels, prompts) in enumerate(_FILLINGS):
        source = Image.fromarray(render((HELD_OUT, 60_000 + number), manner.size, art, labels).pixels)
        shown = Image.composite(Image.new("RGB", source.size, "gray"), source, hole.point(lambda value: value * 0.6))
        row: list[Cell] = [(_pixels(source), "source"), (_pixels(shown), "mask")]
        for prompt in prompts:
            request = Img2ImgRequest(
                images=(source,), mask=hole, prompt=prompt, strength=1.0, cfg_scale=manner.guidance, seed=2
            )
            row.append((_pixels(engine.paint(request).images[0]), prompt))
        rows.append(row)
    return rows


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.convert("RGB"))


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
