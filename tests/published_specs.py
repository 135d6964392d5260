"""The shapes of flow models as they were published, which no test has the weights of."""

from __future__ import annotations

from dataclasses import replace

from overpaint.models.flow_rows import NEWER_FAMILIES
from overpaint.models.specs import (
    AutoencoderSpec,
    ChromaSpec,
    Flux2Spec,
    FluxSpec,
    MmditSpec,
    QwenImageSpec,
    ZImageSpec,
)
from overpaint.models.vision_specs import Eyes, VisionSpec
from tests.flow_toys import QWEN
from tests.flux_toys import T5_SPEC

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
