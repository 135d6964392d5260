"""One answer to what a file is, whoever asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from overpaint.models.built_in import default_path
from overpaint.models.checkpoint import recognise
from overpaint.models.files import write_safetensors
from overpaint.models.what_is import UntoldError, sees_pictures, spec_of, what_is


def test_the_header_tells_what_opening_the_file_tells() -> None:
    path = default_path()
    assert spec_of(path, header_only=True) == spec_of(path) == recognise(path)


def test_what_takes_torch_is_refused_where_only_headers_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.ckpt").write_bytes(b"PK")
    for path, texts in ((tmp_path / "old.ckpt", ()), (tmp_path, ()), (default_path(), ("clip.safetensors",))):
        with pytest.raises(UntoldError, match="its header alone does not tell"):
            spec_of(path, texts, header_only=True)


def test_every_kind_is_told_apart(tmp_path: Path) -> None:
    one = np.zeros((1, 768), dtype=np.float32)
    write_safetensors(tmp_path / "word.safetensors", {"emb_params": one}, {})
    write_safetensors(tmp_path / "style.safetensors", {"lora_unet_a.lora_down.weight": one}, {})
    write_safetensors(tmp_path / "other.safetensors", {"something": one}, {})
    assert what_is(tmp_path / "word.safetensors")["kind"] == "embedding"
    assert what_is(tmp_path / "style.safetensors")["kind"] == "lora"
    other = what_is(tmp_path / "other.safetensors")
    assert other["kind"] == "model"
    assert "missing" in other["problems"][0]
    assert what_is(default_path())["family"] == spec_of(default_path()).title


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        ("flux1-kontext-dev-Q4_K_S.gguf", True),
        ("qwen-image-edit-2511-Q4_K_S.gguf", True),
        ("flux1-dev-Q4_K_S.gguf", False),
        ("sd_xl_base_1.0.ckpt", False),  # "base" also tells one klein from another, but not that it is one
    ],
)
def test_of_a_file_whose_header_tells_nothing_the_name_says_whether_it_sees(
    tmp_path: Path, name: str, sees: bool
) -> None:
    (tmp_path / name).write_bytes(b"a file that nobody opens here")
    assert sees_pictures(tmp_path / name) is sees
