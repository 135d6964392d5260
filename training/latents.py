"""The pictures as the finished encoder sees them: made once, because the denoiser looks at each many times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overpaint.networks.autoencoder import AutoencoderKL
from training import specs
from training.hardware import Hardware
from training.store import SCENES, SHARD, Folder, Shelf, load_tensors, save_array
from training.vae import to_tensor

_BATCH = 32
_LEAST_SPREAD = 0.4  # of the mean spread: a channel that hardly speaks must not become noise when it is scaled up


@dataclass(frozen=True)
class Scale:
    """Mean and spread of each latent channel."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def standard(self, latents: Tensor) -> Tensor:
        """Centred and of unit size: what the denoiser sees."""
        mean, spread = (torch.tensor(each, device=latents.device).view(-1, 1, 1) for each in (self.mean, self.spread))
        return (latents - mean) / spread


def averaged_codec(folder: Folder, hardware: Hardware) -> AutoencoderKL:
    """The codec of the averaged weights; its decoder is the later one if that has been trained on."""
    codec = AutoencoderKL(specs.VAE)
    names = [name for name, _ in codec.named_parameters()]
    codec.load_state_dict(dict(zip(names, load_tensors(folder.trainee("vae"))["averages"], strict=True)))
    later = folder.trainee("decoder")
    if later.exists():
        halves = [name for name in names if name.startswith(("decoder.", "post_quant_conv."))]
        averages = dict(zip(halves, load_tensors(later)["averages"], strict=True))
        codec.load_state_dict(averages, strict=False)
    return hardware.placed(codec).eval()


def encode_shards(folder: Folder, size: int, shards: int, hardware: Hardware) -> None:
    """Latents of the shards that have none yet."""
    target = folder.latents(size)
    missing = [i for i in range(shards) if not (target / f"{i:05d}.npy").exists()]
    if not missing:
        return
    codec, pictures = averaged_codec(folder, hardware), Shelf(folder.pictures(size, SCENES), shards)
    for index in missing:
        rows = [pictures[index * SHARD + i] for i in range(SHARD)]
        save_array(target / f"{index:05d}.npy", _encode(codec, rows, hardware))
        print(f"encoded {target.name}/{index:05d}", flush=True)


@torch.inference_mode()
def rebuild_shards(folder: Folder, size: int, shards: int, hardware: Hardware) -> Path:
    """The first pictures as the codec brings them back from their latents; where they lie."""
    encode_shards(folder, size, shards, hardware)
    target = folder.root / f"rebuilt-{size}"
    latents = Shelf(folder.latents(size), shards)
    missing = [i for i in range(shards) if not (target / f"{i:05d}.npy").exists()]
    codec = averaged_codec(folder, hardware) if missing else None
    for index in missing:
        assert codec is not None
        parts = []
        for start in range(0, SHARD, _BATCH):
            rows = [latents[index * SHARD + start + i] for i in range(_BATCH)]
            part = torch.from_numpy(np.stack(rows).astype(np.float32)).to(hardware.device)
            with hardware.fast():
                parts.append(codec.decode(part).float().clamp(-1, 1))
        pixels = ((torch.cat(parts) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        save_array(target / f"{index:05d}.npy", pixels.cpu().numpy())
        print(f"rebuilt {target.name}/{index:05d}", flush=True)
    return target


@torch.inference_mode()
def _encode(codec: AutoencoderKL, rows: list[NDArray[np.uint8]], hardware: Hardware) -> NDArray[np.float16]:
    parts = []
    for start in range(0, len(rows), _BATCH):
        with hardware.fast():
            mean, _ = codec.encode(to_tensor(rows[start : start + _BATCH], hardware))
        parts.append(mean.half().cpu().numpy())
    return np.concatenate(parts)


def measure(latents: Shelf) -> Scale:
    """Over the first shard, which never changes."""
    first = np.stack([latents[i] for i in range(SHARD)]).astype(np.float64)
    spread = first.std(axis=(0, 2, 3))
    floored = np.maximum(spread, _LEAST_SPREAD * spread.mean())
    return Scale(tuple(first.mean(axis=(0, 2, 3)).tolist()), tuple(floored.tolist()))
