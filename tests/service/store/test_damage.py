"""Damage on the disk: what is damaged is found, said in a sentence and set aside, and the rest is served."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overpaint.cli import main
from overpaint.errors import SaveError
from overpaint.service.jobs import DoneBatch, JobResult, JobState
from overpaint.service.ports import Damaged
from overpaint.service.store.sqlite_store import JobStore
from tests.service.queue.desk_tools import FAKE_WORKER, config_for, ended_well, opened, run, wanted
from tests.service.store.store_tools import job, painted
from tests.service.test_troubles import running

PAGE = 4096
JOBS = 60  # finished ones
_LONG = {"seed": 1, "prompt": "a lake in the mountains " * 60}  # so that a page holds few of them


def fill(folder: Path) -> None:
    """Finished jobs with pictures, one half done, and some that wait; all in the database, nothing in its log."""
    store = JobStore(folder)
    for number in range(JOBS):
        name = f"done{number}"
        store.accept(job(name, client=name, request={**_LONG, "seed": number}))
        store.claim(name, "w", 60.0, at=1.0)
        pictures = (painted(store, name, 0, name.encode() * 50),)
        store.end(name, JobState.FINISHED, 2.0, result=JobResult(pictures=pictures))
    source = store.put_picture(b"source")
    for number in range(5):
        store.accept(wanted(f"wait{number}", "batch=0", client=f"w{number}", request={"images": [source], **_TEXT}))
    store.accept(wanted("half", "batch=1", client="half"))
    store.claim("half", "w", 60.0, at=3.0)
    store.keep_batch("half", DoneBatch(number=0, pictures=(painted(store, "half", 0, b"batch"),)))
    store.set_option("site", {"a": 1})
    store.close()


_TEXT = {"negative_prompt": "x" * 1500}
NAMES = {*(f"done{n}" for n in range(JOBS)), *(f"wait{n}" for n in range(5)), "half"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "data"
    folder.mkdir()
    fill(folder)
    return folder


@pytest.fixture
def data(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "data"))


def pages_of(data: Path, table: str) -> list[int]:
    """The pages of a table or index, from 1; leaves and overflow too, if this SQLite can say so."""
    with closing(sqlite3.connect(data / "jobs.db")) as connection:
        try:
            found = connection.execute("SELECT pageno FROM dbstat WHERE name = ?", (table,)).fetchall()
        except sqlite3.OperationalError:
            root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
            found = [*root, *((each,) for each in range(15, 15 + 30, 3))]
    return [each[0] for each in found]


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def noise(seed: int, size: int = PAGE) -> bytes:
    return random.Random(seed).randbytes(size)


def served(store: JobStore) -> dict[str, JobState]:
    """What is told of all jobs; every picture that is said to be there is the one that was kept."""
    store.recover()
    records = {each.id: each for each in store.records(limit=10_000)}
    for record in records.values():
        for picture in record.result.pictures:
            assert store.result_bytes(record.id, picture.file) == record.id.encode() * 50
        assert store.get(record.id) == record
        store.events_after(record.id, 0)
    assert store.trouble() is None and store.integrity_check() == []
    assert {each.id for each in store.waiting()} == {n for n, each in records.items() if each.state is JobState.QUEUED}
    return {name: each.state for name, each in records.items()}


def check_goes_on(data: Path, store: JobStore) -> None:
    """What waits is done, and new jobs are taken."""

    async def story() -> None:
        async with opened(store, config_for(data), FAKE_WORKER) as desk:
            waiting = [each.id for each in store.waiting()]
            for name in (*waiting, (await desk.submit(wanted("new", "batch=0", client="new"))).id):
                ended_well(await desk.wait(name, 30))

    run(story())


def set_aside(data: Path) -> list[str]:
    return sorted(each.name.partition("-")[2] for each in (data / "damaged").iterdir())


# -- pages of the database -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A place of the database, and what must be served whatever became of it."""

    table: str
    all_jobs: bool  # each is what it was
    all_names: bool = True  # of each at least that it was there is told


PLACES = (
    Place("jobs", all_jobs=False),
    Place("sqlite_autoindex_jobs_1", all_jobs=True),
    Place("jobs_by_folder", all_jobs=True),
    Place("jobs_by_key", all_jobs=True),
    Place("jobs_by_state", all_jobs=True),
    Place("jobs_by_end", all_jobs=True),
    Place("events", all_jobs=True),
    Place("batches", all_jobs=True),
    Place("files", all_jobs=True),
    Place("sources", all_jobs=True),
    Place("options", all_jobs=True),
    Place("sqlite_sequence", all_jobs=True),
    Place("sqlite_schema", all_jobs=True),
)
KINDS: dict[str, Callable[[int], bytes]] = {
    "zeroes": lambda seed: bytes(PAGE),
    "noise": noise,
    "beginning": lambda seed: noise(seed, 16),
    "ones": lambda seed: b"\xff" * PAGE,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES, ids=lambda each: each.table)
def test_a_damaged_page(data: Path, place: Place, kind: str) -> None:
    pages = pages_of(data, place.table)
    page = random.Random(f"{place.table}{kind}").choice(pages[1:] or pages)  # not the root, where there is another
    overwrite(data / "jobs.db", (page - 1) * PAGE, KINDS[kind](page))
    store = JobStore(data)
    states = served(store)
    intact = {name for name, state in states.items() if state is not JobState.FAILED}
    if place.all_names:
        assert set(states) == NAMES
    if place.all_jobs:
        assert intact == NAMES
    assert len(intact) >= len(NAMES) - 6, "one page holds few jobs"
    for name in set(states) - intact:
        record = store.get(name)
        assert record is not None and record.error is not None and record.error.code == "damaged"
    assert set_aside(data)[0] == "jobs.db"
    assert len(store.damage) >= 1 and all("\n" not in each for each in store.damage)
    check_goes_on(data, store)
    store.close()
    again = JobStore(data)
    assert again.damage == [] and again.integrity_check() == []
    again.close()


@pytest.mark.parametrize("table", ["jobs", "events", "files"])
def test_a_damaged_root_of_a_table(data: Path, table: str) -> None:
    overwrite(data / "jobs.db", (pages_of(data, table)[0] - 1) * PAGE, noise(3))
    store = JobStore(data)
    states = served(store)
    assert set(states) == NAMES
    assert table == "jobs" or JobState.FAILED not in states.values()
    check_goes_on(data, store)
    store.close()
    if table == "jobs":  # nobody knows what their pictures were; they are not deleted for that
        assert (data / "results" / "done3" / "0.png").is_file()


@pytest.mark.parametrize("seed", range(12))
def test_several_damaged_pages_at_random(data: Path, seed: int) -> None:
    rng = random.Random(seed)
    pages = (data / "jobs.db").stat().st_size // PAGE
    for page in rng.sample(range(pages), 3):
        overwrite(data / "jobs.db", page * PAGE + rng.randrange(0, 64), noise(seed, rng.choice((1, 40, 2000))))
    store = JobStore(data)
    assert len(served(store)) > JOBS // 2
    check_goes_on(data, store)
    store.close()


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_database_that_was_cut_short(data: Path, keep: float) -> None:
    size = (data / "jobs.db").stat().st_size
    os.truncate(data / "jobs.db", int(size * keep) // PAGE * PAGE + 100)
    store = JobStore(data)
    assert len(served(store)) >= 5
    lost = {each.name for each in (data / "results").iterdir()} - {each.id for each in store.records(limit=1000)}
    assert not lost
    check_goes_on(data, store)
    store.close()


def test_a_database_of_which_nothing_is_left_is_not_begun_anew(data: Path) -> None:
    """Somebody has to decide about that; until then nothing is touched."""
    size = (data / "jobs.db").stat().st_size
    (data / "jobs.db").write_bytes(noise(1, size))
    before = {each: each.read_bytes() for each in data.rglob("*") if each.is_file() and each.name != "server.lock"}
    with pytest.raises(SaveError, match="damaged") as told:
        JobStore(data)
    assert "\n" not in str(told.value)
    after = {each: each.read_bytes() for each in data.rglob("*") if each.is_file() and each.name != "server.lock"}
    assert after == before


def test_results_of_a_database_that_was_deleted_are_not_deleted_with_it(data: Path) -> None:
    (data / "jobs.db").unlink()
    store = JobStore(data)
    assert served(store) == {}
    assert (next((data / "damaged").glob("*-results-done5")) / "0.png").read_bytes() == b"done5" * 50
    check_goes_on(data, store)
    store.close()


# -- the log ---------------------------------------------------------------------------------------------------------

_KILLED = """
import os, sys
from pathlib import Path
from overpaint.service.store.sqlite_store import JobStore
from tests.service.store.store_tools import finished, job
store = JobStore(Path(sys.argv[1]))
for number in range(8):
    store.accept(job(f"late{number}", client=f"late{number}", request={"prompt": "batch=0"}))
finished(store, "late-done", 5.0, b"late-done" * 50)
os._exit(9)
"""


@pytest.fixture
def killed(data: Path) -> Path:
    """A server took some more jobs and was killed: they are in the log alone."""
    assert subprocess.run([sys.executable, "-c", _KILLED, str(data)]).returncode == 9
    assert (data / "jobs.db-wal").stat().st_size > 20 * PAGE
    return data


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


LOGS: dict[str, Callable[[Path], object]] = {
    "all of it": lambda path: path.write_bytes(noise(5, path.stat().st_size)),
    "its beginning": lambda path: overwrite(path, 0, noise(5, 32)),
    "its salts": lambda path: overwrite(path, 16, b"\0" * 8),
    "its middle": lambda path: overwrite(path, path.stat().st_size // 2, noise(5, 100)),
    "one bit": lambda path: overwrite(path, 40_000, bytes([path.read_bytes()[40_000] ^ 1])),
    "cut": _cut,
}


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("kind", LOGS)
def test_a_damaged_log(killed: Path, kind: str, has_index: bool) -> None:
    log = killed / "jobs.db-wal"
    LOGS[kind](log)
    damaged = log.read_bytes()
    if not has_index:
        (killed / "jobs.db-shm").unlink()
    store = JobStore(killed)
    states = served(store)
    assert set(states) >= NAMES and JobState.FAILED not in states.values()
    if has_index or kind != "cut":  # else there is nothing that could tell
        assert "jobs.db-wal" in set_aside(killed)
        assert next((killed / "damaged").glob("*jobs.db-wal")).read_bytes() == damaged
        assert any("log" in each for each in store.damage)
    if "late-done" not in states and store.damage:
        assert "results-late-done" in set_aside(killed)
    check_goes_on(killed, store)
    store.close()


@pytest.mark.parametrize("how", ["whole", "no index", "torn end"])
def test_a_log_that_a_crash_left_is_no_damage(killed: Path, how: str) -> None:
    if how != "whole":
        (killed / "jobs.db-shm").unlink()
    if how == "torn end":
        with (killed / "jobs.db-wal").open("ab") as file:
            file.write((killed / "jobs.db-wal").read_bytes()[-PAGE - 24 :][:3000])
    store = JobStore(killed)
    assert store.damage == []
    assert set(served(store)) >= {*NAMES, "late7", "late-done"}
    assert not (killed / "damaged").exists()
    store.close()


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row that is spoilt, which SQLite does not see."""

    statement: str
    job: str | None = None  # that has failed by it
    values: tuple[Any, ...] = field(default=())


_JSON = ("{", "", "[]", "null", "{}", '"x"', "\ud7ff" * 3, '{"id": "x", "surprise": 1}', "[" * 100_000)
ROWS = {
    **{f"wish {text[:9]!r}": Row("UPDATE jobs SET job = ? WHERE id = 'wait2'", "wait2", (text,)) for text in _JSON},
    "wish of a done one": Row("UPDATE jobs SET job = '{' WHERE id = 'done7'", "done7"),
    "wish of a running one": Row("UPDATE jobs SET job = '{' WHERE id = 'half'", "half"),
    "another wish": Row("UPDATE jobs SET job = replace(job, 'batch=0', 'batch=5') WHERE id = 'wait1'", "wait1"),
    "no text": Row("UPDATE jobs SET job = CAST(x'7b22ff' AS TEXT) WHERE id = 'wait2'", "wait2"),
    "result": Row("UPDATE jobs SET result = '[1' WHERE id = 'done7'", "done7"),
    "error": Row("UPDATE jobs SET error = '{}' WHERE id = 'done7'", "done7"),
    "event": Row("UPDATE events SET data = '{' WHERE job = 3"),
    "batch": Row("UPDATE batches SET batch = '{'"),
    "option": Row("UPDATE options SET value = '{'"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_that_is_spoilt(data: Path, kind: str) -> None:
    row = ROWS[kind]
    with closing(sqlite3.connect(data / "jobs.db")) as connection, connection:
        assert connection.execute(row.statement, row.values).rowcount >= 1
    store = JobStore(data)
    states = served(store)
    assert set(states) == NAMES
    assert {name for name, state in states.items() if state is JobState.FAILED} == ({row.job} - {None})
    if row.job is not None:
        record = store.get(row.job)
        assert record is not None and record.error is not None and record.error.code == "damaged"
    if row.job is not None and not row.job.startswith("done"):
        assert set_aside(data) == [f"{row.job}.json"]
    assert store.option("site") == (None if kind == "option" else {"a": 1})
    check_goes_on(data, store)
    store.close()


# -- while it is open ------------------------------------------------------------------------------------------------


def test_damage_that_is_met_while_a_server_runs_is_told(data: Path) -> None:
    store = JobStore(data)
    assert store.trouble() is None
    page = pages_of(data, "jobs")[2:]
    for each in page:
        overwrite(data / "jobs.db", (each - 1) * PAGE, noise(each))
    store._database._reader.execute("PRAGMA cache_size = 0")
    with pytest.raises(SaveError, match="damaged"):
        store.records(limit=1000)
    told = store.trouble()
    assert told is not None and "damaged" in told
    store.close()


def test_a_result_that_is_not_what_was_kept_is_set_aside(data: Path) -> None:
    store = JobStore(data)
    path = store.result_file("done5", "0.png")
    for content in (path.read_bytes()[:-1], path.read_bytes()[:-1] + b"?", b""):
        path.write_bytes(content)
        with pytest.raises(Damaged, match="done5") as told:
            store.result_bytes("done5", "0.png")
        assert "\n" not in str(told.value)
        assert not path.exists()
        with pytest.raises(Damaged, match="not there"):
            store.result_bytes("done5", "0.png")
    assert len(set_aside(data)) == 3
    assert store.result_bytes("done6", "0.png") == b"done6" * 50
    store.close()


def test_what_was_set_aside_stays(data: Path) -> None:
    overwrite(data / "jobs.db", (pages_of(data, "jobs")[3] - 1) * PAGE, noise(1))
    whole = (data / "jobs.db").read_bytes()
    for _ in range(2):
        store = JobStore(data)
        store.recover()
        store.expire(keep_seconds=-1.0, keep_bytes=0)
        store.close()
    assert next((data / "damaged").glob("*-jobs.db")).read_bytes() == whole
    assert json.dumps(set_aside(data)) == '["jobs.db"]'


# -- overpaint serve --check -----------------------------------------------------------------------------------------


def _spoil_page(data: Path) -> None:
    overwrite(data / "jobs.db", (pages_of(data, "jobs")[3] - 1) * PAGE, noise(1))


def _spoil_row(data: Path) -> None:
    with closing(sqlite3.connect(data / "jobs.db")) as connection, connection:
        connection.execute("UPDATE jobs SET job = '{' WHERE id = 'wait2'")


def _source_of(data: Path) -> Path:
    return next((data / "inputs").glob("*/*"))


SPOILT: dict[str, tuple[Callable[[Path], object], str, bool]] = {  # how, what is said, whether it can be mended
    "page": (_spoil_page, "jobs.db: it is damaged", True),
    "row": (_spoil_row, "job wait2", True),
    "picture cut": (
        lambda data: os.truncate(data / "results/done5/0.png", 9),
        "results/done5/0.png: it is not wh",
        True,
    ),
    "picture gone": (
        lambda data: (data / "results/done5/0.png").unlink(),
        "results/done5/0.png: it is not there",
        False,
    ),
    "batch": (lambda data: (data / "results/half/0.png").write_bytes(b"?"), "results/half/0.png", True),
    "stranger": (lambda data: (data / "results/stranger").mkdir(), "results/stranger: no job", True),
    "source": (lambda data: _source_of(data).write_bytes(b"?"), "a job that waits needs it, and it is damaged", False),
    "no sources": (
        lambda data: shutil.rmtree(data / "inputs"),
        "a job that waits needs it, and it is not there",
        False,
    ),
    "no source": (lambda data: _source_of(data).unlink(), "a job that waits needs it, and it is not there", False),
    "everything": (lambda data: (data / "jobs.db").write_bytes(noise(1)), "nothing can be read", False),
}


def everything_in(data: Path) -> dict[str, tuple[bytes, int]]:
    files = (each for each in data.rglob("*") if each.is_file())
    return {str(each.relative_to(data)): (each.read_bytes(), each.stat().st_mtime_ns) for each in files}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_folder_is_examined_and_not_touched(data: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said, can_be_mended = SPOILT[kind]
    spoil(data)
    before = everything_in(data)
    assert main(["serve", "--check", "--data", str(data)]) == 1
    assert everything_in(data) == before
    told = capsys.readouterr().out
    assert said in told and "Traceback" not in told and "all of it is whole" not in told
    if can_be_mended:
        assert main(["serve", "--check", "--mend", "--data", str(data)]) == 1
        capsys.readouterr()
        assert main(["serve", "--check", "--data", str(data)]) == (1 if kind == "picture cut" else 0)


def test_a_whole_folder_is_said_to_be_whole(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(data)
    assert main(["serve", "--check", "--data", str(data)]) == 0
    assert everything_in(data) == before
    told = capsys.readouterr().out
    assert f"{len(NAMES)} jobs ({JOBS} finished, 5 queued, 1 running)" in told and "all of it is whole" in told


def test_a_log_is_examined(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--data", str(killed)]) == 0
    assert f"{len(NAMES) + 9} jobs" in capsys.readouterr().out
    overwrite(killed / "jobs.db-wal", 0, noise(2, 32))
    before = everything_in(killed)
    assert main(["serve", "--check", "--data", str(killed)]) == 1
    assert everything_in(killed) == before
    assert "jobs.db-wal: its beginning is damaged" in capsys.readouterr().out


def test_where_a_server_works_or_none_has_been_nothing_is_examined(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = JobStore(data)
    assert main(["serve", "--check", "--data", str(data)]) == 2
    assert f"a server (process {os.getpid()}) works there" in capsys.readouterr().err
    store.close()
    assert main(["serve", "--check", "--data", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_a_server_serves_the_rest(data: Path) -> None:
    _spoil_page(data)
    _spoil_row(data)
    os.truncate(data / "results/done5/0.png", 9)
    with running(data, "fake") as server:
        told = server.client.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]
        assert {each["id"] for each in told} == NAMES
        account = server.client.get("/v1/jobs/wait2").json()
        assert (account["state"], account["error"]["code"]) == ("failed", "damaged")
        cut, whole = (server.client.get(f"/v1/jobs/{each}/images/0") for each in ("done5", "done40"))
        assert (cut.status_code, cut.json()["error"]["code"]) == (410, "damaged")
        assert whole.content == b"done40" * 50
        wish = {"prompt": "batch=0", "width": 64, "height": 64}
        answer = server.client.post("/v1/jobs", json=wish, headers={"Prefer": "wait=30"})
        assert server.client.get("/readyz").status_code == 200  # its worker has come up meanwhile
        assert answer.json()["state"] == "finished"
    assert set_aside(data) == ["done5-0.png", "jobs.db", "wait2.json"]
