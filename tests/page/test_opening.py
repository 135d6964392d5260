"""Files that come early, are of other formats, or too large: they are opened, or a sentence says why not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.page.conftest import (
    OpenPage,
    brush,
    drop,
    has_picture,
    is_ready,
    kept,
    mask_of,
    picture_file,
    reload,
    shown_picture,
)
from tests.service.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

PAGE = "document.querySelector('over-paint')"
WIDE, HIGH = 320, 240

pytestmark = pytest.mark.slow


def begin_loading(page: Page) -> Route:
    """The page is loaded anew, up to where its modules run; the one that is given back is still on its way."""
    held: list[Route] = []
    page.route("**/page/views/app.js", lambda route: held.append(route))
    with page.expect_request("**/page/views/app.js"):
        page.goto(page.url, wait_until="commit")
    page.wait_for_function("() => globalThis.takeHeldFiles")
    assert not page.evaluate(f"() => Boolean({PAGE}.isReady)")
    return held[0]


def test_a_picture_that_is_dropped_before_the_page_listens_is_taken(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    late = begin_loading(page)
    drop(page, picture)
    late.continue_()
    is_ready(page)
    has_picture(page)
    kept(page)
    page.unroute_all()
    reload(page)
    has_picture(page)
    assert (shown_picture(page) == np.asarray(Image.open(picture))).all()


def test_what_comes_while_a_document_is_found_again_is_one_step_more(
    open_page: OpenPage, picture: Path, tmp_path: Path
) -> None:
    """It was written over by what was restored, or left out of what is kept."""
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    mask = mask_of(page)
    kept(page)
    late = begin_loading(page)
    drop(page, picture_file(tmp_path / "other.png", 200, 100))
    late.continue_()
    page.wait_for_function(f"() => {PAGE}.session?.document.history.at.peek() === 3")
    has_picture(page)
    assert page.evaluate(f"() => {PAGE}.view.stage.source.width") == 200
    kept(page)
    page.unroute_all()
    reload(page)
    has_picture(page)
    assert page.evaluate(f"() => {PAGE}.view.stage.source.width") == 200
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.view.stage.source.width === {WIDE}")
    assert (mask_of(page) == mask).all() and mask.any()


def test_sixteen_bits_of_a_tiff_are_what_is_painted_on(
    open_page: OpenPage, painting_server: Server, tmp_path: Path
) -> None:
    """The browser shows eight of them; outside the mask the result has every sample of the file."""
    cv2 = pytest.importorskip("cv2", reason="writes and reads 16 bits")
    samples = np.random.default_rng(2).integers(0, 65_536, (HIGH, WIDE, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.tif"), samples)
    page = open_page()
    drop(page, tmp_path / "deep.tif")
    has_picture(page)
    for tool in ("sketch", "extend"):  # what is made with them begins from what the browser sees
        page.click(f"nav [data-tool={tool}]")
        page.wait_for_selector(f".notice:has-text('{DEEP[tool]}')")
    page.click("nav [data-tool=brush]")
    shown = np.asarray(shown_picture(page), int)
    assert np.abs(shown[..., ::-1] - samples / 257).max() <= 1
    brush(page, (0.4, 0.4), (0.6, 0.5))
    far = np.asarray(Image.fromarray(mask_of(page)).resize((WIDE // 8, HIGH // 8), Image.Resampling.BOX)) == 0
    page.evaluate(
        f"() => {PAGE}.session.document.fill({{steps: 2, width: 64, height: 64, mask_blur_x: 0, mask_blur_y: 0}})"
    )
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")
    job = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0].id")
    with painting_server.client() as client:
        result = client.get(f"/v1/jobs/{job}/images/0").content
    found = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED)
    outside = np.kron(far, np.ones((8, 8), bool))
    assert found.dtype == np.uint16 and outside.mean() > 0.3 and (found == samples)[outside].all()
    assert (found != samples).any()
    keep_beside(page)


DEEP = {"sketch": "A job with a sketch begins from 8", "extend": "kept where just the new area is painted"}


def keep_beside(page: Page) -> None:
    """A result is kept, and the same job's once more beside it: that costs bits, and is asked about."""
    staged = page.evaluate(f"() => {PAGE}.jobs.staged.peek()")
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 2")
    for answer, count in ((".quiet", 2), (".primary", 3)):
        page.evaluate(f"(staged) => {{ {PAGE}.jobs.staged.value = staged; }}", staged)
        page.click("staged-bar .primary")
        page.wait_for_selector("dialog.ask:has-text('8 bits a channel')")
        page.click(f"dialog.ask {answer}")
        page.wait_for_selector("dialog", state="detached")
        page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === {count}")


def test_a_file_that_the_server_would_not_take_is_said_before_a_mask_is_painted(
    open_page: OpenPage, picture: Path, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(picture.read_bytes() + bytes(17 << 20))  # what follows its end is no part of a picture
    page = open_page()
    page.route("**/v1/limits", lambda route: route.fulfill(json={"picture_bytes": 16 << 20}))
    page.set_input_files("input[type=file]", path)
    page.wait_for_selector(".notice.failed:has-text('picture_bytes')")
    has_picture(page)
    assert (shown_picture(page) == np.asarray(Image.open(picture))).all()


def test_what_browsers_know_is_opened_without_the_server(open_page: OpenPage, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (300, 200, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.bmp")
    page = open_page()
    page.route("**/v1/pictures/png", lambda route: route.abort())
    drop(page, tmp_path / "plain.bmp")
    has_picture(page)
    assert (shown_picture(page) == pixels).all()
    noise = np.random.default_rng(3).integers(0, 65_536, (8, 8), np.uint16)
    Image.fromarray(noise).save(tmp_path / "gray.tif")
    drop(page, tmp_path / "gray.tif")
    page.wait_for_selector(".notice.failed:has-text('Without the server')")
    assert (shown_picture(page) == pixels).all()


def test_a_picture_that_is_too_large_is_said_before_it_is_decoded(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    data = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(data, "PNG")
    (tmp_path / "huge.png").write_bytes(data.getvalue())
    drop(page, tmp_path / "huge.png")
    page.wait_for_selector(".notice.failed:has-text('200 megapixels')")
    assert page.evaluate(f"() => {PAGE}.session.document.picture.peek()") is None
