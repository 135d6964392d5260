"""The names of other layouts, one of each kind; whole networks are compared in tests/networks_vs_diffusers."""

from __future__ import annotations

import pytest

from overpaint.errors import CheckpointError
from overpaint.models.layouts import is_diffusers_unet, is_diffusers_vae, openclip_names, unet_names, vae_names

# A U-Net of three levels with two residual blocks each; the middle one and the last attend.
LEVELS, BLOCKS = 3, 2
STACKS = [f"{side}_blocks.{i}.resnets.{j}.conv1.weight" for side in ("down", "up") for i in range(3) for j in range(2)]
STACKS += [f"up_blocks.{i}.resnets.2.conv1.weight" for i in range(3)]
STACKS += ["up_blocks.1.attentions.0.proj_in.weight"]

UNET = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "conv_norm_out.bias": "out.0.bias",
    "conv_out.weight": "out.2.weight",
    "time_embedding.linear_1.weight": "time_embed.0.weight",
    "time_embedding.linear_2.bias": "time_embed.2.bias",
    "add_embedding.linear_1.bias": "label_emb.0.0.bias",
    "add_embedding.linear_2.weight": "label_emb.0.2.weight",
    "down_blocks.0.resnets.1.norm1.weight": "input_blocks.2.0.in_layers.0.weight",
    "down_blocks.0.downsamplers.0.conv.bias": "input_blocks.3.0.op.bias",
    "down_blocks.1.resnets.0.time_emb_proj.weight": "input_blocks.4.0.emb_layers.1.weight",
    "down_blocks.1.attentions.1.norm.weight": "input_blocks.5.1.norm.weight",
    "down_blocks.2.resnets.1.conv_shortcut.weight": "input_blocks.8.0.skip_connection.weight",
    "mid_block.resnets.0.norm2.bias": "middle_block.0.out_layers.0.bias",
    "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj.weight": (
        "middle_block.1.transformer_blocks.9.ff.net.0.proj.weight"
    ),
    "mid_block.resnets.1.conv2.weight": "middle_block.2.out_layers.3.weight",
    "up_blocks.0.resnets.2.conv1.bias": "output_blocks.2.0.in_layers.2.bias",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.bias": (
        "output_blocks.3.1.transformer_blocks.0.attn2.to_out.0.bias"
    ),
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.2.resnets.2.conv2.weight": "output_blocks.8.0.out_layers.3.weight",
}


def test_names_of_a_unet() -> None:  # ARCH-3 to ARCH-6
    names = unet_names([*STACKS, *UNET, "v_pred"])
    assert {key: names[key] for key in UNET} == UNET
    assert "v_pred" not in names


@pytest.mark.parametrize(
    "key",
    [
        "class_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.spatial_res_block.conv1.weight",
        "down_blocks.0.motion_modules.0.norm.weight",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_k_ip.weight",
        "down_blocks.0.downsamplers.0.norm.weight",
        "mid_block.attentions.1.norm.weight",
        "up_blocks.0.upsamplers.1.x.weight",
    ],
)
def test_names_of_another_kind_of_unet(key: str) -> None:
    with pytest.raises(CheckpointError, match="belongs to no U-Net"):
        unet_names([*STACKS, key])


VAE = {
    "encoder.conv_in.weight": "encoder.conv_in.weight",
    "encoder.down_blocks.1.resnets.0.conv_shortcut.bias": "encoder.down.1.block.0.nin_shortcut.bias",
    "encoder.down_blocks.2.downsamplers.0.conv.weight": "encoder.down.2.downsample.conv.weight",
    "encoder.mid_block.resnets.1.norm2.weight": "encoder.mid.block_2.norm2.weight",
    "encoder.mid_block.attentions.0.to_out.0.weight": "encoder.mid.attn_1.proj_out.weight",
    "encoder.mid_block.attentions.0.group_norm.weight": "encoder.mid.attn_1.norm.weight",
    "encoder.conv_norm_out.bias": "encoder.norm_out.bias",
    "decoder.mid_block.attentions.0.query.weight": "decoder.mid.attn_1.q.weight",
    "decoder.mid_block.attentions.0.proj_attn.bias": "decoder.mid.attn_1.proj_out.bias",
    "decoder.up_blocks.0.resnets.2.conv1.weight": "decoder.up.3.block.2.conv1.weight",
    "decoder.up_blocks.2.upsamplers.0.conv.bias": "decoder.up.1.upsample.conv.bias",
    "decoder.up_blocks.3.resnets.0.norm1.weight": "decoder.up.0.block.0.norm1.weight",
    "decoder.conv_out.weight": "decoder.conv_out.weight",
    "quant_conv.weight": "quant_conv.weight",
    "post_quant_conv.bias": "post_quant_conv.bias",
}


def test_names_of_a_codec() -> None:  # ARCH-7
    assert vae_names(VAE) == VAE
    assert is_diffusers_vae(VAE)
    assert not is_diffusers_vae(VAE.values())


@pytest.mark.parametrize(
    "key", ["encoder.down_blocks.0.attentions.0.norm.weight", "loss.x", "decoder.mid_block.attentions.0.to_x.weight"]
)
def test_names_of_another_kind_of_codec(key: str) -> None:
    with pytest.raises(CheckpointError, match="belongs to no VAE"):
        vae_names([*VAE, key])


def test_names_of_openclip() -> None:  # ARCH-8
    start = "encoder.layers.11."
    names = openclip_names(
        [
            "embeddings.position_embedding.weight",
            "embeddings.position_ids",
            f"{start}self_attn.q_proj.bias",
            f"{start}self_attn.k_proj.bias",
            f"{start}self_attn.v_proj.bias",
            f"{start}self_attn.out_proj.weight",
            f"{start}mlp.fc2.weight",
            f"{start}layer_norm2.bias",
            "final_layer_norm.weight",
        ]
    )
    assert names == {
        "positional_embedding": ("embeddings.position_embedding.weight",),
        "transformer.resblocks.11.attn.in_proj_bias": tuple(f"{start}self_attn.{each}_proj.bias" for each in "qkv"),
        "transformer.resblocks.11.attn.out_proj.weight": (f"{start}self_attn.out_proj.weight",),
        "transformer.resblocks.11.mlp.c_proj.weight": (f"{start}mlp.fc2.weight",),
        "transformer.resblocks.11.ln_2.bias": (f"{start}layer_norm2.bias",),
        "ln_final.weight": ("final_layer_norm.weight",),
    }


def test_a_controlnet_is_no_unet() -> None:
    assert is_diffusers_unet([*UNET, *STACKS])
    assert not is_diffusers_unet([key for key in [*UNET, *STACKS] if not key.startswith(("up_blocks", "conv_out"))])
