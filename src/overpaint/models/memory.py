"""How much memory a device has, what networks take of it, and whether a failure was about it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from overpaint.networks.layers import Packable

GIB = 2**30
_UNKNOWN = 8 * GIB  # where the system does not say
_MEMINFO = Path("/proc/meminfo")
_LIMITS = Path("/sys/fs/cgroup")  # of this container


def total_memory(device: torch.device) -> int:
    """Bytes of the device; for CPUs, and for chips that share theirs, of the machine or of the container."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limit = _container_limit()
    machine = _machine_memory()
    return min(machine, limit) if limit is not None else machine


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had without swapping; None if unknown. A GPU says so itself, by an exception."""
    if device.type == "cuda":
        return None
    free = _meminfo("MemAvailable")
    limit = _container_limit()
    if limit is None:
        return free
    inside = limit - _taken_in_container()
    return inside if free is None else min(free, inside)


def room_on(device: torch.device, stated: float = 0.0) -> int | None:
    """Bytes that a model may take: those of a device that is `stated` (in GiB), else what is free; None: unknown."""
    if stated:
        return int(stated * GIB)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_memory(device)


def size_of(networks: Iterable[nn.Module]) -> int:
    """Bytes of their parameters, packed or not; a network that occurs twice counts once."""
    unique = {id(each): each for each in networks}
    return sum(_bytes_of(each) for each in unique.values())


def is_out_of_memory(error: BaseException) -> bool:
    """torch reports a CPU without memory as a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def give_back(device: torch.device) -> None:
    """Return what was freed to the device: torch keeps a GPU's memory for its next tensor."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _bytes_of(network: nn.Module) -> int:
    tensors: list[Tensor] = [each for each in network.parameters() if each.device.type != "meta"]
    for module in network.modules():
        if isinstance(module, Packable):
            tensors += module.packed
            tensors += module.stored.parts if module.stored is not None else ()
    return sum(each.numel() * each.dtype.itemsize for each in tensors)


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return _UNKNOWN


def _meminfo(name: str) -> int | None:
    with suppress(OSError, ValueError):
        for line in _MEMINFO.read_text("ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _container_limit() -> int | None:
    with suppress(OSError, ValueError):  # "max" is no number
        return int((_LIMITS / "memory.max").read_text("ascii"))
    return None


def _taken_in_container() -> int:
    """What cannot be dropped: pages of files can."""
    with suppress(OSError, ValueError):
        for line in (_LIMITS / "memory.stat").read_text("ascii").splitlines():
            if line.startswith("anon "):
                return int(line.split()[1])
    return 0
