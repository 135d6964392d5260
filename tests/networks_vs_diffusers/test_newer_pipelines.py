"""The engine's stages with Qwen-Image and Flux.2 klein against diffusers' pipelines: same weights, noise and levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.engine import Engine
from overpaint.models.shifts import StepShift
from tests.engine.conftest import box, scene
from tests.networks_vs_diffusers.flow_files import ENDS
from tests.networks_vs_diffusers.newer_sources import LATENTS, NewerParts, klein_parts, qwen_parts
from tests.networks_vs_diffusers.pipelines import noise_like, sampled
from tests.networks_vs_diffusers.test_flow_pipelines import HEIGHT, WIDTH, close, request, shares
from tests.networks_vs_diffusers.test_flux_networks import packed
from tests.networks_vs_diffusers.test_flux_pipelines import map_of
from tests.networks_vs_diffusers.test_pipelines import values_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT = "a red cat"
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> NewerParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return qwen_parts(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> NewerParts:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return klein_parts(tmp_path_factory.mktemp("klein"))


@pytest.fixture(scope="module")
def qwen_engine(qwen: NewerParts) -> Iterator[Engine]:
    """Text encoder and VAE are found beside the transformer."""
    with Engine(qwen.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def klein_engine(klein: NewerParts) -> Iterator[Engine]:
    with Engine(klein.path, device="cpu", dtype="float32") as made:
        yield made


def tokenizer(parts: NewerParts) -> Any:
    """With the talk around a text, and an answer without thoughts, as klein's pipeline wants it."""
    import transformers

    talk = (
        "{% for each in messages %}<|im_start|>{{ each.role }}\n{{ each.content }}<|im_end|>\n{% endfor %}"
        "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
    )
    file = str(parts.vocabulary)
    return transformers.PreTrainedTokenizerFast(tokenizer_file=file, pad_token=ENDS[0], chat_template=talk)


def pipeline(parts: NewerParts, name: str, **scheduler: Any) -> Any:
    import diffusers

    made = getattr(diffusers, f"{name}Pipeline")(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        vae=parts.vae,
        text_encoder=parts.text,
        tokenizer=tokenizer(parts),
        transformer=parts.transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


# -- Qwen-Image --------------------------------------------------------------------------------------------------------


def qwen_latents(parts: NewerParts, picture: Any) -> Tensor:
    told = parts.vae.config
    mean, width = (torch.tensor(each)[:, None, None] for each in (told.latents_mean, told.latents_std))
    encoded: Tensor = parts.vae.encode((values_of(picture) * 2 - 1)[:, :, None]).latent_dist.mean[:, :, 0]
    return (encoded - mean) / width


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_qwen_image_from_text(cfg_scale: float, qwen: NewerParts, qwen_engine: Engine) -> None:
    """Their own levels too, and guidance that does not lengthen what a token predicts."""
    said = {"negative_prompt": "a cat"} if cfg_scale > 1 else {}
    plan, ours = sampled(qwen_engine, request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=cfg_scale, **said))
    pipe = pipeline(qwen, "QwenImage", **DYNAMIC, shift_terminal=0.02)
    theirs = pipe(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=packed(noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))),
        true_cfg_scale=cfg_scale,
        output_type="latent",
        **said,
    ).images
    assert shares(plan) == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), abs=1e-7)
    close(ours, map_of(theirs))


def test_qwen_image_is_guided_where_nothing_is_asked(qwen_engine: Engine) -> None:
    asked = request(images=(), width=WIDTH, height=HEIGHT).with_changes(cfg_scale=None)
    assert sampled(qwen_engine, asked)[0].sampler.cfg_scale == 4.0


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_qwen_image_img2img(strength: float, qwen: NewerParts, qwen_engine: Engine) -> None:
    source = scene(WIDTH, HEIGHT)
    plan, ours = sampled(qwen_engine, request(images=(source,), strength=strength))
    s, init = shares(plan)[0], qwen_latents(qwen, source)
    theirs = pipeline(qwen, "QwenImageImg2Img")(
        prompt=PROMPT,
        image=values_of(source),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        latents=packed((1 - s) * init + s * noise_like(init)),
        true_cfg_scale=1.0,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))


def test_qwen_image_inpainting_by_blending(qwen: NewerParts, qwen_engine: Engine) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(qwen_engine, request(images=(source,), mask=mask, strength=0.7))
    s, init = shares(plan)[0], qwen_latents(qwen, source)
    noise = noise_like(init)
    start = (1 - s) * init + s * noise
    pipe = pipeline(qwen, "QwenImageInpaint")
    pipe.prepare_latents = lambda *args, **kwargs: (packed(start), packed(noise), packed(init))
    theirs = pipe(
        prompt=PROMPT,
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        true_cfg_scale=1.0,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))


# -- Flux.2 klein ------------------------------------------------------------------------------------------------------


def statistics(vae: Any) -> tuple[Tensor, Tensor]:
    return vae.bn.running_mean[:, None, None], (vae.bn.running_var + 1e-4).sqrt()[:, None, None]


def patched(parts: NewerParts, latents: Tensor) -> Tensor:
    """Their last latents as the transformer's again."""
    mean, width = statistics(parts.vae)
    return (F.pixel_unshuffle(latents, 2) - mean) / width


def klein_latents(parts: NewerParts, picture: Any) -> Tensor:
    return patched(parts, parts.vae.encode(values_of(picture) * 2 - 1).latent_dist.mean)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_klein_from_text(cfg_scale: float, klein: NewerParts, klein_engine: Engine) -> None:
    """Their own levels too, which follow size and steps; the negative text of theirs is empty."""
    plan, ours = sampled(klein_engine, request(images=(), width=WIDTH, height=HEIGHT, cfg_scale=cfg_scale))
    pipe = pipeline(klein, "Flux2Klein", use_dynamic_shifting=True)
    theirs = pipe(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=noise_like(torch.zeros(1, LATENTS, HEIGHT // 16, WIDTH // 16)),
        guidance_scale=cfg_scale,
        output_type="latent",
    ).images
    assert shares(plan) == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), rel=1e-6)
    assert plan.spec.shift == StepShift()
    close(ours, patched(klein, theirs))


def test_klein_edits(klein: NewerParts, klein_engine: Engine) -> None:
    """The source and a picture of another size are looked at, in this order."""
    source, seen = scene(WIDTH, HEIGHT), scene(64, 80)
    drawn = noise_like(torch.zeros(1, LATENTS, HEIGHT // 16, WIDTH // 16))
    for others in ((), (seen,)):
        _, ours = sampled(klein_engine, request(images=(source,), references=others, strength=1.0))
        theirs = pipeline(klein, "Flux2Klein", use_dynamic_shifting=True)(
            image=[source, *others],
            prompt=PROMPT,
            width=WIDTH,
            height=HEIGHT,
            num_inference_steps=4,
            latents=drawn,
            guidance_scale=1.0,
            output_type="latent",
        ).images
        close(ours, patched(klein, theirs))


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_klein_edits_under_a_mask(strength: float, klein: NewerParts, klein_engine: Engine) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(klein_engine, request(images=(source,), mask=mask, strength=strength))
    s, init = shares(plan)[0], klein_latents(klein, source)
    drawn = noise_like(init)
    pipe = pipeline(klein, "Flux2KleinInpaint")
    ids = pipe._prepare_latent_ids(init)
    start, noise, kept = (pipe._pack_latents(each) for each in ((1 - s) * init + s * drawn, drawn, init))
    pipe.prepare_latents = lambda *args, **kwargs: (start, noise, kept, init, ids)
    theirs = pipe(
        prompt=PROMPT,
        image=source,
        mask_image=mask.convert("L"),
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=1.0,
        output_type="latent",
    ).images
    close(ours, patched(klein, theirs))
