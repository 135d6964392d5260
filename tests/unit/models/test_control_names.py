"""ControlNets by name, without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from overpaint.errors import CheckpointError
from overpaint.models.control_names import find_controlnet, list_controlnets, weights_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "canny.safetensors",
        "depth10.pth",
        "depth2.ckpt",
        "notes.txt",
        "sub/canny.pth",
        "tile-xl/config.json",
        "tile-xl/diffusion_pytorch_model.safetensors",
        "tile-xl/diffusion_pytorch_model.fp16.safetensors",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_list(folder: Path) -> None:
    assert list_controlnets(folder) == {
        "canny": folder / "canny.safetensors",
        "depth2": folder / "depth2.ckpt",
        "depth10": folder / "depth10.pth",
        "sub/canny": folder / "sub/canny.pth",
        "tile-xl": folder / "tile-xl",
    }
    assert list_controlnets("") == {}
    assert list_controlnets(folder / "nothing") == {}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("canny", "canny.safetensors"),
        ("canny.safetensors", "canny.safetensors"),
        ("canny [d14c016b]", "canny.safetensors"),
        ("sub/canny", "sub/canny.pth"),
        ("tile-xl", "tile-xl"),
    ],
)
def test_find_by_name(name: str, wanted: str, folder: Path) -> None:
    assert find_controlnet(name, folder) == folder / wanted


def test_find_by_path(folder: Path) -> None:
    assert find_controlnet(str(folder / "depth10.pth"), "") == folder / "depth10.pth"
    assert find_controlnet(str(folder / "tile-xl"), "") == folder / "tile-xl"


def test_unknown_names(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"controls\[1\]\.model='cany': .* did you mean 'canny'"):
        find_controlnet("cany", folder, "controls[1].model")
    with pytest.raises(CheckpointError, match="the folder holds none"):
        find_controlnet("canny", folder / "nothing")
    with pytest.raises(CheckpointError, match="controlnet_dir"):
        find_controlnet("canny", "")


def test_full_precision_is_taken_first(folder: Path) -> None:
    weights = weights_of(folder / "tile-xl")
    assert weights is not None
    assert weights.name == "diffusion_pytorch_model.safetensors"
    weights.unlink()
    half = weights_of(folder / "tile-xl")
    assert half is not None
    assert half.name == "diffusion_pytorch_model.fp16.safetensors"
    assert weights_of(folder / "sub") is None
