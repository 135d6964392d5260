"""Which network a denoiser's specification describes. What most models do without is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from overpaint.models.specs import DenoiserSpec, NetworkKind, UNetSpec
from overpaint.networks.unet import UNet

if TYPE_CHECKING:
    from overpaint.networks.chroma import Chroma
    from overpaint.networks.flux import Flux
    from overpaint.networks.flux2 import Flux2
    from overpaint.networks.mmdit import Mmdit
    from overpaint.networks.qwen_image import QwenImage
    from overpaint.networks.zimage import ZImage

DenoiserNetwork: TypeAlias = "UNet | ZImage | Flux | Chroma | Mmdit | QwenImage | Flux2"


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


def _qwen_image(spec: Any) -> DenoiserNetwork:
    from overpaint.networks.qwen_image import QwenImage

    return QwenImage(spec)


def _flux2(spec: Any) -> DenoiserNetwork:
    from overpaint.networks.flux2 import Flux2

    return Flux2(spec)


_TRANSFORMERS: Mapping[NetworkKind, Callable[[Any], DenoiserNetwork]] = {
    "zimage": _zimage,
    "flux": _flux,
    "chroma": _chroma,
    "mmdit": _mmdit,
    "qwen_image": _qwen_image,
    "flux2": _flux2,
}
