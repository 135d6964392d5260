"""Which network a denoiser's specification describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from overpaint.models.specs import DenoiserSpec, NetworkKind, UNetSpec
from overpaint.networks.flux import Flux
from overpaint.networks.mmdit import Mmdit
from overpaint.networks.unet import UNet
from overpaint.networks.zimage import ZImage

DenoiserNetwork = UNet | ZImage | Flux | Mmdit
_TRANSFORMERS: Mapping[NetworkKind, Callable[[Any], DenoiserNetwork]] = {"zimage": ZImage, "flux": Flux, "mmdit": Mmdit}


def denoiser_network(spec: DenoiserSpec) -> DenoiserNetwork:
    """The network, blank."""
    return UNet(spec) if isinstance(spec, UNetSpec) else _TRANSFORMERS[spec.network](spec)
