"""Reading files: what of them is for a model, and what is said of files that are for none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from overpaint.adapters.lora import read_lora
from overpaint.adapters.names import UNET, LayerName
from overpaint.errors import CheckpointError
from overpaint.models.catalog import ModelFile
from overpaint.settings import Quirks
from tests.unit.toy_loras import SD1, lora_of, network_file

CONV_IN = "lora_unet_conv_in"
FC1 = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def test_layers_by_our_names(tmp_path: Path) -> None:
    layers = {
        CONV_IN: lora_of((32, 4, 3, 3)),
        FC1: {"diff": torch.ones(48, 24)},
        "lora_unet_elsewhere": lora_of((4, 4)),
    }
    file = network_file(tmp_path / "fur.safetensors", layers)
    read = read_lora(file, SD1)
    assert {layer: patch.kind.name for layer, patch in read.layers.items()} == {
        LayerName(UNET, "input_blocks.0.0"): "LoRA",
        LayerName(0, "encoder.layers.0.mlp.fc1"): "full",
    }
    assert {key.split(".")[0] for key in read.unmatched} == {"lora_unet_elsewhere"}
    assert read.file == file
    assert not read.embeddings


def test_hash_without_header_or_from_metadata(tmp_path: Path) -> None:  # FILE-10
    layers = {CONV_IN: lora_of((32, 4, 3, 3))}
    plain = network_file(tmp_path / "a.safetensors", layers)
    told = network_file(tmp_path / "b.safetensors", layers, {"sshs_model_hash": "ab" * 32})
    noted = network_file(tmp_path / "c.safetensors", layers, {"ss_output_name": "anything"})
    assert read_lora(told, SD1).hash12 == "abababababab"
    assert read_lora(plain, SD1).hash12 == read_lora(noted, SD1).hash12
    content = plain.path.read_bytes()
    tensors = content[8 + int.from_bytes(content[:8], "little") :]
    assert read_lora(plain, SD1).hash12 == hashlib.sha256(tensors).hexdigest()[:12]


def test_pickled_files(tmp_path: Path) -> None:  # FILE-12
    path = tmp_path / "old.pt"
    parts = {f"{CONV_IN}.{name}": value for name, value in lora_of((32, 4, 3, 3)).items()}
    torch.save({"state_dict": parts}, path)
    read = read_lora(ModelFile(path, "old", "old"), SD1)
    assert list(read.layers) == [LayerName(UNET, "input_blocks.0.0")]
    assert read.hash12 == hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def test_bundled_embeddings(tmp_path: Path) -> None:  # LORA-9
    vectors = {"word.string_to_param.*": torch.ones(2, 24), "other.clip_l": torch.ones(1, 24)}
    read = read_lora(network_file(tmp_path / "bundle.safetensors", {"bundle_emb": vectors}), SD1)
    assert set(read.embeddings) == {"bundle_emb.word.string_to_param.*", "bundle_emb.other.clip_l"}
    assert not read.layers
    assert not read.unmatched


@pytest.mark.parametrize("quirks", [Quirks.none(), Quirks.reference()])
def test_an_unknown_kind_fails_as_a_whole(tmp_path: Path, quirks: Quirks) -> None:  # LORA-4
    layers = {CONV_IN: lora_of((32, 4, 3, 3)), "lora_unet_conv_out": {"something": torch.ones(4)}}
    file = network_file(tmp_path / "odd.safetensors", layers)
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: 1 layers .*lora_unet_conv_out\.something"):
        read_lora(file, SD1, quirks)


@pytest.mark.parametrize(
    ("key", "width", "said"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", 24, "it looks made for Flux"),
        ("lora_te3_encoder_block_0_layer_0", 24, "it looks made for Stable Diffusion 3"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 24, "it looks made for SDXL"),
        ("lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn2_to_k", 1024, "Stable Diffusion 2"),
        ("unet.down_blocks.7.attentions.0.transformer_blocks.0.attn2.to_k", 2048, "it looks made for SDXL"),
        ("lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn2_to_k", 5, "its keys start like lora_unet_"),
    ],
)
def test_files_for_other_families(tmp_path: Path, key: str, width: int, said: str) -> None:
    file = network_file(tmp_path / "other.safetensors", {key: lora_of((8, width))})
    with pytest.raises(CheckpointError, match=rf"no layer of it belongs to a Stable Diffusion 1 model; .*{said}"):
        read_lora(file, SD1)
    read = read_lora(file, SD1, Quirks.reference())
    assert not read.layers
    assert len(read.unmatched) == 3


def test_broken_files(tmp_path: Path) -> None:
    file = network_file(tmp_path / "cut.safetensors", {CONV_IN: lora_of((32, 4, 3, 3))})
    content = file.path.read_bytes()
    for length in (0, 5, 40, len(content) - 4):
        file.path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
            read_lora(file, SD1)
    with pytest.raises(CheckpointError, match="no such file"):
        read_lora(ModelFile(tmp_path / "gone.safetensors", "gone", "gone"), SD1)
