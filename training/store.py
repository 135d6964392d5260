"""What lies in the state folder: shards of pictures with labels, and files that are replaced whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.scenes.art import EmojiArt
from training.scenes.scene import confetti, render

SHARD = 512  # pictures in a file
SCENES, CONFETTI, HELD_OUT, EDITS = 1, 2, 3, 4  # the first number of every picture's seed


@dataclass(frozen=True)
class Folder:
    """The state folder and its names."""

    root: Path

    @property
    def emoji(self) -> Path:
        return self.root / "art" / "emoji"

    def pictures(self, size: int, kind: int) -> Path:
        return self.root / f"pictures-{size}-{kind}"

    def latents(self, size: int) -> Path:
        return self.root / f"latents-{size}"

    def lessons(self, kind: str, size: int) -> Path:
        return self.root / f"{kind}-{size}"

    def trainee(self, stage: str) -> Path:
        return self.root / f"{stage}.pt"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the place of `path` once all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def save_tensors(path: Path, values: dict[str, Any]) -> None:
    with replacing(path) as unfinished:
        torch.save(values, unfinished)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    values: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return values


def save_array(path: Path, values: NDArray[Any]) -> None:
    with replacing(path) as unfinished, unfinished.open("wb") as stream:
        np.save(stream, values)


def render_shards(folder: Folder, size: int, kind: int, shards: int, workers: int) -> None:
    """Render the shards that are not there yet."""
    target = folder.pictures(size, kind)
    missing = [(folder, size, kind, i) for i in range(shards) if not (target / f"{i:05d}.npy").exists()]
    if len(missing) < 2 or workers < 2:
        _all(map(_render_shard, missing), len(missing))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        _all(pool.imap_unordered(_render_shard, missing), len(missing))


def _all(done: Iterator[str], count: int) -> None:
    for number, name in enumerate(done, 1):
        print(f"rendered {name} ({number} of {count})", flush=True)


def _render_shard(job: tuple[Folder, int, int, int]) -> str:
    folder, size, kind, index = job
    art = EmojiArt(folder.emoji)
    target = folder.pictures(size, kind)
    pixels = np.empty((SHARD, size, size, 3), dtype=np.uint8)
    records: list[str] = []
    for i in range(SHARD):
        seed = (kind, index * SHARD + i)
        if kind == CONFETTI:
            pixels[i] = confetti(seed, size, art)
        else:
            picture = render(seed, size, art)
            pixels[i] = picture.pixels
            records.append(picture.record())
    with replacing(target / f"{index:05d}.jsonl") as unfinished:
        unfinished.write_text("\n".join(records), encoding="utf-8")
    # NOTE: the pixels come last, because their file is the sign that the shard is whole
    save_array(target / f"{index:05d}.npy", pixels)
    return f"{target.name}/{index:05d}"


class Shelf:
    """Arrays in shards of equal length, read where they lie."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._shards = [np.load(folder / f"{i:05d}.npy", mmap_mode="r") for i in range(shards)]
        self.count = shards * SHARD

    def __getitem__(self, index: int) -> NDArray[Any]:
        row: NDArray[Any] = self._shards[index // SHARD][index % SHARD]
        return row


def read_records(folder: Path, shards: int) -> list[dict[str, Any]]:
    lines = (line for i in range(shards) for line in (folder / f"{i:05d}.jsonl").read_text("utf-8").splitlines())
    return [json.loads(line) for line in lines]
