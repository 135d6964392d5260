"""Which names the tensors of transformers and of their text encoders have elsewhere, in those of our networks.

Pure: names in, names out, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from overpaint.models.specs import NetworkKind, Origin, TextKind

Names = dict[str, Origin]  # ours -> theirs
_Replacements = tuple[tuple[str, str], ...]

_PARTS_OF_QKV = ("to_q", "to_k", "to_v")
_ZIMAGE: _Replacements = (
    ("all_final_layer.2-1.", "final_layer."),
    ("all_x_embedder.2-1.", "x_embedder."),
    (".attention.to_out.0.", ".attention.out."),
    (".attention.norm_q.", ".attention.q_norm."),
    (".attention.norm_k.", ".attention.k_norm."),
)
# The names of llama.cpp, as GGUF files have them.
_QWEN3_GGUF: _Replacements = (
    ("token_embd.", "embed_tokens."),
    ("output_norm.", "norm."),
    ("blk.", "layers."),
    (".attn_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
    (".attn_q_norm.", ".self_attn.q_norm."),
    (".attn_k_norm.", ".self_attn.k_norm."),
    (".attn_q.", ".self_attn.q_proj."),
    (".attn_k.", ".self_attn.k_proj."),
    (".attn_v.", ".self_attn.v_proj."),
    (".attn_output.", ".self_attn.o_proj."),
    (".ffn_gate.", ".mlp.gate_proj."),
    (".ffn_up.", ".mlp.up_proj."),
    (".ffn_down.", ".mlp.down_proj."),
)
_QWEN_IMAGE = ("txt_norm.weight", "transformer_blocks.0.attn.add_q_proj.weight", "proj_out.weight")
_T5: _Replacements = (("encoder.embed_tokens.", "shared."),)
_T5_GGUF: _Replacements = (
    ("token_embd.", "shared."),
    ("enc.output_norm.", "encoder.final_layer_norm."),
    ("enc.blk.", "encoder.block."),
    (".attn_rel_b.", ".layer.0.SelfAttention.relative_attention_bias."),
    (".attn_norm.", ".layer.0.layer_norm."),
    (".attn_q.", ".layer.0.SelfAttention.q."),
    (".attn_k.", ".layer.0.SelfAttention.k."),
    (".attn_v.", ".layer.0.SelfAttention.v."),
    (".attn_o.", ".layer.0.SelfAttention.o."),
    (".ffn_norm.", ".layer.1.layer_norm."),
    (".ffn_gate.", ".layer.1.DenseReluDense.wi_0."),
    (".ffn_up.", ".layer.1.DenseReluDense.wi_1."),
    (".ffn_down.", ".layer.1.DenseReluDense.wo."),
)


def transformer_names(keys: Iterable[str]) -> tuple[NetworkKind, Names] | None:
    """Which transformer has such tensors, named either way; None for anything else."""
    keys = tuple(keys)
    there = set(keys)
    for network, (own, theirs, rename) in _TRANSFORMERS.items():
        if there.issuperset(own):
            return network, {key: Origin((key,)) for key in keys}
        if there.issuperset(theirs):
            return network, rename(keys)
    return None


def text_names(keys: Iterable[str]) -> tuple[TextKind, Names] | None:
    """The same of a text encoder that is no CLIP, its prefix taken off."""
    keys = tuple(keys)
    for mark, (kind, replacements) in _TEXTS.items():
        if mark in keys:
            return kind, {_replaced(key, replacements): Origin((key,)) for key in keys}
    return None


VISION = "visual."  # of the vision tower, in the names of our networks and in others'


def vision_prefix(keys: Mapping[str, object], prefix: str) -> str | None:
    """Where the vision tower of the text encoder with such a prefix is: beside it; None where there is none."""
    starts = (f"{prefix.removesuffix(end)}{VISION}" for end in ("model.", "language_model.", ""))
    return next((each for each in starts if f"{each}patch_embed.proj.weight" in keys), None)


# The table of words that a text encoder's keys have somewhere, and what of its name is not its prefix.
TABLES_OF_WORDS = ("encoder.embed_tokens.weight", "embed_tokens.weight", "token_embd.weight", "shared.weight")


def diffusers_layers(network: NetworkKind, path: str) -> dict[str, str]:
    """What diffusers calls a layer of ours: its name -> ours, or our name and q, k or v for a third of it."""
    if network != "zimage":
        from overpaint.models.layout_tables import ROWS, names_of_layer

        return names_of_layer(path, ROWS[network]) if ROWS[network] else {path: path}
    replacements = _DIFFUSERS[network]
    theirs = path + "."
    for new, old in replacements:
        theirs = re.sub(rf"^{re.escape(old)}", new, theirs) if not old.startswith(".") else theirs.replace(old, new)
    theirs = theirs[:-1]
    if not theirs.endswith(".qkv"):
        return {theirs: path}
    return {f"{theirs.removesuffix('qkv')}to_{each}": f"{path}.{each}" for each in "qkv"}


def _zimage_names(keys: tuple[str, ...]) -> Names:
    names: Names = {}
    for key in keys:
        ours = _replaced(key, _ZIMAGE)
        part = next((each for each in _PARTS_OF_QKV if f".attention.{each}." in key), None)
        if part is None:
            names[ours] = Origin((key,))
        elif part == "to_q":
            fused = tuple(key.replace(".to_q.", f".{each}.") for each in _PARTS_OF_QKV)
            names[ours.replace(".to_q.", ".qkv.")] = Origin(fused)
    return names


def _replaced(key: str, replacements: _Replacements) -> str:
    for old, new in replacements:
        key = re.sub(rf"^{re.escape(old)}", new, key) if not old.startswith(".") else key.replace(old, new)
    return key


def _by_table(network: NetworkKind) -> _Renaming:
    """The table is loaded when it is needed, for most models need none."""

    def names(keys: tuple[str, ...]) -> Names:
        from overpaint.models.layout_tables import ROWS, origins

        return origins(keys, ROWS[network])

    return names


_OF_CHROMA = "distilled_guidance_layer.in_proj.weight"
_Renaming = Callable[[tuple[str, ...]], Names]
_TRANSFORMERS: Mapping[NetworkKind, tuple[tuple[str, ...], tuple[str, ...], _Renaming]] = {
    "zimage": (
        ("cap_embedder.1.weight", "layers.0.adaLN_modulation.0.weight", "layers.0.attention.qkv.weight"),
        ("cap_embedder.1.weight", "layers.0.adaLN_modulation.0.weight", "layers.0.attention.to_q.weight"),
        _zimage_names,
    ),
    "flux": (
        # Chroma and Flux.2 have no vector_in; ControlNets no last layer.
        ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight", "final_layer.linear.weight"),
        ("single_transformer_blocks.0.proj_mlp.weight", "context_embedder.weight", "norm_out.linear.weight"),
        _by_table("flux"),
    ),
    "chroma": (
        ("double_blocks.0.img_attn.qkv.weight", _OF_CHROMA, "final_layer.linear.weight"),
        ("single_transformer_blocks.0.proj_mlp.weight", _OF_CHROMA, "proj_out.weight"),
        _by_table("chroma"),
    ),
    "mmdit": (
        ("joint_blocks.0.x_block.attn.qkv.weight", "pos_embed", "final_layer.linear.weight"),
        ("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.pos_embed", "norm_out.linear.weight"),
        _by_table("mmdit"),
    ),
    "flux2": (
        ("double_blocks.0.img_attn.qkv.weight", "single_stream_modulation.lin.weight", "final_layer.linear.weight"),
        (
            "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight",
            "context_embedder.weight",
            "norm_out.linear.weight",
        ),
        _by_table("flux2"),
    ),
    # Other programs name it as diffusers does.
    "qwen_image": (_QWEN_IMAGE, _QWEN_IMAGE, _by_table("qwen_image")),
}
_DIFFUSERS: Mapping[NetworkKind, _Replacements] = {"zimage": _ZIMAGE}
# By a tensor that such a text encoder has.
_TEXTS: Mapping[str, tuple[TextKind, _Replacements]] = {
    "layers.0.self_attn.q_norm.weight": ("qwen3", ()),
    "blk.0.attn_q_norm.weight": ("qwen3", _QWEN3_GGUF),
    "layers.0.self_attn.q_proj.bias": ("qwen25", ()),
    "blk.0.attn_q.bias": ("qwen25", _QWEN3_GGUF),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": ("t5", _T5),
    "enc.blk.0.attn_rel_b.weight": ("t5", _T5_GGUF),
}
