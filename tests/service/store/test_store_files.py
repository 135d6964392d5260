"""Results and sources: how long they stay, what a crash may leave of them, and where their names may lead."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from overpaint.errors import RequestError, SaveError
from overpaint.service.byproducts import BYPRODUCTS, byproduct_file
from overpaint.service.jobs import PICTURE_REFERENCE, DoneBatch, JobState
from overpaint.service.painter.results import Output, keep
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.store.store_on_tables import StoreOnTables
from overpaint.settings import Settings
from tests.service.store.store_tools import Clock, Stores, finished, job, painted
from tests.service.store.stores import SqliteStores

DAY = 86_400.0


def written(store: StoreOnTables, data: bytes) -> tuple[Path, str]:
    """A picture as a process of ours leaves it for the store."""
    store.incoming.mkdir(exist_ok=True)
    (path := store.incoming / "of-a-reader").write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(stores: Stores, clock: Clock) -> StoreOnTables:
    """Of each kind."""
    return stores.open(clock=clock)


@pytest.fixture(params=["sqlite", "postgres"])
def folder_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[StoreOnTables]:
    """Of each kind whose pictures lie in a folder."""
    made = (
        request.getfixturevalue("postgres_stores") if request.param == "postgres" else SqliteStores(tmp_path / "data")
    )
    yield made.open(clock=clock)
    made.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "data", uptime=clock)
    yield opened
    assert not opened.integrity_check()
    opened.close()


# -- what becomes old ------------------------------------------------------------------------------------------------


def test_what_is_pinned_never_gets_old_and_takes_no_room_from_others(store: StoreOnTables, clock: Clock) -> None:
    for name in "abc":
        finished(store, name, at=1.0, data=b"x" * 10)
    assert store.pin("b", True).pinned and store.pinned_bytes() == 10
    clock.now = 2.0
    assert store.expire(keep_seconds=60.0, keep_bytes=20) == []
    assert store.expire(keep_seconds=60.0, keep_bytes=10) == ["a"]
    clock.now = 100.0
    assert store.expire(keep_seconds=60.0, keep_bytes=10) == ["c"]
    assert store.result_bytes("b", "0.png") == b"x" * 10
    assert [(each.id, each.bytes) for each in store.records() if not each.gone] == [("b", 10)]
    assert not store.pin("c", True).pinned, "what is gone stays gone"
    assert not store.pin("b", False).pinned and store.pinned_bytes() == 0
    assert store.expire(keep_seconds=60.0, keep_bytes=10) == ["b"]


def test_results_are_deleted_on_request_and_those_of_running_jobs_are_not(store: StoreOnTables) -> None:
    finished(store, "a", at=1.0)
    store.pin("a", True)
    record = store.delete("a")
    assert (record.gone, record.pinned, record.bytes) == (True, False, 0)
    assert not store.result_file("a", "0.png").exists()
    store.accept(job("b"))
    assert not store.delete("b").gone and [each.id for each in store.waiting()] == ["b"]


def test_results_are_kept_for_their_time_and_no_longer(store: StoreOnTables, clock: Clock) -> None:
    finished(store, "a", at=100.0)
    store.add_event("a", "progress", {}, 1.0)
    clock.now = 160.0
    assert store.expire(keep_seconds=60.0, keep_bytes=100) == []
    assert store.result_file("a", "0.png").is_file()
    clock.now = 160.1
    assert store.expire(keep_seconds=60.0, keep_bytes=100) == ["a"]
    record = store.get("a")
    assert record is not None
    assert (record.gone, record.state, len(record.result.pictures)) == (True, JobState.FINISHED, 1)
    assert not store.result_file("a", "0.png").parent.exists()
    assert [each.name for each in store.events_after("a", 0)] == ["queued", "finished"]
    clock.now = 900.0
    assert store.expire(keep_seconds=60.0, keep_bytes=100) == []
    with pytest.raises(RequestError, match="deleted"):
        store.keep_batch("a", DoneBatch(number=1, pictures=()))


def test_the_oldest_results_go_when_they_are_too_much(store: StoreOnTables, clock: Clock) -> None:
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        finished(store, name, at, b"x" * 10)
    store.accept(job("empty", client="e"))
    store.end("empty", JobState.CANCELLED, 0.5)
    clock.now = 4.0
    assert store.expire(keep_seconds=DAY, keep_bytes=30) == []
    clock.now = 4.0
    assert store.expire(keep_seconds=DAY, keep_bytes=29) == ["a"]
    clock.now = 4.0
    assert store.expire(keep_seconds=DAY, keep_bytes=0) == ["b", "c"]


def test_unfinished_jobs_lose_nothing(store: StoreOnTables, clock: Clock) -> None:
    store.accept(job())
    store.claim("a", "w", 60.0, at=1.0)
    batch = DoneBatch(number=0, pictures=(painted(store, "a", 0),))
    store.keep_batch("a", batch)
    clock.now = 1e12
    assert store.expire(keep_seconds=0.0, keep_bytes=0) == []
    assert store.batches("a") == [batch]
    assert store.result_file("a", "0.png").is_file()


def test_records_are_forgotten_at_last(store: StoreOnTables, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overpaint.service.store.job_rows.FORGOTTEN_BEYOND", 2)
    for i, name in enumerate("abcd"):
        finished(store, name, float(i))
    store.accept(job("waiting"))
    clock.now = DAY
    assert store.expire(keep_seconds=1.0, keep_bytes=0) == list("abcd")
    assert [each.id for each in store.records()] == ["waiting", "d", "c"]


# -- after a crash ---------------------------------------------------------------------------------------------------


def test_what_was_running_is_queued_again(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    for name in "abc":
        store.accept(job(name))
    store.claim("b", "w", 60.0, at=1.0)
    store.end("c", JobState.CANCELLED, 1.0)
    store.close()
    store = JobStore(tmp_path)
    assert [(each.id, each.state, each.attempts) for each in store.recover()] == [("b", JobState.QUEUED, 1)]
    assert [each.id for each in store.waiting()] == ["a", "b"]
    assert not store.recover()
    store.close()


def test_torn_and_missing_files_make_a_batch_undone(sqlite_store: JobStore) -> None:
    sqlite_store.accept(job())
    sqlite_store.claim("a", "w", 60.0, at=1.0)
    batches = [DoneBatch(number=i, pictures=(painted(sqlite_store, "a", i),)) for i in range(4)]
    for each in batches:
        sqlite_store.keep_batch("a", each)
    sqlite_store.result_file("a", "1.png").write_bytes(b"pn")
    sqlite_store.result_file("a", "2.png").write_bytes(b"gnp")
    sqlite_store.result_file("a", "3.png").unlink()
    sqlite_store.recover()
    assert sqlite_store.batches("a") == batches[:1]
    assert [each.name for each in sqlite_store.result_file("a", "0.png").parent.iterdir()] == ["0.png"]


def test_what_lies_beside_the_pictures_of_a_batch_stays(sqlite_store: JobStore) -> None:
    """Masks and uncorrected pictures are in no list; without them a batch would be painted again."""
    sqlite_store.accept(job())
    sqlite_store.claim("a", "w", 60.0, at=1.0)
    sqlite_store.keep_batch("a", DoneBatch(number=0, pictures=(painted(sqlite_store, "a", 0),)))
    folder = sqlite_store.result_file("a", "0.png").parent
    beside = [folder / byproduct_file("0.png", each) for each in BYPRODUCTS]
    stray = [folder / byproduct_file("1.png", each) for each in BYPRODUCTS]
    for path in (*beside, *stray):
        path.write_bytes(b"mask")
    sqlite_store.recover()
    assert all(each.exists() for each in beside)
    assert not any(each.exists() for each in stray)


def test_leftovers_are_taken_away(sqlite_store: JobStore, clock: Clock) -> None:
    finished(sqlite_store, "done", 1.0)
    finished(sqlite_store, "gone", 0.0)
    sqlite_store.accept(job("open"))
    kept = sqlite_store.result_file("done", "0.png")
    gone = sqlite_store.result_file("gone", "0.png")
    clock.now = 1.5
    sqlite_store.expire(keep_seconds=1.0, keep_bytes=100)
    stray = [
        gone,
        kept.with_name(".x.tmp"),
        sqlite_store.result_file("unknown", "0.png"),
        sqlite_store.result_file("open", "0.png"),
    ]
    stray += [sqlite_store.data / "results" / "file", sqlite_store.data / "inputs" / "ab" / ".y.tmp"]
    for each in stray:
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_bytes(b"half")
    sqlite_store.recover()
    assert not [each for each in stray if each.exists()]
    assert kept.is_file()


# -- sources ---------------------------------------------------------------------------------------------------------


def test_sources_are_kept_by_their_hash(folder_store: StoreOnTables) -> None:
    reference = folder_store.put_picture(b"source")
    digest = hashlib.sha256(b"source").hexdigest()
    path = folder_store.data / "inputs" / digest[:2] / digest
    assert (reference, path.read_bytes()) == (PICTURE_REFERENCE + digest, b"source")
    path.write_bytes(b"torn")
    with pytest.raises(RequestError, match="damaged"):
        folder_store.picture(reference)
    assert folder_store.put_picture(b"source") == reference
    assert folder_store.picture(reference) == b"source"
    assert [each.name for each in path.parent.iterdir()] == [digest]


@pytest.mark.parametrize("reference", ["", "sha256:", "sha256:../../x", "sha256:" + "0" * 64, "sha256:" + "A" * 64])
def test_a_source_that_is_not_kept(store: StoreOnTables, reference: str) -> None:
    with pytest.raises(RequestError, match="picture"):
        store.picture(reference)


def test_a_job_whose_source_is_missing_is_not_accepted(store: StoreOnTables) -> None:
    request = {"images": ["sha256:" + "0" * 64]}
    with pytest.raises(RequestError, match="upload it again"):
        store.accept(job(request=request))
    assert store.get("a") is None


def test_sources_stay_while_a_job_needs_them(store: StoreOnTables, clock: Clock) -> None:
    needed, idle = store.put_picture(b"needed"), store.put_picture(b"idle")
    store.accept(job(request={"controls": [{"image": needed}]}))
    now = clock.now
    store.expire(keep_seconds=0.0, keep_bytes=0)
    clock.now = now + 50
    store.expire(keep_seconds=0.0, keep_bytes=0)
    assert store.picture(idle) == b"idle", "an upload has time to be named"
    clock.now = now + 3_000
    store.expire(keep_seconds=3_600.0, keep_bytes=4)
    assert store.picture(idle) == b"idle"
    clock.now = now + 3_000
    store.expire(keep_seconds=3_600.0, keep_bytes=3)
    with pytest.raises(RequestError):
        store.picture(idle)
    clock.now = now + DAY
    store.expire(keep_seconds=1.0, keep_bytes=0)
    assert store.picture(needed) == b"needed"
    store.end("a", JobState.CANCELLED, now)
    store.expire(keep_seconds=3_600.0, keep_bytes=100)
    assert store.picture(needed) == b"needed"
    clock.now += 3_601.0
    store.expire(keep_seconds=3_600.0, keep_bytes=100)
    with pytest.raises(RequestError):
        store.picture(needed)


def test_a_file_of_ours_gets_its_name(store: StoreOnTables, clock: Clock) -> None:
    path, digest = written(store, b"source")
    reference = store.take_picture(path, digest)
    assert reference == store.put_picture(b"source") and store.picture(reference) == b"source"
    assert not path.exists()
    clock.now = 100.0
    store.expire(keep_seconds=DAY, keep_bytes=0)  # nobody needs it, from now on
    clock.now = 150.0
    store.take_picture(*written(store, b"source"))  # until it is given again
    clock.now = 200.0
    store.expire(keep_seconds=DAY, keep_bytes=0)
    assert store.picture(reference) == b"source"
    clock.now = 300.0
    store.expire(keep_seconds=DAY, keep_bytes=0)
    with pytest.raises(RequestError, match="not kept here"):
        store.picture(reference)


def test_a_file_of_ours_that_is_gone_is_no_picture(store: StoreOnTables) -> None:
    path, digest = written(store, b"source")
    path.unlink()
    with pytest.raises(SaveError, match=f"picture {digest[:12]}: it was not kept .*; send it again"):
        store.take_picture(path, digest)


def test_a_killed_server_leaves_no_file_without_a_name(sqlite_store: JobStore) -> None:
    path, _ = written(sqlite_store, b"source")
    sqlite_store.recover()
    assert not path.exists()


def test_a_source_given_again_is_young_again(folder_store: StoreOnTables, clock: Clock) -> None:
    reference = folder_store.put_picture(b"source")
    path = next((folder_store.data / "inputs").glob("*/*"))
    os.utime(path, (1.0, 1.0))
    folder_store.expire(keep_seconds=3_600.0, keep_bytes=100)
    clock.now = 3_000.0
    folder_store.expire(keep_seconds=3_600.0, keep_bytes=100)
    folder_store.put_picture(b"source")
    clock.now = 4_000.0
    folder_store.expire(keep_seconds=3_600.0, keep_bytes=100)
    assert folder_store.picture(reference) == b"source"


# -- how results are packed --------------------------------------------------------------------------------------------


def test_transparency_gets_the_background_of_the_site_where_a_format_has_none(tmp_path: Path) -> None:
    settings = Settings(samples_format="jpg", img2img_background_color="#00ff00", jpeg_quality=100)
    picture = keep(tmp_path, 0, Output(Image.new("RGBA", (16, 16), (255, 0, 0, 0))), settings)
    with Image.open(tmp_path / picture.file) as opened:
        red, green, blue = opened.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert red < 10 and green > 245 and blue < 10


# -- whose business it is --------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
@pytest.mark.parametrize("is_new", [True, False])
def test_what_is_kept_is_for_its_owner_only(tmp_path: Path, is_new: bool) -> None:
    data, before = tmp_path / "data", os.umask(0)
    try:
        if not is_new:
            data.mkdir()
        store = JobStore(data)
        finished(store, "a", 1.0)
        store.put_picture(b"source")
        picture = keep(store.result_file("a", "0.png").parent, 1, Output(Image.new("RGB", (8, 8))), Settings())
        store.accept(job("b"))
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*")}
        assert {each.name for each in modes} >= {"jobs.db", "jobs.db-wal", "jobs.db-shm", "inputs", picture.file}
        by_test = store.result_file("a", "0.png")  # written by the test itself
        inner = {path for path in modes if path.is_dir() and path.parent != data} | {by_test}
        assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077 and path not in inner} == {}
        assert stat.S_IMODE(data.stat().st_mode) == (0o700 if is_new else 0o777)
        store.close()
    finally:
        os.umask(before)


# -- names of results ------------------------------------------------------------------------------------------------

TRAPS = ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "C:\\x", "..\\x", "a\0", ".hidden", "x" * 129, "a/b", "a."]


@pytest.mark.parametrize("name", TRAPS)
def test_names_that_lead_elsewhere_are_refused(store: StoreOnTables, name: str) -> None:
    with pytest.raises(RequestError):
        store.result_file("a", name)
    with pytest.raises(RequestError):
        store.result_file(name, "0.png")


def test_links_that_lead_elsewhere_are_refused(store: StoreOnTables, tmp_path: Path) -> None:
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
