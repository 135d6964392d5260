"""Which network a denoiser's specification describes. What most models do without is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from overpaint.models.specs import DenoiserSpec, NetworkKind, UNetSpec
from overpaint.networks.unet import UNet

if TYPE_CHECKING:
    from overpaint.networks.chroma import Chroma
    from overpaint.networks.flux import Flux
    from overpaint.networks.mmdit import Mmdit
    from overpaint.networks.zimage import ZImage

DenoiserNetwork: TypeAlias = "UNet | ZImage | Flux | Chroma | Mmdit"


def denoiser_network(spec: DenoiserSpec) -> DenoiserNetwork:
    """The network, blank."""
    return UNet(spec) if isinstance(spec, UNetSpec) else _TRANSFORMERS[spec.network](spec)


def _zimage(spec: Any) -> DenoiserNetwork:
    from overpaint.networks.zimage import ZImage

    return ZImage(spec)


def _flux(spec: Any) -> DenoiserNetwork:
    from overpaint.networks.flux import Flux

    return Flux(spec)


def _chroma(spec: Any) -> DenoiserNetwork:
    from overpaint.networks.chroma import Chroma

    return Chroma(spec)


def _mmdit(spec: Any) -> DenoiserNetwork:
    from overpaint.networks.mmdit import Mmdit

    return Mmdit(spec)


_TRANSFORMERS: Mapping[NetworkKind, Callable[[Any], DenoiserNetwork]] = {
    "zimage": _zimage,
    "flux": _flux,
    "chroma": _chroma,
    "mmdit": _mmdit,
}
