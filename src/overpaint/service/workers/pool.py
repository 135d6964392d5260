"""The workers of one server, one on each device: what they have in memory, and who of them answers a question."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overpaint.service.config import ServeConfig
from overpaint.service.job_models import OWN_MODEL, model_name, model_of
from overpaint.service.jobs import Job, JobError, Json, WorkerStatus
from overpaint.service.workers.port import WorkerGone, WorkerPort
from overpaint.service.workers.worker_process import COMMAND, WorkerProcess

_THREADS = "OMP_NUM_THREADS"
_LOOK_EVERY = 0.5
OF_ALL = ("unload", "reload", "memory")  # questions that every worker is asked
_MEMORY_PATIENCE = 1.0  # seconds that a worker has to say what it takes
_CRASHED = "the worker ended each time it was started: the lines above say why"


def local_workers(config: ServeConfig, command: Sequence[str] = COMMAND) -> list[WorkerPort]:
    """A process for each device; several share the machine's cores."""
    devices = config.worker_devices
    is_shared = len(devices) > 1 and _THREADS not in os.environ
    variables = {_THREADS: str(max(1, (os.cpu_count() or 1) // len(devices)))} if is_shared else {}
    return [
        WorkerProcess(config, command=command, name=str(number), device=device, variables=variables)
        for number, device in enumerate(devices)
    ]


class WorkerPool:
    """All of a server's workers. `checkpoint` is the one that each starts with."""

    def __init__(self, workers: Sequence[WorkerPort], checkpoint: str) -> None:
        self.workers = tuple(workers)
        self._own = frozenset({OWN_MODEL, model_name(checkpoint)})
        self._models = {each.name: self._own for each in workers}
        self._coming: dict[str, frozenset[str]] = {}  # by worker: of the job that it was given last

    def open(self, changed: Callable[[], None]) -> None:
        """Start them; `changed` is called when one gets ready or is gone."""
        for each in self.workers:
            each.open(lambda worker=each: self._hear(worker, changed))  # type: ignore[misc]

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self.workers))

    def named(self, name: str) -> WorkerPort:
        return next(each for each in self.workers if each.name == name)

    @property
    def state(self) -> str:
        """READY if any is, else BUSY, STARTING or UNHEALTHY in that order."""
        states = {each.state for each in self.workers}
        return next(each for each in ("READY", "BUSY", "STARTING", "UNHEALTHY") if each in states)

    def takes_jobs(self, worker: WorkerPort) -> bool:
        """One that can paint nothing says so of each job that it gets; it gets some only if there is no other."""
        is_last = all(each.unfit is not None or not each.is_prepared for each in self.workers)
        return worker.is_prepared and (worker.unfit is None or is_last)

    def models(self, worker: WorkerPort) -> frozenset[str]:
        """What it has in memory, by the names of the policy."""
        return self._models[worker.name]

    def give(self, worker: WorkerPort, job: Job) -> bool:
        """It gets a job; whether it has to read another checkpoint for that."""
        model = model_of(job)
        if model is None:
            return False
        loads = model not in self._models[worker.name]
        self._have(worker, model)
        return loads

    async def unfit(self) -> JobError | None:
        """Why a worker cannot paint at all, as soon as that is known of any; None once all can."""
        waiting = [asyncio.create_task(_unfit(each, len(self.workers))) for each in self.workers]
        try:
            for each in asyncio.as_completed(waiting):
                if (error := await each) is not None:
                    return error
            return None
        finally:
            for task in waiting:
                task.cancel()

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        """A question, to whom it concerns: all, the one that has the checkpoint, or one that has time."""
        if what in OF_ALL:
            answers = await self._ask_all(what, values)
            return merged_memory(answers) if what == "memory" else answers[0]
        checkpoint = (values or {}).get("checkpoint")
        model = model_name(checkpoint) if what == "load" and checkpoint else None
        worker = min(self.workers, key=lambda each: self._reluctance(each, model))
        answer = await worker.ask(what, values)
        if model is not None:
            self._have(worker, model)
        return answer

    async def memory(self) -> list[Json | None]:
        """What each takes, of those that say so soon."""
        return await asyncio.gather(*map(_memory, self.workers))

    def statuses(self, jobs: Mapping[str, Sequence[str]], memory: Sequence[Json | None] = ()) -> list[WorkerStatus]:
        """Each worker as of now; `jobs` are the running ones, by worker."""
        return [
            WorkerStatus(
                id=each.name,
                device=each.device,
                state=each.state,
                model=each.model,
                jobs=tuple(jobs.get(each.name, ())),
                slots=each.slots,
                deaths=each.deaths,
                switches=each.switches,
                encodings=each.encodings,
                memory=taken,
            )
            for each, taken in zip(self.workers, memory or (None,) * len(self.workers), strict=True)
        ]

    async def _ask_all(self, what: str, values: Mapping[str, Any] | None) -> list[Any]:
        """The answers of those that are there; where nobody is, or one refuses, that is raised."""
        if what == "unload":
            self._models = dict.fromkeys(self._models, frozenset())
            self._coming.clear()
        asked = await asyncio.gather(*(each.ask(what, values) for each in self.workers), return_exceptions=True)
        failed = [each for each in asked if isinstance(each, BaseException)]
        answers = [each for each in asked if not isinstance(each, BaseException)]
        refused = [each for each in failed if not isinstance(each, WorkerGone)]
        if refused or not answers:
            raise (refused or failed)[0]
        return answers

    def _reluctance(self, worker: WorkerPort, model: str | None) -> tuple[bool, bool, bool]:
        lacks = model is not None and model not in self._models[worker.name]
        is_away = not worker.is_prepared or worker.unfit is not None
        return (is_away, lacks, worker.state == "BUSY")

    def _have(self, worker: WorkerPort, model: str) -> None:
        """From now on, at least; what else it holds on to, it says when a job has ended."""
        known = self._own if model in self._own else frozenset({model})
        self._coming[worker.name] = known
        self._models[worker.name] = known if worker.holds is None else known | self._models[worker.name]

    def _hear(self, worker: WorkerPort, changed: Callable[[], None]) -> None:
        if not worker.is_prepared:  # the next process starts with the server's own
            self._models[worker.name] = self._own
            self._coming.pop(worker.name, None)
        elif worker.holds is not None:
            held = frozenset(map(model_name, worker.holds))
            own = self._own if held & self._own else frozenset()
            self._models[worker.name] = held | own | self._coming.get(worker.name, frozenset())
        changed()


async def _unfit(worker: WorkerPort, count: int) -> JobError | None:
    while True:
        try:
            await asyncio.wait_for(worker.prepared(), _LOOK_EVERY)
        except asyncio.TimeoutError:
            if worker.state != "UNHEALTHY":
                continue
            return JobError(code="crashed", message=_CRASHED)
        error = worker.unfit
        if error is None or count == 1:
            return error
        return JobError(code=error.code, message=f"device {worker.device!r}: {error.message}")


async def _memory(worker: WorkerPort) -> Json | None:
    """What it takes, if it says so soon."""
    if not worker.is_prepared:
        return None
    try:
        told = await asyncio.wait_for(worker.ask("memory"), _MEMORY_PATIENCE)
    except Exception:  # it is busy, gone, or has none to tell of
        return None
    return told if isinstance(told, dict) else None


def merged_memory(answers: Sequence[Any]) -> Any:
    """One answer for all workers in the form of one: what each takes is added up, what the machine has is told once."""
    told = [each for each in answers if isinstance(each, dict)]
    if len(told) < 2:
        return answers[0]
    ram = {**told[0].get("ram", {})}
    own = [each.get("ram", {}).get("used") for each in told]
    if None not in own:
        ram["used"] = sum(own)
    cards = [each["cuda"] for each in told if isinstance(each.get("cuda"), dict) and "error" not in each["cuda"]]
    return {**told[0], "ram": ram, "cuda": _added(cards) if cards else told[0].get("cuda")}


def _added(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: _added([each[name] for each in parts]) for name in parts[0]}
    return sum(parts)
