"""What a worker can be asked between jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from overpaint.errors import RequestError
from overpaint.service.painter.results import model_values
from overpaint.settings import Settings

if TYPE_CHECKING:
    from overpaint.engine import Engine


AT_ONCE = frozenset({"memory"})  # what may be answered while a job runs


class Holder(Protocol):
    """Who has the engine."""

    settings: Settings

    @property
    def has_engine(self) -> bool: ...
    def engine(self) -> Engine: ...
    def put_away(self) -> None: ...


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
    settings = holder.settings if values.get("settings") is None else Settings.from_json(values["settings"])
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

    settings = holder.settings if values.get("settings") is None else Settings.from_json(values["settings"])
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
