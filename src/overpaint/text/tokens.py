"""From weighted segments to the token chunks that a CLIP text encoder reads.

Both encoders share one vocabulary (OpenAI CLIP, byte-pair encoding) and differ in how a text is cleaned beforehand.
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import NamedTuple, Protocol

import ftfy
import tokenizers
from tokenizers import models, pre_tokenizers

from overpaint.models.specs import TextKind
from overpaint.settings import Quirks
from overpaint.text.prompt import BREAK, Segment

START, END, COMMA = 49406, 49407, 267
CAPACITY = 75  # the slots of a chunk between its start and its end

_CONTROL = {"<|startoftext|>": START, "<|endoftext|>": END}
_CONTROL_TEXT = re.compile(f"({'|'.join(map(re.escape, _CONTROL))})")
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class Tokenizer(Protocol):
    """Turns a text into token ids, without start, end or any limit of length."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def comma(self) -> int: ...
    @property
    def pad(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class _ClipTokenizer:
    clean: Callable[[str], list[str]]
    words: pre_tokenizers.PreTokenizer
    bpe: tokenizers.Tokenizer
    start: int = START
    end: int = END
    comma: int = COMMA
    pad: int = END

    def encode(self, text: str) -> list[int]:
        return [token for part in self.clean(text) for token in self._encode_clean(part)]

    def _encode_clean(self, text: str) -> list[int]:
        if text in _CONTROL:
            return [_CONTROL[text]]
        if "<|" not in text:
            return list(self.bpe.encode(text).ids)
        # A control word counts only where the word pattern finds it whole: "!<|endoftext|>" is punctuation.
        ids: list[int] = []
        for word, _ in self.words.pre_tokenize_str(text):
            ids += [_CONTROL[word]] if word in _CONTROL else self.bpe.encode(word).ids
        return ids


@cache
def clip_tokenizer() -> Tokenizer:
    """The tokenizer of SD1 and of SDXL's first encoder."""
    return _ClipTokenizer(_clean_for_clip, *_byte_pair_encoder())


@cache
def open_clip_tokenizer() -> Tokenizer:
    """The tokenizer of SD2, of SDXL's second encoder and of its refiner."""
    return _ClipTokenizer(_clean_for_open_clip, *_byte_pair_encoder())


def tokenizer_for(kind: TextKind) -> Tokenizer:
    """The tokenizer that a kind of CLIP was trained with."""
    return CLIP_READINGS[kind].tokenizer("", 0, 0)


def clip_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Every entry of CLIP's vocabulary with its id: letters, letters that end a word, merges, control words."""
    letters = byte_letters()
    entries = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), *_CONTROL]
    return {entry: token for token, entry in enumerate(entries)}


def _byte_pair_encoder() -> tuple[pre_tokenizers.PreTokenizer, tokenizers.Tokenizer]:
    merges = clip_merges()
    vocabulary = clip_vocabulary(merges)
    words = pre_tokenizers.Split(tokenizers.Regex(_WORD), "removed", invert=True)
    bpe = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return words, bpe


def clip_merges() -> list[tuple[str, str]]:
    """OpenAI CLIP's merges, in their order; see CLIP-LICENSE beside the file."""
    packed = files("overpaint").joinpath("models", "data", "clip_merges.txt.gz").read_bytes()
    pairs = (line.split(" ") for line in gzip.decompress(packed).decode("utf-8").splitlines())
    return [(left, right) for left, right in pairs]


def byte_letters() -> list[str]:
    """The letter that stands for each byte, in the vocabulary's order: printable bytes, as themselves, come first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(others)]


def _repaired(text: str) -> str:
    """Mojibake, odd widths and control characters put right; plain ASCII without entities needs nothing."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    return ftfy.fix_text(text)


def _clean_for_clip(text: str) -> list[str]:
    """TOK-1: control words are cut out first, so each part between them is repaired on its own."""
    parts = _CONTROL_TEXT.split(text) if "<|" in text else [text]
    return [part if part in _CONTROL else _lowered(_repaired(part)) for part in parts]


def _clean_for_open_clip(text: str) -> list[str]:
    return [_lowered(html.unescape(html.unescape(_repaired(text))))]


def _lowered(text: str) -> str:
    return " ".join(text.split()).lower()


# ---- Chunks (TOK-2 to TOK-7) ----


class TokenEmbedding(Protocol):
    """A textual inversion: some vectors that stand in for the tokens of its name."""

    @property
    def vectors(self) -> int: ...


class FoundEmbedding(NamedTuple):
    """An embedding named at a token position, and how many tokens its name takes there."""

    embedding: TokenEmbedding
    length: int


FindEmbedding = Callable[[Sequence[int], int], FoundEmbedding | None]


class Chunk(NamedTuple):
    """What the text encoder reads at once: start, 75 slots, end."""

    ids: tuple[int, ...]  # (77,), or as many as a text has where it is read whole
    weights: tuple[float, ...]  # of each
    embeddings: tuple[tuple[int, TokenEmbedding], ...]  # slot (position in ids - 1) of the first vector, embedding


def chunk(
    segments: Iterable[Segment],
    tokenizer: Tokenizer,
    *,
    backtrack: int = 20,
    find_embedding: FindEmbedding | None = None,
    quirks: Quirks,
) -> tuple[tuple[Chunk, ...], int]:
    """The chunks of one text and the number of its tokens.

    A full chunk is cut after a comma among its last `backtrack` tokens, so that a phrase is not torn apart.
    """
    filler = _Filler(tokenizer, backtrack, quirks.stranded_embeddings)
    for segment in segments:
        if segment == BREAK:
            filler.close()
            continue
        ids = tokenizer.encode(segment.text)
        position = 0
        while position < len(ids):
            found = find_embedding(ids, position) if find_embedding else None
            filler.put(ids[position], segment.weight, found.embedding if found else None)
            position += found.length if found else 1
    return filler.finish()


def pad_after_end(ids: Sequence[int]) -> tuple[int, ...]:
    """TOK-7: OpenCLIP encoders read id 0 wherever the text is over."""
    length = ids.index(END) + 1
    return (*ids[:length], *[0] * (len(ids) - length))


Cut = Callable[..., tuple[tuple[Chunk, ...], int]]


class Show(Protocol):
    def __call__(
        self, ids: Sequence[int], tokenizer: Tokenizer, count: int, *, numbered: bool
    ) -> tuple[list[int], list[int]]:
        """The tokens of a text with those that stand round its pictures, and the slots before which these are read."""
        ...


@dataclass(frozen=True)
class TextReading:
    """How a kind of text encoder is fed: its tokenizer, how texts are cut, and the ids that it reads of a chunk.

    The tokenizer is made from the file of its vocabulary, or without one from the vocabulary that is part of this
    package, for as many words as the encoder knows; the last number is the length that texts are brought to, if any.
    """

    tokenizer: Callable[[str, int, int], Tokenizer]
    cut: Cut
    ids: Callable[[Chunk], tuple[int, ...]]
    whole: bool = False  # a text is read whole, as long as it is, and without weights
    show: Show | None = None  # where pictures stand in it, for an encoder that looks at some


@dataclass
class _Filler:
    """Fills chunks token by token; the lists are the chunk that is still open."""

    tokenizer: Tokenizer
    backtrack: int
    strand_embeddings: bool
    chunks: list[Chunk] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    embeddings: list[tuple[int, TokenEmbedding]] = field(default_factory=list)
    last_comma: int | None = None

    def put(self, token: int, weight: float, embedding: TokenEmbedding | None) -> None:
        size = min(embedding.vectors, CAPACITY) if embedding else 1
        is_full = len(self.slots) == CAPACITY
        if token == self.tokenizer.comma:
            self.last_comma = len(self.slots)
        elif is_full and self.last_comma is not None and CAPACITY - self.last_comma <= self.backtrack:
            self.cut_after(self.last_comma)
        if len(self.slots) + size > CAPACITY:
            self.close()
        if embedding:
            self.embeddings.append((len(self.slots), embedding))
        self.slots += [0] * size if embedding else [token]
        self.weights += [weight] * size

    def cut_after(self, comma: int) -> None:
        """Close the chunk behind a comma; what follows the comma opens the next one."""
        cut = comma + 1
        slots, weights = self.slots[cut:], self.weights[cut:]
        moved = [] if self.strand_embeddings else [(slot - cut, each) for slot, each in self.embeddings if slot >= cut]
        del self.slots[cut:], self.weights[cut:], self.embeddings[len(self.embeddings) - len(moved) :]
        self.close()
        self.slots, self.weights, self.embeddings = slots, weights, moved

    def close(self) -> None:
        room = CAPACITY - len(self.slots)
        ids = (self.tokenizer.start, *self.slots, *[self.tokenizer.pad] * room, self.tokenizer.end)
        self.chunks.append(Chunk(ids, (1.0, *self.weights, *[1.0] * room, 1.0), tuple(self.embeddings)))
        self.slots, self.weights, self.embeddings, self.last_comma = [], [], [], None

    def finish(self) -> tuple[tuple[Chunk, ...], int]:
        """TOK-5: a chunk counts 75, except the last one where the text, not a BREAK, ended it."""
        count = CAPACITY * len(self.chunks) + len(self.slots)
        if self.slots or not self.chunks:
            self.close()
        return tuple(self.chunks), count


CLIP_READINGS: Mapping[TextKind, TextReading] = {
    "clip": TextReading(lambda vocabulary, size, length: clip_tokenizer(), chunk, lambda read: read.ids),
    "openclip": TextReading(
        lambda vocabulary, size, length: open_clip_tokenizer(), chunk, lambda read: pad_after_end(read.ids)
    ),
}
