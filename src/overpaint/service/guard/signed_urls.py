"""URLs of pictures that may be fetched without the token: what an answer names is for whoever is given it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_FIELD = "key"
_SALT = b"overpaint: URLs of pictures"


def signed(path: str, token: str | None) -> str:
    """The path, with a key that opens this one picture where the server asks for a token."""
    return path if not token else f"{path}?{_FIELD}={_key(path, token)}"


def is_signed(scope: Mapping[str, Any], token: str) -> bool:
    """Whether somebody fetches what such a key was made for."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    wanted = f"{_FIELD}={_key(scope['path'], token)}"
    return hmac.compare_digest(scope["query_string"], wanted.encode())


def _key(path: str, token: str) -> str:
    return hmac.new(_secret(token), path.encode(), hashlib.sha256).hexdigest()[:40]


@lru_cache(maxsize=4)
def _secret(token: str) -> bytes:
    """NOTE: made slowly, since these URLs are passed on, and nobody should find a short token by trying."""
    return hashlib.scrypt(token.encode(), salt=_SALT, n=2**14, r=8, p=1)
