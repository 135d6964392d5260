"""The native API on a desk without a worker, and on a started server."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from overpaint import masks
from overpaint.models.families import SD1_SPEC
from overpaint.pictures import open_picture
from overpaint.pixels.seams import Seam
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobError, Live
from overpaint.service.limits import Limits
from overpaint.service.ports import Full
from overpaint.service.store.forms import plain
from overpaint.service.workers.port import WorkerRefused
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk
from tests.service.queue.desk_tools import run
from tests.service.test_requests import MASK, SOURCE, encoded
from tests.unit.models.hostile_files import headed, hostile_files

PNG = {"Content-Type": "image/png"}
SMALL: dict[str, Any] = {"prompt": "sea", "width": 64, "height": 64, "steps": 4, "seed": 5}


class Page:
    """The API in this process, asked one thing at a time."""

    def __init__(self, desk: FakeDesk, config: ServeConfig) -> None:
        self.desk, self.config = desk, config
        self.app = create_app(desk, config)

    def __call__(self, method: str, place: str, **given: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with client_of(self.app) as client:
                return await client.request(method, place, **given)

        return run(asked(), 20)

    def submit(self, **values: Any) -> dict[str, Any]:
        answer = self("POST", "/v1/jobs", json=values)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def page(desk: FakeDesk, config: ServeConfig) -> Page:
    return Page(desk, config)


def limited(page: Page, **limits: Any) -> Page:
    return Page(page.desk, replace(page.config, limits=replace(Limits(), **limits)))


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert {"code", "message", "field"} <= set(body["error"])
    message = body["error"]["message"]
    assert message and "\n" not in message
    found: dict[str, Any] = body["error"]
    return found


# -- handing in ------------------------------------------------------------------------------------------------------


def test_a_job_is_accepted_with_all_it_needs(page: Page) -> None:
    page.desk.held = True
    answer = page("POST", "/v1/jobs", json={"images": [encoded(SOURCE)], "prompt": "sea"})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    record = page.desk.store.jobs[job["id"]]
    assert page.desk.store.picture(record.job.request["images"][0]) == SOURCE
    assert record.job.request["seed"] >= 0 and job["request"] == record.job.request
    assert (job["state"], job["position"], job["progress"], job["eta"]) == ("queued", 0, 0.0, 2.0)
    assert record.job.queue_seconds == 900


def test_an_inpainted_picture_tells_its_seam(page: Page) -> None:
    given = {"images": [encoded(SOURCE)], "prompt": "sea"}
    masked, plain_one = (page.submit(**given, **more)["id"] for more in ({"mask": encoded(MASK)}, {}))
    (picture,) = page("GET", f"/v1/jobs/{masked}").json()["pictures"]
    assert picture["seam"] == {
        "step": 0.5, "step_p95": 1.0, "source_step": 2.0, "shift": 0.1, "gradient_jump": 0.0, "coverage": 25.0,
        "outside": 0, "blend": "plain",
    }  # fmt: skip
    assert page("GET", f"/v1/jobs/{plain_one}").json()["pictures"][0]["seam"] is None
    document = page("GET", "/openapi.json").json()["components"]["schemas"]
    assert set(document["SeamView"]["properties"]) == set(picture["seam"]) == set(asdict(Seam(0, 0, 0, 0, 0, 0)))


def test_a_finished_job_tells_its_pictures(page: Page) -> None:
    job = page("GET", f"/v1/jobs/{page.submit(**SMALL, batch_size=2)['id']}").json()
    assert (job["state"], job["position"], job["progress"]) == ("finished", None, 1.0)
    assert job["images"] == [f"/v1/jobs/{job['id']}/images/{n}" for n in (0, 1)]
    assert [each["seed"] for each in job["pictures"]] == [5, 6]
    assert len(job["infotexts"]) == 2 and job["warnings"] == [] and job["error"] is None
    files = page("GET", f"/v1/jobs/{job['id']}?images=base64").json()["images_base64"]
    assert [base64.b64decode(each) for each in files] == [page("GET", each).content for each in job["images"]]


def test_waiting_gives_the_answer_in_one_call(page: Page) -> None:
    answer = page("POST", "/v1/jobs?images=base64", json=SMALL, headers={"Prefer": "respond-async, wait=10"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait")
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["images_base64"][0])))
    assert picture.size == (64, 64)


def test_waiting_ends_when_the_time_is_up(page: Page) -> None:
    page.desk.held = True
    answer = page("POST", "/v1/jobs", json=SMALL, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid", 422),
        ("checkpoint", 422),
        ("memory", 503),
        ("crashed", 503),
        ("save", 503),
        ("deadline", 504),
        ("hung", 504),
    ]
    + [(each, 500) for each in ("sampling", "internal")],
)
def test_a_job_that_fails_is_an_error_only_to_those_who_wait(page: Page, code: str, status: int) -> None:
    page.desk.script = JobError(code=code, message="it went wrong")
    answer = page("POST", "/v1/jobs", json=SMALL, headers={"Prefer": "wait"})
    assert answer.status_code == status
    kind = "invalid_request_error" if status < 500 else "server_error"
    told = {"code": code, "message": "it went wrong", "field": None}
    assert error_of(answer) == {**told, "type": kind, "param": None}
    job = page("GET", f"/v1/jobs/{answer.json()['job']['id']}")
    assert (job.status_code, job.json()["state"], job.json()["error"]["code"]) == (200, "failed", code)


def test_one_key_makes_one_job(page: Page) -> None:
    wish = {"prompt": "sea", "width": 64, "height": 64}  # its seed unknown
    headers = {"Idempotency-Key": "abc", "X-Client": "me"}
    first, second = (page("POST", "/v1/jobs", json=wish, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert (first.status_code, second.status_code) == (202, 200)
    other = page("POST", "/v1/jobs", json={**wish, "prompt": "hill"}, headers=headers)
    assert (other.status_code, error_of(other)["code"]) == (409, "conflict")
    stranger = page("POST", "/v1/jobs", json=wish, headers={**headers, "X-Client": "you"})
    assert stranger.json()["id"] != first.json()["id"]
    assert page("POST", "/v1/jobs", json=wish, headers={"Idempotency-Key": "a b"}).status_code == 400


def test_an_id_of_ones_own_makes_one_job(page: Page) -> None:
    wish = {"prompt": "sea", "width": 64, "height": 64}
    answers = [page("PUT", "/v1/jobs/my-job_1", json=wish) for _ in range(2)]
    assert [each.json()["id"] for each in answers] == ["my-job_1"] * 2
    assert len(page.desk.store.jobs) == 1
    assert page("PUT", "/v1/jobs/my-job_1", json={**wish, "steps": 5}).status_code == 409
    for bad in ("-a", "a.b", "a" * 65, "%2e%2e", "ä"):
        assert page("PUT", f"/v1/jobs/{bad}", json=wish).status_code == 422, bad


def test_who_asks_has_a_name_but_never_the_secret(page: Page) -> None:
    for headers, name in (
        ({"X-Client": "studio 1"}, "studio 1"),
        ({"Authorization": "Bearer secret"}, "token-"),
        ({"X-Client": "\x7f"}, "127.0.0.1"),
        ({}, "127.0.0.1"),
    ):
        job = page("POST", "/v1/jobs", json=SMALL, headers=headers).json()
        assert job["client"].startswith(name) and "secret" not in json.dumps(job)


def test_a_full_queue_says_when_to_come_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: FakeDesk, job: object) -> None:
        raise Full("64 jobs wait already: come back later", retry_after=7.2)

    monkeypatch.setattr(FakeDesk, "submit", full)
    answer = page("POST", "/v1/jobs", json=SMALL)
    assert (answer.status_code, answer.headers["Retry-After"], error_of(answer)["code"]) == (429, "8", "full")


def test_extras_are_jobs_too(page: Page) -> None:
    job = page.submit(kind="extras", images=[encoded(SOURCE)], scale=2)
    assert (job["kind"], job["request"]["scale"], "kind" in job["request"]) == ("extras", 2, False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"queue_seconds": 0}, "queue_seconds"),
        ({"queue_seconds": 901}, "queue_seconds"),
        ({"run_seconds": "5"}, "run_seconds"),
        ({"run_seconds": None}, "run_seconds"),
        ({"stepz": 5}, "stepz"),
        ({"steps": 151}, "steps"),
        ({"images": ["!"]}, "images[0]"),
    ],
)
def test_bad_fields_are_named(page: Page, fields: dict[str, Any], said: str) -> None:
    answer = page("POST", "/v1/jobs", json={**SMALL, **fields})
    assert (answer.status_code, error_of(answer)["field"]) == (422, said)
    assert not page.desk.store.jobs


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe\xfd", "application/json", 400),
        (b'{"cfg_scale": NaN}', "application/json", 400),
        (b'{"cfg_scale": 1e999}', "application/json", 422),
        (b'{"seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"overrides": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "application/json", 400),
        (b'{"images": ' + b"[" * 900 + b"]" * 900 + b"}", "application/json", 400),
        (b"prompt=sea", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
    ],
)
def test_malformed_bodies(page: Page, body: bytes, kind: str, status: int) -> None:
    for place in ("/v1/jobs", "/v1/plan"):
        answer = page("POST", place, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
        assert len(error_of(answer)["message"]) < 300


def test_a_client_that_goes_away_takes_its_job_along(page: Page) -> None:
    page.desk.held = True
    page = limited(page, disconnect_grace=0.3)

    async def gone(headers: dict[str, str]) -> str:
        sent: list[Any] = []
        body = json.dumps(SMALL).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        told = {"content-type": "application/json", "prefer": "wait=20", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/jobs",
            "raw_path": b"/v1/jobs",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1:7860"), (b"content-length", str(len(body)).encode())]
            + [(name.encode(), value.encode()) for name, value in told.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 7860),
        }
        await page.app(scope, receive, send)
        return list(page.desk.store.jobs.values())[-1].state.value

    async def both() -> list[str]:
        return [await gone({}), await gone({"idempotency-key": "k"})]  # the second one can be asked for again

    assert run(both(), 20) == ["cancelled", "queued"]


# -- looking ---------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_by_state_and_client(page: Page) -> None:
    mine = page("POST", "/v1/jobs", json=SMALL, headers={"X-Client": "me"}).json()["id"]
    page.desk.held = True
    waiting = page.submit(**SMALL)["id"]

    def ids(query: str, **headers: str) -> list[str]:
        return [each["id"] for each in page("GET", f"/v1/jobs?{query}", headers=headers).json()["jobs"]]

    assert ids("") == [waiting, mine]
    assert ids("state=queued&state=running") == [waiting]
    assert ids("mine=true", **{"X-Client": "me"}) == [mine]
    assert ids("limit=1") == [waiting]
    assert page("GET", "/v1/jobs?limit=0").status_code == 422
    assert page("GET", "/v1/jobs?state=lost").status_code == 422


def test_pictures_have_tags_and_go_in_time(page: Page) -> None:
    place = page("GET", f"/v1/jobs/{page.submit(**SMALL)['id']}").json()["images"][0]
    answer = page("GET", place)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert page("GET", place, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert page("GET", place.replace("images/0", "images/9")).status_code == 404
    page.desk.store.expire(keep_seconds=-1, keep_bytes=0)
    gone = page("GET", place, headers={"If-None-Match": answer.headers["ETag"]})
    assert (gone.status_code, error_of(gone)["code"]) == (410, "gone")
    job = page("GET", place.partition("/images")[0])
    assert (job.status_code, job.json()["gone"], job.json()["images"]) == (200, True, [])


def test_unknown_jobs_are_not_found(page: Page) -> None:
    for method, end in (("GET", ""), ("GET", "/events"), ("GET", "/images/0"), ("GET", "/preview")):
        assert page(method, f"/v1/jobs/none{end}").status_code == 404
    for end in ("/cancel", "/finish"):
        answer = page("POST", f"/v1/jobs/none{end}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


def test_the_preview_of_the_running_job(page: Page) -> None:
    page.desk.held = True
    job = page.submit(**SMALL)["id"]
    assert error_of(page("GET", f"/v1/jobs/{job}/preview"))["code"] == "no_preview"
    page.desk.live = Live(job=job, preview=b"png")
    answer = page("GET", f"/v1/jobs/{job}/preview")
    assert (answer.content, answer.headers["Content-Type"]) == (b"png", "image/png")


def test_stopping(page: Page) -> None:
    page.desk.held = True
    job = page.submit(**SMALL)["id"]
    assert error_of(page("POST", f"/v1/jobs/{job}/finish"))["code"] == "not_running"
    answer = page("POST", f"/v1/jobs/{job}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    for end in ("cancel", "finish"):
        again = page("POST", f"/v1/jobs/{job}/{end}")
        assert (again.status_code, error_of(again)["code"]) == (409, "over")
    running = page.submit(**SMALL)["id"]
    page.desk.store.claim(running, "w", 60.0, at=1.0)
    assert page("POST", f"/v1/jobs/{running}/finish").status_code == 202
    assert page.desk.finished_early == [running]


# -- the rest --------------------------------------------------------------------------------------------------------


def test_uploads_are_named_by_their_bytes(page: Page) -> None:
    for method in ("PUT", "POST"):
        answer = page(method, "/v1/pictures", content=SOURCE, headers=PNG)
        assert (answer.status_code, answer.json()["width"]) == (200, 48)
    job = page.submit(**SMALL, images=[answer.json()["picture"]])
    assert job["request"]["images"] == [answer.json()["picture"]]
    assert page("PUT", "/v1/pictures", content=b"<svg/>", headers=PNG).status_code == 422
    small = limited(page, picture_bytes=len(SOURCE) - 1)
    refused = small("PUT", "/v1/pictures", content=SOURCE, headers=PNG)
    assert (refused.status_code, error_of(refused)["code"]) == (413, "too_large")
    assert limited(page, picture_bytes=len(SOURCE))("PUT", "/v1/pictures", content=SOURCE).status_code == 200


def test_a_mask_in_words_becomes_a_picture(page: Page) -> None:
    words = {"expression": "ellipse 8,4,40,28 | feather 3"}
    values = {**SMALL, "mask": words, "images": [encoded(SOURCE)]}
    job = page.submit(**values)
    kept = open_picture(page.desk.store.picture(job["request"]["mask"]))
    assert kept.tobytes() == masks.draw(words["expression"], open_picture(SOURCE)).tobytes()
    named = {"expression": "file area & all", "pictures": {"area": encoded(MASK)}}
    assert page("POST", "/v1/plan", json={**values, "mask": named}).status_code == 200
    for wrong, said in (
        ({"expression": "elipse 8,4,40,28"}, "did you mean 'ellipse'? (at character 1)"),
        ({"expression": "ellipse 900,4,940,28"}, "it lies outside the picture of 48x32"),
        ({"expression": "file /etc/passwd"}, "the expression names it"),
        ({"expression": 5}, "give a text such as"),
        ({"words": "all"}, "give an expression"),
        ({"expression": "all" + " | invert" * 99}, "at most 64 shapes and steps"),
        (
            {"expression": "file a", "pictures": {"a": "bm90IGEgcGljdHVyZQ=="}},
            "this is no PNG, JPEG",
        ),
    ):
        for place in ("/v1/jobs", "/v1/plan"):
            answer = page("POST", place, json={**values, "mask": wrong})
            assert answer.status_code == 422 and said in error_of(answer)["message"], answer.text
    answer = page("POST", "/v1/plan", json={**SMALL, "mask": words})
    assert answer.status_code == 422 and "give one" in error_of(answer)["message"]


def test_a_strength_map_is_a_picture_or_words(page: Page) -> None:
    values = {"images": [encoded(SOURCE)], "strength": 0.5, "steps": 10, "mask_blur_x": 0, "mask_blur_y": 0}
    for given in (encoded(MASK), {"expression": "rectangle 0,0,24,32"}):
        assert page.submit(**values, strength_map=given)["request"]["strength_map"].startswith("sha256:")
    plan = page("POST", "/v1/plan", json={**values, "strength_map": {"expression": "rectangle 0,0,24,32"}}).json()
    assert [each["steps"] for each in plan["strengths"]] == [6, 0]
    assert page("POST", "/v1/plan", json=values).json()["strengths"] == []


def test_a_mask_is_drawn_for_who_wants_to_see_it(page: Page) -> None:
    asked: dict[str, Any] = {"picture": encoded(SOURCE), "expression": "rectangle 0%,0%,50%,100%"}
    answer = page("POST", "/v1/masks", json=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    assert float(answer.headers["mask-coverage"]) == 50.0
    drawn, source = open_picture(answer.content), open_picture(SOURCE)
    assert drawn.tobytes() == masks.draw(asked["expression"], source).tobytes()
    shown = page("POST", "/v1/masks", json={**asked, "show": True})
    assert open_picture(shown.content).tobytes() == masks.overlay(source, drawn).tobytes()
    assert not (page.desk.data / "inputs").exists()
    uploaded = page("PUT", "/v1/pictures", content=SOURCE, headers=PNG).json()["picture"]
    assert page("POST", "/v1/masks", json={**asked, "picture": uploaded}).content == answer.content
    for wrong, field in (
        ({"picture": None}, "picture"),
        ({"expression": "x"}, "mask"),
        ({"masc": 1}, "masc"),
        ({"show": 3}, "show"),
    ):
        refused = page("POST", "/v1/masks", json={**asked, **wrong})
        assert (refused.status_code, error_of(refused)["field"]) == (422, field), refused.text
    small = limited(page, source_pixels=100)
    assert small("POST", "/v1/masks", json=asked).status_code == 422


def test_a_plan_says_what_would_happen_and_keeps_nothing(page: Page) -> None:
    values = {"images": [encoded(SOURCE)], "mask": encoded(MASK), "only_masked": True, "steps": 8, "strength": 0.5}
    answer = page("POST", "/v1/plan", json=values)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["source"] == [48, 32] and plan["crop"] is not None and plan["steps"] == 5
    assert not page.desk.store.jobs and not (page.desk.data / "inputs").exists()
    for fields in ({"sampler": "Eler"}, {"checkpoint": "none"}, {"prompt": "<lora:none:1>"}, {"kind": "extras"}):
        assert page("POST", "/v1/plan", json={**SMALL, **fields}).status_code == 422, fields


def test_of_a_tiff_of_several_pages_the_first_is_painted_over_and_it_says_so(page: Page) -> None:
    data, first = io.BytesIO(), Image.open(io.BytesIO(SOURCE))
    first.save(data, "TIFF", save_all=True, append_images=[first.resize((300, 200))], compression="jpeg")
    sent = base64.b64encode(data.getvalue()).decode()
    plan = page("POST", "/v1/plan", json={"images": [sent], "prompt": "sea"}).json()
    assert plan["source"] == [48, 32]
    assert plan["warnings"] == ["images[0]: it has 2 frames, of which the first is taken"]


@pytest.mark.parametrize(
    ("asked", "steps", "sizes"),
    [
        ({"kind": "loopback", "loops": 3}, ["loop 1", "loop 2", "loop 3"], {(64, 64)}),
        ({"kind": "outpaint", "left": 16, "bottom": 32}, [""], {(64, 64)}),
        ({"kind": "enlarge", "scale": 3, "tile": 64}, [""], {(144, 96)}),
        ({"kind": "grid", "x": "steps=2,3", "y": "cfg_scale=1-3"}, None, {(64, 64)}),
    ],
)
def test_a_tool_is_planned_step_by_step(
    page: Page, asked: dict[str, Any], steps: list[str] | None, sizes: set[tuple[int, int]]
) -> None:
    size = {"width": 64, "height": 64} if asked["kind"] in ("loopback", "grid") else {}
    answer = page("POST", "/v1/plan", json={"images": [encoded(SOURCE)], "prompt": "sea", **size, **asked})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["kind"] == asked["kind"] and isinstance(plan["warnings"], list)
    assert len(plan["plans"]) == (6 if steps is None else len(steps))
    assert steps is None or [each["step"] for each in plan["plans"]] == steps
    assert {tuple(each["size"]) for each in plan["plans"]} == sizes
    if asked["kind"] == "grid":
        assert {each["steps"] for each in plan["plans"]} == {2, 3}
    if asked["kind"] == "outpaint":
        assert plan["plans"][0]["repainted"] == pytest.approx(100 * (1 - 48 * 32 / 64**2), abs=0.1)
    assert not page.desk.store.jobs and not (page.desk.data / "inputs").exists()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"kind": "outpaint"}, "left, top, right, bottom"),
        ({"kind": "grid", "x": "nothing=1,2"}, "axis"),
        ({"kind": "enlarge", "scale": 99}, "scale"),
        ({"kind": "loopback", "sampler": "Eler"}, "sampler"),
        ({"kind": "loopback", "priority": 3}, "priority"),
    ],
)
def test_a_tool_that_cannot_be_is_not_planned(page: Page, wrong: dict[str, Any], field: str) -> None:
    refused = page("POST", "/v1/plan", json={"images": [encoded(SOURCE)], "prompt": "sea", **wrong})
    assert (refused.status_code, error_of(refused)["field"]) == (422, field), refused.text


def test_a_plan_names_the_words_that_the_built_in_model_does_not_know(page: Page) -> None:
    wish = {**SMALL, "prompt": "a cyberpunk lake"}
    for fields in ({}, {"checkpoint": "overpaint-mini"}):
        answer = page("POST", "/v1/plan", json={**wish, **fields})
        assert answer.status_code == 200, answer.text
        (warning,) = answer.json()["warnings"]
        assert warning.startswith("prompt: the built-in model does not know 'cyberpunk'; it knows "), warning
    assert page("POST", "/v1/plan", json={**wish, "prompt": "a lake"}).json()["warnings"] == []


def test_a_plan_asks_the_worker_what_a_header_does_not_tell(page: Page, tmp_path: Path) -> None:
    (tmp_path / "old.ckpt").write_bytes(b"a pickle")
    settings = page.config.settings.with_changes({"models_dir": str(tmp_path)})
    page = Page(page.desk, replace(page.config, settings=settings))
    page.desk.answers["recognise"] = plain(replace(SD1_SPEC, title="something old"))
    plan = page("POST", "/v1/plan", json={**SMALL, "checkpoint": "old"})
    assert plan.status_code == 200 and plan.json()["model"] == "something old", plan.text
    assert page.desk.asked == [("recognise", {"path": str(tmp_path / "old.ckpt")})]

    async def refused(what: str, values: Any = None) -> Any:
        raise WorkerRefused(JobError(code="checkpoint", message="old.ckpt: it is no checkpoint"))

    page.desk.ask = refused  # type: ignore[method-assign]
    told = page("POST", "/v1/plan", json={**SMALL, "checkpoint": "old"})
    assert (told.status_code, error_of(told)["code"]) == (422, "checkpoint")


def test_one_unreadable_file_leaves_the_list_of_models_whole(page: Page, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_checkpoint, tmp_path / "good.safetensors")
    hostile = {name: each for name, each in hostile_files().items() if not name.startswith(("zip", "legacy"))}
    for number, (suffix, data) in enumerate(hostile.values()):
        (tmp_path / f"bad{number}{suffix}").write_bytes(data)
        if suffix == ".yaml":
            shutil.copy(tiny_checkpoint, tmp_path / f"bad{number}.safetensors")
    with (tmp_path / "odd.safetensors").open("wb") as odd:
        entry = b'{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
        odd.write(headed(b'{"model.diffusion_model.input_blocks.0.0.weight":' + entry + b"}")[1])
        odd.write(bytes(4))
    (tmp_path / os.fsdecode(b"\xff.safetensors")).write_bytes(b"no name that could be sent")
    settings = page.config.settings.with_changes({"models_dir": str(tmp_path), "lora_dir": str(tmp_path)})
    page = Page(page.desk, replace(page.config, settings=settings))
    listed = {each["id"]: each["family"] for each in page("GET", "/v1/models").json()["data"]}
    assert listed["good"] == "Stable Diffusion 1" and listed["odd"] is None
    assert len([name for name in listed if name.startswith("bad")]) == len(
        [suffix for suffix, _ in hostile.values() if suffix != ".pt"]
    )
    assert page("GET", "/v1/models?kind=lora").status_code == 200
    assert page("GET", "/sdapi/v1/loras").status_code == 200
    assert page("GET", "/sdapi/v1/sd-models").status_code == 200


def test_names_of_models_are_judged_at_the_door(page: Page, tiny_checkpoint: Path) -> None:
    """One that is served from elsewhere has its name, too."""
    page = Page(page.desk, replace(page.config, checkpoint=str(tiny_checkpoint)))
    assert page.submit(**SMALL, checkpoint="sketch")["request"]["checkpoint"] == "sketch"
    assert page("POST", "/v1/plan", json={**SMALL, "checkpoint": "sketch.safetensors"}).status_code == 200
    told = page("POST", "/v1/jobs", json={**SMALL, "checkpoint": "none"})
    assert (told.status_code, error_of(told)["code"]) == (422, "checkpoint")
    assert "GET /v1/models" in error_of(told)["message"]


def test_models_are_listed_for_two_kinds_of_clients(page: Page, tiny_checkpoint: Any) -> None:
    settings = page.config.settings.with_changes({"models_dir": str(tiny_checkpoint.parent)})
    page = Page(page.desk, replace(page.config, checkpoint=str(tiny_checkpoint), settings=settings))
    found = page("GET", "/v1/models").json()
    assert found["object"] == "list"
    assert {"id": "sketch", "object": "model", "kind": "checkpoint", "served": True}.items() <= found["data"][0].items()
    assert str(tiny_checkpoint.parent) not in json.dumps(found)
    assert page("GET", "/v1/models/sketch.safetensors").json() == found["data"][0]
    assert page("GET", "/v1/models/other").status_code == 404
    for kind in ("lora", "vae", "embedding", "controlnet", "upscaler", "hypernetwork"):
        names = [each["id"] for each in page("GET", f"/v1/models?kind={kind}").json()["data"]]
        assert names == (["None", "Lanczos", "Nearest"] if kind == "upscaler" else [])
    assert page("GET", "/v1/models?kind=other").status_code == 422


def test_lists(page: Page) -> None:
    found = page("GET", "/v1/samplers").json()
    assert "Euler a" in [each["name"] for each in found["samplers"]]
    assert "Karras" in [each["name"] for each in found["schedulers"]]
    assert page("GET", "/v1/limits").json()["waiting_per_client"] == 64


def test_a_list_tells_which_models_look_at_further_pictures(page: Page, tiny_checkpoint: Path, tmp_path: Path) -> None:
    from tests.newer_toys import toy_klein

    shutil.copy(tiny_checkpoint, tmp_path / "sketch.safetensors")
    shutil.copy(toy_klein(tmp_path / "toy").path, tmp_path / "klein.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    settings = page.config.settings.with_changes({"models_dir": str(tmp_path)})
    found = Page(page.desk, replace(page.config, settings=settings))("GET", "/v1/models").json()["data"]
    told = {each["id"]: each["sees_pictures"] for each in found}
    assert (told["sketch"], told["klein"], told["broken"]) == (False, True, None)
