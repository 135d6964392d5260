"""Manifests as data pipelines write them; skips where pyarrow is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from overpaint.cli import main
from overpaint.errors import PictureError
from overpaint.files.rows import BatchRow, read_rows
from tests.unit.files.test_batch import fill, manifest

LINES: list[dict[str, Any]] = [
    {"picture": "a.png", "prompt": "7", "strength": 0.5, "only_masked": True, "loras": ["ink:0.5"]},
    {"picture": None, "prompt": "moon", "strength": None, "only_masked": None, "loras": None},
    {"picture": None, "prompt": None, "strength": None, "only_masked": None, "loras": None},
    {"picture": "a.png", "prompt": None, "strength": 0.25, "only_masked": False, "loras": None},
]


def test_a_line_is_the_row_that_json_would_say(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path, "a.png")
    parquet.write_table(pyarrow.Table.from_pylist(LINES), tmp_path / "rows.parquet", row_group_size=2)
    said = [{name: each for name, each in line.items() if each is not None} for line in LINES]
    source = manifest(tmp_path / "rows.jsonl", *(each or "" for each in said))
    rows = read_rows(tmp_path / "rows.parquet", tmp_path / "out")
    assert rows == read_rows(source, tmp_path / "out")
    assert [each.number for each in rows if isinstance(each, BatchRow)] == [1, 2, 4]


@pytest.mark.parametrize("data", [b"", b"PAR1 torn", b'{"picture": "a.png"}'])
def test_a_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(data)
    with pytest.raises(PictureError, match="cannot be read as Parquet"):
        read_rows(tmp_path / "rows.parquet", tmp_path / "out")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    assert main(["batch", str(tmp_path / "rows.parquet"), str(tmp_path / "out")]) == 3
    assert "pip install 'overpaint[parquet]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
