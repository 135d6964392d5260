"""ControlNets at work: pictures that guide the U-Net for a part of the steps (arXiv:2302.05543).

branch = attach(loaded, hint_of(picture), weight=0.8, end=0.6)     once a job
network = controlled(backend, [branch], step, steps)               at every step
network(x, timesteps, context, vector)                             eps or v, as from the backend
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.networks.controlnet import ControlNet
from overpaint.networks.layers import set_tiling
from overpaint.networks.unet import LessWork

if TYPE_CHECKING:
    from overpaint.backends.port import Backend, Network
    from overpaint.models.control_files import LoadedControl
    from overpaint.parts import ControlMode, Picture

FADING = 0.825  # from one map to the one before it, where the prompt has the last word


@dataclass(frozen=True, eq=False)
class ControlBranch:
    """A ControlNet with the picture it follows, already encoded: the hint is the same at every step."""

    network: ControlNet
    hint: Tensor  # (1, model_channels, h/8, w/8)
    weight: float = 1.0
    start: float = 0.0  # fractions of the steps
    end: float = 1.0
    tiling: bool = False
    mode: ControlMode = "balanced"
    region: Tensor | None = None  # (1, 1, height, width), 1 where it counts

    def is_on(self, step: int, steps: int) -> bool:
        """Whether it takes part in step 0, 1, ... of so many: the whole step has to lie between start and end."""
        return _is_on(self, step, steps)

    def weighted(self, maps: list[Tensor]) -> list[Tensor]:
        """What it adds, by its weight, its mode and its region. The last map is the one of the middle."""
        factors = [self.weight * self._fading(len(maps) - 1 - i) for i in range(len(maps))]
        maps = [each if factor == 1 else each * factor for each, factor in zip(maps, factors, strict=True)]
        return maps if self.region is None else [each * _shrunk(self.region, each) for each in maps]

    def _fading(self, before_last: int) -> float:
        """Where the prompt has the last word, the finer a map is, the less it counts."""
        return FADING**before_last if self.mode == "prompt" else 1.0


def hint_of(picture: Picture) -> Tensor:
    """A picture at the size of the pass as a ControlNet sees it: (1, 3, height, width) in 0..1."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def region_of(mask: Picture) -> Tensor:
    """A gray picture at the size of the pass: (1, 1, height, width) in 0..1."""
    return torch.from_numpy(np.asarray(mask.convert("L"), dtype=np.float32) / 255)[None, None]


@torch.no_grad()
def attach(
    loaded: LoadedControl,
    hint: Tensor,
    *,
    weight: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    tiling: bool = False,
    mode: ControlMode = "balanced",
    region: Tensor | None = None,
) -> ControlBranch:
    """Encode a hint (1, 3, height, width) for a job. `tiling` is the job's: pictures whose edges meet (ARCH-9)."""
    network = loaded.network
    set_tiling(network, tiling)
    encoded = network.encode_hint(_ready(hint, network))
    where = None if region is None else _ready(region, network)
    return ControlBranch(network, encoded, weight, start, end, tiling, mode, where)


@dataclass(frozen=True, eq=False)
class ControlPicture:
    """A ControlNet with its picture, at the size of the pass, of which a part may be attached by itself.

    Encoded as a whole, the picture of a large canvas takes far more room than a part that the networks see.
    """

    loaded: LoadedControl
    picture: Picture
    mask: Picture | None = None
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    tiling: bool = False
    mode: ControlMode = "balanced"

    def is_on(self, step: int, steps: int) -> bool:
        """As its branches are."""
        return _is_on(self, step, steps)

    def whole(self) -> ControlBranch:
        return self.part((0, 0, *self.picture.size))

    def part(self, box: tuple[int, int, int, int]) -> ControlBranch:
        """What it says of a part, in pixels."""
        return attach(
            self.loaded,
            hint_of(self.picture.crop(box)),
            weight=self.weight,
            start=self.start,
            end=self.end,
            tiling=self.tiling,
            mode=self.mode,
            region=None if self.mask is None else region_of(self.mask.crop(box)),
        )


def _is_on(control: ControlBranch | ControlPicture, step: int, steps: int) -> bool:
    step = min(step, steps - 1)  # samplers ask once more below the last sigma of the schedule
    return control.weight != 0 and control.start <= step / steps and (step + 1) / steps <= control.end


def controlled(backend: Backend, branches: Sequence[ControlBranch], step: int, steps: int) -> Network:
    """The backend's U-Net with the ControlNets that are on in this step; the others are not even run.

    Several add up, each times its weight. Without one the backend's network answers as it is.
    """
    return Controlled(backend, tuple(each for each in branches if each.is_on(step, steps)))


@dataclass(frozen=True, eq=False)
class Controlled:
    """A backend's denoiser, and the ControlNets that guide it; there may be none."""

    backend: Backend
    branches: tuple[ControlBranch, ...]

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
        """A ControlNet that has the last word leaves the `negative` rows alone."""
        found = [_residuals(each, x, timesteps, context, vector, negative) for each in self.branches]
        added = [each for each in found if each is not None]
        control = _sum(added) if added else None
        return self.backend.denoise(x, timesteps, context, vector, control=control, less=less, references=references)


@torch.no_grad()
def _residuals(
    branch: ControlBranch,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    vector: Tensor | None,
    negative: Sequence[bool] | None,
) -> list[Tensor] | None:
    """What a ControlNet adds to the rows that it guides; None where those are none."""
    network = branch.network
    if x.shape[-2:] != branch.hint.shape[-2:]:
        hint, wanted = (f"{8 * each.shape[-1]}x{8 * each.shape[-2]}" for each in (branch.hint, x))
        raise SamplingError(f"controls: the picture was made ready for {hint}, this pass is {wanted}; attach it again")
    guided = [i for i in range(len(x)) if branch.mode != "control" or negative is None or not negative[i]]
    if not guided:
        return None
    is_partial = len(guided) < len(x)
    if is_partial:
        x, timesteps, context = x[guided], timesteps[guided], context[guided]
        vector = None if vector is None else vector[guided]
    set_tiling(network, branch.tiling)  # jobs that share a ControlNet may take turns
    added = network(
        _ready(x, network),
        timesteps.to(network.device),
        _ready(context, network),
        None if vector is None else _ready(vector, network),
        branch.hint,
    )
    added = branch.weighted(added)
    return [_among(each, guided, len(negative or ())) for each in added] if is_partial else added


def _among(part: Tensor, rows: list[int], count: int) -> Tensor:
    """Rows at their places among all, the others 0."""
    whole = part.new_zeros((count, *part.shape[1:]))
    whole[rows] = part
    return whole


def _shrunk(region: Tensor, like: Tensor) -> Tensor:
    """At the size of a map; each place is the mean of what it covers."""
    return torch.nn.functional.interpolate(region, size=like.shape[-2:], mode="area")


def _sum(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    """Map by map."""
    total = parts[0]
    for part in parts[1:]:
        total = [ours + theirs for ours, theirs in zip(total, part, strict=True)]
    return total


def _ready(x: Tensor, network: ControlNet) -> Tensor:
    x = x.to(network.device, network.dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
