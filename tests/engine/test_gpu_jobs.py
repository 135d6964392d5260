"""The benchmark of jobs side by side runs to its end; its figures are for a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu_jobs


def test_the_benchmark_of_jobs_runs_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = gpu_jobs.main(["--tiny", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text()) == json.loads(json.dumps(found))
    assert [each["jobs"] for each in found["jobs"]] == [1, 2]
    for each in found["jobs"]:
        apart, together = each["seconds"]
        assert each["times as fast"] == apart / together
        assert each["pictures a minute"]["side by side"] == 60 * each["jobs"] / together
    assert [each["rows"] for each in found["rows"]] == [1, 2]
    assert found["policy"]["jobs at once"] == 1
    told = capsys.readouterr().out
    assert told.count("\n| 2 |") == 2


def test_its_jobs_differ() -> None:
    jobs = gpu_jobs.jobs(8, 64, 5)
    assert len({each.seed for each in jobs.values()}) == len({each.prompt for each in jobs.values()}) == 8
    assert {each.sampler for each in jobs.values()} == set(gpu_jobs.SAMPLERS)
