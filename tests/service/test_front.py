"""While the application is loaded the page's files are answered, guarded as ever, and everything else waits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest

from overpaint.service import serve as serving
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.front import Front
from overpaint.service.page_files import FOLDER
from overpaint.service.serve import serve
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk
from tests.service.test_serve import SlowDesk

PATIENCE = 60.0


def test_the_page_is_answered_as_the_application_answers_it(config: ServeConfig, desk: FakeDesk) -> None:
    async def headers_of(app: Any, path: str, **given: Any) -> tuple[int, dict[str, str], bytes]:
        async with client_of(app) as client:
            told = await client.request("GET", path, **given)
        own = ("x-request-id", "x-process-time")
        return told.status_code, {name: value for name, value in told.headers.items() if name not in own}, told.content

    async def compared() -> None:
        front, app = Front(config), create_app(desk, config)
        for path in ("/", "/page/main.js", "/page/style.css"):
            first = await headers_of(front, path)
            assert first == await headers_of(app, path) and first[0] == 200, path
            again = {"If-None-Match": first[1]["etag"]}
            assert (await headers_of(front, path, headers=again))[0] == 304
            evil = {"Host": "evil.example"}
            refused = await headers_of(front, path, headers=evil)
            assert refused == await headers_of(app, path, headers=evil) and refused[0] == 403

    asyncio.run(compared())


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/schema"), ("GET", "/healthz"), ("POST", "/"), ("GET", "/page/none.js"), ("GET", "/page/a/../b.js")],
)
def test_everything_else_waits_for_the_application(config: ServeConfig, desk: FakeDesk, method: str, path: str) -> None:
    async def asked() -> tuple[bool, int, int]:
        front, app = Front(config), create_app(desk, config)
        async with client_of(front) as early, client_of(app) as late:
            waiting = asyncio.create_task(early.request(method, path))
            await early.get("/")  # it goes first, however late it comes
            was_waiting = not waiting.done()
            front.open(app)
            told = await asyncio.wait_for(waiting, PATIENCE)
            return was_waiting, told.status_code, (await late.request(method, path)).status_code

    was_waiting, early, late = asyncio.run(asked())
    assert was_waiting and early == late


@pytest.mark.parametrize("announces_page", [True, False])
def test_a_server_shows_its_page_before_its_application_is_there(
    config: ServeConfig, monkeypatch: pytest.MonkeyPatch, announces_page: bool
) -> None:
    """And `serve` says where it is when all of it answers."""
    config.data.mkdir()
    desk, may_load, story = SlowDesk(config.data), threading.Event(), list[str]()
    original = serving._application

    def late(*given: Any) -> Any:
        story.append("loading")
        assert may_load.wait(PATIENCE)
        return original(*given)

    def announce(url: str) -> None:
        story.append("announced")
        threading.Thread(target=visit, args=(url,)).start()

    def visit(url: str) -> None:
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE) as client:
                story.append(f"page {client.get('/').content == (FOLDER / 'index.html').read_bytes()}")
                may_load.set()
                story.append(f"schema {client.get('/v1/schema').status_code}")
        finally:
            may_load.set()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(serving, "LocalDesk", lambda store, config: desk)
    monkeypatch.setattr(serving, "_application", late)
    if not announces_page:
        may_load.set()
    assert serve(replace(config, port=0, announces_page=announces_page), announce) == 0
    order = ["announced", "loading"] if announces_page else ["loading", "announced"]
    assert sorted(story[:2]) == sorted(order) and story[2:] == ["page True", "schema 200"]
    if not announces_page:
        assert story[:2] == order
    assert desk.story == ["started", "draining for 30", "drained", "closed"]


def test_what_cannot_be_loaded_ends_the_server(config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Any:
        raise ImportError("a file is missing")

    config.data.mkdir()
    monkeypatch.setattr(serving, "LocalDesk", lambda store, config: SlowDesk(config.data))
    monkeypatch.setattr(serving, "_application", broken)
    with pytest.raises(ImportError, match="a file is missing"):
        serve(replace(config, port=0, announces_page=True), lambda url: None)


def test_the_server_begins_without_the_application() -> None:
    """Loading it takes longer than all the rest; who imports it with `serve` makes everybody wait."""
    said = "import sys, overpaint.service.serve; print('fastapi' in sys.modules, 'pydantic' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]
