"""Web processes, workers and their PostgreSQL, killed and stalled one after another, in short; CONTRIBUTING names the
command of the long form.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.shared_harness import run
from tests.service.store import postgres_cluster


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_accepted_job_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if postgres_cluster.programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    account = run(tmp_path, clients=6, webs=2, workers=2, kills=5, stalls=1, seed=3)
    told = "\n".join(account.lines())
    assert not account.wrong, told
    assert account.jobs >= 12 and account.pictures >= 6, told
    assert sum(account.troubles.values()) == 6, told
