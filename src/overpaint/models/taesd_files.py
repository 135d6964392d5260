"""The tiny autoencoder from its files, in the place of the full codec (VAE-6, ENC-3, DEC-1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from overpaint.errors import SamplingError, SettingError
from overpaint.models.families import LatentSpec
from overpaint.models.files import Weights, read_checkpoint
from overpaint.models.filling import load_network
from overpaint.networks.layers import set_tiling
from overpaint.networks.taesd import taesd_decoder, taesd_encoder

Half = Literal["encoder", "decoder"]
VaeFallback = Literal["float32", "bfloat16"]

_BUILDERS: Mapping[Half, Callable[[int], nn.Sequential]] = {"encoder": taesd_encoder, "decoder": taesd_decoder}
_SUFFIXES = (".safetensors", ".pth", ".pt")
_FLUX_CHANNELS = 16
_WITHOUT_TWIN = ("qwen", "flux2")  # families whose latents no TAESD that is read here knows
_CERTAIN = -30.0  # the log-variance of a codec that is sure


@dataclass(frozen=True)
class TaesdFiles:
    """Where the halves are, maybe both in one file; None where one was not asked for."""

    encoder: Path | None
    decoder: Path | None


def find_taesd(
    folder: str | Path,
    *,
    is_sdxl: bool,
    channels: int = 4,
    family: str = "",
    halves: Sequence[Half] = ("encoder", "decoder"),
) -> TaesdFiles:
    """The files for a family of checkpoints: each half in its own, or both in one; a missing one is a SettingError.

    `channels` are those of the latents: 16 are Flux.1's, or those of the `family` Stable Diffusion 3.
    """
    if family.startswith(_WITHOUT_TWIN):
        remedy = f"no TAESD is known for a model of the family {family}; use the full VAE, and previews of another kind"
        raise SettingError("taesd_dir", str(folder), remedy)
    stem = "taesdxl" if is_sdxl else "taesd"
    if channels == _FLUX_CHANNELS:
        stem = "taesd3" if family.startswith("sd3") else "taef1"
    found: dict[Half, Path] = {}
    for half in halves:
        names = [f"{stem}_{half}{suffix}" for suffix in _SUFFIXES]
        names += [*(f"{stem}{suffix}" for suffix in _SUFFIXES), f"{stem}/diffusion_pytorch_model.safetensors"]
        path = next((Path(folder) / name for name in names if folder and (Path(folder) / name).is_file()), None)
        if path is None:
            listed = f"{', '.join(names[:-1])} or {names[-1]}"
            remedy = f"there is no {listed} in it" if folder else f"set it to the folder that holds {listed}"
            raise SettingError("taesd_dir", str(folder), remedy)
        found[half] = path
    return TaesdFiles(found.get("encoder"), found.get("decoder"))


def load_taesd(
    files: TaesdFiles, *, latent: LatentSpec, device: str | torch.device, dtype: torch.dtype = torch.float32
) -> Taesd:
    """The halves that are there, as a codec whose latents are those of the full one."""
    return Taesd(
        _load("encoder", files.encoder, latent.channels, device, dtype),
        _load("decoder", files.decoder, latent.channels, device, dtype),
        latent=latent,
        device=device,
        dtype=dtype,
    )


class Taesd:
    """The tiny autoencoder behind the calls of the full one: `latents.Codec`.

    Its latents come already scaled; that is undone here, so that callers scale them as always.
    """

    def __init__(
        self,
        encoder: nn.Sequential | None,
        decoder: nn.Sequential | None,
        *,
        latent: LatentSpec,
        device: str | torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent
        self.device = torch.device(device)
        self.dtype = dtype

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in -1..1 (b, 3, 8h, 8w) to mean and log-variance, float32 (b, 4, h, w) (ENC-3)."""
        latents = self._run("encoder", self.encoder, (pixels + 1) / 2)
        return self.latent.unscaled(latents), torch.full_like(latents, _CERTAIN)

    @torch.no_grad()
    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor:
        """Unscaled latents (b, 4, h, w) to pixels about -1..1, float32 (DEC-1); it needs no fallback."""
        pixels = self._run("decoder", self.decoder, self.latent.scaled(z)) * 2 - 1
        if bool(pixels.isnan().any()):
            raise SamplingError(f"taesd: it painted values that are no numbers (NaN) in {self.dtype}; use float32")
        return pixels

    def set_tiling(self, on: bool) -> None:
        """Pictures whose edges meet (ARCH-9)."""
        for network in (self.encoder, self.decoder):
            if network is not None:
                set_tiling(network, on)

    def _run(self, half: Half, network: nn.Sequential | None, x: Tensor) -> Tensor:
        if network is None:
            raise SamplingError(f"taesd: its {half} was not loaded; ask find_taesd for it")
        x = x.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        result: Tensor = network(x)
        return result.float().contiguous()


def _load(
    half: Half, path: Path | None, channels: int, device: str | torch.device, dtype: torch.dtype
) -> nn.Sequential | None:
    if path is None:
        return None
    weights = read_checkpoint(path)
    keys = _official_names(weights, half)
    return load_network(
        partial(_BUILDERS[half], channels), weights, keys, f"a TAESD {half}", device=device, dtype=dtype
    )


def _official_names(weights: Weights, half: Half) -> dict[str, str]:
    """Parameter -> key in the file. Files with both halves say which; diffusers counts the decoder from its second."""
    prefix = f"{half}."
    keys = {key.removeprefix(prefix): key for key in weights.shapes if key.startswith(prefix)}
    keys = keys or {key: key for key in weights.shapes}
    first = 1 if half == "decoder" else 0
    return {
        _shifted(name.removeprefix("layers."), first if name.startswith("layers.") else 0): keys[name] for name in keys
    }


def _shifted(name: str, by: int) -> str:
    number, _, rest = name.partition(".")
    return f"{int(number) + by}.{rest}" if number.isdecimal() else name
