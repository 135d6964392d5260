"""A batch that is only looked at: it says what would be done, and does none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overpaint.cli import main
from overpaint.files.batch import Batch, BatchEvent, RowFailed, RowPainted, RowPlanned, RowSkipped, look_at_batch
from overpaint.files.rows import read_rows
from tests.unit.fake_painter import drawing
from tests.unit.files.test_batch import contents, fill, manifest, paint_all


def look(source: Path, batch: Batch) -> list[BatchEvent]:
    return list(look_at_batch(read_rows(source, batch.out), batch))


def files(events: list[BatchEvent]) -> list[tuple[str, ...]]:
    return [each.files for each in events if isinstance(each, RowPlanned | RowPainted | RowSkipped)]


def test_it_names_the_files_that_the_batch_writes(tmp_path: Path) -> None:
    """Taken names, equal rows and several pictures a row included; and nothing is there afterwards."""
    fill(tmp_path, "a.png", "b.png")
    rows = [{"picture": "a.png"}, {"picture": "a.png"}, {"picture": "b.png", "iterations": 2}, {"picture": "gone.png"}]
    source = manifest(tmp_path / "rows.jsonl", *rows, "{torn")
    batch = Batch(out=tmp_path / "out")
    planned = look(source, batch)
    assert not batch.out.exists()
    fill(tmp_path / "out", "a-1.png")
    planned = look(source, batch)
    assert list(contents(batch.out)) == ["a-1.png"]
    assert files(planned) == [("a.png",), ("a-2.png",), ("b-1.png", "b-2.png")]
    assert [each.row.number for each in planned if isinstance(each, RowFailed)] == [4, 5]
    assert files(paint_all(source, batch)) == files(planned)


@pytest.mark.parametrize("fields", [{}, {"seed": 5}])
def test_what_is_done_is_said_to_be(tmp_path: Path, fields: dict[str, int]) -> None:
    fill(tmp_path / "in", "a.png", "b.png")
    batch = Batch(out=tmp_path / "out", fields=fields)
    paint_all(tmp_path / "in", batch)
    drawing(color=(9, 9, 9)).save(tmp_path / "in/b.png")
    done, changed = look(tmp_path / "in", batch)
    assert isinstance(done, RowSkipped) and done.files == ("a.png",)
    assert isinstance(changed, RowPlanned) and changed.files == ("b-1.png",)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "in", "a.png")
    command = ["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--dry-run"]
    assert main([*command, "--json"]) == 0
    row, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert row == {"row": "a.png", "state": "to paint", "files": ["a.png"]}
    assert last == {"state": "finished", "to paint": 1, "skipped": 0, "failed": 0}
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out == "a.png\n" and "1 to paint, 0 skipped, 0 failed" in said.err
    assert not (tmp_path / "out").exists()
