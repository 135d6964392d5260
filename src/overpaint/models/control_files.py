"""ControlNets from their files: single ones in the original or the diffusers layout, and folders of diffusers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from overpaint.errors import CheckpointError
from overpaint.models.catalog import weights_of
from overpaint.models.control_spec import ControlSpec, check_heads, detect_control, original_names
from overpaint.models.control_spec import check_fits as check_fits
from overpaint.models.families import ModelSpec, UNetSpec
from overpaint.models.files import Weights, read_checkpoint
from overpaint.models.filling import load_network
from overpaint.models.header import read_sidecar
from overpaint.networks.controlnet import ControlNet

_LARGEST_CONFIG = 2**20


@dataclass(frozen=True, eq=False)
class LoadedControl:
    """A ControlNet in memory."""

    path: Path  # the file, or the folder of diffusers
    spec: ControlSpec
    network: ControlNet

    @property
    def name(self) -> str:
        return self.path.name if self.path.is_dir() else self.path.stem


@dataclass(frozen=True)
class ControlFile:
    """An opened ControlNet: what it is, and where its tensors are."""

    path: Path
    spec: ControlSpec
    weights: Weights


def open_controlnet(path: Path, like: UNetSpec | None = None) -> ControlFile:
    """Recognise a file by its header; no tensor is read. `like` is the U-Net it is to work with, if that is known."""
    path = Path(path)
    weights = read_checkpoint(_weights_file(path))
    with _named(path):
        config = _config(weights.path)
        _refuse_shuffle(path, config)
        spec = detect_control(
            weights.shapes, weights.metadata, sidecar=read_sidecar(weights.path), config=config, like=like
        )
    return ControlFile(path, spec, weights)


def load_controlnet(
    path: Path,
    *,
    device: str | torch.device,
    dtype: torch.dtype,
    model: ModelSpec | None = None,
    said: str | None = None,
) -> LoadedControl:
    """Load a ControlNet. With `model`, one that does not fit it is refused before a tensor is read.

    `said` is the field and value that named it, for that error, such as "controls[0].model='canny'".
    """
    file = open_controlnet(path, model.unet if model is not None else None)
    if model is not None:
        check_fits(file.spec, model, said or f"controls.model={file.path.name!r}")
    with _named(file.path):
        check_heads(file.spec)
    keys = original_names(file.weights.shapes)
    build = partial(ControlNet, file.spec)
    network = load_network(build, file.weights, keys, "a ControlNet", device=device, dtype=dtype)
    return LoadedControl(file.path, file.spec, network)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors say which file it is."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = weights_of(path)
    if found is None:
        raise CheckpointError(f"{path.name}: this folder holds no diffusion_pytorch_model.safetensors; name a file")
    return found


def _config(weights: Path) -> Mapping[str, Any]:
    """The configuration that diffusers writes beside its weights."""
    beside = weights.with_name("config.json")
    if not weights.name.startswith("diffusion_pytorch_model") or not beside.is_file():
        return {}
    try:
        if beside.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("larger than 1 MiB")
        config = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"config.json cannot be read ({error}); correct it or take it away") from error
    return config if isinstance(config, Mapping) else {}


def _refuse_shuffle(path: Path, config: Mapping[str, Any]) -> None:
    # NOTE: weights do not say that they work on averages. The one such ControlNet is known by its name.
    if path.stem.endswith("_shuffle") and "global_pool_conditions" not in config:
        raise CheckpointError(
            "a shuffle ControlNet guides by averages of a picture, which is not supported; use another ControlNet"
        )
