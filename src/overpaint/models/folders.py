"""Models in the folder layout of diffusers: a folder for each part, its weights in one file or several, and its facts.

What the configurations tell becomes metadata, in the words that a checkpoint's own metadata uses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from overpaint.errors import CheckpointError, brief
from overpaint.models.components import TextEncoder, text_encoders_of
from overpaint.models.derived import Derived, Part, derived_weights, same, unscaled
from overpaint.models.files import Weights, read_checkpoint
from overpaint.models.transformer_files import (
    TextPart,
    TransformerPart,
    all_text_parts_of,
    told,
    transformer_of,
)

_MAX_JSON_BYTES = 4 * 2**20
_INDEX_OF_MODEL = "model_index.json"
_UNET_CLASS = "UNet2DConditionModel"
_TEXT_FOLDERS = ("text_encoder", "text_encoder_2")
_FLOW_TEXT_FOLDERS = (*_TEXT_FOLDERS, "text_encoder_3")
_PREDICTIONS: Mapping[str, str] = {"epsilon": "eps", "v_prediction": "v"}

_STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
_WHOLE = re.compile(_STEM + r"(?P<variant>\.\w+)?\.(?P<kind>safetensors|bin)")
_INDEX = re.compile(_STEM + r"\.(?P<kind>safetensors|bin)\.index(?P<variant>\.\w+)?\.json")

# What the networks of this package can be; a configuration that says otherwise describes another kind.
_UNET_MUST: Mapping[str, tuple[object, ...]] = {
    "act_fn": ("silu",),
    "norm_num_groups": (32,),
    "norm_eps": (1e-5,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "resnet_out_scale_factor": (1,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "time_cond_proj_dim": (None,),
    "addition_embed_type": (None, "text_time"),
    "addition_time_embed_dim": (None, 256),
    "center_input_sample": (False,),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
}
_VAE_MUST: Mapping[str, tuple[object, ...]] = {
    "act_fn": ("silu",),
    "norm_num_groups": (32,),
    "shift_factor": (None,),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "mid_block_add_attention": (True,),
}
_FLOW_VAE_MUST: Mapping[str, tuple[object, ...]] = {
    "act_fn": ("silu",),
    "norm_num_groups": (32,),
    "mid_block_add_attention": (True,),
}
_TEXT_MUST: Mapping[str, tuple[object, ...]] = {"layer_norm_eps": (1e-5,)}


@dataclass(frozen=True)
class Folder:
    """An opened folder: the weights of each part by their own names, and what its configurations tell."""

    unet: Weights
    vae: Weights | None
    texts: tuple[TextEncoder, ...]
    metadata: Mapping[str, str]


def open_folder(path: Path) -> Folder:
    """A model's folder, or the folder of its U-Net alone."""
    unet_folder = path / "unet"
    if not unet_folder.is_dir() and _json(path / "config.json").get("_class_name") == _UNET_CLASS:
        unet_folder = path
    unet = component_weights(unet_folder)
    if unet is None:
        raise CheckpointError(f"{path.name}: {_why_not(path, unet_folder)}")
    facts = {
        **_unet_facts(unet_folder / "config.json"),
        **_vae_facts(path / "vae" / "config.json"),
        **_scheduler_facts(path / "scheduler" / "scheduler_config.json"),
    }
    texts = tuple(encoder for name in _TEXT_FOLDERS for encoder in text_folder(path / name))
    metadata = {f"overpaint.{name}": json.dumps(value) for name, value in facts.items()}
    return Folder(unet, component_weights(path / "vae"), texts, metadata)


@dataclass(frozen=True)
class FlowFolder:
    """An opened folder of a flow model."""

    transformer: TransformerPart
    texts: list[TextPart]
    vae: Weights | None
    metadata: Mapping[str, str]


def open_flow_folder(path: Path) -> FlowFolder | None:
    """A flow model's folder; None where there is no transformer in it."""
    weights = component_weights(path / "transformer")
    if weights is None:
        return None
    transformer = transformer_of(weights)
    if transformer is None:
        kind = _json(path / "transformer" / "config.json").get("_class_name", "a transformer")
        raise CheckpointError(f"{path.name}: its {brief(kind)} is of no family that is supported; use another model")
    _config(path / "vae" / "config.json", _FLOW_VAE_MUST)
    facts = _shift_facts(path / "scheduler" / "scheduler_config.json")
    kind = _json(path / _INDEX_OF_MODEL).get("_class_name")
    if isinstance(kind, str):
        marks = [name for name, value in _json(path / "transformer" / "config.json").items() if value is True]
        facts["called"] = " ".join([kind, *marks])
    texts = [part for name in _FLOW_TEXT_FOLDERS for part in _flow_texts(path, name)]
    metadata = {f"overpaint.{name}": json.dumps(value) for name, value in facts.items()}
    return FlowFolder(told(transformer, metadata, path.name), texts, component_weights(path / "vae"), metadata)


def _flow_texts(path: Path, name: str) -> list[TextPart]:
    """The text encoder in a part's folder; its words are in a folder that is numbered alike."""
    weights = component_weights(path / name)
    words = path / name.replace("text_encoder", "tokenizer") / "tokenizer.json"
    return [] if weights is None else all_text_parts_of(weights, str(words) if words.is_file() else "")


def _shift_facts(path: Path) -> dict[str, Any]:
    """A constant shift; the families whose shift follows the size know it themselves."""
    config = _json(path)
    shift = config.get("shift", config.get("flow_shift"))
    follows = config.get("use_dynamic_shifting", False)
    return {"shift": shift} if type(shift) in (int, float) and not follows else {}


def _why_not(path: Path, unet_folder: Path) -> str:
    if unet_folder.is_dir():
        return "its folder unet holds no diffusion_pytorch_model.safetensors; download it again"
    kind = _json(path / _INDEX_OF_MODEL).get("_class_name")
    if kind is not None:
        return f"it holds a {brief(kind)}, which has no folder unet; use a Stable Diffusion model"
    return f"it is no model's folder: choose the one that holds {_INDEX_OF_MODEL}, or a file"


def text_folder(path: Path) -> list[TextEncoder]:
    """The text encoder in a part's folder, with what its configuration says."""
    weights = component_weights(path)
    if weights is None:
        return []
    config = _config(path / "config.json", _TEXT_MUST)
    return [
        replace(
            encoder,
            origin=f"{path.parent.name}/{path.name}",
            heads=config.get("num_attention_heads"),
            activation=config.get("hidden_act"),
            trimmed=True,  # diffusers reads SD 2's last layer, because its files leave out the one behind it
        )
        for encoder in text_encoders_of(weights)
    ]


def component_weights(folder: Path) -> Weights | None:
    """The weights in a part's folder: whole before variants, safetensors before pickles; None where there are none."""
    found = sorted(_candidates(folder))
    if not found:
        return None
    path = folder / found[0][-1]
    return unscaled(_sharded(path) if path.suffix == ".json" else read_checkpoint(path))


def _candidates(folder: Path) -> Iterator[tuple[bool, str, bool, str]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        for pattern in (_WHOLE, _INDEX):
            if found := pattern.fullmatch(path.name):
                yield found["kind"] == "bin", found["variant"] or "", pattern is _INDEX, path.name


def _sharded(index: Path) -> Weights:
    """Weights in several files, by the list of what lies where."""
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index.name}: it does not say which file holds which tensor; download it again")
    shards: dict[str, Weights] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index.name}: {name[:80]!r} is no name of a file beside it; download it again")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{name}: this part of {index.parent.name} is missing; download it")
        shards[name] = read_checkpoint(index.parent / name)
    tensors: dict[str, Derived] = {}
    for key, name in places.items():
        if key not in shards[name].shapes:
            raise CheckpointError(f"{name}: tensor {key[:80]!r} is not in it; download it again")
        tensors[key] = same(Part(shards[name], key))
    return derived_weights(index.parent, tensors, {})


def _json(path: Path) -> dict[str, Any]:
    """A JSON table; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("larger than 4 MiB")
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("no table")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.parent.name}/{path.name} cannot be read ({str(error)[:200]}); download it again"
        ) from error
    return table


def _config(path: Path, must: Mapping[str, tuple[object, ...]]) -> dict[str, Any]:
    config = _json(path)
    for name, allowed in must.items():
        if name in config and config[name] not in allowed:
            raise CheckpointError(
                f"{path.parent.name}/{path.name}: {name}={brief(config[name])} is not supported "
                f"({' or '.join(map(repr, allowed))} is); use another model"
            )
    return config


def _unet_facts(path: Path) -> dict[str, Any]:
    config = _config(path, _UNET_MUST)
    facts = _heads(config)
    size = config.get("sample_size")
    if type(size) is int and 8 <= size <= 512:
        facts["native_size"] = 8 * size
    return facts


def _heads(config: Mapping[str, Any]) -> dict[str, Any]:
    """NOTE: what diffusers calls attention_head_dim is the number of heads, of all levels or of each."""
    heads = config.get("num_attention_heads") or config.get("attention_head_dim")
    if not isinstance(heads, list):
        return {"num_heads": heads} if heads else {}
    widths, kinds = _list(config.get("block_out_channels")), _list(config.get("down_block_types"))
    numbers = all(type(each) is int and each > 0 for each in (*heads, *widths))
    if not numbers or not 0 < len(heads) == len(widths) == len(kinds):
        raise CheckpointError(
            f"unet/config.json: attention_head_dim={brief(heads)} does not fit its levels; correct it"
        )
    levels = [i for i, kind in enumerate(kinds) if "CrossAttn" in str(kind)] or [len(heads) - 1]
    dims, counts = {widths[i] / heads[i] for i in levels}, {heads[i] for i in levels}
    if len(dims) > 1 and len(counts) > 1:
        raise CheckpointError(
            f"unet/config.json: attention_head_dim={brief(heads)}: neither heads nor their width are equal"
        )
    dim = min(dims)
    return {"head_dim": int(dim)} if len(dims) == 1 and dim == int(dim) else {"num_heads": min(counts)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _vae_facts(path: Path) -> dict[str, Any]:
    config = _config(path, _VAE_MUST)
    return {"scale_factor": config["scaling_factor"]} if config.get("scaling_factor") else {}


def _scheduler_facts(path: Path) -> dict[str, Any]:
    config = _json(path)
    kind = config.get("prediction_type")
    if kind == "flow_prediction" or str(config.get("_class_name", "")).startswith("FlowMatch"):
        return {"prediction": "flow", **_shift_facts(path)}
    if kind is None:
        return {}
    if kind not in _PREDICTIONS:
        raise CheckpointError(f"{path.name}: prediction_type={brief(kind)} is not supported; use another model")
    return {"prediction": _PREDICTIONS[kind]}
