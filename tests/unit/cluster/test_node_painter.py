"""Painters of one batch, each with a journal of its own: together they make what the plain batch makes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from overpaint.cluster.handing_out import HandingOut
from overpaint.cluster.node_painter import NodePainter, head_and_tail
from overpaint.cluster.port import BatchOrder, PainterGone, PainterReady, PoolNews, RowGroup
from overpaint.cluster.ray_batch import wait_for_workers
from overpaint.errors import RequestError, SaveError
from overpaint.events import Control
from overpaint.files import saving
from overpaint.files.batch import Batch, BatchEvent, begun, run_batch
from overpaint.files.journal import JOURNAL_NAME, Journal, journals_in, workers_writing
from overpaint.files.ledgers import ledger_of
from overpaint.files.rows import read_rows
from overpaint.files.shards import Shard
from overpaint.version import __version__
from tests.unit.fake_painter import FakePainter
from tests.unit.files.test_batch import contents, fill, kinds, manifest

NAMES = [f"p{number}.png" for number in range(12)]


@pytest.fixture(autouse=True)
def same_folder_afterwards() -> Iterator[None]:
    """A painter works where the batch was started."""
    before = Path.cwd()
    yield
    os.chdir(before)


@contextmanager
def opened(painter: FakePainter) -> Iterator[FakePainter]:
    yield painter


def order_of(batch: Batch, painter: FakePainter | None = None) -> BatchOrder:
    return BatchOrder(batch, partial(opened, painter or FakePainter()), Path.cwd())


def started(batch: Batch, name: str = "painter", painter: FakePainter | None = None) -> NodePainter:
    made = NodePainter(name)
    assert made.start(order_of(batch, painter), __version__) == ""
    return made


class Killed(BaseException):
    pass


class RoomOfPainters:
    """A pool whose painters are objects here: they die, at random steps of their work, as processes do."""

    def __init__(self, batch: Batch, painters: int, deaths: random.Random | None = None) -> None:
        self._batch, self._deaths = batch, deaths
        self._names = (f"painter {number}" for number in count(1))
        self._painters: dict[str, NodePainter] = {}
        self._calls: list[tuple[str, Sequence[RowGroup], bool]] = []
        self._waiting: list[PoolNews] = []
        self.engine = FakePainter(self._step)
        self.died = 0
        for _ in range(painters):
            self.replace("")

    def _step(self, step: int) -> None:
        if self._deaths is not None and self.died < 20 and self._deaths.random() < 0.08:
            raise Killed

    def give(self, painter: str, groups: Sequence[RowGroup], *, again: bool) -> None:
        self._calls.append((painter, groups, again))

    def replace(self, painter: str) -> None:
        name = next(self._names)
        self._painters[name] = started(self._batch, name, self.engine)
        self._waiting.append(PainterReady(name, "here"))

    def stop(self) -> None:
        for each in self._painters.values():
            each.stop()

    def news(self, seconds: float) -> list[PoolNews]:
        found, self._waiting = self._waiting, []
        calls, self._calls = self._calls, []
        for name, groups, again in calls:
            if name in self._painters:
                found.append(self._paint(name, groups, again))
        return found

    def _paint(self, name: str, groups: Sequence[RowGroup], again: bool) -> PoolNews:
        try:
            return self._painters[name].paint([list(each.rows) for each in groups], again)
        except Killed:
            self.died += 1
            self._painters.pop(name).close()
            # What a painter died of says nothing of the row: any might be hit.
            return PainterGone(name, "killed", is_machine=True)

    def close(self) -> None:
        for each in self._painters.values():
            each.close()


def hand_out(
    source: Path, batch: Batch, painters: int = 3, deaths: random.Random | None = None
) -> tuple[list[BatchEvent], RoomOfPainters]:
    """What `RayBatch` does, without Ray."""
    with ledger_of(batch.out) as journal:
        pool = RoomOfPainters(begun(batch, journal), painters, deaths)
        try:
            events = list(HandingOut(read_rows(source, batch.out), pool).events(Control()))
        finally:
            pool.close()
            journal.take_in_workers(remember=False)
    return events, pool


def paint_plainly(source: Path, batch: Batch, painter: FakePainter | None = None) -> list[BatchEvent]:
    return list(run_batch(read_rows(source, batch.out), batch, lambda: painter or FakePainter()))


@pytest.mark.parametrize("seed", range(6))
def test_painters_make_what_the_plain_batch_makes_whatever_dies(tmp_path: Path, seed: int) -> None:
    """Names, bytes and journal; and nothing of it is painted again, here or there."""
    fill(tmp_path, *NAMES)
    rows: list[object] = [{"picture": name, "output": f"x{number % 5}"} for number, name in enumerate(NAMES)]
    rows += [{"prompt": "moon", "output": "m", "width": 32, "height": 24, "iterations": 2}, {"picture": "gone.png"}]
    source = manifest(tmp_path / "rows.jsonl", *rows, "{torn")
    whole, batch = (Batch(out=tmp_path / name, fields={"seed": 3}) for name in ("whole", "out"))
    plain = paint_plainly(source, whole)
    events, pool = hand_out(source, batch, 3, random.Random(seed) if seed else None)
    # What a painter finished before it died is found, and not painted again.
    assert sorted(each.replace("Skipped", "Painted") for each in kinds(events)) == sorted(kinds(plain))
    assert pool.died == 0 if not seed else pool.died > 0
    assert contents(batch.out) == contents(whole.out)
    assert [each.name for each in journals_in(tmp_path / "out")] == [JOURNAL_NAME]
    for again in (paint_plainly, hand_out):
        painter = FakePainter()
        told = again(source, batch, painter) if again is paint_plainly else hand_out(source, batch)[0]
        assert kinds(told).count("RowSkipped") == len(NAMES) + 1 and "RowPainted" not in kinds(told)
        assert not painter.requests


def test_the_seed_is_chosen_once_for_all_painters(tmp_path: Path) -> None:
    fill(tmp_path / "in", *NAMES)
    batch = Batch(out=tmp_path / "out")
    _, pool = hand_out(tmp_path / "in", batch)
    fill(tmp_path / "in", "late.png")
    _, later = hand_out(tmp_path / "in", batch)
    assert len(pool.engine.requests) == len(NAMES) and len(later.engine.requests) == 1
    seeds = {each.seed for each in (*pool.engine.requests, *later.engine.requests)}
    assert len(seeds) == 1 and seeds != {-1}


def test_an_engine_is_opened_for_the_first_row_that_needs_one(tmp_path: Path) -> None:
    fill(tmp_path / "in", "a.png")
    batch = Batch(out=tmp_path / "out", fields={"seed": 1})
    paint_plainly(tmp_path / "in", batch)

    def none() -> FakePainter:
        raise AssertionError("a model was loaded for nothing")

    made = NodePainter("painter")
    with ledger_of(batch.out):
        assert made.start(BatchOrder(batch, none, Path.cwd()), __version__) == ""
        done = made.paint([read_rows(tmp_path / "in", batch.out)], False)  # type: ignore[list-item]
        made.close()
    assert [each.state for each in done.rows] == ["skipped"]


class TestWhatCannotStart:
    def test_another_version(self, tmp_path: Path) -> None:
        told = NodePainter("n1").start(order_of(Batch(out=tmp_path)), "0.0.1")
        assert told == f"n1 has overpaint {__version__}, and this is 0.0.1; install the same everywhere"

    def test_no_such_folder_there(self, tmp_path: Path) -> None:
        order = replace(order_of(Batch(out=tmp_path)), folder=tmp_path / "gone")
        assert "all machines share it" in NodePainter("n1").start(order, __version__)

    def test_another_model(self, tmp_path: Path) -> None:
        model = tmp_path / "m.safetensors"
        model.write_bytes(b"x" * 3_000_000)
        known = (str(model), 3_000_000, head_and_tail(model))
        order = replace(order_of(Batch(out=tmp_path / "out")), models=(known,))
        made = NodePainter("n1")
        assert made.start(order, __version__) == ""
        made.close()
        model.write_bytes(b"x" * 2_999_999 + b"y")
        assert "another model than where" in NodePainter("n1").start(order, __version__)
        model.unlink()
        assert "the model is not there" in NodePainter("n1").start(order, __version__)

    def test_while_parts_of_the_batch_are_painted(self, tmp_path: Path) -> None:
        with Journal(tmp_path, Shard(0, 2)):
            assert "another batch" in NodePainter("n1").start(order_of(Batch(out=tmp_path)), __version__)


def test_a_full_disk_is_told_and_ends_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", "a.png")

    def full(*args: object, **options: object) -> None:
        raise SaveError("a.png: the disk is full")

    monkeypatch.setattr("overpaint.files.places.save_first_free", full)
    with pytest.raises(SaveError, match="the disk is full"):
        hand_out(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 1}))
    monkeypatch.setattr("overpaint.files.places.save_first_free", saving.save_first_free)
    events, _ = hand_out(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 1}))
    assert kinds(events) == ["RowPainted"]


class TestJournalsOfWorkers:
    @pytest.mark.parametrize("shard", [None, "0/2"])
    def test_nobody_else_writes_while_they_do(self, tmp_path: Path, shard: str | None) -> None:
        with Journal(tmp_path, worker="ab"):
            assert workers_writing(tmp_path)
            with pytest.raises(RequestError, match="another batch"):
                Journal(tmp_path, None if shard is None else Shard.parse(shard)).__enter__()
        assert not workers_writing(tmp_path)
        wait_for_workers(tmp_path, 0.0)

    def test_they_go_with_each_other_and_with_who_hands_out(self, tmp_path: Path) -> None:
        with Journal(tmp_path), Journal(tmp_path, worker="ab"), Journal(tmp_path, worker="cd"):
            assert len(journals_in(tmp_path)) == 3

    def test_what_the_newest_says_holds(self, tmp_path: Path) -> None:
        """A row that was stopped half done, and finished by a worker whose batch was killed."""
        for name in ("a-1.png", "a-2.png"):
            (tmp_path / name).write_bytes(b"")
        with Journal(tmp_path) as journal:
            journal.promise("row", "a", {"a-1.png": "x"}, part=True)
        with Journal(tmp_path, worker="ab") as journal:
            assert not journal.whole("row")
            journal.promise("row", "a", {"a-1.png": "x", "a-2.png": "y"})
            journal.done("row")
        with (tmp_path / "overpaint-batch-worker-ab.jsonl").open("ab") as file:
            file.write(b'{"row": "torn')
        for _ in range(2):
            with Journal(tmp_path) as journal:
                assert journal.whole("row")
            assert [each.name for each in journals_in(tmp_path)] == [JOURNAL_NAME]

    def test_those_that_are_written_stay(self, tmp_path: Path) -> None:
        with Journal(tmp_path) as journal, Journal(tmp_path, worker="ab") as worker:
            worker.promise("row", "a", {"a.png": "x"})
            journal.take_in_workers()
            assert len(journals_in(tmp_path)) == 2
            journal.read_others()
            assert journal.owner("a.png") == "row"
            journal.forget_rows()
            assert journal.owner("a.png") is None
