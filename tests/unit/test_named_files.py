"""Pipes and devices are no files: nobody waits for them, whatever opens what a user names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from overpaint.adapters.embedding_files import read_embedding
from overpaint.cli import main
from overpaint.cli.told import told_of
from overpaint.client import Client
from overpaint.errors import OverpaintError, PictureError
from overpaint.files.kept_files import file_sha256
from overpaint.files.metadata import read_infotext, read_recipe
from overpaint.files.rows import read_rows
from overpaint.models.catalog import CONTROLNET, EMBEDDING, LORA, PICTURE_OF_EMBEDDING, UPSCALER, FileKind, files_of
from overpaint.models.files import read_checkpoint
from overpaint.models.hashes import checkpoint_file, list_checkpoints, network_hash, sha256_of
from overpaint.models.header import safetensors_shapes
from overpaint.models.unpickle import open_pickle
from overpaint.models.vae_names import choose_vae, list_vaes
from overpaint.named_files import check_regular
from overpaint.pictures import open_picture
from overpaint.settings import Settings
from overpaint.text.styles import load_styles
from tests.unit.fake_painter import drawing

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files"),
    pytest.mark.timeout(30),  # who opens one waits for ever
]

DOORS: dict[str, Callable[[Path], object]] = {
    "picture": open_picture,
    "hash": file_sha256,
    "infotext": read_infotext,
    "recipe": read_recipe,
    "rows": lambda path: read_rows(path, path.parent / "out"),
    "masks": lambda path: read_rows(path.parent, path.parent / "out", masks=path),
    "model": read_checkpoint,
    "model's header": safetensors_shapes,
    "model's hash": sha256_of,
    "pickled model": open_pickle,
    "LoRA's hash": network_hash,
    "picture of an embedding": read_embedding,
    "styles": lambda path: load_styles(path),
    "upload": lambda path: Client("http://127.0.0.1:9").upload(path),
    "wish": lambda path: Client("http://127.0.0.1:9").submit({"images": [path]}),
}
BY_SUFFIX: dict[str, tuple[str, Callable[[Path], object]]] = {
    "infotext in a text": (".txt", told_of),
    "recipe in a file": (".json", told_of),
    "embedding": (".pt", read_embedding),
    "safetensors embedding": (".safetensors", read_embedding),
    "LoRA's hash": (".safetensors", network_hash),
}
COMMANDS = (
    "paint {} -p x -o {out}",
    "paint {picture} -p x --mask {} -o {out}",
    "paint {picture} -p x --model {} -o {out}",
    "info {}",
    "again {} -o {out}",
    "upscale {} -o {out}",
    "batch {} {out}",
    "batch {folder} {out} --masks {} -p x",
    "plan {} -p x",
)


@pytest.fixture(params=["pipe", "device", "link"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "odd.png"
    if request.param == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    if request.param == "link":
        (tmp_path / "link.png").symlink_to(path)
        path = tmp_path / "link.png"
    return path


@pytest.mark.parametrize("door", DOORS)
def test_no_door_waits_for_it(no_file: Path, door: str) -> None:
    with pytest.raises(OverpaintError) as told:
        DOORS[door](no_file)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("door", BY_SUFFIX)
def test_no_door_waits_for_it_under_any_name(no_file: Path, door: str, tmp_path: Path) -> None:
    suffix, read = BY_SUFFIX[door]
    (tmp_path / f"named{suffix}").symlink_to(no_file)
    with pytest.raises(OverpaintError, match="pipe or a device"):
        read(tmp_path / f"named{suffix}")


@pytest.mark.parametrize("line", COMMANDS)
def test_no_command_waits_for_it(no_file: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    drawing().save(tmp_path / "folder" / "a.png")
    picture = tmp_path / "folder" / "a.png"
    words = line.format(no_file, picture=picture, folder=tmp_path / "folder", out=tmp_path / "out.png").split()
    assert main(words) in (1, 2, 3)
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3
    assert not (tmp_path / "out.png").is_file()


@pytest.mark.parametrize("kinds", [(LORA,), (EMBEDDING, PICTURE_OF_EMBEDDING), (CONTROLNET,), (UPSCALER,)])
def test_a_folder_of_models_lists_none(tmp_path: Path, kinds: tuple[FileKind, ...]) -> None:
    for each in {suffix for kind in kinds for suffix in kind.suffixes}:
        os.mkfifo(tmp_path / f"odd{each}")
    assert files_of(tmp_path, *kinds) == ()


def test_no_pipe_is_a_checkpoint_or_what_lies_beside_one(tmp_path: Path) -> None:
    for name in ("odd.safetensors", "odd.ckpt", "good.json", "good.vae.pt", "odd.pt"):
        os.mkfifo(tmp_path / name)
    good = tmp_path / "good.safetensors"
    good.write_bytes(b"")
    assert [each.path for each in list_checkpoints([tmp_path])] == [good]
    assert checkpoint_file(tmp_path / "odd.ckpt").aliases()[-1].endswith("[NOFILE]")
    assert choose_vae(good, list_vaes(Settings(models_dir=str(tmp_path)))).path is None


def test_files_folders_and_nothing_pass(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for each in (tmp_path / "a", tmp_path, tmp_path / "none", "\0"):
        check_regular(each)
    with pytest.raises(PictureError, match="device"):
        check_regular("/dev/null")
