"""A painter without weights: the events and results of an engine, flat colours for pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from PIL import Image

from overpaint.cli.surroundings import surroundings_of
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Started, Stop
from overpaint.finish import FinishedPicture
from overpaint.models.families import SD1_SPEC
from overpaint.outcome import FinishedBatch, ModelIdentity, account
from overpaint.pixels.resize import Upscaler
from overpaint.planning.plan import plan
from overpaint.planning.plans import Plan
from overpaint.request import PaintRequest
from overpaint.settings import Settings

STEPS = 3


class FakePainter:
    """Counts its jobs in `requests`; `on_step` hears of every step and may raise."""

    def __init__(self, on_step: Callable[[int], None] | None = None) -> None:
        self.requests: list[PaintRequest] = []
        self.settings: list[Settings | None] = []
        self.model = ModelIdentity("fake", "0123456789")
        self._on_step = on_step or (lambda step: None)
        self._steps = 0

    def __enter__(self) -> FakePainter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def run(
        self, request: PaintRequest, settings: Settings | None = None, control: Control | None = None
    ) -> Iterator[Event]:
        self.requests.append(request)
        self.settings.append(settings)
        decided = plan(request, settings, SD1_SPEC, surroundings_of(request, settings or Settings()))
        total = STEPS * len(decided.batches)
        yield Started(len(decided.images), total, decided.warnings)
        done: list[FinishedBatch] = []
        for batch in decided.batches:
            for _ in range(STEPS):
                if control is not None and control.message is Stop.CANCEL:
                    yield Cancelled(account(decided, self.model, done) if done else None)
                    return
                self._steps += 1
                self._on_step(self._steps)
                yield Progress(self._steps, total, 1.0)
            last = decided.hires.plan if decided.hires is not None else decided
            size = (last.geometry.width, last.geometry.height)
            pictures = [Image.new("RGB", size, (each.seed % 256, each.seed // 256 % 256, 9)) for each in batch]
            done.append(FinishedBatch(batch, tuple(map(FinishedPicture, pictures))))
        yield Finished(account(decided, self.model, done))

    # -- what a sequence needs of an engine --------------------------------------------------------------------------

    def plan(self, request: PaintRequest, settings: Settings | None = None) -> Plan:
        return plan(request, settings, SD1_SPEC, surroundings_of(request, settings or Settings()))

    def run_plan(
        self, decided: Plan, control: Control | None = None, done: Sequence[FinishedBatch] = ()
    ) -> Iterator[Event]:
        return self.run(decided.request, decided.settings, control)

    def upscalers(self, settings: Settings | None = None) -> dict[str, Upscaler]:
        return {}

    def identity(self, decided: Plan) -> ModelIdentity:
        return self.model

    def steps_of(self, decided: Plan) -> int:
        return STEPS * len(decided.batches)


def drawing(size: tuple[int, int] = (32, 24), color: tuple[int, int, int] = (200, 120, 40)) -> Image.Image:
    """A small source."""
    return Image.new("RGB", size, color)
