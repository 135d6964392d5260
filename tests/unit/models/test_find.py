"""From what a job calls a model to a path: names, titles, hashes, folders, and the closest match for refiners."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from overpaint.errors import CheckpointError
from overpaint.models import find
from overpaint.models.find import find_checkpoint, find_refiner
from overpaint.models.hashes import is_model_folder, list_checkpoints, sha256_of, stamp_of
from overpaint.settings import Quirks, Settings


def written(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files, folders of diffusers, and things that are neither."""
    monkeypatch.setattr(find, "user_hash_cache", lambda: tmp_path / "hashes.json")
    models = tmp_path / "models"
    for name in ("dream.safetensors", "dream-long.ckpt", "dream.vae.safetensors", "q4.gguf", "anime/dream2.ckpt"):
        written(models / name, name.encode())
    for name in ("sd-v1.5/model_index.json", "sd-v1.5/unet/diffusion_pytorch_model.safetensors"):
        written(models / name)
    written(models / "anime/bare/unet/config.json")
    written(models / "unet/flat.safetensors")
    return models


def site(folder: Path) -> Settings:
    return Settings(models_dir=str(folder))


def test_folders_and_gguf_are_listed(folder: Path) -> None:  # FILE-1, FILE-2
    names = [each.name for each in list_checkpoints([folder])]
    inside = [
        str(Path("anime", "dream2.ckpt")),
        str(Path("anime", "bare")),
        "sd-v1.5",
        str(Path("unet", "flat.safetensors")),
    ]
    assert names == ["dream-long.ckpt", "dream.safetensors", "q4.gguf", *inside]
    whole = next(each for each in list_checkpoints([folder]) if each.name == "sd-v1.5")
    assert (whole.is_folder, whole.sha256, whole.title, whole.name_for_extra) == (True, None, "sd-v1.5", "sd-v1.5")
    assert whole.aliases() == ("sd-v1.5",)
    assert [each.name for each in list_checkpoints([folder / "sd-v1.5"])] == ["sd-v1.5"]


def test_a_folder_of_unets_is_no_model(folder: Path) -> None:
    assert is_model_folder(folder / "anime" / "bare")
    assert not is_model_folder(folder)
    assert not is_model_folder(folder / "nothing")


def test_remembered_hashes_are_listed(folder: Path, tmp_path: Path) -> None:
    digest = sha256_of(folder / "q4.gguf", tmp_path / "hashes.json")
    known = {each.name: each.sha256 for each in list_checkpoints([folder], cache=tmp_path / "hashes.json")}
    assert known.pop("q4.gguf") == digest
    assert set(known.values()) == {None}


def test_names_titles_and_hashes(folder: Path, tmp_path: Path) -> None:  # FILE-6
    digest = sha256_of(folder / "dream.safetensors", tmp_path / "hashes.json")
    for name in ("dream", "dream.safetensors", f"dream.safetensors [{digest[:10]}]", digest[:10], digest):
        assert find_checkpoint(name, site(folder)) == folder / "dream.safetensors"
    assert find_checkpoint("anime_dream2", site(folder)) == folder / "anime" / "dream2.ckpt"
    assert find_checkpoint("sd-v1.5", site(folder)) == folder / "sd-v1.5"
    assert find_checkpoint(None, Settings(models_dir=str(folder), sd_model_checkpoint="q4")) == folder / "q4.gguf"


def test_title_of_a_file_that_was_never_hashed(folder: Path) -> None:
    digest = hashlib.sha256(b"dream.safetensors").hexdigest()
    assert find_checkpoint(f"dream [{digest[:10]}]", site(folder)) == folder / "dream.safetensors"
    with pytest.raises(CheckpointError, match="there is no such file or name"):
        find_checkpoint("dream [0123456789]", site(folder))


def test_paths_come_before_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "anime")
    assert find_checkpoint(Path("dream2.ckpt"), Settings()) == folder / "anime" / "dream2.ckpt"
    assert find_checkpoint("bare", Settings()) == folder / "anime" / "bare"
    assert find_checkpoint(str(folder / "unet"), Settings()) == folder / "unet"  # what is wrong with it, opening tells


def test_unknown_name(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint='dre': .*known in .*models: dream-long\.ckpt, "):
        find_checkpoint("dre", site(folder))
    with pytest.raises(CheckpointError, match="no such file or name; built in: overpaint-mini"):
        find_checkpoint("dream", Settings())


def test_a_name_that_two_folders_share_is_refused_with_both(folder: Path) -> None:
    for name in ("a/tiny.safetensors", "b/tiny.ckpt"):
        written(folder / name, name.encode())
    with pytest.raises(CheckpointError, match=r"checkpoint='tiny': 2 files have .* a/tiny.safetensors, b/tiny.ckpt"):
        find_checkpoint("tiny", site(folder))
    assert find_checkpoint("tiny.ckpt", site(folder)) == folder / "b" / "tiny.ckpt"
    assert find_checkpoint("a/tiny", site(folder)) == folder / "a" / "tiny.safetensors"
    assert find_checkpoint("b_tiny", site(folder)) == folder / "b" / "tiny.ckpt"
    as_reference = replace(site(folder), quirks=Quirks.reference())
    assert find_checkpoint("tiny", as_reference) == folder / "b" / "tiny.ckpt"  # FILE-6
    written(folder / "c" / "tiny.ckpt")
    with pytest.raises(CheckpointError, match=r"2 files have this name; give one of b/tiny.ckpt, c/tiny.ckpt"):
        find_checkpoint("tiny.ckpt", site(folder))
    written(folder / "tiny.safetensors")
    assert find_checkpoint("tiny", site(folder)) == folder / "tiny.safetensors"


def test_refiner_is_the_closest_match(folder: Path) -> None:  # FILE-7
    assert find_refiner("dream-l", site(folder)) == folder / "dream-long.ckpt"
    assert find_refiner("ream", site(folder)) == folder / "dream-long.ckpt"
    assert find_refiner("dream.s [0000000000]", site(folder)) == folder / "dream.safetensors"
    assert find_refiner(folder / "q4.gguf", Settings()) == folder / "q4.gguf"
    with pytest.raises(CheckpointError, match=r"hires\.checkpoint='Dream': there is no such"):
        find_refiner("Dream", site(folder), argument="hires.checkpoint")


def test_stamps_notice_changes(folder: Path) -> None:
    file, whole = folder / "dream.safetensors", folder / "sd-v1.5"
    before = stamp_of(file), stamp_of(whole)
    assert all(before)
    assert (stamp_of(file), stamp_of(whole)) == before
    written(file.with_suffix(".yaml"))
    written(whole / "vae" / "config.json")
    assert stamp_of(file) != before[0]
    assert stamp_of(whole) != before[1]
    file.unlink()
    assert stamp_of(file) == ()
