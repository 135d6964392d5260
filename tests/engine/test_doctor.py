"""`overpaint doctor`: what it says is what an engine does here, and its advice follows from what there is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from overpaint.backends import advice
from overpaint.backends.advice import decisions, faster, torch_facts
from overpaint.cli import main
from overpaint.engine import Engine, stages_of
from overpaint.machine import MachineFacts

MACHINE = MachineFacts("Linux", "3.11", "a processor", 10_000, ("avx2",), has_nvidia=False)


@pytest.fixture(autouse=True)
def nothing_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_CONFIG", "")
    for name in ("OVERPAINT_BACKEND", "OVERPAINT_DEVICE", "OVERPAINT_DTYPE"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_in_use_is_what_an_engine_uses(checkpoint: Path) -> None:
    said = {each.name: each.chosen for each in decisions("auto", "auto", "auto")}
    with Engine(checkpoint) as made:
        backend = stages_of(made).backend
        assert said["device"] == made.device
        assert said["dtype"] == str(backend.dtypes.unet).removeprefix("torch.")
        assert said["backend"] == "torch" and type(backend).__name__ == "TorchBackend"


def test_what_you_named_is_not_explained() -> None:
    device, dtype, backend = decisions("cpu", "float32", "torch")
    assert {device.why, dtype.why, backend.why} == {"you named it"}
    assert (device.chosen, dtype.chosen, backend.chosen) == ("cpu", "float32", "torch")


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for title in ("machine", "torch", "extras", "in use", "would be faster"):
        assert f"\n{title}\n" in f"\n{said}"
    assert torch.__version__ in said and "you named it" in said


def test_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {"machine", "torch", "extras", "chosen", "faster"}
    assert said["torch"]["threads"] == torch_facts().threads
    assert said["torch"]["devices"][0]["memory"] > 0


@pytest.mark.parametrize(
    ("given", "field"), [(["--device", "tpu"], "--device"), (["--dtype", "int3"], "--dtype"), (["--backend", "x"], "x")]
)
def test_what_cannot_be(given: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *given]) == 2
    assert field in capsys.readouterr().err


def test_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(machine: MachineFacts = MACHINE, dtype: str = "bfloat16", openvino: bool = True) -> str:
        return "\n".join(faster(machine, "cpu", dtype, openvino))

    assert f"uses {torch.get_num_threads()} of 10000 cores" in said()
    assert "cores" not in said(replace(MACHINE, cores=1))
    assert "--backend openvino: a step took 0.9" in said() and "holds the weights twice" in said()
    assert "pip install 'overpaint[openvino]'" in said(openvino=False) and "pip" not in said()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "NVIDIA" in said(replace(MACHINE, has_nvidia=True)) and "NVIDIA" not in said()
    monkeypatch.setattr(advice, "free_memory", lambda device: 2**30)
    assert "only 1.0 GiB" in said()
    monkeypatch.setattr(advice, "can_pack", lambda: False)
    assert "oneDNN" in said()
    monkeypatch.setattr("overpaint.backends.torch_backend._has_native_bfloat16", lambda: True)
    assert "--dtype bfloat16" in said(dtype="float32") and "--dtype" not in said()
