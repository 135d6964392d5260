"""Checkpoint files by name: which there are, their hashes, titles and aliases (FILE-1 to FILE-8)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import platformdirs

from overpaint.errors import CheckpointError
from overpaint.models.catalog import natural_key
from overpaint.models.header import is_text, safetensors_header
from overpaint.named_files import check_regular, is_endless

CHECKPOINT_SUFFIXES = (".ckpt", ".gguf", ".safetensors")
DIFFERENCE_SUFFIX = ".delta.safetensors"  # what a built-in model adds to another: no model by itself
_NO_CHECKPOINTS = (".vae.ckpt", ".vae.safetensors", DIFFERENCE_SUFFIX)
_FOLDER_MARK = "model_index.json"
_BLOCK = 2**20
_TITLE = re.compile(r"(.+?) *\[([0-9a-f]{10,64})\]")

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint by all the names it can be asked for; `sha256` is None where hashing is off or not yet done.

    Folders in the layout of diffusers are checkpoints too: they have no hash, and no extension to leave out.
    """

    path: Path
    name: str
    sha256: str | None = None
    is_folder: bool = False

    @property
    def name_for_extra(self) -> str:
        """The file's own name without extension: the infotext's "Model"."""
        return Path(self.name).name if self.is_folder else Path(self.name).stem

    @property
    def model_name(self) -> str:
        flat = re.sub(r"[/\\]", "_", self.name)
        return flat if self.is_folder else os.path.splitext(flat)[0]  # noqa: PTH122 (a name, not a path)

    @property
    def shorthash(self) -> str | None:
        return self.sha256[:10] if self.sha256 else None

    @property
    def title(self) -> str:
        return f"{self.name} [{self.shorthash}]" if self.sha256 else self.name

    @property
    def short_title(self) -> str:
        return f"{self.name_for_extra} [{self.shorthash}]" if self.sha256 else self.name_for_extra

    def aliases(self) -> tuple[str, ...]:
        """Everything that selects this file exactly (FILE-6)."""
        old = None if self.is_folder else old_hash(self.path)
        named = (self.model_name, self.title, self.name, self.name_for_extra)
        aged = (old, f"{self.name} [{old}]") if old else ()
        hashed = (self.sha256[:10], self.sha256, self.title, self.short_title) if self.sha256 else ()
        return tuple(dict.fromkeys(each for each in (*named, *aged, *hashed)))


def checkpoint_file(path: Path, folders: Iterable[Path] = (), sha256: str | None = None) -> CheckpointFile:
    """The file under its name relative to the first folder that holds it, else its own name (FILE-2)."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (links are followed as named, not resolved)
    holders = (folder for folder in map(os.path.abspath, folders) if absolute.is_relative_to(folder))
    holder = next(holders, None)
    name = str(absolute.relative_to(holder)) if holder and str(absolute) != holder else absolute.name
    return CheckpointFile(absolute, name, sha256, absolute.is_dir())


def list_checkpoints(
    folders: Iterable[Path], single: Path | None = None, cache: Path | None = None
) -> tuple[CheckpointFile, ...]:
    """All checkpoints of the folders in natural order, a file named alone first; VAE files are left out (FILE-1).

    With a cache they carry the hashes that are remembered in it; none is computed here.
    """
    folders = tuple(folders)
    found = [single] if single is not None else []
    for folder in folders:
        found += _checkpoints_below(folder)
    kept = (path for path in found if not path.name.endswith(_NO_CHECKPOINTS))
    known = _read_cache(cache)
    return tuple(checkpoint_file(path, folders, _remembered(path, known)) for path in dict.fromkeys(kept))


def _checkpoints_below(folder: Path) -> list[Path]:
    """Files, and folders in the layout of diffusers: those are not looked into, nor are hidden ones."""
    if is_model_folder(folder):
        return [folder]
    found: list[tuple[str, list[Path]]] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        whole = [name for name in folders if is_model_folder(Path(root) / name)]
        folders[:] = [name for name in folders if name not in whole and not name.startswith(".")]
        found += [(str(path), [path]) for path in (Path(root) / name for name in whole)]
        kept = (name for name in names if name.endswith(CHECKPOINT_SUFFIXES) and is_text(name))
        files = sorted(kept, key=natural_key)
        found.append((root, [path for name in files if not is_endless(path := Path(root) / name)]))
    return [path for _, paths in sorted(found, key=lambda each: natural_key(each[0])) for path in paths]


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is one checkpoint in the layout of diffusers.

    NOTE: a folder "unet" alone says nothing: some keep all their U-Net files in one.
    """
    if (folder / _FOLDER_MARK).is_file():
        return True
    unet = folder / "unet"
    return (unet / "config.json").is_file() or any(unet.glob("diffusion_pytorch_model*"))


def find_exact(files: Iterable[CheckpointFile], text: str) -> CheckpointFile | None:
    """The file one of whose aliases this is; a later file wins an alias that two share, as in a table (FILE-6)."""
    return next((each for each in reversed(tuple(files)) if text in each.aliases()), None)


def find_hashed(files: Iterable[CheckpointFile], text: str, cache: Path | None) -> CheckpointFile | None:
    """For "name [hash]" from elsewhere: the files of that name that were never hashed are hashed now."""
    parts = _TITLE.fullmatch(text)
    if parts is None:
        return None
    name, digest = parts.groups()
    for each in files:
        is_named = name in (each.name, each.name_for_extra, each.model_name)
        if is_named and each.sha256 is None and not each.is_folder and each.path.is_file():
            hashed = sha256_of(each.path, cache)
            if hashed.startswith(digest):
                return replace(each, sha256=hashed)
    return None


def find_closest(files: Iterable[CheckpointFile], text: str) -> CheckpointFile | None:
    """An alias, or else the shortest title that contains the text, with or without its trailing "[...]" (FILE-7)."""
    files = tuple(files)
    if not text:
        return None
    exact = find_exact(files, text)
    if exact is not None:
        return exact
    for part in (text, re.sub(r"\s*\[.*?\]\s*$", "", text)):
        matches = sorted((each for each in files if part in each.title), key=lambda each: len(each.title))
        if matches:
            return matches[0]
    return None


def stamp_of(path: Path) -> Stamp:
    """By what a changed model is noticed: names, times and sizes of its files; nothing where there is none."""
    if not path.exists():
        return ()
    files = [path, path.with_suffix(".yaml")]
    if path.is_dir():
        files = sorted(Path(root) / name for root, _, names in os.walk(path, followlinks=True) for name in names)
    stamp: list[tuple[str, int, int]] = []
    for file in files:
        with contextlib.suppress(OSError):
            stat = file.stat()
            stamp.append((str(file), stat.st_mtime_ns, stat.st_size))
    return tuple(stamp)


def user_hash_cache() -> Path:
    """Where hashes are remembered between runs."""
    return platformdirs.user_cache_path("overpaint") / "hashes.json"


def sha256_of(path: Path, cache: Path | None = None) -> str:
    """SHA-256 of a file, remembered by path, time and size (FILE-3). A cache that cannot be written does no harm."""
    check_regular(path, CheckpointError)
    key = _cache_key(path)
    known = _read_cache(cache)
    if key in known:
        return known[key]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if _cache_key(path) == key:  # it did not change meanwhile
        # Read again: another process may have written since.
        _write_cache(cache, {**_read_cache(cache), key: digest.hexdigest()})
    return digest.hexdigest()


def _cache_key(path: Path) -> str:
    stat = path.stat()
    return f"{os.path.abspath(path)}|{stat.st_mtime_ns}|{stat.st_size}"  # noqa: PTH100


def _remembered(path: Path, known: Mapping[str, str]) -> str | None:
    """The hash of a file, if it was computed since the file last changed."""
    try:
        return known.get(_cache_key(path)) if known else None
    except OSError:
        return None


def old_hash(path: Path) -> str:
    """The short hash of 2022 ("AutoV1"): 64 KiB from the second MiB (FILE-4)."""
    if is_endless(path):
        return "NOFILE"
    try:
        with path.open("rb") as file:
            file.seek(0x100000)
            return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    except OSError:
        return "NOFILE"


def network_hash(path: Path) -> str:
    """The hash LoRA files go by: of a safetensors file without its header, else of the file; 12 digits (FILE-10)."""
    if path.suffix != ".safetensors":
        return sha256_of(path)[:12]
    header, start = safetensors_header(path)
    stored = (header.get("__metadata__") or {}).get("sshs_model_hash")
    if stored:
        return str(stored)[:12]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:12]


def _read_cache(cache: Path | None) -> Mapping[str, str]:
    """It is asked for many times a second by a server, so it is read again only when it has been written again."""
    try:
        stat = cache.stat() if cache is not None else None
    except OSError:
        return {}
    return _parsed(cache, stat.st_ino, stat.st_mtime_ns, stat.st_size) if cache is not None and stat is not None else {}


@lru_cache(maxsize=1)
def _parsed(cache: Path, *stamp: int) -> Mapping[str, str]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    hashes = {str(key): value for key, value in known.items() if isinstance(value, str) and len(value) == 64}
    return MappingProxyType(hashes)


def _write_cache(cache: Path | None, known: Mapping[str, str]) -> None:
    if cache is None:
        return
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
        temporary.write_text(json.dumps(known, indent=0), encoding="utf-8")
        temporary.replace(cache)
