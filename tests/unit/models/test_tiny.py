"""The checkpoint made by arithmetic: same bytes, small, and pictures survive it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def model(tiny: Path) -> LoadedModel:
    return load_checkpoint(tiny, dtype="float32", hashing=False)


def picture() -> Tensor:
    y, x = np.mgrid[0:64, 0:64] / 64
    planes = np.stack([x, y, 1 - x * y]).astype(np.float32)
    return torch.from_numpy(planes * 2 - 1)[None]


def test_same_seed_same_bytes(tiny: Path, tmp_path: Path) -> None:
    assert make_tiny_checkpoint(tmp_path / "new" / "again.safetensors").read_bytes() == tiny.read_bytes()
    assert make_tiny_checkpoint(tmp_path / "other.safetensors", seed=1).read_bytes() != tiny.read_bytes()
    assert tiny.stat().st_size < 12_000_000


def test_layout_is_that_of_stable_diffusion_1(model: LoadedModel) -> None:
    spec = model.spec
    assert (spec.family, spec.prediction, spec.texts[0].width, spec.texts[0].vocabulary) == ("sd1", "eps", 64, 49408)
    assert spec.facts["heads"] == spec.facts["text_heads"] == "metadata"


def test_pictures_come_back_as_their_blocks_of_eight(model: LoadedModel) -> None:
    pixels = picture()
    mean, logvar = model.backend.encode(pixels)
    blocks = F.interpolate(F.avg_pool2d(pixels, 8), scale_factor=8.0)
    assert float((model.backend.decode(mean) - blocks).abs().mean()) < 0.06
    assert float(logvar.max()) < -15
    assert 0.3 < float(mean.std()) * model.spec.latent.scale < 3


def test_noise_is_taken_off_and_the_prompt_is_heard(model: LoadedModel) -> None:
    backend = model.backend
    mean, _ = backend.encode(picture())
    latent = mean * model.spec.latent.scale
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    noisy = (latent + 0.5 * noise) / (1 + 0.25) ** 0.5
    ids = torch.full((2, 77), 49407)
    ids[:, 0] = 49406
    ids[1, 1:4] = torch.tensor([320, 736, 1615])
    context = backend.text(0, ids).tokens
    eps = backend.denoise(noisy.expand(2, -1, -1, -1), torch.tensor([200.0, 200.0]), context)
    assert torch.isfinite(eps).all()
    agreement = torch.corrcoef(torch.stack([eps[0].flatten(), noise.flatten()]))[0, 1]
    assert float(agreement) > 0.5
    assert 0.7 < float(eps.std()) < 1.3
    assert float((eps[0] - eps[1]).abs().mean()) > 0.02
