"""CFG-7, CFG-8: which texts a call sees, and how those of unequal length are made equal."""

from __future__ import annotations

import torch

from overpaint.painting.texts import ImageCond, ScheduledCond, TextCond, Texts
from overpaint.settings import Settings
from overpaint.text.prompt import schedule
from tests.unit.toy_job import REFERENCE, SANE


def cond(value: float, tokens: int) -> TextCond:
    return TextCond(torch.full((tokens, 3), value), torch.full((2,), value))


def steady(value: float, tokens: int = 4) -> ScheduledCond:
    return ScheduledCond(schedule("x", 4, quirks=SANE.quirks), (cond(value, tokens),))


def texts(*lengths: int, negative: int = 4, settings: Settings = SANE, empty: TextCond | None = None) -> Texts:
    parts = tuple((steady(i + 1.0, tokens), 0.5) for i, tokens in enumerate(lengths))
    return Texts((ImageCond(parts, steady(-1.0, negative)),), settings, empty)


def shapes(conds: list[TextCond]) -> list[int]:
    return [each.context.shape[0] for each in conds]


def test_every_sub_prompt_belongs_to_its_picture() -> None:
    two = ImageCond(((steady(1), 1.0), (steady(2), 0.25)), steady(-1))
    made = Texts((two, ImageCond(((steady(3), 2.0),), steady(-2))), SANE)
    assert (made.owners, made.weights) == ([0, 0, 1], [1.0, 0.25, 2.0])
    assert [float(each.context[0, 0]) for each in made.positive(0)] == [1, 2, 3]
    assert [float(each.context[0, 0]) for each in made.negative(0)] == [-1, -2]


def test_a_text_changes_when_its_step_has_come() -> None:  # SCHED
    changing = ScheduledCond(schedule("[a:b:2]", 4, quirks=SANE.quirks), (cond(1.0, 4), cond(2.0, 4)))
    seen = [float(changing.at(call, SANE.quirks).context[0, 0]) for call in range(4)]
    assert seen == sorted(seen) and set(seen) == {1.0, 2.0}


def test_lengths_stay_as_they_are_unless_padding_is_asked_for() -> None:
    made = texts(4, 8, negative=12)
    assert (shapes(made.positive(0)), shapes(made.negative(0)), made.notes(0)) == ([4, 8], [12], {})


def test_the_reference_repeats_the_last_vector() -> None:  # CFG-8
    longest = texts(4, 8, negative=12, settings=REFERENCE).positive(0)
    assert shapes(longest) == [8, 8]
    assert torch.equal(longest[0].context[4:], longest[0].context[3:4].expand(4, -1))


def test_whole_copies_of_the_empty_text_pad_the_shorter_side() -> None:  # CFG-7
    settings, empty = SANE.with_changes({"pad_cond_uncond": True}), cond(9.0, 4)
    made = texts(4, negative=12, settings=settings, empty=empty)
    padded = made.positive(0)[0]
    assert padded.context[:, 0].tolist() == [1.0] * 4 + [9.0] * 8 and padded.vector is not None
    assert shapes(made.negative(0)) == [12] and made.notes(0) == {"Pad conds": True}
    assert shapes(texts(12, negative=4, settings=settings, empty=empty).negative(0)) == [12]


def test_the_older_padding_cuts_and_repeats_the_negative() -> None:  # CFG-7
    settings = SANE.with_changes({"pad_cond_uncond_v0": True})
    assert shapes(texts(4, negative=12, settings=settings).negative(0)) == [4]
    assert shapes(texts(12, negative=4, settings=settings).negative(0)) == [12]
    assert texts(12, settings=settings).notes(0) == {"Pad conds v0": True}
