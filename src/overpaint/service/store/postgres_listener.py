"""What a store on PostgreSQL tells those who work on it, as it happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from overpaint.service.logs import LOGGER, line
from overpaint.service.store.postgres_tables import CHANNEL, PostgresTables

_LOOK_EVERY = 1.0  # seconds until it is asked whether that is over
_PAUSE = 1.0  # seconds until a server that is away is asked again

log = logging.getLogger(LOGGER)


class Listener:
    """A thread with a connection of its own, from its making until `stop`."""

    def __init__(self, database: PostgresTables, hear: Callable[[str, str], None]) -> None:
        self._database, self._hear = database, hear
        self._over = threading.Event()
        self._raw: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="listener")
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(5 * _LOOK_EVERY)

    def _run(self) -> None:
        is_away = False
        while not self._over.is_set():
            try:
                self._listen()
                is_away = False
            except Exception as error:  # noqa: PERF203 (whatever it is, somebody has to listen)
                if not is_away:
                    log.warning(line("not-listening", error=" ".join(str(error).split())))
                is_away = True
                self._over.wait(_PAUSE)

    def _listen(self) -> None:
        raw = self._database.connected()
        try:
            raw.execute(f"LISTEN {CHANNEL}")
            self._hear("", "")
            while not self._over.is_set():
                for each in raw.notifies(timeout=_LOOK_EVERY):
                    what, _, job_id = each.payload.partition(" ")
                    self._hear(what, job_id)
                    if self._over.is_set():
                        break
        finally:
            with suppress(Exception):
                raw.close()
