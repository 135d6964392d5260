"""How text encoders that are no CLIPs are measured by their shapes. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from overpaint.errors import CheckpointError
from overpaint.models.specs import TextKind, TextRow, TextSpec
from overpaint.models.transformer_layouts import VISION
from overpaint.models.unet_shapes import Header, count
from overpaint.models.vision_specs import Eyes, VisionSpec


def text_spec(shapes: Header, row: TextRow, tokenizer: str) -> TextSpec:
    """A text encoder that is no CLIP."""
    return _TEXT_MEASURES[row.kind](shapes, row, tokenizer)


def size_of(shapes: Header, key: str, *, axes: int) -> tuple[int, ...]:
    """The shape of a tensor without which nothing can be measured."""
    shape = shapes.get(key, ())
    if len(shape) != axes or 0 in shape:
        raise CheckpointError(f"tensor {key} is missing or of an impossible shape; use a complete file")
    return shape


def _t5(shapes: Header, row: TextRow, tokenizer: str) -> TextSpec:
    first = f"{row.prefix}encoder.block.0.layer."
    vocabulary, width = size_of(shapes, f"{row.prefix}shared.weight", axes=2)
    queries, _ = size_of(shapes, f"{first}0.SelfAttention.q.weight", axes=2)
    kinds, heads = size_of(shapes, f"{first}0.SelfAttention.relative_attention_bias.weight", axes=2)
    if f"{first}1.DenseReluDense.wi_0.weight" not in shapes:
        raise CheckpointError("its T5 has no gated layers, so it is not version 1.1; use the T5 XXL of Flux and SD 3")
    inner, _ = size_of(shapes, f"{first}1.DenseReluDense.wi_0.weight", axes=2)
    if queries % heads or kinds % 4:
        raise CheckpointError(f"{heads} heads and {kinds} kinds of distance do not fit a T5 layer; use another file")
    return TextSpec(
        kind="t5",
        prefix=row.prefix,
        width=width,
        layers=count(shapes, f"{row.prefix}encoder.block."),
        heads=heads,
        head_dim=queries // heads,
        inner=inner,
        vocabulary=vocabulary,
        positions=kinds,
        layer=row.layer,
        final_norm=row.final_norm,
        length=row.length,
        masked=row.masked,
        tokenizer=tokenizer,
    )


def _qwen(shapes: Header, row: TextRow, tokenizer: str) -> TextSpec:
    first = f"{row.prefix}layers.0."
    vocabulary, width = size_of(shapes, f"{row.prefix}embed_tokens.weight", axes=2)
    head = row.head_dim
    if row.kind.startswith("qwen3"):  # its width stands nowhere in a Qwen2.5
        (head,) = size_of(shapes, f"{first}self_attn.q_norm.weight", axes=1)
    queries, _ = size_of(shapes, f"{first}self_attn.q_proj.weight", axes=2)
    keys, _ = size_of(shapes, f"{first}self_attn.k_proj.weight", axes=2)
    inner, _ = size_of(shapes, f"{first}mlp.gate_proj.weight", axes=2)
    if queries % head or keys % head or (queries // head) % (keys // head):
        raise CheckpointError(f"heads {head} wide do not fit a Qwen layer of {queries} and {keys}; use another file")
    layers = count(shapes, f"{row.prefix}layers.")
    if max(row.states, default=0) > layers:
        raise CheckpointError(
            f"its Qwen3 has {layers} layers, and layer {max(row.states)} is read; use a complete file"
        )
    return TextSpec(
        kind=row.kind,
        prefix=row.prefix,
        width=width,
        layers=layers,
        heads=queries // head,
        key_heads=keys // head,
        head_dim=head,
        inner=inner,
        vocabulary=vocabulary,
        layer=row.layer,
        final_norm=row.final_norm,
        tokenizer=tokenizer,
        unread=row.unread,
        states=row.states,
        vision=None if row.eyes is None else _vision(shapes, f"{row.prefix}{VISION}", row.eyes),
    )


_WIDTH_OF_VISION_HEADS = 80  # which stands nowhere in its files


def _vision(shapes: Header, prefix: str, eyes: Eyes) -> VisionSpec:
    first = f"{prefix}patch_embed.proj.weight"
    if first not in shapes:
        raise CheckpointError(
            "its Qwen2.5-VL has no vision tower (tensors that begin with visual.), and this model shows it the "
            "pictures: use a text encoder file that has one"
        )
    width, cells = size_of(shapes, first, axes=2)
    inner, _ = size_of(shapes, f"{prefix}blocks.0.mlp.gate_proj.weight", axes=2)
    out, joined = size_of(shapes, f"{prefix}merger.mlp.2.weight", axes=2)
    if width % _WIDTH_OF_VISION_HEADS or joined != 4 * width or cells != 3 * VisionSpec.patch**2:
        raise CheckpointError(
            f"a vision tower {width} wide that joins {joined} is none of Qwen2.5-VL; use another file"
        )
    return VisionSpec(
        width=width,
        layers=count(shapes, f"{prefix}blocks."),
        heads=width // _WIDTH_OF_VISION_HEADS,
        inner=inner,
        out=out,
        eyes=eyes,
    )


_TEXT_MEASURES: Mapping[TextKind, Callable[[Header, TextRow, str], TextSpec]] = {
    "qwen3": _qwen,
    "qwen3_stacked": _qwen,
    "qwen25": _qwen,
    "qwen25_edit": _qwen,
    "t5": _t5,
}
