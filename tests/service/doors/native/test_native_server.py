"""The native API of a started server: jobs that are really painted."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.service.conftest import Server
from tests.service.doors.native.test_native import PNG, SMALL
from tests.service.queue.desk_tools import run
from tests.service.test_requests import encoded


@pytest.fixture(scope="module")
def http(running_server: Server) -> Iterator[httpx.Client]:
    with running_server.client() as client:
        yield client


def _source(size: tuple[int, int] = (72, 56)) -> Image.Image:
    picture = Image.radial_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(picture).rectangle((5, 5, 30, 20), fill=(10, 120, 200))
    return picture


def _png(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return encoded(data.getvalue())


@pytest.mark.slow
def test_pixels_outside_the_mask_stay(http: httpx.Client) -> None:
    source, mask = _source(), Image.new("L", (72, 56))
    ImageDraw.Draw(mask).rectangle((20, 16, 44, 40), fill=255)
    wish = {"images": [_png(source)], "mask": _png(mask), "mask_blur_x": 0, "mask_blur_y": 0, "steps": 4, "prompt": "x"}
    answer = http.post("/v1/jobs", json={**wish, "strength": 0.9}, headers={"Prefer": "wait"})
    assert answer.status_code == 200, answer.text
    painted = Image.open(io.BytesIO(http.get(answer.json()["images"][0]).content)).convert("RGB")
    assert painted.size == source.size
    assert painted.tobytes() != source.tobytes()
    painted.paste(source, mask=mask)
    assert painted.tobytes() == source.tobytes()


@pytest.mark.slow
def test_all_forms_of_a_picture_paint_alike(http: httpx.Client) -> None:
    plain = _png(_source())
    uploaded = http.put("/v1/pictures", content=base64.b64decode(plain), headers=PNG).json()["picture"]
    results = []
    for form in (plain, f"data:image/png;base64,{plain}", uploaded):
        wish = {"images": [form], "steps": 3, "seed": 11, "prompt": "x"}
        job = http.post("/v1/jobs", json=wish, headers={"Prefer": "wait"}).json()
        results.append(http.get(job["images"][0]).content)
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
def test_a_dropped_story_loses_and_doubles_nothing(http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={**SMALL, "steps": 40, "iterations": 3}).json()["id"]
    heard: list[int] = []
    names: list[str] = []
    while not names or names[-1] not in ("finished", "failed", "cancelled"):
        last = {"Last-Event-ID": str(heard[-1])} if heard else {}
        with http.stream("GET", f"/v1/jobs/{job}/events", headers=last) as stream:
            taken = 0
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    heard.append(int(line[4:]))
                if line.startswith("event: "):
                    names.append(line[7:])
                    taken += 1
                if line == "" and taken == 2:
                    break  # and hang up
    assert heard == list(range(1, len(heard) + 1))
    assert names[-1] == "finished" and names.count("painted") == 3


@pytest.mark.slow
def test_a_running_job_is_cancelled_within_a_step(http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={**SMALL, "steps": 150, "width": 512, "height": 512}).json()["id"]
    while http.get(f"/v1/jobs/{job}").json()["state"] == "queued":
        time.sleep(0.05)
    started = time.monotonic()
    assert http.post(f"/v1/jobs/{job}/cancel").status_code == 202
    while http.get(f"/v1/jobs/{job}").json()["state"] == "running":
        assert time.monotonic() - started < 10
        time.sleep(0.05)
    assert http.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


@pytest.mark.slow
def test_what_is_handed_in_together_under_one_id_is_one_job(server: str) -> None:
    async def asked() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server, timeout=60) as client:
            wishes = [client.put(f"/v1/jobs/together-{n % 4}", json={**SMALL, "seed": n % 4}) for n in range(12)]
            return await asyncio.gather(*wishes)

    answers = run(asked())
    assert {each.status_code for each in answers} <= {200, 202}
    assert len({(each.json()["id"], each.json()["created"]) for each in answers}) == 4
