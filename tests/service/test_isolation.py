"""Many clients at once, some of whom cancel: the others get, byte for byte, what they would get alone."""

from __future__ import annotations

import pytest

from benchmarks.service import isolation
from tests.service.conftest import Server


@pytest.mark.slow
def test_survivors_are_what_a_serial_run_gives(running_server: Server) -> None:
    found = isolation(running_server, 8, 2, seeds=1)
    assert found.is_kept, found
    assert found.jobs == 16 and found.cancelled and found.equal
