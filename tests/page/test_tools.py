"""Tools beside the brush, against what Pillow and the house's own masks make of the same words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from overpaint import masks
from tests.page.conftest import (
    AS_TEXT,
    OpenPage,
    drop,
    has_picture,
    kept,
    mask_of,
    place_of,
    reload,
    set_brush,
    shown_picture,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"
WIDE, HIGH = 320, 240

pytestmark = pytest.mark.slow


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A red disc on a blue ground with a little grain, as a wand and a cut-out find things."""
    picture = Image.new("RGB", (WIDE, HIGH), (40, 70, 160))
    ImageDraw.Draw(picture).ellipse((90, 70, 200, 180), fill=(210, 40, 50))
    grain = np.random.default_rng(3).integers(-4, 5, (HIGH, WIDE, 3))
    path = tmp_path / "scene.png"
    Image.fromarray((np.asarray(picture, np.int16) + grain).astype(np.uint8)).save(path)
    return path


def choose(page: Page, name: str) -> None:
    page.click(f"nav [data-tool={name}]")


def steps(page: Page) -> int:
    return int(page.evaluate(f"() => {PAGE}.session.document.history.length.peek()"))


def step_taken(page: Page, count: int) -> None:
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === {count}")


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*place_of(page, *start))
    page.mouse.down()
    page.mouse.move(*place_of(page, *end), steps=3)
    page.mouse.up()


def test_a_polygon_is_set_corner_by_corner(open_page: OpenPage, scene: Path) -> None:
    page = open_page()
    drop(page, scene)
    has_picture(page)
    choose(page, "polygon")
    corners = [(40, 30), (280, 60), (200, 210), (60, 180)]
    for x, y in [*corners, (300, 200)]:
        page.mouse.click(*place_of(page, x / WIDE, y / HIGH))
    page.keyboard.press("Backspace")  # the last corner was a mistake
    assert steps(page) == 1 and not mask_of(page).any()
    page.mouse.click(*place_of(page, corners[0][0] / WIDE, corners[0][1] / HIGH))
    step_taken(page, 2)
    wanted = Image.new("L", (WIDE, HIGH))
    ImageDraw.Draw(wanted).polygon(corners, fill=255)
    # Where a corner lies is told by the mouse, in whole pixels of the window.
    assert (np.asarray(wanted) != mask_of(page)).mean() < 0.012
    page.keyboard.press("Control+z")
    step_taken(page, 1)
    assert not mask_of(page).any()
    # The same without a pointer: Enter sets a corner, and once more at the same place closes.
    page.evaluate(f"() => {PAGE}.view.focus()")
    for key in ("Enter", "ArrowRight", "ArrowRight", "Enter", "ArrowDown", "ArrowDown", "Enter", "Enter"):
        page.keyboard.press(key)
    step_taken(page, 2)
    assert mask_of(page).any()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.evaluate(f"() => {PAGE}.view.areaTool.corners.length") == 0


def test_the_wand_and_the_cut_out_find_what_the_server_finds(open_page: OpenPage, scene: Path) -> None:
    page = open_page()
    drop(page, scene)
    has_picture(page)
    choose(page, "wand")
    page.mouse.click(*place_of(page, 145.5 / WIDE, 125.5 / HIGH))
    step_taken(page, 2)
    picture = Image.open(scene)
    disc = np.asarray(masks.draw("wand 145,125 tolerance 24", picture))
    assert (mask_of(page) == disc).all() and 0.1 < (disc > 0).mean() < 0.2
    page.keyboard.down("Alt")
    page.mouse.click(*place_of(page, 145.5 / WIDE, 125.5 / HIGH))
    page.keyboard.up("Alt")
    step_taken(page, 3)
    assert not mask_of(page).any()
    choose(page, "cutout")
    drag(page, (75.5 / WIDE, 55.5 / HIGH), (215.5 / WIDE, 195.5 / HIGH))
    step_taken(page, 4)
    found, round_part = mask_of(page) > 127, disc > 0
    assert (found & round_part).sum() > 0.97 * round_part.sum() and (found & ~round_part).mean() < 0.01
    kept(page)
    reload(page)
    has_picture(page)
    assert ((mask_of(page) > 127) == found).all()
    page.keyboard.press("Control+z")
    step_taken(page, 3)
    assert not mask_of(page).any()


def extended(before: np.ndarray[Any, Any], right: int, bottom: int) -> np.ndarray[Any, Any]:
    return np.pad(before, ((0, bottom), (0, right), (0, 0)), mode="edge")


def test_an_edge_is_dragged_and_the_new_area_is_painted(open_page: OpenPage, scene: Path) -> None:
    """Nothing of the old picture changes; the step goes back, and forth again after a reload."""
    page = open_page()
    drop(page, scene)
    has_picture(page)
    before = np.asarray(Image.open(scene))
    choose(page, "extend")
    drag(page, (0.99, 0.99), (1 + 62 / WIDE, 1 + 30 / HIGH))
    step_taken(page, 2)
    wide, high = page.evaluate(f"() => [{PAGE}.view.stage.source.width, {PAGE}.view.stage.source.height]")
    assert (wide % 8, high % 8) == (0, 0) and abs(wide - WIDE - 62) < 8 and abs(high - HIGH - 30) < 8
    assert (shown_picture(page) == extended(before, wide - WIDE, high - HIGH)).all()
    new = np.ones((high, wide), bool)
    new[:HIGH, :WIDE] = False
    assert ((mask_of(page) == 255) == new).all()
    page.keyboard.press("Control+z")
    step_taken(page, 1)
    assert shown_picture(page).shape == before.shape and not mask_of(page).any()
    kept(page)
    reload(page)
    has_picture(page)
    page.keyboard.press("Control+Shift+z")
    step_taken(page, 2)
    assert ((mask_of(page) == 255) == new).all()
    page.evaluate(f"() => {PAGE}.session.document.fill({{steps: 2}})")
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")
    assert page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0].tool.fields.kind") == "outpaint"
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 3")
    kept(page)
    painted = shown_picture(page)
    assert painted.shape == (high, wide, 3) and (painted[:HIGH, :WIDE] == before).all()
    assert (painted != extended(before, wide - WIDE, high - HIGH)).any(axis=2)[new].mean() > 0.9


def test_colours_are_sketched_erased_and_painted_from(open_page: OpenPage, scene: Path) -> None:
    """The job begins from the picture with its colours, paints where they are, and nowhere else."""
    page = open_page()
    drop(page, scene)
    has_picture(page)
    before = np.asarray(Image.open(scene))
    choose(page, "sketch")
    set_brush(page, 40)
    page.fill("[name=ink]", "#20e040")
    drag(page, (0.7, 0.2), (0.8, 0.2))
    step_taken(page, 2)
    sketched = colours_of(page)
    drawn = sketched[..., 3] == 255
    assert 0.01 < drawn.mean() < 0.1 and (sketched[drawn][:, :3] == (0x20, 0xE0, 0x40)).all()
    assert (sketched[~drawn] == 0).all() and not mask_of(page).any()
    kept(page)
    reload(page)
    has_picture(page)
    assert (colours_of(page) == sketched).all()
    choose(page, "eraser")
    drag(page, (0.7, 0.2), (0.7, 0.3))
    step_taken(page, 3)
    assert 0 < (colours_of(page)[..., 3] > 0).sum() < drawn.sum()
    page.keyboard.press("Control+z")
    step_taken(page, 2)
    assert (colours_of(page) == sketched).all()
    page.evaluate(f"() => {PAGE}.session.document.fill({{steps: 2, strength: 0.3, mask_blur_x: 0, mask_blur_y: 0}})")
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 2")
    kept(page)
    after = shown_picture(page)
    assert (after[~drawn] == before[~drawn]).all() and (after[drawn] != before[drawn]).any(axis=1).mean() > 0.9
    assert not colours_of(page).any(), "what is painted needs no sketch any more"
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.session.colour && !{PAGE}.session.colour.isEmpty()")
    assert (colours_of(page) == sketched).all()
    choose(page, "sketch")
    page.keyboard.down("Alt")
    page.mouse.click(*place_of(page, 145.5 / WIDE, 125.5 / HIGH))
    page.keyboard.up("Alt")
    assert page.input_value("[name=ink]") == "#{:02x}{:02x}{:02x}".format(*before[125, 145])


def colours_of(page: Page) -> np.ndarray[Any, Any]:
    """The layer of colours: red, green, blue, and how opaque."""
    data = page.evaluate(
        f"""async () => {{
            const {{colour}} = {PAGE}.session;
            const {{shown}} = await import("/page/canvas/colour.js");
            if (!colour) return null;
            const image = shown(colour, {{scale: 1, x: 0, y: 0}}, [0, 0, colour.width, colour.height]);
            return [colour.width, colour.height, await (AS_TEXT)(new Blob([image.data]))];
        }}""".replace("AS_TEXT", AS_TEXT)
    )
    if data is None:
        return np.zeros((HIGH, WIDE, 4), np.uint8)
    return np.frombuffer(base64.b64decode(data[2]), np.uint8).reshape(data[1], data[0], 4)


def test_what_was_drawn_is_not_lost_when_the_picture_grows(open_page: OpenPage, scene: Path) -> None:
    page = open_page()
    drop(page, scene)
    has_picture(page)
    set_brush(page, 30)
    drag(page, (0.2, 0.3), (0.3, 0.4))
    choose(page, "sketch")
    drag(page, (0.6, 0.6), (0.7, 0.7))
    step_taken(page, 3)
    mask, colours = mask_of(page), colours_of(page)
    page.evaluate(f"() => {PAGE}.dialog('showExtend')")
    page.fill("dialog [name=left]", "24")
    page.fill("dialog [name=top]", "16")
    page.click("dialog form .primary")
    step_taken(page, 4)
    grown = mask_of(page)
    assert grown.shape == (HIGH + 16, WIDE + 24) and (grown[:16] == 255).all() and (grown[:, :24] == 255).all()
    assert (grown[16:, 24:] == mask).all() and mask.any()
    assert (colours_of(page)[16:, 24:] == colours).all() and colours.any()
    page.keyboard.press("Control+z")
    step_taken(page, 3)
    assert (mask_of(page) == mask).all() and (colours_of(page) == colours).all()
    page.keyboard.press("Control+Shift+z")
    step_taken(page, 4)
    assert (mask_of(page) == grown).all() and (colours_of(page)[16:, 24:] == colours).all()


def test_lines_mend_what_was_cut_out(open_page: OpenPage, scene: Path, tmp_path: Path) -> None:
    """A line adds the thing that it lies on, and with Alt it takes one away; elsewhere in the box nothing changes."""
    picture = Image.open(scene)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((230, 90, 270, 170), fill=(40, 160, 60))
    picture.save(tmp_path / "two.png")
    page = open_page()
    drop(page, tmp_path / "two.png")
    has_picture(page)
    choose(page, "cutout")
    drag(page, (0.1, 0.15), (0.97, 0.9))
    step_taken(page, 2)
    disc, block = (slice(120, 130), slice(140, 150)), (slice(100, 160), slice(236, 264))
    both = mask_of(page) > 127
    assert both[disc].all() and both[block].all()
    page.keyboard.down("Alt")
    drag(page, (0.75, 0.45), (0.81, 0.65))
    page.keyboard.up("Alt")
    step_taken(page, 3)
    without = mask_of(page) > 127
    assert without[block].mean() < 0.02 and (without[:, :215] == both[:, :215]).all()
    drag(page, (0.76, 0.45), (0.8, 0.65))
    step_taken(page, 4)
    again = mask_of(page) > 127
    assert again[block].mean() > 0.98 and (again[:, :215] == both[:, :215]).all()
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("Escape")
    assert page.evaluate(f"() => {PAGE}.view.areaTool.last") is None
    for _ in range(2):
        page.keyboard.press("Control+z")
    step_taken(page, 2)
    assert ((mask_of(page) > 127) == both).all()
