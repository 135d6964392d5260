"""Who is asked what a file is: a process of its own, so that no file which one client names ends another one's job.

The readers of files are made to end on every input. This is for what they overlook, and for the time and memory that an
honest answer takes: neither the process that answers requests nor the one that paints opens a file because it was named
in a question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overpaint.models.hashes import Stamp, stamp_of
from overpaint.service.children import command_of
from overpaint.service.jobs import JobError
from overpaint.service.ports import Full
from overpaint.service.store.forms import error_of
from overpaint.service.workers.helper import HelperProcess
from overpaint.service.workers.port import WorkerRefused

COMMAND = command_of("overpaint.service.helpers.examining")
SECONDS = 30.0  # for one file; the first one has to wait until torch is loaded
_WAITING = 64
_REMEMBERED = 256

_Key = tuple[str, tuple[Stamp, ...]]


class Examiner:
    """Asks a helper. All of it belongs to the event loop that asks."""

    def __init__(
        self, texts: Sequence[str] = (), *, command: Sequence[str] = COMMAND, seconds: float = SECONDS
    ) -> None:
        self._texts = tuple(texts)
        self.helper = HelperProcess("examiner", command, seconds)
        self._one = asyncio.Lock()
        self._asked: dict[_Key, asyncio.Task[Any]] = {}  # answers that came are kept until the file changes

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
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(self.helper.close)
        await asyncio.gather(*tasks, return_exceptions=True)

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
            question = {"type": "examine", "path": path, "texts": self._texts}
            answer = await asyncio.to_thread(self.helper.ask, question)
        if answer is None:
            said = f"{Path(path).name}: reading it takes more memory or time than it may; use a .safetensors file"
            raise _Died(JobError(code="checkpoint", message=said))
        error = error_of(answer.get("error"))
        if error is not None:
            raise WorkerRefused(error)
        return answer["value"]


class _Died(WorkerRefused):
    """The process ended over a file."""
