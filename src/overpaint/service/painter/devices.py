"""What PyTorch finds on this machine, said by a process of its own: the web process does without PyTorch."""

from __future__ import annotations

import json
import sys


def devices() -> list[str]:
    """Each accelerator, or the CPU where there is none."""
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def started() -> None:
    """The whole life of the process."""
    sys.stdout.write(json.dumps(devices()))
