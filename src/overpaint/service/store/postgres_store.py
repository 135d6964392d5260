"""`PostgresStore`: jobs and their events in PostgreSQL, their pictures in a folder that all machines share.

Any number of processes work on it at once. What two of them could do to one job is decided by its row: who writes has
locked it, and shows the fence of its claim.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from overpaint.errors import RequestError, SaveError
from overpaint.events import Stop
from overpaint.files.saving import OWNER, save_first_free
from overpaint.service.job_models import model_of
from overpaint.service.jobs import Claim, Job, JobEvent, JobState, Live, Record
from overpaint.service.limits import Limits
from overpaint.service.shared_ports import Heartbeat, HostNow, Standings, WantedJob
from overpaint.service.store import job_rows as rows
from overpaint.service.store import postgres_queries as queries
from overpaint.service.store.forms import plain
from overpaint.service.store.postgres_listener import Listener
from overpaint.service.store.postgres_schema import TICK
from overpaint.service.store.postgres_tables import PostgresTables
from overpaint.service.store.result_files import ResultFiles
from overpaint.service.store.shelf import Shelf
from overpaint.service.store.source_files import SourceFiles
from overpaint.service.store.store_on_tables import STAMP, StoreOnTables
from overpaint.service.store.tables import Connection
from overpaint.service.worn_models import worn_name

_DEFAULT_LIMITS = Limits()


class PostgresStore(StoreOnTables):
    """`is_open`: the address stood where others can read it. `migrate`: older tables may be brought to this version."""

    _database: PostgresTables
    _kind_of_place = "folder"  # where the pictures lie

    def __init__(
        self,
        address: str,
        data: Path,
        limits: Limits = _DEFAULT_LIMITS,
        *,
        is_open: bool = False,
        migrate: bool = False,
    ) -> None:
        self.data, self._limits = data, limits
        self._database = PostgresTables(address, is_open=is_open, migrate=migrate)
        try:
            self._stamp()
            self._shelf = Shelf(data)
            self._open_pictures()
            self._looked, self._seconds = 0.0, 0.0
            self.tick()
        except OSError as error:
            self.close()
            remedy = f"nothing can be kept there ({error.strerror}); give a folder that may be written to"
            raise RequestError("--data", str(data), remedy) from error
        except BaseException:
            self.close()
            raise

    # -- time ----------------------------------------------------------------------------------------------------

    def uptime(self) -> float:
        """As good as this machine can tell: what was read last, and the seconds since then. No lease goes by it."""
        return self._seconds + time.monotonic() - self._looked

    def _now(self, connection: Connection) -> float:
        self._seconds = float(connection.execute("SELECT overpaint_uptime()").fetchone()[0])
        self._looked = time.monotonic()
        return self._seconds

    def tick(self) -> None:
        with self._database.write() as connection:
            connection.execute(TICK)
            self._now(connection)

    # -- whose turn it is ----------------------------------------------------------------------------------------

    def claim_next(self, wanted: WantedJob) -> Claim | None:
        known = None if wanted.known is None else sorted(wanted.known)
        values = {**vars(wanted), **queries.CONSTANTS, "models": sorted(wanted.models), "known": known}
        with self._database.write() as connection:
            row = connection.execute(queries.NEXT, {**values, "at": time.time()}).fetchone()
            if row is None:
                return None
            record = rows.found(connection, row["id"])
            connection.announce("claimed", row["id"])
        told = {name: row[name] for name in ("fence", "deaths", "refusals", "stop")}
        return Claim(record=record, worker=wanted.host, **told)

    def put_back(self, job_id: str, *, fence: int, deaths: int, refusals: int = 0) -> Record:
        with self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            change = "UPDATE jobs SET deaths = ?, refusals = ?, live = NULL WHERE id = ?"
            connection.execute(change, (deaths, refusals, job_id))
            rows.requeue(connection, [job_id])
            connection.announce(JobState.QUEUED.value, job_id)
            return rows.found(connection, job_id)

    def ask_to_stop(self, job_id: str, how: Stop) -> bool:
        with self._database.write() as connection:
            found = connection.execute(queries.STOP, {"id": job_id, "how": how.value}).rowcount
            connection.announce("stop", job_id)
        return bool(found)

    def beat(self, host: HostNow, claims: Mapping[str, int], lease_seconds: float) -> Heartbeat:
        idle = {model for each in host.workers if each["is_idle"] for model in each["models"]}
        values = {"name": host.name, "workers": json.dumps(plain(list(host.workers))), "idle": sorted(idle)}
        held = {"ids": list(claims), "fences": list(claims.values()), "lease_seconds": lease_seconds}
        with self._database.write() as connection:
            connection.execute(TICK)
            connection.execute(queries.BEAT, values)
            found = {each["id"]: each["stop"] for each in connection.execute(queries.RENEW, held).fetchall()}
            asked = connection.execute(queries.QUESTIONS, (host.name,)).fetchall()
            self._now(connection)
        return Heartbeat(
            lost=set(claims) - set(found),
            stops={job_id: Stop(stop) for job_id, stop in found.items() if stop is not None},
            questions={each["number"]: json.loads(each["question"]) for each in asked},
        )

    def leave(self, host: str) -> None:
        with self._database.write() as connection:
            connection.execute("DELETE FROM hosts WHERE name = ?", (host,))

    # -- what those know who answer ------------------------------------------------------------------------------

    def standings(self, ended_after: float) -> Standings:
        with self._database.read() as connection:
            waiting = [each["id"] for each in connection.execute(queries.WAITING).fetchall()]
            running = [_running(each) for each in connection.execute(queries.RUNNING).fetchall()]
            hosts = connection.execute(queries.HOSTS).fetchall()
            ended = connection.execute(f"{rows.RECORD} {queries.ENDED}", (ended_after,)).fetchall()
        return Standings(
            waiting=waiting,
            running=running,
            hosts=[HostNow(name=each["name"], workers=json.loads(each["workers"])) for each in hosts],
            done=[rows.record_of(each) for each in reversed(ended)],
        )

    def records_of(self, job_ids: Collection[str]) -> Sequence[Record]:
        return self._records("WHERE id = ANY(?) ORDER BY number", list(job_ids))

    def preview_of(self, job_id: str) -> bytes | None:
        query = "SELECT png FROM previews JOIN jobs ON jobs.number = previews.job WHERE id = ?"
        with self._database.read() as connection:
            row = connection.execute(query, (job_id,)).fetchone()
        return None if row is None else bytes(row["png"])

    def events_after(self, job_id: str, number: int) -> Sequence[JobEvent]:
        """With the picture of the latest preview, while the job runs."""
        found = list(super().events_after(job_id, number))
        shown = [place for place, each in enumerate(found) if each.name == "preview"]
        if shown and found[-1].name not in rows.ENDS and (picture := self.preview_of(job_id)) is not None:
            found[shown[-1]] = replace(found[shown[-1]], picture=picture)
        return found

    def _show(self, connection: Connection, event: JobEvent, picture: bytes) -> None:
        connection.execute(queries.PREVIEW, {"id": event.job, "event": event.number, "png": picture})

    # -- questions -----------------------------------------------------------------------------------------------

    def ask_hosts(self, question: Mapping[str, Any], hosts: Collection[str]) -> Mapping[str, int]:
        asked, text = dict[str, int](), json.dumps(plain(question))
        with self._database.write() as connection:
            for each in sorted(hosts):
                row = connection.execute(queries.ASK, {"host": each, "question": text}).fetchone()
                if row is not None:
                    asked[each] = row["number"]
            connection.announce("question", "")
        return asked

    def answer(self, number: int, answer: Mapping[str, Any]) -> None:
        with self._database.write() as connection:
            values = (json.dumps(plain(answer)), number)
            connection.execute("UPDATE questions SET answer = ? WHERE number = ?", values)
            connection.announce("answer", "")

    def answers(self, numbers: Collection[int]) -> Mapping[int, Mapping[str, Any]]:
        with self._database.read() as connection:
            query = "SELECT number, answer FROM questions WHERE number = ANY(?)"
            found = {each["number"]: each["answer"] for each in connection.execute(query, (list(numbers),)).fetchall()}
        gone: dict[int, Mapping[str, Any]] = {each: {} for each in numbers if each not in found}
        return gone | {number: json.loads(text) for number, text in found.items() if text is not None}

    # -- the rest ------------------------------------------------------------------------------------------------

    def recover(self) -> Sequence[Record]:
        """What ran and whose lease has run out waits again. What others do is theirs, as are their files."""
        with self._database.write() as connection:
            connection.execute(TICK)
            lapsed = [each["id"] for each in connection.execute(queries.LAPSED).fetchall()]
            rows.requeue(connection, lapsed)
            for each in lapsed:
                connection.announce(JobState.QUEUED.value, each)
            return [rows.found(connection, each) for each in lapsed]

    def expire(self, *, keep_seconds: float, keep_bytes: int) -> Sequence[str]:
        with self._database.write() as connection:
            for each in queries.GONE:
                connection.execute(each)
        return super().expire(keep_seconds=keep_seconds, keep_bytes=keep_bytes)

    def listen(self, hear: Callable[[str, str], None]) -> Callable[[], None]:
        return Listener(self._database, hear).stop

    def trouble(self) -> str | None:
        try:
            self.counts()
        except SaveError as error:
            return str(error)
        return None

    def close(self) -> None:
        self._database.close()

    def _more_of(self, job: Job) -> Mapping[str, Any]:
        return {"priority": job.priority, "model": model_of(job), "worn": worn_name(job)}

    def _more_of_live(self, live: Live) -> Mapping[str, Any]:
        return {"live": json.dumps(plain(replace(live, preview=None)))}

    # -- the place of the pictures -------------------------------------------------------------------------------

    def _open_pictures(self) -> None:
        self._results, self._sources = ResultFiles(self.data / "results"), SourceFiles(self.data / "inputs")

    def _stamp(self) -> None:
        """Whoever comes first marks the place; who comes later and does not find the mark has another one."""
        with self._database.write() as connection:
            own, is_marked = connection.execute("SELECT id, has_folder FROM overpaint FOR UPDATE").fetchone()
            there = self._mark()
            if not is_marked and there is None:
                self._set_mark(own)
                there = own
            connection.execute("UPDATE overpaint SET has_folder = true")
            if there != own:
                own_is = f"it is not the {self._kind_of_place}"
                whose = own_is if there is None else "the pictures of another store lie there, not those"
                self._refuse_place(f"{whose} of {self._database.address}; give all processes the same one")

    def _mark(self) -> str | None:
        """Whose pictures lie there."""
        if (self.data / "jobs.db").exists():
            self._refuse_place("jobs of a server without --store lie there; give another folder")
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            return (self.data / STAMP).read_bytes().decode(errors="replace").strip()
        return None

    def _set_mark(self, own: str) -> None:
        save_first_free([self.data / STAMP], own.encode(), mode=OWNER)

    def _refuse_place(self, remedy: str) -> NoReturn:
        raise RequestError("--data", str(self.data), remedy)


def _running(row: Any) -> tuple[str, str, Live]:
    told = {} if row["live"] is None else json.loads(row["live"])
    moment = {"since": row["started"] or 0.0, "begun_at": row["started_at"] or 0.0}
    return row["id"], row["worker"] or "", Live(**{**told, "job": row["id"], "client": row["client"], **moment})
