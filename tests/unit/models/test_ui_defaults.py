"""Defaults that somebody gave a webui's page: what was chosen counts, what cannot be used is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overpaint.models.ui_defaults import UI_CONFIG, UiDefaults, read_ui_defaults

# As version 1.10.1 writes it on its first start, as far as it matters here.
UNTOUCHED = {
    "txt2img/Prompt/visible": True,
    "customscript/sampler.py/txt2img/Sampling method/value": "DPM++ 2M",
    "customscript/sampler.py/txt2img/Schedule type/value": "Automatic",
    "customscript/sampler.py/txt2img/Sampling steps/value": 20,
    "customscript/sampler.py/txt2img/Sampling steps/maximum": 150,
    "txt2img/Width/value": 512,
    "txt2img/Height/value": 512,
    "txt2img/CFG Scale/value": 7.0,
    "customscript/sampler.py/img2img/Sampling method/value": "DPM++ 2M",
    "customscript/sampler.py/img2img/Sampling steps/value": 20,
    "img2img/Denoising strength/value": 0.75,
    "img2img/Mask blur/value": 4,
    "img2img/Masked content/value": "original",
    "img2img/Inpaint area/value": "Whole picture",
    "img2img/Width/value": 512,
}


def read(tmp_path: Path, **changes: Any) -> UiDefaults:
    path = tmp_path / UI_CONFIG
    path.write_text(json.dumps({**UNTOUCHED, **changes}))
    return read_ui_defaults(path)


def test_what_nobody_chose_does_not_count(tmp_path: Path) -> None:
    assert read_ui_defaults(tmp_path / UI_CONFIG) == UiDefaults()
    found = read(tmp_path)
    assert all(found.of(tab) == {} for tab in ("txt2img", "img2img", "inpaint"))
    assert found.troubles == ()


def test_what_was_chosen_does_tab_by_tab(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        **{
            "customscript/sampler.py/img2img/Sampling method/value": "Euler a",
            "customscript/sampler.py/img2img/Sampling steps/value": 30.0,
            "img2img/Denoising strength/value": 0.5,
            "img2img/CFG Scale/value": 5,
            "img2img/Mask blur/value": 8,
            "img2img/Masked content/value": "latent noise",
            "img2img/Inpaint area/value": "Only masked",
            "txt2img/Sampling method/value": "of an older version, which the newer place beats",
            "txt2img/Width/value": 768,
            "txt2img/Negative prompt/value": "blurry",
        },
    )
    plain = {"sampler": "Euler a", "steps": 30, "strength": 0.5, "cfg_scale": 5.0}
    assert found.of("img2img") == plain
    masked = {"mask_blur_x": 8, "mask_blur_y": 8, "masked_content": "noise", "only_masked": True}
    assert found.of("inpaint") == {**plain, **masked}
    assert found.of("txt2img") == {"width": 768, "negative_prompt": "blurry"}
    assert found.troubles == ()


def test_an_older_versions_places_and_joined_names(tmp_path: Path) -> None:
    path = tmp_path / UI_CONFIG
    path.write_text(
        json.dumps({"txt2img/Sampling method/value": "DPM++ 2M Karras", "txt2img/Sampling steps/value": 25})
    )
    assert read_ui_defaults(path).of("txt2img") == {"sampler": "DPM++ 2M Karras", "steps": 25}


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("customscript/sampler.py/img2img/Sampling method", "Euler of another program"),
        ("customscript/sampler.py/img2img/Schedule type", "Round"),
        ("customscript/sampler.py/img2img/Sampling steps", 0),
        ("customscript/sampler.py/img2img/Sampling steps", 2.5),
        ("customscript/sampler.py/img2img/Sampling steps", True),
        ("img2img/CFG Scale", "high"),
        ("img2img/Denoising strength", 7),
        ("img2img/Mask blur", -3),
        ("img2img/Masked content", ["fill"]),
        ("img2img/Inpaint area", "Half"),
        ("img2img/Negative prompt", 5),
    ],
)
def test_what_cannot_be_used_is_told_and_left_out(label: str, value: Any, tmp_path: Path) -> None:
    found = read(tmp_path, **{"img2img/CFG Scale/value": 5} | {f"{label}/value": value})
    assert found.of("inpaint") == ({} if label == "img2img/CFG Scale" else {"cfg_scale": 5.0})
    (told,) = found.troubles
    assert told.endswith("is no value for it here, so it does not count") and json.dumps(value) in told


def test_the_size_of_img2img_is_told_and_does_not_count(tmp_path: Path) -> None:
    found = read(tmp_path, **{"img2img/Width/value": 768})
    assert found.of("img2img") == {}
    assert "a picture keeps its own here" in found.troubles[0]


@pytest.mark.parametrize("content", ["", "[1]", "{", '"x"', "null", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_broken_file_is_told_and_paints_all_the_same(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / UI_CONFIG
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_ui_defaults(path)
    assert found.tabs == {}
    assert found.troubles[0].startswith(f"{path}: its defaults cannot be read")
