"""`shared.sd_model`: made when it is first asked for, and again only when another checkpoint is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from overpaint.contract.configured import ConfiguredEngine
from overpaint.settings import Settings


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The engines that were made, each by what it was given."""
    made: list[dict[str, Any]] = []

    class Toy:
        def __init__(self, **given: Any) -> None:
            made.append(given)

    monkeypatch.setattr("overpaint.engine.Engine", Toy)
    monkeypatch.setattr("overpaint.models.find.choose_device", lambda name: "cpu")
    return made


def test_it_is_made_when_it_is_asked_for(made: list[dict[str, Any]]) -> None:
    configured = ConfiguredEngine()
    assert made == []
    settings = Settings.reference()
    engine = configured.current(settings)
    assert made == [{"device": "cpu", "dtype": "float32", "settings": settings}]  # ARCH-12
    assert configured.has_made(engine) and not configured.has_made(object())


def test_another_checkpoint_makes_another(made: list[dict[str, Any]]) -> None:
    configured = ConfiguredEngine()
    first = configured.current(Settings.reference())
    assert configured.current(Settings.reference(CLIP_stop_at_last_layers=2)) is first
    other = configured.current(Settings.reference(sd_model_checkpoint="other"))
    assert other is not first and len(made) == 2
    assert configured.has_made(other) and not configured.has_made(first)
