"""Files of models by name, without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from overpaint.errors import CheckpointError
from overpaint.models.catalog import (
    CONTROLNET,
    EMBEDDING,
    LORA,
    VAE,
    ModelFile,
    files_below,
    files_of,
    find_controlnet,
    find_file,
    weights_of,
)


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
    assert {each.name: each.path for each in files_of(folder, CONTROLNET)} == {
        "canny": folder / "canny.safetensors",
        "depth2": folder / "depth2.ckpt",
        "depth10": folder / "depth10.pth",
        "sub/canny": folder / "sub/canny.pth",
        "tile-xl": folder / "tile-xl",
    }
    assert files_of("", CONTROLNET) == ()
    assert files_of(folder / "nothing", CONTROLNET) == ()


def test_each_kind_takes_its_own_files_and_names_them_its_own_way(tmp_path: Path) -> None:
    for name in ("a.PT", "a.preview.png", "b.safetensors", "c.ckpt", "d.bin", "e.pth"):
        (tmp_path / name).touch()
    assert [each.name for each in files_of(tmp_path, LORA)] == ["b", "c"]
    assert [each.name for each in files_of(tmp_path, VAE)] == ["b.safetensors", "c.ckpt"]
    assert [each.name for each in files_of(tmp_path, EMBEDDING)] == ["a", "b", "d"]


def test_a_place_finds_a_file_only_where_it_is_wanted_and_means_one() -> None:
    files = [ModelFile(Path("x/a.pt"), "a", "a"), ModelFile(Path("y/a.pt"), "a", "a")]
    assert find_file(files, "x/a") is None
    assert find_file(files, "x/a", by_place=True) == files[0]
    assert find_file(files, "y/a.pt", by_place=True) == files[1]
    assert find_file(files, "a.pt", by_place=True) is None


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


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    """An environment of Python in the current folder holds the models of its packages, which are no user's."""
    for place in (".venv/lib/a.safetensors", "sub/b.safetensors", ".hidden.safetensors"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found = [str(each.relative_to(tmp_path)) for each in files_below(tmp_path)]
    assert found == [".hidden.safetensors", "sub/b.safetensors"]
