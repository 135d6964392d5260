"""The thing in a box, or under a few strokes: GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004).

Two mixtures of Gaussians say which colours the thing and its surroundings have, and a cut of the grid of pixels follows
them and the picture's edges; the mixtures are fitted to that cut, and so on in turn. The cut is found small first, and
once more, near its border, in a larger picture.

The cut's energy is sum(D u) + sum(w |u_p - u_q|). As a problem over 0 <= u <= 1 it has, by the coarea formula, the same
minima, and the primal-dual method of Chambolle and Pock (J. Math. Imaging Vision 2011) with the steps of Pock and
Chambolle (ICCV 2011) finds one by sums over whole arrays, where a maximum flow would walk from pixel to pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from overpaint.errors import RequestError
from overpaint.masks.shapes import Corners, Point, nothing, rectangle, stroke
from overpaint.pixels.mask import Box, widened
from overpaint.pixels.resize import as_mode

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)

SCRIBBLE = 6.0  # radius of a stroke that says inside or outside

_SMALL, _LARGE = 192, 768  # pixels of the longer side, for the first cut and the last
_ROUNDS = 5
_COMPONENTS = 5
_SMOOTHNESS = 50.0  # gamma of the paper
_STEPS = 200  # of the cut
_SURROUNDINGS = 0.3  # of the box, on each side: what the background is learnt from
_CERTAIN = 1e3
_NOISE = 1e-4  # added to variances of colours from 0 to 1
_NOTHING = Image.new("L", (1, 1))  # black of any size
_NEIGHBOURS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 2**-0.5), (1, -1, 2**-0.5))  # down, across, 1 / distance


@dataclass(frozen=True)
class _Known:
    """What was said, at some size: pixels that are certainly in, and certainly out."""

    inside: Flags
    outside: Flags


@dataclass(frozen=True)
class _Mixture:
    """Gaussians of colour."""

    weights: Floats  # (k,)
    means: Floats  # (k, 3)
    inverses: Floats  # (k, 3, 3)
    logs: Floats  # (k,), of sqrt(det)

    def costs(self, pixels: Floats) -> Floats:  # (n, 3) -> (k, n)
        """-log of each component's share of the density."""
        off = pixels[None] - self.means[:, None]
        distance = np.einsum("kni,kij,knj->kn", off, self.inverses, off, optimize=True)
        result: Floats = 0.5 * distance + (self.logs - np.log(self.weights))[:, None]
        return result

    def cost(self, pixels: Floats) -> Floats:
        """-log of the density."""
        result: Floats = -np.logaddexp.reduce(-self.costs(pixels), axis=0)
        return result


def cut_out(
    picture: Image.Image,
    box: Corners | None = None,
    *,
    inside: Sequence[Point] = (),
    outside: Sequence[Point] = (),
    radius: float = SCRIBBLE,
) -> Image.Image:
    """The thing in a box. Strokes of points say what is certainly part of it, or not; without a box they are needed."""
    if box is None and not inside:
        raise RequestError("cut-out", None, "give a box round the thing, or points inside it")
    size = picture.size
    allowed = rectangle(size, box) if box is not None else Image.new("L", size, 255)
    area = _looked_at(allowed, size)
    parts = [_part(each, area) for each in (as_mode(picture, "RGB"), allowed)]
    parts += [_part(stroke(size, each, radius), area) if each else _NOTHING for each in (inside, outside)]
    found = _cut(parts, has_box=box is not None)
    if found.size == size:
        return found
    result = nothing(size)
    result.paste(found, area[:2])
    return result


def _looked_at(allowed: Image.Image, size: tuple[int, int]) -> Box:
    """The box and as much round it as tells what the background is."""
    left, top, right, bottom = allowed.getbbox() or (0, 0, *size)
    margin = max(8, int(_SURROUNDINGS * max(right - left, bottom - top)))
    return widened((left, top, right, bottom), margin, margin, size)


def _part(picture: Image.Image, area: Box) -> Image.Image:
    return picture if area == (0, 0, *picture.size) else picture.crop(area)


def _cut(parts: Sequence[Image.Image], *, has_box: bool) -> Image.Image:
    """The mask of a part of the picture, of the size of that part."""
    full = parts[0].size
    pixels, known = _at_size(parts, _SMALL, has_box)
    start = known.inside | (~known.outside if has_box else False)
    if not known.outside.any() or not start.any():
        remedy = "leave room between the box and the picture's edge, or give points outside"
        raise RequestError("cut-out", None, remedy)
    weights = _edge_weights(pixels)
    colours, share = pixels.reshape(-1, 3), start.astype(np.float32)
    thing, ground = _fitted(colours, start.ravel()), _fitted(colours, known.outside.ravel())
    for _ in range(_ROUNDS):
        costs = (thing.cost(colours) - ground.cost(colours)).reshape(start.shape)
        share = _minimum_cut(_pinned(costs, known), weights, share)
        chosen = (share > 0.5).ravel()
        if chosen.all() or not chosen.any():
            break
        thing, ground = _refitted(thing, colours[chosen]), _refitted(ground, colours[~chosen])
    if max(full) > max(start.shape):
        share = _refined(parts, share, (thing, ground), has_box)
    mask = Image.fromarray(np.rint(255 * share).astype(np.uint8))
    larger = mask.resize(full, Image.Resampling.BICUBIC) if mask.size != full else mask
    return larger.point([255 * (value >= 128) for value in range(256)])


def _refined(parts: Sequence[Image.Image], share: Floats, mixtures: tuple[_Mixture, _Mixture], has_box: bool) -> Floats:
    """The cut in a larger picture; only near the border that was found before is it still open."""
    pixels, known = _at_size(parts, _LARGE, has_box)
    high, wide = pixels.shape[:2]
    shown = Image.fromarray(np.rint(255 * share).astype(np.uint8))
    before = np.asarray(shown.resize((wide, high), Image.Resampling.BILINEAR), np.float32) / np.float32(255)
    known = _Known(known.inside | ((before > 0.98) & ~known.outside), known.outside | (before < 0.02))
    box = Image.fromarray(((before > 0.02) & (before < 0.98)).astype(np.uint8)).getbbox()
    if box is None:
        return before
    left, top, right, bottom = widened(box, 2, 2, (wide, high))
    near = slice(top, bottom), slice(left, right)
    colours = pixels[near].reshape(-1, 3)
    costs = (mixtures[0].cost(colours) - mixtures[1].cost(colours)).reshape(pixels[near].shape[:2])
    pinned = _pinned(costs, _Known(known.inside[near], known.outside[near]))
    before[near] = _minimum_cut(pinned, _edge_weights(pixels[near]), before[near], _STEPS // 2)
    return before


def _at_size(parts: Sequence[Image.Image], longest: int, has_box: bool) -> tuple[Floats, _Known]:
    """Colours from 0 to 1, and what is known, no larger than this."""
    wide, high = parts[0].size
    scale = min(1.0, longest / max(wide, high))
    size = max(2, round(wide * scale)), max(2, round(high * scale))
    pixels = np.asarray(parts[0].resize(size, Image.Resampling.BOX), np.float32) / np.float32(255)
    allowed, yes, no = (np.asarray(each.resize(size, Image.Resampling.BOX)) for each in parts[1:])
    inside, outside = yes >= 64, (no >= 64) | (allowed < 128)
    if not has_box and not outside.any():  # without a word on it, the picture's edge is no part of the thing
        outside = ~inside
        outside[1:-1, 1:-1] = False
    return pixels, _Known(inside & ~outside, outside)


def _pinned(costs: Floats, known: _Known) -> Floats:
    limited = np.clip(costs, -_CERTAIN / 2, _CERTAIN / 2)
    result: Floats = np.where(known.inside, -_CERTAIN, np.where(known.outside, _CERTAIN, limited)).astype(np.float32)
    return result


def _fitted(colours: Floats, chosen: Flags) -> _Mixture:
    """A mixture from nothing: the cluster that is widest is split across its widest direction (Orchard and Bouman)."""
    pixels = colours[chosen]
    clusters = [pixels]
    while len(clusters) < min(_COMPONENTS, len(pixels)):
        spreads = [np.linalg.eigh(_covariance(each)) for each in clusters]
        widest = max(range(len(clusters)), key=lambda i: float(spreads[i].eigenvalues[-1]) * len(clusters[i]))
        cluster, axis = clusters.pop(widest), spreads[widest].eigenvectors[:, -1]
        along = (cluster - cluster.mean(axis=0)) @ axis
        halves = [cluster[along <= 0], cluster[along > 0]]
        if not all(map(len, halves)):  # all of one colour
            clusters.append(cluster)
            break
        clusters += halves
    return _mixture_of(clusters)


def _refitted(mixture: _Mixture, pixels: Floats) -> _Mixture:
    owner = mixture.costs(pixels).argmin(axis=0)
    return _mixture_of([each for i in range(len(mixture.means)) if len(each := pixels[owner == i])])


def _mixture_of(clusters: Sequence[Floats]) -> _Mixture:
    counts = np.array([len(each) for each in clusters], np.float32)
    covariances = np.stack([_covariance(each) for each in clusters])
    logs = 0.5 * np.linalg.slogdet(covariances).logabsdet
    means = np.stack([each.mean(axis=0) for each in clusters])
    return _Mixture(counts / counts.sum(), means, np.linalg.inv(covariances), logs)


def _covariance(pixels: Floats) -> Floats:
    off = pixels - pixels.mean(axis=0)
    result: Floats = (off.T @ off / len(pixels) + _NOISE * np.eye(3, dtype=np.float32)).astype(np.float32)
    return result


def _edge_weights(pixels: Floats) -> list[Floats]:
    """What it costs to part two neighbours, for each of the four directions: little across an edge."""
    apart = [((a - b) ** 2).sum(axis=-1) for a, b in (_pairs(pixels, down, across) for down, across, _ in _NEIGHBOURS)]
    mean = np.concatenate([each.ravel() for each in apart]).mean()
    beta = 1 / (2 * mean) if mean > 0 else 0.0
    return [
        (_SMOOTHNESS * nearness * np.exp(-beta * each)).astype(np.float32)
        for each, (*_, nearness) in zip(apart, _NEIGHBOURS, strict=True)
    ]


def _pairs(values: npt.NDArray[_T], down: int, across: int) -> tuple[npt.NDArray[_T], npt.NDArray[_T]]:
    """Each value and its neighbour in a direction, as views."""
    high, wide = values.shape[:2]
    left, right = (
        (slice(0, wide - across), slice(across, wide)) if across >= 0 else (slice(1, wide), slice(0, wide - 1))
    )
    return values[: high - down, left], values[down:, right]


def _minimum_cut(costs: Floats, weights: Sequence[Floats], start: Floats, steps: int = _STEPS) -> Floats:
    """The shares u that minimise sum(costs u) + sum(weights |differences of u|); nearly all are 0 or 1."""
    ratio = _SMOOTHNESS / 2
    u, ahead = start.copy(), start.copy()
    duals = [np.zeros_like(each) for each in weights]
    for _ in range(steps):
        gradient = costs.copy()
        for dual, weight, (down, across, _) in zip(duals, weights, _NEIGHBOURS, strict=True):
            here, there = _pairs(ahead, down, across)
            dual += (there - here) * np.float32(ratio / 2)
            np.clip(dual, -weight, weight, out=dual)
            at_here, at_there = _pairs(gradient, down, across)
            at_here -= dual
            at_there += dual
        moved = np.clip(u - gradient / np.float32(8 * ratio), 0, 1)
        ahead, u = 2 * moved - u, moved
    return u
