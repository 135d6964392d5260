"""How the transformers of flow families, and their text encoders, are measured by their shapes. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from overpaint.errors import CheckpointError
from overpaint.models.families import FAMILIES
from overpaint.models.header import Said
from overpaint.models.specs import (
    UNET_PREFIX,
    Family,
    NetworkKind,
    TextKind,
    TextRow,
    TextSpec,
    TransformerSpec,
    ZImageSpec,
)
from overpaint.models.transformer_layouts import TABLES_OF_WORDS, text_names, transformer_names
from overpaint.models.unet_shapes import Header, count

TEXT_TITLES: Mapping[TextKind, str] = {"clip": "CLIP-L", "openclip": "OpenCLIP", "qwen3": "Qwen3", "t5": "T5"}
_SIZES: Mapping[tuple[TextKind, int], str] = {
    ("qwen3", 2560): "Qwen3 4B",
    ("qwen3", 4096): "Qwen3 8B",
    ("t5", 4096): "T5 XXL",
    ("clip", 768): "CLIP-L",
    ("openclip", 1280): "CLIP-G",
}


def transformer_spec(shapes: Header, family: Family) -> TransformerSpec | None:
    """The denoiser of a family that has a transformer; None for one that has a U-Net."""
    measure = _MEASURES.get(family.network)
    if measure is None:
        return None
    inner = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    return measure(inner)


def transformer_part(shapes: Header) -> tuple[Family, Header] | None:
    """The family whose transformer is in a file, whichever way it is named, and its tensors by our names."""
    for prefix in (UNET_PREFIX, "diffusion_model.", "transformer.", ""):
        inner = {key[len(prefix) :]: key for key in shapes if key.startswith(prefix)}
        found = transformer_names(inner)
        if found is not None:
            network, names = found
            family = next(each for each in FAMILIES if each.network == network)
            return family, {UNET_PREFIX + new: shapes[inner[old[0]]] for new, old in names.items()}
    return None


def text_parts(shapes: Header) -> Iterator[tuple[TextKind, int]]:
    """Kind and width of every text encoder in a file that is no CLIP."""
    for key, shape in shapes.items():
        end = next((each for each in TABLES_OF_WORDS if key.endswith(each)), None)
        if end is not None and len(shape) == 2:
            prefix = key[: len(key) - len(end)]
            named = text_names(name[len(prefix) :] for name in shapes if name.startswith(prefix))
            if named is not None:
                yield named[0], shape[1]


def text_title(kind: TextKind, width: int) -> str:
    """What people call such a text encoder."""
    return _SIZES.get((kind, width), f"{TEXT_TITLES[kind]} {width} wide")


def require_parts(shapes: Header, family: Family) -> None:
    """A transformer without its text encoders is refused; a VAE may still be chosen."""
    network = transformer_spec(shapes, family)
    assert network is not None
    missing = [
        text_title(row.kind, width)
        for row, width in zip(family.texts, network.text_widths, strict=True)
        if not any(key.startswith(row.prefix) for key in shapes)
    ]
    if missing:
        raise CheckpointError(
            f"it holds a {family.title} transformer and no text encoder; such a model needs {' and '.join(missing)}: "
            "give --text-encoder FILE, or name it in the setting text_encoder_files"
        )


def text_specs(shapes: Header, family: Family, said: Said) -> tuple[TextSpec, ...]:
    """The text encoders of such a family."""
    tokenizers = said.fact("tokenizers", [""] * len(family.texts), {})
    return tuple(
        _TEXT_MEASURES[row.kind](shapes, row, str(tokenizer))
        for row, tokenizer in zip(family.texts, tokenizers, strict=True)
    )


def size_of(shapes: Header, key: str, *, axes: int) -> tuple[int, ...]:
    """The shape of a tensor without which nothing can be measured."""
    shape = shapes.get(key, ())
    if len(shape) != axes or 0 in shape:
        raise CheckpointError(f"tensor {key} is missing or of an impossible shape; use a complete file")
    return shape


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


def _qwen3(shapes: Header, row: TextRow, tokenizer: str) -> TextSpec:
    first = f"{row.prefix}layers.0."
    vocabulary, width = size_of(shapes, f"{row.prefix}embed_tokens.weight", axes=2)
    (head,) = size_of(shapes, f"{first}self_attn.q_norm.weight", axes=1)
    queries, _ = size_of(shapes, f"{first}self_attn.q_proj.weight", axes=2)
    keys, _ = size_of(shapes, f"{first}self_attn.k_proj.weight", axes=2)
    inner, _ = size_of(shapes, f"{first}mlp.gate_proj.weight", axes=2)
    if queries % head or keys % head or (queries // head) % (keys // head):
        raise CheckpointError(f"heads {head} wide do not fit a Qwen3 layer of {queries} and {keys}; use another file")
    return TextSpec(
        kind="qwen3",
        prefix=row.prefix,
        width=width,
        layers=count(shapes, f"{row.prefix}layers."),
        heads=queries // head,
        key_heads=keys // head,
        head_dim=head,
        inner=inner,
        vocabulary=vocabulary,
        layer=row.layer,
        final_norm=row.final_norm,
        tokenizer=tokenizer,
    )


_MEASURES: Mapping[NetworkKind, Callable[[Header], TransformerSpec]] = {"zimage": _zimage}
_TEXT_MEASURES: Mapping[TextKind, Callable[[Header, TextRow, str], TextSpec]] = {"qwen3": _qwen3}
