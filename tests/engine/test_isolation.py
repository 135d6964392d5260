"""A picture depends on its request alone: not on order, neighbours, or what ran before."""

from __future__ import annotations

from itertools import permutations, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modules.shared as shared
from modules.processing import process_images
from overpaint.engine import Engine
from overpaint.events import Control, Finished, Progress, Stop
from overpaint.request import MaskedContent, SoftInpainting
from overpaint.settings import Settings
from tests.engine.conftest import asked, box, job, painted, pixels, scene

JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tiling": {"tiling": True},
    "soft": {"mask": box(), "soft_inpainting": SoftInpainting(), "round_mask": False},
    "schedule": {"overrides": {"sd_noise_schedule": "Zero Terminal SNR", "CLIP_stop_at_last_layers": 2}},
    "noise fill": {"mask": box(), "masked_content": MaskedContent.NOISE, "seed": 9},
    "sde": {"sampler": "DPM++ SDE", "overrides": {"randn_source": "NV"}, "seed": 3},
    "correction": {"color_correction": True, "overrides": {"emphasis": "None"}},
}


def test_a_job_twice(engine: Engine) -> None:
    for fields in JOBS.values():
        request = asked(**fields)
        first, second = (engine.paint(request) for _ in range(2))
        assert [pixels(each) for each in first.images] == [pixels(each) for each in second.images]
        assert first.infotexts == second.infotexts


def test_any_order(engine: Engine) -> None:
    requests = {name: asked(steps=2, **fields) for name, fields in JOBS.items()}
    alone = {name: engine.paint(request) for name, request in requests.items()}
    names = list(requests)
    orders = [names[::-1], names[3:] + names[:3], *list(permutations(names[:4], 4))[5:20:5]]
    for order in orders:
        for name in order:
            found = engine.paint(requests[name])
            assert pixels(found.images[0]) == pixels(alone[name].images[0]), (name, order)
            assert found.infotexts == alone[name].infotexts


@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_a_fresh_engine_paints_what_a_used_one_does(engine: Engine, checkpoint: Path, manner: Settings) -> None:
    for fields in JOBS.values():
        engine.paint(asked(steps=1, **fields))
    used = painted(engine, manner, batch_size=2)
    with Engine(checkpoint, device="cpu", dtype="float32") as fresh:
        assert painted(fresh, manner, batch_size=2) == used


def test_overrides_end_with_their_job(engine: Engine) -> None:  # JOB-1
    before = shared.opts.snapshot()
    first = process_images(job(engine))
    changes = {"CLIP_stop_at_last_layers": 3, "tiling": True, "eta_noise_seed_delta": 7, "img2img_extra_noise": 0.5}
    changed = process_images(job(engine, override_settings=changes))
    assert shared.opts.snapshot() == before
    last = process_images(job(engine))
    assert pixels(first.images[0]) == pixels(last.images[0])
    assert pixels(first.images[0]) != pixels(changed.images[0])
    assert first.info == last.info


def test_a_dry_run_changes_nothing(engine: Engine) -> None:  # SIG-11: only a job leaves its tables in the model
    manner = Settings.reference()
    engine.paint(asked(), manner)
    late = asked(overrides={"sd_noise_schedule": "Zero Terminal SNR"})
    engine.plan(late, manner)
    assert engine.plan(late, manner).sampler.start == pytest.approx(engine.plan(asked(), manner).sampler.start)


def test_a_checkpoint_of_one_job_is_not_the_next_ones(checkpoint: Path, other_checkpoint: Path) -> None:  # JOB-1.3
    with Engine(checkpoint, device="cpu", dtype="float32") as engine:
        first = engine.paint(asked(steps=1))
        for fields in (
            {"checkpoint": str(other_checkpoint)},
            {"overrides": {"sd_model_checkpoint": str(other_checkpoint)}},
        ):
            other = engine.paint(asked(steps=1, **fields))
            assert "Model: other" in other.info
            last = engine.paint(asked(steps=1))
            assert "Model: tiny" in last.info
            assert pixels(first.images[0]) == pixels(last.images[0])


def test_an_interrupted_job_leaves_nothing(engine: Engine) -> None:
    before = painted(engine)
    control = Control()
    for event in engine.run(asked(steps=8, tiling=True, batch_size=2), None, control):
        if isinstance(event, Progress):
            control.ask(Stop.CANCEL)
    abandoned = engine.run(asked(steps=8, tiling=True, mask=box()))
    next(abandoned), next(abandoned)
    abandoned.close()
    assert painted(engine) == before
    assert torch.is_grad_enabled()


def test_two_jobs_in_turns(engine: Engine) -> None:
    """Jobs of one engine may take turns between ticks."""
    kinds: list[dict[str, Any]] = [{"tiling": True}, {"sampler": "Euler a", "mask": box()}]
    alone = [painted(engine, **fields)[0] for fields in kinds]
    running = [engine.run(asked(**fields)) for fields in kinds]
    last = [[event for event in turn if event is not None][-1] for turn in zip(*zip_longest(*running), strict=True)]
    assert all(isinstance(each, Finished) for each in last)
    assert [pixels(each.result.images[0]) for each in last if isinstance(each, Finished)] == alone


# -- batches -----------------------------------------------------------------------------------------------------------

SAMPLERS = ["Euler", "Euler a", "DPM++ 2M SDE", "DDIM", "UniPC", "DPM adaptive", "LCM"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "fields", [{}, {"mask": box(16, 16, (4, 4, 12, 16)), "masked_content": MaskedContent.NOISE}], ids=["plain", "mask"]
)
def test_a_picture_does_not_depend_on_its_batch(engine: Engine, sampler: str, fields: dict[str, Any]) -> None:  # JOB-7
    short = (
        {"strength": 0.1, "steps": 10, "eta": 0.0, "scheduler": "Karras"} if sampler == "DPM adaptive" else {"steps": 4}
    )
    common: dict[str, Any] = {"sampler": sampler, **short, **fields}
    common["images"] = (scene(16, 16),)
    alone = [
        np.asarray(engine.paint(asked(seed=seed, prompt=prompt, **common)).images[0]).astype(int)
        for seed, prompt in ((1, "a cat"), (2, "a much longer text " * 12), (3, "x"))
    ]
    prompts = ("a cat", "a much longer text " * 12, "x")
    together = engine.paint(asked(batch_size=3, prompt=prompts, **common)).images
    for one, of_batch in zip(alone, together, strict=True):
        assert np.abs(one - np.asarray(of_batch)).max() <= 1
    exact = engine.paint(asked(batch_size=3, prompt=prompts, exact=True, **common)).images
    for one, of_batch in zip(alone, exact, strict=True):
        assert np.array_equal(one, np.asarray(of_batch))


def test_iterations_are_batches_one_after_the_other(engine: Engine) -> None:
    fields: dict[str, Any] = {"mask": box(), "masked_content": MaskedContent.NOISE, "exact": True}
    assert painted(engine, batch_size=4, **fields) == painted(engine, iterations=4, **fields)


def test_sources_do_not_touch_each_other(engine: Engine) -> None:
    sources = (scene(seed=1), scene(seed=2).rotate(90))
    alone = [painted(engine, images=(each,), seed=seed)[0] for seed, each in enumerate(sources, 1)]
    assert painted(engine, images=sources, batch_size=2, exact=True) == alone


# -- the world outside -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", JOBS.values(), ids=JOBS.keys())
def test_global_random_streams_are_left_alone(engine: Engine, fields: dict[str, Any]) -> None:
    torch.manual_seed(1234)
    state = np.random.get_state()  # noqa: NPY002
    before = torch.get_rng_state()
    first = painted(engine, **fields)
    assert torch.equal(torch.get_rng_state(), before)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(state, after, strict=True))
    torch.manual_seed(99)
    assert painted(engine, **fields) == first


def test_sources_and_masks_are_not_written_to(engine: Engine) -> None:
    request = asked(mask=box(), images=(scene(mode="RGBA"),))
    before = request.to_json()
    engine.paint(request)
    assert request.to_json() == before
    assert "parameters" not in request.images[0].info
    unchanged = asked(strength=0)
    assert "parameters" in engine.paint(unchanged).images[0].info
    assert "parameters" not in unchanged.images[0].info
