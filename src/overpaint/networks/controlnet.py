"""ControlNet: a copy of the U-Net's first half that sees a picture and adds to the U-Net's maps.

Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models" (2023), arXiv:2302.05543.
Parameters are named as in the original files, without their prefix "control_model.".
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from overpaint.models.control_spec import ControlSpec
from overpaint.networks.layers import Conv2d, SiLU
from overpaint.networks.unet import UNetEncoder


class ControlNet(UNetEncoder):
    """What to add to the U-Net's skips and middle, so that it follows a picture."""

    def __init__(self, spec: ControlSpec) -> None:
        super().__init__(spec.unet)
        self.bgr = spec.bgr
        self.input_hint_block = nn.Sequential(*_hint_layers(spec))
        self.zero_convs = nn.ModuleList(nn.Sequential(Conv2d(width, width, 1)) for width in self.skip_widths)
        middle = self.skip_widths[-1]
        self.middle_block_out = nn.Sequential(Conv2d(middle, middle, 1))

    def encode_hint(self, hint: Tensor) -> Tensor:
        """(1, 3, 8h, 8w) in 0..1 -> (1, model_channels, h, w), the same at every timestep."""
        result: Tensor = self.input_hint_block(hint.flip(1) if self.bgr else hint)
        return result

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None, encoded_hint: Tensor
    ) -> list[Tensor]:
        """One map for each skip of the U-Net, and a last one for its middle; the hint counts for all rows."""
        x = x[:, : self.spec.in_channels]  # of what inpainting models are given, the noisy latent alone
        embedding = self.embed(timesteps, vector if self.spec.adm_channels is not None else None, x.dtype)
        added: list[Tensor] = []
        for i, (stage, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            x = stage(x, embedding, context)
            if i == 0:
                x = x + encoded_hint
            added.append(zero_conv(x))
        added.append(self.middle_block_out(self.middle_block(x, embedding, context)))
        return added

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def _hint_layers(spec: ControlSpec) -> Iterator[nn.Module]:
    """Pairs of convolutions, of which the second widens and halves, between a first and a last one."""
    width = 3
    for i, channels in enumerate(spec.hint_channels):
        yield Conv2d(width, channels, 3, stride=2 if i and i % 2 == 0 else 1, padding=1)
        yield SiLU()
        width = channels
    yield Conv2d(width, spec.unet.model_channels, 3, padding=1)
