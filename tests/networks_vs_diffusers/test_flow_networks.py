"""The networks of flow families against those of diffusers and transformers, with narrow random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from overpaint.models.specs import TextSpec, ZImageSpec
from overpaint.networks.decoder_text import QwenText
from overpaint.networks.zimage import ZImage
from tests.networks_vs_diffusers.flow_files import WIDTH, WORDS, small_qwen3, small_zimage, zimage_tensors

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

ZIMAGE = ZImageSpec(
    in_channels=16,
    width=WIDTH,
    layers=2,
    refiner_layers=1,
    heads=2,
    inner=WIDTH * 8 // 3,
    context_dim=WORDS,
    time_width=WIDTH,
    time_inner=1024,
    axes=(4, 6, 6),
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(network: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Every parameter from the tensor of its name, and no tensor left over."""
    network.load_state_dict(tensors, strict=True)
    return network.eval().requires_grad_(False)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


@pytest.mark.parametrize(("high", "wide"), [(8, 8), (6, 10), (16, 12)])
@pytest.mark.parametrize("words", [7, 32, 40])
def test_zimage(high: int, wide: int, words: int) -> None:
    theirs = small_zimage()
    ours = filled(ZImage(ZIMAGE), zimage_tensors(theirs.state_dict()))
    x, s, context = noise(2, 16, high, wide), torch.tensor([0.9, 0.25]), noise(2, words, WORDS, seed=1)
    expected = theirs(list(x[:, :, None]), 1 - s, list(context), return_dict=False)[0]
    assert close(ours(x, s, context), -torch.stack(list(expected))[:, :, 0])


def test_zimage_takes_odd_sides() -> None:
    """What is missing for a whole token repeats the edge, and nothing of it comes back."""
    ours = filled(ZImage(ZIMAGE), zimage_tensors(small_zimage().state_dict()))
    x, s, context = noise(1, 16, 5, 6), torch.tensor([0.5]), noise(1, 9, WORDS)
    larger = torch.cat([x, x[:, :, -1:]], dim=2)
    assert torch.equal(ours(x, s, context), ours(larger, s, context)[:, :, :5])


def test_qwen3() -> None:
    theirs = small_qwen3()
    spec = TextSpec(
        kind="qwen3",
        prefix="",
        width=WORDS,
        layers=3,
        heads=4,
        key_heads=2,
        head_dim=8,
        inner=40,
        vocabulary=theirs.config.vocab_size,
        layer=-2,
        final_norm=False,
    )
    ours = QwenText(spec)
    kept = {key: each for key, each in theirs.state_dict().items() if not key.startswith(("layers.2.", "norm."))}
    filled(ours, kept)
    ids = torch.randint(0, spec.vocabulary, (2, 37), generator=torch.Generator().manual_seed(0))
    assert close(ours.encode(ids).tokens, theirs(ids, output_hidden_states=True).hidden_states[-2])
