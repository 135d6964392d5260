"""What a worker can be asked between two calls of the network; some of it has to wait until no job runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from overpaint.errors import OverpaintError, RequestError
from overpaint.service.painter.painting import WorkerBusy
from overpaint.service.painter.results import model_values
from overpaint.service.wire import Message
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.engine import Engine


AT_ONCE = frozenset({"memory"})  # what may be answered by another thread
PATIENCE = 30.0  # seconds that a question waits for jobs to end
_ROOM = 2.4  # times its file: what a checkpoint needs while it is filled, if it is stored in half precision


class Holder(Protocol):
    """Who has the engine."""

    settings: Settings

    @property
    def has_engine(self) -> bool: ...
    def engine(self) -> Engine: ...
    def put_away(self) -> None: ...


@dataclass(frozen=True)
class Asked:
    """A question that came."""

    id: int
    what: str
    values: Mapping[str, Any]
    needs_quiet: bool  # it is answered when no job runs, and refused if that takes too long
    until: float

    @classmethod
    def of(cls, message: Message, holder: Holder) -> Asked:
        what, values = message["what"], message["values"]
        return cls(message["id"], what, values, _needs_quiet(holder, what, values), time.monotonic() + PATIENCE)

    def is_due(self, *, jobs_run: bool) -> bool:
        return not (jobs_run and self.needs_quiet) or time.monotonic() >= self.until

    def answer(self, holder: Holder, *, jobs_run: bool) -> Any:
        """A JSON value."""
        if jobs_run and self.needs_quiet:
            remedy = "ask again when they have ended, or cancel them"
            raise WorkerBusy(f"{self.what}: jobs are running, and {PATIENCE:.0f} s were not enough for them; {remedy}")
        return answer(holder, self.what, self.values)


def _needs_quiet(holder: Holder, what: str, values: Mapping[str, Any]) -> bool:
    """What takes the engine away, or a second model for which there may be too little memory."""
    if what != "load":
        return what in ("unload", "reload")
    return values.get("checkpoint") is not None and holder.has_engine and not _has_room(holder, values)


def _has_room(holder: Holder, values: Mapping[str, Any]) -> bool:
    """Whether a checkpoint fits beside what is in memory; one that is not there is told to be so at once."""
    import torch

    from overpaint.models.find import find_checkpoint
    from overpaint.models.memory import free_memory

    try:
        path = find_checkpoint(values["checkpoint"], _settings_of(holder, values))
        files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        needed = _ROOM * sum(each.stat().st_size for each in files)
    except (OverpaintError, OSError, ValueError, TypeError):
        return True
    free = free_memory(torch.device(holder.engine().device))
    return free is not None and free > needed


def _settings_of(holder: Holder, values: Mapping[str, Any]) -> Settings:
    return holder.settings if values.get("settings") is None else Settings.from_json(values["settings"])


def answer(holder: Holder, what: str, values: Mapping[str, Any]) -> Any:
    """A JSON value."""
    if what not in _ANSWERS:
        raise RequestError("what", what, f"ask for one of {', '.join(_ANSWERS)}")
    return _ANSWERS[what](holder, values)


def _load(holder: Holder, values: Mapping[str, Any]) -> dict[str, Any]:
    """{"checkpoint": name or None, "settings": Settings.to_json() or None}: have it in memory before a job names it.

    Jobs that name none keep the server's own: else a job that is taken up after a crash would give another picture.
    """
    from overpaint.engine import stages_of
    from overpaint.models.find import find_checkpoint
    from overpaint.painting.model_cache import identity_of

    engine = holder.engine()
    settings = _settings_of(holder, values)
    if values.get("checkpoint") is None:
        return model_values(engine.model)
    resident = stages_of(engine).model_cache.have(find_checkpoint(values["checkpoint"], settings), settings)
    return model_values(identity_of(resident.model))


def _unload(holder: Holder, values: Mapping[str, Any]) -> None:
    holder.put_away()


def _reload(holder: Holder, values: Mapping[str, Any]) -> dict[str, Any]:
    holder.put_away()
    return model_values(holder.engine().model)


def _model(holder: Holder, values: Mapping[str, Any]) -> dict[str, Any] | None:
    return model_values(holder.engine().model) if holder.has_engine else None


def _memory(holder: Holder, values: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes, by the reference's names."""
    import torch

    from overpaint.models.memory import free_memory, total_memory

    machine = torch.device("cpu")
    ram = {"free": free_memory(machine), "used": _own_memory(), "total": total_memory(machine)}
    return {"ram": ram, "cuda": _gpu_memory() if torch.cuda.is_available() else {"error": "unavailable"}}


def _gpu_memory() -> dict[str, Any]:
    import torch

    free, total = torch.cuda.mem_get_info()
    stats = dict(torch.cuda.memory_stats())

    def both(name: str) -> dict[str, int]:
        return {key: int(stats.get(f"{name}.all.{key}", 0)) for key in ("current", "peak")}

    return {
        "system": {"free": free, "used": total - free, "total": total},
        "active": both("active_bytes"),
        "allocated": both("allocated_bytes"),
        "reserved": both("reserved_bytes"),
        "inactive": both("inactive_split_bytes"),
        "events": {"retries": int(stats.get("num_alloc_retries", 0)), "oom": int(stats.get("num_ooms", 0))},
    }


def _own_memory() -> int | None:
    """What this process holds, where the system says so."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def _embeddings(holder: Holder, values: Mapping[str, Any]) -> dict[str, Any]:
    """The words that mean embeddings with the model in force, and the files that gave it none."""
    from overpaint.adapters.embeddings import EmbeddingShelf

    settings = _settings_of(holder, values)
    table = EmbeddingShelf().table(settings.embeddings_dir, holder.engine().spec)
    loaded = {
        each.name: {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": sum(part.shape[1] for part in each.parts),
            "vectors": each.vectors,
        }
        for each in table.embeddings
    }
    return {"loaded": loaded, "skipped": {each.name: {"reason": each.reason} for each in table.skipped}}


_ANSWERS: Mapping[str, Callable[[Holder, Mapping[str, Any]], Any]] = {
    "load": _load,
    "unload": _unload,
    "reload": _reload,
    "model": _model,
    "memory": _memory,
    "embeddings": _embeddings,
}
