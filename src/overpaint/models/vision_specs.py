"""The shapes of what a text encoder sees with, as frozen values. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Eyes:
    """How a family shows pictures to its text encoder."""

    side: int  # of a square of as many pixels as a picture is shown with; 0: as many as the model paints
    several: bool  # each of them with its number; otherwise one picture at most


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """The vision tower of Qwen2.5-VL (arXiv:2502.13923), and how pictures are shown to it."""

    width: int
    layers: int
    heads: int
    inner: int
    out: int  # the width of the text encoder
    eyes: Eyes
    patch: int = 14  # pixels a side of one cell
    joined: int = 2  # cells a side that become one token
    window: int = 4  # tokens a side that attend to each other
    whole_every: int = 8  # in each layer with a multiple of this number all do

    @property
    def unit(self) -> int:
        """Pixels a side of one token."""
        return self.patch * self.joined
