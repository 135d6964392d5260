"""Results compared, varied and put side by side; grays as strengths; keys that are changed."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.page.conftest import (
    AS_TEXT,
    OpenPage,
    brush,
    drop,
    has_picture,
    kept,
    mask_of,
    picture_file,
    place_of,
    reload,
    set_brush,
)
from tests.service.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"
SMALL = "{steps: 2, width: 64, height: 64, mask_blur_x: 0, mask_blur_y: 0}"

pytestmark = pytest.mark.slow


def drawn(page: Page) -> np.ndarray[Any, Any]:
    """The layer of the picture as the window shows it, after the next frame."""
    data = page.evaluate(
        f"""async () => {{
            await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
            const canvas = {PAGE}.view.stage.pens.picture.canvas;
            const file = await new Promise((resolve) => canvas.toBlob(resolve));
            return await (AS_TEXT)(file);
        }}""".replace("AS_TEXT", AS_TEXT)
    )
    left, top, right, bottom = page.evaluate(
        f"""() => {{
            const {{source, view}} = {PAGE}.view.stage;
            return [view.x, view.y, view.x + source.width * view.scale, view.y + source.height * view.scale];
        }}"""
    )
    inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    return inside[int(top) + 2 : int(bottom) - 2, int(left) + 2 : int(right) - 2]  # its very edge is half transparent


def kept_file(page: Page, key: str) -> np.ndarray[Any, Any]:
    data = page.evaluate(
        f"async (key) => (AS_TEXT)(await {PAGE}.session.keeper.file(key))".replace("AS_TEXT", AS_TEXT), key
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def results_are_there(page: Page, job: int, count: int) -> None:
    page.wait_for_function(
        f"""([job, count]) => {{
            const results = {PAGE}.jobs.document.jobs.peek()[job]?.results ?? [];
            return results.length === count && results.every((each) => each.file);
        }}""",
        arg=[job, count],
    )


def test_a_result_is_compared_and_varied(open_page: OpenPage, picture: Path) -> None:
    page = open_page(has_touch=True)
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.5))
    page.evaluate(f"() => {PAGE}.session.document.fill({SMALL})")
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")
    page.evaluate(f"() => {PAGE}.view.focus()")
    after = drawn(page)
    slide(page)
    page.keyboard.press("\\")
    page.wait_for_function(f"() => {PAGE}.view.stage.split === 0")
    page.keyboard.down("\\")
    before = drawn(page)
    page.keyboard.up("\\")
    page.keyboard.press("d")
    difference = drawn(page)
    apart = np.abs(before.astype(int) - after).astype(int)
    assert 0.02 < (apart.max(axis=2) > 0).mean() < 0.5
    assert not difference[apart.max(axis=2) == 0].any(), "what is the same is black"
    assert np.abs(difference.astype(int) - np.minimum(255, 8 * apart)).max() <= 8
    page.keyboard.press("Shift+C")
    for split in (1, 0, 1):
        page.wait_for_function(f"(split) => {PAGE}.view.stage.split === split", arg=split)
    page.keyboard.press("Shift+C")
    assert (drawn(page) == after).all()
    page.click("staged-bar [aria-label='A few variations']")
    results_are_there(page, 1, 3)
    told = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[1]")
    first = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0]")
    assert told["request"]["seed"] == first["results"][0]["seed"] and told["mask"] == first["mask"]
    files = [kept_file(page, each["file"]) for each in [*first["results"], *told["results"]]]
    assert len({each.tobytes() for each in files}) == 4, "each is another picture"


def slide(page: Page) -> None:
    """The line between before and after goes where a key or a finger puts it, and nothing else happens."""

    def split_is(wanted: int) -> None:
        page.wait_for_function(
            """(wanted) => {
                const now = document.querySelector(".compare-slider:not([hidden])")?.getAttribute("aria-valuenow");
                return Math.abs(Number(now) - wanted) <= 1;
            }""",
            arg=wanted,
        )

    staged = page.evaluate(f"() => {PAGE}.jobs.staged.peek()")
    mask = mask_of(page)
    page.keyboard.press("c")
    split_is(50)
    page.focus("[role=slider].compare-slider")
    for key, percent in (("ArrowRight", 51), ("ArrowLeft", 50), ("Shift+ArrowLeft", 40), ("PageUp", 50), ("Home", 0)):
        page.keyboard.press(key)
        split_is(percent)
    page.keyboard.press("End")
    split_is(100)
    assert abs(page.evaluate(f"() => {PAGE}.view.stage.split") - 1) < 0.01
    (start, y), (end, _) = place_of(page, 0.999, 0.5), place_of(page, 0.25, 0.5)
    touch = page.context.new_cdp_session(page)
    for kind, x in (("touchStart", start), ("touchMove", (start + end) / 2), ("touchMove", end), ("touchEnd", None)):
        points = [] if x is None else [{"x": x, "y": y, "id": 0}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    split_is(25)
    assert page.evaluate(f"() => {PAGE}.jobs.staged.peek()") == staged, "the arrows moved the line alone"
    assert (mask_of(page) == mask).all(), "nothing was painted"
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("c")
    page.wait_for_selector(".compare-slider", state="hidden")


def test_two_settings_are_compared_on_a_sheet(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.5))
    page.evaluate(f"() => {PAGE}.session.document.fill({SMALL})")
    page.click("text=Compare settings …")
    page.fill("[name=x-values]", "0.4,0.8")
    page.select_option("[name=y-field]", "seed")
    page.fill("[name=y-values]", "1-3")
    page.click("dialog.grid .primary")
    results_are_there(page, 0, 7)
    results = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0].results")
    (sheet,) = [each for each in results if each["isSheet"]]
    cells = [each for each in results if not each["isSheet"]]
    assert sorted(each["seed"] for each in cells) == [1, 1, 2, 2, 3, 3]
    assert {(each["width"], each["height"]) for each in cells} == {(320, 240)}
    page.click(".card .look[title='Sheet']")
    page.wait_for_function("() => document.querySelector('dialog.sheet img')?.naturalWidth > 640")
    assert kept_file(page, sheet["file"]).shape[1] > 640
    page.keyboard.press("Escape")
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => {PAGE}.view.stage.result?.width === 320")


def test_grays_are_strengths_where_that_is_wanted(open_page: OpenPage, picture: Path, painting_server: Server) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    set_brush(page, 60, 0.5)
    brush(page, (0.3, 0.4), (0.6, 0.5))
    mask = mask_of(page)
    page.check("[name=grays]")
    page.evaluate(f"() => {PAGE}.session.document.fill({SMALL})")
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")
    job = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0]")
    assert (kept_file(page, job["map"]) == mask).all() and ((mask > 0) & (mask < 255)).sum() > 0
    assert (kept_file(page, job["mask"]) == np.where(mask > 0, 255, 0)).all()
    with painting_server.client() as client:
        request = client.get(f"/v1/jobs/{job['id']}").json()["request"]
    assert request["strength_map"] and request["strength_map"] != request["mask"]
    kept(page)
    reload(page)
    has_picture(page)
    assert page.is_checked("[name=grays]")


def test_keys_are_shown_and_changed(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    page.keyboard.press("?")
    page.click("dialog [data-action=wand]")
    page.keyboard.press("b")
    assert page.inner_text("dialog [data-action=wand]") == "B"
    assert page.inner_text("dialog [data-action=brush]") == "–", "a key does one thing"
    assert "Brush" in page.inner_text("dialog .told")
    page.click("dialog [data-action=lasso]")
    page.keyboard.press("Escape")
    assert page.inner_text("dialog [data-action=lasso]") == "L" and page.locator("dialog[open]").count() == 1
    page.click("dialog [data-action=undo]")
    page.keyboard.press("Control+Shift+u")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    reload(page)
    drop(page, picture)
    has_picture(page)
    page.keyboard.press("e")
    page.keyboard.press("b")
    assert page.get_attribute("picture-view", "data-tool") == "wand"
    assert "(B)" in (page.get_attribute("[data-tool=wand].icon-button", "title") or "")
    page.keyboard.press("e")
    page.keyboard.press("Control+Shift+u")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 0")
    page.keyboard.press("?")
    page.click("dialog .answers .quiet")
    assert page.inner_text("dialog [data-action=wand]") == "W"


def test_a_full_disk_of_the_browser_is_said_and_loses_no_stroke(open_page: OpenPage, tmp_path: Path) -> None:
    """What could not be written is written as soon as there is room, with the steps that undo it."""
    page = open_page()
    drop(page, picture_file(tmp_path / "wide.png", 900, 600))
    has_picture(page)
    kept(page)
    page.evaluate(
        """() => {
            const put = IDBObjectStore.prototype.put;
            window.free = () => (IDBObjectStore.prototype.put = put);
            IDBObjectStore.prototype.put = () => { throw new DOMException("no room", "QuotaExceededError"); };
        }"""
    )
    brush(page, (0.1, 0.2), (0.2, 0.2))
    page.wait_for_selector(".notice.failed")
    assert "disk space is full" in page.inner_text(".notice.failed")
    first = mask_of(page)
    page.evaluate("() => window.free()")
    brush(page, (0.8, 0.8), (0.9, 0.8))
    both = mask_of(page)
    page.wait_for_function(f"() => !{PAGE}.session.keeper.missed")
    reload(page)
    has_picture(page)
    assert (mask_of(page) == both).all() and both.sum() > first.sum() > 0
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 2")
    assert (mask_of(page) == first).all()


def test_a_copied_request_has_the_picture_and_its_mask(
    open_page: OpenPage, picture: Path, painting_server: Server
) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.5))
    page.evaluate(f"() => {PAGE}.session.document.fill({SMALL})")
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
    page.click(".copies button:text-is('JSON')")
    page.wait_for_function("() => window.copied")
    request = json.loads(page.evaluate("() => window.copied"))
    with painting_server.client() as client:
        told = client.post("/v1/plan", json=request)
        assert told.status_code == 200, told.text
        assert told.json()["crop"], "the mask is there"
