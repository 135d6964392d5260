"""An examiner that does what the names of files say."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from overpaint.service.wire import Sender, read


def main() -> None:
    sender = Sender(sys.stdout.buffer)
    while (message := read(sys.stdin.buffer)) is not None:
        name = Path(message["path"]).stem
        if name == "dies":
            os.kill(os.getpid(), 11)
        if name == "hangs":
            time.sleep(600)
        if name == "bad":
            sender.send("answer", error={"code": "checkpoint", "message": "bad.ckpt: it is no checkpoint"})
        else:
            sender.send("answer", value={"pid": os.getpid(), "asked": message["path"]})


if __name__ == "__main__":
    main()
