"""Hypernetworks: every recorded latent, by a sampler written out here, so that nothing else is under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.adapters.hypernet import read_hypernet, wear_hypernets
from overpaint.backends.port import Backend
from overpaint.engine import Engine, stages_of
from overpaint.schedules import NoiseTable
from overpaint.text.prompt import take_network_tags
from overpaint.text.tokens import END, START, clip_tokenizer
from tests.conftest import PARITY

TOLERANCE = 3e-4
NEEDS_LORA_IN_PLACE = {"hypernet_with_lora"}
CASES: list[dict[str, Any]] = [
    case
    for case in json.loads((PARITY / "extra" / "cases.json").read_text())
    if case["group"] == "hypernet" and case["name"] not in NEEDS_LORA_IN_PLACE
]

pytestmark = pytest.mark.slow


@pytest.fixture
def backend(engines: Callable[[str], Engine]) -> Iterator[Backend]:
    yield (backend := stages_of(engines("tiny-sd15")).backend)
    wear_hypernets(backend.networks.unet, ())


def encoded(backend: Backend, text: str) -> Tensor:
    ids = [START, *clip_tokenizer().encode(text)]
    return backend.text(0, torch.tensor([ids + [END] * (77 - len(ids))])).tokens


def euler(backend: Backend, x: Tensor, sigmas: list[float], texts: tuple[str, str], scale: float) -> Tensor:
    context = torch.cat([encoded(backend, each) for each in texts])  # (2, 77, width)
    table = NoiseTable.default()
    for sigma, after in pairwise(sigmas):
        timestep = torch.full((2,), float(table.sigma_to_t(sigma)))
        with_text, without = backend.denoise(x.repeat(2, 1, 1, 1) / (sigma**2 + 1) ** 0.5, timestep, context)
        x = x + (without + scale * (with_text - without)) * (after - sigma)
    return x


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_same_latents(case: dict[str, Any], backend: Backend, parity: Path) -> None:  # HYP-1
    params = case["params"]
    data = np.load(parity / "extra" / "goldens" / case["name"] / "data.npz")
    prompt, tags = take_network_tags(params["prompt"])
    files = {Path(each).stem: parity / "extra" / each for each in case["files"]}
    worn = [(read_hypernet(files[name]), float(weight)) for _, (name, weight), _ in tags if name in files]
    wear_hypernets(backend.networks.unet, worn)

    sigmas = [float(each) for each in data["schedule_0"][-len(data["cfg_sigma"]) - 1 :]]
    x = torch.from_numpy(data["init_x_0"]) + torch.from_numpy(data["noise_0"]) * sigmas[0]
    latents = euler(backend, x, sigmas, (prompt.rstrip(), params["negative_prompt"]), params["cfg_scale"])
    np.testing.assert_allclose(latents.numpy(), data["final_latent_0"], atol=TOLERANCE)
