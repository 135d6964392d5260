"""What tests of the worker share: its messages, and jobs done as it does them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overpaint.service.jobs import DoneBatch, Job
from overpaint.service.painter.engine_holder import EngineHolder
from overpaint.service.painter.jobs_in_hand import JobsInHand
from overpaint.service.painter.painting import Ended, Task
from overpaint.service.painter.worker import Worker
from overpaint.service.store.forms import batch_of, job_of, plain
from overpaint.service.wire import Message, read


def holder_of(data: Path, checkpoint: Path | str, **values: Any) -> EngineHolder:
    """What a worker works with, in this process."""
    start = {"data": str(data), "checkpoint": str(checkpoint), "device": "cpu", "dtype": "float32", "settings": {}}
    return EngineHolder({**start, **values}, lambda done, total: None)


class Told(list[tuple[str, dict[str, Any]]]):
    """The messages of one job."""

    def __call__(self, kind: str, **values: object) -> None:
        self.append((kind, json.loads(json.dumps(values))))

    @property
    def batches(self) -> list[DoneBatch]:
        return [batch_of(values["batch"]) for kind, values in self if kind == "painted"]

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self]


def carried_out(bench: EngineHolder, job: Job, folder: Path, **given: Any) -> tuple[Ended, Told]:
    """A job as the worker does it, without the pipes."""
    told = Told()
    task = Task(job=as_sent(job), folder=folder, tell=given.pop("tell", told), **given)
    ends: list[Ended] = []
    jobs = JobsInHand(bench, lambda task, ended, *, has_neighbours: ends.append(ended))
    jobs.add(task)
    while jobs.are_there:
        for each in jobs.due():
            jobs.begin(each)
        jobs.go_on()
    (ended,) = ends
    return ended, told


def as_sent(job: Job) -> Job:
    return job_of(json.loads(json.dumps(plain(job))))


def all_files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@dataclass
class InProcess:
    """A worker in this process: what it is told is handed to it, and what it says is read."""

    bench: EngineHolder
    folder: Path
    slots: int = 8
    heard: list[Message] = field(default_factory=list)
    on_message: Callable[[Message], None] = lambda message: None

    def __post_init__(self) -> None:
        self._reports, self._place = io.BytesIO(), 0
        self.worker = Worker(io.BytesIO(), self._reports)
        self.jobs = JobsInHand(self.bench, self.worker._ended, look=lambda: self.worker._look(self.bench, self.jobs))
        self.jobs.slots = self.slots

    def give(self, job: Job, done: Sequence[DoneBatch] = ()) -> None:
        folder = str(self.folder / job.id)
        self.worker._take({"type": "job", "job": plain(job), "done": plain(done), "folder": folder})

    def stop(self, job_id: str, how: str = "cancel") -> None:
        self.worker._take({"type": "stop", "job": job_id, "how": how})

    def ask(self, number: int, what: str, **values: Any) -> None:
        self.worker._take({"type": "ask", "id": number, "what": what, "values": values})

    def turn(self) -> None:
        """Once round its loop."""
        self.worker._look(self.bench, self.jobs)
        for each in () if self.worker._asked else self.jobs.due():
            self.jobs.begin(each)
        self.jobs.go_on()
        self.read()

    def read(self) -> None:
        self._reports.seek(self._place)
        while (message := read(self._reports)) is not None:
            self._place = self._reports.tell()
            self.heard.append(message)
            self.on_message(message)
            self._reports.seek(self._place)
        self._reports.seek(0, io.SEEK_END)

    def run(self, *later: Job) -> dict[str, Message]:
        """Until all has ended, giving one more job with each turn."""
        left = list(later)
        while left or self.jobs.are_there or not self.worker._todo.empty():
            if left:
                self.give(left.pop(0))
            self.turn()
        return self.ends

    @property
    def ends(self) -> dict[str, Message]:
        return {each["job"]: each for each in self.heard if each["type"] == "ended"}

    def story(self, job_id: str) -> list[Message]:
        return [each for each in self.heard if each.get("job") == job_id]

    def answers(self) -> Mapping[int, Message]:
        return {each["id"]: each for each in self.heard if each["type"] == "answer"}

    @property
    def most_at_once(self) -> int:
        """How many jobs were between their "started" and their "ended"."""
        running: set[str] = set()
        most = 0
        for each in self.heard:
            if each["type"] == "started":
                running.add(each["job"])
            elif each["type"] == "ended":
                running.discard(each["job"])
            most = max(most, len(running))
        return most
