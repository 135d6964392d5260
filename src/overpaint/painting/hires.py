"""Between the passes of a hires fix: the first pass's latents enlarged, and what else the second pass starts from."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from overpaint.errors import SamplingError
from overpaint.painting.latents import (
    Codec,
    Prepared,
    decode,
    encoded_references,
    hidden_everything,
    hidden_source,
    pixels_of,
    sampled,
)
from overpaint.pixels.resize import JUST_RESIZE, Upscaler, resize_image
from overpaint.planning.plans import HiresPlan, LatentUpscale, Plan
from overpaint.request import Picture


def prepare_second(first: Plan, codec: Codec, second_codec: Codec, latents: Tensor) -> Prepared:
    """The source of the second pass: the first one's latents (batch, 4, h/8, w/8), enlarged."""
    hires = first.hires
    assert hires is not None
    generator = torch.Generator().manual_seed(first.images[0].seed % 2**63)
    references = encoded_references(hires.plan, second_codec)
    if isinstance(hires.upscaler, LatentUpscale):
        size = _latent_size(hires, first)
        mode, antialias = hires.upscaler.mode, hires.upscaler.antialias
        grown = F.interpolate(latents, size=size, mode=mode, antialias=antialias)
        conditioning = _without_picture(hires, second_codec, len(latents), generator)
        return Prepared(_cut(hires, first, grown), None, conditioning, references)
    pictures = [
        _enlarged(first, hires, hires.upscaler, Image.fromarray(each)) for each in decode(first, codec, latents)
    ]
    pixels = [pixels_of(each, second_codec.device) for each in pictures]
    posteriors = [second_codec.encode(each) for each in pixels]
    samples = first.settings.quirks.sample_posterior
    encoded = [sampled(*each, generator) if samples else each[0].float() for each in posteriors]
    grown = hires.plan.spec.latent.scaled(torch.cat(encoded))
    conditioning = _with_pictures(hires, second_codec, torch.cat(pixels), generator)
    return Prepared(_cut(hires, first, grown), None, conditioning, references)


def _latent_size(hires: HiresPlan, first: Plan) -> tuple[int, int]:
    """(height, width) of the enlarged latent."""
    wide, high = hires.scaled
    factor = hires.plan.spec.latent.factor
    up = 0 if first.settings.quirks.floor_odd_sizes else factor - 1
    return (high + up) // factor, (wide + up) // factor


def _enlarged(first: Plan, hires: HiresPlan, upscaler: Upscaler | None, picture: Picture) -> Picture:
    """The picture at its new size; what the networks had to see beyond it is cut off before and added after."""
    quirks = first.settings.quirks
    if quirks.floor_odd_sizes:
        return resize_image(JUST_RESIZE, picture, *hires.scaled, upscaler=upscaler, quirks=quirks)
    picture = picture.crop((0, 0, first.geometry.width, first.geometry.height))
    picture = resize_image(JUST_RESIZE, picture, *hires.scaled, upscaler=upscaler, quirks=quirks)
    high, wide = (side * hires.plan.spec.latent.factor for side in _latent_size(hires, first))
    edges = ((0, high - picture.height), (0, wide - picture.width), (0, 0))
    return Image.fromarray(np.pad(np.asarray(picture), edges, mode="edge"))


def _cut(hires: HiresPlan, first: Plan, latents: Tensor) -> Tensor:
    """Where both sides were given, what is too much goes, half from either end."""
    height, width = latents.shape[2:]
    if first.settings.quirks.floor_odd_sizes:
        target = hires.plan.geometry
        sides = zip(hires.scaled, (target.width, target.height), strict=True)
        wide, high = ((a - b) // target.factor for a, b in sides)
    else:
        wide, high = width - hires.plan.geometry.latent_size[0], height - hires.plan.geometry.latent_size[1]
    return latents[:, :, high // 2 : height - (high + 1) // 2, wide // 2 : width - (wide + 1) // 2]


def _without_picture(hires: HiresPlan, codec: Codec, batch: int, generator: torch.Generator) -> Tensor | None:
    if hires.plan.spec.conditioning != "inpaint":
        return None
    if hires.plan.settings.quirks.hires_keeps_conditioning_size:
        raise SamplingError(
            "hires.upscaler: the reference cannot enlarge the latents of an inpainting model, whose conditioning keeps "
            "the first size; choose an upscaler of pictures, such as Lanczos"
        )
    return hidden_everything(hires.plan, codec, batch, generator)


def _with_pictures(hires: HiresPlan, codec: Codec, pixels: Tensor, generator: torch.Generator) -> Tensor | None:
    if hires.plan.spec.conditioning != "inpaint":
        return None
    settings = hires.plan.settings
    if settings.quirks.hires_conditioning_unscaled:
        pixels = (pixels + 1) / 2
    hidden = torch.lerp(pixels, torch.zeros_like(pixels), settings.inpainting_mask_weight)
    return hidden_source(hires.plan, codec, hidden, torch.ones_like(pixels[:1, :1]), len(pixels), generator)
