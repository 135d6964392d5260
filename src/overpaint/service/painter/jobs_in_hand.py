"""The jobs that a worker was given: which go on side by side, which wait for others to end, and how each ends.

Jobs begin in the order in which they came. One that cannot be the neighbour of those that go on waits, and lets a few
pass that can. Enlarging, sequences and second tries have the worker for themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from overpaint.errors import OverpaintError, SamplingError
from overpaint.events import Event, Failed, Stop
from overpaint.extras import ExtrasRequest
from overpaint.pixels.resize import Upscaler
from overpaint.service.jobs import JobState, result_of_batches
from overpaint.service.logs import LOGGER, line
from overpaint.service.painter.engine_holder import EngineHolder
from overpaint.service.painter.painting import Ended, Enlarging, Painting, Task, error_of, is_refused_by_disk
from overpaint.service.painter.sequenced import SequencePainting
from overpaint.service.requests import AnyRequest, loaded_request
from overpaint.service.sequence_orders import SequenceOrder
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.engine import Engine

Work: TypeAlias = Painting | Enlarging | SequencePainting
Trouble = Literal["memory", "nan"]

_SAID: Mapping[Trouble, str] = {
    "memory": "memory: there was too little for the whole job at once; it was painted in smaller parts",
    "nan": "precision: the network produced NaN, so the job was painted again in float32",
}

log = logging.getLogger(LOGGER)


@dataclass(eq=False)
class JobInHand:
    """A job that has not ended."""

    task: Task
    work: Work | None = None  # from when it was looked at
    trouble: Trouble | None = None  # that it met; it is tried once more, or was
    passed: int = 0  # by how many that came later

    @property
    def id(self) -> str:
        return self.task.job.id

    @property
    def is_alone(self) -> bool:
        """Whether it goes on without neighbours."""
        return self.task.job.kind != "paint" or self.trouble is not None

    @property
    def is_cancelled(self) -> bool:
        return self.task.control.message is Stop.CANCEL


class TellEnd(Protocol):
    """Told of each job that has ended, and whether others ran when it did."""

    def __call__(self, task: Task, ended: Ended, *, has_neighbours: bool) -> None: ...


class JobsInHand:
    """All of them. One thread owns it, as it owns the engine.

    `opened` is called when a job had the engine made, and `look` within work that takes long and is not done in ticks.
    """

    def __init__(
        self,
        holder: EngineHolder,
        ended: TellEnd,
        *,
        opened: Callable[[], object] = lambda: None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._holder, self._ended, self._opened, self._look = holder, ended, opened, look
        self._waiting: list[JobInHand] = []
        self._running: dict[str, JobInHand] = {}
        self.slots = 1  # how many may run

    @property
    def are_running(self) -> bool:
        return bool(self._running)

    @property
    def are_there(self) -> bool:
        return bool(self._running or self._waiting)

    def add(self, task: Task) -> None:
        """Have a job join; it begins when it may."""
        self._waiting.append(JobInHand(task))

    def go_on(self) -> None:
        """Have each job that runs go on by one call of the network."""
        if self._running:
            for job_id, event in self._holder.together().tick():
                self._hear(self._running[job_id], event)
        if not self._running:
            self._holder.use_usual()  # after a second try

    def end_cancelled(self) -> None:
        """A job that nobody wants any more does not wait for its turn."""
        for each in [each for each in self._waiting if each.is_cancelled]:
            done = each.work.kept if each.work is not None else each.task.done
            self._end(each, Ended(JobState.CANCELLED, result_of_batches(done)))

    # -- who may begin -------------------------------------------------------------------------------------------

    def due(self) -> Iterator[JobInHand]:
        """Those whose turn it is, as far as they may be neighbours; each has begun before the next is asked for."""
        held_up: list[JobInHand] = []
        for each in list(self._waiting):
            if len(self._running) >= self.slots or any(other.is_alone for other in self._running.values()):
                return
            if each.is_alone and self._running:
                return
            if not self._is_looked_at(each):
                continue
            if self._fits(each):
                for other in held_up:
                    other.passed += 1
                yield each
                if each.is_alone:
                    return
            elif each.passed >= self.slots:
                return
            else:
                held_up.append(each)

    def _is_looked_at(self, each: JobInHand) -> bool:
        """Its pictures are loaded and it is planned, or it ends."""
        if each.work is not None:
            return True
        task, holder = each.task, self._holder
        task.tell("taken")
        had_engine = holder.has_engine
        try:
            request = loaded_request(task.job.request, holder.picture)
            engine = holder.engine()
            if not had_engine:
                self._opened()
            each.work = _work_of(engine, task, request)
        except Exception as error:
            ended = Ended(JobState.FAILED, error=error_of(error), refused=is_refused_by_disk(error))
            self._fail(each, error, ended)
        return each.work is not None

    def _fits(self, each: JobInHand) -> bool:
        """Whether it may be the neighbour of those that run."""
        return all(_company_of(each) == _company_of(other) for other in self._running.values())

    def begin(self, each: JobInHand) -> None:
        """Have one that is due go on beside the others, or do it at once where it is alone."""
        self._waiting.remove(each)
        self._running[each.id] = each
        try:
            self._prepare(each)
            if isinstance(each.work, Painting):
                warning = _SAID[each.trouble] if each.trouble is not None else None
                plan, done = each.work.begun(self._holder.engine(), warning)
                self._holder.together().begin(each.id, plan, None, each.task.control, done)
                return
            ended = self._run_alone(each)
        except Exception as error:
            self._met(each, error)
            return
        self._end(each, ended)

    def _prepare(self, each: JobInHand) -> None:
        """Before a second try."""
        if each.trouble is not None:
            self._holder.tidy(self._holder.engine().device)
        if each.trouble == "nan" and not isinstance(each.work, Enlarging):
            self._holder.use_float32()

    # -- what becomes of them ------------------------------------------------------------------------------------

    def _run_alone(self, each: JobInHand) -> Ended:
        """What is not done in ticks: enlarging, and the steps of a sequence."""
        work, warning = each.work, _SAID[each.trouble] if each.trouble is not None else None
        if isinstance(work, SequencePainting):
            return work.run(self._holder.engine(), warning, self._look)
        assert isinstance(work, Enlarging)
        return work.run(self._upscalers) if warning is None else work.run_smaller(self._upscalers, warning)

    def _upscalers(
        self, settings: Settings, progress: Callable[[int, int], None], stopped: Callable[[], bool]
    ) -> Mapping[str, Upscaler]:
        def is_stopped() -> bool:
            self._look()
            return stopped()

        return self._holder.upscalers(settings, progress, is_stopped)

    def _hear(self, each: JobInHand, event: Event) -> None:
        assert isinstance(each.work, Painting)
        if isinstance(event, Failed):
            self._met(each, event.error)
            return
        try:
            ended = each.work.hear(event, self._holder.engine())
        except Exception as error:
            self._holder.together().drop(each.id)
            self._met(each, error)
            return
        if ended is not None:
            self._end(each, ended)

    def _met(self, each: JobInHand, error: Exception) -> None:
        """An error, which ends a job or has it tried once more, when its neighbours have ended.

        NOTE: it is not kept, for its frames hold the tensors that were too large.
        """
        assert each.work is not None
        trouble = trouble_of(error) if each.trouble is None and not each.is_cancelled else None
        if trouble is None:
            self._fail(each, error, each.work.failed(error))
            return
        log.warning(line("smaller", job=each.id, trouble=trouble, error=error))
        each.trouble = trouble
        del self._running[each.id]
        self._waiting.insert(0, each)

    def _fail(self, each: JobInHand, error: Exception, ended: Ended) -> None:
        foreseen = isinstance(error, OverpaintError)
        log.error(line("failed", job=each.id, error=error if foreseen else None), exc_info=None if foreseen else error)
        self._end(each, replace(ended, is_ruined=_is_ruined(error)))

    def _end(self, each: JobInHand, ended: Ended) -> None:
        if self._running.pop(each.id, None) is None:
            self._waiting.remove(each)
        self._ended(each.task, ended, has_neighbours=self.are_running)


def _work_of(engine: Engine, task: Task, request: AnyRequest) -> Work:
    if isinstance(request, ExtrasRequest):
        return Enlarging(task, request)
    if isinstance(request, SequenceOrder):
        return SequencePainting(engine, task, request.sequence(task.settings))
    return Painting(engine, task, request)


def _company_of(each: JobInHand) -> object:
    return each.work.company if isinstance(each.work, Painting) else None


def trouble_of(error: BaseException) -> Trouble | None:
    """What a second try might help against."""
    from overpaint.models.memory import is_out_of_memory

    if any(each is not None and is_out_of_memory(each) for each in (error, error.__cause__)):
        return "memory"
    return "nan" if isinstance(error, SamplingError) and "NaN" in str(error) else None


def _is_ruined(error: Exception) -> bool:
    """After such an error a GPU refuses everything that this process asks."""
    return any("CUDA error" in str(each) for each in (error, error.__cause__) if isinstance(each, RuntimeError))
