"""Each kind of network against its formula, written out in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from overpaint.adapters.kinds import KINDS, Patch, change_of, kind_of

Array = NDArray[Any]
Arrays = dict[str, Array]
Case = tuple[tuple[int, ...], Arrays, Callable[[Array], Array]]

LINEAR, CONV = (12, 8), (12, 8, 3, 3)


def normal(rng: np.random.Generator, **shapes: tuple[int, ...]) -> Arrays:
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def dotted(arrays: Arrays) -> Arrays:
    return {f"{name}.weight": value for name, value in arrays.items()}


def cp(core: Array, outputs: Array, inputs: Array) -> Array:
    """out (p, o), in (q, i), core (p, q, k, l)"""
    rebuilt: Array = np.einsum("pqkl,po,qi->oikl", core, outputs, inputs)
    return rebuilt


def lora(rng: np.random.Generator, shape: tuple[int, ...]) -> Case:
    rank = 3
    a = normal(rng, up=(shape[0], rank), down=(rank, *shape[1:]))
    parts = {"lora_up.weight": a["up"].reshape(shape[0], rank, *[1] * (len(shape) - 2)), "lora_down.weight": a["down"]}
    return (
        shape,
        {**parts, "alpha": np.array(1.5)},
        lambda w: (a["up"] @ a["down"].reshape(rank, -1)).reshape(shape) * 0.5,
    )


def locon_cp(rng: np.random.Generator) -> Case:
    a = normal(rng, lora_up=(12, 3, 1, 1), lora_down=(4, 8, 1, 1), lora_mid=(3, 4, 3, 3))
    expected = cp(a["lora_mid"], a["lora_up"][:, :, 0, 0].T, a["lora_down"][:, :, 0, 0])
    return CONV, {**dotted(a), "alpha": np.array(2.0)}, lambda w: expected * 0.5


def loha(rng: np.random.Generator) -> Case:
    a = normal(rng, hada_w1_a=(12, 2), hada_w1_b=(2, 72), hada_w2_a=(12, 2), hada_w2_b=(2, 72))
    expected = (a["hada_w1_a"] @ a["hada_w1_b"]) * (a["hada_w2_a"] @ a["hada_w2_b"])
    return CONV, {**a, "alpha": np.array(3.0)}, lambda w: expected.reshape(w.shape) * 1.5


def loha_cp(rng: np.random.Generator) -> Case:
    factors = {f"hada_w{n}_{side}": size for n in "12" for side, size in (("a", (2, 12)), ("b", (3, 8)))}
    a = normal(rng, **factors, hada_t1=(2, 3, 3, 3), hada_t2=(2, 3, 3, 3))
    one, two = (cp(a[f"hada_t{n}"], a[f"hada_w{n}_a"], a[f"hada_w{n}_b"]) for n in "12")
    return CONV, {**a, "alpha": np.array(3.0)}, lambda w: one * two


def ia3(rng: np.random.Generator, on_input: bool) -> Case:
    factor = rng.standard_normal(8 if on_input else 12)
    along = factor[None, :, None, None] if on_input else factor[:, None, None, None]
    return CONV, {"weight": factor, "on_input": np.array(float(on_input))}, lambda w: w * along


def lokr(rng: np.random.Generator, *, first: bool, second: bool) -> Case:
    w1 = normal(rng, lokr_w1_a=(3, 2), lokr_w1_b=(2, 4)) if first else normal(rng, lokr_w1=(3, 4))
    w2 = normal(rng, lokr_w2_a=(4, 5), lokr_w2_b=(5, 2)) if second else normal(rng, lokr_w2=(4, 2))
    left = w1["lokr_w1_a"] @ w1["lokr_w1_b"] if first else w1["lokr_w1"]
    right = w2["lokr_w2_a"] @ w2["lokr_w2_b"] if second else w2["lokr_w2"]
    scale = 0.2 if second else 0.5 if first else 1.0  # alpha over the rank of the second factor, or the first's
    return LINEAR, {**w1, **w2, "alpha": np.array(1.0)}, lambda w: np.kron(left, right) * scale


def lokr_cp(rng: np.random.Generator) -> Case:
    a = normal(rng, lokr_w1=(3, 4), lokr_w2_a=(2, 4), lokr_w2_b=(3, 2), lokr_t2=(2, 3, 3, 3))
    small = cp(a["lokr_t2"], a["lokr_w2_a"], a["lokr_w2_b"])
    expected = np.einsum("ab,oikl->aobikl", a["lokr_w1"], small).reshape(CONV)
    return CONV, {**a, "alpha": np.array(3.0)}, lambda w: expected


def glora(rng: np.random.Generator) -> Case:
    a = normal(rng, a1=(2, 8), a2=(8, 2), b1=(2, 8), b2=(12, 2))
    return LINEAR, {**dotted(a), "alpha": np.array(7.0)}, lambda w: a["b2"] @ a["b1"] + w @ a["a2"] @ a["a1"]


def glora_later(rng: np.random.Generator) -> Case:
    a = normal(rng, a1=(8, 2), a2=(2, 8), b1=(12, 2), b2=(2, 8, 3, 3))
    ones = {**a, "a1": a["a1"][..., None, None], "a2": a["a2"][..., None, None], "b1": a["b1"][..., None, None]}

    def expected(w: Array) -> Array:
        through = np.einsum("oikl,ir,rj->ojkl", w, a["a1"], a["a2"])
        both: Array = np.einsum("or,rikl->oikl", a["b1"], a["b2"]) + through
        return both * 0.5

    return CONV, {**dotted(ones), "alpha": np.array(1.0)}, expected


def rotation(block: Array, shrink: float = 1.0) -> Array:
    q = (block - block.T) * shrink
    eye = np.eye(len(q))
    return (eye + q) @ np.linalg.inv(eye - q)


def oft(rng: np.random.Generator, alpha: float | None, rescale: bool) -> Case:  # LORA-8
    blocks = rng.standard_normal((3, 4, 4)) / 4
    q = blocks - blocks.transpose(0, 2, 1)
    most = (alpha or 0) * 12
    shrink = min(1.0, most / float(np.linalg.norm(q))) if most else 1.0
    factors = rng.standard_normal((12, 1, 1, 1)) if rescale else np.ones((12, 1, 1, 1))

    def expected(w: Array) -> Array:
        rows = [rotation(b, shrink).T @ w.reshape(3, 4, -1)[i] for i, b in enumerate(blocks)]
        return np.concatenate(rows).reshape(w.shape) * factors - w

    parts = {"oft_blocks": blocks}
    if alpha is not None:
        parts["alpha"] = np.array(alpha)
    return CONV, {**parts, "rescale": factors} if rescale else parts, expected


def oft_diag(rng: np.random.Generator) -> Case:
    given = rng.standard_normal((3, 4, 4))

    def expected(w: Array) -> Array:
        return np.concatenate([given[i].T @ w.reshape(3, 4, 8)[i] for i in range(3)]) - w

    return LINEAR, {"oft_diag": given}, expected


def boft(rng: np.random.Generator) -> Case:
    stages = rng.standard_normal((2, 4, 4, 4)) / 4  # 16 rows: stage 0 joins rows 2 apart, stage 1 rows 4 apart

    def expected(w: Array) -> Array:
        new = w
        for i, blocks in enumerate(stages):
            near = 2**i * 2
            order = [(c * 2 + g) * near + k for c in range(8 // near) for k in range(near) for g in range(2)]
            mixed = np.concatenate([rotation(b) @ new[order[4 * n : 4 * n + 4]] for n, b in enumerate(blocks)])
            new = np.empty_like(new)
            new[order] = mixed
        return new - w

    return (16, 6), {"oft_blocks": stages}, expected


def dora(rng: np.random.Generator, shape: tuple[int, ...]) -> Case:  # LORA-5
    _, parts, delta = lora(rng, shape)
    lengths = rng.random((1, shape[1], *[1] * (len(shape) - 2))) + 0.5

    def expected(w: Array) -> Array:
        new = w + delta(w)
        axes = tuple(i for i in range(new.ndim) if i != 1)
        norms: Array = np.sqrt((new**2).sum(axes, keepdims=True))
        return new * (lengths / norms) - w

    return shape, {**parts, "dora_scale": lengths}, expected


def simple(rng: np.random.Generator, name: str) -> Case:
    if name == "norm":
        a = normal(rng, w_norm=(12,), b_norm=(12,))
        return (12,), a, lambda w: a["w_norm"]
    a = normal(rng, diff=CONV)
    return CONV, {**a, "scale": np.array(0.25), "alpha": np.array(9.0)}, lambda w: a["diff"] * 0.25


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "LoRA": lambda rng: lora(rng, LINEAR),
    "LoRA of a convolution": lambda rng: lora(rng, CONV),
    "LoRA in CP form": locon_cp,
    "LoHa": loha,
    "LoHa in CP form": loha_cp,
    "IA3": lambda rng: ia3(rng, False),
    "IA3 on input": lambda rng: ia3(rng, True),
    "LoKr": lambda rng: lokr(rng, first=False, second=False),
    "LoKr, first factored": lambda rng: lokr(rng, first=True, second=False),
    "LoKr, second factored": lambda rng: lokr(rng, first=False, second=True),
    "LoKr, both factored": lambda rng: lokr(rng, first=True, second=True),
    "LoKr in CP form": lokr_cp,
    "full, with a stored scale": lambda rng: simple(rng, "full"),
    "norm": lambda rng: simple(rng, "norm"),
    "GLoRA": glora,
    "GLoRA, later order": glora_later,
    "OFT": lambda rng: oft(rng, None, False),
    "OFT with a constraint": lambda rng: oft(rng, 0.02, False),
    "OFT with a wide constraint": lambda rng: oft(rng, 50.0, True),
    "OFT given": oft_diag,
    "BOFT": boft,
    "DoRA": lambda rng: dora(rng, LINEAR),
    "DoRA of a convolution": lambda rng: dora(rng, CONV),
}


def patch_of(parts: Arrays) -> Patch:
    kind = kind_of(parts)
    assert kind is not None
    return Patch(kind, {name: torch.from_numpy(np.array(value)) for name, value in parts.items()})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_against_the_formula(name: str, seed: int) -> None:  # LORA-4, LORA-5, LORA-8
    rng = np.random.default_rng(seed)
    shape, parts, expected = CASES[name](rng)
    weight = rng.standard_normal(shape)
    for dtype, near in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
        delta = change_of(patch_of(parts), torch.from_numpy(weight).to(dtype)).weight
        assert delta.dtype is dtype
        np.testing.assert_allclose(delta.numpy(), expected(weight), rtol=near, atol=near)


def test_the_table_is_in_the_order_of_the_rule() -> None:  # LORA-4
    assert [kind.name for kind in KINDS] == ["LoRA", "LoHa", "IA3", "LoKr", "full", "norm", "GLoRA", "OFT"]
    assert kind_of({"diff", "lora_up.weight", "lora_down.weight"}) is KINDS[0]
    assert kind_of({"lora_up.weight", "alpha"}) is None
    assert kind_of({"weight"}) is None
    assert kind_of({"lokr_w1", "lokr_w2_a"}) is None


def lora_patch(**more: Tensor) -> Patch:
    generator = torch.Generator().manual_seed(0)
    parts = {
        "lora_up.weight": torch.randn(12, 4, generator=generator),
        "lora_down.weight": torch.randn(4, 8, generator=generator),
        "alpha": torch.tensor(2.0),
        **more,
    }
    return Patch(KINDS[0], parts)


def test_dyn_cuts_factors_and_leaves_the_scale() -> None:
    patch = lora_patch()
    up, down = patch.parts["lora_up.weight"], patch.parts["lora_down.weight"]
    weight = torch.zeros(LINEAR)
    torch.testing.assert_close(change_of(patch, weight, rank=3).weight, up[:, :3] @ down[:3] * 0.5)
    torch.testing.assert_close(change_of(patch, weight, rank=9).weight, up @ down * 0.5)


def test_plain_knows_only_up_and_down() -> None:  # LORA-7
    weight = torch.randn(LINEAR, generator=torch.Generator().manual_seed(1))
    rich = lora_patch(dora_scale=torch.ones(1, 8), bias=torch.ones(LINEAR))
    torch.testing.assert_close(
        change_of(rich, weight, plain=True, rank=1).weight, change_of(lora_patch(), weight).weight
    )
    up, down, mid = torch.ones(12, 2, 1, 1), torch.ones(2, 8, 1, 1), torch.ones(2, 2, 3, 3)
    patch = Patch(KINDS[0], {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": mid})
    delta = change_of(patch, torch.zeros(CONV), plain=True).weight
    assert (delta[:, :, 1, 1] == 2).all()
    assert delta.sum() == 2 * 12 * 8


def test_a_stored_bias_is_added_before_the_scale() -> None:  # LORA-5
    weight, bias = torch.zeros(LINEAR), torch.ones(LINEAR)
    with_bias, without = change_of(lora_patch(bias=bias), weight).weight, change_of(lora_patch(), weight).weight
    torch.testing.assert_close(with_bias, without + 0.5)


def test_biases_of_layers() -> None:
    full = patch_of({"diff": np.ones(LINEAR), "diff_b": np.full(12, 2.0)})
    norm = patch_of({"w_norm": np.ones(12), "b_norm": np.full(12, 3.0)})
    for patch, weight, value in ((full, torch.zeros(LINEAR), 2.0), (norm, torch.zeros(12), 3.0)):
        bias = change_of(patch, weight).bias
        assert bias is not None
        assert (bias == value).all()
    assert change_of(lora_patch(), torch.zeros(LINEAR)).bias is None


def test_dora_with_a_length_for_each_output() -> None:  # LORA-5
    weight = torch.randn(LINEAR, generator=torch.Generator().manual_seed(1))
    new = weight + change_of(lora_patch(), weight).weight
    lengths = torch.rand(12, 1) + 0.5
    patch = lora_patch(dora_scale=lengths)
    by_output = new * lengths / new.norm(dim=1, keepdim=True) - weight
    by_input = new * lengths / new.norm(dim=0, keepdim=True) - weight
    torch.testing.assert_close(change_of(patch, weight).weight, by_output)
    torch.testing.assert_close(change_of(patch, weight, norm_per_input=True).weight, by_input)
    torch.testing.assert_close(change_of(lora_patch(magnitude=lengths.flatten()), weight).weight, by_output)


@pytest.mark.parametrize("channels", [8, 9])
def test_input_layers_with_more_channels(channels: int) -> None:  # LORA-6
    patch = Patch(KINDS[0], {"lora_up.weight": torch.ones(12, 2, 1, 1), "lora_down.weight": torch.ones(2, 4, 3, 3)})
    weight = torch.zeros(12, channels, 3, 3)
    delta = change_of(patch, weight).weight
    assert (delta[:, :4] == 2).all()
    assert not delta[:, 4:].any()
    if channels == 9:
        assert torch.equal(change_of(patch, weight, only_nine=True).weight, delta)
    else:
        with pytest.raises(ValueError, match=r"\[12, 4, 3, 3\] where the model has \[12, 8, 3, 3\]"):
            change_of(patch, weight, only_nine=True)


@pytest.mark.parametrize(
    ("shape", "weight"), [((12, 8), (12, 9)), ((8, 12), (12, 8)), ((12, 8), (12,)), ((12, 4, 3, 3), (12, 3, 3, 3))]
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        change_of(patch_of({"diff": np.ones(shape)}), torch.zeros(weight))


def test_a_matrix_serves_a_convolution_of_one_pixel() -> None:
    assert change_of(lora_patch(), torch.zeros(12, 8, 1, 1)).weight.shape == (12, 8, 1, 1)


def test_the_types_of_the_file() -> None:  # LORA-6
    weight = torch.zeros(LINEAR)
    half = patch_of({"diff": np.full(LINEAR, 0.1, np.float16)})
    assert change_of(half, weight, file_precision=True).weight.dtype is torch.float16
    assert change_of(half, weight).weight.dtype is torch.float32
    narrow = Patch(KINDS[0], {name: part.half() for name, part in lora_patch().parts.items()})
    assert change_of(narrow, weight, file_precision=True).weight.dtype is torch.float32


def test_what_a_file_holds_is_never_written_to() -> None:
    for make in CASES.values():
        shape, parts, _ = make(np.random.default_rng(0))
        patch = patch_of(parts)
        before = {name: part.clone() for name, part in patch.parts.items()}
        weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        kept = weight.clone()
        change_of(patch, weight).weight.mul_(3)
        assert torch.equal(weight, kept)
        assert all(torch.equal(part, before[name]) for name, part in patch.parts.items())


@pytest.mark.slow
@pytest.mark.parametrize("use_dora", [False, True])
def test_against_peft(use_dora: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft: Any = pytest.importorskip("peft")
        generator = torch.Generator().manual_seed(3)
        layer = torch.nn.Linear(8, 12)
        weight = layer.weight.detach().clone()
        config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=["0"], use_dora=use_dora)
        model = peft.get_peft_model(torch.nn.Sequential(layer), config)
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator).abs()
        saved = peft.get_peft_model_state_dict(model)
        merged = model.merge_and_unload()[0].weight.detach()
    usual = {
        "lora_A.weight": "lora_down.weight",
        "lora_B.weight": "lora_up.weight",
        "lora_magnitude_vector": "magnitude",
    }
    parts = {next(new for old, new in usual.items() if old in key): value for key, value in saved.items()}
    assert len(parts) == 2 + use_dora
    torch.testing.assert_close(weight + change_of(Patch(KINDS[0], parts), weight).weight, merged)
