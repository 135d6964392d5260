"""The seam of an inpainted picture: what it measures, and that mending stays inside the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint import masks
from overpaint.finish import finish
from overpaint.pixels.composite import composite_exact
from overpaint.pixels.mask import blur_mask
from overpaint.pixels.seams import Seam, best, measure_seam, mended
from tests.unit.toy_job import REFERENCE, SANE, planned

SIZE = (160, 120)
MASK = masks.ellipse(SIZE, (40, 30, 120, 90))
ALPHA = blur_mask(MASK, 4, 4, never_darker=True)


def scene(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    small = np.random.default_rng(seed).integers(60, 200, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def shifted(picture: Image.Image, *levels: int) -> Image.Image:
    return Image.fromarray((np.asarray(picture).astype(int) + levels).clip(0, 255).astype(np.uint8))


def seam_of(source: Image.Image, painted: Image.Image, alpha: Image.Image = ALPHA) -> Seam:
    found = measure_seam(source, composite_exact(source, source, painted, alpha), alpha)
    assert found is not None
    return found


def test_a_painting_that_is_the_source_has_no_seam() -> None:
    found = seam_of(scene(), scene())
    assert (found.step, found.shift, found.gradient_jump, found.outside) == (0, 0, 0, 0)
    assert found.coverage == pytest.approx(100 * (np.asarray(ALPHA) > 0).mean(), abs=0.01)


@pytest.mark.parametrize(("gray", "other"), [(128, 148), (60, 90)])
def test_a_step_between_flat_colours_is_their_distance(gray: int, other: int) -> None:
    """Against OpenCV's Lab."""
    cv2 = pytest.importorskip("cv2")

    flat, painted = (Image.new("RGB", SIZE, (each,) * 3) for each in (gray, other))
    found = seam_of(flat, painted, MASK)
    lab = [cv2.cvtColor(np.full((1, 1, 3), each / 255, np.float32), cv2.COLOR_RGB2LAB)[0, 0] for each in (gray, other)]
    delta = float(np.linalg.norm(lab[0] - lab[1]))
    assert found.step == pytest.approx(delta, abs=0.5) and found.step_p95 == pytest.approx(delta, abs=0.5)
    assert found.source_step == 0 and found.shift == pytest.approx(delta, abs=0.5) and found.gradient_jump > 1


def test_more_shift_is_more_seam() -> None:
    steps = [seam_of(scene(), shifted(scene(), each, 0, -each)).step for each in (0, 5, 10, 20)]
    assert steps == sorted(steps) and steps[-1] > 4 * max(steps[1], 0.1)


def test_a_mask_without_an_edge_has_no_seam() -> None:
    source = scene()
    assert measure_seam(source, source, masks.nothing(SIZE)) is None
    assert measure_seam(source, source, masks.everything(SIZE)) is None


def test_mending_takes_the_seam_away_and_leaves_the_middle() -> None:
    size = (400, 300)
    source, alpha = scene(0, size), blur_mask(masks.ellipse(size, (60, 40, 340, 260)), 4, 4, never_darker=True)
    painted = shifted(source, 14, -6, 9)
    plain = seam_of(source, painted, alpha)
    found = dict(mended(source, painted, alpha))
    assert set(found) == {"colour", "bands"}
    for each in found.values():
        assert seam_of(source, each, alpha).step < 0.4 * plain.step
    middle = np.s_[148:152, 198:202]
    moved = np.abs(np.asarray(found["colour"])[middle].astype(int) - np.asarray(painted)[middle])
    assert moved.mean() < 2


def test_new_things_keep_their_colours() -> None:
    """What is painted inside is no seam: only what is off outside, too, is mended."""
    source, painted = Image.new("RGB", SIZE, (90, 140, 200)), Image.new("RGB", SIZE, (90, 140, 200))
    painted.paste((200, 40, 40), mask=masks.ellipse(SIZE, (44, 34, 116, 86)))
    assert mended(source, painted, ALPHA) == []
    ways = dict(mended(source, shifted(painted, 8, 8, 8), ALPHA))
    assert set(ways) == {"colour"}


def test_the_least_seam_is_chosen_if_it_is_clearly_less() -> None:
    def seam(step: float) -> Seam:
        return Seam(step, 2 * step, 0, 0, 0, 10)

    assert best(seam(5), []) is None
    assert best(seam(5), [seam(4.9)]) is None
    assert best(seam(5), [seam(3), seam(2), seam(4)]) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_outside_changes_whatever_is_mended(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(4, 90)), int(rng.integers(4, 90))
    source = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    painted = shifted(source, *(int(each) for each in rng.integers(-60, 60, 3)))
    mask = Image.fromarray((rng.random((size[1], size[0])) < 0.1).astype(np.uint8) * np.uint8(255))
    alpha = masks.grow(mask, float(rng.integers(0, 12)))
    outside = np.asarray(alpha) == 0
    for _, each in mended(source, painted, alpha):
        result = composite_exact(source, source, each, alpha)
        assert (np.asarray(result)[outside] == np.asarray(source)[outside]).all()
    measure_seam(source, painted, alpha)


FIELDS: dict[str, Any] = {"images": (scene(),), "mask": MASK, "width": SIZE[0], "height": SIZE[1]}


def decoded(picture: Image.Image) -> Any:
    return np.asarray(picture)


def test_every_inpainted_result_tells_its_seam() -> None:
    painted = decoded(shifted(scene(), 14, -6, 9))
    for settings_ in (SANE, REFERENCE):
        found = finish(planned(settings_, **FIELDS, blend="plain"), 0, painted).seam
        assert found is not None and found.step > 1 and found.blend == "plain" and found.outside == 0
    assert finish(planned(images=(scene(),)), 0, painted).seam is None


@pytest.mark.parametrize("crop", [{}, {"only_masked": True, "padding": 24}])
def test_auto_mends_and_nothing_outside_changes(crop: dict[str, Any]) -> None:
    fields = {**FIELDS, **crop}
    if crop:
        fields |= {"width": 128, "height": 128}
    decided = planned(**fields, blend="auto")
    painted = decoded(shifted(decided.canvases[0].encoded, 14, -6, 9))
    plain, auto = finish(planned(**fields, blend="plain"), 0, painted), finish(decided, 0, painted)
    assert auto.seam is not None and plain.seam is not None
    assert auto.seam.blend in ("colour", "bands") and auto.seam.step < 0.5 * plain.seam.step
    assert decided.mask is not None
    outside = np.asarray(decided.mask.overlay.convert("L")) == 0
    assert (np.asarray(auto.image)[outside] == np.asarray(scene())[outside]).all()


def test_the_reference_is_never_mended() -> None:
    painted = decoded(shifted(scene(), 14, -6, 9))
    results = [finish(planned(REFERENCE, **FIELDS, blend=each), 0, painted) for each in ("plain", "auto")]
    assert results[0].image.tobytes() == results[1].image.tobytes()
