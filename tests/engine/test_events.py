"""INT: what a job tells while it runs, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from overpaint.engine import Engine, stages_of
from overpaint.events import Cancelled, Control, Event, Finished, Painted, Preview, Progress, Started, Stop
from overpaint.outcome import Processed
from overpaint.painting.drive import Run, tick
from overpaint.painting.latents import decode
from overpaint.painting.sampling import final_latents
from overpaint.settings import Settings
from tests.conftest import label
from tests.engine.conftest import asked, box, painted, pixels, scene

EVERY_STEP = Settings(show_progress_every_n_steps=1)


def told(engine: Engine, settings: Settings | None = None, **fields: Any) -> list[Event]:
    return list(engine.run(asked(**fields), settings))


def stopped(
    engine: Engine, message: Stop, when: Callable[[Event], bool], **fields: Any
) -> tuple[list[Event], Event, int]:
    """Events until the message was sent, the last event, and how many came in between."""
    control, before, after = Control(), list[Event](), list[Event]()
    for event in engine.run(asked(**fields), None, control):
        (after if control.message or (after and message is Stop.SKIP) else before).append(event)
        if not after and control.message is None and when(event):
            control.ask(message)
    everything = before + after
    return before, everything[-1], len(everything) - len(before) - 1


def result_of(event: Event) -> Processed:
    assert isinstance(event, Finished)
    return event.result


def at_step(step: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Progress) and event.step == step


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"batch_size": 2, "iterations": 3},
        {"sampler": "Heun", "steps": 5},
        {"sampler": "DPM++ 2S a", "steps": 8, "strength": 1},
        {"sampler": "Restart", "steps": 20, "strength": 1},
        {
            "sampler": "DPM adaptive",
            "batch_size": 2,
            "images": (scene(16, 16),),
            "steps": 8,
            "strength": 0.3,
            "eta": 0.0,
        },
        {"sampler": "DPM fast", "steps": 7, "strength": 1},
        {"sampler": "DDIM", "steps": 6},
        {"sampler": "UniPC", "steps": 6},
        {"sampler": "PLMS", "steps": 6},
        {"exact": True, "batch_size": 2},
    ],
    ids=label,
)
@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_the_story(engine: Engine, fields: dict[str, Any], manner: Settings) -> None:
    started, *middle, last = told(engine, manner, **fields)
    assert isinstance(started, Started)
    assert isinstance(last, Finished)
    assert started.images == len(last.result.images)
    steps = [each.step for each in middle if isinstance(each, Progress)]
    assert {each.steps for each in middle if isinstance(each, Progress)} == {started.steps}
    assert steps == sorted(steps)
    assert steps[-1] == started.steps
    assert not last.result.stopped


def test_the_story_of_nothing_to_do(engine: Engine) -> None:
    started, painted, last = told(engine, strength=0)
    assert started == Started(1, 0, ())
    assert isinstance(painted, Painted)
    assert isinstance(last, Finished)


def test_batches_are_numbered(engine: Engine) -> None:
    batches = [each.batch for each in told(engine, iterations=3) if isinstance(each, Progress)]
    assert batches == sorted(batches)
    assert set(batches) == {0, 1, 2}


def test_sigmas_fall(engine: Engine) -> None:
    sigmas = [each.sigma for each in told(engine, steps=6) if isinstance(each, Progress)]
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] == 0


def test_previews_are_pictures(engine: Engine) -> None:
    events = told(engine, EVERY_STEP, steps=6, strength=1)
    previews = [each for each in events if isinstance(each, Preview)]
    assert len(previews) == 6
    for each in previews:
        assert isinstance(each.image, Image.Image)
        assert each.image.mode == "RGB"
        assert min(each.image.size) > 0
    # The last preview looks like the picture: it is fitted to the model's own codec.
    last = events[-1]
    small = result_of(last).images[0].resize(previews[-1].image.size, Image.Resampling.BOX)
    difference = [abs(a - b) for a, b in zip(small.tobytes(), previews[-1].image.tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 25


def test_previews_do_not_change_the_picture(engine: Engine) -> None:
    with_previews = result_of(told(engine, EVERY_STEP, sampler="Euler a", steps=5)[-1])
    without = result_of(told(engine, Settings(live_previews_enable=False), sampler="Euler a", steps=5)[-1])
    assert pixels(with_previews.images[0]) == pixels(without.images[0])


@pytest.mark.parametrize("every", [-1, 0])
def test_previews_can_be_off(engine: Engine, every: int) -> None:
    events = told(engine, Settings(show_progress_every_n_steps=every), steps=12)
    assert not any(isinstance(each, Preview) for each in events)


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_cancel_within_a_tick_and_nothing_is_decoded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("overpaint.painting.stages.decode", forbidden)
    _, last, between = stopped(engine, Stop.CANCEL, at_step(2), steps=20)
    assert last == Cancelled(None)
    assert between <= 1


def test_cancel_before_the_first_tick(engine: Engine) -> None:
    _, last, between = stopped(engine, Stop.CANCEL, lambda event: isinstance(event, Started))
    assert last == Cancelled(None)
    assert between == 0


def test_cancel_keeps_what_was_finished(engine: Engine) -> None:
    when = lambda event: isinstance(event, Progress) and event.batch == 1  # noqa: E731
    _, last, _ = stopped(engine, Stop.CANCEL, when, iterations=3)
    assert isinstance(last, Cancelled)
    assert last.result is not None
    assert [pixels(each) for each in last.result.images] == painted(engine)
    assert last.result.stopped


def test_cancel_from_another_thread(engine: Engine) -> None:
    control = Control()
    events = engine.run(asked(steps=100, strength=1), None, control)
    next(events), next(events)
    thread = threading.Thread(target=control.ask, args=(Stop.CANCEL,))
    thread.start()
    thread.join()
    assert len(list(events)) <= 2


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM"])
def test_finish_early_shows_the_last_conditional_prediction(  # INT-2
    engine: Engine, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"sampler": sampler, "steps": 10, "mask": None}
    _, last, _ = stopped(engine, Stop.FINISH_EARLY, at_step(3), **fields)
    result = result_of(last)
    assert result.stopped
    runs: list[Run] = []
    control = Control()

    def keep(plan: Any, tensors: Any, started: list[Run]) -> Any:
        runs.extend(started)
        return final_latents(plan, tensors, started)

    monkeypatch.setattr("overpaint.painting.stages.final_latents", keep)
    for event in engine.run(asked(**fields), None, control):
        if at_step(3)(event):
            control.ask(Stop.FINISH_EARLY)
    (run,) = runs
    assert run.estimate is not None
    (shown,) = decode(result.plan, stages_of(engine).backend, run.estimate.conditional)
    assert shown.tobytes() == result.images[0].tobytes()
    assert pixels(result.images[0]) != painted(engine, **fields)[0]


def test_finish_early_before_the_first_call(engine: Engine) -> None:  # INT-5
    _, last, _ = stopped(engine, Stop.FINISH_EARLY, lambda event: isinstance(event, Started), iterations=2)
    result = result_of(last)
    assert result.images == ()
    assert result.stopped
    assert len(result.infotexts) == 1


def test_finish_early_ends_the_job(engine: Engine) -> None:  # INT-3
    when = lambda event: isinstance(event, Progress) and event.batch == 1  # noqa: E731
    _, last, _ = stopped(engine, Stop.FINISH_EARLY, when, iterations=3, steps=6)
    result = result_of(last)
    assert len(result.images) == 2
    assert pixels(result.images[0]) == painted(engine, steps=6)[0]


def test_finish_early_keeps_the_kept_part(engine: Engine) -> None:  # INT-2: the final blend goes on normally
    mask = box()
    fields: dict[str, Any] = {"mask": mask, "mask_blur_x": 0, "mask_blur_y": 0, "steps": 8}
    _, last, _ = stopped(engine, Stop.FINISH_EARLY, at_step(2), **fields)
    found, source = result_of(last).images[0], asked().images[0]
    assert found.crop((0, 0, 8, 32)).tobytes() == source.crop((0, 0, 8, 32)).tobytes()


def test_skip_goes_on_with_the_next(engine: Engine) -> None:  # INT-3
    when = lambda event: isinstance(event, Progress) and event.batch == 1  # noqa: E731
    _, last, _ = stopped(engine, Stop.SKIP, when, iterations=3, steps=6)
    result = result_of(last)
    whole = [pixels(each) for each in engine.paint(asked(iterations=3, steps=6)).images]
    assert [pixels(a) == b for a, b in zip(result.images, whole, strict=True)] == [True, False, True]


def test_after_batch(engine: Engine) -> None:  # INT-3
    when = lambda event: isinstance(event, Progress) and event.batch == 1  # noqa: E731
    _, last, _ = stopped(engine, Stop.AFTER_BATCH, when, iterations=3)
    result = result_of(last)
    assert [pixels(each) for each in result.images] == painted(engine, iterations=2)
    assert result.stopped


def test_a_message_after_the_last_tick_changes_nothing(engine: Engine) -> None:
    control = Control()
    last: Event | None = None
    for last in engine.run(asked(), None, control):
        if isinstance(last, Progress) and last.step == last.steps:
            control.ask(Stop.CANCEL)
    assert isinstance(last, Finished)
    assert [pixels(each) for each in last.result.images] == painted(engine)
    assert not last.result.stopped


def test_stopping_a_batch_of_own_steps_keeps_the_picture_that_was_done(  # UPD-15
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DPM adaptive runs each picture by itself; one may be done while the other is not."""
    fields: dict[str, Any] = {
        "sampler": "DPM adaptive",
        "images": (scene(16, 16),),
        "prompt": ("a cat", "(a:3) (much:0.1) (stranger:4) [text] " * 3),
        "steps": 8,
        "strength": 0.2,
        "batch_size": 2,
        "eta": 0.0,
    }
    control = Control()
    whole = engine.paint(asked(**fields))

    def watching(runs: list[Run], *args: Any, **options: Any) -> None:
        tick(runs, *args, **options)
        if sum(run.finished for run in runs) == 1:
            control.ask(Stop.FINISH_EARLY)

    monkeypatch.setattr("overpaint.painting.pass_networks.tick", watching)
    *_, last = engine.run(asked(**fields), None, control)
    if control.message is None:
        pytest.skip("both pictures took the same number of steps")
    same = [pixels(a) == pixels(b) for a, b in zip(result_of(last).images, whole.images, strict=True)]
    assert sorted(same) == [False, True]
