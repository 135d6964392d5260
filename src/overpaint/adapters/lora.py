"""Reading a LoRA or one of its kin: which layers of a model it is for, and what it has for them (LORA-3, LORA-4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from overpaint.adapters.kinds import Patch, kind_of
from overpaint.adapters.names import LayerName, find_layer, layer_names
from overpaint.errors import CheckpointError
from overpaint.models.catalog import ModelFile
from overpaint.models.families import ModelSpec
from overpaint.models.files import read_all
from overpaint.models.hashes import network_hash
from overpaint.settings import Quirks

_BUNDLE = "bundle_emb."
_NAMED = 4  # how many keys an error names

# What a file that fits nothing is made for: a mark in a key, or how wide the texts are that its layers read.
_STRANGERS = (
    (re.compile(r"double_blocks|single_(transformer_)?blocks"), "Flux"),
    (re.compile(r"joint_blocks|lora_te3_|text_encoder_3\."), "Stable Diffusion 3"),
    (re.compile(r"^lora_te2_|^text_encoder_2\."), "SDXL"),
)
_READS_TEXT = re.compile(r"attn2[._]to_k\W.*(down|lora_A)(\.default)?\.weight$")
_TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "the SDXL refiner", 2048: "SDXL"}


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A network's file, read for one kind of model; two readings of a file are two things."""

    file: ModelFile
    hash12: str
    layers: Mapping[LayerName, Patch]
    unmatched: tuple[str, ...]  # keys that name no layer of this kind of model
    embeddings: Mapping[str, Tensor]  # LORA-9: textual inversions that it brings, by the keys of the file


def read_lora(file: ModelFile, spec: ModelSpec, quirks: Quirks | None = None) -> LoraFile:
    """The whole file, matched with the layers of a model. CheckpointError if it is of no known kind or fits nothing.

    NOTE: the reference ignores the former in silence, and has nothing against the latter (`ill_fitting_networks_pass`).
    """
    tensors = read_all(file.path)
    names = layer_names(spec)
    embeddings = {key: tensor for key, tensor in tensors.items() if key.startswith(_BUNDLE)}
    layers: dict[LayerName, dict[str, Tensor]] = {}
    keys: dict[LayerName, str] = {}
    unmatched: list[str] = []
    for key in (each for each in tensors if each not in embeddings):
        found = find_layer(key, names)
        if found is None:
            unmatched.append(key)
        else:
            layers.setdefault(found.layer, {})[found.part] = tensors[key]
            keys.setdefault(found.layer, key)
    if not layers and not embeddings and not (quirks or Quirks()).ill_fitting_networks_pass:
        raise CheckpointError(_fits_nothing(file, tensors, spec))
    patches = _patches(file, layers, keys)
    return LoraFile(file, network_hash(file.path), patches, tuple(unmatched), embeddings)


def _patches(
    file: ModelFile, layers: Mapping[LayerName, Mapping[str, Tensor]], keys: Mapping[LayerName, str]
) -> dict[LayerName, Patch]:
    kinds = {layer: kind_of(parts) for layer, parts in layers.items()}
    patches = {layer: Patch(kind, layers[layer]) for layer, kind in kinds.items() if kind is not None}
    strange = [keys[layer] for layer, kind in kinds.items() if kind is None]
    if strange:
        raise CheckpointError(
            f"{file.path.name}: {len(strange)} layers hold nothing that is known as a LoRA or its kin "
            f"({_some(strange)}); use another file"
        )
    return patches


def _fits_nothing(file: ModelFile, tensors: Mapping[str, Tensor], spec: ModelSpec) -> str:
    made_for = _family(tensors)
    hint = f"it looks made for {made_for}" if made_for else f"its keys start like {_some(tensors)}"
    return f"{file.path.name}: no layer of it belongs to a {spec.title} model; {hint}"


def _family(tensors: Mapping[str, Tensor]) -> str | None:
    for mark, title in _STRANGERS:
        if any(mark.search(key) for key in tensors):
            return title
    widths = (tensor.shape[-1] for key, tensor in tensors.items() if _READS_TEXT.search(key) and tensor.dim() > 1)
    return _TEXT_WIDTHS.get(next(widths, 0))


def _some(keys: Iterable[str]) -> str:
    shown = list(keys)
    return ", ".join(each[:80] for each in shown[:_NAMED]) + (", ..." if len(shown) > _NAMED else "")
