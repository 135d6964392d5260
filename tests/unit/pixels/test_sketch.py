from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from overpaint.errors import RequestError
from overpaint.pixels.sketch import inpaint_sketch_source, mask_from_sketch


def drawn() -> tuple[Image.Image, Image.Image]:
    original = Image.new("RGB", (32, 24), (100, 100, 100))
    sketch = original.copy()
    sketch.paste((100, 100, 101), (8, 6, 16, 12))
    return original, sketch


def test_the_mask_is_where_any_channel_differs() -> None:  # UI-2
    mask = mask_from_sketch(*drawn())
    assert mask.mode == "L"
    assert mask.getbbox() == (8, 6, 16, 12)
    assert np.unique(np.asarray(mask)).tolist() == [0, 255]


@pytest.mark.parametrize(("alpha", "level"), [(0, 255), (50, 127), (100, 0)])
def test_mask_alpha_darkens(alpha: float, level: int) -> None:  # UI-2
    assert mask_from_sketch(*drawn(), alpha).getextrema() == (0, level)


def test_start_is_the_blurred_drawing() -> None:  # UI-2
    original, _ = drawn()
    sketch = original.copy()
    sketch.paste((255, 0, 0), (8, 6, 24, 18))
    mask = mask_from_sketch(original, sketch)
    blur = ImageFilter.GaussianBlur(3)
    start = inpaint_sketch_source(original, sketch, mask, 3)
    assert start.tobytes() == Image.composite(sketch.filter(blur), original, mask.filter(blur)).tobytes()
    assert inpaint_sketch_source(original, sketch, mask, 0).tobytes() == sketch.tobytes()


def test_another_size_is_refused() -> None:
    with pytest.raises(RequestError, match=r"sketch=\(4, 4\): draw on a copy of the original, 32x24"):
        mask_from_sketch(drawn()[0], Image.new("RGB", (4, 4)))
