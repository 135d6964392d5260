"""Every limit of docs/reference/limits.md has a test at N and at N + 1: here, or where this table says."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
import socket
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn.server import ServerState

from overpaint.cli import main
from overpaint.errors import RequestError
from overpaint.service import serve as serving
from overpaint.service.config import ServeConfig
from overpaint.service.doors.openai.requests import MOST_PARTIALS, MOST_PICTURES, read_images_request
from overpaint.service.guard import bodies
from overpaint.service.guard.guards import HEADER_BYTES, _check_lengths
from overpaint.service.guard.refusals import RequestRefused
from overpaint.service.intake.jobs import _envelope
from overpaint.service.limits import Limits, limits_from
from overpaint.service.serve import Punctual, uvicorn_config
from tests.service.guard.test_bodies import Place
from tests.service.test_serve import served, told

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "limits.md"

_REQUESTS = "test_requests.test_limits_at_n_and_one_more"
_VISITS = "guard.test_budgets.TestRoom.test_"
TESTS: dict[str, str] = {
    "body_bytes": "guard.test_bodies.test_the_limit_counts_what_is_unpacked",
    "picture_bytes": "guard.test_inputs.test_bytes_at_the_limit_and_beyond",
    "pictures": "test_requests.test_limits_of_pictures",
    **dict.fromkeys(
        ("source_pixels", "source_side", "source_aspect"),
        "guard.test_inputs.test_default_limits_at_the_limit_and_beyond",
    ),
    "text_chunk_bytes": "guard.test_inputs.test_texts_at_the_limit_and_beyond",
    "exif_bytes": "guard.test_inputs.test_exif_at_the_limit_and_beyond",
    "icc_bytes": "guard.test_inputs.test_profiles_at_the_limit_and_beyond",
    **dict.fromkeys(("pass_pixels", "steps", "images", "prompt_chars", "prompt_rows", "loras", "cfg_scale"), _REQUESTS),
    "sequence": "test_sequence_orders.test_a_sequence_is_within_the_servers_limits",
    "prompt_chunks": "test_requests.test_versions_of_a_prompt_at_the_limit_and_beyond",
    **dict.fromkeys(("waiting", "waiting_per_client"), "store.test_store.test_the_queue_takes_its_limit_and_no_more"),
    "queue_deadline": "test_limits.test_what_a_job_may_ask_for_itself",
    "run_deadline": "test_limits.test_what_a_job_may_ask_for_itself",
    "watchdog": "queue.test_desk.test_a_step_that_hangs",
    "disconnect_grace": "doors.native.test_native.test_a_client_that_goes_away_takes_its_job_along",
    "drain": "test_serve.TestSignals.test_a_job_that_takes_too_long_is_not_waited_for",
    "result_seconds": "store.test_store_files.test_results_are_kept_for_their_time_and_no_longer",
    "result_bytes": "store.test_store_files.test_the_oldest_results_go_when_they_are_too_much",
    "events_per_job": "store.test_store.test_only_passing_events_are_thinned_and_no_number_comes_twice",
    "CONNECTIONS": "test_limits.test_connections_at_the_limit_and_beyond",
    "HEADER_SECONDS": "test_serve.TestWire.test_dawdling_over_headers",
    "READER_SECONDS": "test_limits.test_answers_that_nobody_takes",
    "KEEP_ALIVE": "test_serve.TestWire.test_dawdling_over_headers",
    "LONGEST_TARGET": "test_serve.TestWire.test_targets_at_the_limit_and_beyond",
    "HEADER_BYTES": "test_limits.test_headers_at_the_limit_and_beyond",
    "PATIENCE": "guard.test_bodies.test_slow_bodies_are_not_waited_for",
    "SLOWEST": "test_limits.test_bodies_at_the_slowest_pace_and_below",
    "RATIO": "test_limits.test_packed_bodies_at_the_ratio_and_beyond",
    "DEEPEST": "guard.test_bodies.TestShape.test_depth_at_the_limit_and_beyond",
    "MOST_PARTS": "guard.test_bodies.TestShape.test_parts_at_the_limit_and_beyond",
    "LONGEST_PART": "guard.test_bodies.TestShape.test_long_numbers_at_the_limit_and_beyond",
    "BODIES": "guard.test_bodies.test_all_bodies_together_have_a_limit",
    "DECODED": f"{_VISITS}at_the_limit_and_beyond",
    "WAITING": f"{_VISITS}so_many_may_wait_and_no_more",
    "FETCHED": f"{_VISITS}at_the_limit_and_beyond",
    "PICTURES_TOGETHER": "test_requests.test_the_pixels_of_all_pictures_count_together",
    "SECONDS": "guard.test_fetching.TestUrls.test_trickles_are_cut_off",
    "TOGETHER": "guard.test_budgets.TestVisit.test_the_time_of_all_urls_together",
    "MOST_PICTURES": "test_limits.test_what_openai_counts",
    "MOST_PARTIALS": "test_limits.test_what_openai_counts",
    "QUESTIONS": "queue.test_desk.test_questions",
    "DISK_ROOM": "test_health.test_a_full_disk_is_no_place_for_jobs",
}


def documented() -> dict[str, str]:
    section = PAGE.read_text(encoding="utf-8").partition("## A server")[2].partition("## Files")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", section, re.MULTILINE))


def test_every_limit_is_documented_and_has_a_test() -> None:
    shown = documented()
    assert {each.name for each in fields(Limits)} <= set(shown)
    assert set(shown) == set(TESTS), "add a test at N and N + 1, and name it in TESTS"
    for name, place in TESTS.items():
        assert callable(pkgutil.resolve_name(f"tests.service.{place}")), name


def test_every_limit_of_the_code_is_documented() -> None:
    """By their figures; a new constant of this kind in these modules is to be told of."""
    shown = {name: int(figure.replace(",", "")) for name, figure in documented().items()}
    modules = (
        "serve",
        "health",
        "guard.guards",
        "guard.bodies",
        "guard.jsonshape",
        "guard.budgets",
        "guard.fetching",
    )
    inner = {"STOPPED", "PORT", "LINGER", "RATIO_FROM", "THREADS", "PICTURE_BLOCK", "SWITCHING", "WORDS"}
    for place in modules:
        module = importlib.import_module(f"overpaint.service.{place}")
        own = re.findall(r"^([A-Z][A-Z_]+) = [\d\"(]", Path(str(module.__file__)).read_text("utf-8"), re.MULTILINE)
        figures = {name: getattr(module, name) for name in own if not isinstance(getattr(module, name), str)}
        for name, figure in figures.items():
            if name not in inner:
                assert shown[name] == figure, (place, name)


def test_what_a_job_may_ask_for_itself() -> None:
    for name in ("queue_seconds", "run_seconds"):
        for good in (0.001, 100, 100.0):
            assert _envelope({name: good}, 100.0, 100.0)[name] == good
        for bad in (100.001, 101, 0, -1, True, "5", None):
            with pytest.raises(RequestError, match="at most 100"):
                _envelope({name: bad}, 100.0, 100.0)


def test_what_openai_counts() -> None:
    for name, most in (("n", MOST_PICTURES), ("partial_images", MOST_PARTIALS)):
        read_images_request({"prompt": "x", name: str(most)})
        for bad in (most + 1, -1, "x", 1.5):
            with pytest.raises(RequestError, match=name):
                read_images_request({"prompt": "x", name: bad})


def test_a_clients_share_is_the_queue_unless_it_is_given() -> None:
    found = [limits_from(each) for each in ((), ("waiting=200",), ("waiting=200", "waiting_per_client=8"))]
    assert [(each.waiting, each.waiting_per_client) for each in found] == [(64, 64), (200, 200), (200, 8)]


def test_headers_at_the_limit_and_beyond() -> None:
    scope: dict[str, Any] = {"path": "/", "query_string": b"", "headers": [(b"x", b"y" * (HEADER_BYTES - 1))]}
    _check_lengths(scope)
    with pytest.raises(RequestRefused, match=f"{HEADER_BYTES + 1} bytes"):
        _check_lengths({**scope, "headers": [*scope["headers"], (b"", b"z")]})


def test_connections_at_the_limit_and_beyond(config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS", 3)
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with served(config) as address:
        idle = [socket.create_connection(address) for _ in range(2)]
        assert b" 200 " in told(address, head)[0][:20]
        idle.append(socket.create_connection(address))
        assert b" 503 " in told(address, head)[0][:20]
        for each in idle:
            each.close()
        assert httpx.get(f"http://{address[0]}:{address[1]}/healthz").status_code == 200


class Transport(asyncio.Transport):
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_answers_that_nobody_takes(config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "READER_SECONDS", 0.1)

    async def paused(seconds: float) -> bool:
        transport = Transport()
        given = uvicorn_config(None, config)
        given.load()
        protocol = Punctual(config=given, server_state=ServerState(), app_state={})
        protocol.connection_made(transport)
        protocol.pause_writing()
        await asyncio.sleep(seconds)
        protocol.resume_writing()
        await asyncio.sleep(0.15)
        protocol.connection_lost(OSError())
        return transport.aborted

    assert not asyncio.run(paused(0.02))
    assert asyncio.run(paused(0.3))


def test_bodies_at_the_slowest_pace_and_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SLOWEST", 1000)
    assert Place(patience=0.3).post([b"x" * 200] * 12, pause=0.05)[0] == 200
    assert Place(patience=0.3).post([b"x" * 5] * 12, pause=0.05)[0] == 408


def test_packed_bodies_at_the_ratio_and_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    monkeypatch.setattr(bodies, "RATIO_FROM", 1)
    packed = zlib.compress(b"x" * 50_000)
    for ratio, status in ((50_000 // len(packed) + 1, 200), (50_000 // len(packed), 413)):
        monkeypatch.setattr(bodies, "RATIO", ratio)
        assert Place().post([packed], content_encoding="deflate")[0] == status


def test_the_defaults_are_a_servers(config: ServeConfig) -> None:
    assert config.limits == Limits() == replace(Limits())


def test_the_server_s_protocol_is_only_spoken_to_as_asyncio_does() -> None:
    """What uvicorn keeps inside may change with any release."""
    text = Path(str(serving.__file__)).read_text("utf-8")
    used = set(re.findall(r"self\._http\.(\w+)", text))
    assert used == {name for name in vars(asyncio.Protocol) | vars(asyncio.BaseProtocol) if not name.startswith("_")}


def test_a_page_of_ones_own_takes_pictures_of_its_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of 50 megapixels is a PNG of some 100 MB, and the source of the next job; a site may say otherwise."""
    found = list[ServeConfig]()
    monkeypatch.setenv("OVERPAINT_CONFIG", "")

    def run(config: ServeConfig, told: object) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr("overpaint.service.serve.serve", run)
    for more in ((), ("--limit", "picture_bytes=1000")):
        assert main(["ui", "--no-browser", "--data", str(tmp_path), *more]) == 0
    assert [each.limits.picture_bytes for each in found] == [256 * 2**20, 1000]
    assert [each.limits.body_bytes for each in found] == [256 * 2**20] * 2
    assert found[0].limits.source_pixels * 4 <= found[0].limits.picture_bytes
