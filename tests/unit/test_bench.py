"""The measurements behind `overpaint bench`, on a painter whose times and pictures are known."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overpaint import bench
from overpaint.bench import AGAIN, EXACT, SHORTCUTS, BenchCase, BenchJob, BenchPicture, Measured, measure, rows_of
from overpaint.cli import main
from overpaint.request import PaintRequest
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]
LESS = BenchCase("less", {"deepcache_interval": 2})


def measured(monkeypatch: pytest.MonkeyPatch, rounds: int = 3) -> tuple[tuple[Measured, ...], list[PaintRequest]]:
    """Exact jobs take 2, 4, 9 s ... and shorter ones half of that; their pictures are one level darker."""
    clock, seen = 0.0, list[PaintRequest]()
    seconds = {EXACT.name: itertools.cycle([100.0, 2.0, 4.0, 9.0]), LESS.name: itertools.cycle([1.0, 2.0, 4.5])}

    def paint(request: PaintRequest) -> BenchPicture:
        nonlocal clock
        seen.append(request)
        less = bool(request.overrides)
        clock += next(seconds[LESS.name if less else EXACT.name])
        return BenchPicture(Image.fromarray(np.asarray(request.images[0]) // 2 + (0 if less else 1)), 3 - less)

    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    monkeypatch.setattr(time, "process_time", lambda: clock / 2)
    return measure(paint, BenchJob((32, 24), steps=7), (EXACT, LESS), rounds), seen


def test_medians_of_jobs_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    (exact, less), seen = measured(monkeypatch)
    assert (exact.seconds, exact.cpu_seconds, exact.times_faster) == (4, 2, 1)
    assert (less.seconds, less.cpu_seconds, less.times_faster) == (2, 1, 2)
    assert exact.psnr is None and exact.ssim == 1
    assert less.psnr == pytest.approx(48.1308, abs=1e-4) and less.ssim is not None and 0.9 < less.ssim < 1
    assert [bool(each.overrides) for each in seen] == [False, *[False, True] * 3]  # the first is not counted
    assert [each.seed for each in seen] == [3, 3, 3, 4, 4, 5, 5]
    assert {(each.steps, each.images[0].size) for each in seen} == {(7, (32, 24))}
    assert len({each.prompt for each in seen}) == 3


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(monkeypatch)
    assert list(rows_of(found, quality=False)) == [
        ("exact", "4.00", "2.00", "1.00", "3", "#" * 24),
        ("less", "2.00", "1.00", "2.00", "2", "#" * 12),
    ]
    exact, less = rows_of(found, quality=True)
    assert exact[5:7] == ("same", "1.000") and less[5] == "48.1"


def test_before_the_same_picture_again_it_is_painted_from_another_seed() -> None:
    seen: list[PaintRequest] = []

    def paint(request: PaintRequest) -> BenchPicture:
        seen.append(request)
        return BenchPicture(request.images[0], 0 if len(seen) in (4, 7) else 3)

    exact, again = measure(paint, BenchJob((32, 24), steps=7), (EXACT, AGAIN), 2)
    assert (exact.encoded, again.encoded) == (3, 0)
    assert [(each.steps, each.seed) for each in seen] == [(7, 3), (7, 3), (2, 2), (7, 3), (7, 4), (2, 2), (7, 4)]
    assert [each.prompt for each in seen[1:4]] == [seen[1].prompt] * 3 != [each.prompt for each in seen[4:]]
    assert [each.overrides for each in seen[1:4]] == [{}, AGAIN.options, AGAIN.options]


def test_the_chart_has_a_bar_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(monkeypatch)
    values = np.asarray(bench.chart(found, "a title", quality=True)).astype(int)
    lengths = [
        int((np.abs(values - color).sum(axis=-1) == 0).sum(axis=1).max()) for color in ((138, 148, 166), (47, 125, 91))
    ]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=3)


def test_every_case_changes_one_thing_or_is_the_sum() -> None:
    assert len({each.name for each in SHORTCUTS}) == len(SHORTCUTS)
    for each in SHORTCUTS[:-1]:
        ((name, value),) = each.options.items()
        assert each.name == f"{name}={value}"
    assert len(SHORTCUTS[-1].options) == 3


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_and_draws(painter: FakePainter, capsys: Capture) -> None:
    assert main(["bench", "--size", "64", "--steps", "3", "--rounds", "1", "--quality", "-o", "chart.png"]) == 0
    said = capsys.readouterr().out
    assert "64x64, 3 steps" in said and "PSNR" in said and "deepcache_interval=2" in said
    with Image.open("chart.png") as chart:
        assert chart.width > 800
    assert len(painter.requests) == 4 + len(SHORTCUTS)
    assert all(each is not None and each.encodings_memory == 0 for each in painter.settings)
    assert main(["bench", "--size", "64", "-o", "chart.png"]) == 2  # it is not replaced


def test_for_machines(painter: FakePainter, capsys: Capture) -> None:
    assert main(["bench", "--steps", "3", "--rounds", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "128x128" in said["title"] and said["chart"] is None  # the model's own size
    assert [each["name"] for each in said["jobs"]] == ["exact", AGAIN.name, *(each.name for each in SHORTCUTS)]
    assert said["jobs"][0]["encoded"] == 0 and (said["peak_memory_bytes"] or 1) > 0
    assert "psnr" not in said["jobs"][0]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (["--size", "60"], "--size"),
        (["--size", "4096"], "--size"),
        (["--steps", "1"], "--steps"),
        (["--rounds", "0"], "--rounds"),
        (["--open"], "--open"),
        (["-o", "-"], "--output"),
        (["-o", "no/where.png"], "--output"),
        (["--device", "tpu"], "--device"),
        (["--model", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_painted(
    painter: FakePainter, capsys: Capture, given: list[str], field: str
) -> None:
    assert main(["bench", *given]) in (2, 3)
    assert field in capsys.readouterr().err
    assert not painter.requests and not list(Path().glob("*bench*"))
