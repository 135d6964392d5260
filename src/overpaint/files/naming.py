"""What a saved picture is called, and in which sub-folder it lies (NAMEPAT).

Patterns and prompts are strangers' text: whatever they hold, a name is one plain component of at most 255 bytes and a
sub-folder never leaves its root.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from overpaint.settings import Settings

_NUMBER_TRIES = 500  # NAMEPAT-2
_SUFFIX_TRIES = 10_000
_PART_LENGTH = 128
_COMPONENT_BYTES = 255
_DEEPEST = 8  # folders below the root
_STEM_BYTES = 220  # leaves room for "-12345", ".jpeg" and ".overpaint.json"
_LONGEST_NUMBER = 15  # digits; longer ones are somebody's own names, not running numbers


@dataclass(frozen=True, kw_only=True)
class NameFacts:
    """What a name may tell about a picture. `batch_index` and `iteration` count from 0."""

    seed: int | None = None
    all_seeds: tuple[int, ...] = ()
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    styles: tuple[str, ...] = ()
    sampler: str = ""
    scheduler: str = ""
    model_name: str = ""
    model_hash: str = ""
    vae_name: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    prompt_no_styles: str | None = None
    strength: float | None = None
    clip_skip: int | None = None
    batch_index: int = 0
    batch_size: int = 1
    iteration: int = 0
    iterations: int = 1
    user: str = ""
    image_hash: str = ""
    job_timestamp: str = ""
    now: datetime = field(default_factory=lambda: datetime.now().astimezone())


class _Ask(NamedTuple):
    """One placeholder: the facts, the <arguments> behind its name, and how many words make a prompt_words."""

    facts: NameFacts
    args: tuple[str, ...]
    max_words: int


_FORBIDDEN = str.maketrans(dict.fromkeys('#<>:"/\\|?*\n\r\t', "_"))


def sanitise_part(text: str, *, spaces: str = "_") -> str:
    """NAMEPAT-4: a text from outside as a part of a name."""
    plain = text.replace(" ", spaces).translate(_FORBIDDEN)
    return plain.lstrip(" ")[:_PART_LENGTH].rstrip(" .")


def expand_pattern(pattern: str, facts: NameFacts, *, max_words: int = 8) -> str:
    """NAMEPAT-3: the pattern with its [placeholders] filled; unknown ones stay as they are."""
    result, end = "", 0
    for match in _PLACEHOLDER.finditer(pattern):
        before, end = pattern[end : match.start()], match.end()
        value = _expanded(match[1], facts, max_words)
        if value is not None:
            result += before + value
    return result + pattern[end:]


_PLACEHOLDER = re.compile(r"\[([^\[\]]+)\]")


def _expanded(content: str, facts: NameFacts, max_words: int) -> str | None:
    """None: the placeholder vanishes, and the text before it too."""
    name, *rest = content.split("<")
    expand = _EXPANSIONS.get(name.lower())
    if expand is None or not all(each.endswith(">") for each in rest):
        return f"[{content}]"
    return expand(_Ask(facts, tuple(each[:-1] for each in rest), max_words))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _with_spaces(text: str) -> str:
    return sanitise_part(text, spaces=" ")


def _sampler_and_scheduler(facts: NameFacts) -> str:
    return facts.sampler if facts.scheduler in ("", "Automatic") else f"{facts.sampler} {facts.scheduler}"


_BETWEEN_WORDS = re.compile(rf"[\s{re.escape(string.punctuation)}]+")


def _words(ask: _Ask) -> str:
    """NAMEPAT-5."""
    words = [each for each in _BETWEEN_WORDS.split(ask.facts.prompt) if each]
    return _with_spaces(" ".join(words[: max(ask.max_words, 0)]) or "empty")


def _hash(text: str, ask: _Ask) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[: _length(ask, 8)]


def _length(ask: _Ask, default: int) -> int:
    return int(ask.args[0][:9]) if ask.args and ask.args[0].isdecimal() else default


def _datetime(ask: _Ask) -> str:
    """The moment in the wished format and zone; what the platform does not know falls back to the defaults."""
    pattern, zone = (*ask.args, "", "")[:2]
    moment = ask.facts.now
    try:
        moment = moment.astimezone(ZoneInfo(zone)) if zone else moment
    except (KeyError, ValueError, OSError):
        moment = ask.facts.now
    try:
        return _with_spaces(moment.strftime(pattern or "%Y%m%d%H%M%S"))
    except ValueError:
        return moment.strftime("%Y%m%d%H%M%S")


def _has_prompt(ask: _Ask) -> str:
    """[hasprompt<cat|other><dog>]: each text that the prompt holds, else what stands behind its bar."""
    prompt = ask.facts.prompt.lower()
    choices = (each.partition("|") for each in ask.args)
    return sanitise_part("".join(text if text.lower() in prompt else other for text, _, other in choices))


def _generation_number(facts: NameFacts) -> str | None:
    if facts.batch_size * facts.iterations == 1:
        return None
    return str(facts.iteration * facts.batch_size + facts.batch_index + 1)


_EXPANSIONS: dict[str, Callable[[_Ask], str | None]] = {
    "seed": lambda ask: _text(ask.facts.seed),
    "seed_first": lambda ask: _text((*ask.facts.all_seeds, ask.facts.seed)[0]),
    "seed_last": lambda ask: None if ask.facts.batch_size == 1 else _text((ask.facts.seed, *ask.facts.all_seeds)[-1]),
    "steps": lambda ask: _text(ask.facts.steps),
    "cfg": lambda ask: _text(ask.facts.cfg_scale),
    "width": lambda ask: _text(ask.facts.width),
    "height": lambda ask: _text(ask.facts.height),
    "styles": lambda ask: _with_spaces(", ".join(ask.facts.styles) or "None"),
    "sampler": lambda ask: _with_spaces(ask.facts.sampler),
    "sampler_scheduler": lambda ask: _with_spaces(_sampler_and_scheduler(ask.facts)),
    "scheduler": lambda ask: _with_spaces(ask.facts.scheduler),
    "model_hash": lambda ask: sanitise_part(ask.facts.model_hash),
    "model_name": lambda ask: sanitise_part(ask.facts.model_name),
    "date": lambda ask: ask.facts.now.strftime("%Y-%m-%d"),
    "datetime": _datetime,
    "job_timestamp": lambda ask: sanitise_part(ask.facts.job_timestamp),
    "prompt_hash": lambda ask: _hash(ask.facts.prompt, ask),
    "negative_prompt_hash": lambda ask: _hash(ask.facts.negative_prompt, ask),
    "full_prompt_hash": lambda ask: _hash(f"{ask.facts.prompt} {ask.facts.negative_prompt}", ask),
    "prompt": lambda ask: sanitise_part(ask.facts.prompt),
    "prompt_no_styles": lambda ask: sanitise_part(
        ask.facts.prompt if ask.facts.prompt_no_styles is None else ask.facts.prompt_no_styles
    ),
    "prompt_spaces": lambda ask: _with_spaces(ask.facts.prompt),
    "prompt_words": _words,
    "batch_number": lambda ask: None if ask.facts.batch_size == 1 else str(ask.facts.batch_index + 1),
    "batch_size": lambda ask: str(ask.facts.batch_size),
    "generation_number": lambda ask: _generation_number(ask.facts),
    "hasprompt": _has_prompt,
    "clip_skip": lambda ask: _text(ask.facts.clip_skip),
    "denoising": lambda ask: str(ask.facts.strength) if ask.facts.strength else None,
    "user": lambda ask: sanitise_part(ask.facts.user),
    "vae_filename": lambda ask: sanitise_part(ask.facts.vae_name),
    "none": lambda ask: "",
    "image_hash": lambda ask: ask.facts.image_hash[: _length(ask, 64)],
}

_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"}
)
_INVISIBLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS_TEXT = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe_component(text: str, max_bytes: int = _COMPONENT_BYTES) -> str:
    """The text as one component of a path on every system; empty if nothing is left of it."""
    hidden = (each in _TURNS_TEXT or unicodedata.category(each) in _INVISIBLE for each in text)
    plain = "".join("_" if hide else each for each, hide in zip(text, hidden, strict=True)).translate(_FORBIDDEN)
    plain = _cut(plain.lstrip(" "), max_bytes)
    if plain.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        plain = _cut("_" + plain, max_bytes)
    return plain


def _cut(text: str, max_bytes: int) -> str:
    """NOTE: Windows drops trailing dots and spaces, so that "a." and "a" are one file there."""
    return text.encode()[:max_bytes].decode("utf-8", "ignore").rstrip(" .")


def subfolder(root: Path, facts: NameFacts, settings: Settings, *, is_grid: bool = False) -> Path:
    """NAMEPAT-1: where under the root the picture lies. Slashes of the pattern nest folders."""
    if not (settings.grid_save_to_dirs if is_grid else settings.save_to_dirs):
        return root
    pattern = settings.directories_filename_pattern or "[prompt_words]"
    expanded = expand_pattern(pattern, facts, max_words=settings.directories_max_prompt_words)
    components = (safe_component(each, _STEM_BYTES) for each in re.split(r"[/\\]", expanded))
    return root.joinpath(*islice((each for each in components if each), _DEEPEST))


def next_number(folder: Path, basename: str = "") -> int:
    """NAMEPAT-2: one more than the largest number that leads a name of the folder; 0 in an empty one."""
    prefix = f"{basename}-" if basename else ""
    try:
        names = [each.name for each in folder.iterdir() if each.name.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError):  # saving says so
        return 0
    leading = (re.split(r"[-.]", name[len(prefix) :], maxsplit=1)[0] for name in names)
    return 1 + max((int(each) for each in leading if _is_number(each)), default=-1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER


class Targets(NamedTuple):
    """The names to try one after another, best first; whether the pattern alone made them, with no running number."""

    paths: Iterator[Path]
    is_pattern_alone: bool


def target_paths(
    folder: Path,
    facts: NameFacts,
    settings: Settings,
    extension: str,
    *,
    basename: str = "",
    suffix: str = "",
    name: str | None = None,
    is_grid: bool = False,
) -> Targets:
    """NAMEPAT-2: with a running number the next 500 of them; else the name itself, then the name with -1, -2, ...

    `name` stands for the pattern and has no number.
    """
    basename, suffix = safe_component(basename, 40), safe_component(suffix, 40)
    decoration = _decoration(facts, settings, is_grid) if name is None else safe_component(name, _STEM_BYTES)
    has_number = not decoration or (name is None and settings.save_images_add_number)
    stems: Iterator[str]
    if has_number:
        start, digits = next_number(folder, basename), 4 if basename else 5
        numbers = (f"{number:0{digits}}" for number in range(start, start + _NUMBER_TRIES))
        stems = (_stem((basename, number, decoration), suffix) for number in numbers)
    else:
        first = _stem((basename, decoration), suffix)
        stems = islice(chain([first], (f"{first}-{number}" for number in count(1))), _SUFFIX_TRIES)
    return Targets((folder / f"{stem}.{extension}" for stem in stems), not has_number and name is None)


def _decoration(facts: NameFacts, settings: Settings, is_grid: bool) -> str:
    if is_grid and not settings.grid_extended_filename:
        return ""
    default = "[seed]" if settings.save_to_dirs else "[seed]-[prompt_spaces]"
    pattern = settings.samples_filename_pattern or default
    return safe_component(expand_pattern(pattern, facts, max_words=settings.directories_max_prompt_words), _STEM_BYTES)


def _stem(parts: tuple[str, ...], suffix: str) -> str:
    """The parts that are not empty, joined; the last is cut where the whole would be too long."""
    present = [each for each in parts if each]
    return safe_component("-".join(present), _STEM_BYTES - len(suffix.encode())) + suffix
