"""Hypernetworks: read from every layout their files have, and worn by the attention layers they fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.adapters.hypernet import Hypernet, read_hypernet, wear_hypernets
from overpaint.errors import CheckpointError
from overpaint.models.families import UNetSpec
from overpaint.networks.unet import CrossAttention, UNet

WIDTH = 8
SPEC = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    input_depths=(1, 1),
    middle_depth=1,
    output_depths=(1, 1, 1, 1),
    head_dim=16,
    context_dim=WIDTH,
    linear_projections=False,
)


def row(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(7)
    made = nn.Sequential(*layers)
    for each in made.parameters():
        nn.init.normal_(each, std=0.5)
    return made.eval()


def table(layers: nn.Module, prefix: str = "linear.") -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in layers.state_dict().items()}


def saved(path: Path, keys: dict[str, Any], values: dict[str, Any] | None = None, **fields: Any) -> Path:
    tree: dict[object, object] = {WIDTH: (keys, values or keys), "name": "other", "step": 1}
    torch.save(tree | fields, path)
    return path


def changed(hypernet: Hypernet, context: Tensor, multiplier: float = 1.0) -> tuple[Tensor, Tensor]:
    """What a layer of this width would read."""
    attention = CrossAttention(WIDTH, WIDTH, 1)
    wear_hypernets(attention, [(hypernet, multiplier)])
    (change,) = attention.context_changes
    return change(context, context)


# ---- Files (HYP-1) ----

ACTIVE = {"activation_func": "relu", "activate_output": False}


@pytest.mark.parametrize(
    ("layers", "fields"),
    [
        (row(nn.Linear(8, 16), nn.Linear(16, 8)), {}),
        (row(nn.Linear(8, 16), nn.Linear(16, 8)), {"activation_func": "linear", "activate_output": True}),
        (row(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)), ACTIVE),
        (row(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU()), {"activation_func": "relu"}),
        (row(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 8)), {**ACTIVE, "activation_func": "tanh"}),
        (row(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 8), nn.LayerNorm(8)), ACTIVE),
        (
            row(nn.Linear(8, 16), nn.Mish(), nn.LayerNorm(16), nn.Dropout(0.3), nn.Linear(16, 8), nn.Mish()),
            {"activation_func": "Mish", "activate_output": True, "use_dropout": True, "is_layer_norm": True},
        ),
        (row(nn.Linear(8, 16), nn.Dropout(0.3), nn.Linear(16, 8), nn.Dropout(0.3)), {"last_layer_dropout": True}),
        (
            row(nn.Linear(8, 8), nn.SiLU(), nn.Dropout(0.5), nn.Linear(8, 24), nn.SiLU(), nn.Linear(24, 8)),
            {**ACTIVE, "activation_func": "silu"},
        ),
    ],
)
def test_layouts(tmp_path: Path, layers: nn.Module, fields: dict[str, Any]) -> None:
    hypernet = read_hypernet(saved(tmp_path / "toy.pt", table(layers), **fields))
    assert hypernet.name == "toy"
    context = torch.randn(2, 5, WIDTH)
    keys, values = changed(hypernet, context, 0.7)
    torch.testing.assert_close(keys, context + 0.7 * layers(context))
    torch.testing.assert_close(values, keys)


def test_oldest_layout(tmp_path: Path) -> None:
    layers = row(nn.Linear(8, 16), nn.Linear(16, 8))
    names = {
        "linear1.weight": "0.weight",
        "linear1.bias": "0.bias",
        "linear2.weight": "1.weight",
        "linear2.bias": "1.bias",
    }
    weights = layers.state_dict()
    hypernet = read_hypernet(saved(tmp_path / "toy.pt", {old: weights[new] for old, new in names.items()}))
    context = torch.randn(1, 3, WIDTH)
    torch.testing.assert_close(changed(hypernet, context)[0], context + layers(context))


def test_keys_and_values_have_their_own(tmp_path: Path) -> None:
    ones, twos = ({"linear.0.weight": torch.eye(WIDTH) * k, "linear.0.bias": torch.zeros(WIDTH)} for k in (1, 2))
    hypernet = read_hypernet(saved(tmp_path / "toy.pt", ones, twos))
    context = torch.randn(1, 3, WIDTH)
    keys, values = changed(hypernet, context)
    torch.testing.assert_close(keys, 2 * context)
    torch.testing.assert_close(values, 3 * context)


def test_the_recorded_file(parity: Path) -> None:
    hypernet = read_hypernet(parity / "extra" / "files" / "hypernetworks" / "xhyper.pt")
    assert hypernet.name == "xhyper"
    assert {width: (len(keys), len(values)) for width, (keys, values) in hypernet.networks.items()} == {64: (3, 3)}


GOOD = table(row(nn.Linear(8, 8)))


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"name": "none"}, "no networks"),
        ([1], "no networks"),
        ({8: (GOOD,)}, "no networks"),
        ({8: (GOOD, 3)}, "no networks"),
        ({8: (GOOD, {})}, "do not fit"),
        ({16: (GOOD, GOOD)}, "do not fit"),
        ({8: (GOOD, {"linear.0.bias": torch.ones(8)})}, "incomplete"),
        ({8: (GOOD, {**GOOD, "linear.0.bias": torch.ones(7)})}, "incomplete"),
        ({8: (GOOD, {"linear.0.weight": torch.ones(8, 8, 1)})}, "incomplete"),
        ({8: (GOOD, {**GOOD, "conv.weight": torch.ones(8)})}, "unknown kind"),
        ({8: (GOOD, {**GOOD, "linear.1.weight": "text"})}, "unknown kind"),
        ({8: (GOOD, GOOD), "activation_func": "cube"}, "'cube' is not known"),
    ],
)
def test_reasons(tmp_path: Path, tree: object, reason: str) -> None:
    torch.save(tree, tmp_path / "toy.pt")
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_hypernet(tmp_path / "toy.pt")
    assert str(caught.value).startswith("toy.pt: ")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_hypernet(tmp_path / "toy.pt")
    (tmp_path / "toy.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"toy\.pt"):
        read_hypernet(tmp_path / "toy.pt")


# ---- In the network ----


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(3)
    made = UNet(SPEC).eval().requires_grad_(False)
    for each in made.parameters():
        each.normal_(std=0.05)
    return made


def linear_hypernet(tmp_path: Path, factor: float, width: int) -> Hypernet:
    weight = {"linear.0.weight": torch.eye(width) * factor, "linear.0.bias": torch.full((width,), 0.25)}
    path = tmp_path / f"{factor}.pt"
    torch.save({width: (weight, weight)}, path)
    return read_hypernet(path)


def run(unet: UNet, context: Tensor) -> Tensor:
    result: Tensor = unet(torch.ones(1, 4, 8, 8), torch.tensor([500.0]), context)
    return result


def attentions(unet: UNet) -> Iterator[CrossAttention]:
    return (each for each in unet.modules() if isinstance(each, CrossAttention))


def test_worn_one_after_another_as_on_the_context_itself(unet: UNet, tmp_path: Path) -> None:
    context = torch.randn(1, 5, WIDTH)
    first, second = linear_hypernet(tmp_path, 0.5, WIDTH), linear_hypernet(tmp_path, -2.0, WIDTH)
    wear_hypernets(unet, [(first, 1.0), (second, 0.3), (first, 0.2)])
    worn = run(unet, context)
    wear_hypernets(unet, [])
    plain = run(unet, context)
    for factor, multiplier in ((0.5, 1.0), (-2.0, 0.3), (0.5, 0.2)):
        context = context + multiplier * (factor * context + 0.25)
    torch.testing.assert_close(worn, run(unet, context))
    assert not torch.allclose(worn, plain)


def test_self_attention_of_that_width_too(unet: UNet, tmp_path: Path) -> None:
    wear_hypernets(unet, [(linear_hypernet(tmp_path, 0.5, 64), 1.0)])
    worn = [each.context_width for each in attentions(unet) if each.context_changes]
    assert worn == [each.context_width for each in attentions(unet) if each.context_width == 64]
    assert worn
    wear_hypernets(unet, [])
    assert not any(each.context_changes for each in attentions(unet))


def test_computed_in_the_network_s_own_type(unet: UNet, tmp_path: Path) -> None:
    context = torch.randn(1, 5, WIDTH)
    hypernet = linear_hypernet(tmp_path, 0.5, WIDTH)
    wear_hypernets(unet, [(hypernet, 1.0)])
    exact = run(unet, context)
    unet.bfloat16()
    wear_hypernets(unet, [(hypernet, 1.0)])
    rough = unet(torch.ones(1, 4, 8, 8).bfloat16(), torch.tensor([500.0]), context.bfloat16())
    assert rough.dtype is torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


def test_no_dropout_and_no_gradient(tmp_path: Path) -> None:
    hypernet = read_hypernet(saved(tmp_path / "toy.pt", GOOD, use_dropout=True))
    context = torch.randn(1, 3, WIDTH)
    keys, _ = changed(hypernet, context)
    torch.testing.assert_close(keys, context + F.linear(context, GOOD["linear.0.weight"], GOOD["linear.0.bias"]))
    assert not keys.requires_grad
