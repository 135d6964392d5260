"""UI-1 to UI-5, BATCH: the six ways in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.errors import OverpaintError, OverpaintWarning, RequestError
from overpaint.request import PaintRequest
from overpaint.ways_in import PageInputs, WayIn, mask_for, pictures_below, requests_for
from tests.unit.toy_job import box_mask, noisy_picture

PICTURE = noisy_picture(20, 16)
MASK = box_mask(20, 16, (2, 2, 9, 9))


def only(entry: PageInputs, **fields: Any) -> PaintRequest:
    ((_, request),) = requests_for(entry, **fields)
    return request


def test_ways_have_the_references_numbers() -> None:  # UI-1
    assert [each.value for each in WayIn] == [0, 1, 2, 3, 4, 5]


def test_plain() -> None:
    request = only(PageInputs(way=WayIn.IMG2IMG, image=PICTURE, mask=MASK), prompt="p", seed=3)
    assert request.images == (PICTURE,)
    assert request.mask is None
    assert (request.prompt, request.seed) == ("p", 3)


def test_a_sketch_is_the_picture() -> None:
    sketch = noisy_picture(20, 16, seed=1)
    request = only(PageInputs(way=WayIn.SKETCH, image=PICTURE, sketch=sketch))
    assert request.images == (sketch,)
    assert request.mask is None


def test_a_drawn_mask_is_binary() -> None:  # UI-1, MASK-1
    drawn = Image.new("RGBA", (20, 16), (0, 0, 0, 0))
    drawn.paste((9, 9, 9, 200), (2, 2, 9, 9))
    drawn.paste((9, 9, 9, 90), (9, 9, 15, 15))
    mask = only(PageInputs(way=WayIn.INPAINT, image=PICTURE, mask=drawn)).mask
    assert mask is not None
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), np.asarray(MASK))


def test_an_uploaded_mask_is_left_as_it_is() -> None:
    request = only(PageInputs(way=WayIn.INPAINT_UPLOAD, image=PICTURE, mask=MASK))
    assert request.mask is MASK


def test_inpaint_sketch() -> None:  # UI-2
    sketch = PICTURE.copy()
    sketch.paste((255, 0, 0), (2, 2, 9, 9))
    request = only(PageInputs(way=WayIn.INPAINT_SKETCH, image=PICTURE, sketch=sketch), mask_blur_x=0, mask_blur_y=0)
    assert request.mask is not None
    assert np.array_equal(np.asarray(request.mask), np.asarray(MASK))
    assert np.array_equal(np.asarray(request.images[0]), np.asarray(sketch))
    faint = only(PageInputs(way=WayIn.INPAINT_SKETCH, image=PICTURE, sketch=sketch, mask_alpha=40), mask_blur_x=0).mask
    assert faint is not None
    assert faint.getextrema() == (0, 153)


@pytest.mark.parametrize(
    ("way", "given", "missing"),
    [
        (WayIn.IMG2IMG, {}, "image"),
        (WayIn.SKETCH, {"image": PICTURE}, "sketch"),
        (WayIn.INPAINT, {"image": PICTURE}, "mask"),
        (WayIn.INPAINT_SKETCH, {"image": PICTURE}, "sketch"),
        (WayIn.INPAINT_UPLOAD, {"image": PICTURE}, "mask"),
        (WayIn.BATCH, {}, "folder"),
    ],
)
def test_what_is_missing_is_named(way: WayIn, given: dict[str, Any], missing: str) -> None:
    with pytest.raises(RequestError, match=f"{missing}="):
        only(PageInputs(way=way, **given))


def test_a_sketch_of_another_size() -> None:
    with pytest.raises(RequestError, match="20x16"):
        only(PageInputs(way=WayIn.INPAINT_SKETCH, image=PICTURE, sketch=noisy_picture(8, 8)))


def test_resize_by() -> None:  # UI-3
    request = only(PageInputs(way=WayIn.IMG2IMG, image=PICTURE, scale_by=1.27), width=512)
    assert (request.width, request.height) == (25, 20)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e9])
def test_resize_by_nonsense(scale: float) -> None:
    with pytest.raises(RequestError, match=r"scale_by|width"):
        only(PageInputs(way=WayIn.IMG2IMG, image=PICTURE, scale_by=scale))


def test_strength_outside_its_range() -> None:  # UI-4
    with pytest.raises(RequestError, match=r"strength=1\.5"):
        only(PageInputs(way=WayIn.IMG2IMG, image=PICTURE), strength=1.5)


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    below = tmp_path / "in" / "sub"
    below.mkdir(parents=True)
    for name in ("p10.png", "p2.PNG", "sub/p1.jpg", "q.webp"):
        PICTURE.save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    return tmp_path / "in"


def test_a_folder_in_natural_order(folder: Path) -> None:  # BATCH-1
    assert [path.name for path in pictures_below(folder)] == ["broken.png", "p2.PNG", "p10.png", "q.webp", "p1.jpg"]
    with pytest.warns(OverpaintWarning, match=r"broken\.png: skipped; "):
        found = dict(requests_for(PageInputs(way=WayIn.BATCH, folder=folder, scale_by=2), seed=4))
    assert list(found) == ["p2", "p10", "q", "p1"]  # what cannot be read is skipped
    assert {(each.width, each.height, each.seed) for each in found.values()} == {(40, 32, 4)}


@pytest.mark.filterwarnings("ignore:.*broken.png")
def test_one_seed_for_a_whole_folder(folder: Path) -> None:  # BATCH-1
    seeds = {request.seed for _, request in requests_for(PageInputs(way=WayIn.BATCH, folder=folder), seed=-1)}
    assert len(seeds) == 1
    assert seeds != {-1}


@pytest.mark.filterwarnings("ignore:.*broken.png")
def test_masks_of_a_folder(folder: Path, tmp_path: Path) -> None:  # BATCH-2
    masks = tmp_path / "masks"
    masks.mkdir()
    MASK.save(masks / "p2.bmp")
    found = list(requests_for(PageInputs(way=WayIn.BATCH, folder=folder, masks=masks)))
    assert len(found) == 4  # a single mask serves all
    assert all(request.mask is not None for _, request in found)
    MASK.save(masks / "q.png")
    with pytest.warns(OverpaintWarning, match=r"p10\.png: skipped, since no mask has its name"):
        names = [name for name, _ in requests_for(PageInputs(way=WayIn.BATCH, folder=folder, masks=masks))]
    assert names == ["p2", "q"]
    one = list(requests_for(PageInputs(way=WayIn.BATCH, folder=folder, masks=masks / "q.png")))
    assert len(one) == 4


def test_mask_for(tmp_path: Path) -> None:
    assert mask_for(Path("a.png"), None) is None
    (tmp_path / "a.webp").touch()
    (tmp_path / "b.webp").touch()
    assert mask_for(Path("x/a.png"), tmp_path) == tmp_path / "a.webp"
    assert mask_for(Path("x/c.png"), tmp_path) is None


def test_a_masks_folder_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OverpaintError, match="masks"):
        list(requests_for(PageInputs(way=WayIn.BATCH, folder=folder, masks=tmp_path / "nowhere")))


def test_a_mask_that_cannot_be_read_skips_its_picture(folder: Path, tmp_path: Path) -> None:  # BATCH-1
    masks = tmp_path / "masks"
    masks.mkdir()
    MASK.save(masks / "q.png")
    (masks / "p2.png").write_bytes(b"no picture")
    with pytest.warns(OverpaintWarning, match=r"p2\.PNG: skipped; "):
        names = [name for name, _ in requests_for(PageInputs(way=WayIn.BATCH, folder=folder, masks=masks))]
    assert names == ["q"]
