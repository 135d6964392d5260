"""A plan as a value: it is pickled whole, and says by itself which source serves which place."""

from __future__ import annotations

import pickle
from types import MappingProxyType

import numpy as np

from overpaint.planning.plan import plan
from overpaint.request import Hires, Txt2ImgRequest
from tests.unit.toy_job import SANE, noisy_picture, planned


def test_a_plan_survives_a_pickle() -> None:
    made = planned(mask=noisy_picture(32, 32, "L"), only_masked=True)
    again = pickle.loads(pickle.dumps(made))
    assert again.images == made.images and again.batches == made.batches and again.geometry == made.geometry
    assert again.notes == made.notes and isinstance(again.notes, MappingProxyType)
    assert np.array_equal(again.mask.latent, made.mask.latent) if made.mask is not None else False
    assert again.canvases[0].encoded.tobytes() == made.canvases[0].encoded.tobytes()


def test_sources_serve_their_places_in_order() -> None:
    first, second = noisy_picture(32, 32, seed=1), noisy_picture(32, 32, seed=2)
    two = planned(images=(first, second), batch_size=2, iterations=2)
    assert two.places == 2
    assert [two.canvas_of(each.place).source.tobytes() for each in two.images] == [
        first.tobytes(),
        second.tobytes(),
        first.tobytes(),
        second.tobytes(),
    ]
    one = planned(batch_size=3)
    assert one.places == 3 and one.canvas_of(2) is one.canvas_of(0)


def test_strength_is_that_of_what_is_changed() -> None:
    assert planned(strength=0.3).strength == 0.3
    assert plan(Txt2ImgRequest(width=64, height=64), SANE).strength is None
    assert plan(Txt2ImgRequest(width=64, height=64, hires=Hires(strength=0.4)), SANE).strength == 0.4
