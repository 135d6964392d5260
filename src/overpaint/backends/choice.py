"""Which backend computes on a device: one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from overpaint.backends.openvino_backend import OpenVinoBackend, openvino_codec
from overpaint.backends.port import Backend, Dtypes
from overpaint.backends.torch_backend import SharedAutoencoder, TorchBackend, resolve_dtypes
from overpaint.errors import RequestError
from overpaint.hints import listed
from overpaint.models.specs import ModelSpec
from overpaint.networks.codecs import CodecNetwork
from overpaint.networks.denoisers import DenoiserNetwork
from overpaint.networks.text_networks import TextNetwork


class Build(Protocol):
    """Makes a backend of networks that are filled already."""

    def __call__(
        self,
        denoiser: DenoiserNetwork,
        autoencoder: CodecNetwork | SharedAutoencoder,
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
    codec: Callable[[CodecNetwork, torch.dtype], SharedAutoencoder]  # an autoencoder that several models may share
    is_automatic: bool = True  # "auto" may choose it


# NOTE: "auto" stays with torch on CPUs. On an Intel processor with AMX OpenVINO took 0.9 of torch's time for a step and
# twice the memory. It compiles a graph for each size of picture and each set of LoRAs, for as long as a call or two.
# Who paints many steps in one size may gain; who tries things out, or is short of memory, loses: only the user knows.
BACKENDS: tuple[BackendKind, ...] = (
    BackendKind(
        "openvino",
        lambda kind: kind == "cpu",
        resolve_dtypes,
        OpenVinoBackend,
        openvino_codec,
        is_automatic=False,
    ),
    BackendKind(
        "torch", lambda kind: True, resolve_dtypes, TorchBackend, SharedAutoencoder
    ),  # the last row takes every device
)


def dtypes_for(spec: ModelSpec, backend: BackendKind, device: str | torch.device, name: str) -> Dtypes:
    """What a model's networks compute in.

    Transformers were trained in bfloat16, and their numbers leave the range of float16. Their text encoders are as
    large as other families' denoisers, and so are not kept in more bits than these.
    """
    found = backend.dtypes(device, name)
    if spec.has_unet:
        return found
    if name == "auto" and found.unet is torch.float16:
        return Dtypes(torch.bfloat16, torch.bfloat16, torch.bfloat16)
    return replace(found, text=found.unet)


def backend_for(device: str | torch.device, name: str = "auto") -> BackendKind:
    """The one of this name, or the first that computes on this device by itself."""
    kind = torch.device(device).type
    able = [each for each in BACKENDS if each.computes_on(kind)]
    if name == "auto":
        return next(each for each in able if each.is_automatic)
    for each in able:
        if each.name == name:
            return each
    remedy = f"on {kind} there is {listed([each.name for each in able])}; use auto or another device"
    raise RequestError("backend", name, remedy)
