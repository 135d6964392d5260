"""Which network a denoiser's specification describes."""

from __future__ import annotations

from overpaint.models.specs import DenoiserSpec, UNetSpec
from overpaint.networks.unet import UNet
from overpaint.networks.zimage import ZImage

DenoiserNetwork = UNet | ZImage


def denoiser_network(spec: DenoiserSpec) -> DenoiserNetwork:
    """The network, blank."""
    return UNet(spec) if isinstance(spec, UNetSpec) else ZImage(spec)
