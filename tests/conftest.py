"""Shared fixtures. A part of the reference's recordings is in `tests/recordings`; where the whole set lies beside the
checkout, it is used instead."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Pictures here are small, and on a busy machine a second thread only waits. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

WHOLE_SET = Path(__file__).resolve().parents[2] / "shared" / "parity"
PARITY = WHOLE_SET if (WHOLE_SET / "cases.json").exists() else Path(__file__).resolve().parent / "recordings"
_WHOLE_SET_MISSES = "the whole set of recordings is not here"
needs_whole_set = pytest.mark.skipif(PARITY != WHOLE_SET, reason=_WHOLE_SET_MISSES)


def recorded(path: Path) -> Path:
    """A file of the recordings; where only a part of them is and it is not among these, the test skips."""
    if PARITY != WHOLE_SET and not path.exists():
        pytest.skip(_WHOLE_SET_MISSES)
    return path


MOST_WORKERS = 4  # each loads torch

# A change is judged by examples that are the same every time, and by no clock: the machine may be busy. To look for
# what nobody has thought of, `--hypothesis-profile search`.
_UNHURRIED = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("gate", _UNHURRIED, max_examples=50, derandomize=True, database=None)
hypothesis.settings.register_profile("search", _UNHURRIED, max_examples=1000)
hypothesis.settings.load_profile("gate")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Every core for the whole suite; a file or a test that was named runs at once, in this process."""
    named = any(Path(each.split("::")[0]).suffix == ".py" for each in config.args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if named else min(cores, MOST_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that take minutes run only when they are asked for: `-m long`."""
    if "long" in str(config.option.markexpr):
        return
    long = [each for each in items if each.get_closest_marker("long")]
    items[:] = [each for each in items if each not in long]
    config.hook.pytest_deselected(items=long)


def pytest_collection_finish() -> None:
    """What is loaded by now stays. To walk through it at every collection of garbage would take half a second each."""
    gc.collect()
    gc.freeze()


_CACHE = pytest.StashKey[tuple["str | None", str]]()  # the user's folder, ours


def pytest_configure(config: pytest.Config) -> None:
    """Hashes and built-in models are kept in a folder of this run, not in the home of whoever runs the tests."""
    if not hasattr(config, "workerinput"):  # processes of xdist have it from the first one
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = folder = tempfile.mkdtemp(prefix="overpaint-cache-")
        config.stash[_CACHE] = before, folder


def pytest_unconfigure(config: pytest.Config) -> None:
    if _CACHE in config.stash:
        before, folder = config.stash[_CACHE]
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def let_go() -> Callable[[], None]:
    """Frees what is not used any more, where the process has grown. It takes up to half a second.

    NOTE: an engine is a few objects that hold much memory, so it would be looked for late; and what is free in the
    middle of the heap goes back to the system only when it is told so.
    """
    held = 0

    def freed() -> None:
        nonlocal held
        if not _STATM.exists():
            gc.collect()
        elif _memory_held() >= held + _GROWN:
            gc.collect()
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            held = _memory_held()

    return freed


_GROWN = 128 * 2**20  # bytes
_STATM = Path("/proc/self/statm")


def _memory_held() -> int:
    """Bytes of this process that are in memory."""
    return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(let_go: Callable[[], None]) -> Iterator[None]:
    yield
    let_go()


def label(value: object) -> str:
    """The name of a test's case: the same in every process, so without addresses."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the reference's recordings."""
    return PARITY
