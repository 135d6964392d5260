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
from overpaint.request import Img2ImgRequest, PaintRequest, Picture, Txt2ImgRequest
from overpaint.sequences.axes import axis_from_text
from overpaint.sequences.grid import PictureGrid
from overpaint.sequences.outpaint import Outpainting

SIDE = 128  # of the sources: the built-in model's native size
SOURCES = DATA / "demo"
_STEPS, _CFG = 12, 5.0
_SEED = 3
_CAR, _MIDDLE = (8, 60, 118, 116), (24, 0, 104, 128)  # what is repainted; what is left of the picture to be widened
_STRENGTHS, _SEASONS, _VARIED = (0.3, 0.5, 0.7, 0.9), ("autumn", "winter"), (0.15, 0.3, 0.45, 0.6)
_PAINTS = ("red", "yellow", "white")
_MOTIF, _STYLES = "mountains", ("a photo", "a watercolor painting", "an oil painting", "a pencil sketch", "pixel art")

_TILE, _GAP, _CAPTION, _TITLE = 152, 10, 20, 30  # pixels of the sheet
_PAPER, _INK, _FAINT, _EMPTY = "#ffffff", "#1c1c1c", "#606060", "#e4e4e4"

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
    return (*_changed(forest), _inpainted(car), _outpainted(lake), _varied(), _styled())


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


def _changed(source: Picture) -> tuple[GalleryRow, ...]:
    """The cells of a grid, a row for each season."""
    prompt = f"a photo of a forest in {_SEASONS[0]}"
    grid = PictureGrid(
        request=_over(images=(source,), prompt=prompt, seed=_SEED),
        x=axis_from_text("strength", ",".join(map(str, _STRENGTHS))),
        y=axis_from_text("replace", ",".join(_SEASONS)),
    )
    cells, across = [each.request for each in grid.outline()], len(_STRENGTHS)
    captions = ("source", *(f"strength {each}" for each in _STRENGTHS))
    titles = (f'grid: "{prompt}", strength across', f'"... in {_SEASONS[1]}", season down')
    return tuple(
        GalleryRow(title, captions, (source,), tuple(cells[number * across : (number + 1) * across]))
        for number, title in enumerate(titles)
    )


def _inpainted(source: Picture) -> GalleryRow:
    mask = Image.new("L", source.size)
    ImageDraw.Draw(mask).rounded_rectangle(_CAR, 10, 255)
    prompts = tuple(f"a {colour} sports car on a road" for colour in _PAINTS)
    request = _over(images=(source,), mask=mask, prompt=prompts, strength=0.9, **_several(prompts))
    captions = ("source", "mask", *(f"{colour}" for colour in _PAINTS))
    return GalleryRow('inpaint: "a ... sports car on a road"', captions, (source, mask), (request,))


def _outpainted(source: Picture) -> GalleryRow:
    """What is left of the picture, and the canvas that the new parts are begun with."""
    left, _, right, _ = _MIDDLE
    request = _over(images=(source.crop(_MIDDLE),), prompt="a lake", strength=0.9, batch_size=3, seed=_SEED)
    wider = Outpainting(request=request, left=left, right=source.width - right)
    narrow = Image.new("RGB", source.size, _EMPTY)
    narrow.paste(source.crop(_MIDDLE), _MIDDLE)
    captions = ("a narrow picture", "what it begins with", *(f"seed {_SEED + each}" for each in range(3)))
    title = f'outpaint: "a lake", {left} pixels more on both sides'
    return GalleryRow(title, captions, (narrow, wider.canvas), (wider.step(0, ()).request,))


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
