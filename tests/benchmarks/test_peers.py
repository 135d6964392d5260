"""The comparison with other programs runs to its end with hardly any weights, and says what was compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer_files, peer_sides, peers
from benchmarks.peer_sides import PEERS, Stopwatch, Work

OURS, THEIRS = "overpaint torch fp32", "diffusers fp32"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # those of diffusers
def test_two_peers_paint_equally_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")

    def here(name: str, work: Work, python: str) -> dict[str, Any]:
        """Not in a process of its own, which would import everything once more."""
        assert python == sys.executable
        return PEERS[name](work).result()

    monkeypatch.setattr(peers, "run_side", here)
    target = tmp_path / "found.json"
    options = ["--tiny", "--folder", str(tmp_path / "files"), "--json", str(target)]
    found = peers.main([*options, "--peer", OURS, "--peer", THEIRS, "--peer", "openvino-genai bf16"])
    assert json.loads(target.read_text()) == json.loads(json.dumps(found))
    assert {name: [each["calls"] for each in rounds] for name, rounds in found["peers"].items()} == {
        OURS: [2],
        THEIRS: [2],
    }
    said = capsys.readouterr().out
    assert "openvino-genai bf16: skipped, openvino_genai is not installed" in said
    assert f"| {OURS} |" in said and f"| {THEIRS} |" in said
    assert {each.name for each in (tmp_path / "files").iterdir()} == {peer_files.FILE, peer_files.DIFFUSERS}


@pytest.mark.long
def test_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    found = peers.main(["--tiny", "--folder", str(tmp_path), "--peer", OURS, "--peer", THEIRS])
    for (one,) in found["peers"].values():
        assert one["peak"]["GiB"] < 3 and one["start"]["seconds"] > 0


def test_a_peer_that_fails_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work("/nowhere", 64, 4, 2, 1)
    assert peers.run_side("nobody", work, sys.executable) is None
    assert "nobody: it failed: KeyError" in capsys.readouterr().out
    absent = ["--tiny", "--peer", "stable-diffusion.cpp f16", "--packages", "/nowhere", "--folder", str(tmp_path)]
    assert peers.main(absent)["peers"] == {} and not list(tmp_path.iterdir())
    assert "skipped, /nowhere/bin/python does not run" in capsys.readouterr().out


def test_other_numbers_of_calls_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(command: list[str], **_: Any) -> Any:
        return type("Done", (), {"returncode": 0, "stdout": json.dumps({"calls": 3}), "stderr": ""})()

    monkeypatch.setattr("subprocess.run", told)
    with pytest.raises(SystemExit, match="made 3 calls instead of 2"):
        peers.run_side(OURS, Work("", 64, 4, 2, 1), sys.executable)


def test_strengths_that_come_to_equal_calls() -> None:
    work = Work("", 512, 20, 10, 2)
    assert work.strength == 0.5 and work.strength_with_one_more == 0.45


def test_what_is_told_of_two_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch()
    seconds = iter([10, 11, 16, 18, 20, 23, 30, 32, 35, 38, 39])
    monkeypatch.setattr(watch, "now", lambda: (float(now := next(seconds)), now / 2))
    watch.loaded()

    def three(step: Callable[[], None]) -> None:
        for _ in range(3):
            step()

    for _ in range(2):
        watch.paint(three)
    found = watch.result()
    assert found["calls"] == 3
    assert found["start"] == {"seconds": 10 + 3, "cpu": 5 + 1.5}  # a step takes 2, so the first one began at 14
    assert found["whole"] == {"seconds": 23, "cpu": 11.5}
    assert found["call"] == {"seconds": 3, "cpu": 1.5} and found["picture"] == {"seconds": 9, "cpu": 4.5}
    assert found["before"] == {"seconds": -1, "cpu": -0.5} and found["after"] == {"seconds": 1, "cpu": 0.5}


def test_the_table_is_of_medians_and_shares() -> None:
    def one(seconds: float) -> dict[str, Any]:
        parts = ("whole", "picture", "call", "before", "after", "start")
        return {**{name: {"seconds": seconds, "cpu": seconds} for name in parts}, "peak": {"GiB": seconds}}

    rounds = {"overpaint torch bf16": [one(2), one(9), one(3)], "diffusers bf16": [one(4), one(6), one(5)]}
    work = {"size": 512, "steps": 20, "calls": 10, "threads": 2}
    said = peers.report({"machine": "a machine", "work": work, "peers": rounds})
    cells = len(peers.COLUMNS)
    assert f"| overpaint torch bf16 |{' 3.00 |' * cells}" in said
    assert f"| overpaint torch bf16 |{' 0.60 |' * cells}" in said and "10 calls of two rows" in said


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    def torn(path: Path) -> None:
        path.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        peer_files._whole(tmp_path / "file", torn)
    assert not (tmp_path / "file").exists()
    peer_files._whole(tmp_path / "file", lambda path: path.write_text("all"))
    peer_files._whole(tmp_path / "file", lambda path: pytest.fail("it was there"))
    assert (tmp_path / "file").read_text() == "all" and peer_sides.ELSEWHERE.keys() <= PEERS.keys()
