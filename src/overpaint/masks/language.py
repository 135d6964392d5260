"""A mask as a line of text: what it says, read from left to right, and where a mistake is.

    mask    = operand { "|" step  |  ("+" | "-" | "&") operand }
    operand = shape | "(" mask ")"
    shape   = word { group }        such as  ellipse 120,40,300,180
    step    = word { group }        such as  grow 8
    group   = number { "," number } | word | "text" | #colour

Which words there are is said in `vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from overpaint.errors import MaskTextError
from overpaint.hints import did_you_mean, listed
from overpaint.masks.vocabulary import ALIASES, SHAPES, STEPS, Kind, MaskWord

MOST_CHARACTERS = 100_000
_DEEPEST = 20
_MOST_PHRASES = 500
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<colour>\#[0-9A-Fa-f]+)
    |(?P<number>-?(?:\d+\.?\d*|\.\d+)%?(?![\w.]))
    |(?P<word>[^\W\d][\w./\\~-]*|[./~\\][\w./\\~-]*|\d[\w./\\~-]*)
    |(?P<sign>[|+\-&(),])""",
    re.VERBOSE,
)
_JOINS = "|+-&"
_FIRST_WORD = re.compile(r"\s*(?:\(\s*)*([A-Za-z-]+)(?=$|[\s)|+&])")


@dataclass(frozen=True)
class MaskToken:
    """A piece of the text."""

    kind: str  # word, number, colour, text, sign, end
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


Group = tuple[MaskToken, ...]


@dataclass(frozen=True)
class Phrase:
    """A word with what was said to it."""

    word: MaskWord
    start: int
    end: int
    groups: tuple[Group, ...] = ()
    options: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class MaskText:
    """A text that was understood: an operand, and what is done to it in turn."""

    text: str
    first: Phrase | MaskText
    rest: tuple[tuple[str, Phrase | MaskText], ...] = ()  # the sign, and the step or operand after it


def parse(text: str, most_phrases: int = _MOST_PHRASES) -> MaskText:
    """The text, understood; a `MaskTextError` points at what cannot be."""
    if len(text) > MOST_CHARACTERS:
        raise MaskTextError(text, MOST_CHARACTERS, MOST_CHARACTERS, f"give at most {MOST_CHARACTERS} characters")
    reader = _Reader(text, _tokens(text), most_phrases)
    found = reader.mask(0)
    if reader.next.kind != "end":
        reader.fail(reader.next, "a closing bracket without one that opens")
    return found


def is_expression(text: str) -> bool:
    """Whether a text that names no file is meant as a mask in words: it begins with one of them, or looks like it."""
    first = _FIRST_WORD.match(text)
    if first is None:
        return False
    return (
        first[1] in SHAPES
        or first[1] in ALIASES
        or "|" in text
        or re.match(r"\s*[A-Za-z-]+\s+[-\d.]+%?(\s|,|$)", text) is not None
    )


def _tokens(text: str) -> list[MaskToken]:
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise MaskTextError(text, place, place + 1, "nothing that can stand here")
        if match.lastgroup != "space":
            found.append(MaskToken(str(match.lastgroup), match[0], place))
        place = match.end()
    return [*found, MaskToken("end", "", len(text))]


class _Reader:
    def __init__(self, text: str, tokens: list[MaskToken], most_phrases: int) -> None:
        self.text, self._tokens, self._place = text, tokens, 0
        self._phrases, self._most_phrases = 0, most_phrases

    @property
    def next(self) -> MaskToken:
        return self._tokens[self._place]

    def take(self) -> MaskToken:
        self._place += 1
        return self._tokens[self._place - 1]

    def fail(self, token: MaskToken, remedy: str) -> None:
        raise MaskTextError(self.text, token.start, token.end, remedy)

    def mask(self, depth: int) -> MaskText:
        if depth > _DEEPEST:
            self.fail(self.next, f"brackets go {_DEEPEST} deep at most")
        first, rest = self._operand(depth), []
        while self.next.kind == "sign" and self.next.text in _JOINS:
            sign = self.take().text
            rest.append((sign, self._phrase(STEPS) if sign == "|" else self._operand(depth)))
        return MaskText(self.text, first, tuple(rest))

    def _operand(self, depth: int) -> Phrase | MaskText:
        if self.next.text != "(" or self.next.kind != "sign":
            return self._phrase(SHAPES)
        opened = self.take()
        inner = self.mask(depth + 1)
        if self.next.text != ")":
            self.fail(opened, "this bracket is not closed")
        self.take()
        return inner

    def _phrase(self, words: Mapping[str, MaskWord]) -> Phrase:
        token = self.take()
        self._phrases += 1
        if self._phrases > self._most_phrases:
            self.fail(token, f"give at most {self._most_phrases} shapes and steps")
        word = words.get(ALIASES.get(token.text, token.text)) if token.kind == "word" else None
        if word is None:
            self._unknown(token, words)
        assert word is not None
        groups, options = self._groups(word)
        end = self._tokens[self._place - 1].end
        phrase = Phrase(word, token.start, end, tuple(groups), options)
        self._check(phrase)
        return phrase

    def _unknown(self, token: MaskToken, words: Mapping[str, MaskWord]) -> None:
        kind, other = ("shape", STEPS) if words is SHAPES else ("step", SHAPES)
        if token.kind == "word" and token.text in other:
            where = "is done to a mask; put | before it" if other is STEPS else "makes a mask; put +, - or & before it"
            self.fail(token, f"{token.text} {where}")
        near = did_you_mean(token.text, list(words)) if token.kind == "word" else ""
        self.fail(token, near or f"a {kind} belongs here: {listed(words, 20)}")

    def _groups(self, word: MaskWord) -> tuple[list[Group], dict[str, tuple[Group, ...]]]:
        """Everything up to the next sign; what follows the name of an option is that option's."""
        groups: list[Group] = []
        options: dict[str, tuple[Group, ...]] = {}
        option = ""
        while self.next.kind not in ("sign", "end"):
            token = self.next
            if token.kind == "word" and token.text in word.options:
                self.take()
                if token.text in options:
                    self.fail(token, f"{token.text} is given twice")
                options[token.text] = ()
                option = token.text if word.options[token.text] is not None else ""
            elif option:
                options[option] = (*options[option], self._group(word.options[option] or "number", word))
            else:
                groups.append(self._group(word.takes, word))
        return groups, options

    def _group(self, kind: Kind, word: MaskWord) -> Group:
        token = self.take()
        if kind in ("colour", "name"):
            if token.kind not in ("word", "text", kind):
                self.fail(token, f"a {kind} belongs here: {word.usage}")
            return (token,)
        if token.kind != "number":
            if token.text in STEPS or token.text in SHAPES:
                self.fail(token, f"put {'|' if token.text in STEPS else '+, - or &'} before {token.text}")
            near = did_you_mean(token.text, list(word.options))
            self.fail(token, near or f"it does not belong here; the form is: {word.usage}")
        found = [token]
        while self.next.kind == "sign" and self.next.text == ",":
            comma = self.take()
            if self.next.kind != "number":
                self.fail(comma, "a number belongs after this comma")
            found.append(self.take())
        return tuple(found)

    def _check(self, phrase: Phrase) -> None:
        """How many groups there are, and numbers in each."""
        word = phrase.word
        told = {"": (word.takes, phrase.groups), **{k: (word.options[k], v) for k, v in phrase.options.items()}}
        for name, (kind, groups) in told.items():
            for group in groups:
                count = _NUMBERS.get(kind or "none", 1)
                if len(group) != count:
                    place = MaskToken("", self.text[group[0].start : group[-1].end], group[0].start)
                    has = f"here {'is' if len(group) == 1 else 'are'} {len(group)}"
                    self.fail(
                        place, f"{_count(count)} belong{'s' if count == 1 else ''} together and {has}: {word.usage}"
                    )
            low, high = (word.least, word.most) if not name else (0, 0) if kind is None else _SEVERAL.get(kind, (1, 1))
            if not low <= len(groups) <= high:
                place = MaskToken("", self.text[phrase.start : phrase.end], phrase.start)
                self.fail(place, f"the form is: {word.usage}")


def _count(count: int) -> str:
    return "one number" if count == 1 else f"{count} numbers"


_NUMBERS: Mapping[str, int] = {"box": 4, "point": 2}
_SEVERAL: Mapping[str, tuple[int, int]] = {"point": (1, MOST_CHARACTERS)}
