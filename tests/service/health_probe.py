"""How long web processes take to say that they live, asked by a process that does nothing else.

    python -m tests.service.health_probe FILE

FILE holds a line `PID HOST PORT` for each, and may change at any time. When its standard input ends it writes a line of
JSON: for each answer its seconds, and for how many of them the server's main thread and this process were ready to run
and had no core. The rest is what the server itself needed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EVERY = 0.1
PATIENCE = 60.0
_ASKED = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def without_core(pid: int | str) -> float:
    """Seconds for which the main thread of a process has waited for a core, where the system tells."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def asked(pid: str, host: str, port: str) -> tuple[float, float, float]:
    own, theirs, started = without_core("self"), without_core(pid), time.monotonic()
    with socket.create_connection((host, int(port)), PATIENCE) as line:
        line.settimeout(PATIENCE)
        line.sendall(_ASKED)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    seconds = time.monotonic() - started
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise OSError("it does not live")
    return seconds, without_core(pid) - theirs, without_core("self") - own


def answers(servers: Path, over: threading.Event) -> Iterator[tuple[float, float, float]]:
    while not over.wait(EVERY):
        for each in servers.read_text("ascii").splitlines():
            with contextlib.suppress(OSError):  # it was killed
                yield asked(*each.split())


def main() -> int:
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    print(json.dumps(list(answers(Path(sys.argv[1]), over))))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
