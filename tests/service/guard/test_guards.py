"""Who may ask at all: token, host, origin (peers.md 5.3.9), for every route there is."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.guard.guards import OPEN_TO_ALL
from overpaint.service.logs import LOGGER
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk

TOKEN = "correct horse: battery"
HERE = {"host": "127.0.0.1:7860"}


def ask(app: Any, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with client_of(app) as client:
            return await client.request(method, path, headers=headers, **options)

    return asyncio.run(asked())


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of all routes, however deep they are included."""
    found: list[tuple[str, str]] = []

    def walk(routes: Any, prefix: str = "") -> None:
        for each in routes:
            inner = getattr(each, "original_router", None)
            if inner is not None:
                walk(inner.routes, prefix + each.include_context.prefix)
            elif hasattr(each, "routes") and not hasattr(each, "methods"):
                walk(each.routes, prefix + getattr(each, "path", ""))
            else:
                found.extend(
                    (method, re.sub(r":\w+}", "}", prefix + each.path)) for method in sorted(each.methods or {"GET"})
                )

    walk(app.routes)
    return found


@pytest.fixture(scope="module")
def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> FakeDesk:
    return FakeDesk(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def app(shared_desk: FakeDesk) -> FastAPI:
    """One for the module: making it takes longer than asking it."""
    return create_app(shared_desk, ServeConfig(data=shared_desk.data))


@pytest.fixture(scope="module")
def guarded(shared_desk: FakeDesk) -> FastAPI:
    return create_app(shared_desk, ServeConfig(data=shared_desk.data, token=TOKEN))


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


class TestToken:
    def test_every_route_asks_for_it(self, guarded: FastAPI) -> None:
        routes = routes_of(guarded)
        documented = {
            (method.upper(), path) for path, methods in guarded.openapi()["paths"].items() for method in methods
        }
        assert documented <= set(routes)
        assert len(routes) > 60
        filled = {(method, re.sub(r"\{[^}]*\}", "x", path)) for method, path in routes}

        async def all_asked() -> dict[tuple[str, str], int]:
            async with client_of(guarded) as client:
                return {each: (await client.request(*each)).status_code for each in sorted(filled)}

        answers = asyncio.run(all_asked())
        opened = {each for each, status in answers.items() if status != 401}
        page = {(method, path) for method in ("GET", "HEAD") for path in ("/", "/page/x")}  # the same for everybody
        assert opened == page | {("GET", OPEN_TO_ALL), ("HEAD", OPEN_TO_ALL)}

    @pytest.mark.parametrize(
        "path",
        ["/nothing", "/healthz/", "/healthz/x", "/x//healthz", "/page", "/HEALTHZ", "/healthz%2f", "/openapi.json"],
    )  # fmt: skip
    def test_unknown_paths_ask_for_it_too(self, guarded: FastAPI, path: str) -> None:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FROB"):
            assert ask(guarded, method, path).status_code == 401

    def test_the_answer_names_both_ways(self, guarded: FastAPI) -> None:
        response = ask(guarded, "GET", "/v1/jobs")
        asked = response.headers.get_list("www-authenticate")
        assert [each.split()[0] for each in asked] == ["Basic", "Bearer"]
        assert response.json()["error"]["code"] == "unauthorized"
        reference = ask(guarded, "GET", "/sdapi/v1/options").json()  # API-1
        assert reference["detail"].startswith("Incorrect username or password")
        assert set(reference) == {"error", "detail", "body", "errors"}

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": f"Bearer {TOKEN}"},
            {"Authorization": f"bearer  {TOKEN} "},
            basic(f"anybody:{TOKEN}"),
            basic(f":{TOKEN}"),
            basic(TOKEN),  # given as "user:password" on both sides
        ],
    )
    def test_right_ones(self, guarded: FastAPI, headers: dict[str, str]) -> None:
        assert ask(guarded, "GET", "/readyz", headers).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": TOKEN},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Token {TOKEN}"},
            {"Authorization": "Basic ?"},
            {"Authorization": "Basic é".encode("latin-1").decode("latin-1")},
            basic("anybody:"),
            basic(f"{TOKEN}:anybody"),
            basic(f"x:{TOKEN}:"),
        ],
    )
    def test_wrong_ones(self, guarded: FastAPI, headers: dict[str, str]) -> None:
        given = [(name, value.encode("latin-1")) for name, value in headers.items()]
        assert ask(guarded, "GET", "/readyz", given).status_code == 401  # type: ignore[arg-type]

    def test_two_are_none(self, guarded: FastAPI) -> None:
        twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
        assert ask(guarded, "GET", "/readyz", twice).status_code == 401  # type: ignore[arg-type]

    def test_it_is_in_no_log_answer_or_document(self, guarded: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, LOGGER)
        for headers in (
            {"Authorization": f"Bearer {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            basic(f"me:{TOKEN}"),
        ):
            for path in (
                "/openapi.json",
                "/v1/limits",
                "/sdapi/v1/cmd-flags",
                "/sdapi/v1/options",
                "/metrics",
                "/nothing",
            ):
                response = ask(guarded, "GET", f"{path}?token=secret-query", headers)
                assert TOKEN not in response.text
                assert TOKEN not in str(response.headers)
        assert caplog.records
        for word in (TOKEN, base64.b64encode(f"me:{TOKEN}".encode()).decode(), "secret-query"):
            assert word not in caplog.text

    def test_routes_never_see_it(self, desk: FakeDesk, config: ServeConfig) -> None:
        seen: list[bytes] = []

        async def look(scope: Any, receive: Any, send: Any) -> None:
            seen.extend(name for name, _ in scope["headers"])
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        app = create_app(desk, replace(config, token=TOKEN))
        app.mount("/look", look)
        assert ask(app, "GET", "/look/", {"Authorization": f"Bearer {TOKEN}"}).status_code == 204
        assert b"host" in seen and b"authorization" not in seen

    def test_clients_are_told_apart_by_what_they_present(self, desk: FakeDesk, config: ServeConfig) -> None:
        """Here no token is asked for, as where OpenAI's clients send a key to a server on loopback."""
        app = create_app(desk, config)
        names = []
        for headers in (
            {"Authorization": "Bearer key-of-ann"},
            {"Authorization": "Bearer key-of-bob"},
            basic("me:key-of-bob"),
            {},
            {"Authorization": "Bearer key-of-ann", "X-Client": "ann"},
        ):
            answer = ask(app, "POST", "/v1/jobs", headers, json={"prompt": "a", "width": 64, "height": 64})
            assert answer.status_code == 202 and "key-of" not in answer.text
            names.append(answer.json()["client"])
        ann, bob, again, address, named = names
        assert ann.startswith("token-") and ann != bob and bob == again
        assert (address, named) == ("127.0.0.1", "ann")

    def test_without_a_token_nobody_is_asked(self, app: FastAPI) -> None:
        assert ask(app, "GET", "/readyz").status_code == 200
        assert {} in app.openapi()["security"]

    def test_the_document_tells_of_it(self, guarded: FastAPI) -> None:
        document = guarded.openapi()
        assert document["security"] == [{"bearer": []}, {"basic": []}]
        assert document["paths"][OPEN_TO_ALL]["get"]["security"] == []


class TestHost:
    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1:7860", "127.0.0.1", "localhost:1", "LOCALHOST", "localhost.", "[::1]:7860", "127.8.9.1", "[::1]"],
    )
    def test_loopback_has_its_names(self, app: FastAPI, host: str) -> None:
        assert ask(app, "GET", "/readyz", {"host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5:7860",
         "", "127.0.0.1@evil.example", "0.0.0.0", "[::ffff:8.8.8.8]", "2130706433", "[evil"],
    )  # fmt: skip
    def test_other_names_are_not_ours(self, app: FastAPI, host: str) -> None:
        for path in ("/readyz", "/v1/jobs", "/nothing"):
            assert ask(app, "GET", path, {"host": host}).status_code == 403

    def test_none_and_two_are_refused(self, app: FastAPI) -> None:
        async def asked(*hosts: bytes) -> int:
            headers = [(b"host", each) for each in hosts]
            scope = {"type": "http", "method": "GET", "path": "/readyz", "headers": headers, "query_string": b""}
            statuses: list[int] = []

            async def send(message: Any) -> None:
                statuses.append(message.get("status", 0))

            async def receive() -> Any:
                return {"type": "http.disconnect"}

            await app(scope, receive, send)
            return statuses[0]

        assert asyncio.run(asked()) == 403
        assert asyncio.run(asked(b"localhost", b"evil.example")) == 403

    def test_allowed_names_and_addresses_of_a_far_server(self, desk: FakeDesk, config: ServeConfig) -> None:
        near = create_app(desk, replace(config, allowed_hosts=("paint.example",)))
        assert ask(near, "GET", "/readyz", {"host": "Paint.Example:80"}).status_code == 200
        assert ask(near, "GET", "/readyz", {"host": "x.paint.example"}).status_code == 403
        far = create_app(desk, replace(config, host="0.0.0.0", token="t"))
        for host, status in (("192.168.1.5:7860", 200), ("[fd00::1]:7860", 200), ("evil.example", 403)):
            headers = {"host": host, "Authorization": "Bearer t"}
            assert ask(far, "GET", "/readyz", headers).status_code == status

    def test_only_the_one_path_is_for_all(self, app: FastAPI) -> None:
        assert ask(app, "GET", OPEN_TO_ALL, {"host": "evil.example"}).status_code == 200


UNSAFE = [("POST", "/v1/jobs"), ("POST", "/sdapi/v1/interrupt"), ("PUT", "/v1/pictures"), ("POST", "/v1/images/edits")]
FOREIGN = [
    "https://evil.example",
    "null",
    "http://127.0.0.1:7861",
    "http://localhost:7860",
    "https://127.0.0.1:1",
    "x",
    "http://[::1",
]


class TestOrigin:
    @pytest.mark.parametrize("origin", FOREIGN)
    @pytest.mark.parametrize(("method", "path"), [*UNSAFE, ("GET", "/v1/jobs"), ("OPTIONS", "/v1/jobs")])
    def test_pages_elsewhere_may_not_ask(
        self, app: FastAPI, shared_desk: FakeDesk, origin: str, method: str, path: str
    ) -> None:
        response = ask(app, method, path, {**HERE, "Origin": origin})
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
        assert not shared_desk.store.jobs

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_browsers_that_name_no_origin_are_told_by_their_site(self, app: FastAPI, site: str) -> None:
        for method, path in (*UNSAFE, ("GET", "/v1/jobs")):
            assert ask(app, method, path, {**HERE, "Sec-Fetch-Site": site}).status_code == 403
        visit = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert ask(app, "GET", "/readyz", {**HERE, "Sec-Fetch-Site": site, **visit}).status_code == 200  # a link
        assert (
            ask(app, "POST", "/sdapi/v1/interrupt", {**HERE, "Sec-Fetch-Site": site, **visit}).status_code == 403
        )  # a form
        framed = {**visit, "Sec-Fetch-Dest": "iframe"}
        assert ask(app, "GET", "/readyz", {**HERE, "Sec-Fetch-Site": site, **framed}).status_code == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"},
            {"Origin": "HTTP://127.0.0.1:7860"},
            {"Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    def test_our_own_page_and_programs_may(self, app: FastAPI, headers: dict[str, str]) -> None:
        assert ask(app, "POST", "/sdapi/v1/interrupt", {**HERE, **headers}).status_code == 200

    def test_behind_a_proxy_that_ends_encryption(self, desk: FakeDesk, config: ServeConfig) -> None:
        app = create_app(desk, replace(config, allowed_hosts=("paint.example",)))
        headers = {"host": "paint.example", "Origin": "https://paint.example"}
        assert ask(app, "POST", "/sdapi/v1/interrupt", headers).status_code == 200

    def test_an_allowed_page_may_and_can_read(self, desk: FakeDesk, config: ServeConfig) -> None:
        friend = "https://friend.example"
        app = create_app(desk, replace(config, allowed_origins=(f"{friend}/",), token="t"))
        headers = {**HERE, "Origin": friend, "Sec-Fetch-Site": "cross-site", "Authorization": "Bearer t"}
        response = ask(app, "POST", "/sdapi/v1/interrupt", headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == friend
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["cross-origin-resource-policy"] == "cross-origin"
        assert response.headers["vary"] == "Origin"
        preflight = {**HERE, "Origin": friend, "Access-Control-Request-Method": "POST"}
        wish = {"Access-Control-Request-Headers": "authorization", "Access-Control-Request-Private-Network": "true"}
        asked_first = ask(app, "OPTIONS", "/v1/jobs", {**preflight, **wish})
        assert asked_first.status_code == 204  # browsers send no token with it; it reaches no route
        assert asked_first.headers["access-control-allow-headers"] == "authorization"
        assert asked_first.headers["access-control-allow-private-network"] == "true"
        without = ask(app, "POST", "/sdapi/v1/interrupt", {**HERE, "Origin": friend})
        assert (without.status_code, without.headers["access-control-allow-origin"]) == (401, friend)
        assert (
            ask(app, "POST", "/sdapi/v1/interrupt", {**headers, "Origin": "https://x.friend.example"}).status_code
            == 403
        )

    def test_everybody_may_if_that_is_wanted_but_not_with_a_browsers_own_secrets(
        self, desk: FakeDesk, config: ServeConfig
    ) -> None:
        app = create_app(desk, replace(config, allowed_origins=("*",)))
        response = ask(app, "GET", "/readyz", {**HERE, "Origin": "https://any.example"})
        assert response.headers["access-control-allow-origin"] == "https://any.example"
        assert "access-control-allow-credentials" not in response.headers


class TestFrontdoor:
    @pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/sdapi/v1/samplers", "/nothing"])
    def test_every_answer_has_its_headers(self, app: FastAPI, path: str) -> None:
        headers = ask(app, "GET", path).headers
        assert re.fullmatch(r"\d+\.\d{4}", headers["x-process-time"])  # API-3
        assert len(headers["x-request-id"]) == 32
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-frame-options"] == "DENY"

    def test_refusals_have_them_too(self, guarded: FastAPI) -> None:
        for headers in ({}, {"host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert "x-process-time" in ask(guarded, "POST", "/v1/jobs", headers).headers

    def test_a_requests_own_name_is_kept_if_it_is_one(self, app: FastAPI) -> None:
        assert ask(app, "GET", "/healthz", {"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
        for bad in ("a b", "x" * 65, "a\tb", "<script>"):
            assert ask(app, "GET", "/healthz", {"X-Request-Id": bad}).headers["x-request-id"] != bad

    def test_accidents_are_told_in_the_log_only(
        self, app: FastAPI, shared_desk: FakeDesk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> str:
            raise ZeroDivisionError("inner secret")

        monkeypatch.setattr(shared_desk, "state", broken)
        response = ask(app, "GET", "/readyz")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal"
        assert "inner secret" not in response.text and "x-process-time" in response.headers
        assert "inner secret" in caplog.text and response.headers["x-request-id"] in caplog.text

    def test_unknown_paths_and_methods_in_the_words_of_their_api(self, app: FastAPI) -> None:
        assert ask(app, "GET", "/v1/nothing").json()["error"]["code"] == "not_found"
        assert ask(app, "GET", "/sdapi/v1/nothing").json()["detail"] == "Not Found"
        wrong = ask(app, "DELETE", "/healthz")
        assert wrong.status_code == 405 and wrong.headers["allow"]

    def test_there_are_no_websockets(self, app: FastAPI) -> None:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        answer: Callable[..., Awaitable[None]] = app
        asyncio.run(answer({"type": "websocket", "path": "/v1/jobs", "headers": []}, receive, send))  # type: ignore[arg-type]
        assert sent == [{"type": "websocket.close", "code": 1008}]
