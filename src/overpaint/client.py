"""A client of `overpaint serve`; the standard library is all it needs.

client = Client("http://127.0.0.1:7860")
job = client.submit({"images": [Path("room.jpg")], "prompt": "a red sofa", "strength": 0.6})
picture, *_ = client.images(client.wait(job["id"]))
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from overpaint.errors import OverpaintError, RequestError
from overpaint.named_files import check_regular

Json = dict[str, Any]

ENDS = ("finished", "failed", "cancelled")
_PATIENCE = 60.0  # seconds in which a server that is lost may come back while its events are followed
_BETWEEN_TRIES = 0.2
_LOST = (0, 502, 503)


class ServiceError(OverpaintError):
    """The server said no; `status` is 0 where it could not be reached."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None, retry_after: float = 0) -> None:
        Exception.__init__(self, message)  # NOTE: the next class in line wants a field and a value, see below
        self.status, self.code, self.retry_after = status, code, retry_after
        self.field = field or ""


class RefusedRequestError(ServiceError, RequestError):
    """A field of the request holds what the server cannot use."""

    value = ""


@dataclass(frozen=True)
class Event:
    """One entry of a job's story."""

    number: int
    name: str
    data: Json


class Client:
    """One server. It keeps no connection, so any number of threads may use it."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:7860",
        token: str | None = None,
        *,
        name: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._url = urlsplit(base_url if "://" in base_url else f"http://{base_url}")
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise RequestError("base_url", base_url, "give an address like http://127.0.0.1:7860")
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token.strip()}"} if token and token.strip() else {}
        self._headers |= {"X-Client": name} if name else {}

    def url(self, place: str) -> str:
        """Where something lies that an account names."""
        return self._url.geturl().rstrip("/") + place

    def submit(self, request: Any, *, job_id: str | None = None, key: str | None = None, **job: Any) -> Json:
        """Hand in a request, or a table of its fields in which pictures may be paths or bytes.

        Sent again under the same `job_id` or `key` it stays one job. More words are about the job: priority=1.
        """
        values = {**(request if isinstance(request, Mapping) else request.to_json()), **job}
        headers = {"Idempotency-Key": key} if key else {}
        place = "/v1/jobs" if job_id is None else f"/v1/jobs/{quote(job_id, safe='')}"
        return self._json("POST" if job_id is None else "PUT", place, _encoded(values), headers)

    def job(self, job_id: str) -> Json:
        """Where a job stands."""
        return self._json("GET", _place(job_id))

    def jobs(self, *, states: tuple[str, ...] = (), mine: bool = False, limit: int = 100) -> list[Json]:
        """Jobs, the newest first."""
        query = urlencode([*(("state", each) for each in states), ("mine", str(mine).lower()), ("limit", limit)])
        found: list[Json] = self._json("GET", f"/v1/jobs?{query}")["jobs"]
        return found

    def wait(self, job_id: str, seconds: float | None = None) -> Json:
        """Until the job is over, or the time is up; then the job as it is."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if job["state"] in ENDS or (end is not None and time.monotonic() >= end):
                return job
            for event in self.events(job_id, until=end):
                if event.name in ENDS:
                    break

    def events(self, job_id: str, after: int = 0, *, until: float | None = None) -> Iterator[Event]:
        """The job's story from an event on, to its end; a lost connection is taken up where it broke.

        `until` is a moment of `time.monotonic()`: about then it stops, over or not.
        """
        answered = time.monotonic()
        while True:
            for event in self._stretch(job_id, after, until):
                after = event.number
                yield event
                if event.name in ENDS:
                    return
            is_over = self._is_over(job_id)
            if is_over or (until is not None and time.monotonic() >= until):
                return
            if is_over is not None:
                answered = time.monotonic()
            elif time.monotonic() - answered > _PATIENCE:
                raise ServiceError(0, "lost", f"{self._url.netloc}: the connection is lost; is the server running?")
            time.sleep(_BETWEEN_TRIES)

    def cancel(self, job_id: str) -> Json:
        """End a job at once."""
        return self._json("POST", f"{_place(job_id)}/cancel")

    def finish(self, job_id: str) -> Json:
        """Let the running job end with what it has."""
        return self._json("POST", f"{_place(job_id)}/finish")

    def images(self, job: str | Mapping[str, Any]) -> list[bytes]:
        """The files of a job's pictures, by its id or its account."""
        account = self.job(job) if isinstance(job, str) else job
        return [self._call("GET", each) for each in account["images"]]

    def upload(self, picture: bytes | os.PathLike[str]) -> str:
        """Keep a picture on the server; what is returned stands for it in requests."""
        data = picture if isinstance(picture, bytes) else _read(picture)
        answer = json.loads(self._call("PUT", "/v1/pictures", data, {"Content-Type": "application/octet-stream"}))
        return str(answer["picture"])

    def plan(self, request: Any) -> Json:
        """What a request would do; nothing is painted."""
        return self._json("POST", "/v1/plan", _encoded(request if isinstance(request, Mapping) else request.to_json()))

    def models(self, kind: str = "checkpoint") -> list[Json]:
        """The models of one kind."""
        found: list[Json] = self._json("GET", f"/v1/models?{urlencode({'kind': kind})}")["data"]
        return found

    # -- how it is asked -----------------------------------------------------------------------------------------

    def _json(self, method: str, place: str, values: Any = None, headers: Mapping[str, str] | None = None) -> Json:
        body = None if values is None else json.dumps(values, allow_nan=False).encode()
        kind = {"Content-Type": "application/json"} if body is not None else {}
        answer: Json = json.loads(self._call(method, place, body, {**kind, **(headers or {})}))
        return answer

    def _call(
        self, method: str, place: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        connection = self._connection(self._timeout)
        try:
            connection.request(method, self._url.path.rstrip("/") + place, body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or error
            message = f"{self._url.netloc}: the server cannot be reached ({why}); is `overpaint serve` running?"
            raise ServiceError(0, "unreachable", message) from error
        finally:
            connection.close()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(response.status, data, response.headers.get("Retry-After"))
        return data

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        assert self._url.hostname is not None
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.hostname, self._url.port, timeout=timeout)

    def _is_over(self, job_id: str) -> bool | None:
        """None if the server does not answer."""
        try:
            return self.job(job_id)["state"] in ENDS
        except ServiceError as error:
            if error.status not in _LOST:
                raise
            return None

    def _stretch(self, job_id: str, after: int, until: float | None) -> Iterator[Event]:
        """The events of one connection, until it ends or breaks."""
        left = self._timeout if until is None else max(0.01, min(self._timeout, until - time.monotonic()))
        connection = self._connection(left)
        try:
            place = f"{self._url.path.rstrip('/')}{_place(job_id)}/events"
            connection.request("GET", place, headers={**self._headers, "Last-Event-ID": str(after)})
            response = connection.getresponse()
            if response.status == HTTPStatus.OK:
                yield from _events(iter(response.readline, b""))
            elif response.status not in (*_LOST, HTTPStatus.NO_CONTENT):  # nothing comes any more
                raise _refusal(response.status, response.read(), response.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()


def _events(lines: Iterator[bytes]) -> Iterator[Event]:
    """Server-sent events; what is cut off in the middle is none."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\r\n").partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif fields.keys() >= {"id", "event", "data"}:
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


def _place(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _read(path: os.PathLike[str]) -> bytes:
    check_regular(path)
    return Path(path).read_bytes()


def _encoded(value: Any) -> Any:
    """Files as base64; everything else as it is."""
    if isinstance(value, os.PathLike):
        value = _read(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {name: _encoded(each) for name, each in value.items()}
    return [_encoded(each) for each in value] if isinstance(value, list | tuple) else value


def _refusal(status: int, data: bytes, retry_after: str | None) -> ServiceError:
    try:
        told = json.loads(data)["error"]
        code, message, field = str(told["code"]), str(told["message"]), told.get("field")
    except (ValueError, LookupError, TypeError, AttributeError):
        code, message, field = "error", f"the server answered {status}", None
    kind = RefusedRequestError if status in (400, 413, 415, 422) else ServiceError
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    return kind(status, code, message, field, seconds)
