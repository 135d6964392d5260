"""`overpaint batch`: many pictures, resumable."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.options import HIRES_OPTIONS, JOB_OPTIONS, PROMPT_OPTION, REQUEST_OPTIONS, Asked, takes
from overpaint.cli.output import Meter, note, say, say_json, warn
from overpaint.cli.paint import STOPPED, Quiet

if TYPE_CHECKING:
    from overpaint.files.batch import BatchEvent
    from overpaint.settings import Settings

FAILED = 1
Masks = Annotated[Path | None, typer.Option("--masks", help="One mask for all, or a folder of masks by name.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Sub-folders too; OUT gets the same ones.")]
Format = Annotated[str, typer.Option("--format", help="png, jpg, webp, avif, tiff or bmp.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files in OUT that are not this batch's own.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print JSON lines, one a row, and nothing else.")]


@takes(PROMPT_OPTION, *REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def batch(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|MANIFEST.jsonl", help="Pictures, or rows of requests.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results.", show_default=False)],
    masks: Masks = None,
    recursive: Recursive = False,
    format: Format = "png",
    overwrite: Overwrite = False,
    as_json: AsJsonLines = False,
    quiet: Quiet = False,
    asked: Asked,
) -> int:
    """Paint every picture of a folder, or every row of a manifest; the same command again goes on after a stop.

    A row of a manifest is a JSON object: "picture", "mask" and "output" are paths (relative to the manifest; the
    output inside OUT), all other names are fields of the request, and win over the options given here. "loras" and
    "controls" may be lists of what --lora and --control take. A row without a picture asks for a new one.
    """
    from overpaint.files.batch import Batch, run_batch
    from overpaint.files.rows import read_rows

    settings = asked.settings()
    rows = read_rows(source, out, masks=masks, recursive=recursive)
    work = Batch(
        out=out,
        fields=asked.fields(),
        settings=settings,
        model=_model_key(asked, settings),
        format=format.lower(),
        overwrite=overwrite,
    )
    teller = _Teller(as_json=as_json, quiet=quiet, rows=len(rows))
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(quiet or as_json))

        def painter() -> session.Painter:
            if not teller.painters:
                told = session.loading(meter, control)
                teller.painters.append(stack.enter_context(session.open_engine(asked, settings, told)))
            return teller.painters[0]

        for event in run_batch(rows, work, painter, control):
            teller.hear(event, meter)
    return teller.end()


def _model_key(asked: Asked, settings: Settings) -> str:
    """Names the weights without reading them: the file's name, size and time."""
    named = asked.text("model") or settings.sd_model_checkpoint
    if not named:
        return ""
    path = Path(named)
    if not path.is_file():
        return named
    stat = path.stat()
    return f"{path.name}|{stat.st_size}|{stat.st_mtime_ns}"


@dataclass
class _Teller:
    """Tells of each row as it ends, and counts."""

    as_json: bool
    quiet: bool
    rows: int
    seen: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"painted": 0, "skipped": 0, "failed": 0})
    stopped: bool = False
    painters: list[session.Painter] = field(default_factory=list)

    def hear(self, event: BatchEvent, meter: Meter) -> None:
        from overpaint.events import Progress
        from overpaint.files.batch import BatchStopped, RowFailed, RowPainted, RowSkipped, RowStarted

        if isinstance(event, RowStarted):
            meter.update("pictures", self.seen, self.rows)
        elif isinstance(event, Progress):
            meter.update("painting", event.step, event.steps)
        elif isinstance(event, RowPainted):
            warn((f"{event.row.name}: {each}" for each in event.warnings), self.quiet or self.as_json)
            self._tell("painted", event.row.name, files=event.files, seeds=event.seeds, warnings=event.warnings)
        elif isinstance(event, RowSkipped):
            self._tell("skipped", event.row.name, files=event.files)
        elif isinstance(event, RowFailed):
            self._tell("failed", event.row.name if event.row else "", error=str(event.error))
        elif isinstance(event, BatchStopped):
            self.stopped = True

    def _tell(self, state: str, name: str, **facts: Any) -> None:
        self.seen += 1
        self.counts[state] += 1
        if self.as_json:
            say_json({"row": name, "state": state, **facts})
        elif state == "failed":
            note(f"{name}: {facts['error']}")
        elif state == "painted":
            say(f"{', '.join(facts['files'])}  seed {', '.join(map(str, facts['seeds']))}")

    def end(self) -> int:
        if self.as_json:
            say_json({"state": "stopped" if self.stopped else "finished", **self.counts})
        elif not self.quiet:
            left = f", {self.rows - self.seen} left for the next time" if self.stopped else ""
            note(", ".join(f"{count} {state}" for state, count in self.counts.items()) + left)
        if self.stopped:
            return STOPPED
        return FAILED if self.counts["failed"] else 0
