"""A sequence on an engine: its steps' stories as one, and its result as one `Processed`. Torch-free by itself."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from overpaint.errors import OverpaintError
from overpaint.events import (
    Cancelled,
    Control,
    Event,
    Finished,
    Painted,
    Preview,
    Progress,
    Started,
    StepFinished,
    Stop,
)
from overpaint.outcome import FinishedBatch, ModelIdentity, Processed
from overpaint.pixels.color import color_target
from overpaint.pixels.resize import Upscaler
from overpaint.planning.plans import LatentTiles, NoiseInversion, Plan, ToolUse
from overpaint.request import PaintRequest
from overpaint.sequences.forms import tool_json
from overpaint.sequences.story import (
    Decoding,
    PaintingSequence,
    SequenceStep,
    StepResult,
    TilePixels,
    with_known_seeds,
)
from overpaint.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

_OF_ONE_PICTURE = ("outpaint", "enlarge")
_LAST = (Stop.CANCEL, Stop.FINISH_EARLY, Stop.AFTER_BATCH)


class StepPainter(Protocol):
    """The part of an engine that a sequence needs."""

    settings: Settings

    def plan(self, request: PaintRequest, settings: Settings | None = None) -> Plan: ...

    def run_plan(
        self, plan: Plan, control: Control | None = None, done: Sequence[FinishedBatch] = ()
    ) -> Generator[Event]: ...

    def upscalers(self, settings: Settings | None = None) -> Mapping[str, Upscaler]: ...

    def identity(self, plan: Plan) -> ModelIdentity: ...

    def steps_of(self, plan: Plan) -> int: ...


@dataclass(frozen=True)
class ReadySequence:
    """A sequence with its sources made ready, and what each of its steps will come to as far as that is known."""

    sequence: PaintingSequence
    settings: Settings
    plans: tuple[Plan, ...]
    steps: tuple[int, ...]  # calls of the network, by step

    @classmethod
    def of(cls, engine: StepPainter, sequence: PaintingSequence, settings: Settings | None = None) -> Self:
        """Every step is planned before the first is painted, so that what is wrong with the last is told at once."""
        settings = settings or engine.settings
        made = with_known_seeds(sequence).prepared(settings, engine.upscalers(settings))
        tool = _tool_of(made)
        planned = (plan_step(engine, each, settings, made.own_notes) for each in made.outline())
        plans = tuple(replace(_lean(each), tool=tool) for each in planned)
        return cls(made, settings, plans, tuple(map(engine.steps_of, plans)))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for plan in self.plans for text in plan.warnings))

    @property
    def images(self) -> int:
        return sum(len(plan.images) for plan in self.plans)


def plan_step(
    engine: StepPainter, step: SequenceStep, settings: Settings, own_notes: Mapping[str, object] | None = None
) -> Plan:
    """The plan of a step: its request's, with what the tool adds. Sheets are the whole sequence's."""
    plan = engine.plan(step.request, _settings_of(step, settings))
    changes: dict[str, object] = {"notes": MappingProxyType({**(own_notes or {}), **step.notes, **plan.notes})}
    if step.colors_of is not None and any(each.has_target for each in plan.canvases):
        target = color_target(step.colors_of.convert("RGB"))
        changes["canvases"] = tuple(replace(each, given_target=target) for each in plan.canvases)
    if step.tiles is not None:
        changes["tiles"] = _tiles(plan, step.tiles)
    if step.decoding is not None:
        changes["inversion"] = _inversion(engine, step.request, step.decoding, settings)
    return replace(plan, **changes)  # type: ignore[arg-type]


def _tool_of(sequence: PaintingSequence) -> ToolUse | None:
    """What the picture's recipe keeps of a tool that comes to one picture."""
    if sequence.saved != "steps" or len(sequence) != 1 or sequence.kind not in _OF_ONE_PICTURE:
        return None
    return ToolUse({"kind": sequence.kind, **tool_json(sequence)}, sequence.request)


def _settings_of(step: SequenceStep, settings: Settings) -> Settings:
    """In parts, a canvas may be larger than what is painted at once."""
    changes: dict[str, object] = {"return_grid": False}
    if step.tiles is not None:
        pixels = max((each.width * each.height for each in step.request.images), default=0)
        changes["max_pixels_per_pass"] = max(settings.max_pixels_per_pass, _with_edges(step.request, pixels))
        changes["max_source_pixels"] = max(settings.max_source_pixels, pixels)
    return settings.with_changes(changes)


def _with_edges(request: PaintRequest, pixels: int) -> int:
    """What a canvas may have once its sides are multiples of a latent cell."""
    width, height = request.width or 0, request.height or 0
    return max(pixels, (width + 64) * (height + 64))


def _tiles(plan: Plan, tiles: TilePixels) -> LatentTiles | None:
    """In latent cells; None where the canvas is no larger than one part."""
    factor = plan.spec.latent.factor
    size = max(1, (tiles.size or plan.spec.native_size) // factor)
    overlap = size // 4 if tiles.overlap is None else min(tiles.overlap // factor, size - 1)
    fits = max(plan.geometry.latent_size) <= size
    return None if fits else LatentTiles(size, overlap)


def _inversion(engine: StepPainter, request: PaintRequest, decoding: Decoding, settings: Settings) -> NoiseInversion:
    """A plan of the walk that is taken backwards: Euler's, over uniform steps."""
    walk = request.with_changes(
        prompt=decoding.prompt,
        negative_prompt=decoding.negative_prompt,
        styles=(),
        cfg_scale=decoding.cfg_scale,
        steps=decoding.steps,
        sampler="Euler",
        scheduler="Uniform",
        strength=1.0,
    )
    plan = engine.plan(walk, settings)
    return NoiseInversion(plan=plan, randomness=decoding.randomness, sigma_adjustment=decoding.sigma_adjustment)


def run_sequence(
    engine: StepPainter,
    sequence: PaintingSequence | ReadySequence,
    settings: Settings | None = None,
    control: Control | None = None,
    done: Sequence[StepResult] = (),
) -> Generator[Event]:
    """Tell the whole as one story, going on after the steps in `done`; the last event is `Finished` or `Cancelled`.

    What is painted so far goes with an error as its `result`.
    """
    ready = sequence if isinstance(sequence, ReadySequence) else ReadySequence.of(engine, sequence, settings)
    control, results = control or Control(), list(done)
    yield Started(ready.images, sum(ready.steps), ready.warnings)
    try:
        while len(results) < len(ready.sequence) and control.message not in _LAST:
            finished = yield from _paint_step(engine, ready, results, control)
            if finished is None:
                break
            results.append(StepResult.of(finished))
            yield StepFinished(len(results) - 1, finished)
            control.take_skip()
    except OverpaintError as error:
        error.result = result_of(engine, ready, results) if results else None
        raise
    whole = result_of(engine, ready, results)
    cancelled = control.message is Stop.CANCEL and len(results) < len(ready.sequence)
    yield Cancelled(whole if results else None) if cancelled else Finished(whole)


def _paint_step(
    engine: StepPainter, ready: ReadySequence, results: Sequence[StepResult], control: Control
) -> Generator[Event, None, Processed | None]:
    """One step, its progress counted in the whole; None when it was cancelled."""
    number = len(results)
    before, total = sum(ready.steps[:number]), sum(ready.steps)
    plan = plan_step(engine, ready.sequence.step(number, results), ready.settings, ready.sequence.own_notes)
    plan = replace(plan, tool=_tool_of(ready.sequence))
    with closing(engine.run_plan(plan, control)) as story:
        for event in story:
            if isinstance(event, Progress):
                yield Progress(min(before + event.step, total), total, event.sigma, number)
            elif isinstance(event, Preview):
                yield Preview(before + event.step, event.image)
            elif isinstance(event, Painted):
                yield event
            elif isinstance(event, Finished):
                return event.result
    return None


def result_of(engine: StepPainter, ready: ReadySequence, results: Sequence[StepResult]) -> Processed:
    """The account of a sequence: the last step's, with the pictures of all."""
    last = max(len(results) - 1, 0)
    plan = ready.plans[last]
    made = ready.sequence.assembled(results, ready.settings)
    seams = {id(picture): each.seam_of(i) for each in results for i, picture in enumerate(each.pictures)}
    for image, text in zip(made.images, made.infotexts, strict=True):
        if text and ready.settings.enable_pnginfo and "parameters" not in image.info:
            image.info["parameters"] = text
    return Processed(
        plan=plan,
        model=engine.identity(plan),
        images=made.images,
        infotexts=made.infotexts,
        index_of_first_image=made.first,
        extra_generation_params={name: value for each in results for name, value in each.notes.items()},
        warnings=ready.warnings,
        seams=tuple(seams.get(id(picture)) for picture in made.images[made.first :]),
        stopped=len(results) < len(ready.sequence) or not all(each.complete for each in results),
    )


def _lean(plan: Plan) -> Plan:
    """Without what only painting needs: a long sequence would keep a picture of every step twice."""
    return replace(plan, canvases=(), mask=None, controls=(), upscaler=None)
