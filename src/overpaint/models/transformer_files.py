"""Flow models as people have them: a transformer in a file of its own, text encoders and a VAE beside it, or a folder.

They become one checkpoint, named as detection expects it; nothing is read before it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.models.components import vae_of
from overpaint.models.derived import Derived, Part, derived_weights, joined, same
from overpaint.models.families import FAMILIES, UNET_PREFIX, VAE_PREFIX, Family
from overpaint.models.files import Weights
from overpaint.models.specs import TextKind
from overpaint.models.transformer_layouts import TABLES_OF_WORDS, Names, text_names, transformer_names
from overpaint.models.transformer_shapes import text_title, transformer_spec

Tensors = dict[str, Derived]

_PREFIXES = (UNET_PREFIX, "diffusion_model.", "transformer.", "")


@dataclass(frozen=True)
class TransformerPart:
    """A transformer's tensors by our names, and the file that holds them."""

    weights: Weights
    family: Family
    tensors: Mapping[str, Derived] = field(repr=False)

    @property
    def path(self) -> Path:
        return self.weights.path

    def text_widths(self) -> tuple[int, ...]:
        shapes = {UNET_PREFIX + name: each.shape for name, each in self.tensors.items()}
        network = transformer_spec(shapes, self.family)
        assert network is not None
        return network.text_widths


@dataclass(frozen=True)
class TextPart:
    """A text encoder's tensors by our names, and the vocabulary that lies beside it."""

    origin: str
    kind: TextKind
    tensors: Mapping[str, Derived] = field(repr=False)
    width: int
    tokenizer: str = ""


def transformer_of(weights: Weights) -> TransformerPart | None:
    """The transformer in a file, whichever way it is named; None where there is none that is known."""
    for prefix in _PREFIXES:
        inner = {key[len(prefix) :]: key for key in weights.shapes if key.startswith(prefix)}
        found = transformer_names(inner)
        if found is not None:
            network, names = found
            family = next(each for each in FAMILIES if each.network == network)
            return TransformerPart(weights, family, _tensors(weights, names, inner))
    return None


def text_parts_of(weights: Weights, tokenizer: str = "") -> list[TextPart]:
    """Every text encoder of a file that is no CLIP, under whatever prefix."""
    found: list[TextPart] = []
    for key, shape in weights.shapes.items():
        end = next((each for each in TABLES_OF_WORDS if key.endswith(each)), None)
        if end is None or len(shape) != 2:
            continue
        prefix = key[: len(key) - len(end)]
        inner = {name[len(prefix) :]: name for name in weights.shapes if name.startswith(prefix)}
        named = text_names(inner)
        if named is not None:
            kind, names = named
            tensors = _tensors(weights, names, inner)
            beside = tokenizer or vocabulary_beside(weights.path)
            found.append(TextPart(weights.path.name, kind, tensors, shape[1], beside))
    return found


def vocabulary_beside(path: Path) -> str:
    """The file of a text encoder's words: beside it, or in the folder "tokenizer" of a model."""
    folder = path if path.is_dir() else path.parent
    places = (
        folder / f"{path.stem}.tokenizer.json",
        folder / "tokenizer.json",
        folder.parent / "tokenizer/tokenizer.json",
    )
    return next((str(each) for each in places if each.is_file()), "")


def whole_model(
    path: Path,
    part: TransformerPart,
    texts: Sequence[TextPart],
    vae: Mapping[str, Derived] | None,
    metadata: Mapping[str, str],
) -> Weights:
    """One checkpoint of its parts. Text encoders that are missing are told by the detection."""
    tensors: Tensors = {UNET_PREFIX + name: each for name, each in part.tensors.items()}
    vae = _own_vae(part.weights) if vae is None else vae
    tensors.update((VAE_PREFIX + name, each) for name, each in vae.items())
    chosen = _placed(part, texts)
    for row, each in zip(part.family.texts, chosen, strict=True):
        if each is not None:
            tensors.update((row.prefix + name, tensor) for name, tensor in each.tensors.items())
    tokenizers = [each.tokenizer if each is not None else "" for each in chosen]
    return derived_weights(path, tensors, {**metadata, "overpaint.tokenizers": json.dumps(tokenizers)})


def _placed(part: TransformerPart, texts: Sequence[TextPart]) -> list[TextPart | None]:
    """The text encoder of each row: the first of its kind and width; those of another width are told of."""
    chosen: list[TextPart | None] = []
    for row, width in zip(part.family.texts, part.text_widths(), strict=True):
        of_kind = [each for each in texts if each.kind == row.kind]
        found = next((each for each in of_kind if each.width == width), None)
        if found is None and texts:
            there = ", ".join(f"{each.origin} ({text_title(each.kind, each.width)})" for each in texts)
            raise CheckpointError(
                f"text_encoder_files: a {part.family.title} transformer like this needs {text_title(row.kind, width)}, "
                f"and there is: {there}; name another file"
            )
        chosen.append(found)
    return chosen


def _own_vae(weights: Weights) -> Tensors:
    return vae_of(weights) if any(key.startswith(VAE_PREFIX) for key in weights.shapes) else {}


def _tensors(weights: Weights, names: Names, keys: Mapping[str, str]) -> Tensors:
    """By our names; `keys` are the names without their prefix -> those of the file."""
    tensors: Tensors = {}
    for ours, theirs in names.items():
        missing = [each for each in theirs if each not in keys]
        if missing:
            raise CheckpointError(f"{weights.path.name}: tensor {missing[0]} is missing; use a complete file")
        parts = [Part(weights, keys[each]) for each in theirs]
        tensors[ours] = same(parts[0]) if len(parts) == 1 else joined(*parts)
    return tensors
