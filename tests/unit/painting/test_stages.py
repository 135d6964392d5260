"""Batch after batch of a job: what stops it, what an error carries, and what two passes say together."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from overpaint.errors import RequestError, SamplingError
from overpaint.events import Control, Painted, Progress, Stop
from overpaint.outcome import FinishedBatch
from overpaint.painting.stages import _in_parts, _of_both, batches, explained, steps_of
from overpaint.painting.tiled import TiledCodec
from overpaint.planning.plans import LatentTiles, Plan
from tests.unit.toy_job import planned

FIVE = planned(iterations=5)
RESULT: Any = object()


def painter(control: Control, **at: Any) -> Any:
    """Paints each batch in one step; `at` says what happens before some of them."""

    def paint(number: int, batch: Any) -> Generator[Progress, None, FinishedBatch | None]:
        yield Progress(number, 5, 0.0, number)
        event = at.get(f"batch{number}")
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Stop):
            control.ask(event)
        return None if event == "cancelled" else FinishedBatch(tuple(batch), ())

    return paint


def story(plan: Plan, done: list[FinishedBatch], control: Control | None = None, **at: Any) -> list[str]:
    control = control or Control()
    told = batches(plan, control, done, paint=painter(control, **at), result=lambda: RESULT)
    return ["painted" if isinstance(each, Painted) else "step" for each in told]


def test_every_batch_is_told_of() -> None:
    done: list[FinishedBatch] = []
    assert story(FIVE, done) == ["step", "painted"] * 5
    assert [each.batch for each in done] == list(FIVE.batches)


@given(st.integers(0, 5))
def test_it_goes_on_after_what_is_done(count: int) -> None:
    before = [FinishedBatch(each, ()) for each in FIVE.batches[:count]]
    done = list(before)
    assert story(FIVE, done) == ["step", "painted"] * (5 - count)
    assert done[:count] == before and [each.batch for each in done] == list(FIVE.batches)


@pytest.mark.parametrize(
    ("message", "painted"), [(Stop.AFTER_BATCH, 3), (Stop.FINISH_EARLY, 3), (Stop.CANCEL, 3), (Stop.SKIP, 5)]
)
def test_messages_between_two_batches(message: Stop, painted: int) -> None:  # INT-3: a skip was meant for neither
    done: list[FinishedBatch] = []
    story(FIVE, done, batch2=message)
    assert len(done) == painted


def test_a_batch_that_was_given_up_is_the_last() -> None:
    done: list[FinishedBatch] = []
    assert story(FIVE, done, batch1="cancelled") == ["step", "painted", "step"]
    assert len(done) == 1


@pytest.mark.parametrize("error", [SamplingError("NaN"), torch.OutOfMemoryError("40 GiB"), MemoryError()])
def test_an_error_carries_what_was_painted(error: Exception) -> None:
    with pytest.raises(SamplingError) as caught:
        story(FIVE, [], batch2=error)
    assert caught.value.result is RESULT
    with pytest.raises(SamplingError) as caught:
        story(FIVE, [], batch0=SamplingError("NaN"))
    assert caught.value.result is None


def test_what_is_about_memory_is_explained_and_nothing_else() -> None:
    for error in (MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("cannot allocate memory for 3 tensors")):
        assert "ask for a smaller size or batch" in str(explained(error))
    own = RequestError("steps", 0, "give at least 1")
    assert explained(own) is own
    strange = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError) as caught:
        explained(strange)
    assert caught.value is strange


def test_fields_of_two_passes() -> None:  # LORA-10
    first, second = {"Lora hashes": "a: 1, b: 2", "x": 1}, {"Lora hashes": "b: 2, c: 3", "x": 2}
    assert _of_both(first, second) == {"Lora hashes": "a: 1, b: 2, c: 3", "x": 2}
    assert _of_both(first, {"y": 3}) == {"Lora hashes": "a: 1, b: 2", "x": 1, "y": 3}
    assert _of_both({}, {}) == {}


def test_steps_are_counted_over_all_batches() -> None:
    one = steps_of(planned())
    assert one > 0 and steps_of(FIVE) == 5 * one
    nothing = planned(strength=0.0)
    assert nothing.unchanged and steps_of(nothing) == 0


def test_a_codec_is_used_in_parts_where_the_canvas_is() -> None:
    codec: Any = type("Codec", (), {"device": torch.device("cpu")})()
    plan = planned()
    assert _in_parts(plan, codec) is codec
    tiles = LatentTiles(8, 2)
    tiled = _in_parts(replace(plan, tiles=tiles), codec)
    assert isinstance(tiled, TiledCodec) and (tiled.codec, tiled.tiles, tiled.factor) == (codec, tiles, 8)
