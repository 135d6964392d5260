"""How this package starts processes of its own: with its Python, and never with what lies in the current folder.

`python -m` puts the current folder first among the places that modules come from. A server that was started in a
folder of downloads would run a `torch.py` or a `queue.py` there. Since 3.11 Python has an option against that; for
3.10 the child takes the place out itself, before it imports anything. (`-I` would also take PYTHONPATH and the user's
own packages away.) Last of all it looks where its parent has this package from.

In the child, pipes are for the parent alone, signals are left to it, and it goes first.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import overpaint

_CODE = """\
import sys
sys.path[:] = [each for each in sys.path if each] + [{root!r}]
from {module} import started
started()
"""

_LEAST_BEHIND = 2  # steps of niceness; a server needs little, but needs it at once


def command_of(module: str) -> tuple[str, ...]:
    """What starts a module that has a function `started`."""
    root = str(Path(overpaint.__file__).absolute().parents[1])
    # NOTE: since 3.13 Python imports something itself before the first line of -c, so there taking out is too late.
    options = ("-P",) if sys.version_info >= (3, 11) else ()
    return (sys.executable, *options, "-c", _CODE.format(root=root, module=module))


def environment(without: Collection[str] = ()) -> dict[str, str]:
    """This process's, less some names.

    NOTE: an empty part of PYTHONPATH is the current folder as well; `export PYTHONPATH=$PYTHONPATH:/opt/x` leaves one.
    """
    values = {name: value for name, value in os.environ.items() if name not in without}
    if "PYTHONPATH" in values:
        values["PYTHONPATH"] = os.pathsep.join(filter(None, values["PYTHONPATH"].split(os.pathsep)))
    return values


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, out of the reach of whatever prints or reads in this process."""
    commands, reports = (os.dup(each) for each in (0, 1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return os.fdopen(commands, "rb"), os.fdopen(reports, "wb")


def niceness(own: int, behind: int) -> int:
    """What a process shall have that was started with its server's, and would be so far behind a server of 0.

    A server that is nice by itself needs less distance: its processes would have nothing left beside those of others.
    """
    return min(own + behind, max(behind, own + _LEAST_BEHIND))


def let_the_server_go_first(behind: int) -> None:
    """Take the niceness of a process that is so far behind; where there is no such thing, nothing happens."""
    if hasattr(os, "nice"):
        own = os.nice(0)
        os.nice(niceness(own, behind) - own)


def deaf() -> None:
    """A Ctrl-C or a service manager's signal reaches the whole group; the parent decides what becomes of this one."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
