"""Several jobs in one worker: each is what it is alone, and whatever becomes of one changes no neighbour."""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import stages_of
from overpaint.errors import SamplingError
from overpaint.painting.stages import Stages
from overpaint.planning.plans import Plan
from overpaint.service.jobs import Job
from overpaint.service.painter import painting, questions
from overpaint.service.painter.engine_holder import EngineHolder
from overpaint.service.painter.results import JobResults
from overpaint.service.painter.worker import RUINED
from overpaint.service.store.forms import batch_of
from overpaint.service.wire import Message
from overpaint.settings import Settings
from tests.engine.toys import lora
from tests.service.fake_store import FakeStore
from tests.service.painter.worker_tools import InProcess, all_files, carried_out, holder_of
from tests.service.queue.desk_tools import painting as paint_job
from tests.service.queue.desk_tools import source
from tests.tiny import make_tiny_checkpoint

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "DPM++ 2M SDE", "Heun", "DDIM", "UniPC", "LCM")
JOBS, SLOTS = 24, 8
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
NAN = SamplingError("sampler='Euler': the network produced NaN; use dtype='float32'")


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "SECONDS_BETWEEN_STEPS", 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Options with two LoRAs, and an embedding of which the network makes NaN."""
    root = tmp_path_factory.mktemp("site")
    for name in ("loras", "embeddings"):
        (root / name).mkdir()
    for seed, name in enumerate(("red", "blue")):
        lora(root / "loras" / f"{name}.safetensors", seed=seed)
    save_file({"emb_params": torch.full((2, 64), 3e38)}, root / "embeddings" / "zorblevoid.safetensors")
    return Settings(lora_dir=str(root / "loras"), embeddings_dir=str(root / "embeddings"))


@pytest.fixture(scope="module")
def bench(tiny_checkpoint: Path, data: Path) -> Iterator[EngineHolder]:
    made = holder_of(data, tiny_checkpoint, slots=SLOTS)
    yield made
    made.put_away()


@pytest.fixture
def store(data: Path) -> FakeStore:
    return FakeStore(data)


@pytest.fixture
def inside(bench: EngineHolder, tmp_path: Path) -> InProcess:
    return InProcess(bench, tmp_path / "together")


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


def mask_of(store: FakeStore, width: int, height: int) -> str:
    mask = Image.new("L", (width, height))
    mask.paste(255, (8, 8, width - 8, height - 8))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return store.put_picture(file.getvalue())


def random_job(store: FakeStore, site: Settings, number: int, *, exact: bool) -> Job:
    """One that has little in common with its neighbours."""
    draw = random.Random(number)
    size = draw.choice((32, 32, 48))
    fields: dict[str, Any] = {
        "images": [store.put_picture(source(number, size))],
        "prompt": draw.choice(("a cat", "a house " * 50, "one AND two :0.5", "a <lora:red:0.5>", "b <lora:blue:1>")),
        "sampler": draw.choice(SAMPLERS),
        "steps": draw.randint(2, 6),
        "strength": draw.choice((0.4, 0.75, 1.0)),
        "cfg_scale": draw.choice((1.0, 4.0, 7.0)),
        "seed": number,
        "batch_size": draw.choice((1, 1, 2)),
        "iterations": draw.choice((1, 1, 2)),
        "exact": exact,
    }
    if number % 4 == 3:  # which is stopped on its way
        fields |= {"steps": 6, "strength": 1.0}
    if draw.random() < 0.4:
        fields["mask"] = mask_of(store, size, size)
    return paint_job(store, f"j{number}", settings=site, **fields)


def pixels_of(folder: Path) -> dict[str, Any]:
    return {each.name: np.asarray(Image.open(each), dtype=int) for each in folder.iterdir()}


def alone(bench: EngineHolder, job: Job, folder: Path) -> dict[str, bytes]:
    carried_out(bench, job, folder / job.id)
    return all_files(folder / job.id)


# -- each job is what it is alone --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "shared"])
def test_random_jobs_are_what_each_is_alone(
    bench: EngineHolder,
    store: FakeStore,
    site: Settings,
    inside: InProcess,
    tmp_path: Path,
    calls: list[int],
    exact: bool,
) -> None:
    """They begin one after another and end as they do; every fourth is cancelled on its way."""
    jobs = [random_job(store, site, number, exact=exact) for number in range(JOBS)]
    cancelled = {each.id for each in jobs[3::4]}

    def on_message(message: Message) -> None:
        if message["type"] == "progress" and message["job"] in cancelled:
            inside.stop(message["job"])

    inside.on_message = on_message
    ends = inside.run(*jobs)
    assert inside.most_at_once > 4
    assert exact or max(calls) > 4
    assert {name: each["state"] for name, each in ends.items()} == {
        each.id: "cancelled" if each.id in cancelled else "finished" for each in jobs
    }
    for job in (each for each in jobs if each.id not in cancelled):
        wanted, _ = carried_out(bench, job, tmp_path / job.id)
        assert ends[job.id]["result"]["infotexts"] == list(wanted.result.infotexts)
        if exact:
            assert all_files(inside.folder / job.id) == all_files(tmp_path / job.id), job.request
        else:
            found, expected = pixels_of(inside.folder / job.id), pixels_of(tmp_path / job.id)
            assert found.keys() == expected.keys()
            assert max(abs(found[name] - expected[name]).max() for name in found) <= 1, job.request


def test_a_job_alone_is_told_as_ever(
    tiny_checkpoint: Path, data: Path, store: FakeStore, tmp_path: Path, calls: list[int]
) -> None:
    """On a CPU a worker takes one job after another, unasked."""
    own = holder_of(data, tiny_checkpoint)
    inside = InProcess(own, tmp_path / "together", slots=own.slots)
    jobs = [paint_job(store, name, iterations=2) for name in "ab"]
    ends = inside.run(*jobs)
    kinds = [each["type"] for each in inside.story("a")]
    steps = 3 * ["progress"]
    assert [each for each in kinds if each != "preview"] == [
        "taken",
        "started",
        *steps,
        "painted",
        *steps,
        "painted",
        "ended",
    ]
    assert (own.slots, inside.most_at_once, max(calls)) == (1, 1, 2)
    assert [each["job"] for each in inside.heard] == sorted(each["job"] for each in inside.heard)
    for job in jobs:
        assert all_files(inside.folder / job.id) == alone(own, job, tmp_path)
        assert ends[job.id]["state"] == "finished"
    own.put_away()


def test_a_job_is_planned_once(
    store: FakeStore, inside: InProcess, monkeypatch: pytest.MonkeyPatch, site: Settings
) -> None:
    """Also one that waits because it cannot be a neighbour."""
    planned: list[str] = []
    kept = Stages.plan

    def plan(self: Stages, request: Any, settings: Settings) -> Plan:
        planned.append(request.prompt)
        return kept(self, request, settings)

    monkeypatch.setattr(Stages, "plan", plan)
    prompts = ["a", "b <lora:red:1>", "c"]
    inside.run(*(paint_job(store, f"j{i}", prompt=each, settings=site) for i, each in enumerate(prompts)))
    assert planned == prompts


# -- who goes on beside whom -------------------------------------------------------------------------------------------


def started_and_ended(inside: InProcess) -> list[str]:
    return [f"{each['type'][:1]}{each['job']}" for each in inside.heard if each["type"] in ("started", "ended")]


def test_jobs_with_other_adapters_take_turns(store: FakeStore, inside: InProcess, site: Settings) -> None:
    """And let those pass that may go on at once, but not for ever."""
    inside.jobs.slots = 2
    prompts = {"a": "a", "r": "a <lora:red:1>", "b": "b", "c": "c", "d": "d"}
    for name, prompt in prompts.items():
        inside.give(paint_job(store, name, prompt=prompt, settings=site, steps=3 if name != "b" else 5, strength=1.0))
    inside.run()
    order = started_and_ended(inside)
    assert order[:2] == ["sa", "sb"]
    assert order.index("er") < order.index("sd")  # b and c passed it
    assert order.index("er") - order.index("sr") == 1


def extras_job(store: FakeStore, job_id: str, count: int = 1) -> Job:
    request = {"kind": "extras", "images": [store.put_picture(source(n)) for n in range(count)], "upscaler": "Lanczos"}
    return Job(id=job_id, kind="extras", request=request, settings={})


def test_enlarging_has_the_worker_for_itself(store: FakeStore, inside: InProcess, tmp_path: Path) -> None:
    jobs = [paint_job(store, "a", steps=4, strength=1.0), extras_job(store, "x"), paint_job(store, "b")]
    for each in jobs:
        inside.give(each)
    ends = inside.run()
    assert started_and_ended(inside) == ["sa", "ea", "sx", "ex", "sb", "eb"]
    assert all(each["state"] == "finished" for each in ends.values())
    for each in jobs:
        assert all_files(inside.folder / each.id) == alone(inside.bench, each, tmp_path)


def test_what_waits_is_looked_after_while_a_picture_is_enlarged(
    store: FakeStore, inside: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enlarging is not done in ticks: a stop is heard and a question answered between its tiles."""

    def upscalers(settings: Settings, progress: Any, stopped: Callable[[], bool]) -> Mapping[str, Any]:
        inside.give(paint_job(store, "late"))
        inside.stop("late")
        inside.ask(1, "model")
        assert not stopped()
        inside.read()
        assert inside.ends["late"]["state"] == "cancelled"
        assert inside.answers()[1]["value"]["name"]
        return {}

    monkeypatch.setattr(inside.bench, "upscalers", upscalers)
    inside.give(extras_job(store, "x"))
    assert inside.run()["x"]["state"] == "finished"


# -- stops -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "finish early", "skip"])
def test_a_stop_is_for_one_job(store: FakeStore, inside: InProcess, tmp_path: Path, how: str) -> None:
    jobs = [paint_job(store, f"j{n}", seed=n, steps=5, strength=1.0, exact=True, iterations=2) for n in range(3)]

    def on_message(message: Message) -> None:
        if message["type"] == "progress" and message["job"] == "j1" and message["step"] == 2:
            inside.stop("j1", how)

    inside.on_message = on_message
    ends = inside.run(*jobs)
    for number in (0, 2):
        assert all_files(inside.folder / f"j{number}") == alone(inside.bench, jobs[number], tmp_path)
    told = [batch_of(each["batch"]).complete for each in inside.story("j1") if each["type"] == "painted"]
    state = {"cancel": "cancelled"}.get(how, "finished")
    complete: Mapping[str, list[bool]] = {"cancel": [], "finish early": [False], "skip": [False, True]}
    assert (ends["j1"]["state"], told) == (state, complete[how])
    assert ends["j1"]["result"]["stopped"]


def test_a_cancelled_job_does_not_wait_for_its_turn(store: FakeStore, inside: InProcess, site: Settings) -> None:
    """Whether it was looked at already or not."""
    inside.jobs.slots = 2
    inside.give(paint_job(store, "a", steps=30, strength=1.0))
    inside.give(paint_job(store, "r", prompt="a <lora:red:1>", settings=site))
    inside.give(extras_job(store, "x"))
    inside.turn()
    assert [each["type"] for each in inside.story("r")] == ["taken"]
    inside.stop("r")
    inside.stop("x")
    inside.turn()
    assert {name: each["state"] for name, each in inside.ends.items()} == {"r": "cancelled", "x": "cancelled"}
    assert inside.run()["a"]["state"] == "finished"


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, int], None]:
    """Have the sampling of the job with seed 1 fail, so many times, in its second step."""
    whole = Stages.sample_tensors

    def prepare(error: Exception, times: int) -> None:
        left = [times]

        def sample_tensors(self: Stages, plan: Plan, *values: Any, **named: Any) -> Any:
            story = whole(self, plan, *values, **named)
            if plan.images[0].seed != 1 or not left[0]:
                return (yield from story)
            yield next(story)
            left[0] -= 1
            raise error

        monkeypatch.setattr(Stages, "sample_tensors", sample_tensors)

    return prepare


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, NAN], ids=["memory", "nan"])
def test_a_second_try_comes_after_the_neighbours(
    store: FakeStore, inside: InProcess, tmp_path: Path, fails: Callable[[Exception, int], None], error: Exception
) -> None:
    jobs = [paint_job(store, f"j{n}", seed=n, steps=4, strength=1.0, exact=True) for n in range(3)]
    wanted = [alone(inside.bench, each, tmp_path) for each in jobs]
    fails(error, 1)
    for each in jobs:
        inside.give(each)
    ends = inside.run()
    assert started_and_ended(inside) == ["sj0", "sj1", "sj2", "ej0", "ej2", "sj1", "ej1"]
    assert [len(ends[each.id]["result"]["warnings"]) for each in jobs] == [0, 1, 0]
    assert [all_files(inside.folder / each.id) for each in jobs] == wanted


def test_a_job_that_fails_twice_fails_alone(
    store: FakeStore, inside: InProcess, tmp_path: Path, fails: Callable[[Exception, int], None]
) -> None:
    jobs = [paint_job(store, f"j{n}", seed=n, steps=4, strength=1.0, exact=True) for n in range(3)]
    wanted = [alone(inside.bench, each, tmp_path) for each in jobs]
    fails(OUT_OF_MEMORY, 2)
    ends = inside.run(*jobs)
    assert [ends[each.id]["state"] for each in jobs] == ["finished", "failed", "finished"]
    assert ends["j1"]["error"]["code"] == "memory"
    for number in (0, 2):
        assert all_files(inside.folder / f"j{number}") == wanted[number]


def test_a_cancelled_job_is_not_tried_again(
    store: FakeStore, inside: InProcess, fails: Callable[[Exception, int], None]
) -> None:
    fails(OUT_OF_MEMORY, 1)
    inside.give(paint_job(store, "j0", seed=0, steps=20, strength=1.0))
    inside.give(paint_job(store, "j1", seed=1, steps=4, strength=1.0))
    inside.turn()
    inside.turn()
    inside.stop("j1")
    inside.turn()
    assert inside.ends["j1"]["state"] == "cancelled"
    assert inside.run()["j0"]["state"] == "finished"


def test_nan_of_one_job_leaves_the_others_in_half_precision(
    tiny_checkpoint: Path,
    data: Path,
    store: FakeStore,
    tmp_path: Path,
    fails: Callable[[Exception, int], None],
) -> None:
    half, full = (holder_of(data, tiny_checkpoint, dtype=each, slots=2) for each in ("bfloat16", "float32"))
    jobs = [paint_job(store, f"j{n}", seed=n, steps=4, strength=1.0, exact=True) for n in range(4)]
    wanted = [alone(full if n == 1 else half, each, tmp_path / "alone") for n, each in enumerate(jobs)]
    fails(NAN, 1)
    inside = InProcess(half, tmp_path / "together", slots=2)
    for each in jobs:
        inside.give(each)
    inside.run()
    assert started_and_ended(inside)[:5] == ["sj0", "sj1", "sj2", "ej0", "ej2"] or inside.most_at_once == 2
    assert [all_files(inside.folder / each.id) for each in jobs] == wanted
    assert stages_of(half.engine()).backend.dtypes.unet is torch.bfloat16
    for own in (half, full):
        own.put_away()


def test_true_nan_and_requests_that_cannot_be_done(
    store: FakeStore, inside: InProcess, site: Settings, tmp_path: Path
) -> None:
    good = [paint_job(store, f"g{n}", seed=n, settings=site, exact=True, strength=1.0) for n in range(2)]
    bad = {
        "nan": paint_job(store, "nan", prompt="zorblevoid", settings=site, strength=1.0),
        "sampler": paint_job(store, "sampler", sampler="nobody", settings=site),
        "lora": paint_job(store, "lora", prompt="<lora:nobody:1>", settings=site),
        "checkpoint": paint_job(store, "checkpoint", checkpoint="nobody"),
        "picture": paint_job(store, "picture", images=["sha256:" + 64 * "0"]),
    }
    ends = inside.run(good[0], *bad.values(), good[1])
    codes = {name: ends[name]["error"]["code"] for name in bad}
    assert codes == {
        "nan": "sampling",
        "sampler": "invalid",
        "lora": "invalid",
        "checkpoint": "checkpoint",
        "picture": "invalid",
    }
    for each in good:
        assert all_files(inside.folder / each.id) == alone(inside.bench, each, tmp_path)


def test_a_full_disk_breaks_off_the_job_that_it_refused(
    store: FakeStore, inside: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [paint_job(store, f"j{n}", seed=n, iterations=2, exact=True) for n in range(3)]
    wanted = [alone(inside.bench, each, tmp_path) for each in jobs]
    kept = JobResults.add

    def add(self: JobResults, *values: Any) -> Any:
        if self.folder.name == "j1" and self.kept:
            raise OSError(errno.ENOSPC, "No space left on device")
        return kept(self, *values)

    monkeypatch.setattr(JobResults, "add", add)
    ends = inside.run(*jobs)
    assert (ends["j1"]["state"], ends["j1"]["refused"], ends["j1"]["error"]["code"]) == ("failed", True, "save")
    assert [each["file"] for each in ends["j1"]["result"]["pictures"]] == ["0.png"]
    for number in (0, 2):
        assert not ends[f"j{number}"]["refused"]
        assert all_files(inside.folder / f"j{number}") == wanted[number]


@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_ruined_device_ends_the_process(
    tiny_checkpoint: Path,
    data: Path,
    store: FakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[Exception, int], None],
    neighbours: int,
) -> None:
    """With neighbours nobody knows whose call it was: none is told to have failed, and all are tried again."""

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    inside = InProcess(holder_of(data, tiny_checkpoint, slots=SLOTS), tmp_path)
    fails(RuntimeError("CUDA error: an illegal memory access was encountered"), 1)
    for number in range(neighbours + 1):
        inside.give(paint_job(store, f"j{number + 1}", seed=number + 1, steps=4, strength=1.0))
    with pytest.raises(SystemExit) as left:
        inside.run()
    inside.read()
    assert left.value.code == RUINED
    assert list(inside.ends) == ([] if neighbours else ["j1"])


# -- questions ---------------------------------------------------------------------------------------------------------


def test_questions_while_jobs_run(
    store: FakeStore, inside: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs the engine for itself waits for those that run, not for those that wait."""
    other = make_tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    jobs = [paint_job(store, f"j{n}", seed=n, steps=5, strength=1.0, exact=True) for n in range(2)]
    wanted = [alone(inside.bench, each, tmp_path) for each in jobs]
    inside.give(jobs[0])
    inside.turn()
    inside.ask(1, "model")
    inside.ask(2, "embeddings")
    inside.ask(3, "load", checkpoint="nobody")
    inside.ask(4, "load", checkpoint=str(other))
    inside.ask(5, "unload")
    inside.give(jobs[1])
    inside.turn()
    assert sorted(inside.answers()) == [1, 2, 3, 4]
    assert inside.answers()[3]["error"]["code"] == "checkpoint"
    assert inside.answers()[4]["value"]["name"] == "other"
    inside.run()
    kinds = [each["type"] + str(each.get("id", each.get("job"))) for each in inside.heard]
    assert kinds.index("endedj0") < kinds.index("answer5") < kinds.index("startedj1")
    assert [all_files(inside.folder / each.id) for each in jobs] == wanted


@pytest.mark.parametrize("what", ["unload", "reload", "load"])
def test_nobody_waits_for_long_jobs(
    store: FakeStore, inside: InProcess, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, what: str
) -> None:
    monkeypatch.setattr(questions, "PATIENCE", 0.0)
    monkeypatch.setattr(questions, "_ROOM", 1e12)  # which no machine has
    inside.give(paint_job(store, "a", steps=20, strength=1.0))
    inside.turn()
    inside.ask(1, what, checkpoint=str(tiny_checkpoint))
    inside.turn()
    error = inside.answers()[1]["error"]
    assert error["code"] == "deadline"
    assert error["message"].startswith(f"{what}: jobs are running")
    assert not inside.ends
    assert inside.run()["a"]["state"] == "finished"
