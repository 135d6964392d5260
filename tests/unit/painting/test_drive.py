"""INT, JOB-7: one loop over many runs, one network call a tick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.backends.port import Network
from overpaint.models.families import SD1_SPEC
from overpaint.networks.unet import LessWork
from overpaint.painting.denoise import Denoiser, Estimate
from overpaint.painting.drive import Run, tick
from overpaint.painting.guidance import Guidance
from overpaint.painting.texts import ImageCond, ScheduledCond, TextCond, Texts
from overpaint.samplers import Query, Sampler, make
from overpaint.text.prompt import schedule
from tests.unit.toy_job import SANE, planned

SHAPE = (4, 2, 3)


class ToyNetwork:
    """eps that depends on everything a row is, and on no other row; it writes down the size of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        negative: Sequence[bool] | None = None,
        less: LessWork | None = None,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        self.calls.append(len(x))
        shift = context.mean(dim=(1, 2)) + timesteps / 1000
        return torch.tanh(x[:, :4] + shift[:, None, None, None])


def drive(runs: Sequence[Run], network: Network, *, share: bool = True) -> Iterator[None]:
    """Tick until every run is finished."""
    while any(not run.finished for run in runs):
        tick(runs, network, share=share)
        yield


def scheduled(value: float, tokens: int = 77) -> ScheduledCond:
    return ScheduledCond(schedule("x", 4, quirks=SANE.quirks), (TextCond(torch.full((tokens, 5), value)),))


def started(
    sampler: str = "Euler", steps: int = 4, value: float = 0.3, tokens: int = 77, batch: int = 1, **fields: Any
) -> Run:
    made = planned(sampler=sampler, steps=steps, strength=1, **fields)
    decided, settings = made.sampler, made.settings
    init = torch.full((batch, *SHAPE), value)
    texts = (ImageCond(((scheduled(value, tokens), 1.0),), scheduled(-0.1)),) * batch
    noise = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(int(value * 100)))
    x = init + noise * (decided.start if decided.spec.family == "k" else 1.0)
    source = make(
        decided.spec, x, decided.used, alphas_cumprod=decided.table.alphas_cumprod, noise=lambda: noise, eta=decided.eta
    )
    guidance = Guidance.of(decided, SD1_SPEC, settings)
    return Run(source, Denoiser(decided, guidance, Texts(texts, settings), shortcuts=made.shortcuts), init)


def finished(*runs: Run, share: bool = True) -> tuple[list[Tensor], ToyNetwork]:
    network = ToyNetwork()
    for _ in drive(runs, network, share=share):
        pass
    latents = [run.latent for run in runs if run.latent is not None]
    assert len(latents) == len(runs)
    return latents, network


def test_runs_share_calls_and_nothing_else() -> None:
    kinds = (("Euler", 4, 0.3), ("Heun", 3, 0.5), ("DDIM", 5, 0.1), ("DPM++ 2M", 2, 0.9), ("DPM adaptive", 4, 0.2))
    alone = [finished(started(*kind))[0][0] for kind in kinds]
    together, shared = finished(*(started(*kind) for kind in kinds))
    apart, separate = finished(*(started(*kind) for kind in kinds), share=False)
    for own, in_company, not_shared in zip(alone, together, apart, strict=True):
        assert torch.equal(own, in_company)
        assert torch.equal(own, not_shared)
    assert len(shared.calls) < len(separate.calls)
    assert sum(shared.calls) == sum(separate.calls)


def test_rows_of_different_length_are_called_apart() -> None:  # CFG-7
    _, network = finished(started(steps=1, tokens=154))
    assert network.calls == [1, 1]
    _, network = finished(started(steps=1))
    assert network.calls == [2]


def test_a_batch_is_one_call() -> None:  # JOB-7
    _, network = finished(started(steps=3, batch=3))
    assert network.calls == [6, 6, 6]


def test_stopping_before_the_first_call() -> None:  # INT-2
    run = started()
    assert torch.equal(run.stop(), run.start)
    assert run.finished
    assert not list(drive([run], ToyNetwork()))


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DDIM CFG++"])
def test_stopping_gives_the_last_conditional_prediction(sampler: str) -> None:  # INT-2
    run, network = started(sampler), ToyNetwork()
    tick([run], network)
    assert run.query is not None
    query = run.query
    rows = run.denoiser.rows(query, run.calls)
    eps = network(torch.stack([rows[0].x]), torch.tensor([rows[0].timestep]), torch.stack([rows[0].cond.context]), None)
    tick([run], network)
    expected = run.denoiser.clean(query, eps if sampler != "Euler" else query.x - query.sigma * eps)
    assert torch.allclose(run.stop(), expected, atol=1e-5)


def test_stopping_keeps_a_run_that_is_finished() -> None:
    run = started(steps=2)
    (latent,), _ = finished(run)
    assert torch.equal(run.stop(), latent)


def test_closing_runs_the_samplers_own_clean_up() -> None:
    ended: list[bool] = []

    def sampler() -> Sampler:
        try:
            yield Query(torch.zeros(1, *SHAPE), 1.0)
        finally:
            ended.append(True)
        return torch.zeros(1, *SHAPE)

    template = started()
    run = Run(sampler(), template.denoiser, template.start)
    run.close()
    assert ended == [True]
    assert run.finished
    assert run.latent is None


def test_a_sampler_with_nothing_to_ask_is_finished_at_once() -> None:
    def sampler() -> Sampler:
        yield from ()
        return torch.ones(1, *SHAPE)

    template = started()
    run = Run(sampler(), template.denoiser, template.start)
    assert run.finished
    assert run.latent is not None
    assert run.step == template.denoiser.sampler.evaluations


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM2", "DPM++ 2S a", "DDIM", "PLMS", "UniPC", "DPM fast", "LCM"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_count_up_to_the_end(sampler: str, steps: int) -> None:  # STEP-8
    run = started(sampler, steps)
    seen = [run.step, *(run.step for _ in drive([run], ToyNetwork()))]
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == run.denoiser.sampler.evaluations


@pytest.mark.parametrize("sampler", ["Restart", "DPM adaptive"])
def test_steps_of_samplers_that_go_back_count_up_too(sampler: str) -> None:  # UPD-15, UPD-16
    run = started(sampler, 36)
    seen = [run.step for _ in drive([run], ToyNetwork())]
    assert seen == sorted(seen)
    assert seen[-1] == run.denoiser.sampler.evaluations


def test_preview_follows_the_calls() -> None:
    run = started()
    assert run.preview() is run.start
    tick([run], ToyNetwork())
    assert isinstance(run.estimate, Estimate)
    assert torch.equal(run.preview(), run.estimate.guided)


def test_notes_of_calls_are_kept_once() -> None:  # CFG-5
    run = started(steps=4, s_min_uncond=100.0)
    tick([run], ToyNetwork())
    assert run.notes == {}
    tick([run], ToyNetwork())
    assert run.notes == {"NGMS": 100.0}
