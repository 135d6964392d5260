"""ControlNets at work: pictures that guide the U-Net for a part of the steps (arXiv:2302.05543).

branch = attach(loaded, hint_of(picture), weight=0.8, end=0.6)     once a job
network = controlled(backend, [branch], step, steps)               at every step
network(x, timesteps, context, vector)                             eps or v, as from the backend
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.networks.controlnet import ControlNet
from overpaint.networks.layers import set_tiling

if TYPE_CHECKING:
    from overpaint.backends.port import Backend
    from overpaint.models.control_files import LoadedControl
    from overpaint.request import Picture

Network = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


@dataclass(frozen=True, eq=False)
class ControlBranch:
    """A ControlNet with the picture it follows, already encoded: the hint is the same at every step."""

    network: ControlNet
    hint: Tensor  # (1, model_channels, h/8, w/8)
    weight: float = 1.0
    start: float = 0.0  # fractions of the steps
    end: float = 1.0
    tiling: bool = False

    def is_on(self, step: int, steps: int) -> bool:
        """Whether it takes part in step 0, 1, ... of so many: the whole step has to lie between start and end."""
        step = min(step, steps - 1)  # samplers ask once more below the last sigma of the schedule
        return self.weight != 0 and self.start <= step / steps and (step + 1) / steps <= self.end


def hint_of(picture: Picture) -> Tensor:
    """A picture at the size of the pass as a ControlNet sees it: (1, 3, height, width) in 0..1."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(values).permute(2, 0, 1)[None]


@torch.no_grad()
def attach(
    loaded: LoadedControl,
    hint: Tensor,
    *,
    weight: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    tiling: bool = False,
) -> ControlBranch:
    """Encode a hint (1, 3, height, width) for a job. `tiling` is the job's: pictures whose edges meet (ARCH-9)."""
    network = loaded.network
    set_tiling(network, tiling)
    encoded = network.encode_hint(_ready(hint, network))
    return ControlBranch(network, encoded, weight, start, end, tiling)


def controlled(backend: Backend, branches: Sequence[ControlBranch], step: int, steps: int) -> Network:
    """The backend's U-Net with the ControlNets that are on in this step; the others are not even run.

    Several add up, each times its weight. Without one the result is the backend's own network.
    """
    active = [each for each in branches if each.is_on(step, steps)]
    if not active:
        return backend.denoise

    def network(x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None) -> Tensor:
        added = _sum([_residuals(each, x, timesteps, context, vector) for each in active])
        return backend.denoise(x, timesteps, context, vector, control=added)

    return network


@torch.no_grad()
def _residuals(
    branch: ControlBranch, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None
) -> list[Tensor]:
    network = branch.network
    if x.shape[-2:] != branch.hint.shape[-2:]:
        hint, wanted = (f"{8 * each.shape[-1]}x{8 * each.shape[-2]}" for each in (branch.hint, x))
        raise SamplingError(f"controls: the picture was made ready for {hint}, this pass is {wanted}; attach it again")
    set_tiling(network, branch.tiling)  # jobs that share a ControlNet may take turns
    added = network(
        _ready(x, network),
        timesteps.to(network.device),
        _ready(context, network),
        None if vector is None else _ready(vector, network),
        branch.hint,
    )
    return added if branch.weight == 1 else [each * branch.weight for each in added]


def _sum(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    """Map by map."""
    total = parts[0]
    for part in parts[1:]:
        total = [ours + theirs for ours, theirs in zip(total, part, strict=True)]
    return total


def _ready(x: Tensor, network: ControlNet) -> Tensor:
    x = x.to(network.device, network.dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
