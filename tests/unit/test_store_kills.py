"""A killed batch loses nothing and repeats nothing, wherever it writes: one kill always, thirty when asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit import s3_store
from tests.unit.store_kills import kill_in

needs_s3 = pytest.mark.skipif(not s3_store.IS_HERE, reason="moto and s3fs are not installed")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="processes end otherwise there"),
    pytest.mark.timeout(1800),
]


@needs_s3
def test_in_a_store(tmp_path: Path) -> None:
    tally = kill_in("s3", tmp_path, rows=3, kills=1, seconds=0.02)
    assert tally.is_kept, tally


@pytest.mark.long
@pytest.mark.parametrize("what", [pytest.param("s3", marks=needs_s3), "folder"])
def test_thirty_times(tmp_path: Path, what: str) -> None:
    tally = kill_in(what, tmp_path, rows=120, kills=30, seconds=0.1)
    assert tally.is_kept and tally.kills.total() == 30, tally
