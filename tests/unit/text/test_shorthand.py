"""A LoRA or a ControlNet in one word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.text.shorthand import (
    control_files,
    control_from_text,
    lora_from_text,
    with_parts,
    with_pictures,
    without_second_pass,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "a=b.png", "a,weight=1.png", "a,b.png"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


class TestLoras:
    @pytest.mark.parametrize("text", ["", ":", " :1", "a:", "a:b", "a:1:", "a:1:2:3", "a:1,2"])
    def test_bad_ones_are_told(self, text: str) -> None:
        with pytest.raises(RequestError, match="give NAME") as caught:
            lora_from_text(text, "--lora")
        assert caught.value.field == "--lora"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("ink", {"name": "ink"}),
            ("ink:0.8", {"name": "ink", "weight": 0.8}),
            ("my ink.v2:-1:.5", {"name": "my ink.v2", "weight": -1.0, "text_weight": 0.5}),
        ],
    )
    def test_good_ones(self, text: str, expected: dict[str, Any]) -> None:
        assert lora_from_text(text) == expected


class TestControls:
    @pytest.mark.parametrize(
        ("text", "remedy"),
        [
            ("", "give MODEL=PICTURE"),
            ("canny", "give MODEL=PICTURE"),
            ("=a.png", "give MODEL=PICTURE"),
            ("canny=", "give MODEL=PICTURE"),
            ("canny=,weight=1", "give MODEL=PICTURE"),
            ("canny=a.png,wieght=1", "'wieght' is none of weight, start, end, pre, low, high"),
            ("canny=a.png,weight=", "weight is a number"),
            ("canny=a.png,low=1.5", "low is a number"),
            ("canny=gone,weight=2,size=3", "'size' is none of"),
        ],
    )
    def test_bad_ones_are_told(self, folder: Path, text: str, remedy: str) -> None:
        with pytest.raises(RequestError, match=remedy):
            control_from_text(text, folder=folder)

    @pytest.mark.parametrize(
        ("text", "model", "picture", "fields"),
        [
            ("canny=a.png", "canny", "a.png", {}),
            (" canny = a.png,weight=0.5", "canny", "a.png", {"weight": 0.5}),
            ("c=a.png,start=0.1,end=0.9,pre=canny", "c", "a.png", {"start": 0.1, "end": 0.9, "preprocessor": "canny"}),
            ("c=a.png,low=10,high=20", "c", "a.png", {"canny_low": 10, "canny_high": 20}),
            ("c=a=b.png,weight=1", "c", "a=b.png", {"weight": 1.0}),
            ("c=d=a.png", "c=d", "a.png", {}),
            ("c=a,weight=1.png", "c", "a,weight=1.png", {}),
            ("c=a,weight=1.png,weight=2", "c", "a,weight=1.png", {"weight": 2.0}),
            ("c=a,b.png", "c", "a,b.png", {}),
            ("c=gone.png,weight=1", "c", "gone.png", {"weight": 1.0}),
            ("c=a.png,weight=1,weight=2", "c", "a.png", {"weight": 2.0}),  # the last word counts
        ],
    )
    def test_good_ones(self, folder: Path, text: str, model: str, picture: str, fields: dict[str, Any]) -> None:
        assert control_from_text(text, folder=folder) == {"model": model, "image": str(folder / picture), **fields}


class TestRows:
    def test_words_become_tables_and_paths_full(self, folder: Path) -> None:
        given = {
            "loras": ["ink:0.5", {"name": "oil"}],
            "controls": ["c=a.png", {"model": "d", "image": "a.png"}, {"model": "e", "image": "data:x"}, 3],
            "steps": 4,
        }
        assert with_parts(given, folder) == {
            "loras": [{"name": "ink", "weight": 0.5}, {"name": "oil"}],
            "controls": [
                {"model": "c", "image": str(folder / "a.png")},
                {"model": "d", "image": str(folder / "a.png")},
                {"model": "e", "image": "data:x"},
                3,
            ],
            "steps": 4,
        }

    @pytest.mark.parametrize("value", ["c=a.png", 3, None, {"model": "c"}])
    def test_what_is_no_list_stays_for_the_request_to_refuse(self, folder: Path, value: object) -> None:
        assert with_parts({"loras": value, "controls": value}, folder) == {"loras": value, "controls": value}
        assert control_files({"controls": value}) == ()

    def test_the_pictures_take_the_places_of_their_files(self, folder: Path) -> None:
        fields = with_parts({"controls": ["c=a.png", {"model": "e", "image": "data:x"}]}, folder)
        assert control_files(fields) == (folder / "a.png", None)
        opened = with_pictures(fields, lambda path: path.name)
        assert [each["image"] for each in opened["controls"]] == ["a.png", "data:x"]
        assert with_pictures({"steps": 3}, lambda path: path.name) == {"steps": 3}


def test_a_source_has_no_second_pass() -> None:
    with pytest.raises(RequestError, match="hires="):
        without_second_pass({"hires": {}})
    assert without_second_pass({"hires": None, "steps": 3}) == {"steps": 3}
