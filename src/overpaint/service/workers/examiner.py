"""Who is asked what a file is: a process of its own, so that no file which one client names ends another one's job.

The readers of files are made to end on every input. This is for what they overlook, and for the time and memory that an
honest answer takes: neither the process that answers requests nor the one that paints opens a file because it was named
in a question. The process is started when it is first needed, and ends when nothing was asked for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from overpaint.models.hashes import Stamp, stamp_of
from overpaint.service.children import command_of, environment
from overpaint.service.jobs import JobError
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import Full
from overpaint.service.store.forms import error_of
from overpaint.service.wire import Garbled, Message, encoded, receive
from overpaint.service.workers.port import WorkerRefused
from overpaint.service.workers.worker_process import SECRETS

COMMAND = command_of("overpaint.service.painter.examining")
SECONDS = 30.0  # for one file; the first one has to wait until torch is loaded
IDLE = 60.0
_WAITING = 64
_REMEMBERED = 256

log = logging.getLogger(LOGGER)

_Key = tuple[str, tuple[Stamp, ...]]


class Examiner:
    """One process after another. All of it belongs to the event loop that asks."""

    def __init__(
        self, texts: Sequence[str] = (), *, command: Sequence[str] = COMMAND, seconds: float = SECONDS
    ) -> None:
        self._texts, self._command, self._seconds = tuple(texts), tuple(command), seconds
        self._process: asyncio.subprocess.Process | None = None
        self._one = asyncio.Lock()
        self._asked: dict[_Key, asyncio.Task[Any]] = {}  # answers that came are kept until the file changes
        self._resting: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def recognise(self, values: Mapping[str, Any]) -> Any:
        """{"path": file or folder}: what this checkpoint is; `WorkerRefused` if it is none."""
        path = str(values["path"])
        key = (path, await asyncio.to_thread(self._stamps, path))
        task = self._asked.get(key)
        if task is None:
            if sum(not each.done() for each in self._asked.values()) >= _WAITING:
                raise Full(f"recognise: {_WAITING} files wait to be looked at already; ask again later", 5.0)
            task = self._asked[key] = asyncio.create_task(self._examined(path))
            task.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(task)  # whoever goes away does not take the answer with him

    async def close(self) -> None:
        self._is_closed = True
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end()

    def _stamps(self, path: str) -> tuple[Stamp, ...]:
        return tuple(stamp_of(Path(each)) for each in (path, *self._texts))

    def _keep(self, key: _Key, task: asyncio.Task[Any]) -> None:
        """An answer, or a no; not that the process died, which may have been for want of time."""
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(error, _Died) or not (error is None or isinstance(error, WorkerRefused)):
            self._asked.pop(key, None)
        elif len(self._asked) > _REMEMBERED:
            oldest = next((each for each, known in self._asked.items() if known.done()), key)
            self._asked.pop(oldest)

    async def _examined(self, path: str) -> Any:
        async with self._one:
            answer = await self._answer({"type": "examine", "path": path, "texts": self._texts})
        if answer is None:
            said = f"{Path(path).name}: reading it takes more memory or time than it may; use a .safetensors file"
            raise _Died(JobError(code="checkpoint", message=said))
        error = error_of(answer.get("error"))
        if error is not None:
            raise WorkerRefused(error)
        return answer["value"]

    async def _answer(self, question: Message) -> Message | None:
        """None if the process ends over it, or has to be ended."""
        if self._resting is not None:
            self._resting.cancel()
        answer = None
        try:
            process = await self._running()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(encoded(question))
            answer = await asyncio.wait_for(receive(process.stdout), self._seconds)
        except (asyncio.TimeoutError, Garbled, OSError) as error:
            log.error(line("examiner-failed", error=error or "it took too long"))
        finally:
            if answer is None:
                await self._end()
        self._resting = asyncio.get_running_loop().call_later(IDLE, self._rest)
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment(without=SECRETS),
            )
            log.info(line("examiner-started", pid=self._process.pid))
        return self._process

    def _rest(self) -> None:
        """Nothing was asked for a while: end the process, which ends itself when its pipe does."""
        if self._process is not None and self._process.stdin is not None and not self._one.locked():
            self._process.stdin.close()
            self._process = None

    async def _end(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                if process.returncode is None:
                    process.kill()
            code = await process.wait()
            log.log(logging.INFO if self._is_closed else logging.WARNING, line("examiner-ended", code=code))


class _Died(WorkerRefused):
    """The process ended over a file."""
