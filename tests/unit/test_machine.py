"""What a machine is found to have; the command that tells it is in tests/engine/test_doctor.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from overpaint import machine
from overpaint.machine import EXTRAS, cores, extras, machine_facts, peak_memory

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOR_DEVELOPERS = {"test", "fuzz", "oracles", "page", "clients", "dev"}
CPUINFO = """\
processor\t: 0
model name\t: AMD EPYC 9B45 128-Core Processor
flags\t\t: fpu sse2 fma avx2 avx512f avx512_bf16

processor\t: 1
flags\t\t: fpu amx_bf16
"""


def test_what_the_system_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(CPUINFO, "utf-8")
    monkeypatch.setattr(machine, "_CPUINFO", told)
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine_facts()
    assert found.processor.startswith("AMD EPYC") and found.features == ("avx2", "fma", "avx512f", "avx512_bf16")
    assert found.cores == cores() >= 1 and not found.has_nvidia
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "nothing")
    monkeypatch.setattr(machine, "_NVIDIA", told)
    found = machine_facts()
    assert found.features == () and found.processor and found.has_nvidia


def test_extras_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    said = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    offered = said["project"]["optional-dependencies"]
    assert EXTRAS.keys() == offered.keys() - FOR_DEVELOPERS
    for name, (distribution, _) in EXTRAS.items():
        assert distribution in {Requirement(each).name for each in offered[name]}
    monkeypatch.setitem(EXTRAS, "heic", ("no-such-package", "nothing"))
    assert extras()["heic"] is None


def test_the_most_memory_that_was_taken(tmp_path: Path) -> None:
    told = tmp_path / "status"
    assert peak_memory("cpu", told) is None
    told.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t 7 kB\n", "utf-8")
    assert peak_memory("cpu", told) == 2 * 2**20
    told.write_text("Name:\tpython\n", "utf-8")
    assert peak_memory("cpu", told) is None
