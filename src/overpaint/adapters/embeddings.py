"""Textual inversions of a model: which words of a text stand for which vectors (TI, TIF-3 to TIF-5, LORA-9)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from overpaint.adapters.embedding_files import ALONE, CLIP_G, CLIP_L, EmbeddingData, embedding_files, read_embedding
from overpaint.errors import CheckpointError
from overpaint.models.families import ModelSpec, TextSpec
from overpaint.text.tokens import FoundEmbedding, tokenizer_for

_BLOCK_OF = {"clip": CLIP_L, "openclip": CLIP_G}


@dataclass(frozen=True)
class Embedding:
    """An embedding that fits a model: its vectors for each of the model's text encoders."""

    name: str
    tag: str
    digest: str
    bundled: bool  # it came in a LoRA file
    parts: tuple[Tensor, ...] = field(compare=False, repr=False)  # (vectors, width) each

    @property
    def vectors(self) -> int:
        return len(self.parts[0])


class Skipped(NamedTuple):
    """A file that gives this model no embedding, and why."""

    name: str
    reason: str


class _Name(NamedTuple):
    ids: tuple[int, ...]
    embedding: Embedding


@dataclass(frozen=True)
class EmbeddingTable:
    """The embeddings of a model. Two tables are equal when they hold the same embeddings."""

    texts: tuple[TextSpec, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)
    _names: Mapping[int, tuple[_Name, ...]] = field(default_factory=dict, compare=False, repr=False)

    def find(self, ids: Sequence[int], position: int) -> FoundEmbedding | None:
        """The embedding named by the tokens from a position on; of several the one with the longest name (TI-1)."""
        for name in self._names.get(ids[position], ()):
            if tuple(ids[position : position + len(name.ids)]) == name.ids:
                return FoundEmbedding(name.embedding, len(name.ids))
        return None

    def with_bundled(self, bundled: Iterable[EmbeddingData]) -> EmbeddingTable:
        """Also the embeddings in the LoRA files in use, except for names that exist already (LORA-9)."""
        fitting, skipped = _fitted(bundled, self.texts)
        known = {each.name: each for each in (*reversed(fitting), *self.embeddings)}
        added = [each for each in fitting if known[each.name] is each]
        return _table(self.texts, (*self.embeddings, *added), (*self.skipped, *skipped)) if added else self

    def is_ordinary_word(self, embedding: Embedding) -> bool:
        """Whether its name is one token, so that a word people may write for its own sake now means the embedding."""
        return any(each.embedding is embedding and len(each.ids) == 1 for row in self._names.values() for each in row)

    def missed(self, text: str) -> tuple[Skipped, ...]:
        """The skipped ones whose name a text nevertheless contains."""
        lowered, known = text.lower(), {each.name for each in self.embeddings}
        named = (each for each in self.skipped if each.name.lower() in lowered and each.name not in known)
        return tuple(each for each in named if re.search(rf"(?<!\w){re.escape(each.name)}(?!\w)", text, re.IGNORECASE))


NO_EMBEDDINGS = EmbeddingTable()


def table_of(spec: ModelSpec, found: Iterable[EmbeddingData], skipped: Iterable[Skipped] = ()) -> EmbeddingTable:
    """The table of a model. Of equal names the last one counts; equal tokens belong to the first (TIF-5)."""
    fitting, unfit = _fitted(found, spec.texts)
    latest = {each.name: each for each in fitting}
    return _table(spec.texts, latest.values(), (*skipped, *unfit))


def _fitted(found: Iterable[EmbeddingData], texts: tuple[TextSpec, ...]) -> tuple[list[Embedding], list[Skipped]]:
    fitting: list[Embedding] = []
    skipped: list[Skipped] = []
    for data in found:
        blocks = [data.blocks.get(each) for each in _blocks_for(texts)]
        parts = tuple(each for each in blocks if each is not None)
        if [each.shape[1] for each in parts] == [each.width for each in texts] and len(data.blocks) == len(texts):
            fitting.append(Embedding(data.name, data.tag, data.digest, data.bundled, parts))
        else:
            width = sum(each.width for each in texts)
            remedy = f"this model takes {width}; use one that was made for its family"
            skipped.append(Skipped(data.name, f"embedding={data.name!r}: its vectors are {data.width} wide, {remedy}"))
    return fitting, skipped


def _blocks_for(texts: tuple[TextSpec, ...]) -> list[str]:
    """TIF-3: a model with one encoder takes single blocks, SDXL takes pairs."""
    return [ALONE] if len(texts) == 1 else [_BLOCK_OF[each.kind] for each in texts]


def _table(
    texts: tuple[TextSpec, ...], embeddings: Iterable[Embedding], skipped: tuple[Skipped, ...]
) -> EmbeddingTable:
    tokenizer = tokenizer_for(texts[0].kind)
    kept: list[Embedding] = []
    rows: dict[int, list[_Name]] = {}
    for each in embeddings:
        ids = tuple(tokenizer.encode(each.name))
        if ids:
            kept.append(each)
            rows.setdefault(ids[0], []).append(_Name(ids, each))
        else:
            reason = f"embedding={each.name!r}: no text can name it; give the file a name of letters"
            skipped = (*skipped, Skipped(each.name, reason))
    names = {first: tuple(sorted(row, key=lambda name: -len(name.ids))) for first, row in rows.items()}
    return EmbeddingTable(texts, tuple(kept), skipped, MappingProxyType(names))


class _Stamp(NamedTuple):
    path: Path
    time: int
    size: int


_Read = EmbeddingData | Skipped | None


@dataclass
class EmbeddingShelf:
    """What was read of the embedding files: each is read once, and again when its time or size changes."""

    _read: dict[_Stamp, _Read] = field(default_factory=dict)
    _made: tuple[tuple[_Stamp, ...], tuple[TextSpec, ...], EmbeddingTable] | None = None

    def table(self, folder: str | Path, spec: ModelSpec) -> EmbeddingTable:
        """The table of a folder for a model; no folder is an empty one. A file that cannot be used is skipped."""
        if not spec.has_unet:  # their encoders read words, not vectors that somebody made for CLIP
            return NO_EMBEDDINGS
        stamps = tuple(_stamps(Path(folder))) if folder else ()
        if self._made is not None and self._made[:2] == (stamps, spec.texts):
            return self._made[2]
        self._read = {each: self._read[each] if each in self._read else _read(each.path) for each in stamps}
        found = [each for each in self._read.values() if isinstance(each, EmbeddingData)]
        table = table_of(spec, found, (each for each in self._read.values() if isinstance(each, Skipped)))
        self._made = (stamps, spec.texts, table)
        return table


def _stamps(folder: Path) -> Iterable[_Stamp]:
    for path in embedding_files(folder):
        try:
            stat = path.stat()
        except OSError:  # a link that leads nowhere, or a file that was just taken away
            continue
        yield _Stamp(path, stat.st_mtime_ns, stat.st_size)


def _read(path: Path) -> _Read:
    try:
        return read_embedding(path)
    except CheckpointError as error:
        return Skipped(path.stem, str(error))
    except Exception as error:  # whatever a file brings about, jobs that do not name it have no part in it
        kind = type(error).__name__
        return Skipped(path.stem, f"{path.name}: it cannot be read ({kind}); download it again, or take it away")
