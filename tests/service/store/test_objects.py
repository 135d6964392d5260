"""What a store promises whose pictures are objects: nothing is written over, nothing stays that no row names, and no
disk is shared."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import pytest

from overpaint.errors import RequestError, SaveError
from overpaint.service.byproducts import BYPRODUCTS, byproduct_file
from overpaint.service.jobs import Claim, DoneBatch, JobResult, JobState
from overpaint.service.ports import ClaimLost, Damaged, PicturesRefused
from overpaint.service.store.objects import blobs_named
from overpaint.service.store.scratch import Scratch
from overpaint.stores import StoreFile
from tests.service.store.store_tools import Clock, finished, job, painted
from tests.service.store.stores import ObjectStores

if TYPE_CHECKING:
    from pathlib import Path

    from overpaint.service.store.postgres_objects import PostgresObjectStore


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def here(object_stores: ObjectStores, clock: Clock) -> PostgresObjectStore:
    """On one machine."""
    return opened(object_stores, clock)


@pytest.fixture
def there(object_stores: ObjectStores, here: PostgresObjectStore, clock: Clock) -> PostgresObjectStore:
    """The same store on another."""
    return opened(object_stores, clock)


def opened(stores: ObjectStores, clock: Clock) -> PostgresObjectStore:
    return cast("PostgresObjectStore", stores.open(clock=clock))


def claimed(store: PostgresObjectStore, worker: str, name: str = "a") -> Claim:
    claim = store.claim(name, worker, 30.0)
    assert claim is not None
    return claim


def kept(store: PostgresObjectStore, claim: Claim, data: bytes = b"png", number: int = 0) -> DoneBatch:
    batch = DoneBatch(number=number, pictures=(painted(store, claim.record.id, number, data),))
    store.keep_batch(claim.record.id, batch, fence=claim.fence)
    return batch


class TestResults:
    def test_who_is_late_leaves_no_trace(
        self, object_stores: ObjectStores, here: PostgresObjectStore, there: PostgresObjectStore, clock: Clock
    ) -> None:
        here.accept(job())
        late = claimed(here, "one")
        clock.now += 31.0
        kept(there, claimed(there, "two"), b"of the second")
        before = object_stores.objects()
        with pytest.raises(ClaimLost):
            kept(here, late, b"of the first")
        here.settle()
        assert object_stores.objects() == before and list(before.values()) == [b"of the second"]
        assert here.result_bytes("a", "0.png") == there.result_bytes("a", "0.png") == b"of the second"

    def test_who_is_late_after_the_results_were_deleted_leaves_no_trace(
        self, object_stores: ObjectStores, here: PostgresObjectStore, there: PostgresObjectStore
    ) -> None:
        here.accept(job())
        late = claimed(here, "one")
        there.end("a", JobState.CANCELLED, 1.0)
        there.delete("a")
        with pytest.raises((ClaimLost, RequestError)):
            kept(here, late)
        here.settle()
        assert object_stores.objects() == {}

    def test_the_end_sends_nothing_a_second_time(self, object_stores: ObjectStores, here: PostgresObjectStore) -> None:
        here.accept(job())
        claim = claimed(here, "one")
        batch = kept(here, claim)
        before = object_stores.objects()
        sheet = painted(here, "a", 1, b"sheet")
        here.end("a", JobState.FINISHED, 1.0, result=JobResult(pictures=(*batch.pictures, sheet)), fence=claim.fence)
        here.settle()
        after = object_stores.objects()
        assert before.items() < after.items() and len(after) == 2
        assert [here.result_bytes("a", f"{number}.png") for number in range(2)] == [b"png", b"sheet"]

    def test_an_end_that_comes_too_late_deletes_nothing(
        self, object_stores: ObjectStores, here: PostgresObjectStore
    ) -> None:
        """The first end counts; what it named stays, and what the second one brought does not."""
        finished(here, "a", 1001.0, b"first")
        again = JobResult(pictures=(painted(here, "a", 0, b"second"),))
        assert here.end("a", JobState.FINISHED, 2.0, result=again).event is None
        here.settle()
        assert list(object_stores.objects().values()) == [b"first"] and here.result_bytes("a", "0.png") == b"first"

    def test_what_takes_the_place_of_another_is_there_alone(
        self, object_stores: ObjectStores, here: PostgresObjectStore
    ) -> None:
        here.accept(job())
        claim = claimed(here, "one")
        kept(here, claim, b"before")
        kept(here, claim, b"after")
        here.settle()
        assert list(object_stores.objects().values()) == [b"after"] and here.result_bytes("a", "0.png") == b"after"

    def test_a_job_goes_on_where_nothing_of_it_lies(
        self, here: PostgresObjectStore, there: PostgresObjectStore
    ) -> None:
        reference = here.put_picture(b"source")
        accepted = job(request={"images": [reference]})
        here.accept(accepted)
        here.lay_out(accepted)
        claim = claimed(here, "one")
        mask = byproduct_file("0.png", BYPRODUCTS[0])
        here.result_file("a", mask).write_bytes(b"mask")
        kept(here, claim)
        here.put_back("a", fence=claim.fence, deaths=1, refusals=2)
        here.clear_away("a")
        assert not here.result_file("a", "0.png").exists()
        folder = there.lay_out(accepted)
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == {"0.png": b"png", mask: b"mask"}
        assert there._near_sources.read(reference) == b"source", "workers read it there"
        assert there.has_result("a", mask) and not there.has_result("a", "1.png")
        there.clear_away("a")
        assert not folder.exists() and not there._near_sources.is_there(reference)

    def test_what_two_jobs_need_stays_until_both_are_over(self, here: PostgresObjectStore) -> None:
        reference = here.put_picture(b"source")
        first, second = (job(name, request={"images": [reference]}) for name in "ab")
        for each in (first, second, first):  # the first one was lost, and came back while it was still worked on
            here.lay_out(each)
        here.clear_away("b")
        here.clear_away("a")
        assert here._near_sources.is_there(reference) and here.result_file("a", "0.png").parent.exists()
        here.clear_away("a")
        assert not here._near_sources.is_there(reference)

    def test_a_picture_that_is_lost_or_damaged_is_told(
        self, object_stores: ObjectStores, here: PostgresObjectStore
    ) -> None:
        finished(here, "a", 1001.0)
        [name] = object_stores.objects()
        object_stores.put(name, b"gnp")
        with pytest.raises(Damaged, match=r"its picture 0\.png was damaged in its store; paint it again"):
            here.result_bytes("a", "0.png")
        object_stores.remove(name)
        with pytest.raises(Damaged, match="not there any more"):
            here.result_bytes("a", "0.png")
        with pytest.raises(FileNotFoundError):
            here.result_bytes("a", "1.png")

    def test_sizes_are_counted(self, here: PostgresObjectStore) -> None:
        finished(here, "a", 1001.0, b"x" * 10)
        here.pin("a", True)
        assert here.results_size() == here.pinned_bytes() == 10

    def test_what_got_old_is_deleted(
        self, object_stores: ObjectStores, here: PostgresObjectStore, clock: Clock
    ) -> None:
        finished(here, "old", 1001.0)
        finished(here, "pinned", 1001.0, b"pinned")
        here.pin("pinned", True)
        clock.now += 100.0
        assert here.expire(keep_seconds=60.0, keep_bytes=100) == ["old"]
        here.settle()
        assert list(object_stores.objects().values()) == [b"pinned"]
        here.delete("pinned")
        here.settle()
        assert object_stores.objects() == {}


class TestSources:
    def test_what_is_given_twice_is_there_once(
        self, object_stores: ObjectStores, here: PostgresObjectStore, there: PostgresObjectStore
    ) -> None:
        reference = here.put_picture(b"source")
        there.incoming.mkdir(parents=True, exist_ok=True)
        (path := there.incoming / "of-a-reader").write_bytes(b"source")
        assert there.take_picture(path, hashlib.sha256(b"source").hexdigest()) == reference
        assert not path.exists() and list(object_stores.objects().values()) == [b"source"]
        assert here.picture(reference) == there.picture(reference) == b"source"

    @pytest.mark.parametrize("is_lost", [True, False])
    def test_one_that_is_lost_can_be_uploaded_again(
        self, object_stores: ObjectStores, here: PostgresObjectStore, is_lost: bool
    ) -> None:
        reference = here.put_picture(b"source")
        [name] = object_stores.objects()
        object_stores.remove(name) if is_lost else object_stores.put(name, b"ecruos")
        with pytest.raises(RequestError, match="not kept here" if is_lost else "damaged"):
            here.picture(reference)
        assert here.put_picture(b"source") == reference and here.picture(reference) == b"source"

    def test_one_that_is_given_again_is_young_again(
        self, object_stores: ObjectStores, here: PostgresObjectStore, clock: Clock
    ) -> None:
        reference = here.put_picture(b"source")
        for seconds in (0.0, 3_000.0):
            clock.now = 1_000.0 + seconds
            here.expire(keep_seconds=3_600.0, keep_bytes=100)
        here.put_picture(b"source")
        clock.now = 5_000.0
        here.expire(keep_seconds=3_600.0, keep_bytes=100)
        assert here.picture(reference) == b"source"
        clock.now = 9_000.0
        here.expire(keep_seconds=3_600.0, keep_bytes=100)
        here.settle()
        assert object_stores.objects() == {}


class TestSweeping:
    def test_what_a_killed_process_left_goes_at_the_second_look(
        self, object_stores: ObjectStores, here: PostgresObjectStore
    ) -> None:
        finished(here, "a", 1001.0)
        here.put_picture(b"source")
        named = object_stores.objects()
        for name in ("inputs/x-of-nobody", "results/a/x-0.png", "results/unknown/x-0.png"):
            object_stores.put(name, b"left")
        here.sweep()
        assert len(object_stores.objects()) == len(named) + 3, "it may be that its row is just being written"
        here.sweep()
        assert object_stores.objects() == named


class TestTrouble:
    @pytest.fixture(autouse=True)
    def _no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.service.store.objects._PAUSES", (0.0, 0.0))
        monkeypatch.setattr("overpaint.service.store.objects.PROBED", 0.0)

    def test_a_store_that_is_away(self, object_stores: ObjectStores, here: PostgresObjectStore) -> None:
        here.accept(job())
        claim = claimed(here, "one")
        object_stores.is_away = True
        with pytest.raises(PicturesRefused) as refused:
            kept(here, claim)
        assert "memory://" not in str(refused.value) and "example" not in str(refused.value)
        with pytest.raises(PicturesRefused):
            here.put_picture(b"source")
        assert not here.takes_pictures() and not here.batches("a")
        object_stores.is_away = False
        assert here.takes_pictures() and object_stores.objects() == {}
        kept(here, claim)
        assert here.result_bytes("a", "0.png") == b"png"

    def test_a_moment_is_waited_for(
        self, object_stores: ObjectStores, here: PostgresObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        object_stores.fails = 2
        reference = here.put_picture(b"source")
        assert here.picture(reference) == b"source" and object_stores.refused == 2

    def test_no_rights_are_said_at_once(
        self, object_stores: ObjectStores, here: PostgresObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        object_stores.is_away, object_stores.error = True, PermissionError("Access Denied")
        with pytest.raises(PicturesRefused, match="gives no rights"):
            here.put_picture(b"source")
        assert object_stores.refused == 1
        with pytest.raises(RequestError, match=r"--blobs='memory://bucket/overpaint'.*no rights there"):
            object_stores.open()
        assert [each.name for each in (object_stores.data / "scratch").iterdir()] == [here.data.name]

    def test_a_mark_that_is_gone_is_a_trouble(self, object_stores: ObjectStores, here: PostgresObjectStore) -> None:
        assert here.trouble() is None
        object_stores.remove("overpaint-store")
        assert here.trouble() == "the store of pictures has no such bucket or picture"


class TestPlaces:
    def test_all_processes_have_the_same(self, object_stores: ObjectStores, here: PostgresObjectStore) -> None:
        from overpaint.service.store.postgres_store import PostgresStore

        object_stores.top = StoreFile("memory://bucket/another")
        with pytest.raises(RequestError, match=r"--blobs=.*it is not the place of"):
            object_stores.open()
        with pytest.raises(RequestError, match=r"--data=.*it is not the folder of"):
            PostgresStore(object_stores.address, object_stores.data / "folder")
        object_stores.top = StoreFile("memory://bucket/overpaint")
        object_stores.address = object_stores.cluster.database()
        with pytest.raises(RequestError, match="the pictures of another store lie there"):
            object_stores.open()

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("/srv/pictures", "a folder is given as --data"),
            ("file:///srv/pictures", "this is a folder; give it as --data"),
            ("memory://bucket", "in the memory of one process"),
            ("ftp://host/x", "of no store that is known"),
            ("s3://key:secret@bucket/x", "give keys and tokens in the environment"),
            ("s3://", "name a bucket"),
        ],
    )
    def test_what_is_no_place_is_refused(self, url: str, said: str) -> None:
        with pytest.raises(RequestError, match=said) as refused:
            blobs_named(url)
        assert "secret" not in str(refused.value) and "--blobs" in str(refused.value)

    def test_the_folder_of_a_process_goes_with_it(self, tmp_path: Path) -> None:
        killed, alive = Scratch(tmp_path), Scratch(tmp_path)
        killed._lock.release()
        third = Scratch(tmp_path)
        assert {*tmp_path.iterdir()} == {alive.folder, third.folder}
        for each in (alive, third):
            each.close()
        assert not list(tmp_path.iterdir())


def test_a_picture_of_a_job_that_is_not_there_is_no_picture(here: PostgresObjectStore) -> None:
    here.accept(job())
    with pytest.raises(SaveError, match="paint it again"):
        here.end("a", JobState.FINISHED, 1.0, result=JobResult(pictures=(painted(here, "b", 0),)))
