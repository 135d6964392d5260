"""What stands around a network says on what the network is to know: the negative rows, and what may be left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from overpaint.backends.port import Network
from overpaint.networks.unet import LessWork
from overpaint.painting.tiled import TiledNetwork
from overpaint.painting.windowed import WindowedNetwork
from overpaint.planning.plans import LatentTiles
from overpaint.planning.window import LatentWindow

WINDOW = LatentWindow(left=1, top=2, right=4, bottom=6)


class ListeningNetwork:
    """Answers 1 everywhere, and writes down what it was told."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.told: list[tuple[list[bool], LessWork | None]] = []

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
        self.sizes.append(tuple(x.shape[-2:]))
        self.told.append((list(negative or ()), less))
        return torch.ones_like(x)


def asked(network: Network, less: LessWork | None) -> Tensor:
    x = torch.zeros(2, 4, 8, 8)
    return network(x, torch.zeros(2), torch.zeros(2, 1, 1), negative=[False, True], less=less)


@pytest.mark.parametrize("less", [None, LessWork(None, None)], ids=["all", "less"])
def test_a_window_passes_on_what_it_is_told(less: LessWork | None) -> None:
    inner = ListeningNetwork()
    answered = asked(WindowedNetwork(inner, WINDOW), less)
    assert inner.sizes == [(4, 3)]
    assert inner.told == [([False, True], less)]
    assert float(answered.sum()) == 2 * 4 * WINDOW.area  # 0 outside


@pytest.mark.parametrize("less", [None, LessWork(None, None)], ids=["all", "less"])
def test_each_part_of_a_canvas_is_told_the_same(less: LessWork | None) -> None:
    inner = ListeningNetwork()
    asked(TiledNetwork(lambda part: inner, LatentTiles(5, 2)), less)
    assert inner.told == [([False, True], less)] * 4
