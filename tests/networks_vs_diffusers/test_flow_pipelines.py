"""The engine's stages with flow models against diffusers' pipelines: same weights, noise and levels; latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine
from overpaint.flow_levels import share_of_noise
from overpaint.planning.plans import Plan
from overpaint.request import MaskedContent, PaintRequest
from tests.engine.conftest import box, scene
from tests.networks_vs_diffusers.flow_files import ZImageParts, their_tokenizer, zimage_parts
from tests.networks_vs_diffusers.pipelines import SEED, noise_like, sampled
from tests.networks_vs_diffusers.test_pipelines import values_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> ZImageParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return zimage_parts(tmp_path_factory.mktemp("zimage"), still=True)


@pytest.fixture(scope="module")
def engine(parts: ZImageParts) -> Iterator[Engine]:
    with Engine(parts.path, device="cpu", dtype="float32") as made:
        yield made


def pipeline(parts: ZImageParts, task: str, shift: float = 1.0) -> Any:
    import diffusers

    made = getattr(diffusers, f"ZImage{task}Pipeline")(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=parts.vae,
        text_encoder=parts.text,
        tokenizer=their_tokenizer(parts.folder),
        transformer=parts.transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


def request(**fields: Any) -> PaintRequest:
    given = {
        "prompt": "a red cat",
        "sampler": "Euler",
        "steps": 4,
        "seed": SEED,
        "cfg_scale": 1.0,
        **fields,
    }
    if "mask" in fields:
        given |= {"mask_blur_x": 0, "mask_blur_y": 0, "masked_content": MaskedContent.ORIGINAL}
    return PaintRequest(**{**given, "overrides": {"randn_source": "CPU"}})


def shares(plan: Plan) -> list[float]:
    return [share_of_noise(each) for each in plan.sampler.used[:-1]]


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def encoded(vae: Any, picture: Any) -> Tensor:
    mean: Tensor = vae.encode(values_of(picture) * 2 - 1).latent_dist.mean
    return (mean - float(vae.config.shift_factor)) * float(vae.config.scaling_factor)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_text_to_picture(cfg_scale: float, parts: ZImageParts, engine: Engine) -> None:
    """Their own levels too; their guidance counts from 0."""
    said = {"negative_prompt": "a cat"} if cfg_scale > 1 else {}
    asked_for = request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=cfg_scale, **said)
    plan, ours = sampled(engine, asked_for)
    noise = noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))
    pipe = pipeline(parts, "", shift=3.0)
    theirs = pipe(
        prompt="a red cat",
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=noise,
        guidance_scale=cfg_scale - 1,
        output_type="latent",
        **said,
    ).images
    assert np.allclose(shares(plan), pipe.scheduler.sigmas[:-1].tolist(), rtol=1e-6)
    close(ours, theirs)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_img2img(strength: float, parts: ZImageParts, engine: Engine) -> None:
    source = scene(WIDTH, HEIGHT)
    plan, ours = sampled(engine, request(images=(source,), strength=strength))
    s, init = shares(plan)[0], encoded(parts.vae, source)
    start = (1 - s) * init + s * noise_like(init)
    theirs = pipeline(parts, "Img2Img")(
        prompt="a red cat",
        image=values_of(source),
        strength=1.0,
        sigmas=shares(plan),
        latents=start,
        guidance_scale=0.0,
        output_type="latent",
    ).images
    close(ours, theirs)


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_inpainting_by_blending(strength: float, parts: ZImageParts, engine: Engine) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(engine, request(images=(source,), mask=mask, strength=strength))
    s, init = shares(plan)[0], encoded(parts.vae, source)
    noise = noise_like(init)
    pipe = pipeline(parts, "Inpaint")
    pipe.prepare_latents = lambda *args, **kwargs: ((1 - s) * init + s * noise, noise, init)
    theirs = pipe(
        prompt="a red cat",
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=0.0,
        output_type="latent",
    ).images
    close(ours, theirs)
