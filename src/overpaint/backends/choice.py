"""Which backend computes on a device: one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from overpaint.backends.port import Backend, Dtypes
from overpaint.backends.torch_backend import SharedAutoencoder, TorchBackend, resolve_dtypes
from overpaint.models.specs import ModelSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.denoisers import DenoiserNetwork
from overpaint.networks.text_networks import TextNetwork


class Build(Protocol):
    """Makes a backend of networks that are filled already."""

    def __call__(
        self,
        denoiser: DenoiserNetwork,
        autoencoder: AutoencoderKL | SharedAutoencoder,
        texts: Sequence[TextNetwork],
        *,
        device: str | torch.device,
        dtypes: Dtypes,
    ) -> Backend: ...


@dataclass(frozen=True)
class BackendKind:
    """A row: the devices a backend computes on, what it computes in there, and how it is made."""

    name: str
    computes_on: Callable[[str], bool]  # the type of a device, such as "cuda"
    dtypes: Callable[[str | torch.device, str], Dtypes]
    build: Build
    codec: Callable[[AutoencoderKL, torch.dtype], SharedAutoencoder]  # an autoencoder that several models may share


BACKENDS: tuple[BackendKind, ...] = (
    BackendKind(
        "torch", lambda kind: True, resolve_dtypes, TorchBackend, SharedAutoencoder
    ),  # the last row takes every device
)


def dtypes_for(spec: ModelSpec, device: str | torch.device, name: str) -> Dtypes:
    """What a model's networks compute in.

    Flow models were trained in bfloat16, and their numbers leave the range of float16. Their text encoders are as large
    as other families' denoisers, and so are not kept in more bits than these.
    """
    found = backend_for(device).dtypes(device, name)
    if not spec.is_flow:
        return found
    if name == "auto" and found.unet is torch.float16:
        return Dtypes(torch.bfloat16, torch.bfloat16, torch.bfloat16)
    return replace(found, text=found.unet)


def backend_for(device: str | torch.device) -> BackendKind:
    """The first one that computes on this device."""
    kind = torch.device(device).type
    return next(each for each in BACKENDS if each.computes_on(kind))
