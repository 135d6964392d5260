"""Numbers of GGUF files made with torch, against the package of the format's authors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from overpaint.models.gguf_numbers import unpacked, unpacks

gguf: Any = pytest.importorskip("gguf", reason="the package gguf is not installed")
quants: Any = pytest.importorskip("gguf.quants")

_KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


@pytest.mark.parametrize("name", _KINDS)
def test_every_block_becomes_the_numbers_of_the_formats_own_package(name: str) -> None:
    """Random bytes: every bit of a block counts. Scales that are no numbers are left out."""
    kind = gguf.GGMLQuantizationType[name]
    count, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(3).integers(0, 256, (500, size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(blocks, kind)
    found = unpacked(torch.from_numpy(blocks), kind.value).numpy().reshape(500, count)
    usual = np.isfinite(expected).all(axis=1)
    assert usual.sum() > 300
    assert np.array_equal(found[usual], expected[usual])


def test_rarer_ways_are_left_to_the_package() -> None:
    assert not unpacks(gguf.GGMLQuantizationType.IQ4_XS.value)
    assert all(unpacks(gguf.GGMLQuantizationType[name].value) for name in _KINDS)
