"""`overpaint worker`: paints what the servers of a shared store accept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import say
from overpaint.cli.serve import (
    Blobs,
    Device,
    JobsPerWorker,
    Limit,
    SharedStoreOption,
    Workers,
    blobs_place,
    check_shared,
    default_data,
    served_model,
    site_settings,
    store_address,
)

SharedData = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The folder of the pictures, which all processes of the store share."),
]


@takes(*(each for each in JOB_OPTIONS if each.name != "device"))
def worker(
    *,
    store: SharedStoreOption = None,
    data: SharedData = None,
    blobs: Blobs = None,
    device: Device = None,
    workers: Workers = None,
    jobs_per_worker: JobsPerWorker = None,
    limit: Limit = None,
    asked: GivenOptions,
) -> int:
    """Paint the jobs of a shared store here.

    The servers of the store (`overpaint serve --store`) accept jobs; any number of these, on any machines, paint them.
    Each takes what its checkpoints allow, may come and go at any time, and listens nowhere.

    SIGTERM or Ctrl-C stops it: what runs may finish, or goes on elsewhere. A second one stops it at once.
    """
    from overpaint.errors import RequestError
    from overpaint.service.config import ServeConfig
    from overpaint.service.known_models import check_started
    from overpaint.service.limits import limits_from
    from overpaint.service.worker_host import work
    from overpaint.service.workers.devices import chosen_devices

    address, is_open = store_address(store)
    if address is None:
        raise RequestError(
            "--store", None, "give the address that the servers have, such as postgresql://HOST/DATABASE"
        )
    place = blobs_place(blobs, address)
    check_shared(data, place)
    settings = site_settings(asked)
    config = ServeConfig(
        data=(data or default_data()).expanduser(),
        checkpoint=served_model(asked, settings),
        devices=chosen_devices(device or [asked.text("device", "auto")], workers),
        dtype=asked.text("dtype", "auto"),
        settings=settings,
        limits=limits_from(limit or ()),
        jobs_per_worker=jobs_per_worker,
        store=address,
        blobs=place,
        is_store_open=is_open,
    )
    check_started(config)
    kept_in = config.data if place is None else place
    return work(config, lambda name: say(f"overpaint works as {name} (pictures in {kept_in})"))
