"""Results and sources: how long they stay, what a crash may leave of them, and where their names may lead."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overpaint.errors import RequestError
from overpaint.service.byproducts import BYPRODUCTS, byproduct_file
from overpaint.service.jobs import PICTURE_REFERENCE, DoneBatch, JobState
from overpaint.service.storage.store import JobStore
from tests.service.store_tools import finished, job, painted

DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "data")
    yield opened
    assert not opened.integrity_check()
    opened.close()


# -- what becomes old ------------------------------------------------------------------------------------------------


def test_results_are_kept_for_their_time_and_no_longer(store: JobStore) -> None:
    finished(store, "a", at=100.0)
    store.add_event("a", "progress", {}, 1.0)
    store.add_event("a", "finished", {}, 2.0)
    assert store.expire(160.0, keep_seconds=60.0, keep_bytes=100) == []
    assert store.result_file("a", "0.png").is_file()
    assert store.expire(160.1, keep_seconds=60.0, keep_bytes=100) == ["a"]
    record = store.get("a")
    assert record is not None
    assert (record.gone, record.state, len(record.result.pictures)) == (True, JobState.FINISHED, 1)
    assert not store.result_file("a", "0.png").parent.exists()
    assert [each.name for each in store.events_after("a", 0)] == ["finished"]
    assert store.expire(900.0, keep_seconds=60.0, keep_bytes=100) == []
    with pytest.raises(RequestError, match="deleted"):
        store.keep_batch("a", DoneBatch(number=1, pictures=()))


def test_the_oldest_results_go_when_they_are_too_much(store: JobStore) -> None:
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        finished(store, name, at, b"x" * 10)
    store.accept(job("empty", client="e"))
    store.end("empty", JobState.CANCELLED, 0.5)
    assert store.expire(4.0, keep_seconds=DAY, keep_bytes=30) == []
    assert store.expire(4.0, keep_seconds=DAY, keep_bytes=29) == ["a"]
    assert store.expire(4.0, keep_seconds=DAY, keep_bytes=0) == ["b", "c"]


def test_unfinished_jobs_lose_nothing(store: JobStore) -> None:
    store.accept(job())
    store.start("a", 1.0)
    batch = DoneBatch(number=0, pictures=(painted(store, "a", 0),))
    store.keep_batch("a", batch)
    assert store.expire(1e12, keep_seconds=0.0, keep_bytes=0) == []
    assert store.batches("a") == [batch]
    assert store.result_file("a", "0.png").is_file()


def test_records_are_forgotten_at_last(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overpaint.service.storage.job_rows.FORGOTTEN_BEYOND", 2)
    for i, name in enumerate("abcd"):
        finished(store, name, float(i))
    store.accept(job("waiting"))
    assert store.expire(DAY, keep_seconds=1.0, keep_bytes=0) == list("abcd")
    assert [each.id for each in store.records()] == ["waiting", "d", "c"]


# -- after a crash ---------------------------------------------------------------------------------------------------


def test_what_was_running_is_queued_again(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    for name in "abc":
        store.accept(job(name))
    store.start("b", 1.0)
    store.end("c", JobState.CANCELLED, 1.0)
    store.close()
    store = JobStore(tmp_path)
    assert [(each.id, each.state, each.attempts) for each in store.recover()] == [("b", JobState.QUEUED, 1)]
    assert [each.id for each in store.waiting()] == ["a", "b"]
    assert not store.recover()
    store.close()


def test_torn_and_missing_files_make_a_batch_undone(store: JobStore) -> None:
    store.accept(job())
    store.start("a", 1.0)
    batches = [DoneBatch(number=i, pictures=(painted(store, "a", i),)) for i in range(4)]
    for each in batches:
        store.keep_batch("a", each)
    store.result_file("a", "1.png").write_bytes(b"pn")
    store.result_file("a", "2.png").write_bytes(b"gnp")
    store.result_file("a", "3.png").unlink()
    store.recover()
    assert store.batches("a") == batches[:1]
    assert [each.name for each in store.result_file("a", "0.png").parent.iterdir()] == ["0.png"]


def test_what_lies_beside_the_pictures_of_a_batch_stays(store: JobStore) -> None:
    """Masks and uncorrected pictures are in no list; without them a batch would be painted again."""
    store.accept(job())
    store.start("a", 1.0)
    store.keep_batch("a", DoneBatch(number=0, pictures=(painted(store, "a", 0),)))
    folder = store.result_file("a", "0.png").parent
    beside = [folder / byproduct_file("0.png", each) for each in BYPRODUCTS]
    stray = [folder / byproduct_file("1.png", each) for each in BYPRODUCTS]
    for path in (*beside, *stray):
        path.write_bytes(b"mask")
    store.recover()
    assert all(each.exists() for each in beside)
    assert not any(each.exists() for each in stray)


def test_leftovers_are_taken_away(store: JobStore) -> None:
    finished(store, "done", 1.0)
    finished(store, "gone", 0.0)
    store.accept(job("open"))
    kept = store.result_file("done", "0.png")
    gone = store.result_file("gone", "0.png")
    store.expire(1.5, keep_seconds=1.0, keep_bytes=100)
    stray = [gone, kept.with_name(".x.tmp"), store.result_file("unknown", "0.png"), store.result_file("open", "0.png")]
    stray += [store.data / "results" / "file", store.data / "inputs" / "ab" / ".y.tmp"]
    for each in stray:
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_bytes(b"half")
    store.recover()
    assert not [each for each in stray if each.exists()]
    assert kept.is_file()


# -- sources ---------------------------------------------------------------------------------------------------------


def test_sources_are_kept_by_their_hash(store: JobStore) -> None:
    reference = store.put_picture(b"source")
    digest = hashlib.sha256(b"source").hexdigest()
    path = store.data / "inputs" / digest[:2] / digest
    assert (reference, path.read_bytes()) == (PICTURE_REFERENCE + digest, b"source")
    path.write_bytes(b"torn")
    with pytest.raises(RequestError, match="damaged"):
        store.picture(reference)
    assert store.put_picture(b"source") == reference
    assert store.picture(reference) == b"source"
    assert [each.name for each in path.parent.iterdir()] == [digest]


@pytest.mark.parametrize("reference", ["", "sha256:", "sha256:../../x", "sha256:" + "0" * 64, "sha256:" + "A" * 64])
def test_a_source_that_is_not_kept(store: JobStore, reference: str) -> None:
    with pytest.raises(RequestError, match="picture"):
        store.picture(reference)


def test_a_job_whose_source_is_missing_is_not_accepted(store: JobStore) -> None:
    request = {"images": ["sha256:" + "0" * 64]}
    with pytest.raises(RequestError, match="upload it again"):
        store.accept(job(request=request))
    assert store.get("a") is None


def test_sources_stay_while_a_job_needs_them(store: JobStore) -> None:
    needed, idle = store.put_picture(b"needed"), store.put_picture(b"idle")
    store.accept(job(request={"controls": [{"image": needed}]}))
    now = time.time()
    store.expire(now + 50, keep_seconds=0.0, keep_bytes=0)
    assert store.picture(idle) == b"idle", "an upload has time to be named"
    store.expire(now + 3_000, keep_seconds=3_600.0, keep_bytes=4)
    assert store.picture(idle) == b"idle"
    store.expire(now + 3_000, keep_seconds=3_600.0, keep_bytes=3)
    with pytest.raises(RequestError):
        store.picture(idle)
    store.expire(now + DAY, keep_seconds=1.0, keep_bytes=0)
    assert store.picture(needed) == b"needed"
    store.end("a", JobState.CANCELLED, now)
    store.expire(now + DAY, keep_seconds=3_600.0, keep_bytes=100)
    with pytest.raises(RequestError):
        store.picture(needed)


def test_a_source_given_again_is_young_again(store: JobStore) -> None:
    reference = store.put_picture(b"source")
    path = next((store.data / "inputs").glob("*/*"))
    os.utime(path, (1.0, 1.0))
    store.put_picture(b"source")
    store.expire(time.time(), keep_seconds=3_600.0, keep_bytes=100)
    assert store.picture(reference) == b"source"


# -- names of results ------------------------------------------------------------------------------------------------

TRAPS = ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "C:\\x", "..\\x", "a\0", ".hidden", "x" * 129, "a/b", "a."]


@pytest.mark.parametrize("name", TRAPS)
def test_names_that_lead_elsewhere_are_refused(store: JobStore, name: str) -> None:
    with pytest.raises(RequestError):
        store.result_file("a", name)
    with pytest.raises(RequestError):
        store.result_file(name, "0.png")


def test_links_that_lead_elsewhere_are_refused(store: JobStore, tmp_path: Path) -> None:
    folder = store.result_file("a", "0.png").parent
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "0.png").symlink_to(tmp_path / "secret")
    (folder.parent / "b").symlink_to(tmp_path)
    for job_id, name in (("a", "0.png"), ("b", "secret")):
        with pytest.raises(RequestError, match="link"):
            store.result_file(job_id, name)
    store.recover()
    assert (tmp_path / "secret").read_text() == "x"
