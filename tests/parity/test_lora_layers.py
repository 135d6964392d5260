"""The weights of layers that wear one network at weight 0.6, and what the reference says of layers that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.adapters.lora import read_lora
from overpaint.adapters.names import UNET, LayerName, layer_names
from overpaint.adapters.wanted import AdapterFile, find_adapter, list_adapters, uses_of
from overpaint.adapters.wear import Wardrobes, WornLora
from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.hashes import network_hash
from overpaint.networks.layers import Packable
from overpaint.prompt import take_network_tags
from overpaint.settings import Quirks

EXTRA = Path(__file__).resolve().parents[3] / "shared" / "parity" / "extra"  # only to name the tests
RECORDED = sorted(path.stem for path in EXTRA.glob("unit/lora_*.npz"))
REFERENCE = Quirks.reference()
_PLAIN = {"W": "weight", "b": "bias", "in_proj_W": "in_proj_weight", "out_proj_W": "out_proj.weight"}


@pytest.fixture(scope="session")
def loras(parity: Path) -> tuple[AdapterFile, ...]:
    return list_adapters([parity / "extra" / "files" / "Lora"])


@pytest.fixture(scope="session")
def models(checkpoints: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """name -> model in the reference's precision."""
    return cache(lambda name: load_checkpoint(checkpoints(name), device="cpu", dtype="float32", hashing=False))


def layer_of(model: LoadedModel, recorded: str) -> LayerName:
    """The reference's name of a layer, which for OpenCLIP may be that of a whole attention."""
    names = layer_names(model.spec)
    if recorded in names:
        return names[recorded]
    network, path = names[f"{recorded}_q_proj"]
    return LayerName(network, path.removesuffix(".q_proj"))


def value_of(model: LoadedModel, layer: LayerName, parameter: str) -> Tensor:
    networks = model.backend.networks
    network = networks.unet if layer.network == UNET else networks.texts[layer.network]
    path, _, name = f"{layer.path}.{parameter}".rpartition(".")
    owner = network.get_submodule(path)
    if name == "weight" and isinstance(owner, Packable):
        return owner.dense_weight()
    value = getattr(owner, name)
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize("recorded", RECORDED)
def test_layers_as_the_reference_has_them(
    recorded: str, parity: Path, loras: tuple[AdapterFile, ...], models: Callable[[str], LoadedModel]
) -> None:
    _, checkpoint, name = recorded.split("_")
    model = models(f"tiny-{checkpoint}")
    file = find_adapter(loras, name)
    assert file is not None
    wardrobes = Wardrobes(model.backend.networks)
    counts = wardrobes.wear([WornLora(read_lora(file, model.spec, REFERENCE), 0.6, 0.6)], REFERENCE)
    assert counts == (0,)
    compared = 0
    with np.load(parity / "extra" / "unit" / f"{recorded}.npz") as values:
        for key in values.files:
            layer, parameter = key.split("|")
            if parameter == "unchanged":
                continue
            worn = value_of(model, layer_of(model, layer), _PLAIN[parameter])
            np.testing.assert_allclose(worn.numpy(), values[key], rtol=0, atol=1e-7, err_msg=key)
            compared += 1
    assert compared > 1
    wardrobes.bare()
