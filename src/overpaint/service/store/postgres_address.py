"""The address of a store on PostgreSQL, as it is given and as it may be shown."""

from __future__ import annotations

import ipaddress
import os
import re
from types import ModuleType
from typing import Any

from overpaint.errors import RequestError

VARIABLE = "OVERPAINT_STORE"
SECRETS = (VARIABLE, "PGPASSWORD")  # of the environment, which no other process has a use for
SCHEMES = ("postgresql://", "postgres://")
_PASSWORDS = (re.compile(r"(://[^:/@?]*):[^@/?]*@"), re.compile(r"(password=)[^&\s]*", re.IGNORECASE))


def shown(address: str) -> str:
    """Without the password, for messages and logs."""
    plain = _PASSWORDS[0].sub(r"\1:***@", address)
    return _PASSWORDS[1].sub(r"\1***", plain)


def driver() -> ModuleType:
    """psycopg, which only who keeps jobs in PostgreSQL needs."""
    try:
        import psycopg
    except ImportError as error:
        remedy = f"it needs psycopg ({error}): pip install 'overpaint[postgres]'"
        raise RequestError("--store", "postgresql://...", remedy) from error
    module: ModuleType = psycopg
    return module


def connection_values(address: str, *, is_open: bool = False) -> dict[str, Any]:
    """What a connection is made with. `is_open`: others may read the address, since it stood on a command line."""
    if not address.startswith(SCHEMES):
        raise RequestError("--store", shown(address), "give postgresql://USER@HOST/DATABASE")
    psycopg = driver()
    try:
        values: dict[str, Any] = dict(psycopg.conninfo.conninfo_to_dict(address))
    except psycopg.Error:
        remedy = "it cannot be read; give postgresql://USER@HOST:PORT/DATABASE?sslmode=verify-full"
        raise RequestError("--store", shown(address), remedy) from None
    if is_open and "password" in values:
        remedy = f"lists of processes show the password; give the address in {VARIABLE}, or PGPASSWORD or ~/.pgpass"
        raise RequestError("--store", shown(address), remedy)
    if not _is_near(values.get("host") or os.environ.get("PGHOST") or "") and "PGSSLMODE" not in os.environ:
        values.setdefault("sslmode", "require")
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
    return {"connect_timeout": 10, "application_name": "overpaint", **alive, **values}


def _is_near(hosts: str) -> bool:
    """Whether nothing leaves the machine: a socket in the file system, or loopback."""
    near = ("", "localhost")
    return all(each.startswith(("/", "@")) or each in near or _is_loopback(each) for each in hosts.split(","))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
