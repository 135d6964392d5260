"""Narrow Qwen-Image and Flux.2 klein models of diffusers and transformers with random weights, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.networks_vs_diffusers.flow_files import save, seeded, small_vocabulary, with_random_weights

QWEN_WORDS, QWEN_WIDTH = 256, 64  # a head of Qwen2.5-VL is 128 wide, always
KLEIN_WORDS, KLEIN_WIDTH, LATENTS = 16, 32, 128
VOCABULARY = 256 + 8


def small_qwen_image(*, clean: bool = False) -> Any:
    import diffusers

    with seeded(21):
        network = diffusers.QwenImageTransformer2DModel(
            in_channels=64,
            out_channels=16,
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=QWEN_WORDS,
            axes_dims_rope=(4, 14, 14),
            zero_cond_t=clean,
        )
        return with_random_weights(network)


def small_qwen25() -> Any:
    """The language half of Qwen2.5-VL."""
    import transformers

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": QWEN_WORDS,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        "max_window_layers": 2,
    }
    eyes = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": QWEN_WORDS}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=eyes)
    with seeded(22):
        return with_random_weights(transformers.Qwen2_5_VLForConditionalGeneration(config))


def small_wan_vae(still: bool = False) -> Any:
    """A `still` one has a posterior without width."""
    import diffusers

    with seeded(23):
        vae = diffusers.AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
        with_random_weights(vae)
    if still:
        vae.quant_conv.weight.data[16:] = 0
        vae.quant_conv.bias.data[16:] = -30
    return vae


def small_flux2() -> Any:
    import diffusers

    with seeded(24):
        network = diffusers.Flux2Transformer2DModel(
            in_channels=LATENTS,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * KLEIN_WORDS,
            mlp_ratio=3.0,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        return with_random_weights(network)


def small_deep_qwen3() -> Any:
    """As many layers as klein reads."""
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=KLEIN_WORDS,
        intermediate_size=24,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )
    with seeded(25):
        return with_random_weights(transformers.Qwen3ForCausalLM(config))


def small_flux2_vae(still: bool = False) -> Any:
    import diffusers

    with seeded(26):
        vae = diffusers.AutoencoderKLFlux2(block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=32)
        with_random_weights(vae)
        vae.bn.running_mean.copy_(torch.randn(LATENTS) * 0.3)
        vae.bn.running_var.copy_(torch.rand(LATENTS) + 0.5)
    if still:
        vae.quant_conv.weight.data[32:] = 0
        vae.quant_conv.bias.data[32:] = -30
    return vae


# -- the names of the published files ----------------------------------------------------------------------------------


def wan_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Written down by hand, so that it is another source than the table it tests; diffusers converts the other way."""
    named: dict[str, Tensor] = {}
    inside = {"norm1.": "residual.0.", "conv1.": "residual.2.", "norm2.": "residual.3.", "conv2.": "residual.6."}
    inside["conv_shortcut."] = "shortcut."
    outside = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
    per_level = 1 + max(int(key.split(".")[4]) for key in theirs if ".up_blocks." in key and ".resnets." in key)
    for key, tensor in theirs.items():
        if key.startswith(("quant_conv.", "post_quant_conv.")):
            named[key.replace("post_quant_conv", "conv2").replace("quant_conv", "conv1")] = tensor
            continue
        side, part, rest = key.split(".", 2)
        if part in outside:
            named[f"{side}.{outside[part]}.{rest}"] = tensor
            continue
        if part == "mid_block":
            kind, number, rest = rest.split(".", 2)
            start = f"{side}.middle.{1 if kind == 'attentions' else 2 * int(number)}"
        elif part == "down_blocks":
            number, rest = rest.split(".", 1)
            start = f"{side}.downsamples.{number}"
        else:
            level, kind, number, rest = rest.split(".", 3)
            place = int(number) if kind == "resnets" else per_level
            start = f"{side}.upsamples.{int(level) * (per_level + 1) + place}"
        for old, new in inside.items() if part != "mid_block" or kind == "resnets" else ():
            rest = rest.replace(old, new) if rest.startswith(old) else rest
        named[f"{start}.{rest}"] = tensor
    return named


def flux2_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {
        "img_in.weight": theirs["x_embedder.weight"],
        "txt_in.weight": theirs["context_embedder.weight"],
        "time_in.in_layer.weight": theirs["time_guidance_embed.timestep_embedder.linear_1.weight"],
        "time_in.out_layer.weight": theirs["time_guidance_embed.timestep_embedder.linear_2.weight"],
        "final_layer.linear.weight": theirs["proj_out.weight"],
        "final_layer.adaLN_modulation.1.weight": torch.cat(theirs["norm_out.linear.weight"].chunk(2)[::-1]),
    }
    for kind in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"):
        named[f"{kind}.lin.weight"] = theirs[f"{kind}.linear.weight"]
    for i in range(sum(key.endswith("attn.add_q_proj.weight") for key in theirs)):
        old, new = f"transformer_blocks.{i}", f"double_blocks.{i}"
        sides = (("img", "to_{}", "to_out.0", "ff", ""), ("txt", "add_{}_proj", "to_add_out", "ff_context", "added_"))
        for side, qkv, out, ff, added in sides:
            parts = [theirs[f"{old}.attn.{qkv.format(each)}.weight"] for each in "qkv"]
            named[f"{new}.{side}_attn.qkv.weight"] = torch.cat(parts)
            named[f"{new}.{side}_attn.proj.weight"] = theirs[f"{old}.attn.{out}.weight"]
            named[f"{new}.{side}_mlp.0.weight"] = theirs[f"{old}.{ff}.linear_in.weight"]
            named[f"{new}.{side}_mlp.2.weight"] = theirs[f"{old}.{ff}.linear_out.weight"]
            for each in ("query", "key"):
                named[f"{new}.{side}_attn.norm.{each}_norm.scale"] = theirs[f"{old}.attn.norm_{added}{each[0]}.weight"]
    for i in range(sum(key.endswith("attn.to_qkv_mlp_proj.weight") for key in theirs)):
        old, new = f"single_transformer_blocks.{i}.attn", f"single_blocks.{i}"
        named[f"{new}.linear1.weight"] = theirs[f"{old}.to_qkv_mlp_proj.weight"]
        named[f"{new}.linear2.weight"] = theirs[f"{old}.to_out.weight"]
        for each in ("query", "key"):
            named[f"{new}.norm.{each}_norm.scale"] = theirs[f"{old}.norm_{each[0]}.weight"]
    return named


# -- files as people have them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewerParts:
    """Both sides: networks of diffusers and transformers, and the folder with the files that other programs have."""

    transformer: Any
    text: Any
    vae: Any
    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / "diffusion_models" / self.name

    @property
    def text_path(self) -> Path:
        return next((self.folder / "text_encoders").glob("*.safetensors"))

    @property
    def vae_path(self) -> Path:
        return next((self.folder / "vae").glob("*.safetensors"))

    @property
    def vocabulary(self) -> Path:
        return self.folder / "text_encoders" / "tokenizer.json"


def qwen_parts(folder: Path) -> NewerParts:
    """A transformer alone, and beside it the text encoder and the VAE."""
    parts = NewerParts(
        small_qwen_image(), small_qwen25(), small_wan_vae(still=True), folder, "qwen_image_bf16.safetensors"
    )
    save(parts.transformer.state_dict(), parts.path)
    save(language_half(parts.text), folder / "text_encoders" / "qwen_2.5_vl_7b.safetensors")
    save(wan_tensors(parts.vae.state_dict()), folder / "vae" / "qwen_image_vae.safetensors")
    small_vocabulary(parts.vocabulary)
    return parts


def language_half(text: Any) -> dict[str, Tensor]:
    """In the names of the published file, with eyes and the last layer that it has, too."""
    named = {}
    for key, each in text.state_dict().items():
        key = key.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        named[key] = each.clone()
    return named


def klein_parts(folder: Path) -> NewerParts:
    name = "flux-2-klein-4b.safetensors"
    parts = NewerParts(small_flux2(), small_deep_qwen3(), small_flux2_vae(still=True), folder, name)
    save(flux2_tensors(parts.transformer.state_dict()), parts.path)
    text = {key: each.clone() for key, each in parts.text.state_dict().items()}
    save(text, folder / "text_encoders" / "qwen_3_4b.safetensors")
    save(parts.vae.state_dict(), folder / "vae" / "flux2-vae.safetensors")
    small_vocabulary(parts.vocabulary)
    return parts
