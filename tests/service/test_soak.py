"""A short soak: what the service holds does not grow with its jobs. `benchmarks/service.py` has the long one."""

from __future__ import annotations

import sys

import pytest

from benchmarks.service import soak
from tests.service.conftest import Server


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_short_soak(running_server: Server) -> None:
    for each in soak(running_server, 36, warm_up=18, every=4):
        assert each.memory < 10, each  # over so few jobs an allocator's whims weigh more than a leak
        assert each.last.files <= each.first.files + 1, each
        assert each.last.threads <= each.first.threads + 1, each
