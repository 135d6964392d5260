"""Pictures by URL in the reference's API (API-6): off unless the server was started so, and only from public places."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui import pictures
from overpaint.service.guard import fetching
from overpaint.service.limits import Limits
from tests.service.doors.webui.test_jobs import BASE, PICTURE, SMALL, SOURCE, answered, client_for, request_of
from tests.service.fake_desk import FakeDesk
from tests.service.guard.test_fetching import Site, answer, public

URL = "https://example.com/cat.png"
FILE = base64.b64decode(PICTURE)


@pytest.fixture
def open_config(config: ServeConfig) -> ServeConfig:
    return replace(config, url_inputs=True)


@pytest.fixture
def client(desk: FakeDesk, open_config: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, open_config) as made:
        yield made


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """A picture at every public https URL."""
    made = Site(answer(FILE, Content_Length=str(len(FILE))))
    monkeypatch.setattr(fetching, "resolved", public)
    monkeypatch.setattr(fetching, "connected", made.connect)
    return made


def refused(client: TestClient, path: str = "img2img", **fields: Any) -> tuple[int, str, str]:
    told = client.post(f"{BASE}/{path}", json=fields)
    return told.status_code, told.json()["detail"], told.json()["errors"]


def test_pictures_are_fetched_wherever_one_may_stand(client: TestClient, desk: FakeDesk, site: Site) -> None:
    answered(client, **{**SOURCE, "init_images": [f" {URL}"], "mask": URL, "latent_mask": URL})
    request = request_of(desk)
    assert request.images[0].size == request.mask.size == request.latent_mask.size == (48, 32)
    answered(client, "extra-single-image", image=URL)
    answered(client, "extra-batch-images", imageList=[{"data": URL, "name": "a"}, {"data": PICTURE, "name": "b"}])
    assert answered(client, "png-info", image=URL)["info"] == ""
    assert len(site.connections) == 6 and set(site.connections) == {("93.184.216.34", "example.com")}


def test_a_fetched_picture_is_kept_with_its_job(client: TestClient, desk: FakeDesk, site: Site) -> None:
    """The job never asks for it again: it may be another by then."""
    answered(client, **{**SOURCE, "init_images": [URL]})
    (reference,) = list(desk.store.jobs.values())[-1].job.request["images"]
    assert desk.store.picture(reference) == FILE


def test_off_by_default(desk: FakeDesk, config: ServeConfig, site: Site) -> None:
    with client_for(desk, config) as client:
        for path, fields in (
            ("img2img", {**SOURCE, "init_images": [PICTURE, URL]}),
            ("img2img", {**SOURCE, "mask": URL}),
            ("extra-single-image", {"image": URL}),
            ("png-info", {"image": "http://127.0.0.1/x.png"}),
        ):
            assert refused(client, path, **fields) == (500, "Requests not allowed", "")
    assert not site.connections and not desk.store.jobs


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1"], ["169.254.169.254"]])
def test_a_name_that_leads_home_is_not_asked(
    client: TestClient, site: Site, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    monkeypatch.setattr(fetching, "resolved", lambda host: addresses)
    assert refused(client, **{**SOURCE, "init_images": [URL]}) == (500, "Request to local resource not allowed", "")
    assert not site.connections


@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "https://user@example.com/a", "https://example.com:8443/a"]
)
def test_other_urls_are_not_fetched(client: TestClient, site: Site, url: str) -> None:
    status, detail, said = refused(client, **{**SOURCE, "init_images": [url]})
    assert (status, detail) == (500, "Invalid image url") and "init_images[0]" in said
    assert not site.connections


@pytest.mark.parametrize(
    "told, said",
    [
        (answer(b"", "302 Found", Location="https://example.org/x.png"), "redirects are not followed"),
        (answer(b"", "404 Not Found"), "404"),
        (answer(b"<html>", Content_Length="6"), "no PNG, JPEG, WebP, TIFF, AVIF or HEIC"),
        (answer(FILE, Content_Length=str(len(FILE) + 9)), "did not answer"),
    ],
)
def test_what_gives_no_picture_is_told(
    client: TestClient, site: Site, monkeypatch: pytest.MonkeyPatch, told: bytes, said: str
) -> None:
    site.answer = told
    status, detail, errors = refused(client, **{**SOURCE, "init_images": [URL]})
    assert (status, detail) == (500, "Invalid image url") and said in errors
    assert len(site.connections) == 1


def test_sites_that_dawdle_keep_nobody_else_waiting(
    client: TestClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.trickle = 1.0
    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    started = time.monotonic()
    status, detail, _ = refused(client, **{**SOURCE, "init_images": [URL]})
    assert (status, detail) == (500, "Invalid image url") and time.monotonic() - started < 60


def test_a_picture_that_waits_too_long_for_its_turn_is_given_up(
    client: TestClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.trickle = 1.0
    monkeypatch.setattr(pictures, "PATIENCE", 0.2)
    status, detail, errors = refused(client, **{**SOURCE, "init_images": [URL]})
    assert (status, detail) == (500, "Invalid image url") and "0.2 s" in errors


def test_the_limits_are_those_of_any_picture(desk: FakeDesk, open_config: ServeConfig, site: Site) -> None:
    fits = Limits(picture_bytes=len(FILE), source_side=48)
    for limits, status in (
        (fits, 200),
        (replace(fits, picture_bytes=len(FILE) - 1), 413),
        (Limits(source_side=47), 500),
    ):
        with client_for(desk, replace(open_config, limits=limits)) as client:
            told = client.post(f"{BASE}/img2img", json={**SOURCE, "init_images": [URL]})
            assert told.status_code == status, told.text


def test_too_many_are_refused_before_the_first_is_fetched(desk: FakeDesk, open_config: ServeConfig, site: Site) -> None:
    with client_for(desk, replace(open_config, limits=Limits(pictures=3))) as client:
        fields = {**SMALL, "batch_size": 4, "init_images": [URL] * 4}
        assert client.post(f"{BASE}/img2img", json=fields).status_code == 413
        assert not site.connections
        assert client.post(f"{BASE}/img2img", json={**fields, "init_images": [URL] * 3}).status_code == 200
    assert len(site.connections) == 3


def test_several_bad_pictures_are_told_by_the_first(client: TestClient) -> None:  # I2I-1
    """The mask is decoded before the scripts are looked up, the sources after."""
    nope = {"script_name": "nope"}
    assert refused(client, **{**SOURCE, **nope, "mask": "!"})[:2] == (500, "Invalid encoded image")
    assert refused(client, **{**SOURCE, **nope, "init_images": ["!"]})[:2] == (422, "Script 'nope' not found")
    unknown: dict[str, Any] = {"alwayson_scripts": {"nope": {"args": []}}}
    assert refused(client, **{**SOURCE, **unknown, "init_images": ["!"]})[:2] == (422, "Script 'nope' not found")


def test_a_picture_with_an_orientation_is_turned(client: TestClient, desk: FakeDesk) -> None:  # REQ-5
    turned = Image.Exif()
    turned[0x0112] = 6
    data = io.BytesIO()
    Image.new("RGB", (48, 32), 90).save(data, "JPEG", exif=turned)
    answered(client, **{**SOURCE, "init_images": [base64.b64encode(data.getvalue()).decode()]})
    assert request_of(desk).images[0].size == (32, 48)
