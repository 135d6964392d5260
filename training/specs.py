"""The built-in model's measures. Everything but the head counts can be read off the shapes of its weights."""

from __future__ import annotations

from dataclasses import replace

from overpaint.models.families import SD1_SPEC, AutoencoderSpec, ModelSpec, UNetSpec

NATIVE_SIZE = 128
HEADS = 8

VAE = AutoencoderSpec(channels=96, channel_mult=(1, 1, 1, 1), num_res_blocks=1)
UNET = UNetSpec(
    in_channels=4,
    model_channels=64,
    channel_mult=(1, 2, 3),
    num_res_blocks=1,
    input_depths=(0, 1, 1),
    middle_depth=1,
    output_depths=(1, 1, 1, 1, 0, 0),
    heads=HEADS,
    context_dim=128,
    linear_projections=False,
)
TEXT = replace(SD1_SPEC.texts[0], width=128, layers=4, heads=2, inner=512)
MODEL: ModelSpec = replace(SD1_SPEC, denoiser=UNET, vae=VAE, texts=(TEXT,), native_size=NATIVE_SIZE)
