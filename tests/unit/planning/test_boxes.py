"""What of a source is painted, told from the box round its mask: the same as a plan of the whole picture finds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from overpaint.models.families import SD1_SPEC
from overpaint.pixels.mask import Box
from overpaint.planning.boxes import boxed
from overpaint.planning.plan import plan
from overpaint.planning.plans import Plan
from overpaint.request import PaintRequest
from tests.unit.toy_job import SANE, asked, box_mask

FACTOR = SD1_SPEC.latent.factor
Job = tuple[tuple[int, int], Box, dict[str, Any]]


@st.composite
def jobs(draw: st.DrawFn, blurs: st.SearchStrategy[int]) -> Job:
    """A source's size, a box in it, and how it is to be painted."""
    size = draw(st.integers(16, 160)), draw(st.integers(16, 160))
    left, top = draw(st.integers(0, size[0] - 4)), draw(st.integers(0, size[1] - 4))
    box = (left, top, draw(st.integers(left + 4, size[0])), draw(st.integers(top + 4, size[1])))
    sides = st.none() | st.integers(8, 200)
    fields = {
        "padding": draw(st.integers(0, 40)),
        "mask_blur_x": draw(blurs),
        "mask_blur_y": draw(blurs),
        "width": draw(sides),
        "height": draw(sides),
    }
    return size, box, fields


def told(job: Job) -> tuple[Box, tuple[int, int]]:
    size, box, _ = job
    crop, geometry = boxed(requested(job), size, box, SD1_SPEC.native_size, SANE, FACTOR)
    return crop, (geometry.width, geometry.height)


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def requested(job: Job) -> PaintRequest:
    size, box, fields = job
    given_fields = {name: value for name, value in fields.items() if value is not None}
    source = Image.new("RGB", size)
    return asked(images=(source,), mask=box_mask(*size, box), only_masked=True, **given_fields)


def whole_plan(job: Job) -> Plan:
    return plan(requested(job), SANE, SD1_SPEC)


@given(jobs(blurs=st.just(0)))
def test_with_a_hard_edge_it_is_the_plans_own(job: Job) -> None:
    decided = whole_plan(job)
    assert decided.mask is not None
    assert told(job) == (decided.mask.crop, (decided.geometry.width, decided.geometry.height))


@given(jobs(blurs=st.integers(0, 6)))
def test_with_a_soft_edge_it_holds_the_plans_own(job: Job) -> None:
    """The blur's last grays may round to nothing, so the plan may see a smaller box, and never a larger one."""
    size, box, fields = job
    fields |= {"width": size[0], "height": size[1]}  # a shape in which no crop is widened but to the source's own
    crop, _ = told(job)
    decided = whole_plan(job).mask
    assert decided is not None and decided.crop is not None
    assert crop[0] <= box[0] and crop[1] <= box[1] and crop[2] >= box[2] and crop[3] >= box[3]
    assert min(crop) >= 0 and crop[2] <= size[0] and crop[3] <= size[1]
    assert area(crop) >= area(decided.crop)


@given(jobs(blurs=st.integers(0, 6)))
def test_more_padding_never_shows_less(job: Job) -> None:
    size, box, fields = job
    fields |= {"width": 64, "height": 64}
    before, _ = told(job)
    after, _ = told((size, box, {**fields, "padding": fields["padding"] + 8}))
    assert area(after) >= area(before)
