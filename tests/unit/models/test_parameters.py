"""What is predicted of the size of networks, against the networks, of narrow and of published widths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from overpaint.models.families import SD1_SPEC, AutoencoderSpec, ModelSpec
from overpaint.models.flow_rows import NEWER_FAMILIES
from overpaint.models.parameters import parameters_of
from overpaint.models.specs import (
    ChromaSpec,
    DenoiserSpec,
    Flux2Spec,
    FluxSpec,
    MmditSpec,
    QwenImageSpec,
    TextSpec,
    ZImageSpec,
)
from overpaint.models.vision_specs import Eyes, VisionSpec
from overpaint.networks.codecs import codec_network
from overpaint.networks.denoisers import denoiser_network
from overpaint.networks.text_networks import text_network
from tests.flow_toys import QWEN, VAE, ZIMAGE
from tests.flux_toys import BIG, CHROMA, CLIP, FLUX, SD35, T5_SPEC, clip_spec

FLUX_DEV = FluxSpec(
    in_channels=16,
    width=3072,
    double_blocks=19,
    single_blocks=38,
    heads=24,
    inner=12288,
    context_dim=4096,
    pooled_dim=768,
    guided=True,
    axes=(16, 56, 56),
)
CHROMA_HD = ChromaSpec(
    in_channels=16,
    width=3072,
    double_blocks=19,
    single_blocks=38,
    heads=24,
    inner=12288,
    context_dim=4096,
    told=64,
    told_width=5120,
    told_layers=5,
    axes=(16, 56, 56),
)
SD35_LARGE = MmditSpec(
    in_channels=16,
    width=2432,
    blocks=38,
    dual_blocks=0,
    heads=38,
    inner=9728,
    context_dim=4096,
    vector_dim=2048,
    normed=True,
    side=192,
)
Z_IMAGE_TURBO = ZImageSpec(
    in_channels=16,
    width=3840,
    layers=30,
    refiner_layers=2,
    heads=30,
    inner=10240,
    context_dim=2560,
    time_width=256,
    time_inner=1024,
    axes=(32, 48, 48),
)
QWEN_IMAGE = QwenImageSpec(
    in_channels=16,
    out_channels=16,
    width=3072,
    blocks=60,
    heads=24,
    inner=12288,
    context_dim=3584,
    axes=(16, 56, 56),
)
KLEIN_4B = Flux2Spec(
    in_channels=128,
    width=3072,
    double_blocks=5,
    single_blocks=20,
    heads=24,
    inner=9216,
    context_dim=7680,
    axes=(32, 32, 32, 32),
    states=3,
)
KLEIN_9B = replace(KLEIN_4B, width=4096, double_blocks=8, single_blocks=24, heads=32, inner=12288, context_dim=12288)
QWEN25 = replace(
    QWEN,
    kind="qwen25",
    width=3584,
    layers=28,
    heads=28,
    key_heads=4,
    head_dim=128,
    inner=18944,
    vocabulary=152064,
    layer=-1,
    final_norm=True,
)
# Of the published file, with the shapes that transformers' own configuration has.
SEEING = replace(
    QWEN25,
    kind="qwen25_edit",
    vision=VisionSpec(width=1280, layers=32, heads=16, inner=3420, out=3584, eyes=Eyes(side=384, several=True)),
)
_VAES = {each.name: each.vae for each in NEWER_FAMILIES if each.vae is not None}
WAN_VAE, FLUX2_VAE = _VAES["qwen-image"], _VAES["flux2-klein"]
T5_XXL = replace(T5_SPEC, width=4096, layers=24, heads=64, head_dim=64, inner=10240, vocabulary=32128)
PUBLISHED_VAE = AutoencoderSpec(channels=128, channel_mult=(1, 2, 4, 4), num_res_blocks=2, latent_channels=16)


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
