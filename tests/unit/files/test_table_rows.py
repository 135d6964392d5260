"""Manifests as spreadsheets save them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from overpaint.errors import PictureError
from overpaint.files.batch import Batch, RowFailed, run_batch
from overpaint.files.rows import BatchRow, UnreadableRow, read_rows
from tests.unit.fake_painter import FakePainter
from tests.unit.files.test_batch import contents, fill, kinds, manifest


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[BatchRow | UnreadableRow]:
    return read_rows(path, path.parent / "out")


def test_a_line_is_the_row_that_json_would_say(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "m.png")
    given = {"picture": "a.png", "mask": "m.png", "prompt": "7", "strength": 0.5, "only_masked": True, "output": "x/y"}
    lines = ["picture,mask,prompt,strength,only_masked,output", "a.png,m.png,7,0.5,TRUE,x/y"]
    [of_table] = rows_of(table(tmp_path / "rows.csv", *lines))
    [of_json] = rows_of(manifest(tmp_path / "rows.jsonl", "", given))
    assert of_table == of_json


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_a_spreadsheet_writes(tmp_path: Path, separator: str) -> None:
    """Quotes, commas and line breaks in a text, empty cells, a mark in front, lines that end as on Windows."""
    prompt = 'a "red" door,\nwide; open'
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["prompt", "seed", "loras", "sampler"])
        writer.writerow([prompt, 9, '["ink:0.5"]', ""])
        writer.writerow(["", "", "", ""])
        writer.writerow(["moon", "", "", "Euler"])
    door, moon = rows_of(tmp_path / "rows.csv")
    assert isinstance(door, BatchRow) and isinstance(moon, BatchRow)
    assert door.fields == {"prompt": prompt, "seed": 9, "loras": [{"name": "ink", "weight": 0.5}]}
    assert moon.fields == {"prompt": "moon", "sampler": "Euler"}
    assert moon.number == 5, "the line as an editor counts it"


def test_a_torn_line_fails_alone(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    source = table(tmp_path / "rows.csv", "picture,prompt", "a.png,sun", "a.png", "a.png,moon,7", "a.png,rain")
    events = list(run_batch(rows_of(source), Batch(out=tmp_path / "out"), FakePainter))
    assert kinds(events) == ["RowPainted", "RowFailed", "RowFailed", "RowPainted"]
    assert sorted(contents(tmp_path / "out")) == ["a-1.png", "a.png"]
    torn = rows_of(source)[1]
    assert isinstance(torn, UnreadableRow) and "1 cells, and the first line names 2" in torn.problem


def test_a_misspelt_column_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    source = table(tmp_path / "rows.csv", "picture,strenght", "a.png,0.5")
    events = run_batch(rows_of(source), Batch(out=tmp_path / "out"), FakePainter)
    [failed] = [each for each in events if isinstance(each, RowFailed)]
    assert "did you mean 'strength'" in str(failed.error)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "name the fields"),
        (b"picture,,prompt\na,b,c\n", "name the fields"),
        (b"picture,picture\na,b\n", "each once"),
        (b"picture,prompt\na.png,\xff\xfe\n", "UTF-8"),
        (b'picture,prompt\na.png,"torn', "line 2 is no CSV"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "rows.csv").write_bytes(data)
    with pytest.raises(PictureError, match=problem):
        rows_of(tmp_path / "rows.csv")
