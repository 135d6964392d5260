"""The engine's stages against diffusers' pipelines on the same weights, noise and steps: latents before the decoder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine
from overpaint.request import MaskedContent, PaintRequest, Picture
from tests.engine.conftest import asked, box, scene
from tests.networks_vs_diffusers.conftest import Build
from tests.networks_vs_diffusers.families import Built
from tests.networks_vs_diffusers.pipelines import SEED, noised, pipeline, sampled, scheduler, walk

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Engines = Callable[[str], Engine]
WIDTH, HEIGHT = 128, 64  # maps that halve evenly: where they do not, the reference joins them in its own way (ARCH-5)
WHITE, HALF = box(WIDTH, HEIGHT, (0, 0, WIDTH, HEIGHT)), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
MASKS = {"white": WHITE, "half": HALF, "none": None}
# Each sampler and each strength with every family; all pairs take minutes.
WALKS = [
    ("Euler", 0.75),
    ("DDIM", 1.0),
    pytest.param("Euler", 1.0, marks=pytest.mark.long),
    pytest.param("DDIM", 0.75, marks=pytest.mark.long),
]
WORDS = {"prompt": "a cat on a mat", "negative_prompt": "dog, blurry"}


def request(**fields: Any) -> PaintRequest:
    given = {
        "images": (scene(WIDTH, HEIGHT),),
        **WORDS,
        "steps": 4,
        "seed": SEED,
        "cfg_scale": 3.0,
        "mask_blur_x": 0,
        "mask_blur_y": 0,
        "masked_content": MaskedContent.ORIGINAL,
        **fields,
    }
    return asked(**{**given, "overrides": {"randn_source": "CPU", **given.get("overrides", {})}})


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert bool(torch.isfinite(got).all())
    assert float((got - wanted).abs().max()) <= 1e-3


def values_of(picture: Picture) -> Tensor:
    """A picture in 0..1, (1, channels, height, width).

    NOTE: pipelines get it so, and contiguous. From a picture they make a channels-last tensor, for which torch's own
    group norm is a thousand times less precise: on a grey picture diffusers' codec is then wrong by 1e-2.
    """
    values = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
    return values.reshape(picture.height, picture.width, -1).permute(2, 0, 1)[None].contiguous()


def encoded(built: Built, picture: Picture, mask: Picture | None = None) -> Tensor:
    """A source as diffusers encodes it; what a mask hides is at mid grey, which is 0 and no pixel's value."""
    values = values_of(picture) * 2 - 1
    if mask is not None:
        values = values * (1 - values_of(mask))
    mean: Tensor = built.vae.encode(values).latent_dist.mean
    return mean * float(built.vae.config.scaling_factor)


@pytest.mark.parametrize("name", ["sd2-inpaint", "sdxl-inpaint"])
@pytest.mark.parametrize(("sampler", "strength"), WALKS)
@pytest.mark.parametrize("mask", MASKS)
def test_inpainting(name: str, sampler: str, strength: float, mask: str, built: Build, engines: Engines) -> None:
    # COND-3; diffusers leaves the kept part to the network, so here the engine does too
    both = built(name, torch.float32, True)
    asked_for = request(sampler=sampler, strength=strength, mask=MASKS[mask])
    plan, got = sampled(engines(name), asked_for, blend=mask == "white")
    source = asked_for.images[0]
    wanted = pipeline(both, sampler, "Inpaint")(
        image=values_of(source),
        mask_image=values_of(MASKS[mask] or WHITE),
        width=WIDTH,
        height=HEIGHT,
        guidance_scale=3.0,
        latents=noised(plan, encoded(both, source)),
        output_type="latent",
        **WORDS,
        **walk(plan),
    ).images
    close(got, wanted)


@pytest.mark.parametrize("name", ["sd2-inpaint", "sdxl-inpaint"])
def test_the_kept_part_of_inpainting(name: str, built: Build, engines: Engines) -> None:  # BLEND-1, BLEND-3, COND-3
    """What diffusers' pipeline does not do is written out: the source is put back into every prediction."""
    both, source = built(name, torch.float32, True), scene(WIDTH, HEIGHT)
    plan, got = sampled(engines(name), request(sampler="Euler", strength=0.75, mask=HALF))
    init, cells = encoded(both, source), values_of(HALF)[..., ::8, ::8]
    network = _guided(both, torch.cat([cells, encoded(both, source, HALF)], dim=1))
    walked = scheduler("Euler", "eps")
    walked.set_timesteps(sigmas=list(plan.sampler.used))
    x = noised(plan, init) * walked.init_noise_sigma
    for (sigma, below), t in zip(pairwise(plan.sampler.used), walked.timesteps, strict=True):
        denoised = x - sigma * network(x / (sigma**2 + 1) ** 0.5, t)
        denoised = denoised * cells + init * (1 - cells)
        x = x + (x - denoised) / sigma * (below - sigma)
    close(got, x * cells + init * (1 - cells))
    kept = (1 - cells).bool().expand_as(got)
    assert float((got - init)[kept].abs().max()) <= 1e-4


def _guided(both: Built, image: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """diffusers' U-Net with its pipeline's texts, guided."""
    made = pipeline(both, "Euler", "Inpaint")
    negative, positive = (WORDS[key] for key in ("negative_prompt", "prompt"))
    if both.recipe.family.startswith("sdxl"):
        text, unconditional, pooled, pooled_negative = made.encode_prompt(
            positive, negative_prompt=negative, device="cpu", do_classifier_free_guidance=True
        )
        sizes = torch.tensor([[HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH]] * 2, dtype=torch.float32)
        told = {"text_embeds": torch.cat([pooled_negative, pooled]), "time_ids": sizes}
    else:
        text, unconditional = made.encode_prompt(positive, "cpu", 1, True, negative)
        told = None

    def call(x: Tensor, t: Tensor) -> Tensor:
        rows = torch.cat([torch.cat([x, image], dim=1)] * 2)
        texts = torch.cat([unconditional, text])
        low, high = both.unet(rows, t, texts, added_cond_kwargs=told).sample.chunk(2)
        result: Tensor = low + 3.0 * (high - low)
        return result

    return call


@pytest.mark.parametrize("name", ["sd2", "sd2-v", "sdxl", "sdxl-v", "sdxl-refiner", "ssd-1b"])
@pytest.mark.parametrize(("sampler", "strength"), WALKS)
def test_img2img(name: str, sampler: str, strength: float, built: Build, engines: Engines) -> None:
    # STEP-4, SIG-5 to SIG-7, FAM-2 to FAM-4
    both = built(name, torch.float32, True)
    plan, got = sampled(engines(name), request(sampler=sampler, strength=strength))
    wanted = _img2img(both, sampler, negative_prompt=WORDS["negative_prompt"], **walk(plan))
    close(got, wanted)


def _img2img(both: Built, sampler: str, **fields: Any) -> Tensor:
    result: Tensor = pipeline(both, sampler, "Img2Img")(
        prompt=WORDS["prompt"],
        image=encoded(both, scene(WIDTH, HEIGHT)),
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
        **fields,
    ).images
    return result


@pytest.mark.parametrize("name", ["sdxl", "sdxl-refiner"])
def test_an_empty_negative_is_zeros(name: str, built: Build, engines: Engines) -> None:  # ENCODE-6
    plan, got = sampled(engines(name), request(negative_prompt=""))
    close(got, _img2img(built(name, torch.float32, True), "Euler", **walk(plan)))


def test_scores_and_crops(built: Build, engines: Engines) -> None:  # ENCODE-5
    told = {"sdxl_crop_top": 24, "sdxl_crop_left": 8}
    crops = {"crops_coords_top_left": (24, 8), "negative_crops_coords_top_left": (24, 8), "negative_prompt": "dog"}
    plan, got = sampled(engines("sdxl"), request(negative_prompt="dog", overrides=told))
    close(got, _img2img(built("sdxl", torch.float32, True), "Euler", **crops, **walk(plan)))
    scores = {"sdxl_refiner_high_aesthetic_score": 8.5, "sdxl_refiner_low_aesthetic_score": 1.0}
    plan, got = sampled(engines("sdxl-refiner"), request(negative_prompt="dog", overrides={**told, **scores}))
    both = built("sdxl-refiner", torch.float32, True)
    theirs = {"aesthetic_score": 8.5, "negative_aesthetic_score": 1.0}
    close(got, _img2img(both, "Euler", **crops, **theirs, **walk(plan)))
