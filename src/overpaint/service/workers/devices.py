"""Which devices a server's workers get: what was named, all that there are, or the CPU several times."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from overpaint.errors import RequestError
from overpaint.service.children import command_of, environment

ALL = "all"
MOST_WORKERS = 256
_FINDER = command_of("overpaint.service.painter.devices")
_PATIENCE = 120.0  # seconds in which torch should be loaded


def chosen_devices(named: Sequence[str], workers: int | None) -> tuple[str, ...]:
    """A device for each worker, as `--device` and `--workers` ask for them."""
    devices = [each.strip() for text in named for each in text.split(",")]
    if ALL in devices:
        if len(devices) > 1:
            raise RequestError("--device", ",".join(devices), f"give {ALL} alone, or the devices one by one")
        devices = found_devices()
    twice = next((each for each in devices if devices.count(each) > 1), None)
    if twice is not None:
        raise RequestError("--device", twice, "it is named twice; one worker uses all of a device")
    return tuple(devices) if workers is None else _several(devices, workers)


def found_devices() -> list[str]:
    """The accelerators of this machine, or its CPU. A process of its own looks, since this one has no torch."""
    told = subprocess.run(_FINDER, stdout=subprocess.PIPE, env=environment(), timeout=_PATIENCE, check=False)
    try:
        found = json.loads(told.stdout)
    except ValueError:
        raise RequestError("--device", ALL, "PyTorch does not say what there is; name the devices") from None
    return [str(each) for each in found]


def _several(devices: Sequence[str], workers: int) -> tuple[str, ...]:
    if not 1 <= workers <= MOST_WORKERS:
        raise RequestError("--workers", workers, f"give a number from 1 to {MOST_WORKERS}")
    if workers == 1 and len(devices) == 1:
        return tuple(devices)
    if list(devices) == ["auto"]:
        devices = found_devices()
    if list(devices) != ["cpu"]:
        remedy = "a GPU has one worker; name several GPUs with --device, or give --device cpu"
        raise RequestError("--workers", workers, f"{remedy} (there is {', '.join(devices)})")
    return ("cpu",) * workers
