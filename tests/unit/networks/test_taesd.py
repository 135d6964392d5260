"""The tiny autoencoder: names of its own files, numbers of diffusers (VAE-6)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from overpaint.networks.layers import set_packed, set_tiling
from overpaint.networks.taesd import taesd_decoder, taesd_encoder
from tests.unit.toy_control import random_network


def test_names_of_the_original_files() -> None:
    with torch.device("meta"):
        encoder, decoder = dict(taesd_encoder().named_parameters()), dict(taesd_decoder().named_parameters())
    assert encoder["0.weight"].shape == (64, 3, 3, 3)
    assert encoder["14.weight"].shape == (4, 64, 3, 3)
    assert {"2.weight", "6.weight", "10.weight", "1.conv.4.bias", "13.conv.0.weight"} <= encoder.keys()
    assert not {"2.bias", "6.bias", "10.bias"} & encoder.keys()
    assert decoder["1.weight"].shape == (64, 4, 3, 3)
    assert decoder["19.weight"].shape == (3, 64, 3, 3)
    assert {"7.weight", "12.weight", "17.weight", "3.conv.0.weight", "18.conv.4.bias"} <= decoder.keys()
    assert not {"7.bias", "12.bias", "17.bias"} & decoder.keys()
    assert sum(each.numel() for each in (*encoder.values(), *decoder.values())) == 2_445_063  # as published


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_same_numbers_as_diffusers(packed: bool) -> None:
    pytest.importorskip("diffusers")
    from diffusers import AutoencoderTiny

    theirs: Any = AutoencoderTiny()
    encoder, decoder = random_network(taesd_encoder), random_network(taesd_decoder)
    theirs.encoder.layers.load_state_dict(encoder.state_dict())
    theirs.decoder.layers.load_state_dict(
        {
            f"{int(name.split('.', 1)[0]) - 1}.{name.split('.', 1)[1]}": each
            for name, each in decoder.state_dict().items()
        }
    )
    set_packed(encoder, packed)
    set_packed(decoder, packed)
    pixels, latents = torch.rand(2, 3, 24, 32) * 2 - 1, torch.randn(2, 4, 3, 4) * 3
    with torch.no_grad():
        encoded = encoder(((pixels + 1) / 2).contiguous(memory_format=torch.channels_last))
        decoded = decoder(latents.contiguous(memory_format=torch.channels_last)) * 2 - 1
        torch.testing.assert_close(encoded.contiguous(), theirs.encode(pixels).latents, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decoded.contiguous(), theirs.decode(latents).sample, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("network", "shape", "by"), [(taesd_encoder, (1, 3, 32, 32), 8), (taesd_decoder, (1, 4, 4, 4), 1)]
)
def test_tiling_turns_with_the_picture(network: Any, shape: tuple[int, ...], by: int) -> None:  # ARCH-9
    made: nn.Sequential = random_network(network)
    set_tiling(made, True)
    x = torch.randn(shape)
    with torch.no_grad():
        moved = made(x.roll((by, 2 * by), (2, 3)))
        wanted = made(x).roll((1, 2) if by == 8 else (8, 16), (2, 3))
    torch.testing.assert_close(moved, wanted, atol=1e-4, rtol=1e-4)
