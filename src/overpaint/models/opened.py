"""Whatever a model comes as, opened as one checkpoint: a file, a folder, or parts in several files.

The keys are the original checkpoint's, shapes are known at once, and tensors are made when they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.models.components import (
    Placed,
    TextEncoder,
    UNetPart,
    assembled,
    no_place,
    place_texts,
    text_encoders_of,
    unet_of,
    vae_of,
)
from overpaint.models.derived import Part, same, unscaled
from overpaint.models.files import Weights, read_checkpoint
from overpaint.models.folders import component_weights, open_flow_folder, open_folder, text_folder
from overpaint.models.gguf_files import ARCHITECTURE, is_gguf, open_gguf
from overpaint.models.transformer_files import (
    TextPart,
    TransformerPart,
    all_text_parts_of,
    lacking,
    text_parts_of,
    told,
    transformer_of,
    whole_model,
)
from overpaint.models.transformer_shapes import text_title

_TEXT_ROOTS = ("cond_stage_model.", "conditioner.")


def open_model(path: Path, *, text_encoders: Sequence[Path] = ()) -> Weights:
    """The model at `path` under the original checkpoint's keys; `text_encoders` are for one that brings none."""
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, text_encoders)
    weights = open_tensors(path)
    transformer = transformer_of(weights)
    if transformer is not None:
        transformer = told(transformer, weights.metadata, path.name)
        texts = _with_others(transformer, all_text_parts_of(weights), text_encoders)
        return whole_model(path, transformer, texts, None, weights.metadata)
    unet = unet_of(weights)
    if unet is not None:
        return _completed(weights, unet, text_encoders)
    if ARCHITECTURE in weights.metadata:
        if text_parts_of(weights):
            raise CheckpointError(
                f"{path.name}: it is a text encoder: give it as --text-encoder, and as --model the model it belongs to"
            )
        raise CheckpointError(
            f"{path.name}: it holds a {weights.metadata[ARCHITECTURE][:80]!r} model and no U-Net; "
            "use a GGUF file of a Stable Diffusion U-Net or of a flow model that is known"
        )
    return weights  # whatever it is, its keys tell the detection what to say


def _of_folder(path: Path, text_encoders: Sequence[Path]) -> Weights:
    flow = open_flow_folder(path)
    if flow is not None:
        texts = _with_others(flow.transformer, flow.texts, text_encoders)
        return whole_model(path, flow.transformer, texts, vae_of(flow.vae) if flow.vae else {}, flow.metadata)
    folder = open_folder(path)
    unet = unet_of(folder.unet)
    if unet is None:
        raise CheckpointError(f"{path.name}: its folder unet holds no U-Net; use a Stable Diffusion model")
    vae = vae_of(folder.vae) if folder.vae is not None else {}
    return assembled(path, unet, vae, _with_texts(unet, folder.texts, text_encoders), folder.metadata, {})


def _completed(weights: Weights, unet: UNetPart, text_encoders: Sequence[Path]) -> Weights:
    """A file's U-Net as a checkpoint, with the text encoders from other files if it has none."""
    lacks_texts = not any(key.startswith(_TEXT_ROOTS) for key in unet.others)
    if unet.as_checkpoint and not (lacks_texts and text_encoders):
        return weights
    texts = _with_texts(unet, (), text_encoders) if lacks_texts else None
    rest = {key: same(Part(weights, key)) for key in unet.others}
    return assembled(weights.path, unet, {}, texts, weights.metadata, rest)


def _with_texts(unet: UNetPart, own: Sequence[TextEncoder], files: Sequence[Path]) -> Placed | None:
    """The model's own text encoders, or with them those of the files; None where there are none at all."""
    placed = place_texts(unet, own)
    if placed is not None or not (own or files):
        return placed
    there = [*own, *_opened_texts(files)]
    placed = place_texts(unet, there)
    if placed is None:
        raise no_place(unet, there)
    return placed


def _with_others(transformer: TransformerPart, own: list[TextPart], paths: Sequence[Path]) -> list[TextPart]:
    """A model's own text encoders, and where one is missing those of the files that were named for it.

    A file that is no model, such as `tokenizer.json`, is the vocabulary of those that have none.
    """
    if not lacking(transformer, own):
        return own
    files = [Path(each) for each in paths]
    vocabulary = next((str(each) for each in files if each.suffix.lower() == ".json"), "")
    found = list(own)
    for path in (each for each in files if each.suffix.lower() != ".json"):
        parts = all_text_parts_of(open_tensors(path))
        if not parts:
            wanted = " and ".join(
                text_title(row.kind, width)
                for row, width in zip(transformer.family.texts, transformer.text_widths(), strict=True)
            )
            raise CheckpointError(
                f"text_encoder_files: {path.name} holds no text encoder that a {transformer.family.title} model reads; "
                f"give {wanted}"
            )
        found += parts
    return [replace(each, tokenizer=vocabulary) if vocabulary else each for each in found]


def _opened_texts(paths: Sequence[Path]) -> list[TextEncoder]:
    return [encoder for path in paths for encoder in _texts_at(Path(path))]


def _texts_at(path: Path) -> list[TextEncoder]:
    found = text_folder(path) if path.is_dir() else text_encoders_of(open_tensors(path))
    if not found:
        raise CheckpointError(f"text_encoder_files: {path.name} holds no CLIP text encoder; take it out of the list")
    return found


def open_tensors(path: Path) -> Weights:
    """The tensors at `path` under their own names, whatever they are stored in."""
    if path.is_dir():
        weights = component_weights(path)
        if weights is None:
            raise CheckpointError(f"{path.name}: there are no weights in this folder; choose another")
        return weights
    try:
        return unscaled(open_gguf(path) if path.is_file() and is_gguf(path) else read_checkpoint(path))
    except OSError as error:
        raise CheckpointError(f"{path.name}: it cannot be read ({error.strerror}); check its rights") from error
