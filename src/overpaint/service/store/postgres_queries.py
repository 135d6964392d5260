"""The questions that only a store on PostgreSQL asks."""

from __future__ import annotations

from collections.abc import Mapping

from overpaint.service.job_models import HALF_LIFE, LEAST_LOAD, PATIENCE, USUAL_SECONDS

LATELY = 100  # ended jobs that tell who was served
ELSEWHERE_SECONDS = 1.0  # that a job waits for an idle worker elsewhere which has its model
HOST_SECONDS = 45.0  # after which a host that says nothing is thought to be gone
CONSTANTS: Mapping[str, float] = {
    "half_life": HALF_LIFE,
    "load": LEAST_LOAD,
    "patience": PATIENCE,
    "usual": USUAL_SECONDS,
    "elsewhere_seconds": ELSEWHERE_SECONDS,
    "host_seconds": HOST_SECONDS,
}

# As `policy.rank` has it: who waited too long, then priority, then the client that was served least. That a worker has
# a job's checkpoint counts as much as the seconds that reading another one takes.
NEXT = f"""
WITH now AS MATERIALIZED (SELECT overpaint_uptime() AS at),
lately AS MATERIALIZED (
    SELECT client, started_at, ended_at FROM jobs WHERE ended_at IS NOT NULL AND started_at IS NOT NULL
    ORDER BY ended_at DESC LIMIT {LATELY}
),
usual AS MATERIALIZED (SELECT coalesce(avg(ended_at - started_at), CAST(:usual AS float8)) AS seconds FROM lately),
had AS MATERIALIZED (
    SELECT client, sum(seconds) AS seconds FROM (
        SELECT client, power(CAST(0.5 AS float8), greatest(now.at - ended_at, 0) / CAST(:half_life AS float8))
            * greatest(ended_at - started_at, 0) AS seconds
        FROM lately, now
        UNION ALL
        SELECT client, greatest(now.at - started_at, usual.seconds)
        FROM jobs, now, usual WHERE state = 'running' AND lease > now.at
    ) AS each GROUP BY client
),
elsewhere AS MATERIALIZED (
    SELECT DISTINCT unnest(idle_models) AS model FROM hosts, now
    WHERE name <> :host AND seen > now.at - CAST(:host_seconds AS float8)
),
candidate AS MATERIALIZED (
    SELECT number FROM jobs LEFT JOIN had USING (client), now
    WHERE (state = 'queued' OR (state = 'running' AND lease <= now.at))
        AND (CAST(:known AS text[]) IS NULL OR model IS NULL OR model = ANY(CAST(:known AS text[]))
            OR model ~ '^[0-9a-f]{{8,64}}$')  -- a hash, which only reading the files would tell
        AND (CAST(:worn AS text) IS NULL OR (worn = :worn AND deaths = 0))
        AND (model IS NULL OR model = ANY(CAST(:models AS text[])) OR (
            NOT CAST(:only_loaded AS boolean) AND (
                now.at - accepted_at > CAST(:elsewhere_seconds AS float8)
                OR model NOT IN (SELECT model FROM elsewhere)
            )
        ))
    ORDER BY
        now.at - accepted_at > CAST(:patience AS float8) DESC,
        CASE WHEN now.at - accepted_at > CAST(:patience AS float8) THEN 0 ELSE priority END DESC,
        CASE WHEN now.at - accepted_at > CAST(:patience AS float8) THEN 0 ELSE coalesce(had.seconds, 0)
            + CASE WHEN model IS NULL OR model = ANY(CAST(:models AS text[])) THEN 0 ELSE CAST(:load AS float8) END
        END,
        attempts > 0 DESC,
        number
    FOR UPDATE OF jobs SKIP LOCKED
    LIMIT 1
)
UPDATE jobs SET state = 'running', started = :at, started_at = now.at, attempts = attempts + 1, worker = :host,
    lease = now.at + CAST(:lease_seconds AS float8), fence = fence + 1, live = NULL
FROM candidate, now WHERE jobs.number = candidate.number
RETURNING id, fence, deaths, refusals, stop
"""

STOP = """
UPDATE jobs SET stop = CASE WHEN stop = 'cancel' THEN stop ELSE CAST(:how AS text) END
WHERE id = :id AND state = 'running'
"""
BEAT = """
INSERT INTO hosts (name, seen, workers, idle_models) VALUES (:name, overpaint_uptime(), :workers, CAST(:idle AS text[]))
ON CONFLICT (name) DO UPDATE
SET seen = excluded.seen, workers = excluded.workers, idle_models = excluded.idle_models
"""
# What was asked is handed out once, but for a cancel: whoever dies over that leaves it to the next.
RENEW = """
WITH now AS MATERIALIZED (SELECT overpaint_uptime() AS at),
mine AS MATERIALIZED (
    SELECT number, stop FROM jobs
    JOIN unnest(CAST(:ids AS text[]), CAST(:fences AS bigint[])) AS held (id, fence)
        ON jobs.id = held.id AND jobs.fence = held.fence
    WHERE state = 'running' ORDER BY number FOR UPDATE OF jobs
)
UPDATE jobs SET lease = now.at + CAST(:lease_seconds AS float8), stop = CASE WHEN jobs.stop = 'cancel' THEN 'cancel' END
FROM mine, now WHERE jobs.number = mine.number RETURNING jobs.id, mine.stop
"""
QUESTIONS = "SELECT number, question FROM questions WHERE host = ? AND answer IS NULL ORDER BY number"
ASK = """
INSERT INTO questions (host, asked, question)
SELECT name, overpaint_uptime(), :question FROM hosts WHERE name = :host RETURNING number
"""
WAITING = "SELECT id FROM jobs WHERE state = 'queued' ORDER BY attempts = 0, number"
RUNNING = """
SELECT id, client, worker, started, started_at, live FROM jobs WHERE state = 'running' ORDER BY started_at, number
"""
HOSTS = f"""
SELECT name, workers FROM hosts WHERE seen > overpaint_uptime() - {HOST_SECONDS} ORDER BY name
"""
ENDED = f"WHERE ended_at > ? ORDER BY ended_at DESC, number DESC LIMIT {LATELY}"
LAPSED = """
SELECT id FROM jobs WHERE state = 'running' AND lease <= (SELECT overpaint_uptime())
ORDER BY number FOR UPDATE SKIP LOCKED
"""
PREVIEW = """
INSERT INTO previews (job, number, png) SELECT jobs.number, :event, :png FROM jobs WHERE id = :id
ON CONFLICT (job) DO UPDATE SET number = excluded.number, png = excluded.png
"""
GONE = (
    f"DELETE FROM hosts WHERE seen < overpaint_uptime() - {10 * HOST_SECONDS}",
    "DELETE FROM questions WHERE asked < overpaint_uptime() - 600",
    "DELETE FROM previews USING jobs WHERE jobs.number = previews.job AND ended IS NOT NULL",
)
