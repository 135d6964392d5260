"""What the model can do, in figures and in pictures to look at: `python -m training.evaluate --state DIR`.

Prints a table, writes `evaluation.json` and three sheets (`sheet-*.png`) beside the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training import specs
from training.export import NAME
from training.hardware import Hardware
from training.judge import Judge, judged, share_right, trained_judge
from training.sampling import Manner, Pixels, Sampler, enlarged, latent_masks
from training.scenes.art import EmojiArt
from training.scenes.brush import LUMA
from training.scenes.captions import statement
from training.scenes.labels import Item, Labels, draw_labels
from training.scenes.objects import THINGS
from training.scenes.scene import Picture, render
from training.sheets import write_sheets
from training.store import HELD_OUT, Folder

Figures = dict[str, dict[str, float]]
_STRENGTHS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
_BATCH = 25
_RING = 4  # pixels on the kept side of a mask in which a seam would show


class Bench(NamedTuple):
    """What every measurement needs."""

    sampler: Sampler
    judge: Judge
    art: EmojiArt
    size: int
    hardware: Hardware

    def picture(self, number: int, labels: Labels | None = None) -> Picture:
        """A picture that training never sees."""
        return render((HELD_OUT, number), self.size, self.art, labels)


def codec_figures(bench: Bench, count: int) -> Figures:
    """PSNR of pictures through the codec: their mean, and that of each style."""
    pictures = [bench.picture(number) for number in range(count)]
    pixels = np.stack([picture.pixels for picture in pictures])
    rebuilt = np.concatenate([_through(bench, part) for part in _parts(pixels)])
    decibels = [_psnr(found, wanted) for found, wanted in zip(rebuilt, pixels, strict=True)]
    figures = {"mean": float(np.mean(decibels)), "median": float(np.median(decibels))}
    for style in sorted({picture.labels.style for picture in pictures}):
        own = [value for value, picture in zip(decibels, pictures, strict=True) if picture.labels.style == style]
        figures[style] = float(np.mean(own))
    return {"codec, dB": figures}


def caption_figures(bench: Bench, count: int) -> Figures:
    """The error of the first guess from pure noise: what the right caption is worth."""
    pictures = [bench.picture(40_000 + number) for number in range(count)]
    pixels = np.stack([picture.pixels for picture in pictures])
    right = [statement(picture.labels) for picture in pictures]
    texts = {"right caption": right, "no caption": [""] * count, "wrong caption": [*right[1:], right[0]]}
    errors = {name: float(bench.sampler.first_guesses(pixels, prompts, 1).mean()) for name, prompts in texts.items()}
    return {"error of the first guess": errors}


def adherence_figures(bench: Bench, count: int, manner: Manner) -> Figures:
    """The share of facets judged right: in true pictures, from nothing, and over pictures of something else."""
    wanted = [draw_labels(np.random.default_rng((HELD_OUT, 1, number))) for number in range(count)]
    wanted = [replace(labels, blurry=False, items=labels.items[:1]) for labels in wanted]
    truth = [_through(bench, bench.picture(i, labels).pixels[None])[0] for i, labels in enumerate(wanted)]
    others = np.stack([bench.picture(10_000 + number).pixels for number in range(count)])
    prompts = [statement(labels) for labels in wanted]
    return {
        "judge on true pictures": _right(bench, truth, wanted),
        "txt2img": _right(bench, _painted(bench, prompts, manner), wanted),
        "img2img at 0.75": _right(bench, _painted(bench, prompts, replace(manner, strength=0.75), others), wanted),
    }


def faithfulness_figures(bench: Bench, count: int, manner: Manner) -> Figures:
    """How like the source a picture stays: correlation of lightness and of edges, by strength."""
    pictures = [bench.picture(20_000 + number) for number in range(count)]
    sources = np.stack([picture.pixels for picture in pictures])
    prompts = [statement(picture.labels) for picture in pictures]
    likeness: dict[str, float] = {}
    edges: dict[str, float] = {}
    for strength in _STRENGTHS:
        painted = _painted(bench, prompts, replace(manner, strength=strength), sources)
        pairs = [(_lightness(found), _lightness(source)) for found, source in zip(painted, sources, strict=True)]
        likeness[str(strength)] = float(np.mean([_alike(*pair) for pair in pairs]))
        edges[str(strength)] = float(np.mean([_alike(*map(_edges, pair)) for pair in pairs]))
    return {"likeness by strength": likeness, "edges by strength": edges}


def inpainting_figures(bench: Bench, count: int, manner: Manner) -> Figures:
    """Another thing painted over the one that is there, and the seam around it."""
    pictures, wanted = _swaps(bench, count)
    sources = np.stack([picture.pixels for picture in pictures])
    masks = latent_masks([picture.boxes[0] for picture in pictures], bench.size)
    painted = _painted(bench, [statement(labels) for labels in wanted], manner, sources, masks)
    rebuilt = np.concatenate([_through(bench, part) for part in _parts(sources)])
    inside = enlarged(masks, bench.size)
    ring = ((torch.nn.functional.max_pool2d(inside, 2 * _RING + 1, 1, _RING) - inside) > 0)[:, 0].numpy()
    right = _right(bench, painted, wanted)
    own, seam = (_psnr(found[ring], sources[ring]) for found in (rebuilt, painted))
    return {"inpainting": {"thing": right["thing"], "codec beside the mask, dB": own, "seam, dB": seam}}


def _swaps(bench: Bench, count: int) -> tuple[list[Picture], list[Labels]]:
    """Pictures of one thing, and the same labels with another."""
    pictures: list[Picture] = []
    wanted: list[Labels] = []
    number = 30_000
    while len(pictures) < count:
        picture, number = bench.picture(number), number + 1
        if len(picture.labels.items) == 1 and picture.labels.style == "photo":
            rng = np.random.default_rng((HELD_OUT, 2, number))
            old = picture.labels.items[0].name
            likely = [name for name, thing in THINGS.items() if thing.home == THINGS[old].home and name != old]
            new = likely[int(rng.integers(len(likely)))] if likely else "car"
            pictures.append(picture)
            wanted.append(replace(picture.labels, items=(Item(new),)))
    return pictures, wanted


def _painted(
    bench: Bench,
    prompts: Sequence[str],
    manner: Manner,
    sources: Pixels | None = None,
    masks: torch.Tensor | None = None,
) -> Pixels:
    parts = []
    for start in range(0, len(prompts), _BATCH):
        part = slice(start, start + _BATCH)
        own = replace(manner, seed=manner.seed + start, size=bench.size)
        given = None if sources is None else sources[part]
        parts.append(bench.sampler.paint(prompts[part], own, given, None if masks is None else masks[part]))
    return np.concatenate(parts)


def _parts(pixels: Pixels) -> list[Pixels]:
    return [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]


def _through(bench: Bench, pixels: Pixels) -> Pixels:
    return bench.sampler.decode(bench.sampler.encode(pixels))


def _right(bench: Bench, pictures: Sequence[NDArray[np.uint8]] | Pixels, wanted: Sequence[Labels]) -> dict[str, float]:
    return share_right(judged(bench.judge, list(pictures), bench.hardware), wanted)


def _psnr(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-9))


def _lightness(picture: NDArray[np.uint8]) -> NDArray[np.floating]:
    return np.asarray(picture @ LUMA)


def _edges(lightness: NDArray[np.floating]) -> NDArray[np.floating]:
    down, across = np.gradient(lightness)
    return np.asarray(np.hypot(down, across))


def _alike(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Correlation; two flat pictures are alike."""
    if min(first.std(), second.std()) < 1e-3:
        return 1.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def evaluate(folder: Folder, checkpoint: Path, size: int, shards: int, count: int, hardware: Hardware) -> Figures:
    """All figures."""
    judge = trained_judge(folder, size, shards, hardware)
    bench = Bench(Sampler(checkpoint, str(hardware.device)), judge, EmojiArt(folder.emoji), size, hardware)
    manner = Manner()
    figures = codec_figures(bench, max(8, count // 2))
    figures |= caption_figures(bench, max(8, count // 2))
    figures |= adherence_figures(bench, count, manner)
    figures |= faithfulness_figures(bench, max(4, count // 8), manner)
    figures |= inpainting_figures(bench, max(4, count // 2), manner)
    write_sheets(bench.sampler, checkpoint, bench.art, checkpoint.parent, replace(manner, size=size))
    return figures


def table(figures: Figures) -> str:
    """A line per figure."""
    lines = []
    for title, values in figures.items():
        lines.append(title)
        lines += [f"    {name:<28}{value:8.3f}" for name, value in values.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.evaluate", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help=f"{NAME} in the state folder unless given")
    parser.add_argument("--size", type=int, default=specs.NATIVE_SIZE)
    parser.add_argument("--shards", type=int, default=12, help="what the judge is trained on")
    parser.add_argument("--count", type=int, default=200, help="held-out prompts")
    parser.add_argument("--device", default="auto")
    said = parser.parse_args()
    checkpoint = said.checkpoint or said.state / NAME
    hardware = Hardware.named(said.device)
    figures = evaluate(Folder(said.state), checkpoint, said.size, said.shards, said.count, hardware)
    (checkpoint.parent / "evaluation.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
