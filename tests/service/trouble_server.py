"""A server whose worker gets into the trouble that a job's prompt asks for, and who is quick to lose patience.

    python -m tests.service.trouble_server serve DATA CHECKPOINT [LIMITS as JSON]
    python -m tests.service.trouble_server worker

The worker is the true one. In the second batch of a job it runs out of memory ("memory"), meets NaN ("nan"), hangs or
dies, each time or, with "once" in the prompt, the first time only. CHECKPOINT may be "fake": then the worker is one
without an engine (fake_worker.py).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from overpaint.service.limits import Limits
from tests.service.queue.desk_tools import FAKE_WORKER

TRUE_WORKER = (sys.executable, "-m", "tests.service.trouble_server", "worker")
PATIENCE = {"watchdog": 4.0, "result_seconds": 3600.0}


def serve(data: Path, checkpoint: str, limits: Mapping[str, Any]) -> int:
    from overpaint.service import serve
    from overpaint.service.config import ServeConfig
    from overpaint.service.queue import attempts, desk

    command = FAKE_WORKER if checkpoint == "fake" else TRUE_WORKER
    setattr(serve, "LocalDesk", partial(desk.LocalDesk, command=command))  # noqa: B010
    setattr(desk, "_EXPIRING", 0.5)  # noqa: B010
    setattr(attempts, "DEADLINE_PATIENCE", 1.0)  # noqa: B010
    chosen = replace(Limits(), **{**PATIENCE, **limits})
    config = ServeConfig(data=data, port=0, checkpoint=checkpoint, device="cpu", dtype="float32", limits=chosen)
    return serve.serve(config, lambda url: print(url, flush=True))  # noqa: T201


def _out_of_memory(tensors: Any) -> Any:
    import torch

    return torch.empty(10**15)


def _nan(tensors: Any) -> Any:
    return replace(tensors, init=tensors.init * float("nan"))


def _hangs(tensors: Any) -> Any:
    time.sleep(600)


def _dies(tensors: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does that has no memory left


TROUBLES: Mapping[str, Callable[[Any], Any]] = {
    "memory": _out_of_memory,
    "nan": _nan,
    "hangs": _hangs,
    "dies": _dies,
}


def make_trouble() -> None:
    """Have the engine do what prompts ask for."""
    from overpaint.painting.stages import Stages

    whole = Stages.sample_tensors
    had: set[str] = set()

    def sample_tensors(self: Any, plan: Any, tensors: Any, *values: Any, **named: Any) -> Generator[Any, None, Any]:
        words = str(plan.request.prompt).split()
        for name in words if named["number"] == 1 else ():
            if name in TROUBLES and not ("once" in words and name in had):
                had.add(name)
                tensors = TROUBLES[name](tensors)
        return (yield from whole(self, plan, tensors, *values, **named))

    setattr(Stages, "sample_tensors", sample_tensors)  # noqa: B010


def main(role: str, *values: str) -> int:
    if role == "serve":
        return serve(Path(values[0]), values[1], json.loads(values[2]) if len(values) > 2 else {})
    from overpaint.service.painter import worker

    make_trouble()
    code = worker.main()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
