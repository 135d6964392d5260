"""How a server was started."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from overpaint.errors import RequestError
from overpaint.service.limits import Limits
from overpaint.settings import Settings
from overpaint.stores import StoreFile

MOST_JOBS_PER_WORKER = 64


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Everything a server needs to know. `settings` are the site's: folders, and options that jobs start from."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = field(default=None, repr=False)  # for every route but /healthz; needed beyond loopback
    checkpoint: str | None = None  # None: the default one
    device: str = "auto"
    devices: tuple[str, ...] = ()  # a worker for each; none: one on `device`
    dtype: str = "auto"
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    allowed_hosts: tuple[str, ...] = ()  # names, besides loopback's, that the Host header may hold
    allowed_origins: tuple[str, ...] = ()  # pages elsewhere that may call
    url_inputs: bool = False  # fetch pictures that are named by URL
    jobs_per_worker: int | None = None  # that go on at once; None: as many as pay on its device
    store: str | None = field(default=None, repr=False)  # an address of PostgreSQL; None: SQLite, in `data`
    blobs: StoreFile | None = None  # where its pictures lie, if not in `data`, which then is this machine's alone
    is_store_open: bool = False  # whether others can read that address, since it stood on the command line
    migrate: bool = False  # tables of an older version there may be brought to this one
    announces_page: bool = False  # tell the URL when the page loads there, which is before the APIs answer

    def __post_init__(self) -> None:
        if self.token:
            object.__setattr__(self, "token", _trimmed(self.token))
        if not self.is_loopback and not self.token:
            remedy = "give --token, since others can reach this address, or use 127.0.0.1"
            raise RequestError("--host", self.host, remedy)
        if not 0 <= self.port <= 65_535:
            raise RequestError("--port", self.port, "give a port from 0 (any free one) to 65535")
        if self.jobs_per_worker is not None and not 1 <= self.jobs_per_worker <= MOST_JOBS_PER_WORKER:
            remedy = f"give 1 to {MOST_JOBS_PER_WORKER}, or leave it out: the device decides then"
            raise RequestError("--jobs-per-worker", self.jobs_per_worker, remedy)

    @property
    def worker_devices(self) -> tuple[str, ...]:
        return self.devices or (self.device,)

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _trimmed(token: str) -> str:
    """Without what files and shells leave around it."""
    found = token.strip()
    if not found or not found.isprintable():
        remedy = "give one of printable characters" if found else "it is blank; give a token or none"
        raise RequestError("--token", "***", remedy)
    return found
