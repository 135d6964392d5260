"""Token merging, against the paper's words followed token by token (arXiv:2303.17604)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.networks.merging import alike


def tokens(height: int, width: int, batch: int = 2, channels: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(batch, height * width, channels, generator=torch.Generator().manual_seed(seed))


def by_hand(x: Tensor, height: int, width: int, share: float) -> list[set[frozenset[int]]]:
    """For each row the sets of tokens that stand at one place."""
    targets = [r * width + c for r in range(0, height - 1, 2) for c in range(0, width - 1, 2)]
    rows = []
    for row in x:
        pairs = []
        for token in set(range(height * width)) - set(targets):
            near = [(float(F.cosine_similarity(row[token], row[each], dim=0)), each) for each in targets]
            pairs.append((*max(near), token))
        groups = {target: {target} for target in targets}
        gone = sorted(pairs, reverse=True)[: int(height * width * share)]
        for _, target, token in gone:
            groups[target].add(token)
        alone = [{token} for _, _, token in pairs if token not in {each[2] for each in gone}]
        rows.append({frozenset(each) for each in (*groups.values(), *alone)})
    return rows


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 4), (4, 7), (6, 3)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_most_similar_share_a_place(height: int, width: int, share: float) -> None:
    x = tokens(height, width)
    merged = alike(x, height, width, share)
    assert merged is not None
    numbers = torch.arange(height * width)
    for row, expected in enumerate(by_hand(x, height, width, share)):
        places = merged.places[row]
        assert {frozenset(numbers[places == each].tolist()) for each in set(places.tolist())} == expected
    short, back = merged.merged(x), merged.spread(merged.merged(x))
    assert short.shape[1] == int(merged.places.max()) + 1 < height * width
    for row, groups in enumerate(by_hand(x, height, width, share)):
        for group in groups:
            for token in group:
                assert torch.allclose(back[row, token], x[row, list(group)].mean(0), atol=1e-6)


def test_nothing_to_merge() -> None:
    assert alike(tokens(4, 4), 4, 4, 0.01) is None
    assert alike(tokens(1, 6), 1, 6, 0.5) is None


def test_rows_do_not_know_of_each_other() -> None:
    x = tokens(6, 4, batch=3)
    together = alike(x, 6, 4, 0.4)
    assert together is not None
    for row in range(3):
        alone = alike(x[row : row + 1], 6, 4, 0.4)
        assert alone is not None
        assert torch.equal(alone.places[0], together.places[row])


@pytest.mark.skipif(find_spec("tomesd") is None, reason="the package tomesd is not installed")
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_authors_code_merges_the_same_tokens(share: float) -> None:
    theirs: Any = import_module("tomesd.merge")
    x = tokens(8, 6, channels=16)
    merge, unmerge = theirs.bipartite_soft_matching_random2d(x, 6, 8, 2, 2, int(48 * share), no_rand=True)
    ours = alike(x, 8, 6, share)
    assert ours is not None
    assert torch.allclose(ours.spread(ours.merged(x)), unmerge(merge(x)), atol=1e-6)
