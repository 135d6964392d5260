"""How a U-Net is measured by the shapes of its tensors: {key: shape} -> UNetSpec. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from overpaint.errors import CheckpointError
from overpaint.models.families import UNET_PREFIX, Family, Source, UNetSpec
from overpaint.models.header import Said

Header = Mapping[str, tuple[int, ...]]


def unet_spec(shapes: Header, family: Family, said: Said, facts: dict[str, Source]) -> UNetSpec:
    unet = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    levels = list(_levels(unet))
    blocks = len(levels[0])
    widths = [kernel(unet, f"input_blocks.{level[0]}.0.out_layers.3.weight")[0] for level in levels if level]
    channels, in_channels = kernel(unet, "input_blocks.0.0.weight")[:2]
    if len(widths) != len(levels) or any(len(level) != blocks for level in levels) or any(w % channels for w in widths):
        raise CheckpointError(
            "the U-Net's levels are of unequal depth or width, which no supported family has: use another file"
        )
    outputs = range((blocks + 1) * len(levels))
    heads, head_dim = _heads(family, said, facts)
    inputs = [_depth(unet, f"input_blocks.{i}.1.") for level in levels for i in level]
    spec = UNetSpec(
        in_channels=in_channels,
        out_channels=kernel(unet, "out.2.weight")[0],
        model_channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        num_res_blocks=blocks,
        input_depths=tuple(inputs),
        middle_depth=_depth(unet, "middle_block.1.") if count(unet, "middle_block.") > 1 else None,
        output_depths=tuple(_depth(unet, f"output_blocks.{i}.1.") for i in outputs),
        heads=heads,
        head_dim=head_dim,
        context_dim=context_dim(unet),
        linear_projections=is_linear(unet),
        adm_channels=size_of_input(unet, "label_emb.0.0.weight") or None,
    )
    _check_heads(spec, family)
    return spec


def _levels(unet: Header) -> Iterator[list[int]]:
    """The numbers of the residual blocks of each level; a downsampling block closes a level."""
    level: list[int] = []
    for i in range(1, count(unet, "input_blocks.")):
        if f"input_blocks.{i}.0.op.weight" in unet:
            yield level
            level = []
        elif f"input_blocks.{i}.0.out_layers.3.weight" in unet:
            level.append(i)
    yield level


def _heads(family: Family, said: Said, facts: dict[str, Source]) -> tuple[int | None, int | None]:
    """One of (heads per layer, width per head); the first source that says either decides."""
    found = {name: said.find(name) for name in ("num_heads", "head_dim")}
    for source in ("metadata", "sidecar"):
        for name, answer in found.items():
            if answer is not None and answer[1] == source:
                facts["heads"] = answer[1]
                return (answer[0], None) if name == "num_heads" else (None, answer[0])
    facts["heads"] = "family default"
    return family.heads, family.head_dim


def _check_heads(spec: UNetSpec, family: Family) -> None:
    for mult, depths in _attending(spec):
        width = spec.model_channels * mult
        if depths and (
            spec.heads_at(width) < 1 or width % spec.heads_at(width) or (spec.head_dim and width % spec.head_dim)
        ):
            said = f"{spec.heads} heads" if spec.heads else f"heads of {spec.head_dim} channels"
            raise CheckpointError(
                f"heads: {said} do not divide a {family.title} layer of {width} channels; "
                "say num_heads or num_head_channels in a .yaml beside the file"
            )


def _attending(spec: UNetSpec) -> Iterator[tuple[int, int]]:
    for i, mult in enumerate(spec.channel_mult):
        yield mult, sum(spec.input_depths[i * spec.num_res_blocks : (i + 1) * spec.num_res_blocks])
    yield spec.channel_mult[-1], spec.middle_depth or 0


def is_linear(unet: Header) -> bool:
    return any(key.endswith(".proj_in.weight") and len(shape) == 2 for key, shape in unet.items())


def context_dim(unet: Header) -> int:
    found = (shape[1] for key, shape in unet.items() if key.endswith("attn2.to_k.weight") and len(shape) == 2)
    width = next(found, None)
    if width is None:
        raise CheckpointError(
            "the U-Net has no attention to text (attn2.to_k), which every supported family has: use another file"
        )
    return width


def _depth(unet: Header, prefix: str) -> int:
    return count(unet, f"{prefix}transformer_blocks.")


def kernel(shapes: Header, key: str) -> tuple[int, ...]:
    """The shape of a convolution's weight."""
    shape = shapes.get(key, ())
    if len(shape) != 4 or 0 in shape:
        raise CheckpointError(f"tensor {key} is missing or no convolution; use a complete file")
    return shape


def size_of_input(shapes: Header, key: str) -> int:
    """How many numbers a layer takes; 0 where it is missing."""
    return (*shapes.get(key, ()), 0, 0)[1]


def count(keys: Iterable[str], prefix: str) -> int:
    """How many numbered parts follow the prefix: 1 + the largest number, or 0."""
    numbers = (key[len(prefix) :].split(".", 1)[0] for key in keys if key.startswith(prefix))
    return 1 + max((int(number) for number in numbers if number.isdecimal() and len(number) < 5), default=-1)
