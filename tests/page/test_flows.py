"""The page as painters use it, in a browser, on a server that paints."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.page.conftest import (
    OpenPage,
    brush,
    drop,
    has_picture,
    intercept_file_choosers,
    kept,
    kept_with_form,
    mask_of,
    picture_file,
    reload,
    set_brush,
    shown_picture,
)
from tests.service.conftest import Server, StartServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"

pytestmark = pytest.mark.slow


def paint(page: Page, prompt: str = "a red boat") -> None:
    page.fill("textarea[name=prompt]", prompt)
    page.click("button.paint")


def set_steps(page: Page, steps: int) -> None:
    """Of a pass that is small enough for a test."""
    page.evaluate(f"() => {PAGE}.session.document.fill({{steps: {steps}, width: 64, height: 64}})")


def staged(page: Page) -> None:
    page.wait_for_function(f"() => {PAGE}?.view?.stage?.result")


def test_from_a_dropped_picture_to_a_changed_one(open_page: OpenPage, picture: Path, painting_server: Server) -> None:
    """The painted part is other than before, and the rest the same to the last bit."""
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.5))
    mask = mask_of(page)
    assert 0 < (mask > 0).mean() < 0.5
    set_steps(page, 2)
    paint(page)
    staged(page)
    job = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0]")
    with painting_server.client() as client:
        told = client.get(f"/v1/jobs/{job['id']}/events").text
    assert f'"crop": {job["crop"]}' in told, "the box is told with the job's start"
    says_on_button(page, r"^64 × 64, \d+ s last time$")
    set_steps(page, 3)  # which nobody has waited for yet
    says_on_button(page, "^64 × 64$")
    set_steps(page, 2)
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 2")
    kept(page)
    before, after = np.asarray(Image.open(picture)), shown_picture(page)
    changed = (before != after).any(axis=2)
    assert changed[mask > 0].mean() > 0.9
    far = np.asarray(Image.fromarray(mask).filter(_grown(31))) == 0  # the soft edge reaches a little beyond the mask
    assert far.mean() > 0.2 and not changed[far].any()
    assert (mask_of(page) == 0).all()
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => !{PAGE}.session.mask.isEmpty()")
    assert (shown_picture(page) == before).all() and (mask_of(page) == mask).all()


def says_on_button(page: Page, pattern: str) -> None:
    page.wait_for_function(
        "(pattern) => new RegExp(pattern).test(document.querySelector('button.paint small').textContent)", arg=pattern
    )


def _grown(side: int) -> Any:
    from PIL import ImageFilter

    return ImageFilter.MaxFilter(side)


# Of all steps; the others are in the browser's store, and fetched when they are undone.
HOLDS_ONE_STEP = f"""() => {{
    const {{session}} = {PAGE};
    const all = session.document.history.commands.map((each) => session.changes.get(each));
    return all.length === 31 && all.filter((each) => each.raw?.size || each.small?.length).length === 1;
}}"""


def test_thirty_strokes_are_undone_and_done_again(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    drop(page, picture_file(tmp_path / "wide.png", 900, 600))
    has_picture(page)
    page.evaluate(f"() => {{ {PAGE}.session.room = {{raw: 0, packed: 0}}; }}")
    set_brush(page, 60, 0.4)
    states = [mask_of(page)]
    for i in range(30):
        brush(page, (0.1 + 0.026 * i, 0.2 + 0.02 * (i % 9)), (0.15 + 0.02 * i, 0.8 - 0.01 * i))
        if i in (0, 14, 29):
            states.append(mask_of(page))
    assert len({each.tobytes() for each in states}) == 4
    assert page.evaluate(f"() => {PAGE}.session.document.history.length.peek()") == 31
    kept(page)
    page.wait_for_function(HOLDS_ONE_STEP)
    for _ in range(15):
        page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 16")
    assert (mask_of(page) == states[2]).all()
    kept(page)
    reload(page)
    has_picture(page)
    assert (mask_of(page) == states[2]).all()
    for _ in range(15):
        page.keyboard.press("Control+Shift+z")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 31")
    assert (mask_of(page) == states[3]).all()
    for _ in range(30):
        page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PAGE}.session.document.history.at.peek() === 1")
    assert not mask_of(page).any()


def test_a_job_is_cancelled_while_it_runs(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.3, 0.3), (0.7, 0.7))
    set_steps(page, 150)
    paint(page)
    page.wait_for_selector(".card.running")
    page.click(".card .corner:not(.early)")
    page.wait_for_selector(".card.cancelled")
    set_steps(page, 2)
    paint(page)
    staged(page)


def test_a_job_is_finished_early(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.3, 0.3), (0.7, 0.7))
    set_steps(page, 150)
    paint(page)
    page.wait_for_function(f"() => {PAGE}.jobs.document.jobs.peek()[0]?.step > 0")
    page.click(".card .early")
    staged(page)
    steps = page.evaluate(f"() => {PAGE}.jobs.document.jobs.peek()[0].step")
    assert 0 < steps < 100


def test_a_reload_during_a_run_finds_picture_mask_form_and_job(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    mask = mask_of(page)
    set_steps(page, 60)
    paint(page, "a lighthouse")
    page.wait_for_selector(".card.running")
    kept_with_form(page)
    reload(page)
    has_picture(page)
    assert (mask_of(page) == mask).all()
    assert page.input_value("textarea[name=prompt]") == "a lighthouse"
    staged(page)
    page.wait_for_selector(".card img")
    assert page.locator(".card").count() == 1


def test_jobs_side_by_side_do_not_undo_each_other(open_page: OpenPage, picture: Path) -> None:
    """The next mask is painted while the first job runs; both results are kept, one after the other."""
    page = open_page()
    drop(page, picture)
    has_picture(page)
    set_brush(page, 40, 0)
    page.evaluate(f"() => {PAGE}.session.document.fill({{padding: 8, mask_blur_x: 0, mask_blur_y: 0}})")
    set_steps(page, 4)
    brush(page, (0.2, 0.2), (0.25, 0.3))
    left = mask_of(page) > 0
    paint(page)
    page.keyboard.press("Escape")
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("Delete")
    page.wait_for_function(f"() => {PAGE}.session.mask.isEmpty()")
    brush(page, (0.8, 0.7), (0.75, 0.8))
    right = mask_of(page) > 0
    paint(page)
    page.wait_for_function(
        f"() => {PAGE}.jobs.document.jobs.peek().filter((each) => each.results[0]?.file).length === 2"
    )
    for _ in range(2):
        count = page.evaluate(f"() => {PAGE}.session.document.pictures.peek().length")
        page.evaluate(
            f"""() => {{
                const {{jobs}} = {PAGE};
                const [job] = jobs.document.jobs.peek().slice(-{count});
                jobs.staged.value = {{job: job.id, number: 0}};
                return jobs.accept();
            }}"""
        )
        page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === {count + 1}")
    changed = (np.asarray(Image.open(picture)) != shown_picture(page)).any(axis=2)
    assert changed[left].mean() > 0.9 and changed[right].mean() > 0.9
    assert not changed[~(left | right)].any()


def test_a_token_is_asked_for_once(open_page: OpenPage, start_server: StartServer, picture: Path) -> None:
    server = start_server(token="open sesame")
    page = open_page(server.url)
    page.wait_for_selector("dialog.token[open]")
    page.fill("dialog.token input", "wrong")
    page.click("dialog.token .primary")
    page.wait_for_selector("dialog.token[open] .error")
    page.fill("dialog.token input", "open sesame")
    page.click("dialog.token .primary")
    page.wait_for_selector("settings-form select[name=sampler]")
    drop(page, picture)
    has_picture(page)
    set_steps(page, 2)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    paint(page)
    staged(page)
    reload(page)
    has_picture(page)
    page.wait_for_selector("settings-form select[name=sampler]")
    assert page.locator("dialog").count() == 0


def test_all_of_it_by_keys(open_page: OpenPage, picture: Path, painting_server: Server) -> None:
    """Open, brush, prompt, paint, compare and keep, without a pointer."""
    page = open_page()
    intercept_file_choosers(page)
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Control+o")
    choosing.value.set_files(picture)
    has_picture(page)
    assert page.evaluate("() => document.activeElement.localName") == "picture-view"
    page.keyboard.press("b")
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert mask_of(page).any()
    set_steps(page, 2)
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.name") == "prompt":
            break
    page.keyboard.type("a tree")
    page.keyboard.press("Control+Enter")
    staged(page)
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("c")
    assert page.evaluate(f"() => {PAGE}.view.stage.split") == 0.5
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => {PAGE}.session.document.pictures.peek().length === 2")


def test_a_picture_from_words_alone(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(f"() => {PAGE}.session.document.fill({{steps: 2, width: 96, height: 64, strength: 0.4}})")
    paint(page, "a hill")
    page.wait_for_function(f"() => {PAGE}?.view?.stage?.source")
    assert page.locator(".empty").is_hidden()
    page.keyboard.press("Escape")
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Escape")
    page.wait_for_selector(".empty")
    page.click(".card .look")
    page.click("staged-bar .primary")
    page.wait_for_function(f"() => {PAGE}.session.document.picture.peek()")
    assert shown_picture(page).shape == (64, 96, 3)


def test_what_the_server_refuses_is_said_beside_its_field(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    page.evaluate(f"() => {PAGE}.session.document.fill({{steps: 900}})")
    paint(page)
    error = page.wait_for_selector(".field.steps .error:not([hidden])")
    assert error is not None and "150" in error.inner_text()


@pytest.mark.parametrize("content", [b"this is no picture", b"\x89PNG\r\n\x1a\n"], ids=["text", "cut"])
def test_a_file_that_is_no_picture(open_page: OpenPage, tmp_path: Path, content: bytes, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    mask = mask_of(page)
    (tmp_path / "no.png").write_bytes(content)
    drop(page, tmp_path / "no.png")
    page.wait_for_selector(".notice.failed")
    assert (mask_of(page) == mask).all()


def test_a_painted_picture_gives_its_settings_back(
    open_page: OpenPage, painting_server: Server, tmp_path: Path
) -> None:
    asked = {
        "kind": "paint",
        "prompt": "a green hill",
        "steps": 3,
        "cfg_scale": 5.5,
        "seed": 77,
        "width": 64,
        "height": 64,
    }
    with painting_server.client() as client:
        job = client.post("/v1/jobs", json=asked, headers={"Prefer": "wait"}).json()
        (tmp_path / "painted.png").write_bytes(client.get(job["images"][0]).content)
    page = open_page()
    drop(page, tmp_path / "painted.png")
    page.click(".offer .quiet")
    form = page.evaluate(f"() => {PAGE}.session.document.form.peek()")
    assert {name: form[name] for name in asked if name != "kind"} == {
        name: v for name, v in asked.items() if name != "kind"
    }


def test_what_cannot_be_read_is_not_written_over(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    mask = mask_of(page)
    kept(page)
    page.context.add_init_script(
        """if (!sessionStorage.getItem("well")) {
            const get = IDBObjectStore.prototype.get;
            IDBObjectStore.prototype.get = function (...given) {
                if (this.name === "documents") throw new Error("the disk is tired");
                return get.apply(this, given);
            };
        }"""
    )
    reload(page)
    page.wait_for_selector(".notice.failed")
    page.fill("textarea[name=prompt]", "something else")
    kept_with_form(page)
    page.evaluate("() => sessionStorage.setItem('well', 'yes')")
    reload(page)
    has_picture(page)
    assert (mask_of(page) == mask).all() and page.input_value("textarea[name=prompt]") == ""


@pytest.mark.parametrize("has_locks", [True, False], ids=["with locks", "without locks, as over plain http"])
def test_two_tabs_have_a_picture_each(open_page: OpenPage, picture: Path, tmp_path: Path, has_locks: bool) -> None:
    first = open_page()
    if not has_locks:
        first.context.add_init_script("Object.defineProperty(navigator, 'locks', {value: undefined})")
        reload(first)
        assert first.evaluate("() => navigator.locks") is None
    drop(first, picture)
    has_picture(first)
    brush(first, (0.4, 0.4), (0.6, 0.6))
    kept(first)
    second = open_page(context=first.context)
    assert second.evaluate(f"() => {PAGE}.session.document.id") != first.evaluate(f"() => {PAGE}.session.document.id")
    drop(second, picture_file(tmp_path / "other.png", 200, 100))
    has_picture(second)
    kept(second)
    for page, width in ((first, 320), (second, 200)):
        reload(page)
        has_picture(page)
        assert page.evaluate(f"() => {PAGE}.view.stage.source.width") == width


def test_a_server_that_goes_and_comes_back(open_page: OpenPage, start_server: StartServer, picture: Path) -> None:
    server = start_server()
    port = re.sub(r".*:", "", server.url)
    page = open_page(server.url)
    drop(page, picture)
    has_picture(page)
    set_steps(page, 2)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    kept(page)
    page.wait_for_load_state("networkidle")
    server.kill()
    paint(page)
    page.wait_for_selector(".notice.failed")
    start_server("--port", port, data=server.data)
    staged(page)


def test_fingers_paint_and_two_of_them_zoom(open_page: OpenPage, picture: Path) -> None:
    page = open_page(has_touch=True, viewport={"width": 390, "height": 844})
    drop(page, picture)
    has_picture(page)
    tell = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        told = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        tell.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})

    touch("touchStart", (180, 200))
    touch("touchMove", (210, 220))
    touch("touchEnd")
    page.wait_for_function(f"() => !{PAGE}.session.mask.isEmpty()")
    mask, scale = mask_of(page), page.evaluate(f"() => {PAGE}.view.stage.view.scale")
    touch("touchStart", (150, 200))
    touch("touchStart", (150, 200), (220, 240))
    touch("touchMove", (130, 190), (260, 260))
    touch("touchEnd")
    assert page.evaluate(f"() => {PAGE}.view.stage.view.scale") > 1.2 * scale
    assert (mask_of(page) == mask).all()


@pytest.mark.parametrize(
    ("theme", "size"),
    [
        pytest.param("light", (1280, 800), id="desktop-light"),
        pytest.param("dark", (360, 740), id="phone-dark"),
        pytest.param("dark", (1280, 800), id="desktop-dark", marks=pytest.mark.long),
        pytest.param("light", (360, 740), id="phone-light", marks=pytest.mark.long),
    ],
)
def test_no_serious_barrier(open_page: OpenPage, picture: Path, theme: str, size: tuple[int, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = open_page(color_scheme=theme, viewport={"width": size[0], "height": size[1]})
    page.wait_for_selector("settings-form select[name=sampler]", state="attached")
    check(page, axe)
    drop(page, picture)
    has_picture(page)
    set_steps(page, 2)
    brush(page, (0.4, 0.4), (0.6, 0.6))
    paint(page)
    staged(page)
    check(page, axe)
    for name in DIALOGS:
        page.evaluate(f"() => {PAGE}.dialog('{name}')")
        page.wait_for_selector("dialog[open]")
        check(page, axe)
        if name in QUESTIONS:
            page.click(QUESTIONS[name])
            page.wait_for_selector("dialog.ask[open]")
            check(page, axe)
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog.ask", state="detached")
        if page.locator("dialog").count():
            page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
    page.evaluate(f"() => void {PAGE}.jobs.confirm('deepMerge')")
    page.wait_for_selector("dialog.ask[open]")
    check(page, axe)
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.evaluate(f"() => {PAGE}.dialog('showSheet', {PAGE}.jobs.document.jobs.peek()[0].results[0].file)")
    page.wait_for_function("() => document.querySelector('dialog.sheet img')?.naturalWidth")
    check(page, axe)
    page.keyboard.press("Escape")
    page.evaluate(f"() => {PAGE}.view.focus()")
    page.keyboard.press("c")
    page.wait_for_selector(".compare-slider")
    check(page, axe)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


DIALOGS = (
    *("showKeys", "showSettings", "showMask", "showVersions", "showExtend", "showGallery"),
    *("showNetworks", "showModels", "showPresets", "showGrid", "askToken"),
)
# What is asked before something is deleted, and the button that asks it.
QUESTIONS = {"showSettings": "dialog .row.danger", "showGallery": ".work .acts button:nth-child(4) >> nth=0"}


def check(page: Page, axe: Any) -> None:
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"][:160] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_first_load_asks_for_little(open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for_selector("settings-form select[name=sampler]")
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate(
        "() => performance.getEntriesByType('resource').map((each) => [each.name, each.transferSize])"
    )
    assert len(loaded) + 1 <= 25, [name for name, _ in loaded]
    assert sum(size for _, size in loaded) < 150_000


def test_german_is_spoken_where_it_is_wanted(open_page: OpenPage) -> None:
    page = open_page(locale="de-DE")
    assert page.inner_text("button.paint").startswith("Ein Bild malen")
    assert page.evaluate("() => document.documentElement.lang") == "de"


def test_a_job_has_the_mask_of_the_moment_in_which_it_was_asked_for(open_page: OpenPage, picture: Path) -> None:
    page = open_page()
    drop(page, picture)
    has_picture(page)
    brush(page, (0.2, 0.2), (0.4, 0.3))
    drawn = mask_of(page)
    assert drawn.any()
    data = page.evaluate(
        f"""async () => {{
            const {{session, jobs}} = {PAGE};
            await session.ready;
            const asked = jobs.paint();
            await null; // it has begun, and waits for a module
            session.mask.remake(() => null);
            await asked;
            const [job] = jobs.document.jobs.peek().slice(-1);
            return Array.from(new Uint8Array(await (await session.keeper.file(job.mask)).arrayBuffer()));
        }}"""
    )
    sent = np.asarray(Image.open(io.BytesIO(bytes(data))).convert("L"))
    assert np.array_equal(sent, drawn)
