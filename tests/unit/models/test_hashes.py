"""Names, hashes and aliases of checkpoint files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from overpaint.models.files import write_safetensors
from overpaint.models.hashes import (
    CheckpointFile,
    checkpoint_file,
    find_closest,
    find_exact,
    list_checkpoints,
    network_hash,
    old_hash,
    sha256_of,
)


def written(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_names(tmp_path: Path) -> None:  # FILE-2, FILE-3, FILE-5
    path = written(tmp_path / "anime" / "model v1.5.safetensors")
    file = checkpoint_file(path, [tmp_path], "0123456789abcdef" * 4)
    assert file.name == str(Path("anime") / "model v1.5.safetensors")
    assert file.name_for_extra == "model v1.5"
    assert file.model_name == "anime_model v1.5"
    assert file.shorthash == "0123456789"
    assert file.title == f"{file.name} [0123456789]"
    assert file.short_title == "model v1.5 [0123456789]"


def test_names_outside_of_the_folders_and_without_hash(tmp_path: Path) -> None:
    file = checkpoint_file(written(tmp_path / "a" / "x.ckpt"), [tmp_path / "b"])
    assert (file.name, file.title, file.short_title, file.shorthash) == ("x.ckpt", "x.ckpt", "x", None)


def test_aliases(tmp_path: Path) -> None:  # FILE-6
    path = written(tmp_path / "sub" / "m.ckpt", bytes(0x100000) + b"y" * 100)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    old = hashlib.sha256(b"y" * 100).hexdigest()[:8]
    file = checkpoint_file(path, [tmp_path], sha)
    assert set(file.aliases()) == {
        old,
        "sub_m",
        f"{file.name} [{sha[:10]}]",
        file.name,
        "m",
        f"{file.name} [{old}]",
        sha[:10],
        sha,
        f"m [{sha[:10]}]",
    }
    assert old_hash(tmp_path / "nothing") == "NOFILE"  # FILE-4


def test_list_in_natural_order_without_vaes(tmp_path: Path) -> None:  # FILE-1
    for name in ("m10.ckpt", "m2.ckpt", "M1.safetensors", "m.vae.ckpt", "n.vae.safetensors", "readme.txt", "d/a.ckpt"):
        written(tmp_path / name)
    single = written(tmp_path.with_name(tmp_path.name + "_other") / "z.ckpt")
    names = [each.name for each in list_checkpoints([tmp_path], single)]
    assert names == ["z.ckpt", "M1.safetensors", "m2.ckpt", "m10.ckpt", str(Path("d") / "a.ckpt")]


def test_finding(tmp_path: Path) -> None:  # FILE-7, FILE-8
    files = [
        CheckpointFile(tmp_path / name, name, sha * 16)
        for name, sha in (("dream-long.ckpt", "aaaa"), ("dream.ckpt", "bbbb"), ("Other.ckpt", "cccc"))
    ]
    assert find_exact(files, "dream") == files[1]
    assert find_exact(files, "drea") is None
    assert find_closest(files, "drea") == files[1]
    assert find_closest(files, "dream-l") == files[0]
    assert find_closest(files, "dream-l [1234567890]") == files[0]
    assert find_closest(files, "other") is None
    assert find_closest(files, "") is None


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:  # FILE-3
    path, cache = written(tmp_path / "x.ckpt", b"one"), tmp_path / "cache" / "hashes.json"
    first = sha256_of(path, cache)
    assert first == hashlib.sha256(b"one").hexdigest()
    cache.write_text(cache.read_text().replace(first, "f" * 64))
    assert sha256_of(path, cache) == "f" * 64
    path.write_bytes(b"two!")
    assert sha256_of(path, cache) == hashlib.sha256(b"two!").hexdigest()


@pytest.mark.parametrize("content", ["", "nonsense", "[1]", '{"a": 5}'])
def test_damaged_cache_does_no_harm(content: str, tmp_path: Path) -> None:
    path, cache = written(tmp_path / "x.ckpt", b"one"), tmp_path / "hashes.json"
    cache.write_text(content)
    assert sha256_of(path, cache) == hashlib.sha256(b"one").hexdigest()


def test_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path / "x.ckpt", b"one")
    in_the_way = written(tmp_path / "file")
    assert sha256_of(path, in_the_way / "hashes.json") == hashlib.sha256(b"one").hexdigest()


def test_network_hash_leaves_out_the_header(tmp_path: Path) -> None:  # FILE-10
    values = {"a": np.arange(4, dtype=np.float32)}
    for name, metadata in (("one", {"x": "1"}), ("two", {"x": "22"})):
        write_safetensors(tmp_path / f"{name}.safetensors", values, metadata)
    wanted = hashlib.sha256(values["a"].tobytes()).hexdigest()[:12]
    assert network_hash(tmp_path / "one.safetensors") == network_hash(tmp_path / "two.safetensors") == wanted
    write_safetensors(tmp_path / "said.safetensors", values, {"sshs_model_hash": "0123456789abcdef"})
    assert network_hash(tmp_path / "said.safetensors") == "0123456789ab"
    assert network_hash(written(tmp_path / "x.pt", b"one")) == hashlib.sha256(b"one").hexdigest()[:12]
