"""infotext: what is written can be read back, whoever wrote it, and reading never takes longer than one pass."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.parts import Hires
from overpaint.request import MaskedContent, SoftInpainting, Txt2ImgRequest
from overpaint.settings import Quirks, Settings
from overpaint.text.infotext import (
    FIELD_ORDER,
    _pairs,
    fields_of_image,
    format_infotext,
    ordered_fields,
    parse_infotext,
    quote,
    split_infotext,
)
from overpaint.text.pasting import is_txt2img, option_overrides, request_fields
from overpaint.text.styles import Style, extract_styles
from tests.conftest import needs_whole_set

PARAMETERS = "Steps: 8, Sampler: Euler, CFG scale: 7.0, Seed: 5, Size: 96x64"
PATTERN = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # PARSE-2, quadratic: short texts only


def recorded_infotexts(parity: Path) -> list[str]:
    texts = []
    for path in sorted(parity.glob("**/goldens/*/case.json")):
        texts += json.loads(path.read_text(encoding="utf-8")).get("infotexts", [])
    return sorted(set(texts))


def test_quoting_equals_the_recording(parity: Path) -> None:  # INFO-3
    for value, expected in json.loads((parity / "unit" / "quote.json").read_text(encoding="utf-8")):
        assert quote(value) == str(expected)


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.0, "7.0"), (True, "True"), ("a\nb", '"a\\nb"'), ([1, 2], '"[1, 2]"')]
)
def test_quoting(value: object, text: str) -> None:  # INFO-3
    assert quote(value) == text


@needs_whole_set
def test_every_recorded_text_is_written_again_from_its_fields(parity: Path) -> None:  # INFO-1, PARSE-1 to PARSE-4
    texts = recorded_infotexts(parity)
    assert len(texts) > 200
    for text in texts:
        prompt, negative, fields = split_infotext(text)
        assert fields["Version"] == "v1.10.1"
        assert format_infotext(prompt, negative, fields) == text


@needs_whole_set
def test_every_recorded_text_is_in_the_fixed_order(parity: Path) -> None:  # INFO-5
    for text in recorded_infotexts(parity):
        prompt, negative, fields = split_infotext(text)
        fixed = {key: fields[key] for key in reversed([*FIELD_ORDER, "Version"]) if key in fields}
        extras = {key: value for key, value in fields.items() if key not in fixed}
        assert format_infotext(prompt, negative, ordered_fields(fixed, extras)) == text


def test_order_of_fields() -> None:  # INFO-5, INFO-6
    fields = {"Version": "v1", "Tiling": True, "Denoising strength": None, "Steps": 8, "User": "ann"}
    extras = {"Mask blur": 4, "Denoising strength": 0.6, "Schedule type": "Karras", "Eta": 0.5}
    expected = ["Steps", "Schedule type", "Denoising strength", "Tiling", "Mask blur", "Eta", "Version", "User"]
    ordered = ordered_fields(fields, extras)
    assert list(ordered) == expected
    assert ordered["Denoising strength"] == 0.6


def test_absent_values_and_lone_keys() -> None:  # INFO-1
    fields = {"Steps": 8, "VAE": None, "hires": "hires", "Note": "a, b"}
    assert format_infotext(" a cat", "", fields) == 'a cat\nSteps: 8, hires, Note: "a, b"'
    assert format_infotext("", "dog", {"Steps": 8}) == "Negative prompt: dog\nSteps: 8"
    assert format_infotext("", "", {}) == ""


def test_values_of_one_picture() -> None:  # INFO-4
    fields = {"Seed": [5, 6], "Model": "m", "Who": lambda index, user: f"{user}{index}"}
    assert fields_of_image(fields, 1, user="ann") == {"Seed": 6, "Model": "m", "Who": "ann1"}


def test_the_last_line_needs_three_pairs() -> None:  # PARSE-1
    assert split_infotext("a cat\nSteps: 8, Seed: 5") == ("a cat\nSteps: 8, Seed: 5", "", {})
    assert split_infotext("a cat\nab: 8, cd: 5, ef: 1").fields == {"ab": "8", "cd": "5", "ef": "1"}
    assert split_infotext("") == ("", "", {})


def test_texts_over_several_lines() -> None:  # PARSE-3
    text = f"  a cat \r\n\n on a mat\nNegative prompt:  dog \n  blurry\n{PARAMETERS}"
    assert split_infotext(text)[:2] == ("a cat\n\non a mat", "dog\nblurry")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"a, b: c"', "a, b: c"),
        (r'"say \"hi\"\n"', 'say "hi"\n'),
        ('"a\\qb"', '"a\\qb"'),  # not JSON
        (r'"\ud800, x"', r'"\ud800, x"'),  # half a character
        ('"', '"'),
        ('""', '""'.strip('"')),
        ('"a"b', '"a"b'),
        ("", ""),
        ('"open', '"open'),
    ],
)
def test_values(written: str, value: str) -> None:  # PARSE-2, PARSE-4
    assert split_infotext(f"{PARAMETERS}, Note: {written}").fields["Note"] == value


def test_sizes_become_two_values() -> None:  # PARSE-4
    parsed = parse_infotext(f"cat\n{PARAMETERS}, Seed resize from: 96x160, Odd: 1x2x3, Hires resize: 10x20")
    assert (parsed["Size-1"], parsed["Size-2"]) == ("96", "64")
    assert (parsed["Seed resize from-1"], parsed["Seed resize from-2"]) == ("96", "160")
    assert (parsed["Hires resize-1"], parsed["Odd"]) == ("10", "1x2x3")
    assert "Size" not in parsed


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab_é ٣-/:," \\\t\x85{', max_size=60))
def test_the_scanner_finds_what_the_pattern_finds(line: str) -> None:  # PARSE-2
    assert list(_pairs(line)) == PATTERN.findall(line)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_characters="\n"), max_size=40))
def test_the_scanner_finds_what_the_pattern_finds_in_any_text(line: str) -> None:  # PARSE-2
    assert list(_pairs(line)) == PATTERN.findall(line)


@settings(max_examples=75, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["Note", "VAE", "Model-2/b"]), st.text(st.characters(codec="utf-8")), min_size=1)
)
def test_quoted_values_survive(values: dict[str, str]) -> None:  # INFO-3, PARSE-4
    safe = {key: value for key, value in values.items() if quote(value) != value}
    text = format_infotext("cat", "", {**safe, "Steps": 1, "Seed": 2, "Sampler": "Euler"})
    fields = split_infotext(text).fields
    assert {key: fields[key] for key in safe} == safe


ADVERSARIAL = (
    *(
        "word ",
        "a:",
        "ab:",
        "ab:,",
        'ab:"',
        'ab:"x,',
        'ab: "\\"',
        "\\",
        "\\\\",
        "-",
        " ",
        "ab: \t",
        ":",
        ",",
        '"',
        "\n",
    ),
    *("<lora:", "a: b, ", "ab: 1x", "é ", "(", "[", "Negative prompt:\n", "AddNet Module 1: LoRA,"),
)


@pytest.mark.parametrize("piece", ADVERSARIAL)
def test_adversarial_text_takes_one_pass(piece: str) -> None:
    text = (piece * (100_000 // len(piece) + 1))[:100_000]
    for each in (text, f'{text}: "'):
        assert min(_seconds(each) for _ in range(2)) < 0.1


def _seconds(text: str) -> float:
    started = time.process_time()
    parse_infotext(text)
    return time.process_time() - started


def test_defaults() -> None:  # PARSE-6
    parsed = parse_infotext("cat")
    assert parsed["Prompt"] == "cat"
    assert parsed["Negative prompt"] == ""
    assert (parsed["Clip skip"], parsed["Mask mode"], parsed["Masked area padding"]) == ("1", "Inpaint masked", 32)
    assert (parsed["RNG"], parsed["Schedule type"], parsed["VAE Decoder"]) == ("GPU", "Automatic", "Full")
    assert parsed["Refiner switch by sampling steps"] is False
    assert "Emphasis" not in parsed
    assert parse_infotext("(cat)")["Emphasis"] == "Original"
    assert parse_infotext(f"(cat)\n{PARAMETERS}, Emphasis: None")["Emphasis"] == "None"


@pytest.mark.parametrize(
    ("mode", "text", "prompt", "names"),
    [
        ("Ignore", "cat, oil", "cat, oil", None),
        ("Apply", "cat, oil", "cat", ["paint"]),
        ("Apply", "cat", "cat", []),
        ("Discard", "cat, oil", "cat", None),
        ("Apply if any", "cat, oil", "cat", ["paint"]),
        ("Apply if any", "cat", "cat", None),
    ],
)
def test_styles(mode: str, text: str, prompt: str, names: list[str] | None) -> None:  # PARSE-5
    chosen = Settings().with_changes({"infotext_styles": mode})
    parsed = parse_infotext(text, settings=chosen, styles=(Style("paint", "oil", ""),), extract_styles=extract_styles)
    assert parsed["Prompt"] == prompt
    assert parsed.get("Styles array") == names


def test_networks_outside_the_prompt_become_tags() -> None:  # PARSE-6, PARSE-8
    assert parse_infotext(f"cat\n{PARAMETERS}, Hypernet: ink")["Prompt"] == "cat<hypernet:ink:1.0>"
    addnet = "AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: tone(abc123), AddNet Weight A 1: 0.4"
    assert parse_infotext(f"cat\n{PARAMETERS}, {addnet}")["Prompt"] == "cat\n<lora:tone:0.4>"
    assert parse_infotext(f"cat\n{PARAMETERS}, {addnet}", lora_aliases={"abc123": "Tone"})["Prompt"] == (
        "cat\n<lora:Tone:0.4>"
    )


def test_networks_get_their_local_names() -> None:  # PARSE-8, LORA-10
    text = f'cat <lora:a:0.5><lora:b:1>\n{PARAMETERS}, Lora hashes: "a: 111111111111, b: 222222222222"'
    parsed = parse_infotext(text, lora_aliases={"222222222222": "mine"})
    assert parsed["Prompt"] == "cat <lora:a:0.5><lora:mine:1>"


@pytest.mark.parametrize(
    ("prompt", "fields", "expected"),
    [
        ("[a:b:3]", "Version: v1.5.2", {"Old prompt editing timelines": True, "Downcast alphas_cumprod": True}),
        ("cat", "Sampler: PLMS, Version: v1.5.2", {"Pad conds v0": True, "Downcast alphas_cumprod": True}),
        ("[a:b:3]", "Version: v1.6.0", {"Downcast alphas_cumprod": True}),
        ("cat", "Version: v1.7.0-224-gabc", {"Downcast alphas_cumprod": True}),
        ("cat", "Refiner: m, Version: v1.7.0-225-gabc", {"Refiner switch by sampling steps": True}),
        ("cat", "Refiner: m, Version: v1.8.0", {}),
        ("[a:b:3]", "Version: 0.1.0", {}),
        ("[a:b:3]", "Version: unknown", {}),
    ],
)
def test_old_versions(prompt: str, fields: str, expected: dict[str, bool]) -> None:  # PARSE-7
    names = [*expected, "Pad conds v0", "Refiner switch by sampling steps", "Old prompt editing timelines"]
    names.append("Downcast alphas_cumprod")
    text = f"{prompt}\n{PARAMETERS}, {fields}"
    parsed = parse_infotext(text)
    assert {name: True for name in names if parsed.get(name)} == expected
    plain = parse_infotext(text, settings=Settings(auto_backcompat=False))
    assert not any(plain.get(name) for name in names)


def test_skipped_keys() -> None:  # PARSE-8
    parsed = parse_infotext(PARAMETERS, settings=Settings(infotext_skip_pasting=("Seed", "RNG")))
    assert "Seed" not in parsed
    assert "RNG" not in parsed


def test_request_fields() -> None:  # PARSE-10
    text = (
        "a cat\nNegative prompt: dog\nSteps: 8, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 77, "
        "Size: 96x64, Variation seed: 9, Variation seed strength: 0.3, Seed resize from: 128x160, "
        "Denoising strength: 0.6, Clip skip: 2, Mask mode: Inpaint not masked, Mask blur: 8, "
        "Inpaint area: Only masked, Masked area padding: 16, Masked content: latent noise"
    )
    assert request_fields(parse_infotext(text)) == {
        "prompt": "a cat",
        "negative_prompt": "dog",
        "steps": 8,
        "sampler": "DPM++ 2M",
        "scheduler": "Karras",
        "cfg_scale": 7.5,
        "seed": 77,
        "width": 96,
        "height": 64,
        "variation_seed": 9,
        "variation_strength": 0.3,
        "seed_resize": (128, 160),
        "strength": 0.6,
        "clip_skip": 2,
        "invert_mask": True,
        "mask_blur_x": 8,
        "mask_blur_y": 8,
        "only_masked": True,
        "padding": 16,
        "masked_content": MaskedContent.NOISE,
    }


def test_request_fields_of_soft_inpainting() -> None:
    soft = "Soft inpainting enabled: True, Soft inpainting schedule bias: 2, Soft inpainting mask influence: 0.3"
    text = f"{PARAMETERS}, {soft}"
    fields = request_fields(parse_infotext(text))
    assert fields["soft_inpainting"] == SoftInpainting(schedule_bias=2, mask_influence=0.3)
    assert "soft_inpainting" not in request_fields(parse_infotext(PARAMETERS))


HIRES = (
    "a cat\nSteps: 8, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 5, Size: 96x64, "
    "Model: tiny, Denoising strength: 0, Clip skip: 2"
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Hires upscale: 2.0, Hires upscaler: Latent", Hires(strength=0, upscaler="Latent")),
        ("Hires upscale: 1.3, Hires steps: 4", Hires(scale=1.3, strength=0, steps=4)),
        ("Hires resize: 128x96, Hires upscaler: Lanczos", Hires(width=128, height=96, strength=0, upscaler="Lanczos")),
        ("Hires resize: 0x96", Hires(height=96, strength=0)),
        (
            "Hires upscale: 2, Hires sampler: Heun, Hires schedule type: Karras, Hires checkpoint: x [0123456789]",
            Hires(strength=0, sampler="Heun", scheduler="Karras", checkpoint="x [0123456789]"),
        ),
        (
            'Hires prompt: "a, b", Hires negative prompt: c, Hires upscale: 2',
            Hires(strength=0, prompt="a, b", negative_prompt="c"),
        ),
        ("Hires upscale: much, Hires steps: few, Hires upscaler: Latent", Hires(strength=0, upscaler="Latent")),
    ],
)
def test_a_second_pass(written: str, expected: Hires) -> None:  # PARSE-6, PARSE-10
    parsed = parse_infotext(f"{HIRES}, {written}")
    assert is_txt2img(parsed)
    fields = request_fields(parsed)
    assert fields["hires"] == expected
    request = Txt2ImgRequest(**fields)  # nothing about a source is among them
    assert (request.width, request.clip_skip, request.strength) == (96, 2, None)


def test_what_a_picture_without_source_says() -> None:
    parsed = parse_infotext("a cat\nSteps: 8, Sampler: Euler, Seed: 5, Refiner: m [0123456789], Refiner switch at: 0.6")
    assert is_txt2img(parsed)
    request = Txt2ImgRequest(**request_fields(parsed))
    assert (request.hires, request.refiner, request.refiner_switch_at) == (None, "m [0123456789]", 0.6)


@pytest.mark.parametrize("written", ["Denoising strength: 0.4", "Mask blur: 4", "Soft inpainting enabled: True"])
def test_what_only_painting_over_says(written: str) -> None:
    parsed = parse_infotext(f"a cat\nSteps: 8, Sampler: Euler, Seed: 5, {written}")
    assert not is_txt2img(parsed)
    assert "hires" not in request_fields(parsed)


def test_recorded_pictures_without_source(parity: Path) -> None:
    """Each recording's kind is told from its text alone, and its second pass comes back."""
    cases = sorted((parity / "extra" / "goldens").glob("*/case.json"))
    if not cases:
        pytest.skip("these recordings are not here")
    seen = 0
    for path in cases:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        asked = recorded["case"]["params"]
        for text in recorded.get("infotexts", ()):
            parsed = parse_infotext(text)
            assert is_txt2img(parsed) == (recorded["case"]["kind"] == "txt2img"), path
            if not is_txt2img(parsed):
                continue
            request = Txt2ImgRequest(**request_fields(parsed))
            assert (request.hires is not None) == bool(asked.get("enable_hr")), path
            if request.hires is not None and "denoising_strength" in asked:
                assert request.hires.strength == asked["denoising_strength"], path
                seen += 1
    assert seen


def test_options_of_new_pictures() -> None:  # PARSE-9
    written = "Hires refiner: both passes, SGM noise multiplier: True, Refiner switch by sampling steps: True"
    assert option_overrides(parse_infotext(f"{PARAMETERS}, {written}")) == {
        "hires_fix_refiner_pass": "both passes",
        "sgm_noise_multiplier": True,
        "refiner_switch_by_sample_steps": True,
    }


def test_impossible_values_are_left_out() -> None:
    text = "Steps: many, CFG scale: nan, Seed: 1e5, Size: axb, Masked content: cheese, Clip skip: , Styles: x"
    fields = request_fields(parse_infotext(text))
    assert {"steps", "cfg_scale", "seed", "width", "masked_content", "clip_skip"}.isdisjoint(fields)
    assert request_fields({"Styles array": ["a"], "Seed": "9" * 5000}) == {"styles": ("a",)}


def test_recorded_overrides(parity: Path) -> None:  # I2I-6, PARSE-9
    case = json.loads((parity / "api" / "infotext" / "case.json").read_text(encoding="utf-8"))
    parsed = parse_infotext(case["request"]["infotext"])
    parameters = case["response"]["parameters"]
    assert option_overrides(parsed) == parameters["override_settings"]
    fields = request_fields(parsed)
    assert (fields["steps"], fields["seed"]) == (parameters["steps"], parameters["seed"])
    assert (fields["sampler"], fields["scheduler"]) == (parameters["sampler_name"], parameters["scheduler"])


def test_overrides_have_the_types_of_their_options() -> None:  # PARSE-9
    text = f"{PARAMETERS}, RNG: NV, ENSD: 31337, Eta: 0, Tiling: True, Pad conds: False, Emphasis: loud, Sigma noise: x"
    overrides = option_overrides(parse_infotext(text))
    assert overrides == {"randn_source": "NV", "eta_noise_seed_delta": 31337, "eta_ancestral": 0.0, "tiling": True}
    assert isinstance(overrides["eta_ancestral"], float)


def test_overrides_of_the_checkpoint() -> None:  # PARSE-9
    parsed = parse_infotext(f"{PARAMETERS}, Model hash: 0c72c677cf")
    assert option_overrides(parsed) == {}
    swapping = Settings(disable_weights_auto_swap=False)
    assert option_overrides(parsed, swapping) == {"sd_model_checkpoint": "0c72c677cf"}


def test_the_beta_schedule_comes_back() -> None:  # PARSE-9
    parsed = parse_infotext(f"{PARAMETERS}, Beta schedule alpha: 0.4, Beta schedule beta: 0.7")
    assert option_overrides(parsed) == {"beta_dist_alpha": 0.4, "beta_dist_beta": 0.7}
    assert option_overrides(parsed, Settings(quirks=Quirks(unread_beta_schedule=True))) == {}


@settings(max_examples=75, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    parsed = parse_infotext(text)
    option_overrides(parsed)
    request_fields(parsed)
