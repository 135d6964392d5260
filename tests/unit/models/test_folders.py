"""Models in the folder layout of diffusers: where weights lie, what configurations tell, what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import load_checkpoint
from overpaint.models.detect import detect
from overpaint.models.families import ModelSpec
from overpaint.models.files import Weights, read_all
from overpaint.models.opened import open_model
from overpaint.models.shifts import ConstantShift
from overpaint.models.vaes import open_vae
from tests.unit.models.other_layouts import TEXT, UNET, VAE, Tensors, diffusers_unet, diffusers_vae, saved, tensors_of

UNET_CONFIG = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": 8,
    "block_out_channels": [32, 32, 32],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "sample_size": 24,
    "norm_num_groups": 32,
    "conv_in_kernel": 3,
}
NAME = "diffusion_pytorch_model.safetensors"


def written(path: Path, table: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def parts(tiny: Path) -> Mapping[str, Tensors]:
    return {
        "unet": diffusers_unet(tensors_of(tiny, UNET)),
        "vae": diffusers_vae(tensors_of(tiny, VAE)),
        "text_encoder": tensors_of(tiny, TEXT),
    }


@pytest.fixture
def folder(parts: Mapping[str, Tensors], tmp_path: Path) -> Path:
    """The small checkpoint as diffusers would keep it."""
    path = tmp_path / "Modell mit Ümlaut 模型"
    saved(path / "unet" / NAME, parts["unet"])
    saved(path / "vae" / NAME, parts["vae"])
    saved(path / "text_encoder" / "model.safetensors", parts["text_encoder"])
    written(path / "unet" / "config.json", UNET_CONFIG)
    written(path / "vae" / "config.json", {"scaling_factor": 0.18215})
    written(path / "text_encoder" / "config.json", {"num_attention_heads": 1, "hidden_act": "quick_gelu"})
    written(path / "scheduler" / "scheduler_config.json", {"prediction_type": "epsilon"})
    written(path / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    return path


def changed(folder: Path, part: str, **facts: object) -> None:
    config = folder / part
    written(config, {**json.loads(config.read_text("utf-8")), **facts})


def spec_of(weights: Weights) -> ModelSpec:
    return detect(weights.shapes, weights.metadata)


def same_as(weights: Weights, tiny: Path) -> None:
    read, wanted = dict(weights.read(weights.shapes)), read_all(tiny)
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[key], wanted[key]) and tuple(read[key].shape) == weights.shapes[key] for key in read)


def test_a_folder_is_the_checkpoint_it_was_made_of(folder: Path, tiny: Path) -> None:
    weights = open_model(folder)
    same_as(weights, tiny)
    spec = spec_of(weights)
    assert (spec.family, spec.prediction, spec.latent.scale, spec.native_size) == ("sd1", "eps", 0.18215, 192)
    assert (spec.unet.heads, spec.texts[0].heads, spec.texts[0].activation) == (8, 1, "quick_gelu")
    told = ("heads", "prediction", "scale_factor", "native_size", "text_heads", "text_activations")
    assert {spec.facts[name] for name in told} == {"metadata"}


def test_a_folder_is_loaded(folder: Path, tiny: Path) -> None:
    there, wanted = (load_checkpoint(path, dtype="float32", hashing=False) for path in (folder, tiny))
    assert (there.ignored, there.name) == ((), folder.name)
    x, t, context = torch.randn(1, 4, 8, 8), torch.tensor([400.0]), torch.randn(1, 77, 64)
    assert torch.equal(there.backend.denoise(x, t, context), wanted.backend.denoise(x, t, context))
    assert torch.equal(there.backend.decode(x), wanted.backend.decode(x))


@pytest.mark.parametrize(
    ("said", "shift"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 3.0),
        ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "flow_shift": 2}, 2.0),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 1.0),
    ],
)
def test_a_flow_scheduler_beside_a_unet(said: dict[str, object], shift: float, folder: Path) -> None:
    written(folder / "scheduler" / "scheduler_config.json", said)
    spec = spec_of(open_model(folder))
    assert (spec.prediction, spec.shift, spec.unet.time_factor) == ("flow", ConstantShift(shift), 1000.0)


def half(tensors: Tensors) -> Tensors:
    return {name: np.zeros_like(each) for name, each in tensors.items()}


def test_the_whole_is_taken_before_variants_and_pickles(folder: Path, parts: Mapping[str, Tensors], tiny: Path) -> None:
    saved(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", half(parts["unet"]))
    torch.save({"a": torch.zeros(2)}, folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / "unet" / "notes.txt").write_text("x")
    same_as(open_model(folder), tiny)


def test_a_variant_is_taken_where_there_is_nothing_else(folder: Path, tiny: Path) -> None:
    for part, name in (("unet", NAME), ("vae", NAME), ("text_encoder", "model.safetensors")):
        (folder / part / name).rename(folder / part / name.replace(".safe", ".fp16.safe"))
    same_as(open_model(folder), tiny)


def test_pickled_weights(folder: Path, parts: Mapping[str, Tensors], tiny: Path) -> None:
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")):
        for there in (folder / part).glob("*.safetensors"):
            there.unlink()
        torch.save({key: torch.from_numpy(each) for key, each in parts[part].items()}, folder / part / f"{name}.bin")
    same_as(open_model(folder), tiny)


def sharded(folder: Path, tensors: Tensors, variant: str = "") -> list[Path]:
    """The U-Net in three files and their list, as diffusers writes them."""
    (folder / "unet" / NAME).unlink()
    names = [f"diffusion_pytorch_model{variant}-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    places = {key: names[i % 3] for i, key in enumerate(tensors)}
    written(
        folder / "unet" / f"diffusion_pytorch_model.safetensors.index{variant}.json",
        {"metadata": {"total_size": 1}, "weight_map": places},
    )
    paths = [folder / "unet" / name for name in names]
    for path in paths:
        saved(path, {key: each for key, each in tensors.items() if places[key] == path.name})
    return paths


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_weights_in_several_files(variant: str, folder: Path, parts: Mapping[str, Tensors], tiny: Path) -> None:
    sharded(folder, parts["unet"], variant)
    same_as(open_model(folder), tiny)


def test_a_missing_shard_is_named(folder: Path, parts: Mapping[str, Tensors]) -> None:
    sharded(folder, parts["unet"])[1].unlink()
    with pytest.raises(
        CheckpointError, match=r"diffusion_pytorch_model-00002-of-00003\.safetensors: .*unet is missing"
    ):
        open_model(folder)


def test_a_tensor_that_is_not_in_its_shard(folder: Path, parts: Mapping[str, Tensors]) -> None:
    path = sharded(folder, parts["unet"])[2]
    saved(path, {"other": np.zeros(2, dtype=np.float32)})
    with pytest.raises(CheckpointError, match=r"00003-of-00003\.safetensors: tensor .* is not in it"):
        open_model(folder)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ({"weight_map": {"a": "../other.safetensors"}}, "no name of a file beside it"),
        ({"weight_map": {"a": 5}}, "does not say which file"),
        ({"weight_map": ["a"]}, "does not say which file"),
        ([], "no table"),
    ],
)
def test_lists_of_shards_that_cannot_be(index: object, match: str, folder: Path) -> None:
    (folder / "unet" / NAME).unlink()
    written(folder / "unet" / "diffusion_pytorch_model.safetensors.index.json", index)
    with pytest.raises(CheckpointError, match=match):
        open_model(folder)


def test_no_folder_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it is no model's folder: choose the one that holds model_index\.json"):
        open_model(tmp_path)
    written(tmp_path / "model_index.json", {"_class_name": "FluxPipeline"})
    with pytest.raises(CheckpointError, match=r"'FluxPipeline', which has no folder unet"):
        open_model(tmp_path)
    written(tmp_path / "unet" / "config.json", UNET_CONFIG)
    with pytest.raises(CheckpointError, match=r"its folder unet holds no diffusion_pytorch_model\.safetensors"):
        open_model(tmp_path)
    saved(tmp_path / "unet" / NAME, {"a": np.zeros(2, dtype=np.float32)})
    with pytest.raises(CheckpointError, match="its folder unet holds no U-Net"):
        open_model(tmp_path)


def test_configurations_that_cannot_be_read(folder: Path) -> None:
    (folder / "unet" / "config.json").write_bytes(b"{\xff")
    with pytest.raises(CheckpointError, match=r"unet/config\.json cannot be read"):
        open_model(folder)


@pytest.mark.parametrize(
    ("part", "facts", "match"),
    [
        ("unet", {"act_fn": "gelu"}, r"unet/config\.json: act_fn='gelu' is not supported \('silu' is\)"),
        ("unet", {"class_embed_type": "projection"}, "class_embed_type='projection'"),
        ("unet", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ("unet", {"attention_head_dim": [1, 2]}, "does not fit its levels"),
        ("unet", {"attention_head_dim": [1, 2, 0]}, "does not fit its levels"),
        ("unet", {"attention_head_dim": "many"}, "num_heads='many'"),
        (
            "unet",
            {"attention_head_dim": [1, 2, 3], "block_out_channels": [32, 64, 64]},
            "neither heads nor their width are equal",
        ),
        ("vae", {"shift_factor": 0.1}, "shift_factor=0.1"),
        ("text_encoder", {"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06"),
        ("text_encoder", {"hidden_act": "relu"}, "text_activations="),
        ("text_encoder", {"num_attention_heads": 7}, "do not divide a text encoder 64 wide"),
    ],
)
def test_networks_of_another_kind(part: str, facts: dict[str, Any], match: str, folder: Path) -> None:
    changed(folder, f"{part}/config.json", **facts)
    with pytest.raises(CheckpointError, match=match):
        spec_of(open_model(folder))


@pytest.mark.parametrize(
    ("facts", "heads", "head_dim"),
    [
        ({"attention_head_dim": 4}, 4, None),
        ({"attention_head_dim": 8, "num_attention_heads": 2}, 2, None),
        ({"attention_head_dim": [5, 4, 4]}, None, 8),  # the first level does not attend
        ({"attention_head_dim": [2, 4, 4], "block_out_channels": [32, 32, 64]}, 4, None),
        ({"attention_head_dim": None}, 8, None),  # not told: the family's
    ],
    ids=str,
)
def test_heads(facts: dict[str, Any], heads: int | None, head_dim: int | None, folder: Path) -> None:
    changed(folder, "unet/config.json", **facts)
    unet = spec_of(open_model(folder)).unet
    assert (unet.heads, unet.head_dim) == (heads, head_dim)


def test_prediction_of_the_scheduler(folder: Path) -> None:
    config = folder / "scheduler" / "scheduler_config.json"
    written(config, {"prediction_type": "v_prediction"})
    assert spec_of(open_model(folder)).prediction == "v"
    written(config, {"prediction_type": "sample"})
    with pytest.raises(CheckpointError, match=r"prediction_type='sample' is not supported"):
        open_model(folder)
    config.unlink()
    assert spec_of(open_model(folder)).facts["prediction"] == "family default"


def test_parts_that_a_folder_lacks_come_from_elsewhere(folder: Path, tiny: Path, tmp_path: Path) -> None:
    """A folder of the U-Net alone, and the folders of the others given as such."""
    unet, vae, text = (folder / name for name in ("unet", "vae", "text_encoder"))
    weights = open_model(unet, text_encoders=[text])
    spec = spec_of(weights)
    assert (spec.unet.heads, spec.texts[0].heads, spec.facts["vae"]) == (8, 1, "family default")
    wanted = read_all(tiny)
    read = dict(weights.read(weights.shapes)) | {VAE + key: each for key, each in read_vae(vae).items()}
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[key], wanted[key]) for key in read)
    with pytest.raises(CheckpointError, match="text_encoder_files"):
        spec_of(open_model(unet))


def read_vae(path: Path) -> dict[str, torch.Tensor]:
    weights = open_vae(path).weights
    return dict(weights.read(weights.shapes))


def test_a_folder_that_is_no_vae(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there are no weights in this folder"):
        open_vae(tmp_path)
    with pytest.raises(CheckpointError, match=r"encoder\.conv_in\.weight"):
        open_vae(folder / "text_encoder")
