"""The narrow calls: float32 in and out, dtypes, fallback of an overflowing VAE, tiling."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from overpaint.backends.port import Dtypes
from overpaint.backends.torch_backend import TorchBackend, resolve_dtypes
from overpaint.errors import RequestError, SamplingError
from overpaint.models.families import AutoencoderSpec, UNetSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import blank
from overpaint.networks.unet import UNet

UNET = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 1),
    num_res_blocks=1,
    input_depths=(0, 1),
    middle_depth=1,
    output_depths=(1, 1, 0, 0),
    heads=4,
    context_dim=16,
    linear_projections=False,
)
VAE = AutoencoderSpec(channels=32, channel_mult=(1, 1), num_res_blocks=1)


def backend(dtype: torch.dtype = torch.float32, size: float = 1.0) -> TorchBackend:
    torch.manual_seed(0)
    unet = blank(partial(UNet, UNET), "cpu", dtype)
    codec = blank(partial(AutoencoderKL, VAE), "cpu", dtype)
    for network in (unet, codec):
        for parameter in network.parameters():
            parameter.data.normal_(0, size * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5)
    return TorchBackend(unet, codec, (), device="cpu", dtypes=Dtypes(dtype, dtype, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_comes_out_whatever_is_computed_in(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([1.0, 500.5]), torch.randn(2, 7, 16)
    chosen, exact = backend(dtype), backend()
    eps = chosen.denoise(x, t, context)
    assert eps.dtype is torch.float32
    assert eps.is_contiguous()
    wanted = exact.denoise(x, t, context)
    assert float((eps - wanted).abs().mean() / wanted.abs().mean()) < 0.05
    mean, logvar = chosen.encode(torch.rand(1, 3, 16, 16))
    assert mean.shape == logvar.shape == (1, 4, 8, 8)
    assert mean.dtype is logvar.dtype is torch.float32
    assert float(logvar.min()) >= -30  # ENC-2
    assert float(logvar.max()) <= 20
    assert chosen.decode(mean).shape == (1, 3, 16, 16)


def test_results_can_be_changed_in_place() -> None:
    eps = backend().denoise(torch.randn(1, 4, 8, 8), torch.tensor([1.0]), torch.randn(1, 7, 16))
    eps.add_(1)
    assert not eps.requires_grad


def test_overflowing_vae_goes_on_in_float32() -> None:  # DEC-2
    flawed = backend(torch.bfloat16)
    codec = flawed.networks.autoencoder
    original = codec.decode
    codec.decode = lambda z: original(z) * (float("nan") if z.dtype is torch.bfloat16 else 1.0)  # type: ignore[method-assign]
    z = torch.randn(1, 4, 4, 4)
    with pytest.raises(SamplingError, match="NaN"):
        flawed.decode(z, fallback=None)
    assert not flawed.decode(z).isnan().any()
    assert flawed.dtypes.vae is torch.float32
    assert flawed.dtypes.unet is torch.bfloat16


def test_vae_that_has_nothing_to_fall_back_to() -> None:  # DEC-2
    with pytest.raises(SamplingError, match="NaN"):
        backend().decode(torch.full((1, 4, 4, 4), float("nan")))


def test_tiling_is_switched_on_and_off() -> None:  # ARCH-9
    chosen = backend()
    z = torch.randn(1, 4, 4, 4)
    flat = chosen.decode(z)
    chosen.set_tiling(True)
    assert not torch.allclose(chosen.decode(z), flat)
    chosen.set_tiling(False)
    assert torch.equal(chosen.decode(z), flat)


def test_dtypes_of_devices() -> None:  # ARCH-12
    assert resolve_dtypes("cuda").unet is torch.float16
    assert resolve_dtypes("cpu", "float32") == Dtypes(torch.float32, torch.float32, torch.float32)
    assert resolve_dtypes("cpu", "bfloat16").text is torch.float32
    assert resolve_dtypes("cpu").unet in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("name", ["float16", "int8"])
def test_dtypes_that_cannot_be_used_on_a_cpu(name: str) -> None:
    with pytest.raises(RequestError, match="dtype"):
        resolve_dtypes("cpu", name)
