"""INT, CTRL, PROG-3: the reference's `opts` and `state`."""

from __future__ import annotations

import pytest

from overpaint.contract.options import Options, State
from overpaint.errors import SettingError
from overpaint.events import Control, Stop
from overpaint.settings import Quirks, Settings


def test_options_begin_as_the_reference() -> None:
    options = Options()
    assert options.snapshot() == Settings.reference()
    assert options.quirks == Quirks.reference()
    assert options.CLIP_stop_at_last_layers == 1


def test_what_is_set_counts_for_later_jobs_only() -> None:
    options = Options()
    before = options.snapshot()
    options.tiling = True
    options.set("CLIP_stop_at_last_layers", 2.0)
    assert options.tiling
    assert options.snapshot().CLIP_stop_at_last_layers == 2
    assert not before.tiling
    options.quirks = Quirks.none()
    assert options.snapshot().tiling
    assert options.snapshot().quirks == Quirks.none()


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("img2img_color_corection", True, "img2img_color_correction"),
        ("randn_source", "gpu", "GPU, CPU, NV"),
        ("jpeg_quality", "high", "whole number"),
    ],
)
def test_bad_options(name: str, value: object, hint: str) -> None:
    options = Options()
    with pytest.raises(SettingError, match=hint) as caught:
        setattr(options, name, value)
    assert name in str(caught.value)
    assert options.snapshot() == Settings.reference()


def test_an_unknown_option_cannot_be_read() -> None:
    with pytest.raises(AttributeError, match="no_such"):
        Options().no_such  # noqa: B018
    assert getattr(Options(), "no_such", "nothing") == "nothing"


def test_data_is_a_view() -> None:
    options = Options()
    seen = [options.data["tiling"]]
    options.data["tiling"] = True
    seen.append(options.tiling)
    del options.data["tiling"]
    assert [*seen, options.tiling] == [False, True, False]
    assert set(options.data) >= {"tiling", "samples_format"}
    assert "no_such" not in set(options.data)
    assert len(options.data) == len(dict(options.data))


def test_replace_all() -> None:
    options = Options()
    options.replace_all(Settings(tiling=True))
    assert options.snapshot() == Settings(tiling=True)


@pytest.mark.parametrize(
    ("method", "message"),
    [("interrupt", Stop.FINISH_EARLY), ("skip", Stop.SKIP), ("stop_generating", Stop.AFTER_BATCH)],
)
def test_flags_are_messages(method: str, message: Stop) -> None:  # INT-1
    state = State()
    seen = [state.message]
    getattr(state, method)()
    seen.append(state.message)
    state.begin("img2img")  # INT-4
    assert [*seen, state.message] == [None, message, None]
    assert (state.job, state.job_count) == ("img2img", -1)
    assert len(state.job_timestamp) == 14


def test_interrupt_beats_skip_beats_stopping() -> None:
    state = State()
    state.stopping_generation = True
    state.skipped = True
    seen = [state.message]
    state.interrupted = True
    seen.append(state.message)
    state.interrupted = False
    state.take_skip()
    seen.append(state.message)  # INT-3: a skip counts once
    assert seen == [Stop.SKIP, Stop.FINISH_EARLY, Stop.AFTER_BATCH]


def test_state_takes_the_messages_of_a_control() -> None:
    state = State()
    state.ask(Stop.CANCEL)
    assert state.message is Stop.CANCEL
    state.begin()
    assert state.message is None


def test_state_for_clients() -> None:  # PROG-3
    state = State()
    state.begin("img2img")
    state.interrupt()
    told = state.dict()
    assert told["interrupted"] is True
    assert told["job"] == "img2img"
    assert set(told) == {
        "skipped",
        "interrupted",
        "stopping_generation",
        "job",
        "job_count",
        "job_timestamp",
        "job_no",
        "sampling_step",
        "sampling_steps",
    }
    state.end()
    assert (state.job, state.job_count) == ("", 0)


def test_a_controls_skip_counts_once() -> None:  # INT-3
    control = Control()
    control.ask(Stop.SKIP)
    control.take_skip()
    assert control.message is None
    control.ask(Stop.CANCEL)
    control.take_skip()
    assert control.message is Stop.CANCEL
