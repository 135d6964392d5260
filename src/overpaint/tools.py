"""One function for each tool that paints more than once, or more than one picture at once."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.errors import RequestError
from overpaint.events import Finished, Progress, Started
from overpaint.files.saving import save_bytes
from overpaint.painted import PaintedPicture, save
from overpaint.planning import preflight
from overpaint.quick import Checkpoint, checked_painter, opened_source, pixel_limit
from overpaint.request import Img2ImgRequest, PaintRequest, Picture, Txt2ImgRequest
from overpaint.sequences.forms import sequence_of, split_fields
from overpaint.sequences.running import run_sequence
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings
from overpaint.watching import warn, watching

if TYPE_CHECKING:
    from overpaint.engine import Engine
    from overpaint.outcome import Processed
    from overpaint.quick import Source
    from overpaint.watching import Watcher


@dataclass(frozen=True)
class PaintedGrid:
    """A grid: the labelled sheet, and every cell as a picture of its own."""

    sheet: Picture
    cells: tuple[PaintedPicture, ...]

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """The sheet as grid.png, the cells as cell.png, cell-2.png, ...; what is there is not replaced."""
        import io

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        self.sheet.save(data, format="PNG")
        return (save_bytes(place / "grid.png", data.getvalue()), *(save(each, f"{place}/") for each in self.cells))


def outpaint(
    image: Source,
    prompt: str = "",
    *,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Any,
) -> PaintedPicture:
    """A picture that grows: by `left`, `top`, `right`, `bottom` pixels, `to=(width, height)`, or to an `aspect="16:9"`.

    No pixel of the old picture changes. `anchor` says where it is in the new one. `start` is what the new part starts
    from: "noise", "mirror" or "stretch"; `context` limits what the model sees of a large picture. The other fields
    are those of `Img2ImgRequest`; the strength is 0.9 unless you give it.
    """
    (picture,) = _pictures("outpaint", image, prompt, fields, (engine, checkpoint, settings, progress))
    return picture


def enlarge(
    image: Source,
    prompt: str = "",
    *,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Any,
) -> PaintedPicture:
    """A picture made `scale` times larger by an `upscaler`, and painted over in tiles that are blended at every step.

    `tile` and `overlap` are in pixels; memory depends on the tile, not on the picture. The other fields are those of
    `Img2ImgRequest`; the strength is 0.35 unless you give it.
    """
    (picture,) = _pictures("enlarge", image, prompt, fields, (engine, checkpoint, settings, progress))
    return picture


def loopback(
    image: Source,
    prompt: str = "",
    *,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Any,
) -> list[PaintedPicture]:
    """A picture painted over, and its result again, `loops` times; all of them, in order.

    The strength goes to `final_strength` along a `curve`: "linear", "aggressive" or "lazy". The other fields are those
    of `Img2ImgRequest`.
    """
    return _pictures("loopback", image, prompt, fields, (engine, checkpoint, settings, progress))


def grid(
    image: Source | None = None,
    prompt: str = "",
    *,
    engine: Engine | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Settings | None = None,
    progress: Watcher = False,
    **fields: Any,
) -> PaintedGrid:
    """The same job with other values along the axes `x`, `y` and `z`, such as `x={"steps": [10, 20]}`.

    An axis is any field of a request, an option, "lora NAME" for its weight, "replace" for words of the prompt (the
    first value is what is replaced), "order" or "size". The other fields are those of `Img2ImgRequest`, or without an
    image those of `Txt2ImgRequest`.
    """
    made = _painted("grid", image, prompt, fields, (engine, checkpoint, settings, progress))
    cells = tuple(each for each in made.images if isinstance(each, PaintedPicture))
    return PaintedGrid(made.images[0], cells)


_Painter = tuple["Engine | None", "Checkpoint | None", "Settings | None", "Watcher"]


def _pictures(kind: str, image: Source, prompt: str, fields: dict[str, Any], how: _Painter) -> list[PaintedPicture]:
    made = _painted(kind, image, prompt, fields, how)
    return [each for each in made.images if isinstance(each, PaintedPicture)]


def _painted(kind: str, image: Source | None, prompt: str, fields: dict[str, Any], how: _Painter) -> Processed:
    engine, checkpoint, settings, progress = how
    checked_painter(*how)
    tool, rest = split_fields(kind, fields)
    if image is None and kind != "grid":
        raise RequestError("image", None, "give the picture to paint over")
    limit = pixel_limit(rest.get("overrides"), settings or getattr(engine, "settings", None))
    request: PaintRequest
    if image is None:
        request = Txt2ImgRequest(prompt=prompt, **rest)
    else:
        request = Img2ImgRequest(images=(opened_source(image, limit),), prompt=prompt, **rest)
    if checkpoint is not None and engine is not None:
        request = request.with_changes(checkpoint=os.fspath(checkpoint))
    sequence = sequence_of(kind, tool, request)
    if engine is not None:
        return paint_sequence(engine, sequence, settings, progress)
    named = None if checkpoint is None else os.fspath(checkpoint)
    check_sequence(sequence, settings or Settings(), named)
    from overpaint.engine import Engine

    with Engine(named, settings=settings) as own:
        return paint_sequence(own, sequence, None, progress)


def paint_sequence(
    engine: Engine, sequence: PaintingSequence, settings: Settings | None = None, progress: Watcher = False
) -> Processed:
    """Run a sequence to its end; what to know about it is an `OverpaintWarning`."""
    with watching(progress) as step, closing(run_sequence(engine, sequence, settings)) as story:
        for event in story:
            if isinstance(event, Started):
                warn(event.warnings)
            elif isinstance(event, Progress):
                step(event)
            last = event
    assert isinstance(last, Finished)  # nobody holds the control that could stop it
    return last.result


def check_sequence(sequence: PaintingSequence, settings: Settings, checkpoint: str | None, **machine: str) -> None:
    """Refuse a sequence of which a step cannot be, before torch is imported and a model is read."""
    limits = {"max_pixels_per_pass": settings.max_pixels_per_pass, "max_source_pixels": settings.max_source_pixels}
    for step in sequence.outline():
        if step.tiles is not None:
            wide, high = step.request.width or 0, step.request.height or 0
            limits = {name: max(value, (wide + 64) * (high + 64)) for name, value in limits.items()}
        preflight.check(step.request, settings.with_changes(limits), checkpoint, **machine)
