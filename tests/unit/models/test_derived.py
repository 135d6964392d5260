"""Tensors that are made from others when they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint.errors import CheckpointError
from overpaint.models.derived import Part, derived_weights, joined, reshaped, same, scaled, turned, unscaled
from overpaint.models.files import Weights, read_checkpoint, write_safetensors


@pytest.fixture
def files(tmp_path: Path) -> tuple[Weights, Weights]:
    first = {"a": np.arange(6).reshape(2, 3), "b": np.arange(3).reshape(1, 3)}
    second = {"a": np.arange(4), "scale": np.array([2, 3])}
    paths = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    for path, tensors in zip(paths, (first, second), strict=True):
        write_safetensors(path, {name: each.astype(np.float32) for name, each in tensors.items()}, {})
    return read_checkpoint(paths[0]), read_checkpoint(paths[1])


def test_every_way_of_making(files: tuple[Weights, Weights]) -> None:
    first, second = files
    a, b = Part(first, "a"), Part(first, "b")
    tensors = {
        "same": same(a),
        "joined": joined(b, a, b),
        "turned": turned(a),
        "reshaped": reshaped(a, (3, 2, 1)),
        "scaled": scaled(a, Part(second, "scale")),
        "other": same(Part(second, "a")),
    }
    weights = derived_weights(Path("x"), tensors, {"k": "v"})
    assert weights.shapes == {
        "same": (2, 3),
        "joined": (4, 3),
        "turned": (3, 2),
        "reshaped": (3, 2, 1),
        "scaled": (2, 3),
        "other": (4,),
    }
    assert (weights.path, weights.metadata) == (Path("x"), {"k": "v"})
    read = dict(weights.read(["other", "turned", "joined", "scaled", "same", "reshaped"]))
    assert list(read) == ["other", "turned", "joined", "scaled", "same", "reshaped"]
    plain = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(read["same"], plain)
    assert torch.equal(read["turned"], plain.T)
    assert read["turned"].is_contiguous()
    assert torch.equal(read["joined"], torch.cat([torch.arange(3.0)[None], plain, torch.arange(3.0)[None]]))
    assert torch.equal(read["reshaped"], plain.reshape(3, 2, 1))
    assert torch.equal(read["scaled"], plain * torch.tensor([[2.0], [3.0]]))


def test_nothing_is_read_before_it_is_asked_for(files: tuple[Weights, Weights]) -> None:
    def never(keys: list[str]) -> None:
        pytest.fail(f"{keys} were read")

    first, _ = files
    shut = Weights(first.path, first.shapes, {}, never)  # type: ignore[arg-type]
    weights = derived_weights(Path("x"), {"a": same(Part(first, "a")), "never": joined(Part(shut, "a"))}, {})
    assert list(dict(weights.read(["a"]))) == ["a"]


def test_each_has_memory_of_its_own(files: tuple[Weights, Weights]) -> None:
    a = Part(files[0], "a")
    read = dict(derived_weights(Path("x"), {"one": same(a), "two": same(a)}, {}).read(["one", "two"]))
    read["one"] += 1
    assert torch.equal(read["two"], torch.arange(6.0).reshape(2, 3))


def test_what_does_not_fit(files: tuple[Weights, Weights]) -> None:
    first, second = files
    with pytest.raises(CheckpointError, match="do not fit together"):
        joined(Part(first, "a"), Part(second, "a"))
    with pytest.raises(CheckpointError, match=r"scale holds 2 numbers, but b is \[1, 3\]"):
        scaled(Part(first, "b"), Part(second, "scale"))


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("scale", [2.0, [2.0], [2.0, 4.0], [[2.0], [4.0]]])
def test_weights_beside_their_scale(name: str, scale: object, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    stored = torch.tensor([[0.5, 1, 2], [3, 4, 448]])
    tensors = {
        "layer.weight": stored.to(torch.float8_e4m3fn),
        "layer.bias": torch.ones(2),
        f"layer.{name}": torch.tensor(scale),
        "layer.scale_input": torch.tensor(9.0),
        "scaled_fp8": torch.zeros(0),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    weights = unscaled(read_checkpoint(tmp_path / "x.safetensors"))
    assert weights.shapes == {"layer.weight": (2, 3), "layer.bias": (2,)}
    read = dict(weights.read(weights.shapes))
    rows = torch.tensor(scale).reshape(-1, 1)
    assert torch.equal(read["layer.weight"], stored * rows)
    assert torch.equal(read["layer.bias"], torch.ones(2))


def test_a_file_without_scales_stays_as_it_is(files: tuple[Weights, Weights]) -> None:
    assert unscaled(files[0]) is files[0]
