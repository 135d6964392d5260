"""Who answers the runs of one pass: the job's model, what hangs on it, its ControlNets, and in the end a refiner."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from overpaint.adapters.control import ControlBranch, ControlPicture, controlled
from overpaint.backends.port import Network
from overpaint.events import Control, Stop
from overpaint.painting.drive import Run, tick
from overpaint.painting.model_cache import ModelCache, ReadyModel
from overpaint.painting.refining import hand_over, is_due, refined
from overpaint.painting.tiled import Part, TiledNetwork, pixels_of
from overpaint.painting.windowed import WindowedNetwork
from overpaint.planning.plans import ImagePlan, Plan


@dataclass(eq=False)
class Call:
    """Runs of one job that want the same network's word next. Before it, the network is made ready."""

    runs: Sequence[Run]
    network: Callable[[], Network]
    key: Hashable  # calls of other jobs may be made together where theirs is equal; None: this one is made alone
    share: bool  # the runs among themselves
    batched: bool
    answered: bool = False

    def answer(self) -> None:
        """Ask the network for these runs alone."""
        self.answered = True
        tick(self.runs, self.network(), share=self.share, batched=self.batched)


@dataclass(eq=False)
class Pending:
    """What a job waits for. A caller that drives several jobs may answer it; else the job calls the network itself."""

    calls: tuple[Call, ...]
    control: Control
    error: Exception | None = None  # raised by the call that answered; it ends this job and no other

    @property
    def is_stopped(self) -> bool:
        """Whether the answer is no longer needed."""
        return self.control.message in (Stop.CANCEL, Stop.FINISH_EARLY, Stop.SKIP)

    @property
    def is_answered(self) -> bool:
        return self.error is not None or all(each.answered for each in self.calls)

    def settle(self) -> None:
        """Have every call answered, or raise what came in the way."""
        if self.error is not None:
            raise self.error
        for each in self.calls:
            if not each.answered:
                each.answer()


class PassNetworks:
    """The networks of a pass. Before every call they are made ready, for other jobs may have used them since."""

    def __init__(self, model_cache: ModelCache, plan: Plan, batch: Sequence[ImagePlan], control: Control) -> None:
        self._model_cache, self._plan, self._batch, self._control = model_cache, plan, batch, control
        self._refined = refined(plan, plan.refiner) if plan.refiner is not None else None
        self._with_refiner: set[int] = set()  # numbers of runs
        pictures = model_cache.control_pictures(plan) if plan.controls else ()
        self._in_parts: tuple[ControlPicture, ...] = pictures if plan.tiles is not None else ()
        self._branches: tuple[ControlBranch, ...] = () if self._in_parts else tuple(each.whole() for each in pictures)
        self._keys: dict[bool, Hashable] = {}  # of the job's model, and of the refiner

    def pending(self, runs: Sequence[Run]) -> Pending:
        """The current question of every run, by the network that is to answer."""
        self._hand_over(runs)
        own = [run for i, run in enumerate(runs) if i not in self._with_refiner]
        others = [run for i, run in enumerate(runs) if i in self._with_refiner]
        calls = [
            self._call(plan, group)
            for plan, group in ((self._plan, own), (self._refined, others))
            if plan is not None and any(not run.finished for run in group)
        ]
        return Pending(tuple(calls), self._control)

    def notes(self) -> dict[str, object]:
        """Infotext fields of the texts."""
        return self._model_cache.ready(self._plan, self._batch).notes(self._batch)

    def last_plan(self, runs: Sequence[Run]) -> Plan:
        """The pass as the model saw it that had the last word: its autoencoder decodes."""
        return self._refined if self._refined is not None and self._with_refiner else self._plan

    def _call(self, plan: Plan, runs: Sequence[Run]) -> Call:
        refining = plan is self._refined
        step, steps = min(run.step for run in runs if not run.finished), plan.sampler.evaluations
        # ControlNets are made for the job's model; a refiner has other widths.
        branches = () if refining else self._branches

        def ready() -> ReadyModel:
            return self._model_cache.ready(plan, self._batch, forgiving=refining)

        def network() -> Network:
            backend = ready().backend
            if plan.tiles is None:
                whole = controlled(backend, branches, step, steps)
                return whole if plan.window is None else WindowedNetwork(whole, plan.window)
            active = [] if refining else [each for each in self._in_parts if each.is_on(step, steps)]
            factor = plan.spec.latent.factor

            def of_part(part: Part) -> Network:
                box = pixels_of(part, factor)
                return controlled(backend, [each.part(box) for each in active], step, steps)

            return TiledNetwork(of_part, plan.tiles)

        share, batched = not plan.request.exact, plan.settings.batch_cond_uncond
        # Parts, windows and ControlNets follow one job's picture.
        own = plan.tiles is not None or plan.window is not None or any(each.is_on(step, steps) for each in branches)
        together = share and batched and not own
        if together and refining not in self._keys:
            self._keys[refining] = (ready().key, runs[0].start.shape[1:])
        key = self._keys[refining] if together else None
        return Call(runs, network, key, share, batched)

    def _hand_over(self, runs: Sequence[Run]) -> None:
        refiner, plan = self._plan.refiner, self._refined
        if refiner is None or plan is None:
            return
        for i, run in enumerate(runs):
            if i in self._with_refiner or not is_due(run, refiner):
                continue
            conditioner = self._model_cache.ready(plan, self._batch, forgiving=True).conditioner
            texts = conditioner.images(self._batch)
            own = texts if len(runs) == 1 else texts[i : i + 1]
            empty = conditioner.empty() if plan.settings.pad_cond_uncond else None
            hand_over(run, plan, refiner, own, empty)
            self._with_refiner.add(i)
