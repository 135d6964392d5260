"""What this machine and this installation have, as far as that can be known without torch."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
# What decides how fast networks are: width of the arithmetic, and kinds of numbers that have instructions of their own.
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_ARM_FEATURES = ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve")
_NVIDIA = Path("/proc/driver/nvidia/version")

# extra: (distribution, what it is for)
EXTRAS = {
    "gguf": ("gguf", "quantised weights"),
    "openvino": ("openvino", "a second backend, for CPUs"),
    "heic": ("pillow-heif", "pictures of phones"),
    "postgres": ("psycopg", "jobs in PostgreSQL, for several machines"),
    "ray": ("ray", "batches on many machines"),
    "stores": ("fsspec", "batches in object stores"),
    "parquet": ("pyarrow", "manifests of batches"),
}


@dataclass(frozen=True)
class MachineFacts:
    """A machine as one process sees it."""

    system: str
    python: str
    processor: str
    cores: int  # that this process may use
    features: tuple[str, ...]  # of the processor; none where the system does not tell
    has_nvidia: bool  # a driver is there, whatever torch can do with it


def machine_facts() -> MachineFacts:
    told = dict(_cpuinfo())
    flags = told.get("flags", told.get("Features", "")).split()
    return MachineFacts(
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        python=f"{platform.python_version()} ({sys.platform})",
        processor=told.get("model name", platform.processor() or platform.machine()),
        cores=cores(),
        features=tuple(each for each in (*_FEATURES, *_ARM_FEATURES) if each in flags),
        has_nvidia=_NVIDIA.exists() or shutil.which("nvidia-smi") is not None,
    )


def peak_memory(device: str = "cpu", status: Path = _STATUS) -> int | None:
    """The most bytes that this process had in memory, or on a GPU; None where the system does not tell."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):  # NOTE: the figure of getrusage survives exec, so it may be that of a parent
        lines = status.read_text().splitlines()
        return next((int(each.split()[1]) * 1024 for each in lines if each.startswith("VmHWM:")), None)
    return None


def cores() -> int:
    """Those that this process may use."""
    with suppress(AttributeError, OSError):  # systems without affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def extras() -> dict[str, str | None]:
    """The version of each extra; None: it is not installed."""
    return {name: _version(distribution) for name, (distribution, _) in EXTRAS.items()}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> Iterator[tuple[str, str]]:
    """Of the first processor."""
    with suppress(OSError, UnicodeDecodeError):
        for line in _CPUINFO.read_text("utf-8").splitlines():
            if not line.strip():
                return
            name, _, value = line.partition(":")
            yield name.strip(), value.strip()
