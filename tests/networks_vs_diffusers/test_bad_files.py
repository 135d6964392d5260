"""Files that look like a family and are none: one clear error each, and the engine goes on with the next job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from overpaint.engine import Engine
from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import recognise
from overpaint.settings import Settings
from tests.engine.conftest import asked, painted, scene
from tests.networks_vs_diffusers.conftest import Build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Tensors = dict[str, Tensor]
Refused = Callable[[Path], str]
UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def engine(built: Build) -> Iterator[Engine]:
    with Engine(built("sd2").path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def refused(engine: Engine) -> Refused:
    """What is said about a file; after it, the engine paints the same picture from its own as before all of them."""
    own: dict[str, Any] = {"images": (scene(64, 64),), "steps": 1}
    before = painted(engine, **own)

    def told(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            engine.paint(asked(checkpoint=str(path)))
        assert painted(engine, **own) == before
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        assert path.name in message
        return message

    return told


def changed(source: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(source)), target, metadata)
    return target


def without(*starts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: each for name, each in tensors.items() if not name.startswith(starts)}


def taking(channels: int) -> Callable[[Tensors], Tensors]:
    """The first convolution takes so many channels."""
    return lambda tensors: {**tensors, UNET + "input_blocks.0.0.weight": torch.zeros(32, channels, 3, 3)}


def test_channels_count_and_not_the_name(built: Build, tmp_path: Path) -> None:  # FAM-7
    plain = changed(built("sd2-inpaint").path, tmp_path / "sd21-plain.safetensors", lambda tensors: tensors)
    plain.with_suffix(".yaml").write_text(built("sd2-inpaint").path.with_suffix(".yaml").read_text())
    assert recognise(plain).family == "sd2-inpaint"
    with Engine(plain, device="cpu", dtype="float32") as engine:
        assert engine.paint(asked(images=(scene(64, 64),), steps=1)).images[0].size == (64, 64)


@pytest.mark.parametrize(
    ("name", "channels"), [("sdxl-refiner", 9), ("sdxl", 8), ("sdxl", 5), ("sd2", 8), ("sd2", 5), ("sd2", 3)]
)
def test_channels_that_no_such_family_takes(
    name: str, channels: int, refused: Refused, built: Build, tmp_path: Path
) -> None:
    message = refused(changed(built(name).path, tmp_path / "model.safetensors", taking(channels)))
    assert "channels" in message
    assert str(channels) in message


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("sd2", "middle_block."),
        ("sd2", "middle_block.0."),
        ("sd2", "middle_block.1."),
        ("sd2", "middle_block.2."),
        ("sdxl", "middle_block."),
        ("sdxl", "middle_block.1."),
        ("sdxl-refiner", "middle_block.2."),
        ("sdxl", "input_blocks.8.1.transformer_blocks.9.norm1."),
        ("ssd-1b", "output_blocks.2.2."),
    ],
)
def test_missing_parts_of_the_unet(name: str, missing: str, refused: Refused, built: Build, tmp_path: Path) -> None:
    message = refused(changed(built(name).path, tmp_path / "model.safetensors", without(UNET + missing)))
    assert "missing" in message


def test_middle_of_a_family_that_always_has_one(refused: Refused, built: Build, tmp_path: Path) -> None:  # FAM-4
    """Only SDXL was ever published with a middle of one block."""
    bare = without(f"{UNET}middle_block.1.", f"{UNET}middle_block.2.")
    for name in ("sd2", "sdxl-refiner"):
        assert "missing" in refused(changed(built(name).path, tmp_path / f"{name}.safetensors", bare))
    assert recognise(changed(built("sdxl").path, tmp_path / "sdxl.safetensors", bare)).unet.middle_depth is None


@pytest.mark.parametrize("part", [0.0001, 0.5, 0.9999])
def test_cut_off_files(part: float, refused: Refused, built: Build, tmp_path: Path) -> None:
    data = built("sdxl-refiner").path.read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(data[: int(len(data) * part)])
    assert "download" in refused(path)


def test_codec_of_another_kind(engine: Engine, built: Build, tmp_path: Path) -> None:  # VAE-4
    """Newer families' codecs have 16 channels."""
    (tmp_path / "VAE").mkdir()
    wide = {
        "encoder.conv_out.weight": 32,
        "encoder.conv_out.bias": 32,
        "quant_conv.bias": 32,
        "post_quant_conv.bias": 16,
    }

    def change(tensors: Tensors) -> Tensors:
        prefix = "first_stage_model."
        codec = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        codec |= {name: torch.zeros(size, *codec[name].shape[1:]) for name, size in wide.items()}
        return {**codec, "decoder.conv_in.weight": torch.zeros(96, 16, 3, 3)}

    path = changed(built("sd2").path, tmp_path / "VAE" / "other.safetensors", change)
    before = painted(engine, images=(scene(64, 64),), steps=1)
    with pytest.raises(CheckpointError, match=r"other\.safetensors.*16 channels"):
        engine.paint(asked(overrides={"sd_vae": path.name}), Settings(vae_dir=str(path.parent)))
    assert painted(engine, images=(scene(64, 64),), steps=1) == before
