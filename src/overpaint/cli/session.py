"""From what was asked to a running engine, and from Ctrl-C to a message in its box."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from overpaint.cli.options import GivenOptions
from overpaint.cli.output import Meter, note
from overpaint.errors import PaintingCancelled as StoppedOnRequest
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Stop

if TYPE_CHECKING:
    from types import FrameType

    from overpaint.outcome import ModelIdentity, Processed
    from overpaint.request import PaintRequest
    from overpaint.settings import Settings


class CommandEngine(Protocol):
    """The part of `Engine` that the command uses."""

    @property
    def model(self) -> ModelIdentity: ...

    def run(
        self, request: PaintRequest, settings: Settings | None = None, control: Control | None = None
    ) -> Iterator[Event]: ...


def open_engine(
    asked: GivenOptions, settings: Settings, progress: Callable[[int, int], None]
) -> AbstractContextManager[CommandEngine]:
    """The engine that was asked for. Tests put a painter without weights here."""
    from overpaint.engine import Engine

    device, dtype = asked.text("device", "auto"), asked.text("dtype", "auto")
    return Engine(asked.text("model") or None, device, dtype, settings, progress=progress)


def check(request: PaintRequest, settings: Settings, asked: GivenOptions) -> None:
    """Refuse what cannot be painted, before torch is imported and a model is read."""
    from overpaint.cli.chosen_model import check_is_checkpoint
    from overpaint.models.find import find_checkpoint
    from overpaint.planning import preflight

    check_is_checkpoint(find_checkpoint(asked.text("model") or None, settings))
    machine = {"device": asked.text("device", "auto"), "dtype": asked.text("dtype", "auto")}
    preflight.check(request, settings, asked.text("model") or None, **machine)


class LatePainter:
    """The engine of a batch, opened for the first job that holds; those before it are refused without one."""

    def __init__(self, asked: GivenOptions, settings: Settings, opened: Callable[[], CommandEngine]) -> None:
        self._asked, self._settings, self._opened = asked, settings, opened
        self._engine: CommandEngine | None = None

    def run(
        self, request: PaintRequest, settings: Settings | None = None, control: Control | None = None
    ) -> Iterator[Event]:
        yield from self.engine_for(request, settings or self._settings).run(request, settings, control)

    def engine_for(self, request: PaintRequest, settings: Settings) -> CommandEngine:
        """The engine, opened if it is not; a job that does not hold is refused before."""
        if self._engine is None:
            check(request, settings, self._asked)
            self._engine = self._opened()
        return self._engine


@contextmanager
def stoppable() -> Iterator[Control]:
    """The first Ctrl-C (or SIGTERM) asks the job to stop, the second ends the process."""
    control = Control()

    def stop(number: int, frame: FrameType | None) -> None:
        if control.message is not None:
            raise KeyboardInterrupt
        control.ask(Stop.CANCEL)
        note("stopping after this step; what is finished is kept")

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield control
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def loading(meter: Meter, control: Control) -> Callable[[int, int], None]:
    """Progress of reading a model; a stop is heard here too."""

    def told(done: int, total: int) -> None:
        if control.message is not None:
            raise StoppedOnRequest("stopped while the model was loading")
        meter.update("loading", done, total)

    return told


def run_job(
    painter: CommandEngine, request: PaintRequest, settings: Settings, meter: Meter, control: Control
) -> Processed | None:
    """Run to the end, or to the stop; then what was finished before, if anything."""
    for event in painter.run(request, settings, control):
        if isinstance(event, Progress):
            meter.update("painting", event.step, event.steps)
        elif isinstance(event, Finished | Cancelled):
            return event.result
    return None
