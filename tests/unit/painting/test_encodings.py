"""What is kept of encodings: under all that they depend on, and never more than the bound."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from overpaint.networks.text import TextEncoding, TokenOverride, TokenPicture
from overpaint.painting.encodings import EncodingsCount, Identity, KeptEncodings, RememberingTexts, identity

NETWORK, OTHER = nn.Identity(), nn.Identity()
ONES = torch.ones(2, 3)


def known(network: object = NETWORK, state: Hashable = (), *given: object, call: str = "encode") -> Identity:
    return identity(call, network, state, *given)


@pytest.mark.parametrize(
    "other",
    [
        known(OTHER, (), ONES),
        known(NETWORK, (torch.float32,), ONES),
        known(NETWORK, (), ONES, call="text"),
        known(NETWORK, (), ONES.reshape(3, 2)),
        known(NETWORK, (), ONES.double()),
        known(NETWORK, (), ONES.bfloat16()),
        known(NETWORK, (), ONES, ONES),
        known(NETWORK, (), torch.nextafter(ONES, ONES * 2)),
        known(NETWORK, (), torch.tensor([[1.0, 1, 1], [1, 1, -1]])),
        known(NETWORK, (), Image.new("RGB", (2, 3))),
        known(("file", 1), (), ONES),
    ],
)
def test_whatever_differs_is_another_question(other: Identity) -> None:
    assert other != known(NETWORK, (), ONES)
    assert known(NETWORK, (), ONES.clone().t().contiguous().t()) == known(NETWORK, (), ONES)


VALUES = st.one_of(
    st.integers(-3, 3),
    st.text("ab", max_size=3),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.lists(st.integers(0, 2), max_size=3).map(torch.tensor),
    st.lists(st.integers(0, 2), max_size=3).map(lambda each: torch.tensor(each, dtype=torch.float32)),
    st.sampled_from(["L", "RGB"]).map(lambda mode: Image.new(mode, (2, 1))),
)


def same(a: object, b: object) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype is b.dtype and a.shape == b.shape and torch.equal(a, b)
    return a == b


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
def test_equal_questions_and_no_others(one: list[object], two: list[object]) -> None:
    are_same = len(one) == len(two) and all(map(same, one, two))
    assert (known(NETWORK, (), *one) == known(NETWORK, (), *two)) == are_same


def ask(kept: KeptEncodings, key: Identity | None, answer: Any, count: EncodingsCount | None = None) -> Any:
    return kept.answer(count or EncodingsCount(), lambda: key, lambda: answer)


@given(st.integers(0, 400), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60)), max_size=30))
def test_never_more_than_the_bound_and_the_latest_stay(bound: int, asked: list[tuple[int, int]]) -> None:
    kept = KeptEncodings(bound)
    expected: dict[int, int] = {}  # number -> bytes, in the order in which they were wanted
    for number, length in asked:
        size = 4 * expected[number] // 4 if number in expected else 4 * length
        found = ask(kept, known(NETWORK, number), (torch.full((length,), float(length)),))
        assert found[0].numel() * 4 == size
        if size <= bound and bound:
            expected.pop(number, None)
            expected[number] = size
        while sum(expected.values()) > bound:
            expected.pop(next(iter(expected)))
        assert kept.size == sum(expected.values()) <= bound
    assert kept.total.hits + kept.total.misses == len(asked)


def test_a_smaller_bound_forgets_and_none_looks_at_nothing() -> None:
    kept, count = KeptEncodings(100), EncodingsCount()
    for number in range(3):
        ask(kept, known(NETWORK, number), (torch.zeros(8), None), count)
    assert kept.size == 96
    kept.set_bound(40)
    assert kept.size == 32
    assert ask(kept, known(NETWORK, 2), (ONES,), count)[0].shape == (8,)
    kept.set_bound(0)

    def unasked() -> Identity:
        raise AssertionError("nothing is looked up")

    assert kept.answer(count, unasked, lambda: (ONES,))[0] is ONES
    assert (count.hits, count.misses, kept.size) == (1, 4, 0)


def test_nobody_changes_what_is_kept() -> None:
    kept, key = KeptEncodings(1000), known()
    picture = Image.new("L", (2, 2))
    changes: list[tuple[Identity, Any, Callable[[Any], object]]] = [
        (key, (torch.zeros(3), None), lambda each: each[0].add_(1)),
        (known(state=1), picture, lambda each: each.putpixel((0, 0), 9)),
    ]
    for question, answer, change in changes:
        for _ in range(3):
            change(ask(kept, question, answer))
    assert ask(kept, key, None)[0].tolist() == [0, 0, 0]
    assert ask(kept, known(state=1), None).getpixel((0, 0)) == 0


def test_answers_of_a_network_that_is_gone_are_forgotten() -> None:
    kept, network = KeptEncodings(1000), nn.Identity()
    ask(kept, known(network), (torch.zeros(9),))
    ask(kept, known(), (torch.zeros(1),))
    del network
    gc.collect()
    kept.set_bound(1000)
    assert kept.size == 4
    newcomer = nn.Identity()  # perhaps in the same place of the memory
    assert ask(kept, known(newcomer), (torch.zeros(2),))[0].shape == (2,)


def test_a_question_without_a_name_is_not_kept() -> None:
    kept = KeptEncodings(1000)
    for expected in (ONES, ONES * 2):
        assert ask(kept, None, (expected,))[0] is expected
    assert kept.size == 0


# -- texts -------------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """A model with one text encoder, which counts what it reads."""

    networks: Any = field(default_factory=lambda: SimpleNamespace(texts=(nn.Identity(),)))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: int = 0

    def text(self, encoder: int, ids: Tensor, **said: Any) -> TextEncoding:
        self.asked += 1
        return TextEncoding(torch.full((1, 2), float(self.asked)))


def test_embeddings_and_pictures_count_with_their_numbers_and_their_places() -> None:
    reader = Reader()
    texts = RememberingTexts(reader, KeptEncodings(1000), EncodingsCount())  # type: ignore[arg-type]
    ids, vectors = torch.tensor([[1, 2, 3]]), torch.ones(1, 4)
    questions: list[dict[str, Any]] = [
        {},
        {"layer": -2},
        {"layer": -2, "final_norm": False},
        {"overrides": (TokenOverride(0, 1, vectors),)},
        {"overrides": (TokenOverride(0, 2, vectors),)},
        {"overrides": (TokenOverride(0, 1, vectors * 2),)},
        {"overrides": (TokenOverride(0, 1, vectors), TokenOverride(0, 2, vectors))},
        {"pictures": (TokenPicture(1, vectors),)},
        {"pictures": (TokenPicture(2, vectors),)},
        {"pictures": (TokenPicture(1, vectors * 2),)},
    ]
    for _ in range(2):
        found = [texts.text(0, ids, **said).tokens[0, 0].item() for said in questions]
        assert found == list(range(1, 11))
    assert reader.asked == len(questions)
