"""Jobs' stories as server-sent events: numbered, replayed from anywhere, kept alive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.events import sse
from overpaint.service.jobs import Live
from tests.service.doors.native.test_native import SMALL, Page
from tests.service.fake_desk import FakeDesk
from tests.service.queue.desk_tools import run
from tests.service.test_requests import encoded


@pytest.fixture
def page(desk: FakeDesk, config: ServeConfig) -> Page:
    return Page(desk, config)


def told(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Server-sent events, comments left out."""
    blocks = (dict(line.split(": ", 1) for line in each.splitlines() if line[0] != ":") for each in text.split("\n\n"))
    return [(int(each["id"]), each["event"], json.loads(each["data"])) for each in blocks if "id" in each]


def test_a_story_is_told_to_its_end(page: Page) -> None:
    job = page.submit(**SMALL)["id"]
    answer = page("GET", f"/v1/jobs/{job}/events")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    story = told(answer.text)
    assert [number for number, _, _ in story] == list(range(1, len(story) + 1))
    assert [name for _, name, _ in story] == ["queued", "started", *["progress"] * 4, "painted", "finished"]
    assert story[-1][2]["result"]["images"] == [f"/v1/jobs/{job}/images/0"]


def test_a_story_goes_on_where_it_broke(page: Page) -> None:
    job = page.submit(**SMALL)["id"]
    whole = told(page("GET", f"/v1/jobs/{job}/events").text)
    for last in range(len(whole) + 1):
        rest = page("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(last)})
        assert told(rest.text) == whole[last:]
    assert page("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "x"}).status_code == 400


def test_a_silent_story_keeps_the_line_open(page: Page) -> None:
    page.desk.held = True
    job = page.submit(**SMALL)["id"]

    async def heard() -> list[str]:
        lines = []
        async for each in sse(page.desk, job, 0, previews="url", beat=0.05):
            lines.append(each)
            if sum(line.startswith(":") for line in lines) == 2:
                await page.desk.paint_next()
        return lines

    lines = run(heard(), 20)
    assert [each for each in lines if each.startswith(":")]
    assert [name for _, name, _ in told("".join(lines))][-1] == "finished"


def test_previews_come_by_url_or_as_data(page: Page) -> None:
    page.desk.held = True
    job = page.submit(**SMALL)["id"]
    page.desk.live = Live(job=job, preview=b"png")
    page.desk.store.add_event(job, "preview", {"step": 2}, 1.0)

    async def heard(previews: str) -> dict[str, Any]:
        async for each in sse(page.desk, job, 1, previews=previews):
            for _, _, data in told(each):
                return data
        raise AssertionError

    assert run(heard("url"))["url"] == f"/v1/jobs/{job}/preview"
    assert run(heard("data"))["image"] == "data:image/png;base64," + encoded(b"png")
