"""`shared.sd_model`: the engine that the options name, made when somebody asks for it."""

from __future__ import annotations

from typing import Any

from overpaint.settings import Settings


class ConfiguredEngine:
    """The engine of the configured checkpoint, loaded when it is first asked for and again when the option changes."""

    def __init__(self) -> None:
        self._checkpoint: str | None = None
        self._engine: Any = None

    def current(self, settings: Settings) -> Any:
        from overpaint.engine import Engine
        from overpaint.models.find import choose_device

        if self._engine is None or settings.sd_model_checkpoint != self._checkpoint:
            device = choose_device("auto")
            exact = "float32" if device == "cpu" else "auto"  # ARCH-12: the reference's own precision
            self._engine = Engine(device=device, dtype=exact, settings=settings)
            self._checkpoint = settings.sd_model_checkpoint
        return self._engine

    def has_made(self, engine: object) -> bool:
        """Whether this is the engine that follows the options, and not one of the caller's own."""
        return engine is self._engine
