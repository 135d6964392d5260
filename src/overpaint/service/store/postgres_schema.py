"""The tables of a store on PostgreSQL, and how those of another version are told."""

from __future__ import annotations

import secrets
from typing import Any

from overpaint.errors import SaveError

# From each version of the tables to the next; what was released is never changed.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- in the order of acceptance
            id TEXT NOT NULL UNIQUE,
            client TEXT NOT NULL,
            key TEXT,
            fingerprint TEXT NOT NULL,
            job TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
            started DOUBLE PRECISION,
            ended DOUBLE PRECISION CHECK ((ended IS NULL) = (state IN ('queued', 'running'))),
            attempts INTEGER NOT NULL DEFAULT 0,
            step INTEGER NOT NULL DEFAULT 0,
            steps INTEGER NOT NULL DEFAULT 0,
            images_total INTEGER NOT NULL DEFAULT 0,
            result TEXT,
            error TEXT,
            gone INTEGER NOT NULL DEFAULT 0,
            pinned INTEGER NOT NULL DEFAULT 0,
            last_event INTEGER NOT NULL DEFAULT 0,
            events INTEGER NOT NULL DEFAULT 0,  -- how many are kept
            accepted_at DOUBLE PRECISION NOT NULL,  -- moments in the uptime
            started_at DOUBLE PRECISION,
            ended_at DOUBLE PRECISION,
            worker TEXT,  -- who runs it, until when in the uptime that counts, and the number of that claim
            lease DOUBLE PRECISION,
            fence BIGINT NOT NULL DEFAULT 0,
            priority INTEGER NOT NULL DEFAULT 0,
            model TEXT,  -- the checkpoint it wants, in its plainest form; none if it needs none
            worn TEXT,  -- equal for jobs that may be painted side by side; none if it may with no other
            deaths INTEGER NOT NULL DEFAULT 0,  -- of workers that had begun with it
            stop TEXT,  -- what whoever runs it shall do
            live TEXT  -- how far it has come
        ) WITH (fillfactor = 80)""",
        "CREATE UNIQUE INDEX jobs_by_folder ON jobs (lower(id))",
        "CREATE UNIQUE INDEX jobs_by_key ON jobs (client, key) WHERE key IS NOT NULL",
        "CREATE INDEX jobs_waiting ON jobs (model, priority DESC, number) WHERE state = 'queued'",
        "CREATE INDEX jobs_running ON jobs (lease) WHERE state = 'running'",
        "CREATE INDEX jobs_ended ON jobs (ended_at DESC) WHERE ended_at IS NOT NULL",
        "CREATE INDEX jobs_kept ON jobs (ended_at) WHERE gone = 0 AND ended_at IS NOT NULL",
        """CREATE TABLE events (
            job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
            number INTEGER NOT NULL,
            name TEXT NOT NULL,
            data TEXT NOT NULL,
            at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (job, number)
        )""",
        """CREATE TABLE batches (
            job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
            number INTEGER NOT NULL,
            batch TEXT NOT NULL,
            PRIMARY KEY (job, number)
        )""",
        """CREATE TABLE files (
            job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
            name TEXT NOT NULL,
            bytes BIGINT NOT NULL,
            sha256 TEXT NOT NULL,
            PRIMARY KEY (job, name)
        )""",
        """CREATE TABLE sources (
            job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
            reference TEXT NOT NULL,
            PRIMARY KEY (job, reference)
        )""",
        "CREATE TABLE options (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE UNLOGGED TABLE previews (  -- the latest of each running job, for those who follow it
            job BIGINT PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
            number INTEGER NOT NULL,
            png BYTEA NOT NULL
        )""",
        """CREATE TABLE hosts (  -- who has jobs done, and what its workers are doing
            name TEXT PRIMARY KEY,
            seen DOUBLE PRECISION NOT NULL,
            workers TEXT NOT NULL,
            idle_models TEXT[] NOT NULL
        )""",
        """CREATE TABLE questions (  -- to hosts, between jobs
            number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            host TEXT NOT NULL REFERENCES hosts ON DELETE CASCADE,
            asked DOUBLE PRECISION NOT NULL,
            question TEXT NOT NULL,
            answer TEXT
        )""",
        # Seconds for which anybody has looked, all together: neither an outage nor a clock that is set makes anything
        # old. 30 as in uptime.py.
        """CREATE TABLE clock (
            only_one BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_one),
            seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
            looked TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
        )""",
        "INSERT INTO clock DEFAULT VALUES",
        """CREATE FUNCTION overpaint_uptime() RETURNS DOUBLE PRECISION LANGUAGE sql VOLATILE AS $$
            SELECT seconds + least(greatest(extract(epoch FROM clock_timestamp() - looked)::float8, 0), 30) FROM clock
        $$""",
        """CREATE TABLE overpaint (
            version INTEGER NOT NULL, id TEXT NOT NULL, has_folder BOOLEAN NOT NULL DEFAULT false
        )""",
    ),
    (
        "ALTER TABLE files ADD COLUMN place TEXT NOT NULL DEFAULT ''",  # of the object, where results are objects
        "ALTER TABLE jobs ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0",  # attempts of which nothing could be kept
        """CREATE TABLE uploads (  -- the sources, where they are objects
            reference TEXT PRIMARY KEY,
            place TEXT NOT NULL UNIQUE,
            bytes BIGINT NOT NULL,
            given_at DOUBLE PRECISION NOT NULL,  -- moments in the uptime
            idle_since DOUBLE PRECISION  -- that no job has needed it
        )""",
    ),
)
TICK = (
    "UPDATE clock SET looked = clock_timestamp(), "
    "seconds = seconds + least(greatest(extract(epoch FROM clock_timestamp() - looked)::float8, 0), 30) "
    "WHERE NOT clock_timestamp() - looked BETWEEN interval '0 s' AND interval '1 s'"
)
_OPENING = 7_303_001  # advisory lock of who looks whether the tables are there


def prepared(raw: Any, address: str, *, migrate: bool) -> None:
    """The tables as this version wants them; new ones where there are none. Within a transaction."""
    raw.execute("SELECT pg_advisory_xact_lock(%s)", (_OPENING,))
    version = 0
    if raw.execute("SELECT to_regclass('overpaint')").fetchone()[0] is not None:
        version = raw.execute("SELECT version FROM overpaint").fetchone()[0]
    elif raw.execute("SELECT to_regclass('jobs')").fetchone()[0] is not None:
        raise SaveError(f"{address}: the tables there are another program's; give a database of its own")
    if version > len(MIGRATIONS):
        raise SaveError(f"{address}: a newer overpaint made these tables; update, or give another database")
    if version == len(MIGRATIONS):
        return
    if version and not migrate:
        said = f"its tables are of version {version}, and this overpaint wants version {len(MIGRATIONS)}"
        raise SaveError(f"{address}: {said}: stop everything that works on it, then start one `serve --migrate`")
    for statements in MIGRATIONS[version:]:
        for each in statements:
            raw.execute(each)
    if not version:
        raw.execute("INSERT INTO overpaint (version, id) VALUES (0, %s)", (secrets.token_hex(16),))
    raw.execute("UPDATE overpaint SET version = %s", (len(MIGRATIONS),))
