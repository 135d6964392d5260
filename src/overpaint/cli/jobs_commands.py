"""`overpaint submit`, `watch`, `cancel` and `jobs`: work for a server that is running, here or elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.arguments import AsJson, Mask, Quiet, StrengthMap
from overpaint.cli.option_values import read_option
from overpaint.cli.options import HIRES_OPTIONS, JOB_OPTIONS, REQUEST_OPTIONS, GivenOptions, takes
from overpaint.cli.output import Meter, note, say, say_json, table, warn
from overpaint.errors import OverpaintError, PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.client import Client

_OF_A_JOB = tuple(each for each in JOB_OPTIONS if each.name in ("model", "vae", "set"))
_STOPPED = 130

Url = Annotated[
    str | None,
    typer.Option("--url", help="The server's address (environment: OVERPAINT_URL; default http://127.0.0.1:7860)."),
]
Token = Annotated[
    str | None,
    typer.Option("--token", help="Its token, if it has one (environment: OVERPAINT_TOKEN).", show_default=False),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The job.", show_default=False)]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs.", show_default=False)]
New = Annotated[bool, typer.Option("--txt2img", help="Paint a new picture: give a PROMPT and no PICTURE.")]
Name = Annotated[str | None, typer.Option("--id", help="An id of your own; sent twice, it is one job.")]
Priority = Annotated[int, typer.Option("--priority", help="Higher is sooner, -10 to 10.")]
Folder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Wait, and save the pictures in this folder.", show_default=False)
]
Mine = Annotated[bool, typer.Option("--mine", help="Only those from here.")]
States = Annotated[list[str] | None, typer.Option("--state", help="queued, running, finished, failed or cancelled.")]

_STATES = ("queued", "running", "finished", "failed", "cancelled")
_HERE = "http://127.0.0.1:7860"


@takes(*REQUEST_OPTIONS, *HIRES_OPTIONS, *_OF_A_JOB)
def submit(
    *,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="The picture to paint over.", show_default=False)],
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What it should show.")] = None,
    new: New = False,
    mask: Mask = None,
    strength_map: StrengthMap = None,
    url: Url = None,
    token: Token = None,
    job_id: Name = None,
    priority: Priority = 0,
    output: Folder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Hand in a job to a server.

    With the options of `paint` or `txt2img`. It outlives this command.
    """
    if new and (prompt is not None or mask is not None or strength_map is not None):
        raise RequestError("PROMPT", prompt, "with --txt2img give one text, the prompt, and neither picture nor mask")
    _check_folder(output)
    sources: dict[str, Any] = {"prompt": picture} if new else {"prompt": prompt or "", "images": [_file(picture)]}
    for name, given in (("mask", mask), ("strength_map", strength_map)):
        if given is not None:
            sources[name] = _mask(given, picture)
    client = _client(url, token)
    job = client.submit({**_fields(asked), **sources}, job_id=job_id, priority=priority)
    if output is not None:
        return _watched(client, job["id"], output, as_json=as_json, quiet=quiet)
    if as_json:
        say_json(job)
    else:
        say(str(job["id"]))
    return 0


def watch(
    job_id: Id,
    url: Url = None,
    token: Token = None,
    output: Folder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Follow a job of a server to its end.

    Its pictures are saved if --output is given. Ctrl-C stops watching, not the job.
    """
    _check_folder(output)
    return _watched(_client(url, token), job_id, output, as_json=as_json, quiet=quiet)


def cancel(job_ids: Ids, url: Url = None, token: Token = None, as_json: AsJson = False) -> int:
    """End jobs of a server, waiting or running.

    They end at once; what is finished of them stays.
    """
    client = _client(url, token)
    ended = [client.cancel(each) for each in job_ids]
    if as_json:
        say_json({"jobs": ended})
    else:
        say(table([(each["id"], each["state"]) for each in ended]))
    return 0


def jobs(
    state: States = None, mine: Mine = False, url: Url = None, token: Token = None, as_json: AsJson = False
) -> int:
    """List a server's jobs, the newest first."""
    for each in state or ():
        if each not in _STATES:
            raise RequestError("--state", each, f"give one of {', '.join(_STATES)}")
    found = _client(url, token).jobs(states=tuple(state or ()), mine=mine)
    if as_json:
        say_json({"jobs": found})
    elif not found:
        say("no jobs")
    else:
        say(table([_row(each) for each in found], ("ID", "STATE", "DONE", "PICTURES", "")))
    return 0


def _client(url: str | None, token: str | None) -> Client:
    from overpaint.cli.standing import standing_values
    from overpaint.client import Client

    standing = standing_values()
    url = url or standing.get("url") or _HERE
    try:
        return Client(url, token or standing.get("token"))
    except RequestError as error:
        raise RequestError("--url", url, error.remedy) from None


def _fields(asked: GivenOptions) -> dict[str, Any]:
    """The request's fields; options of the site go as this job's own."""
    fields = asked.fields()
    if "controls" in fields:
        fields["controls"] = [{**each, "image": _file(each["image"])} for each in fields["controls"]]
    if "references" in fields:
        fields["references"] = [_file(each) for each in fields["references"]]
    overrides = dict(read_option(each) for each in asked.given.get("set", ()))
    if "vae" in asked.given:
        overrides["sd_vae"] = asked.text("vae")
    named = {"checkpoint": asked.text("model")} if "model" in asked.given else {}
    return {**fields, **named, **({"overrides": overrides} if overrides else {})}


def _mask(mask: str, picture: str) -> Path | bytes:
    """A mask's file, or one in words drawn on the picture."""
    from overpaint import masks

    if not masks.means_mask(mask):
        return _file(mask)
    import io

    from overpaint.cli.jobs import opened
    from overpaint.settings import Settings

    drawn, data = masks.draw(mask, opened(Path(picture), Settings())), io.BytesIO()
    drawn.save(data, format="PNG")
    return data.getvalue()


def _file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise PictureError(f"{path}: there is no such file")
    return Path(path)


def _check_folder(output: Path | None) -> None:
    """Made before there is anything to save: a folder that cannot be is told before the job is handed in."""
    if output is None:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError("--output", str(output), f"this folder cannot be made ({error.strerror})") from error


def _watched(client: Client, job_id: str, output: Path | None, *, as_json: bool, quiet: bool) -> int:
    from overpaint.client import ENDS

    with Meter(quiet or as_json) as meter:
        for event in client.events(job_id):
            if event.name == "progress":
                meter.update("painting", event.data["step"], event.data["steps"])
            if event.name in ENDS:
                meter.update("painting", 1, 1)
    job = client.job(job_id)
    saved = [] if output is None else _saved(client, job, output)
    if as_json:
        say_json({**job, "saved": [str(each) for each in saved]})
    else:
        warn(job["warnings"], quiet)
        for line in [str(each) for each in saved] or [client.url(each) for each in job["images"]]:
            say(line)
    return _status(job)


def _saved(client: Client, job: Mapping[str, Any], folder: Path) -> list[Path]:
    from overpaint.files.saving import save_bytes

    suffixes = {"image/jpeg": ".jpg"} | {f"image/{kind}": f".{kind}" for kind in ("webp", "avif", "tiff", "heic")}
    pictures = {each["url"]: each for each in job["pictures"]}
    named = [(pictures[url]["number"], suffixes.get(pictures[url]["media_type"], ".png")) for url in job["images"]]
    files = zip(named, client.images(job), strict=True)
    return [save_bytes(folder / f"{job['id']}-{number}{suffix}", data) for (number, suffix), data in files]


def _status(job: Mapping[str, Any]) -> int:
    if job["state"] == "failed":
        raise OverpaintError(job["error"]["message"])
    if job["state"] == "cancelled":
        note("the job was cancelled")
        return _STOPPED
    return 0


def _row(job: Mapping[str, Any]) -> tuple[object, ...]:
    about = job["error"]["message"] if job["error"] else "" if job["position"] is None else f"place {job['position']}"
    return job["id"], job["state"], f"{job['progress']:.0%}", len(job["images"]), about
