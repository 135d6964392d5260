"""How the transformers of flow families, and their text encoders, are measured by their shapes. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from overpaint.errors import CheckpointError
from overpaint.models.families import FAMILIES
from overpaint.models.specs import (
    UNET_PREFIX,
    ChromaSpec,
    Family,
    Flux2Spec,
    FluxSpec,
    MmditSpec,
    NetworkKind,
    QwenImageSpec,
    TextKind,
    TextRow,
    TransformerSpec,
    ZImageSpec,
)
from overpaint.models.text_shapes import size_of
from overpaint.models.transformer_layouts import (
    TABLES_OF_WORDS,
    text_names,
    transformer_names,
    vision_prefix,
)
from overpaint.models.unet_shapes import Header, count

TEXT_TITLES: Mapping[TextKind, str] = {
    "clip": "CLIP",
    "openclip": "OpenCLIP",
    "qwen3": "Qwen3",
    "qwen3_stacked": "Qwen3",
    "qwen25": "Qwen2.5-VL",
    "qwen25_edit": "Qwen2.5-VL",
    "t5": "T5",
}
_SIZES: Mapping[tuple[TextKind, int], str] = {
    ("qwen3", 2560): "Qwen3 4B",
    ("qwen3", 4096): "Qwen3 8B",
    ("qwen3_stacked", 2560): "Qwen3 4B",
    ("qwen3_stacked", 4096): "Qwen3 8B",
    ("qwen25", 3584): "Qwen2.5-VL 7B",
    ("qwen25_edit", 3584): "Qwen2.5-VL 7B",
    ("t5", 4096): "T5 XXL",
    ("clip", 768): "CLIP-L",
    ("clip", 1280): "CLIP-G",
    ("openclip", 1280): "CLIP-G",
}


def transformer_spec(shapes: Header, family: Family) -> TransformerSpec | None:
    """The denoiser of a family that has a transformer; None for one that has a U-Net."""
    measure = _MEASURES.get(family.network)
    if measure is None:
        return None
    inner = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    measured = measure(inner)
    if isinstance(measured, QwenImageSpec):
        return replace(measured, clean_pictures=family.clean_pictures)
    return measured


def transformer_part(shapes: Header) -> tuple[Family, Header] | None:
    """The family whose transformer is in a file, whichever way it is named, and its tensors by our names."""
    for prefix in (UNET_PREFIX, "diffusion_model.", "transformer.", ""):
        inner = {key[len(prefix) :]: key for key in shapes if key.startswith(prefix)}
        found = transformer_names(inner)
        if found is not None:
            network, names = found
            ours = {
                UNET_PREFIX + new: joined_shape([shapes[inner[key]] for key in old.keys if key in inner])
                for new, old in names.items()
            }
            return transformer_family(network, ours), ours
    return None


def transformer_family(network: NetworkKind, shapes: Header) -> Family:
    """The first family with such a network all of whose marks are there; the network itself was recognised before."""
    rows = [each for each in FAMILIES if each.network == network]
    return next((each for each in rows if all(mark.holds(shapes) for mark in each.marks)), rows[-1])


def joined_shape(parts: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Of tensors that stand one below the other."""
    first, *rest = parts
    return (first[0] + sum(each[0] for each in rest if each), *first[1:]) if rest and first else first


def text_parts(shapes: Header) -> Iterator[tuple[TextKind, int]]:
    """Kind and width of every text encoder in a file that is no CLIP."""
    seen: set[str] = set()  # an encoder may have its table of words twice
    for key, shape in shapes.items():
        end = next((each for each in TABLES_OF_WORDS if key.endswith(each)), None)
        prefix = key[: len(key) - len(end or "")]
        if end is not None and len(shape) == 2 and prefix not in seen:
            named = text_names(name[len(prefix) :] for name in shapes if name.startswith(prefix))
            if named is not None:
                seen.add(prefix)
                yield ("qwen25_edit" if sees(named[0], shapes, prefix) else named[0]), shape[1]


def all_text_parts(shapes: Header) -> Iterator[tuple[TextKind, int]]:
    """The same with CLIPs, by whose names they have."""
    yield from text_parts(shapes)
    for key, shape in shapes.items():
        if key.endswith(_CLIP_WORDS) and len(shape) == 2:
            yield ("clip" if key.endswith(_CLIP_WORDS[0]) else "openclip"), shape[1]


_CLIP_WORDS = ("embeddings.token_embedding.weight", "token_embedding.weight")


def suits(there: TextKind, wanted: TextKind) -> bool:
    """Whether an encoder with such names can be one of such a kind: OpenCLIP also goes by Hugging Face's."""
    return there == wanted or (there, wanted) in _STAND_INS


_STAND_INS: tuple[tuple[TextKind, TextKind], ...] = (
    ("clip", "openclip"),
    ("qwen3", "qwen3_stacked"),
    ("qwen25_edit", "qwen25"),
)


def sees(kind: TextKind, shapes: Header, prefix: str) -> bool:
    """Whether a text encoder comes with a vision tower."""
    return kind == "qwen25" and vision_prefix(shapes, prefix) is not None


def text_title(kind: TextKind, width: int) -> str:
    """What people call such a text encoder."""
    title = _SIZES.get((kind, width), f"{TEXT_TITLES[kind]} {width} wide")
    return f"{title} with its vision tower" if kind == "qwen25_edit" else title


def require_parts(shapes: Header, family: Family) -> None:
    """A transformer without its text encoders is refused; a VAE may still be chosen."""
    network = transformer_spec(shapes, family)
    assert network is not None
    missing = [
        text_title(row.kind, width)
        for row, width in zip(family.texts, network.text_widths, strict=True)
        if not (row.optional or is_there(row, shapes))
    ]
    if missing:
        raise CheckpointError(
            f"it holds a {family.title} transformer and lacks a text encoder; such a model needs "
            f"{' and '.join(missing)}: give --text-encoder FILE, or name it in the setting text_encoder_files"
        )


def is_there(row: TextRow, shapes: Header) -> bool:
    """Whether a checkpoint holds the text encoder of a row."""
    return any(key.startswith(row.prefix) for key in shapes)


def _zimage(shapes: Header) -> ZImageSpec:
    width, cells = size_of(shapes, "x_embedder.weight", axes=2)
    (head,) = size_of(shapes, "layers.0.attention.q_norm.weight", axes=1)
    inner, _ = size_of(shapes, "layers.0.feed_forward.w1.weight", axes=2)
    time_width, time_inner = size_of(shapes, "t_embedder.mlp.2.weight", axes=2)
    _, context = size_of(shapes, "cap_embedder.1.weight", axes=2)
    if width % head or head % 16:
        raise CheckpointError(f"heads {head} wide do not fit a Z-Image layer {width} wide; use another file")
    return ZImageSpec(
        in_channels=cells // 4,
        width=width,
        layers=count(shapes, "layers."),
        refiner_layers=count(shapes, "noise_refiner."),
        heads=width // head,
        inner=inner,
        context_dim=context,
        time_width=time_width,
        time_inner=time_inner,
        axes=(head // 4, head * 3 // 8, head * 3 // 8),
    )


def _flux(shapes: Header) -> FluxSpec:
    width, cells = size_of(shapes, "img_in.weight", axes=2)
    (head,) = size_of(shapes, "double_blocks.0.img_attn.norm.query_norm.scale", axes=1)
    inner, _ = size_of(shapes, "double_blocks.0.img_mlp.0.weight", axes=2)
    _, context = size_of(shapes, "txt_in.weight", axes=2)
    _, pooled = size_of(shapes, "vector_in.in_layer.weight", axes=2)
    out, _ = size_of(shapes, "final_layer.linear.weight", axes=2)
    if width % head or head % 16:
        raise CheckpointError(f"heads {head} wide do not fit a Flux layer {width} wide; use another file")
    return FluxSpec(
        in_channels=cells // 4,
        out_channels=out // 4,
        width=width,
        double_blocks=count(shapes, "double_blocks."),
        single_blocks=count(shapes, "single_blocks."),
        heads=width // head,
        inner=inner,
        context_dim=context,
        pooled_dim=pooled,
        guided="guidance_in.in_layer.weight" in shapes,
        axes=(head // 8, head * 7 // 16, head * 7 // 16),
    )


def _chroma(shapes: Header) -> ChromaSpec:
    width, cells = size_of(shapes, "img_in.weight", axes=2)
    (head,) = size_of(shapes, "double_blocks.0.img_attn.norm.query_norm.scale", axes=1)
    inner, _ = size_of(shapes, "double_blocks.0.img_mlp.0.weight", axes=2)
    _, context = size_of(shapes, "txt_in.weight", axes=2)
    out, _ = size_of(shapes, "final_layer.linear.weight", axes=2)
    told_width, told = size_of(shapes, "distilled_guidance_layer.in_proj.weight", axes=2)
    if width % head or head % 16 or told % 8:
        raise CheckpointError(f"heads {head} wide do not fit a Chroma layer {width} wide; use another file")
    return ChromaSpec(
        in_channels=cells // 4,
        out_channels=out // 4,
        width=width,
        double_blocks=count(shapes, "double_blocks."),
        single_blocks=count(shapes, "single_blocks."),
        heads=width // head,
        inner=inner,
        context_dim=context,
        told=told,
        told_width=told_width,
        told_layers=count(shapes, "distilled_guidance_layer.layers."),
        axes=(head // 8, head * 7 // 16, head * 7 // 16),
    )


_MMDIT_HEAD = 64  # where no norm tells it; of all published files


def _mmdit(shapes: Header) -> MmditSpec:
    width, channels, patch, _ = size_of(shapes, "x_embedder.proj.weight", axes=4)
    _, places, _ = size_of(shapes, "pos_embed", axes=3)
    inner, _ = size_of(shapes, "joint_blocks.0.x_block.mlp.fc1.weight", axes=2)
    _, context = size_of(shapes, "context_embedder.weight", axes=2)
    _, vector = size_of(shapes, "y_embedder.mlp.0.weight", axes=2)
    (head,) = shapes.get("joint_blocks.0.x_block.attn.ln_q.weight", (min(_MMDIT_HEAD, width),))
    blocks, side = count(shapes, "joint_blocks."), math.isqrt(places)
    if vector > context:
        raise CheckpointError(
            f"its CLIPs, {vector} wide together, do not fit beside words of {context}; use another file"
        )
    if width % head or side**2 != places:
        raise CheckpointError(f"heads {head} wide and {places} places do not fit an MMDiT {width} wide; use another")
    return MmditSpec(
        in_channels=channels,
        width=width,
        blocks=blocks,
        dual_blocks=sum(f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes for i in range(blocks)),
        heads=width // head,
        inner=inner,
        context_dim=context,
        vector_dim=vector,
        normed="joint_blocks.0.x_block.attn.ln_q.weight" in shapes,
        side=side,
        patch=patch,
    )


def _qwen_image(shapes: Header) -> QwenImageSpec:
    width, cells = size_of(shapes, "img_in.weight", axes=2)
    (head,) = size_of(shapes, "transformer_blocks.0.attn.norm_q.weight", axes=1)
    inner, _ = size_of(shapes, "transformer_blocks.0.img_mlp.net.0.proj.weight", axes=2)
    _, context = size_of(shapes, "txt_in.weight", axes=2)
    out, _ = size_of(shapes, "proj_out.weight", axes=2)
    if width % head or head % 32:
        raise CheckpointError(f"heads {head} wide do not fit a Qwen-Image layer {width} wide; use another file")
    return QwenImageSpec(
        in_channels=cells // 4,
        out_channels=out // 4,
        width=width,
        blocks=count(shapes, "transformer_blocks."),
        heads=width // head,
        inner=inner,
        context_dim=context,
        axes=(head // 8, head * 7 // 16, head * 7 // 16),
    )


_READ_STATES = 3  # of klein's text encoder


def _flux2(shapes: Header) -> Flux2Spec:
    width, channels = size_of(shapes, "img_in.weight", axes=2)
    (head,) = size_of(shapes, "double_blocks.0.img_attn.norm.query_norm.scale", axes=1)
    _, inner = size_of(shapes, "double_blocks.0.img_mlp.2.weight", axes=2)
    _, context = size_of(shapes, "txt_in.weight", axes=2)
    if width % head or head % 8 or context % _READ_STATES:
        raise CheckpointError(
            f"heads {head} wide and words {context} wide do not fit a Flux.2 layer {width} wide; use another file"
        )
    return Flux2Spec(
        in_channels=channels,
        width=width,
        double_blocks=count(shapes, "double_blocks."),
        single_blocks=count(shapes, "single_blocks."),
        heads=width // head,
        inner=inner,
        context_dim=context,
        axes=(head // 4,) * 4,
        states=_READ_STATES,
    )


_MEASURES: Mapping[NetworkKind, Callable[[Header], TransformerSpec]] = {
    "zimage": _zimage,
    "flux": _flux,
    "chroma": _chroma,
    "mmdit": _mmdit,
    "qwen_image": _qwen_image,
    "flux2": _flux2,
}
