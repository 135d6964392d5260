"""A host says that it lives: from a thread, which nothing that goes on in the event loop holds up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from overpaint.service.logs import LOGGER, line
from overpaint.service.shared_ports import Heartbeat, HostNow, SharedStore

_PAUSE = 1.0  # seconds until a store that did not answer is asked again
_LOOP_PATIENCE = 120.0  # seconds in which the event loop has to have looked; a host that is stuck does not live

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class HostLook:
    """What the event loop saw of its host last."""

    host: HostNow
    claims: Mapping[str, int]  # fences by job
    at: float


class Heartbeats:
    """A thread, from its making until `stop`. `hear` is called in it, with what was said and what was looked at."""

    def __init__(
        self, store: SharedStore, lease: float, host: HostNow, hear: Callable[[Heartbeat, HostLook], None]
    ) -> None:
        self._store, self._lease, self._hear = store, lease, hear
        self._look = HostLook(host, {}, time.monotonic())
        self._soon, self._is_over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeats")
        self._thread.start()

    def look(self, host: HostNow, claims: Mapping[str, int]) -> None:
        """What is told from now on; at once, if it is news to others."""
        before, self._look = self._look, HostLook(host, dict(claims), time.monotonic())
        if before.host != host:
            self.soon()

    def soon(self) -> None:
        self._soon.set()

    def stop(self) -> None:
        self._is_over = True
        self._soon.set()
        self._thread.join(10.0)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while not self._is_over:
            self._soon.wait(pause)
            self._soon.clear()
            pause = self._lease / 3 if self._is_over or self._beat() else _PAUSE

    def _beat(self) -> bool:
        """Whether it was heard."""
        look = self._look
        if time.monotonic() - look.at > _LOOP_PATIENCE:
            log.error(line("stuck", seconds=time.monotonic() - look.at))
            return True
        try:
            heard = self._store.beat(look.host, look.claims, self._lease)
            self._hear(heard, look)
        except Exception as error:  # whatever it is: two hosts must not take jobs from each other for ever
            log.warning(line("no-heartbeat", error=" ".join(str(error).split())))
            return False
        return True
