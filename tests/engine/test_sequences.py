"""Sequences on an engine: one story, going on after a stop, results that know how they were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.scripts import run_script
from overpaint.engine import Engine
from overpaint.errors import RequestError
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Started, StepFinished, Stop
from overpaint.painted import PaintedPicture
from overpaint.pixels.color import color_target
from overpaint.sequences.axes import axis_of
from overpaint.sequences.grid import PictureGrid
from overpaint.sequences.loopback import Loopback
from overpaint.sequences.running import plan_step, run_sequence
from overpaint.sequences.story import StepResult
from tests.engine.conftest import asked, job, pixels, scene
from tests.engine.toys import Site


def story(engine: Engine, sequence: Any, **more: Any) -> list[Event]:
    return list(run_sequence(engine, sequence, **more))


def test_the_events_of_a_sequence(engine: Engine) -> None:
    events = story(engine, Loopback(request=asked(steps=4, strength=0.5), loops=3, final_strength=1.0))
    started, last = events[0], events[-1]
    assert isinstance(started, Started)
    assert started.images == 3
    progress = [each for each in events if isinstance(each, Progress)]
    assert [each.step for each in progress] == list(range(1, started.steps + 1))
    assert {each.steps for each in progress} == {started.steps}
    assert {each.batch for each in progress} == {0, 1, 2}
    assert [each.number for each in events if isinstance(each, StepFinished)] == [0, 1, 2]
    assert isinstance(last, Finished)
    assert len(last.result.images) == 3


def test_every_picture_is_what_its_step_alone_paints(engine: Engine) -> None:
    """The second loop is the plain job that has the first one's picture as its source."""
    events = story(engine, Loopback(request=asked(seed=9), loops=2, final_strength=0.4))
    result = events[-1].result  # type: ignore[union-attr]
    assert result is not None
    first, second = result.images
    again = engine.paint(asked(seed=10, images=(first,), strength=0.4))
    assert pixels(second) == pixels(again.images[0])
    assert isinstance(second, PaintedPicture)
    assert (second.seed, second.recipe["request"]["strength"]) == (10, 0.4)
    assert "Final denoising strength: 0.4, Denoising curve: Linear" in second.infotext


def test_it_goes_on_after_what_is_done(engine: Engine) -> None:
    grid = PictureGrid(request=asked(), x=axis_of("steps=1-3"), y=axis_of("cfg_scale=1,7"))
    whole = story(engine, grid)[-1].result  # type: ignore[union-attr]
    done = [StepResult.of(each.result) for each in story(engine, grid) if isinstance(each, StepFinished)][:4]
    events = story(engine, grid, done=done)
    assert [each.number for each in events if isinstance(each, StepFinished)] == [4, 5]
    rest = events[-1].result  # type: ignore[union-attr]
    assert whole is not None
    assert rest is not None
    assert [each.tobytes() for each in rest.images] == [each.tobytes() for each in whole.images]
    assert rest.infotexts == whole.infotexts
    assert not rest.stopped


@pytest.mark.parametrize("how", [Stop.CANCEL, Stop.AFTER_BATCH, Stop.FINISH_EARLY])
def test_a_stop_is_heard_within_a_step(engine: Engine, how: Stop) -> None:
    control, seen = Control(), []
    for event in run_sequence(engine, Loopback(request=asked(steps=5), loops=4), control=control):
        seen.append(event)
        if isinstance(event, Progress) and event.batch == 1:
            control.ask(how)
    assert isinstance(seen[-1], Cancelled if how is Stop.CANCEL else Finished)
    result = seen[-1].result
    assert result is not None
    assert result.stopped
    assert len(result.images) == (1 if how is Stop.CANCEL else 2)


def test_what_is_wrong_with_the_last_step_is_told_before_the_first(engine: Engine) -> None:
    with pytest.raises(RequestError, match="sampler='No such'"):
        next(run_sequence(engine, PictureGrid(request=asked(), x=axis_of("sampler=Euler,No such"))))


def test_cells_of_one_checkpoint_are_painted_in_one_stretch(site: Site, site_engine: Engine) -> None:
    names = [Path(site.model(each)).name for each in ("tiny", "other")]
    grid = PictureGrid(request=asked(), y=axis_of(("checkpoint", names)), x=axis_of("steps=1-3"))
    models = [event.result.model.name for event in story(site_engine, grid) if isinstance(event, StepFinished)]
    assert models == [models[0]] * 3 + [models[3]] * 3
    assert models[0] != models[3]


# -- the contract's door -----------------------------------------------------------------------------------------------


def test_colours_are_the_first_pictures(engine: Engine) -> None:
    """SCR-3: with colour correction the target of every loop is the first source."""
    loops = Loopback(request=asked(color_correction=True), loops=2)
    done = [StepResult(pictures=(scene(seed=5),), infotexts=("",))]
    found = plan_step(engine, loops.step(1, done), engine.settings).canvases[0].target
    assert found is not None
    assert (found == color_target(scene())).all()


def test_scripts_leave_the_job_as_it_was_asked(engine: Engine) -> None:
    p = job(engine)
    before = p.request()
    result = run_script(p, "Outpainting mk2", "", 64, 4, ["left"], 1.0, 0.05)
    assert p.request() == replace(before)
    assert [each.size for each in result.images] == [(128, 32)]
    assert result.seed == before.seed
    assert "Steps: 3" in result.info


def test_an_unknown_title_at_the_contracts_door(engine: Engine) -> None:
    with pytest.raises(RequestError, match="SD upscale"):
        run_script(job(engine), "no such script")


def test_what_a_script_made_is_saved(engine: Engine, tmp_path: Any) -> None:
    p = job(engine, do_not_save_samples=False, outpath_samples=str(tmp_path))
    run_script(p, "Loopback", 2, 0.5, "Linear", "None")
    assert len(list(tmp_path.rglob("*.png"))) == 2
    p = job(engine, do_not_save_samples=False, outpath_samples=str(tmp_path / "tiles"))
    run_script(p, "SD upscale", "", 16, "Lanczos", 2.0)
    assert len(list((tmp_path / "tiles").rglob("*.png"))) == 1


def test_the_noise_that_a_picture_comes_from_gives_it_back(engine: Engine) -> None:
    """SCR-6: with the text and the steps it was found by, the walk leads back near the picture."""
    p = job(engine, steps=30, cfg_scale=1.0)
    args = ("", True, True, "a cat", "dog", True, 30, True, 1.0, 0.0, True)
    back = np.asarray(run_script(p, "img2img alternative test", *args).images[0].convert("RGB"), dtype=int)
    drawn = run_script(p, "img2img alternative test", *args[:9], 1.0, True)
    other = np.asarray(drawn.images[0].convert("RGB"), dtype=int)
    plain = engine.paint(asked(strength=0.01, steps=30)).images[0].convert("RGB")  # what the codec makes of it
    codec = np.asarray(plain, dtype=int)
    assert abs(back - codec).mean() < abs(other - codec).mean() / 2
    assert "Randomness: 1.0" in drawn.info
