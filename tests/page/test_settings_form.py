"""The form of the settings: what is sought and found there, seeds, languages, and pictures that edit models look at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from overpaint.service.page_files import FOLDER
from tests.page.conftest import OpenPage, drop, has_picture, kept_with_form, reload
from tests.service.conftest import Server, start

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"
SMALL = "{steps: 1, width: 64, height: 64}"

pytestmark = pytest.mark.slow


def form_of(page: Page) -> dict[str, Any]:
    form: dict[str, Any] = page.evaluate(f"() => {PAGE}.session.document.form.peek()")
    return form


def paint_new(page: Page, count: int) -> dict[str, Any]:
    """A picture without a source; the job when its file is there."""
    page.click("button.paint")
    page.wait_for_function(
        f"(count) => {PAGE}.jobs.document.jobs.peek().filter((each) => each.results[0]?.file).length === count",
        arg=count,
    )
    job: dict[str, Any] = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek().at(-1)")
    return job


def test_a_seed_is_rolled_kept_typed_and_let_go(open_page: OpenPage) -> None:
    page = open_page()
    dice = page.locator("settings-form .seed button")
    dice.wait_for()
    page.evaluate(f"() => {PAGE}.session.document.fill({SMALL})")
    assert form_of(page)["seed"] == -1 and dice.get_attribute("aria-pressed") == "true"
    seeds = [paint_new(page, count)["results"][0]["seed"] for count in (1, 2)]
    assert seeds[0] != seeds[1]
    dice.click()
    assert form_of(page)["seed"] == seeds[1], "the last picture's"
    assert page.input_value("[name=seed]") == str(seeds[1]) and dice.get_attribute("aria-pressed") == "false"
    assert paint_new(page, 3)["results"][0]["seed"] == seeds[1]
    page.fill("[name=seed]", "77")
    assert paint_new(page, 4)["results"][0]["seed"] == 77
    dice.click()
    assert form_of(page)["seed"] == -1 and page.input_value("[name=seed]") == ""
    page.click(".card .look[title$='Seed 77']")
    page.click("staged-bar [aria-label='Use its settings']")
    assert page.input_value("[name=seed]") == "77", "any picture's, once it is looked at"


def test_a_setting_is_found_by_its_name_and_by_what_it_is_for(open_page: OpenPage) -> None:
    page = open_page()
    page.click(".everything summary")
    found = page.locator(".everything .field:visible")
    found.nth(20).wait_for()
    for sought, name in (("SECOND seed", "variation_seed"), ("tiling", "tiling"), ("repeats seam", "tiling")):
        page.fill("[name=find-setting]", sought)
        page.wait_for_function("() => document.querySelectorAll('.everything .field:not([hidden])').length === 1")
        assert found.locator("[name]").get_attribute("name") == name
    page.check(".everything .field:visible input")
    assert form_of(page)["tiling"] is True
    page.fill("[name=find-setting]", "no such thing")
    page.wait_for_selector(".everything .hint:has-text('No setting is called that')")
    assert found.count() == 0


def test_every_setting_is_told_in_german(open_page: OpenPage) -> None:
    page = open_page(locale="de-DE")
    page.click(".everything summary")
    page.wait_for_selector(".everything .field:has-text('Kachelbar')")
    table = (FOLDER / "text" / "de.js").read_text(encoding="utf-8")
    sentences = set(re.findall(r'\["[^"]+", "([^"]+)"\]', table))
    shown = page.locator(".everything .field .about").all_text_contents()
    assert len(shown) > 25 and set(shown) <= sentences
    assert (
        set(page.locator("settings-form .field[title]").evaluate_all("all => all.map((each) => each.title)"))
        <= sentences
    )
    assert page.locator("[name=masked_content] option").all_text_contents()[0] in ("dem Bild", "Farben der Umgebung")
    page.fill("[name=find-setting]", "naht wiederholen")
    page.wait_for_function("() => document.querySelectorAll('.everything .field:not([hidden])').length === 1")
    page.evaluate("() => import('/page/text/text.js').then(({speak}) => speak('en'))")
    page.wait_for_selector(".everything .name x-slot:text-is('Tiling')", state="attached")
    assert "A picture that repeats without a seam." in page.locator(".everything .about").all_text_contents()


@pytest.fixture(scope="module")
def editing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a narrow Flux.2 klein, which looks at further pictures."""
    from tests.newer_toys import toy_klein

    folder = tmp_path_factory.mktemp("editing")
    server = start(folder / "data", "--model", str(toy_klein(folder / "models").path), "--device", "cpu")
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


def test_an_edit_model_is_shown_further_pictures(open_page: OpenPage, editing_server: Server, tmp_path: Path) -> None:
    for name, colour in (("hat", (220, 30, 30)), ("scarf", (30, 60, 220))):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no picture")
    page = open_page(editing_server.url)
    drop(page, tmp_path / "scarf.png")
    has_picture(page)
    page.wait_for_selector(".references")
    page.wait_for_selector("paint-panel output x-slot:text-is('100 %')")  # its own strength
    page.set_input_files(".references input", [tmp_path / "hat.png", tmp_path / "text.png"])
    page.wait_for_selector(".references .error:has-text('no picture')")
    page.set_input_files(".references input", tmp_path / "scarf.png")
    page.wait_for_selector(".references img[alt='scarf.png']")
    assert page.locator(".references .error").is_hidden()
    kept_with_form(page)
    reload(page)
    for name in ("hat", "scarf"):
        page.wait_for_function(
            f"() => document.querySelector(\".references img[alt='{name}.png']\")?.naturalWidth === 64"
        )
    page.click(".references [aria-label='Remove: scarf.png']")
    page.evaluate(f"() => {PAGE}.session.document.fill({{...{SMALL}, seed: 4, cfg_scale: 1}})")
    page.click("button.paint")
    page.wait_for_function(f"() => {PAGE}.view.stage.result")
    with editing_server.client() as client:
        (job,) = client.get("/v1/jobs").json()["jobs"]
        request = client.get(f"/v1/jobs/{job['id']}").json()["request"]
    assert len(request["references"]) == 1 and request["references"] != request["images"]
    drop(page, tmp_path / "scarf.png", ".references")
    page.wait_for_selector(".references img[alt='scarf.png']")
    assert page.evaluate(f"() => {PAGE}.session.document.pictures.peek().length") == 1, "it was not opened to paint on"
    page.select_option("[name=checkpoint]", "overpaint-mini")
    page.wait_for_selector(".references", state="hidden")
    wish = page.evaluate(f"() => import('/page/work/jobs.js').then(({{wishOf}}) => wishOf({PAGE}.session))")
    assert wish["references"] == [], "what that model would refuse is not sent"
