"""Pictures from noise alone, and the second pass of a hires fix: sizes, batches, accounts, progress, stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.engine import Engine
from overpaint.events import Cancelled, Control, Event, Finished, Painted, Preview, Progress, Started, Stop
from overpaint.outcome import Processed
from overpaint.planning.hires import LATENT_UPSCALES
from overpaint.request import ControlUnit, Hires, PaintRequest, Txt2ImgRequest
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.settings import Settings
from overpaint.text.infotext import parse_infotext, split_infotext
from overpaint.text.pasting import option_overrides, request_fields
from tests.conftest import label
from tests.engine.conftest import pixels
from tests.engine.toys import Site, dreamt, hint

LATENT = tuple(LATENT_UPSCALES)
PIXELS = ("Lanczos", "Nearest", "None", "grow")


def shown(engine: Engine, request: PaintRequest, settings: Settings | None = None) -> list[bytes]:
    return [pixels(each) for each in engine.paint(request, settings).images]


def test_no_size_is_the_models_own(engine: Engine) -> None:
    asked = Txt2ImgRequest(prompt="a cat", steps=1)
    plan = engine.plan(asked)
    assert (plan.geometry.width, plan.geometry.height) == (engine.spec.native_size,) * 2
    plan = engine.plan(asked.with_changes(width=64))
    assert (plan.geometry.width, plan.geometry.height) == (64, engine.spec.native_size)


@pytest.mark.parametrize("size", [(37, 29), (8, 64), (65, 33), (1, 1), (100, 9)])
def test_odd_sizes(engine: Engine, size: tuple[int, int]) -> None:
    result = engine.paint(dreamt(width=size[0], height=size[1], steps=2))
    assert result.images[0].size == size
    assert f"Size: {size[0]}x{size[1]}" in result.info


@pytest.mark.parametrize("sampler", [each.name for each in SAMPLERS])
@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_every_sampler_paints_and_enlarges(engine: Engine, sampler: str, manner: Settings) -> None:
    few: dict[str, Any] = {"width": 16, "height": 16, "sampler": sampler, "steps": 4, "cfg_scale": 2.0}
    if sampler == "DPM adaptive":
        few |= {"eta": 0.0, "overrides": {"sigma_max": 0.5}, "scheduler": "Karras"}
    result = engine.paint(dreamt(**few, hires=Hires(scale=1.5, steps=4, strength=1.0)), manner)
    assert result.images[0].size == (24, 24)
    assert np.asarray(result.images[0]).std() > 3
    assert result.denoising_strength == 1.0


@pytest.mark.parametrize("scheduler", [each.label for each in SCHEDULERS])
def test_every_schedule_paints_and_enlarges(engine: Engine, scheduler: str) -> None:
    few: dict[str, Any] = {"width": 16, "height": 16, "scheduler": scheduler, "steps": 4}
    hires = Hires(scale=1.5, steps=2, scheduler=scheduler)
    fields = split_infotext(engine.paint(dreamt(**few, hires=hires)).info).fields
    assert fields["Schedule type"] == fields["Hires schedule type"] == scheduler


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M SDE", "DDIM", "UniPC"])
@pytest.mark.parametrize("hires", [None, Hires(scale=1.5, steps=2), Hires(scale=1.5, steps=2, upscaler="Lanczos")])
def test_a_picture_does_not_depend_on_its_batch(engine: Engine, sampler: str, hires: Hires | None) -> None:  # JOB-7
    prompts = ("a cat", "a much longer text " * 12, "x")
    fields: dict[str, Any] = {"sampler": sampler, "steps": 3, "width": 16, "height": 16, "hires": hires, "cfg_scale": 2}
    alone = [
        np.asarray(engine.paint(dreamt(seed=1 + i, prompt=each, **fields)).images[0]).astype(int)
        for i, each in enumerate(prompts)
    ]
    for exact in (False, True):
        together = engine.paint(dreamt(batch_size=3, prompt=prompts, exact=exact, **fields)).images
        for one, of_batch in zip(alone, together, strict=True):
            # A second pass starts from a difference of the last bit.
            assert np.abs(one - np.asarray(of_batch)).max() <= (0 if exact else 1 if hires is None else 2)


@pytest.mark.parametrize(
    ("texts", "written"),
    [
        ({"prompt": "(a dog)"}, True),
        ({"negative_prompt": "[a dog]"}, True),
        ({"prompt": "[a dog:a cat:1.5]"}, False),
        ({}, False),
    ],
)
def test_emphasis_in_the_second_pass_alone(engine: Engine, texts: dict[str, Any], written: bool) -> None:  # ENCODE-3
    hires = Hires(scale=1.5, steps=2, **texts)
    request = dreamt(prompt="[steel::0.5] cat", hires=hires, overrides={"emphasis": "No norm"})
    assert ("Emphasis: No norm" in engine.paint(request).info) == written


def test_iterations_are_batches_one_after_the_other(engine: Engine) -> None:
    fields: dict[str, Any] = {"exact": True, "steps": 2, "sampler": "Euler a", "hires": Hires(scale=1.5, steps=2)}
    assert shown(engine, dreamt(batch_size=3, **fields)) == shown(engine, dreamt(iterations=3, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 2},
        {"prompt": "a dog"},
        {"variation_strength": 0.2},
        {"seed_resize": (48, 48)},
        {"cfg_scale": 3.0},
        {"tiling": True},
        {"clip_skip": 2},
        {"overrides": {"sgm_noise_multiplier": True}},
        {"overrides": {"randn_source": "NV"}},
        {"controls": (ControlUnit(model="edges", image=hint()),)},
        {"hires": Hires(scale=1, strength=0.5)},
    ],
    ids=label,
)
def test_what_is_asked_reaches_the_picture(site_engine: Engine, fields: dict[str, Any]) -> None:
    assert shown(site_engine, dreamt(**fields)) != shown(site_engine, dreamt())


# -- the second pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.4},
        {"steps": 5},
        {"sampler": "Euler a"},
        {"scheduler": "Karras"},
        {"prompt": "a dog"},
        {"negative_prompt": "a cat"},
        {"upscaler": "Lanczos"},
        {"upscaler": "grow"},
        {"checkpoint": "other"},
        {"scale": 1.25},
    ],
    ids=label,
)
def test_what_the_second_pass_is_asked_reaches_the_picture(site_engine: Engine, change: dict[str, Any]) -> None:
    plain = Hires(scale=1.5, steps=3)
    changed = Hires(**{"scale": 1.5, "steps": 3, **change})
    assert shown(site_engine, dreamt(hires=plain)) != shown(site_engine, dreamt(hires=changed))


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (nearest)", "Lanczos", "grow"])
@pytest.mark.parametrize(
    ("first", "sized", "wanted"),
    [
        ((37, 29), {"scale": 1.7}, (62, 49)),
        ((33, 47), {"width": 61, "height": 75}, (61, 75)),
        ((32, 32), {"width": 75, "height": 41}, (75, 41)),
        ((32, 32), {"width": 41, "height": 75}, (41, 75)),
        ((40, 24), {"width": 63}, (63, 37)),
        ((40, 24), {"height": 63}, (105, 63)),
        ((33, 47), {"scale": 0.6}, (19, 28)),
        ((9, 100), {"width": 100, "height": 9}, (100, 9)),
    ],
    ids=label,
)
def test_the_size_is_as_asked(
    site_engine: Engine, upscaler: str, first: tuple[int, int], sized: dict[str, Any], wanted: tuple[int, int]
) -> None:
    hires = Hires(upscaler=upscaler, strength=0.0 if upscaler == "Latent (nearest)" else 0.5, steps=1, **sized)
    result = site_engine.paint(dreamt(width=first[0], height=first[1], steps=1, hires=hires))
    assert result.images[0].size == wanted


@pytest.mark.parametrize("upscaler", [*LATENT, *PIXELS])
def test_every_way_to_enlarge(site_engine: Engine, upscaler: str) -> None:
    result = site_engine.paint(dreamt(width=16, height=16, hires=Hires(upscaler=upscaler, width=37, height=29)))
    assert result.images[0].size == (37, 29)
    assert f"Hires upscaler: {upscaler}" in result.info


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos", "grow"])
@pytest.mark.parametrize("manner", ["sane", "reference"])
def test_strength_0_only_enlarges(site_engine: Engine, site: Site, upscaler: str, manner: str) -> None:
    settings = site.settings if manner == "sane" else site.reference
    started, *events = site_engine.run(dreamt(hires=Hires(strength=0, upscaler=upscaler), batch_size=2), settings)
    last = events[-1]
    assert isinstance(started, Started)
    assert isinstance(last, Finished)
    steps = [each.step for each in events if isinstance(each, Progress)]
    assert steps[-1] == started.steps == 3
    small = site_engine.paint(dreamt(batch_size=2), settings).images
    for big, before in zip(last.result.images, small, strict=True):
        assert big.size == (64, 64)
        back = np.asarray(big.resize((32, 32), Image.Resampling.BOX)).astype(int)
        if upscaler != "grow":  # which has learnt nothing
            assert np.abs(back - np.asarray(before)).mean() < (10 if upscaler == "Lanczos" else 40)
    assert split_infotext(last.result.info).fields["Denoising strength"] == "0"


def test_an_inpainting_model_in_the_second_pass_sees_the_whole(site_engine: Engine, site: Site) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(site.model("tiny"))
    name = "model.diffusion_model.input_blocks.0.0.weight"
    wide = torch.zeros(32, 9, 3, 3, dtype=torch.float16)
    wide[:, :4] = tensors[name]
    path = site.root / "inpaint.safetensors"
    save_file({**tensors, name: wide}, path, {"overpaint.num_heads": "8", "overpaint.text_heads": "[1]"})
    for upscaler in ("Latent", "Lanczos"):
        plain = Hires(scale=1.5, steps=2, upscaler=upscaler)
        twin = Hires(scale=1.5, steps=2, upscaler=upscaler, checkpoint=str(path))
        # Its further channels have no weight, so that it paints what the plain model does.
        assert shown(site_engine, dreamt(hires=twin)) == shown(site_engine, dreamt(hires=plain))
    assert site_engine.paint(dreamt(checkpoint=str(path))).images[0].size == (32, 32)


# -- accounts ----------------------------------------------------------------------------------------------------------

REQUESTS: list[dict[str, Any]] = [
    {},
    {"width": 37, "height": 29, "sampler": "DPM++ 2M SDE", "scheduler": "Karras"},
    {"variation_strength": 0.3, "seed_resize": (48, 64), "clip_skip": 2},
    {"prompt": 'a "cat", (big:1.2)\nSteps: 3', "negative_prompt": "blurry: yes, \\(x\\)"},
    {"hires": Hires(scale=1.5)},
    {"hires": Hires(width=48, upscaler="Lanczos", steps=2, strength=0.4)},
    {"hires": Hires(width=48, height=40, sampler="Euler a", scheduler="Karras")},
    {"hires": Hires(scale=1.5, prompt="a dog, (red:1.3)", negative_prompt='no "cats"', strength=0.0)},
    {"hires": Hires(scale=1.25, checkpoint="other", steps=2)},
    {"refiner": "other", "refiner_switch_at": 0.4},
    {"refiner": "other", "refiner_switch_at": 0.4, "hires": Hires(scale=1.5, steps=3)},
    {"prompt": "a cat <lora:red:0.7><hypernet:waves:0.4>", "tiling": True},
    {"eta": 0.3, "sampler": "Euler a"},
    {"sampler": "DDIM", "eta": 0.4, "cfg_scale": 4.5},
    {"overrides": {"sd_vae": "pale.safetensors", "emphasis": "No norm"}, "prompt": "a (cat:1.5)"},
    {
        "overrides": {"sgm_noise_multiplier": True, "randn_source": "CPU", "eta_noise_seed_delta": 3},
        "sampler": "Euler a",
    },
    {"overrides": {"sd_vae_decode_method": "TAESD"}},
    {"checkpoint": "other"},
]


@pytest.mark.parametrize("fields", REQUESTS, ids=label)
def test_an_infotext_is_enough_to_paint_again(site_engine: Engine, site: Site, fields: dict[str, Any]) -> None:
    settings = site.with_options(disable_weights_auto_swap=False)
    result = site_engine.paint(dreamt(**fields), settings)
    parsed = parse_infotext(result.info)
    read = request_fields(parsed)
    options = option_overrides(parsed, settings)
    again = site_engine.paint(Txt2ImgRequest(**read, overrides=options), settings)
    assert pixels(again.images[0]) == pixels(result.images[0])
    assert again.info == result.info


# -- progress and stopping ---------------------------------------------------------------------------------------------

JOBS: list[dict[str, Any]] = [
    {},
    {"iterations": 2, "batch_size": 2, "hires": Hires(scale=1.5, steps=2)},
    {"hires": Hires(scale=1.5), "steps": 4},
    {"hires": Hires(scale=1.5, sampler="Heun", steps=5), "sampler": "DPM++ 2S a"},
    {"hires": Hires(scale=1.5, sampler="Restart", steps=20), "sampler": "DPM fast", "steps": 7},
    {"hires": Hires(scale=1.5, sampler="DDIM", strength=0.1), "sampler": "PLMS", "steps": 4, "iterations": 2},
    {
        "hires": Hires(scale=1.5, sampler="UniPC", strength=0.9, steps=5),
        "sampler": "UniPC",
        "exact": True,
        "batch_size": 2,
    },
    {"hires": Hires(scale=1.5, strength=0), "iterations": 2},
    {"refiner": "other", "refiner_switch_at": 0.5, "hires": Hires(scale=1.5), "steps": 6},
]


@pytest.mark.parametrize("fields", JOBS, ids=label)
@pytest.mark.parametrize("manner", ["sane", "reference"])
def test_the_story(site_engine: Engine, site: Site, fields: dict[str, Any], manner: str) -> None:
    settings = site.settings if manner == "sane" else site.reference
    started, *middle, last = site_engine.run(dreamt(**{"width": 16, "height": 16, **fields}), settings)
    assert isinstance(started, Started)
    assert isinstance(last, Finished)
    assert started.images == len(last.result.images)
    told = [each for each in middle if isinstance(each, Progress)]
    assert {each.steps for each in told} == {started.steps}
    assert [each.step for each in told] == sorted(each.step for each in told)
    assert told[-1].step == started.steps
    assert not last.result.stopped


def until(engine: Engine, message: Stop, when: Callable[[Event], bool], **fields: Any) -> tuple[Event, list[Event]]:
    control, events = Control(), list[Event]()
    asked = False
    for event in engine.run(dreamt(**fields), None, control):
        events.append(event)
        if not asked and when(event):
            control.ask(message)
            asked = True
    return events[-1], events


def at(step: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Progress) and event.step == step


def result_of(event: Event) -> Processed:
    assert isinstance(event, Finished)
    return event.result


BOTH: dict[str, Any] = {"steps": 6, "hires": Hires(scale=1.5, steps=6, strength=0.8)}


def test_finish_early_in_the_first_pass(engine: Engine) -> None:
    """What there is, as large as it is; the second pass does not begin."""
    last, events = until(engine, Stop.FINISH_EARLY, at(3), **BOTH)
    result = result_of(last)
    assert result.stopped
    assert result.images[0].size == (32, 32)
    assert max(each.step for each in events if isinstance(each, Progress)) == 3
    alone, _ = until(engine, Stop.FINISH_EARLY, at(3), steps=6)
    assert pixels(result.images[0]) == pixels(result_of(alone).images[0])


def test_finish_early_in_the_second_pass(engine: Engine) -> None:
    last, _ = until(engine, Stop.FINISH_EARLY, at(9), **BOTH)
    result = result_of(last)
    assert result.stopped
    assert result.images[0].size == (48, 48)
    assert pixels(result.images[0]) != shown(engine, dreamt(**BOTH))[0]


@pytest.mark.parametrize("step", [2, 9])
def test_cancel_in_either_pass(engine: Engine, step: int) -> None:
    last, events = until(engine, Stop.CANCEL, at(step), **BOTH)
    assert last == Cancelled(None)
    assert max(each.step for each in events if isinstance(each, Progress)) == step
    last, _ = until(engine, Stop.CANCEL, at(12 + step), iterations=2, **BOTH)
    assert isinstance(last, Cancelled)
    assert last.result is not None
    assert [pixels(each) for each in last.result.images] == shown(engine, dreamt(**BOTH))


@pytest.mark.parametrize("step", [2, 9])
def test_skip_in_either_pass(engine: Engine, step: int) -> None:
    """INT-3: the batch ends as it stands, and the next one is painted whole."""
    last, events = until(engine, Stop.SKIP, at(step), iterations=2, **BOTH)
    result = result_of(last)
    assert [each.size for each in result.images] == [(32, 32) if step < 6 else (48, 48), (48, 48)]
    whole = shown(engine, dreamt(iterations=2, **BOTH))
    assert [pixels(a) == b for a, b in zip(result.images, whole, strict=True)] == [False, True]
    assert sum(isinstance(each, Painted) for each in events) == 2


@pytest.mark.parametrize("kind", ["Full", "TAESD", "Approx NN", "Approx cheap"])
def test_previews(site_engine: Engine, site: Site, kind: str) -> None:
    settings = site.with_options(show_progress_every_n_steps=2, show_progress_type=kind)
    *events, last = site_engine.run(dreamt(**BOTH, tiling=True), settings)
    previews = [each.image for each in events if isinstance(each, Preview)]
    assert len(previews) == 6
    factor = 8 if kind in ("Full", "TAESD") else 1
    assert {each.size for each in previews} == {(4 * factor, 4 * factor), (6 * factor, 6 * factor)}
    quiet = shown(site_engine, dreamt(**BOTH, tiling=True), site.with_options(live_previews_enable=False))
    assert [pixels(each) for each in result_of(last).images] == quiet
    if kind == "Full":
        final = np.asarray(result_of(last).images[0]).astype(int)
        assert np.abs(final - np.asarray(previews[-1])).max() <= 1
