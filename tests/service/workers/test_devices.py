"""Which devices the workers get, from the words of the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from overpaint.errors import RequestError
from overpaint.service.painter import devices as painter_devices
from overpaint.service.workers import devices
from overpaint.service.workers.devices import chosen_devices, found_devices


@pytest.mark.parametrize(
    ("named", "workers", "chosen"),
    [
        (["auto"], None, ["auto"]),
        (["cuda:0", "cuda:1"], None, ["cuda:0", "cuda:1"]),
        (["cuda:0, cuda:1"], None, ["cuda:0", "cuda:1"]),
        (["all"], None, ["cuda:0", "cuda:1", "cuda:2"]),
        (["cpu"], 3, ["cpu", "cpu", "cpu"]),
        (["cuda:1"], 1, ["cuda:1"]),
    ],
)
def test_devices_by_their_words(
    named: Sequence[str], workers: int | None, chosen: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "found_devices", lambda: ["cuda:0", "cuda:1", "cuda:2"])
    assert list(chosen_devices(named, workers)) == chosen


@pytest.mark.parametrize(
    ("named", "workers", "said"),
    [
        (["cuda:0", "cuda:0"], None, "--device='cuda:0': it is named twice"),
        (["all", "cpu"], None, "--device='all,cpu': give all alone"),
        (["cpu"], 0, "--workers=0: give a number"),
        (["cuda:0"], 2, "--workers=2: a GPU has one worker"),
        (["auto"], 2, "--workers=2: a GPU has one worker"),
        (["all"], 5, "--workers=5: a GPU has one worker"),
    ],
)
def test_what_makes_no_sense_is_refused(
    named: Sequence[str], workers: int | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "found_devices", lambda: ["cuda:0", "cuda:1"])
    with pytest.raises(RequestError, match=said):
        chosen_devices(named, workers)


def test_workers_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "found_devices", lambda: ["cpu"])
    assert chosen_devices(["auto"], 2) == ("cpu", "cpu")


def test_a_process_of_its_own_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_devices() == painter_devices.devices()
    monkeypatch.setattr(devices, "_FINDER", (sys.executable, "-c", "print('Segmentation fault')"))
    with pytest.raises(RequestError, match="name the devices"):
        found_devices()
