"""What each row of a run keeps of the U-Net's deep layers from one call for the next ones.

The deep layers change little from step to step. So of every few calls one goes through all of them, and the others take
over what they said then (Ma, Fang and Wang, "DeepCache: Accelerating Diffusion Models for Free", arXiv:2312.00858).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from overpaint.networks.unet import DeepMap
from overpaint.painting.denoise import Row


@dataclass(eq=False)
class DeepMaps:
    """Those of one run. A row is known by its number: sub-prompts come first, and negatives, which may be left out."""

    _maps: list[DeepMap] = field(default_factory=list)

    def given_to(self, rows: Sequence[Row], call: int, interval: int) -> list[Row]:
        """The rows of a call, each with its map; an empty one asks for a call in full."""
        if interval == 1:
            return list(rows)
        if call % interval == 0:
            self.forget()
        self._maps += [DeepMap() for _ in rows[len(self._maps) :]]
        return [replace(row, deep=own) for row, own in zip(rows, self._maps, strict=False)]

    def forget(self) -> None:
        """Have the next call go through all layers, of another network for instance."""
        self._maps = []
