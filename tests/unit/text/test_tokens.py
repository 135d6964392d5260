"""Tokenizers against the genuine vocabulary and the recordings; chunks against the rules' checks."""

from __future__ import annotations

import gc
import gzip
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.settings import Quirks
from overpaint.text.prompt import BREAK, Segment, parse_attention
from overpaint.text.readings import reading_of
from overpaint.text.tokens import (
    CAPACITY,
    COMMA,
    END,
    START,
    Chunk,
    FoundEmbedding,
    Tokenizer,
    chunk,
    clip_tokenizer,
    open_clip_tokenizer,
    pad_after_end,
)
from tests.conftest import needs_whole_set

REFERENCE = Quirks.reference()
SANE = Quirks.none()
WORD = 320  # "a"
BOTH = pytest.mark.parametrize("tokenizer", [clip_tokenizer(), open_clip_tokenizer()], ids=["clip", "open_clip"])


# ---- Tokenizers ----


@needs_whole_set
def test_the_vocabulary_is_the_genuine_one(parity: Path) -> None:  # TOK-1
    genuine = (parity / "checkpoints" / "clip-tiny" / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    packed = files("overpaint").joinpath("models", "data", "clip_merges.txt.gz").read_bytes()
    assert gzip.decompress(packed).decode("utf-8").splitlines() == genuine
    vocabulary = json.loads((parity / "checkpoints" / "clip-tiny" / "vocab.json").read_text(encoding="utf-8"))
    texts = [entry.removesuffix("</w>") for entry in vocabulary if entry.endswith("</w>") and entry.isascii()]
    known = [text for text in texts if re.fullmatch("[a-z]+", text)]
    assert len(known) > 30_000
    for text in known[::7]:
        assert clip_tokenizer().encode(text) == [vocabulary[f"{text}</w>"]]


@BOTH
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("   ", []),
        ("A CAT", [320, 2368]),
        ("a\n\t cat ", [320, 2368]),
        (",", [COMMA]),
        ("a,cat", [320, COMMA, 2368]),
        ("<|startoftext|>a<|endoftext|>", [START, 320, END]),
        ("a <|ENDOFTEXT|>", [320, END]),
    ],
)
def test_ids(tokenizer: Tokenizer, text: str, ids: list[int]) -> None:  # TOK-1
    assert tokenizer.encode(text) == ids


@BOTH
def test_odd_characters_are_repaired(tokenizer: Tokenizer) -> None:  # TOK-1
    assert tokenizer.encode("ｃａｔ") == tokenizer.encode("cat")
    assert tokenizer.encode("“it’s”") == tokenizer.encode('"it\'s"')
    assert tokenizer.encode("schÃ¶n") == tokenizer.encode("schön")
    assert tokenizer.encode("\ud800") == tokenizer.encode("\ufffd")


def test_only_open_clip_reads_entities_beside_tags() -> None:  # TOK-1
    text = "&amp;lt; <b>"
    assert open_clip_tokenizer().encode(text) == clip_tokenizer().encode("< <b>")
    assert clip_tokenizer().encode(text) != open_clip_tokenizer().encode(text)


def test_control_words_within_punctuation() -> None:  # TOK-1
    assert clip_tokenizer().encode("!<|endoftext|>")[-1] == END
    assert END not in open_clip_tokenizer().encode("!<|endoftext|>")


@BOTH
def test_contractions_fold_case(tokenizer: Tokenizer) -> None:  # TOK-1: the long s counts as an s after an apostrophe
    assert tokenizer.encode("it'ſ") == tokenizer.encode("it") + tokenizer.encode("'ſ")
    assert tokenizer.encode("'ſt") == tokenizer.encode("'ſ") + tokenizer.encode("t")


def _random_text(source: random.Random) -> str:
    alphabets = ("abcdefgh'stm ", "0123456789.,:;()[]|<>&#", "äöüßéñ日本語🐱Привет१½", "\n\t _-'\"", "İΣ\u200b\u0301")
    control = ("<|endoftext|>", "<|startoftext|>", "it's", "we'll", "I'M", "photograph")
    pieces = [
        source.choice(control) if source.random() < 0.08 else source.choice(source.choice(alphabets))
        for _ in range(source.randrange(40))
    ]
    return "".join(pieces)


@needs_whole_set
@pytest.mark.filterwarnings("ignore")
def test_ids_of_another_implementation(parity: Path) -> None:  # TOK-1
    transformers = pytest.importorskip("transformers")
    folder = parity / "checkpoints" / "clip-tiny"
    other = transformers.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    source = random.Random(1)
    for _ in range(3000):
        text = " ".join(ftfy.fix_text(_random_text(source)).split()).lower()
        expected = other(text, add_special_tokens=False)["input_ids"]
        assert clip_tokenizer().encode(text) == expected, text


@given(st.text())
def test_any_text_has_ids(text: str) -> None:
    for tokenizer in (clip_tokenizer(), open_clip_tokenizer()):
        assert all(0 <= token <= END for token in tokenizer.encode(text))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&")))
def test_plain_ascii_needs_no_repair(text: str) -> None:
    assert ftfy.fix_text(text) == text


# ---- Chunks ----


@pytest.mark.parametrize(
    ("name", "tokenizer"), [("tiny-sd15", clip_tokenizer()), ("tiny-sd21-v", open_clip_tokenizer())]
)
def test_chunks_as_recorded(parity: Path, name: str, tokenizer: Tokenizer) -> None:  # TOK-2, TOK-3, TOK-5
    cases: list[dict[str, Any]] = json.loads((parity / "unit" / f"tokens_{name}.json").read_text(encoding="utf-8"))
    for case in cases:
        segments = parse_attention(case["prompt"], REFERENCE)
        chunks, count = chunk(segments, tokenizer, backtrack=case["backtrack"], quirks=REFERENCE)
        assert count == case["count"], case["prompt"]
        assert [list(each.ids) for each in chunks] == case["tokens"]
        assert [list(each.weights) for each in chunks] == case["multipliers"]


def _words(count: int) -> str:
    return "a " * count


def _lengths(chunks: Sequence[Chunk]) -> list[int]:
    return [each.ids.index(END) - 1 for each in chunks]


@pytest.mark.parametrize(
    ("text", "lengths", "count"),
    [  # TOK-5, TOK-6
        (_words(75), [75], 75),
        (_words(76), [75, 1], 76),
        (f"{_words(60)}, {_words(20)}", [61, 20], 95),
        (f"{_words(50)}, {_words(30)}", [75, 6], 81),
        (f"{_words(75)}, a", [75, 2], 77),
        ("BREAK a", [0, 1], 76),
        ("a BREAK", [1], 75),
        ("a BREAK BREAK a", [1, 0, 1], 151),
        ("", [0], 0),
    ],
)
def test_chunk_lengths(text: str, lengths: list[int], count: int) -> None:
    chunks, counted = chunk(parse_attention(text, SANE), clip_tokenizer(), quirks=SANE)
    assert _lengths(chunks) == lengths
    assert counted == count


def test_backtracking_can_be_switched_off() -> None:  # TOK-3b
    segments = parse_attention(f"{_words(60)}, {_words(20)}", SANE)
    assert _lengths(chunk(segments, clip_tokenizer(), backtrack=0, quirks=SANE)[0]) == [75, 6]


def test_weights_travel_with_their_tokens() -> None:  # TOK-2, TOK-3b
    segments = [Segment(f"{_words(60)},", 1.0), Segment(_words(20), 1.5)]
    first, second = chunk(segments, clip_tokenizer(), quirks=SANE)[0]
    assert set(first.weights) == {1.0}
    assert second.weights == (1.0, *[1.5] * 20, *[1.0] * 56)
    assert second.ids == (START, *[WORD] * 20, *[END] * 56)


@dataclass(frozen=True)
class _Vectors:
    vectors: int


def _cats(vectors: int) -> tuple[_Vectors, Any]:
    embedding = _Vectors(vectors)
    name = clip_tokenizer().encode("fluffy cat")

    def find(ids: Sequence[int], position: int) -> FoundEmbedding | None:
        return FoundEmbedding(embedding, len(name)) if list(ids[position : position + len(name)]) == name else None

    return embedding, find


def test_embeddings_take_slots() -> None:  # TOK-3d, TOK-6
    embedding, find = _cats(3)
    segments = parse_attention("a (fluffy cat:1.3) a", SANE)
    (only,), count = chunk(segments, clip_tokenizer(), find_embedding=find, quirks=SANE)
    assert count == 5
    assert only.ids[:7] == (START, WORD, 0, 0, 0, WORD, END)
    assert only.weights[1:6] == (1.0, 1.3, 1.3, 1.3, 1.0)
    assert only.embeddings == ((1, embedding),)
    segments = parse_attention(f"{_words(74)} fluffy cat a", SANE)
    chunks, count = chunk(segments, clip_tokenizer(), find_embedding=find, quirks=SANE)
    assert (_lengths(chunks), count) == ([74, 4], 79)
    assert [each.embeddings for each in chunks] == [(), ((0, embedding),)]


@pytest.mark.parametrize(("quirks", "slots"), [(REFERENCE, [[62], []]), (SANE, [[], [1]])], ids=["reference", "sane"])
def test_embeddings_behind_a_cut(quirks: Quirks, slots: list[list[int]]) -> None:  # TOK-4
    _, find = _cats(2)
    segments = parse_attention(f"{_words(60)}, a fluffy cat {_words(20)}", quirks)
    chunks, _ = chunk(segments, clip_tokenizer(), find_embedding=find, quirks=quirks)
    assert [[slot for slot, _ in each.embeddings] for each in chunks] == slots
    assert chunks[1].ids[1:5] == (WORD, 0, 0, WORD)


def test_a_huge_embedding_fills_one_chunk() -> None:  # TI-2
    _, find = _cats(100)
    segments = parse_attention("a fluffy cat a", SANE)
    chunks, _ = chunk(segments, clip_tokenizer(), find_embedding=find, quirks=SANE)
    assert _lengths(chunks) == [1, CAPACITY, 1]


def test_open_clip_pads_with_zero() -> None:  # TOK-7
    assert pad_after_end((START, 5, END, END, END)) == (START, 5, END, 0, 0)
    assert pad_after_end((START, END, 5, END)) == (START, END, 0, 0)
    full = (START, *[5] * 75, END)
    assert pad_after_end(full) == full


@given(st.lists(st.sampled_from(["a", ",", "a, a a", "fluffy cat", "BREAK"]), max_size=120), st.integers(0, 75))
def test_every_token_lands_once(words: list[str], backtrack: int) -> None:
    _, find = _cats(5)
    segments = [BREAK if word == "BREAK" else Segment(word, 1.25) for word in words]
    chunks, count = chunk(segments, clip_tokenizer(), backtrack=backtrack, find_embedding=find, quirks=SANE)
    put = [token for each in chunks for token, weight in zip(each.ids, each.weights, strict=True) if weight == 1.25]
    expected: list[int] = []
    for word in words:
        expected += [0] * 5 if word == "fluffy cat" else [] if word == "BREAK" else clip_tokenizer().encode(word)
    assert put == expected
    assert CAPACITY * (len(chunks) - 1) <= count <= CAPACITY * len(chunks)
    for each in chunks:
        assert len(each.ids) == len(each.weights) == CAPACITY + 2
        assert all(each.ids[slot + 1 : slot + 6] == (0,) * 5 for slot, _ in each.embeddings)


@pytest.mark.parametrize("text", ["a, ", "(a", "a", "日", "&"])
@BOTH
def test_time_grows_with_the_text(tokenizer: Tokenizer, text: str) -> None:
    def seconds(size: int) -> float:
        segments = parse_attention(text * (size // len(text)), SANE)
        gc.disable()
        try:
            start = time.process_time()
            chunk(segments, tokenizer, quirks=SANE)
            return time.process_time() - start
        finally:
            gc.enable()

    small, large = min(seconds(2_000) for _ in range(2)), min(seconds(8_000) for _ in range(2))
    assert large < 7 * small + 0.03


@pytest.mark.parametrize("kind", ["clip", "openclip"])
def test_each_kind_of_encoder_reads_chunks_in_its_own_way(kind: Literal["clip", "openclip"]) -> None:  # TOK-7
    reading = reading_of(kind)
    (read,), _ = reading.cut((Segment("a cat", 1.0),), reading.tokenizer("", 0, 0), quirks=Quirks())
    ids = reading.ids(read)
    assert len(ids) == 77
    assert ids[:4] == (START, 320, 2368, END)
    assert set(ids[4:]) == ({END} if kind == "clip" else {0})
