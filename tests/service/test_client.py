"""The Python client and the commands that use it: against a small server of this test, and against a started one."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint.cli import main
from overpaint.client import Client, Event, RefusedRequestError, ServiceError
from overpaint.errors import RequestError
from overpaint.request import Txt2ImgRequest
from tests.service.conftest import Server
from tests.service.test_requests import MASK, SOURCE

SMALL: dict[str, Any] = {"prompt": "sea", "width": 64, "height": 64, "steps": 4, "seed": 5}

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Script:
    """What a server answers, one after another, and what it was asked."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def says(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, data, headers))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.asked.append((self.command, self.path, dict(self.headers), body))
            status, data, headers = script.answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 (the standard library's names)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Client(f"http://127.0.0.1:{server.server_port}/", "secret", name="test", timeout=10)
    server.shutdown()
    thread.join(60)
    server.server_close()


def story(*events: tuple[int, str]) -> bytes:
    return b"retry: 1000\n\n: hi\n\n" + b"".join(
        f'id: {number}\nevent: {name}\ndata: {{"step": {number}}}\n\n'.encode() for number, name in events
    )


def test_files_and_bytes_go_as_base64(client: Client, script: Script, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(SOURCE)
    script.says(202, {"id": "j"})
    wish = {"images": [tmp_path / "a.png"], "mask": MASK, "controls": [{"model": "c", "image": MASK}]}
    assert client.submit(wish, key="k", priority=2) == {"id": "j"}
    method, path, headers, body = script.asked[0]
    assert (method, path) == ("POST", "/v1/jobs")
    assert (headers["Authorization"], headers["X-Client"], headers["Idempotency-Key"]) == ("Bearer secret", "test", "k")
    sent = json.loads(body)
    assert sent["priority"] == 2 and sent["images"][0].startswith("iVBOR") and sent["controls"][0]["image"]


def test_requests_of_ours_go_as_their_json(client: Client, script: Script) -> None:
    script.says(202, {"id": "my/1"})
    client.submit(Txt2ImgRequest(prompt="sea", seed=3), job_id="my/1")
    method, path, _, body = script.asked[0]
    assert (method, path) == ("PUT", "/v1/jobs/my%2F1")
    assert json.loads(body)["seed"] == 3


def test_a_broken_story_is_taken_up_where_it_broke(client: Client, script: Script) -> None:
    script.says(200, story((1, "queued"), (2, "started")) + b"id: 3\nevent: progress\ndata: {")  # cut off
    script.says(200, {"state": "running"})
    script.says(503, b"")
    script.says(200, {"state": "running"})
    script.says(200, story((3, "progress"), (4, "finished")))
    heard = list(client.events("j"))
    assert heard == [
        Event(n, name, {"step": n}) for n, name in enumerate(("queued", "started", "progress", "finished"), 1)
    ]
    assert [headers["Last-Event-ID"] for _, path, headers, _ in script.asked if "events" in path] == ["0", "2", "2"]


def test_a_story_that_was_heard_already_ends(client: Client, script: Script) -> None:
    script.says(200, story())
    script.says(200, {"state": "finished"})
    assert list(client.events("j", after=4)) == []


def test_waiting_follows_the_story(client: Client, script: Script) -> None:
    script.says(200, {"state": "running"})
    script.says(200, story((1, "finished")))
    script.says(200, {"state": "finished", "images": ["/v1/jobs/j/images/0"]})
    script.says(200, b"png")
    job = client.wait("j")
    assert client.images(job) == [b"png"]


def test_waiting_has_an_end(client: Client, script: Script) -> None:
    script.says(200, {"state": "queued"})
    assert client.wait("j", 0) == {"state": "queued"}


def test_refusals_are_errors_with_their_field(client: Client, script: Script) -> None:
    script.says(422, {"error": {"code": "invalid", "message": "steps=0: give more", "field": "steps"}})
    with pytest.raises(RefusedRequestError, match="steps=0: give more") as caught:
        client.submit({"steps": 0})
    assert (caught.value.field, caught.value.status) == ("steps", 422)
    assert isinstance(caught.value, RequestError)
    script.says(429, {"error": {"code": "full", "message": "full", "field": None}}, **{"Retry-After": "7"})
    with pytest.raises(ServiceError) as full:
        client.submit({})
    assert (full.value.code, full.value.retry_after) == ("full", 7.0)
    script.says(502, b"<html>")
    with pytest.raises(ServiceError, match="the server answered 502"):
        client.job("j")


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        lost = Client(f"127.0.0.1:{taken.getsockname()[1]}", timeout=2)
        with pytest.raises(ServiceError, match="cannot be reached"):
            lost.jobs()
    with pytest.raises(RequestError, match="give an address"):
        Client("ftp://x")


def command(*arguments: str, url: str = "") -> int:
    return main([*arguments, *(["--url", url] if url else [])])


@pytest.fixture
def commanded(client: Client) -> Callable[..., int]:
    url = client._url.geturl()
    return lambda *arguments: command(*arguments, "--token", "secret", url=url)


def test_submit_sends_what_paint_would_paint(
    commanded: Callable[..., int], script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in (("a.png", SOURCE), ("m.png", MASK)):
        (tmp_path / name).write_bytes(data)
    script.says(202, {"id": "j"})
    options = ["--mask", str(tmp_path / "m.png"), "--steps", "9", "--model", "sketch", "--set", "eta_ddim=0.5"]
    assert commanded("submit", str(tmp_path / "a.png"), "a sofa", *options, "--priority", "3") == 0
    sent = json.loads(script.asked[0][3])
    assert (sent["prompt"], sent["steps"], sent["checkpoint"], sent["priority"]) == ("a sofa", 9, "sketch", 3)
    assert sent["overrides"] == {"eta_ddim": 0.5} and sent["mask"]
    assert capsys.readouterr().out == "j\n"
    script.says(202, {"id": "k"})
    assert commanded("submit", "a sofa", "--txt2img", "--hires-scale", "1.5", "--json") == 0
    sent = json.loads(script.asked[1][3])
    assert (sent["prompt"], sent["hires"], "images" in sent) == ("a sofa", {"scale": 1.5}, False)
    assert json.loads(capsys.readouterr().out) == {"id": "k"}
    assert commanded("submit", str(tmp_path / "none.png")) == 3
    assert commanded("submit", "x", "y", "--txt2img") == 2


JOB: dict[str, Any] = {
    "id": "j",
    "state": "finished",
    "position": None,
    "progress": 1.0,
    "images": ["/v1/jobs/j/images/0"],
    "pictures": [{"number": 0, "url": "/v1/jobs/j/images/0", "media_type": "image/png"}],
    "warnings": [],
    "error": None,
}


def test_watch_saves_the_pictures(
    commanded: Callable[..., int], script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.says(200, story((1, "finished")))
    script.says(200, JOB)
    script.says(200, b"png")
    assert commanded("watch", "j", "--output", str(tmp_path)) == 0
    assert (tmp_path / "j-0.png").read_bytes() == b"png"
    assert capsys.readouterr().out == f"{tmp_path / 'j-0.png'}\n"
    script.says(200, story((1, "failed")))
    script.says(200, {**JOB, "state": "failed", "error": {"code": "memory", "message": "there is too little"}})
    assert commanded("watch", "j") == 1
    assert "there is too little" in capsys.readouterr().err
    for answer in (story((1, "finished")), JOB, b"png"):
        script.says(200, answer)
    assert commanded("watch", "j", "--output", str(tmp_path / "new" / "folder")) == 0
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1
    (tmp_path / "file").touch()
    assert commanded("watch", "j", "--output", str(tmp_path / "file" / "none")) == 2


def test_jobs_and_cancel(commanded: Callable[..., int], script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.says(200, {"jobs": [{**JOB, "state": "queued", "position": 2, "progress": 0.25}]})
    assert commanded("jobs", "--state", "queued", "--mine") == 0
    assert script.asked[0][1] == "/v1/jobs?state=queued&mine=true&limit=100"
    assert "queued  25%   1         place 2" in capsys.readouterr().out
    script.says(202, {**JOB, "state": "cancelled"})
    assert commanded("cancel", "j") == 0
    assert capsys.readouterr().out == "j  cancelled\n"
    script.says(409, {"error": {"code": "over", "message": "the job is finished already", "field": "id"}})
    assert commanded("cancel", "j") == 1


@pytest.mark.slow
def test_a_job_from_here_to_its_pictures(server: str, tmp_path: Path) -> None:
    client = Client(server, name="test")
    source = client.upload(SOURCE)
    plan = client.plan({"images": [source], "steps": 4})
    assert plan["size"] == [48, 32]
    job = client.submit({**SMALL, "images": [source], "iterations": 2}, key="once")
    assert client.submit({**SMALL, "images": [source], "iterations": 2}, key="once")["id"] == job["id"]
    names = [each.name for each in client.events(job["id"])]
    assert names[0] == "queued" and names[-1] == "finished" and names.count("painted") == 2
    done = client.wait(job["id"])
    assert [Image.open(io.BytesIO(each)).size for each in client.images(done)] == [(64, 64)] * 2
    assert done["id"] in [each["id"] for each in client.jobs(mine=True)]
    assert client.models()[0]["kind"] == "checkpoint"
    with pytest.raises(ServiceError) as over:
        client.cancel(job["id"])
    assert over.value.status == 409
    assert command("watch", job["id"], "-o", str(tmp_path), url=server) == 0
    assert len(list(tmp_path.glob(f"{job['id']}-*.png"))) == 2


@pytest.mark.slow
def test_many_at_once_get_what_is_theirs(running_server: Server) -> None:
    async def one(seed: int) -> bytes:
        client = Client(running_server.url, name=f"client {seed % 3}")
        job = await asyncio.to_thread(client.submit, {**SMALL, "seed": seed})
        done = await asyncio.to_thread(client.wait, job["id"], 60)
        (picture,) = await asyncio.to_thread(client.images, done)
        return picture

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(one(seed) for seed in range(9)))

    started = time.monotonic()
    together = asyncio.run(all_of_them())
    assert time.monotonic() - started < 60
    assert len(set(together)) == 9
    assert asyncio.run(one(4)) == together[4]
