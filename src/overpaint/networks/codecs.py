"""Which network a picture codec's specification describes. What most models do without is loaded when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from overpaint.models.specs import AutoencoderSpec
from overpaint.networks.autoencoder import AutoencoderKL

if TYPE_CHECKING:
    from overpaint.networks.wan_autoencoder import WanAutoencoder

CodecNetwork: TypeAlias = "AutoencoderKL | WanAutoencoder"


def codec_network(spec: AutoencoderSpec) -> CodecNetwork:
    """The network, blank."""
    if spec.kind == "kl":
        return AutoencoderKL(spec)
    from overpaint.networks.wan_autoencoder import WanAutoencoder

    return WanAutoencoder(spec)
