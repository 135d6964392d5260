"""What becomes of results: saved, discarded, painted again, walked back to; and what goes when somebody starts over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from overpaint.files.metadata import read_infotext
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
from tests.service.conftest import StartServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"
SMALL = "{steps: 2, width: 64, height: 64, mask_blur_x: 2, mask_blur_y: 2}"

pytestmark = pytest.mark.slow


def painted(page: Page) -> None:
    """A job, and its result over the picture."""
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")


def begun(open_page: OpenPage, picture: Path, url: str | None = None) -> Page:
    """A page with a picture and a stroke."""
    page = open_page(url)
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.5))
    page.evaluate(f"() => {PAGE}.session.document.fill({SMALL})")
    return page


def downloaded(page: Page, button: str, path: Path) -> Path:
    with page.expect_download() as saved:
        page.click(button)
    saved.value.save_as(path)
    return path


def test_a_result_that_was_discarded_is_painted_again_from_its_file(
    open_page: OpenPage, picture: Path, tmp_path: Path
) -> None:
    """Dropped, it gives its settings back; with the picture and mask that it was painted on, each byte is as before."""
    page = begun(open_page, picture)
    form = {"prompt": "a boat", "negative_prompt": "fog", "strength": 0.62, "cfg_scale": 5.5, "sampler": "Euler a"}
    page.evaluate(f"(form) => {PAGE}.session.document.fill(form)", {**form, "steps": 3, "masked_content": "noise"})
    mask = mask_of(page)
    painted(page)
    file = downloaded(page, "staged-bar [aria-label='Download']", tmp_path / "result.png")
    infotext, _ = read_infotext(file.read_bytes())
    assert infotext is not None and infotext.startswith("a boat\nNegative prompt: fog\nSteps: 3, Sampler: Euler a")
    page.click("staged-bar button:has-text('Discard')")
    page.wait_for_selector(".card", state="detached")
    page.wait_for_selector("staged-bar", state="hidden")
    assert (shown_picture(page) == np.asarray(Image.open(picture))).all() and (mask_of(page) == mask).all()
    page.evaluate(
        f"() => {{ {PAGE}.session.document.form.value = {{prompt: '', strength: 0.75, only_masked: true, seed: -1}}; }}"
    )
    drop(page, file)
    page.click(".offer .quiet")
    page.wait_for_function(f"(width) => {PAGE}.session.document.form.peek().prompt === 'a boat'")
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 2")
    assert (mask_of(page) == mask).all()
    painted(page)
    again = downloaded(page, "staged-bar [aria-label='Download']", tmp_path / "again.png")
    assert again.read_bytes() == file.read_bytes()


def test_versions_are_walked_back_and_saved(open_page: OpenPage, picture: Path, tmp_path: Path) -> None:
    page = begun(open_page, picture)
    painted(page)
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 2")
    kept(page)
    first, original = shown_picture(page), np.asarray(Image.open(picture))
    saved = downloaded(page, "header [aria-label='Save the picture']", tmp_path / "saved.png")
    assert (np.asarray(Image.open(saved).convert("RGB")) == first).all() and (first != original).any()
    page.click("header [aria-label='Versions']")
    rows = page.locator("dialog .versions button")
    rows.nth(1).wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.versions img')].every((each) => each.naturalWidth === 320)"
    )
    assert [row.get_attribute("aria-pressed") for row in rows.all()] == ["false", "true"]
    rows.nth(0).click()
    page.wait_for_selector("dialog", state="detached")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 4")
    assert (shown_picture(page) == original).all()
    brush(page, (0.2, 0.2), (0.3, 0.3))
    page.evaluate(f"() => {PAGE}.jobs.discard({PAGE}.jobs.document.jobs.peek()[0].id)")
    painted(page)
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 3")
    kept(page)
    reload(page)
    has_picture(page)
    keys = page.evaluate(f"() => {PAGE}.session.document.pictures.peek().map((each) => [each.key, each.parent])")
    assert [parent for _, parent in keys] == [None, keys[0][0], keys[0][0]], "two were painted on the first"
    for _ in range(3):
        page.keyboard.press("Control+z")
    page.wait_for_function(f"(key) => {PAGE}.session.document.picture.peek().key === key", arg=keys[1][0])
    assert (shown_picture(page) == first).all()


def test_who_starts_over_is_asked_and_then_has_nothing(open_page: OpenPage, picture: Path, tmp_path: Path) -> None:
    page = begun(open_page, picture)
    page.fill("textarea[name=prompt]", "a boat")
    other = open_page(context=page.context)  # whose work stays
    drop(other, picture_file(tmp_path / "other.png", 200, 100))
    has_picture(other)
    kept(other)
    kept(page)
    page.bring_to_front()  # or it is drawn once a second
    mask = mask_of(page)
    for answer in (".quiet", ".primary"):
        page.click("header [aria-label='Settings']")
        page.click("dialog .row.danger")
        if answer == ".primary":
            with page.expect_navigation():
                page.click(f"dialog.ask {answer}")
        else:
            page.click(f"dialog.ask {answer}")
            page.wait_for_selector("dialog", state="detached")
            assert (mask_of(page) == mask).all()
    is_ready(page)
    page.wait_for_selector(".empty")
    assert page.evaluate(f"() => {PAGE}.session.document.picture.peek()") is None
    assert page.input_value("textarea[name=prompt]") == ""
    stored = page.evaluate(
        """() => import('/page/state/database.js').then(async ({readAll}) => {
            const documents = await readAll("documents");
            return [documents.length, (await Promise.all(["tiles", "commands", "jobs", "blobs"].map((name) =>
                Promise.all(documents.map(({key}) => readAll(name, key)))))).flat(2).length];
        })"""
    )
    reload(other)
    has_picture(other)
    assert other.evaluate(f"() => {PAGE}.view.stage.source.width") == 200
    assert stored[0] == 1 and stored[1] > 0


def test_a_model_whose_file_is_gone_is_said_until_it_is_back(
    open_page: OpenPage, start_server: StartServer, picture: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("served", "other"):
        shutil.copy(tiny_checkpoint, models / f"{name}.safetensors")
    served = str(models / "served.safetensors")
    server = start_server("--model", served, "--device", "cpu", "--set", f"models_dir={models}")
    page = begun(open_page, picture, server.url)
    mask = mask_of(page)
    page.select_option("[name=checkpoint]", "other")
    for name in ("served", "other"):
        (models / f"{name}.safetensors").unlink()
    page.click("button.paint")
    page.wait_for_selector(".field.checkpoint .error:has-text('other')")
    assert "there is no such model" in page.inner_text(".field.checkpoint .error")
    assert (mask_of(page) == mask).all() and page.locator(".card.failed").count() == 1
    page.evaluate(f"() => {PAGE}.session.document.fill({{checkpoint: undefined}})")
    page.click("button.paint")
    page.wait_for_selector(".problem:has-text('served.safetensors: the file is gone; put it back or choose another')")
    assert page.locator(".field.checkpoint .error").is_hidden() and (mask_of(page) == mask).all()
    shutil.copy(tiny_checkpoint, served)
    painted(page)
    page.wait_for_selector(".problem", state="hidden")
