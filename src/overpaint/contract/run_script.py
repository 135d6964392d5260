"""The selectable scripts at the contract's door: one function in the place of a page's script runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from overpaint.contract.facade import Facade, shared_state
from overpaint.contract.processed import Processed
from overpaint.errors import OverpaintError
from overpaint.events import Cancelled, Finished, Preview, Progress, StepFinished
from overpaint.files.output import name_facts, save_batch
from overpaint.files.saving import save_picture
from overpaint.outcome import FinishedBatch
from overpaint.outcome import Processed as Result
from overpaint.sequences.running import ReadySequence, run_sequence
from overpaint.sequences.scripts import script_sequence


def run_script(p: Facade, title: str, *args: Any) -> Processed:
    """What the reference's script of this title makes of a job; `args` are its arguments in the order of its page.

    Without any, they are the page's defaults. What the script is given beside them is the job's own fields, with the
    scripts that are always on.
    """
    state, engine = shared_state().state, p.engine()
    # The reference shows a sheet of what a script made unless its option says no; here that option is off at first.
    sheet = (p.override_settings or {}).get("return_grid", True)
    settings = p.settings().with_changes({"return_grid": sheet})
    request = p.request()
    sequence = script_sequence(title, args, request, settings)
    state.begin("scripts_img2img" if request.images else "scripts_txt2img")
    try:
        ready = ReadySequence.of(engine, _with_notes(sequence, p), settings)
        state.job_count = len(ready.sequence)
        result = _run(p, ready, state)
        if ready.sequence.saved == "result":
            _save(p, result, ready)
        p.extra_generation_params = dict(result.extra_generation_params)
        return Processed.of(result)
    except OverpaintError as error:
        if isinstance(error.result, Result):
            error.result = Processed.of(error.result)
        raise
    finally:
        state.end()


def _run(p: Facade, ready: ReadySequence, state: Any) -> Result:
    step = 0
    for event in run_sequence(p.engine(), ready, control=state):
        if isinstance(event, Progress):
            state.job_no = event.batch
            state.sampling_steps = ready.steps[event.batch]
            state.sampling_step = event.step - sum(ready.steps[: event.batch])
        elif isinstance(event, Preview):
            state.current_image = event.image
        elif isinstance(event, StepFinished):
            step = event.number + 1
            state.job_no = step
            if ready.sequence.saved == "steps" and not p.do_not_save_samples:
                _save_step(p, event.result)
        last = event
    assert isinstance(last, Finished | Cancelled)
    assert last.result is not None
    return last.result


def _save_step(p: Facade, result: Result) -> None:
    from overpaint.files.keeping import finished_pictures
    from overpaint.finish import FinishedPicture

    pictures = tuple(FinishedPicture(each.image) for each in finished_pictures(result))
    for batch in result.plan.batches:
        part = tuple(pictures[each.index] for each in batch)
        save_batch(result, FinishedBatch(batch, part, complete=not result.stopped), p.outpath_samples)


def _save(p: Facade, result: Result, ready: ReadySequence) -> None:
    """The pictures that the steps came to, and none of the steps' own."""
    settings = ready.settings
    if p.do_not_save_samples or not settings.samples_save:
        return
    root = Path(p.outpath_samples or settings.outdir_samples or settings.outdir_img2img_samples)
    pairs = zip(
        result.images[result.index_of_first_image :], result.infotexts[result.index_of_first_image :], strict=True
    )
    for picture, text in pairs:
        save_picture(picture, text, root, name_facts(result, 0), settings)


def _with_notes(sequence: Any, p: Facade) -> Any:
    """Infotext fields of the caller's own come first."""
    own: Mapping[str, object] = dict(p.extra_generation_params or {})
    return replace(sequence, own_notes=own) if own else sequence
