"""Hostile files end in one short sentence, in little memory and time, whoever reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.models.hostile_files import hostile_files

ROOT = Path(__file__).parents[3]
# What some reader may make sense of: nothing that is built from these is deep, large or slow.
HARMLESS = {
    "zip: a set with repeated tuples",
    "zip: a frozen set of nested tuples",
    "zip: a memo of 2**31 places",
    "zip: a number of a megabyte",
    "zip: 20,000 entries",
    "safetensors: deep metadata",
    "safetensors: a shape of 2**62",
    "safetensors: an empty shape of 2**61 twice",
    "safetensors: a type of a megabyte",
    "safetensors: a name of a megabyte",
    "safetensors: facts of a megabyte",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")


def outcomes(folder: Path) -> dict[str, str]:
    """What became of each file."""
    names = {}
    for number, (name, (suffix, data)) in enumerate(hostile_files().items()):
        path = folder / f"{number:03}{suffix}"
        path.write_bytes(data)
        names[path.name] = name
    command = [sys.executable, "-m", "tests.unit.models.hostile_reader", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return {names[file]: said for file, said in json.loads(done.stdout).items()}


def test_hostile_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    """All at once: they take seconds to make, and one process reads them all."""
    found = outcomes(tmp_path)
    allowed = {name: ("read", "refused") if name in HARMLESS else ("refused",) for name in found}
    assert len(found) > 100 and found.keys() >= HARMLESS
    assert {name: said for name, said in found.items() if said not in allowed[name]} == {}
