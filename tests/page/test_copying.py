"""The request copied for other doors says the same there: it is run, and what was painted is asked how."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import overpaint
from overpaint.cli import main
from overpaint.files.metadata import read_recipe
from tests.page.conftest import OpenPage, brush, drop, has_picture, mask_of
from tests.service.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = "document.querySelector('over-paint')"
FORM: dict[str, Any] = {
    "prompt": 'a "red" boat, it\'s small',
    "negative_prompt": "sails",
    "strength": 0.6,
    "steps": 2,
    "seed": 5,
    "width": 64,
    "height": 64,
    "mask_blur_x": 2,
    "mask_blur_y": 2,
    "sampler": "Euler a",
    "masked_content": "fill",
    "padding": 16,
    "eta": 0.5,
    "tiling": True,
    "exact": True,
}
CHOSEN = ("variation_seed", "noise_multiplier")  # which recipes tell as they were chosen, and nobody asked for

pytestmark = pytest.mark.slow


def copied(page: Page, form: str) -> str:
    page.evaluate("() => { window.copied = ''; }")
    page.click(f".copies button:text-is('{form}')")
    page.wait_for_function("() => window.copied")
    text: str = page.evaluate("() => window.copied")
    return text


@pytest.fixture
def ready_page(open_page: OpenPage) -> Iterator[Page]:
    page = open_page()
    page.wait_for_selector(".copies")
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
    yield page


def recipe_of(path: Path) -> dict[str, Any]:
    recipe = read_recipe(path.read_bytes())
    assert recipe is not None
    request: dict[str, Any] = recipe["request"]
    return request


def by_server(server: Server, text: str) -> dict[str, Any]:
    """The request that `curl` would hand in, as the server understands it."""
    words = shlex.split(text)
    assert words[0] == "curl"
    with server.client() as client:
        told = client.post(words[1], content=words[words.index("-d") + 1], headers=headers_in(words))
        assert told.status_code in (200, 201, 202), told.text
        request: dict[str, Any] = told.json()["request"]
    return request


def headers_in(words: list[str]) -> dict[str, str]:
    given = [words[i + 1] for i, each in enumerate(words) if each == "-H"]
    return {name: value.strip() for name, _, value in (each.partition(":") for each in given)}


def by_python(text: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """Run as it stands, but on another model."""
    with monkeypatch.context() as context:
        for name in ("img2img", "txt2img"):
            context.setattr(overpaint, name, functools.partial(getattr(overpaint, name), **given))
        exec(compile(text, "copied", "exec"), {})


def test_four_doors_are_told_the_same(
    ready_page: Page,
    picture: Path,
    painting_server: Server,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = ready_page
    drop(page, picture)
    has_picture(page)
    brush(page, (0.4, 0.4), (0.6, 0.5))
    page.evaluate(f"(form) => {PAGE}.session.document.fill(form)", FORM)
    wanted = by_server(painting_server, copied(page, "curl"))
    assert {name: wanted[name] for name in FORM} == FORM and wanted["only_masked"] and wanted["mask"]
    sent = json.loads(copied(page, "JSON"))
    assert {name: sent[name] for name in FORM} == FORM
    Image.fromarray(mask_of(page)).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)  # where picture.png lies
    by_python(copied(page, "Python"), monkeypatch, checkpoint=tiny_checkpoint)
    command = shlex.split(copied(page, "CLI"))
    assert main([*command[1:], "--model", str(tiny_checkpoint), "--device", "cpu", "-q", "-o", "command.png"]) == 0
    for name in ("painted.png", "command.png"):
        recipe = recipe_of(tmp_path / name)
        told = {field for field in recipe if field not in CHOSEN}
        assert told >= FORM.keys() and {field for field in told if recipe[field] != wanted[field]} == set(), name
    found = [np.asarray(Image.open(tmp_path / name)) for name in ("painted.png", "command.png")]
    assert (found[0] == found[1]).all() and (found[0] != np.asarray(Image.open(picture))).any()


def test_words_alone_name_no_picture_and_no_mask(
    ready_page: Page, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ready_page
    form = {"prompt": "a hill", "steps": 1, "seed": 3, "width": 64, "height": 64, "iterations": 2}
    page.evaluate(f"(form) => {PAGE}.session.document.fill(form)", form)
    sent = json.loads(copied(page, "JSON"))
    assert not {"images", "mask", "strength", "padding", "only_masked"} & sent.keys()
    command = shlex.split(copied(page, "CLI"))
    assert command[:2] == ["overpaint", "txt2img"] and not {"--mask", "--strength", "picture.png"} & set(command)
    monkeypatch.chdir(tmp_path)
    by_python(copied(page, "Python"), monkeypatch, checkpoint=tiny_checkpoint)
    assert [recipe_of(tmp_path / f"painted-{number}.png")["seed"] for number in (1, 2)] == [3, 4]
    page.evaluate(f"() => {PAGE}.session.document.fill({{overrides: {{eta_noise_seed_delta: 3}}}})")
    assert copied(page, "CLI").startswith("# has no option: overrides=")
