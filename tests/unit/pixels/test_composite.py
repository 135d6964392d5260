from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint.pictures import open_picture
from overpaint.pixels.composite import (
    PreservationError,
    apply_overlay,
    assert_untouched,
    changed_pixels,
    composite_exact,
    make_overlay,
    mask_composite,
    paste_back,
    premultiplied_outside,
    uncrop,
)
from overpaint.pixels.resize import resize_image
from overpaint.settings import Quirks
from tests.conftest import needs_whole_set

REFERENCE = Quirks.reference()


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_recorded_composites(parity: Path) -> None:  # OUT-2
    recorded = np.load(parity / "unit" / "pictures.npz")
    overlay = open_picture(parity / "images" / "cat_rgba226x150.png")
    whole, _ = apply_overlay(open_picture(parity / "images" / "cat226x150.png"), overlay, None, REFERENCE)
    assert np.array_equal(np.asarray(whole), recorded["overlay|full"])
    crop = open_picture(parity / "images" / "astronaut128.png")
    pasted, before = apply_overlay(crop, overlay, (40, 20, 91, 73), REFERENCE)
    assert np.array_equal(np.asarray(pasted), recorded["overlay|paste"])
    assert before.tobytes() == uncrop(crop, (40, 20, 91, 73), overlay.size, REFERENCE).tobytes()


@needs_whole_set
@pytest.mark.parametrize(
    "name", ["inpaint_only_pad16", "inpaint_blur16", "inpaint_resize_crop", "inpaint_only_edge_128x192_invert"]
)
def test_recorded_pictures_hold_the_overlay(parity: Path, name: str) -> None:  # OVL-1 to OVL-3
    folder = parity / "goldens" / name
    recorded = json.loads((folder / "case.json").read_text())
    params = recorded["case"]["params"]
    source = open_picture(parity / params["init_images"][0])
    mode = params.get("resize_mode", 0)
    if recorded["paste_to"] is None:
        source = resize_image(mode, source, params["width"], params["height"], quirks=REFERENCE)
    mask = Image.fromarray(np.load(folder / "data.npz")["mask_for_overlay"])
    overlay = np.asarray(make_overlay(source, mask, mode, REFERENCE))
    final = open_picture(folder / "image0.png")
    kept = overlay[..., 3] == 255
    assert kept.sum() > 2000
    assert np.array_equal(np.asarray(final)[kept], overlay[..., :3][kept])
    stencil = Image.fromarray(np.where(kept, 0, 255).astype(np.uint8))
    assert_untouched(source, final, stencil)


def test_overlay_alpha_is_the_inverted_mask() -> None:  # OVL-2
    source, mask = noise(16, 9), noise(16, 9, 1, seed=1)
    overlay = np.asarray(make_overlay(source, mask, 0, REFERENCE))
    alpha = 255 - np.asarray(mask)
    assert np.array_equal(overlay[..., 3], alpha)
    product = np.asarray(source) * alpha[..., None].astype(np.uint32) + 128
    premultiplied = (product + (product >> 8)) >> 8
    some = alpha > 0
    straight = np.minimum(255, 255 * premultiplied[some] // alpha[some][:, None])
    assert np.array_equal(overlay[..., :3][some], straight)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    mode=st.sampled_from(["RGB", "RGBA", "L"]),
    mask_mode=st.sampled_from(["L", "RGB"]),
    blank=st.booleans(),
)
@settings(deadline=None)
def test_an_overlay_made_in_its_box_is_that_of_the_whole(
    size: tuple[int, int], corner: tuple[float, float], mode: str, mask_mode: str, blank: bool
) -> None:  # OVL-2
    source = noise(*size, 4).convert(mode)
    mask = Image.new("L", size)
    if not blank:
        mask.paste(noise(*size, 1, seed=1), (int(corner[0] * size[0]), int(corner[1] * size[1])))
    overlay = make_overlay(source, mask.convert(mask_mode), 0, REFERENCE)
    whole = premultiplied_outside(source, mask).convert("RGBA")
    assert (overlay.mode, overlay.tobytes()) == ("RGBA", whole.tobytes())


def test_an_overlay_mask_of_another_size_is_resized() -> None:  # OVL-1
    overlay = make_overlay(Image.new("RGB", (32, 16), "red"), Image.new("L", (8, 8), 255), 0, REFERENCE)
    assert overlay.size == (32, 16)
    assert np.asarray(overlay)[..., 3].max() == 0


def test_without_overlay_the_picture_is_returned_as_it_is() -> None:  # OUT-2
    picture = noise(8, 8)
    result, before = apply_overlay(picture, None, (1, 1, 4, 4), REFERENCE)
    assert result is picture
    assert before.tobytes() == picture.tobytes()


def test_a_larger_overlay_is_cut() -> None:  # IMG-6
    overlay = noise(21, 19, 4)
    opaque = Image.merge("RGBA", (*overlay.split()[:3], Image.new("L", overlay.size, 255)))
    result, _ = apply_overlay(noise(16, 16), opaque, None, REFERENCE)
    assert np.array_equal(np.asarray(result), np.asarray(opaque)[:16, :16, :3])


def test_mask_composite_shows_what_was_painted() -> None:  # OUT-4
    picture, mask = noise(12, 10), noise(12, 10, 1, seed=2).point([255 * (value > 127) for value in range(256)])
    shown = np.asarray(mask_composite(picture, mask))
    white = np.asarray(mask) == 255
    assert np.array_equal(shown[..., 3], np.asarray(mask))
    assert np.array_equal(shown[white][:, :3], np.asarray(picture)[white])
    assert not shown[~white].any()


def test_pasting_back() -> None:
    base, crop = noise(20, 14), noise(8, 8, seed=1)
    pasted = np.asarray(paste_back(base, crop, (3, 2, 11, 10)))
    assert np.array_equal(pasted[2:10, 3:11], np.asarray(crop))
    untouched = np.ones((14, 20), dtype=bool)
    untouched[2:10, 3:11] = False
    assert np.array_equal(pasted[untouched], np.asarray(base)[untouched])


def masks(width: int, height: int) -> st.SearchStrategy[npt.NDArray[np.uint8]]:
    def one_pixel(place: int) -> npt.NDArray[np.uint8]:
        mask = np.zeros(width * height, dtype=np.uint8)
        mask[place] = 255
        return mask.reshape(height, width)

    def gray(seed: int) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        values = rng.integers(0, 256, (height, width), dtype=np.uint8)
        values[rng.random((height, width)) < 0.5] = 0
        return values

    return st.one_of(
        st.integers(0, width * height - 1).map(one_pixel),
        st.sampled_from([0, 255]).map(lambda value: np.full((height, width), value, dtype=np.uint8)),
        st.integers(0, 999).map(gray),
    )


@settings(max_examples=150, deadline=None)
@given(
    st.data(), st.sampled_from([1, 3, 4]), st.integers(0, 2), st.integers(0, 2), st.integers(1, 9), st.integers(1, 9)
)
def test_black_mask_preserves_every_byte(
    data: st.DataObject, channels: int, across: int, down: int, odd_width: int, odd_height: int
) -> None:
    width, height = 8 * across + odd_width, 8 * down + odd_height
    source, picture = noise(width, height, channels), noise(width, height, seed=1)
    mask = data.draw(masks(width, height))
    result = composite_exact(source, source.convert("RGB"), picture, Image.fromarray(mask))
    assert result.mode == ("RGBA" if channels == 4 else "RGB")
    assert_untouched(source, result, Image.fromarray(mask))
    assert not changed_pixels(source, result)[mask == 0].any()
    assert np.array_equal(np.asarray(result)[..., :3][mask == 255], np.asarray(picture)[mask == 255])
    if channels == 4:
        assert np.array_equal(np.asarray(result)[..., 3], np.asarray(source)[..., 3])


def test_gray_masks_blend_to_the_nearest_level() -> None:
    weights = np.arange(256, dtype=np.uint8)[None]
    for old, new in ((0, 255), (13, 200), (255, 1)):
        source, picture = Image.new("RGB", (256, 1), (old,) * 3), Image.new("RGB", (256, 1), (new,) * 3)
        blended = np.asarray(composite_exact(source, source, picture, Image.fromarray(weights)))[0, :, 0]
        exact = (old * (255.0 - weights[0]) + new * weights[0].astype(float)) / 255
        assert np.array_equal(blended, np.rint(exact))


def test_without_mask_everything_is_new_but_transparency() -> None:
    source, picture = noise(7, 5, 4), noise(7, 5, seed=1)
    result = np.asarray(composite_exact(source, source.convert("RGB"), picture, None))
    assert np.array_equal(result[..., :3], np.asarray(picture))
    assert np.array_equal(result[..., 3], np.asarray(source)[..., 3])


def test_a_resized_source_is_the_ground() -> None:
    source, base, picture = noise(30, 30, 4), noise(16, 16, seed=1), noise(16, 16, seed=2)
    result = composite_exact(source, base, picture, Image.new("L", (16, 16)))
    assert result.tobytes() == base.tobytes()


def test_sizes_that_do_not_fit_are_refused() -> None:
    base = noise(8, 8)
    with pytest.raises(PreservationError, match="the picture is 8x7: bring it to the 8x8"):
        composite_exact(base, base, noise(8, 7), None)
    with pytest.raises(PreservationError, match="the overlay mask is 4x4"):
        composite_exact(base, base, base, Image.new("L", (4, 4)))
    with pytest.raises(PreservationError, match="differ in size"):
        assert_untouched(base, base, Image.new("L", (4, 4)))


def test_one_changed_pixel_is_found() -> None:
    source = noise(9, 9, 4)
    result = source.copy()
    red, green, blue, alpha = np.asarray(source)[5, 2].tolist()
    result.putpixel((2, 5), (red, green, blue, alpha ^ 1))
    mask = Image.new("L", source.size)
    with pytest.raises(PreservationError, match=r"1 pixels outside the mask changed, the first at x=2, y=5"):
        assert_untouched(source, result, mask)
    mask.putpixel((2, 5), 1)
    assert_untouched(source, result, mask)
