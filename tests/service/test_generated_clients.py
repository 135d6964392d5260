"""Clients that other programs write from the server's own document: they submit, wait, follow and fetch."""

from __future__ import annotations

import base64
import importlib
import io
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from overpaint.service.config import ServeConfig
from tests.service.conftest import Server
from tests.service.doors.openai.openai_tools import file_of, opened, scene, served
from tests.service.fake_desk import FakeDesk
from tests.service.test_guide import blocks

TOKEN = "a token of this test"
SMALL = {"prompt": "a lake", "width": 64, "height": 64, "steps": 2, "seed": 7, "sampler": "Euler"}
SOURCE = base64.b64encode(file_of(scene())).decode("ascii")


@dataclass(frozen=True)
class Place:
    """A server, and where the clients that are generated from its document lie."""

    url: str
    token: str | None
    folder: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def document(self) -> Path:
        path = self.folder / "openapi.json"
        path.write_bytes(httpx.get(f"{self.url}/openapi.json", headers=self.headers).content)
        return path

    def generate(self, module: str, *arguments: str) -> str:
        """Run a generator; what it had to say."""
        pytest.importorskip(module, reason="needs the extra `clients`")
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(params=["desk", pytest.param("server", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, config: ServeConfig, tmp_path: Path) -> Iterator[Place]:
    """The app with all its guards on a desk that paints flat pictures; or a started server, which has no token."""
    if request.param == "server":
        server: Server = request.getfixturevalue("running_server")
        yield Place(server.url, None, tmp_path)
        return
    desk: FakeDesk = request.getfixturevalue("desk")
    with served(desk, replace(config, token=TOKEN), guarded=True) as page:
        yield Place(page.url, TOKEN, tmp_path)


@pytest.fixture
def importable(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports what was generated; it is forgotten at the end."""
    monkeypatch.syspath_prepend(str(place.folder))
    before = set(sys.modules)

    def imported(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield imported
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("painted", "shapes"):
            del sys.modules[name]


def test_openapi_python_client(place: Place, importable: Any) -> None:
    (place.folder / "config.yml").write_text(blocks("yaml")[0] + "post_hooks: []\n")
    options = ("--output-path", "painted", "--meta", "none", "--config", "config.yml")
    said = place.generate("openapi_python_client", "generate", "--path", str(place.document()), *options)
    assert "arning" not in said and "Unable" not in said, said
    package, models, types = (importable(f"painted{each}") for each in ("", ".models", ".types"))
    for each in pkgutil.walk_packages(package.__path__, "painted."):
        importable(each.name)  # of every route, not only of those below
    jobs = {
        each: importable(f"painted.api.jobs.{each}")
        for each in (
            *("submit_v1_jobs_post", "submit_as_v1_jobs_job_id_put", "job_v1_jobs_job_id_get"),
            *("events_v1_jobs_job_id_events_get", "image_v1_jobs_job_id_images_number_get"),
        )
    }
    upload = importable("painted.api.pictures.upload_v1_pictures_put")
    given = {"base_url": place.url, "raise_on_unexpected_status": True, "timeout": httpx.Timeout(60)}
    made = package.AuthenticatedClient(token=place.token, **given) if place.token else package.Client(**given)
    with made as client:
        paint_with(client, jobs, upload, models, types)


def paint_with(client: Any, jobs: dict[str, Any], upload: Any, models: Any, types: Any) -> None:
    """Submit, follow, look, fetch; upload, submit under a name, wait; be refused."""
    submitted = jobs["submit_v1_jobs_post"].sync(client=client, body=models.Txt2ImgJob(**SMALL))
    assert isinstance(submitted, models.JobDetails)
    story = jobs["events_v1_jobs_job_id_events_get"].sync(submitted.id, client=client)
    names = [line.removeprefix("event: ") for line in story.splitlines() if line.startswith("event: ")]
    assert names[0] == "queued" and names[-1] == "finished"
    job = jobs["job_v1_jobs_job_id_get"].sync(submitted.id, client=client)
    assert (job.state, job.progress, len(job.images)) == (models.JobState.FINISHED, 1.0, 1)
    fetched = jobs["image_v1_jobs_job_id_images_number_get"].sync(job.id, job.pictures[0].number, client=client)
    assert opened(fetched.payload.read()).size == (64, 64)

    kept = upload.sync(client=client, body=types.File(payload=io.BytesIO(file_of(scene()))))
    wish = models.Img2ImgJob(
        **SMALL, images=[kept.picture], strength=0.5, loras=[], overrides=models.Img2ImgJobOverrides()
    )
    waited = jobs["submit_as_v1_jobs_job_id_put"].sync("mine", client=client, body=wish, prefer="wait")
    assert (waited.id, waited.state) == ("mine", models.JobState.FINISHED)
    assert waited.request["strength"] == 0.5

    refused = jobs["submit_v1_jobs_post"].sync(client=client, body=models.Txt2ImgJob(prompt="a", steps=9999))
    assert isinstance(refused, models.ErrorAnswer)
    assert (refused.error.code, refused.error.field) == ("invalid", "steps")


def test_datamodel_codegen(place: Place, importable: Any) -> None:
    options = ("--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel", "--output", "shapes.py")
    place.generate("datamodel_code_generator", "--input", str(place.document()), *options)
    shapes = importable("shapes")
    with httpx.Client(base_url=place.url, headers=place.headers, timeout=60) as client:

        def submit(job: Any, **headers: str) -> Any:
            values = job.model_dump(mode="json", exclude_unset=True)
            answer = client.post("/v1/jobs", json=values, headers=headers)
            assert answer.status_code in (200, 202), answer.text
            return shapes.JobDetails.model_validate(answer.json())

        waited = submit(shapes.Img2ImgJob(**SMALL, images=[SOURCE], strength=0.5), Prefer="wait")
        assert (waited.state, waited.error) == (shapes.JobState.finished, None)
        job = submit(shapes.Job.model_validate(SMALL).root)
        with client.stream("GET", f"/v1/jobs/{job.id}/events") as story:
            data = [json.loads(each.removeprefix("data: ")) for each in story.iter_lines() if each.startswith("data: ")]
        followed = shapes.JobDetails.model_validate(data[-1]["result"])
        assert (followed.id, followed.state) == (job.id, shapes.JobState.finished)
        assert opened(client.get(followed.pictures[0].url).content).size == (64, 64)
        refused = shapes.ErrorAnswer.model_validate(client.get("/v1/jobs/none").json())
        assert (refused.error.code, refused.error.type.value) == ("not_found", "invalid_request_error")
