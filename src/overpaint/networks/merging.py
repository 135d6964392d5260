"""Token merging: in self-attention, tokens that are alike share one place (Bolya and Hoffman, arXiv:2303.17604).

In every square of 2x2 cells the first is a target. Each other token looks for the target it is most like, and of all
these pairs the most similar merge: the target becomes the mean of all that came to it, attention works on fewer tokens,
and what it says of a target goes to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class MergedTokens:
    """Which tokens of a sequence (b, n, c) share which place of a shorter one: first those apart, then the targets."""

    targets: Tensor  # (t,) tokens
    apart: Tensor  # (b, k) tokens that keep a place of their own
    gone: Tensor  # (b, r) tokens that give theirs up
    share: Tensor  # (b, t, r) what a token that is gone adds to the mean of its target
    own: Tensor  # (b, t, 1) what the target itself does
    places: Tensor  # (b, n) where each token's answer stands

    def merged(self, x: Tensor) -> Tensor:
        """(b, n, c) -> (b, k + t, c)"""
        # NOTE: a product rather than a scatter: a GPU scatters in any order, and gives other bits each time.
        means = x[:, self.targets] * self.own.to(x.dtype) + self.share.to(x.dtype) @ _taken(x, self.gone)
        return torch.cat([_taken(x, self.apart), means], dim=1)

    def spread(self, y: Tensor) -> Tensor:
        """(b, k + t, c) -> (b, n, c)"""
        return _taken(y, self.places)


def alike(x: Tensor, height: int, width: int, share: float) -> MergedTokens | None:
    """The pairs among tokens (b, height * width, c), of which this share gives up its place; None if none does."""
    targets, others = _squares(height, width)
    count = min(len(others), int(height * width * share))
    if count == 0 or len(targets) == 0:
        return None
    targets, others = targets.to(x.device), others.to(x.device)
    directions = F.normalize(x, dim=-1)
    likeness, target = (directions[:, others] @ directions[:, targets].transpose(1, 2)).max(dim=-1)
    order = likeness.argsort(dim=-1, descending=True, stable=True)
    first, rest = order[:, :count], order[:, count:]
    gone, apart, into = others[first], others[rest], target.gather(1, first)
    came = F.one_hot(into, len(targets)).transpose(1, 2).float()  # (b, t, r)
    size = 1 + came.sum(dim=-1, keepdim=True)
    places = torch.empty(x.shape[:2], dtype=torch.long, device=x.device)
    kept = apart.shape[1]
    places[:, targets] = kept + torch.arange(len(targets), device=x.device)
    places.scatter_(1, apart, torch.arange(kept, device=x.device).expand(len(x), -1))
    places.scatter_(1, gone, kept + into)
    return MergedTokens(targets, apart, gone, came / size, 1 / size, places)


def _taken(x: Tensor, tokens: Tensor) -> Tensor:
    return x.gather(1, tokens[..., None].expand(-1, -1, x.shape[-1]))


@cache
def _squares(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The targets and the others; cells of an odd last row or column are in no square."""
    is_target = torch.zeros(height, width, dtype=torch.bool)
    is_target[: height // 2 * 2 : 2, : width // 2 * 2 : 2] = True
    return is_target.flatten().nonzero()[:, 0], (~is_target).flatten().nonzero()[:, 0]
