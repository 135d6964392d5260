"""The text encoders: numbers of transformers, layers of the specification, replaced token vectors."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.families import TextSpec
from overpaint.networks.layers import blank
from overpaint.networks.text import ClipText, OpenClipText, TokenOverride
from overpaint.networks.text_networks import TextNetwork, text_network

CLIP = TextSpec(
    kind="clip",
    prefix="",
    width=32,
    layers=4,
    heads=2,
    inner=128,
    vocabulary=100,
    positions=77,
    activation="quick_gelu",
    layer=-1,
    final_norm=True,
    follows_skip=True,
    pooled=False,
)
OPEN_CLIP = replace(CLIP, kind="openclip", activation="gelu", layer=-2, follows_skip=False, pooled=True)


def network(spec: TextSpec) -> TextNetwork:
    torch.manual_seed(0)
    tower = blank(partial(text_network, spec), "cpu", torch.float32)
    for parameter in tower.parameters():
        parameter.data.normal_(0, parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5)
    return tower.requires_grad_(False)


def ids() -> Tensor:
    torch.manual_seed(1)
    tokens = torch.randint(1, 98, (2, 77))
    tokens[0, 5] = tokens[1, 30] = 99
    return tokens


def hugging_face(spec: TextSpec, state: dict[str, Tensor]) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=spec.vocabulary,
        hidden_size=spec.width,
        intermediate_size=spec.inner,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        hidden_act=spec.activation,
        projection_dim=spec.width,
        eos_token_id=99,
    )
    theirs = transformers.CLIPTextModelWithProjection(config).eval()
    wanted = {name for name, _ in theirs.named_parameters()}
    named = {f"text_model.{name}": value for name, value in state.items()}
    named.setdefault("text_projection.weight", torch.eye(spec.width))
    theirs.load_state_dict({name: value for name, value in named.items() if name in wanted}, strict=False)
    return theirs


def as_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's names in Hugging Face's, the fused projection taken apart."""
    renamed: dict[str, Tensor] = {}
    pieces = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for name, value in state.items():
        name = name.replace("transformer.resblocks.", "encoder.layers.").replace("ln_final", "final_layer_norm")
        name = name.replace("attn.out_proj", "self_attn.out_proj")
        for ours, theirs in pieces.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        if ".attn.in_proj_" in name:
            head, kind = name.split(".attn.in_proj_")
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{head}.self_attn.{part}_proj.{kind}"] = piece
        elif name == "token_embedding.weight":
            renamed["embeddings.token_embedding.weight"] = value
        elif name == "positional_embedding":
            renamed["embeddings.position_embedding.weight"] = value
        else:
            renamed[name] = value
    return renamed


@pytest.mark.slow
def test_clip_equals_transformers_at_every_layer() -> None:  # ARCH-8, ENCODE-4
    tower = network(CLIP)
    theirs = hugging_face(CLIP, tower.state_dict())
    with torch.no_grad():
        wanted = theirs(ids(), output_hidden_states=True)
        for skip in range(1, 6):
            got = tower.encode(ids(), layer=-skip, final_norm=False).tokens
            torch.testing.assert_close(got, wanted.hidden_states[-skip], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(tower.encode(ids()).tokens, wanted.last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_open_clip_equals_transformers_and_pools_the_end_token() -> None:  # ARCH-8, ENCODE-5
    tower = network(OPEN_CLIP)
    state = tower.state_dict()
    theirs = hugging_face(OPEN_CLIP, as_hugging_face(state))
    theirs.text_projection.weight.data = state["text_projection"].T.contiguous()
    with torch.no_grad():
        wanted = theirs(ids(), output_hidden_states=True)
        got = tower.encode(ids(), final_norm=False)
    torch.testing.assert_close(got.tokens, wanted.hidden_states[-2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.pooled, wanted.text_embeds, atol=1e-5, rtol=1e-4)


def test_penultimate_layer_with_the_final_norm() -> None:  # ENCODE-4, SD 2
    tower = network(replace(OPEN_CLIP, pooled=False))
    assert isinstance(tower, OpenClipText)
    bare = tower.encode(ids(), final_norm=False)
    assert bare.pooled is None
    torch.testing.assert_close(tower.encode(ids()).tokens, tower.ln_final(bare.tokens))


def test_overrides_take_the_place_of_token_vectors() -> None:  # TI-2
    tower = network(CLIP)
    assert isinstance(tower, ClipText)
    table = tower.embeddings.token_embedding.weight
    tokens = ids()
    changed = tokens.clone()
    changed[1, 3:5] = torch.tensor([7, 8])
    override = TokenOverride(row=1, slot=3, vectors=table[[7, 8]])
    got = tower.encode(tokens, overrides=[override]).tokens
    torch.testing.assert_close(got, tower.encode(changed).tokens)


def test_overrides_that_do_not_fit_are_cut_off() -> None:  # TI-2
    tower = network(CLIP)
    vectors = torch.randn(5, 32)
    cut = tower.encode(ids(), overrides=[TokenOverride(0, 75, vectors[:2])]).tokens
    assert torch.equal(tower.encode(ids(), overrides=[TokenOverride(0, 75, vectors)]).tokens, cut)


@pytest.mark.parametrize("layer", [-6, 5])
def test_layer_that_does_not_exist(layer: int) -> None:
    with pytest.raises(ValueError, match=r"4 layers"):
        network(CLIP).encode(ids(), layer=layer)
