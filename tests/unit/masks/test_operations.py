"""Masks drawn, found, joined and changed: against scipy and OpenCV, and against the laws that they keep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from overpaint import masks
from overpaint.errors import RequestError
from overpaint.masks import edges

with suppress(ImportError):
    import cv2
    import scipy.ndimage as nd

needs_oracles = pytest.mark.skipif(
    not all(map(find_spec, ("cv2", "scipy"))), reason="masks are compared with OpenCV and scipy"
)
Mask = Image.Image
Array = np.ndarray[Any, np.dtype[Any]]


@st.composite
def drawn(draw: st.DrawFn, levels: tuple[int, ...] = (0, 255), size: tuple[int, int] | None = None) -> Mask:
    """A mask of some size, with blotches of its levels, mostly of one."""
    wide, high = size or (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = rng.choice(levels, (high, wide), p=_shares(len(levels), draw(st.sampled_from((0.5, 0.9, 0.98)))))
    zoom = draw(st.integers(1, 4))
    return Image.fromarray(np.kron(coarse, np.ones((zoom, zoom)))[:high, :wide].astype(np.uint8))


def _shares(count: int, first: float) -> list[float]:
    return [first, *[(1 - first) / (count - 1)] * (count - 1)]


binary = drawn()
gray = drawn(levels=(0, 255, 40, 128, 200))
pairs = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda size: st.tuples(drawn((0, 255, 90), size), drawn((255, 0, 90), size))
)
radii = st.one_of(st.integers(0, 12).map(float), st.floats(0, 12))


def same(one: Mask, other: Mask) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def disc(radius: float) -> Array:
    reach = int(radius)
    offsets = np.arange(-reach, reach + 1)
    return (offsets[:, None] ** 2 + offsets[None] ** 2) <= radius**2


# -- algebra ---------------------------------------------------------------------------------------------------------


@given(gray)
def test_inverted_twice_it_is_as_before(mask: Mask) -> None:
    assert same(masks.invert(masks.invert(mask)), mask)


@given(pairs)
def test_union_intersection_and_difference_keep_their_laws(pair: tuple[Mask, Mask]) -> None:
    one, other = pair
    assert same(masks.union(one, one), one) and same(masks.intersect(one, one), one)
    assert same(masks.union(one, other), masks.union(other, one))
    assert same(masks.invert(masks.union(one, other)), masks.intersect(masks.invert(one), masks.invert(other)))
    assert same(masks.subtract(one, other), masks.intersect(one, masks.invert(other)))
    assert same(masks.union(masks.intersect(one, other), one), one)


def test_masks_of_two_sizes_are_not_joined() -> None:
    for join in (masks.union, masks.intersect, masks.subtract):
        with pytest.raises(RequestError, match="give masks of one size"):
            join(Image.new("L", (3, 4)), Image.new("L", (4, 3)))


@given(gray, st.integers(0, 255))
def test_a_threshold_leaves_two_levels(mask: Mask, level: int) -> None:
    found = np.asarray(masks.threshold(mask, level))
    assert ((found == 255) == (np.asarray(mask) >= level)).all() and set(np.unique(found)) <= {0, 255}


def test_coverage_counts_gray_in_part() -> None:
    mask = Image.new("L", (10, 10))
    mask.paste(255, (0, 0, 5, 10))
    mask.paste(51, (5, 0, 10, 10))
    assert masks.coverage(mask) == pytest.approx(60)


# -- edges -----------------------------------------------------------------------------------------------------------


@needs_oracles
@given(binary, radii)
def test_grown_is_all_within_that_distance(mask: Mask, radius: float) -> None:
    white = np.asarray(mask) == 255
    found = np.asarray(masks.grow(mask, radius)) == 255
    squared = _squared_distance(white)
    assert (found == (squared <= radius * radius)).all()


def _squared_distance(white: Array) -> Array:
    if not white.any():
        return np.full(white.shape, np.inf)
    near = nd.distance_transform_edt(~white, return_distances=False, return_indices=True)
    off = near - np.indices(white.shape)
    squared: Array = (off**2).sum(axis=0)
    return squared


@needs_oracles
@given(gray, st.integers(0, 9))
def test_gray_grows_and_shrinks_as_in_opencv(mask: Mask, radius: int) -> None:
    kernel, values = disc(radius).astype(np.uint8), np.asarray(mask)
    assert (np.asarray(masks.grow(mask, radius)) == cv2.dilate(values, kernel)).all()
    assert (np.asarray(masks.shrink(mask, radius)) == cv2.erode(values, kernel)).all()


@given(gray, radii)
def test_growing_and_shrinking_have_an_order(mask: Mask, radius: float) -> None:
    values = np.asarray(mask)
    grown, shrunk = np.asarray(masks.grow(mask, radius)), np.asarray(masks.shrink(mask, radius))
    assert (shrunk <= values).all() and (values <= grown).all()
    closed = np.asarray(masks.shrink(masks.grow(mask, radius), radius))
    opened = np.asarray(masks.grow(masks.shrink(mask, radius), radius))
    assert (opened <= values).all() and (values <= closed).all()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pixels each part has that is worked on."""
    found, inner = list[int](), edges._near

    def spied(change: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def changed(values: Array) -> Array:
            found.append(values.size)
            return change(values)

        return changed

    monkeypatch.setattr(edges, "_near", lambda mask, reach, change: inner(mask, reach, spied(change)))
    return found


@needs_oracles
def test_large_masks_change_only_where_something_is(seen: list[int]) -> None:
    """The same as all at once, and the plain parts are not looked at."""
    size = (2400, 1800)
    mask = masks.union(masks.ellipse(size, (200, 190, 2260, 1650)), masks.rectangle(size, (0, 1600, 160, 1800)))
    soft = masks.feather(mask, 9)
    for each in (mask, soft):
        assert (np.asarray(masks.grow(each, 7)) == cv2.dilate(np.asarray(each), disc(7).astype(np.uint8))).all()
        assert (np.asarray(masks.shrink(each, 7)) == cv2.erode(np.asarray(each), disc(7).astype(np.uint8))).all()
    assert sum(seen) < 0.7 * 4 * size[0] * size[1]


@pytest.mark.parametrize("change", [masks.grow, masks.shrink])
def test_no_pixel_is_worked_on_twice_where_the_whole_picture_changes(
    change: Callable[[Mask, float], Mask], seen: list[int]
) -> None:
    """Neighbouring parts would each work on the other's margin."""
    size = (600, 560)
    change(masks.ellipse(size, (10, 10, 590, 550)), 60)
    assert seen == [size[0] * size[1]]


@needs_oracles
@given(gray, st.integers(1, 9))
def test_a_feather_reaches_as_far_as_it_says(mask: Mask, pixels: int) -> None:
    values = np.asarray(mask)
    both, inwards, outwards = (
        np.asarray(each(mask, pixels)) for each in (masks.feather, masks.feather_in, masks.feather_out)
    )
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    assert (inwards <= values).all() and (values <= outwards).all()
    assert (cv2.erode(values, square) <= both).all() and (both <= cv2.dilate(values, square)).all()
    assert (outwards <= cv2.dilate(values, square)).all() and (cv2.erode(values, square) <= inwards).all()


def test_a_feathered_edge_is_a_ramp() -> None:
    mask = masks.rectangle((100, 40), (50, 0, 100, 40))
    row = {
        name: np.asarray(each(mask, 12))[20] for name, each in (("in", masks.feather_in), ("out", masks.feather_out))
    }
    for values in row.values():
        assert (np.diff(values.astype(int)) >= 0).all() and len(set(values)) > 8
    assert row["in"][49] == 0 and row["in"][63] == 255 and row["out"][36] == 0 and row["out"][50] == 255


# -- regions ---------------------------------------------------------------------------------------------------------


@needs_oracles
@given(binary)
def test_holes_are_filled_as_in_scipy(mask: Mask) -> None:
    assert ((np.asarray(masks.fill_holes(mask)) == 255) == nd.binary_fill_holes(np.asarray(mask) == 255)).all()


@needs_oracles
@given(drawn((255, 0, 90)))
def test_holes_of_a_mask_that_is_mostly_white(mask: Mask) -> None:
    found, values = np.asarray(masks.fill_holes(mask)), np.asarray(mask)
    assert ((found == 255) == nd.binary_fill_holes(values == 255)).all() and (
        found[found < 255] == values[found < 255]
    ).all()


@needs_oracles
@given(gray, st.integers(1, 20))
def test_specks_are_dropped_by_their_size(mask: Mask, least: int) -> None:
    values = np.asarray(mask)
    labels, count = nd.label(values > 0, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    expected = np.where(sizes[labels] >= least, values, 0)
    assert (np.asarray(masks.drop_specks(mask, least)) == expected).all()


@needs_oracles
@given(st.integers(0, 2**32 - 1), st.integers(0, 90), st.data())
def test_a_wand_takes_what_opencv_floods(seed: int, tolerance: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    high, wide = rng.integers(1, 30, 2)
    pixels = np.kron(rng.integers(0, 256, (high, wide, 3)), np.ones((3, 2, 1)))[: high * 2, :wide].astype(np.uint8)
    x, y = data.draw(st.integers(0, pixels.shape[1] - 1)), data.draw(st.integers(0, pixels.shape[0] - 1))
    flood = np.zeros((pixels.shape[0] + 2, pixels.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    cv2.floodFill(pixels.copy(), flood, (x, y), 0, (tolerance,) * 3, (tolerance,) * 3, flags)
    assert (np.asarray(masks.wand(Image.fromarray(pixels), (x, y), tolerance)) == flood[1:-1, 1:-1]).all()


# -- shapes and colours ----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60), st.tuples(*[st.floats(-20, 80)] * 4))
def test_an_ellipse_holds_the_pixels_whose_middle_is_in_it(wide: int, high: int, corners: tuple[float, ...]) -> None:
    left, right = sorted(corners[:2])
    top, bottom = sorted(corners[2:])
    if right - left < 0.5 or bottom - top < 0.5 or right <= 0 or bottom <= 0 or left >= wide or top >= high:
        return
    y, x = np.indices((high, wide)) + 0.5
    off = ((x - (left + right) / 2) / ((right - left) / 2)) ** 2 + (
        (y - (top + bottom) / 2) / ((bottom - top) / 2)
    ) ** 2
    found = np.asarray(masks.ellipse((wide, high), (left, top, right, bottom))) == 255
    sure = np.abs(off - 1) > 1e-4
    assert (found == (off <= 1))[sure].all()


def test_rectangle_and_polygon_agree() -> None:
    box = masks.rectangle((40, 30), (5, 6, 20, 25))
    corners = [(5, 6), (20, 6), (20, 25), (5, 25)]
    assert np.abs(np.asarray(box).astype(int) - np.asarray(masks.polygon((40, 30), corners))).sum() <= 255 * (15 + 19)
    assert same(masks.rectangle((40, 30), (-9, -9, 99, 99)), masks.everything((40, 30)))


def test_a_stroke_is_as_wide_as_its_brush() -> None:
    points = [(10.0, 15.0), (50.0, 15.0), (50.0, 40.0)]
    hard = np.asarray(masks.stroke((64, 48), points, radius=5)) == 255
    y, x = np.indices((48, 64)) + 0.5
    first = np.hypot(x - np.clip(x, 10, 50), y - 15)
    second = np.hypot(x - 50, y - np.clip(y, 15, 40))
    assert (hard == (np.minimum(first, second) <= 5)).all()
    soft = np.asarray(masks.stroke((64, 48), points, radius=8, softness=0.5))
    assert soft[15, 30] == 255 and 0 < soft[15 + 6, 30] < 255 and soft[15 + 9, 30] == 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda size: masks.rectangle(size, (40, 0, 50, 5)),
        lambda size: masks.ellipse(size, (-50, -50, -1, -1)),
        lambda size: masks.polygon(size, [(100, 100), (120, 100), (110, 130)]),
        lambda size: masks.stroke(size, [(60, 60)], radius=5),
        lambda size: masks.wand(Image.new("RGB", size), (32, 2)),
    ],
)
def test_a_shape_outside_the_picture_is_an_error(draw: Callable[[tuple[int, int]], Mask]) -> None:
    with pytest.raises(RequestError, match="it lies outside the picture of 32x24; give"):
        draw((32, 24))


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: masks.rectangle((9, 9), (5, 5, 2, 8)), "left before right"),
        (lambda: masks.polygon((9, 9), [(1, 1), (2, 2)]), "give 3 to"),
        (lambda: masks.stroke((9, 9), [(1, 1)], radius=0), "radius"),
        (lambda: masks.stroke((9, 9), [(1, 1)], softness=2), "softness"),
        (lambda: masks.grow(Image.new("L", (9, 9)), -1), "grow"),
        (lambda: masks.grow(Image.new("L", (9, 9)), float("nan")), "grow"),
        (lambda: masks.drop_specks(Image.new("L", (9, 9)), 0), "drop-specks"),
        (lambda: masks.from_colour(Image.new("RGB", (9, 9)), "#12"), "give a colour"),
        (lambda: masks.from_colour(Image.new("RGB", (9, 9)), "red", 300), "tolerance"),
        (lambda: masks.from_difference(Image.new("RGB", (9, 9)), Image.new("RGB", (9, 8))), "same size"),
        (lambda: masks.cut_out(Image.new("RGB", (9, 9))), "give a box round the thing"),
    ],
)
def test_values_out_of_bounds_are_errors(draw: Callable[[], Mask], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        draw()


def test_colours_and_differences_have_their_tolerance() -> None:
    ramp = Image.merge(
        "RGB", [Image.linear_gradient("L"), Image.new("L", (256, 256), 7), Image.new("L", (256, 256), 9)]
    )
    found = np.asarray(masks.from_colour(ramp, (100, 5, 10), 20))[:, 0]
    assert (np.flatnonzero(found) == np.arange(80, 121)).all()
    changed = ramp.copy()
    changed.paste((0, 0, 200), (3, 4, 8, 10))
    different = masks.from_difference(ramp, changed, 10)
    assert different.getbbox() == (3, 4, 8, 10) and np.asarray(different)[4:10, 3:8].min() == 255


def test_alpha_is_white_where_it_is_opaque() -> None:
    picture = Image.new("RGBA", (4, 3), (1, 2, 3, 90))
    assert masks.from_alpha(picture).getextrema() == (90, 90)
    assert masks.from_alpha(picture.convert("RGB")).getextrema() == (255, 255)


# -- the thing in a box ----------------------------------------------------------------------------------------------


def thing(size: tuple[int, int], seed: int) -> tuple[Mask, Array]:
    """Something of its own colours on a ground of others, with noise, and where it is."""
    rng, (wide, high) = np.random.default_rng(seed), size

    def blotches(low: int, top: int) -> Array:
        small = Image.fromarray(rng.integers(low, top, (5, 7, 3), dtype=np.uint8))
        return np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(float)

    truth = masks.union(
        masks.ellipse(size, (0.3 * wide, 0.25 * high, 0.6 * wide, 0.7 * high)),
        masks.polygon(size, [(0.5 * wide, 0.5 * high), (0.75 * wide, 0.35 * high), (0.7 * wide, 0.75 * high)]),
    )
    share = np.asarray(truth)[..., None] / 255
    pixels = blotches(40, 130) * (1 - share) + blotches(120, 240) * share + rng.normal(0, 8, (high, wide, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), np.asarray(truth) > 0


def agreement(found: Mask, truth: Array) -> float:
    white = np.asarray(found) > 0
    return float((white & truth).sum() / (white | truth).sum())


@pytest.mark.parametrize("seed", range(2))
def test_a_thing_is_cut_out_of_its_box_and_by_strokes(seed: int) -> None:
    picture, truth = thing((320, 240), seed)
    assert agreement(masks.cut_out(picture, (80, 48, 256, 192)), truth) > 0.99
    inside, outside = [(130.0, 100.0), (205.0, 120.0)], [(20.0, 20.0), (20.0, 220.0), (300.0, 220.0)]
    assert agreement(masks.cut_out(picture, inside=inside, outside=outside), truth) > 0.99
    given_up = masks.cut_out(picture, (80, 48, 256, 192), outside=[(110.0, 100.0)], radius=10)
    assert np.asarray(given_up)[95:105, 105:115].max() == 0


@pytest.mark.parametrize("size", [(4, 3), (5, 40), (64, 64)])
def test_pictures_without_a_thing_are_cut_all_the_same(size: tuple[int, int]) -> None:
    plain = Image.new("RGB", size, "teal")
    assert masks.cut_out(plain, inside=[(0.5, 0.5)], radius=1).size == size
    if min(size) > 8:
        assert masks.cut_out(plain, (16, 16, 40, 40)).size == size
    with pytest.raises(RequestError, match="leave room between the box and the picture's edge"):
        masks.cut_out(plain, (0, 0, *size))


@needs_oracles
def test_a_thing_is_cut_out_as_well_as_by_opencv() -> None:
    picture, truth = thing((240, 180), 9)
    flags, box = np.zeros((180, 240), np.uint8), (60, 36, 132, 108)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.asarray(picture)[..., ::-1].copy(), flags, box, *models, 5, cv2.GC_INIT_WITH_RECT)
    theirs = Image.fromarray((flags % 2 * 255).astype(np.uint8))
    ours = masks.cut_out(picture, (60, 36, 192, 144))
    assert agreement(ours, truth) > agreement(theirs, truth) - 0.005


@needs_oracles
def test_the_cut_is_the_least_one() -> None:
    """Its energy against that of a maximum flow."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import maximum_flow

    from overpaint.masks import cutout

    rng, (high, wide) = np.random.default_rng(3), (12, 14)
    costs = rng.integers(-40, 40, (high, wide)).astype(np.float32)
    number = np.arange(high * wide).reshape(high, wide)
    weights, rows, columns, flows = [], list[int](), list[int](), list[int]()
    for down, across, _ in cutout._NEIGHBOURS:
        here, there = cutout._pairs(number, down, across)
        weight = rng.integers(0, 30, here.shape)
        weights.append(weight.astype(np.float32))
        for a, b in ((here, there), (there, here)):
            rows, columns, flows = [*rows, *a.ravel()], [*columns, *b.ravel()], [*flows, *weight.ravel()]
    source, sink = high * wide, high * wide + 1
    for each, cost in zip(number.ravel(), costs.ravel(), strict=True):
        rows.append(source if cost < 0 else int(each))
        columns.append(int(each) if cost < 0 else sink)
        flows.append(abs(int(cost)))
    graph = coo_matrix((flows, (rows, columns)), shape=(sink + 1, sink + 1), dtype=np.int32).tocsr()
    least = maximum_flow(graph, source, sink).flow_value + costs[costs < 0].sum()
    cut = cutout._minimum_cut(costs, weights, (costs < 0).astype(np.float32), 600) > 0.5
    parted = [np.not_equal(*cutout._pairs(cut, down, across)) for down, across, _ in cutout._NEIGHBOURS]
    energy = costs[cut].sum() + sum(float(w[p].sum()) for w, p in zip(weights, parted, strict=True))
    assert least - 1e-3 <= energy <= least + 0.01 * abs(least)
