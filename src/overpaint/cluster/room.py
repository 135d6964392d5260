"""How many painters there are to be, and what each of them takes of a machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overpaint.errors import RequestError

MOST_PAINTERS = 10_000
_POOL = re.compile(r"(\d{1,5})(?:,(\d{1,5}))?")


@dataclass(frozen=True)
class RoomAsked:
    """What the user said; None: as the machines are."""

    gpus: float | None = None  # a painter
    cpus: float | None = None
    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("--gpus-per-worker", self.gpus), ("--cpus-per-worker", self.cpus)):
            if value is not None and not 0 <= value <= 1024:
                raise RequestError(name, value, "give 0 to 1024")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise RequestError("--gpus-per-worker", self.gpus, "give a part of one GPU, or whole ones")

    @classmethod
    def parse(cls, pool: str | None, gpus: float | None, cpus: float | None) -> RoomAsked:
        """`pool` is MIN,MAX or one number for both."""
        if pool is None:
            return cls(gpus, cpus)
        found = _POOL.fullmatch(pool.strip())
        if found is None:
            raise RequestError("--pool", pool, "give MIN,MAX, such as 1,8")
        least, most = int(found[1]), int(found[2] or found[1])
        if not 1 <= least <= most <= MOST_PAINTERS:
            raise RequestError("--pool", pool, f"give MIN,MAX with 1 <= MIN <= MAX <= {MOST_PAINTERS}")
        return cls(gpus, cpus, least, most)


@dataclass(frozen=True)
class PainterRoom:
    """What was decided."""

    gpus: float
    cpus: float
    least: int
    most: int

    def fits(self, free: Sequence[Mapping[str, float]]) -> int:
        """How many painters machines with so much have room for."""
        return sum(self._fits_one(each) for each in free)

    def _fits_one(self, free: Mapping[str, float]) -> int:
        needed = {"CPU": self.cpus, "GPU": self.gpus}
        rooms = [int(free.get(name, 0.0) / amount + 1e-9) for name, amount in needed.items() if amount > 0]
        return min(rooms, default=self.most)


def room_for(asked: RoomAsked, machines: Sequence[Mapping[str, Any]]) -> PainterRoom:
    """A painter has a GPU and a core, or all cores of a machine without GPUs, unless the user wants it otherwise."""
    gpus = asked.gpus
    if gpus is None:
        gpus = 1.0 if any(each.get("GPU", 0) >= 1 for each in machines) else 0.0
    cpus = asked.cpus
    if cpus is None:
        cores = [float(each.get("CPU", 0)) for each in machines if each.get("CPU", 0) >= 1]
        cpus = 1.0 if gpus else min(cores, default=1.0)
    room = PainterRoom(gpus, cpus, asked.least, asked.most or MOST_PAINTERS)
    fitting = room.fits(machines)
    if fitting == 0:
        largest = {name: max((float(each.get(name, 0)) for each in machines), default=0.0) for name in ("GPU", "CPU")}
        option, value = ("--gpus-per-worker", gpus) if largest["GPU"] < gpus else ("--cpus-per-worker", cpus)
        has = f"the largest of {len(machines)} has {largest['GPU']:g} GPUs and {largest['CPU']:g} cores"
        raise RequestError(option, value, f"no machine of the cluster has as many; {has}")
    return PainterRoom(gpus, cpus, asked.least, asked.most or max(fitting, asked.least))
