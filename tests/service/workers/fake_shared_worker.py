"""A worker without an engine that has several jobs at a time, each on a thread of its own, and counts its loads.

How many is the number that its device ends with ("fake:3"). It does the same words as `fake_worker`.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from pathlib import Path

from overpaint.service.wire import Message, Sender, read
from tests.service.workers import fake_worker


def main() -> int:
    sender, inboxes = Sender(sys.stdout.buffer), dict[str, queue.Queue[str]]()
    sender.send("hello", pid=os.getpid())
    first = read(sys.stdin.buffer)
    assert first is not None
    slots = int(first["device"].rpartition(":")[2])
    had = [str(first["checkpoint"])]
    sender.send("ready", model={"name": had[0]}, device=first["device"], slots=slots)
    while (message := read(sys.stdin.buffer)) is not None and message["type"] != "shutdown":
        if message["type"] == "ask":
            fake_worker._answer(sender, message)
        elif message["type"] == "stop" and message["job"] in inboxes:
            inboxes[message["job"]].put(message["how"])
        elif message["type"] == "job":
            inboxes[message["job"]["id"]] = queue.Queue()
            _load(Path(first["data"]), message, had)
            values = (sender, message, inboxes[message["job"]["id"]], had[0], len(inboxes))
            threading.Thread(target=_job, args=values, daemon=True).start()
    return 0


def _load(data: Path, message: Message, had: list[str]) -> None:
    wanted = str(message["job"]["request"].get("checkpoint") or had[0])
    if wanted != had[0]:
        had[0] = wanted
        with (data / "loads").open("a") as file:
            file.write(f"{os.getpid()} {wanted}\n")


def _job(sender: Sender, message: Message, inbox: queue.Queue[str], model: str, number: int) -> None:
    job, folder, state, stopped = message["job"], Path(message["folder"]), "finished", False
    folder.mkdir(parents=True, exist_ok=True)
    sender.send("taken", job=job["id"])
    sender.send("started", job=job["id"], images=1, batches=1, warnings=[])
    for word in job["request"]["prompt"].split():
        if word == "listen":
            while (how := inbox.get()) == "skip":
                pass
            state, stopped = ("cancelled" if how == "cancel" else "finished"), True
            break
        fake_worker._do(sender, job["id"], folder, word, len(message["done"]))
    said = {"pictures": [], "infotexts": [], "info": "{}", "warnings": [], "comments": "", "extra": {}}
    result = {**said, "stopped": stopped, "model": {"name": model}}
    sender.send("ended", job=job["id"], state=state, result=result, error=None, refused=False)


if __name__ == "__main__":
    sys.exit(main())
