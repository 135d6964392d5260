"""The noise of a picture: one random stream each, so that it depends on its own seed and on nothing else (NZ)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from overpaint.models.families import LatentSpec
from overpaint.painting.philox import draw, stream
from overpaint.settings import Quirks, RandomSource


class ImageNoise:
    """The stream of one picture: `first()` is the initial noise, `next()` every later draw of a sampler.

    `shape` is the latent's, (channels, height, width). A variation mixes in the noise of `subseed`; `seed_resize`, the
    (width, height) in pixels at which a seed was found, keeps that seed's composition at another size. `ensd` is added
    to the seed for the later draws.
    """

    def __init__(
        self,
        seed: int,
        shape: tuple[int, int, int],
        *,
        source: RandomSource = "CPU",
        subseed: int = 0,
        subseed_strength: float = 0.0,
        seed_resize: tuple[int, int] | None = None,
        factor: int = LatentSpec.factor,
        ensd: int = 0,
        device: torch.device | str = "cpu",
        quirks: Quirks | None = None,
    ) -> None:
        self._seed, self._shape, self._source, self._device = seed, shape, source, device
        self._subseed, self._strength, self._ensd = subseed, subseed_strength, ensd
        self._seed_resize, self._factor = seed_resize, factor
        self._quirks = quirks or Quirks()
        self._stream = stream(seed, source, device)

    def first(self) -> Tensor:
        """The initial noise (NZ-2)."""
        drawn = self._stream.draw(self._shape)
        found = self._found_shape()
        resized = found != self._shape
        noise = draw(self._seed, found, self._source, self._device) if resized else drawn
        if self._strength != 0:
            other = draw(self._subseed, found, self._source, self._device)
            noise = slerp(self._strength, noise, other, over_rows=self._quirks.slerp_over_rows)
        if self._ensd != 0:
            self._stream = stream(self._seed + self._ensd, self._source, self._device)
        return _centred(drawn, noise) if resized else noise

    def next(self) -> Tensor:
        """The next draw of the stream (NZ-6)."""
        return self._stream.draw(self._shape)

    def _found_shape(self) -> tuple[int, int, int]:
        if self._seed_resize is None or min(self._seed_resize) <= 0:
            return self._shape
        width, height = self._seed_resize
        return self._shape[0], height // self._factor, width // self._factor


class BatchNoise:
    """The streams of a batch's pictures, drawn together: (batch, channels, height, width)."""

    def __init__(self, images: Sequence[ImageNoise]) -> None:
        self._images = tuple(images)

    def first(self) -> Tensor:
        """The initial noise of every picture."""
        return torch.stack([each.first() for each in self._images])

    def next(self) -> Tensor:
        """The next draw of every picture."""
        return torch.stack([each.next() for each in self._images])


def slerp(strength: float, a: Tensor, b: Tensor, *, over_rows: bool = False) -> Tensor:
    """From `a` to `b` along the arc between them, so that the mixture keeps the norm of noise (Shoemake 1985).

    The reference (`over_rows`, NZ-3) takes the angle along the height axis and swaps the weights of parallel noises.
    """
    dims = [1] if over_rows else list(range(a.ndim))
    norms = torch.linalg.vector_norm(a, dim=dims, keepdim=True) * torch.linalg.vector_norm(b, dim=dims, keepdim=True)
    cosine = (a * b).sum(dim=dims, keepdim=True) / norms
    if cosine.mean() > 0.9995:
        weight = 1 - strength if over_rows else strength
        return a * (1 - weight) + b * weight
    angle = torch.acos(cosine if over_rows else cosine.clamp(-1, 1))
    weights = torch.sin((1 - strength) * angle), torch.sin(strength * angle)
    return (weights[0] * a + weights[1] * b) / torch.sin(angle)


def _centred(around: Tensor, patch: Tensor) -> Tensor:
    """`around` with the middle of `patch` in its middle, as much as fits (NZ-4)."""
    result = around.clone()
    rows, columns = (_overlap(patch.shape[axis], around.shape[axis]) for axis in (-2, -1))
    result[:, rows[1], columns[1]] = patch[:, rows[0], columns[0]]
    return result


def _overlap(inner: int, outer: int) -> tuple[slice, slice]:
    """Where a centred stretch of `inner` cells is read from, and where in `outer` cells it lands."""
    offset = (outer - inner) // 2
    length = inner if offset >= 0 else inner + 2 * offset
    source, target = max(-offset, 0), max(offset, 0)
    return slice(source, source + length), slice(target, target + length)
