"""The text encoders: CLIP as SD 1 and SDXL store it, and OpenCLIP as SD 2 and SDXL store it (ARCH-8, ENCODE-10).

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.families import Activation, TextSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Linear, in_heads

QUICK_GELU = 1.702  # x * sigmoid(this * x)
_ACTIVATIONS = {"gelu": F.gelu, "quick_gelu": lambda x: x * torch.sigmoid(QUICK_GELU * x)}


@dataclass(frozen=True)
class TokenOverride:
    """Vectors that take the place of token embeddings from one slot on (TI-2); what does not fit is dropped."""

    row: int
    slot: int
    vectors: Tensor  # (n, width)


@dataclass(frozen=True)
class TokenPicture:
    """A picture that is read before the token at a slot, in an encoder that sees."""

    slot: int
    pixels: Tensor  # (1, 3, height, width) in -1..1, both of whole tokens


@dataclass(frozen=True)
class TextEncoding:
    """A vector per token, and for families that use it one vector for the whole text."""

    tokens: Tensor  # (b, 77, width)
    pooled: Tensor | None = None  # (b, width)


class EmbeddingLayer(nn.Module):
    """A table of vectors."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


class _SplitAttention(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.k_proj = Linear(spec.width, spec.width)
        self.v_proj = Linear(spec.width, spec.width)
        self.q_proj = Linear(spec.width, spec.width)
        self.out_proj = Linear(spec.width, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (in_heads(layer(x), self.heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        result: Tensor = self.out_proj(attend(q, k, v, causal=True))
        return result


class _FusedAttention(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * spec.width, spec.width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * spec.width))
        self.out_proj = Linear(spec.width, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (in_heads(each, self.heads) for each in (q, k, v))
        result: Tensor = self.out_proj(attend(q, k, v, causal=True))
        return result


class _ClipMlp(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.activation: Activation = spec.activation
        self.fc1 = Linear(spec.width, spec.inner)
        self.fc2 = Linear(spec.inner, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(_ACTIVATIONS[self.activation](self.fc1(x)))
        return result


class _OpenClipMlp(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.activation: Activation = spec.activation
        self.c_fc = Linear(spec.width, spec.inner)
        self.c_proj = Linear(spec.inner, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.c_proj(_ACTIVATIONS[self.activation](self.c_fc(x)))
        return result


class _ClipLayer(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.self_attn = _SplitAttention(spec)
        self.layer_norm1 = nn.LayerNorm(spec.width)
        self.mlp = _ClipMlp(spec)
        self.layer_norm2 = nn.LayerNorm(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        result: Tensor = x + self.mlp(self.layer_norm2(x))
        return result


class _OpenClipLayer(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.attn = _FusedAttention(spec)
        self.ln_1 = nn.LayerNorm(spec.width)
        self.mlp = _OpenClipMlp(spec)
        self.ln_2 = nn.LayerNorm(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class _Embeddings(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.token_embedding = EmbeddingLayer(spec.vocabulary, spec.width)
        self.position_embedding = EmbeddingLayer(spec.positions, spec.width)


class _Layers(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ClipLayer(spec) for _ in range(spec.layers))


class _Blocks(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_OpenClipLayer(spec) for _ in range(spec.layers))


class ClipText(nn.Module):
    """CLIP's text tower in the names of Hugging Face: SD 1, and the first encoder of SDXL."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = _Embeddings(spec)
        self.encoder = _Layers(spec)
        self.final_layer_norm = nn.LayerNorm(spec.width)
        if spec.projected:
            self.text_projection = Linear(spec.width, spec.width, bias=False)

    def encode(
        self,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
    ) -> TextEncoding:
        """Token ids (b, 77) to the vectors of one layer; the family's layer and norm where none is given (ENCODE-4).

        For families that read it, also the last layer at the end token.
        """
        depth, final_norm = depth_and_norm(self.spec, layer, final_norm)
        blocks = list(self.encoder.layers)
        x = _run(self.embedded(ids, overrides), blocks[:depth])
        tokens = self.final_layer_norm(x) if final_norm else x
        if not self.spec.pooled:
            return TextEncoding(tokens)
        return TextEncoding(tokens, self.pooled(self.final_layer_norm(_run(x, blocks[depth:])), ids))

    def embedded(self, ids: Tensor, overrides: Sequence[TokenOverride] = ()) -> Tensor:
        """What the layers are given."""
        table, positions = self.embeddings.token_embedding, self.embeddings.position_embedding.weight
        return _overridden(table(ids), overrides) + positions[: ids.shape[1]]

    def pooled(self, last: Tensor, ids: Tensor) -> Tensor:
        """One vector for the text, of what the last layer and its norm say of each token."""
        end = _at_end(last, ids)
        pooled: Tensor = self.text_projection(end) if self.spec.projected else end
        return pooled


class OpenClipText(nn.Module):
    """OpenCLIP's text tower in its own names: SD 2, the second encoder of SDXL, and the refiner's."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.token_embedding = EmbeddingLayer(spec.vocabulary, spec.width)
        self.positional_embedding = nn.Parameter(torch.empty(spec.positions, spec.width))
        self.transformer = _Blocks(spec)
        self.ln_final = nn.LayerNorm(spec.width)
        if spec.pooled:
            self.text_projection = nn.Parameter(torch.empty(spec.width, spec.width))

    def encode(
        self,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
    ) -> TextEncoding:
        """As `ClipText.encode`; for SDXL also the projected last layer at the end token (ENCODE-5)."""
        depth, final_norm = depth_and_norm(self.spec, layer, final_norm)
        blocks = list(self.transformer.resblocks)
        x = _run(self.embedded(ids, overrides), blocks[:depth])
        tokens = self.ln_final(x) if final_norm else x
        if not self.spec.pooled:
            return TextEncoding(tokens)
        return TextEncoding(tokens, self.pooled(self.ln_final(_run(x, blocks[depth:])), ids))

    def embedded(self, ids: Tensor, overrides: Sequence[TokenOverride] = ()) -> Tensor:
        """What the layers are given."""
        return _overridden(self.token_embedding(ids), overrides) + self.positional_embedding[: ids.shape[1]]

    def pooled(self, last: Tensor, ids: Tensor) -> Tensor:
        """One vector for the text, of what the last layer and its norm say of each token."""
        return _at_end(last, ids) @ self.text_projection


def _at_end(x: Tensor, ids: Tensor) -> Tensor:
    """The vector of the first end token. NOTE: it has the largest id of the vocabulary."""
    return x[torch.arange(len(ids)), ids.argmax(dim=-1)]


def _overridden(embedded: Tensor, overrides: Iterable[TokenOverride]) -> Tensor:
    overrides = tuple(overrides)
    if not overrides:
        return embedded
    embedded = embedded.clone()
    for each in overrides:
        room = embedded.shape[1] - each.slot
        embedded[each.row, each.slot : each.slot + len(each.vectors)] = each.vectors[:room].to(embedded)
    return embedded


def depth_and_norm(spec: TextSpec, layer: int | None, final_norm: bool | None) -> tuple[int, bool]:
    """How many blocks make the tokens, and whether the last norm follows; the family's where nothing is given."""
    norm = spec.final_norm if final_norm is None else final_norm
    return _depth(spec, spec.layer if layer is None else layer), norm


def _depth(spec: TextSpec, layer: int) -> int:
    """How many blocks to run for an index into [embeddings, block 1, ..., last block]."""
    depth = layer if layer >= 0 else spec.layers + 1 + layer
    if not 0 <= depth <= spec.layers:
        raise ValueError(f"layer={layer}: this text encoder has {spec.layers} layers; use -1 to {-spec.layers - 1}")
    return depth


def _run(x: Tensor, blocks: Sequence[nn.Module]) -> Tensor:
    for block in blocks:
        x = block(x)
    return x
