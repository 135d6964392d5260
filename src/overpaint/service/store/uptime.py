"""How long servers have worked on a data folder, all together: what ages and deadlines are counted in.

The time of day would count an outage, too, and jumps when somebody sets the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONGEST_LOOK = 30.0  # seconds between two looks that count; a process that was longer away was suspended


class Uptime:
    """Goes on from what an earlier server reached. Any thread may look; a server does so all the time."""

    def __init__(self, seconds: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._seconds, self._now, self._looked = seconds, now, now()

    def seconds(self) -> float:
        with self._lock:
            now = self._now()
            self._seconds += min(max(0.0, now - self._looked), LONGEST_LOOK)
            self._looked = now
            return self._seconds
