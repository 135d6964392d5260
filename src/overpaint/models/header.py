"""What can be read of a model file without its tensors and without torch: the safetensors header, and the sidecar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from overpaint.errors import CheckpointError

_MAX_HEADER_BYTES = 100 * 2**20
_MAX_SIDECAR_BYTES = 2**20


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header and the place where the tensors' bytes start."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
            raise broken(path, "its header is cut off or longer than 100 MiB")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"its header is not valid ({error})") from error
    if not isinstance(header, dict):
        raise broken(path, "its header is not a table")
    return header, 8 + length


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path.name}: {what}; download the file again")


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The configuration beside a checkpoint, if there is one: the same name, ending in .yaml."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return None
    try:
        if beside.stat().st_size > _MAX_SIDECAR_BYTES:
            raise ValueError("larger than 1 MiB")
        config = yaml.safe_load(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{beside.name} cannot be read ({error}); correct it or take it away") from error
    return config if isinstance(config, Mapping) else None
