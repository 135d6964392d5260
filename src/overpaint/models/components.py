"""The parts that a model may come in, and one checkpoint made of them: a U-Net, a codec, text encoders in any order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from overpaint.errors import CheckpointError
from overpaint.models.derived import Derived, Part, derived_weights, joined, last_frame, reshaped, same, turned
from overpaint.models.detect import families_of_unet, text_widths
from overpaint.models.families import UNET_PREFIX, VAE_PREFIX, Family, TextKind, TextRow
from overpaint.models.files import Weights
from overpaint.models.layouts import (
    is_diffusers_unet,
    is_diffusers_vae,
    is_wan_vae,
    openclip_names,
    unet_names,
    vae_names,
    wan_names,
)

Tensors = dict[str, Derived]

VAE_PREFIXES = (VAE_PREFIX, "vae.")  # of a codec in a whole checkpoint
_UNET_PREFIXES = (UNET_PREFIX, "diffusion_model.", "unet.", "")
_UNET_MARKS = ("input_blocks.0.0.weight", "output_blocks.0.0.in_layers.2.weight", "out.2.weight")
_UNET_ROOTS = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to errors of code that knows names and shapes only."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error


class UNetPart(NamedTuple):
    """A U-Net's tensors by their original names, and the keys of the file that are no part of it."""

    path: Path
    tensors: Tensors
    others: tuple[str, ...]
    as_checkpoint: bool  # the file already names them as a whole checkpoint does

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: each.shape for name, each in self.tensors.items()}

    def families(self) -> tuple[Family, ...]:
        with naming(self.path):
            return families_of_unet(self.shapes)


def unet_of(weights: Weights) -> UNetPart | None:
    """The U-Net in a file, whichever way it is named; None where there is none."""
    for prefix in _UNET_PREFIXES:
        inner = {key[len(prefix) :]: key for key in weights.shapes if key.startswith(prefix)}
        if inner.keys() >= set(_UNET_MARKS):
            names = {name: key for name, key in inner.items() if prefix or name.startswith(_UNET_ROOTS)}
            if any(name.startswith("zero_convs.") for name in inner):
                return None  # a ControlNet
        elif is_diffusers_unet(inner):
            with naming(weights.path):
                names = {ours: inner[theirs] for theirs, ours in unet_names(inner).items()}
        else:
            continue
        tensors = {name: same(Part(weights, key)) for name, key in names.items()}
        used = set(names.values())
        others = tuple(key for key in weights.shapes if key not in used)
        as_checkpoint = all(key == UNET_PREFIX + name for name, key in names.items())
        return UNetPart(weights.path, tensors, others, as_checkpoint)
    return None


def vae_of(weights: Weights) -> Tensors:
    """A codec's tensors by their original names, from a file that holds it alone or in a whole checkpoint."""
    inner = (
        {key.removeprefix(prefix): key for key in weights.shapes if key.startswith(prefix)} for prefix in VAE_PREFIXES
    )
    keys = next(filter(None, inner), {key: key for key in weights.shapes})
    if is_wan_vae(keys):
        return {ours: last_frame(Part(weights, keys[theirs])) for ours, theirs in wan_names(keys).items()}
    keys = {key: theirs for key, theirs in keys.items() if key != _COUNT_OF_BATCHES}
    names = {_beside_codec(key): key for key in keys}
    if is_diffusers_vae(keys):
        with naming(weights.path):
            names = {ours: theirs for theirs, ours in vae_names(keys).items()}
    return {ours: _as_convolution(ours, Part(weights, keys[theirs])) for ours, theirs in names.items()}


_COUNT_OF_BATCHES = "bn.num_batches_tracked"


def _beside_codec(key: str) -> str:
    """The convolutions beside the latents, which Flux.2's authors keep inside."""
    return re.sub(r"^(encoder|decoder)\.(?=(post_)?quant_conv\.)", "", key)


def _as_convolution(name: str, part: Part) -> Derived:
    """Attention in the codec is made of 1x1 convolutions, which diffusers keeps as matrices."""
    is_matrix = ".attn_1." in name and len(part.shape) == 2
    return reshaped(part, (*part.shape, 1, 1)) if is_matrix else same(part)


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder as it was found: its tensors by its own names, and what its file says of it beside the shapes."""

    origin: str
    kind: TextKind  # of the names: "clip" is Hugging Face's
    parts: Mapping[str, Part] = field(repr=False)
    width: int
    heads: int | None = None
    activation: str | None = None
    trimmed: bool = False  # its last layer is the one to read, for those behind it were left out

    @property
    def projects(self) -> bool:
        return not {"text_projection", "text_projection.weight"}.isdisjoint(self.parts)


_TOKENS: Mapping[str, TextKind] = {
    "embeddings.token_embedding.weight": "clip",
    "token_embedding.weight": "openclip",
}
_NEEDED: Mapping[TextKind, tuple[str, ...]] = {
    "clip": ("embeddings.position_embedding.weight", "encoder.layers.0.mlp.fc1.weight"),
    "openclip": ("positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight"),
}


def text_encoders_of(weights: Weights) -> list[TextEncoder]:
    """Every CLIP text encoder of a file, under whatever prefix."""
    found: list[TextEncoder] = []
    for key, shape in weights.shapes.items():
        kind, end = next(((kind, end) for end, kind in _TOKENS.items() if key.endswith(end)), (None, ""))
        prefix = key[: len(key) - len(end)]
        if kind is None or len(shape) != 2 or any(prefix + each not in weights.shapes for each in _NEEDED[kind]):
            continue
        parts = {name[len(prefix) :]: Part(weights, name) for name in weights.shapes if name.startswith(prefix)}
        # Beside the level "text_model" that transformers puts around the rest, not inside it.
        outer = prefix.removesuffix("text_model.")
        for name in ("text_projection", "text_projection.weight"):
            if outer + name in weights.shapes:
                parts[name] = Part(weights, outer + name)
        encoder = TextEncoder(origin=weights.path.name, kind=kind, parts=parts, width=shape[1])
        found.append(_with_metadata(encoder, weights.metadata))
    return found


def _with_metadata(encoder: TextEncoder, metadata: Mapping[str, str]) -> TextEncoder:
    """A file of one encoder may tell its heads, as a whole checkpoint does."""
    try:
        heads = json.loads(metadata.get("overpaint.text_heads", "null"))
    except (ValueError, RecursionError):
        return encoder
    return replace(encoder, heads=heads[0]) if isinstance(heads, list) and len(heads) == 1 else encoder


class Placed(NamedTuple):
    """Which encoder plays which part in a family."""

    family: Family
    encoders: tuple[TextEncoder, ...]


def place_texts(unet: UNetPart, encoders: Sequence[TextEncoder]) -> Placed | None:
    """The family that U-Net and encoders form together, and the encoders in its order; None where they fit none."""
    best: tuple[int, Placed] | None = None
    for family in unet.families():
        widths = text_widths(family, unet.shapes)
        for chosen in permutations(encoders, len(widths)):
            points = [_suits(each, row, width) for each, row, width in zip(chosen, family.texts, widths, strict=True)]
            if None not in points:
                total = sum(filter(None, points))
                if best is None or total > best[0]:
                    best = (total, Placed(family, chosen))
    return best[1] if best else None


def _suits(encoder: TextEncoder, row: TextRow, width: int) -> int | None:
    """How well an encoder fits a place: its width must, and hints decide between those of one width."""
    if encoder.width != width or (row.kind == "clip" and encoder.kind == "openclip"):
        return None
    points = 2 if encoder.activation == row.activation else 0
    points += 2 if (encoder.kind, row.kind) == ("openclip", "openclip") else 0
    return points + (1 if encoder.projects == row.pooled else 0)


def no_place(unet: UNetPart, encoders: Iterable[TextEncoder]) -> CheckpointError:
    family = unet.families()[0]
    wanted = " and ".join(str(width) for width in text_widths(family, unet.shapes))
    there = ", ".join(f"{each.origin} ({each.width} wide)" for each in encoders) or "no CLIP text encoder"
    return CheckpointError(
        f"text_encoder_files: a {family.title} U-Net like this wants text encoders {wanted} wide, and there are: "
        f"{there}; name other files"
    )


def text_tensors(placed: Placed) -> tuple[Tensors, dict[str, str]]:
    """The encoders' tensors under the checkpoint's names, and what the files say of them as metadata."""
    tensors: Tensors = {}
    for row, encoder in zip(placed.family.texts, placed.encoders, strict=True):
        named = _as_openclip(encoder) if row.kind == "openclip" else _as_clip(encoder)
        tensors.update((row.prefix + name, each) for name, each in named.items())
    return tensors, _facts_of(placed)


def _as_clip(encoder: TextEncoder) -> Tensors:
    roots = ("embeddings.token", "embeddings.position_embedding", "encoder.", "final_layer_norm.")
    return {name: same(part) for name, part in encoder.parts.items() if name.startswith(roots)}


def clip_tensors(encoder: TextEncoder, row: TextRow) -> Tensors:
    """A CLIP's tensors as the row of a flow family names them."""
    if row.kind == "openclip":
        return _as_openclip(encoder)
    tensors = _as_clip(encoder)
    if row.projected and "text_projection.weight" in encoder.parts:
        tensors["text_projection.weight"] = same(encoder.parts["text_projection.weight"])
    return tensors


def _as_openclip(encoder: TextEncoder) -> Tensors:
    """OpenCLIP fuses queries, keys and values, and keeps the projection with rows and columns exchanged."""
    parts, tensors = encoder.parts, Tensors()
    if encoder.kind == "openclip":
        roots = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.")
        tensors = {name: same(part) for name, part in parts.items() if name.startswith(roots)}
    else:
        for ours, theirs in openclip_names(parts).items():
            missing = [name for name in theirs if name not in parts]
            if missing:
                raise CheckpointError(f"{encoder.origin}: tensor {missing[0]} is missing; use a complete file")
            tensors[ours] = joined(*[parts[name] for name in theirs]) if len(theirs) > 1 else same(parts[theirs[0]])
    if "text_projection" in parts:
        tensors["text_projection"] = same(parts["text_projection"])
    elif "text_projection.weight" in parts:
        tensors["text_projection"] = turned(parts["text_projection.weight"])
    return tensors


def _facts_of(placed: Placed) -> dict[str, str]:
    """What shapes do not say, one entry for each encoder; nothing where no file says it."""
    said: dict[str, list[Any]] = {}
    pairs = tuple(zip(placed.family.texts, placed.encoders, strict=True))
    if any(encoder.heads for _, encoder in pairs):
        said["text_heads"] = [each.heads or max(1, each.width // row.head_dim) for row, each in pairs]
    if any(encoder.activation for _, encoder in pairs):
        said["text_activations"] = [each.activation or row.activation for row, each in pairs]
    if any(encoder.trimmed and row.final_norm for row, encoder in pairs):
        said["text_layers"] = [-1 if each.trimmed and row.final_norm else row.layer for row, each in pairs]
    return {f"overpaint.{name}": json.dumps(values) for name, values in said.items()}


def assembled(
    path: Path, unet: UNetPart, vae: Tensors, texts: Placed | None, metadata: Mapping[str, str], rest: Tensors
) -> Weights:
    """One checkpoint of its parts; `rest` are tensors that keep their names."""
    named, said = text_tensors(texts) if texts else ({}, {})
    tensors = {
        **{UNET_PREFIX + name: each for name, each in unet.tensors.items()},
        **{VAE_PREFIX + name: each for name, each in vae.items()},
        **named,
        **rest,
    }
    return derived_weights(path, tensors, {**metadata, **said})
