from __future__ import annotations

import pytest
import torch

from overpaint.networks.srvgg import SRVGGNet, SRVGGSpec, srvgg_spec
from tests.unit.esrgan import compact, compact_state


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_against_the_formulas(scale: int) -> None:
    state = compact_state(scale=scale)
    spec = srvgg_spec({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert spec == SRVGGSpec(8, 3, scale)
    network = SRVGGNet(spec).eval()
    network.load_state_dict(state)
    x = torch.rand(2, 3, 5, 8)
    with torch.no_grad():
        assert torch.allclose(network(x), compact(state, x, scale), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"body.1.weight": None},  # an activation without slopes
        {"body.3.weight": None, "body.3.alpha": (8,)},
        {"body.2.weight": None},
        {"body.8.weight": (47, 8, 3, 3)},
        {"body.8.weight": (0, 8, 3, 3)},
        {"body.8.weight": (6, 8, 3, 3)},
        {"body.0.weight": (8, 1, 3, 3)},
        {"body.9.weight": (48,)},
    ],
)
def test_other_shapes_are_none_of_ours(change: dict[str, tuple[int, ...] | None]) -> None:
    shapes: dict[str, tuple[int, ...] | None] = {key: tuple(each.shape) for key, each in compact_state().items()}
    kept = {key: shape for key, shape in {**shapes, **change}.items() if shape is not None}
    assert srvgg_spec(kept) is None
    assert srvgg_spec({}) is None
