"""Captions as token ids. Only the words that captions can hold are trained; every other token shares one vector.

`python -m training.words` writes the list of them that the package carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overpaint.text.tokens import CAPACITY, clip_tokenizer
from training.scenes.captions import phrases

UNKNOWN = 0  # the row of all tokens that no caption holds
POSITIONS = CAPACITY + 2
_LITTLE = "a an and on of in the with at by ,"
_OTHERS = (
    _LITTLE,
    ". background no not very old new big small two one",
)


@cache
def trained_tokens() -> tuple[int, ...]:
    """The ids that can occur, in order; the row of the i-th is i + 1."""
    tokenizer = clip_tokenizer()
    found = {token for text in (*phrases(), *_OTHERS) for token in tokenizer.encode(text)}
    return tuple(sorted(found | {tokenizer.start, tokenizer.end}))


def vocabulary() -> int:
    return 1 + len(trained_tokens())


def known_words() -> tuple[str, ...]:
    """Every word that a caption can hold, in order: what the package tells its users that the model knows."""
    text = " ".join((*phrases(), *_OTHERS)).lower()
    return tuple(sorted(set(re.findall(r"[a-z']+", text))))


@cache
def _rows() -> dict[int, int]:
    return {token: row for row, token in enumerate(trained_tokens(), 1)}


def quiet_rows() -> tuple[int, ...]:
    """The rows of tokens that say little: those that frame every text, the unknown one, and small words."""
    small = (token for word in _LITTLE.split() for token in clip_tokenizer().encode(word))
    return (UNKNOWN, *start_and_end(), *(_rows()[token] for token in small))


def start_and_end() -> tuple[int, int]:
    """The rows of the two tokens that frame every text."""
    tokenizer = clip_tokenizer()
    return _rows()[tokenizer.start], _rows()[tokenizer.end]


def encode(texts: Iterable[str]) -> NDArray[np.int64]:
    """Rows of the trained table: (n, 77)"""
    known = _rows()
    lines = [[known.get(token, UNKNOWN) for token in line] for line in _framed(texts)]
    return np.asarray(lines, dtype=np.int64).reshape(-1, POSITIONS)


def tokens(texts: Iterable[str]) -> NDArray[np.int64]:
    """Ids in the whole vocabulary, as an exported checkpoint reads them: (n, 77)"""
    return np.asarray(list(_framed(texts)), dtype=np.int64).reshape(-1, POSITIONS)


def _framed(texts: Iterable[str]) -> Iterator[Sequence[int]]:
    """Ids between the two tokens that frame every text, padded as SD 1 does it."""
    tokenizer = clip_tokenizer()
    for text in texts:
        ids = tokenizer.encode(text)[:CAPACITY]
        yield [tokenizer.start, *ids, *[tokenizer.end] * (POSITIONS - 1 - len(ids))]


def _write() -> None:
    from overpaint.models.built_in import DATA

    Path(DATA / "words.txt").write_text("\n".join(known_words()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
