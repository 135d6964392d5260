"""The flow sibling: the base's own knowledge, told as the velocity of a straight path from picture to noise.

The base names the noise n in x = sqrt(a) x0 + sqrt(1 - a) n. The sibling sees x = (1 - s) x0 + s n and is to say n - x0
(Liu et al., "Flow Straight and Fast", 2023). Both see the same mixture in another size, where s / (1 - s) is the base's
sqrt((1 - a) / a); so at every s the base has an answer, too, and the sibling learns that (Hinton et al., "Distilling
the Knowledge in a Neural Network", 2015). Such answers hold no chance, and a few hundred steps teach much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from overpaint.models.detect import FLOW_TIMES
from overpaint.networks.layers import Packable, sinusoid
from overpaint.networks.unet import UNet
from training.denoiser import LEVELS, signal_shares
from training.hardware import Hardware
from training.initialise import features, fit
from training.lowrank import adapt

WHOLE = ("input_blocks.0", "time_embed", "output_blocks.5.0", "out")  # learnt in full, where all else gets factors
_RIDGE = 1e-6
_FIT_BATCH = 32


@dataclass(frozen=True)
class Teacher:
    """What the base says of the same mixture."""

    unet: UNet
    noise: Tensor  # sqrt((1 - a) / a) of each of its levels

    @classmethod
    def of(cls, unet: UNet, device: torch.device) -> Teacher:
        shares = signal_shares().to(device)
        return cls(unet, ((1 - shares) / shares).sqrt())

    def noise_beside(self, s: Tensor) -> Tensor:
        """k of x0 + k n; what is more or less than the base knows is the most and the least that it does."""
        return (s / (1 - s).clamp(min=1e-6)).clamp(self.noise[0], self.noise[-1])

    def level(self, s: Tensor) -> Tensor:
        """The base's level of a share of noise, between two of them if need be."""
        wanted = self.noise_beside(s)
        above = torch.searchsorted(self.noise, wanted).clamp(1, LEVELS - 1)
        low, high = self.noise[above - 1].log(), self.noise[above].log()
        return above - 1 + (wanted.log() - low) / (high - low)

    @torch.no_grad()
    def velocity(self, latents: Tensor, noise: Tensor, s: Tensor, context: Tensor, hardware: Hardware) -> Tensor:
        """n - x0, as far as the base can tell them from the mixture."""
        k = self.noise_beside(s).view(-1, 1, 1, 1)
        picture_part = (1 + k**2).rsqrt()
        seen = picture_part * (latents + k * noise)
        with hardware.fast():
            named = self.unet(seen.contiguous(memory_format=torch.channels_last), self.level(s), context).float()
        clean = seen / picture_part - k * named
        velocity: Tensor = named - clean
        return velocity


def mixed(latents: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    """x of a share of noise."""
    share = s.view(-1, 1, 1, 1)
    return (1 - share) * latents + share * noise


def shares_of_noise(levels: Tensor) -> Tensor:
    """The middle of each of 1000 steps from 0 to 1."""
    return (levels + 0.5) / LEVELS


def some_swapped(context: Tensor) -> Tensor:
    """Every fourth text is another picture's: a picture that is painted over is not what the text says, either."""
    rows = torch.arange(len(context), device=context.device).view(-1, 1, 1)
    return torch.where(rows % 4 == 0, context.roll(1, 0), context)


def flow_unet(unet: UNet, seed: int) -> UNet:
    """The base's U-Net, told of 1000 s instead of its own levels, with factors that change nothing yet."""
    network = UNet(replace(unet.spec, time_factor=FLOW_TIMES))
    network.load_state_dict(unet.state_dict())
    _fit_time(network, Teacher.of(unet, torch.device("cpu")))
    whole = [network.get_submodule(name) for name in WHOLE]
    adapt(network, seed, without={layer for part in whole for layer in part.modules()})
    for name, values in network.named_parameters():
        if name.startswith(tuple(f"{part}." for part in WHOLE)) or values.ndim == 1:
            values.requires_grad_(True)
    return network


@torch.no_grad()
def _fit_time(network: UNet, teacher: Teacher) -> None:
    """The first layer that reads the time says of 1000 s what it said of the base's level: ridge regression."""
    first = network.time_embed[0]
    assert isinstance(first, Packable) and first.bias is not None
    width = network.spec.model_channels
    s = shares_of_noise(torch.arange(LEVELS))
    wanted = first(sinusoid(teacher.level(s), width)).double()
    told = torch.cat([sinusoid(s * FLOW_TIMES, width), torch.ones(LEVELS, 1)], dim=1).double()
    gram = told.T @ told
    gram.diagonal().add_(_RIDGE * LEVELS)
    solution = torch.linalg.solve(gram, told.T @ wanted).float()
    first.weight.copy_(solution[:-1].T)
    first.bias.copy_(solution[-1])


@torch.no_grad()
def fit_answer(network: UNet, teacher: Teacher, latents: Tensor, context: Tensor, seed: int) -> None:
    """The last layer starts as the best that it can say of what comes to it: ridge regression."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(latents), _FIT_BATCH):
        part, words = latents[start : start + _FIT_BATCH], context[start : start + _FIT_BATCH]
        noise = torch.randn(part.shape, generator=generator)
        s = (torch.arange(len(part)) + torch.rand(1, generator=generator)) / len(part)
        wanted = teacher.velocity(part, noise, s, words, Hardware(torch.device("cpu"), half=False))
        seen = mixed(part, noise, s)
        rows.append((features(network, network.out[-1], seen, s, words), wanted))
    fit(network.out[-1], *(torch.cat(each) for each in zip(*rows, strict=True)))
