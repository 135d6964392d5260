"""One small checkpoint for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint the package made itself."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "sketch.safetensors")
