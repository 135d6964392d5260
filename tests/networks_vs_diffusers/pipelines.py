"""Pipelines of diffusers over the same weights, and the engine's stages up to the decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from overpaint.engine import Engine, stages_of
from overpaint.events import Control
from overpaint.painting.sampling import Streams
from overpaint.painting.stages import Sampled, Step
from overpaint.planning.plans import Plan
from overpaint.request import PaintRequest
from overpaint.text.tokens import clip_merges, clip_vocabulary
from tests.networks_vs_diffusers.families import Built, text_model

SEED = 7
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def scheduler(sampler: str, prediction: str) -> Any:
    """Euler, or DDIM over 1, 1 + 1000/n, ... and down to the clean picture, as overpaint walks."""
    import diffusers

    told = {**_NOISE, "prediction_type": "v_prediction" if prediction == "v" else "epsilon"}
    if sampler == "Euler":
        return diffusers.EulerDiscreteScheduler(**told)
    return diffusers.DDIMScheduler(**told, steps_offset=1, clip_sample=False, set_alpha_to_one=True)


@cache
def tokenizer(padding: str) -> Any:
    import transformers

    merges = clip_merges()
    return transformers.CLIPTokenizer(
        vocab=clip_vocabulary(merges), merges=merges, model_max_length=77, pad_token=padding
    )


@cache
def _shorter_text() -> Any:
    return text_model("openclip", seed=10, layers=3)


def pipeline(built: Built, sampler: str, task: str) -> Any:
    """The pipeline for "Inpaint" or "Img2Img" of a family."""
    import diffusers

    recipe = built.recipe
    parts = {"vae": built.vae, "unet": built.unet, "scheduler": scheduler(sampler, recipe.prediction)}
    if recipe.family.startswith("sdxl"):
        first = built.texts[0] if len(built.texts) == 2 else None
        parts |= {"text_encoder": first, "tokenizer": tokenizer("<|endoftext|>") if first is not None else None}
        parts |= {"text_encoder_2": built.texts[-1], "tokenizer_2": tokenizer("!"), "add_watermarker": False}
        made = getattr(diffusers, f"StableDiffusionXL{task}Pipeline")(
            **parts, requires_aesthetics_score=recipe.family == "sdxl-refiner"
        )
    else:
        # Its text encoder ends where the family reads: one layer early, with the last norm.
        parts |= {"text_encoder": _shorter_text(), "tokenizer": tokenizer("!")}
        made = getattr(diffusers, f"StableDiffusion{task}Pipeline")(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    return made


def walk(plan: Plan) -> dict[str, Any]:
    """The engine's steps in the words of a pipeline."""
    if plan.sampler.spec.family != "timestep":
        return {"sigmas": list(plan.sampler.used), "strength": 1.0}
    return {"num_inference_steps": plan.sampler.steps, "strength": len(plan.sampler.used) / plan.sampler.steps}


def noise_like(latents: Tensor) -> Tensor:
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED))


def noised(plan: Plan, latents: Tensor) -> Tensor:
    """Where the engine starts, before a pipeline's scheduler multiplies it by its own first sigma."""
    if plan.sampler.spec.family != "timestep":
        sigmas = scheduler("Euler", "eps")
        sigmas.set_timesteps(sigmas=list(plan.sampler.used))
        return (latents + noise_like(latents) * plan.sampler.start) / float(sigmas.init_noise_sigma)
    a = float(plan.sampler.table.alphas_cumprod[int(plan.sampler.start)])
    return latents * math.sqrt(a) + noise_like(latents) * math.sqrt(1 - a)


def sampled(engine: Engine, request: PaintRequest, *, blend: bool = True) -> tuple[Plan, Tensor]:
    """The engine's stages up to the decoder; without `blend` the kept part is left to the network."""
    plan = engine.plan(request)
    prepared = stages_of(engine).prepare(plan)
    batch = plan.batches[0]
    tensors = stages_of(engine).tensors(plan, prepared, batch, stages_of(engine).texts(plan, batch))
    if not blend:
        tensors = replace(tensors, nmask=None)
    ends: list[Sampled | None] = []

    def story() -> Iterator[Step]:
        streams = Streams((SEED,), (0,), 0.0)
        ends.append((yield from stages_of(engine).sample_tensors(plan, tensors, streams, control=Control())))

    list(story())
    assert ends[0] is not None
    return plan, ends[0].latents
