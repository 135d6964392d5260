"""Embedding files of every kind, and files that are none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from torch import Tensor

from overpaint.adapters.embedding_files import (
    ALONE,
    CLIP_G,
    CLIP_L,
    EmbeddingData,
    bundled_embeddings,
    embedding_files,
    read_embedding,
)
from overpaint.errors import CheckpointError

TWO = torch.arange(16, dtype=torch.float32).reshape(2, 8) / 4


def read(path: Path) -> EmbeddingData:
    data = read_embedding(path)
    assert data is not None
    return data


def save_picture(path: Path, text: str | None) -> Path:
    info = PngInfo()
    if text is not None:
        info.add_text("sd-ti-embedding", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def as_text(tree: object) -> str:
    return base64.b64encode(json.dumps(tree).encode()).decode()


def with_tensor(vectors: Tensor, name: object = "toy") -> dict[str, Any]:
    return {"string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}}, "name": name, "step": 3}


# ---- Kinds of files (TIF-1, TIF-2) ----


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
@pytest.mark.parametrize(
    "tree",
    [
        {"string_to_param": {"*": TWO}, "string_to_token": {"*": 265}, "name": "another", "step": 7},
        {"string_to_param": {"*": torch.nn.Parameter(TWO)}, "name": None},
        {"<toy>": TWO},
        {"<toy>": TWO.half(), "step": 3},
        TWO,
    ],
)
def test_pickled_files(tmp_path: Path, tree: object, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"toy{suffix}"
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    data = read(path)
    assert data.name == "toy"  # the name inside does not count
    assert data.width == 8
    assert data.blocks[ALONE].dtype is torch.float32
    torch.testing.assert_close(data.blocks[ALONE], TWO)


def test_one_vector_may_lack_its_axis(tmp_path: Path) -> None:
    path = tmp_path / "toy.bin"
    torch.save({"<toy>": TWO[0]}, path)
    torch.testing.assert_close(read(path).blocks[ALONE], TWO[:1])


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "Toy.SafeTensors"
    save_file({"emb_params": TWO.bfloat16()}, path)
    torch.testing.assert_close(read(path).blocks[ALONE], TWO)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_pairs_of_sdxl(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"toy{suffix}"
    tensors = {"clip_g": torch.ones(2, 12), "clip_l": TWO}
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    data = read(path)
    assert data.width == 20
    assert data.blocks[CLIP_G].shape == (2, 12)
    torch.testing.assert_close(data.blocks[CLIP_L], TWO)


def test_pictures_name_their_embedding(tmp_path: Path) -> None:
    data = read(save_picture(tmp_path / "some file.png", as_text(with_tensor(TWO))))
    assert data.name == "toy"
    torch.testing.assert_close(data.blocks[ALONE], TWO)
    unnamed = read(save_picture(tmp_path / "some file.png", as_text(with_tensor(TWO, None))))
    assert unnamed.name == "some file"


def test_a_picture_without_data_is_just_a_picture(tmp_path: Path) -> None:
    assert read_embedding(save_picture(tmp_path / "toy.png", None)) is None


def test_which_files_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    wanted = ["a.pt", "b10.BIN", "b9.png", "below/c.safetensors"]
    for name in [*wanted, "a.txt", "a.preview.png", "notes.md", "b.ckpt"]:
        (tmp_path / name).touch()
    assert [str(each.relative_to(tmp_path)) for each in embedding_files(tmp_path)] == [
        "a.pt",
        "b9.png",
        "b10.BIN",
        "below/c.safetensors",
    ]


def test_recorded_files(parity: Path) -> None:
    folder = parity / "extra" / "files" / "embeddings"
    found = {data.name: data for path in embedding_files(folder) if (data := read_embedding(path)) is not None}
    widths = {name: data.width for name, data in found.items()}
    assert widths == {"tione": 64, "tithree": 64, "weird-toy 2": 64, "pngword": 64, "tiv": 128, "tixl": 192}
    assert found["tione"].tag == "562a32f06f48"
    assert found["pngword"].tag == "824740b6eb85"
    assert {len(each) for each in found["tixl"].blocks.values()} == {2}


# ---- Files that are no embeddings ----


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({}, "0 tensors"),
        ({"string_to_param": {}}, "0 tensors"),
        ({"string_to_param": {"*": TWO, "+": TWO}}, "2 tensors"),
        ({"a": TWO, "b": TWO}, "2 tensors"),
        ({"a": TWO[None]}, "1 x 2 x 8"),
        ({"a": torch.ones(())}, "a single number"),
        ({"a": torch.ones(76, 8)}, "76 x 8"),
        ({"a": torch.ones(0, 8)}, "0 x 8"),
        ({"a": torch.ones(2, 8, dtype=torch.int64)}, "no numbers"),
        ({"a": TWO * torch.inf}, "no numbers"),
        ({"clip_g": torch.ones(2, 12), "clip_l": torch.ones(3, 8)}, "for the other"),
        ([1, 2], "0 tensors"),
        ("text", "0 tensors"),
    ],
)
def test_reasons(tmp_path: Path, tree: object, reason: str) -> None:
    path = tmp_path / "toy.pt"
    torch.save(tree, path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_embedding(path)
    assert "toy.pt" in str(caught.value)


@pytest.mark.parametrize("name", ["toy.pt", "toy.bin", "toy.safetensors", "toy.png", "toy.jxl"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\0" * 300, b"PK\x03\x04"])
def test_broken_files(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_embedding(path)


@pytest.mark.parametrize(
    "text",
    [
        "not base64!",
        base64.b64encode(b"{").decode(),
        base64.b64encode(b"[" * 100_000).decode(),
        as_text(with_tensor(torch.zeros(0))),
        as_text({"string_to_param": {"*": {"TORCHTENSOR": [[1, 2], [3]]}}}),
        as_text({"string_to_param": {"*": {"TORCHTENSOR": {"a": 1}}}}),
        as_text({"string_to_param": {"*": {"TORCHTENSOR": [[10**400]]}}}),
        as_text({"string_to_param": {"*": {"TORCHTENSOR": [[float("nan")]]}}}),
        as_text(7),
    ],
)
def test_damaged_pictures(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=r"toy\.png"):
        read_embedding(save_picture(tmp_path / "toy.png", text))


def test_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    save_file({"emb_params": TWO}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="behind the end"):
        read_embedding(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_embedding(tmp_path / "toy.pt")


# ---- Bundles in LoRA files (LORA-9) ----


def test_bundles() -> None:
    found = bundled_embeddings(
        "fur",
        {
            "lora_unet_mid_block.alpha": torch.ones(()),
            "bundle_emb.one.string_to_param.*": TWO.half(),
            "bundle_emb.v1.5 toy.clip_g": torch.ones(2, 12),
            "bundle_emb.v1.5 toy.clip_l": TWO,
            "bundle_emb.half.clip_l": TWO,
            "bundle_emb.odd.clip_l": TWO,
            "bundle_emb.odd.clip_g": torch.ones(3, 12),
            "bundle_emb.nan.string_to_param.*": TWO * torch.nan,
            "bundle_emb.deep.string_to_param.*": TWO[None],
        },
    )
    assert [(each.name, each.tag, each.bundled, each.width) for each in found] == [
        ("one", "fur", True, 8),
        ("v1.5 toy", "fur", True, 20),
    ]
    torch.testing.assert_close(found[0].blocks[ALONE], TWO)


def test_bundles_are_told_apart_by_what_they_hold() -> None:
    first, same, other = (
        bundled_embeddings("fur", {"bundle_emb.one.string_to_param.*": each})[0] for each in (TWO, TWO.clone(), TWO + 1)
    )
    assert first == same
    assert first != other
