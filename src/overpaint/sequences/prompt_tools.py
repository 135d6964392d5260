"""Many prompts from one: every combination of its parts, or one job for each line of a text."""

from __future__ import annotations

import math
import random
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from overpaint.errors import RequestError
from overpaint.parts import check_number
from overpaint.seeds import LARGEST_RANDOM_SEED
from overpaint.sequences.sheets import labelled_sheet
from overpaint.sequences.story import (
    AssembledPictures,
    PaintingSequence,
    SequenceStep,
    StepResult,
    check_count,
    first_seed,
    first_text,
    pictures_of,
    texts_of,
)
from overpaint.settings import Settings

MOST_PARTS = 10
_JOINTS = {"comma": ", ", "space": " "}


@dataclass(frozen=True, kw_only=True)
class PromptMatrix(PaintingSequence):
    """ "a|b|c": the first part with every choice of the others, as pictures and as a labelled sheet before them."""

    at_start: bool = False  # the chosen parts before the first
    different_seeds: bool = False
    which: str = "positive"
    joined_by: str = "comma"
    margin: int = 0

    kind: ClassVar[str] = "prompt-matrix"

    def __post_init__(self) -> None:
        check_number("margin", self.margin, low=0, high=500, whole=True)
        for name, choices in (("which", ("positive", "negative")), ("joined_by", tuple(_JOINTS))):
            if getattr(self, name) not in choices:
                raise RequestError(name, getattr(self, name), f"choose one of {', '.join(choices)}")
        if len(self.parts) - 1 > MOST_PARTS:
            remedy = (
                f"{2 ** (len(self.parts) - 1)} pictures are too many; give at most {MOST_PARTS} parts after the first"
            )
            raise RequestError("prompt", f"{len(self.parts)} parts", remedy)

    @property
    def parts(self) -> list[str]:
        """What the bars divide the text into."""
        text = self.request.prompt if self.which == "positive" else self.request.negative_prompt
        return (text if isinstance(text, str) else text[0]).split("|")

    @property
    def texts(self) -> list[str]:
        first, *others = self.parts
        combinations = range(2 ** len(others))
        chosen = ([t.strip(" ,") for i, t in enumerate(others) if n >> i & 1] for n in combinations)
        joint = _JOINTS[self.joined_by]
        return [joint.join([*some, first] if self.at_start else [first, *some]) for some in chosen]

    def __len__(self) -> int:
        return math.ceil(len(self.texts) / self.request.batch_size)

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        size, seed = self.request.batch_size, first_seed(self.request)
        part = range(number * size, min((number + 1) * size, len(self.texts)))
        texts = tuple(self.texts[i] for i in part)
        changes: dict[str, Any] = {
            "prompt" if self.which == "positive" else "negative_prompt": texts,
            "seed": tuple(seed + (i if self.different_seeds else 0) for i in part),
            "batch_size": len(part),
            "iterations": 1,
        }
        variation = self.request.variation_seed
        if isinstance(variation, int) and variation != -1:
            changes["variation_seed"] = tuple(variation + i for i in part)
        return SequenceStep(request=self.request.with_changes(**changes), label=texts[0])

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        images, texts = pictures_of(done), texts_of(done)
        if not images or not settings.return_grid:
            return AssembledPictures(images=images, infotexts=texts)
        others = [each.strip(" ,") for each in self.parts[1:]]
        across = (len(others) + 1) // 2
        columns, rows = _labels(others[:across]), _labels(others[across:])
        sheet = labelled_sheet(images, columns, rows, margin=self.margin, background=settings.grid_background_color)
        return AssembledPictures(images=(sheet, *images), infotexts=(first_text(done), *texts), first=1)


def _labels(parts: Sequence[str]) -> list[str]:
    """Of every choice of these parts."""
    return [" + ".join(t for i, t in enumerate(parts) if n >> i & 1) or "-" for n in range(2 ** len(parts))]


@dataclass(frozen=True, kw_only=True)
class PromptsFromText(PaintingSequence):
    """One job for each line: a prompt, or fields such as `--prompt "a cat" --steps 30`."""

    text: str = ""
    iterate_seed: bool = False  # each line goes on with the seed after the last line's
    same_random_seed: bool = False
    place: str = "start"  # of a line's prompt beside the request's
    own_seeds: bool = False  # every line has a random seed of its own

    kind: ClassVar[str] = "prompts"

    def __post_init__(self) -> None:
        if self.place not in ("start", "end"):
            raise RequestError("place", self.place, "choose one of start, end")
        if not isinstance(self.text, str) or not self.lines:
            raise RequestError("text", self.text, "give at least one line with a prompt")
        check_count("lines", len(self.lines))
        for number, each in enumerate(self.lines):
            line_fields(each, number)
        if self.request.seed == -1 and not (self.iterate_seed or self.same_random_seed):
            object.__setattr__(self, "own_seeds", True)

    @property
    def lines(self) -> list[str]:
        return [each.strip() for each in self.text.splitlines() if each.strip()]

    def __len__(self) -> int:
        return len(self.lines)

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        changes = line_fields(self.lines[number], number)
        for name in ("prompt", "negative_prompt"):
            if name in changes:
                changes[name] = self._joined(changes[name], getattr(self.request, name))
        if "seed" not in changes:
            changes["seed"] = self._seed(number)
        return SequenceStep(request=self.request.with_changes(**changes), label=self.lines[number])

    def _joined(self, own: str, common: Any) -> Any:
        if not isinstance(common, str) or not common:
            return own
        return f"{own} {common}" if self.place == "start" else f"{common} {own}"

    def _seed(self, number: int) -> int:
        seed = first_seed(self.request)
        if self.own_seeds and number:
            return random.Random(f"{seed} {number}").randint(0, LARGEST_RANDOM_SEED)
        return seed + number * self.request.batch_size * self.request.iterations * self.iterate_seed

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        return AssembledPictures(images=pictures_of(done), infotexts=texts_of(done))


def _truth(value: str) -> bool:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(value)


_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "prompt": ("prompt", str),
        "negative_prompt": ("negative_prompt", str),
        "sd_model": ("checkpoint", str),
        "styles": ("styles", lambda value: tuple(each.strip() for each in value.split(",") if each.strip())),
        "seed": ("seed", int),
        "subseed": ("variation_seed", int),
        "subseed_strength": ("variation_strength", float),
        "sampler_name": ("sampler", str),
        "sampler_index": ("sampler", str),
        "scheduler": ("scheduler", str),
        "batch_size": ("batch_size", int),
        "n_iter": ("iterations", int),
        "steps": ("steps", int),
        "cfg_scale": ("cfg_scale", float),
        "width": ("width", int),
        "height": ("height", int),
        "denoising_strength": ("strength", float),
        "tiling": ("tiling", _truth),
    }
)
_OF_THE_SITE = frozenset({"outpath_samples", "outpath_grids", "do_not_save_samples", "do_not_save_grid"})


def line_fields(line: str, number: int = 0) -> dict[str, Any]:
    """The request's fields that a line names; one without flags is a prompt."""
    if "--" not in line:
        return {"prompt": line}
    try:
        words = shlex.split(line)
    except ValueError:
        return {"prompt": line}
    found: dict[str, Any] = {}
    at = 0
    while at < len(words):
        flag = words[at]
        if not flag.startswith("--"):
            raise RequestError(
                f"text, line {number + 1}", flag, "each value follows its --name; quote those with spaces"
            )
        end = at + 1
        while end < len(words) and not words[end].startswith("--"):
            end += 1
        name, value = flag[2:], " ".join(words[at + 1 : end])
        at = end
        if name not in _FIELDS:
            raise RequestError(f"text, line {number + 1}", flag, _remedy(name))
        field, kind = _FIELDS[name]
        try:
            found[field] = kind(value)
        except ValueError:
            raise RequestError(f"text, line {number + 1}: {flag}", value, "that is not a value of this field") from None
    return found


def _remedy(name: str) -> str:
    if name in _OF_THE_SITE:
        return "where pictures are saved is not for a line to say; leave it out"
    return f"give one of --{', --'.join(_FIELDS)}"
