"""Flux.1, Stable Diffusion 3, T5 and CLIP against diffusers and transformers, with narrow random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.layout_tables import FLUX_ROWS, MMDIT_ROWS, origins
from overpaint.models.specs import UNET_PREFIX, FluxSpec, MmditSpec, TextSpec
from overpaint.models.transformer_layouts import transformer_names
from overpaint.models.transformer_shapes import transformer_part, transformer_spec
from overpaint.networks.flux import Flux
from overpaint.networks.mmdit import Mmdit
from overpaint.networks.t5_text import T5Text
from overpaint.networks.text import ClipText
from tests.networks_vs_diffusers.flow_sources import (
    CLIP_G,
    CLIP_L,
    FLUX_WIDTH,
    SD3_WIDTH,
    T5,
    flux_tensors,
    sd3_tensors,
    small_clip,
    small_flux,
    small_sd3,
    small_t5,
)
from tests.networks_vs_diffusers.test_flow_networks import close, filled, noise

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

FLUX = FluxSpec(
    in_channels=16,
    width=FLUX_WIDTH,
    double_blocks=2,
    single_blocks=2,
    heads=2,
    inner=4 * FLUX_WIDTH,
    context_dim=T5,
    pooled_dim=CLIP_L,
    guided=True,
    axes=(4, 14, 14),
)
SD35 = MmditSpec(
    in_channels=16,
    width=SD3_WIDTH,
    blocks=3,
    dual_blocks=2,
    heads=4,
    inner=4 * SD3_WIDTH,
    context_dim=T5,
    vector_dim=CLIP_L + CLIP_G,
    normed=True,
    side=24,
)
SD3 = replace(SD35, dual_blocks=0, heads=1, normed=False)


def packed(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, 4 * c)


def places(h: int, w: int) -> Tensor:
    found = torch.zeros(h, w, 3)
    found[..., 1], found[..., 2] = torch.arange(h)[:, None], torch.arange(w)[None]
    return found.reshape(-1, 3)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(("high", "wide", "words"), [(8, 8, 16), (6, 10, 7)])
def test_flux(guided: bool, high: int, wide: int, words: int) -> None:
    theirs = small_flux(guided=guided)
    ours = filled(Flux(replace(FLUX, guided=guided)), flux_tensors(theirs.state_dict()))
    x, s, context = noise(2, 16, high, wide), torch.tensor([0.9, 0.25]), noise(2, words, T5, seed=1)
    pooled, guidance = noise(2, CLIP_L, seed=2), torch.tensor([3.5, 2.25])
    vector = torch.cat([pooled, guidance[:, None]], dim=1) if guided else pooled
    expected = theirs(
        hidden_states=packed(x),
        encoder_hidden_states=context,
        pooled_projections=pooled,
        timestep=s,
        img_ids=places(high // 2, wide // 2),
        txt_ids=torch.zeros(words, 3),
        guidance=guidance if guided else None,
        return_dict=False,
    )[0]
    assert close(packed(ours(x, s, context, vector)), expected)


@pytest.mark.parametrize("spec", [SD3, SD35])
@pytest.mark.parametrize(("high", "wide"), [(8, 8), (6, 12)])
def test_stable_diffusion_3(spec: MmditSpec, high: int, wide: int) -> None:
    theirs = small_sd3(later=spec.normed)
    ours = filled(Mmdit(spec), sd3_tensors(theirs.state_dict()))
    x, s, context = noise(2, 16, high, wide), torch.tensor([0.9, 0.25]), noise(2, 11, T5, seed=1)
    vector = noise(2, CLIP_L + CLIP_G, seed=2)
    expected = theirs(x, context, vector, s * 1000, return_dict=False)[0]
    assert close(ours(x, s, context, vector), expected)


@pytest.mark.parametrize("network", [Flux(FLUX), Mmdit(SD35)], ids=["flux", "sd3"])
def test_odd_sides(network: Any) -> None:
    """What is missing for a whole token repeats the edge, and nothing of it comes back."""
    theirs = flux_tensors(small_flux(guided=True).state_dict())
    ours = filled(network, theirs if isinstance(network, Flux) else sd3_tensors(small_sd3(later=True).state_dict()))
    x, s, context = noise(1, 16, 5, 6), torch.tensor([0.5]), noise(1, 9, T5)
    vector = noise(1, CLIP_L + (1 if isinstance(network, Flux) else CLIP_G))
    larger = torch.cat([x, x[:, :, -1:]], dim=2)
    assert torch.equal(ours(x, s, context, vector), ours(larger, s, context, vector)[:, :, :5])


@pytest.mark.parametrize(
    ("theirs", "ours", "rows"),
    [
        (lambda: small_flux(guided=True), flux_tensors, FLUX_ROWS),
        (lambda: small_sd3(later=True), sd3_tensors, MMDIT_ROWS),
        (lambda: small_sd3(later=False), sd3_tensors, MMDIT_ROWS),
    ],
    ids=["flux", "sd35", "sd3"],
)
def test_the_table_of_names_says_what_was_written_by_hand(theirs: Any, ours: Any, rows: Any) -> None:
    tensors = theirs().state_dict()
    named = {}
    for name, origin in origins(tensors, rows).items():
        whole = torch.cat([tensors[key] for key in origin.keys])
        named[name] = torch.cat(whole.chunk(2)[::-1]) if origin.swapped else whole
    wanted = ours(tensors)
    assert named.keys() == wanted.keys()
    assert all(torch.equal(each, named[name]) for name, each in wanted.items())


@pytest.mark.parametrize(
    ("tensors", "spec", "family"),
    [
        (lambda: small_flux(guided=True), FLUX, "flux-dev"),
        (lambda: small_flux(guided=False), replace(FLUX, guided=False), "flux-schnell"),
        (lambda: small_sd3(later=True), SD35, "sd35"),
        (lambda: small_sd3(later=False), SD3, "sd3"),
    ],
    ids=["dev", "schnell", "sd35", "sd3"],
)
def test_shapes_tell_what_it_is(tensors: Any, spec: Any, family: str) -> None:
    """In either way of naming."""
    theirs = tensors().state_dict()
    ours = (flux_tensors if isinstance(spec, FluxSpec) else sd3_tensors)(theirs)
    for named in (theirs, ours, {UNET_PREFIX + name: each for name, each in ours.items()}):
        found = transformer_part({name: tuple(each.shape) for name, each in named.items()})
        assert found is not None
        assert (found[0].name, transformer_spec(found[1], found[0])) == (family, spec)
    assert transformer_names(["double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.bias"]) is None


@pytest.mark.parametrize("words", [5, 300])
def test_t5(words: int) -> None:
    theirs = small_t5()
    spec = TextSpec(
        kind="t5",
        prefix="",
        width=T5,
        layers=3,
        heads=4,
        head_dim=8,
        inner=40,
        vocabulary=64,
        positions=32,
        layer=-1,
        final_norm=True,
    )
    kept = {key: each for key, each in theirs.state_dict().items() if key != "encoder.embed_tokens.weight"}
    ours = filled(T5Text(spec), kept)
    ids = torch.randint(0, 64, (2, words), generator=torch.Generator().manual_seed(0))
    assert isinstance(ours, T5Text)
    assert close(ours.encode(ids).tokens, theirs(ids).last_hidden_state)


@pytest.mark.parametrize("projected", [False, True])
def test_what_clip_says_of_a_whole_text(projected: bool) -> None:
    """The last layer at the end token, and for Stable Diffusion 3 what a projection makes of it."""
    theirs = small_clip(CLIP_L, "quick_gelu", projected=projected)
    spec = TextSpec(
        kind="clip",
        prefix="",
        width=CLIP_L,
        layers=3,
        heads=1,
        inner=2 * CLIP_L,
        vocabulary=49408,
        positions=77,
        activation="quick_gelu",
        layer=-2,
        final_norm=False,
        pooled=True,
        projected=projected,
    )
    tensors = {key.removeprefix("text_model."): each for key, each in theirs.state_dict().items()}
    ours = filled(ClipText(spec), {key: each for key, each in tensors.items() if "position_ids" not in key})
    ids = torch.tensor([[49406, 320, 736, 49407, 49407, 49407], [49406, 5, 6, 7, 8, 49407]])
    assert isinstance(ours, ClipText)
    made, expected = ours.encode(ids), theirs(ids, output_hidden_states=True)
    assert close(made.tokens, expected.hidden_states[-2])
    pooled = expected.text_embeds if projected else expected.pooler_output
    assert made.pooled is not None and close(made.pooled, pooled)
