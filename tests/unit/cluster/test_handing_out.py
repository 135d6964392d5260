"""Who gets which rows, and what becomes of them when painters die: told by a pool that does what the test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from overpaint.cluster.handing_out import MOST_DEATHS, MOST_LOSSES, HandingOut, Patience
from overpaint.cluster.port import (
    GroupsDone,
    PainterGone,
    PainterReady,
    PainterUnfit,
    PoolNews,
    RowGroup,
    RowTold,
    SignOfLife,
)
from overpaint.cluster.queue import GroupQueue
from overpaint.errors import OverpaintError, SaveError
from overpaint.events import Control, Stop
from overpaint.files.batch import BatchEvent, BatchStopped, RowFailed, RowPainted, RowSkipped
from overpaint.files.rows import BatchRow, UnreadableRow


def row(number: int, output: str | None = None, **fields: Any) -> BatchRow:
    name = output or f"p{number}"
    return BatchRow(number=number, name=name, output=PurePosixPath(name), files={"picture": Path(name)}, fields=fields)


def rows(count: int) -> list[BatchRow]:
    return [row(number) for number in range(1, count + 1)]


Fate = Callable[[int], str]  # of a row's nth try: "" is painted, else what happens


class ScriptedPool:
    """Painters that paint one call at a time, as the row's fates say. Each look lasts `seconds` of the test's clock."""

    def __init__(self, painters: int, fate: Callable[[BatchRow, int], str] = lambda row, tries: "") -> None:
        self._names = (f"painter {number}" for number in count(1))
        self._fate, self.now, self.seconds = fate, 0.0, 0.1
        self.tries: dict[int, int] = {}
        self.painted: set[int] = set()
        self.given: list[tuple[str, list[int], bool]] = []
        self._calls: dict[str, list[Sequence[RowGroup]]] = {}
        self._waiting: list[PoolNews] = []
        self.stopped = False
        for _ in range(painters):
            self.replace("")

    def give(self, painter: str, groups: Sequence[RowGroup], *, again: bool) -> None:
        self.given.append((painter, [each.number for group in groups for each in group.rows], again))
        self._calls.setdefault(painter, []).append(groups)

    def replace(self, painter: str) -> None:
        self._waiting.append(PainterReady(next(self._names), "here"))

    def stop(self) -> None:
        self.stopped = True

    def news(self, seconds: float) -> list[PoolNews]:
        self.now += self.seconds
        found, self._waiting = self._waiting, []
        for name in list(self._calls):
            if self._calls[name]:
                found.append(self._paint(name, self._calls[name].pop(0)))
        return found

    def _paint(self, name: str, groups: Sequence[RowGroup]) -> PoolNews:
        told: list[RowTold] = []
        for each in (each for group in groups for each in group.rows):
            if self.stopped:
                return GroupsDone(name, tuple(told), 0.1, is_stopped=True)
            self.tries[each.number] = self.tries.get(each.number, 0) + 1
            fate = self._fate(each, self.tries[each.number])
            if fate in ("dies", "is lost"):
                del self._calls[name]
                return PainterGone(name, "signal 9", is_machine=fate == "is lost")
            state = "skipped" if each.number in self.painted else fate or "painted"
            self.painted.add(each.number)
            told.append(RowTold(each.number, state, (f"{each.output}.png",), (7,), problem=fate))
        return GroupsDone(name, tuple(told), 0.001 * len(groups))


def handed_out(
    given: Sequence[BatchRow | UnreadableRow], pool: ScriptedPool, control: Control | None = None, **options: Any
) -> list[BatchEvent]:
    handing = HandingOut(given, pool, clock=lambda: pool.now, **options)
    return list(handing.events(control or Control()))


def numbers(events: Sequence[BatchEvent], kind: type[Any]) -> list[int]:
    return sorted(each.row.number for each in events if isinstance(each, kind))


@pytest.mark.parametrize("painters", [1, 3])
def test_each_row_is_painted_and_told_once(painters: int) -> None:
    pool = ScriptedPool(painters)
    torn = UnreadableRow(0, "line 0", "it is torn")
    events = handed_out([torn, *rows(500)], pool)
    assert numbers(events, RowPainted) == list(range(1, 501))
    assert [str(each.error) for each in events if isinstance(each, RowFailed)] == ["it is torn"]
    assert set(pool.tries.values()) == {1}
    assert {name for name, _, _ in pool.given} == {f"painter {number + 1}" for number in range(painters)}
    assert len(pool.given) < 100, "quick rows are given many at once"
    assert not any(again for _, _, again in pool.given)


def test_what_a_painter_says_of_a_row_is_what_is_told() -> None:
    pool = ScriptedPool(1, lambda row, tries: "failed" if row.number == 2 else "")
    pool.painted = {3}
    painted, failed, skipped = handed_out(rows(3), pool)
    assert isinstance(painted, RowPainted) and (painted.files, painted.seeds) == (("p1.png",), (7,))
    assert isinstance(failed, RowFailed) and str(failed.error) == "failed"
    assert isinstance(skipped, RowSkipped) and skipped.files == ("p3.png",)


def test_a_row_that_kills_its_painter_twice_is_set_aside_and_the_others_are_painted() -> None:
    pool = ScriptedPool(2, lambda row, tries: "dies" if row.number == 30 else "")
    events = handed_out(rows(60), pool)
    assert numbers(events, RowFailed) == [30]
    others = numbers(events, RowPainted) + numbers(events, RowSkipped)
    assert sorted(others) == [each for each in range(1, 61) if each != 30]
    assert pool.tries[30] <= MOST_DEATHS + 1, "once in company, where nobody can be blamed, then alone"
    [told] = [str(each.error) for each in events if isinstance(each, RowFailed)]
    assert f"died {MOST_DEATHS} times (signal 9)" in told


def test_a_lost_machine_is_not_held_against_a_row_as_soon() -> None:
    pool = ScriptedPool(1, lambda row, tries: "is lost" if tries < MOST_LOSSES else "")
    assert numbers(handed_out(rows(1), pool), RowPainted) == [1]
    pool = ScriptedPool(1, lambda row, tries: "is lost")
    assert numbers(handed_out(rows(1), pool), RowFailed) == [1]
    assert pool.tries == {1: MOST_LOSSES}


def test_what_may_have_been_begun_is_given_again_with_a_word_of_it() -> None:
    pool = ScriptedPool(1, lambda row, tries: "dies" if (row.number, tries) == (1, 1) else "")
    assert numbers(handed_out(rows(1), pool), RowPainted) == [1]
    assert [again for _, _, again in pool.given] == [False, True]


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.dictionaries(st.tuples(st.integers(1, 40), st.integers(1, 3)), st.sampled_from(["dies", "is lost", "failed"])),
)
def test_every_row_is_told_once_whatever_dies(size: int, painters: int, fates: dict[tuple[int, int], str]) -> None:
    pool = ScriptedPool(painters, lambda row, tries: fates.get((row.number, tries), ""))
    events = handed_out(rows(size), pool)
    told = numbers(events, RowPainted) + numbers(events, RowSkipped) + numbers(events, RowFailed)
    assert sorted(told) == list(range(1, size + 1))


def test_a_stop_ends_after_what_is_painted_now() -> None:
    control = Control()

    def fate(row: BatchRow, tries: int) -> str:
        if row.number == 3:
            control.ask(Stop.CANCEL)
        return ""

    pool = ScriptedPool(1, fate)
    events = handed_out(rows(300), pool, control)
    assert isinstance(events[-1], BatchStopped) and pool.stopped
    assert 3 <= len(numbers(events, RowPainted)) < 300
    assert numbers(events, RowPainted) == sorted(pool.painted)


def test_a_painter_that_fits_nowhere_ends_the_batch() -> None:
    pool = ScriptedPool(0)
    pool._waiting = [PainterUnfit("painter 1", "n1 has overpaint 0.2; install the same everywhere")]
    with pytest.raises(OverpaintError, match=r"n1 has overpaint 0\.2"):
        handed_out(rows(1), pool)


def test_painters_that_die_before_they_are_ready_end_the_batch() -> None:
    class Stillborn(ScriptedPool):
        def replace(self, painter: str) -> None:
            self._waiting.append(PainterGone("painter", "no such module"))

    with pytest.raises(OverpaintError, match=r"die before they are ready.*no such module"):
        handed_out(rows(1), Stillborn(1))


def test_a_full_disk_ends_the_batch() -> None:
    class Full(ScriptedPool):
        def _paint(self, name: str, groups: Sequence[RowGroup]) -> PoolNews:
            return GroupsDone(name, (), 0.1, is_full="out: no space left")

    with pytest.raises(SaveError, match="no space left"):
        handed_out(rows(1), Full(1))


def test_no_painter_comes() -> None:
    with pytest.raises(OverpaintError, match=r"0 of 2 painters are ready after 300 s.*no room"):
        handed_out(rows(1), ScriptedPool(0), least=2)


def test_work_begins_with_the_least_number_of_painters() -> None:
    pool = ScriptedPool(1)
    with pytest.raises(OverpaintError, match="1 of 2"):
        handed_out(rows(1), pool, least=2)
    assert not pool.given


class Mute(ScriptedPool):
    """Takes rows and says nothing more; signs of life as often as it is told."""

    def __init__(self, signs: int) -> None:
        super().__init__(1)
        self._left, self.seconds = signs, 10.0

    def _paint(self, name: str, groups: Sequence[RowGroup]) -> PoolNews:
        self._calls[name].insert(0, groups)
        self._left -= 1
        return SignOfLife(name)

    def news(self, seconds: float) -> list[PoolNews]:
        if self._left or self._waiting:
            return super().news(seconds)
        self.now += self.seconds
        return []


@pytest.mark.parametrize("signs", [0, 50])
def test_silence_ends_the_batch_but_slow_work_does_not(signs: int) -> None:
    pool = Mute(signs)
    with pytest.raises(OverpaintError, match=r"nothing was heard of the painters for 100 s.*goes on"):
        handed_out(rows(1), pool, patience=Patience(silence=100.0))
    assert pool.now > 10.0 * signs + 100


class TestQueue:
    def queue(self, **counts: int) -> GroupQueue:
        number = count(1)
        names = (name for name, several in counts.items() for _ in range(several))
        return GroupQueue(RowGroup([row(next(number), checkpoint=name)]) for name in names)

    def test_rows_of_one_checkpoint_come_one_after_another(self) -> None:
        queue, loaded, seen = self.queue(a=3, b=5), None, ""
        while queue:
            [group] = queue.next(loaded, [], 1)
            loaded = group.checkpoint
            seen += loaded
        assert seen == "bbbbbaaa"

    def test_what_nobody_else_has_loaded_comes_first(self) -> None:
        queue = self.queue(a=9, b=1)
        assert [each.checkpoint for each in queue.next(None, ["a"], 5)] == ["b"]
        assert [each.checkpoint for each in queue.next(None, ["a"], 5)] == ["a"] * 5

    def test_what_comes_back_is_next_and_alone_if_it_has_to_be(self) -> None:
        queue = self.queue(a=4)
        one, two = queue.next("a", [], 2)
        one.is_alone = two.is_alone = True
        queue.back([one, two])
        assert len(queue) == 4
        assert queue.next("a", [], 9) == [one] and queue.next("a", [], 9) == [two]
        assert len(queue.next("a", [], 9)) == 2 and not queue
        assert queue.next("a", [], 9) == []


def test_rows_that_may_want_one_name_go_together() -> None:
    pool = ScriptedPool(1)
    handed_out([row(1, "a"), row(2, "b"), row(3, "a"), row(4, "a-1")], pool)
    flat = [number for _, handed, _ in pool.given for number in handed]
    assert flat.index(1) + 1 == flat.index(3) and flat.index(3) + 1 == flat.index(4)
