"""Files of object stores, named by URL: s3://bucket/photos/a.jpg. fsspec and the store's own package do the work.

Secrets come from the environment alone, as those packages read them: whatever is in a URL ends up in journals, recipes
and lists of processes.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from overpaint.errors import OverpaintError, PictureError, RequestError

# scheme: the package that knows the store; fsspec itself knows memory
STORES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "memory": "fsspec",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+)://")
_SECRET = re.compile(r"(?i)\b(sig|signature|token|secret|password|[a-z-]*key(?:id)?)=[^&\s'\"]+")
_NO_RIGHTS = ("NoCredentialsError", "PermissionError", "ClientAuthenticationError", "DefaultCredentialsError")
_MISSING = ("ResourceNotFoundError", "NoSuchBucket")  # whatever its package makes of that
_MARKS = ("ETag", "etag", "md5Hash")  # by which stores tell contents apart
_LONGEST_REASON = 200


@dataclass(frozen=True)
class StoreFile:
    """A file of an object store, or everything below a prefix. It has what a batch needs of `Path`."""

    url: str  # without a slash at its end
    mark: str = field(default="", compare=False)  # of its content, if a listing told it
    data: bytes | None = field(default=None, compare=False, repr=False)  # the content, once it was fetched

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: object) -> StoreFile:
        """A name below it; a whole URL is itself."""
        text = str(name)
        if is_url(text):
            return _checked(text, "url")
        head, _, path = self.url.partition("://")
        return StoreFile(f"{head}://{posixpath.normpath(posixpath.join(path, text)).lstrip('./')}")

    @property
    def path(self) -> str:
        """Bucket and key."""
        return self.url.partition("://")[2]

    @property
    def bucket(self) -> str:
        """With its store, which another one of the same name has not."""
        return "/".join(self.url.split("/")[:3])

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> StoreFile:
        return StoreFile(self.url.rpartition("/")[0])

    def is_in(self, other: StoreFile) -> bool:
        """Whether it is the other one, or lies below it."""
        return f"{self.url}/".startswith(f"{other.url}/")

    def is_file(self) -> bool:
        return self.about() is not None

    exists = is_file

    def about(self) -> dict[str, Any] | None:
        """What the store says of it; None: there is no such file."""
        fs, path = opened_store(self)
        with telling(self):
            try:
                told: dict[str, Any] = fs.info(path)
            except FileNotFoundError:
                return None
        return told if told.get("type") == "file" else None

    def content_mark(self) -> str:
        """Changes with the content: what the store says, or else the SHA-256."""
        if self.mark:
            return self.mark
        about = self.about()
        if about is None:
            raise PictureError(f"{self}: there is no such file")
        return mark_told(about) or hashlib.sha256(self.read_bytes()).hexdigest()

    def read_bytes(self) -> bytes:
        if self.data is not None:
            return self.data
        fs, path = opened_store(self)
        with telling(self):
            return bytes(fs.cat_file(path))

    def fetched(self) -> StoreFile:
        """With its content, so that it is read once."""
        return replace(self, data=self.read_bytes())

    def open(self, mode: str = "rb", **options: Any) -> IO[Any]:
        """To be read piece by piece."""
        fs, path = opened_store(self)
        with telling(self):
            file: IO[Any] = fs.open(path, mode, **options)
        return file


AnyFile: TypeAlias = Path | StoreFile


def is_url(text: str) -> bool:
    return _SCHEME.match(text) is not None


def file_named(text: str, argument: str = "url") -> AnyFile:
    """What a user names: a path, or a URL. What is wrong with a URL is told without the secrets that may be in it."""
    found = _SCHEME.match(text)
    if found is None:
        return Path(text)
    if found[1].lower() not in ("file", "local"):
        return _checked(text, argument)
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise RequestError(argument, text, "a file URL has three slashes, such as file:///photos")
    return Path(unquote(parts.path))


def below(folder: AnyFile, text: str, argument: str = "url") -> AnyFile:
    """The file that a text names, from this folder; a URL names it by itself."""
    return file_named(text, argument) if is_url(text) else folder / text


def content_of(file: AnyFile) -> Path | bytes:
    """As pictures are opened."""
    return file.read_bytes() if isinstance(file, StoreFile) else file


def _checked(text: str, argument: str) -> StoreFile:
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if "::" in scheme or "::" in rest or scheme not in STORES:
        remedy = f"it is of no store that is known; give a folder, or a URL of {', '.join(STORES)} or file"
        raise RequestError(argument, f"{scheme.rpartition('::')[2]}://...", remedy)
    place, mark, query = rest.partition("?")
    account, at, _ = place.partition("/")[0].rpartition("@")
    if (mark and "=" in query) or (at and (":" in account or scheme not in ("abfs", "abfss"))):
        remedy = "a URL is seen by others; give keys and tokens in the environment, and the URL without them"
        raise RequestError(argument, f"{scheme}://...", remedy)
    if not rest.strip("/"):
        raise RequestError(argument, text, f"name a bucket, such as {scheme}://bucket/photos")
    return StoreFile(f"{scheme}://{rest.strip('/')}")


def check_packages(place: AnyFile, argument: str) -> None:
    """Before anything is looked at."""
    if not isinstance(place, StoreFile):
        return
    if find_spec("fsspec") is None:
        raise RequestError(argument, place.url, "fsspec is not installed: pip install 'overpaint[stores]'")
    package = STORES[place.url.partition("://")[0]]
    if find_spec(package) is None:
        raise RequestError(argument, place.url, f"the package of this store is not installed: pip install {package}")


def opened_store(place: StoreFile) -> tuple[Any, str]:
    """fsspec's file system, of which there is one a store and process, and the path there.

    NOTE: without its cache of listings, which would hold ten million names.
    """
    check_packages(place, "url")
    with telling(place):
        core = import_module("fsspec.core")
        fs, path = core.url_to_fs(place.url, use_listings_cache=False)
    return fs, str(path)


def mark_told(about: dict[str, Any]) -> str:
    """Out of what a store says of a file."""
    found = next((str(about[name]) for name in _MARKS if about.get(name)), "")
    return f"{found.strip(chr(34))}-{about.get('size')}" if found else ""


@contextmanager
def telling(place: StoreFile, kind: Callable[[str], OverpaintError] = PictureError) -> Iterator[None]:
    """What stores raise, in one sentence of ours. They raise whatever they like."""
    try:
        yield
    except (OverpaintError, FileExistsError):
        raise
    except Exception as error:
        if is_missing(error):
            raise kind(f"{place}: there is no such bucket or file ({_words(error)})") from error
        package = STORES[place.url.partition("://")[0]]
        if type(error).__name__ in _NO_RIGHTS:
            remedy = f"give rights to it, by the variables of the environment that {package} reads"
            raise kind(f"{place}: no rights there ({_words(error)}); {remedy}") from error
        raise kind(f"{place}: the store did not do it ({type(error).__name__}: {_words(error)})") from error


def is_missing(error: BaseException | None) -> bool:
    """Whether a store said by it that something is not there."""
    return isinstance(error, FileNotFoundError) or type(error).__name__ in _MISSING


def _words(error: Exception) -> str:
    return _SECRET.sub(r"\1=...", " ".join(str(error).split()))[:_LONGEST_REASON]


def listed_below(top: StoreFile, recursive: bool) -> Iterator[StoreFile]:
    """The files below a prefix, page by page: a listing of millions is nowhere held as a whole."""
    fs, path = opened_store(top)
    pages = _s3_pages if top.url.startswith(("s3://", "s3a://")) else _walked
    with telling(top):
        root = fs._strip_protocol(path).strip("/")
        for key, about in pages(fs, path, recursive):
            name = key.strip("/")[len(root) + 1 :]
            if name:
                yield StoreFile(f"{top.url}/{name}", mark_told(about))


def _s3_pages(fs: Any, path: str, recursive: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Thousand by thousand; s3fs itself only lists a prefix as a whole."""
    bucket, key, _ = fs.split_path(path)
    wanted = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""} | ({} if recursive else {"Delimiter": "/"})
    token: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", **wanted, **token)
        for each in page.get("Contents", ()):
            if not each["Key"].endswith("/"):  # what consoles make of an empty folder
                yield f"{bucket}/{each['Key']}", {"ETag": each.get("ETag"), "size": each["Size"]}
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _walked(fs: Any, path: str, recursive: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Folder by folder."""
    for root, _, files in fs.walk(path, maxdepth=None if recursive else 1, detail=True, on_error="raise"):
        for name, about in files.items():
            yield f"{root}/{name}", about
