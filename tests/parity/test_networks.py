"""The networks against the reference's own numbers: encoded texts, encoded sources, decoded latents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from tests.conftest import recorded

pytestmark = pytest.mark.slow

CHECKPOINTS = ("tiny-sd15", "tiny-sd15-inpainting", "tiny-sd15-edit", "tiny-sd21-v", "tiny-sdxl")
# One plain case (no mask, no resizing) of each checkpoint.
PLAIN = ("sampler_euler", "inpmodel_nomask", "edit_1.0", "sd21v_euler", "sdxl_euler", "size_136x152", "size_192")
END = 49407


@pytest.fixture(scope="module")
def models(checkpoints: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    made: dict[str, LoadedModel] = {}

    def model(name: str) -> LoadedModel:
        if name not in made:
            made[name] = load_checkpoint(checkpoints(name), dtype="float32", hashing=False)
        return made[name]

    return model


def ids_of(prompt: str, parity: Path, padding: int) -> Tensor:
    """The recorded tokens of a prompt, with the padding of an encoder behind the end token."""
    recorded = json.loads((parity / "unit" / "tokens_tiny-sd15.json").read_text())
    ids = torch.tensor(next(each["tokens"] for each in recorded if each["prompt"] == prompt))
    ids[0, int((ids[0] == END).nonzero()[0]) + 1 :] = padding
    return ids


@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sd21-v", "tiny-sdxl"])
@pytest.mark.parametrize(("which", "prompt"), [(0, ""), (1, "a cat")])
def test_encoded_texts(
    name: str, which: int, prompt: str, parity: Path, models: Callable[[str], LoadedModel]
) -> None:  # ENCODE-4, ENCODE-5, ENCODE-10
    model = models(name)
    kept = np.load(recorded(parity / "unit" / f"text_{name}.npz"))
    encodings = [
        model.backend.text(i, ids_of(prompt, parity, END if spec.kind == "clip" else 0))
        for i, spec in enumerate(model.spec.texts)
    ]
    tokens = torch.cat([each.tokens for each in encodings], dim=-1)
    torch.testing.assert_close(tokens, torch.from_numpy(kept[f"{which}|crossattn"]), atol=2e-5, rtol=1e-4)
    pooled = encodings[-1].pooled
    if pooled is not None:
        wanted = torch.from_numpy(kept[f"{which}|vector"])[:, : pooled.shape[1]]
        torch.testing.assert_close(pooled, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("case", PLAIN)
def test_sources_and_results(case: str, parity: Path, models: Callable[[str], LoadedModel]) -> None:  # ENC-2, DEC-3
    golden = recorded(parity / "goldens" / case)
    given: dict[str, Any] = next(
        each for each in json.loads((parity / "cases.json").read_text()) if each["name"] == case
    )
    model, params = models(given["checkpoint"]), given["params"]
    kept = np.load(golden / "data.npz")
    source = Image.open(parity / params["init_images"][0]).convert("RGB")
    if source.size == (params["width"], params["height"]):
        pixels = torch.from_numpy(np.asarray(source, dtype=np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]
        mean, logvar = model.backend.encode(pixels)
        latent = torch.from_numpy(kept["init_latent"])
        noise = 6 * float((0.5 * logvar).exp().max()) * model.spec.latent.scale
        torch.testing.assert_close(mean * model.spec.latent.scale, latent, atol=noise + 1e-4, rtol=0)
    decoded = model.backend.decode(torch.from_numpy(kept["final_latent_0"]) / model.spec.latent.scale)
    levels = ((decoded[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy() * np.float32(255)
    wanted = np.asarray(Image.open(golden / "image0.png").convert("RGB"), dtype=np.int16)
    assert np.abs(levels.astype(np.uint8).astype(np.int16) - wanted).max() <= 2


def test_every_checkpoint_loads_completely(models: Callable[[str], LoadedModel]) -> None:  # KEYS-3
    for name in CHECKPOINTS:
        ignored = models(name).ignored
        assert not [key for key in ignored if key.startswith(("model.diffusion_model.", "first_stage_model."))]
        assert len(ignored) <= 14
