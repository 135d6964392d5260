"""A worker without an engine. The prompt of a job says what it does with it, word by word."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from overpaint.service.wire import Message, Sender, read


def main() -> int:
    sender = Sender(sys.stdout.buffer)
    sender.send("hello", pid=os.getpid())
    first = read(sys.stdin.buffer)
    assert first is not None
    _start(sender, str(first["checkpoint"]))
    while (message := read(sys.stdin.buffer)) is not None and message["type"] != "shutdown":
        if message["type"] == "ask":
            _answer(sender, message)
        elif message["type"] == "job":
            _job(sender, message)
    return 0


def _start(sender: Sender, how: str) -> None:
    if how == "dies at once":
        sys.exit(9)
    if how == "hangs at once":
        time.sleep(600)
    if how == "is unfit":
        sender.send("unfit", error={"code": "checkpoint", "message": "there is no such checkpoint"})
        return
    sender.send("ready", model={"name": "none"}, device="cpu")


def _answer(sender: Sender, message: Message) -> None:
    if message["what"] == "die":
        os._exit(8)
    if message["what"] == "hang":
        time.sleep(600)
    if message["what"] == "never":
        sender.send("answer", id=message["id"], error={"code": "invalid", "message": "what='never': no"})
    else:
        sender.send("answer", id=message["id"], value={"what": message["what"], **message["values"]})


def _job(sender: Sender, message: Message) -> None:
    job, folder = message["job"], Path(message["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if "untaken" in job["request"] and _is_first(folder, job["request"]["untaken"]):
        os._exit(7)
    sender.send("taken", job=job["id"])
    sender.send("started", job=job["id"], images=1, batches=1, warnings=[])
    state, stopped = "finished", False
    for word in job["request"]["prompt"].split():
        if word == "listen":
            state, stopped = _told(job["id"]), True
            break
        _do(sender, job["id"], folder, word, len(message["done"]))
    result: dict[str, Any] = {
        "pictures": [],
        "infotexts": [],
        "info": "{}",
        "warnings": [],
        "comments": "",
        "stopped": stopped,
        "model": {},
        "extra": {},
    }
    refused = "refused" in job["request"]["prompt"] and _is_first(folder, job["request"].get("refusals", 1))
    if refused:
        state = "failed"
    error = {"code": "save", "message": "a file was not written"} if refused else None
    sender.send("ended", job=job["id"], state=state, result=result, error=error, refused=refused)


def _told(job: str) -> str:
    """Wait to be stopped; the state that a job so ends in."""
    while (message := read(sys.stdin.buffer)) is not None:
        if message["type"] == "stop" and message["job"] == job and message["how"] != "skip":
            return "cancelled" if message["how"] == "cancel" else "finished"
    os._exit(0)


def _is_first(folder: Path, times: int) -> bool:
    """Whether this is one of the first so many times that anybody asks."""
    mark = folder / "times"
    before = len(mark.read_text()) if mark.exists() else 0
    mark.write_text((before + 1) * "x")
    return before < times


def _do(sender: Sender, job: str, folder: Path, word: str, done: int) -> None:
    what, _, value = word.partition("=")
    if what == "step":
        sender.send("progress", job=job, step=int(value), steps=100, batch=0)
    elif what == "sleep":
        time.sleep(float(value))
    elif what == "batch" and int(value) >= done:
        notes = {"number": int(value), "notes": {}, "complete": True, "comments": [], "warnings": []}
        sender.send("painted", job=job, batch={**notes, "pictures": []})
    elif what == "picture" and int(value) >= done:
        (folder / f"{value}.png").write_bytes(f"picture {value}".encode())
        picture = {"number": int(value), "file": f"{value}.png", "infotext": "", "width": 8, "height": 8}
        notes = {"number": int(value), "notes": {}, "complete": True, "comments": [], "warnings": []}
        sender.send("painted", job=job, batch={**notes, "pictures": [picture]})
    elif what == "flood":
        for step in range(int(value)):
            sender.send("progress", job=job, step=step, steps=int(value), batch=0)
    elif what == "die":
        os._exit(int(value))
    elif what == "die-once":
        mark = folder / "died"
        if not mark.exists():
            mark.touch()
            os._exit(int(value))
    elif what == "tear":
        sys.stdout.buffer.write(b"\0\0\1\0{")
        sys.stdout.buffer.flush()
        os._exit(0)
    elif what == "babble":
        sys.stdout.buffer.write(b"HTTP/1.1 200 OK\r\n")
        sys.stdout.buffer.flush()
        time.sleep(600)


if __name__ == "__main__":
    sys.exit(main())
