"""A batch in parts: together they paint what the whole would, whoever starts them, wherever, and whenever they end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.files.batch import Batch, BatchEvent, RowFailed, RowPainted, run_batch
from overpaint.files.journal import Journal
from overpaint.files.rows import read_rows
from overpaint.files.shards import Shard
from overpaint.stores import AnyFile
from tests.unit.fake_painter import FakePainter
from tests.unit.files.test_batch import ROOT, fill, kinds, manifest

NAMES = [f"p{number}.png" for number in range(12)]


def paint(source: Path, batch: Batch, shard: str | None = None, painter: FakePainter | None = None) -> list[BatchEvent]:
    part = replace(batch, shard=None if shard is None else Shard.parse(shard))
    return list(run_batch(read_rows(source, batch.out), part, lambda: painter or FakePainter()))


def pictures(folder: AnyFile) -> dict[str, bytes]:
    assert isinstance(folder, Path)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".png"}


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "give I/N"),
        ("1", "give I/N"),
        ("-1/4", "give I/N"),
        ("1/2/3", "give I/N"),
        ("a/b", "give I/N"),
        ("0/0", "give 1 to"),
        ("0/100001", "give 1 to"),
        ("4/4", "count from 0: give 0/4 to 3/4"),
    ],
)
def test_a_shard_that_is_none(text: str, remedy: str) -> None:
    with pytest.raises(RequestError, match="--shard") as told:
        Shard.parse(text)
    assert remedy in str(told.value)


def test_each_row_is_in_one_shard_and_none_is_empty(tmp_path: Path) -> None:
    fill(tmp_path / "in", *(f"{number:03}.png" for number in range(60)))
    rows = read_rows(tmp_path / "in", tmp_path / "out")
    parts = [Shard(number, 4).rows(rows) for number in range(4)]
    assert sorted((each for part in parts for each in part), key=lambda each: each.number) == rows
    assert all(len(part) >= 5 for part in parts), [len(part) for part in parts]
    assert Shard(0, 1).rows(rows) == rows


def test_rows_that_may_want_one_name_stay_together(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "output": each} for each in ("a", "b", "a", "a-1", "A-1-2", "c-1", "c-01", "b/a")]
    source = manifest(tmp_path / "rows.jsonl", *rows)
    of = [
        next(number for number in range(997) if row in Shard(number, 997).rows(read))
        for read in [read_rows(source, tmp_path / "out")]
        for row in read
    ]
    assert of[0] == of[2] == of[3] == of[4]
    assert len(set(of)) == 5, "a, b, c-1, c-01 and b/a: nobody numbers the last three from another one's name"


@pytest.mark.parametrize("seed", [{}, {"seed": 7}])
def test_the_parts_make_what_the_whole_makes(tmp_path: Path, seed: dict[str, int]) -> None:
    """Byte for byte, names and seeds included; and the whole batch, run over it, paints nothing more."""
    source = manifest(
        tmp_path / "rows.jsonl",
        *(
            {"prompt": f"number {number}", "output": f"p{number % 7}", "batch_size": 1 + number % 2}
            for number in range(14)
        ),
    )
    parts = Batch(out=tmp_path / "parts", fields=seed)
    events = [each for number in (2, 0, 1) for each in paint(source, parts, f"{number}/3")]
    assert kinds(events).count("RowPainted") == 14
    seeds = {each.seeds[0] for each in events if isinstance(each, RowPainted)}
    assert len(seeds) == 1
    whole = Batch(out=tmp_path / "whole", fields={"seed": seeds.pop()})
    paint(source, whole)
    assert pictures(parts.out) == pictures(whole.out)
    for again in (None, "0/3", "1/2"):
        painter = FakePainter()
        assert set(kinds(paint(source, parts, again, painter))) == {"RowSkipped"}
        assert not painter.requests


def test_a_batch_that_was_begun_as_a_whole_goes_on_in_parts(tmp_path: Path) -> None:
    """With the seed that it has."""
    fill(tmp_path / "in", *NAMES[:4])
    batch = Batch(out=tmp_path / "out")
    begun = paint(tmp_path / "in", batch)
    fill(tmp_path / "in", *NAMES)
    events = [each for number in range(3) for each in paint(tmp_path / "in", batch, f"{number}/3")]
    assert kinds(events).count("RowSkipped") == 4 and kinds(events).count("RowPainted") == 8
    assert len({each.seeds for each in (*begun, *events) if isinstance(each, RowPainted)}) == 1


def test_the_same_model_with_another_date_has_the_same_seed(tmp_path: Path) -> None:
    fill(tmp_path / "in", *NAMES)
    seeds = set()
    for number, date in enumerate((1, 2)):
        batch = Batch(out=tmp_path / "out", model=f"m|10|{date}")
        told = paint(tmp_path / "in", batch, f"{number}/2")
        seeds |= {seed for each in told if isinstance(each, RowPainted) for seed in each.seeds}
    assert len(seeds) == 1


def test_what_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    source = manifest(tmp_path / "rows.jsonl", *["{torn"] * 9)
    told = [each for number in range(3) for each in paint(source, Batch(out=tmp_path / "out"), f"{number}/3")]
    assert [type(each) for each in told] == [RowFailed] * 9


class TestAtOnce:
    def test_parts_at_once_in_one_folder(self, tmp_path: Path) -> None:
        """All begin before any has written a seed, and none ends before all have begun."""
        fill(tmp_path / "in", *NAMES)
        batch, together, told = Batch(out=tmp_path / "out"), threading.Barrier(3), dict[int, list[BatchEvent]]()

        def part(number: int) -> None:
            met: list[int] = []

            def meet(step: int) -> None:
                if not met:
                    met.append(together.wait(60))

            together.wait(60)
            told[number] = paint(tmp_path / "in", batch, f"{number}/3", FakePainter(meet))

        threads = [threading.Thread(target=part, args=(number,)) for number in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
        assert sorted(told) == [0, 1, 2]
        painted = [each for part in told.values() for each in part if isinstance(each, RowPainted)]
        assert sorted(each.files[0] for each in painted) == sorted(NAMES) == sorted(pictures(batch.out))
        assert len({each.seeds for each in painted}) == 1

    def test_results_of_another_part_in_the_folder_itself_are_no_sources(self, tmp_path: Path) -> None:
        fill(tmp_path, *NAMES)
        for _ in range(2):
            for number in range(3):
                paint(tmp_path, Batch(out=tmp_path), f"{number}/3")
        assert len(pictures(tmp_path)) == 2 * len(NAMES)

    @pytest.mark.parametrize(
        ("one", "other"), [("0/2", "0/2"), ("0/2", None), (None, "0/2"), ("0/2", "0/3"), ("1/3", "0/2"), (None, None)]
    )
    def test_what_does_not_go_together(self, tmp_path: Path, one: str | None, other: str | None) -> None:
        first, second = (each and Shard.parse(each) for each in (one, other))
        with Journal(tmp_path, first or None), pytest.raises(RequestError, match="another batch"):
            Journal(tmp_path, second or None).__enter__()
        with Journal(tmp_path, second or None):
            pass  # the first one is over

    def test_what_another_part_is_writing_is_left_alone(self, tmp_path: Path) -> None:
        fill(tmp_path / "in", *NAMES)
        out = tmp_path / "out"
        out.mkdir()
        fresh, torn = (out / f".{digit * 16}.tmp" for digit in "ab")
        for each in (fresh, torn):
            each.write_bytes(b"half")
        os.utime(torn, (1.0, 1.0))
        paint(tmp_path / "in", Batch(out=out), "0/2")
        assert fresh.exists() and not torn.exists()
        paint(tmp_path / "in", Batch(out=out))
        assert not fresh.exists(), "nobody else can be writing"


def test_a_killed_part_goes_on(tmp_path: Path) -> None:
    fill(tmp_path / "in", *NAMES)
    batch = Batch(out=tmp_path / "out", fields={"seed": 3})

    class Killed(BaseException):
        pass

    def die(step: int) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        paint(tmp_path / "in", batch, "1/2", FakePainter(die))
    assert kinds(paint(tmp_path / "in", batch, "1/2")).count("RowSkipped") == 1
    paint(tmp_path / "in", batch, "0/2")
    assert sorted(pictures(batch.out)) == sorted(NAMES)


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "tests.unit.killed_batch", "never", "0", "batch", *map(str, arguments)]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_command(tmp_path: Path) -> None:
    fill(tmp_path / "in", *NAMES[:6])
    bad = command(tmp_path / "in", tmp_path / "out", "--shard", "2/2")
    assert bad.returncode == 2 and "--shard" in bad.stderr and not (tmp_path / "out").exists()
    told = command(tmp_path / "in", tmp_path / "out", "--shard", "0/2", "--prompt", "x")
    assert told.returncode == 0, told.stderr
    count = len(pictures(tmp_path / "out"))
    assert 0 < count < 6 and told.stderr.rstrip().endswith(f"{count} painted, 0 skipped, 0 failed")
