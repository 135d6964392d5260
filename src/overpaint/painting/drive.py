"""One tick of many runs: their questions, one network call for each shape among them, and the answers.

A run is a started sampler with its current question. Nobody looks inside a sampler, and cancelling is not asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from overpaint.painting.denoise import Denoiser, Estimate, Row
from overpaint.samplers import Query, Sampler

# network(x, timesteps, context, vector) -> eps or v
Network = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


@dataclass(eq=False)
class Run:
    """Where one sampler stands: its question, the calls it has made, and in the end its latent."""

    sampler: Sampler
    denoiser: Denoiser
    start: Tensor  # returned as it is when stopped before the first call (INT-2)
    calls: int = 0
    query: Query | None = None
    estimate: Estimate | None = None  # of the last call, as clean pictures
    latent: Tensor | None = None
    notes: dict[str, object] = field(default_factory=dict)
    step: int = 0  # of the schedule, read from the sigma and not from the calls; samplers that go back do not lower it

    def __post_init__(self) -> None:
        self._advance(None)

    @property
    def finished(self) -> bool:
        return self.query is None

    def _reached(self) -> int:
        """How many steps of the schedule lie behind the current question."""
        sampler = self.denoiser.sampler
        if self.query is None:
            return sampler.evaluations
        return sampler.parameterization.passed(sampler.used, self.query.sigma)

    def preview(self) -> Tensor:
        """The picture as the last call saw it."""
        return self.start if self.estimate is None else self.estimate.guided

    def answer(self, estimate: Estimate) -> None:
        """Send the network's word to the sampler, and take its next question."""
        assert self.query is not None
        self.notes.update({k: v for k, v in self.denoiser.notes(self.query, self.calls).items() if k not in self.notes})
        reply = torch.stack([estimate.guided, estimate.uncond]) if self.query.parts else estimate.guided
        sides = (estimate.guided, estimate.uncond, estimate.conditional)
        self.estimate = Estimate(*(self.denoiser.clean(self.query, each) for each in sides))
        self.calls += 1
        self._advance(reply)

    def stop(self) -> Tensor:
        """End early with what there is: the last conditional prediction (INT-2)."""
        self.close()
        if self.latent is None:
            self.latent = self.start if self.estimate is None else self.estimate.conditional
        return self.latent

    def close(self) -> None:
        """Drop the run; nothing is kept."""
        self.sampler.close()
        self.query = None

    def _advance(self, reply: Tensor | None) -> None:
        try:
            self.query = next(self.sampler) if reply is None else self.sampler.send(reply)
        except StopIteration as end:
            self.query = None
            self.latent = end.value
        self.step = max(self.step, self._reached())


def tick(runs: Sequence[Run], network: Network, *, share: bool = True, batched: bool = True) -> None:
    """Answer the current question of every run.

    With `share`, runs share calls; `batched` puts rows of equal shape into one call, otherwise each row has its own.
    """
    asked = questions(runs)
    for batch in [asked] if share else [[each] for each in asked]:
        answer(batch, call(network, [row for _, rows in batch for row in rows], batched=batched))


RunRows = tuple[Run, list[Row]]


def questions(runs: Sequence[Run]) -> list[RunRows]:
    """The runs that still ask something, each with the rows of its question."""
    return [(run, run.denoiser.rows(run.query, run.calls)) for run in runs if run.query is not None]


def answer(asked: Sequence[RunRows], outputs: Sequence[Tensor]) -> None:
    """Send each run what the network said of its rows; the outputs are in the order of all rows."""
    position = 0
    for run, rows in asked:
        assert run.query is not None
        part = outputs[position : position + len(rows)]
        position += len(rows)
        run.answer(run.denoiser.estimate(run.query, run.calls, part))


def call(network: Network, rows: Sequence[Row], *, batched: bool = True) -> list[Tensor]:
    """One network call for each shape among the rows; outputs in the rows' order."""
    groups: dict[tuple[torch.Size, torch.Size, int], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.x.shape, row.cond.context.shape, 0 if batched else i), []).append(i)
    outputs: dict[int, Tensor] = {}
    for members in groups.values():
        chosen = [rows[i] for i in members]
        vectors = [row.cond.vector for row in chosen if row.cond.vector is not None]
        given = (
            torch.stack([row.x for row in chosen]),
            torch.tensor([row.timestep for row in chosen], dtype=torch.float32, device=chosen[0].x.device),
            torch.stack([row.cond.context for row in chosen]),
            torch.stack(vectors) if vectors else None,
        )
        sided: Any = network
        if getattr(network, "takes_sides", False):  # ControlNets may guide one side alone
            result = sided(*given, [row.is_negative for row in chosen])
        else:
            result = network(*given)
        outputs.update(zip(members, result, strict=True))
    return [outputs[i] for i in range(len(rows))]
