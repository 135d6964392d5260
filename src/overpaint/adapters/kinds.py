"""What each kind of network adds to a weight (LORA-4, LORA-5, LORA-8): tensors in, a difference out.

LoRA: Hu et al. (2021). LoCon, LoHa, LoKr and IA3 in this form: Yeh et al., "LyCORIS" (2023), arXiv:2309.14859.
GLoRA: Chavan et al. (2023). OFT, BOFT: Qiu et al., Liu et al. (2023). DoRA: Liu et al. (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Parts = Mapping[str, Tensor]

_TINY = 1e-8  # the constraint's guard against a division by zero
_SCALARS = ("alpha", "scale", "on_input")


class LayerChange(NamedTuple):
    """What a network adds to a layer, before its multiplier; the weight is in memory of its own."""

    weight: Tensor
    bias: Tensor | None = None


class _Delta(NamedTuple):
    """A kind's own difference, in memory of its own, and the rank that alpha is divided by, if it has one."""

    values: Tensor
    rank: int | None = None


@dataclass(frozen=True)
class AdapterKind:
    """A row of the table: a layer is of this kind if it has all tensors of one of the alternatives."""

    name: str
    alternatives: tuple[tuple[str, ...], ...]
    delta: Callable[[Parts, Tensor, int | None], _Delta]
    bias: str | None = None
    in_model_type: bool = False  # LORA-6: the reference brings its factors to the model's type, all others' it leaves


@dataclass(frozen=True, eq=False)
class Patch:
    """One layer of a network: its kind and its tensors as they are in the file."""

    kind: AdapterKind
    parts: Parts


def kind_of(names: Container[str]) -> AdapterKind | None:
    """The first kind of LORA-4 whose tensors are all there."""
    return next((kind for kind in KINDS if any(all(n in names for n in each) for each in kind.alternatives)), None)


def change_of(
    patch: Patch,
    weight: Tensor,
    *,
    rank: int | None = None,
    file_precision: bool = False,
    plain: bool = False,
    only_nine: bool = False,
    norm_per_input: bool = False,
) -> LayerChange:
    """What a patch adds to a layer that now has this weight; RuntimeError, ValueError or IndexError if it cannot.

    rank: where LoRA factors are cut (dyn). file_precision: compute in the file's types, not in the weight's (LORA-6).
    plain: of a LoRA, only up and down count (LORA-7). only_nine: of the input layers for more than four channels, those
    for nine alone take what was made for four. norm_per_input: DoRA's directions go by inputs even where its lengths
    are of outputs (LORA-5).
    """
    parts = _cast(patch, weight, file_precision)
    plain = plain and patch.kind is LORA
    if plain:
        parts, rank = {name: parts[name] for name in parts if name in _PLAIN}, None
    delta, dim = patch.kind.delta(parts, weight, rank)
    delta = _centred(delta, weight) if plain else delta
    if "bias" in parts:
        delta = delta + parts["bias"].reshape(delta.shape)
    delta = _fitted(delta, weight, strict=not file_precision, only_nine=only_nine).mul_(_scale(parts, dim))
    delta = _decomposed(parts, delta, weight, norm_per_input)
    if delta.shape != weight.shape:  # a magnitude of another layer's shape can widen it
        raise ValueError(f"it makes {list(delta.shape)} of {list(weight.shape)}")
    return LayerChange(delta, parts.get(patch.kind.bias) if patch.kind.bias is not None else None)


def _cast(patch: Patch, weight: Tensor, file_precision: bool) -> Parts:
    """Onto the weight's device, in the type to compute in; single numbers stay as they are."""
    dtype = None if file_precision and not patch.kind.in_model_type else weight.dtype
    return {
        name: part if name in _SCALARS else part.to(device=weight.device, dtype=dtype)
        for name, part in patch.parts.items()
    }


def _scale(parts: Parts, rank: int | None) -> float:
    """LORA-5: a stored scale wins over alpha / rank."""
    if "scale" in parts:
        return float(parts["scale"])
    return float(parts["alpha"]) / rank if "alpha" in parts and rank else 1.0


def _fitted(delta: Tensor, weight: Tensor, *, strict: bool, only_nine: bool) -> Tensor:
    """In the weight's shape; where an input layer has more channels than a network for four knows, the rest stay."""
    if delta.numel() == weight.numel():
        if strict and delta.shape[:1] != weight.shape[:1]:
            raise ValueError(f"{list(delta.shape)} where the model has {list(weight.shape)}")
        return delta.reshape(weight.shape)
    extra = weight.shape[1] - delta.shape[1] if delta.dim() == weight.dim() == 4 else 0
    padded = F.pad(delta, (0, 0, 0, 0, 0, extra)) if extra > 0 and delta.shape[1] == 4 else delta
    if padded.shape != weight.shape or (only_nine and weight.shape[1] != 9):
        raise ValueError(f"{list(delta.shape)} where the model has {list(weight.shape)}")
    return padded


def _decomposed(parts: Parts, delta: Tensor, weight: Tensor, norm_per_input: bool) -> Tensor:
    """DoRA on top of a difference: each input's or each output's share of the weight gets a stored length."""
    lengths = parts.get("dora_scale", parts.get("magnitude"))
    if lengths is None:
        return delta
    new = weight + delta
    of_outputs = "magnitude" in parts or (not norm_per_input and lengths.shape == (len(weight), *[1] * (new.dim() - 1)))
    axis = 0 if of_outputs else 1
    along = [-1 if i == axis else 1 for i in range(new.dim())]
    norms = new.transpose(0, axis).flatten(1).norm(dim=1).reshape(along)
    scaled: Tensor = new * ((lengths.reshape(along) if of_outputs else lengths) / norms)
    return scaled - weight


# ---- The kinds ----


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, rounded once: CPUs sum narrow types each in their own way."""
    return (a.float() @ b.float()).to(a.dtype)


def _lora(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    up, down, mid = parts["lora_up.weight"], parts["lora_down.weight"], parts.get("lora_mid.weight")
    dim = down.shape[0]
    if mid is not None:
        return _Delta(torch.einsum("pqkl,op,qi->oikl", mid, up.flatten(1), down.flatten(1)), dim)
    if rank is not None:
        up, down = up[:, :rank], down[:rank]
    product = _product(up.flatten(1), down.flatten(1))
    return _Delta(product.reshape(up.shape[0], *down.shape[1:]), dim)


def _centred(kernel: Tensor, weight: Tensor) -> Tensor:
    """A kernel of one pixel, as what is left of a CP form, acts as the middle of a larger one."""
    if kernel.dim() != 4 or weight.dim() != 4 or kernel.shape[2:] != (1, 1):
        return kernel
    high, wide = weight.shape[2] // 2, weight.shape[3] // 2
    return F.pad(kernel, (wide, wide, high, high))


def _rebuilt(core: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    """A CP (Tucker) form: core (p, q, k, l), outputs (p, out), inputs (q, in) -> (out, in, k, l)"""
    return torch.einsum("pqkl,qi,po->oikl", core, inputs, outputs).contiguous()


def _loha(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    factors = []
    for n in "12":
        a, b, core = parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"], parts.get(f"hada_t{n}")
        factors.append(_rebuilt(core, a, b) if core is not None else _product(a, b))
    return _Delta(factors[0] * factors[1], parts["hada_w1_b"].shape[0])


def _ia3(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    factor = parts["weight"].flatten()
    inputs = bool(parts["on_input"].any())
    along = (1, -1, *[1] * (weight.dim() - 2)) if inputs else (-1, *[1] * (weight.dim() - 1))
    return _Delta(weight * factor.reshape(along))


def _lokr(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    ranks = [parts[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in parts]
    w1 = parts["lokr_w1"] if "lokr_w1" in parts else _product(parts["lokr_w1_a"], parts["lokr_w1_b"])
    if "lokr_w2" in parts:
        w2 = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        w2 = _rebuilt(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        w2 = _product(parts["lokr_w2_a"], parts["lokr_w2_b"])
    return _Delta(torch.kron(w1.reshape(*w1.shape, *[1] * (w2.dim() - w1.dim())), w2), ranks[0] if ranks else None)


def _full(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    return _Delta(parts["diff"].clone())


def _norm(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    return _Delta(parts["w_norm"].clone())


def _glora(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    a1, a2, b1, b2 = (parts[f"{name}.weight"].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    dim = None
    if len(b2) != len(weight) and len(b1) == len(weight):  # later trainers count the other way round, and use alpha
        a1, a2, b1, b2, dim = a2, a1, b2, b1, len(b2)
    current = weight.to(a2.dtype).movedim(1, -1)
    through = _product(_product(current.reshape(-1, len(a2)), a2), a1).reshape(current.shape).movedim(-1, 1)
    return _Delta(_product(b2, b1).reshape(weight.shape) + through, dim)


def _oft(parts: Parts, weight: Tensor, rank: int | None) -> _Delta:
    blocks = parts["oft_blocks"] if "oft_blocks" in parts else parts["oft_diag"]
    if "oft_blocks" in parts:
        blocks = _rotations(blocks, float(parts.get("alpha", 0.0)) * weight.shape[0], weight.dtype)
    rotated = _butterfly(blocks, weight) if blocks.dim() == 4 else _by_blocks(blocks.transpose(1, 2), weight)
    if "rescale" in parts:
        rotated = rotated * parts["rescale"].reshape(-1, *[1] * (weight.dim() - 1))
    return _Delta(rotated - weight)


def _rotations(blocks: Tensor, most: float, dtype: torch.dtype) -> Tensor:
    """Cayley's orthogonal (I + Q)(I - Q)^-1 of Q = B - B^T; all blocks together are no longer than `most`, if given."""
    q = blocks - blocks.transpose(-1, -2)
    if most > 0:
        length = torch.linalg.vector_norm(q)
        q = q * ((length.clamp(max=most) + _TINY) / (length + _TINY))
    identity = torch.eye(q.shape[-1], device=q.device)
    rotations: Tensor = (identity + q) @ torch.linalg.inv(identity - q)
    return rotations.to(dtype)


def _by_blocks(blocks: Tensor, weight: Tensor) -> Tensor:
    """Each group of rows times its block (n, b, b)."""
    return torch.einsum("kmn,knr->kmr", blocks, weight.reshape(*blocks.shape[:2], -1)).reshape(weight.shape)


def _butterfly(stages: Tensor, weight: Tensor) -> Tensor:
    """BOFT: stage after stage (m, n, b, b), rows that are 2^i * b/2 apart meet in one block."""
    for i, blocks in enumerate(stages):
        near = 2**i * blocks.shape[-1] // 2
        shuffled = weight.reshape(-1, 2, near, *weight.shape[1:]).transpose(1, 2)
        mixed = _by_blocks(blocks, shuffled.reshape(weight.shape))
        weight = mixed.reshape(shuffled.shape).transpose(1, 2).reshape(weight.shape)
    return weight


_LOKR = tuple(
    (*first, *second)
    for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
    for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
)
_PLAIN = ("lora_up.weight", "lora_down.weight", "alpha", "scale")

LORA = AdapterKind("LoRA", (("lora_up.weight", "lora_down.weight"),), _lora, in_model_type=True)
KINDS = (
    LORA,
    AdapterKind("LoHa", (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),), _loha),
    AdapterKind("IA3", (("weight", "on_input"),), _ia3),
    AdapterKind("LoKr", _LOKR, _lokr),
    AdapterKind("full", (("diff",),), _full, bias="diff_b"),
    AdapterKind("norm", (("w_norm", "b_norm"),), _norm, bias="b_norm"),
    AdapterKind("GLoRA", (("a1.weight", "a2.weight", "b1.weight", "b2.weight"),), _glora),
    AdapterKind("OFT", (("oft_blocks",), ("oft_diag",)), _oft),
)
