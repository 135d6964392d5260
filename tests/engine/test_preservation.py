"""The promise: what the mask leaves black is the source's, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from overpaint.engine import Engine
from overpaint.request import MaskedContent, Picture, ResizeMode, SoftInpainting
from overpaint.settings import Settings
from tests.engine.conftest import asked, box, pixels, scene

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rgba(picture: Picture) -> Any:
    return np.asarray(picture.convert("RGBA"))


@st.composite
def masks(draw: st.DrawFn, width: int, height: int) -> Picture:
    """Strokes and blots, hard or gray."""
    mask = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(mask)
    for _ in range(draw(st.integers(0, 3))):
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        radius, value = draw(st.integers(0, 9)), draw(st.sampled_from([255, 255, 128, 1]))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)
    return mask


@QUICK
@given(data=st.data())
def test_black_stays(engine: Engine, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(9, 48), "width"), data.draw(st.integers(9, 48), "height")
    mode = data.draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P"]), "mode")
    only = data.draw(st.booleans(), "only masked")
    blur = data.draw(st.sampled_from([0, 0, 2, 5]), "blur")
    source, mask = scene(width, height, mode), data.draw(masks(width, height), "mask")
    soft = data.draw(st.sampled_from([None, None, SoftInpainting()]), "soft")
    invert = data.draw(st.booleans(), "invert")
    request = asked(
        images=(source,),
        mask=mask,
        only_masked=only,
        mask_blur_x=blur,
        mask_blur_y=blur,
        invert_mask=invert,
        soft_inpainting=soft,
        round_mask=soft is None,
        padding=data.draw(st.integers(0, 8), "padding"),
        masked_content=data.draw(st.sampled_from(list(MaskedContent)), "content"),
        resize_mode=data.draw(st.sampled_from(list(ResizeMode)), "resize"),
        width=24 if only else width,
        height=32 if only else height,
        strength=data.draw(st.sampled_from([0.0, 0.5, 1.0]), "strength"),
        sampler=data.draw(st.sampled_from(["Euler", "DDIM", "DPM++ 2M SDE"]), "sampler"),
        color_correction=data.draw(st.booleans(), "correction"),
        steps=2,
    )
    result = engine.paint(request)
    found = result.images[0]
    assert found.size == (width, height)
    gray = np.asarray(mask)
    black = (gray == 255) if invert else (gray == 0)
    if blur:
        overlay = result.plan.mask.overlay if result.plan.mask else Image.new("L", source.size)
        black = np.asarray(overlay.convert("L")) == 0
    assert np.array_equal(rgba(found)[black], rgba(source)[black])
    if source.has_transparency_data:
        assert np.array_equal(rgba(found)[..., 3], rgba(source)[..., 3])


@QUICK
@given(
    size=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    out=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    mode=st.sampled_from(list(ResizeMode)),
    masked=st.booleans(),
)
def test_sizes_are_exactly_as_asked(
    engine: Engine, size: tuple[int, int], out: tuple[int, int], mode: ResizeMode, masked: bool
) -> None:
    mask = box(*size, (2, 2, 6, 6)) if masked else None
    request = asked(images=(scene(*size),), mask=mask, width=out[0], height=out[1], resize_mode=mode, steps=1)
    assert engine.paint(request).images[0].size == out


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("only", [False, True])
def test_a_blank_mask_is_the_identity(engine: Engine, mode: str, only: bool) -> None:
    source = scene(33, 30, mode)
    result = engine.paint(asked(images=(source,), mask=box(33, 30, (0, 0, 0, 0)), only_masked=only))
    assert pixels(result.images[0]) == pixels(source)
    assert any("mask" in each for each in result.warnings)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("mask", [None, box(33, 30)], ids=["plain", "mask"])
def test_strength_zero_is_the_identity(engine: Engine, mode: str, mask: Picture | None) -> None:
    source = scene(33, 30, mode)
    result = engine.paint(asked(images=(source,), strength=0, mask=mask, batch_size=2, iterations=2))
    assert [pixels(each) for each in result.images] == [pixels(source)] * 4


def test_what_an_unchanged_picture_carries_is_kept(engine: Engine) -> None:
    source = scene(33, 30)
    source.info.update({"icc_profile": b"profile", "Comment": "mine"})
    source.getexif()[0x010E] = "described"
    found = engine.paint(asked(images=(source,), strength=0)).images[0]
    assert found.info["icc_profile"] == b"profile"
    assert found.getexif()[0x010E] == "described"


@pytest.mark.parametrize("masked", [False, True])
def test_the_profile_survives_painting(engine: Engine, masked: bool) -> None:
    """A wide-gamut picture without its profile is shown in other colours, outside the mask too."""
    source = scene(33, 30)
    source.info["icc_profile"] = b"profile"
    found = engine.paint(asked(images=(source,), mask=box(33, 30) if masked else None, steps=1)).images[0]
    assert found.info.get("icc_profile") == b"profile"


@pytest.mark.parametrize("only", [pytest.param(False, marks=pytest.mark.long), True])
def test_fifty_passes_drift_nowhere(engine: Engine, only: bool) -> None:
    source = scene(36, 30, "RGBA")
    mask = box(36, 30, (12, 12, 20, 18))
    size = {"width": 16, "height": 16} if only else {}
    current = source
    for seed in range(50):
        current = engine.paint(
            asked(images=(current,), mask=mask, only_masked=only, padding=3, steps=2, seed=seed, **size)
        ).images[0]
    # The blur's rim belongs to what is repainted; 10 pixels is where a blur of 4 ends.
    rim = np.asarray(box(36, 30, (12 - 10, 12 - 10, 20 + 10, 18 + 10))) > 0
    assert np.array_equal(rgba(current)[~rim], rgba(source)[~rim])
    assert np.array_equal(rgba(current)[..., 3], rgba(source)[..., 3])
    inside = np.asarray(mask) > 0
    assert not np.array_equal(rgba(current)[inside], rgba(source)[inside])


def test_fifty_hard_passes(engine: Engine) -> None:
    source, mask = scene(17, 20), box(17, 20, (4, 4, 9, 13))
    current = source
    for seed in range(50):
        request = asked(images=(current,), mask=mask, mask_blur_x=0, mask_blur_y=0, steps=2, seed=seed)
        current = engine.paint(request).images[0]
    black = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(current)[black], np.asarray(source)[black])


def test_the_reference_keeps_the_black_part_too(engine: Engine) -> None:  # OUT-2
    source, mask = scene(), box()
    request = asked(images=(source,), mask=mask, mask_blur_x=0, mask_blur_y=0)
    found = engine.paint(request, Settings.reference()).images[0]
    black = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(found)[black], np.asarray(source)[black])
