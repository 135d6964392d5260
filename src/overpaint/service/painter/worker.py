"""The worker: a process with one engine, which paints one job after another for its parent.

It is started by `workers.py`, in the way that `children.py` tells, and speaks `wire.py` on its standard pipes.

The main thread owns the engine. A second one reads what the parent says, so that a stop is heard while a job runs; when
the parent is gone, the process ends at once. torch is loaded after the first word, so that others see it starting.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from overpaint.errors import OverpaintError, SamplingError
from overpaint.events import Control, Stop
from overpaint.extras import ExtrasRequest
from overpaint.pixels.resize import Upscaler
from overpaint.service.jobs import JobState
from overpaint.service.logs import LOGGER, formatter, line
from overpaint.service.painter import questions
from overpaint.service.painter.painting import Ended, Enlarging, Painting, Task, error_of, is_refused_by_disk
from overpaint.service.painter.results import model_values
from overpaint.service.painter.sequenced import SequencePainting
from overpaint.service.requests import AnyRequest, loaded_request
from overpaint.service.sequence_orders import SequenceOrder
from overpaint.service.store.forms import batch_of, job_of, plain
from overpaint.service.store.source_files import SourceFiles
from overpaint.service.wire import Garbled, Message, Sender, read
from overpaint.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overpaint.engine import Engine

Trouble = Literal["memory", "nan"]

RUINED = 3  # exit code: the device does not answer any more, a new process is needed
_SECONDS_BETWEEN_LOADING = 0.2
_SAID: Mapping[Trouble, str] = {
    "memory": "memory: there was too little for the whole job at once; it was painted in smaller parts",
    "nan": "precision: the network produced NaN, so the job was painted again in float32",
}

_FIRMER = (Stop.SKIP, Stop.AFTER_BATCH, Stop.FINISH_EARLY, Stop.CANCEL)  # a later one replaces those before it
_BELOW_THE_WEB = 5  # how much nicer than the process that answers, which needs little but needs it at once

log = logging.getLogger(LOGGER)


class EngineHolder:
    """The engine, made when it is first needed and again after it was put away."""

    def __init__(self, values: Mapping[str, Any], told: Callable[[int, int], None]) -> None:
        self.picture = SourceFiles(Path(values["data"]) / "inputs").read  # a source by its reference
        self.checkpoint: str | None = values["checkpoint"]  # of jobs that name none, as long as the server lives
        self.device: str = values["device"]
        self.dtype: str = values["dtype"]
        self.settings = Settings.from_json(values["settings"])
        self._told = told
        self._engine: Engine | None = None

    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._made(self.dtype)
        return self._engine

    @property
    def has_engine(self) -> bool:
        return self._engine is not None

    def put_away(self) -> None:
        """Free what the engine holds."""
        if self._engine is not None:
            device = self._engine.device
            self._engine.close()
            self._engine = None
            self.tidy(device)

    def tidy(self, device: str) -> None:
        """Give memory back that only forgotten values hold."""
        import torch

        from overpaint.models.memory import give_back

        gc.collect()
        give_back(torch.device(device))

    @contextmanager
    def in_float32(self) -> Iterator[Engine]:
        """An engine of full precision, and afterwards the usual one again."""
        self.put_away()
        self._engine = self._made("float32")
        try:
            yield self._engine
        finally:
            self.put_away()

    def upscalers(
        self, settings: Settings, progress: Callable[[int, int], None], stopped: Callable[[], bool]
    ) -> Mapping[str, Upscaler]:
        from overpaint.painting.upscaling import Watch, known_upscalers

        return known_upscalers(settings, self.engine().device, Watch(progress, stopped))

    def _made(self, dtype: str) -> Engine:
        from overpaint.engine import Engine

        return Engine(self.checkpoint, self.device, dtype, self.settings, progress=self._told)


class Worker:
    """What goes on in the process."""

    def __init__(self, commands: BinaryIO, reports: BinaryIO) -> None:
        self._commands, self._sender = commands, Sender(reports)
        self._todo: queue.Queue[Message | None] = queue.Queue()
        self._controls: dict[str, Control] = {}  # of the jobs that were handed over and have not ended
        self._told_loading = 0.0
        self._bench: EngineHolder | None = None

    def run(self) -> None:
        """Until the parent says that it is over."""
        self._sender.send("hello", pid=os.getpid())
        threading.Thread(target=self._listen, daemon=True, name="commands").start()
        first = self._todo.get()
        if first is None:
            return
        bench = EngineHolder(first, self._loading)
        self._open(bench)
        self._bench = bench
        while (message := self._todo.get()) is not None:
            if message["type"] == "job":
                self._job(bench, message)
            else:
                self._answer(bench, message)

    # -- the thread that listens ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        code = 0
        try:
            while (message := read(self._commands)) is not None:
                self._take(message)
        except Garbled as error:
            log.error(line("garbled", side="worker", error=error))
            code = 1
        os._exit(code)  # nobody is there any more to whom a result could be told

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "stop":
            control, how = self._controls.get(message["job"]), Stop(message["how"])
            if control is not None and (control.message is None or _FIRMER.index(control.message) < _FIRMER.index(how)):
                control.ask(how)
            return
        if kind == "ask" and message["what"] in questions.AT_ONCE and self._bench is not None:
            threading.Thread(target=self._answer, args=(self._bench, message), daemon=True).start()
            return
        if kind == "job":
            self._controls[message["job"]["id"]] = Control()
        self._todo.put(None if kind == "shutdown" else message)

    # -- the thread that works -----------------------------------------------------------------------------------

    def _loading(self, done: int, total: int) -> None:
        if time.monotonic() - self._told_loading >= _SECONDS_BETWEEN_LOADING:
            self._told_loading = time.monotonic()
            self._sender.send("loading", done=done, total=total)

    def _open(self, bench: EngineHolder) -> bool:
        """Make the engine and say how that went."""
        try:
            engine = bench.engine()
        except Exception as error:
            self._unfit(error)
            return False
        self._sender.send("ready", model=model_values(engine.model), device=engine.device)
        return True

    def _unfit(self, error: Exception) -> None:
        log.error(line("unfit", error=error), exc_info=not isinstance(error, OverpaintError))
        self._sender.send("unfit", error=plain(error_of(error)))

    def _job(self, bench: EngineHolder, message: Message) -> None:
        job = job_of(message["job"])

        def tell(kind: str, **values: object) -> None:
            self._sender.send(kind, job=job.id, **values)

        task = Task(
            job=job,
            folder=Path(message["folder"]),
            done=tuple(map(batch_of, message["done"])),
            control=self._controls[job.id],
            tell=tell,
        )
        tell("taken")
        ended = self._carried_out(bench, task)
        self._controls.pop(job.id, None)
        tell(
            "ended",
            state=ended.state.value,
            result=plain(ended.result),
            error=plain(ended.error),
            refused=ended.refused,
        )

    def _carried_out(self, bench: EngineHolder, task: Task) -> Ended:
        was_unfit = not bench.has_engine
        try:
            request = loaded_request(task.job.request, bench.picture)
            engine = bench.engine()
            if was_unfit:
                self._open(bench)
            work = _work_of(engine, task, request)
        except Exception as error:
            ended = Ended(JobState.FAILED, error=error_of(error), refused=is_refused_by_disk(error))
            return self._failed(error, task, ended)
        try:
            return work.run(bench.upscalers) if isinstance(work, Enlarging) else work.run(engine)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None or task.control.message is Stop.CANCEL:
                return self._failed(error, task, work.failed(error))
            log.warning(line("smaller", job=task.job.id, trouble=trouble, error=error))
        # NOTE: outside the handler, for the error's frames hold the tensors that are too large.
        try:
            return _smaller(bench, work, trouble)
        except Exception as error:
            return self._failed(error, task, work.failed(error))

    def _failed(self, error: Exception, task: Task, ended: Ended) -> Ended:
        foreseen = isinstance(error, OverpaintError)
        log.error(line("failed", job=task.job.id, error=error if foreseen else None), exc_info=not foreseen)
        if _is_ruined(error):
            self._sender.send(
                "ended", job=task.job.id, state=ended.state.value, result=plain(ended.result), error=plain(ended.error)
            )
            os._exit(RUINED)
        return ended

    def _answer(self, bench: EngineHolder, message: Message) -> None:
        try:
            answered = questions.answer(bench, message["what"], message["values"])
        except Exception as error:
            if not isinstance(error, OverpaintError):
                log.exception(line("unanswered", what=message["what"]))
            self._sender.send("answer", id=message["id"], error=plain(error_of(error)))
            return
        self._sender.send("answer", id=message["id"], value=answered)


def _work_of(engine: Engine, task: Task, request: AnyRequest) -> Painting | Enlarging | SequencePainting:
    if isinstance(request, ExtrasRequest):
        return Enlarging(task, request)
    if isinstance(request, SequenceOrder):
        return SequencePainting(engine, task, request.sequence(task.settings))
    return Painting(engine, task, request)


def _smaller(bench: EngineHolder, work: Painting | Enlarging | SequencePainting, trouble: Trouble) -> Ended:
    """The one second try."""
    bench.tidy(bench.engine().device)
    if isinstance(work, Enlarging):
        return work.run_smaller(bench.upscalers, _SAID[trouble])
    from overpaint.engine import stages_of

    if trouble == "nan" and not stages_of(bench.engine()).backend.abilities.full_precision:
        with bench.in_float32() as engine:
            return work.run_smaller(engine, _SAID[trouble])
    return work.run_smaller(bench.engine(), _SAID[trouble])


def trouble_of(error: BaseException) -> Trouble | None:
    """What a second try might help against."""
    from overpaint.models.memory import is_out_of_memory

    if any(each is not None and is_out_of_memory(each) for each in (error, error.__cause__)):
        return "memory"
    return "nan" if isinstance(error, SamplingError) and "NaN" in str(error) else None


def _is_ruined(error: Exception) -> bool:
    """After such an error a GPU refuses everything that this process asks."""
    return any("CUDA error" in str(each) for each in (error, error.__cause__) if isinstance(each, RuntimeError))


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, out of the reach of whatever prints or reads in this process."""
    commands, reports = (os.dup(each) for each in (0, 1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return os.fdopen(commands, "rb"), os.fdopen(reports, "wb")


def deaf() -> None:
    """A Ctrl-C or a service manager's signal reaches the whole group; the parent decides what becomes of this one."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


def main() -> int:
    commands, reports = own_pipes()
    if hasattr(os, "nice"):
        os.nice(_BELOW_THE_WEB)
    deaf()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with suppress(BrokenPipeError):
        Worker(commands, reports).run()
    return 0


def started() -> None:
    """The whole life of the process."""
    code = main()
    logging.shutdown()
    os._exit(code)  # the thread that listens would wait for the parent


if __name__ == "__main__":
    started()
