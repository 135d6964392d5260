"""The codec: names of the checkpoint and numbers of diffusers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from overpaint.models.families import SD1_SPEC, AutoencoderSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import blank, set_packed, set_tiling

SMALL = AutoencoderSpec(channels=32, channel_mult=(1, 2), num_res_blocks=1)


def network(spec: AutoencoderSpec = SMALL) -> AutoencoderKL:
    torch.manual_seed(0)
    codec = blank(partial(AutoencoderKL, spec), "cpu", torch.float32)
    for parameter in codec.parameters():
        parameter.data.normal_(0, parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5)
    return codec.requires_grad_(False)


def test_names_of_the_original_layout() -> None:  # ARCH-7
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in AutoencoderKL(SD1_SPEC.vae).named_parameters()}
    assert len(shapes) == 248
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 83_653_863
    for name, shape in {
        "encoder.conv_out.weight": (8, 512, 3, 3),
        "encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "decoder.up.3.block.2.conv2.weight": (512, 512, 3, 3),
        "decoder.up.1.upsample.conv.weight": (256, 256, 3, 3),
        "quant_conv.weight": (8, 8, 1, 1),
        "post_quant_conv.weight": (4, 4, 1, 1),
    }.items():
        assert shapes[name] == shape


@pytest.mark.slow
def test_same_numbers_as_diffusers() -> None:  # ARCH-7
    pytest.importorskip("diffusers")
    from diffusers import AutoencoderKL as Theirs
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    codec = network()
    theirs: Any = Theirs(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
    )
    named = {f"first_stage_model.{name}": value.clone() for name, value in codec.state_dict().items()}
    theirs.load_state_dict(convert_ldm_vae_checkpoint(named, {**theirs.config}))
    pixels, z = torch.rand(2, 3, 40, 36) * 2 - 1, torch.randn(2, 4, 20, 18)
    with torch.no_grad():
        posterior = theirs.encode(pixels).latent_dist
        wanted = theirs.decode(z).sample
        for packed in (False, True):
            set_packed(codec, packed)
            mean, logvar = codec.encode(pixels.contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(mean.contiguous(), posterior.mean, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(logvar.clamp(-30, 20).contiguous(), posterior.logvar, atol=1e-4, rtol=1e-4)
            got = codec.decode(z.contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(got.contiguous(), wanted, atol=1e-4, rtol=1e-4)


def test_tiling_leaves_the_downsamplers_own_zeros() -> None:  # ARCH-9
    codec = network()
    set_tiling(codec, True)
    z = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        rolled = codec.decode(z.roll(4, dims=3)).roll(-8, dims=3)
        torch.testing.assert_close(codec.decode(z), rolled, atol=1e-4, rtol=1e-4)
        pixels = torch.rand(1, 3, 16, 16)
        shifted, _ = codec.encode(pixels.roll(8, dims=3))
        assert not torch.allclose(codec.encode(pixels)[0], shifted.roll(-4, dims=3), atol=1e-3)
