"""How smoothly the page paints: frames of the browser while a brush moves over a large picture.

python -m benchmarks.page [--megapixels 24] [--strokes 30] [--softness 0]

It needs chromium and the package playwright. Without a screen the browser draws with the processor alone, as it does
on a machine without a graphics card; every frame of a stroke counts, from one picture on the screen to the next. A
stroke has 60 frames, so it takes a second where the screen is drawn 60 times in one: 200 strokes take four minutes.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from overpaint.service.page_files import FOLDER

GOOD = (20.0, 33.0)  # milliseconds: the median, and what 95 of 100 frames keep to
_STROKE = """async ([softness, seed]) => {
    const page = document.querySelector("over-paint");
    const {brush} = await import("/page/state/settings.js");
    brush.value = {size: 60 / page.view.stage.view.scale, softness, opacity: 1};
    const host = page.view, box = host.getBoundingClientRect(), frames = [];
    const tell = (type, x, y) => host.dispatchEvent(new PointerEvent(type, {
        pointerId: 1, pointerType: "mouse", button: 0, buttons: 1, bubbles: true,
        clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    host.setPointerCapture = () => {};
    let last = await frame();
    tell("pointerdown", 0.5, 0.5);
    for (let i = 0; i < 60; i++) {
        for (let k = 0; k < 4; k++) {
            const t = seed + (i + k / 4) / 18;
            tell("pointermove", 0.5 + 0.42 * Math.sin(2.1 * t), 0.5 + 0.42 * Math.sin(3.3 * t + 1));
        }
        const now = await frame();
        frames.push(now - last);
        last = now;
    }
    tell("pointerup", 0.5, 0.5);
    await page.session.keeper.chain;
    return frames.slice(2);
}"""
_HEAP = "() => { globalThis.gc?.(); return performance.memory ? performance.memory.usedJSHeapSize / 1e6 : 0; }"
_HELD = """() => {
    const {session} = document.querySelector("over-paint");
    const changes = session.document.history.commands.map((each) => session.changes.get(each));
    const bytes = (pairs) => [...(pairs ?? [])].reduce((sum, [, each]) => sum + each.length, 0);
    const tiles = [...new Set(session.mask.tiles)].reduce((sum, each) => sum + (each?.length ?? 0), 0);
    const held = changes.reduce((sum, each) => sum + bytes(each.raw) + (each.small ? bytes(each.small) : 0), 0);
    return [tiles / 1e6, held / 1e6];
}"""
ZOOMS = 50
FLAT = 20.0  # megabytes beside the mask, which has at most a byte for each pixel of the picture
_ZOOMS = """async (count) => {
    const {view} = document.querySelector("over-paint");
    for (let i = 0; i < count; i++) {
        view.zoom(i % 10 < 5 ? 1.4 : 1 / 1.4);
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    }
    return count;
}"""


class _Files(http.server.SimpleHTTPRequestHandler):
    """The page's files as the server gives them; nothing else is needed to paint a mask."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def translate_path(self, path: str) -> str:
        name = path.partition("?")[0].removeprefix("/page/").lstrip("/") or "index.html"
        return str(FOLDER / name)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of each request."""


def main() -> None:
    words = argparse.ArgumentParser(description="Frames of the page while a brush moves.")
    words.add_argument("--megapixels", type=float, default=24)
    words.add_argument("--strokes", type=int, default=30, help="each takes a second or more (default 30)")
    words.add_argument("--softness", type=float, default=0)
    given = words.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        picture = _picture(Path(folder) / "large.jpg", given.megapixels)
        flags = ["--no-sandbox", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("() => document.querySelector('over-paint')?.isReady?.peek()")
        page.set_input_files("input[type=file]", picture)
        page.wait_for_function("() => document.querySelector('over-paint').view.gestures", timeout=60_000)
        _measure(page, given.strokes, given.softness)
        browser.close()
    server.shutdown()


_IDLE = """async () => {
    const frames = [];
    let last = await new Promise((resolve) => requestAnimationFrame(resolve));
    for (let i = 0; i < 120; i++) {
        const now = await new Promise((resolve) => requestAnimationFrame(resolve));
        frames.push(now - last);
        last = now;
    }
    return frames;
}"""


def _measure(page: Page, strokes: int, softness: float) -> None:
    idle = np.percentile(np.array(page.evaluate(_IDLE)), (50, 95))
    print(f"with nothing to do: median {idle[0]:.1f} ms, 95th percentile {idle[1]:.1f} ms")
    page.evaluate(_STROKE, [softness, 0])  # warm
    before, held = page.evaluate(_HEAP), page.evaluate(_HELD)
    frames = np.array([each for i in range(strokes) for each in page.evaluate(_STROKE, [softness, i])])
    median, slow = np.percentile(frames, (50, 95))
    verdict = "good" if median <= GOOD[0] and slow <= GOOD[1] else "too slow"
    print(f"{strokes} strokes, {len(frames)} frames: median {median:.1f} ms, 95th percentile {slow:.1f} ms: {verdict}")
    zooms = page.evaluate(_ZOOMS, ZOOMS)
    after, kept = page.evaluate(_HEAP), page.evaluate(_HELD)
    verdict = "flat" if (after - kept[0]) - (before - held[0]) <= FLAT else "it grows"
    told = f"heap after a collection: {before:.0f} MB before, {after:.0f} MB after {strokes} strokes and {zooms} zooms"
    print(f"{told}, of which {kept[0]:.0f} MB are the mask and {kept[1]:.1f} MB what undoes its strokes: {verdict}")


def _picture(path: Path, megapixels: float) -> Path:
    """A picture with something to see in every part."""
    high = round((megapixels * 1e6 / 1.5) ** 0.5)
    small = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(small).resize((round(high * 1.5), high), Image.Resampling.BICUBIC).save(path, quality=88)
    return path


if __name__ == "__main__":
    main()
