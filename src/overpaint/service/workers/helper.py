"""A process that answers questions in which something may be hostile, and may die of one without harm to anybody.

It is started when it is first needed, in the way that `children.py` tells, speaks `wire.py` on its standard pipes, and
ends when nothing was asked for a while, or its parent ends.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import BinaryIO

from overpaint.service.children import environment
from overpaint.service.logs import LOGGER, line
from overpaint.service.wire import Garbled, Message, encoded, read
from overpaint.service.workers.worker_process import SECRETS

IDLE = 60.0

log = logging.getLogger(LOGGER)


class HelperProcess:
    """One process after another, asked by one thread at a time."""

    def __init__(self, name: str, command: Sequence[str], seconds: float) -> None:
        self.command, self.seconds = tuple(command), seconds  # for one answer; the first waits until all is imported
        self._name = name
        self._one = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._resting: threading.Timer | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def ask(self, question: Message, body: Iterable[bytes] = ()) -> Message | None:
        """The answer; None if the process ends over it, or has to be ended. Blocks: call it in a thread."""
        with self._one:
            if self._resting is not None:
                self._resting.cancel()
            answer = None
            try:
                answer = self._answer(self._running(), question, body)
            except (Garbled, OSError, ValueError) as error:  # ValueError: it was closed meanwhile
                log.error(line(f"{self._name}-failed", error=error))
            finally:
                if answer is None:
                    self._end()
                else:
                    self._resting = threading.Timer(IDLE, self._rest)
                    self._resting.daemon = True
                    self._resting.start()
        return answer

    def close(self) -> None:
        """End it, whatever it is doing; who waits for an answer gets none."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._one:
            self._end()

    def _answer(self, process: subprocess.Popen[bytes], question: Message, body: Iterable[bytes]) -> Message | None:
        late = threading.Timer(self.seconds, process.kill)
        late.daemon = True
        late.start()
        try:
            questions, answers = _pipes(process)
            questions.write(encoded(question))
            for piece in body:
                questions.write(piece)
            questions.flush()
            return read(answers)
        finally:
            late.cancel()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._is_closed:
            raise OSError("the server is stopping")
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(without=SECRETS)
            )
            log.info(line(f"{self._name}-started", pid=self._process.pid))
        return self._process

    def _rest(self) -> None:
        """Nothing was asked for a while: end the process, which ends itself when its pipe does."""
        if self._one.acquire(blocking=False):
            try:
                self._end(kill=False)
            finally:
                self._one.release()

    def _end(self, *, kill: bool = True) -> None:
        if self._resting is not None:
            self._resting.cancel()
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        for pipe in _pipes(process):
            with suppress(OSError):
                pipe.close()
        code = process.wait()
        is_usual = code == 0 or self._is_closed
        log.log(logging.INFO if is_usual else logging.WARNING, line(f"{self._name}-ended", code=code))


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout  # type: ignore[return-value]
