"""Rows of a manifest that ask for a tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


class Ended(BaseException):
    """As if the process were gone."""


class Ending:
    """An engine that ends in the middle of a step, and counts those that it begins."""

    def __init__(self, engine: Engine, steps: int) -> None:
        self.left, self.begun, self._engine = steps, 0, engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run_plan(self, *given: Any, **more: Any) -> Any:
        self.begun += 1
        for event in self._engine.run_plan(*given, **more):
            if self.begun > self.left:
                raise Ended
            yield event


@pytest.mark.parametrize(
    ("row", "steps"),
    [
        ({"kind": "grid", "x": "cfg_scale=1,7", "y": "strength=0.4,0.8", "output": "it"}, 4),
        ({"kind": "loopback", "loops": 3, "output": "it"}, 3),
    ],
)
@pytest.mark.parametrize("format", ["png", "jpg"])
def test_a_row_goes_on_at_the_step_it_was_ended_in(
    engine: Engine, tmp_path: Path, row: dict[str, object], steps: int, format: str
) -> None:
    scene().save(tmp_path / "cat.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"picture": "cat.png", **FAST, **row}) + "\n")

    def run(out: str, painter: Any) -> list[BatchEvent]:
        work = Batch(out=tmp_path / out, settings=Settings(), format=format)
        return list(run_batch(read_rows(tmp_path / "rows.jsonl", tmp_path / out), work, lambda: painter))

    (whole,) = (each for each in run("whole", engine) if isinstance(each, RowPainted))
    with pytest.raises(Ended):
        run("out", Ending(engine, 2))
    assert (tmp_path / "out/.overpaint-steps").is_dir()
    again = Ending(engine, 99)
    (painted_now,) = (each for each in run("out", again) if isinstance(each, RowPainted))
    assert again.begun == steps - 2
    assert painted_now == whole
    assert not (tmp_path / "out/.overpaint-steps").exists()
    files = {each.name: each.read_bytes() for each in (tmp_path / "whole").iterdir() if each.suffix != ".jsonl"}
    for name, data in files.items():
        found = (tmp_path / "out" / name).read_bytes()
        if name.endswith(".json"):
            assert json.loads(found) == json.loads(data)
        else:
            with Image.open(tmp_path / "out" / name) as one, Image.open(tmp_path / "whole" / name) as other:
                assert one.tobytes() == other.tobytes() and one.info.keys() == other.info.keys()
                assert one.info.get("parameters") == other.info.get("parameters")
        assert found == data
