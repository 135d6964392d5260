"""The joint training of U-Net and text encoder: name the noise in a latent, given a caption of the picture.

Ho et al., "Denoising Diffusion Probabilistic Models" (2020), on latents as in Rombach et al. (2022).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overpaint.networks.text import ClipText
from overpaint.networks.unet import UNet
from training import specs
from training.hardware import Hardware
from training.initialise import start_text, start_unet
from training.latents import Scale, encode_shards, measure
from training.store import SCENES, Folder, Shelf, read_records, render_shards
from training.trainee import Budget, Course, Losses, Trainee, step_generator, step_rng, train
from training.words import UNKNOWN, encode, quiet_rows, start_and_end, trained_tokens, vocabulary

SEED = 23
COURSE = Course(rate=5e-4, warm_up=150, decay=0.02, averaging=0.9985)
LEVELS = 1000
_EMPTY_SHARE = 0.1  # captions left empty, for guidance: Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022)
_UNKNOWN_SHARE = 0.02  # tokens made unknown, so that words never seen do no harm
_MOST_SIGNAL = 5.0


class Denoiser(nn.Module):
    """The two networks that learn together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(specs.UNET)
        self.text = ClipText(replace(specs.TEXT, vocabulary=vocabulary()))

    def forward(self, x: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        result: Tensor = self.unet(x, timesteps, self.text.encode(ids).tokens)
        return result


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is learnt from."""

    latents: Shelf
    ids: NDArray[np.int64]  # (pictures, captions, 77)
    scale: Scale
    batch: int


def signal_shares() -> Tensor:
    """alpha-bar of each of the 1000 noise levels, as SD 1 defines them."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, LEVELS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def level_weights() -> Tensor:
    """Errors of the velocity where noise prevails, and no more than 5 times the noise's where the picture does.

    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023).
    """
    shares = signal_shares()
    ratio = shares / (1 - shares)
    return (ratio.clamp(max=_MOST_SIGNAL) + 1) / ratio


def denoiser(folder: Folder, hardware: Hardware, course: Course = COURSE) -> Trainee:
    """As it was left, or at its start."""
    network = Denoiser()
    start_unet(network.unet, SEED)
    start_text(network.text, quiet_rows(), SEED + 1)
    trainee = Trainee(hardware.placed(network), course)
    path = folder.trainee("unet")
    if path.exists():
        trainee.load(path)
        if tuple(trainee.notes["tokens"]) != trained_tokens():
            raise ValueError(f"{path}: it knows other words than the captions now hold; start anew or bring them back")
    return trainee


def gather(folder: Folder, size: int, shards: int, batch: int) -> Material:
    latents = Shelf(folder.latents(size), shards)
    records = read_records(folder.pictures(size, SCENES), shards)
    lines = encode(caption for record in records for caption in record["captions"])
    return Material(
        latents=latents, ids=lines.reshape(len(records), -1, lines.shape[-1]), scale=measure(latents), batch=batch
    )


def train_denoiser(
    folder: Folder, size: int, shards: int, batch: int, budget: Budget, hardware: Hardware, workers: int
) -> Trainee:
    render_shards(folder, size, SCENES, shards, workers)
    encode_shards(folder, size, shards, hardware)
    material = gather(folder, size, shards, batch)
    trainee = denoiser(folder, hardware)
    trainee.notes = {"tokens": list(trained_tokens()), "scale": asdict(material.scale)}
    shares, weights = signal_shares().to(hardware.device), level_weights().to(hardware.device)

    def loss_of(step: int) -> tuple[Tensor, Losses]:
        latents, ids, levels = draw_batch(material, step, hardware)
        generator = step_generator(SEED, step, hardware.device)
        noise = torch.randn(latents.shape, generator=generator, device=hardware.device)
        share = shares[levels].view(-1, 1, 1, 1)
        noisy = (share.sqrt() * latents + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with hardware.fast():
            found = trainee.network(noisy, levels, ids)
        errors = (found.float() - noise).pow(2).mean(dim=(1, 2, 3)) * weights[levels]
        return errors.mean(), by_level(errors.detach(), levels)

    train(trainee, folder.trainee("unet"), budget, loss_of)
    return trainee


def draw_batch(material: Material, step: int, hardware: Hardware) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, caption ids and noise levels of a step; the levels are spread evenly over the batch."""
    rng, count = step_rng(SEED, step), material.batch
    chosen = rng.integers(0, material.latents.count, count)
    ids = material.ids[chosen, rng.integers(0, material.ids.shape[1], count)]
    ids = np.where(rng.random((count, 1)) < _EMPTY_SHARE, encode([""]), ids)
    framing = np.isin(ids, start_and_end())
    ids = np.where((rng.random(ids.shape) < _UNKNOWN_SHARE) & ~framing, UNKNOWN, ids)
    levels = even_levels(rng, count)
    rows = np.stack([material.latents[int(i)] for i in chosen]).astype(np.float32)
    latents, rows_of_ids, steps = (torch.from_numpy(each).to(hardware.device) for each in (rows, ids, levels))
    return material.scale.standard(latents), rows_of_ids, steps


def even_levels(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Noise levels spread evenly over a batch."""
    return ((np.arange(count) + rng.random()) / count * LEVELS).astype(np.int64)


def by_level(errors: Tensor, levels: Tensor) -> Losses:
    """The mean error, and that of the quarter with the most noise, where only the caption helps."""
    noisiest = errors[levels >= LEVELS * 3 // 4]
    return {"error": float(errors.mean()), "noisiest": float(noisiest.mean()) if len(noisiest) else math.nan}
