"""Which part of a canvas the denoiser sees, and why not where it sees all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.errors import SettingError
from overpaint.models.families import SD1_SPEC
from overpaint.planning.plan import plan
from overpaint.planning.plans import Plan
from overpaint.planning.window import LatentWindow, _grown
from overpaint.request import SoftInpainting
from tests.flow_toys import ZIMAGE
from tests.unit.toy_job import SANE, asked, box_mask, noisy_picture

SPEC = replace(SD1_SPEC, native_size=128)  # so that pictures may be small


def made(option: str = "auto", box: tuple[int, int, int, int] = (120, 120, 136, 136), **fields: Any) -> Plan:
    given = {"images": (noisy_picture(256, 256),), "mask": box_mask(256, 256, box), "width": 256, "height": 256}
    overrides = {"inpaint_window": option, **fields.pop("overrides", {})}
    return plan(asked(**{**given, "mask_blur_x": 0, "mask_blur_y": 0, "overrides": overrides, **fields}), SANE, SPEC)


def test_off_is_the_default() -> None:
    assert plan(asked(mask=box_mask(32, 32, (8, 8, 20, 20)))).window is None
    assert made("off").window is None and made("off").warnings == ()


def test_by_rule_a_window_has_surroundings_and_a_least_size() -> None:
    # 2 cells of mask, 2 on each side, and no less than half of the native size: 8 cells, which the U-Net halves thrice
    assert made().window == LatentWindow(12, 12, 20, 20)
    assert made().notes["Inpaint window"] == "auto"
    assert made(box=(0, 240, 16, 256)).window == LatentWindow(0, 24, 8, 32)
    wide = made(box=(40, 120, 200, 136)).window
    assert wide == LatentWindow(3, 12, 27, 20)


def test_a_number_is_the_surroundings_in_pixels() -> None:
    assert made("0").window == LatentWindow(12, 12, 20, 20)
    assert made("50").window == LatentWindow(8, 8, 24, 24)  # 2 cells and 7 on each side, made a multiple of 8
    assert made("4096").window is None


def test_most_of_a_canvas_is_all_of_it() -> None:
    assert made(box=(16, 16, 240, 240)).window is None
    assert made("0", box=(16, 16, 240, 200)).window == LatentWindow(0, 2, 32, 26)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"mask": None}, "no mask"),
        ({"only_masked": True}, "only the masked area"),
        ({"soft_inpainting": SoftInpainting()}, "soft inpainting"),
        ({"tiling": True}, "edges meet"),
    ],
)
def test_where_there_is_none_a_warning_says_why(fields: dict[str, Any], why: str) -> None:
    decided = made(**fields)
    assert decided.window is None and "Inpaint window" not in decided.notes
    assert [each for each in decided.warnings if each.startswith("inpaint_window: ") and why in each]


def test_a_model_without_a_u_net_sees_all() -> None:
    request = asked(mask=box_mask(32, 32, (8, 8, 20, 20)), overrides={"inpaint_window": "auto"})
    decided = plan(request, SANE, replace(SPEC, denoiser=ZIMAGE, title="Z-Image"))
    assert decided.window is None and any("no U-Net" in each for each in decided.warnings)


@pytest.mark.parametrize("option", ["on", "-1", "4097", "1.5", "\u0663", ""])
def test_what_cannot_be(option: str) -> None:
    with pytest.raises(SettingError, match=r"^inpaint_window=.*give off, auto"):
        made(option)


@given(st.data())
def test_a_span_holds_what_it_has_to(data: st.DataObject) -> None:
    side = data.draw(st.integers(1, 80))
    first = data.draw(st.integers(0, side - 1))
    last = data.draw(st.integers(first + 1, side))
    around, least, unit = (data.draw(st.integers(low, high)) for low, high in ((0, 20), (0, 40), (1, 8)))
    start, end = _grown(first, last, side, around=around, least=least, unit=unit)
    assert 0 <= start <= max(0, first - around) and min(side, last + around) <= end <= side
    assert (start, end) == (0, side) or ((end - start) % unit == 0 and end - start >= least)
