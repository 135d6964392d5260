"""A picture by its URL, from public addresses only: the one place from which this server calls others.

A name is resolved once; what is connected to is an address that was judged, so no second answer of a name server can
lead elsewhere. Redirects are not followed, proxies of the environment are not used.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from urllib.parse import SplitResult, urlsplit

from overpaint.errors import PictureError
from overpaint.service.limits import Limits
from overpaint.service.ports import TooLarge

SECONDS = 10.0  # for everything together
PORT = 443

Resolve = Callable[[str], Iterable[str]]  # a name -> all its addresses
Connect = Callable[[str, str, float], socket.socket]  # (address, name, seconds) -> an encrypted connection

_LONGEST = 2048
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_PIECE = 64 * 1024
# Of IPv6 only this part is given out to be reached by all. Outside of it are site-local and unique local addresses,
# those that stand for one of IPv4 (mapped, NAT64), segment routing and multicast.
_UNICAST = ipaddress.IPv6Network("2000::/3")
# And of that not: protocols (with Teredo and ORCHID), documentation, 6to4.
_SPECIAL = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# Python does not count these, or counts them otherwise from version to version: protocols, the relay of 6to4.
_SPECIAL_V4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))


def fetch(
    url: str, limits: Limits, name: str = "picture", *, resolve: Resolve | None = None, connect: Connect | None = None
) -> bytes:
    """The bytes at an https URL. What goes wrong is told in general words: this must not become a port scanner."""
    parts = _checked(url, name)
    host = str(parts.hostname)
    end = time.monotonic() + SECONDS
    address = _public_address(host, resolve or resolved, name)
    try:
        connection = (connect or connected)(address, host, max(0.1, end - time.monotonic()))
    except (OSError, ValueError):
        raise PictureError(f"{name}: {host} cannot be reached by https, give the picture itself") from None
    # Each read has a time limit of its own; a server that sends a byte now and then would never meet one.
    timer = threading.Timer(max(0.1, end - time.monotonic()), _shut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        connection.settimeout(SECONDS)
        return _answer(connection, parts, limits, name)
    except PictureError:
        raise
    except (OSError, HTTPException, ValueError):
        what = f"{host} did not answer as it should within {SECONDS:g} s"
        raise PictureError(f"{name}: {what}, give the picture itself") from None
    finally:
        timer.cancel()
        connection.close()


def _checked(url: str, name: str) -> SplitResult:
    """A URL of the one kind that is fetched."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise PictureError(f"{name}: this is no URL, give https://...") from None
    if len(url) > _LONGEST or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise PictureError(f"{name}: this is no URL that can be fetched, give https://... in plain characters")
    if parts.scheme != "https" or not parts.hostname:
        raise PictureError(f"{name}: only https URLs are fetched, give one")
    if "@" in parts.netloc:
        raise PictureError(f"{name}: the URL holds a user's name, give one without")
    if port not in (None, PORT):
        raise PictureError(f"{name}: the URL names port {port}, only {PORT} is asked")
    return parts


def _public_address(host: str, resolve: Resolve, name: str) -> str:
    try:
        found = tuple(resolve(host))
    except (OSError, UnicodeError):
        found = ()
    if not found:
        raise PictureError(f"{name}: the name {host} is not known, give the picture itself")
    if not all(map(is_public, found)):
        raise PictureError(f"{name}: {host} is not a public address, give the picture itself")
    return found[0]


def is_public(address: str) -> bool:
    """Whether strangers may send this server there."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a scope such as fe80::1%eth0, or no address at all
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id or ip not in _UNICAST or any(ip in each for each in _SPECIAL):
            return False
    elif any(ip in each for each in _SPECIAL_V4):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def resolved(host: str) -> tuple[str, ...]:
    """All addresses of a name, in time: name servers have no limit of their own."""
    pool = ThreadPoolExecutor(1)
    try:
        asked = pool.submit(socket.getaddrinfo, host, PORT, type=socket.SOCK_STREAM)
        return tuple(str(each[4][0]) for each in asked.result(SECONDS))
    except TookTooLong:
        return ()
    finally:
        pool.shutdown(wait=False)


def connected(address: str, host: str, seconds: float) -> socket.socket:
    """An encrypted connection to the address, whose certificate is for the name."""
    plain = socket.create_connection((address, PORT), timeout=seconds)
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _answer(connection: socket.socket, parts: SplitResult, limits: Limits, name: str) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    head = (
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: overpaint",
        "Accept: image/png, image/jpeg, image/webp, image/tiff, image/avif, image/heic",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    connection.sendall("\r\n".join((*head, "", "")).encode("ascii"))
    with HTTPResponse(connection, method="GET") as response:
        response.begin()
        if response.status != 200:
            raise PictureError(f"{name}: the server answered {response.status}, and redirects are not followed")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise PictureError(f"{name}: the server sent the picture packed, give the picture itself")
        return _body(response, limits, name)


def _body(response: HTTPResponse, limits: Limits, name: str) -> bytes:
    data = bytearray()
    while piece := response.read(_PIECE):
        data += piece
        if len(data) > limits.picture_bytes:
            raise TooLarge(f"{name}: the picture has more than {limits.picture_bytes} bytes, give a smaller file")
    if response.length:  # the connection ended before the promised length
        raise HTTPException("cut off")
    return bytes(data)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
