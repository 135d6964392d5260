"""The texts that guide the pictures of one run, as each call of the network sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from overpaint.settings import Quirks, Settings
from overpaint.text.prompt import ScheduleEntry, entry_at


@dataclass(frozen=True)
class TextCond:
    """One encoded text: its token vectors, and the pooled vector of families that use one."""

    context: Tensor  # (tokens, width)
    vector: Tensor | None = None  # (adm,)


@dataclass(frozen=True)
class ScheduledCond:
    """A text that changes over the steps, encoded at each of its stages."""

    schedule: tuple[ScheduleEntry, ...]
    stages: tuple[TextCond, ...]

    def at(self, call: int, quirks: Quirks) -> TextCond:
        return self.stages[entry_at(self.schedule, call, quirks)]


@dataclass(frozen=True)
class ImageCond:
    """What one picture is guided by: its sub-prompts with their weights, and its negative."""

    parts: tuple[tuple[ScheduledCond, float], ...]
    negative: ScheduledCond


@dataclass(frozen=True)
class Texts:
    """What guides each picture of a run, made of equal length where that is wanted (CFG-7, CFG-8)."""

    images: tuple[ImageCond, ...]
    settings: Settings
    empty: TextCond | None = None  # the empty text, for pad_cond_uncond

    @property
    def owners(self) -> list[int]:
        """The picture that each sub-prompt belongs to."""
        return [i for i, each in enumerate(self.images) for _ in each.parts]

    @property
    def weights(self) -> list[float]:
        """Of each sub-prompt."""
        return [weight for each in self.images for _, weight in each.parts]

    def positive(self, call: int) -> list[TextCond]:
        """Every sub-prompt of every picture."""
        quirks = self.settings.quirks
        conds = [part.at(call, quirks) for each in self.images for part, _ in each.parts]
        if quirks.pad_to_longest_text:
            longest = _longest(conds)
            conds = [_repeat_last(cond, longest) for cond in conds]
        if self.settings.pad_cond_uncond and not self.settings.pad_cond_uncond_v0:
            longest = self._negative_length(call)
            conds = [self._pad_empty(cond, longest) for cond in conds]
        return conds

    def negative(self, call: int) -> list[TextCond]:
        """One of each picture."""
        negatives = [each.negative.at(call, self.settings.quirks) for each in self.images]
        if self.settings.pad_cond_uncond_v0:
            length = self._positive_length(call)
            return [_repeat_last(each, length) for each in negatives]
        if self.settings.pad_cond_uncond:
            length = self._positive_length(call)
            return [self._pad_empty(each, length) for each in negatives]
        return negatives

    def notes(self, call: int) -> dict[str, object]:
        """Infotext fields that padding brings about."""
        if self._positive_length(call) == self._negative_length(call):
            return {}
        if self.settings.pad_cond_uncond_v0:
            return {"Pad conds v0": True}
        return {"Pad conds": True} if self.settings.pad_cond_uncond else {}

    def _positive_length(self, call: int) -> int:
        return _longest([part.at(call, self.settings.quirks) for each in self.images for part, _ in each.parts])

    def _negative_length(self, call: int) -> int:
        return _longest([each.negative.at(call, self.settings.quirks) for each in self.images])

    def _pad_empty(self, cond: TextCond, length: int) -> TextCond:
        """CFG-7: whole copies of the empty prompt's encoding."""
        missing = length - cond.context.shape[0]
        if missing <= 0 or self.empty is None:
            return cond
        empty = self.empty.context
        copies = empty.repeat(missing // empty.shape[0], 1)
        return TextCond(torch.cat([cond.context, copies]), cond.vector)


def _longest(conds: list[TextCond]) -> int:
    return max(cond.context.shape[0] for cond in conds)


def _repeat_last(cond: TextCond, length: int) -> TextCond:
    """Pad with copies of the last vector, or cut, to a length."""
    missing = length - cond.context.shape[0]
    if missing <= 0:
        return TextCond(cond.context[:length], cond.vector)
    return TextCond(torch.cat([cond.context, cond.context[-1:].expand(missing, -1)]), cond.vector)
