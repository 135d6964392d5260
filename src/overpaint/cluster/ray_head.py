"""The cluster of Ray that a batch runs on: one of our own, or one that is there, looked at before it is told anything.

Whoever reaches a head without its token mode can run any program on all machines of the cluster. What is started here
listens on loopback and asks for a token; a head elsewhere has to ask for one, too. Ray's statistics are sent nowhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from overpaint.errors import OverpaintError, RequestError

LOCAL = "local"
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^\s:/]+)):(\d{1,5})")
_REACH_SECONDS = 5.0
_HEALTH_SECONDS = 60
_STORE_BYTES = 80 << 20  # Ray's least; pictures do not go through it
_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # otherwise 127.0.0.1 is rewritten to the outward address
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def check_ray_is_here() -> None:
    """Before anything else is done."""
    if find_spec("ray") is None:
        raise RequestError("--ray", None, "Ray is not installed: pip install 'overpaint[ray]'")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected: to a cluster that is started for this batch, or to the one at HOST:PORT."""
    check_ray_is_here()
    if address == LOCAL:
        with tempfile.TemporaryDirectory(prefix="op-", ignore_cleanup_errors=True) as folder:
            mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            with _environment({**_ALWAYS, **_ON_LOOPBACK, **mode}), _initialised(_own_cluster(folder)) as ray:
                yield ray
        return
    host, port = split_address(address)
    is_here = is_loopback(host) and not _is_open_outward(port)
    mode = _checked_mode(address, is_here)
    near = _ON_LOOPBACK if is_here else {}
    with _environment({**_ALWAYS, **near, **mode}), _initialised({"address": address}) as ray:
        yield ray


def split_address(address: str) -> tuple[str, int]:
    """Host and port. The place of a cluster is always named: an address file may be of another one, long gone."""
    if address.startswith("ray://"):
        remedy = "start the command on a machine of the cluster and give the head's HOST:PORT, such as HOST:6379"
        raise RequestError("--ray", address, remedy)
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 65536:
        raise RequestError("--ray", address, "give local, or the HOST:PORT of a head, such as 10.0.0.5:6379")
    return found[1] or found[2], int(found[3])


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_open_outward(port: int) -> bool:
    """Whether what listens here is reached by other machines, too: then it is as good, or as bad, as one elsewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        try:
            door.connect(("192.0.2.1", 9))  # nothing is sent: this asks which address such a packet would come from
            own = str(door.getsockname()[0])
        except OSError:  # there is no way out
            return False
    return not is_loopback(own) and _answers(own, port) is None


def _answers(host: str, port: int) -> str | None:
    """What is wrong, if nobody answers there."""
    try:
        socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _checked_mode(address: str, is_here: bool) -> dict[str, str]:
    """What to set so that the head answers; refuses one elsewhere that would answer anybody."""
    host, port = split_address(address)
    reason = _answers(host, port)
    if reason is not None:
        raise RequestError("--ray", address, f"no cluster answers there ({reason}); start one, or name its head")
    token, none = {"RAY_AUTH_MODE": "token"}, {"RAY_AUTH_MODE": "disabled"}
    if is_here and os.environ.get("RAY_AUTH_MODE") == "token" and _is_healthy(address, token, is_here):
        return token
    if _is_healthy(address, none, is_here):
        if not is_here:
            remedy = (
                "this head obeys whoever reaches its port; start it with RAY_AUTH_MODE=token, and give its token here"
            )
            raise RequestError("--ray", address, remedy)
        return none
    if _is_healthy(address, token, is_here):
        return token
    known = [each for each in _TOKENS if os.environ.get(each)]
    said = f"the one in {known[0]} is another" if known else "give it in RAY_AUTH_TOKEN"
    remedy = f"no head of Ray answers there, or it asks for a token ({said}), or it is of another version of Ray"
    raise RequestError("--ray", address, remedy)


def _is_healthy(address: str, mode: Mapping[str, str], is_here: bool) -> bool:
    """Asked by Ray's own command, in a process of its own: a process has one mode for its whole life."""
    near = _ON_LOOPBACK if is_here else {}
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "health-check",
        "--skip-version-check",
        "--address",
        address,
    ]
    environment = {**os.environ, **_ALWAYS, **near, **mode}
    if mode["RAY_AUTH_MODE"] == "disabled":
        environment = {name: value for name, value in environment.items() if name not in _TOKENS}
    try:
        asked = subprocess.run(command, env=environment, capture_output=True, timeout=_HEALTH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _own_cluster(folder: str) -> dict[str, Any]:
    return {
        "address": LOCAL,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,  # short, since sockets are below it, and nobody else's
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }


@contextmanager
def _initialised(options: Mapping[str, Any]) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of what it will change some day
        ray = import_module("ray")
        if ray.is_initialized():
            raise OverpaintError("this process is connected to a cluster of Ray already; end that connection first")
        try:
            ray.init(**options, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except Exception as error:  # Ray raises many kinds for what is wrong with a cluster
            ray.shutdown()
            raise _told(options["address"], error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _told(address: str, error: Exception) -> OverpaintError:
    words = " ".join(str(error).split())
    if "ersion mismatch" in words:
        remedy = f"install the Ray and Python of the cluster here ({words[:300]})"
        return RequestError("--ray", address, remedy)
    remedy = f"the cluster cannot be used ({type(error).__name__}: {words[:300]})"
    if address != LOCAL:
        remedy += "; start the command on a machine of the cluster"
    return RequestError("--ray", address, remedy)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Ray takes its configuration, and hands secrets on to what it starts, through the environment alone."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
