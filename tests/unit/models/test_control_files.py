"""ControlNets out of files of every kind give the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.control_files import LoadedControl, load_controlnet, open_controlnet
from overpaint.models.families import SD1_SPEC, UNetSpec
from overpaint.networks.controlnet import ControlNet
from tests.unit.toy_control import (
    MODEL,
    SD1,
    SDXL,
    control_file,
    diffusers_config,
    diffusers_control,
    inputs,
    random_control,
)


def output(network: ControlNet, spec: UNetSpec = SD1) -> list[Tensor]:
    x, t, context, vector, hint = inputs(spec)
    with torch.no_grad():
        return [each.contiguous() for each in network(x, t, context, vector, network.encode_hint(hint))]


def load(path: Path, **changes: Any) -> LoadedControl:
    return load_controlnet(path, **{"device": "cpu", "dtype": torch.float32, "model": MODEL, **changes})


def save_pth(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({f"control_model.{name}": each for name, each in tensors.items()}, path)


def save_half(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: each.half().contiguous() for name, each in tensors.items()}, path)


def save_ckpt(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {f"control_model.{name}": each for name, each in tensors.items()}, "epoch": 3}, path)


@pytest.mark.parametrize(
    ("name", "save", "near"),
    [("a.pth", save_pth, 1e-5), ("a.ckpt", save_ckpt, 1e-5), ("a.safetensors", save_half, 5e-2)],
)
def test_single_files(name: str, save: Callable[[Path, dict[str, Tensor]], None], near: float, tmp_path: Path) -> None:
    network = random_control()
    save(tmp_path / name, network.state_dict())
    loaded = load(tmp_path / name)
    assert loaded.name == "a"
    assert loaded.network.dtype is torch.float32
    assert not any(each.requires_grad for each in loaded.network.parameters())
    for got, wanted in zip(output(loaded.network), output(network), strict=True):
        torch.testing.assert_close(got, wanted, atol=near, rtol=near)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SD1, SDXL], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("folder", [True, False])
def test_diffusers(spec: UNetSpec, folder: bool, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    network = random_control(spec)
    path = tmp_path / "tile-xl"
    diffusers_control(network).save_pretrained(path)
    path = path if folder else path / "diffusion_pytorch_model.safetensors"
    loaded = load(path, model=None)  # the heads are in its config.json
    assert loaded.name == ("tile-xl" if folder else "diffusion_pytorch_model")
    for got, wanted in zip(output(loaded.network, spec), output(network, spec), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert (
        json.loads((tmp_path / "tile-xl/config.json").read_text())["block_out_channels"]
        == (diffusers_config(spec)["block_out_channels"])
    )


def test_matrices_for_1x1_convolutions(tmp_path: Path) -> None:
    network = random_control()
    tensors = {
        f"control_model.{name}": each.flatten(1) if each.dim() == 4 and each.shape[2:] == (1, 1) else each
        for name, each in network.state_dict().items()
    }
    save_file({name: each.contiguous() for name, each in tensors.items()}, tmp_path / "a.safetensors")
    torch.testing.assert_close(output(load(tmp_path / "a.safetensors").network)[0], output(network)[0])


def test_bfloat16(tmp_path: Path) -> None:
    loaded = load(control_file(tmp_path / "a.safetensors", random_control()), dtype=torch.bfloat16)
    assert loaded.network.dtype is torch.bfloat16


def test_the_wrong_family_is_refused_before_a_tensor_is_read(tmp_path: Path) -> None:
    path = control_file(tmp_path / "a.safetensors", random_control())
    with pytest.raises(CheckpointError, match=r"^controls\[0\]\.model='a': it is made for"):
        load(path, model=SD1_SPEC, said="controls[0].model='a'")
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: heads of 64 channels"):
        load(path, model=None)


def test_heads_out_of_metadata(tmp_path: Path) -> None:
    path = control_file(tmp_path / "a.safetensors", random_control(), **{"overpaint.num_heads": "4"})
    assert open_controlnet(path).spec.unet.heads == 4


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    tensors = random_control().state_dict()
    save_file({name: each for name, each in tensors.items() if "zero_convs.3" not in name}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: 2 tensors .* missing \(zero_convs\.3\.0\.weight"):
        load(tmp_path / "a.safetensors")
    tensors["zero_convs.3.0.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"zero_convs\.3\.0\.bias is \[5\]"):
        load(tmp_path / "b.safetensors")


def test_promises_that_no_memory_could_hold(tmp_path: Path) -> None:
    shapes = random_control().state_dict()
    shapes["input_blocks.0.0.weight"] = torch.zeros(320_000, 1)
    for name in ("input_blocks.1.0.out_layers.3.weight", "input_blocks.4.0.out_layers.3.weight"):
        shapes[name] = torch.zeros(320_000, 1, 1, 1)
    shapes |= {f"input_blocks.{i}.0.out_layers.3.weight": torch.zeros(320_000, 1, 1, 1) for i in (2, 5)}
    save_file(shapes, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="needs"):
        load(tmp_path / "a.safetensors", model=None)


def test_errors_name_the_file(tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: it looks like a LoRA"):
        load(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds no diffusion_pytorch_model"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "gone.pth")
    shuffle = control_file(tmp_path / "control_v11e_sd15_shuffle.safetensors", random_control())
    with pytest.raises(CheckpointError, match="averages"):
        load(shuffle)


def test_a_broken_configuration(tmp_path: Path) -> None:
    control_file(tmp_path / "diffusion_pytorch_model.safetensors", random_control())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load(tmp_path)
