"""`Engine`: models on a device, and the story of a job, told as events.

One thread owns an engine. Everyone else puts messages into a `Control`. Jobs may take turns on it, or share its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from overpaint.errors import OverpaintError, RequestError, RequestTypeError
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Started, Stop
from overpaint.models.families import ModelSpec
from overpaint.models.find import check_backend, check_machine, check_named, choose_device, find_checkpoint
from overpaint.outcome import FinishedBatch, ModelIdentity, Processed, account
from overpaint.painted import with_stories
from overpaint.painting.model_cache import ModelCache, identity_of
from overpaint.painting.pass_networks import Pending
from overpaint.painting.stages import Stages, Step, batches, steps_of
from overpaint.painting.together import Name, Together
from overpaint.pixels.resize import Upscaler
from overpaint.planning.plans import Plan
from overpaint.request import PaintRequest
from overpaint.settings import Settings
from overpaint.watching import Watcher, warn, watching

if TYPE_CHECKING:
    import torch


class Engine:
    """A device with models on it. Use it as a context manager, or call `close`."""

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        settings: Settings | None = None,
        *,
        backend: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_named(checkpoint)
        device, dtype = check_machine(device, dtype)
        if progress is not None and not callable(progress):
            raise RequestTypeError(
                "progress", progress, "give a function of two numbers: tensors loaded, and of how many"
            )
        self.settings = checked(settings) or Settings()
        if backend is not None:
            self.settings = self.settings.with_changes({"backend": backend})
        check_backend(self.settings.backend)
        own = find_checkpoint(checkpoint, self.settings)
        model_cache = ModelCache(choose_device(device), dtype, own, self.settings.backend)
        loaded = model_cache.have(own, self.settings, progress).model
        self._stages: Stages | None = Stages(model_cache, self.settings, loaded)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the weights and everything remembered."""
        if self._stages is not None:
            self._stages.model_cache.close()
        self._stages = None

    @property
    def device(self) -> str:
        """Where the models lie, such as "cpu" or "cuda"."""
        return self._inner.model_cache.device

    @property
    def spec(self) -> ModelSpec:
        """What the model of the latest job is."""
        return self._inner.loaded.spec

    @property
    def model(self) -> ModelIdentity:
        """How it is named in infotexts."""
        return identity_of(self._inner.loaded)

    def upscalers(self, settings: Settings | None = None) -> Mapping[str, Upscaler]:
        """The upscalers of the site's folders, by name; a network is loaded when it is first used."""
        return self._inner.model_cache.upscalers(checked(settings) or self.settings)

    def identity(self, plan: Plan) -> ModelIdentity:
        """How the model of a plan is named in infotexts; it is loaded for that if it is not."""
        return self._inner.identity(plan)

    @staticmethod
    def steps_of(plan: Plan) -> int:
        """The iterations of the sampler that a plan comes to; what its progress counts to."""
        return steps_of(plan)

    @property
    def _inner(self) -> Stages:
        if self._stages is None:
            raise OverpaintError("this engine is closed; make a new one")
        return self._stages

    # -- the story -----------------------------------------------------------------------------------------------

    def paint(self, request: PaintRequest, settings: Settings | None = None, *, progress: Watcher = False) -> Processed:
        """Run a request to its end. What to know about the job is an `OverpaintWarning`, if possible beforehand.

        `progress=True` shows a bar, in a terminal or a notebook; a function is called with each `Progress`.
        """
        told: tuple[str, ...] = ()
        with watching(progress) as step, closing(self.run(request, settings)) as story:
            for event in story:
                if isinstance(event, Started):
                    warn(told := event.warnings)
                elif isinstance(event, Progress):
                    step(event)
                last = event
        assert isinstance(last, Finished)  # nobody holds the control that could stop it
        warn(each for each in last.result.warnings if each not in told)
        return last.result

    def run(
        self,
        request: PaintRequest,
        settings: Settings | None = None,
        control: Control | None = None,
        done: Sequence[FinishedBatch] = (),
    ) -> Generator[Event]:
        """Tell the story as events, going on after the batches in `done`; the last one is `Finished` or `Cancelled`."""
        yield from self.run_plan(self.plan(request, settings), control, done)

    def run_plan(
        self, plan: Plan, control: Control | None = None, done: Sequence[FinishedBatch] = ()
    ) -> Generator[Event]:
        """The same for what `plan` decided: nothing is decided twice."""
        with closing(self._story(plan, control or Control(), list(done))) as story:
            for step in story:
                if not isinstance(step, Pending):  # which a job that goes on sees to by itself
                    yield step

    def together(self, rows_per_call: int | None = None) -> Together[Any]:
        """A place for jobs that go on side by side; see `Together`.

        They may share calls of the denoiser up to so many rows (a picture with a negative text is two); 1 keeps each
        job's calls its own. Left out, the device decides: a GPU by its memory, and on a CPU nobody shares, for there is
        nothing to gain. Shared calls round otherwise, by a level at most; jobs with `exact` never share.
        """
        return Together(self._begin, rows_per_call)

    def run_together(
        self,
        jobs: Mapping[Name, PaintRequest | Plan],
        settings: Settings | None = None,
        *,
        controls: Mapping[Name, Control] | None = None,
        at_once: int = 8,
        rows_per_call: int | None = None,
    ) -> Generator[tuple[Name, Event]]:
        """Tell the stories of several jobs, side by side, as (name, event).

        As many as `at_once` go on at a time; the next begins when one ends. The last event of a job is `Finished`,
        `Cancelled` or `Failed`; the others go on.
        """
        if at_once < 1:
            raise RequestError("at_once", at_once, "at least 1 job has to go on")
        left, boxes = list(jobs), controls or {}
        with self.together(rows_per_call) as running:
            while left or running.names:
                while left and len(running.names) < at_once:
                    name = left.pop(0)
                    running.begin(name, jobs[name], settings, boxes.get(name))
                yield from running.tick()

    def _begin(
        self, job: PaintRequest | Plan, settings: Settings | None, control: Control, done: Sequence[FinishedBatch]
    ) -> Generator[Step]:
        plan = job if isinstance(job, Plan) else self.plan(job, settings)
        yield from self._story(plan, control, list(done))

    def _story(self, plan: Plan, control: Control, done: list[FinishedBatch]) -> Generator[Step]:
        """What happens, and between it what the job waits for."""
        stages = self._inner

        def result() -> Processed:
            return with_stories(account(plan, stages.identity(plan), done, encodings=stages.encodings(plan)))

        yield Started(sum(map(len, plan.batches)), steps_of(plan), plan.warnings)
        with stages.story(plan):
            yield from batches(plan, control, done, paint=stages.painter(plan, control), result=result)
            if control.message is Stop.CANCEL and len(done) < len(plan.batches):
                end: Event = Cancelled(result() if done else None)
            else:
                end = Finished(result())
        yield end

    def plan(self, request: PaintRequest, settings: Settings | None = None) -> Plan:
        """Decide everything. Nothing changes, and only what has to be asked is loaded."""
        if not isinstance(request, PaintRequest):
            raise RequestTypeError("request", request, "give an Img2ImgRequest or a Txt2ImgRequest")
        return self._inner.plan(request, checked(settings) or self.settings)


def stages_of(engine: Engine) -> Stages:
    """What an engine is made of, for the doors of this package that take the stages one by one."""
    return engine._inner


def checked(settings: object) -> Settings | None:
    """Refuse what is often given in their place."""
    if isinstance(settings, Settings) or settings is None:
        return settings
    raise RequestTypeError("settings", settings, "give an overpaint.Settings")
