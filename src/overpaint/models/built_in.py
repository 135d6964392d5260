"""The models that come with the package: `overpaint-mini`, and those that grow from it by a small file of differences.

A delta holds, for the base's `<layer>.weight`, two factors `<layer>.lora_up.weight` and `<layer>.lora_down.weight`,
whose product is added (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021), and whole tensors under
their own names, which take the base's place: a first convolution with more input channels, say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from overpaint.errors import CheckpointError, SaveError
from overpaint.files.saving import save_bytes
from overpaint.models.hashes import DIFFERENCE_SUFFIX, CheckpointFile, checkpoint_file, sha256_of, user_hash_cache
from overpaint.models.header import safetensors_bytes

Tensors = Mapping[str, NDArray[Any]]

DEFAULT_MODEL = "overpaint-mini"
DATA = Path(__file__).parents[1] / "data"
# Offered where their deltas are shipped.
_GROWN = ("overpaint-mini-inpainting", "overpaint-mini-edit", "overpaint-mini-flow")
_UP, _DOWN = ".lora_up.weight", ".lora_down.weight"


def default_path() -> Path:
    """The checkpoint that is used when none is named."""
    return DATA / f"{DEFAULT_MODEL}.safetensors"


def built_in_names(data: Path | None = None) -> tuple[str, ...]:
    """The models there are without any file of the user's."""
    return (DEFAULT_MODEL, *(name for name in _GROWN if _delta_path(name, data or DATA).is_file()))


def built_in_path(name: str, data: Path | None = None, cache: Path | None = None) -> Path:
    """The checkpoint of that name; one that grows from another is written once, into the user's cache folder."""
    data = data or DATA
    base = data / f"{DEFAULT_MODEL}.safetensors"
    if name == DEFAULT_MODEL:
        return base
    delta = _delta_path(name, data)
    origin = "".join(sha256_of(each, user_hash_cache()) for each in (base, delta))
    key = hashlib.sha256(origin.encode()).hexdigest()[:16]
    path = (cache or platformdirs.user_cache_path("overpaint")) / "built-in" / key / f"{name}.safetensors"
    if not path.is_file():
        _write_grown(base, delta, path)
    return path


def words_of(path: Path) -> frozenset[str]:
    """The words that a model of this package was trained on. For other models they are unknown."""
    is_ours = path.stem in built_in_names() and (path.parent == DATA or "built-in" in path.parts)
    return frozenset((DATA / "words.txt").read_text("utf-8").split()) if is_ours else frozenset()


def built_in_files() -> tuple[CheckpointFile, ...]:
    """All of them with their hashes; those that cannot be written to the cache folder now are left out."""
    files: list[CheckpointFile] = []
    for name in built_in_names():
        try:
            path = built_in_path(name)
        except CheckpointError:
            continue
        files.append(checkpoint_file(path, (), sha256_of(path, user_hash_cache())))
    return tuple(files)


def grown(base: Tensors, delta: Tensors) -> dict[str, NDArray[Any]]:
    """The base with a delta applied; every tensor keeps the base's precision."""
    result = dict(base)
    factors: set[str] = set()
    for name, values in delta.items():
        if name.endswith((_UP, _DOWN)):
            factors.add(name.removesuffix(_UP).removesuffix(_DOWN))
        else:
            result[name] = values.astype(_of_base(base, name).dtype)
    for layer in sorted(factors):
        weight = _of_base(result, f"{layer}.weight")
        up, down = (_of_delta(delta, layer + part) for part in (_UP, _DOWN))
        # NOTE: in double precision these sums come out the same in whatever order a machine adds them up, so that the
        # grown checkpoint has the same hash everywhere.
        product = up.reshape(len(up), -1).astype(np.float64) @ down.reshape(len(down), -1).astype(np.float64)
        if product.size != weight.size or len(product) != len(weight):
            shapes = f"{up.shape} and {down.shape} do not make {weight.shape}"
            raise CheckpointError(f"{layer}: the factors {shapes}; install the package again")
        result[f"{layer}.weight"] = (weight + product.reshape(weight.shape)).astype(weight.dtype)
    return result


def _of_base(base: Tensors, name: str) -> NDArray[Any]:
    if name not in base:
        raise CheckpointError(f"{name}: the model that this should change does not have it; install the package again")
    return base[name]


def _of_delta(delta: Tensors, name: str) -> NDArray[Any]:
    if name not in delta:
        raise CheckpointError(f"{name}: one of two factors is missing; install the package again")
    return delta[name]


def _delta_path(name: str, data: Path) -> Path:
    return data / f"{name}{DIFFERENCE_SUFFIX}"


def _write_grown(base: Path, delta: Path, path: Path) -> None:
    tensors, metadata = _read(base)
    changes, said = _read(delta)
    try:
        data = safetensors_bytes(dict(sorted(grown(tensors, changes).items())), {**metadata, **said})
        save_bytes(path, data, replace=True)
    except SaveError as error:
        raise CheckpointError(f"{path.stem}: it is made from {base.name} once and kept ({error})") from error


def _read(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name}: it cannot be read ({error}); install the package again") from error
