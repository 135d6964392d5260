"""Which files there are, what finds them, and what tags ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from overpaint.adapters.wanted import HypernetUse, LoraUse, uses_of
from overpaint.errors import RequestError
from overpaint.models.catalog import LORA, ModelFile, files_of, find_file
from overpaint.settings import Quirks
from overpaint.text.prompt import take_network_tags

SANE, REFERENCE = Quirks.none(), Quirks.reference()


def uses(text: str, quirks: Quirks = SANE) -> tuple[LoraUse | HypernetUse, ...]:
    return uses_of(take_network_tags(text)[1], quirks)


def file(name: str, alias: str = "") -> ModelFile:
    return ModelFile(Path(f"{name}.safetensors"), name, alias or name)


def test_files_in_natural_order_with_their_aliases(tmp_path: Path) -> None:  # LORA-1
    (tmp_path / "more").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "fur10.safetensors", {"ss_output_name": "fluffy"})
    save_file({"a": torch.zeros(1)}, tmp_path / "fur9.safetensors")
    (tmp_path / "more" / "old.pt").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    (tmp_path / "readme.txt").write_text("no")
    found = [(each.name, each.alias) for each in files_of(tmp_path, LORA)]
    assert found == [("broken", "broken"), ("fur9", "fur9"), ("fur10", "fluffy"), ("old", "old")]


def test_names_and_aliases_find_files() -> None:  # LORA-1
    files = (file("a", "shared"), file("b", "shared"), file("c", "sea"), file("d", "none"), file("shared2", "a2"))
    assert find_file(files, "sea") == find_file(files, "c") == files[2]
    assert find_file(files, "shared") is None
    assert find_file(files, "none") is None
    assert find_file(files, "b") == files[1]
    assert find_file(files, "d") == files[3]
    assert find_file((file("none"),), "none") == file("none")
    assert find_file((), "a") is None


@pytest.mark.parametrize(
    ("text", "te", "unet", "dyn"),  # XN-5
    [
        ("<lora:a>", 1.0, 1.0, None),
        ("<lora:a:0.5>", 0.5, 0.5, None),
        ("<lyco:a:0.5>", 0.5, 0.5, None),
        ("<lora:a:1:0.5:32>", 1.0, 0.5, 32),
        ("<lora:a:te=0.4:unet=1>", 0.4, 1.0, None),
        ("<lora:a:te=0.4>", 0.4, 0.4, None),
        ("<lora:a:0.8:unet=0.2>", 0.8, 0.2, None),
        ("<lora:a:0.8:te=0.2>", 0.2, 0.2, None),
        ("<lora:a:dyn=4:-1>", -1.0, -1.0, 4),
        ("<lora:a:1:1:8:dyn=4>", 1.0, 1.0, 4),
    ],
)
def test_weights_of_a_lora(text: str, te: float, unet: float, dyn: int | None) -> None:
    assert uses(text) == uses(text, REFERENCE) == (LoraUse("a", unet, te, dyn),)


def test_kinds_of_tags_in_their_order() -> None:  # XN-4, XN-6
    text = "<hypernet:h:0.3> x <lora:a:1> <other:b:1> <hypernet:i> <lyco:c:2>"
    assert uses(text) == (HypernetUse("h", 0.3), LoraUse("a"), HypernetUse("i"), LoraUse("c", 2.0, 2.0))


def test_a_network_named_twice() -> None:  # XN-7
    text = "<lora:a:0.3> <lora:b:1> <lora:a:0.4:0.2>"
    once, twice = LoraUse("a", 0.3, 0.3), LoraUse("a", 0.2, 0.4)
    assert uses(text) == (once, LoraUse("b"), twice)
    assert uses(text, REFERENCE) == (twice, LoraUse("b"), twice)


@pytest.mark.parametrize(
    "bad", ["<lora:a:strong>", "<lora:a:>", "<lora:a:1:x>", "<lora:a:te=>", "<lora:a:1:1:2.5>", "<lora:te=1>"]
)
def test_a_weight_that_is_no_number(bad: str) -> None:  # XN-5
    with pytest.raises(RequestError, match="<lora:"):
        uses(f"<lora:b:1>{bad}")
    assert uses(f"<lora:b:1><hypernet:h>{bad}", REFERENCE) == (HypernetUse("h"),)


def test_numbers_that_no_picture_survives() -> None:
    for text in ("<lora:a:nan>", "<lora:a:1:inf>", "<hypernet:h:nan>", "<lora:a:1:1:0>", "<lora:a:dyn=-1>"):
        with pytest.raises(RequestError):
            uses(text)


TAG = st.text("<>:=.-0123456789 abteunetlorahypernetdyn", max_size=40)


@given(TAG, st.sampled_from(["lora", "lyco", "hypernet", "x"]))
def test_any_text_is_understood_or_refused(args: str, name: str) -> None:
    text = f"a <{name}:{args}> b"
    try:
        found = uses(text)
    except RequestError:
        assert len(uses(text, REFERENCE)) <= text.count("<")
        return
    assert uses(text, REFERENCE) == found or any(each.name for each in found)
    for each in found:
        assert ":" not in each.name
