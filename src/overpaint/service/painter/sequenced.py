"""A sequence as a job: each finished step is kept as a batch, and a job that was cut off goes on after the last one."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from overpaint.errors import PictureError
from overpaint.events import Cancelled, Event, Finished, Preview, Progress, StepFinished
from overpaint.outcome import Processed
from overpaint.pictures import source_extras
from overpaint.pixels.seams import Seam
from overpaint.request import Picture
from overpaint.sequences.running import ReadySequence, run_sequence
from overpaint.sequences.story import PaintingSequence, StepResult
from overpaint.service.jobs import DoneBatch, JobResult, JobState, ResultPicture, result_of_batches
from overpaint.service.painter.painting import (
    SECONDS_BETWEEN_STEPS,
    Ended,
    Looks,
    Pace,
    Task,
    error_of,
    is_refused_by_disk,
    small_png,
)
from overpaint.service.painter.results import Output, clear_unfinished, keep, keeps_every_pixel, model_values, read_kept
from overpaint.service.request_limits import OPTIONS_OF_FILES
from overpaint.service.store.forms import plain

if TYPE_CHECKING:
    from overpaint.engine import Engine

_STEP_NOTES, _SEEDS = "step_notes", "seeds"


class SequencePainting:
    """One sequence. It may be run a second time after a failure, and goes on where the first time ended."""

    def __init__(self, engine: Engine, task: Task, sequence: PaintingSequence) -> None:
        self._task, self._tell, self._sequence = task, task.tell, sequence
        self._settings = task.settings.with_changes(kept_as(sequence.request.overrides))
        self._ready = ReadySequence.of(engine, sequence, self._settings)
        self._stepped, self._looked = Pace(SECONDS_BETWEEN_STEPS), Looks()
        self._kept: list[DoneBatch] = []
        self._done: list[StepResult] = []
        self._files: dict[int, ResultPicture] = {}  # by the identity of a picture in memory
        self._warnings: tuple[str, ...] = ()
        self._steps = 0
        task.folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(task.folder)
        self._take_up()

    @property
    def kept(self) -> Sequence[DoneBatch]:
        """What is finished."""
        return self._kept

    def run(self, engine: Engine, warning: str | None = None, look: Callable[[], None] = lambda: None) -> Ended:
        """Paint what is not painted yet. A warning, which says why, makes it a second try; `look` is called often."""
        ready = self._ready
        if warning is not None:
            self._warnings = (warning,)
            ready = self._smaller(engine)
        return self._run(engine, ready, look)

    def _smaller(self, engine: Engine) -> ReadySequence:
        """The same with one picture in each call of the network, and a VAE that may go on in float32."""
        changes = {"batch_cond_uncond": False, "auto_vae_precision": True, "auto_vae_precision_bfloat16": False}
        self._settings = self._settings.with_changes(changes)
        smaller = replace(self._sequence, request=self._sequence.request.with_changes(exact=True))
        return ReadySequence.of(engine, smaller, self._settings)

    def failed(self, error: Exception) -> Ended:
        """The end of a job that cannot go on, with what was finished before."""
        result = result_of_batches(self._kept, (*self._ready.warnings, *self._warnings))
        return Ended(JobState.FAILED, result, error_of(error), is_refused_by_disk(error))

    def _run(self, engine: Engine, ready: ReadySequence, look: Callable[[], None]) -> Ended:
        last: Event | None = None
        self._tell("started", images=ready.images, batches=len(ready.sequence), warnings=list(ready.warnings))
        for last in run_sequence(engine, ready, control=self._task.control, done=tuple(self._done)):
            self._hear(last)
            look()
        assert isinstance(last, Finished | Cancelled)
        state = JobState.FINISHED if isinstance(last, Finished) else JobState.CANCELLED
        if last.result is None:
            return Ended(state, result_of_batches(self._kept, (*ready.warnings, *self._warnings)))
        return Ended(state, self._result(last.result))

    def _hear(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._steps = event.steps
            if self._stepped.is_due() or event.step == event.steps:
                self._tell("progress", step=event.step, steps=event.steps, batch=event.batch)
        elif isinstance(event, Preview) and self._looked.is_due(event.step, self._steps):
            self._tell("preview", step=event.step, png=base64.b64encode(small_png(event.image)).decode("ascii"))
        elif isinstance(event, StepFinished):
            self._keep(event.number, StepResult.of(event.result))

    def _keep(self, number: int, result: StepResult) -> None:
        """A step's pictures as files, and then that they are there."""
        first = sum(len(each.pictures) for each in self._kept)
        outputs = [self._output(*each) for each in _with_texts(result)]
        outputs = [replace(each, seam=result.seam_of(i)) for i, each in enumerate(outputs)]
        pictures = tuple(keep(self._task.folder, first + i, each, self._settings) for i, each in enumerate(outputs))
        self._files |= {id(picture): file for picture, file in zip(result.pictures, pictures, strict=True)}
        notes = {_STEP_NOTES: _told(result), _SEEDS: list(result.seeds)}
        batch = DoneBatch(number=number, pictures=pictures, notes=notes, complete=result.complete)
        self._done.append(result)
        self._kept.append(batch)
        self._tell("painted", batch=plain(batch))

    @staticmethod
    def _output(picture: Picture, text: str, seed: int | None) -> Output:
        return Output(picture, text, seed=seed, extras=source_extras(picture))

    def _result(self, processed: Processed) -> JobResult:
        """The pictures that the steps came to, in their order; those that no step gave are written now."""
        number = sum(len(each.pictures) for each in self._kept)
        pictures: list[ResultPicture] = []
        for i, (image, text) in enumerate(zip(processed.images, processed.infotexts, strict=True)):
            is_sheet = i < processed.index_of_first_image
            found = self._files.get(id(image))
            if found is None:
                output = replace(self._output(image, text, None), kind="grid" if is_sheet else "picture")
                found = keep(self._task.folder, number, output, self._settings)
                number += 1
            pictures.append(replace(found, infotext=text))
        return JobResult(
            pictures=tuple(replace(each, number=i) for i, each in enumerate(pictures)),
            infotexts=processed.infotexts,
            info=processed.js(),
            warnings=tuple(dict.fromkeys((*processed.warnings, *self._warnings))),
            comments=processed.comments,
            stopped=processed.stopped,
            model=model_values(processed.model),
        )

    def _take_up(self) -> None:
        """The steps that were kept before; where their files are not what they should be, painting begins again."""
        if not keeps_every_pixel(self._settings):  # what is fed back, or put on a sheet, has to be every pixel
            return
        for batch in sorted(self._task.done, key=lambda each: each.number):
            result = self._rebuilt(batch) if batch.number == len(self._done) and batch.complete else None
            if result is None:
                return
            self._kept.append(batch)
            self._done.append(result)
            self._files |= {id(a): b for a, b in zip(result.pictures, batch.pictures, strict=True)}

    def _rebuilt(self, batch: DoneBatch) -> StepResult | None:
        try:
            images = tuple(read_kept(self._task.folder / each.file) for each in batch.pictures)
        except (OSError, PictureError):
            return None
        return StepResult(
            pictures=images,
            infotexts=tuple(each.infotext for each in batch.pictures),
            seeds=tuple(batch.notes.get(_SEEDS, ())),
            notes=dict(batch.notes.get(_STEP_NOTES, {})),
            seams=tuple(None if each.seam is None else Seam(**each.seam) for each in batch.pictures),
        )


def kept_as(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says of the files; its other overrides are each step's."""
    return {name: value for name, value in overrides.items() if name in OPTIONS_OF_FILES}


def _with_texts(result: StepResult) -> Iterator[tuple[Picture, str, int | None]]:
    yield from zip(result.pictures, result.infotexts, result.seeds or (None,) * len(result.pictures), strict=True)


def _told(result: StepResult) -> dict[str, object]:
    return {name: value for name, value in result.notes.items() if isinstance(value, str | int | float | bool | None)}
