"""Enlarge: a picture made larger and painted over in parts that agree, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from overpaint.errors import RequestError
from overpaint.parts import LARGEST_SIDE, check_number
from overpaint.pixels.ground import Ground
from overpaint.pixels.resize import Upscaler, find_upscaler, upscaled
from overpaint.request import Picture
from overpaint.sequences.story import PaintingSequence, SequenceStep, StepResult, TilePixels, one_source
from overpaint.settings import Settings

SMALLEST_TILE = 64
GENTLE = 0.35  # the strength that adds detail and keeps the picture


@dataclass(frozen=True, kw_only=True)
class Enlargement(PaintingSequence):
    """One job on the enlarged picture. The denoiser sees it in tiles, blended at every step (arXiv:2302.08113)."""

    scale: float = 2.0
    upscaler: str = "Lanczos"
    tile: int | None = None  # pixels; None: what the model was trained at
    overlap: int | None = None  # pixels that tiles share; None: a quarter of a tile
    enlarged: Picture | None = None  # made by `prepared`

    kind: ClassVar[str] = "enlarge"

    def __post_init__(self) -> None:
        check_number("scale", self.scale, low=0.1, high=16)
        if self.overlap is not None:
            check_number("overlap", self.overlap, low=0, high=LARGEST_SIDE, whole=True)
        if self.tile is not None:
            check_number("tile", self.tile, low=SMALLEST_TILE, high=LARGEST_SIDE, whole=True)
            if self.overlap is not None and self.overlap >= self.tile:
                raise RequestError("overlap", self.overlap, f"give less than a tile's {self.tile} pixels")
        if max(self.size) > LARGEST_SIDE:
            size = f"{self.size[0]}x{self.size[1]}"
            raise RequestError("scale", self.scale, f"the result would be {size}; {LARGEST_SIDE} a side is the most")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the result."""
        source = one_source(self.request)
        return max(1, round(source.width * self.scale)), max(1, round(source.height * self.scale))

    def __len__(self) -> int:
        return 1

    def prepared(self, settings: Settings, known: Mapping[str, Upscaler]) -> PaintingSequence:
        """With the picture enlarged by the upscaler; "None" stretches it plainly."""
        strict = replace(settings.quirks, unknown_names_fall_back=False, upscale_to_multiples_of_8=False)
        enlarge = find_upscaler(self.upscaler, strict, known, field="upscaler") or find_upscaler("Lanczos", strict)
        assert enlarge is not None
        source = one_source(self.request)
        ground = Ground.of(source, settings.img2img_background_color)
        plain = ground.with_alpha() if not ground.is_plain else source
        plain = plain if plain.mode in ("L", "RGB", "RGBA") else plain.convert("RGB")
        larger = upscaled(plain, self.scale, enlarge, strict)
        larger = larger if larger.size == self.size else larger.resize(self.size)
        if not ground.is_plain:
            larger = ground.brought_back(larger)
            larger.info.update(ground.carried(larger))
        else:
            larger.info.update(source.info)
        return replace(self, enlarged=larger)

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        picture = self.enlarged or one_source(self.request)
        request = self.request.with_changes(images=(picture,), width=picture.width, height=picture.height)
        notes: dict[str, object] = {"Enlarged by": self.scale, "Enlarged with": self.upscaler}
        if self.tile is not None:
            notes["Tile size"] = self.tile
        if self.overlap is not None:
            notes["Tile overlap"] = self.overlap
        return SequenceStep(request=request, notes=notes, tiles=TilePixels(self.tile, self.overlap))
