"""A small classifier trained on the generator's own labels: it says what a painted picture shows.

Some of its pictures went through the codec and the others are blurred at random, so that it judges content rather than
sharpness. It looks at them at half size; what is lost there, a style's texture, is measured (`texture`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.hardware import Hardware
from training.latents import rebuild_shards
from training.scenes.labels import PLACES_AND_PLAIN, WEATHERS_AND_SNOW, Labels
from training.scenes.light import TIMES
from training.scenes.objects import COLOURS, THINGS
from training.scenes.scene import read_labels
from training.scenes.styles import STYLES
from training.store import SCENES, Folder, Shelf, load_tensors, read_records, save_tensors
from training.trainee import step_rng
from training.vae import to_tensor

FACETS: dict[str, tuple[str, ...]] = {
    "place": PLACES_AND_PLAIN,
    "time": TIMES,
    "weather": ("none", *WEATHERS_AND_SNOW),
    "style": tuple(STYLES),
    "thing": ("none", *THINGS),
    "paint": COLOURS,
}
NOT_ASKED = -1
_SIDE = 64
_SHIFT = 4
_SEED = 31
_STEPS = 3000
_BATCH = 64
_REBUILT = 4  # shards of pictures that went through the codec
_RATE = 2e-3
_GRID = 4  # a square of pixel art, in pixels of a 128-pixel picture
_STEEPNESS = (0.004, 0.012, 0.03, 0.08, 0.2)


class Judge(nn.Module):
    """Five convolutions that halve, measured texture, and an answer per facet."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 48, 64, 96, 128)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.measured = nn.Sequential(nn.BatchNorm1d(_TEXTURE), nn.Linear(_TEXTURE, 48), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 4 + 48, len(values)) for name, values in FACETS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        small = _small(pictures)
        small = _moved(small) if self.training else small
        features = torch.cat([self.trunk(small), self.measured(texture(pictures))], dim=1)
        return {name: head(features) for name, head in self.heads.items()}


def answers(labels: Labels) -> dict[str, int]:
    """The right class of each facet, or NOT_ASKED where the picture does not tell."""
    only = labels.items[0] if len(labels.items) == 1 else None
    said = {"place": labels.place, "time": labels.time, "weather": labels.weather or "none", "style": labels.style}
    found = {facet: FACETS[facet].index(value) for facet, value in said.items()}
    found["thing"] = FACETS["thing"].index(only.name) if only else NOT_ASKED if labels.items else 0
    colourful = labels.style not in ("pencil sketch", "black and white")
    found["paint"] = FACETS["paint"].index(only.paint) if only and only.paint and colourful else NOT_ASKED
    if not labels.outdoors:
        found["time"] = found["weather"] = NOT_ASKED
    return found


def texture(pictures: Tensor) -> Tensor:
    """How steep the lightness of pictures (n, 3, h, w) is, and at which columns and rows of a grid: (n, 18)"""
    light = pictures.float().mean(dim=1)
    side = light.shape[-1] * _GRID // 128
    found = []
    for axis in (1, 2):
        steep = light.diff(dim=axis, append=light.narrow(axis, -1, 1)).abs()
        along = steep.mean(dim=3 - axis)
        by_place = along.view(len(along), -1, side).mean(dim=1)
        found.append(by_place / (by_place.sum(dim=1, keepdim=True) + 1e-4))
        found += [(steep < limit).float().mean(dim=(1, 2))[:, None] for limit in _STEEPNESS]
    return torch.cat(found, dim=1)


_TEXTURE = 2 * (_GRID + len(_STEEPNESS))


def trained_judge(folder: Folder, size: int, shards: int, hardware: Hardware) -> Judge:
    """The judge of the state folder; trained if there is none."""
    judge, path = hardware.placed(Judge()), folder.trainee("judge-2")
    if not path.exists():
        torch.manual_seed(_SEED)
        judge = hardware.placed(Judge())
        _train(judge, folder, size, shards, hardware)
        save_tensors(path, judge.state_dict())
    judge.load_state_dict(load_tensors(path, hardware.device))
    return judge.eval()


def _train(judge: Judge, folder: Folder, size: int, shards: int, hardware: Hardware) -> None:
    pictures = Shelf(folder.pictures(size, SCENES), shards)
    rebuilt = Shelf(rebuild_shards(folder, size, _REBUILT, hardware), _REBUILT)
    rows = [answers(read_labels(record)) for record in read_records(folder.pictures(size, SCENES), shards)]
    targets = {facet: torch.tensor([row[facet] for row in rows], device=hardware.device) for facet in FACETS}
    optimizer = torch.optim.AdamW(judge.parameters(), _RATE, weight_decay=1e-2)
    for step in range(_STEPS):
        rng = step_rng(_SEED, step)
        shelves = ((pictures, 3 * _BATCH // 4), (rebuilt, _BATCH // 4))
        chosen = np.concatenate([rng.integers(0, each.count, count) for each, count in shelves])
        first, second = (
            to_tensor([each[int(i)] for i in part], hardware)
            for each, part in zip((pictures, rebuilt), np.split(chosen, [shelves[0][1]]), strict=True)
        )
        batch = torch.cat([_roughened(first, rng), second]).contiguous(memory_format=torch.channels_last)
        if rng.random() < 0.5:
            batch = batch.flip(-1)
        with hardware.fast():
            answered = judge(batch)
        loss = sum(
            (
                F.cross_entropy(found.float(), targets[facet][chosen], ignore_index=NOT_ASKED)
                for facet, found in answered.items()
            ),
            start=torch.zeros((), device=hardware.device),
        )
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 100 == 99:
            print(f"judge step {step + 1}  loss {float(loss.detach()):.3f}", flush=True)


def _small(pictures: Tensor) -> Tensor:
    return F.interpolate(pictures, size=(_SIDE, _SIDE), mode="area")


def _moved(pictures: Tensor) -> Tensor:
    """A little to a side, the edge repeated."""
    down, across = torch.randint(0, 2 * _SHIFT + 1, (2,)).tolist()
    side = pictures.shape[-1]
    wide = F.pad(pictures, (_SHIFT,) * 4, mode="replicate")
    return wide[:, :, down : down + side, across : across + side]


def _roughened(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Blurred to a coarser grid, a little noisy: as a weak model paints."""
    side = pictures.shape[-1]
    coarse = int(side / rng.choice([1, 1, 1.5, 2, 3]))
    pictures = F.interpolate(F.interpolate(pictures, size=(coarse, coarse), mode="area"), size=(side, side))
    noise = torch.from_numpy(rng.standard_normal((len(pictures), 3, 16, 16), dtype=np.float32)).to(pictures.device)
    return pictures + 0.08 * rng.random() * F.interpolate(noise, size=(side, side), mode="bilinear")


@torch.inference_mode()
def judged(judge: Judge, pictures: Sequence[NDArray[np.uint8]], hardware: Hardware) -> dict[str, NDArray[np.int64]]:
    """What the judge sees in each picture: the class of every facet."""
    found = judge(to_tensor(pictures, hardware))
    return {facet: scores.argmax(dim=-1).cpu().numpy() for facet, scores in found.items()}


def share_right(found: dict[str, NDArray[np.int64]], wanted: Sequence[Labels]) -> dict[str, float]:
    """Of each facet, the share of pictures that show what was wanted; NaN where nothing was asked."""
    rows = [answers(labels) for labels in wanted]
    shares: dict[str, float] = {}
    for facet, classes in found.items():
        targets = np.array([row[facet] for row in rows])
        asked = targets != NOT_ASKED
        shares[facet] = float((classes == targets)[asked].mean()) if asked.any() else float("nan")
    return shares
