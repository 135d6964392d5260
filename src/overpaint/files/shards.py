"""A batch in several parts, each painted by a process of its own, on one machine or on many.

Nobody hands anything out: each part finds its rows by itself, from their names. So what starts the parts (a Slurm
array, an indexed Kubernetes Job, a shell loop) needs to know nothing but two numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from overpaint.errors import RequestError
from overpaint.files.rows import BatchRow, Rows, StreamedRows, UnreadableRow

MOST_SHARDS = 100_000
_FORM = re.compile(r"(\d{1,6})/(\d{1,6})")
_NUMBERED = re.compile(r"(.+)-[1-9]\d*")


@dataclass(frozen=True)
class Shard:
    """One part of a batch: `number` counts from 0."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From I/N."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise RequestError("--shard", text, "give I/N, such as 0/4 for the first of four")
        number, of = int(found[1]), int(found[2])
        if not 1 <= of <= MOST_SHARDS:
            raise RequestError("--shard", text, f"give 1 to {MOST_SHARDS} shards")
        if number >= of:
            raise RequestError("--shard", text, f"shards count from 0: give 0/{of} to {of - 1}/{of}")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, family: str) -> bool:
        """Whether the rows are its own that share this name."""
        return place_of(family) % self.of == self.number

    def rows(self, rows: Rows) -> Rows:
        """Its own of all rows, in their order. Each row is in exactly one shard.

        Rows whose results may want one name are in the same shard: there they get the names that they would get if the
        batch was painted as a whole.
        """
        if isinstance(rows, StreamedRows):
            return rows.part(self)
        known = {_name_of(row) for row in rows if isinstance(row, BatchRow)}
        return [row for row in rows if self.has(_family(_name_of(row), known))]


def families(rows: Sequence[BatchRow]) -> list[list[BatchRow]]:
    """The rows, those together whose results may want one name; nearly always that is one row."""
    known = {_name_of(row) for row in rows}
    found: dict[str, list[BatchRow]] = {}
    for row in rows:
        found.setdefault(_family(_name_of(row), known), []).append(row)
    return list(found.values())


def _name_of(row: BatchRow | UnreadableRow) -> str:
    # NOTE: some file systems do not tell a from A.
    return str(row.output).casefold() if isinstance(row, BatchRow) else f"\0{row.number}"


def _family(name: str, known: set[str]) -> str:
    """The shortest name of a row from which numbering makes this one: a for a-2, if there is an a."""
    return next((each for each in reversed(shorter_names(name)) if each in known), name)


def shorter_names(name: str) -> list[str]:
    """Those from which numbering may have made it: a-2 and a for a-2-3."""
    found = list[str]()
    while (match := _NUMBERED.fullmatch(name)) is not None:
        name = match[1]
        found.append(name)
    return found


def place_of(name: str) -> int:
    """Of 64 bits, and the same everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")
