"""Every name that a layer has been given leads to the same layer."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from overpaint.adapters.names import UNET, find_layer, layer_names
from overpaint.models.families import ModelSpec
from tests.unit.toy_loras import SD1, SD2, SDXL, toy_networks

DOWN = "lora_down.weight"
TO_Q = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
TO_OUT = "input_blocks.4.1.transformer_blocks.0.attn1.to_out.0"
DIFFUSERS_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def found(key: str, spec: ModelSpec = SD1) -> tuple[int, str, str] | None:
    each = find_layer(key, layer_names(spec))
    return (*each.layer, each.part) if each else None


@pytest.mark.parametrize(
    "key",  # LORA-3 and what diffusers and peft write
    [
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "oft_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        f"diffusion_model.{TO_Q}.lora_A.weight",
        f"model.diffusion_model.{TO_Q}.lora_A.weight",
        f"unet.{DIFFUSERS_Q}.lora_A.weight",
        f"unet.{DIFFUSERS_Q}.lora_A.default.weight",
        f"unet.{DIFFUSERS_Q}.lora.down.weight",
        f"{DIFFUSERS_Q}.lora_A.weight",
        f"base_model.model.{DIFFUSERS_Q}.lora_A.weight",
        f"base_model.model.unet.{DIFFUSERS_Q}.lora_A.default.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
    ],
)
def test_all_schemes_name_one_layer_of_the_unet(key: str) -> None:
    assert found(key) == (UNET, TO_Q, DOWN)


def test_the_old_processors_output() -> None:
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight"
    assert found(key) == (UNET, TO_OUT, "lora_up.weight")


@pytest.mark.parametrize(
    ("name", "path"),  # LORA-3, for two levels
    [
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding_linear_1", "time_embed.0"),
        ("time_embedding_linear_2", "time_embed.2"),
        ("down_blocks_0_resnets_1_conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks_0_downsamplers_0_conv", "input_blocks.3.0.op"),
        ("down_blocks_1_resnets_0_conv2", "input_blocks.4.0.out_layers.3"),
        ("down_blocks_1_resnets_0_norm1", "input_blocks.4.0.in_layers.0"),
        ("down_blocks_1_resnets_0_norm2", "input_blocks.4.0.out_layers.0"),
        ("down_blocks_1_resnets_0_time_emb_proj", "input_blocks.4.0.emb_layers.1"),
        ("down_blocks_1_resnets_0_conv_shortcut", "input_blocks.4.0.skip_connection"),
        ("down_blocks_1_attentions_1_proj_in", "input_blocks.5.1.proj_in"),
        ("mid_block_attentions_0_norm", "middle_block.1.norm"),
        ("mid_block_resnets_1_conv1", "middle_block.2.in_layers.2"),
        ("up_blocks_0_attentions_2_proj_out", "output_blocks.2.1.proj_out"),
        ("up_blocks_0_upsamplers_0_conv", "output_blocks.2.2.conv"),
        ("up_blocks_1_resnets_0_conv1", "output_blocks.3.0.in_layers.2"),
    ],
)
def test_diffusers_arrangement(name: str, path: str) -> None:
    assert found(f"lora_unet_{name}.alpha") == (UNET, path, "alpha")
    assert found(f"lora_unet_{path.replace('.', '_')}.alpha") == (UNET, path, "alpha")


LAYER = "text_model_encoder_layers_1_"
DOTTED = "text_model.encoder.layers.1."


@pytest.mark.parametrize(
    ("spec", "key", "expected"),
    [
        (SD1, f"lora_te_{LAYER}mlp_fc1.alpha", (0, "encoder.layers.1.mlp.fc1")),
        (SD1, f"lora_te1_{LAYER}mlp_fc1.alpha", (0, "encoder.layers.1.mlp.fc1")),
        (SD1, f"lora_te2_{LAYER}mlp_fc1.alpha", None),
        (SD1, f"lora_te_{LAYER}self_attn_q_proj.alpha", (0, "encoder.layers.1.self_attn.q_proj")),
        (SD1, f"text_encoder.{DOTTED}self_attn.q_proj.alpha", (0, "encoder.layers.1.self_attn.q_proj")),
        (SD1, f"base_model.model.{DOTTED}self_attn.q_proj.alpha", (0, "encoder.layers.1.self_attn.q_proj")),
        (SD2, f"lora_te_{LAYER}mlp_fc2.alpha", (0, "transformer.resblocks.1.mlp.c_proj")),
        (SD2, f"lora_te_{LAYER}self_attn_k_proj.alpha", (0, "transformer.resblocks.1.attn.k_proj")),
        (SD2, f"lora_te_{LAYER}self_attn_out_proj.alpha", (0, "transformer.resblocks.1.attn.out_proj")),
        (SD2, f"lora_te1_{LAYER}mlp_fc2.alpha", None),
        (SDXL, f"lora_te_{LAYER}mlp_fc1.alpha", None),
        (SDXL, f"lora_te1_{LAYER}mlp_fc1.alpha", (0, "encoder.layers.1.mlp.fc1")),
        (SDXL, f"lora_te2_{LAYER}mlp_fc1.alpha", (1, "transformer.resblocks.1.mlp.c_fc")),
        (SDXL, f"text_encoder_2.{DOTTED}self_attn.v_proj.alpha", (1, "transformer.resblocks.1.attn.v_proj")),
        (SDXL, "1_model_transformer_resblocks_1_ln_1.alpha", (1, "transformer.resblocks.1.ln_1")),
    ],
)
def test_text_encoders(spec: ModelSpec, key: str, expected: tuple[int, str] | None) -> None:
    assert found(key, spec) == ((*expected, "alpha") if expected else None)


def test_old_diffusers_text_encoders() -> None:
    assert found(f"text_encoder.{DOTTED}self_attn.to_out_lora.down.weight") == (
        0,
        "encoder.layers.1.self_attn.out_proj",
        DOWN,
    )
    assert found(f"text_encoder.{DOTTED}self_attn.q_proj.lora_linear_layer.up.weight") == (
        0,
        "encoder.layers.1.self_attn.q_proj",
        "lora_up.weight",
    )


def test_unknown_parts_stay_to_be_complained_about() -> None:  # LORA-4
    assert found("lora_unet_conv_in.something.else") == (UNET, "input_blocks.0.0", "something.else")
    assert found("lora_unet_nowhere.alpha") is None
    assert found("alpha") is None


@pytest.mark.parametrize("spec", [SD1, SD2, SDXL], ids=lambda spec: spec.family)
def test_every_name_is_of_a_layer_that_is_there(spec: ModelSpec) -> None:
    networks = toy_networks(spec)
    layers = {*layer_names(spec).values()}
    for network, path in layers:
        module = networks.unet if network == UNET else networks.texts[network]
        owner, _, leaf = path.rpartition(".")
        parent = module.get_submodule(owner)
        fused = hasattr(parent, "in_proj_weight") and leaf in ("q_proj", "k_proj", "v_proj")
        assert fused or hasattr(module.get_submodule(path), "weight")
    weights = [name for name, _ in networks.unet.named_parameters() if name.endswith(".weight")]
    assert {f"{path}.weight" for network, path in layers if network == UNET} == set(weights)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "added"), [(SD1, None), (SDXL, "text_time")], ids=["sd1", "sdxl"])
def test_diffusers_own_names_all_lead_somewhere(spec: ModelSpec, added: str | None) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers: Any = pytest.importorskip("diffusers")
        with torch.device("meta"):
            network = diffusers.UNet2DConditionModel(
                block_out_channels=(32, 64),
                layers_per_block=2,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=24,
                attention_head_dim=4,
                addition_embed_type=added,
                addition_time_embed_dim=4 if added else None,
                projection_class_embeddings_input_dim=16 if added else None,
            )
    names = [name.removesuffix(".weight") for name, _ in network.named_parameters() if name.endswith(".weight")]
    layers = {found(f"unet.{name}.alpha", spec) for name in names}
    assert None not in layers
    assert len(layers) == len(names)
    assert len(layers) == len({each for each in layer_names(spec).values() if each.network == UNET})
    assert layers == {found(f"lora_unet_{name.replace('.', '_')}.alpha", spec) for name in names}
