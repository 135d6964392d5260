from __future__ import annotations

import pytest
import torch
from torch import Tensor

from overpaint.networks.rrdbnet import RRDBNet, RRDBSpec, rrdb_keys, rrdb_spec
from tests.unit.esrgan import State, esrgan, folded, old_state, renamed


def network_of(state: State) -> RRDBNet:
    keys = rrdb_keys(state)
    spec = rrdb_spec({name: tuple(state[key].shape) for name, key in keys.items()})
    assert spec is not None
    network = RRDBNet(spec)
    network.load_state_dict({name: state[key] for name, key in keys.items()})
    return network.eval()


@torch.no_grad()
def close(ours: RRDBNet, x: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(ours(x), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("naming", ["numbered", "trunk", "body"])
@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
def test_every_naming_and_scale_against_the_formulas(naming: str, doublings: int) -> None:
    state = old_state(doublings=doublings)
    network = network_of(state if naming == "numbered" else renamed(state, naming))
    assert network.spec == RRDBSpec(8, 4, 2, doublings) and network.spec.scale == 2**doublings
    x = torch.rand(2, 3, 7, 10, generator=torch.Generator().manual_seed(0))
    assert close(network, x, esrgan(state, x))


def test_names_of_real_esrgan_are_their_own() -> None:
    state = renamed(old_state(), "body")
    assert rrdb_keys(state) == {name: name for name in state}
    assert set(rrdb_keys(old_state())) == set(rrdb_keys(renamed(old_state(), "trunk"))) == set(state)


@pytest.mark.parametrize(("unshuffle", "scale"), [(2, 2), (4, 1)])
def test_small_scales_fold_pixels_first(unshuffle: int, scale: int) -> None:
    state = old_state(folded=unshuffle)
    network = network_of(renamed(state, "body"))
    assert (network.spec.unshuffle, network.spec.scale) == (unshuffle, scale)
    x = torch.rand(1, 3, 8, 12)
    assert close(network, x, esrgan(state, folded(x, unshuffle)))


@pytest.mark.parametrize("size", [(9, 7), (1, 1), (1, 6), (2, 3)])
def test_sizes_that_do_not_fold_are_filled_and_cut(size: tuple[int, int]) -> None:
    network = network_of(old_state(folded=4))
    with torch.no_grad():
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_the_filling_is_a_mirror() -> None:
    state = old_state(folded=2)
    x = torch.rand(1, 3, 5, 6)
    mirrored = torch.cat([x, x[:, :, 3:4]], dim=2)
    assert close(network_of(state), x, esrgan(state, folded(mirrored, 2))[:, :, :10])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv_last.weight", (1, 8, 3, 3)),  # gray
        ("conv_first.weight", (8, 4, 3, 3)),  # colours and transparency
        ("conv_first.weight", (8, 6, 3, 3)),  # no square
        ("conv_first.weight", (8, 27, 3, 3)),  # 4 / 3 times as large
        ("conv_first.weight", (8, 192, 3, 3)),  # half as large
        ("conv_first.weight", (0, 3, 3, 3)),
        ("body.0.rdb1.conv1.weight", (8,)),
    ],
)
def test_other_shapes_are_none_of_ours(name: str, shape: tuple[int, ...]) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        key: tuple(tensor.shape) for key, tensor in renamed(old_state(), "body").items()
    }
    assert rrdb_spec(shapes) is not None
    assert rrdb_spec({**shapes, name: shape}) is None
    assert rrdb_spec({}) is None
