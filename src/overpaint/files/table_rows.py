"""A manifest as spreadsheets save it: CSV, the names of the fields in its first line. One line, one request."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from overpaint.errors import PictureError, RequestError
from overpaint.stores import AnyFile

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
_SEPARATORS = ",;\t"
# Text whatever it looks like; in other columns 7 is a number, TRUE a truth, ["a", "b"] a list and {"a": 1} a table.
_TEXTS = frozenset(
    {
        *("picture", "mask", "latent_mask", "strength_map", "output", "prompt", "negative_prompt", "kind"),
        *("sampler", "scheduler", "checkpoint", "refiner", "resize_mode", "masked_content", "blend"),
    }
)


def table_rows(path: AnyFile) -> Iterator[tuple[int, dict[str, Any] | RequestError]]:
    """(line, its fields, or what is wrong with it); empty cells say nothing, and empty lines are left out."""
    try:
        with path.open("r", encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            separator = max(_SEPARATORS, key=head.count)
            names = [each.strip() for each in next(csv.reader([head], delimiter=separator), [])]
            _check_names(path, names)
            cells = csv.reader(file, delimiter=separator, strict=True)
            while (line := next(cells, None)) is not None:
                if any(each.strip() for each in line):
                    yield cells.line_num + 1, _fields_of(names, line)
    except UnicodeDecodeError as error:
        raise PictureError(f"{path}: it is not in UTF-8 ({error.reason}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise PictureError(f"{path}: line {cells.line_num + 1} is no CSV ({error}); mend it") from None


def _check_names(path: AnyFile, names: list[str]) -> None:
    if not any(names) or "" in names or len(set(names)) < len(names):
        raise PictureError(f"{path}: its first line has to name the fields, each once, such as picture,prompt,strength")


def _fields_of(names: list[str], cells: list[str]) -> dict[str, Any] | RequestError:
    if len(cells) != len(names):
        return RequestError("row", ",".join(cells), f"it has {len(cells)} cells, and the first line names {len(names)}")
    return {name: _value(name, cell) for name, cell in zip(names, cells, strict=True) if cell.strip()}


def _value(name: str, cell: str) -> Any:
    if name in _TEXTS:
        return cell
    text = cell.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return cell
