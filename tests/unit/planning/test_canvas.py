"""MASK, CROP, IMG, OVL, FILL, LAT: pictures before the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from PIL import Image

from overpaint.errors import RequestError
from overpaint.planning.canvas import plan_canvases
from overpaint.planning.canvas_pixels import CanvasInputs
from overpaint.request import MaskedContent, ResizeMode
from overpaint.settings import Settings
from tests.unit.toy_job import REFERENCE, SANE, asked, box_mask, noisy_picture, planned, with_quirk

BOTH = pytest.mark.parametrize("settings", [SANE, REFERENCE], ids=["sane", "reference"])
NO_BLUR: dict[str, Any] = {"mask_blur_x": 0, "mask_blur_y": 0}


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(33, 40), (64, 64), (15, 17), (8, 8)])
def test_odd_sizes(width: int, height: int) -> None:  # IMG-6
    sane, reference = (planned(each, width=width, height=height).geometry for each in (SANE, REFERENCE))
    assert (sane.width, sane.height) == (reference.width, reference.height) == (width, height)
    assert (reference.pass_width, reference.pass_height) == (width, height)
    assert reference.latent_size == (width // 8, height // 8)
    assert sane.latent_size == (-(-width // 8), -(-height // 8))


@BOTH
def test_unset_sizes_are_the_sources(settings: Settings) -> None:
    picture = noisy_picture(40, 24)
    for fields, size in (
        ({}, (40, 24)),
        ({"width": 80}, (80, 48)),
        ({"height": 48}, (80, 48)),
        ({"width": 16, "height": 16}, (16, 16)),
    ):
        geometry = planned(settings, images=(picture,), **fields).geometry
        assert (geometry.width, geometry.height) == size


def test_sources_far_above_the_models_size_are_painted_smaller() -> None:
    for size, painted in (
        ((256, 192), (256, 192)),
        ((1024, 768), (288, 216)),
        ((2000, 10), (2000, 10)),
        ((513, 512), (256, 248)),
    ):
        canvases = plan_canvases(CanvasInputs(asked(images=(noisy_picture(*size),)), SANE), 128)
        assert (canvases.geometry.width, canvases.geometry.height) == painted
        assert canvases.canvases[0].encoded.size == tuple(-(-each // 8) * 8 for each in painted)
        assert [f"painted at {painted[0]}x{painted[1]}" in each for each in canvases.warnings] == [True] * (
            painted != size
        )
    asked_for = plan_canvases(CanvasInputs(asked(images=(noisy_picture(600, 400),), width=600, height=400), SANE), 128)
    assert (asked_for.geometry.width, asked_for.warnings) == (600, ())


def test_what_must_not_change_keeps_its_size() -> None:
    picture = noisy_picture(600, 400)
    masked = plan_canvases(CanvasInputs(asked(images=(picture,), mask=box_mask(600, 400, (9, 9, 99, 99))), SANE), 128)
    still = plan_canvases(CanvasInputs(asked(images=(picture,), strength=0), SANE), 128)
    assert {(each.geometry.width, each.geometry.height) for each in (masked, still)} == {(600, 400)}
    assert "only_masked" in masked.warnings[0] and not still.warnings


def test_unset_size_of_an_only_masked_job_is_the_models_own_in_the_crops_shape() -> None:
    mask = box_mask(400, 200, (100, 50, 200, 100))
    request = asked(images=(noisy_picture(400, 200),), mask=mask, only_masked=True, padding=0, **NO_BLUR)
    geometry = plan_canvases(CanvasInputs(request, SANE), 256).geometry
    assert geometry.width % 64 == geometry.height % 64 == 0
    assert geometry.width * geometry.height == pytest.approx(256**2, rel=0.3)
    assert geometry.width > geometry.height


def test_padding_repeats_the_last_lines() -> None:
    canvas = planned(images=(noisy_picture(33, 30),)).canvases[0]
    values, source = np.asarray(canvas.encoded), np.asarray(canvas.source)
    assert values.shape == (32, 40, 3)
    assert np.array_equal(values[:30, :33], source)
    assert np.array_equal(values[:30, 33:], np.repeat(source[:, -1:], 7, axis=1))
    assert np.array_equal(values[30:, :33], np.repeat(source[-1:], 2, axis=0))


# -- the mask ----------------------------------------------------------------------------------------------------------


def test_gray_is_not_rounded_in_pixels() -> None:  # MASK-1
    gray = Image.new("L", (32, 32), 100)
    mask = planned(REFERENCE, mask=gray, **NO_BLUR).mask
    assert mask is not None
    assert mask.pixel.convert("L").getextrema() == (100, 100)
    assert mask.overlay.convert("L").getextrema() == (200, 200)  # MASK-8
    assert not mask.latent.any()  # LAT-1: 100/255 rounds to 0


def test_alpha_is_the_mask() -> None:  # MASK-1
    rgba = Image.new("RGBA", (32, 32), (255, 255, 255, 0))
    rgba.paste((0, 0, 0, 129), (0, 0, 16, 32))
    rgba.paste((0, 0, 0, 128), (16, 0, 32, 16))
    for round_mask, left, right in ((True, 255, 0), (False, 129, 128)):
        mask = planned(REFERENCE, mask=rgba, round_mask=round_mask, **NO_BLUR).mask
        assert mask is not None
        pixel = mask.pixel.convert("L")
        assert (pixel.getpixel((4, 4)), pixel.getpixel((24, 4))) == (left, right)


@BOTH
def test_inverted(settings: Settings) -> None:  # MASK-2
    plain = planned(settings, mask=box_mask(32, 32, (0, 0, 16, 32)), **NO_BLUR).mask
    other = planned(settings, mask=box_mask(32, 32, (16, 0, 32, 32)), invert_mask=True, **NO_BLUR).mask
    assert plain is not None
    assert other is not None
    assert np.array_equal(plain.latent, other.latent)
    assert np.array_equal(np.asarray(plain.overlay), np.asarray(other.overlay))


def test_blur_of_a_line() -> None:  # MASK-3's check values
    line = box_mask(65, 33, (32, 0, 33, 33))
    fields: dict[str, Any] = {"images": (noisy_picture(65, 33),), "mask": line, "mask_blur_y": 0, "only_masked": True}
    reference, sane = (planned(each, width=64, height=64, **fields).mask for each in (REFERENCE, SANE))
    assert reference is not None
    assert sane is not None
    falling = [26, 25, 23, 19, 16, 11, 9, 5, 4, 2, 1, 0, 0]
    assert np.asarray(reference.overlay)[5, 32:45].tolist() == falling
    assert np.asarray(sane.overlay)[5, 32:45].tolist() == [255, *falling[1:]]  # what is white stays white


@BOTH
def test_overlay_of_the_whole_picture_is_doubled(settings: Settings) -> None:  # MASK-8
    fields: dict[str, Any] = {"mask": box_mask(32, 32, (8, 8, 24, 24)), "mask_blur_x": 2, "mask_blur_y": 2}
    whole, only = (planned(settings, only_masked=each, width=32, height=32, **fields).mask for each in (False, True))
    assert whole is not None
    assert only is not None
    blurred = np.asarray(only.overlay.convert("L")).astype(int)
    assert np.array_equal(np.asarray(whole.overlay.convert("L")), np.minimum(255, 2 * blurred))


def test_mask_of_another_size() -> None:  # MASK-9
    big = box_mask(64, 64, (16, 16, 40, 40))
    sane = planned(SANE, mask=big, **NO_BLUR)
    same = planned(SANE, mask=box_mask(32, 32, (8, 8, 20, 20)), **NO_BLUR)
    assert any("mask" in each and "size" in each for each in sane.warnings)
    assert sane.mask is not None
    assert same.mask is not None
    assert np.array_equal(sane.mask.latent, same.mask.latent)
    with pytest.raises(RequestError, match=r"mask='64x32'.*32x32"):
        planned(SANE, mask=Image.new("L", (64, 32), 255))
    reference = planned(REFERENCE, mask=box_mask(64, 64, (0, 0, 20, 20)), only_masked=True, padding=0, **NO_BLUR)
    assert reference.mask is not None
    assert reference.mask.crop == (0, 0, 20, 20)  # the box of the mask, taken as it is
    assert not reference.warnings


def test_latent_mask_of_every_touched_cell() -> None:  # LAT-1; sane: a cell that holds a masked pixel changes
    dot = box_mask(32, 32, (9, 17, 10, 18))
    sane, reference = (planned(each, mask=dot, **NO_BLUR).mask for each in (SANE, REFERENCE))
    assert sane is not None
    assert reference is not None
    assert np.argwhere(sane.latent).tolist() == [[2, 1]]
    assert not reference.latent.any()


def test_a_latent_mask_of_its_own() -> None:  # MASK-10
    for settings in (SANE, REFERENCE):
        latent = box_mask(32, 32, (0, 0, 32, 16))
        mask = planned(settings, mask=box_mask(32, 32, (0, 0, 16, 32)), latent_mask=latent, **NO_BLUR).mask
        assert mask is not None
        assert mask.latent[:2].all()
        assert not mask.latent[2:].any()


@BOTH
@pytest.mark.parametrize("content", [MaskedContent.ORIGINAL, MaskedContent.FILL])
def test_a_latent_mask_of_another_size_fits_or_is_refused_by_name(settings: Settings, content: MaskedContent) -> None:
    fields: dict[str, Any] = {"mask": box_mask(32, 32, (0, 0, 16, 32)), "latent_mask": Image.new("L", (48, 48), 255)}
    try:
        mask = planned(settings, masked_content=content, **fields).mask
    except RequestError as error:
        assert "latent_mask" in str(error)
    else:
        assert mask is not None
        assert mask.latent.all()


def test_soft_masks_keep_their_gray() -> None:  # LAT-1, SOFT-1
    gray = Image.new("L", (32, 32), 51)
    mask = planned(mask=gray, round_mask=False, **NO_BLUR).mask
    assert mask is not None
    assert mask.latent.max() == mask.latent.min() == pytest.approx(0.2)


# -- the crop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size", "picture", "expected"),
    [
        ((10, 20, 138, 52), (512, 512), (200, 200), (10, 0, 138, 128)),
        ((0, 0, 100, 50), (512, 512), (640, 480), (0, 0, 100, 100)),
        ((600, 400, 640, 480), (512, 512), (640, 480), (560, 400, 640, 480)),
        ((100, 100, 101, 300), (512, 768), (400, 320), (34, 100, 167, 300)),
        ((5, 5, 6, 6), (512, 512), (100, 100), (5, 5, 6, 6)),
        ((0, 0, 300, 100), (512, 512), (300, 200), (0, 0, 300, 200)),
        ((290, 10, 300, 200), (768, 512), (300, 200), (15, 10, 300, 200)),
    ],
)
@BOTH
def test_crop_table(
    settings: Settings, box: tuple[int, ...], size: tuple[int, int], picture: tuple[int, int], expected: tuple[int, ...]
) -> None:  # CROP-1 to CROP-3
    mask = box_mask(*picture, (box[0], box[1], box[2], box[3]))
    fields: dict[str, Any] = {"mask": mask, "only_masked": True, "padding": 0, **NO_BLUR}
    # A sixteenth of the sizes of the table, so that nothing large is resampled; the shape alone decides.
    made = planned(settings, images=(noisy_picture(*picture),), width=size[0] // 16, height=size[1] // 16, **fields)
    assert made.mask is not None
    assert made.mask.crop == expected
    x1, y1, x2, y2 = expected
    assert made.mask.paste_to == (x1, y1, x2 - x1, y2 - y1)  # MASK-7
    assert made.mask.overlay.size == picture  # MASK-5
    assert made.mask.pixel.size == (size[0] // 16, size[1] // 16)


# -- the pictures ------------------------------------------------------------------------------------------------------


@BOTH
def test_whole_pictures_are_resized(settings: Settings) -> None:  # IMG-1, RESIZE-2
    picture = noisy_picture(20, 28)
    canvas = planned(settings, images=(picture,), width=24, height=32).canvases[0]
    expected = picture.resize((24, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(canvas.encoded), np.asarray(expected))
    assert np.array_equal(np.asarray(canvas.base), np.asarray(expected))


@BOTH
def test_transparency_shows_the_background(settings: Settings) -> None:  # IMG-1.2
    clear = Image.new("RGBA", (32, 32), (1, 2, 3, 0))
    canvas = planned(settings, images=(clear,), overrides={"img2img_background_color": "#102030"}).canvases[0]
    assert canvas.encoded.getpixel((5, 5)) == (0x10, 0x20, 0x30)
    assert canvas.encoded.mode == "RGB"


def test_reference_overlay() -> None:  # OVL-2
    source = noisy_picture(32, 32)
    canvas = planned(REFERENCE, images=(source,), mask=box_mask(32, 32, (0, 0, 16, 32)), **NO_BLUR).canvases[0]
    assert canvas.overlay is not None
    values = np.asarray(canvas.overlay)
    assert values.shape == (32, 32, 4)
    assert not values[:, :16, 3].any()
    assert (values[:, 16:, 3] == 255).all()
    assert np.array_equal(values[:, 16:, :3], np.asarray(source)[:, 16:])
    assert planned(REFERENCE, images=(source,)).canvases[0].overlay is None  # OVL-4


def test_latent_resize_keeps_the_sources_size() -> None:  # IMG-5
    canvas = planned(REFERENCE, resize_mode=ResizeMode.LATENT, width=64, height=64).canvases[0]
    assert canvas.encoded.size == (32, 32)


def test_latent_resize_stretches_the_mask_with_the_picture() -> None:  # RESIZE-6 is the reference's; both stretch here
    picture, mask = noisy_picture(64, 32), box_mask(64, 32, (0, 8, 64, 16))
    made = planned(images=(picture,), mask=mask, resize_mode=ResizeMode.LATENT, width=64, height=64, **NO_BLUR).mask
    assert made is not None
    assert np.flatnonzero(made.latent.max(axis=1)).tolist() == [2, 3]


@pytest.mark.parametrize("content", list(MaskedContent))
def test_masked_content_before_the_encoder(content: MaskedContent) -> None:  # IMG-1.6
    source = noisy_picture(32, 32)
    mask = box_mask(32, 32, (0, 0, 16, 32))
    for settings in (SANE, REFERENCE):
        encoded = planned(settings, images=(source,), mask=mask, masked_content=content, **NO_BLUR).canvases[0].encoded
        changed = (np.asarray(encoded) != np.asarray(source)).any(axis=-1)
        assert changed[:, :16].any() == (content is not MaskedContent.ORIGINAL)
        assert not changed[:, 20:].any()


@BOTH
def test_color_target(settings: Settings) -> None:  # CC-1
    assert planned(settings).canvases[0].target is None
    assert planned(settings, color_correction=True).canvases[0].target is not None


def test_every_source_has_a_canvas() -> None:  # IMG-2
    pictures = tuple(noisy_picture(32, 32, seed=each) for each in range(3))
    made = planned(images=pictures, batch_size=3)
    assert [made.canvas_of(i).source for i in range(3)] == list(pictures)


@runs(deadline=None)
@given(
    width=st.integers(9, 60),
    height=st.integers(9, 60),
    out=st.tuples(st.integers(9, 60), st.integers(9, 60)),
    mode=st.sampled_from(list(ResizeMode)),
    only=st.booleans(),
    masked=st.booleans(),
)
def test_sizes_always_fit_each_other(
    width: int, height: int, out: tuple[int, int], mode: ResizeMode, only: bool, masked: bool
) -> None:
    mask = box_mask(width, height, (width // 3, height // 3, width // 3 + 3, height // 2 + 2)) if masked else None
    made = planned(
        SANE,
        images=(noisy_picture(width, height),),
        mask=mask,
        only_masked=only,
        width=out[0],
        height=out[1],
        resize_mode=mode,
        padding=4,
    )
    canvas, geometry = made.canvases[0], made.geometry
    assert (geometry.width, geometry.height) == out
    cropped = made.mask is not None and made.mask.crop is not None
    assert canvas.base.size == ((width, height) if cropped else out)
    assert canvas.encoded.width % 8 == canvas.encoded.height % 8 == 0
    if made.mask is not None:
        assert made.mask.overlay.size == canvas.base.size
        assert made.mask.latent.shape == geometry.latent_size[::-1]
        assert made.mask.pixel.size == (geometry.pass_width, geometry.pass_height)


def test_one_accident_alone_keeps_its_own_size() -> None:  # IMG-6
    assert planned(with_quirk("floor_odd_sizes"), width=33, height=33).geometry.pass_width == 33
