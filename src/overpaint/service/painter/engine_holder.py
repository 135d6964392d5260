"""The engine of a worker: made when it is first needed, and again after it was put away."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.pixels.resize import Upscaler
from overpaint.service.store.source_files import SourceFiles
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.engine import Engine
    from overpaint.painting.together import Together


class EngineHolder:
    """Who has the engine, and the jobs that go on side by side on it. `values` are those of the "start" message."""

    def __init__(self, values: Mapping[str, Any], told: Callable[[int, int], None]) -> None:
        self.picture = SourceFiles(Path(values["data"]) / "inputs").read  # a source by its reference
        self.checkpoint: str | None = values["checkpoint"]  # of jobs that name none, as long as the server lives
        self.device: str = values["device"]
        self.dtype: str = values["dtype"]
        self.settings = Settings.from_json(values["settings"])
        self._forced: int | None = values.get("slots")  # else as many as pay on this device
        self._slots = self._forced
        self._told = told
        self._engine: Engine | None = None
        self._together: Together[str] | None = None
        self._is_float32 = False  # for a second try

    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._made(self.dtype)
        return self._engine

    @property
    def has_engine(self) -> bool:
        return self._engine is not None

    def encodings(self) -> dict[str, int] | None:
        """What the engine encoded since it was made, what it knew already, and the bytes that it keeps of that."""
        if self._engine is None:
            return None
        from overpaint.engine import stages_of

        kept = stages_of(self._engine).model_cache.encodings
        return {"made": kept.total.misses, "reused": kept.total.hits, "bytes": kept.size}

    @property
    def in_memory(self) -> list[str]:
        """The files of the models that jobs need not wait for."""
        if self._engine is None:
            return []
        from overpaint.engine import stages_of

        return [str(each) for each in stages_of(self._engine).model_cache.paths()]

    @property
    def slots(self) -> int:
        """How many jobs go on at once: decided when the model is first in memory, for the parent counts on it."""
        if self._slots is None:
            import torch

            from overpaint.painting.sharing import jobs_at_once

            engine = self.engine()
            self._slots = jobs_at_once(torch.device(engine.device), engine.spec.native_size)
        return self._slots

    def together(self) -> Together[str]:
        """The jobs that go on. Whoever forces how many there are wants them to share their calls, too."""
        if self._together is None:
            from overpaint.painting.sharing import ROWS_OF_A_JOB

            self._together = self.engine().together(None if self._forced is None else self._forced * ROWS_OF_A_JOB)
        return self._together

    def put_away(self) -> None:
        """Free what the engine holds. Nothing may go on."""
        if self._engine is not None:
            device = self._engine.device
            self._engine.close()
            self._engine = self._together = None
            self._is_float32 = False
            self.tidy(device)

    def tidy(self, device: str) -> None:
        """Give memory back that only forgotten values hold."""
        import torch

        from overpaint.models.memory import give_back

        gc.collect()
        give_back(torch.device(device))

    def use_float32(self) -> None:
        """Have an engine of full precision, if the usual one is not, until `use_usual`."""
        from overpaint.engine import stages_of

        if not stages_of(self.engine()).backend.abilities.full_precision:
            self.put_away()
            self._engine, self._is_float32 = self._made("float32"), True

    def use_usual(self) -> None:
        """The usual engine is made again when it is needed."""
        if self._is_float32:
            self.put_away()

    def upscalers(
        self, settings: Settings, progress: Callable[[int, int], None], stopped: Callable[[], bool]
    ) -> Mapping[str, Upscaler]:
        from overpaint.painting.upscaling import Watch, known_upscalers

        return known_upscalers(settings, self.engine().device, Watch(progress, stopped))

    def _made(self, dtype: str) -> Engine:
        from overpaint.engine import Engine

        return Engine(self.checkpoint, self.device, dtype, self.settings, progress=self._told)
