"""Processes that end by kill -9 at a chosen point of their work: a server, or its worker.

    python -m tests.service.kill_points serve DATA CHECKPOINT [WORKERS]
    python -m tests.service.kill_points worker

OVERPAINT_KILL_POINT says where, as JSON: {"place", "moment", "count", "victim", "mark"}. It happens once, which a file
keeps track of.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal

VARIABLE = "OVERPAINT_KILL_POINT"

OF_SERVER = ("accept", "claim", "progress", "keep_batch", "end", "add_event", "put_picture", "source", "recover")
OF_DATABASE = ("statement", "commit")  # within a transaction: what was written before it must not be seen
OF_WORKER = ("load", "step", "decode", "write", "rename", "tell")


@dataclass(frozen=True)
class KillPoint:
    """At the so manieth time that work comes by this place."""

    place: str
    moment: Literal["before", "middle", "after"]
    count: int
    victim: Literal["server", "worker"]
    mark: str  # a file that says that it has happened

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def reached(self) -> None:
        """End it."""
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        is_worker = self.place in OF_WORKER
        os.kill(os.getppid() if is_worker and self.victim == "server" else os.getpid(), signal.SIGKILL)


class Killer:
    """Wraps the functions where it may happen."""

    def __init__(self, point: KillPoint) -> None:
        self._point, self._left = point, point.count

    def comes_by(self, moment: str) -> None:
        if moment == self._point.moment:
            self._left -= 1
            if self._left == 0:
                self._point.reached()

    def is_at(self, *places: str) -> bool:
        return self._point.place in places

    def around(self, owner: Any, name: str, place: str, middle: Callable[[Any], None] | None = None) -> None:
        """Have a function watched, if it is the place that is meant."""
        if not self.is_at(place):
            return
        whole = getattr(owner, name)

        @wraps(whole)
        def watched(*values: Any, **named: Any) -> Any:
            self.comes_by("before")
            if middle is not None and self._point.moment == "middle" and self._left == 1:
                middle(values)
            self.comes_by("middle")
            result = whole(*values, **named)
            self.comes_by("after")
            return result

        setattr(owner, name, watched)


def _half_a_message(values: Any) -> None:
    sender, kind = values[0], values[1]
    sender._stream.write(b"\0\0\1\0" + kind.encode())
    sender._stream.flush()


def _half_a_file(values: Any) -> None:
    (values[0] / ".0123456789abcdef.tmp").write_bytes(values[1][: len(values[1]) // 2])


def _in_database(killer: Killer) -> None:
    """Before a statement that writes, or before the transaction's last word."""
    from overpaint.service.store import database

    connected = database._connected
    watched = ("COMMIT",) if killer.is_at("commit") else ("INSERT", "UPDATE", "DELETE", "COMMIT")

    def told(statement: str) -> None:
        if statement.lstrip().upper().startswith(watched):
            killer.comes_by("before")

    def watched_connection(path: Path) -> sqlite3.Connection:
        connection = connected(path)
        connection.set_trace_callback(told)
        return connection

    setattr(database, "_connected", watched_connection)  # noqa: B010


def _in_server(killer: Killer) -> None:
    from overpaint.service.store import source_files
    from overpaint.service.store.sqlite_store import JobStore

    for name in ("accept", "claim", "progress", "keep_batch", "end", "add_event", "put_picture", "recover"):
        killer.around(JobStore, name, name)
    killer.around(source_files, "save_bytes", "source")
    if killer.is_at(*OF_DATABASE):
        _in_database(killer)


def _in_worker(killer: Killer) -> None:
    from overpaint.files import saving
    from overpaint.painting import stages
    from overpaint.service import wire
    from overpaint.service.painter import engine_holder, painting

    killer.around(engine_holder.EngineHolder, "engine", "load")
    killer.around(painting.Painting, "hear", "step")
    killer.around(stages, "decode", "decode")
    killer.around(saving, "_temporary_file", "write", _half_a_file)
    killer.around(saving, "_claimed", "rename")
    killer.around(wire.Sender, "send", "tell", _half_a_message)


_PREPARED: Mapping[str, Callable[[Killer], None]] = {"serve": _in_server, "worker": _in_worker}


def _serve(data: Path, checkpoint: str, workers: int = 1) -> int:
    from overpaint.service import serve
    from overpaint.service.config import ServeConfig
    from overpaint.service.queue.desk import LocalDesk

    command = (sys.executable, "-m", "tests.service.kill_points", "worker")
    setattr(serve, "LocalDesk", partial(LocalDesk, command=command))  # noqa: B010
    devices = ("cpu",) * workers
    config = ServeConfig(data=data, port=0, checkpoint=checkpoint, devices=devices, dtype="float32")
    return serve.serve(config, lambda url: print(url, flush=True))  # noqa: T201


def main(role: str, *values: str) -> int:
    text = os.environ.get(VARIABLE)
    point = KillPoint(**json.loads(text)) if text else None
    if point is not None and not Path(point.mark).exists():
        _PREPARED[role](Killer(point))
    if role == "serve":
        return _serve(Path(values[0]), values[1], *map(int, values[2:]))
    from overpaint.service.painter import worker

    code = worker.main()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
