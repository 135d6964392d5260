"""Messages of errors: one sentence, however large the value is that they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from overpaint.errors import CheckpointError, RequestError, SaveError, SettingError, brief


def deep() -> Any:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    return value


def repeated() -> Any:
    """Of 9**40 parts."""
    value: Any = "x"
    for _ in range(40):
        value = [value] * 9
    return value


LARGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * 10**6,
    "bytes": lambda: b"x" * 10**6,
    "number": lambda: 10**6000,
    "list": lambda: list(range(10**6)),
    "table": lambda: {i: i for i in range(10**5)},
    "deep": deep,
    "repeated": repeated,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_value_is_shown_in_brief(name: str) -> None:
    value = LARGE[name]()
    assert 0 < len(brief(value)) <= 80
    assert len(str(RequestError("steps", value, "give a number"))) < 120


@pytest.mark.parametrize("value", ["text", 1, 2.5, None, True, [1, 2], (3,), {"a": "b"}, b"x"])
def test_a_small_value_is_shown_as_it_is_written(value: Any) -> None:
    assert brief(value) == repr(value)


@pytest.mark.parametrize("kind", [CheckpointError, SaveError])
def test_a_long_message_is_cut_and_keeps_its_remedy(kind: type[Exception]) -> None:
    said = str(kind(f"x.ckpt: {'y' * 50_000}; download it again"))
    assert len(said) < 2100 and said.startswith("x.ckpt: y") and said.endswith("; download it again")
    assert str(kind("x.ckpt: short")) == "x.ckpt: short"


def test_an_error_of_a_field_keeps_its_parts() -> None:
    error = SettingError("n_rows", "many", "give a whole number")
    assert (error.field, error.value, error.remedy) == ("n_rows", "many", "give a whole number")
    assert str(error) == "n_rows='many': give a whole number"
