"""DeepCache: which calls go through the whole network, and that each row keeps its own map (arXiv:2312.00858)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.backends.port import Network
from overpaint.networks.unet import LessWork
from overpaint.painting.drive import Run, tick
from overpaint.painting.tiled import TiledNetwork
from overpaint.planning.plans import LatentTiles
from tests.unit.painting.test_drive import ToyNetwork, started


class CachingNetwork(ToyNetwork):
    """The toy with a deep part, which it writes down when it works; its map is what the row's input was then."""

    def __init__(self) -> None:
        super().__init__()
        self.deep: list[int] = []
        self.shared: list[tuple[int, int]] = []  # rows, rows in full

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        negative: Sequence[bool] | None = None,
        less: LessWork | None = None,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        out = super().__call__(x, timesteps, context, vector)
        if less is None or less.deep is None:
            return out
        in_full = less.deep.value is None
        self.shared.append((len(x), len(x) if in_full else 0))
        if less.deep.value is None:
            less.deep.value = x[:, :1] * 1.0
        return out + 0.01 * less.deep.value


def cached(interval: int, **fields: Any) -> Run:
    return started(overrides={"deepcache_interval": interval}, **fields)


def driven(network: Network, *runs: Run) -> list[Tensor]:
    while any(not run.finished for run in runs):
        tick(runs, network)
    return [run.latent for run in runs if run.latent is not None]


@pytest.mark.parametrize(("interval", "full"), [(2, [0, 2, 4]), (3, [0, 3]), (100, [0])])
def test_one_call_of_a_few_is_in_full(interval: int, full: list[int]) -> None:
    network = CachingNetwork()
    driven(network, cached(interval, steps=5))
    assert [number for number, (_, deep) in enumerate(network.shared) if deep] == full


def test_the_default_says_nothing_to_the_network() -> None:
    network = CachingNetwork()
    driven(network, cached(1), started())
    assert network.shared == []


def test_jobs_of_any_interval_share_calls_and_keep_their_own_maps() -> None:
    kinds: list[dict[str, Any]] = [
        {"interval": 2, "steps": 5, "value": 0.3},
        {"interval": 2, "steps": 5, "value": 0.7},
        {"interval": 3, "sampler": "Heun", "steps": 4, "value": 0.5},
        {"interval": 1, "steps": 4, "value": 0.1},
        {"interval": 2, "steps": 4, "batch": 2, "value": 0.9},
    ]
    alone = [driven(CachingNetwork(), cached(**kind))[0] for kind in kinds]
    network = CachingNetwork()
    together = driven(network, *(cached(**kind) for kind in kinds))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert max(rows for rows, _ in network.shared) > 4


def test_a_negative_that_was_away_is_asked_in_full() -> None:  # CFG-5
    network = CachingNetwork()
    driven(network, cached(4, steps=8, s_min_uncond=100.0))  # it is left out of every second call
    assert network.shared[:3] == [(2, 2), (1, 0), (2, 0)]
    network = CachingNetwork()
    away = {"deepcache_interval": 4, "skip_early_cond": 0.25}
    driven(network, started(steps=8, overrides=away))
    assert network.shared[:5] == [(1, 1), (1, 0), (1, 0), (1, 0), (1, 1)]


def test_each_part_of_a_canvas_has_its_own_map() -> None:
    network = CachingNetwork()
    whole = driven(TiledNetwork(lambda part: network, LatentTiles(2, 1)), cached(2, steps=4))[0]
    assert network.shared == [(2, 2)] * 2 + [(2, 0)] * 2 + [(2, 2)] * 2 + [(2, 0)] * 2
    one = driven(TiledNetwork(lambda part: CachingNetwork(), LatentTiles(8, 0)), cached(2, steps=4))[0]
    plain = driven(CachingNetwork(), cached(2, steps=4))[0]
    assert torch.equal(one, plain)
    assert torch.allclose(whole, plain, atol=1e-5)  # this network looks at each cell alone


def test_a_backend_that_keeps_nothing_is_called_in_full() -> None:
    assert torch.equal(driven(ToyNetwork(), cached(2))[0], driven(ToyNetwork(), started())[0])
