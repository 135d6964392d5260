"""A network in training, and the loop that trains it: stopped at any step, it goes on as if nothing had been.

All randomness of a step is drawn from (seed, step), so that neither the position in the data nor any generator's
state has to be kept: weights, their averages, the optimizer and the step number are the whole state.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.store import load_tensors, save_tensors

Losses = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Course:
    """How fast to learn, when."""

    rate: float
    warm_up: int
    decay: float = 0.01
    averaging: float = 0.999  # how much of the average survives a step, in the long run
    clip: float = 1.0

    def rate_at(self, step: int, settle_from: int | None, settle_steps: int) -> float:
        """Rising, then constant; falling to a fiftieth while settling."""
        rate = self.rate * min(1.0, (step + 1) / self.warm_up)
        if settle_from is None:
            return rate
        return rate * max(0.02, 1 - (step - settle_from) / max(1, settle_steps))


@dataclass
class Trainee:
    """Weights, averages, optimizer, step: everything that changes."""

    network: nn.Module
    course: Course
    step: int = 0
    settle_from: int | None = None
    settle_steps: int = 0
    notes: dict[str, Any] = field(default_factory=dict)  # what the stage wants kept beside the weights

    def __post_init__(self) -> None:
        self.weights = [each for each in self.network.parameters() if each.requires_grad]
        self.averages = [each.detach().clone() for each in self.weights]
        matrices = [each for each in self.weights if each.ndim > 1]
        vectors = [each for each in self.weights if each.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.course.decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, self.course.rate, betas=(0.9, 0.99))

    def learn(self, loss: Tensor) -> None:
        """One step down the gradient."""
        rate = self.course.rate_at(self.step, self.settle_from, self.settle_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, self.course.clip)
        self.optimizer.step()
        self.step += 1
        kept = min(self.course.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, [each.detach() for each in self.weights], 1 - kept)

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights by name: what is exported."""
        names = (name for name, each in self.network.named_parameters() if each.requires_grad)
        return dict(zip(names, self.averages, strict=True))

    def save(self, path: Path) -> None:
        save_tensors(
            path,
            {
                "network": self.network.state_dict(),
                "averages": self.averages,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "settle": (self.settle_from, self.settle_steps),
                "notes": self.notes,
            },
        )

    def load(self, path: Path) -> None:
        values = load_tensors(path, next(self.network.parameters()).device)
        self.network.load_state_dict(values["network"])
        for mine, theirs in zip(self.averages, values["averages"], strict=True):
            mine.copy_(theirs)
        self.optimizer.load_state_dict(values["optimizer"])
        self.step, self.notes = values["step"], values["notes"]
        self.settle_from, self.settle_steps = values["settle"]

    def settle(self, steps: int) -> None:
        """Let the rate fall over so many steps from here."""
        self.settle_from, self.settle_steps = self.step, steps

    def wake(self) -> None:
        """Learn at the full rate again if an earlier run has settled."""
        if self.settle_from is not None and self.step >= self.settle_from + self.settle_steps:
            self.settle_from, self.settle_steps = None, 0


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


def step_rng(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng((seed, step))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to run. The last `settling` of the minutes are for settling."""

    minutes: float
    settling: float = 0.0
    save_minutes: float = 3.0
    report_steps: int = 25
    steps: int | None = None


def train(trainee: Trainee, path: Path, budget: Budget, loss_of: Callable[[int], tuple[Tensor, Losses]]) -> None:
    """Learn from `loss_of(step)` until the time, the steps or a signal ends it; saved on the way and last."""
    stopped: list[int] = []
    trainee.wake()
    earlier = {number: signal.signal(number, lambda n, _: stopped.append(n)) for number in _STOPS}
    start = saved = time.monotonic()
    first, seen = trainee.step, list[Losses]()
    try:
        while not stopped and not _over(trainee, budget, first, start):
            loss, losses = loss_of(trainee.step)
            trainee.learn(loss)
            seen.append(losses)
            if trainee.step % budget.report_steps == 0:
                _report(path, trainee, seen, (time.monotonic() - start) / (trainee.step - first))
                seen.clear()
            if time.monotonic() - saved > 60 * budget.save_minutes:
                trainee.save(path)
                saved = time.monotonic()
            _settle_in_time(trainee, budget, first, time.monotonic() - start)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    trainee.save(path)


_STOPS = (signal.SIGTERM, signal.SIGINT)


def _over(trainee: Trainee, budget: Budget, first: int, start: float) -> bool:
    late = time.monotonic() - start > 60 * budget.minutes
    return late or (budget.steps is not None and trainee.step - first >= budget.steps)


def _settle_in_time(trainee: Trainee, budget: Budget, first: int, seconds: float) -> None:
    whole = 60 * budget.minutes
    if budget.settling and trainee.settle_from is None and seconds > whole * (1 - budget.settling):
        trainee.settle(int((whole - seconds) * (trainee.step - first) / seconds))


def _report(path: Path, trainee: Trainee, seen: Iterable[Losses], seconds: float) -> None:
    """One line on the screen and in the log beside the state."""
    rows = list(seen)
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    figures = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
    line = f"{path.stem} step {trainee.step}  {figures}  {seconds:.2f} s/step"
    print(line, flush=True)
    with path.with_suffix(".log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")
