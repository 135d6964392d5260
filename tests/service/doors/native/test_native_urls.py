"""Pictures named by URL: refused in a sentence unless the server was started to fetch them, and then within bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.guard import fetching
from overpaint.service.limits import Limits
from overpaint.service.requests import reference_of
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk
from tests.service.guard.test_fetching import Site, answer, public
from tests.service.queue.desk_tools import run
from tests.service.test_requests import MASK, SOURCE, encoded

URL = "https://example.com/a.png"
PLACES: dict[str, Any] = {
    "/v1/jobs": lambda picture: {"images": [picture], "prompt": "x"},
    "/v1/plan": lambda picture: {"images": [picture], "prompt": "x"},
    "/v1/images/edits": lambda picture: {"images": [{"image_url": picture}], "prompt": "x"},
    "/v1/images/variations": lambda picture: {"image": picture},
}


class Net:
    """An internet of one picture; which URLs were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: bytes = SOURCE) -> None:
        self.sites: list[Site] = []
        self._data = data
        monkeypatch.setattr(fetching, "resolved", public)
        monkeypatch.setattr(fetching, "connected", self._connect)

    def _connect(self, *place: Any) -> Any:
        self.sites.append(Site(answer(self._data, Content_Length=str(len(self._data)))))
        return self.sites[-1].connect(*place)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    return Net(monkeypatch)


def asked(desk: FakeDesk, config: ServeConfig, place: str, values: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        async with client_of(create_app(desk, config)) as client:
            return await client.post(place, json=values)

    return run(work(), 20)


@pytest.mark.parametrize("place", PLACES)
def test_off_by_default(place: str, desk: FakeDesk, config: ServeConfig, net: Net) -> None:
    told = asked(desk, config, place, PLACES[place](URL))
    assert told.status_code == (400 if "images" in place else 422)
    message = told.json()["error"]["message"]
    assert "--url-inputs" in message and "\n" not in message and message.count(". ") == 0
    assert not net.sites and not desk.store.jobs


@pytest.mark.parametrize("place", PLACES)
def test_fetched_once_the_server_may(place: str, desk: FakeDesk, config: ServeConfig, net: Net) -> None:
    told = asked(desk, replace(config, url_inputs=True), place, PLACES[place](URL))
    assert told.status_code in (200, 202), told.text
    assert [each.connections[0][1] for each in net.sites] == ["example.com"]
    if place != "/v1/plan":
        (record,) = desk.store.jobs.values()
        assert record.job.request["images"] == [reference_of(SOURCE)]
        assert "example.com" not in str(record.job.request)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/a", "https://169.254.169.254/", "http://example.com/", "https://u@a/"]
)
def test_bad_addresses_are_told_in_the_words_of_each_api(
    place: str, url: str, desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("connected")

    monkeypatch.setattr(fetching, "connected", never)
    told = asked(desk, replace(config, url_inputs=True), place, PLACES[place](url))
    assert told.status_code == (400 if "images" in place else 422), told.text
    assert told.json()["error"]["message"]


def test_bounds_of_what_is_fetched(desk: FakeDesk, config: ServeConfig, net: Net) -> None:
    two = {"images": [URL, URL], "batch_size": 2, "prompt": "x"}
    for size, status in ((2 * len(SOURCE), 202), (2 * len(SOURCE) - 1, 422)):
        limits = replace(Limits(), body_bytes=size)
        told = asked(desk, replace(config, url_inputs=True, limits=limits), "/v1/jobs", two)
        assert told.status_code == status, told.text
    assert "together" in told.json()["error"]["message"]
    many = {"images": [URL] * 17, "batch_size": 16, "prompt": "x"}
    before = len(net.sites)
    assert asked(desk, replace(config, url_inputs=True), "/v1/jobs", many).status_code == 413
    assert len(net.sites) - before == 16
    limits = replace(Limits(), picture_bytes=len(SOURCE) - 1)
    told = asked(desk, replace(config, url_inputs=True, limits=limits), "/v1/jobs", PLACES["/v1/jobs"](URL))
    assert told.status_code == 413


def test_edits_in_json_take_data_urls_without_any_net(desk: FakeDesk, config: ServeConfig) -> None:
    source, mask = (f"data:image/png;base64,{encoded(each)}" for each in (SOURCE, MASK))
    body = {"images": [{"image_url": source}], "mask": {"image_url": mask}, "prompt": "x", "strength": 0.5}
    told = asked(desk, config, "/v1/images/edits", body)
    assert told.status_code == 200, told.text
    (record,) = desk.store.jobs.values()
    assert record.job.request["mask"] and record.job.request["strength"] == 0.5
    wrong: list[tuple[Any, str]] = [
        ({"images": []}, "image=None"),
        ({"images": [{"file_id": "f"}]}, "images[0].file_id='f'"),
        ({"images": 5}, "images=5"),
        ({"images": [5]}, "images[0]=5"),
        ({"images": [{}]}, "images[0]=None"),
        ({"images": [source], "mask": {"file_id": 5}}, "mask.file_id=5"),
    ]
    for values, said in wrong:
        told = asked(desk, config, "/v1/images/edits", {**values, "prompt": "x"})
        assert told.status_code == 400 and told.json()["error"]["message"].startswith(said), told.text
