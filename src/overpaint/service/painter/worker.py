"""The worker: a process with one engine, which paints jobs for its parent: several side by side, where that pays.

It is started by `workers.py`, in the way that `children.py` tells, and speaks `wire.py` on its standard pipes.

The main thread owns the engine. Between two calls of the network it looks at what the parent said. A second thread
reads that, so that a stop is heard at once; when the parent is gone, the process ends. torch is loaded after the first
word, so that others see it starting.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from overpaint.errors import OverpaintError
from overpaint.events import Control, Stop
from overpaint.service.children import deaf, let_the_server_go_first, own_pipes
from overpaint.service.logs import LOGGER, formatter, line
from overpaint.service.painter import questions
from overpaint.service.painter.engine_holder import EngineHolder
from overpaint.service.painter.jobs_in_hand import JobsInHand
from overpaint.service.painter.painting import Ended, Task, error_of
from overpaint.service.painter.questions import Asked
from overpaint.service.painter.results import model_values
from overpaint.service.store.forms import batch_of, job_of, plain
from overpaint.service.wire import Garbled, Message, Sender, read

RUINED = 3  # exit code: the device does not answer any more, a new process is needed
_SECONDS_BETWEEN_LOADING = 0.2
_FIRMER = (Stop.SKIP, Stop.AFTER_BATCH, Stop.FINISH_EARLY, Stop.CANCEL)  # a later one replaces those before it
_BEHIND = 5  # the process that answers

log = logging.getLogger(LOGGER)


class Worker:
    """What goes on in the process."""

    def __init__(self, commands: BinaryIO, reports: BinaryIO) -> None:
        self._commands, self._sender = commands, Sender(reports)
        self._todo: queue.Queue[Message | None] = queue.Queue()
        self._controls: dict[str, Control] = {}  # of the jobs that were handed over and have not ended
        self._told_loading = 0.0
        self._bench: EngineHolder | None = None
        self._asked: list[Asked] = []  # questions without an answer yet
        self._is_over = False  # the parent gives no more jobs

    def run(self) -> None:
        """Until the parent says that it is over."""
        self._sender.send("hello", pid=os.getpid())
        threading.Thread(target=self._listen, daemon=True, name="commands").start()
        first = self._todo.get()
        if first is None:
            return
        bench = EngineHolder(first, self._loading)
        jobs = JobsInHand(
            bench, self._ended, opened=lambda: self._open(bench, jobs), look=lambda: self._look(bench, jobs)
        )
        self._open(bench, jobs)
        self._bench = bench
        while not self._is_over or jobs.are_there:
            self._look(bench, jobs, wait=not (self._is_over or jobs.are_there))
            for each in () if self._asked else jobs.due():
                jobs.begin(each)
            jobs.go_on()

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
            asked = Asked.of(message, self._bench)
            threading.Thread(target=self._answer, args=(self._bench, asked), daemon=True).start()
            return
        if kind == "job":
            self._controls[message["job"]["id"]] = Control()
        self._todo.put(None if kind == "shutdown" else message)

    # -- the thread that works -----------------------------------------------------------------------------------

    def _loading(self, done: int, total: int) -> None:
        if time.monotonic() - self._told_loading >= _SECONDS_BETWEEN_LOADING:
            self._told_loading = time.monotonic()
            self._sender.send("loading", done=done, total=total)

    def _open(self, bench: EngineHolder, jobs: JobsInHand) -> None:
        """Make the engine and say how that went."""
        try:
            engine = bench.engine()
            jobs.slots = bench.slots
        except Exception as error:
            self._unfit(error)
            return
        told = {"model": model_values(engine.model), "holds": bench.in_memory}
        self._sender.send("ready", device=engine.device, slots=jobs.slots, **told)

    def _unfit(self, error: Exception) -> None:
        log.error(line("unfit", error=error), exc_info=not isinstance(error, OverpaintError))
        self._sender.send("unfit", error=plain(error_of(error)))

    def _look(self, bench: EngineHolder, jobs: JobsInHand, *, wait: bool = False) -> None:
        """Take in what came meanwhile; called between ticks, and within work that takes long."""
        while wait or not self._todo.empty():
            wait, message = False, self._todo.get()
            if message is None:
                self._is_over = True
            elif message["type"] == "job":
                jobs.add(self._task(message))
            else:
                self._asked.append(Asked.of(message, bench))
        jobs.end_cancelled()
        for each in self._asked[:]:
            if each.is_due(jobs_run=jobs.are_running):
                self._asked.remove(each)
                self._answer(bench, each, jobs_run=jobs.are_running)

    def _task(self, message: Message) -> Task:
        job = job_of(message["job"])

        def tell(kind: str, **values: object) -> None:
            self._sender.send(kind, job=job.id, **values)

        return Task(
            job=job,
            folder=Path(message["folder"]),
            done=tuple(map(batch_of, message["done"])),
            control=self._controls[job.id],
            tell=tell,
        )

    def _ended(self, task: Task, ended: Ended, *, has_neighbours: bool) -> None:
        if ended.is_ruined and has_neighbours:
            os._exit(RUINED)  # it may have been the call of another one: nobody is blamed
        self._controls.pop(task.job.id, None)
        task.tell(
            "ended",
            state=ended.state.value,
            result=plain(ended.result),
            error=plain(ended.error),
            refused=ended.refused,
            holds=None if self._bench is None else self._bench.in_memory,
            encodings=None if self._bench is None else self._bench.encodings(),
        )
        if ended.is_ruined:
            os._exit(RUINED)

    def _answer(self, bench: EngineHolder, asked: Asked, *, jobs_run: bool = False) -> None:
        try:
            answered = asked.answer(bench, jobs_run=jobs_run)
        except Exception as error:
            if not isinstance(error, OverpaintError):
                log.exception(line("unanswered", what=asked.what))
            self._sender.send("answer", id=asked.id, error=plain(error_of(error)))
            return
        self._sender.send("answer", id=asked.id, value=answered)


def main() -> int:
    commands, reports = own_pipes()
    let_the_server_go_first(_BEHIND)
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
