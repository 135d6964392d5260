"""Strength maps: each cell walks as in the plain job of its strength, whatever the sampler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from overpaint.painting.sampling import BatchTensors, Streams, final_latents, start_runs
from overpaint.painting.texts import ImageCond
from overpaint.planning.plan import Plan
from overpaint.sampler_table import SAMPLERS
from overpaint.settings import Settings
from tests.unit.painting.test_drive import ToyNetwork, drive, scheduled
from tests.unit.toy_job import planned

SIDE = 64  # pixels; 8 cells
OWN_STEPS = "DPM adaptive"  # its steps follow an error over all cells, so that no cell is independent of the others


def map_of(*values: int) -> Image.Image:
    """Strips of these grays, from left to right."""
    row = np.repeat(np.array(values, np.uint8), SIDE // len(values))
    return Image.fromarray(np.tile(row, (SIDE, 1)))


def plan_with(sampler: str, settings: Settings | None = None, **fields: Any) -> Plan:
    fields = {"strength": 0.8, "steps": 10, "images": (Image.new("RGB", (SIDE, SIDE), "teal"),), **fields}
    return planned(settings or Settings(randn_source="CPU"), sampler=sampler, **fields)


def painted(plan: Plan, seeds: tuple[int, ...] = (5,)) -> tuple[Tensor, ToyNetwork]:
    """The latents of a job whose network looks at each cell alone."""
    values = torch.linspace(-1, 1, 4 * 64).reshape(1, 4, 8, 8).repeat(len(seeds), 1, 1, 1)
    texts = (ImageCond(((scheduled(0.3), 1.0),), scheduled(-0.1)),) * len(seeds)
    nmask = None if plan.mask is None else torch.from_numpy(plan.mask.latent).expand(4, -1, -1)
    tensors, network = BatchTensors(values, nmask, None, texts), ToyNetwork()
    runs = start_runs(plan, tensors, Streams(seeds, seeds, 0.0))
    for _ in drive(runs, network):
        pass
    return final_latents(plan, tensors, runs), network


@pytest.mark.parametrize("sampler", [each.name for each in SAMPLERS])
def test_each_half_is_that_of_the_plain_job(sampler: str) -> None:
    both, _ = painted(plan_with(sampler, strength_map=map_of(255, 102)))
    strong, weak = painted(plan_with(sampler))[0], painted(plan_with(sampler, strength=0.8 * 102 / 255))[0]
    assert not torch.allclose(strong, weak, atol=0.1)
    tolerance = 0.1 * float((strong - weak).abs().max()) if sampler == OWN_STEPS else 1e-6
    assert torch.allclose(both[..., :4], strong[..., :4], atol=tolerance)
    assert torch.allclose(both[..., 4:], weak[..., 4:], atol=tolerance)


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DPM++ SDE", "UniPC", "Heun"])
@pytest.mark.parametrize("value", [1, 102, 255])
def test_a_map_of_one_value_is_the_plain_job(sampler: str, value: int) -> None:
    mapped = plan_with(sampler, strength_map=map_of(value))
    plain = plan_with(sampler, strength=0.8 * value / 255)
    assert mapped.levels == () and mapped.sampler.used == plain.sampler.used
    assert torch.equal(painted(mapped)[0], painted(plain)[0])


@pytest.mark.parametrize(
    "changes", [{"s_churn": 5.0}, {"exact": True, "batch_size": 2}, {"steps": 3}, {"strength": 1.0}]
)
def test_other_ways_to_walk(changes: dict[str, Any]) -> None:
    seeds = (5, 6) if "batch_size" in changes else (5,)
    both, _ = painted(plan_with("Euler", strength_map=map_of(255, 102), **changes), seeds)
    strength = changes.get("strength", 0.8)
    strong, _ = painted(plan_with("Euler", **changes), seeds)
    weak, _ = painted(plan_with("Euler", **{**changes, "strength": strength * 102 / 255}), seeds)
    assert torch.allclose(both[..., :4], strong[..., :4], atol=1e-6)
    assert torch.allclose(both[..., 4:], weak[..., 4:], atol=1e-6)


def test_the_network_is_asked_no_more_often() -> None:
    for sampler in ("DPM++ 2M", "Euler a", "Heun", "DDIM"):
        several = painted(plan_with(sampler, strength_map=map_of(255, 200, 102, 40)))[1]
        assert several.calls == painted(plan_with(sampler))[1].calls


def test_black_cells_stay_and_more_strength_changes_no_less() -> None:
    plan = plan_with("DPM++ 2M", strength_map=map_of(0, 30, 60, 90, 120, 150, 200, 255), mask_blur_x=0, mask_blur_y=0)
    latents, _ = painted(plan)
    source = torch.linspace(-1, 1, 4 * 64).reshape(1, 4, 8, 8)
    change = (latents - source).abs().mean(dim=(0, 1, 2))
    assert change[0] == 0 and bool((change[1:] > 0).all())


def test_every_step_may_be_walked_whatever_the_strength() -> None:
    """`img2img_fix_steps`: the walk is that of the ceiling, and the levels join it on its own, finer schedule."""
    settings = replace(Settings(randn_source="CPU"), img2img_fix_steps=True)
    plan = plan_with("Euler", settings, strength_map=map_of(255, 102))
    strong, weak = plan.levels
    assert strong.sampler.used == plan.sampler.used and strong.sampler.evaluations == 10
    assert plan.sampler.used[-len(weak.sampler.used) :] == weak.sampler.used and weak.sampler.evaluations == 4
    assert painted(plan)[0].shape == (1, 4, 8, 8)


def test_stopping_closes_every_walk() -> None:
    plan = plan_with("Euler", strength_map=map_of(255, 102))
    texts = (ImageCond(((scheduled(0.3), 1.0),), scheduled(-0.1)),)
    tensors = BatchTensors(torch.zeros(1, 4, 8, 8), None, None, texts)
    (run,) = start_runs(plan, tensors, Streams((5,), (5,), 0.0))
    for _ in zip(range(2), drive([run], ToyNetwork()), strict=False):
        pass
    assert run.stop().shape == (1, 4, 8, 8) and run.finished
