"""Sizes that a request leaves open: in the shape of the source or of the mask's box, and the model's native area."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overpaint.planning.sizes import filled_up, size_for_box
from tests.unit.toy_job import asked

OPEN = asked()  # no size is given
SIDES = st.integers(1, 3000)
NATIVE = st.sampled_from([128, 512, 768, 1024])


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    left, top = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    return left, top, left + draw(SIDES), top + draw(SIDES)


@given(SIDES, SIDES, SIDES, SIDES)
def test_what_is_given_is_kept(wide: int, high: int, width: int, height: int) -> None:
    assert filled_up(OPEN, wide, high) == (wide, high)
    assert filled_up(OPEN.with_changes(width=width), wide, high)[0] == width
    assert filled_up(OPEN.with_changes(height=height), wide, high)[1] == height


@given(SIDES, SIDES, SIDES)
def test_the_other_side_follows_the_shape(wide: int, high: int, given_side: int) -> None:
    """Within half a pixel, and never of no height at all."""
    _, height = filled_up(OPEN.with_changes(width=given_side), wide, high)
    width, _ = filled_up(OPEN.with_changes(height=given_side), wide, high)
    assert height >= 1 and (height == 1 or abs(height - given_side * high / wide) <= 0.5)
    assert width >= 1 and (width == 1 or abs(width - given_side * wide / high) <= 0.5)
    assert (
        filled_up(OPEN.with_changes(width=wide), wide, high)
        == filled_up(OPEN.with_changes(height=high), wide, high)
        == (wide, high)
    )


@given(boxes(), NATIVE)
def test_a_box_is_painted_at_the_native_area(box: tuple[int, int, int, int], native: int) -> None:
    """In whole steps of 64 pixels, of which no side has less than one."""
    width, height = size_for_box(OPEN, box, native)
    assert width % 64 == height % 64 == 0 and min(width, height) >= 64
    across, down = box[2] - box[0], box[3] - box[1]
    scale = native / (across * down) ** 0.5
    for side, exact in ((width, across * scale), (height, down * scale)):
        assert side == 64 or abs(side - exact) <= 32


@given(boxes(), NATIVE, st.integers(0, 900), st.integers(0, 900))
def test_where_a_box_lies_changes_nothing(box: tuple[int, int, int, int], native: int, right: int, down: int) -> None:
    moved = (box[0] + right, box[1] + down, box[2] + right, box[3] + down)
    assert size_for_box(OPEN, moved, native) == size_for_box(OPEN, box, native)


@given(boxes(), NATIVE)
def test_a_box_on_its_side_is_painted_on_its_side(box: tuple[int, int, int, int], native: int) -> None:
    turned = (box[1], box[0], box[3], box[2])
    assert size_for_box(OPEN, turned, native) == size_for_box(OPEN, box, native)[::-1]
