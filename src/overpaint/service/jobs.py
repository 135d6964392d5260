"""Jobs: what was accepted, where it stands, what came of it. Values only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

Json = Mapping[str, Any]
Kind = Literal["paint", "extras", "sequence"]  # a PaintRequest; an ExtrasRequest; a tool that paints several
Origin = Literal["v1", "sdapi", "openai", "page"]

PICTURE_REFERENCE = "sha256:"  # in a stored request a picture is this and the hash of its bytes


def _nothing() -> Json:
    return MappingProxyType({})


def _plain_part(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)


class JobState(str, Enum):
    """Where a job stands. The last three are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        return self in (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One accepted job: everything that painting it needs, so that it can be painted again after a crash."""

    id: str
    kind: Kind
    request: Json  # the request's to_json, its pictures as references, its seeds known
    settings: Json  # settings_json of the frozen snapshot it runs under
    origin: Origin = "v1"
    client: str = ""  # who asked, for fairness: a token's or an address's name, never a secret
    priority: int = 0  # higher is sooner
    key: str | None = None  # the client's idempotency key
    created: float = 0.0  # seconds since 1970
    queue_seconds: float | None = None  # it may wait, while there is a server; still waiting then, it fails
    run_seconds: float | None = None
    task: str | None = None  # what a client of the reference calls it

    def fingerprint(self) -> str:
        """Equal for equal requests: what tells a repeated request from another one under the same key."""
        asked = {"kind": self.kind, "request": dict(self.request), "settings": dict(self.settings)}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=_plain_part).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job failed, for programs and for people."""

    code: str  # invalid, checkpoint, sampling, memory, deadline, hung, crashed, save, damaged, internal
    message: str


@dataclass(frozen=True, kw_only=True)
class ResultPicture:
    """One picture of a result. Its file is `results/<job>/<number>.png` (or another suffix) below the data folder."""

    number: int  # place in the result's list
    file: str  # its name there, no path
    infotext: str = ""
    kind: Literal["picture", "mask", "grid", "control"] = "picture"
    media_type: str = "image/png"
    seed: int | None = None
    width: int = 0
    height: int = 0
    seam: Json | None = None  # of an inpainted picture: how visible the mask's edge is


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a finished job gives, and a cancelled or failed one as far as it got."""

    pictures: tuple[ResultPicture, ...] = ()
    infotexts: tuple[str, ...] = ()  # as `Processed` has them
    info: str = "{}"  # the JSON text that the reference's clients know as `info`
    warnings: tuple[str, ...] = ()
    comments: str = ""
    stopped: bool = False
    model: Json = field(default_factory=_nothing)
    extra: Json = field(default_factory=_nothing)  # of kinds other than painting, such as html_info


@dataclass(frozen=True, kw_only=True)
class Uptimes:
    """Moments of a job in the uptime of its store, for ages and durations. The time of day is what people are told."""

    accepted: float = 0.0
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A job with all that happened to it; a new value after every change."""

    job: Job
    state: JobState = JobState.QUEUED
    started: float | None = None  # seconds since 1970, as the next one
    ended: float | None = None
    uptimes: Uptimes = field(default_factory=Uptimes)
    attempts: int = 0
    step: int = 0
    steps: int = 0
    images_total: int = 0
    result: JobResult = field(default_factory=JobResult)
    error: JobError | None = None
    gone: bool = False  # its pictures were kept long enough and are deleted
    pinned: bool = False  # they never get old
    bytes: int = 0  # that its pictures take on disk

    @property
    def id(self) -> str:
        return self.job.id


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job that a worker may run. Whatever it writes of the job names the fence: a later claim makes it void."""

    record: Record
    worker: str
    fence: int
    deaths: int = 0  # of workers that had begun with it
    refusals: int = 0  # how often what they made could not be kept
    stop: str | None = None  # what somebody wants of it


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One entry of a job's story, numbered from 1: what server-sent events carry and replay."""

    job: str
    number: int
    name: Literal["queued", "started", "progress", "preview", "painted", "finished", "failed", "cancelled"]
    data: Json = field(default_factory=_nothing)
    at: float = 0.0
    picture: bytes | None = None  # PNG, of a preview, for those who follow the job as it runs; not kept


@dataclass(frozen=True, kw_only=True)
class JobChange:
    """A job after a call that may have changed it, and the event that was written down with the change, if it did."""

    record: Record
    event: JobEvent | None = None


@dataclass(frozen=True, kw_only=True)
class DoneBatch:
    """A finished batch on disk, from which an interrupted job goes on."""

    number: int
    pictures: tuple[ResultPicture, ...]
    notes: Json = field(default_factory=_nothing)
    complete: bool = True
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One worker of a server as of now."""

    id: str
    device: str
    state: str  # STARTING, READY, BUSY or UNHEALTHY
    model: Json | None = None  # the checkpoint that it used last
    jobs: tuple[str, ...] = ()
    slots: int = 1  # jobs that it takes at once
    deaths: int = 0
    switches: int = 0  # how often it came to another checkpoint than before
    encodings: Json | None = None  # what its engine encoded, what it knew already, and the bytes kept; None: no job yet
    memory: Json | None = None  # bytes, in the words of the reference's /memory; None: not known now


@dataclass(frozen=True, kw_only=True)
class Live:
    """A running job as of now: what progress bars show. Not kept."""

    job: str
    client: str = ""  # who asked for it
    step: int = 0
    steps: int = 0
    batch: int = 0
    batches: int = 1
    images: int = 1
    preview: bytes | None = None  # PNG
    since: float = 0.0  # seconds since 1970
    begun_at: float = 0.0  # the same in the store's uptime, as the next ones
    first_step: int = 0  # of those that were heard of, and when: the job's own pace
    first_at: float = 0.0
    step_at: float = 0.0


def result_of_batches(batches: Sequence[DoneBatch], warnings: Sequence[str] = ()) -> JobResult:
    """What there is of a job that did not come to its own account."""
    pictures = [each for batch in batches for each in batch.pictures]
    return JobResult(
        pictures=tuple(replace(each, number=i) for i, each in enumerate(pictures)),
        infotexts=tuple(each.infotext for each in pictures if each.kind == "picture"),
        warnings=tuple(dict.fromkeys((*warnings, *(said for batch in batches for said in batch.warnings)))),
        stopped=True,
    )
