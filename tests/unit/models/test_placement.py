"""Where weights live: the planner as a table, and what it says."""

from __future__ import annotations

import re

import pytest

from overpaint.models.placement import MemoryNeeds, Placement, Size, WeightsForm, place

GB = 10**9


def needs(texts: tuple[float, float] = (10, 10), denoiser: tuple[float, float] = (24, 12)) -> MemoryNeeds:
    """Of a model of 12 billion numbers in 8 bits, whose text encoders are in 16."""
    block = Size(*(int(each * GB * 0.9 / 57) for each in denoiser))
    text, all_blocks = (Size(*(int(each * GB) for each in part)) for part in (texts, denoiser))
    return MemoryNeeds(text, all_blocks, (block,) * 57, codec=GB // 4, working=GB, unpacking=GB // 2)


TABLE: tuple[tuple[float, WeightsForm, bool, dict[str, object]], ...] = (
    (48, "auto", True, {}),
    (30, "auto", True, {"texts_leave": True, "denoiser_waits": True}),
    (36.5, "auto", True, {"texts_leave": True, "denoiser_waits": False}),
    (25.5, "auto", True, {"stored": True}),
    (16, "auto", True, {"stored": True, "texts_leave": True, "denoiser_waits": True}),
    (24, "auto", True, {"stored": True, "texts_leave": True}),
    (12, "auto", True, {"stored": True, "texts_leave": True, "streamed": 15, "denoiser_waits": True}),
    (8, "auto", True, {"stored": True, "texts_leave": True, "texts_streamed": True, "streamed": 35}),
    (16, "whole", True, {"stored": False, "texts_leave": True, "streamed": 29}),
    (48, "stored", True, {"stored": True}),
    (8, "auto", False, {"stored": True, "texts_leave": True, "streamed": 0, "fits": False}),
    (2, "auto", True, {"streamed": 57, "fits": False}),
)


@pytest.mark.parametrize(("room", "asked", "streams", "expected"), TABLE)
def test_what_costs_least_time_goes_first(
    room: float, asked: WeightsForm, streams: bool, expected: dict[str, object]
) -> None:
    found = place(needs(), int(room * GB), asked, streams=streams)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.fits == expected.get("fits", True)
    assert found.needed <= room * GB or not found.fits
    if not expected:
        assert not found.moves and not found.stored


def test_no_more_blocks_are_streamed_than_must_be() -> None:
    found = place(needs(), 12 * GB)
    one_less = Placement(**{**vars(found), "streamed": found.streamed - 1})
    kept = needs().denoiser_without(one_less.streamed, True)
    assert kept + needs().codec + needs().working + needs().unpacking > 12 * GB * 0.95


def test_a_file_in_the_bits_that_are_computed_with_is_never_unpacked() -> None:
    found = place(needs(denoiser=(24, 48)), 16 * GB)
    assert not found.stored and found.streamed
    assert not place(needs(denoiser=(24, 24)), 24 * GB).stored


def test_a_device_that_does_not_say_what_is_free_keeps_everything() -> None:
    found = place(needs(), None)
    assert not found.moves and not found.stored and found.fits


def test_every_decision_has_its_reason() -> None:
    said = place(needs(), 12 * GB).reasons
    assert said == (
        "everything at once would take 35.2 GB, and 12 GB are free",
        "weights stay as their files store them and are unpacked layer by layer: 22 GB instead of 34 GB",
        "the text encoders leave after encoding: 10 GB",
        "the denoiser waits until they have left",
        "15 of 57 blocks are streamed to the device in every call",
    )
    assert re.search(r"which is more than there is: paint smaller pictures", place(needs(), 2 * GB).reasons[-1])
    assert place(needs(), 48 * GB).reasons == (
        "everything stays on the device: it takes 35.2 GB of the 48 GB that are free",
    )
