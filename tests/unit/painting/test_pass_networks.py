"""What a job waits for: answered once, by whoever drives the job or by itself, and not at all when it was stopped."""

from __future__ import annotations

from typing import Any

import pytest

from overpaint.events import Control, Stop
from overpaint.painting.pass_networks import Call, Pending


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that were asked."""
    asked: list[Any] = []
    monkeypatch.setattr(
        "overpaint.painting.pass_networks.tick", lambda runs, network, **how: asked.append((network, how))
    )
    return asked


def call(name: Any, **given: Any) -> Call:
    return Call(**{"runs": (), "network": lambda: name, "key": None, "share": True, "batched": True, **given})


def test_a_job_that_nobody_answered_asks_by_itself(asked: list[Any]) -> None:
    pending = Pending((call("a"), call("b", share=False, batched=False)), Control())
    before = pending.is_answered
    pending.settle()
    assert (before, pending.is_answered) == (False, True)
    assert asked == [("a", {"share": True, "batched": True}), ("b", {"share": False, "batched": False})]


def test_nothing_is_asked_twice(asked: list[Any]) -> None:
    first, second = call("a"), call("b")
    first.answer()
    Pending((first, second), Control()).settle()
    assert [network for network, _ in asked] == ["a", "b"]


def test_an_error_of_a_shared_call_ends_the_job(asked: list[Any]) -> None:
    pending = Pending((call("a"),), Control(), error=ValueError("out of memory"))
    assert pending.is_answered
    with pytest.raises(ValueError, match="out of memory"):
        pending.settle()
    assert asked == []


@pytest.mark.parametrize(
    ("message", "stops"),
    [(None, False), (Stop.AFTER_BATCH, False), (Stop.SKIP, True), (Stop.FINISH_EARLY, True), (Stop.CANCEL, True)],
)
def test_a_stopped_job_needs_no_answer(message: Stop | None, stops: bool) -> None:
    control = Control()
    if message is not None:
        control.ask(message)
    assert Pending((), control).is_stopped is stops
