"""The figures in MODEL-CARD.md: written from `evaluation.json` and the siblings' files beside it, never by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

Figures = dict[str, dict[str, float]]
CARD = Path(__file__).with_name("MODEL-CARD.md")
_START, _END = "<!-- figures: begin -->", "<!-- figures: end -->"
_FACETS = ("place", "time", "weather", "style", "paint", "thing")
_SWAPPED = "thing"


def write_card(folder: Path, card: Path = CARD) -> None:
    """Put the figures of a folder in place of those that the card holds."""
    text = card.read_text("utf-8")
    before, _, rest = text.partition(_START)
    _, found, after = rest.partition(_END)
    if not found:
        raise ValueError(f"{card}: it has no {_START} ... {_END}; put the two lines where the figures belong")
    card.write_text(f"{before}{_START}\n{section(folder)}\n{_END}{after}", encoding="utf-8")


def section(folder: Path) -> str:
    """The table of the model, and a line for the inpainting sibling if it was evaluated."""
    figures: Figures = json.loads((folder / "evaluation.json").read_text("utf-8"))
    sibling = folder / "evaluation-inpaint.json"
    rows = list(_rows(figures))
    if sibling.exists():
        rows += _inpainting_rows(json.loads(sibling.read_text("utf-8"))["inpainting"], "inpainting sibling")
    count = int(figures["prompts"]["count"])
    head = [f"| measured with {count} held-out prompts | now | wanted |", "| --- | --- | --- |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _rows(figures: Figures) -> Iterable[tuple[str, str, str]]:
    codec, guess = figures["codec, dB"], figures["error of the first guess"]
    styles = ", ".join(f"{name} {value:.1f}" for name, value in codec.items() if name not in ("mean", "median"))
    yield "codec, mean PSNR", f"{codec['mean']:.1f} dB ({styles})", "26 dB"
    errors = " / ".join(f"{guess[name]:.2f}" for name in ("right caption", "no caption", "wrong caption"))
    yield "first guess from pure noise: error with the right / no / a wrong caption", errors, "far apart"
    for title, wanted in (("txt2img", "85, thing 60"), ("img2img at 0.75", "85, thing 60")):
        yield f"{title}, judged right: {', '.join(_FACETS)}", _shares(figures[title]), f"{wanted} %"
    for title, told in (("judge on true pictures", "true pictures"), ("judge, through the codec", "through the codec")):
        yield f"the judge's ceiling, {told}: {', '.join(_FACETS)}", _shares(figures[title]), ""
    for title, wanted in (("likeness by strength", "falling"), ("layout by strength", "0.5 at 0.3")):
        yield f"{title} {', '.join(figures[title])}", _correlations(figures[title]), wanted
    fine = figures["fine edges by strength"]
    yield "edges pixel by pixel, codec alone and at 0.3", f"{fine['codec alone']:.2f}, {fine['0.3']:.2f}", "0.5"
    yield from _inpainting_rows(figures["inpainting"], "inpainting")


def _inpainting_rows(figures: dict[str, float], title: str) -> list[tuple[str, str, str]]:
    seam, codec = figures["beside the mask, dB"], figures["codec there, dB"]
    step, source = figures["step across the border"], figures["step there in the source"]
    return [
        (f"{title}: the thing asked for", f"{100 * figures[_SWAPPED]:.0f} %", "60 %"),
        (f"{title}: beside the mask, and the codec's own error there", f"{seam:.1f} dB, {codec:.1f} dB", "within 1 dB"),
        (f"{title}: step of lightness across the border, and in the source", f"{step:.1f}, {source:.1f}", "alike"),
    ]


def _shares(figures: dict[str, float]) -> str:
    return ", ".join(f"{100 * figures[facet]:.0f}" for facet in _FACETS) + " %"


def _correlations(figures: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f}" for value in figures.values())
