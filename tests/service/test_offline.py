"""By default nothing leaves this machine, and the process that strangers talk to has no torch in it.

Every process of a server is watched from its first line on, by an audit hook (PEP 578) that nothing can take off again.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.service.conftest import Server, StartServer

WATCH = """
import json, os, sys

_FILE = os.open(os.path.join(os.environ["WATCHED"], str(os.getpid())), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg",
           "socket.bind", "import", "urllib.Request", "http.client.connect", "ftplib.connect", "subprocess.Popen")

def _watch(event, values):
    if event in _EVENTS:
        said = [repr(values[0])] if event == "import" else [repr(each) for each in values]
        os.write(_FILE, (json.dumps([event, *said]) + chr(10)).encode())

sys.addaudithook(_watch)
"""
FETCHERS = ("huggingface_hub", "transformers", "diffusers", "requests", "aiohttp", "httpx", "urllib3")


@pytest.fixture(scope="module")
def picture() -> str:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture
def watched(start_server: StartServer, tmp_path: Path) -> tuple[Server, Path]:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    notes = tmp_path / "notes"
    notes.mkdir()
    path = os.pathsep.join(filter(None, (str(tmp_path / "hook"), os.environ.get("PYTHONPATH", ""))))
    return start_server(PYTHONPATH=path, WATCHED=str(notes)), notes


def events_of(notes: Path, *names: str) -> dict[int, list[list[str]]]:
    """By process."""
    found = {int(each.name): [json.loads(row) for row in each.read_text().splitlines()] for each in notes.iterdir()}
    return {process: [each for each in events if each[0] in names] for process, events in found.items()}


def paint(server: Server, picture: str) -> None:
    """Have everything loaded that painting loads."""
    small = {"prompt": "a cat", "steps": 3, "width": 64, "height": 64}
    with server.client() as client:
        painted = client.post("/sdapi/v1/img2img", json={**small, "init_images": [picture], "mask": picture})
        assert painted.status_code == 200, painted.text[:300]
        assert client.post("/v1/jobs", json=small, headers={"Prefer": "wait"}).status_code == 200
        for path in (
            "/v1/models",
            "/sdapi/v1/options",
            "/sdapi/v1/sd-models",
            "/sdapi/v1/embeddings",
            "/metrics",
            "/openapi.json",
        ):
            assert client.get(path).status_code == 200
        named = {**small, "init_images": ["https://example.com/a.png"]}
        assert client.post("/sdapi/v1/img2img", json=named).status_code >= 400
        url = client.post("/v1/jobs", json={**small, "images": ["https://example.com/a.png"]})
        assert url.status_code == 422


@pytest.mark.slow
def test_nothing_leaves_and_the_web_process_has_no_torch(watched: tuple[Server, Path], picture: str) -> None:
    server, notes = watched
    paint(server, picture)
    web = server.process.pid
    if sys.platform == "linux":
        assert "torch" not in Path(f"/proc/{web}/maps").read_text()
    assert server.stop() == 0

    asked = events_of(
        notes, "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "http.client.connect"
    )
    assert web in asked and len(asked) >= 2, "the hook was not there"
    for process, events in asked.items():
        for name, *values in events:
            is_own = name == "socket.getaddrinfo" and values[0] == "'127.0.0.1'" and process == web
            is_local = name == "socket.connect" and values[-1].startswith(
                "'"
            )  # a path: another process of this machine
            assert is_own or is_local, (process, name, values)

    imported = {
        process: {each[1].strip("'") for each in events} for process, events in events_of(notes, "import").items()
    }
    assert not [each for each in imported[web] if each.split(".")[0] == "torch"]
    assert any("torch" in names for process, names in imported.items() if process != web)
    for names in imported.values():
        assert not names.intersection(FETCHERS)


@pytest.mark.slow
def test_the_hook_would_see_it(tmp_path: Path) -> None:
    """What is never caught proves nothing."""
    import subprocess

    (tmp_path / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    notes = tmp_path / "notes"
    notes.mkdir()
    code = "import socket\ntry: socket.create_connection(('127.0.0.2', 9), 0.1)\nexcept OSError: pass\nimport wave"
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(tmp_path), "WATCHED": str(notes)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    [events] = events_of(notes, "socket.connect", "socket.getaddrinfo", "import").values()
    assert {"socket.connect", "socket.getaddrinfo"} <= {each[0] for each in events}
    assert ["import", "'wave'"] in events
