"""Attention. Torch's fused kernel multiplies through BLAS, which on some CPUs is far below what oneDNN reaches.

There oneDNN multiplies, a block of queries at a time. Measured against torch's kernel, on AMD with AVX-512: 1.5 times
as fast in float32, 2.3 times in bfloat16. On an Intel with AMX it is the other way round: torch's kernel is 1.1 to 1.7
times as fast in float32, and 1.6 to 2.6 times in bfloat16.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.networks.layers import can_pack, onednn_linear

_BLOCK_OF_QUERIES = 256  # a block of scores stays in the second-level cache
_FEWEST_KEYS = 256  # below this many keys, or this width, torch's own kernel is faster
_LEAST_WIDTH = 32


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with q (b, n, heads, d) and k, v (b, m, heads, d), as (b, n, heads * d)."""
    if _suits_blocks(q, k) and not causal:
        return _attend_in_blocks(q, k, v).flatten(2)
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def _suits_blocks(q: Tensor, k: Tensor) -> bool:
    large = k.shape[1] >= _FEWEST_KEYS and q.shape[-1] >= _LEAST_WIDTH
    known = q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16)
    return large and known and not torch.is_grad_enabled() and can_pack() and not _blas_is_fast()


@cache
def _blas_is_fast() -> bool:
    """Whether torch's BLAS uses all that this CPU has; what was measured had AMX."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A block of queries at a time, so that the table of all scores never exists; heads are shared out among threads.

    NOTE: with threads inside the products instead, hundreds of short products would wait for one another, and on a
    machine that others use too, every wait can cost a time slice: ten times slower was seen.
    """
    batch, queries, heads, width = q.shape
    out = q.new_empty(batch, queries, heads, v.shape[-1])
    threads = torch.get_num_threads()
    parts = -(-threads // (batch * heads))  # a single head, as the codec has, is cut into spans of queries
    span = -(-queries // (parts * _BLOCK_OF_QUERIES)) * _BLOCK_OF_QUERIES
    tasks = [(row, head, start) for row in range(batch) for head in range(heads) for start in range(0, queries, span)]

    @torch.no_grad()
    def run(task: tuple[int, int, int]) -> None:
        row, head, first = task
        keys, values = k[row, :, head].contiguous(), v[row, :, head].t().contiguous()
        for start in range(first, min(first + span, queries), _BLOCK_OF_QUERIES):
            block = slice(start, min(start + _BLOCK_OF_QUERIES, queries))
            scores = onednn_linear(q[row, block, head] * width**-0.5, keys, None)
            out[row, block, head] = onednn_linear(scores.softmax(-1), values, None)

    for _ in map(run, tasks) if threads == 1 else _crew(threads).map(run, tasks):
        pass
    return out


@cache
def _crew(size: int) -> ThreadPoolExecutor:
    """Threads whose own operations are not threaded.

    NOTE: torch.set_num_threads counts for the calling thread and for threads that start later, so it is called in each
    of the crew and then, once all have, set back here.
    """
    everyone = Barrier(size + 1)

    def start() -> None:
        torch.set_num_threads(1)
        everyone.wait()

    crew = ThreadPoolExecutor(size, thread_name_prefix="attention", initializer=start)
    for _ in range(size):
        crew.submit(int)
    everyone.wait()
    torch.set_num_threads(size)
    return crew
