"""Where a job goes: to its checkpoint, or where it is soonest done; and nobody waits for ever for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.service.job_models import OWN_MODEL, PATIENCE, model_name, model_of
from overpaint.service.jobs import Job, Record, Uptimes
from overpaint.service.queue.policy import Place, Turn, rank, shares_model, turns

LOAD = 10.0
SECONDS = 5.0


def wanting(name: str, model: str | None = None, client: str = "ann", *, accepted: float = 0.0, **more: Any) -> Record:
    priority, kind = more.pop("priority", 0), more.pop("kind", "paint")
    job = Job(id=name, kind=kind, request={"checkpoint": model, **more}, settings={}, client=client, priority=priority)
    return Record(job=job, uptimes=Uptimes(accepted=accepted))


def having(name: str, *models: str, seconds: float = 0.0, jobs: Sequence[Record] = (), slots: int = 1) -> Place:
    running = tuple(each.job for each in jobs)
    return Place(name=name, models=frozenset(models), jobs=running, seconds=seconds, slots=slots)


def planned(waiting: Sequence[Record], places: Sequence[Place], now: float = 0.0, took: float = SECONDS) -> list[Turn]:
    return list(turns(waiting, {}, now, lambda job: (took, True), places, load_seconds=LOAD))


def where(found: Sequence[Turn]) -> dict[str, str]:
    return {each.record.id: each.place for each in found}


BUSY = (wanting("busy", "a"),)


# -- to its checkpoint -------------------------------------------------------------------------------------------------


def test_a_job_goes_where_its_checkpoint_is() -> None:
    places = [having("0", "a"), having("1", "b"), having("2", OWN_MODEL)]
    found = planned([wanting("1", "b"), wanting("2"), wanting("3", "a.safetensors [0123abcd]")], places)
    assert where(found) == {"1": "1", "2": "2", "3": "0"}
    assert {each.start for each in found} == {0.0}
    assert {each.end for each in found} == {SECONDS}


@pytest.mark.parametrize(("left", "place"), [(LOAD - 1, "busy"), (LOAD + 1, "idle")])
def test_it_waits_for_its_checkpoint_as_long_as_reading_it_again_would_take(left: float, place: str) -> None:
    (turn,) = planned([wanting("x", "a")], [having("busy", "a", seconds=left, jobs=BUSY), having("idle", "b")])
    assert turn.place == place
    assert turn.start == (left if place == "busy" else 0.0)


def test_others_do_not_wait_for_the_one_that_does() -> None:
    places = [having("0", "a", seconds=5.0, jobs=BUSY), having("1", "b")]
    found = planned([wanting("first", "a"), wanting("second", "b")], places)
    assert [(each.record.id, each.place, each.start) for each in found] == [("first", "0", 5.0), ("second", "1", 0.0)]


def test_a_slow_load_keeps_no_other_worker_from_its_jobs() -> None:
    places = [having("0", "huge", seconds=1000.0, jobs=[wanting("loads", "huge")]), having("1", "a")]
    found = planned([wanting("x", "a"), wanting("y", "a")], places)
    assert [(each.place, each.start) for each in found] == [("1", 0.0), ("1", SECONDS)]


def test_a_checkpoint_that_nobody_has_takes_the_place_of_the_one_that_fewest_want() -> None:
    waiting = [wanting("new", "c"), wanting("1", "a"), wanting("2", "a"), wanting("3", "b")]
    assert where(planned(waiting, [having("0", "a"), having("1", "b")]))["new"] == "1"
    assert where(planned(waiting, [having("0", "a"), having("1")]))["new"] == "1"


def test_two_checkpoints_and_two_workers_are_one_load_each() -> None:
    """Forty small jobs, in whatever order, also if there are more of one kind."""
    waiting = [wanting(f"{n}", "ab"[n % 2] if n % 5 else "a") for n in range(40)]
    found = planned(waiting, [having("0", OWN_MODEL), having("1", OWN_MODEL)], took=1.0)
    had = {"0": OWN_MODEL, "1": OWN_MODEL}
    loads = 0
    for each in sorted(found, key=lambda turn: turn.start):
        model = str(each.record.job.request["checkpoint"])
        loads += had[each.place] != model
        had[each.place] = model
    assert loads == 2


def test_upscaling_goes_anywhere_and_changes_nothing() -> None:
    places = [having("0", "a", seconds=1.0, jobs=BUSY), having("1", "b")]
    found = planned([wanting("up", kind="extras"), wanting("x", "b")], places)
    assert where(found) == {"up": "1", "x": "1"}
    assert [each.start for each in found] == [0.0, SECONDS]


# -- patience ----------------------------------------------------------------------------------------------------------


def test_who_has_waited_too_long_takes_the_first_worker_there_is() -> None:
    places = [having("busy", "a", seconds=1.0, jobs=BUSY), having("idle", "b")]
    (turn,) = planned([wanting("x", "a")], places, now=PATIENCE)
    assert turn.place == "busy"
    (turn,) = planned([wanting("x", "a")], places, now=PATIENCE + 0.1)
    assert (turn.place, turn.start) == ("idle", PATIENCE + 0.1)


NAMES = st.sampled_from(["a", "b", "c", None])
WAITING = st.lists(
    st.builds(
        wanting,
        st.uuids().map(str),
        NAMES,
        st.sampled_from(["ann", "bob"]),
        accepted=st.floats(0, 400),
        priority=st.integers(-3, 3),
        kind=st.sampled_from(["paint", "paint", "paint", "extras"]),
    ),
    max_size=10,
    unique_by=lambda each: each.id,
)
PLACES = st.lists(
    st.builds(
        having,
        st.uuids().map(str),
        st.sampled_from(["a", "b", "c", OWN_MODEL]),
        seconds=st.floats(0, 60),
        jobs=st.sampled_from([(), BUSY]),
        slots=st.integers(1, 3),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda each: each.name,
)


@given(WAITING, PLACES, st.floats(0, 1000))
@settings(deadline=None)
def test_every_job_has_one_turn_and_no_worker_more_than_it_has_slots(
    waiting: list[Record], places: list[Place], now: float
) -> None:
    found = planned(waiting, places, now)
    assert sorted(each.record.id for each in found) == sorted(each.id for each in waiting)
    assert all(each.start >= now and each.end >= each.start + SECONDS for each in found)
    for place in places:
        here = [each for each in found if each.place == place.name]
        running = [Turn(record, place.name, now, now + place.seconds, True) for record in BUSY[: len(place.jobs)]]
        for one in here:
            beside = [each for each in (*running, *here) if each.start <= one.start < each.end and each is not one]
            assert len(beside) < place.slots
            assert all(shares_model(one.record.job, each.record.job) for each in beside)


@given(WAITING, PLACES, st.floats(0, 1000))
@settings(deadline=None)
def test_the_first_in_turn_is_done_as_soon_as_anybody_can(
    waiting: list[Record], places: list[Place], now: float
) -> None:
    """And once it is old, it begins as soon as anybody can."""
    found = planned(waiting, places, now)
    if not found:
        return
    first = found[0]
    open_from = min(now if not each.jobs or len(each.jobs) < each.slots else now + each.seconds for each in places)
    assert first.record is min(waiting, key=lambda each: rank(each, {}, open_from))

    def begins(place: Place) -> float:
        joins = 0 < len(place.jobs) < place.slots and all(shares_model(first.record.job, each) for each in place.jobs)
        return max(open_from, now if joins or not place.jobs else now + place.seconds)

    def ends(place: Place) -> float:
        model = model_of(first.record.job)
        if model is None or model in place.models:
            return begins(place)
        is_missed = any(model_of(each.job) in place.models for each in waiting)
        return begins(place) + (2 * LOAD if is_missed else LOAD)

    if open_from - first.record.uptimes.accepted > PATIENCE:
        assert first.start == min(map(begins, places))
    elif all(begins(each) - first.record.uptimes.accepted <= PATIENCE for each in places):
        assert ends(next(each for each in places if each.name == first.place)) == min(map(ends, places))


@dataclass
class Worker:
    """One of a pool that is played through."""

    name: str
    model: str
    until: float = 0.0
    job: Record | None = None

    def place(self, now: float) -> Place:
        left = max(0.0, self.until - now)
        jobs = () if self.job is None else (self.job,)
        return having(self.name, self.model, seconds=left, jobs=jobs)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-3, 20)), max_size=2), min_size=1, max_size=20),
    st.integers(1, 3),
    st.floats(5, 40),
    st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_no_job_starves_for_its_checkpoint(
    arrivals: list[list[tuple[str, int]]], count: int, took: float, is_wrong: bool
) -> None:
    """Ever new jobs for what the workers have, and one for what none has. Also where what is foretold is wrong."""
    victim = wanting("victim", "c", "victim", priority=-(10**9))
    waiting, now, number = [victim], 0.0, 0
    workers = [Worker(f"{n}", "ab"[n % 2]) for n in range(count)]
    while now <= PATIENCE + took + LOAD + took:
        new = arrivals[number % len(arrivals)] or [("a", 1)]
        for place, (model, priority) in enumerate(new * count):
            waiting.append(wanting(f"{number}.{place}", model, f"c{place}", accepted=now, priority=priority))
        number += 1
        while True:
            told = [replace(each.place(now), seconds=0.01) if is_wrong else each.place(now) for each in workers]
            if all(each.job is not None for each in workers):
                break
            foreseen = turns(waiting, {}, now, lambda job: (took, True), told, load_seconds=LOAD)
            turn = next((each for each in foreseen if each.start <= now), None)
            if turn is None:
                break
            if turn.record is victim:
                return
            worker = workers[int(turn.place)]
            assert worker.job is None
            model = str(turn.record.job.request["checkpoint"])
            worker.until = now + took + (LOAD if model != worker.model else 0.0)
            worker.model, worker.job = model, turn.record
            waiting.remove(turn.record)
        now = min(each.until for each in workers if each.job is not None)
        for each in workers:
            if each.until <= now:
                each.job = None
    raise AssertionError(f"after {now} s the job still waits")


# -- several jobs in one worker ----------------------------------------------------------------------------------------


def test_only_what_shares_all_that_a_model_wears_is_painted_together() -> None:
    one = wanting("1", "a", prompt="x <lora:style:1>", seed=1, steps=5, sampler="Euler").job
    assert shares_model(one, wanting("2", "a", prompt="<lora:style:1> another", seed=2, steps=50, width=64).job)
    for changes in (
        {"prompt": "x"},
        {"prompt": "x <lora:style:0.5>"},
        {"prompt": "x <lora:style:1>", "loras": [{"name": "more"}]},
        {"prompt": "x <lora:style:1>", "overrides": {"sd_vae": "other"}},
        {"prompt": "x <lora:style:1>", "hires": {"checkpoint": "b"}},
        {"prompt": "x <lora:style:1>", "controls": [{"model": "canny"}]},
        {"prompt": "x <lora:style:1>", "refiner": "b"},
    ):
        assert not shares_model(one, wanting("2", "a", **changes).job), changes
    assert not shares_model(one, wanting("2", "b", prompt="<lora:style:1>").job)
    assert not shares_model(wanting("1", kind="extras").job, wanting("2", kind="extras").job)
    other_vae = replace(one, settings={"sd_vae": "other"})
    assert not shares_model(one, other_vae) and shares_model(other_vae, replace(other_vae, id="3"))


def test_a_busy_worker_with_room_takes_what_shares_its_model() -> None:
    place = having("0", "a", seconds=50.0, jobs=BUSY, slots=3)
    found = planned([wanting(f"{n}", "a") for n in range(3)], [place])
    assert [each.start for each in found] == [0.0, 0.0, 50.0]
    found = planned([wanting("1", "a"), wanting("2", "b"), wanting("3", "a")], [place])
    assert [each.start for each in found] == [0.0, 50.0, 50.0 + LOAD + SECONDS], "the second one is not passed over"


def test_an_idle_worker_is_better_than_a_shared_one() -> None:
    places = [having("shared", "a", seconds=5.0, jobs=BUSY, slots=4), having("idle", "a", slots=4)]
    assert planned([wanting("x", "a")], places)[0].place == "idle"


def test_suspects_are_kept_apart() -> None:
    place = having("0", "a", seconds=50.0, jobs=BUSY, slots=3)
    for alone in ({"x"}, {"busy"}):
        found = turns([wanting("x", "a")], {}, 0.0, lambda job: (1.0, True), [place], alone=alone)
        assert [each.start for each in found] == [50.0]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named",
    ["SD15", "sd15.safetensors", "models/sd15.ckpt", "C:\\models\\sd15.safetensors [6ce0161689]", "sd15 [ab12]"],
)
def test_the_names_of_a_checkpoint_are_one(named: str) -> None:
    assert model_name(named) == "sd15"


def test_what_a_job_wants() -> None:
    assert model_of(wanting("x").job) == OWN_MODEL == model_name(None)
    assert model_of(wanting("x", "v1.5-pruned").job) == "v1.5-pruned"
    assert model_of(wanting("x", kind="extras").job) is None
    assert model_of(wanting("x", "a", kind="sequence").job) == "a"  # each of its steps paints
    assert model_of(wanting("x", overrides={"sd_model_checkpoint": "b.ckpt"}).job) == "b"
    set_by_site = replace(wanting("x").job, settings={"sd_model_checkpoint": "folder/c.safetensors"})
    assert model_of(set_by_site) == "c"


def test_without_a_worker_nothing_has_a_turn() -> None:
    assert planned([wanting("x")], []) == []
