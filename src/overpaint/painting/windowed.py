"""Networks that are shown a part of a canvas, for a mask that lies inside it: the denoiser, and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from overpaint.backends.port import Network, VaeFallback
from overpaint.networks.unet import LessWork
from overpaint.painting.latents import Codec
from overpaint.pixels.mask import widened
from overpaint.pixels.seams import BAND
from overpaint.planning.plans import Plan
from overpaint.planning.window import LatentWindow

# Cells round what is shown that are decoded with it. Nothing less than the whole is exact, for the decoder's norms and
# its attention look at all of it; what this costs is measured by benchmarks/windows.py.
MARGIN = 8


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


def part_to_decode(plan: Plan) -> LatentWindow | None:
    """What of a pass has to be decoded where its denoiser saw a window; None: all of it.

    That is what the result shows of the painting, and the band beside it that blending looks at.
    """
    mask, settings, size = plan.mask, plan.settings, plan.geometry.covered
    if plan.window is None or mask is None or not settings.overlay_inpaint or settings.img2img_color_correction:
        return None
    touched = mask.overlay.convert("L").getbbox()
    if touched is None or any(theirs > ours for theirs, ours in zip(mask.overlay.size, size, strict=True)):
        return None
    cell = plan.spec.latent.factor
    left, top, right, bottom = widened(touched, 2 * BAND, 2 * BAND, size)
    wide, high = plan.geometry.latent_size
    part = LatentWindow(
        max(0, left // cell - MARGIN),
        max(0, top // cell - MARGIN),
        min(wide, -(-right // cell) + MARGIN),
        min(high, -(-bottom // cell) + MARGIN),
    )
    return None if part.area == wide * high else part


@dataclass(frozen=True, eq=False)
class WindowedCodec:
    """An autoencoder whose decoder sees a part. Beside it the picture is gray: nobody looks there."""

    codec: Codec
    part: LatentWindow
    factor: int  # pixels a side of one latent cell

    @property
    def device(self) -> torch.device:
        return self.codec.device

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.codec.encode(pixels)

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor:
        part, factor = self.part, self.factor
        seen = self.codec.decode(z[..., part.top : part.bottom, part.left : part.right].contiguous(), fallback)
        whole = seen.new_zeros(*seen.shape[:2], *(side * factor for side in z.shape[-2:]))
        whole[..., part.top * factor : part.bottom * factor, part.left * factor : part.right * factor] = seen
        return whole
