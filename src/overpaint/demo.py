"""A small gallery, painted from pictures that come with the package: what `overpaint demo` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from overpaint.models.built_in import DATA
from overpaint.pictures import open_picture
from overpaint.request import Img2ImgRequest, MaskedContent, PaintRequest, Picture, Txt2ImgRequest

SIDE = 128  # of the sources: the built-in model's native size
SOURCES = DATA / "demo"
_STEPS, _CFG = 12, 5.0
_SEED = 3
_CAR, _MIDDLE = (8, 60, 118, 116), (24, 0, 104, 128)  # what is repainted; what is left of the picture to be widened
_STRENGTHS, _VARIED = (0.3, 0.5, 0.7, 0.9), (0.15, 0.3, 0.45, 0.6)
_PAINTS = ("red", "yellow", "white")
_MOTIF, _STYLES = "mountains", ("a photo", "a watercolor painting", "an oil painting", "a pencil sketch", "pixel art")

_TILE, _GAP, _CAPTION, _TITLE = 152, 10, 20, 30  # pixels of the sheet
_PAPER, _INK, _FAINT = "#ffffff", "#1c1c1c", "#606060"

Paint = Callable[[PaintRequest], Sequence[Picture]]


@dataclass(frozen=True)
class GalleryRow:
    """One line of the gallery: pictures that are there, then those of some requests, each with its caption."""

    title: str
    captions: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    requests: tuple[PaintRequest, ...] = ()

    @property
    def wanted(self) -> int:
        """How many pictures are still to be painted."""
        return sum(each.batch_size for each in self.requests)


def gallery(sources: Path = SOURCES) -> tuple[GalleryRow, ...]:
    """All that is going to be painted."""
    forest, car, lake = (open_picture(sources / f"{name}.png") for name in ("forest", "car", "lake"))
    return (_changed(forest), _inpainted(car), _outpainted(lake), _varied(), _styled())


def painted(rows: Sequence[GalleryRow], paint: Paint) -> Iterator[GalleryRow]:
    """Row after row with its pictures."""
    for row in rows:
        found = tuple(picture for request in row.requests for picture in paint(request))
        yield replace(row, pictures=(*row.pictures, *found), requests=())


def sheet(rows: Sequence[GalleryRow]) -> Picture:
    """Every picture with its caption on one page."""
    columns = max(len(row.captions) for row in rows)
    height = _TITLE + _TILE + _CAPTION + _GAP
    page = Image.new("RGB", (_GAP + columns * (_TILE + _GAP), _GAP + len(rows) * height), _PAPER)
    draw = ImageDraw.Draw(page)
    title, small = ImageFont.load_default(16), ImageFont.load_default(11)
    for number, row in enumerate(rows):
        top = _GAP + number * height
        draw.text((_GAP, top + 4), row.title, _INK, title)
        for column, (picture, caption) in enumerate(zip(row.pictures, row.captions, strict=True)):
            left = _GAP + column * (_TILE + _GAP)
            page.paste(picture.convert("RGB").resize((_TILE, _TILE), Image.Resampling.BICUBIC), (left, top + _TITLE))
            draw.text((left, top + _TITLE + _TILE + 3), caption, _FAINT, small)
    return page


_over = partial(Img2ImgRequest, steps=_STEPS, cfg_scale=_CFG)
_new = partial(Txt2ImgRequest, steps=_STEPS, cfg_scale=_CFG, width=SIDE, height=SIDE)


def _changed(source: Picture) -> GalleryRow:
    prompt = "an autumn forest"
    requests = tuple(_over(images=(source,), prompt=prompt, strength=each, seed=_SEED) for each in _STRENGTHS)
    captions = ("source", *(f"strength {each}" for each in _STRENGTHS))
    return GalleryRow(f'img2img: "{prompt}"', captions, (source,), requests)


def _inpainted(source: Picture) -> GalleryRow:
    mask = Image.new("L", source.size)
    ImageDraw.Draw(mask).rounded_rectangle(_CAR, 10, 255)
    prompts = tuple(f"a {colour} sports car on a road" for colour in _PAINTS)
    request = _over(images=(source,), mask=mask, prompt=prompts, strength=0.9, **_several(prompts))
    captions = ("source", "mask", *(f"{colour}" for colour in _PAINTS))
    return GalleryRow('inpaint: "a ... sports car on a road"', captions, (source, mask), (request,))


def _outpainted(source: Picture) -> GalleryRow:
    """A canvas around what is left of the picture, its new parts started from smeared surroundings."""
    canvas, mask = Image.new("RGB", source.size, "#808080"), Image.new("L", source.size, 255)
    canvas.paste(source.crop(_MIDDLE), _MIDDLE)
    mask.paste(0, _MIDDLE)
    manner: dict[str, Any] = {"mask": mask, "masked_content": MaskedContent.FILL, "strength": 0.9}
    request = _over(images=(canvas,), prompt="a lake", batch_size=3, seed=_SEED, **manner)
    captions = ("a narrow picture", "mask", *(f"seed {_SEED + each}" for each in range(3)))
    return GalleryRow('outpaint: "a lake", the new parts of its canvas masked', captions, (canvas, mask), (request,))


def _varied() -> GalleryRow:
    prompt = "a sailboat on the sea"
    requests = tuple(_new(prompt=prompt, seed=7, variation_seed=8, variation_strength=each) for each in (0.0, *_VARIED))
    captions = ("seed 7", *(f"{each} of seed 8 mixed in" for each in _VARIED))
    return GalleryRow(f'variations: "{prompt}"', captions, (), requests)


def _styled() -> GalleryRow:
    prompts = tuple(f"{style} of {_MOTIF}" for style in _STYLES)
    request = _new(prompt=prompts, **_several(prompts))
    return GalleryRow(f'txt2img: "... of {_MOTIF}", one seed', _STYLES, (), (request,))


def _several(prompts: Sequence[str]) -> dict[str, Any]:
    """One picture for each prompt, all with the same seed, at once."""
    return {"batch_size": len(prompts), "seed": (_SEED,) * len(prompts)}
