"""Prompt styles: named texts that wrap a prompt, kept in CSV files, and found again in a finished prompt."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from overpaint.errors import SettingError
from overpaint.named_files import check_regular

_SLOT = "{prompt}"
_WILDCARDS = frozenset("*?[")
_DIVIDER_WIDTH = 40


class Style(NamedTuple):
    """A row of a styles file. Both texts are None in a divider, which only labels a list."""

    name: str
    prompt: str | None
    negative_prompt: str | None


def load_styles(paths: str | Path | Iterable[str | Path]) -> tuple[Style, ...]:
    """The styles of all files; a wildcard in a file's name means every match, each announced by a divider.

    A file that does not exist holds no styles: a fresh installation has none.
    """
    each_path = [paths] if isinstance(paths, str | Path) else paths
    return tuple(style for path in each_path for style in _styles_at(Path(path)))


def find_styles(names: Iterable[str], styles: Sequence[Style]) -> tuple[Style, ...]:
    """The named styles in the order asked; STY-2: an unknown name is an empty style."""
    known = {style.name: style for style in styles}
    return tuple(known.get(name, Style(name, "", "")) for name in names)


def merge_style(style_text: str, prompt: str) -> str:
    """STY-1: the prompt inside the style's {prompt}, or followed by the style."""
    if _SLOT in style_text:
        return style_text.replace(_SLOT, prompt)
    return ", ".join(filter(None, (prompt.strip(), style_text.strip())))


def apply_styles(prompt: str, texts: Iterable[str | None]) -> str:
    """The prompt with all style texts merged in, one after another."""
    for text in texts:
        prompt = merge_style(text or "", prompt)
    return prompt


def extract_styles(prompt: str, negative: str, styles: Sequence[Style]) -> tuple[str, str, tuple[str, ...]]:
    """STY-4: undo the styles that a prompt and its negative show; the names come in the order of their application."""
    names: list[str] = []
    remaining = [style for style in styles if style.prompt or style.negative_prompt]
    while found := _first_match(prompt, negative, remaining):
        index, prompt, negative = found
        names.insert(0, remaining.pop(index).name)
    return prompt, negative, tuple(names)


def _first_match(prompt: str, negative: str, styles: Sequence[Style]) -> tuple[int, str, str] | None:
    for index, style in enumerate(styles):
        bare_prompt = _without_style(prompt, style.prompt or "")
        bare_negative = _without_style(negative, style.negative_prompt or "")
        if bare_prompt is not None and bare_negative is not None:
            return index, bare_prompt, bare_negative
    return None


def _without_style(text: str, style_text: str) -> str | None:
    """The text that the style was merged into; None if the style is not there."""
    text = text.strip()
    left, slot, right = style_text.strip().partition(_SLOT)
    if not slot:
        return text[: len(text) - len(left)].removesuffix(", ") if text.endswith(left) else None
    fits = len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right)
    return text[len(left) : len(text) - len(right)] if fits else None


def _styles_at(path: Path) -> list[Style]:
    if path.exists() or not _WILDCARDS & set(path.name):
        return _read_styles(path)
    styles: list[Style] = []
    for each in sorted(path.parent.glob(path.name)):
        styles += [Style(f" {each.stem.upper()} ".center(_DIVIDER_WIDTH, "-"), None, None), *_read_styles(each)]
    return styles


def _read_styles(path: Path) -> list[Style]:
    check_regular(path, lambda said: SettingError("styles_file", str(path), said.partition(": ")[2]))
    if not path.is_file():
        return []
    try:
        rows = _rows(path.read_text(encoding="utf-8-sig"))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        remedy = "save it as UTF-8 CSV with the header name,prompt,negative_prompt"
        raise SettingError("styles_file", str(path), f"{remedy} ({error})") from error
    return [_style(row) for row in rows if row.get("name") and not (row["name"] or "").startswith("#")]


def _rows(text: str) -> list[dict[str, str | None]]:
    """The rows by the names of their columns; a quotation mark that is never closed would swallow all that follow."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = list(reader)
    if rows and "name" not in (reader.fieldnames or ()):
        raise csv.Error("there is no column called name")
    try:
        deque(csv.reader(io.StringIO(text, newline=""), strict=True), maxlen=0)
    except csv.Error as error:
        if "end of data" in str(error):
            raise csv.Error(f"a quotation mark is never closed, from the row of {rows[-1]['name']!r} on") from None
    return rows


def _style(row: dict[str, str | None]) -> Style:
    """STY-3: files of old call the prompt `text`."""
    return Style(row["name"] or "", row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")
