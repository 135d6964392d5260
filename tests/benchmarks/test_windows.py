"""What a window saves is measured in the same call for both ways; here with the built-in model, to its end."""

from __future__ import annotations

from benchmarks import windows


def test_both_ways_paint_the_same_outside_the_mask() -> None:
    found = windows.main(["seconds", "--size", "64", "--steps", "2", "--strength", "1", "--repeats", "1"])
    assert set(found) == {"off", "auto", "times as fast, by CPU seconds"}
    assert all(found[option]["CPU seconds"] > 0 for option in ("off", "auto"))
