"""The script for a GPU runs to its end on a CPU in its small form; its figures are for a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_parts


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # those of diffusers
def test_every_part_runs_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    found = gpu.main(["--tiny", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text()) == json.loads(json.dumps(found))
    assert list(found) == list(gpu_parts.PARTS)
    assert not [name for name, each in found.items() if "failed" in each or each.get("errors")]
    assert found["parity"]["ok"] and found["samplers"]["ok"] and found["lora"]["ok"]
    assert found["parity"]["most levels off"] <= 2  # a CPU, and so the recordings' own tolerance
    assert found["half"]["bfloat16"]["PSNR"] > 25
    assert set(found["speed"]["seconds"]) == {"overpaint", "diffusers"}
    assert [each["jobs"] for each in found["jobs"]["jobs"]] == [1, 2]
    assert found["previews"]["previews"] > 0 and len(found["samplers"]["seconds"]) == 2
    said = capsys.readouterr().out
    assert said.count("| what | figure |") == len(gpu_parts.PARTS) and "NOT OK" not in said.split("half")[0]


def ended(code: str, limit: float = 120) -> dict[str, object]:
    return gpu.outcome_of([sys.executable, "-c", code], limit)


def test_a_part_that_fails_loses_itself_alone() -> None:
    assert ended(f"print('noise'); print({gpu.LAST!r} + '{{\"seconds\": 2}}')") == {"seconds": 2}
    broken = ended("raise MemoryError('no room')")
    assert broken["failed"] == "it ended with 1" and "MemoryError: no room" in str(broken["said"])
    assert ended("print('nothing of use')")["failed"] == "it ended with 0"
    assert ended("while True: pass", limit=0.5)["failed"] == "it took more than 0 seconds"


def test_the_limits_leave_room_for_all() -> None:
    assert sum(limit for _, limit in gpu_parts.PARTS.values()) < 17 * 60  # and 12 minutes are the whole
    assert all(limit <= 180 for _, limit in gpu_parts.PARTS.values())


def test_with_no_time_left_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "outcome_of", lambda *_: pytest.fail("it began"))
    found = gpu.main(["--minutes", "0"])
    assert {each["failed"] for each in found.values()} == {"the time was up"}


def test_the_summary_says_how_each_ended() -> None:
    found = {"a": {"ok": True}, "b": {"ok": False}, "c": {"failed": "it ended with 1"}, "d": {"seconds": 1.0}}
    assert [line.split(maxsplit=1) for line in gpu.summary(found).splitlines()] == [
        ["a", "ok"],
        ["b", "NOT OK"],
        ["c", "failed: it ended with 1"],
        ["d", "measured"],
    ]
