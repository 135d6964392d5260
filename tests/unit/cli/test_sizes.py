"""Sizes of memory on the command line."""

from __future__ import annotations

import pytest

from overpaint.cli.sizes import gibibytes
from overpaint.errors import RequestError


@pytest.mark.parametrize(("text", "expected"), [("16", 16.0), ("16GB", 16.0), ("15.5 GiB", 15.5), ("8g", 8.0)])
def test_as_people_write_them(text: str, expected: float) -> None:
    assert gibibytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "0", "-8", "16MB", "1e3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"--device-memory=.*give a number of gigabytes, such as 16GB"):
        gibibytes(text)
