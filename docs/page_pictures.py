"""The pictures of the page in its guide: a server on the built-in model, a browser without a window, both themes.

It needs chromium and the package playwright.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SIZES = {"phone": (390, 780), "desktop": (1280, 800)}
_PAGE = "document.querySelector('over-paint')"
_PATIENCE = 240_000  # milliseconds
_GALLERIES = ("page-desktop-dark", "page-phone-light")  # screens on which the gallery is shown, too


def take(source: Path, folder: Path) -> None:
    """Each screen in each theme, with a picture, a mask and a result."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as place, _served(Path(place)) as url, sync_playwright() as playwright:
        with Image.open(source) as opened:
            opened.convert("RGB").resize((960, 720), Image.Resampling.BICUBIC).save(Path(place) / "lake.png")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, size in SIZES.items():
            for theme in ("dark", "light"):  # the first job is slow, and the page says so on its button
                _screen(browser, url, Path(place) / "lake.png", size, theme, folder / f"page-{name}-{theme}.png")
        browser.close()


@contextmanager
def _served(data: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "overpaint", "serve", "--port", "0", "--data", str(data / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield "http://" + process.stdout.readline().split("http://", 1)[1].split()[0]
        finally:
            process.terminate()


def _screen(browser: Browser, url: str, picture: Path, size: tuple[int, int], theme: str, to: Path) -> None:
    is_dark = theme == "dark"
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if is_dark else "light"
    )
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    page.goto(url)
    page.set_input_files("input[type=file]", picture)
    page.wait_for_function(f"() => {_PAGE}.view.gestures")
    page.fill("textarea[name=prompt]", "a red boat")
    _stroke(page, (0.3, 0.66), (0.5, 0.7))
    page.click("button.paint")
    page.wait_for_function(f"() => {_PAGE}.view.stage.result")
    page.keyboard.press("Escape")
    page.wait_for_selector("settings-form select[name=sampler]", state="attached")
    page.evaluate("() => document.activeElement.blur()")
    page.wait_for_timeout(800)
    page.screenshot(path=to)
    if to.stem in _GALLERIES:
        page.evaluate(f"() => {_PAGE}.dialog('showGallery')")
        page.wait_for_function(
            "() => { const all = [...document.querySelectorAll('.work img')];"
            " return all.length && all.every((each) => each.naturalWidth); }"
        )
        page.evaluate("() => document.activeElement.blur()")
        page.screenshot(path=to.with_name(to.name.replace("page-", "page-gallery-")))
    context.close()


def _stroke(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    told = page.evaluate(
        f"""() => {{
            const {{stage}} = {_PAGE}.view, {{left, top}} = stage.host.getBoundingClientRect();
            return [left + stage.view.x, top + stage.view.y, stage.view.scale * stage.source.width,
                    stage.view.scale * stage.source.height];
        }}"""
    )
    left, top, wide, high = told
    page.mouse.move(left + start[0] * wide, top + start[1] * high)
    page.mouse.down()
    page.mouse.move(left + end[0] * wide, top + end[1] * high, steps=10)
    page.mouse.up()
    page.wait_for_timeout(700)
