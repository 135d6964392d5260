"""Flow models as people have them: a transformer in a file of its own, text encoders and a VAE beside it, or a folder.

They become one checkpoint, named as detection expects it; nothing is read before it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.models.components import VAE_PREFIXES, clip_tensors, text_encoders_of, vae_of
from overpaint.models.derived import Derived, Part, derived_weights, frames_added, joined, same, swapped
from overpaint.models.detect import told_family
from overpaint.models.families import UNET_PREFIX, VAE_PREFIX, Family
from overpaint.models.files import Weights
from overpaint.models.header import Said
from overpaint.models.specs import TextKind, TextRow
from overpaint.models.transformer_layouts import (
    TABLES_OF_WORDS,
    VISION,
    Names,
    text_names,
    transformer_names,
    vision_prefix,
)
from overpaint.models.transformer_shapes import suits, text_title, transformer_family, transformer_spec

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
    """A text encoder, how its tensors are named for a row of a family, and the vocabulary that lies beside it."""

    origin: str
    kind: TextKind  # by its names
    width: int
    named: Callable[[TextRow], Mapping[str, Derived]] = field(repr=False)
    tokenizer: str = ""


def transformer_of(weights: Weights) -> TransformerPart | None:
    """The transformer in a file, whichever way it is named; None where there is none that is known."""
    for prefix in _PREFIXES:
        inner = {key[len(prefix) :]: key for key in weights.shapes if key.startswith(prefix)}
        found = transformer_names(inner)
        if found is not None:
            network, names = found
            tensors = _tensors(weights, names, inner)
            shapes = {UNET_PREFIX + name: each.shape for name, each in tensors.items()}
            return TransformerPart(weights, transformer_family(network, shapes), tensors)
    return None


def told(part: TransformerPart, metadata: Mapping[str, str], name: str) -> TransformerPart:
    """The same as of the family that metadata or a name tell, where its tensors do not."""
    return replace(part, family=told_family(part.family, Said(metadata, {}), name)[0])


def text_parts_of(weights: Weights, tokenizer: str = "") -> list[TextPart]:
    """Every text encoder of a file that is no CLIP, under whatever prefix."""
    found: dict[str, TextPart] = {}  # by prefix: an encoder may have its table of words twice
    for key, shape in weights.shapes.items():
        end = next((each for each in TABLES_OF_WORDS if key.endswith(each)), None)
        prefix = key[: len(key) - len(end or "")]
        if end is None or len(shape) != 2 or prefix in found:
            continue
        inner = {name[len(prefix) :]: name for name in weights.shapes if name.startswith(prefix)}
        named = text_names(inner)
        if named is not None:
            kind, names = named
            tensors = _tensors(weights, names, inner)
            beside = tokenizer or vocabulary_beside(weights.path, kind)
            found[prefix] = _text_part(weights, kind, shape[1], tensors, prefix, beside)
    return list(found.values())


def all_text_parts_of(weights: Weights, tokenizer: str = "") -> list[TextPart]:
    """The same with CLIPs."""
    clips = text_encoders_of(weights)
    parts = [TextPart(each.origin, each.kind, each.width, partial(clip_tensors, each)) for each in clips]
    return [*text_parts_of(weights, tokenizer), *parts]


def _text_part(weights: Weights, kind: TextKind, width: int, tensors: Tensors, prefix: str, tokenizer: str) -> TextPart:
    """With its vision tower, for a family that shows it pictures."""
    start = vision_prefix(weights.shapes, prefix) if kind == "qwen25" else None
    if start is None:
        return TextPart(weights.path.name, kind, width, lambda row: tensors, tokenizer)
    keys = (key for key in weights.shapes if key.startswith(start))
    vision = {VISION + key[len(start) :]: frames_added(Part(weights, key)) for key in keys}
    with_vision = {**tensors, **vision}
    return TextPart(
        weights.path.name, "qwen25_edit", width, lambda row: tensors if row.eyes is None else with_vision, tokenizer
    )


_STEMS: Mapping[TextKind, tuple[str, ...]] = {"t5": ("t5",), "qwen3": ("qwen",), "qwen25": ("qwen",)}
_FOLDERS: Mapping[TextKind, tuple[str, ...]] = {
    "t5": ("tokenizer_2", "tokenizer_3"),
    "qwen3": ("tokenizer",),
    "qwen25": ("tokenizer",),
}


def vocabulary_beside(path: Path, kind: TextKind) -> str:
    """The file of a text encoder's words: beside it, or in the folder of a model.

    Beside files of several kinds, `tokenizer.json` could be anybody's, so one that is called by its kind goes before.
    """
    folder = path if path.is_dir() else path.parent
    own = f"{path.stem}.tokenizer.json"
    places = [folder / own, *(folder / f"{stem}.tokenizer.json" for stem in _STEMS.get(kind, ()))]
    places += [folder / "tokenizer.json", *(folder.parent / name / "tokenizer.json" for name in _FOLDERS.get(kind, ()))]
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
            tensors.update((row.prefix + name, tensor) for name, tensor in each.named(row).items())
    tokenizers = [each.tokenizer if each is not None else "" for each in chosen]
    return derived_weights(path, tensors, {**metadata, "overpaint.tokenizers": json.dumps(tokenizers)})


def lacking(part: TransformerPart, texts: Sequence[TextPart]) -> bool:
    """Whether a text encoder of the family is in none of these."""
    wanted = zip(part.family.texts, part.text_widths(), strict=True)
    return any(_found(row, width, texts) is None for row, width in wanted)


def _placed(part: TransformerPart, texts: Sequence[TextPart]) -> list[TextPart | None]:
    """The text encoder of each row: the first of its kind and width; those of another width are told of."""
    chosen: list[TextPart | None] = []
    for row, width in zip(part.family.texts, part.text_widths(), strict=True):
        found = _found(row, width, texts)
        strangers = [each for each in texts if row.optional and suits(each.kind, row.kind)]
        if found is None and (strangers if row.optional else texts):
            there = ", ".join(f"{each.origin} ({text_title(each.kind, each.width)})" for each in texts)
            raise CheckpointError(
                f"text_encoder_files: a {part.family.title} transformer like this needs {text_title(row.kind, width)}, "
                f"and there is: {there}; name another file"
            )
        if found is not None and row.kind == "t5" and not found.tokenizer:
            raise CheckpointError(_no_words(found, row))
        chosen.append(found)
    return chosen


def _no_words(found: TextPart, row: TextRow) -> str:
    without = "; or name the other text encoders alone there, to go without" if row.optional else ""
    return (
        f"{found.origin}: the vocabulary of T5 is not beside it; put a T5's tokenizer.json, which folders of diffusers "
        "have in tokenizer_2 or tokenizer_3, there as t5.tokenizer.json, or name it in the setting text_encoder_files, "
        f"too{without}"
    )


def _found(row: TextRow, width: int, texts: Sequence[TextPart]) -> TextPart | None:
    return next((each for each in texts if suits(each.kind, row.kind) and each.width == width), None)


def _own_vae(weights: Weights) -> Tensors:
    return vae_of(weights) if any(key.startswith(VAE_PREFIXES) for key in weights.shapes) else {}


def _tensors(weights: Weights, names: Names, keys: Mapping[str, str]) -> Tensors:
    """By our names; `keys` are the names without their prefix -> those of the file."""
    tensors: Tensors = {}
    for ours, theirs in names.items():
        missing = [each for each in theirs.keys if each not in keys]
        if missing:
            raise CheckpointError(f"{weights.path.name}: tensor {missing[0]} is missing; use a complete file")
        parts = [Part(weights, keys[each]) for each in theirs.keys]
        tensors[ours] = joined(*parts) if len(parts) > 1 else (swapped if theirs.swapped else same)(parts[0])
    return tensors
