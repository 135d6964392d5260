"""The networks on a torch device. Float32 goes in and comes out; the compute dtype exists only inside."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from overpaint.adapters.worn import WornAdapters
from overpaint.backends.port import Abilities, Dtypes, Networks, VaeFallback
from overpaint.backends.residence import ALL_STAY
from overpaint.errors import RequestError, SamplingError
from overpaint.networks.codecs import CodecNetwork
from overpaint.networks.denoisers import DenoiserNetwork
from overpaint.networks.layers import can_pack, set_packed, set_tiling
from overpaint.networks.text import TextEncoding, TokenOverride, TokenPicture
from overpaint.networks.text_networks import TextNetwork
from overpaint.networks.unet import LessWork

if TYPE_CHECKING:
    from overpaint.adapters.hypernet import Hypernet
    from overpaint.adapters.wear import WornLora
    from overpaint.settings import Quirks

_Network = TypeVar("_Network", bound=nn.Module)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LOGVAR_RANGE = (-30.0, 20.0)


def resolve_dtypes(device: str | torch.device, name: str = "auto") -> Dtypes:
    """The dtypes for a device. "auto": half precision on GPUs, bfloat16 on CPUs that have it, else float32."""
    kind = torch.device(device).type
    if name == "auto":
        chosen = (torch.bfloat16 if _has_native_bfloat16() else torch.float32) if kind == "cpu" else torch.float16
    elif name in _DTYPES:
        chosen = _DTYPES[name]
    else:
        raise RequestError("dtype", name, f"use auto, {', '.join(_DTYPES)}")
    if kind == "cpu" and chosen is torch.float16:
        raise RequestError("dtype", name, "CPUs compute float16 a hundred times slower; use auto, float32 or bfloat16")
    # The text encoder is a thousandth of the work, and its rounding would reach every step.
    return Dtypes(chosen, chosen, torch.float32 if kind == "cpu" else chosen)


def _has_native_bfloat16() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class SharedAutoencoder:
    """An autoencoder and what it computes in; backends that share it learn of a fallback (DEC-2) together."""

    def __init__(self, network: CodecNetwork, dtype: torch.dtype) -> None:
        self.network = settled(network)
        self.dtype = dtype

    def set_tiling(self, on: bool) -> None:
        """Make pictures whose edges meet (ARCH-9), or not. NOTE: models may share it, so set it before each use."""
        set_tiling(self.network, on)

    def move(self, dtype: torch.dtype) -> None:
        set_packed(self.network, False)
        self.network = settled(self.network.to(dtype))
        self.dtype = dtype


class TorchBackend:
    """Three networks on one device, behind calls that know nothing of requests.

    One thread owns it. `set_tiling` is for that thread, between calls.
    """

    def __init__(
        self,
        denoiser: DenoiserNetwork,
        autoencoder: CodecNetwork | SharedAutoencoder,
        texts: Sequence[TextNetwork],
        *,
        device: str | torch.device,
        dtypes: Dtypes,
    ) -> None:
        self.device = torch.device(device)
        self.codec = (
            autoencoder if isinstance(autoencoder, SharedAutoencoder) else SharedAutoencoder(autoencoder, dtypes.vae)
        )
        self.networks = Networks(settled(denoiser), self.codec.network, tuple(settled(each) for each in texts))
        self._dtypes = dtypes
        self.residence = ALL_STAY
        # One for all codecs: adapters are no business of theirs.
        self._worn = WornAdapters(denoiser, self.networks.texts)

    @property
    def dtypes(self) -> Dtypes:
        return replace(self._dtypes, vae=self.codec.dtype)

    @property
    def abilities(self) -> Abilities:
        dtype = self._dtypes.unet
        return Abilities(adapters=True, controls=dtype, full_precision=dtype is torch.float32)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Nothing is computed elsewhere."""
        return ()

    def with_codec(self, codec: SharedAutoencoder) -> TorchBackend:
        """Another autoencoder beside the same U-Net and text encoders: they are shared, not copied."""
        other = copy(self)
        other.codec = codec
        other.networks = replace(self.networks, autoencoder=codec.network)
        return other

    @torch.no_grad()
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
        """eps, v or n - x0, float32, of x (b, c, h, w) at timesteps (b,); context (b, n, width), vector (b, adm).

        `control` is what `adapters.control` adds to the U-Net's maps, in its dtype.
        """
        self.residence.for_denoiser()
        dtype = self.dtypes.unet
        x, context = self._ready(x, dtype), self._ready(context, dtype)
        vector = self._ready(vector, dtype) if vector is not None else None
        said: dict[str, object] = {"control": control, "less": less}
        said = {name: value for name, value in said.items() if value is not None}
        if references:
            said["references"] = [self._ready(each, dtype) for each in references]
        predicted: Tensor = self.networks.denoiser(x, timesteps.to(self.device), context, vector, **said)
        return _plain(predicted)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in -1..1 (b, 3, 8h, 8w) to the posterior's mean and log-variance, float32 (b, 4, h, w) (ENC-2)."""
        mean, logvar = self.networks.autoencoder.encode(self._ready(pixels, self.codec.dtype))
        return _plain(mean), _plain(logvar).clamp(*LOGVAR_RANGE)

    @torch.no_grad()
    def decode(self, z: Tensor, fallback: VaeFallback | None = "float32") -> Tensor:
        """Unscaled latents (b, 4, h, w) to pixels, float32; a VAE that overflows goes on in the fallback (DEC-2)."""
        pixels = self._decode_once(z)
        if fallback is not None and _DTYPES[fallback] is not self.codec.dtype and bool(pixels.isnan().any()):
            self.codec.move(_DTYPES[fallback])
            pixels = self._decode_once(z)
        if bool(pixels.isnan().any()):
            remedy = "use dtype='float32', or a VAE that is made for half precision"
            raise SamplingError(
                f"vae: its decoder produced values that are no numbers (NaN) in {self.codec.dtype}; {remedy}"
            )
        return pixels

    @torch.no_grad()
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
        """Token ids (b, 77) through one of the text encoders, float32; the family's layer and norm unless given."""
        self.residence.for_text(encoder)
        network = self.networks.texts[encoder]
        said: dict[str, Any] = {"layer": layer, "final_norm": final_norm, "overrides": overrides}
        if pictures:
            said["pictures"] = pictures
        encoding: TextEncoding = network.encode(ids.to(self.device), **said)
        pooled = encoding.pooled.float() if encoding.pooled is not None else None
        return TextEncoding(encoding.tokens.float(), pooled)

    def wear(
        self,
        loras: Sequence[WornLora],
        hypernets: Sequence[tuple[Hypernet, float]],
        quirks: Quirks,
        *,
        functional: bool = False,
    ) -> tuple[int, ...]:
        """Put on exactly these adapters; returns of each LoRA the number of layers that do not fit."""
        return self._worn.wear(loras, hypernets, quirks, functional=functional)

    def set_tiling(self, on: bool) -> None:
        """Pictures whose edges meet (ARCH-9)."""
        set_tiling(self.networks.denoiser, on)
        self.codec.set_tiling(on)

    def _decode_once(self, z: Tensor) -> Tensor:
        return _plain(self.networks.autoencoder.decode(self._ready(z, self.codec.dtype)))

    def _ready(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.to(self.device, dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def settled(network: _Network) -> _Network:
    """Ready for inference: in the layout its device multiplies fastest."""
    network.eval().requires_grad_(False)
    if can_pack() and next(network.parameters()).device.type == "cpu":
        set_packed(network, True)
    else:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _plain(x: Tensor) -> Tensor:
    return x.float().contiguous()
