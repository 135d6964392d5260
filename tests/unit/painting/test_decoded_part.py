"""Which part of a pass is decoded where its denoiser saw a window, and where all of it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.families import SD1_SPEC
from overpaint.painting.windowed import MARGIN, WindowedCodec, part_to_decode
from overpaint.planning.plan import plan
from overpaint.planning.plans import Plan
from overpaint.planning.window import LatentWindow
from tests.unit.toy_job import SANE, asked, box_mask, noisy_picture

SPEC = replace(SD1_SPEC, native_size=128)
SIDE = 512


def made(box: tuple[int, int, int, int] = (240, 240, 272, 272), option: str = "auto", **fields: Any) -> Plan:
    given = {"images": (noisy_picture(SIDE, SIDE),), "mask": box_mask(SIDE, SIDE, box), "width": SIDE, "height": SIDE}
    overrides = {"inpaint_window": option, **fields.pop("overrides", {})}
    return plan(asked(**{**given, "mask_blur_x": 0, "mask_blur_y": 0, "overrides": overrides, **fields}), SANE, SPEC)


def test_the_mask_the_band_beside_it_and_the_margin() -> None:
    # 30 to 34 is the mask, in cells; blending looks at 2 more
    assert part_to_decode(made()) == LatentWindow(28 - MARGIN, 28 - MARGIN, 36 + MARGIN, 36 + MARGIN)
    assert part_to_decode(made((0, 240, 32, 272))) == LatentWindow(0, 28 - MARGIN, 6 + MARGIN, 36 + MARGIN)


def test_a_blurred_mask_reaches_further() -> None:
    sharp, blurred = part_to_decode(made()), part_to_decode(made(mask_blur_x=8, mask_blur_y=8))
    assert sharp is not None and blurred is not None
    assert blurred.left < sharp.left and blurred.bottom > sharp.bottom


@pytest.mark.parametrize(
    "fields",
    [
        {"option": "off"},
        {"box": (8, 8, 500, 480)},  # large: the denoiser saw all of it, too
        {"overrides": {"overlay_inpaint": False}},  # the result shows all that was painted
        {"color_correction": True},  # the colours of the whole picture are looked at
    ],
)
def test_all_is_decoded_where_more_of_it_matters(fields: dict[str, Any]) -> None:
    assert part_to_decode(made(**fields)) is None


class Doubling:
    """A codec of 8x8 blocks, which remembers what it decoded."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.decoded: list[tuple[int, ...]] = []

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels, pixels

    def decode(self, z: Tensor, fallback: object = None) -> Tensor:
        self.decoded.append(tuple(z.shape))
        return z.repeat_interleave(8, -2).repeat_interleave(8, -1)[:, :3]


def test_a_part_keeps_its_place() -> None:
    inner, z = Doubling(), torch.arange(4.0 * 12 * 10).reshape(1, 4, 12, 10) + 1
    codec = WindowedCodec(inner, LatentWindow(2, 3, 7, 9), 8)
    pixels, whole = codec.decode(z), inner.decode(z)
    assert inner.decoded[0] == (1, 4, 6, 5) and pixels.shape == (1, 3, 96, 80)
    inside = (..., slice(24, 72), slice(16, 56))
    assert torch.equal(pixels[inside], whole[inside])
    pixels[inside] = 0
    assert not pixels.any()
    assert codec.encode(whole)[0] is whole and codec.device == inner.device
