"""Sizes of memory, as people write them."""

from __future__ import annotations

import re

from overpaint.errors import RequestError


def gibibytes(text: str) -> float:
    """16, 16GB, 15.5 GiB: makers of devices write GB where they mean GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(g|gb|gib)?", text.strip().lower())
    if found is None or not float(found[1]):
        raise RequestError("--device-memory", text, "give a number of gigabytes, such as 16GB")
    return float(found[1])
