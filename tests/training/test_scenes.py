"""The generator: the same picture for the same seed, and captions that say only what is there."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from training.scenes.art import DrawnArt, body_colour, draw, repainted
from training.scenes.captions import caption, phrases, statement
from training.scenes.labels import PLACES_AND_PLAIN, PLAIN, Item, Labels, draw_labels
from training.scenes.light import TIMES
from training.scenes.objects import COLOURS, THINGS
from training.scenes.places import BACKDROPS, PLACES
from training.scenes.scene import confetti, read_labels, render
from training.scenes.styles import STYLES

ART = DrawnArt()
SIZE = 32
_TELLTALE = {
    "sunset": ("sunset", "dusk", "golden hour", "evening sun"),
    "night": ("night", "in the dark"),
    "day": ("sunny", "daylight", "during the day"),
    "overcast": ("overcast", "cloudy", "gray sky"),
}
# Phrases whose colour is no paint: names, places, skies.
_FIXED = ("red fox", "green forest", "green field", "green grass", "gray sky", "black and white")


def test_a_seed_is_a_picture() -> None:
    first, again, other = (render((1, i), SIZE, ART) for i in (4, 4, 5))
    assert np.array_equal(first.pixels, again.pixels)
    assert first.labels == again.labels and first.captions == again.captions and first.boxes == again.boxes
    assert not np.array_equal(first.pixels, other.pixels)
    assert np.array_equal(confetti((2, 3), SIZE, ART), confetti((2, 3), SIZE, ART))


def test_a_record_brings_the_labels_back() -> None:
    picture = render((1, 7), SIZE, ART)
    assert read_labels(json.loads(picture.record())) == picture.labels


@pytest.mark.parametrize("place", PLACES_AND_PLAIN)
def test_every_place_can_be_painted(place: str) -> None:
    for time, weather in zip(TIMES, ("snow", "rain", "fog", "snowfall"), strict=True):
        labels = Labels(place=place, time=time, weather=weather if place in PLACES else None, backdrop="blue")
        pixels = render((1, 1), SIZE, ART, labels).pixels
        assert pixels.shape == (SIZE, SIZE, 3) and pixels.std() > 1


@pytest.mark.parametrize("style", STYLES)
def test_every_style_can_be_painted(style: str) -> None:
    labels = Labels(place="meadow", style=style, items=(Item("sports car", "red"),))
    picture = render((1, 2), 64, ART, labels)
    assert picture.pixels.std() > 5
    left, top, right, bottom = picture.boxes[0]
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def test_nights_are_dark_and_paint_shows() -> None:
    day, night = (render((1, 3), SIZE, ART, Labels(place="meadow", time=time)).pixels for time in ("day", "night"))
    assert night.mean() < 0.5 * day.mean()
    labels = Labels(place=PLAIN, backdrop="white", items=(Item("sports car", "red"),))
    red, green, blue = render((1, 3), SIZE, ART, labels).pixels.reshape(-1, 3).astype(float).T
    assert ((red > 1.8 * green) & (red > 1.8 * blue)).mean() > 0.05


def test_captions_say_only_what_is_there() -> None:
    for seed in range(400):
        rng = np.random.default_rng((9, seed))
        labels = draw_labels(rng)
        text = caption(labels, rng)
        for time, words in _TELLTALE.items():
            if any(re.search(rf"\b{word}\b", text) for word in words):
                assert labels.time == time, text
        bare = text
        for fixed in _FIXED:
            bare = bare.replace(fixed, "")
        known = {item.paint for item in labels.items} | {labels.backdrop}
        named = {paint for paint in (*COLOURS, *BACKDROPS) if re.search(rf"\b{paint}\b", bare)}
        assert named <= known, text
        things = {name for name, thing in THINGS.items() if re.search(rf"\b{thing.words[0]}\b", bare)}
        allowed = {item.name for item in labels.items}
        allowed |= {name for name in THINGS if any(name in held for held in allowed)}  # a sports car is a car
        assert things <= allowed, text


def test_a_statement_says_everything() -> None:
    labels = Labels(place="road", time="night", weather="rain", style="watercolor", items=(Item("car", "red"),))
    assert statement(labels) == "a watercolor painting of a red car on a road in the dark in the rain"
    plain = Labels(place=PLAIN, backdrop="orange", items=(Item("apple", "green"),))
    assert statement(plain) == "a photo of a green apple on an orange background"


def test_phrases_are_many_and_different() -> None:
    found = phrases()
    assert len(found) > 150 and len(set(found)) == len(found)


def test_repainting_moves_only_the_body() -> None:
    car = draw("sports car", "red", 0)
    blue = np.asarray(repainted(car, 0.99, "blue"), dtype=float)
    before = np.asarray(car, dtype=float)
    body = (before[..., 0] > 150) & (before[..., 1] < 60) & (before[..., 3] > 250)
    assert blue[body][:, 2].mean() > 2 * blue[body][:, 0].mean()
    tyres = (before[..., :3].max(axis=-1) < 40) & (before[..., 3] > 250)
    assert np.abs(blue[tyres] - before[tyres]).mean() < 1
    assert all(body_colour(name).shape == (3,) for name in COLOURS)
