"""The codec's training: crops of scenes and of confetti, judged pixel by pixel at four sizes and by their edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from overpaint.networks.autoencoder import AutoencoderKL
from training import specs
from training.hardware import Hardware
from training.initialise import start_autoencoder
from training.store import CONFETTI, SCENES, Folder, Shelf, render_shards
from training.trainee import Budget, Course, Losses, Trainee, step_generator, step_rng, train

SEED = 11
COURSE = Course(rate=8e-5, warm_up=60, decay=1e-4, averaging=0.998)
_CONFETTI_SHARE = 0.12
_KL = 1e-5
_EDGES = 0.35
_START_PICTURES = 12
_LATENT_ERROR = 0.1


@dataclass(frozen=True, kw_only=True)
class Data:
    """How many pictures, how large, how many crops a step."""

    size: int = specs.NATIVE_SIZE
    shards: int = 12
    confetti_shards: int = 1
    crop: int = 64
    batch: int = 8


def to_tensor(pixels: Sequence[NDArray[np.uint8]], hardware: Hardware) -> Tensor:
    """(b, h, w, 3) bytes -> (b, 3, h, w) in -1..1"""
    tensor = torch.from_numpy(np.stack(pixels)).to(hardware.device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def autoencoder(folder: Folder, data: Data, hardware: Hardware) -> Trainee:
    """As it was left, or at its start."""
    network = AutoencoderKL(specs.VAE)
    path = folder.trainee("vae")
    if not path.exists():
        scenes = Shelf(folder.pictures(data.size, SCENES), 1)
        pictures = to_tensor([scenes[i] for i in range(_START_PICTURES)], Hardware.cpu())
        start_autoencoder(network, pictures, SEED)
    trainee = Trainee(hardware.placed(network), COURSE)
    if path.exists():
        trainee.load(path)
    return trainee


def train_vae(folder: Folder, data: Data, budget: Budget, hardware: Hardware, workers: int) -> Trainee:
    render_shards(folder, data.size, CONFETTI, data.confetti_shards, workers)
    render_shards(folder, data.size, SCENES, data.shards, workers)
    trainee = autoencoder(folder, data, hardware)
    shelves = _shelves(folder, data)
    network = trainee.network
    assert isinstance(network, AutoencoderKL)

    def loss_of(step: int) -> tuple[Tensor, Losses]:
        pictures = crops(shelves, data, step, hardware)
        return codec_loss(network, pictures, step_generator(SEED, step, hardware.device), hardware)

    train(trainee, folder.trainee("vae"), budget, loss_of)
    return trainee


def decoder(folder: Folder, start: AutoencoderKL, hardware: Hardware) -> Trainee:
    """The decoder alone, so that latents already made stay what they are."""
    for module in (start.encoder, start.quant_conv):
        module.requires_grad_(False)
    trainee = Trainee(hardware.placed(start), COURSE)
    if folder.trainee("decoder").exists():
        trainee.load(folder.trainee("decoder"))
    return trainee


def train_decoder(folder: Folder, start: AutoencoderKL, data: Data, budget: Budget, hardware: Hardware) -> Trainee:
    """Better pictures from latents that are a little wrong, as a denoiser's are."""
    trainee = decoder(folder, start.train(), hardware)
    shelves = _shelves(folder, data)

    def loss_of(step: int) -> tuple[Tensor, Losses]:
        pictures = crops(shelves, data, step, hardware)
        generator = step_generator(SEED + 1, step, hardware.device)
        with hardware.fast():
            with torch.no_grad():
                mean = start.encode(pictures)[0].float()
            amount = torch.rand((len(mean), 1, 1, 1), generator=generator, device=mean.device) * _LATENT_ERROR
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            rebuilt = start.decode(mean + noise * amount * mean.std(dim=(0, 2, 3), keepdim=True)).float()
        error = picture_error(rebuilt, pictures)
        return error, {"error": float(error.detach()), "psnr": psnr(rebuilt.detach(), pictures)}

    train(trainee, folder.trainee("decoder"), budget, loss_of)
    return trainee


def psnr(found: Tensor, wanted: Tensor) -> float:
    """In decibels, of pictures in -1..1."""
    return 10 * math.log10(4 / float(F.mse_loss(found, wanted)))


def _shelves(folder: Folder, data: Data) -> tuple[Shelf, Shelf]:
    return (
        Shelf(folder.pictures(data.size, SCENES), data.shards),
        Shelf(folder.pictures(data.size, CONFETTI), data.confetti_shards),
    )


def crops(shelves: tuple[Shelf, Shelf], data: Data, step: int, hardware: Hardware) -> Tensor:
    """Random windows of random pictures, half of them mirrored."""
    rng = step_rng(SEED, step)
    windows = []
    for _ in range(data.batch):
        shelf = shelves[int(rng.random() < _CONFETTI_SHARE)]
        picture = shelf[int(rng.integers(shelf.count))]
        top, left = (int(each) for each in rng.integers(0, data.size - data.crop + 1, 2))
        window = picture[top : top + data.crop, left : left + data.crop]
        windows.append(window[:, ::-1] if rng.random() < 0.5 else window)
    return to_tensor(windows, hardware).contiguous(memory_format=torch.channels_last)


def codec_loss(
    network: AutoencoderKL, pictures: Tensor, generator: torch.Generator, hardware: Hardware
) -> tuple[Tensor, Losses]:
    """Kingma and Welling (2014), with absolute errors for the pictures."""
    with hardware.fast():
        mean, logvar = network.encode(pictures)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        mean, logvar = mean.float(), logvar.float().clamp(-30, 20)
        rebuilt = network.decode(mean + noise * (0.5 * logvar).exp()).float()
    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    error = picture_error(rebuilt, pictures)
    loss = error + _KL * divergence
    figures = {
        "error": float(error.detach()),
        "psnr": psnr(rebuilt.detach(), pictures),
        "kl": float(divergence.detach()),
    }
    return loss, figures


def picture_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Absolute differences of pixels, of means over 2, 4 and 8 pixels, and of gradients."""
    error = F.l1_loss(found, wanted)
    for _ in range(3):
        error = error + _EDGES * _gradient_error(found, wanted)
        found, wanted = F.avg_pool2d(found, 2), F.avg_pool2d(wanted, 2)
        error = error + 0.5 * F.l1_loss(found, wanted)
    return error


def _gradient_error(found: Tensor, wanted: Tensor) -> Tensor:
    off = found - wanted
    return off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()
