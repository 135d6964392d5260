"""What diffusers and trainers call the layers of flow transformers: one table for files and LoRAs alike.

A row is our layer and theirs; `*` is the number of a block. Where we keep in one layer what they keep in several,
theirs are listed in the order of its rows. Pure: names only, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from overpaint.models.specs import NetworkKind, Origin

Row = tuple[str, tuple[str, ...]]

# The parts of a fused layer, as `adapters.wear` cuts it: queries, keys, values, and what else is in it.
PARTS = ("q", "k", "v", "mlp")

_TIME = "time_text_embed.timestep_embedder"
_TEXT = "time_text_embed.text_embedder"
_GUIDANCE = "time_text_embed.guidance_embedder"


def _qkv(start: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(start + name for name in names)


_FLUX_DOUBLE, _FLUX_SINGLE = "transformer_blocks.*", "single_transformer_blocks.*"
_OWN, _ADDED = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")

FLUX_ROWS: tuple[Row, ...] = (
    ("img_in", ("x_embedder",)),
    ("txt_in", ("context_embedder",)),
    ("time_in.in_layer", (f"{_TIME}.linear_1",)),
    ("time_in.out_layer", (f"{_TIME}.linear_2",)),
    ("vector_in.in_layer", (f"{_TEXT}.linear_1",)),
    ("vector_in.out_layer", (f"{_TEXT}.linear_2",)),
    ("guidance_in.in_layer", (f"{_GUIDANCE}.linear_1",)),
    ("guidance_in.out_layer", (f"{_GUIDANCE}.linear_2",)),
    ("double_blocks.*.img_mod.lin", (f"{_FLUX_DOUBLE}.norm1.linear",)),
    ("double_blocks.*.txt_mod.lin", (f"{_FLUX_DOUBLE}.norm1_context.linear",)),
    ("double_blocks.*.img_attn.qkv", _qkv(f"{_FLUX_DOUBLE}.attn.", _OWN)),
    ("double_blocks.*.txt_attn.qkv", _qkv(f"{_FLUX_DOUBLE}.attn.", _ADDED)),
    ("double_blocks.*.img_attn.proj", (f"{_FLUX_DOUBLE}.attn.to_out.0",)),
    ("double_blocks.*.txt_attn.proj", (f"{_FLUX_DOUBLE}.attn.to_add_out",)),
    ("double_blocks.*.img_attn.norm.query_norm.scale", (f"{_FLUX_DOUBLE}.attn.norm_q.weight",)),
    ("double_blocks.*.img_attn.norm.key_norm.scale", (f"{_FLUX_DOUBLE}.attn.norm_k.weight",)),
    ("double_blocks.*.txt_attn.norm.query_norm.scale", (f"{_FLUX_DOUBLE}.attn.norm_added_q.weight",)),
    ("double_blocks.*.txt_attn.norm.key_norm.scale", (f"{_FLUX_DOUBLE}.attn.norm_added_k.weight",)),
    ("double_blocks.*.img_mlp.0", (f"{_FLUX_DOUBLE}.ff.net.0.proj",)),
    ("double_blocks.*.img_mlp.2", (f"{_FLUX_DOUBLE}.ff.net.2",)),
    ("double_blocks.*.txt_mlp.0", (f"{_FLUX_DOUBLE}.ff_context.net.0.proj",)),
    ("double_blocks.*.txt_mlp.2", (f"{_FLUX_DOUBLE}.ff_context.net.2",)),
    ("single_blocks.*.modulation.lin", (f"{_FLUX_SINGLE}.norm.linear",)),
    ("single_blocks.*.linear1", (*_qkv(f"{_FLUX_SINGLE}.attn.", _OWN), f"{_FLUX_SINGLE}.proj_mlp")),
    ("single_blocks.*.linear2", (f"{_FLUX_SINGLE}.proj_out",)),
    ("single_blocks.*.norm.query_norm.scale", (f"{_FLUX_SINGLE}.attn.norm_q.weight",)),
    ("single_blocks.*.norm.key_norm.scale", (f"{_FLUX_SINGLE}.attn.norm_k.weight",)),
    ("final_layer.adaLN_modulation.1", ("norm_out.linear",)),
    ("final_layer.linear", ("proj_out",)),
)

_TOLD = "distilled_guidance_layer"
_NOT_IN_CHROMA = re.compile(r"^(time|vector|guidance)_in\.|\.lin$|adaLN_modulation")
CHROMA_ROWS: tuple[Row, ...] = (
    *(row for row in FLUX_ROWS if not _NOT_IN_CHROMA.search(row[0])),
    (f"{_TOLD}.layers.*.in_layer", (f"{_TOLD}.layers.*.linear_1",)),
    (f"{_TOLD}.layers.*.out_layer", (f"{_TOLD}.layers.*.linear_2",)),
    (f"{_TOLD}.norms.*.scale", (f"{_TOLD}.norms.*.weight",)),
)

_X, _CONTEXT = "joint_blocks.*.x_block", "joint_blocks.*.context_block"
MMDIT_ROWS: tuple[Row, ...] = (
    ("x_embedder.proj", ("pos_embed.proj",)),
    ("pos_embed", ("pos_embed.pos_embed",)),
    ("context_embedder", ("context_embedder",)),
    ("t_embedder.mlp.0", (f"{_TIME}.linear_1",)),
    ("t_embedder.mlp.2", (f"{_TIME}.linear_2",)),
    ("y_embedder.mlp.0", (f"{_TEXT}.linear_1",)),
    ("y_embedder.mlp.2", (f"{_TEXT}.linear_2",)),
    (f"{_X}.adaLN_modulation.1", (f"{_FLUX_DOUBLE}.norm1.linear",)),
    (f"{_CONTEXT}.adaLN_modulation.1", (f"{_FLUX_DOUBLE}.norm1_context.linear",)),
    (f"{_X}.attn.qkv", _qkv(f"{_FLUX_DOUBLE}.attn.", _OWN)),
    (f"{_CONTEXT}.attn.qkv", _qkv(f"{_FLUX_DOUBLE}.attn.", _ADDED)),
    (f"{_X}.attn.proj", (f"{_FLUX_DOUBLE}.attn.to_out.0",)),
    (f"{_CONTEXT}.attn.proj", (f"{_FLUX_DOUBLE}.attn.to_add_out",)),
    (f"{_X}.attn.ln_q", (f"{_FLUX_DOUBLE}.attn.norm_q",)),
    (f"{_X}.attn.ln_k", (f"{_FLUX_DOUBLE}.attn.norm_k",)),
    (f"{_CONTEXT}.attn.ln_q", (f"{_FLUX_DOUBLE}.attn.norm_added_q",)),
    (f"{_CONTEXT}.attn.ln_k", (f"{_FLUX_DOUBLE}.attn.norm_added_k",)),
    (f"{_X}.attn2.qkv", _qkv(f"{_FLUX_DOUBLE}.attn2.", _OWN)),
    (f"{_X}.attn2.proj", (f"{_FLUX_DOUBLE}.attn2.to_out.0",)),
    (f"{_X}.attn2.ln_q", (f"{_FLUX_DOUBLE}.attn2.norm_q",)),
    (f"{_X}.attn2.ln_k", (f"{_FLUX_DOUBLE}.attn2.norm_k",)),
    (f"{_X}.mlp.fc1", (f"{_FLUX_DOUBLE}.ff.net.0.proj",)),
    (f"{_X}.mlp.fc2", (f"{_FLUX_DOUBLE}.ff.net.2",)),
    (f"{_CONTEXT}.mlp.fc1", (f"{_FLUX_DOUBLE}.ff_context.net.0.proj",)),
    (f"{_CONTEXT}.mlp.fc2", (f"{_FLUX_DOUBLE}.ff_context.net.2",)),
    ("final_layer.adaLN_modulation.1", ("norm_out.linear",)),
    ("final_layer.linear", ("proj_out",)),
)

_TIME2 = "time_guidance_embed.timestep_embedder"
FLUX2_ROWS: tuple[Row, ...] = (
    ("img_in", ("x_embedder",)),
    ("txt_in", ("context_embedder",)),
    ("time_in.in_layer", (f"{_TIME2}.linear_1",)),
    ("time_in.out_layer", (f"{_TIME2}.linear_2",)),
    *(
        (f"{each}.lin", (f"{each}.linear",))
        for each in ("double_stream_modulation_img", "double_stream_modulation_txt")
    ),
    ("single_stream_modulation.lin", ("single_stream_modulation.linear",)),
    *(row for row in FLUX_ROWS if row[0].startswith("double_blocks.*.") and "attn" in row[0]),
    ("double_blocks.*.img_mlp.0", (f"{_FLUX_DOUBLE}.ff.linear_in",)),
    ("double_blocks.*.img_mlp.2", (f"{_FLUX_DOUBLE}.ff.linear_out",)),
    ("double_blocks.*.txt_mlp.0", (f"{_FLUX_DOUBLE}.ff_context.linear_in",)),
    ("double_blocks.*.txt_mlp.2", (f"{_FLUX_DOUBLE}.ff_context.linear_out",)),
    ("single_blocks.*.linear1", (f"{_FLUX_SINGLE}.attn.to_qkv_mlp_proj",)),
    ("single_blocks.*.linear2", (f"{_FLUX_SINGLE}.attn.to_out",)),
    ("single_blocks.*.norm.query_norm.scale", (f"{_FLUX_SINGLE}.attn.norm_q.weight",)),
    ("single_blocks.*.norm.key_norm.scale", (f"{_FLUX_SINGLE}.attn.norm_k.weight",)),
    ("final_layer.adaLN_modulation.1", ("norm_out.linear",)),
    ("final_layer.linear", ("proj_out",)),
)

ROWS: Mapping[NetworkKind, tuple[Row, ...]] = {
    "flux": FLUX_ROWS,
    "chroma": CHROMA_ROWS,
    "mmdit": MMDIT_ROWS,
    "flux2": FLUX2_ROWS,
    "qwen_image": (),  # its names are the same everywhere
}

# LoRAs of one trainer for Flux name processors; "qkv" are the first three parts of a layer.
XLABS_ROWS: Mapping[str, Mapping[str, str]] = {
    "double_blocks.*.img_attn.qkv": {"double_blocks.*.processor.qkv_lora1": ""},
    "double_blocks.*.txt_attn.qkv": {"double_blocks.*.processor.qkv_lora2": ""},
    "double_blocks.*.img_attn.proj": {"double_blocks.*.processor.proj_lora1": ""},
    "double_blocks.*.txt_attn.proj": {"double_blocks.*.processor.proj_lora2": ""},
    "single_blocks.*.linear1": {"single_blocks.*.processor.qkv_lora": "qkv"},
    "single_blocks.*.linear2": {"single_blocks.*.processor.proj_lora": ""},
}

_NUMBER = re.compile(r"(?:(?<=blocks\.)|(?<=guidance_layer\.layers\.)|(?<=guidance_layer\.norms\.))\d{1,3}(?=\.)")


def origins(keys: Iterable[str], rows: tuple[Row, ...]) -> dict[str, Origin]:
    """Our names of all tensors of a file in their names; the first of several stands for all."""
    keys = tuple(keys)
    starts = {theirs[0]: (ours, theirs) for ours, theirs in rows}
    inner = {each for _, theirs in rows for each in theirs[1:]}
    last = max((int(found[0]) for key in keys if (found := _NUMBER.search(key))), default=0)
    named: dict[str, Origin] = {}
    for key in keys:
        pattern, number = _NUMBER.sub("*", key, count=1), _first_number(key)
        for layer, end in ((pattern, ""), _layer_and_end(pattern)):
            if layer in starts:
                ours, theirs = starts[layer]
                made = tuple(each.replace("*", number) + end for each in theirs)
                named[ours.replace("*", number) + end] = Origin(made, _is_swapped(ours, number, last))
                break
            if layer in inner:
                break
        else:
            named[key] = Origin((key,))
    return named


def names_of_layer(path: str, rows: tuple[Row, ...]) -> dict[str, str]:
    """Their names of one of our layers -> ours, or our name and the part of it.

    NOTE: layers whose halves they exchange are left out, for a LoRA of theirs would go into the wrong ones.
    """
    pattern, number = _NUMBER.sub("*", path, count=1), _first_number(path)
    found: dict[str, str] = {}
    for theirs in (theirs for ours, theirs in rows if ours == pattern and pattern not in (_SWAPPED, _SWAPPED_LAST)):
        names = [each.replace("*", number) for each in theirs]
        if len(names) == 1:
            found[names[0]] = path
        else:
            found.update((name, f"{path}.{part}") for name, part in zip(names, PARTS, strict=False))
    for name, part in XLABS_ROWS.get(pattern, {}).items():
        found[name.replace("*", number)] = f"{path}.{part}" if part else path
    return found


_SWAPPED = "final_layer.adaLN_modulation.1"
_SWAPPED_LAST = "joint_blocks.*.context_block.adaLN_modulation.1"  # in the last block


def _is_swapped(ours: str, number: str, last: int) -> bool:
    """Where they have scale before shift."""
    return ours == _SWAPPED or (ours == _SWAPPED_LAST and number == str(last))


def _first_number(key: str) -> str:
    found = _NUMBER.search(key)
    return found[0] if found else ""


def _layer_and_end(key: str) -> tuple[str, str]:
    layer, dot, last = key.rpartition(".")
    return layer, dot + last
