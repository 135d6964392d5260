"""naming: patterns say what the specification says, and no text of any kind leads out of the folder."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.files.naming import (
    NameFacts,
    expand_pattern,
    next_number,
    safe_component,
    sanitise_part,
    subfolder,
    target_paths,
)
from overpaint.settings import Settings

FACTS = NameFacts(
    seed=1234,
    all_seeds=(1234, 1235),
    steps=8,
    cfg_scale=7.0,
    width=96,
    height=64,
    styles=("oil", "ink"),
    sampler="DPM++ 2M",
    scheduler="Karras",
    model_name="tiny sd15",
    model_hash="0c72c677cf",
    vae_name="a.vae.pt",
    prompt="a cat: on, a mat.",
    negative_prompt="dog",
    strength=0.6,
    clip_skip=2,
    batch_index=1,
    batch_size=2,
    iteration=1,
    iterations=3,
    user="ann/b",
    image_hash="ab" * 32,
    job_timestamp="20240102030405",
    now=datetime(2024, 1, 2, 23, 4, 5, tzinfo=timezone.utc),
)
ALONE = NameFacts(seed=7, prompt="")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[seed]-[STEPS]-[cfg]", "1234-8-7.0"),
        ("[width]x[height]", "96x64"),
        ("[seed_first] [seed_last]", "1234 1235"),
        ("[styles]|[sampler]|[scheduler]", "oil, ink|DPM++ 2M|Karras"),
        ("[sampler_scheduler]", "DPM++ 2M Karras"),
        ("[model_name]-[model_hash]", "tiny_sd15-0c72c677cf"),
        ("[prompt]", "a_cat__on,_a_mat"),
        ("[prompt_no_styles]", "a_cat__on,_a_mat"),
        ("[prompt_spaces]", "a cat_ on, a mat"),
        ("[prompt_words]", "a cat on a mat"),
        ("[date]", "2024-01-02"),
        ("[datetime]", "20240102230405"),
        ("[datetime<%Y/%H h>]", "2024_23 h"),
        ("[datetime<%d %H><Asia/Tokyo>]", "03 08"),
        ("[datetime<><Asia/Tokyo>]", "20240103080405"),
        ("[datetime<%H><no such zone>]", "23"),
        ("[batch_number]-[batch_size]-[generation_number]", "2-2-4"),
        ("[denoising] [clip_skip] [user] [vae_filename]", "0.6 2 ann_b a.vae.pt"),
        ("x[none]y", "xy"),
        ("[hasprompt<cat|none><DOG|no dog><mat>]", "catno_dogmat"),
        ("[image_hash<5>][image_hash]", "ababa" + "ab" * 32),
        ("[job_timestamp]", "20240102030405"),
        ("[unknown]-[seed<]-[]-[[seed]]", "[unknown]-[seed<]-[]-[1234]"),
    ],
)
def test_patterns(pattern: str, expected: str) -> None:  # NAMEPAT-3
    assert expand_pattern(pattern, FACTS) == expected


def test_hashes() -> None:  # NAMEPAT-3
    digest = hashlib.sha256(FACTS.prompt.encode()).hexdigest()
    assert expand_pattern("[prompt_hash] [prompt_hash<12>]", FACTS) == f"{digest[:8]} {digest[:12]}"
    assert expand_pattern("[negative_prompt_hash]", FACTS) == hashlib.sha256(b"dog").hexdigest()[:8]
    both = hashlib.sha256(f"{FACTS.prompt} dog".encode()).hexdigest()
    assert expand_pattern("[full_prompt_hash]", FACTS) == both[:8]


def test_placeholders_that_vanish_take_the_text_before_them_along() -> None:  # NAMEPAT-3
    pattern = "[seed]-[batch_number]_[seed_last] g[generation_number]+[denoising] end"
    assert expand_pattern(pattern, ALONE) == "7 end"
    assert (
        expand_pattern("[sampler_scheduler][styles]", NameFacts(sampler="Euler", scheduler="Automatic")) == "EulerNone"
    )


def test_words() -> None:  # NAMEPAT-5
    assert expand_pattern("[prompt_words]", FACTS, max_words=2) == "a cat"
    assert expand_pattern("[prompt_words]", NameFacts(prompt=" ,.;! ")) == "empty"


def test_sanitising() -> None:  # NAMEPAT-4
    assert sanitise_part('a#<>:"/\\|?*\n\r\tb') == "a" + "_" * 13 + "b"
    assert sanitise_part("  a b ... ", spaces=" ") == "a b"
    assert sanitise_part("x" * 127 + ". y", spaces=" ") == "x" * 127


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("..", ""), (".", ""), ("", ""), (" . ", ""), ("con", "_con"), ("NUL.tar.png", "_NUL.tar.png")),
        *(("com1", "_com1"), ("COM10", "COM10"), ("a\0b\x1b", "a_b_"), ("a\ud800b", "a_b"), ("C:\\x", "C__x")),
        *(
            ("\u202egpj.exe", "_gpj.exe"),
            ("é" * 200, "é" * 127),
            ("👨‍👩‍👧", "👨‍👩‍👧"),
            ("a. .", "a"),
            ("aux .txt", "_aux .txt"),
        ),
    ],
)
def test_components(text: str, expected: str) -> None:
    assert safe_component(text) == expected


def test_next_number(tmp_path: Path) -> None:  # NAMEPAT-2
    assert next_number(tmp_path / "absent") == 0
    assert next_number(tmp_path) == 0
    for name in ("00003-1.png", "00012.png", "x-99.png", "12a-1.png", "grid-0007.png", "grid-0004-2.jpg", "²-1.png"):
        (tmp_path / name).touch()
    (tmp_path / ("9" * 200 + ".png")).touch()
    assert next_number(tmp_path) == 13
    assert next_number(tmp_path, "grid") == 8


def names(count: int, chosen: Settings, facts: NameFacts = FACTS, **kwargs: object) -> list[str]:
    targets = target_paths(Path("absent"), facts, chosen, "png", **kwargs)  # type: ignore[arg-type]
    return [path.name for path in islice(targets.paths, count)]


def test_names_with_a_running_number() -> None:  # NAMEPAT-2
    assert names(2, Settings()) == ["00000-1234.png", "00001-1234.png"]
    assert names(1, Settings(save_to_dirs=False)) == ["00000-1234-a cat_ on, a mat.png"]
    assert names(1, Settings(), suffix="-mask") == ["00000-1234-mask.png"]
    assert names(1, Settings(), basename="img") == ["img-0000-1234.png"]
    assert names(1, Settings(), basename="grid", is_grid=True) == ["grid-0000.png"]
    assert names(1, Settings(grid_extended_filename=True), basename="grid", is_grid=True) == ["grid-0000-1234.png"]
    assert names(1, Settings(samples_filename_pattern="[none]")) == ["00000.png"]
    assert len(names(1000, Settings())) == 500


def test_names_without_a_running_number() -> None:  # NAMEPAT-2, STORE-8
    chosen = Settings(save_images_add_number=False)
    assert names(3, chosen) == ["1234.png", "1234-1.png", "1234-2.png"]
    assert target_paths(Path(), FACTS, chosen, "png").is_pattern_alone
    assert not target_paths(Path(), FACTS, Settings(), "png").is_pattern_alone
    # A name that would be empty gets a number after all.
    unnamed = Settings(save_images_add_number=False, samples_filename_pattern="[none]")
    assert names(2, unnamed) == ["00000.png", "00001.png"]
    assert not target_paths(Path(), FACTS, unnamed, "png").is_pattern_alone


def test_names_of_the_caller() -> None:  # BATCH-3
    assert names(2, Settings(), name="holiday.v2", suffix="-mask") == ["holiday.v2-mask.png", "holiday.v2-mask-1.png"]
    assert not target_paths(Path(), FACTS, Settings(), "png", name="x").is_pattern_alone


def test_subfolders() -> None:  # NAMEPAT-1
    root = Path("out")
    assert subfolder(root, FACTS, Settings()) == root / "2024-01-02"
    assert subfolder(root, FACTS, Settings(save_to_dirs=False)) == root
    assert subfolder(root, FACTS, Settings(save_to_dirs=False), is_grid=True) == root / "2024-01-02"
    assert subfolder(root, FACTS, Settings(directories_filename_pattern="")) == root / "a cat on a mat"
    nested = Settings(directories_filename_pattern="[date]/[sampler]\\../[user]//")
    assert subfolder(root, FACTS, nested) == root / "2024-01-02" / "DPM++ 2M" / "ann_b"


HOSTILE_TEXTS = (
    *("..", ".", " ", "../../etc/passwd", "/etc/x", "C:\\windows\\x", "\\\\server\\share\\x", "~/x", "CON", "nul.png"),
    *("a\0b", "é" * 300, "\U0001f431" * 300, "\ud800", "%", "%n%", "[prompt]", "[datetime<%>]", "[datetime<../%Y>]"),
    *("[datetime<%H><../../etc/localtime>]", "[datetime<\0>]", "[datetime<%99999999Y>]", "[hasprompt<|/>]"),
)
HOSTILE = st.one_of(st.sampled_from(HOSTILE_TEXTS), st.text(st.characters(), max_size=40))


@settings(max_examples=75, deadline=None)
@given(st.lists(HOSTILE, max_size=4).map("".join), st.lists(HOSTILE, max_size=4).map("/".join), HOSTILE, HOSTILE)
def test_no_text_leads_out_of_the_folder(prompt: str, folders: str, pattern: str, name: str) -> None:
    root = Path("/nowhere/out").resolve()
    facts = NameFacts(prompt=prompt, negative_prompt=name, user=prompt, model_name=name, styles=(prompt,), sampler=name)
    chosen = Settings(directories_filename_pattern=folders, samples_filename_pattern=pattern + "[prompt]")
    folder = subfolder(root, facts, chosen)
    for own_name in (None, name):
        for settings_ in (chosen, Settings(save_images_add_number=False, samples_filename_pattern=pattern)):
            targets = target_paths(folder, facts, settings_, "png", suffix=name, basename=prompt, name=own_name)
            for path in islice(targets.paths, 2):
                assert path.resolve().is_relative_to(root)
                assert path.parent == folder
                below = path.relative_to(root).parts
                assert all(0 < len(f"{each}.overpaint.json".encode()) <= 255 for each in below)
                assert all("\0" not in each and each not in (".", "..") and not each.endswith(" ") for each in below)
