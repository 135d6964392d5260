"""The prompt grammar against the rules' tables, the reference's recordings and plain (slow) readings of the rules."""

from __future__ import annotations

import gc
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.errors import RequestError
from overpaint.settings import Quirks
from overpaint.text.prompt import (
    BREAK,
    NetworkTag,
    ScheduleEntry,
    Segment,
    entry_at,
    parse_attention,
    schedule,
    split_and,
    strip_comments,
    take_network_tags,
    uses_emphasis,
)
from tests.conftest import needs_whole_set

REFERENCE = Quirks.reference()
SANE = Quirks.none()
QUIRKS = pytest.mark.parametrize("quirks", [REFERENCE, SANE], ids=["reference", "sane"])
GRAMMAR_TEXT = st.text(st.sampled_from("([|:])[]:ab1. \\,"), max_size=40)


@pytest.fixture(scope="module")
def recorded(parity: Path) -> list[dict[str, Any]]:
    prompts: list[dict[str, Any]] = json.loads((parity / "unit" / "prompts.json").read_text(encoding="utf-8"))
    return prompts


# ---- Comments ----


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("a # x\nb", "a \nb"),
        ("a #x", "a \n"),
        ("#x\na", "\na"),
        ("a\n#x\nb", "a\nb"),
        ("a\n#x", "a\n"),
        ("#x", "\n"),
        ("a \\# b", "a \\\n"),
        ("a, b", "a, b"),
        ("", ""),
    ],
)
def test_comments_leave_the_line_break(text: str, bare: str) -> None:  # CMT-1
    assert strip_comments(text) == bare


@given(st.text(st.sampled_from("a#\n "), max_size=30))
def test_no_comment_survives(text: str) -> None:  # CMT-1
    assert "#" not in strip_comments(text)


# ---- Extra networks ----


@pytest.mark.parametrize(
    ("text", "bare"),
    [  # XN-9
        ("a <lora:n:0.5> b", "a  b"),
        ("<lora:>", "<lora:>"),
        ("<a b:c>", "<a b:c>"),
        ("<<lora:n:1>>", "<>"),
        ("<lora:a", "<lora:a"),
        ("<lora:a>b<c", "b<c"),
    ],
)
def test_network_tags_are_cut_out(text: str, bare: str) -> None:
    assert take_network_tags(text)[0] == bare


def test_network_tag_arguments() -> None:  # XN-1, XN-2
    tags = take_network_tags("<lora:fur:0.8:te=0.4:unet=1> cat <hypernet:h:a=b=c> <x::>")[1]
    assert tags == (
        NetworkTag("lora", ("fur", "0.8"), (("te", "0.4"), ("unet", "1"))),
        NetworkTag("hypernet", ("h", "a=b=c"), ()),
        NetworkTag("x", ("", ""), ()),
    )


@given(st.text(st.sampled_from("<>:a=b "), max_size=30))
def test_network_tags_are_those_of_the_plain_pattern(text: str) -> None:  # XN-1
    bare, tags = take_network_tags(text)
    assert bare == re.sub(r"<(\w+):([^>]+)>", "", text)
    assert len(tags) == len(re.findall(r"<(\w+):([^>]+)>", text))


# ---- AND ----


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a AND b", [("a", 1.0), (" b", 1.0)]),
        ("a :1.2 AND b:0.5", [("a", 1.2), (" b", 0.5)]),
        ("a AND b:-0.7", [("a", 1.0), (" b", -0.7)]),
        ("a AND", [("a", 1.0), ("", 1.0)]),
        ("aANDb", [("aANDb", 1.0)]),
        ("a and b ", [("a and b", 1.0)]),
        ("(a:1.5)", [("(a:1.5)", 1.0)]),
        ("a\nAND\nb :0.3", [("a", 1.0), ("\nb", 0.3)]),
        ("a :1. AND b: .5 AND c:+2", [("a", 1.0), (" b", 0.5), (" c", 2.0)]),
        ("a:1:2 AND b:1e2 AND c:.", [("a:1", 2.0), (" b:1e2", 1.0), (" c:.", 1.0)]),
    ],
)
@QUIRKS
def test_and_splits_with_weights(text: str, parts: list[tuple[str, float]], quirks: Quirks) -> None:  # AND-1
    assert list(split_and(text, quirks)) == parts


def test_a_colon_weight_alone_is_an_accident() -> None:  # AND-1
    assert split_and("a:1.5", REFERENCE) == (("a", 1.5),)
    assert split_and("a:1.5", SANE) == (("a:1.5", 1.0),)


def test_and_as_recorded(recorded: list[dict[str, Any]]) -> None:  # AND-1, AND-3
    for case in recorded:
        parts = split_and(case["prompt"], REFERENCE)
        texts = list(dict.fromkeys(part.text for part in parts))
        assert texts == case["multicond"]["flat"], case["prompt"]
        assert [[texts.index(part.text), part.weight] for part in parts] == case["multicond"]["indexes"][0]


# ---- Schedules ----

TIMED = [  # section 6, S=10: text, then the entries
    ("test", {10: "test"}),
    ("a [b:3]", {3: "a ", 10: "a b"}),
    ("a [b : c : 1] d", {1: "a b  d", 10: "a  c  d"}),
    ("a[b:[c:d:2]:1]e", {1: "abe", 2: "ace", 10: "ade"}),
    ("a [[[b]]:2]", {2: "a ", 10: "a [[b]]"}),
    ("[(a:2):3]", {3: "", 10: "(a:2)"}),
    ("a [b:.5] c", {5: "a  c", 10: "a b c"}),
    ("[a:b:1.5]", {10: "a"}),
    ("[a:b:1.]", {10: "a"}),
    ("[a:b:20]", {10: "a"}),
    ("[a:b:1e999]", {10: "a"}),
    ("[a:b:10]", {10: "a"}),
    ("[a:b:0]", {10: "b"}),
    ("[a:b:-1]", {10: "b"}),
    ("[a:b:-1e999]", {10: "b"}),
    ("[a:b:1e-1]", {10: "b"}),
    ("[a:b:0.05]", {10: "b"}),
    ("[a:b:0.99]", {9: "a", 10: "b"}),
    ("[a::0.5]", {5: "a", 10: ""}),
    ("[:b:0.5]", {5: "", 10: "b"}),
    ("[a:b:0.25][c:d:0.75]", {2: "ac", 7: "bc", 10: "bd"}),
    ("[[a:b:0.25]:c:0.75]", {2: "a", 7: "b", 10: "c"}),
    ("([a:b:2]:1.3)", {2: "(a:1.3)", 10: "(b:1.3)"}),
    ("[a (b:1.2) c:d:2]", {2: "a (b:1.2) c", 10: "d"}),
    ("[((a)):(b:1.2):2]", {2: "((a))", 10: "(b:1.2)"}),
    ("((a][:b:c [d:3]", {3: "((a][:b:c ", 10: "((a][:b:c d"}),
    ("]a[ [b:c:2]", {2: "]a[ b", 10: "]a[ c"}),
    ("[a]:[b:c:2]", {2: "[a]:b", 10: "[a]:c"}),
    ("[a\\:b:3]", {3: "", 10: "a\\:b"}),
    ("[\\[a\\]:b:2]", {2: "\\[a\\]", 10: "b"}),
    ("a \\| b [c:d:3]", {3: "a \\| b c", 10: "a \\| b d"}),
    ("[1:2:3]", {3: "1", 10: "2"}),
    ("text\nnew [line:two:4]", {4: "text\nnew line", 10: "text\nnew two"}),
]
ALTERNATING = [  # the first steps
    ("[fe|]male", ["female", "male", "female", "male"]),
    ("[fe|||]male", ["female", "male", "male", "male", "female"]),
    ("[a|b|c] d [e|f]", ["a d e", "b d f", "c d e", "a d f"]),
    ("[a|[b:c:4]]", ["a", "b", "a", "b", "a", "c", "a", "c"]),
    ("[a:[b|c]:5]", ["a", "a", "a", "a", "a", "c", "b", "c"]),
    ("[[a|b]|c]", ["a", "c", "a", "c"]),
    ("[a:b:.5][c|d]", ["ac", "ad", "ac", "ad", "ac", "bd", "bc"]),
    ("[|a]", ["", "a", "", "a"]),
    ("[a||b]", ["a", "", "b", "a"]),
    ("[a|b]:3]", ["a:3]", "b:3]", "a:3]"]),
]
LITERAL = [
    *("[a:b]", "[a]", "[a:b:c]", "(a:b:c)", "a [unbalanced", "[a:b:0.5", "x]y", "a:b", "[(a:b:2)]", "\\[a:b:2]"),
    *("[a:b:c:3]", "[a|b:3]", "[a:b|c:3]", "[a|b:c:3]", "[:a:b:3]", "[a:b::3]", "a\\[b:c:3\\]", "[a:b:3 x]", "[a:b:]"),
]


@pytest.mark.parametrize(("text", "entries"), TIMED)
@QUIRKS
def test_timed_texts(text: str, entries: dict[int, str], quirks: Quirks) -> None:  # SCHED-2, SCHED-4, SCHED-7
    assert schedule(text, 10, quirks=quirks) == tuple(entries.items())


@pytest.mark.parametrize(("text", "first_steps"), ALTERNATING)
@QUIRKS
def test_alternating_texts(text: str, first_steps: list[str], quirks: Quirks) -> None:  # SCHED-6
    entries = schedule(text, 10, quirks=quirks)
    assert [entry.end for entry in entries] == list(range(1, 11))
    assert [entry.text for entry in entries[: len(first_steps)]] == first_steps


@pytest.mark.parametrize("text", LITERAL)
@QUIRKS
def test_brackets_without_meaning_are_literal(text: str, quirks: Quirks) -> None:  # SCHED-2
    assert schedule(text, 10, quirks=quirks) == ((10, text),)


@pytest.mark.parametrize(
    ("text", "sane"),
    [
        ("a | b [c:d:3]", {3: "a | b c", 10: "a | b d"}),
        ("[a:b:2] | c", {2: "a | c", 10: "b | c"}),
        ("(a | b) [c:d:3]", {3: "(a | b) c", 10: "(a | b) d"}),
        ("[(a | b):d:3]", {3: "(a | b)", 10: "d"}),
        ("[a:b:2] \\", {2: "a \\", 10: "b \\"}),
    ],
)
def test_a_stray_bar_switches_editing_off(text: str, sane: dict[int, str]) -> None:  # SCHED-3
    assert schedule(text, 10, quirks=REFERENCE) == ((10, text),)
    assert schedule(text, 10, quirks=SANE) == tuple(sane.items())


def test_old_timelines() -> None:  # SCHED-5
    assert schedule("[a:b:2.0]", 10, old_timelines=True, quirks=SANE) == ((2, "a"), (10, "b"))
    assert schedule("[a:b:1.0]", 10, old_timelines=True, quirks=SANE) == ((1, "a"), (10, "b"))
    assert schedule("[a:b:5e-1]", 10, old_timelines=True, quirks=SANE) == ((5, "a"), (10, "b"))


@pytest.mark.parametrize("quirks", [REFERENCE, SANE], ids=["reference", "sane"])
@pytest.mark.parametrize(
    ("text", "first_steps", "entries"),
    [
        ("[a:b:1.5]", 8, ((5, "a"), (10, "b"))),
        ("[a:b:1.25]", 8, ((2, "a"), (10, "b"))),
        ("[a:b:0.5] [c:d:1.0] [e:f:-1.5] [g:h:8]", 8, ((10, "b d f h"),)),
        ("[a:b:2.0] [c:d:3.5] [e:f:99]", 8, ((10, "a c e"),)),
        ("[a:b:9] [c:d:12]", 8, ((1, "a c"), (4, "b c"), (10, "b d"))),
        ("[a:b:12]", 16, ((10, "b"),)),
        ("[a|b]", 8, tuple((step, "ab"[(step - 1) % 2]) for step in range(1, 11))),
        ("a", 8, ((10, "a"),)),
    ],
)
def test_second_pass(text: str, first_steps: int, entries: tuple[tuple[int, str], ...], quirks: Quirks) -> None:
    assert schedule(text, 10, steps_before=first_steps, quirks=quirks) == entries


def test_old_timelines_repeat_the_first_pass() -> None:  # SCHED-5
    first = schedule("[a:b:0.5] [c:d:3]", 8, old_timelines=True, quirks=SANE)
    assert schedule("[a:b:0.5] [c:d:3]", 10, old_timelines=True, steps_before=8, quirks=SANE) == first


@needs_whole_set
@pytest.mark.parametrize(
    ("name", "second_steps"), [("hires_schedule", 8), ("hires_schedule_times", 8), ("hires_alternate", 4)]
)
def test_second_pass_as_recorded(name: str, second_steps: int, parity: Path) -> None:
    folder = parity / "extra" / "goldens" / name
    params = json.loads((folder / "case.json").read_text())["case"]["params"]
    passes = (
        (params["steps"], schedule(params["prompt"], params["steps"], quirks=REFERENCE)),
        (second_steps, schedule(params["prompt"], second_steps, steps_before=params["steps"], quirks=REFERENCE)),
    )
    shown = [entries[entry_at(entries, call, REFERENCE)].text for steps, entries in passes for call in range(steps)]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(shown))}
    assert [numbers[text] for text in shown] == np.load(folder / "data.npz")["cond_index"].tolist()


def test_schedules_as_recorded(recorded: list[dict[str, Any]]) -> None:
    for case in recorded:
        for name in ("schedule_1", "schedule_8", "schedule_10", "schedule_20", "schedule_old_10"):
            steps = int(name.rpartition("_")[2])
            entries = schedule(case["prompt"], steps, old_timelines="old" in name, quirks=REFERENCE)
            assert [list(entry) for entry in entries] == case[name], (case["prompt"], name)


def test_entry_of_a_call() -> None:  # SCHED-8
    entries = schedule("[a:b:5]", 10, quirks=SANE)
    assert [entry_at(entries, call, REFERENCE) for call in range(12)] == [0] * 6 + [1] * 5 + [0]
    assert [entry_at(entries, call, SANE) for call in range(12)] == [0] * 5 + [1] * 7


class _Read:
    """SCHED-2a as it is written: at each bracket, try the whole construct that may start there."""

    def __init__(self, text: str, step: int, steps: int) -> None:
        self.text, self.step, self.steps = text, step, steps

    def whole(self) -> str | None:
        at, said = 0, ""
        while at < len(self.text):
            end, part = self.part(at)
            said, at = said + part, end
            if at < len(self.text):
                if self.text[at] in "|\\":
                    return None
                said, at = said + self.text[at], at + 1
        return said

    def part(self, at: int) -> tuple[int, str]:
        said = ""
        while at < len(self.text):
            if found := re.compile(r"(?:\\.|[^\\\[\]():|])+", re.DOTALL).match(self.text, at):
                said, at = said + found[0], found.end()
            elif (nested := self.construct(at)) is not None:
                said, at = said + nested[1], nested[0]
            else:
                break
        return at, said

    def construct(self, at: int) -> tuple[int, str] | None:
        opener = self.text[at]
        if opener not in "([":
            return None
        parts, separators, end = [], "", at
        while end == at or self.text[end : end + 1] in (":", "|"):
            separators += self.text[end]
            start = end + 1
            end, said = self.part(start)
            parts.append((self.text[start:end], said))
        shape = separators + self.text[end : end + 1]
        if shape in ("()", "(:)", "[]"):
            return end + 1, self.text[at] + ":".join(said for _, said in parts) + self.text[end]
        if re.fullmatch(r"\[\|+\]", shape):
            return end + 1, parts[(self.step - 1) % len(parts)][1]
        number = re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", parts[-1][0].strip(" "))
        if shape in ("[:]", "[::]") and number:
            value = float(number[0]) * (self.steps if "." in number[0] else 1)
            before = parts[0][1] if shape == "[::]" else ""
            return end + 1, before if self.step <= int(value) else parts[-2][1]
        return None


@given(GRAMMAR_TEXT)
def test_schedules_read_as_the_rule_is_written(text: str) -> None:  # SCHED-2a
    entries = schedule(text, 4, quirks=REFERENCE)
    said = [entries[entry_at(entries, call, SANE)].text for call in range(4)]
    literal = [text if read is None else read for read in (_Read(text, step, 4).whole() for step in (1, 2, 3, 4))]
    assert said == literal


@given(st.text(), st.integers(1, 12), st.booleans())
def test_any_text_has_a_schedule(text: str, steps: int, old: bool) -> None:
    for quirks in (REFERENCE, SANE):
        entries = schedule(text, steps, old_timelines=old, quirks=quirks)
        ends = [entry.end for entry in entries]
        assert ends == sorted(set(ends))
        assert ends[0] >= 1
        assert ends[-1] == steps


# ---- Attention ----

NINE = 1 / 1.1
WEIGHTED = [  # section 7
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("\\(literal\\]", [("(literal]", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [
            *[("a ", 1.0), ("house", 1.5730000000000004), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55)],
            *[(", sun, ", 1.1), ("sky", 1.4641000000000006), (".", 1.1)],
        ],
    ),
    ("(a: 1.2 )", [("a", 1.2)]),
    ("(a:+1.1)", [("a", 1.1)]),
    ("(a:-1)", [("a", -1.0)]),
    ("(a:.5)", [("a", 0.5)]),
    ("(a:0)", [("a", 0.0)]),
    ("(a:b)", [("a:b", 1.1)]),
    ("(a:1e1)", [("a:1e1", 1.1)]),
    ("[a:1.2]", [("a:1.2", NINE)]),
    ("[[a]]", [("a", 0.8264462809917354)]),
    ("((a))", [("a", 1.2100000000000002)]),
    ("(a [b] c)", [("a ", 1.1), ("b", 1.0), (" c", 1.1)]),
    ("[a (b] c)", [("a ", NINE), ("b", 1.0), (" c", 1.1)]),
    ("a:1.2)", [("a:1.2)", 1.0)]),
    ("a)", [("a)", 1.0)]),
    ("a]", [("a]", 1.0)]),
    ("(a, (b:1.2):1.3)", [("a, ", 1.3), ("b", 1.56)]),
    ("text (with: colon:1.3)", [("text ", 1.0), ("with: colon", 1.3)]),
    ("(a\\:1.2)", [("a", 1.2)]),
    ("()", [("", 1.0)]),
    ("(:1.2)", [("", 1.0)]),
    ("", [("", 1.0)]),
    ("a BREAK b", [("a", 1.0), BREAK, ("b", 1.0)]),
    ("aBREAKb", [("aBREAKb", 1.0)]),
    ("a break b", [("a break b", 1.0)]),
    ("BREAK", [("", 1.0), BREAK, ("", 1.0)]),
    ("a BREAK", [("a", 1.0), BREAK, ("", 1.0)]),
    ("a  BREAK\nBREAK b", [("a", 1.0), BREAK, ("", 1.0), BREAK, ("b", 1.0)]),
    ("a\\", [("a", 1.0)]),
    ("a\\\\b", [("a\\b", 1.0)]),
]


@pytest.mark.parametrize(("text", "segments"), WEIGHTED)
@QUIRKS
def test_attention(text: str, segments: list[tuple[str, float]], quirks: Quirks) -> None:  # ATT-2 to ATT-6, ATT-8
    assert list(parse_attention(text, quirks)) == segments


def test_a_malformed_weight() -> None:  # ATT-4
    for text in ("(a:1.2.3)", "(a:..)"):
        with pytest.raises(RequestError, match="weight"):
            parse_attention(text, REFERENCE)
        assert parse_attention(text, SANE) == ((text[1:-1], 1.1),)
    assert parse_attention("a:1.2.3)", REFERENCE) == (("a:1.2.3)", 1.0),)


def test_a_weighted_break() -> None:  # ATT-7
    assert parse_attention("(a BREAK b:1.2)", REFERENCE) == (("a", 1.2), ("BREAK", -1.2), ("b", 1.2))
    assert parse_attention("(a BREAK b:1.2)", SANE) == (("a", 1.2), BREAK, ("b", 1.2))
    assert parse_attention("(a BREAK b:0)", REFERENCE) == (("aBREAKb", 0.0),)
    assert parse_attention("(a BREAK b:-1)", SANE) == (("a", -1.0), BREAK, ("b", -1.0))


def test_attention_as_recorded(recorded: list[dict[str, Any]]) -> None:
    for case in recorded:
        segments = parse_attention(case["prompt"], REFERENCE)
        assert [list(segment) for segment in segments] == case["attention"], case["prompt"]


def test_emphasis_is_any_bracket() -> None:  # ENCODE-3
    assert uses_emphasis("(a")
    assert uses_emphasis("[a")
    assert not uses_emphasis("a) b]")


def _plain_attention(text: str) -> list[tuple[str, float]]:
    """ATT-2, ATT-3, ATT-6 without BREAK, each emphasis multiplied at once into a plain list."""
    pieces: list[list[Any]] = []
    starts: dict[str, list[int]] = {"(": [], "[": []}

    def raise_from(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece[1] *= factor

    for match in re.finditer(r"\\[()\[\]\\]|\\|:\s*([-+]?\d+\.?\d*|[-+]?\.\d+)\s*\)|[^\\()\[\]:]+|.", text, re.DOTALL):
        token = match[0]
        opener = {")": "(", "]": "["}.get(token[-1], "") if token[0] != "\\" else ""
        if token in starts:
            starts[token].append(len(pieces))
        elif opener and starts[opener]:
            raise_from(starts[opener].pop(), float(match[1]) if match[1] else 1.1 if opener == "(" else 1 / 1.1)
        else:
            pieces.append([token.removeprefix("\\") if token[0] == "\\" else token, 1.0])
    for start in starts["("]:
        raise_from(start, 1.1)
    for start in starts["["]:
        raise_from(start, 1 / 1.1)
    merged: list[tuple[str, float]] = []
    for piece, weight in pieces:
        if merged and merged[-1][1] == weight:
            piece = merged.pop()[0] + piece
        merged.append((piece, weight))
    return merged or [("", 1.0)]


@given(GRAMMAR_TEXT)
def test_attention_reads_as_the_rule_is_written(text: str) -> None:
    assert list(parse_attention(text, SANE)) == _plain_attention(text)


@given(st.text())
def test_any_text_has_segments(text: str) -> None:
    segments = parse_attention(text, SANE)
    assert segments
    assert all(isinstance(segment, Segment) and type(segment.weight) is float for segment in segments)


# ---- Hostile sizes ----


def _repeated(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit))


def _nested(opener: str, closer: str) -> Callable[[int], str]:
    return lambda size: opener * (size // len(opener + closer)) + "a" + closer * (size // len(opener + closer))


def _random(size: int) -> str:
    return "".join(random.Random(size).choices("([|:])ab1 \\", k=size))


HOSTILE = {
    **{unit: _repeated(unit) for unit in ("(", "[", ")", "([", "[a|", "[a:b:", "[a|b]", "[a:b:3]", "(a", "[|]")},
    **{unit: _repeated(unit) for unit in ("(a:1.2)", ": 1", "1", ".", " ", "\\", "BREAK ", "<a:", "\n#", "AND ", ":1")},
    **{
        f"{opener}...{closer}": _nested(opener, closer)
        for opener, closer in (("(", ")"), ("[", "]"), ("[a|", "]"), ("[", "|b]"), ("[a:", ":3]"), ("[", ":b:3]"))
    },
    **{f"{opener}...{closer}": _nested(opener, closer) for opener, closer in (("(a", ")"), ("(a(a", ":2):.5)"))},
    "long number": lambda size: "[a:b:" + "9" * size + "x]",
    "long weight": lambda size: "(a:" + "1" * size,
    "many options": lambda size: "[" + "|" * size + "]",
    "random": _random,
}


def _read_everything(text: str, quirks: Quirks) -> None:
    take_network_tags(strip_comments(text))
    split_and(text, quirks)
    schedule(text, 20, quirks=quirks)
    try:
        parse_attention(text, quirks)
    except RequestError:
        assert quirks.malformed_weight_fails


def _seconds(text: str, quirks: Quirks) -> float:
    """Processor time without garbage collections, whose length depends on the whole process."""
    gc.disable()
    try:
        start = time.process_time()
        _read_everything(text, quirks)
        return time.process_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text(name: str) -> None:
    for quirks in (REFERENCE, SANE):
        small = min(_seconds(HOSTILE[name](3_000), quirks) for _ in range(2))
        large = min(_seconds(HOSTILE[name](12_000), quirks) for _ in range(2))
        assert large < 7 * small + 0.02


@pytest.mark.parametrize("name", ["(", "[", "[...]", "[a|...]", "[a|b]", "(a...)", "random"])
def test_a_hundred_kilobytes_are_read(name: str) -> None:
    assert _seconds(HOSTILE[name](100_000), SANE) < 2


def test_depth_has_no_limit() -> None:
    deep = 30_000
    text = "[" * deep + "a:b:5]" + ":c:5]" * (deep - 1)
    assert schedule(text, 10, quirks=REFERENCE) == (ScheduleEntry(5, "a"), ScheduleEntry(10, "c"))
    assert parse_attention("(" * deep + "a" + ")" * deep, SANE)[0].weight > 1e38
