"""The built-in flow model through the engine: what is promised of any picture holds for it, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine
from overpaint.errors import RequestError
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Stop
from overpaint.files.batch import Batch, BatchEvent, RowPainted, RowSkipped, run_batch
from overpaint.files.rows import read_rows
from overpaint.models.built_in import built_in_path
from overpaint.request import PaintRequest, Txt2ImgRequest
from overpaint.settings import Settings
from tests.engine.conftest import asked, box, pixels, scene

NAME = "overpaint-mini-flow"
JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sde": {"sampler": "DPM++ 2M SDE", "steps": 4, "strength": 1.0},
    "masked": {"sampler": "DPM++ 2M", "steps": 5, "strength": 0.62, "mask": box()},
    "ancestral": {"sampler": "Euler a", "steps": 3, "strength": 0.5, "seed": 4},
    "pair": {"batch_size": 2, "strength": 0.35, "cfg_scale": 2.0},
    "alone led": {"cfg_scale": 1.0, "strength": 0.9},
    "heun": {"sampler": "Heun", "steps": 2, "strength": 1.0, "overrides": {"flow_shift": 3.0}},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(built_in_path(NAME), device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def alone(engine: Engine) -> dict[str, list[bytes]]:
    return {name: painted(engine, asked(**fields)) for name, fields in JOBS.items()}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each call of the U-Net."""
    made: list[int] = []
    kept = TorchBackend.denoise

    def denoise(self: TorchBackend, x: torch.Tensor, *values: Any, **named: Any) -> torch.Tensor:
        made.append(len(x))
        return kept(self, x, *values, **named)

    monkeypatch.setattr(TorchBackend, "denoise", denoise)
    return made


def painted(engine: Engine, request: PaintRequest) -> list[bytes]:
    return [pixels(each) for each in engine.paint(request).images]


def images(event: Event) -> list[Any]:
    assert isinstance(event, Finished), event
    return [np.asarray(each).astype(int) for each in event.result.images]


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_what_the_mask_leaves_out_stays(strength: float, only_masked: bool, engine: Engine) -> None:
    source, mask = scene(40, 48), box(40, 48, (13, 7, 30, 29))
    crop = {"only_masked": True, "width": 32, "height": 32} if only_masked else {}
    found = engine.paint(asked(images=(source,), mask=mask, mask_blur_x=0, mask_blur_y=0, strength=strength, **crop))
    before, after = (np.asarray(each.convert("RGB")) for each in (source, found.images[0]))
    kept = np.asarray(mask) == 0
    assert np.array_equal(after[kept], before[kept])
    assert not np.array_equal(after[~kept], before[~kept])


def test_order_and_a_fresh_engine_do_not_matter(engine: Engine, alone: dict[str, list[bytes]]) -> None:
    assert {name: painted(engine, asked(**JOBS[name])) for name in list(JOBS)[::-1]} == alone
    with Engine(built_in_path(NAME), device="cpu", dtype="float32") as fresh:
        assert painted(fresh, asked(**JOBS["pair"])) == alone["pair"]


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M SDE"])
def test_neighbours_do_not_matter(sampler: str, engine: Engine) -> None:
    said: dict[str, Any] = {"prompt": "a cat", "steps": 2, "width": 32, "height": 32, "sampler": sampler}
    both = painted(engine, Txt2ImgRequest(**said, seed=4, batch_size=2))
    single = [painted(engine, Txt2ImgRequest(**said, seed=each))[0] for each in (5, 4)]
    assert both == single[::-1] and both[0] != both[1]


@pytest.mark.parametrize("exact", [False, True], ids=["shared", "exact"])
def test_many_jobs_are_what_each_is_alone(
    exact: bool, engine: Engine, alone: dict[str, list[bytes]], calls: list[int]
) -> None:
    """Of other samplers, steps, strengths and shifts, in one call; the last is cancelled on its way."""
    jobs = {name: asked(**fields, exact=exact) for name, fields in JOBS.items()}
    jobs["cancelled"] = asked(steps=9, strength=1.0, seed=77, exact=exact)
    boxes = {name: Control() for name in jobs}
    last: dict[str, Event] = {}
    for name, event in engine.run_together(jobs, controls=boxes, at_once=len(jobs), rows_per_call=32):
        last[name] = event
        if name == "cancelled" and isinstance(event, Progress) and event.step == 1:
            boxes[name].ask(Stop.CANCEL)
    assert last.pop("cancelled") == Cancelled(None)
    for name, event in last.items():
        if exact:
            assert isinstance(event, Finished) and [pixels(each) for each in event.result.images] == alone[name], name
        else:
            wanted = engine.paint(asked(**JOBS[name])).images
            pairs = zip(images(event), wanted, strict=True)
            assert max(int(np.abs(one - np.asarray(other)).max()) for one, other in pairs) <= 1, name
    assert exact or max(calls) > 8


def test_a_cancelled_job_asks_no_more(engine: Engine, calls: list[int]) -> None:
    control, made = Control(), 0
    for event in engine.run(asked(steps=8, strength=1.0), None, control):
        last = event
        if isinstance(event, Progress) and event.step == 2:
            control.ask(Stop.CANCEL)
            made = len(calls)
    assert last == Cancelled(None) and len(calls) == made


class Ended(BaseException):
    """As if the process had ended."""


class Ending:
    """An engine whose process ends in a step of the nth row."""

    def __init__(self, engine: Engine, row: int) -> None:
        self.engine, self.left, self.begun = engine, row, 0

    def run(self, request: PaintRequest, *values: Any, **named: Any) -> Iterator[Event]:
        self.begun += 1
        for event in self.engine.run(request, *values, **named):
            yield event
            if self.begun == self.left and isinstance(event, Progress):
                raise Ended


def test_a_batch_goes_on_at_the_row_it_was_ended_in(engine: Engine, tmp_path: Path) -> None:
    rows = [{"picture": "a.png", "prompt": each, "steps": 2, "seed": 3} for each in ("a cat", "a lake", "a fox")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    scene().save(tmp_path / "a.png")

    def run(out: str, painter: Any) -> list[BatchEvent]:
        work = Batch(out=tmp_path / out, settings=Settings(), model=NAME)
        return list(run_batch(read_rows(tmp_path / "rows.jsonl", tmp_path / out), work, lambda: painter))

    run("whole", engine)
    with pytest.raises(Ended):
        run("cut", Ending(engine, 2))
    again = Ending(engine, 99)
    kinds = [type(each) for each in run("cut", again) if isinstance(each, RowPainted | RowSkipped)]
    assert kinds == [RowSkipped, RowPainted, RowPainted] and again.begun == 2
    files = {each.name: each.read_bytes() for each in (tmp_path / "whole").glob("*.png")}
    assert len(files) == 3
    assert files == {each.name: each.read_bytes() for each in (tmp_path / "cut").glob("*.png")}


def test_every_strength_is_another_picture(engine: Engine) -> None:
    """Even between two steps, and the first of them start farther from noise than the later ones."""
    strengths = (0.3, 0.34, 0.5, 0.8)
    found = [engine.plan(asked(strength=each)).sampler for each in strengths]
    shares = [each.start / (1 + each.start) for each in found]
    wanted = [1.5 * each / (1 + 0.5 * each) for each in strengths]  # the model's own shift
    assert shares == pytest.approx(wanted, abs=1e-5)
    assert len({painted(engine, asked(strength=each))[0] for each in strengths}) == len(strengths)


def test_what_means_nothing_to_it(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"DDIM.*which a Stable Diffusion 1 \(flow\) model does not have"):
        engine.plan(asked(sampler="DDIM"))


def test_weights_and_negative_texts_mean_what_they_do_elsewhere(engine: Engine, alone: dict[str, list[bytes]]) -> None:
    weighed = engine.paint(asked(prompt="a (cat:1.5)"))
    assert [pixels(each) for each in weighed.images] != alone["plain"] and weighed.warnings == ()
    assert painted(engine, asked(negative_prompt="a lake")) != alone["plain"]
