"""Pictures by URL: who is asked, who never is, and for how long."""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint.errors import PictureError
from overpaint.service.config import ServeConfig
from overpaint.service.guard import fetching
from overpaint.service.guard.fetching import fetch, is_public
from overpaint.service.guard.inputs import decoded_text, picture_from_text
from overpaint.service.limits import Limits
from overpaint.service.ports import TooLarge

LIMITS = Limits()


def encoded() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 12), 90).save(data, "PNG")
    return data.getvalue()


class Site:
    """What answers instead of the internet: one canned answer, over a socket pair."""

    def __init__(self, answer: bytes, *, trickle: float = 0.0) -> None:
        self.answer, self.trickle = answer, trickle
        self.asked = b""
        self.connections: list[tuple[str, str]] = []

    def connect(self, address: str, host: str, seconds: float) -> socket.socket:
        self.connections.append((address, host))
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._speak, args=(theirs,), daemon=True).start()
        return ours

    def _speak(self, theirs: socket.socket) -> None:
        with theirs:
            self.asked = theirs.recv(65_536)
            try:
                if self.trickle:
                    for each in self.answer:
                        theirs.sendall(bytes((each,)))
                        time.sleep(self.trickle)
                else:
                    theirs.sendall(self.answer)
            except OSError:
                pass  # it was hung up on


def public(host: str) -> list[str]:
    return ["93.184.216.34"]


def answer(data: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + data


def no_connection(address: str, host: str, seconds: float) -> socket.socket:
    raise AssertionError(f"{address} was connected to")


class TestUrls:
    def test_off_by_default(self, tmp_path: Path) -> None:
        for url in ("https://example.com/a.png", "http://example.com/a.png", " HTTPS://x"):
            with pytest.raises(PictureError, match=r"fetches no URLs.*--url-inputs"):
                picture_from_text(url, ServeConfig(data=tmp_path))
            with pytest.raises(PictureError, match="a URL stands here"):
                decoded_text(url, LIMITS)

    def test_a_picture_is_fetched_from_the_address_that_was_judged(self) -> None:
        data = encoded()
        site = Site(answer(data, Content_Length=str(len(data))))
        assert fetch("https://example.com/a%20b.png?x=1#y", LIMITS, resolve=public, connect=site.connect) == data
        assert site.connections == [("93.184.216.34", "example.com")]
        assert site.asked.startswith(b"GET /a%20b.png?x=1 HTTP/1.1\r\nHost: example.com\r\n")

    def test_when_switched_on_it_is_admitted_like_any_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = ServeConfig(data=tmp_path, url_inputs=True)
        site = Site(answer(b"<html>", Content_Length="6"))
        monkeypatch.setattr(fetching, "resolved", public)
        monkeypatch.setattr(fetching, "connected", site.connect)
        with pytest.raises(PictureError, match="no PNG, JPEG, WebP, TIFF, AVIF or HEIC"):
            picture_from_text("https://example.com/a.png", config)

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
            "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
            "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::1",
            "2001:0:7f00:1::1", "2001:db8::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "ff02::1",
            "nonsense", "fec0::1", "feff::1", "3fff::1", "5f00::1", "100::1", "2001:2::1", "2001:10::1", "2001:20::1",
            "192.88.99.1", "192.0.0.9", "198.51.100.1", "203.0.113.1", "ff0e::1", "4000::1", "::ffff:0:808:808",
        ],
    )  # fmt: skip
    def test_private_addresses_are_refused(self, address: str) -> None:
        assert not is_public(address)
        for found in ([address], ["93.184.216.34", address]):  # every one of a name's addresses has to be public

            def resolve(host: str, found: list[str] = found) -> list[str]:
                return found

            with pytest.raises(PictureError, match="not a public address"):
                fetch("https://example.com/", LIMITS, resolve=resolve, connect=no_connection)

    @pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111"])
    def test_public_addresses(self, address: str) -> None:
        assert is_public(address)

    @pytest.mark.parametrize(
        "url",
        [
            "https://127.0.0.1/", "https://[::1]/", "https://0.0.0.0/", "https://2130706433/", "https://0x7f000001/",
            "https://0177.0.0.1/", "https://127.1/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/",
            "https://localhost/", "https://localhost./",
        ],
    )  # fmt: skip
    def test_disguises_of_this_machine_are_resolved_and_refused(self, url: str) -> None:
        """By the system's own resolver: these ask no name server."""
        with pytest.raises(PictureError, match=r"not a public address|is not known"):
            fetch(url, LIMITS, connect=no_connection)

    @pytest.mark.parametrize(
        "url",
        [
            "http://example.com/a.png", "ftp://example.com/", "file:///etc/passwd", "https:///a", "https://", "//x/y",
            "https://user@example.com/", "https://user:word@example.com/", "https://example.com@10.0.0.1/",
            "https://example.com:8443/", "https://example.com:80/", "https://example.com:99999/", "https://[::1/",
            "https://example.com/\r\nX: y", "https://exa mple.com/", "https://example.com\\@10.0.0.1/",
            "https://example.com/" + "a" * 2100,
        ],
    )  # fmt: skip
    def test_urls_of_other_shapes_are_refused(self, url: str) -> None:
        with pytest.raises(PictureError):
            fetch(url, LIMITS, resolve=public, connect=no_connection)

    def test_a_second_answer_of_the_name_server_changes_nothing(self) -> None:
        answers = iter([["93.184.216.34"], ["127.0.0.1"]])
        data = encoded()
        site = Site(answer(data, Content_Length=str(len(data))))
        fetch("https://rebind.example/", LIMITS, resolve=lambda host: next(answers), connect=site.connect)
        assert site.connections == [("93.184.216.34", "rebind.example")]
        assert next(answers) == ["127.0.0.1"]  # nobody asked again

    @pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "404 Not Found", "206 Partial"])
    def test_redirects_are_not_followed(self, status: str) -> None:
        site = Site(answer(b"", status, Location="https://127.0.0.1/", Content_Length="0"))
        with pytest.raises(PictureError, match=status[:3]):
            fetch("https://example.com/", LIMITS, resolve=public, connect=site.connect)
        assert len(site.connections) == 1

    @pytest.mark.parametrize("declared", [True, False])
    def test_sizes_at_the_limit_and_beyond(self, declared: bool) -> None:
        limits = Limits(picture_bytes=100_000)
        for size in (100_000, 100_001):
            headers = {"Content_Length": str(size)} if declared else {}
            site = Site(answer(b"x" * size, **headers))
            if size == 100_000:
                assert len(fetch("https://example.com/", limits, resolve=public, connect=site.connect)) == size
            else:
                with pytest.raises(TooLarge):
                    fetch("https://example.com/", limits, resolve=public, connect=site.connect)

    @pytest.mark.parametrize(
        "said",
        [
            b"",
            b"nonsense\r\n\r\n",
            answer(b"x", Content_Length="5"),
            answer(b"x", Content_Encoding="gzip"),
            answer(b"", "100 Continue"),
        ],
    )
    def test_broken_answers(self, said: bytes) -> None:
        with pytest.raises(PictureError):
            fetch("https://example.com/", LIMITS, resolve=public, connect=Site(said).connect)

    @pytest.mark.parametrize("said", [answer(b"x" * 1000), b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000])
    def test_trickles_are_cut_off(self, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetching, "SECONDS", 0.3)
        started = time.monotonic()
        site = Site(said, trickle=0.1)
        with suppress(PictureError):
            fetch("https://example.com/", LIMITS, resolve=public, connect=site.connect)
        assert time.monotonic() - started < 60

    def test_slow_name_servers_are_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        over = threading.Event()

        def slow(*values: Any, **options: Any) -> list[Any]:
            over.wait(10)
            return []

        monkeypatch.setattr(fetching, "SECONDS", 0.2)
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        with pytest.raises(PictureError, match="is not known"):
            fetch("https://example.com/", LIMITS, connect=no_connection)
        over.set()

    def test_unreachable_and_unknown(self) -> None:
        def unreachable(address: str, host: str, seconds: float) -> socket.socket:
            raise ConnectionRefusedError

        def unknown(host: str) -> list[str]:
            raise socket.gaierror

        with pytest.raises(PictureError, match="cannot be reached"):
            fetch("https://example.com/", LIMITS, resolve=public, connect=unreachable)
        with pytest.raises(PictureError, match="is not known"):
            fetch("https://example.com/", LIMITS, resolve=unknown, connect=no_connection)
