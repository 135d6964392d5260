"""What a network frees stays with the process, for the next layer; for processes that are the project's own.

glibc returns a freed block of more than 32 MB to the system at once, and the system clears every page of the next one.
A codec's layers do nothing but that: a fifth of the CPU time of a decode at 512 pixels was spent so.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8  # of mallopt(3)
_LARGEST = 512 * 2**20  # larger blocks, of very large pictures, still go back


def keep() -> bool:
    """From now on; whether that can be had here."""
    with suppress(OSError, AttributeError):
        ask = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
        # A second arena could not hold such blocks, so that threads would go on as before.
        return ask is not None and all(
            ask(what, value) == 1
            for what, value in ((_ARENAS, 1), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST))
        )
    return False


def give_back() -> None:
    """Return to the system what nobody uses; when nothing is to be done."""
    with suppress(OSError, AttributeError):
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
