"""What a store on PostgreSQL promises besides what every store does: many work on it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from overpaint.errors import RequestError, SaveError
from overpaint.events import Stop
from overpaint.service.jobs import Claim, JobState, Live
from overpaint.service.limits import Limits
from overpaint.service.ports import ClaimLost
from overpaint.service.shared_ports import HostNow, SharedStore, WantedJob
from overpaint.service.store.postgres_address import connection_values, shown
from overpaint.service.store.sqlite_store import JobStore
from tests.service.store.postgres_cluster import Cluster
from tests.service.store.store_tools import Clock, job
from tests.service.store.stores import PostgresStores

if TYPE_CHECKING:
    from overpaint.service.store.postgres_store import PostgresStore


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def store(postgres_stores: PostgresStores, clock: Clock) -> PostgresStore:
    return postgres_stores.open(clock=clock)


def wanted(host: str = "here", **changes: Any) -> WantedJob:
    return WantedJob(**{"host": host, "lease_seconds": 30.0, "models": [""], **changes})


def next_of(store: SharedStore, **changes: Any) -> str | None:
    claim = store.claim_next(wanted(**changes))
    return None if claim is None else claim.record.id


def taken(store: SharedStore, **changes: Any) -> Claim:
    claim = store.claim_next(wanted(**changes))
    assert claim is not None
    return claim


def painting(name: str, checkpoint: str | None = None, prompt: str = "", **changes: Any) -> Any:
    return job(name, request={"prompt": prompt, "checkpoint": checkpoint}, **changes)


def host(name: str, *idle_models: str) -> HostNow:
    return HostNow(name=name, workers=[{"models": list(idle_models), "is_idle": True}] if idle_models else [])


class TestWhoseTurn:
    def test_by_priority_then_as_they_came(self, store: PostgresStore) -> None:
        for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -5)):
            store.accept(job(name, priority=priority))
        assert [next_of(store) for _ in range(6)] == ["b", "d", "a", "c", "e", None]

    def test_who_waited_too_long_comes_before_any_priority(self, store: PostgresStore, clock: Clock) -> None:
        store.accept(job("old", priority=-10))
        clock.now += 301.0
        store.accept(job("new", priority=10))
        assert [next_of(store), next_of(store)] == ["old", "new"]

    def test_the_client_that_was_served_least_is_next(self, store: PostgresStore, clock: Clock) -> None:
        """By what ran lately and by what runs now, wherever; of that each is thought to take the usual time."""
        store.accept(job("served", client="ann"))
        claim = taken(store)
        clock.now += 50.0
        store.end("served", JobState.FINISHED, 1.0, fence=claim.fence)
        for name, client in (("a1", "ann"), ("a2", "ann"), ("b1", "bob"), ("b2", "bob"), ("c1", "cem")):
            store.accept(job(name, client=client))
        assert [next_of(store) for _ in range(5)] == ["b1", "c1", "a1", "b2", "a2"]

    def test_a_loaded_checkpoint_counts_as_much_as_reading_another_takes(self, store: PostgresStore) -> None:
        for name, checkpoint in (("one", "x"), ("two", "y"), ("three", "x.safetensors [0123456789]")):
            store.accept(painting(name, checkpoint))
        assert [next_of(store, models=["x"]) for _ in range(3)] == ["one", "three", "two"]

    def test_but_not_more(self, store: PostgresStore, clock: Clock) -> None:
        store.accept(painting("served", "x", client="ann"))
        claim = taken(store, models=["x"])
        clock.now += 20.0
        store.end("served", JobState.FINISHED, 1.0, fence=claim.fence)
        store.accept(painting("mine", "x", client="ann"))
        store.accept(painting("other", "y", client="bob"))
        assert next_of(store, models=["x"]) == "other"

    def test_a_job_waits_a_moment_for_who_has_its_checkpoint(self, store: PostgresStore, clock: Clock) -> None:
        store.beat(host("there", "x"), {}, 30.0)
        store.accept(painting("a", "x"))
        assert next_of(store, models=["y"]) is None
        assert next_of(store, models=["y"], only_loaded=True) is None
        clock.now += 1.1
        assert next_of(store, models=["y"], only_loaded=True) is None
        assert next_of(store, models=["y"]) == "a"

    def test_and_not_for_who_is_gone(self, store: PostgresStore, clock: Clock) -> None:
        store.beat(host("there", "x"), {}, 30.0)
        clock.now += 46.0
        store.accept(painting("a", "x"))
        assert next_of(store, models=["y"]) == "a"

    @pytest.mark.parametrize(
        ("known", "found"), [([], ["no-model", "hash"]), (["", "x"], ["no-model", "own", "x", "hash"]), (None, None)]
    )
    def test_nobody_gets_what_it_cannot_read(
        self, store: PostgresStore, known: list[str] | None, found: list[str] | None
    ) -> None:
        """But a hash: whose it is, only a look into the files tells."""
        store.accept(job("no-model", kind="extras", request={"images": []}))
        for name, checkpoint in (("own", None), ("x", "x"), ("y", "y"), ("hash", "0123456789")):
            store.accept(painting(name, checkpoint))
        got = [each for each in (next_of(store, known=known, models=[]) for _ in range(5)) if each]
        assert sorted(got) == sorted(found or ["no-model", "own", "x", "y", "hash"])

    def test_what_shares_a_model_is_taken_along(self, store: PostgresStore) -> None:
        store.accept(painting("first"))
        store.accept(painting("lora", prompt="<lora:a:1>"))
        store.accept(painting("died"))
        store.put_back("died", fence=store.claim("died", "x", 30.0).fence, deaths=1)  # type: ignore[union-attr]
        store.accept(painting("like"))
        first = taken(store)
        assert first.record.id == "died", "what was begun before comes before its equals"
        assert first.deaths == 1
        from overpaint.service.worn_models import worn_name

        worn = worn_name(store.get("first").job)  # type: ignore[union-attr]
        assert [next_of(store, worn=worn) for _ in range(3)] == ["first", "like", None]

    def test_each_is_handed_out_once(self, postgres_stores: PostgresStores) -> None:
        """Four that ask as fast as they can, with a store each."""
        first = postgres_stores.open(Limits(waiting=100, waiting_per_client=100))
        for number in range(40):
            first.accept(job(f"j{number}", client=f"c{number % 3}"))
        got: list[str] = []

        def ask(store: SharedStore, host: str) -> None:
            while (claim := store.claim_next(wanted(host))) is not None:
                got.append(claim.record.id)
                store.end(claim.record.id, JobState.FINISHED, 1.0, fence=claim.fence)

        threads = [threading.Thread(target=ask, args=(postgres_stores.open(), f"h{n}")) for n in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(240)
        assert sorted(got) == sorted(f"j{number}" for number in range(40))
        assert first.counts() == {JobState.FINISHED: 40}


def test_what_is_said_to_be_done_outlives_the_server(postgres_stores: PostgresStores, cluster: Cluster) -> None:
    """Its locks are let go of before the disk has it; who asked waits until the disk has it."""
    store = postgres_stores.open()
    deeds: tuple[tuple[Callable[[PostgresStore], object], JobState], ...] = (
        (lambda store: store.accept(job("a")), JobState.QUEUED),
        (lambda store: store.claim_next(wanted()), JobState.RUNNING),
        (lambda store: store.put_back("a", fence=1, deaths=1), JobState.QUEUED),
        (lambda store: store.end("a", JobState.CANCELLED, 1.0), JobState.CANCELLED),
    )
    for deed, state in deeds:
        deed(store)
        cluster.stop()
        cluster.start()
        store = postgres_stores.open()
        assert store.counts() == {state: 1}


class TestClaims:
    def test_a_lapsed_lease_is_there_for_all_and_its_holder_is_fenced_off(
        self, store: PostgresStore, clock: Clock
    ) -> None:
        store.accept(job())
        first = taken(store, host="one")
        clock.now += 30.0
        second = taken(store, host="two")
        assert (second.fence, second.record.attempts) == (first.fence + 1, 2)
        assert store.beat(host("one"), {"a": first.fence}, 30.0).lost == {"a"}
        for write in (
            lambda: store.progress(Live(job="a", step=1, steps=2), fence=first.fence),
            lambda: store.put_back("a", fence=first.fence, deaths=1),
            lambda: store.end("a", JobState.FINISHED, 1.0, fence=first.fence),
        ):
            with pytest.raises(ClaimLost):
                write()
        assert not store.beat(host("two"), {"a": second.fence}, 30.0).lost

    def test_a_heartbeat_keeps_what_it_names(self, store: PostgresStore, clock: Clock) -> None:
        store.accept(job("a"))
        store.accept(job("b"))
        a, b = taken(store), taken(store)
        clock.now += 20.0
        assert not store.beat(host("here"), {"a": a.fence}, 30.0).lost
        clock.now += 20.0
        assert next_of(store, host="there") == "b"
        assert store.beat(host("here"), {"a": a.fence, "b": b.fence}, 30.0).lost == {"b"}

    def test_what_is_wanted_of_a_running_job(self, store: PostgresStore, clock: Clock) -> None:
        """A skip is told once. A cancel stays until it is done, whoever does it."""
        store.accept(job())
        assert not store.ask_to_stop("a", Stop.CANCEL), "it waits"
        claim = taken(store)
        assert store.ask_to_stop("a", Stop.SKIP)
        assert store.beat(host("here"), {"a": claim.fence}, 30.0).stops == {"a": Stop.SKIP}
        assert store.beat(host("here"), {"a": claim.fence}, 30.0).stops == {}
        store.ask_to_stop("a", Stop.CANCEL)
        store.ask_to_stop("a", Stop.SKIP)
        for _ in range(2):
            assert store.beat(host("here"), {"a": claim.fence}, 30.0).stops == {"a": Stop.CANCEL}
        clock.now += 31.0
        assert taken(store, host="there").stop == "cancel"

    def test_only_what_nobody_runs_is_put_back_by_a_start(self, store: PostgresStore, clock: Clock) -> None:
        for name in "ab":
            store.accept(job(name))
        taken(store)
        clock.now += 20.0
        taken(store)
        clock.now += 20.0
        assert [each.id for each in store.recover()] == ["a"]
        assert store.counts() == {JobState.QUEUED: 1, JobState.RUNNING: 1}

    def test_times_are_the_servers(self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever clock a machine has."""
        import time

        monkeypatch.setattr(time, "time", lambda: 1e12)
        monkeypatch.setattr(time, "monotonic", lambda: 1e12)
        store.accept(job())
        claim = taken(store)
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        assert claim.record.uptimes.started == 1000.0
        assert next_of(store, host="there") is None


def test_standings(store: PostgresStore, clock: Clock) -> None:
    for name in "abcd":
        store.accept(job(name, client="ann"))
    first, second = taken(store), taken(store)
    store.progress(Live(job="a", step=3, steps=9, images=2, preview=b"png"), fence=first.fence)
    store.add_event("a", "preview", {"step": 3}, 1.0, fence=first.fence, picture=b"picture")
    store.put_back("b", fence=second.fence, deaths=1)
    store.beat(host("here", "x"), {}, 30.0)
    now = store.standings(0.0)
    assert (now.waiting, [each.name for each in now.hosts], now.done) == (["b", "c", "d"], ["here"], [])
    [(name, whose, live)] = now.running
    assert (name, whose, live.step, live.steps, live.images, live.client) == ("a", "here", 3, 9, 2, "ann")
    assert live.begun_at == 1000.0
    assert store.preview_of("a") == b"picture"
    assert store.events_after("a", 0)[-1].picture == b"picture"
    clock.now += 5.0
    store.end("a", JobState.FINISHED, 1.0, fence=first.fence)
    assert [each.id for each in store.standings(0.0).done] == ["a"]
    assert store.standings(1005.0).done == []
    assert store.events_after("a", 0)[-1].picture is None


def test_questions(store: PostgresStore) -> None:
    store.beat(host("here"), {}, 30.0)
    assert store.ask_hosts({"what": "memory"}, ["nobody"]) == {}
    number = store.ask_hosts({"what": "memory"}, ["here", "nobody"])["here"]
    assert store.answers([number]) == {}
    assert store.beat(host("here"), {}, 30.0).questions == {number: {"what": "memory"}}
    store.answer(number, {"value": 7})
    assert store.beat(host("here"), {}, 30.0).questions == {}
    assert store.answers([number, number + 1]) == {number: {"value": 7}, number + 1: {}}
    store.leave("here")
    assert store.answers([number]) == {number: {}}


def test_words_are_heard(store: PostgresStore, postgres_stores: PostgresStores) -> None:
    heard: list[tuple[str, str]] = []
    news = threading.Event()

    def hear(*word: str) -> None:
        heard.append((word[0], word[1]))
        news.set()

    stop = postgres_stores.open().listen(hear)
    try:
        assert news.wait(60)
        store.accept(job())
        while ("queued", "a") not in heard:
            news.clear()
            assert ("queued", "a") in heard or news.wait(60)
        assert heard[0] == ("", ""), "something may have been missed before"
    finally:
        stop()


def test_the_uptime_goes_on_and_no_faster_than_the_clock(postgres_stores: PostgresStores, cluster: Cluster) -> None:
    """A clock that was set, forward or back, makes nothing old."""
    store = postgres_stores.open()
    before = store.uptime()
    for looked in ("clock_timestamp() - interval '9 days'", "clock_timestamp() + interval '9 days'"):
        cluster.execute(f"UPDATE clock SET looked = {looked}", postgres_stores.address)
        store.tick()
    assert before <= store.uptime() < before + 30.0 + 120.0


class TestOpening:
    def test_two_at_once_make_the_tables_once(self, postgres_stores: PostgresStores) -> None:
        opened: list[Any] = []
        threads = [threading.Thread(target=lambda: opened.append(postgres_stores.open())) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
        assert [each.counts() for each in opened] == [{}, {}, {}]

    def test_tables_of_another_version(self, postgres_stores: PostgresStores, cluster: Cluster) -> None:
        from overpaint.service.store import postgres_schema

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgres_schema, "MIGRATIONS", postgres_schema.MIGRATIONS[:1])
            postgres_stores.open().accept(job())
        newest = len(postgres_schema.MIGRATIONS)
        with pytest.raises(SaveError, match=rf"version 1, and this overpaint wants version {newest}.*serve --migrate"):
            postgres_stores.open()
        migrated = postgres_stores.open(migrate=True)
        assert migrated.get("a") is not None and taken(migrated).record.id == "a"
        postgres_stores.open()
        cluster.execute("UPDATE overpaint SET version = 99", postgres_stores.address)
        with pytest.raises(SaveError, match="a newer overpaint"):
            postgres_stores.open()

    def test_a_database_of_others(self, postgres_stores: PostgresStores, cluster: Cluster) -> None:
        cluster.execute("CREATE TABLE jobs (x INTEGER)", postgres_stores.address)
        with pytest.raises(SaveError, match="another program's"):
            postgres_stores.open()

    def test_a_user_without_rights(self, postgres_stores: PostgresStores, cluster: Cluster, tmp_path: Path) -> None:
        from overpaint.service.store.postgres_store import PostgresStore

        cluster.execute("DROP ROLE IF EXISTS nobody_here")
        cluster.execute("CREATE ROLE nobody_here LOGIN")
        address = postgres_stores.address.replace("user=overpaint", "user=nobody_here")
        with pytest.raises(SaveError, match="may not do that"):
            PostgresStore(address, tmp_path / "x")

    def test_no_server(self, tmp_path: Path, cluster: Cluster) -> None:
        from overpaint.service.store.postgres_store import PostgresStore

        with pytest.raises(SaveError, match="does not answer"):
            PostgresStore(cluster.address("there-is-none"), tmp_path / "x")

    def test_the_folder_of_the_pictures_is_one(self, postgres_stores: PostgresStores, tmp_path: Path) -> None:
        from overpaint.service.store.postgres_store import PostgresStore

        postgres_stores.open()
        with pytest.raises(RequestError, match="it is not the folder of"):
            PostgresStore(postgres_stores.address, tmp_path / "another")
        other = PostgresStores(postgres_stores.cluster, postgres_stores.data, pytest.MonkeyPatch())
        with pytest.raises(RequestError, match="pictures of another store lie there"):
            other.open()
        with pytest.raises(RequestError, match="give --store"):
            JobStore(postgres_stores.data)

    def test_the_folder_of_a_server_of_its_own(self, postgres_stores: PostgresStores) -> None:
        JobStore(postgres_stores.data).close()
        with pytest.raises(RequestError, match="without --store"):
            postgres_stores.open()


class TestAddresses:
    def test_what_leaves_the_machine_is_encrypted(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        for each in ("PGHOST", "PGSSLMODE"):
            monkeypatch.delenv(each, raising=False)
        far: dict[str, str | None] = {
            "postgresql://db.example/x": "require",
            "postgresql://db.example/x?sslmode=verify-full": "verify-full",
            "postgresql://10.0.0.3/x": "require",
            "postgresql://127.0.0.1,db.example/x": "require",
            "postgresql://127.0.0.1/x": None,
            "postgresql://localhost/x": None,
            "postgresql:///x?host=/run/postgresql": None,
        }
        assert {each: connection_values(each).get("sslmode") for each in far} == far

    def test_a_password_is_shown_nowhere(self, cluster: Cluster) -> None:
        openly: Collection[str] = (
            "postgresql://ann:geheim@db/x",
            "postgresql://db/x?user=ann&password=geheim",
            "postgres://ann:geheim@db/x?nonsense=1",
        )
        for each in openly:
            with pytest.raises(RequestError) as told:
                connection_values(each, is_open=True)
            assert "geheim" not in str(told.value) and "geheim" not in shown(each)
        assert connection_values("postgresql://ann:geheim@db/x")["password"] == "geheim"

    @pytest.mark.parametrize("address", ["", "mysql://x", "host=db", "/var/jobs.db"])
    def test_what_is_no_address(self, address: str) -> None:
        with pytest.raises(RequestError, match="give postgresql://USER@HOST/DATABASE"):
            connection_values(address)
