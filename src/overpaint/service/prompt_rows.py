"""What prompts cost: rows of the network in a step, and chunks of text to be encoded. Counted without torch.

A part between ANDs is a row of its own in every step, and reads as many chunks of 75 tokens as the longest; prompt
editing has a text encoded once for each of its versions. A job is stopped between steps, so one step may not be longer
than anyone would wait. Embeddings count as the tokens of their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from overpaint.errors import RequestError
from overpaint.models.usual import USUAL
from overpaint.planning.plan import effective_settings
from overpaint.planning.prompt_weights import check_weights
from overpaint.request import PaintRequest
from overpaint.sampler_table import normalise
from overpaint.service.limits import Limits
from overpaint.settings import Settings
from overpaint.text.prompt import parse_attention, schedule, split_and, strip_comments, take_network_tags
from overpaint.text.styles import Style, find_styles, load_styles, merge_style
from overpaint.text.tokens import CAPACITY, chunk, clip_tokenizer

_LEAST_FILLED = CAPACITY // 2  # tokens of two neighbouring chunks on average, wherever commas cut them


@dataclass(frozen=True)
class _Cost:
    rows: int = 0
    encoded: int = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.rows + other.rows, self.encoded + other.encoded)


def check_prompt_rows(request: PaintRequest, limits: Limits, settings: Settings) -> None:
    """Every prompt of every pass, with its styles, against this server's bounds."""
    settings = effective_settings(request, settings)
    known = load_styles(settings.styles_file) if request.styles and settings.styles_file else ()
    styles = find_styles(request.styles, known)
    for prefix, prompts, negatives, steps in _passes(request, settings):
        counter = _Counter(limits, settings, steps)
        against = [
            counter.of_negative(f"{prefix}negative_prompt", _styled(prefix, each, styles, limits, negative=True))
            for each in negatives
        ]
        for each in prompts:
            cost = counter.of_prompt(f"{prefix}prompt", _styled(prefix, each, styles, limits))
            counter.check(f"{prefix}prompt", cost + _most(against))
            check_weights(f"{prefix}prompt", counter.bare(_styled(prefix, each, styles, limits)), settings, steps)


def _passes(request: PaintRequest, settings: Settings) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], int]]:
    """Each pass's prompts and negative prompts, every text once, and its steps as prompt editing counts them."""
    hires, asked = request.hires, request.steps or USUAL["steps"]
    yield "", *_texts(request.prompt, request.negative_prompt), _counted(asked, request.sampler, settings)
    if hires is not None:
        texts = _texts(hires.prompt or request.prompt, hires.negative_prompt or request.negative_prompt)
        yield "hires.", *texts, _counted(hires.steps or asked, hires.sampler or request.sampler, settings)


def _texts(prompt: str | tuple[str, ...], negative: str | tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    one, other = ((each,) if isinstance(each, str) else tuple(dict.fromkeys(each)) for each in (prompt, negative))
    return one, other


def _counted(steps: int, sampler: str, settings: Settings) -> int:
    """TAB-3: a second-order sampler's steps count twice."""
    return steps * (2 if normalise(sampler, None, quirks=settings.quirks)[0].second_order else 1)


def _styled(prefix: str, text: str, styles: tuple[Style, ...], limits: Limits, *, negative: bool = False) -> str:
    """NOTE: a style may hold the prompt twice, so that a few of them would make more text than there is memory."""
    for style in styles:
        text = merge_style((style.negative_prompt if negative else style.prompt) or "", text)
        if len(text) > limits.prompt_chars:
            remedy = f"its prompt has more than {limits.prompt_chars} characters with these; give fewer"
            raise RequestError(f"{prefix}styles", style.name, remedy)
    return text


def _most(costs: list[_Cost]) -> _Cost:
    return _Cost(max((each.rows for each in costs), default=0), max((each.encoded for each in costs), default=0))


@dataclass(frozen=True)
class _Counter:
    limits: Limits
    settings: Settings
    steps: int

    def of_prompt(self, name: str, text: str) -> _Cost:
        parts = [each.text for each in split_and(take_network_tags(self.bare(text))[0], self.settings.quirks)]
        self.check(name, _Cost(rows=len(parts)))  # before each of them is looked at
        chunks = [self._chunks(each) for each in parts]
        encoded = sum(count * self._versions(part) for part, count in zip(parts, chunks, strict=True))
        return _Cost(len(parts) * max(chunks), encoded)

    def of_negative(self, name: str, text: str) -> _Cost:
        chunks = self._chunks(text := self.bare(text))
        cost = _Cost(chunks, chunks * self._versions(text))
        self.check(name, cost)
        check_weights(name, text, self.settings, self.steps, negative=True)
        return cost

    def check(self, name: str, cost: _Cost) -> None:
        if cost.rows > (most := self.limits.prompt_rows):
            said = f"parts between ANDs, times chunks of {CAPACITY} tokens, and the negative prompt's"
            raise RequestError(name, f"{cost.rows} rows a step", f"give at most {most}: {said}")
        if cost.encoded > (most := self.limits.prompt_chunks):
            said = f"chunks of {CAPACITY} tokens, of all versions that prompt editing makes"
            raise RequestError(name, f"{cost.encoded} chunks", f"give at most {most}: {said}")

    def bare(self, text: str) -> str:
        return strip_comments(text) if self.settings.enable_prompt_comments else text

    def _chunks(self, text: str) -> int:
        """Of the longest version of a text at most; counted by tokens where characters leave a doubt."""
        if len(text.encode()) <= _LEAST_FILLED and "BREAK" not in text:
            return 1
        quirks, backtrack = self.settings.quirks, self.settings.comma_padding_backtrack
        return len(chunk(parse_attention(text, quirks), clip_tokenizer(), backtrack=backtrack, quirks=quirks)[0])

    def _versions(self, text: str) -> int:
        if "[" not in text:
            return 1
        old, quirks = self.settings.use_old_scheduling, self.settings.quirks
        return len(schedule(text, self.steps, old_timelines=old, quirks=quirks))
