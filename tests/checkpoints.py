"""The reference's tiny checkpoints, made again from the seeds of their random weights, byte for byte.

A recipe in `recordings/checkpoints` holds a file's header, its sidecar, the names of its parts, which checkpoints
share, and tensors of its own. A part holds a seed and its tensors in the order in which they were drawn, in half
precision: tensor = offset + scale * normal noise. A few rows were set by hand afterwards, so that a picture survives
the networks; a part keeps these as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECIPES = Path(__file__).resolve().parent / "recordings" / "checkpoints"
Arrays = Mapping[str, NDArray[Any]]


class OtherNumbersError(Exception):
    """On some processors torch draws normal noise that differs in the last bits."""


def write_checkpoint(name: str, folder: Path) -> Path:
    """Write `name.safetensors` and its sidecar below a folder."""
    recipe = _arrays(name)
    facts = _facts(recipe)
    tensors = {key: data for part in facts["parts"] for key, data in _drawn(_arrays(part))}
    entries = json.loads(recipe["header"].tobytes()[8:])
    entries.pop("__metadata__", None)
    order = sorted(entries, key=lambda key: int(entries[key]["data_offsets"][0]))
    body = (recipe[key].tobytes() if key in recipe else tensors[key] for key in order)
    written = b"".join([recipe["header"].tobytes(), *body])
    if hashlib.sha256(written).hexdigest() != facts["sha256"]:
        raise OtherNumbersError(f"{name}: normal noise differs on this processor in its last bits")
    target = folder / f"{name}.safetensors"
    target.write_bytes(written)
    target.with_suffix(".yaml").write_text(facts["sidecar"], encoding="utf-8")
    return target


def recorded_header(name: str) -> bytes:
    """The head of a checkpoint's file: its length, then names, shapes and places as JSON."""
    return _arrays(name)["header"].tobytes()


def recorded_sidecar(name: str) -> str:
    """The text of the `.yaml` beside a checkpoint."""
    return str(_facts(_arrays(name))["sidecar"])


def _arrays(name: str) -> Arrays:
    with np.load(RECIPES / f"{name}.npz") as kept:
        return {key: kept[key] for key in kept.files}


def _facts(arrays: Arrays) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(arrays["facts"].tobytes())
    return facts


def _drawn(part: Arrays) -> Iterator[tuple[str, bytes]]:
    facts = _facts(part)
    generator = torch.Generator().manual_seed(facts["seed"])
    for key, shape, offset, scale in facts["tensors"]:
        tensor = (offset + torch.randn(shape, generator=generator) * scale).half()
        yield key, _set_by_hand(tensor, key, part).numpy().tobytes()


def _set_by_hand(tensor: Tensor, key: str, part: Arrays) -> Tensor:
    if f"{key}|places" in part:
        places = torch.from_numpy(part[f"{key}|places"].cumsum(dtype=np.int64))
        tensor.view(-1)[places] = torch.from_numpy(part[f"{key}|values"])
    return tensor
