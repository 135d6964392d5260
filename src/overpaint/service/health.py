"""How the server is: alive, ready, and in numbers; and each of its workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field
from starlette.types import Scope

from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobState, Json, Live, WorkerStatus
from overpaint.service.ports import Desk
from overpaint.service.store.room import has_space
from overpaint.version import __version__

WORDS = ("STARTING", "READY", "BUSY", "UNHEALTHY")
_FIT = ("READY", "BUSY")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_PULSE = 0.25  # seconds between looks at the running jobs
_FOLDER_AGE = 10.0  # seconds for which the size of the results is believed
_OF_WORKERS = {
    "jobs": "Jobs that a worker paints now.",
    "deaths": "How often a worker's process has ended unasked.",
    "switches": "How often a worker came to another checkpoint than before.",
}
_OF_ENCODINGS = {
    "made": "Texts and pictures that a worker's engine encoded.",
    "reused": "Texts and pictures that it knew already.",
    "bytes": "What it keeps of them for later jobs.",
}
_STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_REQUEST_SECONDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0)


class Alive(BaseModel):
    status: str = "ok"
    version: str = __version__


class Readiness(BaseModel):
    """Whether jobs are painted now; they are accepted in any state but the last moments of a server."""

    status: str = Field(description="STARTING, READY, BUSY or UNHEALTHY, which it also is when it stops or lacks disk.")
    version: str = __version__


class WorkerModel(BaseModel):
    """The checkpoint that a worker used last."""

    name: str
    hash: str | None = None
    vae: str | None = None


class WorkerMemory(BaseModel):
    """Bytes that a worker takes, where the system says so."""

    ram: int | None = None
    device: int | None = Field(default=None, description="Of an NVIDIA GPU.")


class WorkerEncodings(BaseModel):
    """The texts and pictures that a worker's engine encoded, as of its latest job's end."""

    made: int
    reused: int = Field(description="How often an earlier encoding served.")
    bytes: int = Field(description="What is kept for later jobs.")


class WorkerAnswer(BaseModel):
    """One worker: a process with a device of its own."""

    id: str
    device: str
    state: str = Field(description="STARTING, READY, BUSY or UNHEALTHY.")
    model: WorkerModel | None = None
    jobs: list[str] = Field(description="The ids of those that it paints now.")
    slots: int = Field(description="How many jobs of one model it paints at once.")
    deaths: int = Field(description="How often its process has ended unasked and was started again.")
    switches: int = Field(description="How often it came to another checkpoint than before, the first one included.")
    encodings: WorkerEncodings | None = Field(default=None, description="Null before its first job.")
    memory: WorkerMemory | None = Field(default=None, description="Null while it does not answer.")


class WorkersAnswer(BaseModel):
    workers: list[WorkerAnswer]


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self.requests = Counter("overpaint_http_requests", "Answers, by route.", labels, registry=own)
        self.request_seconds = Histogram(
            "overpaint_http_request_seconds",
            "How long answers took.",
            labels[:1],
            buckets=_REQUEST_SECONDS,
            registry=own,
        )
        self.step_seconds = Histogram(
            "overpaint_step_seconds", "How long sampling steps took.", buckets=_STEP_SECONDS, registry=own
        )
        self.jobs = Gauge("overpaint_jobs", "Jobs that are known, by state.", ("state",), registry=own)
        self.waiting = Gauge("overpaint_queue_length", "Jobs that wait.", registry=own)
        self.results = Gauge("overpaint_results_bytes", "What the results take where they are kept.", registry=own)
        self.state = Gauge("overpaint_state", "1 for the word of /readyz.", ("state",), registry=own)
        self._of_workers = {
            name: Gauge(f"overpaint_worker_{name}", said, ("worker", "device"), registry=own)
            for name, said in _OF_WORKERS.items()
        }
        self._of_encodings = {
            name: Gauge(f"overpaint_worker_encodings_{name}", said, ("worker", "device"), registry=own)
            for name, said in _OF_ENCODINGS.items()
        }
        self.worker_state = Gauge(
            "overpaint_worker_state", "1 for the word of /v1/workers.", ("worker", "device", "state"), registry=own
        )
        self._measured = -_FOLDER_AGE

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """An answer is out."""
        route = template_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.requests.labels(route, method, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def measure(self, desk: Desk) -> None:
        """What is looked up when somebody asks. Reads the store, so it belongs in a thread."""
        counts = desk.store.counts()
        for state in JobState:
            self.jobs.labels(state.value).set(counts.get(state, 0))
        self.waiting.set(counts.get(JobState.QUEUED, 0))
        word = desk.state()
        for each in WORDS:
            self.state.labels(each).set(each == word)
        self._measure_workers(desk.workers())
        if time.monotonic() - self._measured > _FOLDER_AGE:
            self._measured = time.monotonic()
            self.results.set(desk.store.results_size())

    def _measure_workers(self, workers: Sequence[WorkerStatus]) -> None:
        self.worker_state.clear()  # a device may have another name when its worker is ready
        for name, gauge in self._of_workers.items():
            gauge.clear()
            for each in workers:
                value = getattr(each, name)
                gauge.labels(each.id, each.device).set(len(value) if name == "jobs" else value)
        for name, gauge in self._of_encodings.items():
            gauge.clear()
            for each in workers:
                if each.encodings is not None:
                    gauge.labels(each.id, each.device).set(each.encodings[name])
        for each in workers:
            for word in WORDS:
                self.worker_state.labels(each.id, each.device, word).set(word == each.state)

    async def follow(self, desk: Desk) -> None:
        """Measure the steps of what runs by looking now and then, for as long as the server runs."""
        seen: dict[str, tuple[int, float]] = {}  # by job: the step, and since when
        while True:
            await asyncio.sleep(_PULSE)
            now = time.monotonic()
            seen = {live.job: self._stepped(live, seen.get(live.job), now) for live in desk.all_running()}

    def _stepped(self, live: Live, before: tuple[int, float] | None, now: float) -> tuple[int, float]:
        if before is None:
            return live.step, now
        step, since = before
        if live.step <= step:
            return before
        for _ in range(step and live.step - step):  # the first step may have begun at any time
            self.step_seconds.observe((now - since) / (live.step - step))
        return live.step, now


def template_of(scope: Scope) -> str:
    """The route as it is declared: paths with their ids would make a number of their own each."""
    # NOTE: FastAPI from 0.129 on keeps the prefix of an included router here; before, the route has it itself.
    context = scope.get("fastapi", {}).get("effective_route_context")
    route = scope.get("route")
    found = getattr(context, "path_format", None) or getattr(route, "path_format", None) or getattr(route, "path", None)
    return str(found) if found else "none"


def router(desk: Desk, config: ServeConfig, metrics: Metrics) -> APIRouter:
    """The three questions that machines ask."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    @routes.head("/healthz", include_in_schema=False)
    async def healthz() -> Alive:
        """The process lives. Needs no token, and asks nobody."""
        return Alive()

    @routes.get("/readyz", responses={503: {"model": Readiness, "description": "No jobs are painted now."}})
    @routes.head("/readyz", include_in_schema=False)
    async def readyz(response: Response) -> Readiness:
        """Whether jobs are painted."""
        is_fit = has_space(config.data) and await asyncio.to_thread(desk.store.trouble) is None
        word = desk.state() if is_fit else "UNHEALTHY"
        if word not in _FIT:
            response.status_code = 503
            response.headers["Retry-After"] = "2"
        return Readiness(status=word)

    @routes.get("/v1/workers")
    async def workers() -> WorkersAnswer:
        """The processes that paint, each on its device."""
        return WorkersAnswer(workers=[_answer_of(each) for each in await desk.workers_in_full()])

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text."}},
    )
    async def numbers() -> Response:
        """Everything that is counted and measured."""
        await asyncio.to_thread(metrics.measure, desk)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _answer_of(worker: WorkerStatus) -> WorkerAnswer:
    model = worker.model
    return WorkerAnswer(
        id=worker.id,
        device=worker.device,
        state=worker.state,
        model=_model_of(model) if model else None,
        jobs=list(worker.jobs),
        slots=worker.slots,
        deaths=worker.deaths,
        switches=worker.switches,
        encodings=WorkerEncodings(**worker.encodings) if worker.encodings else None,
        memory=_memory_of(worker.memory) if worker.memory else None,
    )


def _model_of(told: Json) -> WorkerModel:
    return WorkerModel(name=told["name"], hash=told.get("hash"), vae=told.get("vae_name"))


def _memory_of(told: Json) -> WorkerMemory:
    active = (told.get("cuda") or {}).get("active") or {}
    return WorkerMemory(ram=(told.get("ram") or {}).get("used"), device=active.get("current"))
