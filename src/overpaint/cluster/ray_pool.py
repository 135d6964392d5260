"""Painters as actors of Ray: started where there is room, watched, and replaced by whoever hands out.

Plain actors, without Ray Data: it retries a row that kills its worker for ever, may wait for ever for a dead actor of a
fixed pool, and adds 250 MB. Ray restarts and retries nothing here, so that each death is seen.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from itertools import count
from typing import Any, cast

from overpaint.cluster.node_painter import NodePainter
from overpaint.cluster.port import (
    BatchOrder,
    GroupsDone,
    PainterGone,
    PainterReady,
    PainterUnfit,
    PoolNews,
    RowGroup,
    SignOfLife,
)
from overpaint.cluster.room import PainterRoom
from overpaint.version import __version__

_LOOK_SECONDS = 5.0
_LOOKS = "looks"  # calls that are answered while a picture is painted
_LONGEST_REASON = 300


class RayPainter(NodePainter):
    """Knows, beyond painting, on which machine of the cluster it is."""

    def begin(self, order: BatchOrder, version: str) -> tuple[str, str, str]:
        """(what is wrong, the machine for Ray, the machine for people)"""
        import ray

        return self.start(order, version), ray.get_runtime_context().get_node_id(), platform.node()


class RayPool:
    """The painters of one batch on a cluster that this process is connected to."""

    def __init__(self, ray: Any, order: BatchOrder, room: PainterRoom) -> None:
        self._ray, self._order = ray, order
        self._class = ray.remote(
            num_cpus=room.cpus,
            num_gpus=room.gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={_LOOKS: 1},
        )(RayPainter)
        self._names = (f"painter {number}" for number in count(1))
        self._actors: dict[str, Any] = {}
        self._machines: dict[str, str] = {}
        self._signs: dict[str, int] = {}
        self._calls: dict[Any, tuple[str, str]] = {}  # what is waited for: whose, and what
        self._looked = time.monotonic()
        for _ in range(room.most):
            self._start()

    def give(self, painter: str, groups: Sequence[RowGroup], *, again: bool) -> None:
        actor = self._actors.get(painter)
        if actor is not None:  # otherwise it is told soon that it is gone
            self._calls[actor.paint.remote([list(each.rows) for each in groups], again)] = painter, "paint"

    def news(self, seconds: float) -> list[PoolNews]:
        self._look()
        waiting = list(self._calls)
        if not waiting:
            time.sleep(seconds)
            return []
        first, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        if not first:
            return []
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [found for each in done if (found := self._heard(each)) is not None]

    def replace(self, painter: str) -> None:
        self._start()

    def stop(self) -> None:
        for name, actor in list(self._actors.items()):
            if name in self._machines:
                actor.stop.options(concurrency_group=_LOOKS).remote()
            else:
                self._end(name)

    def close(self) -> None:
        """What still paints is ended; whatever it has not finished is for the next time."""
        for name in list(self._actors):
            self._end(name)

    def _start(self) -> None:
        name = next(self._names)
        actor = self._class.remote(name)
        self._actors[name] = actor
        self._calls[actor.begin.remote(self._order, __version__)] = name, "begin"

    def _end(self, name: str) -> None:
        self._ray.kill(self._actors.pop(name), no_restart=True)
        self._calls = {call: what for call, what in self._calls.items() if what[0] != name}

    def _heard(self, call: Any) -> PoolNews | None:
        name, what = self._calls.pop(call, ("", ""))
        if name not in self._actors:
            return None
        try:
            value = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            return self._gone(name, error)
        if what == "paint":
            return cast(GroupsDone, value)
        if what == "begin":
            problem, self._machines[name], place = value
            return PainterUnfit(name, problem) if problem else PainterReady(name, place)
        counted_on = value != self._signs.get(name)
        self._signs[name] = value
        return SignOfLife(name) if counted_on else None

    def _gone(self, name: str, error: Exception) -> PainterGone:
        """Dead, lost, or broken inside; whatever it is, it gets nothing more to do."""
        machine = self._machines.get(name)
        self._end(name)
        alive = {each["NodeID"] for each in self._ray.nodes() if each["Alive"]}
        words = " ".join(str(error).split())
        return PainterGone(name, words[:_LONGEST_REASON], is_machine=machine is not None and machine not in alive)

    def _look(self) -> None:
        """At those that paint, now and then."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        asked = {name for name, what in self._calls.values() if what == "look"}
        for name in self._machines.keys() & self._actors.keys() - asked:
            call = self._actors[name].signs.options(concurrency_group=_LOOKS).remote()
            self._calls[call] = name, "look"
