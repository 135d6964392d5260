"""Who answers the runs of one pass: the job's model, what hangs on it, its ControlNets, and in the end a refiner."""

from __future__ import annotations

from collections.abc import Sequence

from overpaint.adapters.control import ControlBranch, controlled
from overpaint.painting.drive import Network, Run, tick
from overpaint.painting.refining import hand_over, is_due, refined
from overpaint.painting.workshop import Workshop
from overpaint.planning.plans import ImagePlan, Plan


class Crew:
    """The networks of a pass. Before every call they are made ready, for other jobs may have used them since."""

    def __init__(self, workshop: Workshop, plan: Plan, batch: Sequence[ImagePlan]) -> None:
        self._workshop, self._plan, self._batch = workshop, plan, batch
        self._refined = refined(plan, plan.refiner) if plan.refiner is not None else None
        self._with_refiner: set[int] = set()  # numbers of runs
        self._branches: tuple[ControlBranch, ...] = workshop.branches(plan) if plan.controls else ()

    def tick(self, runs: Sequence[Run]) -> None:
        """Answer the current question of every run."""
        self._hand_over(runs)
        settings, share = self._plan.settings, not self._plan.request.exact
        own = [run for i, run in enumerate(runs) if i not in self._with_refiner]
        others = [run for i, run in enumerate(runs) if i in self._with_refiner]
        for plan, group in ((self._plan, own), (self._refined, others)):
            if plan is not None and any(not run.finished for run in group):
                step = min(run.step for run in group if not run.finished)
                tick(group, self._network(plan, step), share=share, batched=settings.batch_cond_uncond)

    def notes(self) -> dict[str, object]:
        """Infotext fields of the texts."""
        return self._workshop.ready(self._plan, self._batch).notes(self._batch)

    def last_plan(self, runs: Sequence[Run]) -> Plan:
        """The pass as the model saw it that had the last word: its autoencoder decodes."""
        return self._refined if self._refined is not None and self._with_refiner else self._plan

    def _network(self, plan: Plan, step: int) -> Network:
        refining = plan is self._refined
        ready = self._workshop.ready(plan, self._batch, forgiving=refining)
        # ControlNets are made for the job's model; a refiner has other widths.
        return controlled(ready.backend, () if refining else self._branches, step, plan.sampler.evaluations)

    def _hand_over(self, runs: Sequence[Run]) -> None:
        refiner, plan = self._plan.refiner, self._refined
        if refiner is None or plan is None:
            return
        for i, run in enumerate(runs):
            if i in self._with_refiner or not is_due(run, refiner):
                continue
            conditioner = self._workshop.ready(plan, self._batch, forgiving=True).conditioner
            texts = conditioner.images(self._batch)
            own = texts if len(runs) == 1 else texts[i : i + 1]
            empty = conditioner.empty() if plan.settings.pad_cond_uncond else None
            hand_over(run, plan, refiner, own, empty)
            self._with_refiner.add(i)
