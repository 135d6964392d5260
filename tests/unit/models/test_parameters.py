"""What is predicted of the size of networks, against the networks, of narrow and of published widths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from overpaint.models.families import SD1_SPEC, AutoencoderSpec, ModelSpec
from overpaint.models.parameters import parameters_of
from overpaint.models.specs import (
    DenoiserSpec,
    TextSpec,
)
from overpaint.networks.codecs import codec_network
from overpaint.networks.denoisers import denoiser_network
from overpaint.networks.text_networks import text_network
from tests.flow_toys import QWEN, VAE, ZIMAGE
from tests.flux_toys import BIG, CHROMA, CLIP, FLUX, SD35, T5_SPEC, clip_spec
from tests.published_specs import (
    CHROMA_HD,
    FLUX2_VAE,
    FLUX_DEV,
    KLEIN_4B,
    KLEIN_9B,
    PUBLISHED_VAE,
    QWEN25,
    QWEN_IMAGE,
    SD35_LARGE,
    SEEING,
    T5_XXL,
    WAN_VAE,
    Z_IMAGE_TURBO,
)


def count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def spec(denoiser: DenoiserSpec, vae: AutoencoderSpec, *texts: TextSpec) -> ModelSpec:
    return replace(SD1_SPEC, denoiser=denoiser, vae=vae, texts=texts, prediction="flow")


@pytest.mark.parametrize(
    "model",
    [
        spec(ZIMAGE, VAE, QWEN),
        spec(FLUX, VAE, clip_spec(CLIP, projected=False), T5_SPEC),
        spec(replace(FLUX, guided=False), PUBLISHED_VAE, T5_XXL),
        spec(FLUX_DEV, replace(PUBLISHED_VAE, quant_convs=False)),
        spec(CHROMA, VAE, T5_SPEC),
        spec(CHROMA_HD, VAE),
        spec(replace(FLUX, in_channels=96), VAE),
        spec(SD35, VAE, clip_spec(CLIP, projected=True), BIG, T5_SPEC),
        spec(replace(SD35, normed=False, dual_blocks=0), VAE),
        spec(SD35_LARGE, VAE),
        spec(Z_IMAGE_TURBO, VAE),
        spec(QWEN_IMAGE, WAN_VAE, QWEN25),
        spec(QWEN_IMAGE, WAN_VAE, SEEING),
        spec(KLEIN_9B, FLUX2_VAE, replace(QWEN, layers=28, layer=-1, states=(9, 18, 27))),
    ],
    ids=[
        *("zimage", "flux", "schnell", "dev", "chroma", "chroma-hd", "fill"),
        *("sd35", "sd3", "sd35-large", "zimage-turbo", "qwen-image", "edit", "klein"),
    ],
)
def test_as_many_as_the_networks_have(model: ModelSpec) -> None:
    with torch.device("meta"):
        texts = [text_network(each) for each in model.texts]
        wanted = {
            "transformer": count(denoiser_network(model.denoiser)),
            "text_encoders": sum(map(count, texts)),
            "vae": count(codec_network(model.vae)),
        }
    assert parameters_of(model) == wanted


def test_published_sizes() -> None:
    """As their publishers round them, in billions."""
    published = FLUX_DEV, CHROMA_HD, SD35_LARGE, Z_IMAGE_TURBO, QWEN_IMAGE, KLEIN_4B, KLEIN_9B
    sizes = [parameters_of(spec(each, VAE))["transformer"] / 1e9 for each in published]
    assert sizes == pytest.approx([11.9, 8.9, 8.1, 6.15, 20.4, 3.9, 9.1], abs=0.06)
    assert parameters_of(spec(QWEN_IMAGE, WAN_VAE, QWEN25))["text_encoders"] / 1e9 == pytest.approx(7.07, abs=0.01)
    assert parameters_of(spec(FLUX, VAE, T5_XXL))["text_encoders"] / 1e9 == pytest.approx(4.76, abs=0.01)
    assert parameters_of(SD1_SPEC) == {}
