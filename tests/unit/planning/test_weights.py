"""What is said of a model of 12 billion numbers before any of them is read: on a device of 16 GB, and on others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from overpaint.models.checkpoint import recognise
from overpaint.models.companions import text_encoders_for
from overpaint.models.families import SD1_SPEC
from overpaint.models.parameters import block_parameters
from overpaint.models.placing import blocks_of
from overpaint.models.spec_json import spec_from_json
from overpaint.models.specs import ModelSpec
from overpaint.networks.denoisers import denoiser_network
from overpaint.networks.layers import laid_out
from overpaint.planning.weights import account_of_spec
from tests.hollow_files import hollow_flux
from tests.published_specs import CHROMA_HD, FLUX_DEV, KLEIN_4B, QWEN_IMAGE, SD35_LARGE, Z_IMAGE_TURBO

GB = 10**9


@pytest.fixture(scope="module", params=["F8_E4M3", "GGUF"])
def flux(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    if request.param == "GGUF":
        pytest.importorskip("gguf", reason="the package gguf is not installed")
    path = hollow_flux(tmp_path_factory.mktemp("hollow"), kind=request.param)
    yield recognise(path, tuple(map(Path, text_encoders_for(path))))


def test_a_file_of_twelve_billion_is_planned_for(flux: ModelSpec) -> None:
    """Its bytes are told as they are on the disk; everything that is done has its reason."""
    account = account_of_spec(flux, 16 * 2**30)
    assert account is not None and account["fits"] and account["weights"] == "stored"
    in_8_bits = account["in_files"]["transformer"] > 10 * GB
    assert account["in_files"]["transformer"] / GB == pytest.approx(11.9 if in_8_bits else 6.8, abs=0.2)
    assert account["in_files"]["text_encoders"] / GB == pytest.approx(9.77, abs=0.05)
    assert (account["text_encoders"], account["streamed_blocks"], account["blocks"]) == ("leave", 0, 57)
    assert account["needed"] <= 16 * 2**30
    assert any(each.startswith("the text encoders leave after encoding: 9.77 GB") for each in account["reasons"])


def test_smaller_devices_stream_and_larger_ones_do_nothing(flux: ModelSpec) -> None:
    small, large = (account_of_spec(flux, room * 2**30) for room in (6, 80))
    assert small is not None and large is not None
    streamed = small["streamed_blocks"]
    assert small["fits"] and 0 < streamed <= 57 and small["text_encoders"] == "streamed"
    assert f"{streamed} of 57 blocks are streamed to the device in every call" in small["reasons"]
    assert (large["weights"], large["text_encoders"], large["streamed_blocks"]) == ("whole", "stay", 0)


def test_what_files_take_travels_with_what_they_are(flux: ModelSpec) -> None:
    """The service's web process reads no model file; it is told by one that does."""
    from dataclasses import asdict

    again = spec_from_json(json.loads(json.dumps(asdict(flux))))
    assert again.in_files == flux.in_files and again.in_files


def test_of_a_unet_nothing_is_said() -> None:
    assert account_of_spec(SD1_SPEC, 16 * GB) is None


@pytest.mark.parametrize("spec", [FLUX_DEV, CHROMA_HD, SD35_LARGE, Z_IMAGE_TURBO, QWEN_IMAGE, KLEIN_4B])
def test_blocks_are_those_of_the_network(spec: Any) -> None:
    """As many, in their order, and alike but for those at either end."""
    blocks = blocks_of(laid_out(partial(denoiser_network, spec), torch.bfloat16))
    counted = [sum(each.numel() for each in block.parameters()) for block in blocks]
    told = block_parameters(spec)
    assert len(told) == len(counted)
    assert sum(told) == pytest.approx(sum(counted), rel=0.01)
    off = [i for i, pair in enumerate(zip(told, counted, strict=True)) if pair[0] != pytest.approx(pair[1], rel=0.01)]
    assert len(off) <= 4
