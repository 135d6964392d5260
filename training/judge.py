"""A small classifier trained on the generator's own labels: it says what a painted picture shows.

Its pictures pass through the codec and are blurred at random, so that it judges content rather than sharpness.
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
_SEED = 31
_STEPS = 1500
_BATCH = 64
_RATE = 2e-3


class Judge(nn.Module):
    """Five convolutions that halve, and an answer per facet."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 48, 64, 96, 128)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 4, len(values)) for name, values in FACETS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.trunk(_small(pictures))
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


def trained_judge(folder: Folder, size: int, shards: int, hardware: Hardware) -> Judge:
    """The judge of the state folder; trained if there is none."""
    judge, path = Judge().to(hardware.device), folder.trainee("judge")
    if not path.exists():
        torch.manual_seed(_SEED)
        judge = Judge().to(hardware.device)
        _train(judge, folder, size, shards, hardware)
        save_tensors(path, judge.state_dict())
    judge.load_state_dict(load_tensors(path, hardware.device))
    return judge.eval()


def _train(judge: Judge, folder: Folder, size: int, shards: int, hardware: Hardware) -> None:
    pictures = Shelf(folder.pictures(size, SCENES), shards)
    rows = [answers(read_labels(record)) for record in read_records(folder.pictures(size, SCENES), shards)]
    targets = {facet: torch.tensor([row[facet] for row in rows], device=hardware.device) for facet in FACETS}
    optimizer = torch.optim.AdamW(judge.parameters(), _RATE, weight_decay=1e-2)
    for step in range(_STEPS):
        rng = step_rng(_SEED, step)
        chosen = rng.integers(0, pictures.count, _BATCH)
        batch = _roughened(_small(to_tensor([pictures[int(i)] for i in chosen], hardware)), rng)
        loss = sum(
            (
                F.cross_entropy(found, targets[facet][chosen], ignore_index=NOT_ASKED)
                for facet, found in judge(batch).items()
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


def _roughened(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirrored, blurred to a coarser grid, a little noisy: as a weak model paints."""
    if rng.random() < 0.5:
        pictures = pictures.flip(-1)
    side = pictures.shape[-1]
    coarse = int(side / rng.choice([1, 1.5, 2, 3]))
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
