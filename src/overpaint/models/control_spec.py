"""What a ControlNet file is, from its tensor shapes and what is written beside it, and whether it fits a checkpoint.

Files come in the original layout or in the one of diffusers; `original_names` brings both to the first. Pure, and
without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from overpaint.errors import CheckpointError
from overpaint.models.families import ModelSpec, UNetSpec

Header = Mapping[str, tuple[int, ...]]

_PREFIX = "control_model."
_DIFFUSERS_MARK = "controlnet_cond_embedding.conv_in.weight"
_HINT_CONVOLUTIONS = 8  # three of them halve the picture: a latent cell is 8 pixels
_HEADS_OF_SD1, _CONTEXT_OF_SD1 = 8, 768
_HEAD_DIM = 64  # of all families since
_GROUPS = 32  # that channels are normalised in
_FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 1280: "the SDXL refiner", 2048: "SDXL"}

# What a file that is no ControlNet for these families is, by a mark in one of its keys.
_STRANGERS = (
    (r"^difference$", "it holds differences to a base model; use the full ControlNet of the same name"),
    (r"^lora_controlnet$", "it is a Control-LoRA, which is not supported; use a full ControlNet"),
    (r"^lllite_", "it is a ControlNet-LLLite, which is not supported; use a full ControlNet"),
    (r"^(adapter\.)?body\.\d", "it is a T2I-Adapter, which is not supported; use a ControlNet"),
    (r"^(ip_adapter|image_proj)\b", "it is an IP-Adapter, which is not supported; use a ControlNet"),
    (
        r"^(control_add_embedding|task_embedding)\b",
        "it is a union ControlNet, which is not supported; use one made for a single kind of picture",
    ),
    (
        r"^(controlnet_blocks\.|controlnet_x_embedder\.|(control_model\.)?(double|joint)_blocks\.)",
        "it is made for another family of models; use a ControlNet for SD 1.x, SD 2.x or SDXL",
    ),
    (r"^lora_|\.lora_(up|down|[AB])\.", "it looks like a LoRA: put it into the LoRA folder"),
    (r"^model\.diffusion_model\.", "it looks like a checkpoint; use a ControlNet"),
)


@dataclass(frozen=True, kw_only=True)
class ControlSpec:
    """What a ControlNet is. `unet` is what it copied: a U-Net without a way up."""

    unet: UNetSpec
    hint_channels: tuple[int, ...]  # of the convolutions that bring the picture to the latent's size, but the last
    bgr: bool = False  # it was taught with pictures whose blue comes first

    @property
    def family(self) -> str:
        """The family in a user's words, with the width that identifies it."""
        width = self.unet.context_dim
        if not width:
            return f"a model with a size vector of {self.unet.adm_channels}"
        return f"{_FAMILIES[width]} (context {width})" if width in _FAMILIES else f"a context of {width}"


def detect_control(
    header: Header,
    metadata: Mapping[str, str] | None = None,
    *,
    sidecar: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    like: UNetSpec | None = None,
) -> ControlSpec:
    """Measure a ControlNet. `sidecar` is the .yaml of the original layout, `config` the config.json of diffusers.

    Shapes do not say how many heads attention has. That comes from metadata, from `config`, from `sidecar`, from the
    U-Net it is to work with (`like`), or from what its family has, in this order.
    """
    config = config or {}
    params = _at(sidecar or {}, "model", "params")
    shapes = {new: header[old] for new, old in original_names(header).items()}
    _require(header, shapes)
    if config.get("global_pool_conditions") or params.get("global_average_pooling"):
        raise CheckpointError(
            "it guides by averages of a picture instead of places in it, which is not supported; use another ControlNet"
        )
    context = _context(shapes)
    heads, head_dim = _heads(metadata or {}, config, params, like, context)
    hint = tuple(shapes[f"input_hint_block.{2 * i}.weight"][0] for i in range(_HINT_CONVOLUTIONS - 1))
    bgr = config.get("controlnet_conditioning_channel_order") == "bgr"
    unet = replace(_unet(shapes), context_dim=context, heads=heads, head_dim=head_dim)
    return ControlSpec(unet=unet, hint_channels=hint, bgr=bgr)


def check_fits(control: ControlSpec, model: ModelSpec, said: str = "controls.model") -> None:
    """Refuse a ControlNet of another family; `said` is the field and its value, for the error."""
    if model.is_flow:
        raise CheckpointError(
            f"{said}: a {model.title} model takes no ControlNet; choose a Stable Diffusion checkpoint"
        )
    theirs = model.unet
    named = _FAMILIES.get(theirs.context_dim, model.title)
    if control.unet.context_dim not in (0, theirs.context_dim):
        remedy = f"choose one made for {named}, or another checkpoint"
        raise CheckpointError(
            f"{said}: it is made for {control.family}, the checkpoint is {named} ({theirs.context_dim}); {remedy}"
        )
    for what, ours, its in (
        ("a size vector of", control.unet.adm_channels, theirs.adm_channels),
        ("a width of", control.unet.model_channels, theirs.model_channels),
        ("levels of", control.unet.channel_mult, theirs.channel_mult),
        ("blocks a level:", control.unet.num_res_blocks, theirs.num_res_blocks),
    ):
        if ours != its and not (what == "a size vector of" and ours is None):
            raise CheckpointError(
                f"{said}: it is made for {what} {ours}, the checkpoint ({model.title}) has {its}; "
                "choose one made for this checkpoint's family"
            )


def check_heads(control: ControlSpec) -> None:
    """Refuse a number of heads that cannot be; ask after `check_fits`, whose answer is the more helpful one."""
    heads, head_dim = control.unet.heads, control.unet.head_dim
    widths = sorted(set(_attending(control.unet)))
    if any(width % (heads or head_dim or 1) for width in widths):
        said = f"{heads} heads" if heads else f"heads of {head_dim} channels"
        raise CheckpointError(
            f"{said} do not divide its layers of {', '.join(map(str, widths))} channels; "
            "say num_heads or num_head_channels in a .yaml beside the file"
        )


# -- names -------------------------------------------------------------------------------------------------------------


def original_names(header: Header) -> dict[str, str]:
    """Our name of every key that is part of a ControlNet -> its name in the file."""
    if any(key.startswith(_PREFIX) for key in header):
        return {key.removeprefix(_PREFIX): key for key in header if key.startswith(_PREFIX)}
    if _DIFFUSERS_MARK not in header:
        return {key: key for key in header}
    blocks = _count(header, "down_blocks.0.resnets.")
    return {_from_diffusers(key, blocks): key for key in header}


_TABLE = (
    (r"conv_in\.", "input_blocks.0.0."),
    (r"time_embedding\.linear_1\.", "time_embed.0."),
    (r"time_embedding\.linear_2\.", "time_embed.2."),
    (r"(?:add|class)_embedding\.linear_1\.", "label_emb.0.0."),
    (r"(?:add|class)_embedding\.linear_2\.", "label_emb.0.2."),
    (r"controlnet_cond_embedding\.conv_in\.", "input_hint_block.0."),
    (r"controlnet_cond_embedding\.conv_out\.", f"input_hint_block.{2 * _HINT_CONVOLUTIONS - 2}."),
    (r"controlnet_mid_block\.", "middle_block_out.0."),
    (r"controlnet_down_blocks\.(\d{1,3})\.", r"zero_convs.\1.0."),
    (r"mid_block\.attentions\.0\.", "middle_block.1."),
)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _from_diffusers(key: str, blocks: int) -> str:
    """The original name; `blocks` is the number of residual blocks at each level."""
    for pattern, name in _TABLE:
        if re.match(pattern, key):
            return re.sub(f"^{pattern}", name, key)
    if found := re.match(r"controlnet_cond_embedding\.blocks\.(\d{1,3})\.(.+)", key):
        return f"input_hint_block.{2 * int(found[1]) + 2}.{found[2]}"
    if found := re.match(r"down_blocks\.(\d{1,3})\.downsamplers\.0\.conv\.(.+)", key):
        return f"input_blocks.{(int(found[1]) + 1) * (blocks + 1)}.0.op.{found[2]}"
    if found := re.match(r"down_blocks\.(\d{1,3})\.(resnets|attentions)\.(\d{1,3})\.(.+)", key):
        place = f"input_blocks.{1 + int(found[1]) * (blocks + 1) + int(found[3])}"
        return f"{place}.0.{_in_resnet(found[4])}" if found[2] == "resnets" else f"{place}.1.{found[4]}"
    if found := re.match(r"mid_block\.resnets\.(\d{1,3})\.(.+)", key):
        return f"middle_block.{2 * int(found[1])}.{_in_resnet(found[2])}"
    return key


def _in_resnet(rest: str) -> str:
    part, _, parameter = rest.partition(".")
    return f"{_RESNET.get(part, part)}.{parameter}"


# -- measures ----------------------------------------------------------------------------------------------------------


def _require(header: Header, shapes: Header) -> None:
    """The corner stones, and a hint of three colours."""
    for pattern, advice in _STRANGERS:
        is_ours = pattern.startswith("^model") and _has_prefix(header)  # a training file holds both
        if not is_ours and any(re.search(pattern, key) for key in header):
            raise CheckpointError(advice)
    kernels = ["input_blocks.0.0.weight", "input_blocks.1.0.out_layers.3.weight"]
    kernels += [f"input_hint_block.{2 * i}.weight" for i in range(_HINT_CONVOLUTIONS)]
    missing = [key for key in (*kernels, "time_embed.0.weight") if len(shapes.get(key, ())) < 2]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(f"{len(missing)} tensors that a ControlNet has are missing ({shown}); use another file")
    if any(0 in shapes[key] for key in kernels):
        raise CheckpointError("some of its tensors are empty; use another file")
    colors = shapes["input_hint_block.0.weight"][1]
    if colors != 3:
        raise CheckpointError(f"it follows pictures of {colors} channels, which is not supported; use one for colours")


def _unet(shapes: Header) -> UNetSpec:
    """The half that was copied, but for what its attention is like."""
    levels = list(_levels(shapes))
    widths = [shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels if level]
    channels, inputs = shapes["input_blocks.0.0.weight"][:2]
    if (
        len({len(level) for level in levels}) != 1
        or not widths
        or any(width % channels or width % _GROUPS for width in widths)
    ):
        raise CheckpointError("its levels are of unequal depth or width, which no supported family has; use another")
    label, middle = shapes.get("label_emb.0.0.weight"), _count(shapes, "middle_block.")
    return UNetSpec(
        in_channels=inputs,
        model_channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        num_res_blocks=len(levels[0]),
        input_depths=tuple(_count(shapes, f"input_blocks.{i}.1.transformer_blocks.") for each in levels for i in each),
        middle_depth=_count(shapes, "middle_block.1.transformer_blocks.") if middle > 1 else None,
        output_depths=(),
        context_dim=0,
        linear_projections=any(key.endswith(".proj_in.weight") and len(shape) == 2 for key, shape in shapes.items()),
        adm_channels=label[-1] if label else None,
    )


def _has_prefix(header: Header) -> bool:
    return any(key.startswith(_PREFIX) for key in header)


def _levels(shapes: Header) -> Iterator[list[int]]:
    """The numbers of the residual blocks of each level; a block that halves closes a level."""
    level: list[int] = []
    for i in range(1, _count(shapes, "input_blocks.")):
        if f"input_blocks.{i}.0.op.weight" in shapes:
            yield level
            level = []
        elif len(shapes.get(f"input_blocks.{i}.0.out_layers.3.weight", ())) == 4:
            level.append(i)
    yield level


def _count(keys: Header, prefix: str) -> int:
    """1 + the largest number after the prefix, or 0."""
    numbers = (key[len(prefix) :].split(".", 1)[0] for key in keys if key.startswith(prefix))
    return 1 + max((int(number) for number in numbers if number.isdecimal() and len(number) < 4), default=-1)


def _context(shapes: Header) -> int:
    """The width of the text that attention reads; 0 for small ControlNets that have no attention."""
    found = (shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight") and len(shape) == 2)
    return next(found, 0)


def _attending(unet: UNetSpec) -> Iterator[int]:
    """The widths of the levels that have attention."""
    blocks = unet.num_res_blocks
    for level, mult in enumerate(unet.channel_mult):
        if any(unet.input_depths[level * blocks : (level + 1) * blocks]):
            yield unet.model_channels * mult
    if unet.middle_depth:
        yield unet.model_channels * unet.channel_mult[-1]


# -- heads -------------------------------------------------------------------------------------------------------------

_Heads = tuple["int | None", "int | None"]
"""(heads of every layer, or channels of a head)"""


def _heads(
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    like: UNetSpec | None,
    context: int,
) -> _Heads:
    stage = _at(params, "control_stage_config", "params")
    default: _Heads = (_HEADS_OF_SD1, None) if context == _CONTEXT_OF_SD1 else (None, _HEAD_DIM)
    sources: tuple[_Heads, ...] = (
        (_number(metadata.get("overpaint.num_heads")), _number(metadata.get("overpaint.head_dim"))),
        _heads_of_config(config),
        (_number(stage.get("num_heads")), _number(stage.get("num_head_channels"))),
        (like.heads, like.head_dim) if like is not None else (None, None),
    )
    heads, head_dim = next((each for each in sources if each != (None, None)), default)
    return (heads, None) if heads else (None, head_dim)


def _heads_of_config(config: Mapping[str, Any]) -> _Heads:
    """NOTE: what diffusers calls attention_head_dim is the number of heads, one for all levels or one for each."""
    said = config.get("num_attention_heads") or config.get("attention_head_dim")
    if isinstance(said, int):
        return _number(said), None
    widths = config.get("block_out_channels")
    if not isinstance(said, list) or not isinstance(widths, list) or len(said) != len(widths):
        return None, None
    counts, sizes = [_number(each) for each in said], [_number(each) for each in widths]
    if len(set(counts)) == 1:
        return counts[0], None
    ratios = {size / count for size, count in zip(sizes, counts, strict=True) if size and count}
    if len(ratios) != 1 or None in counts:
        raise CheckpointError(f"attention_head_dim={said} in its config.json cannot be used; use another ControlNet")
    return None, int(ratios.pop())


def _number(value: object) -> int | None:
    """A count of heads or channels, also out of metadata, where all is text."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096
    return value if is_count and isinstance(value, int) else None


def _at(tree: Any, *path: str) -> Mapping[str, Any]:
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}
