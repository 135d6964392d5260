"""Freed memory stays with a process that asks for it, and goes back when it is told to."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WORK = """
import resource
from overpaint.backends import freed_memory
kept = {kept} and freed_memory.keep()
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def used():
    block = libc.malloc(100 * 2**20)
    ctypes.memset(block, 1, 100 * 2**20)
    libc.free(block)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) // 256
used()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
used()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident()
freed_memory.give_back()
print(int(bool(kept)), faults, held - resident())
"""


def _measured(kept: bool) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", _WORK.format(kept=kept)], capture_output=True, text=True, check=True, timeout=120
    )
    return [int(each) for each in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked")
def test_a_block_is_used_again_without_asking_the_system() -> None:
    kept, faults, given_back = _measured(kept=True)
    if not kept:
        pytest.skip("this C library can't be asked")
    plain, faults_before, _ = _measured(kept=False)
    assert plain == 0
    assert faults < 100 < faults_before
    assert given_back >= 90  # of 100 MiB
