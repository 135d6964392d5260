from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from overpaint.errors import CheckpointError
from overpaint.models.upscaler_files import load_upscaler
from tests.unit.esrgan import State, compact, compact_state, esrgan, folded, old_state, renamed

X = torch.rand(1, 3, 9, 6, generator=torch.Generator().manual_seed(3))


def run(path: Path) -> Tensor:
    with torch.inference_mode():
        result: Tensor = load_upscaler(path).network(X)
    return result


@pytest.mark.parametrize("wrap", [None, "params", "params_ema", "state_dict"])
@pytest.mark.parametrize("naming", ["numbered", "trunk", "body"])
def test_pickled_files(tmp_path: Path, naming: str, wrap: str | None) -> None:
    state = old_state()
    stored = state if naming == "numbered" else renamed(state, naming)
    path = tmp_path / "4x-Test.pth"
    torch.save(stored if wrap is None else {wrap: stored, "step": 3}, path)
    loaded = load_upscaler(path)
    assert (loaded.scale, loaded.name) == (4, "4x-Test")
    assert not any(each.requires_grad for each in loaded.network.parameters()) and not loaded.network.training
    assert torch.allclose(run(path), esrgan(state, X), atol=1e-4)


def test_moving_averages_are_preferred(tmp_path: Path) -> None:
    path, good = tmp_path / "m.pth", compact_state()
    torch.save({"params": {key: each + 1 for key, each in good.items()}, "params_ema": good}, path)
    assert torch.allclose(run(path), compact(good, X, 4), atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "params_ema.", "module."])
def test_safetensors_of_any_precision(tmp_path: Path, prefix: str) -> None:
    state = {key: each.half() for key, each in compact_state(scale=2).items()}
    path = tmp_path / "s.safetensors"
    save_file({prefix + key: each for key, each in state.items()}, path)
    path = path.rename(tmp_path / "s.pth") if prefix else path  # known by its content
    assert load_upscaler(path).scale == 2
    assert torch.allclose(run(path), compact({key: each.float() for key, each in state.items()}, X, 2), atol=1e-4)


def test_folded_networks(tmp_path: Path) -> None:
    state = old_state(folded=2)
    torch.save({"params_ema": renamed(state, "body")}, tmp_path / "x2.pth")
    assert load_upscaler(tmp_path / "x2.pth").scale == 2
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        ours = load_upscaler(tmp_path / "x2.pth").network(x)
    assert torch.allclose(ours, esrgan(state, folded(x, 2)), atol=1e-4)


def without(state: State, *names: str) -> State:
    return {key: each for key, each in state.items() if key not in names}


BODY = renamed(old_state(), "body")
BROKEN: dict[str, tuple[object, str]] = {
    "missing": (without(BODY, "body.1.rdb2.conv3.bias"), r"1 tensors that RRDBNet has are missing \(body\.1\.rdb2"),
    "shape": ({**BODY, "conv_hr.weight": torch.zeros(8, 9, 3, 3)}, r"tensor conv_hr\.weight is \[8, 9, 3, 3\]"),
    "besides": ({**BODY, "body.0.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}, "its architecture is not known"),
    "foreign": ({"layers.0.weight": torch.zeros(3)}, "its architecture is not known; RRDBNet .*spandrel.*torchvision"),
    "huge": (
        {**BODY, "conv_first.weight": torch.zeros(20_000, 3, 3, 3)},
        r"tensor .* but RRDBNet of these widths needs",
    ),
    "empty": ({"params": {}}, "it holds no tensors by name"),
    "list": ([torch.zeros(3)], "it holds no tensors by name"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    content, message = BROKEN[name]
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=rf"^bad\.pth: {message}") as caught:
        load_upscaler(tmp_path / "bad.pth")
    assert "\n" not in str(caught.value) and str(caught.value).count("bad.pth") == 1


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04" + bytes(30), b"\x08\0\0\0\0\0\0\0{}      "])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(tmp_path: Path, content: bytes, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^bad\."):
        load_upscaler(path)
    with pytest.raises(CheckpointError, match=r"gone\.pth: there is no such file"):
        load_upscaler(tmp_path / "gone.pth")


class Double(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) * self.weight


class Described:
    """What spandrel tells about a model."""

    def __init__(self, model: nn.Module, channels: int = 3) -> None:
        self.model, self.scale = model, 2
        self.input_channels, self.output_channels, self.supports_half = channels, 3, True

    def eval(self) -> Described:
        return self

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x).clamp(0, 1)
        return result


def toy_spandrel(channels: int) -> ModuleType:
    class Loader:
        def __init__(self, device: torch.device) -> None:
            pass

        def load_from_state_dict(self, state: Mapping[str, Tensor]) -> Described:
            if "layers.0.weight" not in state:
                raise ValueError("two\nlines")
            return Described(Double(state["layers.0.weight"]), channels)

    toy: Any = ModuleType("spandrel")
    toy.__spec__ = importlib.machinery.ModuleSpec("spandrel", None)
    toy.ModelLoader, toy.ImageModelDescriptor = Loader, Described
    module: ModuleType = toy
    return module


def test_other_architectures_go_through_spandrel_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", toy_spandrel(3))
    torch.save({"params": {"layers.0.weight": torch.tensor(0.5)}}, tmp_path / "other.pth")
    loaded = load_upscaler(tmp_path / "other.pth")
    assert loaded.scale == 2
    assert torch.equal(loaded.network(X), X.repeat_interleave(2, 2).repeat_interleave(2, 3) / 2)
    torch.save({"strange": torch.zeros(1)}, tmp_path / "strange.pth")
    with pytest.raises(CheckpointError, match=r"known neither here nor to spandrel \(ValueError: two\)"):
        load_upscaler(tmp_path / "strange.pth")
    monkeypatch.setitem(sys.modules, "spandrel", toy_spandrel(1))
    with pytest.raises(CheckpointError, match="no network from one colour picture to another"):
        load_upscaler(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("state", "scale"),
    [
        (old_state(features=16, growth=32), 4),
        (old_state(features=16, growth=32, doublings=1), 2),
        (renamed(old_state(features=16, growth=32), "trunk"), 4),
        (renamed(old_state(features=16, growth=32, folded=2), "body"), 2),
        (compact_state(features=16), 4),
    ],
)
def test_spandrel_makes_the_same_pixels(tmp_path: Path, state: State, scale: int) -> None:
    spandrel: Any = pytest.importorskip("spandrel", exc_type=ImportError)
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(state)).eval()
    torch.save(state, tmp_path / "same.pth")
    assert load_upscaler(tmp_path / "same.pth").scale == theirs.scale == scale
    x = torch.rand(1, 3, 32, 28)  # NOTE: at sizes that do not fold, each fills up in its own way
    with torch.inference_mode():
        assert torch.allclose(load_upscaler(tmp_path / "same.pth").network(x).clamp(0, 1), theirs(x), atol=1e-4)
