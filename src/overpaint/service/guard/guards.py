"""Who may ask at all: middlewares between the socket and every route, the outermost first.

`Frontdoor` accounts for each request, `HostGuard` and `OriginGuard` keep pages of other sites out, `TokenGuard` keeps
out everybody without the token. `BodyGuard`, the innermost, is in bodyguard.py.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overpaint.service.config import ServeConfig
from overpaint.service.guard.places import hidden
from overpaint.service.guard.refusals import RequestRefused, refusal
from overpaint.service.guard.signed_urls import is_signed
from overpaint.service.logs import LOGGER, line

OPEN_TO_ALL = "/healthz"  # says only that the process lives
PAGE_FILES = "/page/"
REALM = "overpaint"
LONGEST_TARGET = 8 * 1024  # of path and query
HEADER_BYTES = 32 * 1024

Observe = Callable[[Scope, int, float], None]  # (scope, status, seconds)

_PICTURE = re.compile(r"/v1/jobs/[^/]+/images/\d+")
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_QUIET = ("/healthz", "/readyz", "/metrics", "/internal/ping")  # asked every few seconds
_USUAL = (200, 503)
_SECURITY: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}

log = logging.getLogger(LOGGER)


class Frontdoor:
    """Time, name and headers for every answer; one log line without query; accidents become a bare 500."""

    def __init__(self, app: ASGIApp, observe: Observe, places: re.Pattern[str] | None = None) -> None:
        self._app, self._observe, self._places = app, observe, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _other_than_http(self._app, scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        # One scope for all below: guards change its headers, and the router writes down here which route it took.
        scope = {**scope, "state": {**scope.get("state", {}), "request_id": name}}

        async def adorned(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Process-Time"] = f"{time.perf_counter() - started:.4f}"  # API-3
                headers["X-Request-Id"] = name
                for each, value in _SECURITY.items():
                    headers.setdefault(each, value)
            await send(message)

        try:
            _check_lengths(scope)
            with hidden(self._places):
                await self._app(scope, receive, adorned)
        except RequestRefused as refused:
            await refusal(scope, refused)(scope, receive, adorned)
        except Exception:
            log.exception(line("accident", id=name, method=scope["method"], path=scope["path"]))
            if status:
                raise  # half an answer is out: the connection is cut
            said = RequestRefused(500, f"something went wrong here; the server's log says what, under {name}")
            await refusal(scope, said)(scope, receive, adorned)
        finally:
            seconds = time.perf_counter() - started
            self._observe(scope, status or 499, seconds)  # 499: the client went before there was an answer
            level = logging.DEBUG if scope["path"] in _QUIET and status in _USUAL else logging.INFO
            log.log(
                level, line("request", id=name, method=scope["method"], path=scope["path"], status=status, s=seconds)
            )


def _check_lengths(scope: Scope) -> None:
    """What the server's own bound on headers lets through when they come in one piece."""
    target = len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b""))
    if target > LONGEST_TARGET:
        raise RequestRefused(414, f"the path and query have {target} characters, give at most {LONGEST_TARGET}")
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > HEADER_BYTES:
        raise RequestRefused(431, f"the headers have {size} bytes, send at most {HEADER_BYTES}")


async def _other_than_http(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """There are no websockets here; the server's own start and end go through."""
    if scope["type"] == "lifespan":
        await app(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})


class HostGuard:
    """Names that lead here. Another one is a page elsewhere whose name was pointed at us (DNS rebinding)."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app, self._far = app, not config.is_loopback
        self._names = {"localhost", _host(config.host), *map(_host, config.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != OPEN_TO_ALL:
            given = Headers(scope=scope).getlist("host")
            if len(given) != 1 or not self._is_ours(_host(given[0])):
                shown = given[0][:80] if given else ""
                remedy = "use the server's address, or start it with --allow-host NAME"
                await refusal(scope, RequestRefused(403, f"Host={shown!r}: {remedy}"))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        if host in self._names or "*" in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        # A bare address cannot be pointed elsewhere; to a server that all may reach it says nothing evil.
        return address.is_loopback or self._far


def _host(text: str) -> str:
    """The name or address without its port."""
    text = text.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rstrip(".") if text.count(":") > 1 else text.partition(":")[0].rstrip(".")


class OriginGuard:
    """Keeps pages of other sites from acting through their visitors' browsers, and lets those in that may (CORS)."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._allowed = {each.strip().lower().rstrip("/") for each in config.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == OPEN_TO_ALL:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_foreign_friend = origin is not None and self._is_allowed(origin) and not _is_same(origin, headers)
        if not is_foreign_friend and not _is_from_here(scope["method"], headers):
            shown = (origin or headers.get("sec-fetch-site", ""))[:80]
            remedy = "pages of other sites may not ask, unless the server is started with --allow-origin"
            await refusal(scope, RequestRefused(403, f"Origin={shown!r}: {remedy}"))(scope, receive, send)
            return
        if not is_foreign_friend:
            await self._app(scope, receive, send)
            return
        assert origin is not None
        shared = self._shared(origin)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers={**shared, **_preflight(headers)})(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send, shared))

    def _is_allowed(self, origin: str) -> bool:
        return origin.lower() in self._allowed or "*" in self._allowed

    def _shared(self, origin: str) -> dict[str, str]:
        named = origin.lower() in self._allowed
        return {
            "Access-Control-Allow-Origin": origin,
            **({"Access-Control-Allow-Credentials": "true"} if named else {}),
            "Access-Control-Expose-Headers": "X-Request-Id, X-Process-Time, Location, Retry-After",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Origin",
        }


def _preflight(headers: Headers) -> dict[str, str]:
    private = {"Access-Control-Allow-Private-Network": "true"}
    return {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
        "Access-Control-Max-Age": "600",
        **(private if headers.get("access-control-request-private-network") == "true" else {}),
    }


def _is_from_here(method: str, headers: Headers) -> bool:
    """Whether it comes from our own page, from an address bar or link, or from no browser at all."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None:
        return _is_same(origin, headers)
    if site in (None, "same-origin", "none"):
        return True
    # Following a link from another page shows ours and does nothing else.
    is_visit = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method in ("GET", "HEAD") and is_visit


def _is_same(origin: str, headers: Headers) -> bool:
    """By name and port; a proxy before us may have taken the encryption off."""
    try:
        parts = urlsplit(origin.lower())
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        own = urlsplit(f"//{headers.get('host', '').lower()}")
        own_port = own.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.hostname, port) == (own.hostname, own_port)


def _with_headers(send: Send, added: Mapping[str, str]) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in added.items():
                headers[name] = value
        await send(message)

    return sent


class TokenGuard:
    """The token, as Bearer or as Basic's password, for all but /healthz and the page's files. It goes no further.

    Whoever presents one, asked or not, is known by a name that stands for it.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._token = config.token
        self._wanted = _digest(config.token.encode()) if config.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).getlist("authorization") if scope["type"] == "http" else []
        if len(given) == 1:
            scope["state"]["token_name"] = _name_of_token(given[0])
        if scope["type"] == "http" and self._wanted is not None and not _is_open(scope):
            if (len(given) != 1 or not self._is_right(given[0])) and not self._is_signed(scope):
                answer = refusal(scope, RequestRefused(401, "Incorrect username or password: give the server's token"))
                if Headers(scope=scope).get("sec-fetch-mode", "navigate") == "navigate":  # scripts ask in their own way
                    answer.headers.append("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"')
                answer.headers.append("WWW-Authenticate", f'Bearer realm="{REALM}"')
                await answer(scope, receive, send)
                return
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"authorization"]
        await self._app(scope, receive, send)

    def _is_signed(self, scope: Scope) -> bool:
        return _PICTURE.fullmatch(scope["path"]) is not None and is_signed(scope, self._token or "")

    def _is_right(self, header: str) -> bool:
        assert self._wanted is not None
        wanted, found = self._wanted, False
        for each in _tokens(header):  # none is skipped, so time tells nothing
            found |= hmac.compare_digest(_digest(each), wanted)
        return found


def _is_open(scope: Scope) -> bool:
    """Whether no token is needed: the page's files are the same for everybody, and it has to load to ask for one."""
    path, is_read = scope["path"], scope["method"] in ("GET", "HEAD")
    return path == OPEN_TO_ALL or (is_read and (path == "/" or path.startswith(PAGE_FILES)))


def _tokens(header: str) -> Iterable[bytes]:
    """What a header offers as the token: the bearer's, or for Basic the password and "user:password"."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return (value.strip().encode("latin-1", "replace"),)
    if scheme.lower() != "basic":
        return ()
    try:
        pair = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return ()
    return (pair.partition(b":")[2], pair)


def _name_of_token(header: str) -> str | None:
    """Tells clients apart and nothing about the token: so short a digest stands for countless others."""
    first = next(iter(_tokens(header)), b"")
    return f"token-{hashlib.blake2s(first, digest_size=4, person=b'client').hexdigest()}" if first else None


def _digest(text: bytes) -> bytes:
    """Equal lengths for what is compared."""
    return hashlib.sha256(text).digest()
