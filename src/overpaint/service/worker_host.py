"""`overpaint worker`: the workers of one machine, which take jobs from a store that others work on, too.

It listens nowhere: whoever accepts jobs needs not reach it. It may come and go at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from overpaint.service.config import ServeConfig
from overpaint.service.job_models import OWN_MODEL, model_name
from overpaint.service.jobs import Job
from overpaint.service.known_models import KnownModels, served_checkpoint
from overpaint.service.logs import LOGGER, line
from overpaint.service.queue.shared_runner import SharedRunner
from overpaint.service.queue.store_thread import StoreThread
from overpaint.service.serve import STOPPED, Signals, first_of, log_to_stderr, shared_store
from overpaint.service.shared_ports import SharedStore
from overpaint.service.workers.pool import WorkerPool, local_workers
from overpaint.service.workers.worker_process import COMMAND

_BELIEVED = 60.0  # seconds for which a look into the folders of models is believed
_CLOSING = 5.0  # seconds for the end after a second signal

log = logging.getLogger(LOGGER)


def work(config: ServeConfig, announce: Callable[[str], None]) -> int:
    """Work until a signal comes; the exit code. `announce` is told the host's name once it takes part."""
    log_to_stderr()
    store = shared_store(config)
    try:
        return asyncio.run(_worked(config, store, announce))
    finally:
        store.close()


async def _worked(config: ServeConfig, store: SharedStore, announce: Callable[[str], None]) -> int:
    signals, host = Signals(), WorkerHost(store, config)
    with signals.caught():
        await host.start()
        announce(host.name)
        await signals.first.wait()
        log.info(line("stopping", seconds=config.limits.drain))
        await first_of(host.drain(config.limits.drain), signals.second)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(host.close(), _CLOSING if signals.second.is_set() else None)
    log.info(line("stopped"))
    return STOPPED if signals.second.is_set() else 0


class WorkerHost:
    """A runner with workers of this machine, and what it hears of the store."""

    def __init__(self, store: SharedStore, config: ServeConfig, *, command: Collection[str] = COMMAND) -> None:
        self.name = host_name()
        self._store, self._config = store, config
        self._thread = StoreThread(store)
        self._known = KnownHere(config)
        on_disk = replace(config, data=store.data)  # where workers find the sources
        pool = WorkerPool(local_workers(on_disk, tuple(command)), str(served_checkpoint(config)))
        self.runner = SharedRunner(
            self._thread,
            store,
            pool,
            config.limits,
            name=self.name,
            known=self._known.names,
            localised=self._localised,
        )
        self._looking: asyncio.Task[None] | None = None
        self._stop_listening: Callable[[], None] = lambda: None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def heard(what: str, job_id: str) -> None:
            with suppress(RuntimeError):  # the loop may be over
                loop.call_soon_threadsafe(self.runner.hear, what, job_id)

        await asyncio.to_thread(self._known.look)
        self._looking = asyncio.create_task(self._known.keep_looking())
        self.runner.start((), ())
        self._stop_listening = self._store.listen(heard)

    async def drain(self, seconds: float) -> None:
        """Take no more jobs; those that run may end within that time, else they wait for another host."""
        await self.runner.drain(seconds)

    async def close(self) -> None:
        await self.drain(0)
        if self._looking is not None:
            self._looking.cancel()
        await self.runner.close()
        await asyncio.to_thread(self._stop_listening)
        await self._thread.close()

    def _localised(self, job: Job) -> Job:
        """The folders of models are this machine's, whatever they are called where the job was accepted."""
        own = self._config.settings.to_json()
        places = {name: value for name, value in own.items() if name.endswith(("_dir", "_file"))}
        return replace(job, settings={**job.settings, **places})


class KnownHere:
    """The names of the checkpoints that can be read here, as jobs name them."""

    def __init__(self, config: ServeConfig) -> None:
        self._config, self._names = config, frozenset({OWN_MODEL})

    def names(self) -> Collection[str]:
        return self._names

    async def keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_BELIEVED)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # a share that is away for a moment
                log.exception(line("not-looked"))

    def look(self) -> None:
        models = KnownModels.of(self._config)
        named = {alias for each in models.checkpoints() for alias in each.aliases()}
        self._names = frozenset({OWN_MODEL, model_name(str(models.served)), *map(model_name, named)})


def host_name() -> str:
    """For people, and so that it comes twice nowhere."""
    machine = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")[:40] or "host"
    return f"{machine}-{os.getpid()}-{secrets.token_hex(3)}"
