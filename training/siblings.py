"""The siblings: an inpainting, an edit and a flow network, small changes to the finished U-Net.

A first convolution that sees more (Rombach et al., 2022, for inpainting; Brooks et al., "InstructPix2Pix", 2023) and
low-rank factors are all that is learnt, so that each sibling is a small file beside the base; `flow` tells what the
third one learns.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from training.flow import Teacher, fit_answer, flow_unet, mixed, shares_of_noise, some_swapped
from training.hardware import Hardware
from training.lessons import LATENTS, Lessons, Source, prepare
from training.lowrank import adapt, factors, shapes_of
from training.store import Folder, replacing
from training.trainee import Budget, Course, Losses, Trainee, step_generator, step_rng, train
from training.words import tokens

COURSE = Course(rate=1e-3, warm_up=60, decay=0.0, averaging=0.995)
SEED = 41
_FITTED = 256  # rows that the flow sibling's last layer is fitted to


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A sibling: how many channels it sees beside the latent, and how often it must do without text or picture."""

    channels: int
    no_text: float
    no_picture: float = 0.0
    neither: float = 0.0
    tells: Mapping[str, str] = field(default_factory=dict)  # metadata of its own


KINDS: dict[str, Kind] = {
    "inpainting": Kind(channels=1 + LATENTS, no_text=0.1),
    "edit": Kind(channels=LATENTS, no_text=0.05, no_picture=0.05, neither=0.05),
    "flow": Kind(channels=0, no_text=0.1, tells={"overpaint.prediction": '"flow"', "overpaint.shift": "1.5"}),
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
    adapt(wide, SEED, without=(entrance,))
    entrance.requires_grad_(True)
    return wide


_ENTRANCE = "input_blocks.0.0.weight"


def sibling(folder: Folder, kind: str, base: Base, hardware: Hardware, lessons: Lessons | None = None) -> Trainee:
    """As it was left, or at its start, which for the flow sibling is fitted to some lessons."""
    path, is_flow = folder.trainee(kind), kind == "flow"
    network = flow_unet(base.unet, SEED) if is_flow else widened(base.unet, KINDS[kind].channels)
    if is_flow and lessons is not None and not path.exists():
        latents, _, ids = lessons.batch(step_rng(SEED, 0), _FITTED, Hardware.cpu())
        fit_answer(network, Teacher.of(base.unet, latents.device), latents, base.text.encode(ids).tokens, SEED)
    trainee = Trainee(hardware.placed(network), COURSE)
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
    trainee = sibling(folder, kind, base, hardware, lessons)
    text = hardware.placed(base.text)
    errors_of = errors_of_velocity(base, hardware) if kind == "flow" else errors_of_noise(hardware)
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
        with hardware.fast(), torch.no_grad():
            context = text.encode(ids).tokens
        errors = errors_of(trainee.network, Draw(latents, shown, noise, levels, context))
        return errors.mean(), by_level(errors.detach(), levels)

    train(trainee, folder.trainee(kind), budget, loss_of)
    return export_delta(trainee, kind, folder.root / delta_name(kind))


@dataclass(frozen=True)
class Draw:
    """What one step is about."""

    latents: Tensor
    shown: Tensor  # beside the latents
    noise: Tensor
    levels: Tensor
    context: Tensor


ErrorsOf = Callable[[nn.Module, Draw], Tensor]  # of each row


def errors_of_noise(hardware: Hardware) -> ErrorsOf:
    """How far a network is from naming the noise, weighed by the level."""
    shares, weights = signal_shares().to(hardware.device), level_weights().to(hardware.device)

    def errors(network: nn.Module, draw: Draw) -> Tensor:
        share = shares[draw.levels].view(-1, 1, 1, 1)
        noisy = torch.cat([share.sqrt() * draw.latents + (1 - share).sqrt() * draw.noise, draw.shown], dim=1)
        with hardware.fast():
            found = network(noisy.contiguous(memory_format=torch.channels_last), draw.levels, draw.context)
        missed: Tensor = (found.float() - draw.noise).pow(2).mean(dim=(1, 2, 3))
        return missed * weights[draw.levels]

    return errors


def errors_of_velocity(base: Base, hardware: Hardware) -> ErrorsOf:
    """How far a network is from what the base knows of the velocity."""
    teacher = Teacher.of(hardware.placed(base.unet), hardware.device)

    def errors(network: nn.Module, draw: Draw) -> Tensor:
        s, context = shares_of_noise(draw.levels), some_swapped(draw.context)
        wanted = teacher.velocity(draw.latents, draw.noise, s, context, hardware)
        seen = mixed(draw.latents, draw.noise, s).contiguous(memory_format=torch.channels_last)
        with hardware.fast():
            found = network(seen, s, context)
        missed: Tensor = (found.float() - wanted).pow(2).mean(dim=(1, 2, 3))
        return missed

    return errors


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
        **KINDS[kind].tells,
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
