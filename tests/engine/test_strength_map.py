"""Strength maps through whole jobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.engine import Engine
from overpaint.files.keeping import Origins
from overpaint.files.recipe import Recipe
from overpaint.painted import PaintedPicture, with_stories
from tests.engine.conftest import asked, pixels, scene

SOURCE = scene(64, 48)


def values(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(picture.convert("RGB")).astype(np.int64)


def gray(*values: int) -> Image.Image:
    row = np.repeat(np.array(values, np.uint8), 64 // len(values))
    return Image.fromarray(np.tile(row, (48, 1)))


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DDIM", "DPM++ 2M SDE"])
def test_a_map_of_one_value_is_that_plain_job_to_the_byte(engine: Engine, sampler: str) -> None:
    for value in (255, 102):
        mapped = engine.paint(asked(images=(SOURCE,), sampler=sampler, strength=0.8, strength_map=gray(value)))
        plain = engine.paint(asked(images=(SOURCE,), sampler=sampler, strength=0.8 * value / 255))
        assert pixels(mapped.images[0]) == pixels(plain.images[0])


def test_black_stays_byte_for_byte_and_white_changes(engine: Engine) -> None:
    painted = engine.paint(asked(images=(SOURCE,), strength_map=gray(255, 128, 0, 0), mask_blur_x=0, mask_blur_y=0))
    change = np.abs(values(painted.images[0]) - values(SOURCE))
    assert change[:, 32:].max() == 0 and change[:, :16].mean() > change[:, 16:32].mean() > 0
    assert "Strength map: True" in painted.infotexts[0]


def test_more_strength_changes_no_less(engine: Engine) -> None:
    """The mean over seeds, for noise has its moods."""
    changes = []
    for seed in range(4):
        painted = engine.paint(
            asked(images=(SOURCE,), steps=10, strength=1.0, seed=seed, strength_map=gray(20, 80, 160, 255))
        )
        off = np.abs(values(painted.images[0]) - values(SOURCE))
        changes.append([off[:, i * 16 : i * 16 + 16].mean() for i in range(4)])
    means = np.mean(changes, axis=0)
    assert (np.diff(means) > 0).all(), means


def test_a_recipe_carries_the_map(engine: Engine) -> None:
    processed = engine.paint(asked(images=(SOURCE,), strength_map=gray(255, 90), strength=0.7))
    (picture,) = with_stories(processed, Origins()).images
    assert isinstance(picture, PaintedPicture)
    recipe = Recipe.from_json(picture.recipe)
    request = recipe.request_for(SOURCE, {"strength_map": gray(255, 90)})
    assert pixels(engine.paint(request).images[0]) == pixels(picture)
    assert isinstance(recipe.strength_map, str) and recipe.strength_map.startswith("data:image/png")


def test_several_pictures_and_a_mask_beside_the_map(engine: Engine) -> None:
    mask = Image.new("L", (64, 48))
    mask.paste(255, (8, 8, 56, 40))
    fields = {"images": (SOURCE,), "mask": mask, "strength_map": gray(255, 60), "mask_blur_x": 0, "mask_blur_y": 0}
    several = engine.paint(asked(**fields, batch_size=2, seed=5, exact=True))
    alone = engine.paint(asked(**fields, seed=6))
    assert pixels(several.images[1]) == pixels(alone.images[0])
    outside = np.asarray(mask) == 0
    assert (values(alone.images[0])[outside] == values(SOURCE)[outside]).all()
