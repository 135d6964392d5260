"""HIRES: the first pass's latents, enlarged: in latent space, or as a picture; and cut to what was asked."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.painting.hires import prepare_second
from overpaint.planning.plan import Plan, plan
from overpaint.request import Hires, Txt2ImgRequest
from tests.unit.toy_job import REFERENCE, SANE

LATENTS = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))


class BlockCodec:
    """A latent cell is a block of pixels in three colours; the fourth channel is lost."""

    device = torch.device("cpu")

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        small = F.avg_pool2d(pixels, 8)
        mean = torch.cat([small, torch.zeros_like(small[:, :1])], 1)
        return mean, torch.full_like(mean, -30.0)

    def decode(self, z: Tensor, fallback: Literal["float32", "bfloat16"] | None = None) -> Tensor:
        return F.interpolate(z[:, :3], scale_factor=8, mode="nearest")


def first(settings: Any = SANE, **hires: Any) -> Plan:
    return plan(Txt2ImgRequest(width=64, height=48, seed=1, batch_size=2, hires=Hires(**hires)), settings)


def grown(of: Plan, latents: Tensor = LATENTS) -> Tensor:
    return prepare_second(of, BlockCodec(), BlockCodec(), latents).latents


@pytest.mark.parametrize(
    ("upscaler", "how"),
    [
        ("Latent", {"mode": "bilinear", "antialias": False}),
        ("Latent (antialiased)", {"mode": "bilinear", "antialias": True}),
        ("Latent (nearest-exact)", {"mode": "nearest-exact", "antialias": False}),
    ],
)
def test_latents_are_interpolated(upscaler: str, how: dict[str, Any]) -> None:
    expected = F.interpolate(LATENTS, size=(9, 12), **how)
    assert torch.equal(grown(first(scale=1.5, upscaler=upscaler)), expected)


def test_what_covers_both_sides_is_cut_alike_at_either_end() -> None:
    whole = grown(first(scale=2))
    assert whole.shape[2:] == (12, 16)
    part = grown(first(width=96, height=96))
    assert part.shape[2:] == (12, 12) and torch.equal(part, whole[:, :, :, 2:14])


def test_a_picture_is_decoded_enlarged_and_encoded_again() -> None:
    of = first(scale=2, upscaler="Nearest")
    latents = (LATENTS[:, :, :, :] * 0.1).clamp(-0.15, 0.15)
    spec = of.spec.latent
    again = grown(of, latents)[:, :3]
    expected = latents[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (again - expected).abs().max() < 2.5 / 255 * spec.scale  # a picture has 8 bits


@pytest.mark.parametrize("settings", [SANE, REFERENCE])
def test_odd_sizes_end_on_whole_cells(settings: Any) -> None:
    of = first(settings, scale=1.3, upscaler="Lanczos")
    assert of.hires is not None and of.hires.scaled == (83, 62)
    wide, high = of.hires.plan.geometry.latent_size
    assert grown(of).shape == (2, 4, high, wide)
    assert (wide, high) == ((11, 8) if settings is SANE else (10, 7))


def test_nothing_is_changed_in_what_it_was_given() -> None:
    before = LATENTS.clone()
    grown(first(scale=2, upscaler="Lanczos"))
    assert torch.equal(LATENTS, before)
