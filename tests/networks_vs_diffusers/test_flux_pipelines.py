"""The engine's stages with Flux.1 and Stable Diffusion 3 against diffusers' pipelines: same weights, noise, levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine
from tests.engine.conftest import box, scene
from tests.networks_vs_diffusers.flow_sources import FlowParts, flux_parts, sd3_parts
from tests.networks_vs_diffusers.pipelines import noise_like, sampled, tokenizer
from tests.networks_vs_diffusers.test_flow_pipelines import HEIGHT, WIDTH, close, encoded, request, shares
from tests.networks_vs_diffusers.test_flux_networks import packed
from tests.networks_vs_diffusers.test_pipelines import values_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT = "a red cat"


def _engine(parts: FlowParts) -> Iterator[Engine]:
    """Text encoders, vocabulary and VAE are found beside the transformer."""
    with Engine(parts.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return flux_parts(tmp_path_factory.mktemp("dev"))


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return flux_parts(tmp_path_factory.mktemp("schnell"), "schnell")


@pytest.fixture(scope="module")
def sd35(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return sd3_parts(tmp_path_factory.mktemp("sd35"))


@pytest.fixture(scope="module")
def dev_engine(dev: FlowParts) -> Iterator[Engine]:
    yield from _engine(dev)


@pytest.fixture(scope="module")
def schnell_engine(schnell: FlowParts) -> Iterator[Engine]:
    yield from _engine(schnell)


@pytest.fixture(scope="module")
def sd35_engine(sd35: FlowParts) -> Iterator[Engine]:
    yield from _engine(sd35)


def t5_tokenizer(parts: FlowParts) -> Any:
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(parts.tokenizer), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def pipeline(parts: FlowParts, task: str, **scheduler: Any) -> Any:
    import diffusers

    texts = {"text_encoder": parts.texts[0], "tokenizer": tokenizer("<|endoftext|>")}
    if parts.name.startswith("flux"):
        family, texts = "Flux", {**texts, "text_encoder_2": parts.texts[1], "tokenizer_2": t5_tokenizer(parts)}
    else:
        texts |= {"text_encoder_2": parts.texts[1], "tokenizer_2": tokenizer("!")}
        third = parts.texts[2] if len(parts.texts) > 2 else None
        family, texts = (
            "StableDiffusion3",
            {**texts, "text_encoder_3": third, "tokenizer_3": t5_tokenizer(parts) if third is not None else None},
        )
    walk = diffusers.FlowMatchEulerDiscreteScheduler(**scheduler)
    made = getattr(diffusers, f"{family}{task}Pipeline")(
        scheduler=walk, vae=parts.vae, transformer=parts.transformer, **texts
    )
    made.set_progress_bar_config(disable=True)
    return made


def map_of(tokens: Tensor) -> Tensor:
    high, wide = HEIGHT // 16, WIDTH // 16
    return tokens.view(1, high, wide, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 16, 2 * high, 2 * wide)


DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


@pytest.mark.parametrize(("guidance", "cfg_scale"), [(None, 1.0), (2.0, 1.0), (3.0, 2.0)])
def test_flux_dev_from_text(guidance: float | None, cfg_scale: float, dev: FlowParts, dev_engine: Engine) -> None:
    """Their own levels too; guidance that it is told, and beside it the one that asks about a negative text."""
    said = {"negative_prompt": "a cat"} if cfg_scale > 1 else {}
    told = {} if guidance is None else {"guidance": guidance}
    asked = request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=cfg_scale, **said, **told)
    plan, ours = sampled(dev_engine, asked)
    noise = noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))
    pipe = pipeline(dev, "", **DYNAMIC)
    theirs = pipe(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=packed(noise),
        guidance_scale=3.5 if guidance is None else guidance,
        true_cfg_scale=cfg_scale,
        output_type="latent",
        **said,
    ).images
    assert shares(plan) == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), rel=1e-6)
    close(ours, map_of(theirs))


def test_flux_schnell_from_text(schnell: FlowParts, schnell_engine: Engine) -> None:
    plan, ours = sampled(schnell_engine, request(images=(), width=WIDTH, height=HEIGHT))
    pipe = pipeline(schnell, "")
    theirs = pipe(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=packed(noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))),
        max_sequence_length=256,
        output_type="latent",
    ).images
    assert shares(plan) == pytest.approx([1.0, 0.75, 0.5, 0.25]) == pipe.scheduler.sigmas[:-1].tolist()
    close(ours, map_of(theirs))


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_flux_img2img(strength: float, dev: FlowParts, dev_engine: Engine) -> None:
    source = scene(WIDTH, HEIGHT)
    plan, ours = sampled(dev_engine, request(images=(source,), strength=strength))
    s, init = shares(plan)[0], encoded(dev.vae, source)
    start = (1 - s) * init + s * noise_like(init)
    theirs = pipeline(dev, "Img2Img")(
        prompt=PROMPT,
        image=values_of(source),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        latents=packed(start),
        guidance_scale=3.5,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_flux_inpainting_by_blending(strength: float, dev: FlowParts, dev_engine: Engine) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(dev_engine, request(images=(source,), mask=mask, strength=strength))
    s, init = shares(plan)[0], encoded(dev.vae, source)
    noise = noise_like(init)
    pipe = pipeline(dev, "Inpaint")
    ids = pipe._prepare_latent_image_ids(1, HEIGHT // 16, WIDTH // 16, "cpu", torch.float32)
    start = (1 - s) * init + s * noise
    pipe.prepare_latents = lambda *args, **kwargs: (packed(start), packed(noise), packed(init), ids)
    theirs = pipe(
        prompt=PROMPT,
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=3.5,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))


@pytest.mark.parametrize("cfg_scale", [1.0, 4.5])
def test_stable_diffusion_3_from_text(cfg_scale: float, sd35: FlowParts, sd35_engine: Engine) -> None:
    """The levels are those of the paper; diffusers shifts its own a second time, and so it is given ours."""
    said = {"negative_prompt": "a cat"} if cfg_scale > 1 else {}
    plan, ours = sampled(sd35_engine, request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=cfg_scale, **said))
    steps = [1.0, 0.75, 0.5, 0.25]
    assert shares(plan) == pytest.approx([3 * t / (1 + 2 * t) for t in steps], rel=1e-6)
    theirs = pipeline(sd35, "")(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        sigmas=shares(plan),
        latents=noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)),
        guidance_scale=cfg_scale,
        output_type="latent",
        **said,
    ).images
    close(ours, theirs)


def test_stable_diffusion_3_without_t5(tmp_path: Any) -> None:
    """Zeros take the place of its words, which a warning says."""
    parts = sd3_parts(tmp_path, later=False, t5=False)
    with Engine(parts.path, device="cpu", dtype="float32") as engine:
        plan, ours = sampled(engine, request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=2.0))
    assert any("without T5" in each for each in plan.warnings)
    theirs = pipeline(parts, "")(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        sigmas=shares(plan),
        latents=noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)),
        guidance_scale=2.0,
        output_type="latent",
    ).images
    close(ours, theirs)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_stable_diffusion_3_img2img(strength: float, sd35: FlowParts, sd35_engine: Engine) -> None:
    source = scene(WIDTH, HEIGHT)
    plan, ours = sampled(sd35_engine, request(images=(source,), strength=strength, cfg_scale=3.0))
    s, init = shares(plan)[0], encoded(sd35.vae, source)
    pipe = pipeline(sd35, "Img2Img")
    pipe.prepare_latents = lambda *args, **kwargs: (1 - s) * init + s * noise_like(init)
    theirs = pipe(
        prompt=PROMPT,
        image=values_of(source),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=3.0,
        output_type="latent",
    ).images
    close(ours, theirs)


def test_stable_diffusion_3_inpainting_by_blending(sd35: FlowParts, sd35_engine: Engine) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(sd35_engine, request(images=(source,), mask=mask, strength=0.7, cfg_scale=3.0))
    s, init = shares(plan)[0], encoded(sd35.vae, source)
    noise = noise_like(init)
    pipe = pipeline(sd35, "Inpaint")
    pipe.prepare_latents = lambda *args, **kwargs: ((1 - s) * init + s * noise, noise, init)
    theirs = pipe(
        prompt=PROMPT,
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=3.0,
        output_type="latent",
    ).images
    close(ours, theirs)
