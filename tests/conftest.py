"""Shared fixtures. The reference's recordings live beside the checkout in the workplace; elsewhere those tests skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Pictures here are small, and on a busy machine a second thread only waits. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity"


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the reference's recordings."""
    if not (PARITY / "cases.json").exists():
        pytest.skip("the reference's recordings (../shared/parity) are not here")
    return PARITY
