"""Prompt matrix and prompts from a text."""

from __future__ import annotations

from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.sequences.prompt_tools import PromptMatrix, PromptsFromText, line_fields
from overpaint.sequences.story import StepResult, with_known_seeds
from overpaint.settings import Settings
from tests.unit.toy_job import asked, noisy_picture


def test_every_combination() -> None:
    matrix = PromptMatrix(request=asked(prompt="a cat|red|, big ", batch_size=3))
    assert matrix.texts == ["a cat", "a cat, red", "a cat, big", "a cat, red, big"]
    first, second = (matrix.step(n, []).request for n in range(len(matrix)))
    assert (first.prompt, first.batch_size, first.seed) == (("a cat", "a cat, red", "a cat, big"), 3, (1, 1, 1))
    assert (second.prompt, second.batch_size) == (("a cat, red, big",), 1)
    other = PromptMatrix(
        request=asked(prompt="x", negative_prompt="a|b"), which="negative", at_start=True, joined_by="space"
    )
    assert other.texts == ["a", "b a"]
    assert other.step(1, []).request.negative_prompt == ("b a",)


def test_seeds_of_a_matrix() -> None:
    matrix = PromptMatrix(request=asked(prompt="a|b", seed=7, variation_seed=3), different_seeds=True)
    steps = [matrix.step(n, []).request for n in range(2)]
    assert [each.seed for each in steps] == [(7,), (8,)]
    assert [each.variation_seed for each in steps] == [(3,), (4,)]


def test_a_matrix_has_a_sheet() -> None:
    matrix = PromptMatrix(request=asked(prompt="a|b|c|d"))
    done = [StepResult(pictures=(noisy_picture(16, 16),), infotexts=(str(n),)) for n in range(8)]
    shown = matrix.assembled(done, Settings(return_grid=True))
    assert (shown.first, len(shown.images), shown.infotexts[:2]) == (1, 9, ("0", "0"))
    assert shown.images[0].width > 4 * 16
    assert matrix.assembled(done, Settings()).first == 0


def test_too_many_parts() -> None:
    with pytest.raises(RequestError, match="2048 pictures are too many"):
        PromptMatrix(request=asked(prompt="|".join("abcdefghijkl")))
    with pytest.raises(RequestError, match="joined_by"):
        PromptMatrix(request=asked(), joined_by="dash")


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a cat", {"prompt": "a cat"}),
        ('--prompt "a cat" --steps 7', {"prompt": "a cat", "steps": 7}),
        ("--prompt a red cat --cfg_scale 4.5", {"prompt": "a red cat", "cfg_scale": 4.5}),
        ("--sampler_name Euler --n_iter 2 --tiling true", {"sampler": "Euler", "iterations": 2, "tiling": True}),
        ("it's -- a dash", {"prompt": "it's -- a dash"}),
        ("--styles a,b", {"styles": ("a", "b")}),
    ],
)
def test_lines(line: str, fields: dict[str, Any]) -> None:
    assert line_fields(line) == fields


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--stepps 3", r"line 3=.*--prompt"),
        ("--steps many", "not a value of this field"),
        ("--outpath_samples /etc", "not for a line to say"),
        ("word --steps 3", "follows its --name"),
    ],
)
def test_lines_that_are_refused(line: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        line_fields(line, 2)


def test_prompts_join_the_requests() -> None:
    tool = PromptsFromText(request=asked(prompt="oil", negative_prompt="dull"), text="a cat\n\n--negative_prompt bad\n")
    assert len(tool) == 2
    assert tool.step(0, []).request.prompt == "a cat oil"
    assert tool.step(1, []).request.negative_prompt == "bad dull"
    assert PromptsFromText(request=asked(prompt="oil"), text="a", place="end").step(0, []).request.prompt == "oil a"


def test_seeds_of_lines() -> None:
    text = "a\nb\n--prompt c --seed 5\nd"
    iterated = PromptsFromText(request=asked(seed=10, batch_size=2), text=text, iterate_seed=True)
    assert [iterated.step(n, []).request.seed for n in range(4)] == [10, 12, 5, 16]
    same = with_known_seeds(PromptsFromText(request=asked(seed=-1), text=text, same_random_seed=True))
    assert same.step(0, []).request.seed == same.step(1, []).request.seed
    own = with_known_seeds(PromptsFromText(request=asked(seed=-1), text=text))
    assert own.step(0, []).request.seed != own.step(1, []).request.seed
    assert own.step(1, []).request.seed == own.step(1, []).request.seed


@pytest.mark.parametrize("text", ["", " \n ", 5])
def test_a_text_needs_a_line(text: Any) -> None:
    with pytest.raises(RequestError, match="at least one line"):
        PromptsFromText(request=asked(), text=text)
