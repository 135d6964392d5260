"""Any sequence of calls gives what a plain model in memory gives, however often the store is opened anew."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from overpaint.service.jobs import (
    DoneBatch,
    Job,
    JobChange,
    JobEvent,
    JobResult,
    JobState,
    Live,
    Record,
    ResultPicture,
    Uptimes,
)
from overpaint.service.limits import Limits
from overpaint.service.ports import Conflict, Full
from overpaint.service.store.sqlite_store import JobStore

LIMITS = Limits(waiting=4, waiting_per_client=2, events_per_job=6)
IDS, CLIENTS = st.sampled_from([f"job{i}" for i in range(8)]), st.sampled_from(["ann", "bob", "eve"])
KEYS = st.none() | st.sampled_from(["k1", "k2"])
ENDS = st.sampled_from([JobState.FINISHED, JobState.FAILED, JobState.CANCELLED])
PASSING = ("progress", "preview")


@dataclass
class Model:
    """What the store should know, in dicts; jobs in the order they were accepted."""

    records: dict[str, Record] = field(default_factory=dict)
    batches: dict[str, dict[int, DoneBatch]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    events: dict[str, list[JobEvent]] = field(default_factory=dict)

    def accept(self, job: Job, now: float) -> Record | type[Exception]:
        known = [each for each in (self.records.get(job.id), self._by_key(job)) if each is not None]
        if any(each.job.fingerprint() != job.fingerprint() for each in known):
            return Conflict
        if known:
            return known[0]
        waiting = self.waiting()
        own = [each for each in waiting if each.job.client == job.client]
        if len(waiting) >= LIMITS.waiting or len(own) >= LIMITS.waiting_per_client:
            return Full
        self.records[job.id] = Record(job=job, uptimes=Uptimes(accepted=now))
        return self.records[job.id]

    def waiting(self) -> list[Record]:
        return [each for each in self.records.values() if each.state is JobState.QUEUED]

    def change(self, job_id: str, **changes: Any) -> Record:
        self.records[job_id] = replace(self.records[job_id], **changes)
        return self.records[job_id]

    def weigh(self, job_id: str) -> None:
        self.change(job_id, bytes=sum(map(len, self.files.get(job_id, {}).values())))

    def requeue(self, job_id: str) -> Record:
        uptimes = replace(self.records[job_id].uptimes, started=None)
        return self.change(job_id, state=JobState.QUEUED, started=None, uptimes=uptimes)

    def expire(self, now: float, keep_seconds: float, keep_bytes: int) -> list[str]:
        ended = [each for each in self.records.values() if each.ended is not None and not each.gone]
        ended.sort(key=lambda each: each.ended or 0.0)
        sizes = {each.id: sum(map(len, self.files.get(each.id, {}).values())) for each in ended}
        excess, old = sum(sizes.values()) - keep_bytes, []
        for each in ended:
            if now - (each.ended or 0.0) > keep_seconds or (excess > 0 and sizes[each.id]):
                excess -= sizes[each.id]
                old.append(each.id)
                self.change(each.id, gone=True)
                self.batches.pop(each.id, None)
                self.files.pop(each.id, None)
                self.weigh(each.id)
                told = self.events.get(each.id, [])
                self.events[each.id] = [one for one in told if one.name not in PASSING]
        return old

    def _by_key(self, job: Job) -> Record | None:
        same = (each for each in self.records.values() if each.job.key and each.job.key == job.key)
        return next((each for each in same if each.job.client == job.client), None)


class StoreMachine(RuleBasedStateMachine):
    """The store beside its model."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.hasty = mock.patch("os.fsync")
        self.hasty.start()
        self.now = 0.0
        self.store, self.model = self._opened(), Model()
        self.last_numbers: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert not self.store.integrity_check()
            self.store.close()
            self.hasty.stop()
            shutil.rmtree(self.folder)

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    @rule(job_id=IDS, client=CLIENTS, key=KEYS, seed=st.integers(0, 1))
    def accept(self, job_id: str, client: str, key: str | None, seed: int) -> None:
        job = Job(id=job_id, kind="paint", request={"seed": seed}, settings={}, client=client, key=key, created=1.0)
        expected = self.model.accept(job, self.now)
        try:
            accepted = self.store.accept(job)
            self._told(accepted.event, "queued")
            found: Record | type[Exception] = accepted.record
        except (Conflict, Full) as error:
            found = Full if isinstance(error, Full) else Conflict
        assert found == expected

    @precondition(lambda self: self.model.records)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        record, at = self._any(data), self.tick()
        claim = self.store.claim(record.id, f"worker of {at}", 1e9, at=at)
        started = None if claim is None else claim.record
        if record.state is JobState.QUEUED:
            uptimes = replace(record.uptimes, started=at)
            changes = {"state": JobState.RUNNING, "started": at, "uptimes": uptimes, "attempts": record.attempts + 1}
            assert started == self.model.change(record.id, **changes)
        else:
            assert started is None

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), step=st.integers(0, 99))
    def progress(self, data: st.DataObject, step: int) -> None:
        record = self._any(data)
        self._told(self.store.progress(Live(job=record.id, step=step, steps=99, images=3)), "progress")
        if record.state is JobState.RUNNING:
            self.model.change(record.id, step=step, steps=99, images_total=3)

    @precondition(lambda self: any(not each.gone for each in self.model.records.values()))
    @rule(data=st.data(), number=st.integers(0, 2), size=st.integers(0, 30))
    def keep_batch(self, data: st.DataObject, number: int, size: int) -> None:
        record = self._any(data, lambda each: not each.gone)
        batch = DoneBatch(number=number, pictures=(self._painted(record.id, number, size),))
        self._told(self.store.keep_batch(record.id, batch), "painted")
        self.model.batches.setdefault(record.id, {})[number] = batch

    @precondition(lambda self: any(not each.state.is_end for each in self.model.records.values()))
    @rule(data=st.data(), state=ENDS, size=st.integers(0, 30))
    def end(self, data: st.DataObject, state: JobState, size: int) -> None:
        record, at = self._any(data, lambda each: not each.state.is_end), self.tick()
        result = JobResult(pictures=(self._painted(record.id, 9, size),), infotexts=("t",))
        change = self.store.end(record.id, state, at, result=result)
        self._told(change.event, state.value)
        ended = change.record
        uptimes = replace(record.uptimes, ended=at)
        step = record.steps if state is JobState.FINISHED else record.step  # the last steps may not have been told
        assert ended == self.model.change(record.id, state=state, ended=at, uptimes=uptimes, result=result, step=step)
        assert self.store.end(record.id, JobState.FAILED, at + 1) == JobChange(record=ended)

    @precondition(lambda self: self.model.records)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        record = self._any(data)
        if record.state is JobState.RUNNING:
            record = self.model.requeue(record.id)
        assert self.store.requeue(record.id) == record

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), name=st.sampled_from(["queued", "progress", "preview", "painted"]), times=st.integers(1, 4))
    def add_events(self, data: st.DataObject, name: str, times: int) -> None:
        job_id = self._any(data).id
        for i in range(times):
            self._told(self.store.add_event(job_id, name, {"i": i}, self.now), name)

    @rule(keep_seconds=st.integers(0, 20), keep_bytes=st.integers(0, 60))
    def expire(self, keep_seconds: int, keep_bytes: int) -> None:
        found = self.store.expire(keep_seconds=keep_seconds, keep_bytes=keep_bytes)
        assert found == self.model.expire(self.now, keep_seconds, keep_bytes)

    @rule(torn=st.booleans(), data=st.data())
    def crash(self, torn: bool, data: st.DataObject) -> None:
        self.store.close()
        kept = self.model.batches
        unfinished = [name for name in kept if kept[name] and not self.model.records[name].state.is_end]
        if torn and unfinished:
            self._tear(data.draw(st.sampled_from(unfinished)))
        self.store = self._opened()
        running = [each.id for each in self.model.records.values() if each.state is JobState.RUNNING]
        expected = [self.model.requeue(each) for each in running]
        assert self.store.recover() == expected
        on_disk = {(each.parent.name, each.name) for each in (self.folder / "results").glob("*/*")}
        assert on_disk == {(name, file) for name, files in self.model.files.items() for file in files}

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        assert list(reversed(self.store.records())) == list(self.model.records.values())
        assert self.store.waiting() == self.model.waiting()
        for job_id in self.model.records:
            assert {each.number: each for each in self.store.batches(job_id)} == self.model.batches.get(job_id, {})
            for name, content in self.model.files.get(job_id, {}).items():
                assert self.store.result_file(job_id, name).read_bytes() == content
            self._check_events(job_id)

    def _check_events(self, job_id: str) -> None:
        told, kept = self.model.events.get(job_id, []), self.store.events_after(job_id, 0)
        lasting = [each for each in told if each.name not in PASSING]
        assert [each for each in kept if each.name not in PASSING] == lasting
        assert all(each in told for each in kept)
        assert len(kept) <= max(LIMITS.events_per_job, len(lasting))
        numbers = [each.number for each in kept]
        assert numbers == sorted(set(numbers))

    def _told(self, event: JobEvent | None, name: str) -> None:
        """Nothing is told where nothing changed."""
        if event is not None:
            assert (event.name, event.number) == (name, self.last_numbers.get(event.job, 0) + 1)
            self.last_numbers[event.job] = event.number
            self.model.events.setdefault(event.job, []).append(event)

    def _opened(self) -> JobStore:
        """A store that does not wait for the disk: no power is cut here."""
        store = JobStore(self.folder, LIMITS, uptime=lambda: self.now)
        store._database._writer.execute("PRAGMA synchronous = OFF")
        return store

    def _any(self, data: st.DataObject, fits: Any = lambda each: True) -> Record:
        found = [each for each in self.model.records.values() if fits(each)]
        return data.draw(st.sampled_from(found))

    def _painted(self, job_id: str, number: int, size: int) -> ResultPicture:
        content = bytes([number]) * size
        path = self.store.result_file(job_id, f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.model.files.setdefault(job_id, {})[path.name] = content
        self.model.weigh(job_id)
        return ResultPicture(number=number, file=path.name)

    def _tear(self, job_id: str) -> None:
        _, batch = self.model.batches[job_id].popitem()
        name = batch.pictures[0].file
        (self.folder / "results" / job_id / name).write_bytes(b"torn")
        del self.model.files[job_id][name]
        self.model.weigh(job_id)


TestAnySequence = StoreMachine.TestCase
TestAnySequence.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
