"""What goes wrong while somebody paints: a sentence says what to do, and no stroke is lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.page.conftest import OpenPage, brush, drop, has_picture, intercept_file_choosers, mask_of
from tests.service.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

PAGE = "document.querySelector('over-paint')"
FULL = "there is no room on the server's disk for this job: free space there, and send it again"

pytestmark = pytest.mark.slow


def painted_on(open_page: OpenPage, picture: Path) -> tuple[Page, np.ndarray[Any, Any]]:
    """A page with a picture and a stroke, and its mask."""
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    mask = mask_of(page)
    assert mask.any()
    return page, mask


def fill(page: Page, fields: dict[str, Any]) -> None:
    page.evaluate(
        f"(fields) => {PAGE}.session.document.fill(fields)", {"steps": 2, "width": 64, "height": 64, **fields}
    )


def staged(page: Page) -> None:
    page.wait_for_function(f"() => {PAGE}.view.stage.result")


@pytest.mark.parametrize("path", ["**/v1/pictures", "**/v1/jobs/*"], ids=["the picture", "the job"])
def test_a_full_disk_of_the_server_is_said_until_there_is_room(open_page: OpenPage, picture: Path, path: str) -> None:
    page, mask = painted_on(open_page, picture)
    has_room = False

    def answer(route: Route) -> None:
        if has_room or route.request.method != "PUT":
            route.fallback()
        else:
            route.fulfill(status=503, json={"error": {"code": "save", "message": FULL, "field": None}})

    page.route(path, answer)
    fill(page, {})
    page.click("button.paint")
    page.wait_for_selector(f'.problem:has-text("{FULL}")')
    assert (mask_of(page) == mask).all() and page.locator(".card.sending").count() == 1
    has_room = True
    staged(page)
    page.wait_for_selector(".problem", state="hidden")
    assert page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek().length") == 1


def test_a_job_that_another_tab_cancelled(open_page: OpenPage, picture: Path, painting_server: Server) -> None:
    page, mask = painted_on(open_page, picture)
    fill(page, {"steps": 150})
    page.click("button.paint")
    page.wait_for_selector(".card.running")
    job = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0].id")
    with painting_server.client() as client:
        assert client.post(f"/v1/jobs/{job}/cancel").is_success
    page.wait_for_selector(".problem:has-text('cancelled elsewhere')")
    page.wait_for_selector(".card.cancelled")
    assert (mask_of(page) == mask).all()
    fill(page, {})
    page.click("button.paint")
    staged(page)
    page.wait_for_selector(".problem", state="hidden")


def test_a_job_that_was_cancelled_here_needs_no_sentence(open_page: OpenPage, picture: Path) -> None:
    page, _ = painted_on(open_page, picture)
    fill(page, {"steps": 150})
    page.click("button.paint")
    page.wait_for_selector(".card.running")
    page.click(".card .corner:not(.early)")
    page.wait_for_selector(".card.cancelled")
    assert page.locator(".problem").is_hidden()


def test_a_mask_of_another_size_is_stretched_and_can_be_taken_back(
    open_page: OpenPage, picture: Path, tmp_path: Path
) -> None:
    page, mask = painted_on(open_page, picture)
    intercept_file_choosers(page)
    half = np.zeros((60, 80), np.uint8)  # a quarter of the picture's size
    half[:, 40:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    (tmp_path / "text.png").write_text("this is no mask")

    def load(name: str) -> None:
        page.click("button.mask-menu")
        with page.expect_file_chooser() as choosing:
            page.click("dialog .row:has-text('Load a mask')")
        choosing.value.set_files(tmp_path / name)

    load("text.png")
    page.wait_for_selector(".notice.failed:has-text('no picture')")
    assert (mask_of(page) == mask).all()
    load("half.png")
    page.wait_for_selector(".notice:has-text('80 × 60')")
    found = mask_of(page)
    assert (found[:, :150] == 0).all() and (found[:, 170:] == 255).all()
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 2")
    assert (mask_of(page) == mask).all()


def test_a_mask_is_saved_loaded_and_found_in_the_transparency(open_page: OpenPage, tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (240, 320, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[40:90, 30:130, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    page, mask = painted_on(open_page, tmp_path / "clear.png")
    intercept_file_choosers(page)
    page.click("button.mask-menu")
    with page.expect_download() as saved:
        page.click("dialog .row:has-text('Save the mask')")
    saved.value.save_as(tmp_path / "mask.png")
    assert (np.asarray(Image.open(tmp_path / "mask.png").convert("L")) == mask).all()
    page.click("button.mask-menu")
    page.click("dialog .row:has-text('From transparency')")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 3")
    assert (mask_of(page) == np.where(pixels[..., 3] == 0, 255, 0)).all()
    page.click("button.mask-menu")
    with page.expect_file_chooser() as choosing:
        page.click("dialog .row:has-text('Load a mask')")
    choosing.value.set_files(tmp_path / "mask.png")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 4")
    assert (mask_of(page) == mask).all()


def test_without_a_mask_the_whole_picture_is_painted_and_the_button_says_so(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    fill(page, {"masked_content": "fill", "mask_blur_x": 4, "only_masked": True})
    page.wait_for_selector("button.paint:has-text('Paint the whole picture')")
    page.click("button.paint")
    staged(page)
    job = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0]")
    assert job["mask"] is None and job["crop"] == [0, 0, 320, 240]
    page.wait_for_function("() => / s last time$/.test(document.querySelector('button.paint small').textContent)")
    fill(page, {"steps": 3})  # which nobody has waited for yet
    page.wait_for_function("() => document.querySelector('button.paint small').textContent === ''")


def test_a_model_that_the_server_does_not_have_is_said_beside_its_field(open_page: OpenPage, picture: Path) -> None:
    page, mask = painted_on(open_page, picture)
    page.wait_for_selector("settings-form select[name=checkpoint]", state="attached")
    fill(page, {"checkpoint": "no-such-model"})
    page.click("button.paint")
    page.wait_for_selector(".field.checkpoint .error:has-text('no-such-model')")
    assert (mask_of(page) == mask).all()
    page.evaluate(f"() => {PAGE}.session.document.fill({{checkpoint: undefined}})")
    page.click("button.paint")
    staged(page)
