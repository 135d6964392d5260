"""OUT, DEC: after the decoder. What the mask leaves black is the source's, to the byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from overpaint.finish import SoftLatents, finish, unchanged
from overpaint.planning.plans import Plan
from overpaint.request import ResizeMode, SoftInpainting
from overpaint.settings import Settings
from tests.unit.toy_job import REFERENCE, SANE, asked, box_mask, flat_pixels, noisy_picture, planned, with_quirk

COLOR = (10, 200, 30)
NO_BLUR: dict[str, Any] = {"mask_blur_x": 0, "mask_blur_y": 0, "blend": "plain"}


def painted(decided: Plan) -> NDArray[np.uint8]:
    return np.asarray(finish(decided, 0, flat_pixels(decided)).image)


@pytest.mark.parametrize(("settings", "size"), [(SANE, (33, 30)), (REFERENCE, (32, 24))])
def test_size_without_mask(settings: Settings, size: tuple[int, int]) -> None:  # IMG-6, OUT-3
    decided = planned(settings, width=33, height=30)
    assert finish(decided, 0, flat_pixels(decided)).image.size == size


def test_whole_picture_inpainting() -> None:  # OUT-2
    source = noisy_picture(32, 32)
    for settings in (SANE, REFERENCE):
        values = painted(planned(settings, images=(source,), mask=box_mask(32, 32, (0, 0, 16, 32)), **NO_BLUR))
        assert (values[:, :16] == COLOR).all()
        assert np.array_equal(values[:, 16:], np.asarray(source)[:, 16:])


def test_only_masked_is_pasted_back() -> None:  # MASK-7, OUT-3
    source = noisy_picture(50, 40)
    mask = box_mask(50, 40, (10, 8, 20, 18))
    for settings in (SANE, REFERENCE):
        fields: dict[str, Any] = {"only_masked": True, "padding": 4, "width": 24, "height": 24}
        values = painted(planned(settings, images=(source,), mask=mask, **fields, **NO_BLUR))
        inside = np.asarray(mask) > 0
        assert (values[inside] == COLOR).all()
        assert np.array_equal(values[~inside], np.asarray(source)[~inside])


def test_the_kept_part_is_blended_by_the_masks_gray() -> None:
    source = Image.new("RGB", (32, 32), (0, 0, 0))
    mask = Image.new("L", (32, 32), 51)  # MASK-8 doubles it: 102 of 255
    assert tuple(painted(planned(images=(source,), mask=mask, **NO_BLUR))[3, 3]) == (4, 80, 12)


def test_without_an_overlay_the_whole_pass_is_shown() -> None:  # OUT-1.3
    source = noisy_picture(50, 40)
    fields: dict[str, Any] = {
        "images": (source,),
        "mask": box_mask(50, 40, (10, 8, 20, 18)),
        "only_masked": True,
        "padding": 4,
        "width": 24,
        "height": 24,
        "overrides": {"overlay_inpaint": False},
    }
    sane = painted(planned(SANE, **fields, **NO_BLUR))
    assert sane.shape == (40, 50, 3)
    assert (sane[4:22, 6:24] == COLOR).all()
    assert np.array_equal(sane[30:], np.asarray(source)[30:])
    assert painted(planned(REFERENCE, **fields, **NO_BLUR)).shape == (24, 24, 3)  # the bare crop


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("masked", [False, True])
def test_transparency_survives(mode: str, masked: bool) -> None:
    source = noisy_picture(32, 32, mode)
    mask = box_mask(32, 32, (0, 0, 16, 32)) if masked else None
    values = painted(planned(images=(source,), mask=mask, **NO_BLUR))
    assert np.array_equal(values[..., 3], np.asarray(source)[..., -1])
    reference = finish(planned(REFERENCE, images=(source,)), 0, np.zeros((32, 32, 3), np.uint8)).image
    assert reference.mode == "RGB"


def test_transparency_survives_another_size() -> None:
    source = noisy_picture(32, 32, "RGBA")
    source.paste((1, 2, 3, 0), (0, 0, 16, 32))
    result = finish(decided := planned(images=(source,), width=64, height=64), 0, flat_pixels(decided)).image
    assert result.mode == "RGBA"
    assert np.asarray(result)[8:56, 4:24, 3].max() < 20


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "I;16"])
def test_sources_of_any_mode(mode: str) -> None:
    source = Image.new("I;16", (32, 32), 700) if mode == "I;16" else noisy_picture(32, 32).convert(mode)
    decided = planned(images=(source,), mask=box_mask(32, 32, (0, 0, 16, 32)), **NO_BLUR)
    assert finish(decided, 0, flat_pixels(decided)).image.size == (32, 32)


def test_color_correction() -> None:  # CC-2, CC-5
    source = noisy_picture(32, 32)
    options = Settings.reference(save_images_before_color_correction=True)
    pixels = np.asarray(noisy_picture(32, 32, seed=7))
    corrected = finish(planned(options, images=(source,), color_correction=True), 0, pixels)
    assert corrected.uncorrected is not None
    assert np.array_equal(np.asarray(corrected.uncorrected), pixels)
    assert not np.array_equal(np.asarray(corrected.image), pixels)
    assert finish(planned(options, images=(source,)), 0, pixels).uncorrected is None


def test_mask_outputs() -> None:  # OUT-4
    mask = box_mask(32, 32, (0, 0, 16, 32))
    for settings in (SANE, REFERENCE):
        options = settings.with_changes({"return_mask": True, "save_mask_composite": True})
        decided = planned(options, mask=mask, **NO_BLUR)
        found = finish(decided, 0, flat_pixels(decided))
        assert found.mask is not None
        assert found.mask_composite is not None
        assert found.mask.mode == "RGB"
        assert np.array_equal(np.asarray(found.mask)[..., 0], np.asarray(mask))
        assert found.mask_composite.getpixel((3, 3)) == (*COLOR, 255)
        assert np.asarray(found.mask_composite)[:, 16:, 3].max() == 0
        bare = finish(planned(settings, mask=mask), 0, flat_pixels(decided))
        assert bare.mask is None
        assert bare.mask_composite is None


def test_soft_inpainting_keeps_what_the_mask_never_touched() -> None:  # SOFT-4
    source = noisy_picture(64, 64)
    decided = planned(
        images=(source,),
        mask=box_mask(64, 64, (0, 0, 32, 64)),
        soft_inpainting=SoftInpainting(),
        round_mask=False,
        **NO_BLUR,
    )
    rng = np.random.default_rng(1)
    nmask = np.zeros((4, 8, 8), np.float32)
    nmask[:, :, :4] = 1
    sampled, encoded = (rng.standard_normal((4, 8, 8)).astype(np.float32) * 3 for _ in range(2))
    values = np.asarray(finish(decided, 0, flat_pixels(decided), SoftLatents(sampled, encoded, nmask)).image)
    assert np.array_equal(values[:, 32:], np.asarray(source)[:, 32:])
    assert (values[:, :32] != np.asarray(source)[:, :32]).any()


# -- nothing to do -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_an_unchanged_picture_is_the_source(only_masked: bool, masked: bool) -> None:
    source = noisy_picture(33, 30, "RGBA")
    source.info["icc_profile"] = b"profile"
    mask = box_mask(33, 30, (0, 0, 16, 20)) if masked else None
    decided = planned(images=(source,), strength=0, mask=mask, only_masked=only_masked)
    found = unchanged(decided, 0).image
    assert found is not source
    assert found.tobytes() == source.tobytes()
    assert found.info["icc_profile"] == b"profile"


@pytest.mark.parametrize("only_masked", [False, True])
def test_an_unchanged_picture_has_the_size_that_was_asked_for(only_masked: bool) -> None:
    decided = planned(strength=0, only_masked=only_masked, width=21, height=27)
    assert unchanged(decided, 0).image.size == (21, 27)


def test_an_unchanged_picture_of_another_size_keeps_its_transparency() -> None:
    source = noisy_picture(32, 32, "RGBA")
    assert unchanged(planned(images=(source,), strength=0, width=48, height=48), 0).image.mode == "RGBA"


# -- any job -----------------------------------------------------------------------------------------------------------


@runs(deadline=None)
@given(
    size=st.tuples(st.integers(9, 48), st.integers(9, 48)),
    out=st.none() | st.tuples(st.integers(9, 48), st.integers(9, 48)),
    box=st.tuples(*(st.integers(0, 47),) * 4),
    mode=st.sampled_from(["RGB", "RGBA", "L", "LA"]),
    resize=st.sampled_from(list(ResizeMode)),
    only=st.booleans(),
    invert=st.booleans(),
    blur=st.integers(0, 3),
    padding=st.integers(0, 9),
)
def test_black_stays(
    size: tuple[int, int],
    out: tuple[int, int] | None,
    box: tuple[int, int, int, int],
    mode: str,
    resize: ResizeMode,
    only: bool,
    invert: bool,
    blur: int,
    padding: int,
) -> None:
    (x1, x2), (y1, y2) = sorted(box[:2]), sorted(box[2:])
    source, mask = noisy_picture(*size, mode), box_mask(*size, (x1, y1, min(x2, size[0]), min(y2, size[1])))
    width, height = out or size
    decided = planned(
        images=(source,),
        mask=mask,
        width=width,
        height=height,
        resize_mode=resize,
        only_masked=only,
        invert_mask=invert,
        mask_blur_x=blur,
        mask_blur_y=blur,
        padding=padding,
    )
    result = (unchanged(decided, 0) if decided.unchanged else finish(decided, 0, flat_pixels(decided))).image
    at_own_size = only or (width, height) == size
    assert result.size == (size if only else (width, height))
    if decided.unchanged and at_own_size:
        assert result.tobytes() == source.tobytes()
    elif at_own_size and decided.mask is not None:
        black = np.asarray(decided.mask.overlay.convert("L")) == 0
        before, after = (np.asarray(each.convert("RGBA")) for each in (source, result))
        assert np.array_equal(before[black], after[black])
        if blur == 0:
            assert np.array_equal(black, (np.asarray(mask) == 0) != invert)


@pytest.mark.parametrize("name", list(SANE.quirks.__dataclass_fields__))
@pytest.mark.parametrize("fields", [{}, {"only_masked": True, "width": 24, "height": 40}, {"width": 30, "height": 42}])
def test_every_accident_can_be_had_alone(name: str, fields: dict[str, Any]) -> None:
    decided = planned(with_quirk(name), mask=box_mask(32, 32, (8, 8, 20, 20)), **fields)
    size = finish(decided, 0, flat_pixels(decided)).image.size
    only = "only_masked" in fields
    wanted = (32, 32) if only else (decided.geometry.width, decided.geometry.height)
    floored = tuple(each // 8 * 8 for each in wanted)
    assert size == (floored if name == "floor_odd_sizes" else wanted)


def test_a_request_serves_twice() -> None:
    request = asked(mask=box_mask(32, 32, (0, 0, 16, 32)))
    before = [each.tobytes() for each in (*request.images, request.mask or request.images[0])]
    painted(planned(**{name: getattr(request, name) for name in ("images", "mask")}))
    assert [each.tobytes() for each in (*request.images, request.mask or request.images[0])] == before
