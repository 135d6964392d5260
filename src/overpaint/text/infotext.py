"""The "parameters" text: what was asked, written so that people and programs can read it back.

Writing is INFO of the specification, reading is PARSE. Reading takes text from strangers: it is one pass over the text,
whatever the text is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from overpaint.settings import Settings
from overpaint.text.prompt import uses_emphasis

_S = TypeVar("_S")
StyleExtractor = Callable[[str, str, Sequence[_S]], tuple[str, str, tuple[str, ...]]]

# INFO-5. Everything else follows in the order of insertion, then LAST_FIELDS.
FIELD_ORDER = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Image CFG scale", "Seed", "Face restoration", "Size"),
    *("Model hash", "Model", "FP8 weight", "Cache FP16 weight for LoRA", "VAE hash", "VAE"),
    *("Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength"),
    *("Conditional mask weight", "Clip skip", "ENSD", "Token merging ratio", "Token merging ratio hr"),
    *("Init image hash", "RNG", "Tiling"),
)
LAST_FIELDS = ("Version", "User")
NEGATIVE_MARK = "Negative prompt:"
_FEWEST_PAIRS = 3  # PARSE-1: a last line with fewer is prompt


def quote(value: object) -> str:
    """INFO-3: a value that would be split or misread is written as a JSON string."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(each in text for each in ",\n:") else text


def ordered_fields(fields: Mapping[str, object], extras: Mapping[str, object]) -> dict[str, object]:
    """INFO-5: fixed fields at their places, then extras as they were inserted, then the version and the user.

    An extra that has a fixed place is written there, and wins.
    """
    merged = {**fields, **extras}
    head = {key: merged[key] for key in FIELD_ORDER if key in merged}
    tail = {key: merged[key] for key in LAST_FIELDS if key in merged}
    middle = {key: value for key, value in merged.items() if key not in head and key not in tail}
    return {**head, **middle, **tail}


def fields_of_image(fields: Mapping[str, object], index: int, **facts: object) -> dict[str, object]:
    """INFO-4: lists hold one value per picture, callables are asked for theirs."""

    def value_of(value: object) -> object:
        if callable(value):
            return value(index=index, **facts)
        return value[index] if isinstance(value, list | tuple) else value

    return {key: value_of(value) for key, value in fields.items()}


def format_infotext(prompt: str, negative: str, fields: Mapping[str, object]) -> str:
    """INFO-1: the whole text; fields that are None are left out, a key equal to its value stands alone."""
    written = {key: value for key, value in fields.items() if value is not None}
    parameters = ", ".join(key if key == str(value) else f"{key}: {quote(value)}" for key, value in written.items())
    negative_line = f"\n{NEGATIVE_MARK} {negative}" if negative else ""
    return f"{prompt}{negative_line}\n{parameters}".strip()


class Infotext(NamedTuple):
    """An infotext taken apart: nothing added, every value as text."""

    prompt: str
    negative_prompt: str
    fields: dict[str, str]


def split_infotext(text: str) -> Infotext:
    """PARSE-1, PARSE-3: the texts, and the parameters of the last line if it is a line of parameters."""
    *lines, last = text.strip().split("\n")
    pairs = list(_pairs(last))
    if len(pairs) < _FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE_MARK):
            part = negative
            line = line[len(NEGATIVE_MARK) :].strip()
        part.append(line)
    return Infotext("\n".join(prompt), "\n".join(negative), {key: _unquoted(value) for key, value in pairs})


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """PARSE-2 in one pass.

    A pattern would try each word again as the start of a key, which is quadratic. Here a key is looked for backwards
    from its colon, never past the text already used.
    """
    start = 0
    while (colon := line.find(":", start)) >= 0:
        key = _key_before(line, start, colon)
        if key:
            value, start = _value_after(line, colon + 1)
            yield key, value
        else:
            start = colon + 1


def _key_before(line: str, start: int, colon: int) -> str:
    first = colon
    while first > start and (line[first - 1].isalnum() or line[first - 1] in "_ -/"):
        first -= 1
    key = line[first:colon].lstrip(" -/")
    return key if len(key) >= 2 else ""


def _value_after(line: str, start: int) -> tuple[str, int]:
    """The value, and where the text behind its comma begins."""
    while start < len(line) and line[start].isspace():
        start += 1
    end = _end_of_quoted(line, start)
    if end == 0 or line[end : end + 1] not in ("", ","):
        comma = line.find(",", start)
        end = comma if comma >= 0 else len(line)
    return line[start:end], end + 1


def _end_of_quoted(line: str, start: int) -> int:
    """Where a non-empty quoted string ends; 0 if there is none.

    An opening quote follows a colon or a space, so no earlier scan can have passed it: all scans together are one pass.
    """
    if not line.startswith('"', start):
        return 0
    at = start + 1
    while at < len(line) and line[at] != '"':
        at += 2 if line[at] == "\\" else 1
    return at + 1 if start + 1 < at < len(line) else 0


def _unquoted(value: str) -> str:
    """PARSE-4: what cannot be decoded, or not be written again, stays as it is."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        text = str(json.loads(value))
        text.encode()
    except ValueError:
        return value
    return text


# PARSE-6
_DEFAULTS: dict[str, object] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": False,
}


def parse_infotext(
    text: str,
    *,
    settings: Settings | None = None,
    styles: Sequence[_S] = (),
    extract_styles: StyleExtractor[_S] | None = None,
    lora_aliases: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Every parameter by its key, with "Prompt", "Negative prompt" and the defaults of what was not written.

    `lora_aliases` names the local networks by the short hashes that infotexts carry.
    """
    settings = settings or Settings()
    prompt, negative, fields = split_infotext(text)
    result: dict[str, object] = {}
    for key, value in fields.items():
        result.update(_by_dimension(key, value))
    if extract_styles is not None and settings.infotext_styles != "Ignore":
        prompt, negative, names = extract_styles(prompt, negative, styles)
        if settings.infotext_styles == "Apply" or (settings.infotext_styles == "Apply if any" and names):
            result["Styles array"] = list(names)
    prompt = _with_networks(prompt, result, lora_aliases or {})
    result.update({"Prompt": prompt, "Negative prompt": negative})
    result = {**_DEFAULTS, **result}
    if uses_emphasis(prompt) or uses_emphasis(negative):
        result.setdefault("Emphasis", "Original")
    if settings.auto_backcompat:
        result.update(_as_old_versions_did(result))
    return {key: value for key, value in result.items() if key not in settings.infotext_skip_pasting}


def _by_dimension(key: str, value: str) -> dict[str, str]:
    """PARSE-4: "512x768" becomes two values."""
    width, cross, height = value.partition("x")
    if cross and width.isdecimal() and height.isdecimal():
        return {f"{key}-1": width, f"{key}-2": height}
    return {key: value}


_LORA_TAG = re.compile(r"<lora:([^:<>]+)")
_ADDNET_MODEL = re.compile(r"(?P<name>[^()]*)\((?P<hash>\w+)\)")


def _with_networks(prompt: str, fields: Mapping[str, object], aliases: Mapping[str, str]) -> str:
    """PARSE-6, PARSE-8: networks that were written outside the prompt become tags, known ones get their local names."""
    listed = (each.partition(": ") for each in str(fields.get("Lora hashes", "")).split(", "))
    local = {name: aliases[digest] for name, _, digest in listed if digest in aliases}
    prompt = _LORA_TAG.sub(lambda tag: f"<lora:{local.get(tag[1], tag[1])}", prompt)
    tags = "".join(_addnet_tags(fields, aliases))
    if tags:
        prompt = f"{prompt}\n{tags}"
    if fields.get("Hypernet"):
        prompt += f"<hypernet:{fields['Hypernet']}:{fields.get('Hypernet strength', '1.0')}>"
    return prompt


def _addnet_tags(fields: Mapping[str, object], aliases: Mapping[str, str]) -> Iterator[str]:
    number = 1
    while f"AddNet Module {number}" in fields:
        model = _ADDNET_MODEL.fullmatch(str(fields.get(f"AddNet Model {number}", "")))
        if fields[f"AddNet Module {number}"] == "LoRA" and model:
            both = fields.get(f"AddNet Weight {number}", "1.0")
            weight = fields.get(f"AddNet Weight A {number}", both)
            yield f"<lora:{aliases.get(model['hash'], model['name'])}:{weight}>"
        number += 1


_VERSION = re.compile(r"v([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(?:-([0-9]{1,9})-)?")


def _as_old_versions_did(fields: Mapping[str, object]) -> dict[str, object]:
    """PARSE-7: switches that bring back what the version that wrote the text did.

    NOTE: the "v" is required. Other programs, this one too, count their versions from another zero.
    """
    found = _VERSION.match(str(fields.get("Version", "")))
    if found is None:
        return {}
    version = tuple(int(each or 0) for each in found.groups())
    old: dict[str, object] = {}
    if version < (1, 6, 0, 0) and "[" in str(fields["Prompt"]):
        old["Old prompt editing timelines"] = True
    if version < (1, 6, 0, 0) and fields.get("Sampler") in ("DDIM", "PLMS"):
        old["Pad conds v0"] = True
    if version < (1, 7, 0, 225):
        old["Downcast alphas_cumprod"] = True
    if version < (1, 8, 0, 0) and fields.get("Refiner"):
        old["Refiner switch by sampling steps"] = True
    return old
