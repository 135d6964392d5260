from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint.pictures import open_picture
from overpaint.pixels.mask import (
    Box,
    _blurred_rows,
    _gaussian_weights,
    blur_mask,
    crop_region,
    expand_crop_region,
    invert,
    latent_mask,
    overlay_mask_whole,
    to_gray_mask,
)
from overpaint.pixels.resize import resize_image
from overpaint.settings import Quirks
from tests.conftest import needs_whole_set

REFERENCE, SANE = Quirks.reference(), Quirks.none()

CROP_TABLE = [  # CROP-2
    ((10, 20, 138, 52), (512, 512), (200, 200), (10, 0, 138, 128)),
    ((0, 0, 100, 50), (512, 512), (640, 480), (0, 0, 100, 100)),
    ((600, 400, 640, 480), (512, 512), (640, 480), (560, 400, 640, 480)),
    ((100, 100, 101, 300), (512, 768), (400, 320), (34, 100, 167, 300)),
    ((5, 5, 6, 6), (512, 512), (100, 100), (5, 5, 6, 6)),
    ((0, 0, 300, 100), (512, 512), (300, 200), (0, 0, 300, 200)),
    ((290, 10, 300, 200), (768, 512), (300, 200), (15, 10, 300, 200)),
]


def random_mask(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def test_recorded_gray_masks(parity: Path) -> None:  # MASK-1
    recorded = np.load(parity / "unit" / "pictures.npz")
    keys = [key for key in recorded.files if key.startswith("binary|")]
    assert len(keys) == 8
    for key in keys:
        _, name, round_ = key.split("|")
        gray = to_gray_mask(open_picture(parity / "images" / name), round_ == "True")
        assert np.array_equal(np.asarray(gray), recorded[key]), key


def test_inverting() -> None:  # MASK-2
    mask = random_mask(5, 4)
    assert np.array_equal(np.asarray(invert(mask)), 255 - np.asarray(mask))


def test_blur_of_one_column() -> None:  # MASK-3
    mask = Image.new("L", (61, 3))
    mask.paste(255, (30, 0, 31, 3))
    row = np.asarray(blur_mask(mask, 4, 0))[1]
    expected = [26, 25, 23, 19, 16, 11, 9, 5, 4, 2, 1, 0, 0]
    assert row[30:43].tolist() == expected
    assert row[30:17:-1].tolist() == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3), (5, 4), (33, 40), (64, 300)])
def test_blur_is_opencvs(size: tuple[int, int]) -> None:  # MASK-3
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(sum(size))
    sigmas = [*range(1, 65, 3), 64, *rng.uniform(0.1, 64, 12).tolist(), 0.19, 0.2, 0.5]
    for sigma in sigmas:
        mask = random_mask(*size, seed=int(sigma))
        if int(sigma) % 2:
            mask = mask.point([255 * (value > 127) for value in range(256)])
        kernel = 2 * int(2.5 * sigma + 0.5) + 1
        across = cv2.GaussianBlur(np.asarray(mask), (kernel, 1), sigma)
        assert np.array_equal(np.asarray(blur_mask(mask, sigma, 0)), across), sigma
        down = cv2.GaussianBlur(across, (1, kernel), sigma)
        assert np.array_equal(np.asarray(blur_mask(mask, sigma, sigma)), down), sigma


def blurred_whole(pixels: npt.NDArray[np.uint8], sigma_x: float, sigma_y: float) -> npt.NDArray[np.uint8]:
    """Every pixel of the picture by the definition: no box, no blocks."""
    for sigma, axis in ((sigma_x, 1), (sigma_y, 0)):
        if sigma > 0:
            weights = _gaussian_weights(sigma)
            margin = [(0, 0), (0, 0)]
            margin[axis] = (len(weights) // 2, len(weights) // 2)
            padded = np.pad(pixels.astype(np.int64), margin, mode="reflect")
            parts = (
                weight * np.take(padded, range(i, i + pixels.shape[axis]), axis) for i, weight in enumerate(weights)
            )
            pixels = ((sum(parts) + 128) // 256).astype(np.uint8)
    return pixels


SIGMAS = st.one_of(st.just(0), st.integers(1, 12), st.floats(0.1, 40))


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 300)),
    ground=st.sampled_from([0, 255, 255, 7]),
    boxes=st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.sampled_from([0, 1, 128, 254, 255])), max_size=3),
    grain=st.booleans(),
    sigmas=st.tuples(SIGMAS, SIGMAS),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=300)
def test_blur_in_its_box_is_the_blur_of_the_whole(
    size: tuple[int, int],
    ground: int,
    boxes: list[tuple[float, float, float, float, int]],
    grain: bool,
    sigmas: tuple[float, float],
    seed: int,
) -> None:  # MASK-3
    mask = Image.new("L", size, ground)
    for left, top, wide, high, gray in boxes:
        x, y = int(left * size[0]), int(top * size[1])
        area = (x, y, x + int(wide * (size[0] - x)), y + int(high * (size[1] - y)))
        mask.paste(gray, area)
        if grain and area[2] > area[0] and area[3] > area[1]:
            mask.paste(random_mask(area[2] - area[0], area[3] - area[1], seed), area[:2])
    pixels = np.asarray(mask)
    whole = blurred_whole(pixels, *sigmas)
    assert np.array_equal(np.asarray(blur_mask(mask, *sigmas)), whole)
    assert np.array_equal(np.asarray(blur_mask(mask, *sigmas, never_darker=True)), np.maximum(whole, pixels))
    assert np.array_equal(np.asarray(mask), pixels)


def test_blur_works_near_edges_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame and its inside, both large: only the line between them is work."""
    lines = []

    def watched(pixels: npt.NDArray[np.uint8], start: int, stop: int, sigma: float) -> npt.NDArray[np.uint8]:
        made = _blurred_rows(pixels, start, stop, sigma)
        lines.append(made.size)
        return made

    monkeypatch.setattr("overpaint.pixels.mask._blurred_rows", watched)
    mask = Image.new("L", (2000, 1000))
    mask.paste(255, (100, 100, 1900, 900))
    for each in (mask, invert(mask)):
        lines.clear()
        blur_mask(each, 4, 2)
        edge = 2 * (1800 + 800)
        assert 0 < sum(lines) < 2 * edge * 64 * 3 < 2 * 2000 * 1000  # two passes, three tiles on either side at most


def test_blur_is_fast_enough_to_be_waited_for() -> None:
    mask = random_mask(512, 512)
    begun = time.process_time()
    blur_mask(mask, 64, 64)
    assert time.process_time() - begun < 1  # some 0.03 s; the limit is for busy machines


def test_no_blur_changes_nothing() -> None:
    mask = random_mask(9, 7)
    assert blur_mask(mask, 0, 0).tobytes() == mask.tobytes()


def test_every_recorded_crop_box(parity: Path) -> None:  # CROP-1, CROP-2
    cases: list[dict[str, Any]] = json.loads((parity / "unit" / "crop_regions.json").read_text())
    assert len(cases) == 400
    for case in cases:
        width, height = case["image"]
        mask = Image.new("L", (width, height))
        mask.paste(1, tuple(case["box"]))
        box = crop_region(mask, case["pad"])
        assert box is not None
        assert list(box) == case["crop"]
        assert list(expand_crop_region(box, case["proc"][0], case["proc"][1], width, height)) == case["expanded"]


@pytest.mark.parametrize(("box", "painted", "image", "expected"), CROP_TABLE)
def test_crop_table(box: Box, painted: tuple[int, int], image: tuple[int, int], expected: Box) -> None:
    assert expand_crop_region(box, *painted, *image) == expected


def test_a_black_mask_has_no_crop() -> None:  # MASK-6
    assert crop_region(Image.new("L", (9, 9)), 4) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_crop_boxes_lie_inside_and_hold_the_mask(data: st.DataObject) -> None:
    side = st.integers(1, 700)
    width, height = data.draw(side), data.draw(side)
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    mask = Image.new("L", (width, height))
    mask.paste(data.draw(st.integers(1, 255)), (x1, y1, x2, y2))
    box = crop_region(mask, data.draw(st.integers(0, 300)))
    assert box is not None
    left, top, right, bottom = expand_crop_region(box, data.draw(side), data.draw(side), width, height)
    assert 0 <= left <= x1 < x2 <= right <= width
    assert 0 <= top <= y1 < y2 <= bottom <= height


def masked_cases(parity: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((parity / "cases.json").read_text())
    masked = [case for case in cases if "mask" in case["params"] and not case.get("scripts")]
    return [case for case in masked if not case.get("expect_error") and "black" not in case["params"]["mask"]]


def prepared(parity: Path, params: dict[str, Any]) -> tuple[Image.Image, Image.Image, list[int] | None]:
    """Pixel mask, overlay mask and paste box as MASK-1 to MASK-8 make them."""
    mask = to_gray_mask(open_picture(parity / params["mask"]), params.get("mask_round", True))
    mask = invert(mask) if params.get("inpainting_mask_invert") else mask
    both = params.get("mask_blur")
    blurred = blur_mask(
        mask,
        params.get("mask_blur_x", 4) if both is None else both,
        params.get("mask_blur_y", 4) if both is None else both,
    )
    width, height = params["width"], params["height"]
    if not params["inpaint_full_res"]:
        pixel = resize_image(params.get("resize_mode", 0), blurred, width, height, quirks=REFERENCE)
        return pixel, overlay_mask_whole(pixel), None
    box = crop_region(blurred, params.get("inpaint_full_res_padding", 0))
    assert box is not None
    left, top, right, bottom = expand_crop_region(box, width, height, *blurred.size)
    pixel = resize_image(2, blurred.crop((left, top, right, bottom)), width, height, quirks=REFERENCE)
    return pixel, blurred, [left, top, right - left, bottom - top]


@needs_whole_set
def test_masks_of_recorded_jobs(parity: Path) -> None:  # MASK-3 to MASK-8, LAT-1
    cases = masked_cases(parity)
    assert len(cases) > 25
    for case in cases:
        params, folder = case["params"], parity / "goldens" / case["name"]
        pixel, overlay, paste_to = prepared(parity, params)
        if "latent_mask" in params:
            pixel = open_picture(parity / params["latent_mask"])
        recorded = np.load(folder / "data.npz")
        cells = params["width"] // 8, params["height"] // 8
        small = latent_mask(pixel, *cells, params.get("mask_round", True), REFERENCE)
        assert small.dtype == np.float32
        assert np.array_equal(small, recorded["nmask"][0]), case["name"]
        assert np.array_equal(np.asarray(overlay), recorded["mask_for_overlay"]), case["name"]
        assert json.loads((folder / "case.json").read_text())["paste_to"] == paste_to, case["name"]


def test_a_cell_changes_if_it_holds_a_masked_pixel() -> None:  # LAT-1, sane
    mask = Image.new("L", (64, 40))
    mask.putpixel((15, 8), 255)
    cells = latent_mask(mask, 8, 5, True, SANE)
    assert np.argwhere(cells).tolist() == [[1, 1]]
    assert latent_mask(mask, 8, 5, True, REFERENCE).max() == 0


def test_gray_cells_keep_their_strongest_pixel() -> None:  # LAT-1, sane
    mask = Image.new("L", (16, 8), 10)
    mask.putpixel((3, 3), 127)
    mask.putpixel((9, 3), 128)
    soft = latent_mask(mask, 2, 1, False, SANE)
    assert np.allclose(soft, [[127 / 255, 128 / 255]])
    assert latent_mask(mask, 2, 1, True, SANE).tolist() == [[0, 1]]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 12), st.integers(1, 12), st.data())
def test_no_masked_pixel_is_forgotten(width: int, height: int, wide: int, high: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    mask = Image.new("L", (width, height))
    mask.putpixel(place, 255)
    cells = latent_mask(mask, wide, high, True, SANE)
    assert cells.shape == (high, wide)
    assert cells.max() == 1


def test_odd_sizes_keep_cells_of_8_pixels() -> None:
    mask = Image.new("L", (13, 13))
    mask.paste(255, (8, 0, 13, 13))
    assert latent_mask(mask, 2, 2, True, SANE).tolist() == [[0, 1], [0, 1]]


def test_whole_picture_overlay_is_doubled() -> None:  # MASK-8
    mask = Image.fromarray(np.array([[0, 1, 127, 128, 255]], dtype=np.uint8))
    assert np.asarray(overlay_mask_whole(mask)).tolist() == [[0, 2, 254, 255, 255]]
    assert overlay_mask_whole(mask.convert("RGB")).getpixel((1, 0)) == (2, 2, 2)
