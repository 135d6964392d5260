"""What a backend offers: three calls, what it can, and the adapters in its networks.

    text      token ids -> vectors               (a text encoder)
    encode    pixels -> mean, log-variance       (the codec)
    decode    latents -> pixels
    denoise   noisy latents -> eps, v or n - x0  (the denoiser)

Another backend is a class with these methods and a row in `backends.choice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.networks.codecs import CodecNetwork
from overpaint.networks.denoisers import DenoiserNetwork
from overpaint.networks.text import TextEncoding, TokenOverride, TokenPicture
from overpaint.networks.text_networks import TextNetwork
from overpaint.networks.unet import LessWork, UNet

if TYPE_CHECKING:
    from overpaint.adapters.hypernet import Hypernet
    from overpaint.adapters.wear import WornLora
    from overpaint.backends.torch_backend import SharedAutoencoder
    from overpaint.settings import Quirks

VaeFallback = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Dtypes:
    """What each network computes in."""

    unet: torch.dtype
    vae: torch.dtype
    text: torch.dtype


@dataclass(frozen=True)
class Networks:
    """The torch modules that a backend was made of: what lies in memory, and what models share."""

    denoiser: DenoiserNetwork
    autoencoder: CodecNetwork
    texts: tuple[TextNetwork, ...]

    @property
    def unet(self) -> UNet:
        """The denoiser of the families that have a U-Net; for what is made for U-Nets only."""
        if not isinstance(self.denoiser, UNet):
            raise CheckpointError("this model has no U-Net; choose a Stable Diffusion 1, 2 or XL checkpoint")
        return self.denoiser


@dataclass(frozen=True)
class Abilities:
    """What a backend can do, for those who have to know before they ask."""

    adapters: bool  # LoRAs and hypernetworks can be put on
    controls: torch.dtype | None  # the type in which ControlNets add to the denoiser's maps; None: they cannot
    full_precision: bool  # the denoiser computes in float32: nothing more precise could be tried
    shortcuts: bool = True  # calls may leave something out; False: they are made otherwise, and slower


class Network(Protocol):
    """Who predicts eps, v or n - x0 of some rows: a backend's denoiser, and what stands around it."""

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
        """As `Backend.denoise`. `negative` are the rows that guidance leads away from; None: none of them does.

        `less` is what the call may leave out; None: nothing. `references` are other pictures to look at.
        """
        ...


class Backend(Protocol):
    """The networks of a model on a device. Float32 goes in and comes out. One thread owns it."""

    device: torch.device
    networks: Networks
    codec: SharedAutoencoder  # what turns pictures into latents; models may share it

    @property
    def dtypes(self) -> Dtypes: ...

    @property
    def abilities(self) -> Abilities: ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of the networks in place is computed elsewhere, and why; a user is told."""
        ...

    def text(
        self,
        encoder: int,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
        pictures: Sequence[TokenPicture] = (),
    ) -> TextEncoding:
        """Token ids (b, n) through one of the text encoders; the family's layer and norm unless given.

        `pictures` are what an encoder with a vision tower reads between the tokens, in the order of their slots.
        """
        ...

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in -1..1 (b, 3, H, W) to the posterior's mean and log-variance (b, channels, h, w) (ENC-2)."""
        ...

    def decode(self, z: Tensor, fallback: VaeFallback | None = "float32") -> Tensor:
        """Unscaled latents (b, channels, h, w) to pixels."""
        ...

    def denoise(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        control: Sequence[Tensor] | None = None,
        less: LessWork | None = None,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        """What the network predicts of x (b, c, h, w) at timesteps (b,); context (b, n, width), vector (b, adm).

        A flow model's timesteps are shares of noise.

        `control` is what ControlNets add to its maps, in the type that `abilities.controls` says. `less` is what the
        call may leave out; None: nothing.
        `references` (b, channels, any h, any w) are pictures that an edit model looks at beside the source, which comes
        with x in further channels.
        """
        ...

    def wear(
        self,
        loras: Sequence[WornLora],
        hypernets: Sequence[tuple[Hypernet, float]],
        quirks: Quirks,
        *,
        functional: bool = False,
    ) -> tuple[int, ...]:
        """Have exactly these adapters in the networks. Returns for each LoRA how many layers it does not fit.

        If they are there already, nothing happens. One that does not fit is an error, but for
        `ill_fitting_networks_pass`.
        """
        ...

    def set_tiling(self, on: bool) -> None:
        """Pictures whose edges meet (ARCH-9)."""
        ...

    def with_codec(self, codec: SharedAutoencoder) -> Backend:
        """Another codec beside the same denoiser and text encoders: they are shared, not copied."""
        ...
