"""Reading textual inversions, in every kind of file they come in (TIF-1, TIF-2).

Gal et al., "An Image is Worth One Word" (2022), arXiv:2208.01618.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.catalog import EMBEDDING, PICTURE_OF_EMBEDDING, files_of
from overpaint.models.files import read_checkpoint
from overpaint.models.hashes import sha256_of
from overpaint.models.pickled_values import TensorRef
from overpaint.models.unpickle import open_pickle
from overpaint.named_files import check_regular
from overpaint.pictures import FORMATS
from overpaint.text.tokens import CAPACITY

ALONE, CLIP_L, CLIP_G = "alone", "clip_l", "clip_g"

_PICKLES = (".pt", ".bin")
_TEXT_CHUNK = "sd-ti-embedding"
_HASH_DIGITS = 12
_BUNDLE = "bundle_emb."
_BUNDLED_BLOCKS = {".string_to_param.*": ALONE, f".{CLIP_L}": CLIP_L, f".{CLIP_G}": CLIP_G}


@dataclass(frozen=True)
class EmbeddingData:
    """The vectors of one embedding: a single block, or one for each of SDXL's encoders; not yet of any model."""

    name: str
    tag: str  # stands for it in an infotext: the start of the file's SHA-256, or the LoRA that brought it
    digest: str  # of the contents
    blocks: Mapping[str, Tensor] = field(compare=False, repr=False)  # (vectors, width), float32
    bundled: bool = False

    @property
    def width(self) -> int:
        """How TIF-3 counts it: that of both blocks together."""
        return sum(each.shape[1] for each in self.blocks.values())


class _Stored(NamedTuple):
    """A tensor of a safetensors file."""

    key: str
    shape: tuple[int, ...]


class _Opened(NamedTuple):
    """What a file holds, its tensors still where they are, and how to read one."""

    name: str
    tree: object
    read: Callable[[Any], Tensor]


def embedding_files(folder: Path) -> Iterator[Path]:
    """Files of the folder and those below it that may hold an embedding; previews do not (TIF-1)."""
    return (each.path for each in files_of(folder, EMBEDDING, PICTURE_OF_EMBEDDING))


def read_embedding(path: Path) -> EmbeddingData | None:
    """The embedding of a file; None for a picture that holds none. A file that cannot be used: CheckpointError."""
    check_regular(path, CheckpointError)
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path.name}: the file is empty; download it again")
        opened = _open(path)
        if opened is None:
            return None
        places = _blocks_of(opened.tree, path.name)
        blocks = {block: _vectors(opened.read(place), path.name) for block, place in places.items()}
        digest = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path.name}: the file cannot be read ({error}); check its rights") from error
    return _checked(EmbeddingData(opened.name, digest[:_HASH_DIGITS], digest, blocks), path.name)


def bundled_embeddings(lora: str, tensors: Mapping[str, Tensor]) -> tuple[EmbeddingData, ...]:
    """The embeddings among a LoRA file's tensors, by the file's own keys (LORA-9), unusable ones left out."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        ending = next((each for each in _BUNDLED_BLOCKS if key.endswith(each)), "")
        name = key.removeprefix(_BUNDLE).removesuffix(ending)
        if key.startswith(_BUNDLE) and ending and name:
            found.setdefault(name, {})[_BUNDLED_BLOCKS[ending]] = tensor
    return tuple(each for name, blocks in found.items() if (each := _bundled(lora, name, blocks)) is not None)


def _bundled(lora: str, name: str, tensors: Mapping[str, Tensor]) -> EmbeddingData | None:
    if set(tensors) not in ({ALONE}, {CLIP_L, CLIP_G}) or not all(_fits(each.shape) for each in tensors.values()):
        return None
    try:
        blocks = {block: _vectors(each, name) for block, each in sorted(tensors.items())}
        digest = hashlib.sha256(b"".join(each.cpu().numpy().tobytes() for each in blocks.values())).hexdigest()
        return _checked(EmbeddingData(name, lora, digest, blocks, bundled=True), name)
    except CheckpointError:
        return None


def _open(path: Path) -> _Opened | None:
    suffix = path.suffix.lower()
    if suffix in PICTURE_OF_EMBEDDING.suffixes:
        return _open_picture(path)
    if suffix in _PICKLES:
        pickled = open_pickle(path)
        return _Opened(path.stem, pickled.tree, lambda place: next(pickled.read([place])))
    weights = read_checkpoint(path)
    stored = {key: _Stored(key, shape) for key, shape in weights.shapes.items()}
    return _Opened(path.stem, stored, lambda place: next(weights.read([place.key]))[1])


def _open_picture(path: Path) -> _Opened | None:
    """A picture that carries an embedding as text: base64 of JSON, whose tensors are nested lists."""
    Image.init()
    try:
        with Image.open(path, formats=[each for each in FORMATS if each in Image.OPEN]) as picture:
            text = picture.info.get(_TEXT_CHUNK)
        if text is None:
            return None
        tree = json.loads(base64.b64decode(text), object_hook=_with_tensor)
    except UnidentifiedImageError:
        raise CheckpointError(f"{path.name}: this picture cannot be read here; save it as PNG") from None
    except (ValueError, TypeError, ArithmeticError, RecursionError, Image.DecompressionBombError) as error:
        raise CheckpointError(f"{path.name}: the embedding in this picture is damaged ({error})") from error
    name = tree.get("name") if isinstance(tree, dict) else None
    return _Opened(name if name and isinstance(name, str) else path.stem, tree, lambda tensor: tensor)


def _with_tensor(table: dict[str, Any]) -> Any:
    if "TORCHTENSOR" not in table:
        return table
    return torch.from_numpy(np.asarray(table["TORCHTENSOR"], dtype=np.float32))


def _blocks_of(tree: object, name: str) -> dict[str, Any]:
    """Where the vectors are (TIF-2): under "string_to_param", in SDXL's two blocks, or the only tensor there is."""
    if isinstance(tree, dict) and "string_to_param" in tree:
        tree = tree["string_to_param"]
    found = _tensors_of(tree)
    if {CLIP_L, CLIP_G} <= found.keys():
        found = {CLIP_L: found[CLIP_L], CLIP_G: found[CLIP_G]}
    elif len(found) == 1:
        found = {ALONE: next(iter(found.values()))}
    else:
        raise CheckpointError(f"{name}: it holds {len(found)} tensors where an embedding has one; use another file")
    for each in found.values():
        if not _fits(each.shape):
            shape = " x ".join(map(str, each.shape)) or "a single number"
            raise CheckpointError(f"{name}: its tensor is {shape}, not 1 to {CAPACITY} vectors; use another file")
    return found


def _tensors_of(tree: object) -> dict[str, Any]:
    table = tree if isinstance(tree, dict) else {ALONE: tree}
    return {str(key): value for key, value in table.items() if isinstance(value, (TensorRef, _Stored, Tensor))}


def _fits(shape: tuple[int, ...]) -> bool:
    """[width] or [vectors, width]; no chunk of a text has room for more vectors."""
    return len(shape) in (1, 2) and 0 not in shape and (len(shape) == 1 or shape[0] <= CAPACITY)


def _vectors(tensor: Tensor, name: str) -> Tensor:
    vectors = tensor.detach().reshape(-1, tensor.shape[-1]).float().cpu().contiguous()
    if not tensor.is_floating_point() or not bool(vectors.isfinite().all()):
        raise CheckpointError(f"{name}: its vectors hold values that are no numbers; download it again")
    return vectors


def _checked(data: EmbeddingData, name: str) -> EmbeddingData:
    counts = [len(each) for each in data.blocks.values()]
    if len(set(counts)) > 1:
        raise CheckpointError(f"{name}: it holds {counts[0]} vectors for one encoder and {counts[1]} for the other")
    return data
