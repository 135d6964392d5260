"""One tick of many runs: their questions, one network call for each shape among them, and the answers.

A run is a started sampler with its current question. Nobody looks inside a sampler, and cancelling is not asking again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from overpaint.backends.port import Network
from overpaint.networks.unet import DeepMap, LessWork
from overpaint.painting.deep_maps import DeepMaps
from overpaint.painting.denoise import Denoiser, Estimate, Row
from overpaint.samplers import Query, Sampler


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
    deep_maps: DeepMaps = field(default_factory=DeepMaps)
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

    def rows(self) -> list[Row]:
        """The rows of the current question."""
        assert self.query is not None
        rows = self.denoiser.rows(self.query, self.calls)
        return self.deep_maps.given_to(rows, self.calls, self.denoiser.shortcuts.deep_interval)

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
    return [(run, run.rows()) for run in runs if run.query is not None]


def answer(asked: Sequence[RunRows], outputs: Sequence[Tensor]) -> None:
    """Send each run what the network said of its rows; the outputs are in the order of all rows."""
    position = 0
    for run, rows in asked:
        assert run.query is not None
        part = outputs[position : position + len(rows)]
        position += len(rows)
        run.answer(run.denoiser.estimate(run.query, run.calls, part))


def call(network: Network, rows: Sequence[Row], *, batched: bool = True) -> list[Tensor]:
    """One network call for each shape among the rows, and for what they leave out; outputs in the rows' order."""
    groups: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((*_alike(row), 0 if batched else i), []).append(i)
    outputs: dict[int, Tensor] = {}
    for members in groups.values():
        chosen = [rows[i] for i in members]
        less = _less(chosen)
        vectors = [row.cond.vector for row in chosen if row.cond.vector is not None]
        predicted = network(
            torch.stack([row.x for row in chosen]),
            torch.tensor([row.timestep for row in chosen], dtype=torch.float32, device=chosen[0].x.device),
            torch.stack([row.cond.context for row in chosen]),
            torch.stack(vectors) if vectors else None,
            negative=[row.is_negative for row in chosen],  # ControlNets may guide one side alone
            less=less,
            references=[torch.stack(each) for each in zip(*(row.references for row in chosen), strict=True)],
        )
        outputs.update(zip(members, predicted, strict=True))
        _keep(chosen, less)
    return [outputs[i] for i in range(len(rows))]


def _alike(row: Row) -> tuple[Hashable, ...]:
    """Rows may share a call where this is equal, whichever jobs they are of."""
    known = None if row.deep is None else row.deep.value is not None
    seen = tuple(each.shape for each in row.references)
    return row.x.shape, row.cond.context.shape, row.merging, known, seen


def _less(rows: Sequence[Row]) -> LessWork | None:
    """What a call of such rows leaves out."""
    first = rows[0]
    if first.merging is None and first.deep is None:
        return None
    known = [row.deep.value for row in rows if row.deep is not None and row.deep.value is not None]
    return LessWork(first.merging, None if first.deep is None else DeepMap(torch.stack(known) if known else None))


def _keep(rows: Sequence[Row], less: LessWork | None) -> None:
    """Each row's part of what the deep layers said. A backend that cannot say it was called in full."""
    if less is None or less.deep is None or less.deep.value is None:
        return
    for row, found in zip(rows, less.deep.value, strict=True):
        if row.deep is not None and row.deep.value is None:
            row.deep.value = found
