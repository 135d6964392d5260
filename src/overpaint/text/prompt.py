"""The prompt grammar: comments, network tags, AND, step schedules and attention weights.

A prompt is read from the outside in, each layer leaving plain text for the next one:

    strip_comments -> take_network_tags -> split_and -> schedule -> parse_attention -> overpaint.text.tokens

Prompts come from strangers: every function is linear in the text, none recurses, so nesting may be as deep as it likes.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import compress, groupby, zip_longest
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from overpaint.errors import RequestError
from overpaint.settings import Quirks

# ---- Comments (CMT) ----

_COMMENT_LINE = re.compile(r"(?:\A|\n)#[^\n]*(?:\n|\Z)")
_COMMENT_TAIL = re.compile(r"#[^\n]*(?:\n|\Z)")


def strip_comments(text: str) -> str:
    """The text without `# ...`: whole comment lines vanish, a comment at a line's end leaves the line break."""
    return _COMMENT_TAIL.sub("\n", _COMMENT_LINE.sub("\n", text))


# ---- Extra networks (XN) ----

_NETWORK_TAG = re.compile(r"<(\w+):([^>]+)>")


class NetworkTag(NamedTuple):
    """`<name:positional:key=value>`, for example `<lora:fur:0.8:te=0.4>`."""

    name: str
    args: tuple[str, ...]
    named: tuple[tuple[str, str], ...]


def take_network_tags(text: str) -> tuple[str, tuple[NetworkTag, ...]]:
    """The text without its network tags, and the tags in their order."""
    # NOTE: without the cut, every "<a:" of a text that never says ">" would scan to the end.
    cut = text.rfind(">") + 1
    tags = tuple(_network_tag(*found) for found in _NETWORK_TAG.findall(text[:cut]))
    return _NETWORK_TAG.sub("", text[:cut]) + text[cut:], tags


def _network_tag(name: str, args: str) -> NetworkTag:
    items = [item.split("=") for item in args.split(":")]
    positional = tuple("=".join(item) for item in items if len(item) != 2)
    return NetworkTag(name, positional, tuple((item[0], item[1]) for item in items if len(item) == 2))


# ---- Composition (AND) ----

# NOTE: "\d+\.?\d*" would match the same numbers, in quadratic time where a long one fails.
_DECIMAL = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_AND = re.compile(r"\bAND\b")
_AND_WEIGHT = re.compile(_DECIMAL)


class SubPrompt(NamedTuple):
    """One side of an AND and the weight of its guidance."""

    text: str
    weight: float


def split_and(text: str, quirks: Quirks) -> tuple[SubPrompt, ...]:
    """The parts between the ANDs of a positive prompt; a trailing ": number" is a part's weight."""
    pieces = _AND.split(text)
    if len(pieces) == 1 and not quirks.colon_weight_without_and:
        return (SubPrompt(text.rstrip(), 1.0),)
    return tuple(map(_sub_prompt, pieces))


def _sub_prompt(piece: str) -> SubPrompt:
    text, colon, number = piece.rpartition(":")
    if colon and _AND_WEIGHT.fullmatch(number.strip()):
        return SubPrompt(text.rstrip(), float(number))
    return SubPrompt(piece.rstrip(), 1.0)


# ---- Step schedules (SCHED) ----

_SCHEDULE_TOKEN = re.compile(r"\\.|[^\\()\[\]:|]+|.", re.DOTALL)
_STRUCTURE = frozenset("()[]:|")
_SWITCH_NUMBER = re.compile(rf"[ \t\f\r\n]*({_DECIMAL}(?:[eE][+-]?\d+)?)[ \t\f\r\n]*", re.ASCII)


class ScheduleEntry(NamedTuple):
    """The text of all steps after the former entry's end, up to and including `end`; steps count from 1."""

    end: int
    text: str


class _Construct(NamedTuple):
    """A complete `[before:after:number]`, `[after:number]` or `[option|option|...]`, by the positions of its tokens."""

    marks: list[int]  # the opening bracket and the separators: each begins a part
    close: int
    switch: str | None  # the number; None for an alternation


def schedule(
    text: str, steps: int, *, old_timelines: bool = False, steps_before: int = 0, quirks: Quirks
) -> tuple[ScheduleEntry, ...]:
    """What a text with prompt editing says at each step: `[cat:dog:0.5]`, `[fur:3]`, `[red|blue] cat`.

    A second pass goes on counting after the `steps_before` of the first; its fractions run from 1 to 2.
    """
    if old_timelines and steps_before:  # they are older than second passes, which then repeat the first's schedule
        steps, steps_before = steps_before, 0
    literal = (ScheduleEntry(steps, text),)
    if "[" not in text:
        return literal
    tokens: list[str] = _SCHEDULE_TOKEN.findall(text)
    constructs = _constructs(tokens, bars_are_text=not quirks.stray_bar_is_literal)
    if not constructs or (quirks.stray_bar_is_literal and _is_unparsable(tokens, constructs)):
        return literal
    ends, turns = _timeline(constructs, steps, old_timelines, steps_before)
    return _entries(sorted(ends), *_visible_texts(tokens, turns, steps))


def entry_at(entries: Sequence[ScheduleEntry], call: int, quirks: Quirks) -> int:
    """The index of the entry in force at a denoiser call, counted from 0 in this sampling."""
    step = call if quirks.late_prompt_switch else call + 1
    index = bisect_left(entries, step, key=itemgetter(0))
    if index < len(entries):
        return index
    return 0 if quirks.late_prompt_switch else len(entries) - 1


def _constructs(tokens: list[str], *, bars_are_text: bool) -> list[_Construct]:
    """Every complete construct, nested ones before those around them.

    A bracket whose construct cannot be completed is literal, and so are all brackets around it: a part consists of
    ordinary text and complete constructs only. Hence one failure empties the stack, and each token is seen once.
    """
    found: list[_Construct] = []
    open_marks: list[int] = []  # of every open bracket, one after another
    starts: list[int] = []  # where in `open_marks` each bracket's own begin
    for position, token in enumerate(tokens):
        if token not in _STRUCTURE:
            continue
        if token in "([":
            starts.append(len(open_marks))
            open_marks.append(position)
        elif starts and token in ":|":
            open_marks.append(position)
        elif starts:
            start = starts.pop()
            marks = open_marks[start:]
            del open_marks[start:]
            shape = "".join([tokens[mark] for mark in marks]) + token
            if bars_are_text and token == ")":
                shape = shape.replace("|", "")
            if construct := _construct(tokens, marks, position, shape):
                found.append(construct)
            elif shape not in ("()", "(:)", "[]"):
                open_marks.clear()
                starts.clear()
    return found


def _construct(tokens: list[str], marks: list[int], close: int, shape: str) -> _Construct | None:
    if shape in ("[:]", "[::]"):
        number = _SWITCH_NUMBER.fullmatch(tokens[close - 1]) if marks[-1] == close - 2 else None
        return _Construct(marks, close, number[1]) if number else None
    is_alternation = len(shape) > 2 and shape[0] == "[" and shape[-1] == "]" and not shape[1:-1].strip("|")
    return _Construct(marks, close, None) if is_alternation else None


def _is_unparsable(tokens: list[str], constructs: list[_Construct]) -> bool:
    """SCHED-3: a bar outside every alternation, or a backslash with nothing to escape."""
    bars = sum(len(each.marks) - 1 for each in constructs if each.switch is None)
    return tokens.count("|") != bars or tokens[-1] == "\\"


def _timeline(
    constructs: list[_Construct], steps: int, old_timelines: bool, steps_before: int
) -> tuple[set[int], dict[int, int]]:
    """The ends of all entries, and for each mark the steps at which the part it begins is seen (bit k-1 for step k)."""
    alternates = any(each.switch is None for each in constructs)
    ends = set(range(1, steps + 1)) if alternates else {steps}
    turns: dict[int, int] = {}
    for marks, close, switch in constructs:
        turns[close] = 0
        if switch is None:
            turns.update(zip_longest(marks, _option_masks(min(len(marks), steps), steps), fillvalue=0))
            continue
        last = _last_step_before(switch, steps, old_timelines, steps_before)
        if last:
            ends.add(last)
        before = (1 << last) - 1
        after = (1 << steps) - 1 - before
        turns.update(zip(marks, (before, after, 0)[-len(marks) :], strict=True))
    return ends, turns


@lru_cache
def _option_masks(count: int, steps: int) -> tuple[int, ...]:
    """The steps of each option of an alternation: every count-th, starting one later for each."""
    return tuple(sum(1 << step for step in range(option, steps, count)) for option in range(count))


def _last_step_before(number: str, steps: int, old_timelines: bool, steps_before: int) -> int:
    """SCHED-4, SCHED-5: the last step that shows the text before the switch; 0 = none does."""
    value = float(number)
    is_fraction = value < 1 if old_timelines else "." in number
    if steps_before:
        value -= 1 if is_fraction else steps_before
    return int(min(max(value * steps if is_fraction else value, 0), steps))


def _visible_texts(tokens: list[str], turns: dict[int, int], steps: int) -> tuple[list[str], list[int]]:
    """The texts outside the marks, in order, each with the steps at which it is seen; never seen ones are left out."""
    seen = (1 << steps) - 1
    outer: list[int] = []
    pieces: list[tuple[int, str]] = []
    for position, token in enumerate(tokens):
        turn = turns.get(position)
        if turn is None:
            if seen:
                pieces.append((seen, token))
        elif token == "[":
            outer.append(seen)
            seen &= turn
        elif token == "]":
            seen = outer.pop()
        else:
            seen = outer[-1] & turn
    runs = [(mask, "".join([text for _, text in run])) for mask, run in groupby(pieces, itemgetter(0))]
    return [text for _, text in runs], [mask for mask, _ in runs]


def _entries(ends: list[int], texts: list[str], masks: list[int]) -> tuple[ScheduleEntry, ...]:
    """One entry per end; steps that show the same pieces share one string, which bounds the work for alternations."""
    kinds = {mask: kind for kind, mask in enumerate(dict.fromkeys(masks))}
    kind_of_text = [kinds[mask] for mask in masks]
    said: dict[bytes, str] = {}
    entries = []
    for end in ends:
        shown = bytes([mask >> (end - 1) & 1 for mask in kinds])
        if shown not in said:
            said[shown] = "".join(compress(texts, map(shown.__getitem__, kind_of_text)))
        entries.append(ScheduleEntry(end, said[shown]))
    return tuple(entries)


# ---- Attention (ATT) ----

_ROUND, _SQUARE = 1.1, 1 / 1.1
# Past this depth float32 weights are infinite or zero anyway; without a bound the products would take quadratic time.
_DEEPEST = 1000

_ATTENTION = r"(\\[()\[\]\\]?|[()\[\]]|:\s*(NUMBER)\s*\)|[^\\()\[\]:]+|:)"
_ATTENTION_TOKEN = re.compile(_ATTENTION.replace("NUMBER", _DECIMAL))
_LOOSE_ATTENTION_TOKEN = re.compile(_ATTENTION.replace("NUMBER", r"[+-]?[.\d]+"))
_BREAK_WORD = re.compile(r"\bBREAK\b")


class Segment(NamedTuple):
    """A text and its attention weight; the segment `BREAK` ends a chunk of tokens instead."""

    text: str
    weight: float


BREAK = Segment("BREAK", -1.0)
_Emphasis = tuple[int, int, float]  # the first piece, the piece behind the last, the factor


def uses_emphasis(text: str) -> bool:
    """ENCODE-3: whether a text, as an encoder is given it, counts as emphasised when the infotext is written."""
    return "(" in text or "[" in text


def parse_attention(text: str, quirks: Quirks) -> tuple[Segment, ...]:
    """The weighted pieces of one scheduled text: `(x)` 1.1, `[x]` 1/1.1, `(x:1.3)` 1.3, nested ones multiply."""
    texts, breaks, emphases = _read_attention(text, quirks)
    if not texts:
        return (Segment("", 1.0),)
    weights = np.ones(len(texts))
    weights[breaks] = BREAK.weight
    with np.errstate(all="ignore"):  # absurd weights become infinite, as plain floats do
        for start, end, factor in emphases:
            weights[start:end] *= factor
    if quirks.weighted_break_is_text:
        return _merged(texts, weights.tolist(), ())
    weights[breaks] = BREAK.weight
    return _merged(texts, weights.tolist(), frozenset(breaks))


def _read_attention(text: str, quirks: Quirks) -> tuple[list[str], list[int], list[_Emphasis]]:
    """The pieces, which of them are breaks, and the emphases in the order in which they close."""
    texts: list[str] = []
    breaks: list[int] = []
    emphases: list[_Emphasis] = []
    round_starts: list[int] = []
    square_starts: list[int] = []
    pattern = _LOOSE_ATTENTION_TOKEN if quirks.malformed_weight_fails else _ATTENTION_TOKEN
    for token, number in pattern.findall(text):
        if token[0] == "\\":
            texts.append(token[1:])
        elif token in "([":
            starts = round_starts if token == "(" else square_starts
            starts.append(len(texts) if len(starts) < _DEEPEST else sys.maxsize)
        elif token[-1] == ")" and round_starts:
            factor = _weight(number) if number else _ROUND
            emphases.append((round_starts.pop(), len(texts), factor))
        elif token == "]" and square_starts:
            emphases.append((square_starts.pop(), len(texts), _SQUARE))
        else:
            _add_text(texts, breaks, token)
    emphases += [(start, len(texts), _ROUND) for start in round_starts]
    emphases += [(start, len(texts), _SQUARE) for start in square_starts]
    return texts, breaks, [(start, end, factor) for start, end, factor in emphases if start < end]


def _weight(number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise RequestError("prompt", f":{number})", "write the weight as one number, for example (cat:1.2)") from None


def _add_text(texts: list[str], breaks: list[int], text: str) -> None:
    pieces = _BREAK_WORD.split(text)
    for index, piece in enumerate(pieces):
        if index > 0:
            breaks.append(len(texts))
            texts.append(BREAK.text)
            piece = piece.lstrip()
        texts.append(piece.rstrip() if index < len(pieces) - 1 else piece)


def _merged(texts: list[str], weights: list[float], apart: Collection[int]) -> tuple[Segment, ...]:
    """Neighbours of equal weight become one segment, except those that must stay apart."""
    keys = ((weight, index if index in apart else -1) for index, weight in enumerate(weights))
    runs = groupby(zip(keys, texts, strict=True), itemgetter(0))
    return tuple(Segment("".join([text for _, text in run]), weight) for (weight, _), run in runs)
