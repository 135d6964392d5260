"""Latents of any family: channels, size of a cell, scale and shift come from the model's spec."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from overpaint.backends.port import VaeFallback
from overpaint.models.families import SD1_SPEC, LatentSpec
from overpaint.painting.latents import batch_latents, decode, prepare
from overpaint.painting.preview import fit_preview, preview_picture
from overpaint.planning.plan import Plan, plan
from overpaint.request import MaskedContent, Txt2ImgRequest
from tests.unit.toy_job import SANE, asked, box_mask

SD = LatentSpec()
FLUX = LatentSpec(channels=16, scale=0.3611, shift=0.1159)
COARSE = LatentSpec(channels=6, factor=16, scale=2.0, shift=-0.5)
KINDS = pytest.mark.parametrize("latent", [SD, FLUX, COARSE], ids=["sd", "flux", "coarse"])


class ToyCodec:
    """Each cell is the mean colour of its pixels, over and over in its channels; z = 0 is gray."""

    def __init__(self, latent: LatentSpec) -> None:
        self.device = torch.device("cpu")
        self.latent = latent

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        colours = F.avg_pool2d(pixels, self.latent.factor)
        mean = colours.repeat(1, self.latent.channels // 3 + 1, 1, 1)[:, : self.latent.channels]
        return mean, torch.full_like(mean, -30.0)

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor:
        return z[:, :3].repeat_interleave(self.latent.factor, 2).repeat_interleave(self.latent.factor, 3)


def planned(latent: LatentSpec, **fields: object) -> Plan:
    return plan(asked(**fields), SANE, replace(SD1_SPEC, latent=latent))


@KINDS
def test_a_picture_goes_in_and_comes_out(latent: LatentSpec) -> None:
    flat = np.full((32, 48, 3), (200, 100, 50), np.uint8)
    of = planned(latent, images=(Image.fromarray(flat),))
    codec = ToyCodec(latent)
    prepared = prepare(of, codec)
    assert prepared.latents.shape == (1, latent.channels, 32 // latent.factor, 48 // latent.factor)
    z = torch.tensor(200 / 255 * 2 - 1)
    assert torch.allclose(prepared.latents[:, 0], (z - latent.shift) * latent.scale, atol=1e-5)
    np.testing.assert_array_equal(decode(of, codec, prepared.latents)[0], flat)


@KINDS
def test_odd_sizes_are_filled_up_to_whole_cells(latent: LatentSpec) -> None:
    of = plan(Txt2ImgRequest(width=33, height=17, seed=1), SANE, replace(SD1_SPEC, latent=latent))
    wide, high = of.geometry.covered
    assert wide % latent.factor == high % latent.factor == 0
    assert (wide - 33 < latent.factor, high - 17 < latent.factor) == (True, True)
    empty = prepare(of, ToyCodec(latent)).latents
    assert empty.shape == (1, latent.channels, high // latent.factor, wide // latent.factor)
    assert not empty.any()


@KINDS
def test_a_mask_covers_every_channel(latent: LatentSpec) -> None:
    mask = box_mask(32, 32, (0, 0, 16, 32))
    of = planned(latent, mask=mask, mask_blur_x=0, mask_blur_y=0, masked_content=MaskedContent.NOISE)
    prepared = prepare(of, ToyCodec(latent))
    assert prepared.nmask is not None
    assert prepared.nmask.shape == prepared.latents.shape[1:]
    made = batch_latents(of, prepared, of.batches[0])
    kept = prepared.nmask == 0
    assert torch.equal(made[0][kept], prepared.latents[0][kept])
    assert not torch.equal(made[0][~kept], prepared.latents[0][~kept])


@KINDS
def test_a_preview_needs_no_decoder(latent: LatentSpec) -> None:
    codec = ToyCodec(latent)
    colour = torch.tensor([0.8, 0.4, 0.2])
    z = (colour * 2 - 1).repeat(latent.channels // 3 + 1)[: latent.channels]
    shown = preview_picture(fit_preview(codec, latent), latent.scaled(z)[:, None, None].expand(-1, 2, 3))
    assert shown.size == (3, 2)
    np.testing.assert_allclose(np.asarray(shown)[0, 0], (204, 102, 51), atol=1)
