"""A process that hammers a store until it is killed, and says on its output what it was told is done.

Started once, it makes a child by fork for each line on its input, `folder seed`, since imports take longer than a
child may live. What jobs and pictures hold follows from their names, so that another process knows what it should be.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from overpaint.files.saving import save_bytes
from overpaint.service.jobs import DoneBatch, Job, JobEvent, JobResult, JobState, Live, Record, ResultPicture
from overpaint.service.limits import Limits
from overpaint.service.ports import Full
from overpaint.service.store.sqlite_store import JobStore

LIMITS = Limits(waiting=24, waiting_per_client=12, events_per_job=12)
BATCHES = 4
KEEP_BYTES = 60_000
ENDS = (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED)


def source_of(name: str) -> bytes:
    return random.Random(f"source {name}").randbytes(5_000)


def picture_of(name: str, number: int) -> bytes:
    return random.Random(f"picture {name} {number}").randbytes(9_000)


def job_of(name: str, reference: str) -> Job:
    request = {"prompt": name * 20, "images": [reference]}
    return Job(id=name, kind="paint", request=request, settings={}, client=name[-1], key=f"key {name}")


def batch_of(name: str, number: int) -> DoneBatch:
    pictures = tuple(ResultPicture(number=each, file=f"{each}.png") for each in (2 * number, 2 * number + 1))
    return DoneBatch(number=number, pictures=pictures, notes={"name": name})


class Hammer:
    """One life: whatever comes next, by chance."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.store, self.rng, self.seed, self.count = JobStore(folder, LIMITS), random.Random(seed), seed, 0

    def run(self) -> None:
        say("recovered", [each.id for each in self.store.recover()])
        while True:
            act = self.rng.choices(
                (self.accept, self.start, self.step, self.keep, self.end, self.expire, self.again),
                (6, 4, 6, 8, 3, 1, 1),
            )[0]
            act()

    def accept(self) -> None:
        self.count += 1
        name = f"{self.seed}-{self.count}"
        with suppress(Full):
            accepted = self.store.accept(job_of(name, self.store.put_picture(source_of(name))))
            say("accept", name)
            self.told(accepted.event)

    def start(self) -> None:
        waiting = self.store.waiting()
        if waiting:
            claim = self.store.claim(self.rng.choice(waiting).id, "w", 60.0)
            assert claim is not None
            record = claim.record
            say("start", record.id, record.attempts)
            self.told(self.store.add_event(record.id, "started", {}, time.time()))

    def step(self) -> None:
        for record in self.running():
            self.told(self.store.progress(Live(job=record.id, step=record.step + 1, steps=99)))

    def keep(self) -> None:
        for record in self.running():
            number = len(self.store.batches(record.id))
            if number < BATCHES:
                batch = batch_of(record.id, number)
                for each in batch.pictures:
                    data = picture_of(record.id, each.number)
                    save_bytes(self.store.result_file(record.id, each.file), data, replace=True)
                event = self.store.keep_batch(record.id, batch)
                say("keep", record.id, number)
                self.told(event)

    def end(self) -> None:
        for record in self.running():
            state = self.rng.choice(ENDS)
            pictures = tuple(each for batch in self.store.batches(record.id) for each in batch.pictures)
            ended = self.store.end(record.id, state, time.time(), result=JobResult(pictures=pictures))
            say("end", record.id, state.value, len(pictures))
            self.told(ended.event)

    def expire(self) -> None:
        say("expire", self.store.expire(keep_seconds=3_600.0, keep_bytes=KEEP_BYTES))

    def again(self) -> None:
        for record in self.running():
            self.store.requeue(record.id)

    def running(self) -> list[Record]:
        """One that runs, if any does."""
        found = self.store.records(states=[JobState.RUNNING])
        return [self.rng.choice(found)] if found else []

    def told(self, event: JobEvent | None) -> None:
        assert event is not None
        say("event", event.job, event.number, event.name)


def say(*what: Any) -> None:
    """A line, whole or not at all: a pipe takes so few bytes in one go."""
    line = json.dumps(what).encode() + b"\n"
    assert os.write(1, line) == len(line)


def main() -> None:
    for line in sys.stdin:
        folder, seed = line.split()
        child = os.fork()
        if child == 0:
            try:
                Hammer(Path(folder), seed).run()
            except BaseException:
                say("broken", traceback.format_exc()[-2_000:])
            os._exit(1)
        say("born", child)
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main()
