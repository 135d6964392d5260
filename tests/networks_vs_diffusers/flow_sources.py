"""Narrow Flux.1 and Stable Diffusion 3 models of diffusers, and text encoders of transformers, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from tests.networks_vs_diffusers.flow_files import save, seeded, small_vae, with_random_weights
from tests.networks_vs_diffusers.original_layout import vae_tensors

CLIP_L, CLIP_G, T5 = 24, 40, 64  # widths
FLUX_WIDTH, SD3_WIDTH = 64, 64


def small_flux(*, guided: bool, inputs: int = 64) -> Any:
    import diffusers

    with seeded(11):
        network = diffusers.FluxTransformer2DModel(
            in_channels=inputs,
            out_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=T5,
            pooled_projection_dim=CLIP_L,
            guidance_embeds=guided,
            axes_dims_rope=(4, 14, 14),
        )
        return with_random_weights(network)


def small_chroma() -> Any:
    import diffusers

    with seeded(15):
        network = diffusers.ChromaTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=T5,
            axes_dims_rope=(4, 14, 14),
            approximator_num_channels=64,
            approximator_hidden_dim=40,
            approximator_layers=2,
        )
        return with_random_weights(network)


def small_sd3(*, later: bool) -> Any:
    """Of version 3, or of 3.5 medium: normed, with two attentions in the first block."""
    import diffusers

    with seeded(12):
        network = diffusers.SD3Transformer2DModel(
            sample_size=32,
            in_channels=16,
            num_layers=3,
            attention_head_dim=16 if later else SD3_WIDTH,
            num_attention_heads=4 if later else 1,
            joint_attention_dim=T5,
            caption_projection_dim=SD3_WIDTH,
            pooled_projection_dim=CLIP_L + CLIP_G,
            pos_embed_max_size=24,
            dual_attention_layers=(0, 1) if later else (),
            qk_norm="rms_norm" if later else None,
        )
        return with_random_weights(network)


def small_t5(vocabulary: int = 64) -> Any:
    import transformers

    config = transformers.T5Config(
        vocab_size=vocabulary,
        d_model=T5,
        d_kv=8,
        d_ff=40,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with seeded(13):
        return with_random_weights(transformers.T5EncoderModel(config))


def small_clip(width: int, activation: str, *, projected: bool) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=1,
        hidden_act=activation,
        projection_dim=width,
        eos_token_id=49407,
        pad_token_id=1,
        bos_token_id=49406,
    )
    made = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    with seeded(14 + width):
        return with_random_weights(made(config))


def t5_vocabulary(path: Path) -> Path:
    """A `tokenizer.json` of T5's kind that knows letters and a few words."""
    entries = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -3.0), ("▁red", -4.0)]
    entries += [("▁cat", -4.0), *((each, -8.0) for each in "abcdefghijklmnopqrstuvwxyz,.()")]
    made = tokenizers.Tokenizer(models.Unigram(entries, unk_id=2, byte_fallback=False))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    end = [("</s>", 1)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    made.enable_truncation(8)  # as published files may have it
    made.enable_padding(length=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(path))
    return path


# -- the names of the published files ----------------------------------------------------------------------------------


def _joined(theirs: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor:
    return torch.cat([theirs[name] for name in names])


def _turned(tensor: Tensor) -> Tensor:
    """diffusers has scale before shift."""
    return torch.cat(tensor.chunk(2)[::-1])


_EMBEDDERS = (("timestep_embedder", "time_in"), ("text_embedder", "vector_in"), ("guidance_embedder", "guidance_in"))


def flux_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Written down by hand, so that it is another source than the table it tests."""
    named: dict[str, Tensor] = {}
    for end in ("weight", "bias"):
        named[f"img_in.{end}"] = theirs[f"x_embedder.{end}"]
        named[f"txt_in.{end}"] = theirs[f"context_embedder.{end}"]
        named[f"final_layer.linear.{end}"] = theirs[f"proj_out.{end}"]
        named[f"final_layer.adaLN_modulation.1.{end}"] = _turned(theirs[f"norm_out.linear.{end}"])
        for old, new in _EMBEDDERS:
            for i, part in ((1, "in_layer"), (2, "out_layer")):
                key = f"time_text_embed.{old}.linear_{i}.{end}"
                if key in theirs:
                    named[f"{new}.{part}.{end}"] = theirs[key]
    for i in range(sum(key.startswith("transformer_blocks.") and key.endswith("to_q.weight") for key in theirs)):
        named |= _flux_double(theirs, f"transformer_blocks.{i}", f"double_blocks.{i}")
    for i in range(sum(key.startswith("single_transformer_blocks.") and key.endswith("to_q.weight") for key in theirs)):
        named |= _flux_single(theirs, f"single_transformer_blocks.{i}", f"single_blocks.{i}")
    return named


def _flux_double(theirs: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    named = {}
    sides = (("img", "", "to_{}", "to_out.0", "ff"), ("txt", "_context", "add_{}_proj", "to_add_out", "ff_context"))
    for side, norm, qkv, out, ff in sides:
        added = "added_" if side == "txt" else ""
        for each in ("query", "key"):
            named[f"{new}.{side}_attn.norm.{each}_norm.scale"] = theirs[f"{old}.attn.norm_{added}{each[0]}.weight"]
        for end in ("weight", "bias"):
            named[f"{new}.{side}_mod.lin.{end}"] = theirs[f"{old}.norm1{norm}.linear.{end}"]
            parts = tuple(f"{old}.attn.{qkv.format(each)}.{end}" for each in "qkv")
            named[f"{new}.{side}_attn.qkv.{end}"] = _joined(theirs, parts)
            named[f"{new}.{side}_attn.proj.{end}"] = theirs[f"{old}.attn.{out}.{end}"]
            named[f"{new}.{side}_mlp.0.{end}"] = theirs[f"{old}.{ff}.net.0.proj.{end}"]
            named[f"{new}.{side}_mlp.2.{end}"] = theirs[f"{old}.{ff}.net.2.{end}"]
    return named


def _flux_single(theirs: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    named = {f"{new}.norm.{each}_norm.scale": theirs[f"{old}.attn.norm_{each[0]}.weight"] for each in ("query", "key")}
    for end in ("weight", "bias"):
        parts = (*(f"{old}.attn.to_{each}.{end}" for each in "qkv"), f"{old}.proj_mlp.{end}")
        named[f"{new}.linear1.{end}"] = _joined(theirs, parts)
        named[f"{new}.linear2.{end}"] = theirs[f"{old}.proj_out.{end}"]
        named[f"{new}.modulation.lin.{end}"] = theirs[f"{old}.norm.linear.{end}"]
    return named


def chroma_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for Chroma, whose blocks have no layers for the time."""
    named: dict[str, Tensor] = {}
    told = "distilled_guidance_layer"
    for end in ("weight", "bias"):
        named[f"img_in.{end}"] = theirs[f"x_embedder.{end}"]
        named[f"txt_in.{end}"] = theirs[f"context_embedder.{end}"]
        named[f"final_layer.linear.{end}"] = theirs[f"proj_out.{end}"]
        for each in ("in_proj", "out_proj"):
            named[f"{told}.{each}.{end}"] = theirs[f"{told}.{each}.{end}"]
        for i in range(2):
            for old, new in (("linear_1", "in_layer"), ("linear_2", "out_layer")):
                named[f"{told}.layers.{i}.{new}.{end}"] = theirs[f"{told}.layers.{i}.{old}.{end}"]
    for i in range(2):
        named[f"{told}.norms.{i}.scale"] = theirs[f"{told}.norms.{i}.weight"]
    nothing = {key: torch.zeros(1) for i in range(2) for key in _modulations(i)}
    for i in range(2):
        named |= _flux_double({**theirs, **nothing}, f"transformer_blocks.{i}", f"double_blocks.{i}")
        named |= _flux_single({**theirs, **nothing}, f"single_transformer_blocks.{i}", f"single_blocks.{i}")
    return {name: each for name, each in named.items() if "_mod.lin" not in name and "modulation.lin" not in name}


def _modulations(block: int) -> list[str]:
    layers = [f"transformer_blocks.{block}.norm1.linear", f"transformer_blocks.{block}.norm1_context.linear"]
    layers.append(f"single_transformer_blocks.{block}.norm.linear")
    return [f"{each}.{end}" for each in layers for end in ("weight", "bias")]


def sd3_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for Stable Diffusion 3."""
    named = {"pos_embed": theirs["pos_embed.pos_embed"]}
    blocks = sum(key.endswith("attn.add_q_proj.weight") for key in theirs)
    for end in ("weight", "bias"):
        named[f"x_embedder.proj.{end}"] = theirs[f"pos_embed.proj.{end}"]
        named[f"context_embedder.{end}"] = theirs[f"context_embedder.{end}"]
        named[f"final_layer.linear.{end}"] = theirs[f"proj_out.{end}"]
        named[f"final_layer.adaLN_modulation.1.{end}"] = _turned(theirs[f"norm_out.linear.{end}"])
        for old, new in (("timestep_embedder", "t_embedder"), ("text_embedder", "y_embedder")):
            for i, part in ((1, 0), (2, 2)):
                named[f"{new}.mlp.{part}.{end}"] = theirs[f"time_text_embed.{old}.linear_{i}.{end}"]
    for i in range(blocks):
        named |= _sd3_block(theirs, f"transformer_blocks.{i}", f"joint_blocks.{i}", last=i == blocks - 1)
    return named


def _sd3_block(theirs: Mapping[str, Tensor], old: str, new: str, *, last: bool) -> dict[str, Tensor]:
    named = {}
    for end in ("weight", "bias"):
        for side, qkv, norm in (("x", "to_{}", "norm1"), ("context", "add_{}_proj", "norm1_context")):
            parts = tuple(f"{old}.attn.{qkv.format(each)}.{end}" for each in "qkv")
            named[f"{new}.{side}_block.attn.qkv.{end}"] = _joined(theirs, parts)
            told = theirs[f"{old}.{norm}.linear.{end}"]
            named[f"{new}.{side}_block.adaLN_modulation.1.{end}"] = (
                _turned(told) if last and side == "context" else told
            )
        named[f"{new}.x_block.attn.proj.{end}"] = theirs[f"{old}.attn.to_out.0.{end}"]
        for side, ff in (("x", "ff"), ("context", "ff_context"))[: 1 if last else 2]:
            named[f"{new}.{side}_block.mlp.fc1.{end}"] = theirs[f"{old}.{ff}.net.0.proj.{end}"]
            named[f"{new}.{side}_block.mlp.fc2.{end}"] = theirs[f"{old}.{ff}.net.2.{end}"]
        if not last:
            named[f"{new}.context_block.attn.proj.{end}"] = theirs[f"{old}.attn.to_add_out.{end}"]
        if f"{old}.attn2.to_q.{end}" in theirs:
            named[f"{new}.x_block.attn2.qkv.{end}"] = _joined(
                theirs, tuple(f"{old}.attn2.to_{each}.{end}" for each in "qkv")
            )
            named[f"{new}.x_block.attn2.proj.{end}"] = theirs[f"{old}.attn2.to_out.0.{end}"]
    for attn, norm, side in (("attn", "norm_", "x"), ("attn", "norm_added_", "context"), ("attn2", "norm_", "x")):
        for each in "qk":
            key = f"{old}.{attn}.{norm}{each}.weight"
            if key in theirs:
                named[f"{new}.{side}_block.{attn}.ln_{each}.weight"] = theirs[key]
    return named


# -- files as people have them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlowParts:
    """Both sides: networks of diffusers and transformers, and the folder with the files that other programs have."""

    transformer: Any
    texts: tuple[Any, ...]  # in the order of the family
    vae: Any
    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / "diffusion_models" / self.name

    @property
    def tokenizer(self) -> Path:
        return self.folder / "text_encoders" / "t5.tokenizer.json"


def flux_parts(folder: Path, kind: str = "dev") -> FlowParts:
    """A transformer alone, and beside it `clip_l`, `t5xxl` and `ae`. Only its name tells Kontext from dev."""
    texts = small_clip(CLIP_L, "quick_gelu", projected=False), small_t5()
    network = small_flux(guided=kind != "schnell", inputs=384 if kind == "fill" else 64)
    parts = FlowParts(network, texts, small_vae(still=True), folder, f"flux1-{kind}.safetensors")
    save(flux_tensors(parts.transformer.state_dict()), parts.path)
    _save_beside(parts, ("clip_l", "t5xxl_fp16"), "ae")
    return parts


def chroma_parts(folder: Path) -> FlowParts:
    """The same for Chroma, which reads T5 alone."""
    parts = FlowParts(small_chroma(), (small_t5(),), small_vae(still=True), folder, "Chroma1-HD.safetensors")
    save(chroma_tensors(parts.transformer.state_dict()), parts.path)
    _save_beside(parts, ("t5xxl_fp16",), "ae")
    return parts


def sd3_parts(folder: Path, *, later: bool = True, t5: bool = True) -> FlowParts:
    """The same for Stable Diffusion 3; its T5 may be missing."""
    clips = (
        small_clip(CLIP_L, "quick_gelu", projected=True),
        small_clip(CLIP_G, "gelu", projected=True),
    )
    vae = small_vae(still=True)
    vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    texts = (*clips, small_t5()) if t5 else clips
    parts = FlowParts(small_sd3(later=later), texts, vae, folder, "sd3.5_medium.safetensors")
    named = {f"model.diffusion_model.{key}": each for key, each in sd3_tensors(parts.transformer.state_dict()).items()}
    save(named, parts.path)
    _save_beside(parts, ("clip_l", "clip_g", "t5xxl_fp16"), "sd3_vae")
    return parts


def _save_beside(parts: FlowParts, names: tuple[str, ...], vae: str) -> None:
    for name, text in zip(names, parts.texts, strict=False):
        tensors = {key: each for key, each in text.state_dict().items() if key != "encoder.embed_tokens.weight"}
        save(tensors, parts.folder / "text_encoders" / f"{name}.safetensors")
    save(vae_tensors(parts.vae), parts.folder / "vae" / f"{vae}.safetensors")
    t5_vocabulary(parts.tokenizer)
