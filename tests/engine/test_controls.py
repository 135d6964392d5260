"""ControlNets in a job: when they count, what they see, and the whole walk against diffusers' networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from overpaint.adapters.control import hint_of
from overpaint.engine import Engine, stages_of
from overpaint.events import Control, Finished, Painted
from overpaint.files.metadata import read_recipe
from overpaint.files.recipe import Recipe
from overpaint.models.checkpoint import load_checkpoint
from overpaint.networks.controlnet import ControlNet
from overpaint.networks.layers import set_packed
from overpaint.painting.sampling import Streams
from overpaint.painting.stages import Sampled, Step
from overpaint.request import ControlUnit, Hires, MaskedContent
from overpaint.service.painter.results import JobResults
from overpaint.text.control_notes import controls_told
from overpaint.text.infotext import parse_infotext
from tests.conftest import label
from tests.engine.conftest import asked, box, painted, pixels, scene
from tests.engine.toys import Site, dreamt, hint, unet_spec
from tests.unit.toy_control import control_spec, diffusers_control, diffusers_unet, random_network


def unit(**fields: Any) -> ControlUnit:
    return ControlUnit(**{"model": "edges", "image": hint(), **fields})


def test_weight_0_is_none(site_engine: Engine) -> None:
    assert painted(site_engine, controls=(unit(weight=0),)) == painted(site_engine)
    assert painted(site_engine, controls=(unit(weight=0), unit())) == painted(site_engine, controls=(unit(),))


@pytest.mark.parametrize(
    "change",
    [{"weight": 0.5}, {"image": scene(seed=9)}, {"model": "depth"}, {"preprocessor": "invert"}, {"start": 0.5}],
    ids=label,
)
def test_what_is_asked_reaches_the_picture(site_engine: Engine, change: dict[str, Any]) -> None:
    plain = painted(site_engine, controls=(unit(),))
    assert plain != painted(site_engine)
    assert painted(site_engine, controls=(unit(**change),)) != plain


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "Heun"])
def test_a_part_of_the_steps(site_engine: Engine, sampler: str) -> None:
    fields: dict[str, Any] = {"steps": 4, "strength": 1.0, "sampler": sampler}
    whole = painted(site_engine, controls=(unit(),), **fields)
    found = {
        part: painted(site_engine, controls=(unit(start=part[0], end=part[1]),), **fields)
        for part in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.0, 0.1), (0.99, 1.0), (0.6, 0.6))
    }
    assert found[0.0, 1.0] == whole
    plain = painted(site_engine, **fields)
    # A step counts if it lies between start and end as a whole.
    for nothing in ((0.0, 0.1), (0.99, 1.0), (0.6, 0.6)):
        assert found[nothing] == plain
    assert len({whole[0], plain[0], found[0.0, 0.5][0], found[0.5, 1.0][0]}) == 4


def test_two_add_up_and_their_order_does_not_matter(site_engine: Engine) -> None:
    two = (unit(), unit(model="depth", weight=0.5))
    result = painted(site_engine, controls=two)
    assert result != painted(site_engine, controls=two[:1])
    assert result != painted(site_engine, controls=two[1:])
    flipped = painted(site_engine, controls=two[::-1])
    assert difference(result[0], flipped[0]) <= 1
    # One twice, by halves, is one.
    halves = painted(site_engine, controls=(unit(weight=0.5), unit(weight=0.5)))
    assert difference(halves[0], painted(site_engine, controls=(unit(),))[0]) <= 1


def difference(a: bytes, b: bytes) -> int:
    head = len(b"RGB (32, 32) ")
    one, two = (np.frombuffer(each[head:], dtype=np.uint8).astype(int) for each in (a, b))
    return int(np.abs(one - two).max())


def test_by_path_and_by_name(site_engine: Engine, site: Site) -> None:
    path = str(site.folder("controls") / "edges.safetensors")
    assert painted(site_engine, controls=(unit(model=path),)) == painted(site_engine, controls=(unit(),))


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (37, 29)])
def test_batches_and_odd_sizes(site_engine: Engine, size: tuple[int, int]) -> None:
    fields: dict[str, Any] = {"controls": (unit(),), "width": size[0], "height": size[1]}
    batch = site_engine.paint(asked(batch_size=2, exact=True, **fields))
    assert [each.size for each in batch.images] == [size] * 2
    singles = [painted(site_engine, seed=seed, **fields)[0] for seed in (1, 2)]
    assert [pixels(each) for each in batch.images] == singles


def test_both_passes_follow(site_engine: Engine) -> None:
    hires = Hires(scale=1.5, steps=2)
    plan = site_engine.plan(dreamt(controls=(unit(),), hires=hires))
    assert plan.hires is not None
    assert [each.controls[0].hint.size for each in (plan, plan.hires.plan)] == [(32, 32), (48, 48)]
    assert site_engine.paint(dreamt(controls=(unit(),), hires=hires)).images[0].size == (48, 48)


def test_a_refiner_is_not_followed_by_controls_made_for_the_model(site_engine: Engine) -> None:
    fields: dict[str, Any] = {"refiner": "other", "refiner_switch_at": 0.5, "steps": 4, "strength": 1.0}
    late = painted(site_engine, controls=(unit(start=0.75),), **fields)
    assert late == painted(site_engine, **fields)
    assert painted(site_engine, controls=(unit(),), **fields) != late


# -- only the masked part ----------------------------------------------------------------------------------------------


def test_the_crop_is_cut_from_the_control_picture(site_engine: Engine) -> None:
    """What is painted is the mask's surroundings, so that is where the control picture is looked at."""
    source, mask = scene(128, 96), box(128, 96, (64, 32, 96, 64))
    follow = Image.new("RGB", (128, 96), "blue")
    follow.paste("red", (64, 32, 96, 64))
    fields: dict[str, Any] = {
        "images": (source,),
        "mask": mask,
        "only_masked": True,
        "padding": 0,
        "mask_blur_x": 0,
        "mask_blur_y": 0,
        "masked_content": MaskedContent.ORIGINAL,
        "width": 64,
        "height": 64,
    }
    plan = site_engine.plan(asked(controls=(unit(image=follow),), **fields))
    assert plan.mask is not None
    assert plan.mask.crop is not None
    assert plan.controls[0].hint.getextrema() == ((255, 255), (0, 0), (0, 0))
    # What lies outside it does not matter, and at half the size it is the same picture.
    elsewhere = follow.copy()
    elsewhere.paste("green", (0, 0, 60, 96))
    small = follow.resize((64, 48), Image.Resampling.NEAREST)
    wanted = painted(site_engine, controls=(unit(image=follow),), **fields)
    assert painted(site_engine, controls=(unit(image=elsewhere),), **fields) == wanted
    assert painted(site_engine, controls=(unit(image=Image.new("RGB", (128, 96), "red")),), **fields) == wanted
    assert site_engine.plan(asked(controls=(unit(image=small),), **fields)).controls[0].hint.size == (64, 64)
    assert painted(site_engine, controls=(unit(image=Image.new("RGB", (9, 9), "green")),), **fields) != wanted


# -- against diffusers -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize(
    "units",
    [
        ({"model": "edges"},),
        ({"model": "edges", "weight": 0.7, "end": 0.7}, {"model": "depth", "weight": 1.3, "start": 0.4}),
    ],
    ids=["one", "two"],
)
def test_the_whole_walk(site_engine: Engine, site: Site, sampler: str, units: tuple[dict[str, Any], ...]) -> None:
    """img2img with ControlNets, its texts and its noise from the engine, its networks and its loop from elsewhere."""
    pytest.importorskip("diffusers")
    controls = tuple(unit(image=hint(64, 32), **each) for each in units)
    request = asked(images=(scene(64, 32),), controls=controls, sampler=sampler, steps=6, strength=0.8, cfg_scale=3.0)
    plan = site_engine.plan(request)
    got, init, texts = sampled(site_engine, plan)
    model = load_checkpoint(Path(site.model("tiny")), device="cpu", dtype="float32")
    unet = diffusers_unet(unpacked(model.backend.networks.unet))
    branches = [
        (diffusers_control(made_again(site, str(each.model))), hint_of(each.image), each.weight, each.start, each.end)
        for each in controls
    ]
    steps = plan.sampler.evaluations

    def predicted(x: Tensor, t: float, step: int) -> Tensor:
        rows, time = torch.cat([x, x]), torch.tensor([t, t])
        down: list[Tensor] = []
        middle: Tensor | None = None
        for network, seen, weight, start, end in branches:
            if start <= step / steps and (step + 1) / steps <= end:
                a, b = network(rows, time, texts, torch.cat([seen, seen]), weight, return_dict=False)
                down = [c + d for c, d in zip(down, a, strict=True)] if down else list(a)
                middle = b if middle is None else middle + b
        told: dict[str, Any] = {}
        if middle is not None:
            told = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        low, high = unet(rows, time, texts, **told).sample.chunk(2)
        return low + 3.0 * (high - low)  # type: ignore[no-any-return]

    noise = torch.randn(init.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = walked(plan, init, noise, predicted)
    assert float((got - wanted).abs().max()) <= 2e-3 * float(wanted.abs().max())


def made_again(site: Site, name: str) -> Any:
    """The network of a file of `make_site`."""
    return random_network(partial(ControlNet, control_spec(unet_spec(site))), {"edges": 1, "depth": 2}[name])


def unpacked(network: Any) -> Any:
    set_packed(network, False)
    return network


def sampled(engine: Engine, plan: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The latents of the engine's only pass, what it starts from, and its texts, the negative first."""
    prepared = stages_of(engine).prepare(plan)
    batch = plan.batches[0]
    texts = stages_of(engine).texts(plan, batch)
    tensors = stages_of(engine).tensors(plan, prepared, batch, texts)
    story = stages_of(engine).sample_tensors(plan, tensors, Streams((1,), (5,), 0.0), control=Control())
    ends: list[Sampled | None] = []

    def told() -> Iterator[Step]:
        ends.append((yield from story))

    list(told())
    (end,) = ends
    assert end is not None
    (each,) = texts
    both = (each.negative.stages[0].context, each.parts[0][0].stages[0].context)
    return end.latents, tensors.init, torch.stack(both)


def walked(plan: Any, init: Tensor, noise: Tensor, predicted: Any) -> Tensor:
    """Euler over sigmas, or DDIM over timesteps, written out."""
    alphas = plan.sampler.table.alphas_cumprod
    if plan.sampler.spec.family != "timestep":
        x: Tensor = init + noise * plan.sampler.start
        for step, (sigma, below) in enumerate(pairwise(plan.sampler.used)):
            eps = predicted(x / math.sqrt(sigma**2 + 1), float(plan.sampler.table.sigma_to_t(sigma)), step)
            x = x + eps * (below - sigma)
        return x
    a = float(alphas[int(plan.sampler.start)])
    x = math.sqrt(a) * init + math.sqrt(1 - a) * noise
    used = [int(each) for each in plan.sampler.used][::-1]
    below = [*(float(alphas[t]) for t in used[1:]), 1.0]
    for step, (t, b) in enumerate(zip(used, below, strict=True)):
        a = float(alphas[t])
        eps = predicted(x, float(t), step)
        x0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        x = math.sqrt(b) * x0 + math.sqrt(1 - b) * eps
    return x


# -- modes, passes, regions, and painting again ------------------------------------------------------------------------


def test_modes_differ_and_meet_where_there_is_no_guidance(site_engine: Engine, site: Site) -> None:
    by_mode = {
        mode: painted(site_engine, controls=(unit(mode=mode),), cfg_scale=4.0) for mode in ("balanced", "control")
    }
    assert by_mode["balanced"] != by_mode["control"]
    same = [painted(site_engine, controls=(unit(mode=each),), cfg_scale=1.0) for each in by_mode]
    assert difference(same[0][0], same[1][0]) <= 2  # with a scale of 1 the negative does not count
    one_by_one = site.with_options(batch_cond_uncond=False)
    alone = site_engine.paint(asked(controls=(unit(mode="control"),), cfg_scale=4.0), one_by_one)
    assert difference(pixels(alone.images[0]), by_mode["control"][0]) <= 1


def test_a_unit_can_be_for_one_pass(site_engine: Engine) -> None:
    units = (unit(passes="first"), unit(passes="second", weight=0.5), unit())
    plan = site_engine.plan(dreamt(controls=units, hires=Hires(scale=1.5, steps=2)))
    assert plan.hires is not None
    assert [each.passes for each in plan.controls] == ["first", "both"]
    assert [each.passes for each in plan.hires.plan.controls] == ["second", "both"]
    assert len(site_engine.plan(dreamt(controls=units)).controls) == 3  # there is one pass, and no choice


def test_a_mask_keeps_it_to_a_part(site_engine: Engine) -> None:
    large: dict[str, Any] = {
        "images": (scene(64, 64),)
    }  # NOTE: in maps of one pixel, a norm of one number magnifies any rounding
    plain, whole = painted(site_engine, **large), painted(site_engine, controls=(unit(),), **large)
    everywhere, nowhere = (Image.new("L", (64, 64), level) for level in (255, 0))
    assert painted(site_engine, controls=(unit(mask=everywhere),), **large) == whole
    assert painted(site_engine, controls=(unit(mask=nowhere),), **large) == plain
    part = painted(site_engine, controls=(unit(mask=box(64, 64, (0, 0, 32, 64))),), **large)
    assert part not in (plain, whole)


def test_a_unit_without_a_model_only_shows_its_picture(site_engine: Engine) -> None:
    told = site_engine.paint(asked(controls=(unit(model=None, preprocessor="canny", return_map=True),)))
    assert [pixels(each) for each in told.images] == painted(site_engine)
    (shown,) = told.control_maps
    assert shown.size == (32, 32) and len(shown.getcolors() or ()) <= 2


def test_a_servers_picture_can_be_painted_again(site_engine: Engine, site: Site, tmp_path: Path) -> None:
    """What it followed, and where, is in its recipe; how, in its infotext too."""
    units = (
        unit(preprocessor="canny", canny_low=20, weight=0.5, end=0.9, mode="prompt", return_map=True),
        unit(model="depth", mask=box(32, 32, (0, 0, 16, 32)), mode="control"),
    )
    request = asked(controls=units, cfg_scale=3.0)
    plan = site_engine.plan(request)
    portfolio, result = JobResults(plan, tmp_path, ()), None
    for event in site_engine.run(request):
        if isinstance(event, Painted):
            portfolio.add(event.batch, stages_of(site_engine).identity(plan))
        elif isinstance(event, Finished):
            result = portfolio.result(event.result)
    assert result is not None
    assert [each.kind for each in result.pictures] == ["picture", "control"]
    picture, shown = (Image.open(tmp_path / each.file) for each in result.pictures)
    assert pixels(shown.convert("RGB")) == pixels(plan.controls[0].hint)

    recipe = Recipe.from_json(read_recipe(tmp_path / result.pictures[0].file))
    again = recipe.request_for(scene(), changes={"controls": recipe.control_fields(())})
    assert [pixels(each) for each in site_engine.paint(again).images] == [pixels(picture.convert("RGB"))]

    text = result.infotexts[0]
    assert 'ControlNet 0: "Module: canny, Model: edges, Weight: 0.5, Resize Mode: Just Resize, ' in text
    assert 'Control Mode: ControlNet is more important, Hr Option: Both"' in text
    first, second = controls_told(parse_infotext(text))
    assert (first["canny_low"], first["end"], first["mode"]) == (20, 0.9, "prompt")
    assert (second["model"], second["preprocessor"], second["mode"]) == ("depth", "none", "control")
