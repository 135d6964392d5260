"""Weights that would make the network's numbers overflow are told before anything is painted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.models.catalog import LORA, files_of
from overpaint.planning.plan import plan
from overpaint.planning.plans import Surroundings
from overpaint.request import Hires, Txt2ImgRequest
from overpaint.settings import Settings

BEYOND = [
    f"(a:{'9' * 39})",  # infinite in float32
    f"(a:-{'9' * 30})",
    "(a:1000.1)",
    "((a:40):40)",  # each alone is within
    "(" * 80 + "a",  # 1.1 ^ 80 = 2048
    f"a AND b :{'9' * 20}",
    f"a AND b :-{'9' * 20}",
    f"[a:(b:{'9' * 20}):0.5]",
    f"((a:0):{'9' * 400})",  # 0 times infinity
]
WITHIN = ["(a:1000)", "(a:-2)", "(((((a)))))", "(" * 60 + "a", "[" * 900 + "a", "(a:1e30)", "(a:-1e308)", "a AND b :50"]


def planned(settings: Settings | None = None, **fields: Any) -> None:
    plan(Txt2ImgRequest(**{"width": 64, "height": 64, **fields}), settings)


@pytest.mark.parametrize("text", BEYOND)
@pytest.mark.parametrize("settings", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_beyond(text: str, settings: Settings) -> None:
    with pytest.raises(RequestError, match=r"^prompt='.*overflow; give a weight from -1000 to 1000, multiplied"):
        planned(settings, prompt=text)
    with pytest.raises(RequestError, match=r"^hires\.prompt='.*give a weight from -1000 to 1000"):
        planned(settings, prompt="a", hires=Hires(prompt=text))
    if " AND " in text:
        planned(settings, prompt="a", negative_prompt=text)  # where AND is a word
        return
    with pytest.raises(RequestError, match=r"^negative_prompt='.*give a weight from -1000 to 1000"):
        planned(settings, prompt="a", negative_prompt=text)


@pytest.mark.parametrize("text", WITHIN)
@pytest.mark.parametrize("settings", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_within(text: str, settings: Settings) -> None:
    planned(settings, prompt=text, negative_prompt=text)


def test_where_brackets_are_text_they_have_no_weight() -> None:
    for emphasis in ("None", "Ignore"):
        planned(replace(Settings(), emphasis=emphasis), prompt=BEYOND[0])


@pytest.mark.parametrize("tag", ["<lora:ink:1e30>", "<lora:ink:1:unet=-101>", "<hypernet:ink:101>"])
def test_tags_of_networks(tmp_path: Path, tag: str) -> None:
    (tmp_path / "ink.safetensors").write_bytes(b"")
    files = files_of(tmp_path, LORA)
    known = Surroundings(loras=files, hypernets=files)
    with pytest.raises(RequestError, match=r"^prompt='<(lora|hypernet):ink:.*give a weight from -100 to 100"):
        plan(Txt2ImgRequest(prompt=f"a {tag}", width=64, height=64), known=known)
    plan(Txt2ImgRequest(prompt="a <lora:ink:100>", width=64, height=64), known=known)
