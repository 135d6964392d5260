"""A script of the reference at the contract's door: where it stands, what it saves, and what is left when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import modules.shared as shared
from modules.processing import StableDiffusionProcessingImg2Img
from overpaint.contract import run_script as module
from overpaint.contract.processed import Processed
from overpaint.contract.run_script import run_script
from overpaint.engine import Engine
from overpaint.errors import RequestError, SamplingError
from overpaint.events import Control, Event, Finished, Preview, Progress, StepFinished
from overpaint.finish import FinishedPicture
from overpaint.outcome import FinishedBatch, ModelIdentity, account
from overpaint.outcome import Processed as Result
from overpaint.planning.plan import plan as make_plan
from overpaint.sequences.running import ReadySequence
from tests.unit.toy_job import noisy_picture

SMALL = Image.new("RGB", (8, 8), 90)


class ToyEngine(Engine):
    """Plans; what is painted is told by the test."""

    def __init__(self) -> None:
        self.settings = shared.opts.snapshot()

    def plan(self, request: Any, settings: Any = None) -> Any:
        return make_plan(request, settings or self.settings)

    def upscalers(self, settings: Any = None) -> Any:
        return {}

    @staticmethod
    def steps_of(plan: Any) -> int:
        return 4


@pytest.fixture(autouse=True)
def as_new() -> Iterator[None]:
    shared.opts.reset()
    yield
    shared.opts.reset()
    shared.state.end()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """Where the state stood after each event of a run of two steps."""
    seen: list[tuple[int, int, int, int]] = []

    def run(engine: Any, ready: ReadySequence, control: Control) -> Iterator[Event]:
        state = shared.state
        for number, plan in enumerate(ready.plans):
            yield Progress(4 * number + 3, 8, 1.0, number)
            seen.append((state.job_count, state.job_no, state.sampling_step, state.sampling_steps))
            yield Preview(4 * number + 3, SMALL)
            yield StepFinished(number, result_of(plan))
        yield Finished(result_of(ready.plans[-1]))

    monkeypatch.setattr(module, "run_sequence", run)
    return seen


def result_of(plan: Any) -> Result:
    done = [FinishedBatch(batch, tuple(FinishedPicture(SMALL) for _ in batch)) for batch in plan.batches]
    return account(plan, ModelIdentity("tiny"), done)


def job(**fields: Any) -> StableDiffusionProcessingImg2Img:
    given = {"sd_model": ToyEngine(), "init_images": [noisy_picture(32, 32)], "seed": 3, "steps": 4, **fields}
    return StableDiffusionProcessingImg2Img(**{"width": 32, "height": 32, "do_not_save_samples": True, **given})


def test_where_it_stands(seen: list[Any]) -> None:
    p = job()
    result = run_script(p, "Loopback", 2, 1, "Linear", "None")
    assert isinstance(result, Processed)
    assert seen == [(2, 0, 3, 4), (2, 1, 3, 4)]
    assert p.extra_generation_params == result.extra_generation_params


def test_infotext_fields_of_the_callers_own(monkeypatch: pytest.MonkeyPatch, seen: list[Any]) -> None:
    sequences: list[ReadySequence] = []
    run: Any = vars(module)["run_sequence"]

    def kept(engine: Any, ready: ReadySequence, control: Control) -> Any:
        sequences.append(ready)
        return run(engine, ready, control=control)

    monkeypatch.setattr(module, "run_sequence", kept)
    run_script(job(extra_generation_params={"Mine": 1}), "Loopback", 2, 1, "Linear", "None")
    run_script(job(), "Loopback", 2, 1, "Linear", "None")
    assert [dict(each.sequence.own_notes or {}) for each in sequences] == [{"Mine": 1}, {}]


def test_steps_are_saved_as_they_come(seen: list[Any], tmp_path: Path) -> None:
    run_script(job(do_not_save_samples=False, outpath_samples=str(tmp_path)), "Loopback", 2, 1, "Linear", "None")
    run_script(job(outpath_samples=str(tmp_path / "never")), "Loopback", 2, 1, "Linear", "None")
    assert len(list(tmp_path.rglob("*.png"))) == 2 and not (tmp_path / "never").exists()


def test_a_title_that_nobody_has() -> None:
    with pytest.raises(RequestError, match="Loopbak"):
        run_script(job(), "Loopbak")


def test_an_error_ends_the_state_and_carries_an_open_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(engine: Any, ready: ReadySequence, control: Control) -> Iterator[Event]:
        error = SamplingError("the network produced NaN")
        error.result = result_of(ready.plans[0])
        yield Progress(1, 8, 1.0, 0)
        raise error

    monkeypatch.setattr(module, "run_sequence", run)
    with pytest.raises(SamplingError) as caught:
        run_script(job(), "Loopback", 2, 1, "Linear", "None")
    assert isinstance(caught.value.result, Processed)
    assert shared.state.job == ""
