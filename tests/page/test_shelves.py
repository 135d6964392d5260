"""What the page keeps on the server and finds again: the gallery, presets, styles, networks, and help with prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.page.conftest import OpenPage, has_picture, shown_picture
from tests.service.conftest import Server, start

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"
JOB: dict[str, Any] = {"kind": "paint", "steps": 2, "width": 64, "height": 64}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stocked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a LoRA, an embedding and a style. Nothing is painted with them."""
    from tests.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("stocked")
    model = make_tiny_checkpoint(folder / "sketch.safetensors")
    for kind, name in (("loras", "inkwash"), ("embeddings", "bokehlights")):
        (folder / kind).mkdir()
        save_file({"x": np.zeros(1, np.float32)}, folder / kind / f"{name}.safetensors")
    (folder / "loras" / "inkwash.json").write_text(json.dumps({"activation text": "in ink"}))
    Image.new("RGB", (64, 64), (9, 80, 70)).save(folder / "loras" / "inkwash.png")
    Image.new("RGB", (48, 48), (90, 8, 70)).save(folder / "sketch.png")
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\noil,{prompt} in oil,photo\n")
    given = {
        "lora_dir": folder / "loras",
        "embeddings_dir": folder / "embeddings",
        "styles_file": folder / "styles.csv",
    }
    words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    server = start(folder / "data", "--model", str(model), "--device", "cpu", *words)
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)
        for each in (server.process.stdout, server.process.stderr):
            if each is not None:
                each.close()


def form_of(page: Page) -> dict[str, Any]:
    form: dict[str, Any] = page.evaluate(f"() => {PAGE}.session.document.form.peek()")
    return form


def prompt_is(page: Page, prompt: str) -> None:
    page.wait_for_function(f"(wanted) => {PAGE}.session.document.form.peek().prompt === wanted", arg=prompt)


def test_the_gallery_finds_pins_opens_and_deletes(open_page: OpenPage, stocked_server: Server) -> None:
    prompts = {"one": "a red boat", "two": "a green boat", "three": "a hill"}
    with stocked_server.client() as client:
        for number, (name, prompt) in enumerate(prompts.items()):
            asked = {**JOB, "prompt": prompt, "seed": 40 + number}
            client.put(f"/v1/jobs/{name}", json=asked, headers={"Prefer": "wait"})
        page = open_page(stocked_server.url)
        page.keyboard.press("v")
        works = page.locator(".gallery .work")
        works.nth(2).wait_for()
        assert [text.splitlines()[0] for text in works.locator("p").all_inner_texts()] == [*prompts.values()][::-1]
        page.wait_for_function("() => [...document.querySelectorAll('.work img')].every((each) => each.naturalWidth)")
        page.fill("[name=find-painted]", "boat RED")
        page.wait_for_function("() => document.querySelectorAll('.work').length === 1")
        works.locator("button").nth(1).click()
        page.wait_for_selector(".work [aria-pressed=true]")
        assert client.get("/v1/jobs/one").json()["pinned"]
        page.fill("[name=find-painted]", "")
        page.wait_for_function("() => document.querySelectorAll('.work').length === 3")
        page.click(".gallery .only input")
        page.wait_for_function("() => document.querySelectorAll('.work').length === 1")
        page.click(".work .acts button:nth-child(2)")
        prompt_is(page, "a red boat")
        assert form_of(page)["seed"] == 40
        page.keyboard.press("v")
        works.nth(2).wait_for()
        page.click(".work .look >> nth=1")
        has_picture(page)
        assert shown_picture(page).shape == (64, 64, 3) and page.locator("dialog").count() == 0
        page.keyboard.press("v")
        works.nth(2).wait_for()
        page.click(".work >> nth=0 >> .acts button:nth-child(4)")
        page.click("dialog.ask .primary")
        page.wait_for_function("() => document.querySelectorAll('.work').length === 2")
        assert client.get("/v1/jobs/three").json()["gone"]


def test_a_prompt_is_completed_counted_and_weighed(open_page: OpenPage, stocked_server: Server) -> None:
    page = open_page(stocked_server.url)
    page.click("textarea[name=prompt]")
    page.keyboard.type("a lake <lo")
    page.wait_for_selector("#prompt-choices [role=option]")
    page.keyboard.press("Enter")
    prompt_is(page, "a lake <lora:inkwash:1> in ink")
    page.keyboard.type(", boke")
    page.wait_for_selector("#prompt-choices [role=option]")
    page.keyboard.press("Escape")
    page.keyboard.type("h")
    page.wait_for_selector("#prompt-choices [role=option]")
    page.keyboard.press("Tab")
    prompt_is(page, "a lake <lora:inkwash:1> in ink, bokehlights")
    page.keyboard.press("Control+ArrowUp")
    prompt_is(page, "a lake <lora:inkwash:1> in ink, (bokehlights:1.1)")
    with stocked_server.client() as client:
        told = client.post("/v1/tokens", json={"text": form_of(page)["prompt"]}).json()
    wanted = f"{told['tokens']} / {told['room']}"
    page.wait_for_function("(wanted) => document.querySelector('.tokens').textContent === wanted", arg=wanted)
    page.click(".helpers button >> nth=0")
    page.wait_for_function("() => document.querySelector('.work img')?.naturalWidth === 64")
    page.fill("[name=find-network]", "boke")
    page.wait_for_function("() => document.querySelectorAll('.work').length === 1")
    page.click(".work .look")
    prompt_is(page, "a lake <lora:inkwash:1> in ink, (bokehlights:1.1), bokehlights")


def test_a_model_is_found_and_chosen_by_its_picture(open_page: OpenPage, stocked_server: Server) -> None:
    page = open_page(stocked_server.url)
    page.click("settings-form .checkpoint .icon-button")
    page.wait_for_function("() => document.querySelectorAll('.work').length > 1")
    page.fill("[name=find-model]", "no such")
    page.wait_for_selector("dialog .hint:has-text('No model is called that')")
    page.fill("[name=find-model]", "sket")
    page.wait_for_function("() => document.querySelector('.work img')?.naturalWidth === 48")
    page.click(".work .look")
    page.wait_for_selector("dialog", state="detached")
    assert form_of(page)["checkpoint"] == page.input_value("settings-form select[name=checkpoint]") == "sketch"
    page.click("settings-form .checkpoint .icon-button")
    page.wait_for_selector(".look[aria-pressed=true][aria-label$='sketch']")


def test_presets_and_styles_are_the_servers(open_page: OpenPage, stocked_server: Server) -> None:
    page = open_page(stocked_server.url)
    page.fill("textarea[name=prompt]", "a hill")
    page.evaluate(f"() => {PAGE}.session.document.fill({{steps: 7}})")
    page.click(".helpers button >> nth=1")
    page.check("dialog label:has-text('oil') input")
    assert form_of(page)["styles"] == ["oil"]
    page.fill("[name=preset-name]", "Hills in oil")
    page.click("dialog form .quiet")
    page.wait_for_selector("dialog li:has-text('Hills in oil')")
    other = open_page(stocked_server.url)  # another browser
    assert "steps" not in form_of(other)
    other.click(".helpers button >> nth=1")
    other.click("dialog li button.row:has-text('Hills in oil')")
    other.wait_for_selector("dialog", state="detached")
    taken = form_of(other)
    assert (taken["prompt"], taken["steps"], taken["styles"]) == ("a hill", 7, ["oil"])
    page.click("dialog li:has-text('Hills in oil') .icon-button")
    page.wait_for_selector("dialog li:has-text('Hills in oil')", state="detached")
    with stocked_server.client() as client:
        assert client.get("/v1/presets").json() == {"presets": []}
