"""The siblings: an inpainting and an edit network, small changes to the finished U-Net.

A first convolution that sees more (Rombach et al., 2022, for inpainting; Brooks et al., "InstructPix2Pix", 2023) and
low-rank factors are all that is learnt, so that each sibling is a small file beside the base.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from overpaint.models.built_in import grown
from overpaint.models.detect import detect
from overpaint.models.families import UNET_PREFIX, VAE_PREFIX
from overpaint.models.files import read_all, read_checkpoint, write_safetensors
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import Packable
from overpaint.networks.text import ClipText
from overpaint.networks.unet import UNet
from training.denoiser import by_level, even_levels, level_weights, signal_shares
from training.hardware import Hardware
from training.lessons import LATENTS, Source, prepare
from training.lowrank import adapt, factors, shapes_of
from training.store import Folder, replacing
from training.trainee import Budget, Course, Losses, Trainee, step_generator, step_rng, train
from training.words import tokens

COURSE = Course(rate=1e-3, warm_up=60, decay=0.0, averaging=0.995)
SEED = 41


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A sibling: how many channels it sees beside the latent, and how often it must do without text or picture."""

    channels: int
    no_text: float
    no_picture: float = 0.0
    neither: float = 0.0


KINDS: dict[str, Kind] = {
    "inpainting": Kind(channels=1 + LATENTS, no_text=0.1),
    "edit": Kind(channels=LATENTS, no_text=0.05, no_picture=0.05, neither=0.05),
}


@dataclass(frozen=True)
class Base:
    """The finished model."""

    digest: str
    unet: UNet
    text: ClipText
    codec: AutoencoderKL


def read_base(path: Path) -> Base:
    """The networks of an exported checkpoint, in single precision."""
    header, tensors = read_checkpoint(path), read_all(path)
    spec = detect(header.shapes, header.metadata)
    unet, text, codec = UNet(spec.unet), ClipText(spec.texts[0]), AutoencoderKL(spec.vae)
    for prefix, network in ((UNET_PREFIX, unet), (spec.texts[0].prefix, text), (VAE_PREFIX, codec)):
        network.load_state_dict({name: tensors[prefix + name].float() for name, _ in network.named_parameters()})
        network.requires_grad_(False)
    return Base(hashlib.sha256(path.read_bytes()).hexdigest(), unet, text, codec)


def widened(unet: UNet, channels: int) -> UNet:
    """The same U-Net with blind channels beside the latent, and factors that change nothing yet."""
    wide = UNet(replace(unet.spec, in_channels=unet.spec.in_channels + channels))
    weights = unet.state_dict()
    narrow = weights[_ENTRANCE]
    weights[_ENTRANCE] = torch.cat([narrow, narrow.new_zeros(len(narrow), channels, *narrow.shape[2:])], dim=1)
    wide.load_state_dict(weights)
    entrance = wide.get_submodule(_ENTRANCE.removesuffix(".weight"))
    assert isinstance(entrance, Packable)
    adapt(wide, SEED, without=entrance)
    entrance.requires_grad_(True)
    return wide


_ENTRANCE = "input_blocks.0.0.weight"


def sibling(folder: Folder, kind: str, base: Base, hardware: Hardware) -> Trainee:
    """As it was left, or at its start."""
    trainee = Trainee(hardware.placed(widened(base.unet, KINDS[kind].channels)), COURSE)
    path = folder.trainee(kind)
    if path.exists():
        trainee.load(path)
        if trainee.notes["base"] != base.digest:
            raise ValueError(f"{path}: it was begun from another base; give that one, or remove the file to start anew")
    trainee.notes = {"base": base.digest}
    return trainee


def train_sibling(
    folder: Folder,
    kind: str,
    base: Base,
    budget: Budget,
    hardware: Hardware,
    *,
    size: int,
    shards: int,
    batch: int,
    workers: int,
) -> Path:
    """Learn, and write what was learnt as a delta."""
    codec = hardware.placed(base.codec).eval()
    lessons = prepare(kind, Source(folder, size, codec, hardware), shards, workers)
    trainee = sibling(folder, kind, base, hardware)
    text = hardware.placed(base.text)
    shares, weights = signal_shares().to(hardware.device), level_weights().to(hardware.device)
    nothing = torch.from_numpy(tokens([""])).to(hardware.device)

    def loss_of(step: int) -> tuple[Tensor, Losses]:
        rng = step_rng(SEED, step)
        latents, shown, ids = lessons.batch(rng, batch, hardware)
        levels = torch.from_numpy(even_levels(rng, batch)).to(hardware.device)
        blind, mute = (torch.from_numpy(each).to(hardware.device) for each in left_out(KINDS[kind], rng, batch))
        ids = torch.where(mute[:, None], nothing, ids)
        shown = shown * ~blind[:, None, None, None]
        noise = torch.randn(
            latents.shape, generator=step_generator(SEED, step, hardware.device), device=hardware.device
        )
        share = shares[levels].view(-1, 1, 1, 1)
        noisy = torch.cat([share.sqrt() * latents + (1 - share).sqrt() * noise, shown], dim=1)
        with hardware.fast():
            with torch.no_grad():
                context = text.encode(ids).tokens
            found = trainee.network(noisy.contiguous(memory_format=torch.channels_last), levels, context)
        errors = (found.float() - noise).pow(2).mean(dim=(1, 2, 3)) * weights[levels]
        return errors.mean(), by_level(errors.detach(), levels)

    train(trainee, folder.trainee(kind), budget, loss_of)
    return export_delta(trainee, kind, folder.root / delta_name(kind))


def left_out(kind: Kind, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of a batch do without their picture, and which without their text."""
    fate = rng.random(count)
    neither = fate < kind.neither
    blind = neither | (fate >= 1 - kind.no_picture)
    mute = fate < kind.neither + kind.no_text
    return blind, mute


def delta_name(kind: str) -> str:
    return f"overpaint-mini-{kind}.delta.safetensors"


def delta(network: nn.Module, trained: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """What was learnt, by the names that a checkpoint gives it, in half precision."""
    named = factors(trained, shapes_of(network))
    return {UNET_PREFIX + name: values.float().cpu().numpy().astype(np.float16) for name, values in sorted(named)}


def export_delta(trainee: Trainee, kind: str, target: Path) -> Path:
    """Write the averaged factors and the first convolution."""
    metadata = {
        "format": "pt",
        "modelspec.title": f"overpaint mini, {kind}",
        "modelspec.license": "Apache-2.0",
        "overpaint.kind": kind,
        "overpaint.base": trainee.notes["base"],
        "overpaint.training_steps": str(trainee.step),
    }
    with replacing(target) as unfinished:
        write_safetensors(unfinished, delta(trainee.network, trainee.averaged()), metadata)
    return target


def write_merged(base: Path, small: Path, target: Path) -> Path:
    """A whole checkpoint of a base and a delta."""
    told = read_checkpoint(small).metadata
    if told.get("overpaint.base") != hashlib.sha256(base.read_bytes()).hexdigest():
        raise ValueError(f"{small}: it belongs to another base than {base}; give the one that it was trained from")
    first, changes = ({name: values.numpy() for name, values in read_all(path).items()} for path in (base, small))
    with replacing(target) as unfinished:
        write_safetensors(unfinished, grown(first, changes), {**read_checkpoint(base).metadata, **told})
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.siblings", description="A whole checkpoint of a base and a delta.")
    for name in ("base", "delta", "to"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    said = parser.parse_args()
    print(write_merged(said.base, said.delta, said.to))


if __name__ == "__main__":
    main()
