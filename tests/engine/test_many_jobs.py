"""Many jobs on one engine, side by side: each picture is what it is alone, whoever the neighbours are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine
from overpaint.errors import RequestError, SamplingError
from overpaint.events import Cancelled, Control, Event, Failed, Finished, Progress, Started, Stop
from overpaint.painting import sharing
from overpaint.painting.sharing import MOST_ROWS, company, jobs_at_once, rows_in, rows_per_call
from overpaint.request import ControlUnit, Hires, PaintRequest, Picture
from tests.engine.conftest import asked, box, pixels, scene
from tests.engine.toys import Site, dreamt, hint

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ SDE", "Heun", "DDIM", "UniPC", "LCM", "DPM2 a")
LORAS = ("", "", "<lora:red:0.5>", "<lora:blue:1>")
JOBS = 24
SHARED = 16  # rows of a shared call


def random_job(number: int) -> PaintRequest:
    """One that has little in common with its neighbours."""
    draw = random.Random(number)
    size = draw.choice(((32, 32), (32, 32), (48, 32)))
    fields: dict[str, Any] = {
        "images": (scene(*size, seed=number),),
        "prompt": f"{draw.choice(('a cat', 'a house ' * 50, 'one AND two :0.5'))} {draw.choice(LORAS)}",
        "sampler": draw.choice(SAMPLERS),
        "steps": draw.randint(2, 6),
        "strength": draw.choice((0.4, 0.75, 1.0)),
        "cfg_scale": draw.choice((1.0, 4.0, 7.0)),
        "seed": number,
        "batch_size": draw.choice((1, 1, 2)),
        "iterations": draw.choice((1, 1, 2)),
        "tiling": draw.random() < 0.15,
    }
    if draw.random() < 0.4:
        fields["mask"] = box(*size)
    return asked(**fields)


def ends(events: Iterator[tuple[Any, Event]]) -> dict[Any, Event]:
    """The last event of each job."""
    return dict(events)


def images(event: Event) -> list[Picture]:
    assert isinstance(event, Finished), event
    return list(event.result.images)


def difference(one: Event, other: Event) -> int:
    pairs = zip(images(one), images(other), strict=True)
    return max(int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max()) for a, b in pairs)


def alone(engine: Engine, request: PaintRequest) -> Event:
    *_, last = engine.run(request)
    return last


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each call of the denoiser."""
    made: list[int] = []
    kept = TorchBackend.denoise

    def denoise(self: TorchBackend, x: torch.Tensor, *values: Any, **named: Any) -> torch.Tensor:
        made.append(len(x))
        return kept(self, x, *values, **named)

    monkeypatch.setattr(TorchBackend, "denoise", denoise)
    return made


# -- what a picture depends on -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_by_one(site_engine: Engine) -> dict[int, Event]:
    return {number: alone(site_engine, random_job(number)) for number in range(JOBS)}


@pytest.mark.parametrize("exact", [False, True], ids=["shared", "exact"])
def test_many_jobs_are_what_each_is_alone(
    site_engine: Engine, one_by_one: dict[int, Event], calls: list[int], exact: bool
) -> None:
    """Every fourth is cancelled on its way; the others are what they are alone."""
    jobs = {number: random_job(number).with_changes(exact=exact) for number in range(JOBS)}
    boxes = {number: Control() for number in jobs}
    last: dict[int, Event] = {}
    running = site_engine.run_together(jobs, controls=boxes, at_once=JOBS, rows_per_call=SHARED)
    for number, event in running:
        last[number] = event
        if number % 4 == 3 and isinstance(event, Progress) and event.step == 1:
            boxes[number].ask(Stop.CANCEL)
    assert sorted(last) == list(jobs)
    for number, event in last.items():
        if number % 4 == 3:
            assert event == Cancelled(None)
        elif exact:
            wanted = images(alone(site_engine, jobs[number]))
            assert [pixels(each) for each in images(event)] == [pixels(each) for each in wanted], number
        else:
            assert difference(event, one_by_one[number]) <= 1, number
    assert exact or max(calls) > 4


def test_nobody_shares_on_a_cpu_unasked(site_engine: Engine, one_by_one: dict[int, Event]) -> None:
    last = ends(site_engine.run_together({number: random_job(number) for number in range(6)}))
    for number, event in last.items():
        wanted = [pixels(each) for each in images(one_by_one[number])]
        assert [pixels(each) for each in images(event)] == wanted


def test_hires_and_refiners_share_too(site_engine: Engine, calls: list[int]) -> None:
    jobs: dict[str, PaintRequest] = {
        "hires": dreamt(hires=Hires(scale=1.5, steps=2), seed=3),
        "large": asked(images=(scene(48, 48),), steps=6, strength=1.0),
        "refined": asked(refiner="other", refiner_switch_at=0.5, steps=4, strength=1.0),
        "other": asked(checkpoint="other", steps=6, strength=1.0, seed=4),
        "plain": asked(seed=5),
        "followed": asked(controls=(ControlUnit(model="edges", image=hint()),)),
    }
    wanted = {name: alone(site_engine, request) for name, request in jobs.items()}
    calls.clear()
    last = ends(site_engine.run_together(jobs, rows_per_call=SHARED))
    for name, event in last.items():
        assert difference(event, wanted[name]) <= 1, name
        assert images(event)[0].size == images(wanted[name])[0].size
    assert calls.count(4) >= 4


# -- who shares --------------------------------------------------------------------------------------------------------


def test_the_calls_are_shared(engine: Engine, calls: list[int]) -> None:
    """Four jobs with other samplers and steps: as many calls as the longest has."""
    jobs = {
        name: asked(sampler=name, steps=steps, strength=1.0, seed=steps)
        for name, steps in (("Euler", 3), ("DPM++ 2M", 4), ("DDIM", 5), ("LCM", 6))
    }
    assert all(isinstance(each, Finished) for each in ends(engine.run_together(jobs, rows_per_call=64)).values())
    assert calls == [8, 8, 8, 6, 4, 2]


def test_calls_have_a_bound(engine: Engine, calls: list[int]) -> None:
    jobs = {seed: asked(seed=seed, strength=1.0) for seed in range(5)}
    ends(engine.run_together(jobs, rows_per_call=5))
    assert calls == [4, 4, 2] * 3


@pytest.mark.parametrize(
    "apart",
    [{"exact": True}, {"overrides": {"batch_cond_uncond": False}}, {"tiling": True}, {"prompt": "a <lora:red:1>"}],
    ids=str,
)
def test_who_stays_apart(site_engine: Engine, calls: list[int], apart: dict[str, Any]) -> None:
    jobs = {"plain": asked(), "apart": asked(**apart)}
    wanted = {name: alone(site_engine, request) for name, request in jobs.items()}
    calls.clear()
    last = ends(site_engine.run_together(jobs, rows_per_call=SHARED))
    assert max(calls) == 2
    for name, event in last.items():
        assert [pixels(each) for each in images(event)] == [pixels(each) for each in images(wanted[name])]


def test_a_call_that_is_too_large_is_made_apart_and_then_smaller(
    engine: Engine, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = TorchBackend.denoise

    def denoise(self: TorchBackend, x: torch.Tensor, *values: Any, **named: Any) -> torch.Tensor:
        if len(x) > 4:
            calls.append(-len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return counted(self, x, *values, **named)

    monkeypatch.setattr(TorchBackend, "denoise", denoise)
    last = ends(engine.run_together({seed: asked(seed=seed, strength=1.0) for seed in range(4)}, rows_per_call=64))
    assert all(isinstance(each, Finished) for each in last.values())
    assert calls == [-8, 2, 2, 2, 2, 4, 4, 4, 4]


def test_the_policy() -> None:
    assert rows_per_call(torch.device("cpu"), 64 * 64) == 1
    assert rows_in(0, 64 * 64) == 1
    assert rows_in(2**40, 64 * 64) == MOST_ROWS
    small, large = (rows_in(4 * 2**30, side * side) for side in (64, 128))
    assert 1 < large < small < MOST_ROWS


def test_how_many_jobs_a_worker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs_at_once(torch.device("cpu"), 512) == 1
    for gigabytes, sides in ((1, (1, 1)), (4, (4, 1)), (16, (8, 4)), (80, (8, 8))):
        monkeypatch.setattr(sharing, "rows_per_call", lambda device, cells: rows_in(gigabytes * 2**30, cells))  # noqa: B023
        assert tuple(jobs_at_once(torch.device("cuda"), side) for side in (512, 1024)) == sides


def test_who_goes_on_side_by_side(site_engine: Engine) -> None:
    """What a job may differ in from its neighbours, and what not."""
    plain = company(site_engine.plan(asked()))
    alike: tuple[dict[str, Any], ...] = (
        {"sampler": "DDIM", "steps": 9, "seed": 3, "prompt": "else", "iterations": 3, "batch_size": 2, "exact": True},
        {"mask": box(32, 32), "strength": 0.3},
        {"images": (scene(48, 48),)},
    )
    for fields in alike:
        assert company(site_engine.plan(asked(**fields))) == plain, fields
    apart: tuple[dict[str, Any], ...] = (
        {"prompt": "a <lora:red:1>"},
        {"prompt": "a <lora:red:0.5>"},
        {"checkpoint": "other"},
        {"tiling": True},
        {"refiner": "other", "refiner_switch_at": 0.5},
        {"controls": (ControlUnit(model="edges", image=hint()),)},
        {"overrides": {"sd_vae": "pale"}},
    )
    assert len({plain, *(company(site_engine.plan(asked(**fields))) for fields in apart)}) == len(apart) + 1


def test_a_job_can_be_dropped(engine: Engine, calls: list[int]) -> None:
    """By whoever is told of it, in the midst of a tick."""
    last: dict[str, Event] = {}
    with engine.together(SHARED) as together:
        for name in ("a", "b", "c"):
            together.begin(name, asked(strength=1.0))
        while together.names:
            for name, event in together.tick():
                last[name] = event
                if name == "a" and isinstance(event, Progress):
                    together.drop("a")
                    together.drop("b")
    assert isinstance(last["a"], Progress)
    assert isinstance(last["b"], Started | Progress)
    assert difference(last["c"], alone(engine, asked(strength=1.0))) <= 1
    assert calls[:3] == [6, 2, 2]


# -- coming and going --------------------------------------------------------------------------------------------------


def test_jobs_join_while_others_run(engine: Engine, calls: list[int]) -> None:
    requests = {seed: asked(seed=seed, strength=1.0, steps=6) for seed in range(3)}
    wanted = {seed: alone(engine, request) for seed, request in requests.items()}
    calls.clear()
    last: dict[int, Event] = {}
    with engine.together(SHARED) as together:
        for seed, request in requests.items():
            together.begin(seed, engine.plan(request) if seed else request)
            last.update(together.tick())
            last.update(together.tick())
        joined = together.names
        while together.names:
            last.update(together.tick())
    assert joined == (0, 1, 2)
    assert all(difference(last[seed], wanted[seed]) <= 1 for seed in requests)
    assert calls == [2, 2, 4, 4, 6, 6, 4, 4, 2, 2]


def test_as_many_as_asked_at_once(engine: Engine) -> None:
    running: set[int] = set()
    most = 0
    for name, event in engine.run_together({seed: asked(seed=seed) for seed in range(5)}, at_once=2):
        running = running | {name} if isinstance(event, Started) else running
        most = max(most, len(running))
        running = running - {name} if isinstance(event, Finished) else running
    assert (most, running) == (2, set())
    with pytest.raises(RequestError, match="at_once"):
        next(engine.run_together({}, at_once=0))


def test_a_name_is_for_one_job(engine: Engine) -> None:
    with engine.together() as together:
        together.begin("a", asked())
        with pytest.raises(RequestError, match="name='a'"):
            together.begin("a", asked())


def test_a_cancelled_job_asks_nothing_more(engine: Engine, calls: list[int]) -> None:
    box_of_one = Control()
    last: dict[str, Event] = {}
    for name, event in engine.run_together(
        {"stopped": asked(steps=8, strength=1.0), "other": asked(strength=1.0)},
        controls={"stopped": box_of_one},
        rows_per_call=SHARED,
    ):
        last[name] = event
        if name == "stopped" and isinstance(event, Progress):
            box_of_one.ask(Stop.CANCEL)
    assert last["stopped"] == Cancelled(None)
    assert difference(last["other"], alone(engine, asked(strength=1.0))) <= 1
    assert calls[:3] == [4, 2, 2]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_failing_job_ends_alone(site_engine: Engine, calls: list[int], tmp_path: Path) -> None:
    """One by an embedding of which the network makes NaN in the midst of a shared call, two before they begin."""
    save_file(
        {"emb_params": torch.full((2, 64), 3e38)}, tmp_path / "zorblevoid.safetensors"
    )  # finite, but not for long
    settings = site_engine.settings.with_changes({"embeddings_dir": str(tmp_path)})
    jobs = {
        "good": asked(strength=1.0),
        "nan": asked(prompt="zorblevoid", strength=1.0),
        "plan": asked(prompt="<lora:nobody:1>"),
        "sampler": asked(sampler="nobody"),
        "also good": asked(seed=2, strength=1.0),
    }
    last = ends(site_engine.run_together(jobs, settings, rows_per_call=SHARED))
    failed = {name: event.error for name, event in last.items() if isinstance(event, Failed)}
    assert sorted(failed) == ["nan", "plan", "sampler"]
    assert "NaN" in str(failed["nan"])
    assert "nobody" in str(failed["plan"])
    assert calls == [6, 6, 6]
    for name in ("good", "also good"):
        assert difference(last[name], alone(site_engine, jobs[name])) <= 1


def test_a_sampler_that_fails_in_a_shared_call_ends_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint.painting.drive import Run

    kept = Run.answer

    def answer(self: Run, estimate: Any) -> None:
        if self.denoiser.guidance.scale == 3.0 and self.calls == 1:
            raise SamplingError("sampler: broken")
        kept(self, estimate)

    monkeypatch.setattr(Run, "answer", answer)
    jobs = {"bad": asked(cfg_scale=3.0, strength=1.0), "good": asked(strength=1.0)}
    last = ends(engine.run_together(jobs, rows_per_call=SHARED))
    assert isinstance(last["bad"], Failed)
    assert str(last["bad"].error) == "sampler: broken"
    assert difference(last["good"], alone(engine, jobs["good"])) <= 1


def test_a_file_that_changes_between_turns_changes_no_job_that_goes_on(
    site_engine: Engine, site: Site, tmp_path: Path
) -> None:
    """Jobs in turns put their adapters on again and again; they are the ones that the job began with."""
    source = site.folder("loras")
    for name in ("red", "blue"):
        (tmp_path / f"{name}.safetensors").write_bytes((source / f"{name}.safetensors").read_bytes())
    settings = site_engine.settings.with_changes({"lora_dir": str(tmp_path)})
    jobs = {name: asked(prompt=f"a <lora:{name}:1>", strength=1.0) for name in ("red", "blue")}
    wanted = {name: pixels(site_engine.paint(request, settings).images[0]) for name, request in jobs.items()}
    last: dict[str, Event] = {}
    for name, event in site_engine.run_together(jobs, settings):
        last[name] = event
        if name == "blue" and isinstance(event, Progress) and event.step == 1:
            blue = (source / "blue.safetensors").read_bytes()
            (tmp_path / "red.safetensors").write_bytes(blue)
    assert {name: pixels(images(event)[0]) for name, event in last.items()} == wanted


def test_a_plan_is_painted_without_being_made_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = alone(engine, asked())
    plan = engine.plan(asked())
    monkeypatch.setattr("overpaint.painting.stages.make_plan", lambda *_: pytest.fail("planned again"))
    *_, last = engine.run_plan(plan)
    assert difference(last, wanted) == 0
