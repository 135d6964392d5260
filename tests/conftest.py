"""Shared fixtures. The reference's recordings live beside the checkout in the workplace; elsewhere those tests skip."""

from __future__ import annotations

from pathlib import Path

import pytest

PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity"


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the reference's recordings."""
    if not (PARITY / "cases.json").exists():
        pytest.skip("the reference's recordings (../shared/parity) are not here")
    return PARITY
