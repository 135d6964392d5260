"""The reference's img2img alternative test: paint from the noise that a picture could have come from (SCR-6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from overpaint.parts import check_number
from overpaint.sequences.story import Decoding, PaintingSequence, SequenceStep, StepResult, one_source
from overpaint.settings import Settings


@dataclass(frozen=True, kw_only=True)
class AlternativeTest(PaintingSequence):
    """One job whose noise is found, not drawn. What is overridden is so by default, as the method was made for that."""

    override_sampler: bool = True
    override_prompt: bool = True
    original_prompt: str = ""
    original_negative_prompt: str = ""
    override_steps: bool = True
    decode_steps: int = 50
    override_strength: bool = True
    decode_cfg_scale: float = 1.0
    randomness: float = 0.0
    sigma_adjustment: bool = False

    kind: ClassVar[str] = "alternative-test"

    def __post_init__(self) -> None:
        check_number("decode_steps", self.decode_steps, low=1, high=Settings.max_steps, whole=True)
        check_number("decode_cfg_scale", self.decode_cfg_scale, low=0, high=100)
        check_number("randomness", self.randomness, low=0, high=1)
        one_source(self.request)

    def __len__(self) -> int:
        return 1

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        changes: dict[str, object] = {}
        if self.override_sampler:
            changes["sampler"] = "Euler"
        if self.override_prompt:
            changes |= {"prompt": self.original_prompt, "negative_prompt": self.original_negative_prompt}
        if self.override_steps:
            changes["steps"] = self.decode_steps
        if self.override_strength:
            changes["strength"] = 1.0
        decoding = Decoding(
            prompt=self.original_prompt,
            negative_prompt=self.original_negative_prompt,
            cfg_scale=self.decode_cfg_scale,
            steps=self.decode_steps,
            randomness=self.randomness,
            sigma_adjustment=self.sigma_adjustment,
        )
        notes = {
            "Decode prompt": self.original_prompt,
            "Decode negative prompt": self.original_negative_prompt,
            "Decode CFG scale": self.decode_cfg_scale,
            "Decode steps": self.decode_steps,
            "Randomness": self.randomness,
            "Sigma Adjustment": self.sigma_adjustment,
        }
        request = self.request.with_changes(**changes)  # type: ignore[arg-type]
        return SequenceStep(request=request, notes=notes, decoding=decoding)
