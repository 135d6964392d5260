"""Requests, plans and finished pictures of jobs too small to need a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overpaint.planning.plan import Plan, plan
from overpaint.request import Img2ImgRequest, PaintRequest, Picture
from overpaint.settings import Quirks, Settings

SANE = Settings()
REFERENCE = Settings.reference()


def noisy_picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Picture:
    """Every pixel different, so that a shifted or resampled one shows."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), values.tobytes())


def box_mask(width: int, height: int, box: tuple[int, int, int, int]) -> Picture:
    """Black, with a white box."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, box)
    return mask


def asked(**fields: Any) -> PaintRequest:
    """A small request with fixed seeds."""
    given = {"images": (noisy_picture(32, 32),), "steps": 4, "seed": 1, "variation_seed": 2, **fields}
    return Img2ImgRequest(**given)


def planned(settings: Settings = SANE, /, **fields: Any) -> Plan:
    return plan(asked(**fields), settings)


def with_quirk(name: str) -> Settings:
    """Sane but for one accident."""
    return Settings(quirks=Quirks(**{name: True}))


def flat_pixels(of: Plan, color: tuple[int, int, int] = (10, 200, 30)) -> NDArray[np.uint8]:
    """What a decoder that knows one colour gives for a plan."""
    wide, high = (8 * side for side in of.geometry.latent_size)
    return np.full((high, wide, 3), color, dtype=np.uint8)
