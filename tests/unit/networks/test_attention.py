"""Attention: its formula, whatever the size and the number of threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from overpaint.networks.attention import attend

SIZES = [(300, 300, 40), (513, 256, 64), (16, 77, 40), (64, 64, 4)]


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    result: Tensor = (weights @ v).transpose(1, 2).flatten(2)
    return result


@pytest.mark.parametrize(("queries", "keys", "width"), SIZES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_attention_equals_its_formula(queries: int, keys: int, width: int, threads: int) -> None:  # ARCH-4, ARCH-11
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 3, width) for n in (queries, keys, keys))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for each in (slice(None), slice(1)):  # many heads, and one head shared out
                some = q[each, :, each], k[each, :, each], v[each, :, each]
                torch.testing.assert_close(attend(*some), plain_attention(*some), atol=2e-6, rtol=1e-4)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_attention_of_one_row_does_not_depend_on_the_others() -> None:
    q, k, v = (torch.randn(3, 256, 2, 32) for _ in range(3))
    with torch.no_grad():
        assert torch.equal(attend(q, k, v)[1:2], attend(q[1:2], k[1:2], v[1:2]))


def test_causal_attention_does_not_look_ahead() -> None:  # ENCODE-10
    q, k, v = (torch.randn(1, 9, 2, 8) for _ in range(3))
    changed = v.clone()
    changed[:, -1] += 1
    before, after = attend(q, k, v, causal=True), attend(q, k, changed, causal=True)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])
