"""What the siblings learn from, made once: latents of a picture, and beside them what the network is shown of it.

Every row is exactly what the product's image conditioning holds (`overpaint.painting.latents`): for inpainting the mask
and the scaled latents of the picture with mid grey in the mask; for editing the unscaled latents of the picture before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from overpaint.networks.autoencoder import AutoencoderKL
from training import specs
from training.hardware import Hardware
from training.masks import draw_mask
from training.pairs import draw_pair
from training.scenes.art import Art, EmojiArt
from training.store import EDITS, SCENES, SHARD, Folder, Shelf, read_records, render_shards, replacing, save_array
from training.vae import to_tensor
from training.words import tokens

LATENTS = specs.VAE.latent_channels
_VERSIONS = 2  # masks for each picture
_BATCH = 32
_SEED = 43


@dataclass(frozen=True)
class Source:
    """Where lessons come from."""

    folder: Folder
    size: int
    codec: AutoencoderKL
    hardware: Hardware

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        """Modes of the posteriors of pictures (n, 3, h, w) in -1..1."""
        parts = []
        for start in range(0, len(pictures), _BATCH):
            part = pictures[start : start + _BATCH]
            with self.hardware.fast():
                parts.append(self.codec.encode(part.contiguous(memory_format=torch.channels_last))[0].float())
        return torch.cat(parts)


Rows = tuple[Tensor, list[Sequence[str]]]  # (n, 4 + k, h/8, w/8), and the texts of each


def hidden_parts(source: Source, index: int) -> Rows:
    """A shard of pictures with parts hidden, two ways each."""
    pictures = Shelf(source.folder.pictures(source.size, SCENES), _scene_shards(index + 1))
    records = read_records(source.folder.pictures(source.size, SCENES), _scene_shards(index + 1))
    numbers = [index * SHARD // _VERSIONS + i for i in range(SHARD // _VERSIONS)]
    pixels = to_tensor([pictures[i] for i in numbers], source.hardware)
    targets = source.encode(pixels) * specs.MODEL.latent.scale
    parts, texts = [], []
    for version in range(_VERSIONS):
        drawn = [
            draw_mask(np.random.default_rng((_SEED, i, version)), source.size, records[i]["boxes"]) for i in numbers
        ]
        masks = torch.from_numpy(np.stack(drawn)).to(pixels)[:, None]
        shown = source.encode(pixels * (1 - masks)) * specs.MODEL.latent.scale
        small = F.interpolate(masks, size=shown.shape[2:], mode="nearest")
        parts.append(torch.cat([targets, small, shown], dim=1))
        texts += [records[i]["captions"] for i in numbers]
    return torch.cat(parts), texts


def changes(source: Source, index: int) -> Rows:
    """A shard of pictures after a change, with the pictures before it."""
    art: Art = EmojiArt(source.folder.emoji)
    pairs = [draw_pair((EDITS, index * SHARD + i), source.size, art) for i in range(SHARD)]
    after, before = (
        source.encode(to_tensor([getattr(pair, which) for pair in pairs], source.hardware))
        for which in ("after", "before")
    )
    return torch.cat([after * specs.MODEL.latent.scale, before], dim=1), [pair.wordings for pair in pairs]


def _scene_shards(shards: int) -> int:
    return -(-shards // _VERSIONS)


def whole_pictures(source: Source, index: int) -> Rows:
    """A shard of pictures, and nothing beside them."""
    folder = source.folder.pictures(source.size, SCENES)
    pictures, records = Shelf(folder, index + 1), read_records(folder, index + 1)
    numbers = range(index * SHARD, (index + 1) * SHARD)
    latents = source.encode(to_tensor([pictures[i] for i in numbers], source.hardware))
    return latents * specs.MODEL.latent.scale, [records[i]["captions"] for i in numbers]


MAKERS: dict[str, Callable[[Source, int], Rows]] = {
    "inpainting": hidden_parts,
    "edit": changes,
    "flow": whole_pictures,
}


@dataclass(frozen=True)
class Lessons:
    """Rows on a shelf, and their texts as token ids (rows, wordings, 77)."""

    rows: Shelf
    ids: NDArray[np.int64]

    def batch(self, rng: np.random.Generator, count: int, hardware: Hardware) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, what is shown beside them, and token ids."""
        chosen = rng.integers(0, self.rows.count, count)
        ids = self.ids[chosen, rng.integers(0, self.ids.shape[1], count)]
        rows = np.stack([self.rows[int(i)] for i in chosen]).astype(np.float32)
        values = torch.from_numpy(rows).to(hardware.device)
        return values[:, :LATENTS], values[:, LATENTS:], torch.from_numpy(ids).to(hardware.device)


def prepare(kind: str, source: Source, shards: int, workers: int) -> Lessons:
    """The lessons of a kind; shards that are there already are kept."""
    target = source.folder.lessons(kind, source.size)
    missing = [i for i in range(shards) if not (target / f"{i:05d}.npy").exists()]
    if missing and kind != "edit":
        scenes = _scene_shards(shards) if kind == "inpainting" else shards
        render_shards(source.folder, source.size, SCENES, scenes, workers)
    for index in missing:
        rows, texts = MAKERS[kind](source, index)
        _write(target, index, rows, texts)
        print(f"prepared {target.name}/{index:05d}", flush=True)
    lines = [json.loads(line) for i in range(shards) for line in (target / f"{i:05d}.jsonl").read_text().splitlines()]
    ids = tokens(text for texts in lines for text in texts)
    return Lessons(Shelf(target, shards), ids.reshape(len(lines), -1, ids.shape[-1]))


def _write(target: Path, index: int, rows: Tensor, texts: list[Sequence[str]]) -> None:
    with replacing(target / f"{index:05d}.jsonl") as unfinished:
        unfinished.write_text("\n".join(json.dumps(each) for each in texts), encoding="utf-8")
    # NOTE: the array comes last, because its file is the sign that the shard is whole
    save_array(target / f"{index:05d}.npy", rows.half().cpu().numpy())
