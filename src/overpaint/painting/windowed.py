"""A denoiser that is shown a window of a canvas, for a mask that lies inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from overpaint.backends.port import Network
from overpaint.networks.unet import LessWork
from overpaint.planning.window import LatentWindow


@dataclass(frozen=True, eq=False)
class WindowedNetwork:
    """Outside the window it answers 0: there the source is put back, whatever is predicted (BLEND-1)."""

    network: Network
    window: LatentWindow

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
        rows, columns = slice(self.window.top, self.window.bottom), slice(self.window.left, self.window.right)
        part = x[..., rows, columns].contiguous()
        seen = self.network(part, timesteps, context, vector, negative=negative, less=less, references=references)
        whole = seen.new_zeros(*seen.shape[:2], *x.shape[-2:])
        whole[..., rows, columns] = seen
        return whole
