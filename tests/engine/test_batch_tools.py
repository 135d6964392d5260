"""Rows of a manifest that ask for a tool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from overpaint.engine import Engine
from overpaint.files.batch import Batch, BatchEvent, RowFailed, RowPainted, RowSkipped, run_batch
from overpaint.files.rows import read_rows
from overpaint.settings import Settings
from tests.engine.conftest import scene

FAST = {"steps": 1, "sampler": "Euler", "seed": 3}


def painted(engine: Engine, folder: Path, *rows: dict[str, object]) -> list[BatchEvent]:
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"picture": "cat.png", **FAST, **row}) + "\n" for row in rows)
    )
    scene().save(folder / "cat.png")
    work = Batch(out=folder / "out", settings=Settings())
    events = run_batch(read_rows(folder / "rows.jsonl", folder / "out"), work, lambda: engine)
    return [each for each in events if isinstance(each, RowPainted | RowFailed | RowSkipped)]


def test_tools_in_a_manifest(engine: Engine, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"kind": "outpaint", "left": 16, "output": "wide"},
        {"kind": "loopback", "loops": 2, "output": "loops"},
        {"kind": "grid", "x": "cfg_scale=1,7", "output": "grid"},
        {"output": "plain"},
    ]
    events = painted(engine, tmp_path, *rows)
    assert all(isinstance(each, RowPainted) for each in events), events
    files = [each.files for each in events if isinstance(each, RowPainted)]
    assert files == [
        ("wide.png",),
        ("loops-1.png", "loops-2.png"),
        ("grid-1.png", "grid-2.png", "grid-3.png"),
        ("plain.png",),
    ]
    with Image.open(tmp_path / "out/wide.png") as picture:
        assert picture.size == (48, 32)
        assert "Outpainted" in picture.info["parameters"]
    assert all(isinstance(each, RowSkipped) for each in painted(engine, tmp_path, *rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kind": "outpant"}, "did you mean 'outpaint'"),
        ({"kind": "outpaint"}, "does not grow"),
        ({"kind": "grid", "x": "stepps=1"}, "did you mean 'steps'"),
    ],
)
def test_rows_that_are_refused(engine: Engine, tmp_path: Path, row: dict[str, object], message: str) -> None:
    failed, good = painted(engine, tmp_path, row, {"kind": "outpaint", "top": 8, "output": "b"})
    assert isinstance(failed, RowFailed)
    assert message in str(failed.error)
    assert isinstance(good, RowPainted)
