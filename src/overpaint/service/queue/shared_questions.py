"""Questions to workers on other machines, by way of the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from overpaint.service.job_models import model_name
from overpaint.service.queue.store_thread import StoreThread
from overpaint.service.shared_ports import HostNow, SharedStore
from overpaint.service.store.forms import error_of
from overpaint.service.workers.pool import OF_ALL, merged_memory
from overpaint.service.workers.port import WorkerGone, WorkerRefused

PATIENCE = 60.0  # seconds that a question waits for its answers
_LOOKING = 1.0  # seconds after which answers are looked for, if nothing was said of any


class SharedQuestions:
    """Of one web process. `hosts` tells who has workers now."""

    def __init__(self, thread: StoreThread, store: SharedStore, hosts: Callable[[], Sequence[HostNow]]) -> None:
        self._thread, self._store, self._hosts = thread, store, hosts
        self.news = asyncio.Event()  # set when somebody has answered something

    async def ask(self, what: str, values: Mapping[str, Any]) -> Any:
        hosts = [each.name for each in self._hosts()]
        if what not in OF_ALL:
            wanted = model_name(values.get("checkpoint")) if values.get("checkpoint") else None
            hosts = [each.name for each in sorted(self._hosts(), key=lambda each: _reluctance(each, wanted))][:1]
        question = {"what": what, "values": dict(values)}
        asked = await self._thread.change(self._store.ask_hosts, question, hosts)
        told = await self._answers(asked.values())
        refused = next((each["error"] for each in told if "error" in each), None)
        if refused is not None:
            error = error_of(refused)
            assert error is not None
            raise WorkerRefused(error)
        answers = [each["value"] for each in told if "value" in each]
        if not answers:
            raise WorkerGone(f"{what}: there is no worker to answer just now; ask again later")
        return merged_memory(answers) if what == "memory" else answers[0]

    async def _answers(self, numbers: Collection[int]) -> list[Mapping[str, Any]]:
        """Those that come in time."""
        until, found = time.monotonic() + PATIENCE, dict[int, Mapping[str, Any]]()
        while numbers and time.monotonic() < until:
            self.news.clear()
            found = dict(await self._thread.call(self._store.answers, list(numbers)))
            if len(found) == len(numbers):
                break
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.news.wait(), _LOOKING)
        return list(found.values())


def _reluctance(host: HostNow, model: str | None) -> tuple[bool, bool]:
    has_it = any(model in each["models"] for each in host.workers)
    return (not any(each["takes_jobs"] for each in host.workers), not has_it)
