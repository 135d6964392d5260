"""The engine's stages with Qwen-Image-Edit against diffusers' pipelines: same weights, noise, levels and pictures.

NOTE: the pipelines keep from the text encoder which tokens are pictures, without which transformers 5 gives them the
places of words (diffusers' issue 14194). Here it is told, as the model was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine
from overpaint.networks.transformer_layers import map_of
from tests.engine.conftest import box, scene
from tests.networks_vs_diffusers.edit_sources import PAD, SIDE, edit_parts
from tests.networks_vs_diffusers.flow_files import ENDS
from tests.networks_vs_diffusers.newer_sources import NewerParts
from tests.networks_vs_diffusers.pipelines import noise_like, sampled
from tests.networks_vs_diffusers.test_flow_pipelines import close, request, shares
from tests.networks_vs_diffusers.test_flux_networks import packed
from tests.networks_vs_diffusers.test_newer_pipelines import DYNAMIC, qwen_latents

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT, OTHER = "a red cat", "a cat"
WIDTH, HEIGHT = 128, 64
NAMES = {
    "first": "qwen_image_edit_fp8_e4m3fn",
    "2509": "qwen_image_edit_2509_bf16",
    "2511": "Qwen-Image-Edit-2511-bf16",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NewerParts]:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return {
        each: edit_parts(tmp_path_factory.mktemp("edit"), name, clean=each == "2511") for each, name in NAMES.items()
    }


@pytest.fixture(scope="module")
def engines(models: dict[str, NewerParts]) -> Iterator[dict[str, Engine]]:
    made = {each: Engine(parts.path, device="cpu", dtype="float32") for each, parts in models.items()}
    yield made
    for each in made.values():
        each.close()


def processor(vocabulary: Path) -> Any:
    """Theirs needs torchvision, for films."""
    import transformers

    words = transformers.PreTrainedTokenizerFast(tokenizer_file=str(vocabulary), pad_token=ENDS[0])
    eyes = transformers.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=12845056)

    def processed(text: list[str], images: Any, **said: Any) -> Any:
        seen = eyes(images, return_tensors="pt")
        (line,) = text
        parts = line.split("<|image_pad|>")
        counts = [int(grid.prod()) // 4 for grid in seen["image_grid_thw"]]
        assert len(parts) == len(counts) + 1
        for i, count in enumerate(counts):
            parts[i] += "<|image_pad|>" * count
        return transformers.BatchFeature({**words(["".join(parts)], return_tensors="pt"), **seen})

    return processed


def tell_pictures(module: Any, args: Any, said: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**said, "mm_token_type_ids": (said["input_ids"] == PAD).int()}


def pipeline(parts: NewerParts, name: str, monkeypatch: pytest.MonkeyPatch, **scheduler: Any) -> Any:
    """Its pictures are of a narrow model's size."""
    import diffusers
    from diffusers.pipelines.qwenimage import (
        pipeline_qwenimage_edit,
        pipeline_qwenimage_edit_inpaint,
        pipeline_qwenimage_edit_plus,
    )

    sized = pipeline_qwenimage_edit.calculate_dimensions
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_inpaint):
        monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio: sized(SIDE**2, ratio))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", SIDE**2)
    pipe = getattr(diffusers, f"QwenImageEdit{name}Pipeline")(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        vae=parts.vae,
        text_encoder=parts.text,
        tokenizer=None,
        processor=None,
        transformer=parts.transformer,
    )
    pipe.processor = processor(parts.vocabulary)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def told(parts: NewerParts, pipe: Any, **said: Any) -> Tensor:
    """A pipeline's latents."""
    hook = parts.text.register_forward_pre_hook(tell_pictures, with_kwargs=True)
    try:
        theirs = pipe(prompt=PROMPT, width=WIDTH, height=HEIGHT, output_type="latent", **said).images
    finally:
        hook.remove()
    return map_of(theirs, HEIGHT // 16, WIDTH // 16, 2)


def edited(parts: NewerParts, name: str, images: Any, monkeypatch: pytest.MonkeyPatch, **said: Any) -> Any:
    """A pipeline's latents after 4 of its own steps, and the pipeline."""
    pipe = pipeline(parts, name, monkeypatch, **DYNAMIC, shift_terminal=0.02)
    noise = packed(noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)))
    return told(parts, pipe, image=images, num_inference_steps=4, latents=noise, **said), pipe


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_edit_with_one_picture(
    cfg_scale: float, models: dict[str, NewerParts], engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own levels too; the negative text is read with the picture as well."""
    source, said = scene(WIDTH, HEIGHT), {"negative_prompt": OTHER} if cfg_scale > 1 else {}
    asked = request(prompt=PROMPT, images=(source,), strength=1.0, cfg_scale=cfg_scale, **said)
    plan, ours = sampled(engines["first"], asked)
    theirs, pipe = edited(models["first"], "", source, monkeypatch, true_cfg_scale=cfg_scale, **said)
    assert shares(plan) == pytest.approx(pipe.scheduler.sigmas[:-1].tolist(), abs=1e-7)
    close(ours, theirs)


@pytest.mark.parametrize("model", ["2509", "2511"])
@pytest.mark.parametrize("others", [0, 1])
def test_edit_with_several(
    model: str,
    others: int,
    models: dict[str, NewerParts],
    engines: dict[str, Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The source and a picture of another size, which each is looked at twice: as latents, and by the text encoder."""
    source, seen = scene(WIDTH, HEIGHT), [scene(80, 100).rotate(90, expand=True)][:others]
    said = {"negative_prompt": OTHER} if others else {}
    scale = 3.0 if others else 1.0
    asked = request(prompt=PROMPT, images=(source,), references=tuple(seen), strength=1.0, cfg_scale=scale, **said)
    _, ours = sampled(engines[model], asked)
    theirs, _ = edited(models[model], "Plus", [source, *seen], monkeypatch, true_cfg_scale=scale, **said)
    close(ours, theirs)


def test_a_new_picture_of_a_reference(
    models: dict[str, NewerParts], engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scene(300, 200)
    asked = request(prompt=PROMPT, images=(), references=(seen,), width=WIDTH, height=HEIGHT, cfg_scale=1.0)
    _, ours = sampled(engines["2509"], asked)
    theirs, _ = edited(models["2509"], "Plus", [seen], monkeypatch, true_cfg_scale=1.0)
    close(ours, theirs)


def test_an_edit_under_a_mask(
    models: dict[str, NewerParts], engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(engines["first"], request(prompt=PROMPT, images=(source,), mask=mask, strength=0.8))
    parts, s = models["first"], shares(plan)[0]
    init = qwen_latents(parts, source)
    noise = noise_like(init)
    start, drawn, kept = map(packed, ((1 - s) * init + s * noise, noise, init))
    pipe = pipeline(parts, "Inpaint", monkeypatch)
    pipe.prepare_latents = lambda *args, **kwargs: (start, drawn, kept)
    said: dict[str, Any] = {"image": source, "mask_image": mask.convert("L"), "sigmas": shares(plan)}
    close(ours, told(parts, pipe, **said, strength=1.0, true_cfg_scale=1.0))
