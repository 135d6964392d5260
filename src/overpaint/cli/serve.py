"""`overpaint serve`: the service, until a signal ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import note, say
from overpaint.cli.webui_told import tell_webui

if TYPE_CHECKING:
    from overpaint.settings import Settings
    from overpaint.stores import StoreFile

TOKEN_VARIABLE = "OVERPAINT_TOKEN"

Host = Annotated[str, typer.Option("--host", help="The address to listen at; all but loopback need a token.")]
Port = Annotated[int, typer.Option("--port", help="The port; 0 takes a free one, which is printed.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where jobs and results are kept (default: the user's data folder)."),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help=f"What clients must present, as Bearer or as Basic's password. Process lists show it: set "
        f"{TOKEN_VARIABLE} instead.",
    ),
]
JobsPerWorker = Annotated[
    int | None,
    typer.Option(
        "--jobs-per-worker",
        metavar="INTEGER",
        help="How many jobs go on at once; left out, as many as pay: one on a CPU, several on a GPU.",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", help="Another name this server is called by; may be repeated."),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="URL", help="A site whose pages may call; may be repeated."),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Another bound, such as waiting=200, result_seconds=86400 or run_deadline=3600; may be repeated. "
        "An unknown NAME lists them all.",
    ),
]
UrlInputs = Annotated[
    bool,
    typer.Option("--url-inputs/--offline", help="Fetch pictures named by https URLs; by default nothing leaves."),
]
Device = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        "--devices",
        metavar="TEXT",
        help="auto, cpu, cuda, cuda:1, mps ...; may be repeated, for a worker on each; `all`: each GPU there is.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="INTEGER", help="Workers side by side on the CPU (default 1).")
]
SharedStoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="postgresql://...",
        help="Keep jobs in PostgreSQL, for any number of servers and of `overpaint worker`s on any machines, which "
        "share --data or --blobs (environment: OVERPAINT_STORE).",
    ),
]
Blobs = Annotated[
    str | None,
    typer.Option(
        "--blobs",
        metavar="URL",
        help="With --store: keep pictures in an object store (s3://BUCKET/PREFIX, gs://, az://) instead of a shared "
        "folder; --data then is this machine's alone.",
    ),
]
Migrate = Annotated[
    bool, typer.Option("--migrate", help="With --store: bring tables of an older version to this one first.")
]
Check = Annotated[
    bool,
    typer.Option("--check", help="Look through what is kept in --data, say what is damaged, and change nothing."),
]
Mend = Annotated[
    bool, typer.Option("--mend", help="With --check: set aside what is damaged, as a server's start does.")
]


@takes(*(each for each in JOB_OPTIONS if each.name != "device"))
def serve(
    *,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    data: Data = None,
    token: Token = None,
    jobs_per_worker: JobsPerWorker = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    url_inputs: UrlInputs = False,
    limit: Limit = None,
    device: Device = None,
    workers: Workers = None,
    store: SharedStoreOption = None,
    blobs: Blobs = None,
    migrate: Migrate = False,
    check: Check = False,
    mend: Mend = False,
    asked: GivenOptions,
) -> int:
    """Serve jobs over HTTP from one queue that outlives crashes.

    A page to paint on at /, and three APIs: the native one, AUTOMATIC1111's and OpenAI's.

    SIGTERM or Ctrl-C stops it: the running job may finish, what waits is taken up at the next start. A second one stops
    it at once.
    """
    if check or mend:
        return _checked((data or default_data()).expanduser(), mend)
    address, is_open = store_address(store)
    place = blobs_place(blobs, address)
    if address is not None:
        check_shared(data, place)
        _check_alone(device=device, workers=workers, jobs_per_worker=jobs_per_worker)
    return started(
        asked,
        None,
        host=host,
        port=port,
        data=data,
        token=token,
        limit=limit,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        url_inputs=url_inputs,
        jobs_per_worker=jobs_per_worker,
        devices=device,
        workers=workers,
        store=address,
        blobs=place,
        is_store_open=is_open,
        migrate=migrate,
    )


def store_address(said: str | None) -> tuple[str | None, bool]:
    """The address of a shared store, and whether others can read it; taken out of other processes' environment."""
    from overpaint.service.store.postgres_address import VARIABLE

    variable = os.environ.pop(VARIABLE, None)
    return (said, True) if said is not None else (variable or None, False)


def blobs_place(said: str | None, address: str | None) -> StoreFile | None:
    """The object store that was named for pictures."""
    from overpaint.errors import RequestError

    if said is None:
        return None
    from overpaint.service.store.objects import blobs_named
    from overpaint.stores import check_packages

    place = blobs_named(said)
    if address is None:
        remedy = "without --store there is one process, which keeps pictures in --data; give --store, too"
        raise RequestError("--blobs", place.url, remedy)
    check_packages(place, "--blobs")
    return place


def check_shared(data: Path | None, place: StoreFile | None) -> None:
    """Whether it was said where the pictures of a shared store lie."""
    from overpaint.errors import RequestError

    if data is None and place is None:
        remedy = "give the folder that all processes of the store share, for their pictures, or --blobs"
        raise RequestError("--data", None, remedy)


def _check_alone(**of_workers: Any) -> None:
    from overpaint.errors import RequestError

    for name, value in of_workers.items():
        if value is not None:
            remedy = "workers are processes of their own with --store; give it to `overpaint worker`"
            raise RequestError(f"--{name.replace('_', '-')}", value, remedy)


def started(
    asked: GivenOptions,
    then: Callable[[str], None] | None,
    *,
    host: str,
    port: int,
    data: Path | None,
    token: str | None,
    limit: list[str] | None,
    devices: list[str] | None = None,
    workers: int | None = None,
    **more: Any,
) -> int:
    """A server with these options until a signal ends it; `then` gets its URL as soon as it answers there."""
    from overpaint.service.config import ServeConfig
    from overpaint.service.known_models import check_started
    from overpaint.service.limits import limits_from
    from overpaint.service.serve import serve as run
    from overpaint.service.workers.devices import chosen_devices

    settings = site_settings(asked)
    config = ServeConfig(
        data=(data or default_data()).expanduser(),
        host=host,
        port=port,
        # Taken out, so that it is in no other process's environment.
        token=_token(asked, token),
        checkpoint=served_model(asked, settings),
        devices=chosen_devices(devices or [asked.text("device", "auto")], workers),
        dtype=asked.text("dtype", "auto"),
        settings=settings,
        limits=limits_from(limit or ()),
        **more,
    )
    check_started(config)
    tell_webui(asked, False)

    def announced(url: str) -> None:
        say(f"overpaint serves {url} (data in {config.data})")
        if then is not None:
            then(url)

    return run(config, announced)


def _checked(data: Path, mend: bool) -> int:
    from overpaint.service.store.examination import examined, mended

    report = examined(data)
    say(f"{data}: {report.summary}")
    for each in report.found:
        say(each)
    if not report.found:
        say("all of it is whole")
    elif mend:
        for each in mended(data):
            say(f"set aside: {each}")
    return 1 if report.found else 0


def _token(asked: GivenOptions, said: str | None) -> str | None:
    variable = os.environ.pop(TOKEN_VARIABLE, None)
    if said is not None:
        return said
    return variable if variable is not None else asked.text("token") or None


def served_model(asked: GivenOptions, settings: Settings) -> str | None:
    """What jobs are painted with that name no model; the first of a folder of several, which is said."""
    from overpaint.cli.chosen_model import checkpoints_in
    from overpaint.hints import listed

    named = asked.text("model") or settings.sd_model_checkpoint
    if named or not settings.models_dir:
        return named or None
    found = list(checkpoints_in(settings))
    if len(found) > 1:
        others = listed(each.name for each in found[1:])
        note(f"jobs that name no model get {found[0].name}; --model chooses another: {others}")
    return str(found[0].path) if found else None


def site_settings(asked: GivenOptions) -> Settings:
    """The site's: unlike a single command's, with the previews and grids that clients may ask for."""
    from overpaint.settings import Settings

    return asked.over(Settings())


def default_data() -> Path:
    import platformdirs

    return platformdirs.user_data_path("overpaint") / "serve"
