"""Checkpoint files by name: which there are, their hashes, titles and aliases (FILE-1 to FILE-8)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from overpaint.models.header import safetensors_header

CHECKPOINT_SUFFIXES = (".ckpt", ".safetensors")
_VAE_SUFFIXES = (".vae.ckpt", ".vae.safetensors")
_BLOCK = 2**20


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint by all the names it can be asked for; `sha256` is None where hashing is off or not yet done."""

    path: Path
    name: str
    sha256: str | None = None

    @property
    def name_for_extra(self) -> str:
        """The file's own name without extension: the infotext's "Model"."""
        return Path(self.name).stem

    @property
    def model_name(self) -> str:
        return os.path.splitext(re.sub(r"[/\\]", "_", self.name))[0]  # noqa: PTH122 (a name, not a path)

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
        old = old_hash(self.path)
        named = (old, self.model_name, self.title, self.name, self.name_for_extra, f"{self.name} [{old}]")
        hashed = (self.shorthash, self.sha256, self.title, self.short_title) if self.sha256 else ()
        return tuple(dict.fromkeys(each for each in (*named, *hashed) if each))


def checkpoint_file(path: Path, folders: Iterable[Path] = (), sha256: str | None = None) -> CheckpointFile:
    """The file under its name relative to the first folder that holds it, else its own name (FILE-2)."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (links are followed as named, not resolved)
    holders = (folder for folder in map(os.path.abspath, folders) if absolute.is_relative_to(folder))
    holder = next(holders, None)
    name = str(absolute.relative_to(holder)) if holder else absolute.name
    return CheckpointFile(absolute, name, sha256)


def list_checkpoints(folders: Iterable[Path], single: Path | None = None) -> tuple[CheckpointFile, ...]:
    """All checkpoints of the folders in natural order, a file named alone first; VAE files are left out (FILE-1)."""
    folders = tuple(folders)
    found = [single] if single is not None else []
    for folder in folders:
        found += files_below(folder, CHECKPOINT_SUFFIXES)
    kept = (path for path in found if not path.name.endswith(_VAE_SUFFIXES))
    return tuple(checkpoint_file(path, folders) for path in dict.fromkeys(kept))


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files with these endings, links followed: folders in natural order, and files in natural order inside each."""
    for root, folders, names in sorted(os.walk(folder, followlinks=True), key=lambda entry: natural_key(entry[0])):
        folders.sort(key=natural_key)
        yield from (Path(root) / name for name in sorted(names, key=natural_key) if name.endswith(suffixes))


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts "model2" before "model10"."""
    parts = re.split(r"(\d+)", text.lower())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def find_exact(files: Iterable[CheckpointFile], text: str) -> CheckpointFile | None:
    """The file one of whose aliases this is; a later file wins an alias that two share, as in a table (FILE-6)."""
    return next((each for each in reversed(tuple(files)) if text in each.aliases()), None)


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


def user_hash_cache() -> Path:
    """Where hashes are remembered between runs."""
    return platformdirs.user_cache_path("overpaint") / "hashes.json"


def sha256_of(path: Path, cache: Path | None = None) -> str:
    """SHA-256 of a file, remembered by path, time and size (FILE-3). A cache that cannot be written does no harm."""
    stat = path.stat()
    key = f"{os.path.abspath(path)}|{stat.st_mtime_ns}|{stat.st_size}"  # noqa: PTH100
    known = _read_cache(cache)
    if key in known:
        return known[key]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    _write_cache(cache, {**known, key: digest.hexdigest()})
    return digest.hexdigest()


def old_hash(path: Path) -> str:
    """The short hash of 2022 ("AutoV1"): 64 KiB from the second MiB (FILE-4)."""
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


def _read_cache(cache: Path | None) -> dict[str, str]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8")) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {str(key): value for key, value in known.items() if isinstance(value, str) and len(value) == 64}


def _write_cache(cache: Path | None, known: dict[str, str]) -> None:
    if cache is None:
        return
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
        temporary.write_text(json.dumps(known, indent=0), encoding="utf-8")
        temporary.replace(cache)
