"""The web page: the files of `overpaint/page` as they lie there, small on the way and never stale.

They are public code and hold nobody's data, so they need no token; the page asks for it before it asks anything else.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parents[1] / "page"
FIRST = "index.html"

_NAME = re.compile(r"(?:[a-z]+/)?[a-z0-9_-]+\.[a-z]+")
# By suffix; machines disagree about some of them, and browsers run no script of another type.
_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent."""

    media_type: str
    plain: bytes
    packed: bytes
    tag: str


def is_file(name: str) -> bool:
    """Whether the page has a file of that name, as it stands below /page/."""
    return bool(_NAME.fullmatch(name)) and Path(name).suffix in _TYPES and (FOLDER / name).is_file()


def answer(request: Request, name: str) -> Response:
    """One of the page's files, to GET or HEAD."""
    if not is_file(name):
        raise HTTPException(404)
    path = FOLDER / name
    file = _read(path, path.stat().st_mtime_ns)
    headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.plain, media_type=file.media_type, headers=headers)
    return Response(file.packed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"})


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> PageFile:
    """NOTE: `changed` is what makes an edited file another one."""
    data = path.read_bytes()
    tag = f'W/"{hashlib.blake2s(data, digest_size=12).hexdigest()}"'  # weak: packed or not, it is the same file
    return PageFile(_TYPES[path.suffix], data, gzip.compress(data, 9, mtime=0), tag)
