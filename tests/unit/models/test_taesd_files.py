"""The tiny autoencoder's files, and its place as a codec (VAE-6, ENC-3, DEC-1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from overpaint.errors import CheckpointError, SamplingError, SettingError
from overpaint.models.families import LatentSpec
from overpaint.models.taesd_files import Taesd, TaesdFiles, find_taesd, load_taesd
from overpaint.networks.taesd import taesd_decoder, taesd_encoder
from tests.unit.toy_control import random_network

if TYPE_CHECKING:
    from overpaint.painting.latents import Codec

SCALE = 0.18215
PIXELS = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
LATENTS = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(1))


def official() -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    return random_network(taesd_encoder).state_dict(), random_network(taesd_decoder).state_dict()


def in_diffusers() -> dict[str, Tensor]:
    encoder, decoder = official()
    later = {f"{int(name.split('.', 1)[0]) - 1}.{name.split('.', 1)[1]}": each for name, each in decoder.items()}
    named = {f"encoder.layers.{name}": each for name, each in encoder.items()}
    return named | {f"decoder.layers.{name}": each for name, each in later.items()}


def two_files(folder: Path) -> None:
    encoder, decoder = official()
    save_file(dict(encoder), folder / "taesd_encoder.safetensors")
    torch.save(dict(decoder), folder / "taesd_decoder.pth")


def one_file(folder: Path) -> None:
    encoder, decoder = official()
    both = {f"encoder.{name}": each for name, each in encoder.items()}
    save_file(both | {f"decoder.{name}": each for name, each in decoder.items()}, folder / "taesd.safetensors")


def diffusers_file(folder: Path) -> None:
    save_file(in_diffusers(), folder / "taesd.safetensors")


def diffusers_folder(folder: Path) -> None:
    (folder / "taesd").mkdir()
    save_file(in_diffusers(), folder / "taesd/diffusion_pytorch_model.safetensors")


def loaded(folder: Path, **changes: Any) -> Taesd:
    files = find_taesd(folder, is_sdxl=False)
    return load_taesd(files, **{"latent": LatentSpec(scale=SCALE), "device": "cpu", **changes})


@pytest.mark.parametrize("save", [two_files, one_file, diffusers_file, diffusers_folder])
def test_every_layout_is_the_same_codec(save: Any, tmp_path: Path) -> None:
    save(tmp_path)
    codec: Codec = loaded(tmp_path)
    mean, logvar = codec.encode(PIXELS)
    pixels = codec.decode(LATENTS / SCALE)
    with torch.no_grad():
        encoder, decoder = random_network(taesd_encoder), random_network(taesd_decoder)
        # ENC-3: fed with 0..1, and what comes out is what the U-Net sees; DEC-1: painted in 0..1
        torch.testing.assert_close(mean * SCALE, encoder((PIXELS + 1) / 2), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pixels, decoder(LATENTS) * 2 - 1, atol=1e-5, rtol=1e-4)
    assert float(logvar.max()) == -30
    assert mean.shape == logvar.shape == (1, 4, 2, 3)
    assert pixels.shape == (1, 3, 16, 24)


def test_half_precision_in_float32_out(tmp_path: Path) -> None:
    two_files(tmp_path)
    codec, exact = loaded(tmp_path, dtype=torch.bfloat16), loaded(tmp_path)
    mean, _ = codec.encode(PIXELS)
    wanted, _ = exact.encode(PIXELS)
    assert mean.dtype is torch.float32
    assert float((mean - wanted).abs().mean() / wanted.abs().mean()) < 0.05
    assert codec.decode(LATENTS).dtype is torch.float32


def test_decoder_alone_serves_previews(tmp_path: Path) -> None:
    two_files(tmp_path)
    (tmp_path / "taesd_encoder.safetensors").unlink()
    files = find_taesd(tmp_path, is_sdxl=False, halves=("decoder",))
    assert files == TaesdFiles(None, tmp_path / "taesd_decoder.pth")
    codec = load_taesd(files, latent=LatentSpec(scale=SCALE), device="cpu")
    assert codec.decode(LATENTS).shape == (1, 3, 16, 24)
    with pytest.raises(SamplingError, match="its encoder was not loaded"):
        codec.encode(PIXELS)


def test_missing_files_are_named(tmp_path: Path) -> None:
    two_files(tmp_path)
    with pytest.raises(SettingError) as caught:
        find_taesd(tmp_path, is_sdxl=True)
    assert str(caught.value).startswith(f"taesd_dir={str(tmp_path)!r:.40}"[:40])
    assert "taesdxl_encoder.safetensors, taesdxl_encoder.pth" in str(caught.value)
    assert "taesdxl/diffusion_pytorch_model.safetensors in it" in str(caught.value)
    with pytest.raises(SettingError, match=r"^taesd_dir='': set it to the folder that holds taesd_encoder"):
        find_taesd("", is_sdxl=False)


@pytest.mark.parametrize(("family", "stem"), [("zimage", "taef1"), ("flux-dev", "taef1"), ("sd35", "taesd3")])
def test_sixteen_channels_are_of_two_kinds(family: str, stem: str, tmp_path: Path) -> None:
    (tmp_path / f"{stem}_decoder.safetensors").touch()
    found = find_taesd(tmp_path, is_sdxl=False, channels=16, family=family, halves=("decoder",))
    assert found.decoder == tmp_path / f"{stem}_decoder.safetensors"
    with pytest.raises(SettingError, match=rf"{stem}_encoder\.safetensors"):
        find_taesd(tmp_path, is_sdxl=False, channels=16, family=family)


@pytest.mark.parametrize("family", ["qwen-image", "flux2-klein"])
def test_families_without_a_twin(family: str, tmp_path: Path) -> None:
    """Flux.1's would be taken for one with as many channels, and show other colours."""
    save_file(dict(official()[1]), tmp_path / "taef1_decoder.safetensors")
    with pytest.raises(SettingError, match=rf"no TAESD is known for a model of the family {family}"):
        find_taesd(tmp_path, is_sdxl=False, channels=16, family=family, halves=("decoder",))


def test_files_of_another_kind(tmp_path: Path) -> None:
    encoder, _ = official()
    save_file(dict(encoder), tmp_path / "taesd_decoder.safetensors")
    with pytest.raises(CheckpointError, match=r"^taesd_decoder\.safetensors: .* a TAESD decoder"):
        load_taesd(TaesdFiles(None, tmp_path / "taesd_decoder.safetensors"), latent=LatentSpec(scale=1.0), device="cpu")
    wide = {**encoder, "14.weight": torch.zeros(16, 64, 3, 3), "14.bias": torch.zeros(16)}  # that of other families
    save_file(wide, tmp_path / "taesd_encoder.safetensors")
    with pytest.raises(CheckpointError, match=r"14\.(weight|bias) is \[16"):
        load_taesd(TaesdFiles(tmp_path / "taesd_encoder.safetensors", None), latent=LatentSpec(scale=1.0), device="cpu")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    two_files(tmp_path)
    with pytest.raises(SamplingError, match="NaN"):
        loaded(tmp_path).decode(torch.full((1, 4, 2, 2), float("nan")))


def test_tiling_is_switched_on_and_off(tmp_path: Path) -> None:  # ARCH-9
    two_files(tmp_path)
    codec = loaded(tmp_path)
    flat = codec.decode(LATENTS)
    codec.set_tiling(True)
    assert not torch.allclose(codec.decode(LATENTS), flat)
    codec.set_tiling(False)
    assert torch.equal(codec.decode(LATENTS), flat)
