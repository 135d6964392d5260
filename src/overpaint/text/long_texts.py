"""From weighted segments to the tokens of encoders that read a text whole: T5, and Qwen inside the talk it knows.

They know no weights: what is in brackets counts like the rest, and the plan says so. Qwen's vocabulary has been the
same since Qwen 1 and is under the Apache licence (see QWEN-LICENSE beside it); another one, and T5's, is a file.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from overpaint.errors import CheckpointError
from overpaint.models.specs import TextKind
from overpaint.settings import Quirks
from overpaint.text.prompt import BREAK, Segment
from overpaint.text.tokens import Chunk, FindEmbedding, TextReading, Tokenizer, byte_letters

LONGEST_TEXT = 512  # tokens, as the families' authors cut them
_MAX_VOCABULARY_BYTES = 64 * 2**20
_START, _END = "<|im_start|>", "<|im_end|>"
_ENDS = ("<|endoftext|>", _START, _END)
_SHOWN = ("<|vision_start|>", "<|vision_end|>")
_MARKS = (
    *(f"<|{each}_{end}|>" for each in ("object_ref", "box", "quad", "vision") for end in ("start", "end")),
    *(f"<|{each}_pad|>" for each in ("vision", "image", "video")),
    *("<tool_call>", "</tool_call>"),
    *(f"<|fim_{each}|>" for each in ("prefix", "middle", "suffix", "pad")),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
# What Qwen-Image's authors tell its text encoder to do; of its first tokens nothing is read.
_TASK = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
TASK_TOKENS = 34
# The same for Qwen-Image-Edit.
_EDIT_TASK = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
_EDIT_HEAD = f"{_START}system\n{_EDIT_TASK}{_END}\n{_START}user\n"
EDIT_TASK_TOKENS = 64
LONGEST_EDIT = 1024
_T5_ENDS = ("<pad>", "</s>")
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class LongTokenizer:
    """A tokenizer without chunks: a text is as long as it is."""

    bpe: tokenizers.Tokenizer
    start: int
    end: int
    pad: int
    comma: int = -1  # nothing is cut at commas
    length: int = LONGEST_TEXT

    def encode(self, text: str) -> list[int]:
        return list(self.bpe.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=4)
def qwen_tokenizer(vocabulary: str, size: int, length: int = 0) -> Tokenizer:
    """Of the file, or Qwen's own; an encoder of another vocabulary needs its file."""
    bpe = _read(Path(vocabulary)) if vocabulary else _own_qwen()
    ends = [number for each in _ENDS if (number := bpe.token_to_id(each)) is not None]
    if len(ends) < len(_ENDS):
        raise CheckpointError(
            f"{Path(vocabulary).name}: it has no {_END}; put the tokenizer.json of a Qwen model there"
        )
    remedy = "put the one of this text encoder there" if vocabulary else "put its own tokenizer.json beside it"
    _check_size(bpe, size, remedy)
    pad, start, end = ends
    return LongTokenizer(bpe, start, end, pad)


@lru_cache(maxsize=4)
def t5_tokenizer(vocabulary: str, size: int, length: int) -> Tokenizer:
    """Of the file."""
    if not vocabulary:
        raise CheckpointError("text_encoder_files: T5's vocabulary is missing; name its tokenizer.json there, too")
    words = _read(Path(vocabulary))
    pad, end = (words.token_to_id(each) for each in _T5_ENDS)
    if pad is None or end is None:
        raise CheckpointError(
            f"{Path(vocabulary).name}: it has no {' and '.join(_T5_ENDS)}; put a T5's tokenizer.json there"
        )
    _check_size(words, size, "put the one of this text encoder there")
    return LongTokenizer(words, end, end, pad, length=length)


def _check_size(words: tokenizers.Tokenizer, size: int, remedy: str) -> None:
    if size < words.get_vocab_size():
        raise CheckpointError(
            f"text_encoder_files: the text encoder knows {size} tokens, its vocabulary {words.get_vocab_size()}; "
            f"{remedy}"
        )


def _own_qwen() -> tokenizers.Tokenizer:
    packed = files("overpaint").joinpath("models", "data", "qwen_merges.txt.gz").read_bytes()
    lines = (line.split(" ") for line in gzip.decompress(packed).decode("utf-8").splitlines())
    merges = [(left, right) for left, right in lines]
    entries = [*byte_letters(), *map("".join, merges), *_ENDS, *_MARKS]
    bpe = tokenizers.Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=merges))
    bpe.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(tokenizers.Regex(_QWEN_WORDS), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    bpe.add_special_tokens([tokenizers.AddedToken(each, special=True, normalized=False) for each in (*_ENDS, *_MARKS)])
    return bpe


def _read(path: Path) -> tokenizers.Tokenizer:
    try:
        if path.stat().st_size > _MAX_VOCABULARY_BYTES:
            raise ValueError(f"it is larger than {_MAX_VOCABULARY_BYTES // 2**20} MiB")
        text = path.read_text("utf-8")
        json.loads(text)
        words = tokenizers.Tokenizer.from_str(text)
        words.no_truncation()  # which such files may ask for
        words.no_padding()
        return words
    except Exception as error:  # the package's own complaints have no common class
        raise CheckpointError(
            f"{path.name}: it is no tokenizer that can be read ({str(error)[:200]}); put the tokenizer.json of the "
            "text encoder there"
        ) from error


def read_whole(
    segments: Iterable[Segment],
    tokenizer: Tokenizer,
    *,
    backtrack: int = 0,
    find_embedding: FindEmbedding | None = None,
    quirks: Quirks,
) -> tuple[tuple[Chunk, ...], int]:
    """One chunk, as long as the text with the talk around it, and the number of its tokens."""
    ids = tokenizer.encode(_asked(segments))
    return _chunk(ids[:LONGEST_TEXT]), len(ids)


def read_described(
    segments: Iterable[Segment],
    tokenizer: Tokenizer,
    *,
    backtrack: int = 0,
    find_embedding: FindEmbedding | None = None,
    quirks: Quirks,
) -> tuple[tuple[Chunk, ...], int]:
    """The same behind a task."""
    ids = tokenizer.encode(f"{_START}system\n{_TASK}{_END}\n{_asked(segments)}")
    return _chunk(ids[: TASK_TOKENS + LONGEST_TEXT]), len(ids)


def read_edit(
    segments: Iterable[Segment],
    tokenizer: Tokenizer,
    *,
    backtrack: int = 0,
    find_embedding: FindEmbedding | None = None,
    quirks: Quirks,
) -> tuple[tuple[Chunk, ...], int]:
    """The same of an instruction, whose pictures come between the task and the text."""
    task = tokenizer.encode(_EDIT_HEAD)
    text = tokenizer.encode(f"{_text_of(segments)}{_END}\n{_START}assistant\n")
    return _chunk([*task, *text[:LONGEST_EDIT]]), len(task) + len(text)


def show_before_the_text(
    ids: Sequence[int], tokenizer: Tokenizer, count: int, *, numbered: bool
) -> tuple[list[int], list[int]]:
    """Pictures of an instruction, each between marks, and behind its number where there may be several."""
    task = len(tokenizer.encode(_EDIT_HEAD))
    around: list[int] = []
    slots = []
    for number in range(1, count + 1):
        around += tokenizer.encode(f"Picture {number}: " if numbered else "") + tokenizer.encode(_SHOWN[0])
        slots.append(task + len(around))
        around += tokenizer.encode(_SHOWN[1])
    return [*ids[:task], *around, *ids[task:]], slots


def read_unthinking(
    segments: Iterable[Segment],
    tokenizer: Tokenizer,
    *,
    backtrack: int = 0,
    find_embedding: FindEmbedding | None = None,
    quirks: Quirks,
) -> tuple[tuple[Chunk, ...], int]:
    """The same before an answer without thoughts, filled up with tokens that no other attends to."""
    ids = tokenizer.encode(f"{_asked(segments)}<think>\n\n</think>\n\n")
    assert isinstance(tokenizer, LongTokenizer)
    filling = [-1 - tokenizer.pad] * (LONGEST_TEXT - len(ids))
    return _chunk([*ids[:LONGEST_TEXT], *filling]), len(ids)


def _asked(segments: Iterable[Segment]) -> str:
    """A text as what somebody says to the model."""
    return f"{_START}user\n{_text_of(segments)}{_END}\n{_START}assistant\n"


def _text_of(segments: Iterable[Segment]) -> str:
    return "".join("\n" if each == BREAK else each.text for each in segments)


def _chunk(ids: list[int]) -> tuple[Chunk, ...]:
    return (Chunk(tuple(ids), (1.0,) * len(ids), ()),)


def read_filled(
    segments: Iterable[Segment],
    tokenizer: Tokenizer,
    *,
    backtrack: int = 0,
    find_embedding: FindEmbedding | None = None,
    quirks: Quirks,
) -> tuple[tuple[Chunk, ...], int]:
    """One chunk of the tokenizer's length: the text, its end, and what fills it up; and the number of its tokens.

    Where no length is wanted, one token fills a text up: it stands for all that would.
    """
    ids = tokenizer.encode(_text_of(segments))
    wanted = tokenizer.length if isinstance(tokenizer, LongTokenizer) else LONGEST_TEXT
    kept = [*ids[: (wanted or LONGEST_TEXT) - 1], tokenizer.end]
    length = wanted or min(len(kept) + 1, LONGEST_TEXT)
    filled = (*kept, *[tokenizer.pad] * (length - len(kept)))
    return (Chunk(filled, (1.0,) * length, ()),), len(ids) + 1


LONG_READINGS: Mapping[TextKind, TextReading] = {
    "t5": TextReading(t5_tokenizer, read_filled, lambda read: read.ids, whole=True),
    "qwen3": TextReading(qwen_tokenizer, read_whole, lambda read: read.ids, whole=True),
    "qwen3_stacked": TextReading(qwen_tokenizer, read_unthinking, lambda read: read.ids, whole=True),
    "qwen25": TextReading(qwen_tokenizer, read_described, lambda read: read.ids, whole=True),
    "qwen25_edit": TextReading(qwen_tokenizer, read_edit, lambda read: read.ids, whole=True, show=show_before_the_text),
}
