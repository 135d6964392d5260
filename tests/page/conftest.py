"""A browser for the page's tests, and a server that paints at once."""

from __future__ import annotations

import base64
import importlib.util
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Server, start, start_server, tiny_checkpoint  # noqa: F401 (fixtures)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60_000.0  # milliseconds for whatever a test waits for

AS_TEXT = """(file) => new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(file);
})"""

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window.

    Not for the session: Playwright keeps an event loop running in this thread while it lives, and then no test of
    another folder could start one of its own."""
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("the page's tests need chromium and the package playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def painting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests of the page, on the tiny checkpoint."""
    from tests.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("page")
    model = make_tiny_checkpoint(folder / "sketch.safetensors")
    server = start(folder / "data", "--model", str(model), "--device", "cpu")
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)
        for each in (server.process.stdout, server.process.stderr):
            if each is not None:
                each.close()


@pytest.fixture
def open_page(browser: Browser, painting_server: Server) -> Iterator[OpenPage]:
    """A page of a browser that nobody has used, ready; what goes wrong in its scripts fails the test."""
    contexts, said = [], list[str]()

    def opened(url: str | None = None, context: Any = None, **options: Any) -> Page:
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url or painting_server.url)
        is_ready(page)
        return page

    yield opened
    for each in contexts:
        each.close()
    assert said == []


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Noise of 320 x 240: no two pixels are alike, so nothing can be moved or rounded unseen."""
    return picture_file(tmp_path / "picture.png", 320, 240)


def picture_file(path: Path, width: int, height: int) -> Path:
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def is_ready(page: Page) -> None:
    """The page listens; it does not when it has only been loaded."""
    page.wait_for_function("() => document.querySelector('over-paint')?.isReady?.peek()")


def reload(page: Page) -> None:
    page.reload()
    is_ready(page)


def drop(page: Page, path: Path, place: str = "body") -> None:
    """Let a file fall on the page, as a file manager does."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")  # lists of numbers take Playwright seconds
    page.evaluate(
        """([data, name, place]) => {
            const given = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            given.items.add(new File([bytes], name, {type: "image/png"}));
            const event = new DragEvent("drop", {dataTransfer: given, bubbles: true, cancelable: true});
            document.querySelector(place).dispatchEvent(event);
        }""",
        [data, path.name, place],
    )


def intercept_file_choosers(page: Page) -> None:
    """Only once the browser has said that it intercepts them: a key may be faster than that request."""
    page.on("filechooser", lambda _: None)
    page.evaluate("() => null")


def has_picture(page: Page) -> None:
    page.wait_for_function("() => document.querySelector('over-paint')?.view?.stage?.source")
    page.wait_for_function("() => document.querySelector('over-paint').view.gestures")


def place_of(page: Page, across: float, down: float) -> tuple[float, float]:
    """Where in the window a point of the picture lies, which is given in parts of its size."""
    x, y = page.evaluate(
        """([across, down]) => {
            const {stage} = document.querySelector("over-paint").view;
            const {left, top} = stage.host.getBoundingClientRect(), {x, y, scale} = stage.view;
            return [left + x + across * stage.source.width * scale, top + y + down * stage.source.height * scale];
        }""",
        [across, down],
    )
    return x, y


def set_brush(page: Page, size: int, softness: float = 0) -> None:
    values = f"{{size: {size}, softness: {softness}, opacity: 1}}"
    page.evaluate(f"() => import('/page/state/settings.js').then(({{brush}}) => brush.value = {values})")


def brush(page: Page, *points: tuple[float, float]) -> None:
    """A stroke through points of the picture, each as parts of its size."""
    view = page.evaluate(
        """() => {
            const {stage} = document.querySelector("over-paint").view;
            const {left, top} = stage.host.getBoundingClientRect();
            return [stage.view.x + left, stage.view.y + top, stage.view.scale, stage.source.width, stage.source.height];
        }"""
    )
    x, y, scale, width, height = view
    places = [(x + a * width * scale, y + b * height * scale) for a, b in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for each in places[1:]:
        page.mouse.move(*each, steps=4)
    page.mouse.up()


def mask_of(page: Page) -> np.ndarray[Any, Any]:
    """The mask's bytes as the page holds them."""
    width, height, flat = page.evaluate(
        """async () => {
            const {mask} = document.querySelector("over-paint").session;
            const bytes = mask.flat([0, 0, mask.width, mask.height]);
            return [mask.width, mask.height, await (AS_TEXT)(new Blob([bytes]))];
        }""".replace("AS_TEXT", AS_TEXT)
    )
    return np.frombuffer(base64.b64decode(flat), np.uint8).reshape(height, width)


def shown_picture(page: Page) -> np.ndarray[Any, Any]:
    """The file of the present version of the picture."""
    data = page.evaluate(
        """async () => {
            const {session} = document.querySelector("over-paint");
            const file = await session.keeper.file(session.document.picture.peek().key);
            return (AS_TEXT)(file);
        }""".replace("AS_TEXT", AS_TEXT)
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def kept(page: Page) -> None:
    """Until all is written down."""
    page.evaluate("() => document.querySelector('over-paint').session.keeper.chain")


def kept_with_form(page: Page) -> None:
    """The same with what was typed, which waits for a pause: timers of one page end in their order."""
    page.evaluate("() => new Promise((done) => setTimeout(done, 600))")
    kept(page)
