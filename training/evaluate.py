"""What the model can do, in figures and in pictures to look at: `python -m training.evaluate --state DIR`.

Everything is painted by the product's own engine, at the defaults of its requests: only prompt, size, seed, strength
and mask are given. Prints a table, writes `evaluation.json` and three sheets (`sheet-*.png`) beside the checkpoint;
`--card` also puts the figures into MODEL-CARD.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training import specs
from training.card import write_card
from training.export import NAME
from training.hardware import Hardware
from training.judge import Judge, judged, share_right, trained_judge
from training.masks import Box, Mask, around
from training.measures import alike, edges, in_cells, lightness, mean_of, psnr, ring, step_across
from training.painting import Painter, Pixels
from training.scenes.art import EmojiArt
from training.scenes.captions import statement
from training.scenes.labels import Item, Labels, draw_labels
from training.scenes.objects import THINGS
from training.scenes.scene import Picture, render
from training.sheets import write_sheets
from training.store import HELD_OUT, Folder

Figures = dict[str, dict[str, float]]
STRENGTHS = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
_MARGIN = 0.05  # of the side: how much larger than the thing the mask over it is drawn


class Bench(NamedTuple):
    """What every measurement needs."""

    painter: Painter
    judge: Judge
    art: EmojiArt
    size: int
    hardware: Hardware
    said: dict[str, Any]  # fields of every request; empty for the product's defaults

    def picture(self, number: int, labels: Labels | None = None) -> Picture:
        """A picture that training never sees."""
        return render((HELD_OUT, number), self.size, self.art, labels)

    def right(self, pictures: Sequence[NDArray[np.uint8]] | Pixels, wanted: Sequence[Labels]) -> dict[str, float]:
        return share_right(judged(self.judge, list(pictures), self.hardware), wanted)


def codec_figures(bench: Bench, count: int) -> Figures:
    """PSNR of pictures through the codec: their mean, and that of each style."""
    pictures = [bench.picture(number) for number in range(count)]
    pixels = np.stack([picture.pixels for picture in pictures])
    decibels = list(map(psnr, bench.painter.through_codec(pixels), pixels))
    figures = {"mean": mean_of(decibels), "median": float(np.median(decibels))}
    for style in sorted({picture.labels.style for picture in pictures}):
        figures[style] = mean_of(
            [it for it, each in zip(decibels, pictures, strict=True) if each.labels.style == style]
        )
    return {"codec, dB": figures}


def caption_figures(bench: Bench, count: int) -> Figures:
    """The error of the first guess from pure noise: what the right caption is worth."""
    pictures = [bench.picture(40_000 + number) for number in range(count)]
    pixels = np.stack([picture.pixels for picture in pictures])
    right = [statement(picture.labels) for picture in pictures]
    texts = {"right caption": right, "no caption": [""] * count, "wrong caption": [*right[1:], right[0]]}
    errors = {name: bench.painter.first_guesses(pixels, prompts, 1) for name, prompts in texts.items()}
    return {"error of the first guess": errors}


def adherence_figures(bench: Bench, count: int) -> Figures:
    """The share of facets judged right: in true pictures, from nothing, and over pictures of something else."""
    wanted = [draw_labels(np.random.default_rng((HELD_OUT, 1, number))) for number in range(count)]
    wanted = [replace(labels, blurry=False, items=labels.items[:1]) for labels in wanted]
    truth = np.stack([bench.picture(number, labels).pixels for number, labels in enumerate(wanted)])
    others = np.stack([bench.picture(10_000 + number).pixels for number in range(count)])
    prompts = [statement(labels) for labels in wanted]
    painter, said = bench.painter, bench.said
    return {
        "judge on true pictures": bench.right(truth, wanted),
        "judge, through the codec": bench.right(painter.through_codec(truth), wanted),
        "txt2img": bench.right(painter.from_nothing(prompts, bench.size, **said), wanted),
        "img2img at 0.75": bench.right(painter.over(others, prompts, strength=0.75, **said), wanted),
    }


def faithfulness_figures(bench: Bench, count: int) -> Figures:
    """How like the source a picture stays: lightness, edges of cells (the layout), and edges pixel by pixel."""
    pictures = [bench.picture(20_000 + number) for number in range(count)]
    sources = np.stack([picture.pixels for picture in pictures])
    prompts = [statement(picture.labels) for picture in pictures]
    figures: Figures = {"likeness by strength": {}, "layout by strength": {}, "fine edges by strength": {}}
    versions = {"codec alone": bench.painter.through_codec(sources)}
    for strength in STRENGTHS:
        versions[str(strength)] = bench.painter.over(sources, prompts, strength=strength, **bench.said)
    for name, painted in versions.items():
        pairs = [(lightness(found), lightness(source)) for found, source in zip(painted, sources, strict=True)]
        layouts = [[edges(in_cells(light)) for light in pair] for pair in pairs]
        figures["likeness by strength"][name] = mean_of([alike(*pair) for pair in pairs])
        figures["layout by strength"][name] = mean_of([alike(*pair) for pair in layouts])
        figures["fine edges by strength"][name] = mean_of([alike(*map(edges, pair)) for pair in pairs])
    return figures


def inpainting_figures(bench: Bench, count: int) -> Figures:
    """Another thing painted over the one that is there, in a drawn box, and the seam around it."""
    pictures, wanted = _swaps(bench, count)
    sources = np.stack([picture.pixels for picture in pictures])
    boxes = [_grown(picture.boxes[0]) for picture in pictures]
    masks = [around(box, bench.size) for box in boxes]
    prompts = [statement(labels) for labels in wanted]
    drawn = np.stack([mask.astype(np.uint8) * 255 for mask in masks])
    painted = bench.painter.inside(drawn, sources, prompts, strength=1.0, **bench.said)
    figures = {"thing": bench.right(painted, wanted)["thing"]}
    return {"inpainting": figures | seam_figures(painted, sources, bench.painter.through_codec(sources), masks, boxes)}


def seam_figures(
    painted: Pixels, sources: Pixels, rebuilt: Pixels, masks: Sequence[Mask], boxes: Sequence[Box]
) -> dict[str, float]:
    """The error just outside the masks against the codec's own, and the step of lightness across the border."""
    rings = np.stack([ring(mask) for mask in masks])
    steps = {
        name: mean_of([step_across(lightness(each), box) for each, box in zip(series, boxes, strict=True)])
        for name, series in {"painted": painted, "source": sources}.items()
    }
    return {
        "beside the mask, dB": psnr(painted[rings], sources[rings]),
        "codec there, dB": psnr(rebuilt[rings], sources[rings]),
        "step across the border": steps["painted"],
        "step there in the source": steps["source"],
    }


def _grown(box: Box) -> Box:
    left, top, right, bottom = box
    return max(0.0, left - _MARGIN), max(0.0, top - _MARGIN), min(1.0, right + _MARGIN), min(1.0, bottom + _MARGIN)


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


def evaluate(bench: Bench, count: int) -> Figures:
    """All figures of a model: of an inpainting sibling only what it is for."""
    if bench.painter.spec.conditioning == "inpaint":
        return inpainting_figures(bench, max(2, count // 2))
    figures = codec_figures(bench, max(8, count // 2))
    figures |= caption_figures(bench, max(8, count // 2))
    figures |= adherence_figures(bench, count)
    figures |= faithfulness_figures(bench, max(2, count // 4))
    return figures | inpainting_figures(bench, max(2, count // 2))


def table(figures: Figures) -> str:
    """A line per figure."""
    lines = []
    for title, values in figures.items():
        lines.append(title)
        lines += [f"    {name:<28}{value:8.3f}" for name, value in values.items()]
    return "\n".join(lines)


def main() -> None:
    said = _parser().parse_args()
    checkpoint = said.checkpoint or said.state / NAME
    hardware, folder = Hardware.named(said.device), Folder(said.state)
    judge = trained_judge(folder, said.size, said.shards, hardware)
    painter = Painter(checkpoint, str(hardware.device))
    fields = {name: _number_or_text(value) for name, _, value in (each.partition("=") for each in said.set)}
    bench = Bench(painter, judge, EmojiArt(folder.emoji), said.size, hardware, fields)
    figures = evaluate(bench, said.count)
    print(table(figures))
    name = "evaluation" if painter.spec.conditioning == "text" else f"evaluation-{painter.spec.conditioning}"
    results = checkpoint.parent / f"{name}.json"
    results.write_text(json.dumps({"prompts": {"count": said.count}} | figures, indent=1), encoding="utf-8")
    if painter.spec.conditioning == "text":
        write_sheets(painter, bench.art, checkpoint.parent, said.size)
    if said.card:
        write_card(checkpoint.parent)


def _number_or_text(value: str) -> float | int | str:
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help=f"{NAME} in the state folder unless given")
    parser.add_argument("--size", type=int, default=specs.NATIVE_SIZE)
    parser.add_argument("--shards", type=int, default=12, help="what the judge is trained on")
    parser.add_argument("--count", type=int, default=200, help="held-out prompts")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="another value than default")
    parser.add_argument("--card", action="store_true", help="put the figures into MODEL-CARD.md")
    parser.add_argument("--device", default="auto")
    return parser


if __name__ == "__main__":
    main()
