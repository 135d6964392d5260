"""`overpaint batch`: many pictures, resumable."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.arguments import STOPPED, Prompt, Quiet
from overpaint.cli.chosen_model import model_asked_for
from overpaint.cli.options import HIRES_OPTIONS, JOB_OPTIONS, PROMPT_OPTION, REQUEST_OPTIONS, GivenOptions, takes
from overpaint.cli.output import Meter, note, say, say_json, warn
from overpaint.cli.ray_cluster import cluster_asked_for
from overpaint.cli.webui_told import tell_webui
from overpaint.errors import OverpaintError, PictureError
from overpaint.stores import StoreFile

if TYPE_CHECKING:
    from overpaint.files.batch import Batch, BatchEvent
    from overpaint.files.rows import Rows
    from overpaint.models.ui_defaults import Tab
    from overpaint.settings import Settings
    from overpaint.stores import AnyFile

FAILED = 1
Source = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER|MANIFEST",
        help="Pictures, or rows (.jsonl, .csv, .parquet); also by URL: s3://bucket/photos, gs://, az://.",
        show_default=False,
    ),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="Folder for the results, or such a URL.", show_default=False)]
Masks = Annotated[
    str | None, typer.Option("--masks", help="One mask for all, a folder of masks by name, or a mask in words.")
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Sub-folders too; OUT gets the same ones.")]
Format = Annotated[str, typer.Option("--format", help="png, jpg, webp, avif, heic, tiff or bmp.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files in OUT that are not this batch's own.")]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Paint one of N parts, I from 0; the parts may run at once, on any machines that share SOURCE and OUT.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="local|HOST:PORT",
        help="Paint on all machines of a Ray cluster, or on all GPUs of this machine.",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        metavar="N",
        help="With --ray: GPUs of each engine.  [default: 1 where there are GPUs]",
        show_default=False,
    ),
]
CpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--cpus-per-worker",
        metavar="N",
        help="With --ray: cores of each engine.  [default: 1 beside a GPU, else all of a machine]",
        show_default=False,
    ),
]
Pool = Annotated[
    str | None,
    typer.Option(
        "--pool",
        metavar="MIN,MAX",
        help="With --ray: begin with MIN engines, use up to MAX.  [default: as many as there is room for]",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be painted; write nothing.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print JSON lines, one a row, and nothing else.")]


@takes(PROMPT_OPTION, *REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def batch(
    *,
    source: Source,
    out: Out,
    text: Prompt = "",
    masks: Masks = None,
    recursive: Recursive = False,
    format: Format = "png",
    overwrite: Overwrite = False,
    shard: ShardOption = None,
    ray: RayOption = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = None,
    pool: Pool = None,
    dry_run: DryRun = False,
    as_json: AsJsonLines = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint all pictures of a folder, or all rows of a manifest.

    The same command again goes on after a stop. A row of a manifest is a JSON object, or a line of CSV below the names:
    "picture", "mask" and "output" are paths (relative to the manifest; the output inside OUT), all other names are
    fields of the request, and win over the options given here. "loras" and "controls" may be lists of what --lora and
    --control take. A row without a picture asks for a new one.
    """
    from overpaint.files.batch import Batch
    from overpaint.files.listed_rows import rows_of
    from overpaint.files.shards import Shard

    source_place, out_place, mask_place = _place("SOURCE", source), _place("OUT", out), _masks(masks)
    part = None if shard is None else Shard.parse(shard)
    cluster = cluster_asked_for(ray, shard, pool, gpus_per_worker, cpus_per_worker)
    asked = asked.with_prompt(text)
    settings = asked.settings()
    asked = asked.with_model(model_asked_for(asked, settings))
    _check_source(source_place)
    rows = rows_of(source_place, out_place, masks=mask_place, recursive=recursive)
    _check_shared(rows, asked, settings)
    tab = _tab_of(rows, masks)
    tell_webui(asked, quiet or as_json, tab=tab)
    _warn_of_left_out(source_place, recursive, quiet or as_json)
    work = Batch(
        out=out_place,
        fields=asked.fields_over(tab),
        settings=settings,
        model=_model_key(asked, settings),
        format=format.lower(),
        overwrite=overwrite,
        shard=part,
    )
    teller = _Teller(as_json=as_json, quiet=quiet, rows=len(rows if part is None else part.rows(rows)))
    if dry_run:
        teller.look(rows, work)
    elif cluster is not None:
        is_in_stores = all(isinstance(each, StoreFile) for each in (source_place, out_place, mask_place or out_place))
        cluster.paint(rows, work, asked, teller.hear, Meter(quiet or as_json), is_in_stores=is_in_stores)
    else:
        _paint_here(rows, work, asked, teller)
    return teller.end()


def _paint_here(rows: Rows, work: Batch, asked: GivenOptions, teller: _Teller) -> None:
    from overpaint.files.batch import run_batch

    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(teller.quiet or teller.as_json))

        def engine() -> session.CommandEngine:
            return stack.enter_context(session.open_engine(asked, work.settings, session.loading(meter, control)))

        painter = session.LatePainter(asked, work.settings, engine)
        for event in run_batch(rows, work, lambda: painter, control):
            teller.hear(event, meter)


def _place(argument: str, given: str) -> AnyFile:
    """A path, or a URL of a store that can be opened here."""
    from overpaint.stores import check_packages, file_named

    place = file_named(given, argument)
    check_packages(place, argument)
    return place


def _masks(given: str | None) -> AnyFile | str | None:
    """A file or folder, or a mask in words that is understood."""
    from overpaint import masks
    from overpaint.stores import is_url

    if given is None or is_url(given) or not masks.means_mask(given):
        return None if given is None else _place("--masks", given)
    masks.parse(given)
    return given


_OTHER_PICTURES = frozenset(
    {".jxl", ".psd", ".xcf", ".kra", ".svg", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".exr"}
)


def _check_source(source: AnyFile) -> None:
    """A folder or rows, not a picture; and never a word of what else is in the file."""
    from overpaint.files.parquet_rows import PARQUET_SUFFIX
    from overpaint.files.rows import PICTURE_SUFFIXES
    from overpaint.files.table_rows import TABLE_SUFFIXES

    if not source.is_file() or source.suffix.lower() == PARQUET_SUFFIX:
        return
    if source.suffix.lower() in PICTURE_SUFFIXES | _OTHER_PICTURES:
        raise PictureError(f"{source}: it is a picture; `overpaint paint {source}` paints over one")
    with source.open("rb") as file:
        head = file.read(4096)
    is_table = source.suffix.lower() in TABLE_SUFFIXES
    if b"\0" in head or not (is_table or head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")):
        raise PictureError(f"{source}: it is no manifest; give a folder, or a file with one JSON object a line, or CSV")


def _warn_of_left_out(source: AnyFile, recursive: bool, quiet: bool) -> None:
    from overpaint.hints import listed

    left_out = pictures_left_out(source, recursive) if isinstance(source, Path) and source.is_dir() else []
    warn([f"left out: {listed(left_out, 20)}; save them as PNG or JPEG"] if left_out else (), quiet)


def pictures_left_out(folder: Path, recursive: bool) -> list[str]:
    """Files that are pictures by their names and are not painted."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(str(each.relative_to(folder)) for each in found if each.suffix.lower() in _OTHER_PICTURES)


def _tab_of(rows: Rows, masks: str | None) -> Tab | None:
    """The one of a webui's page for all of them; rows of both kinds have none in common."""
    from overpaint.files.rows import has_sources

    kinds = has_sources(rows)
    if len(kinds) != 1:
        return None
    return "txt2img" if kinds == {False} else "img2img" if masks is None else "inpaint"


def _check_shared(rows: Rows, asked: GivenOptions, settings: Settings) -> None:
    """What is wrong with the command line is wrong with every row, and told once."""
    from PIL import Image

    from overpaint.cli.jobs import opened
    from overpaint.files.rows import has_sources
    from overpaint.request import SOURCE_FIELDS, PaintRequest
    from overpaint.text.shorthand import with_pictures, without_second_pass

    kinds = has_sources(rows)
    fields = with_pictures(asked.fields(), lambda path: opened(path, settings))
    if len(kinds) != 1 or (kinds == {False} and SOURCE_FIELDS & fields.keys()):
        return  # told apart, and refused, row by row
    pictures = {"images": [Image.new("RGB", (64, 64))]} if kinds == {True} else {}
    fields = without_second_pass(fields) if pictures else fields
    session.check(PaintRequest.from_json({**fields, **pictures}), settings, asked)


def _model_key(asked: GivenOptions, settings: Settings) -> str:
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

    def look(self, rows: Rows, work: Batch) -> None:
        """At what would be done."""
        from overpaint.files.batch import look_at_batch

        self.counts = {"to paint": 0, "skipped": 0, "failed": 0}
        with Meter(self.quiet or self.as_json) as meter:
            for event in look_at_batch(rows, work):
                self.hear(event, meter)

    def hear(self, event: BatchEvent, meter: Meter) -> None:
        from overpaint.cli.flags import as_flags
        from overpaint.events import Progress
        from overpaint.files.batch import BatchStopped, RowFailed, RowPainted, RowPlanned, RowSkipped, RowStarted

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
            told = as_flags(event.error) if isinstance(event.error, OverpaintError) else str(event.error)
            self._tell("failed", event.row.name if event.row else "", error=told)
        elif isinstance(event, RowPlanned):
            self._tell("to paint", event.row.name, files=event.files)
        elif isinstance(event, BatchStopped):
            self.stopped = True
        if isinstance(event, RowPlanned | RowPainted | RowSkipped | RowFailed):
            meter.update("pictures", self.seen, self.rows)

    def _tell(self, state: str, name: str, **facts: Any) -> None:
        self.seen += 1
        self.counts[state] += 1
        if self.as_json:
            say_json({"row": name, "state": state, **facts})
        elif state == "failed":
            note(f"{name}: {facts['error']}")
        elif state == "to paint":
            say(", ".join(facts["files"]))
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
