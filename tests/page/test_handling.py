"""What hands do: paste, pan, zoom, press a pen; and files of the formats that people have."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, features

from tests.page.conftest import OpenPage, brush, drop, has_picture, mask_of, place_of, set_brush, shown_picture

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

PAGE = "document.querySelector('over-paint')"

pytestmark = pytest.mark.slow

COPY = """async (data) => {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
}"""


def test_a_picture_is_pasted_and_text_is_left_to_the_prompt(open_page: OpenPage, picture: Path) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(COPY, base64.b64encode(picture.read_bytes()).decode("ascii"))
    page.keyboard.press("Control+v")
    has_picture(page)
    assert (shown_picture(page) == np.asarray(Image.open(picture))).all()
    page.evaluate("() => navigator.clipboard.writeText('a red boat')")
    page.focus("textarea[name=prompt]")
    page.keyboard.press("Control+v")
    page.wait_for_function(f"() => {PAGE}.session.document.form.peek().prompt === 'a red boat'")
    assert page.evaluate(f"() => {PAGE}.session.document.pictures.peek().length") == 1


def view_of(page: Page) -> dict[str, float]:
    found: dict[str, float] = page.evaluate(f"() => ({{...{PAGE}.view.stage.view}})")
    return found


def point_at(page: Page, at: tuple[float, float]) -> list[float]:
    """The pixel of the picture at a place of the window."""
    found: list[float] = page.evaluate(
        f"""([x, y]) => {{
            const {{host, view}} = {PAGE}.view.stage, {{left, top}} = host.getBoundingClientRect();
            return [(x - left - view.x) / view.scale, (y - top - view.y) / view.scale];
        }}""",
        list(at),
    )
    return found


def test_space_and_a_drag_move_the_picture_and_the_wheel_zooms_at_the_cursor(
    open_page: OpenPage, picture: Path
) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    page.evaluate(f"() => {PAGE}.view.focus()")
    wished = place_of(page, 0.3, 0.7)
    at = (round(wished[0]), round(wished[1]))  # the browser tells whole pixels
    page.mouse.move(*at)
    before, under = view_of(page), point_at(page, at)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"(scale) => {PAGE}.view.stage.view.scale > 1.5 * scale", arg=before["scale"])
    assert np.allclose(point_at(page, at), under, atol=0.01), "what lies under the cursor stays there"
    zoomed = view_of(page)
    page.keyboard.down(" ")
    page.wait_for_selector("picture-view.moves")
    page.mouse.down()
    page.mouse.move(at[0] + 30, at[1] - 20)
    page.mouse.up()
    page.keyboard.up(" ")
    page.wait_for_selector("picture-view:not(.moves)")
    moved = view_of(page)
    assert (moved["x"] - zoomed["x"], moved["y"] - zoomed["y"], moved["scale"]) == (30, -20, zoomed["scale"])
    assert not mask_of(page).any(), "nothing is painted meanwhile"
    page.mouse.down(button="middle")
    page.mouse.move(at[0], at[1])
    page.mouse.up(button="middle")
    assert view_of(page) == zoomed
    for key, scale in (("1", 1.0), ("0", before["scale"])):
        page.keyboard.press(key)
        page.wait_for_function(f"(scale) => {PAGE}.view.stage.view.scale === scale", arg=scale)


@pytest.mark.parametrize(("suffix", "options"), [("webp", {"lossless": True}), ("avif", {"quality": 95})])
def test_pictures_of_phones_and_of_the_web_are_opened(
    open_page: OpenPage, tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    if not features.check(suffix):
        pytest.skip(f"this Pillow writes no {suffix}")
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[:, 100:] = (200, 40, 90)
    Image.fromarray(pixels).save(tmp_path / f"two.{suffix}", **options)
    page = open_page()
    page.set_input_files("input[type=file]", tmp_path / f"two.{suffix}")
    has_picture(page)
    found = shown_picture(page).astype(int)
    assert found.shape == pixels.shape and np.abs(found - pixels)[:, [*range(90), *range(110, 200)]].max() < 12
    brush(page, (0.4, 0.4), (0.6, 0.6))
    assert mask_of(page).any()


def pen(told: CDPSession, kind: str, at: tuple[float, float], force: float) -> None:
    """A pen's touch as the browser hears of it."""
    event = {"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}
    told.send("Input.dispatchMouseEvent", {**event, "buttons": 1, "pointerType": "pen", "force": force})


def test_a_pen_paints_as_wide_as_it_is_pressed_and_then_a_finger_moves_the_picture(
    open_page: OpenPage, picture: Path
) -> None:
    page = open_page(has_touch=True)
    drop(page, picture)
    has_picture(page)
    set_brush(page, 40)
    told = page.context.new_cdp_session(page)
    heights = []
    for force, down in ((0.25, 0.25), (0.5, 0.5), (1.0, 0.75)):
        pen(told, "mousePressed", place_of(page, 0.3, down), force)
        for across in (0.4, 0.5, 0.6, 0.7):
            pen(told, "mouseMoved", place_of(page, across, down), force)
        pen(told, "mouseReleased", place_of(page, 0.7, down), 0)
        row = round(240 * down)
        heights.append(int((mask_of(page)[row - 30 : row + 30, 160] > 0).sum()))
    assert np.allclose(heights, [10, 20, 40], atol=2), heights
    mask, before = mask_of(page), view_of(page)
    start = place_of(page, 0.5, 0.1)
    for kind, points in (
        ("touchStart", [start]),
        ("touchMove", [(start[0] + 25, start[1] + 15)]),
        ("touchEnd", []),
    ):
        touched = [{"x": x, "y": y, "id": 0} for x, y in points]
        told.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})
    page.wait_for_function(f"(x) => {PAGE}.view.stage.view.x === x + 25", arg=before["x"])
    assert (mask_of(page) == mask).all(), "a hand that rests on the tablet paints nothing"


MOTION = """() => {
    const ring = document.createElement("span");
    ring.className = "ring turns";
    document.querySelector("main").append(ring);
    const isSlow = (each) => getComputedStyle(each).transitionDuration.split(", ").some((time) => time !== "0s");
    const found = [getComputedStyle(ring).animationName, [...document.querySelectorAll("*")].filter(isSlow).length];
    ring.remove();
    return found;
}"""


def test_who_wants_little_motion_sees_none(open_page: OpenPage) -> None:
    """What turns fades instead, and what slides is there at once."""
    lively = open_page()
    still = open_page(context=lively.context)
    still.emulate_media(reduced_motion="reduce")
    assert lively.evaluate(MOTION)[0] == "turn"
    assert still.evaluate(MOTION) == ["breathe", 0]
