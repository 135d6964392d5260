"""Layers: packing changes the layout and not the numbers, circular padding, blocked attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from overpaint.networks.layers import (
    Conv2d,
    GatedLinear,
    GroupNorm,
    Linear,
    Packable,
    blank,
    can_pack,
    set_packed,
    set_tiling,
    sinusoid,
)

needs_packing = pytest.mark.skipif(not can_pack(), reason="this torch has no packed oneDNN kernels")


def filled(layer: Packable, dtype: torch.dtype = torch.float32) -> Packable:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=dtype) / parameter[0].numel() ** 0.5
    return layer


LAYERS: dict[str, tuple[Callable[[], Packable], tuple[int, ...]]] = {
    "linear": (partial(Linear, 48, 80), (2, 7, 48)),
    "linear without bias": (partial(Linear, 48, 80, bias=False), (2, 7, 48)),
    "gated": (partial(GatedLinear, 48, 80), (2, 7, 48)),
    "3x3": (partial(Conv2d, 32, 64, 3, padding=1), (2, 32, 9, 8)),
    "stride 2": (partial(Conv2d, 32, 64, 3, stride=2, padding=1), (1, 32, 9, 8)),
    "1x1": (partial(Conv2d, 32, 64, 1), (2, 32, 9, 8)),
}


@needs_packing
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layer_equals_plain_layer(name: str, dtype: torch.dtype) -> None:
    build, shape = LAYERS[name]
    layer = filled(build(), dtype)
    x = torch.randn(shape, dtype=dtype)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = layer.weight.detach().clone()
    with torch.no_grad():
        plain = layer(x)
        layer.pack()
        packed = layer(x)
    assert layer.packed and layer.weight.numel() == 0  # the weight is held once
    torch.testing.assert_close(packed, plain, atol=1e-5 if dtype is torch.float32 else 0.05, rtol=1e-2)
    assert torch.equal(layer.dense_weight(), weight)
    layer.unpack()
    assert torch.equal(layer.weight, weight)


@needs_packing
@pytest.mark.parametrize(("outputs", "stride", "padding"), [(96, 1, 1), (48, 2, 0), (192, 2, 1)])
def test_a_weight_lies_as_the_map_wants_it(outputs: int, stride: int, padding: int) -> None:
    """oneDNN has two layouts for these widths, and copies the whole weight at every call where it finds the other."""
    layer = Conv2d(8, outputs, 3, stride=stride, padding=padding)
    filled(layer)
    weight = layer.weight.detach().clone()
    layer.pack()
    for side, small in ((20 * stride, False), (9 * stride, True), (4, True), (10 * stride, False), (3, True)):
        x = torch.randn(2, 8, side, side).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            made = layer(x)
            assert torch.equal(layer(x), made)
        assert layer.for_small_maps is small
        torch.testing.assert_close(made, F.conv2d(x, weight, layer.bias, stride, padding), atol=1e-5, rtol=1e-4)
        assert torch.equal(layer.dense_weight(), weight)


@needs_packing
def test_other_widths_lie_in_one_way() -> None:
    layer = Conv2d(8, 64, 3, padding=1)
    filled(layer)
    layer.pack()
    (before,) = layer.packed
    with torch.no_grad():
        for side in (4, 32):
            layer(torch.randn(1, 8, side, side))
    assert layer.packed[0] is before


@needs_packing
def test_weight_can_be_replaced_while_packed() -> None:
    layer = filled(Linear(8, 4))
    layer.pack()
    new = torch.arange(32.0).reshape(4, 8)
    layer.set_weight(new)
    assert torch.equal(layer.dense_weight(), new)
    x = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, new, layer.bias))


def test_gated_linear_is_value_times_gelu_of_gate() -> None:  # ARCH-4
    layer = filled(GatedLinear(8, 6))
    x = torch.randn(5, 8)
    value, gate = F.linear(x, layer.weight, layer.bias).chunk(2, dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), value * F.gelu(gate))


@pytest.mark.parametrize("packed", [False, True])
def test_tiling_sees_the_picture_as_a_torus(packed: bool) -> None:  # ARCH-9
    if packed and not can_pack():
        pytest.skip("this torch has no packed oneDNN kernels")
    network = nn.Sequential(filled(Conv2d(3, 4, 3, padding=1)))
    set_packed(network, packed)
    x = torch.randn(1, 3, 6, 5).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        flat = network(x)
        set_tiling(network, True)
        rolled = network(x.roll((2, 3), dims=(2, 3)))
        round_trip = rolled.roll((-2, -3), dims=(2, 3))
        torch.testing.assert_close(network(x), round_trip, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(round_trip, flat)
        set_tiling(network, False)
        assert torch.equal(network(x), flat)


def test_group_norm_keeps_its_digits_on_flat_pictures() -> None:
    torch.manual_seed(0)
    norm = GroupNorm(32, 64, eps=1e-6)
    x = 100 + 0.01 * torch.randn(1, 64, 16, 16)
    exact = F.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), 1e-6).float()
    with torch.no_grad():
        got = norm(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, exact, atol=2e-3, rtol=1e-3)


def test_sinusoid_is_cosines_then_sines_and_takes_fractions() -> None:  # ARCH-2
    got = sinusoid(torch.tensor([0.0, 1.5]), 8)
    assert torch.equal(got[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    angles = 1.5 * 10000.0 ** -(torch.arange(4) / 4)
    torch.testing.assert_close(got[1], torch.cat([angles.cos(), angles.sin()]))


def test_blank_network_has_memory_and_the_wanted_dtype() -> None:
    layer = blank(partial(Linear, 4, 4), "cpu", torch.bfloat16)
    assert layer.weight.device.type == "cpu"
    assert layer.weight.dtype is torch.bfloat16
