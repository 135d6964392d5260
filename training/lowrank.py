"""Low-rank changes to a frozen network: every weight W becomes W + up @ down, and only the factors learn.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from overpaint.networks.layers import Packable

RANK = 16
_FACTORS = "parametrizations.weight.0."
_FROZEN = ".parametrizations.weight.original"
UP, DOWN = "lora_up.weight", "lora_down.weight"


class LowRank(nn.Module):
    """A weight (out, in, ...) plus the product of two thin ones; `up` starts as zeros, so that nothing is added."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, fan_in = len(weight), weight[0].numel()
        rank = min(rank, outputs, fan_in)
        spread = torch.randn((rank, fan_in), generator=generator) * fan_in**-0.5
        self.down = nn.Parameter(spread.to(weight.device))
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def adapt(network: nn.Module, seed: int, rank: int = RANK, without: Collection[nn.Module] = ()) -> None:
    """Freeze the network and put factors beside the weight of every linear and convolution but a few."""
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in [each for each in network.modules() if isinstance(each, Packable) and each not in without]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, generator))


def factors(trained: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    """Trained tensors by name -> those of a delta: factors shaped as LoRA files have them, others as they are."""
    for name, values in trained.items():
        layer, found, which = name.partition(_FACTORS)
        if not found:
            yield name, values
            continue
        kernel = shapes[f"{layer}weight"][2:]
        if which == "down":
            inputs = shapes[f"{layer}weight"][1]
            yield layer + DOWN, values.reshape(len(values), inputs, *kernel)
        else:
            yield layer + UP, values.reshape(*values.shape, *(1 for _ in kernel))


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its ordinary name, adapted or not."""
    return {name.replace(_FROZEN, ".weight"): tuple(values.shape) for name, values in network.state_dict().items()}
