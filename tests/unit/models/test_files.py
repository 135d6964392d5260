"""Reading model files: limits of the safetensors header, storage types, memory of its own."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overpaint.errors import CheckpointError
from overpaint.models.files import read_all, read_checkpoint, write_safetensors


def write_raw(path: Path, header: Any, data: bytes = b"\0" * 64) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    values: dict[str, NDArray[Any]] = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.array(3, dtype=np.int64),
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, values, {"z": "1", "a": "{}"})
    weights = read_checkpoint(path)
    assert weights.shapes == {"b": (2, 3), "a": ()}
    assert weights.metadata == {"z": "1", "a": "{}"}
    tensors = read_all(path)
    assert torch.equal(tensors["b"], torch.from_numpy(values["b"]))
    assert int(tensors["a"]) == 3


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool]
)
def test_same_tensors_as_the_safetensors_library(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    tensors = {"one": torch.arange(12).reshape(3, 4).to(dtype), "empty": torch.zeros(0, 3).to(dtype)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"k": "v"})
    for name, tensor in read_all(tmp_path / "x.safetensors").items():
        assert tensor.dtype is dtype
        assert torch.equal(tensor.float(), tensors[name].float())


def test_tensors_have_memory_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": np.ones(3, dtype=np.float32)}, {})
    tensor = read_all(path)["a"]
    path.unlink()
    tensor += 1
    assert tensor.tolist() == [2, 2, 2]
    assert tensor.data_ptr() % 64 == 0


def test_only_what_is_asked_for_is_read_and_progress_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {name: np.zeros(2, dtype=np.float32) for name in "abc"}, {})
    told: list[tuple[int, int]] = []
    read = dict(read_checkpoint(path).read(["c", "a"], lambda done, of: told.append((done, of))))
    assert list(read) == ["c", "a"]
    assert told == [(1, 2), (2, 2)]


BROKEN: dict[str, Callable[[Path], Path]] = {
    "empty": lambda path: write_bytes(path, b""),
    "only a length": lambda path: write_bytes(path, struct.pack("<Q", 10)),
    "huge header": lambda path: write_bytes(path, struct.pack("<Q", 2**40) + b"{" * 20),
    "no json": lambda path: write_raw(path, b"{nonsense"),
    "no table": lambda path: write_raw(path, b"[1, 2]"),
    "deep nesting": lambda path: write_raw(path, b"[" * 100_000),
    "twice": lambda path: write_raw(path, b'{"a": 1, "a": 2}'),
    "no entry": lambda path: write_raw(path, {"a": 5}),
    "unknown type": lambda path: write_raw(path, {"a": entry([1], 0, 4, "F4")}),
    "behind the end": lambda path: write_raw(path, {"a": entry([32], 0, 128)}),
    "wrong size": lambda path: write_raw(path, {"a": entry([3], 0, 16)}),
    "backwards": lambda path: write_raw(path, {"a": entry([1], 8, 4)}),
    "negative": lambda path: write_raw(path, {"a": entry([-1], 0, 4)}),
    "fraction": lambda path: write_raw(path, {"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 6]}}),
    "three offsets": lambda path: write_raw(path, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}),
    "overlap": lambda path: write_raw(path, {"a": entry([4], 0, 16), "b": entry([4], 8, 24)}),
    "metadata of numbers": lambda path: write_raw(path, {"__metadata__": {"a": 1}}),
}


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_refused(name: str, tmp_path: Path) -> None:
    path = BROKEN[name](tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_checkpoint(path)


def test_cut_off_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": np.zeros(100, dtype=np.float32)}, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="behind the end"):
        read_checkpoint(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "nothing.safetensors")


def test_safetensors_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write_safetensors(path, {"a": np.zeros(2, dtype=np.float32)}, {})
    assert read_checkpoint(path).shapes == {"a": (2,)}
