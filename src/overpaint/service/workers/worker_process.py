"""The worker as its parent sees it: started, spoken to, watched, and started again when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from overpaint.events import Stop
from overpaint.service.children import command_of, environment
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobError, Json
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import Full
from overpaint.service.store.forms import error_of
from overpaint.service.wire import Garbled, Message, encoded, receive
from overpaint.service.workers.port import WorkerGone, WorkerRefused

COMMAND = command_of("overpaint.service.painter.worker")
LOADING_PATIENCE = 5  # times the watchdog, where models may be read and nothing is heard
QUESTIONS = 64  # that may wait for an answer
STARTING_PATIENCE = 60.0  # seconds that a question waits for a worker to be there
UNHEALTHY_AFTER = 3  # deaths in a row before it was ready
_BACKOFF = (0.0, 0.5, 2.0, 5.0, 15.0, 30.0)  # seconds before the next start, by deaths in a row
_LOSSY = ("progress", "preview")
_UNREAD = 100  # messages of a job, beyond which steps and previews are dropped
# Of the environment, which the worker has no use for: it finds what it needs on this machine's disk.
SECRETS = (
    *("OVERPAINT_TOKEN", "OVERPAINT_STORE", "PGPASSWORD"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "FSSPEC_S3_SECRET"),
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET"),
)
_FAREWELL = 2.0  # seconds a worker has to end by itself

log = logging.getLogger(LOGGER)


@dataclass
class JobHeard:
    """What a worker says of one of its jobs, and whether that has come as far as steps."""

    messages: asyncio.Queue[Message | WorkerGone] = field(default_factory=asyncio.Queue)
    steps: bool = False


class WorkerProcess:
    """One worker process after another: `WorkerPort` says what is asked of it."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        command: Sequence[str] = COMMAND,
        name: str = "0",
        device: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._watchdog = tuple(command), config.limits.watchdog
        self.name, self.device = name, device or config.device
        self._variables = variables or {}
        self._start: Json = {
            "type": "start",
            "data": str(config.data),
            "checkpoint": config.checkpoint,
            "device": self.device,
            "dtype": config.dtype,
            "settings": config.settings.to_json(),
            "slots": config.jobs_per_worker,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._prepared = asyncio.Event()  # set while a worker takes jobs
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count(1)
        self._jobs: dict[str, JobHeard] = {}  # that were handed over and have not ended
        self._changed: Callable[[], None] = lambda: None
        self._heard = 0.0  # when the last message came, or something began to be expected
        self._deaths = 0  # in a row, before it was ready
        self._hung = False
        self._culprit: str | None = None  # the job that it is killed for
        self.unfit: JobError | None = None  # why there is no engine
        self.model: Json | None = None
        self.holds: Sequence[str] | None = None
        self.slots, self.deaths, self.switches = 1, 0, 0
        self.encodings: Json | None = None

    # -- its life ------------------------------------------------------------------------------------------------

    def open(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._tasks = [asyncio.create_task(self._live()), asyncio.create_task(self._watch())]

    async def close(self) -> None:
        """End the worker; what it was doing is not waited for."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        process = self._process
        if process is None:
            return
        try:
            if not self._jobs and self._prepared.is_set() and process.stdin is not None:
                process.stdin.write(encoded({"type": "shutdown"}))
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(process.wait(), _FAREWELL)
        finally:
            _kill(process)
        self._bury(await process.wait())
        self._process = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def state(self) -> str:
        """STARTING, READY, BUSY or UNHEALTHY."""
        if self.unfit is not None or self._deaths >= UNHEALTHY_AFTER or any(each.done() for each in self._tasks):
            return "UNHEALTHY"
        if not self._prepared.is_set():
            return "STARTING"
        return "BUSY" if self._jobs else "READY"

    @property
    def is_prepared(self) -> bool:
        return self._prepared.is_set()

    async def prepared(self) -> None:
        """Wait for a worker that takes jobs."""
        await self._prepared.wait()

    def kill(self, culprit: str | None = None) -> None:
        """End the process at once; another one is started."""
        self._prepared.clear()
        if self._process is not None:
            self._culprit = culprit
            _kill(self._process)

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(_BACKOFF[min(self._deaths, len(_BACKOFF) - 1)])
            self._deaths += 1  # until it says that it is ready
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env={**environment(without=SECRETS), **self._variables},
                )
            except OSError as error:
                log.error(line("worker-not-started", worker=self.name, error=error))
                self._changed()
                continue
            self._heard, self._hung, self._culprit = _now(), False, None
            log.info(line("worker-started", worker=self.name, pid=self._process.pid))
            await self._listen(self._process)
            self._bury(await self._process.wait())

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Until the pipe ends, or something else than messages comes out of it."""
        assert process.stdout is not None
        try:
            self._send(**self._start)
            while (message := await receive(process.stdout)) is not None:
                self._heard = _now()
                self._take(message)
        except Garbled as error:
            log.error(line("garbled", side="parent", error=error))
        except WorkerGone:
            pass
        # NOTE: a kill asks for the exit code first, and then asyncio does not get it; most have ended by themselves.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _FAREWELL)
        _kill(process)

    def _bury(self, code: int) -> None:
        """Tell everybody who waits."""
        level = logging.WARNING if self._tasks else logging.INFO
        jobs = ",".join(self._jobs) or None
        log.log(level, line("worker-ended", worker=self.name, job=jobs, code=code, hung=self._hung or None))
        self._prepared.clear()
        self.unfit = self.model = self.holds = self.encodings = None
        self.deaths += bool(self._tasks)
        said = f"the worker ended (exit code {code})"
        gone = WorkerGone(said, hung=self._hung, culprit=self._culprit, jobs=len(self._jobs))
        for each in self._jobs.values():
            each.messages.put_nowait(gone)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(gone)
        self._answers.clear()
        self._changed()

    async def _watch(self) -> None:
        """Kill a worker that owes a word and says none."""
        while True:
            await asyncio.sleep(min(1.0, self._watchdog / 10))
            is_expected = self._jobs or self._answers or not self._prepared.is_set()
            is_stepping = self._jobs and all(each.steps for each in self._jobs.values())
            patience = self._watchdog * (1 if is_stepping else LOADING_PATIENCE)
            process = self._process
            if process is None or process.returncode is not None or not is_expected:
                continue
            if _now() - self._heard > patience:
                jobs, seconds = ",".join(self._jobs) or None, _now() - self._heard
                log.error(line("hung", worker=self.name, job=jobs, pid=process.pid, seconds=seconds))
                self._hung = True
                self.kill()
                self._heard = _now()

    # -- what it says --------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if (holds := message.get("holds")) is not None:
            self.holds = holds
        if kind == "ready":
            self.unfit, self._deaths = None, 0
            self.device, self.slots = message["device"], max(1, int(message.get("slots", 1)))
            self._has(message["model"])
            log.info(line("ready", worker=self.name, device=self.device, model=message["model"]["name"]))
            self._get_prepared()
        elif kind == "unfit":
            self.unfit, self._deaths = error_of(message["error"]), 0
            self._get_prepared()
        elif kind == "answer":
            self._resolve(message)
        elif (heard := self._jobs.get(message.get("job", ""))) is not None:
            heard.steps = kind in _LOSSY or (heard.steps and kind != "started")
            if kind == "ended":
                self._has((message.get("result") or {}).get("model"))
                self.encodings = message.get("encodings") or self.encodings
                self._changed()
            if kind not in _LOSSY or heard.messages.qsize() < _UNREAD:
                heard.messages.put_nowait(message)

    def _get_prepared(self) -> None:
        self._prepared.set()
        self._changed()

    def _has(self, model: Json | None) -> None:
        """A checkpoint, the same as before or another one; None where there was no need of one."""
        if model:
            self.switches += model != self.model
            self.model = model

    def _resolve(self, message: Message) -> None:
        future = self._answers.pop(message["id"], None)
        if future is None or future.done():
            return
        error = error_of(message.get("error"))
        if error is None:
            future.set_result(message["value"])
        else:
            future.set_exception(WorkerRefused(error))

    # -- what it is told -----------------------------------------------------------------------------------------

    async def work(self, message: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        """Hand a job over and hear of it, up to its "ended"; `WorkerGone` is raised if the worker is before that.

        Who stops listening earlier has the worker killed: it would go on with something nobody wants.
        """
        job, heard, is_over = message["job"]["id"], JobHeard(), False
        assert job not in self._jobs and len(self._jobs) < self.slots, "a worker has no more jobs than slots"
        if not self._jobs:
            self._heard = _now()
        self._jobs[job] = heard
        try:
            self._send("job", **message)
            while not is_over:
                word = await heard.messages.get()
                is_over = isinstance(word, WorkerGone) or word["type"] == "ended"
                if is_over:
                    self._jobs.pop(job, None)
                if isinstance(word, WorkerGone):
                    raise word
                yield word
        finally:
            self._jobs.pop(job, None)
            if not is_over:
                self.kill(job)

    def stop(self, job: str, how: Stop) -> None:
        """Ask a running job to end."""
        if job in self._jobs:
            with suppress(WorkerGone):
                self._send("stop", job=job, how=how.value)

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        """A question, answered between jobs. `WorkerRefused` is a no, `WorkerGone` that nobody is there to ask."""
        if len(self._answers) >= QUESTIONS:
            raise Full(f"{what}: {QUESTIONS} questions wait for the worker already; ask again later", 5.0)
        try:
            await asyncio.wait_for(self.prepared(), 0.0 if self.state == "UNHEALTHY" else STARTING_PATIENCE)
        except asyncio.TimeoutError:
            raise WorkerGone(f"{what}: there is no worker to answer just now; ask again later") from None
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        if not self._jobs and len(self._answers) == 1:
            self._heard = _now()
        try:
            self._send("ask", id=number, what=what, values=dict(values or {}))
            return await future
        finally:
            self._answers.pop(number, None)

    def _send(self, type: str, **values: Any) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            raise WorkerGone("there is no worker just now")
        process.stdin.write(encoded({"type": type, **values}))


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()


def _now() -> float:
    return asyncio.get_running_loop().time()
