"""One job from its stored form to its result: what a worker does for each, told as messages while it goes on.

Torch-free, but for the engine and the upscalers that are handed in.
"""

from __future__ import annotations

import base64
import errno
import html
import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from overpaint.errors import OverpaintError
from overpaint.errors import PaintingCancelled as StoppedOnRequest
from overpaint.events import Cancelled, Control, Event, Finished, Painted, Preview, Progress, Stop
from overpaint.extras import INFO_ITEM, ExtrasRequest, ExtrasResult, run_extras
from overpaint.outcome import FinishedBatch, Processed
from overpaint.pictures import source_extras
from overpaint.pixels.resize import Upscaler
from overpaint.request import PaintRequest, Picture
from overpaint.service.jobs import DoneBatch, Job, JobError, JobResult, JobState, result_of_batches
from overpaint.service.painter.results import JobResults, Output, clear_unfinished, keep
from overpaint.service.problems import job_code_of
from overpaint.service.store.forms import plain
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.engine import Engine
    from overpaint.planning.plans import Plan

SECONDS_BETWEEN_STEPS = 0.05
SECONDS_BETWEEN_PREVIEWS = 1.0
LOOKS = 12  # at a job of any length: whoever wants 1 to 4 partial pictures at even distances finds them among these
LARGEST_PREVIEW = 512  # pixels of its longer side
SMALL_TILE = 64

_PARTS = 100  # of one enlarged picture, for progress

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class WorkerBusy(OverpaintError):  # noqa: N818 (an answer)
    """What was asked has to wait for jobs that run, and waited long enough."""


class Tell(Protocol):
    """Sends a message about this job."""

    def __call__(self, kind: str, **values: object) -> None: ...


@dataclass(frozen=True)
class Task:
    """A job as a worker is given it."""

    job: Job
    folder: Path  # where its results go
    done: tuple[DoneBatch, ...] = ()
    control: Control = field(default_factory=Control)
    tell: Tell = lambda kind, **values: None

    @property
    def settings(self) -> Settings:
        """The job's own. What the job before left in the model may not change this one's picture (SIG-11)."""
        settings = Settings.from_json(self.job.settings)
        return replace(settings, quirks=replace(settings.quirks, late_schedule_tables=False))


@dataclass(frozen=True)
class Ended:
    """How a job came out."""

    state: JobState
    result: JobResult = field(default_factory=JobResult)
    error: JobError | None = None
    refused: bool = False  # by the disk: it may go on when there is room
    is_ruined: bool = False  # the device does not answer any more: a new process is needed


def is_refused_by_disk(error: BaseException) -> bool:
    """Whether it is no fault of the job that a file could not be written."""
    return any(isinstance(each, OSError) and each.errno in _DISK for each in (error, error.__cause__))


def error_of(error: Exception) -> JobError:
    """What is said of a failure; of one that nobody foresaw only its kind, for its text may name anything."""
    if isinstance(error, WorkerBusy):
        return JobError(code="deadline", message=str(error))
    if isinstance(error, MemoryError) or str(error).startswith("memory:"):
        return JobError(code="memory", message=str(error) or "memory: there is not enough of it; ask for less")
    if isinstance(error, OSError) and error.errno in _DISK:
        return JobError(code="save", message=f"a file was not written ({error.strerror}): free space on the disk")
    code = job_code_of(error)
    if code == "internal" and not isinstance(error, OverpaintError):
        return JobError(code=code, message=f"the job failed by an error of the program ({type(error).__name__})")
    return JobError(code=code, message=str(error))


Upscalers = Callable[[Settings, Callable[[int, int], None], Callable[[], bool]], Mapping[str, Upscaler]]
"""Gives the upscalers by name; they tell of each tile, and ask before each whether to stop."""


class Painting:
    """A painting job: it is begun among others, hears what the engine tells of it, and so comes to its end.

    It may be begun a second time after a failure, and goes on where the first time ended.
    """

    def __init__(self, engine: Engine, task: Task, request: PaintRequest) -> None:
        from overpaint.painting.sharing import company

        self._task, self._tell = task, task.tell
        self._plan = self._painted = engine.plan(request, task.settings)
        self.company: object = company(self._plan)  # equal for jobs that may go on beside it
        self._results = JobResults(self._plan, task.folder, task.done)
        self._stepped, self._looked = Pace(SECONDS_BETWEEN_STEPS), Looks()
        self._steps = 0
        self._request = request
        self._warnings: tuple[str, ...] = ()

    @property
    def kept(self) -> Sequence[DoneBatch]:
        """What is finished."""
        return self._results.kept

    def begun(self, engine: Engine, warning: str | None = None) -> tuple[Plan, Sequence[FinishedBatch]]:
        """It is told to have started: what is to be painted, and what of it is. A warning makes it a second try."""
        if warning is not None:
            self._warnings = (warning,)
            self._painted = self._smaller(engine)
        plan = self._painted
        crop = None if plan.mask is None or plan.mask.crop is None else list(plan.mask.crop)
        extent = {"images": len(plan.images), "batches": len(plan.batches), "crop": crop}
        self._tell("started", **extent, warnings=list(plan.warnings))
        return plan, tuple(self._results.finished)

    def hear(self, event: Event, engine: Engine) -> Ended | None:
        """What the engine tells of it; its end, if this is that."""
        if isinstance(event, Finished | Cancelled):
            state = JobState.FINISHED if isinstance(event, Finished) else JobState.CANCELLED
            return Ended(state, self._result(event.result))
        if isinstance(event, Progress):
            self._steps = event.steps
        if isinstance(event, Progress) and (self._stepped.is_due() or event.step == event.steps):
            self._tell("progress", step=event.step, steps=event.steps, batch=event.batch)
        elif isinstance(event, Preview) and self._looked.is_due(event.step, self._steps):
            self._tell("preview", step=event.step, png=base64.b64encode(small_png(event.image)).decode("ascii"))
        elif isinstance(event, Painted):
            from overpaint.engine import stages_of

            done = self._results.add(event.batch, stages_of(engine).identity(self._painted))
            self._tell("painted", batch=plain(done))
        return None

    def failed(self, error: Exception) -> Ended:
        """The end of a job that cannot go on, with what was finished before."""
        before = getattr(error, "result", None)
        result = self._result(before if isinstance(before, Processed) else None)
        return Ended(JobState.FAILED, result, error_of(error), is_refused_by_disk(error))

    def _smaller(self, engine: Engine) -> Plan:
        """The same with one picture in each call of the network, and a VAE that may go on in float32."""
        changes = {"batch_cond_uncond": False, "auto_vae_precision": True, "auto_vae_precision_bfloat16": False}
        return engine.plan(self._request.with_changes(exact=True), self._task.settings.with_changes(changes))

    def _result(self, processed: Processed | None) -> JobResult:
        if processed is None:
            return result_of_batches(self.kept, (*self._plan.warnings, *self._warnings))
        return self._results.result(processed, self._warnings)


class Enlarging:
    """A job of extras: each picture counts as a batch."""

    def __init__(self, task: Task, request: ExtrasRequest) -> None:
        self._task, self._tell, self._request = task, task.tell, request
        task.folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(task.folder)
        kept = sorted(task.done, key=lambda each: each.number)
        self._done = [each for each in kept if (task.folder / each.pictures[0].file).is_file()]
        self._stepped = Pace(SECONDS_BETWEEN_STEPS)
        self._warnings: tuple[str, ...] = ()

    @property
    def kept(self) -> Sequence[DoneBatch]:
        """What is finished."""
        return self._done

    def run(self, upscalers: Upscalers) -> Ended:
        """Enlarge what is not enlarged yet."""
        return self._run(upscalers, self._task.settings)

    def run_smaller(self, upscalers: Upscalers, warning: str) -> Ended:
        """The same in small tiles."""
        self._warnings = (warning,)
        settings = self._task.settings.with_changes({"ESRGAN_tile": SMALL_TILE, "ESRGAN_tile_overlap": 8})
        return self._run(upscalers, settings)

    def _run(self, upscalers: Upscalers, settings: Settings) -> Ended:
        total, control = len(self._request.images), self._task.control
        self._tell("started", images=total, batches=total, warnings=[])
        with suppress(StoppedOnRequest):
            if len(self._done) < total and control.message is None:
                known = upscalers(settings, self._progress, lambda: control.message is Stop.CANCEL)
                self._enlarge(settings, known)
        is_cut = len(self._done) < total
        is_cancelled = is_cut and control.message is Stop.CANCEL
        return Ended(JobState.CANCELLED if is_cancelled else JobState.FINISHED, self._result(stopped=is_cut))

    def failed(self, error: Exception) -> Ended:
        """The end of a job that cannot go on, with what was finished before."""
        return Ended(JobState.FAILED, self._result(stopped=True), error_of(error), is_refused_by_disk(error))

    def _enlarge(self, settings: Settings, known: Mapping[str, Upscaler]) -> None:
        first = len(self._done)
        rest = replace(self._request, images=self._request.images[first:])
        for number, result in enumerate(run_extras(rest, settings, known), first):
            picture = keep(self._task.folder, number, self._output(number, result), settings)
            told = tuple(f"images[{number}]: {each}" for each in result.warnings)
            self._done.append(DoneBatch(number=number, pictures=(picture,), notes={"info": result.info}, warnings=told))
            self._tell("painted", batch=plain(self._done[-1]))
            if self._task.control.message is not None:
                return

    def _output(self, number: int, result: ExtrasResult) -> Output:
        """The picture with the infotext it came with, and what was done to it."""
        extras = source_extras(self._request.images[number])
        items = {INFO_ITEM: result.info} if result.fields else None
        return Output(result.image, result.infotext or "", items=items, extras=extras)

    def _progress(self, part: int, parts: int) -> None:
        if self._stepped.is_due():
            number, total = len(self._done), len(self._request.images)
            step = number * _PARTS + part * _PARTS // max(parts, 1)
            self._tell("progress", step=step, steps=total * _PARTS, batch=number)

    def _result(self, *, stopped: bool) -> JobResult:
        pictures = tuple(picture for each in self._done for picture in each.pictures)
        infos = [str(each.notes["info"]) for each in self._done]
        shown = html.escape(infos[-1]) if infos else ""  # EX-3
        return JobResult(
            pictures=pictures,
            infotexts=tuple(each.infotext for each in pictures),
            warnings=(*self._warnings, *(told for each in self._done for told in each.warnings)),
            stopped=stopped,
            extra={"infos": infos, "html_info": f"<p>{shown}</p>"},
        )


class Pace:
    """Lets the first through, and then one in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


class Looks:
    """Lets previews through: one in each part of the job, however quick it is, and otherwise one in so many seconds."""

    def __init__(self) -> None:
        self._pace = Pace(SECONDS_BETWEEN_PREVIEWS)
        self._part = -1

    def is_due(self, step: int, steps: int) -> bool:
        part = step * LOOKS // max(steps, 1)
        is_paced = self._pace.is_due()
        is_new, self._part = part > self._part, max(part, self._part)
        return is_new or is_paced


def small_png(picture: Picture) -> bytes:
    shown = picture.convert("RGB")
    shown.thumbnail((LARGEST_PREVIEW, LARGEST_PREVIEW))
    data = io.BytesIO()
    shown.save(data, format="PNG", compress_level=1)
    return data.getvalue()
