"""Flux.1 Kontext and Fill: the network and the engine's stages against diffusers, with the same weights and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from overpaint.engine import Engine
from overpaint.networks.flux import Flux
from tests.engine.conftest import box, scene
from tests.networks_vs_diffusers.flow_sources import CLIP_L, T5, FlowParts, flux_parts, flux_tensors, small_flux
from tests.networks_vs_diffusers.pipelines import noise_like, sampled
from tests.networks_vs_diffusers.test_flow_networks import close as closely
from tests.networks_vs_diffusers.test_flow_networks import filled, noise
from tests.networks_vs_diffusers.test_flow_pipelines import HEIGHT, WIDTH, close, encoded, request, shares
from tests.networks_vs_diffusers.test_flux_networks import FLUX, packed, places
from tests.networks_vs_diffusers.test_flux_pipelines import DYNAMIC, PROMPT, map_of, pipeline
from tests.networks_vs_diffusers.test_pipelines import values_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    return flux_parts(tmp_path_factory.mktemp("kontext"), "kontext-dev")


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> FlowParts:
    return flux_parts(tmp_path_factory.mktemp("fill"), "fill")


@pytest.fixture(scope="module")
def kontext_engine(kontext: FlowParts) -> Iterator[Engine]:
    with Engine(kontext.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def fill_engine(fill: FlowParts) -> Iterator[Engine]:
    with Engine(fill.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.mark.parametrize(
    ("source", "sizes"), [(True, ()), (False, ((6, 10),)), (True, ((8, 6), (4, 4)))], ids=["source", "one", "three"]
)
def test_pictures_that_the_network_looks_at(source: bool, sizes: Sequence[tuple[int, int]]) -> None:
    """They follow the cells, each with a number of its own; the source comes in the channels behind x."""
    theirs = small_flux(guided=True)
    ours = filled(Flux(FLUX), flux_tensors(theirs.state_dict()))
    high, wide = 8, 6
    x, s, context = noise(2, 16, high, wide), torch.tensor([0.9, 0.25]), noise(2, 9, T5, seed=1)
    pooled, guidance = noise(2, CLIP_L, seed=2), torch.tensor([3.5, 2.25])
    under = [noise(2, 16, high, wide, seed=3)] if source else []
    others = [noise(2, 16, *size, seed=4 + i) for i, size in enumerate(sizes)]
    cells = [places(each.shape[2] // 2, each.shape[3] // 2) for each in (x, *under, *others)]
    numbered = [each + torch.tensor([i, 0, 0]) for i, each in enumerate(cells)]
    expected = theirs(
        hidden_states=torch.cat([packed(each) for each in (x, *under, *others)], dim=1),
        encoder_hidden_states=context,
        pooled_projections=pooled,
        timestep=s,
        img_ids=torch.cat(numbered),
        txt_ids=torch.zeros(9, 3),
        guidance=guidance,
        return_dict=False,
    )[0][:, : high * wide // 4]
    vector = torch.cat([pooled, guidance[:, None]], dim=1)
    got = ours(torch.cat([x, *under], dim=1), s, context, vector, references=others)
    assert closely(packed(got), expected)


def test_the_network_of_fill() -> None:
    """Its further channels are read with its own: no picture is looked at."""
    theirs = small_flux(guided=True, inputs=384)
    ours = filled(Flux(replace(FLUX, in_channels=96)), flux_tensors(theirs.state_dict()))
    x, s, context, pooled = noise(1, 96, 8, 6), torch.tensor([0.7]), noise(1, 5, T5, seed=1), noise(1, CLIP_L, seed=2)
    guidance = torch.tensor([30.0])
    expected = theirs(
        hidden_states=packed(x),
        encoder_hidden_states=context,
        pooled_projections=pooled,
        timestep=s,
        img_ids=places(4, 3),
        txt_ids=torch.zeros(5, 3),
        guidance=guidance,
        return_dict=False,
    )[0]
    assert closely(packed(ours(x, s, context, torch.cat([pooled, guidance[:, None]], dim=1))), expected)


def kontexts(parts: FlowParts, image: Any, noise: Tensor, **said: Any) -> Tensor:
    """What their pipeline makes of noise; it would enlarge the picture to a megapixel unasked."""
    found: Tensor = pipeline(parts, "Kontext", **DYNAMIC)(
        image=image,
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        latents=packed(noise),
        max_area=WIDTH * HEIGHT,
        _auto_resize=False,
        output_type="latent",
        **{"guidance_scale": 2.5, **said},
    ).images
    return map_of(found)


@pytest.mark.parametrize("cfg_scale", [1.0, 2.0])
def test_kontext_edits(cfg_scale: float, kontext: FlowParts, kontext_engine: Engine) -> None:
    source, said = scene(WIDTH, HEIGHT), {"negative_prompt": "a cat"} if cfg_scale > 1 else {}
    plan, ours = sampled(kontext_engine, request(images=(source,), strength=1.0, cfg_scale=cfg_scale, **said))
    assert plan.spec.family == "flux-kontext" and plan.spec.facts["family"] == "file name"
    drawn = noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))
    close(ours, kontexts(kontext, values_of(source), drawn, true_cfg_scale=cfg_scale, **said))


def test_kontext_without_a_picture(kontext: FlowParts, kontext_engine: Engine) -> None:
    _, ours = sampled(kontext_engine, request(images=(), width=WIDTH, height=HEIGHT))
    close(ours, kontexts(kontext, None, noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))))


def test_a_reference_of_another_size(kontext: FlowParts, kontext_engine: Engine) -> None:
    """One picture alone is looked at as their pipeline looks at its source, whatever is painted."""
    seen = scene(48, 80)
    _, ours = sampled(kontext_engine, request(images=(), references=(seen,), width=WIDTH, height=HEIGHT))
    drawn = noise_like(torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8))
    close(ours, kontexts(kontext, values_of(seen), drawn))


def test_kontext_edits_under_a_mask(kontext: FlowParts, kontext_engine: Engine) -> None:
    """Their pipeline of Kontext with a mask, started from the same latents."""
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(kontext_engine, request(images=(source,), mask=mask, strength=0.8))
    s, init = shares(plan)[0], encoded(kontext.vae, source)
    drawn = noise_like(init)
    pipe = pipeline(kontext, "KontextInpaint")
    ids = pipe._prepare_latent_image_ids(1, HEIGHT // 16, WIDTH // 16, "cpu", torch.float32)
    numbered = ids + torch.tensor([1, 0, 0])
    start = packed((1 - s) * init + s * drawn)
    pipe.prepare_latents = lambda *args, **kwargs: (*(start, packed(init), None, ids, numbered, None, packed(drawn)),)
    theirs = pipe(
        prompt=PROMPT,
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        sigmas=shares(plan),
        guidance_scale=2.5,
        max_area=WIDTH * HEIGHT,
        _auto_resize=False,
        output_type="latent",
    ).images
    close(ours, map_of(theirs))


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_fill(strength: float, fill: FlowParts, fill_engine: Engine) -> None:
    """Their pipeline leaves the kept part to the network, and so is ours without its blend."""
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (41, 0, WIDTH, HEIGHT))
    asked = request(images=(source,), mask=mask, strength=strength)
    plan, ours = sampled(fill_engine, asked, blend=False)
    assert plan.spec.family == "flux-fill"
    s, init = shares(plan)[0], encoded(fill.vae, source)
    theirs = _filled(fill, source, mask, packed((1 - s) * init + s * noise_like(init)), sigmas=shares(plan))
    close(ours, map_of(theirs))


def test_fill_with_the_kept_part_held(fill: FlowParts, fill_engine: Engine) -> None:
    """As people get it: after each step what is kept is the source again, noised to the next level."""
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (48, 0, WIDTH, HEIGHT))
    plan, ours = sampled(fill_engine, request(images=(source,), mask=mask, strength=0.7))
    levels, init = [*shares(plan), 0.0], encoded(fill.vae, source)
    drawn, painted = noise_like(init), torch.zeros_like(init)
    painted[..., 6:] = 1

    def held(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        s = levels[step + 1]
        kept = packed((1 - s) * init + s * drawn)
        return {"latents": torch.where(packed(painted) > 0, tensors["latents"], kept)}

    start = packed((1 - levels[0]) * init + levels[0] * drawn)
    theirs = _filled(fill, source, mask, start, sigmas=levels[:-1], callback_on_step_end=held)
    close(ours, map_of(theirs))


def _filled(parts: FlowParts, source: Image.Image, mask: Image.Image, start: Tensor, **said: Any) -> Tensor:
    found: Tensor = pipeline(parts, "Fill")(
        prompt=PROMPT,
        image=values_of(source),
        mask_image=values_of(mask.convert("L")),
        width=WIDTH,
        height=HEIGHT,
        strength=1.0,
        latents=start,
        guidance_scale=30.0,
        output_type="latent",
        **said,
    ).images
    return found


def test_what_fill_sees_of_a_mask(fill: FlowParts, fill_engine: Engine) -> None:
    """Every pixel, though a cell stands for 64 of them."""
    source, mask = scene(WIDTH, HEIGHT), box(WIDTH, HEIGHT, (41, 3, WIDTH, HEIGHT))
    from overpaint.engine import stages_of

    prepared = stages_of(fill_engine).prepare(fill_engine.plan(request(images=(source,), mask=mask)))
    assert prepared.image_conditioning is not None
    seen = F.pixel_shuffle(prepared.image_conditioning[:, 16:], 8)
    assert torch.equal(seen[0], values_of(mask.convert("L"))[0])
