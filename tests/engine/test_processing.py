"""REQ, JOB: the contract's door, and that it leads to the same place as the native one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import modules.shared as shared
from modules.processing import Processed, StableDiffusionProcessing, StableDiffusionProcessingImg2Img, process_images
from overpaint.engine import Engine, stages_of
from overpaint.errors import SamplingError
from overpaint.sampler_table import SAMPLERS
from overpaint.settings import Quirks, Settings
from tests.engine.conftest import box, job, pixels, scene

SETTINGS = {"reference": Settings.reference(), "sane": Settings()}
SOFT = {"soft inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mask": {"mask": box(), "inpaint_full_res": False, "inpainting_fill": 1},
    "fill": {"mask": box(), "inpaint_full_res": False, "mask_blur": 2},
    "only masked": {"mask": box(), "inpaint_full_res_padding": 4, "inpainting_fill": 1},
    "inverted, latent noise": {"mask": box(), "inpainting_mask_invert": 1, "inpainting_fill": 2},
    "batch": {"batch_size": 2, "n_iter": 2, "inpainting_fill": 2, "mask": box(), "inpaint_full_res": False},
    "soft": {"mask": box(), "inpaint_full_res": False, "alwayson_scripts": SOFT, "inpainting_fill": 1},
    "DDIM": {"sampler_name": "DDIM", "steps": 5, "mask": box(), "inpainting_fill": 1, "inpaint_full_res": False},
    "SDE": {"sampler_name": "DPM++ 2M SDE", "scheduler": "Exponential", "batch_size": 2},
    "variation": {"subseed_strength": 0.4, "seed_resize_from_w": 48, "seed_resize_from_h": 48},
    "latent resize": {"resize_mode": 3, "width": 48, "height": 40},
    "odd size": {"width": 37, "height": 29, "resize_mode": 1},
    "overrides": {"override_settings": {"CLIP_stop_at_last_layers": 2, "img2img_color_correction": True}},
    "prompt lists": {"prompt": ["a cat", "[a dog:a bird:1]"], "batch_size": 2, "negative_prompt": ["x", "y"]},
    "tiling": {"tiling": True, "cfg_scale": 3},
}


@pytest.mark.parametrize("manner", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_both_doors_give_the_same_bytes(engine: Engine, kind: str, manner: str) -> None:
    shared.opts.replace_all(SETTINGS[manner])
    p = job(engine, **KINDS[kind])
    native = engine.paint(p.request(), p.settings())
    result = process_images(p)
    assert [pixels(each) for each in result.images] == [pixels(each) for each in native.images]
    assert result.infotexts == list(native.infotexts)
    accounts = [json.loads(each.js()) for each in (result, native)]
    assert {**accounts[0], "job_timestamp": "0"} == accounts[1]
    again = process_images(job(engine, **KINDS[kind]))
    assert [pixels(each) for each in again.images] == [pixels(each) for each in result.images]


NO_STEPS = {"img2img_fix_steps": True}
FAIL_IN_THE_REFERENCE = ("DPM fast", "DPM adaptive", "UniPC")


def must_not_be_called(*_: Any, **__: Any) -> Any:
    raise AssertionError("the network was called")


@pytest.mark.parametrize("sampler", [each.name for each in SAMPLERS if each.name not in FAIL_IN_THE_REFERENCE])
@pytest.mark.parametrize("kind", ["plain", "mask", "batch", "soft"])
def test_strength_zero_with_fixed_steps(  # STEP-3 B, STEP-10
    engine: Engine, sampler: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call is made, and the latents of the source come back; without a mask to the last bit."""
    monkeypatch.setattr(type(stages_of(engine).backend), "denoise", must_not_be_called)
    p = job(engine, **KINDS[kind], sampler_name=sampler, denoising_strength=0.0, override_settings=NO_STEPS)
    latents: list[Tensor] = []
    sample = p.sample
    p.sample = lambda *args: latents.append(sample(*args)) or latents[-1]  # type: ignore[method-assign,func-returns-value]
    result = process_images(p)
    assert p.init_latent is not None
    assert len(result.images) == p.batch_size * p.n_iter
    torch.testing.assert_close(latents[0], p.init_latent, rtol=0, atol=0 if p.nmask is None else 1e-6)
    assert f"Sampler: {sampler}" in result.infotexts[0]
    assert "Denoising strength: 0.0" in result.infotexts[0]


@pytest.mark.parametrize("sampler", FAIL_IN_THE_REFERENCE)
def test_strength_zero_with_fixed_steps_where_the_reference_fails(engine: Engine, sampler: str) -> None:
    fields = {"sampler_name": sampler, "denoising_strength": 0.0, "override_settings": NO_STEPS}
    with pytest.raises(SamplingError, match=f"{sampler}: the schedule has no steps; raise the strength"):
        process_images(job(engine, **fields))
    shared.opts.replace_all(Settings(quirks=Quirks(strength_zero_runs_a_step=True)))
    p = job(engine, **fields)
    process_images(p)
    assert p.plan is not None
    assert p.plan.sampler.steps == 0


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M SDE", "DDIM"])
def test_extra_noise_is_added_to_no_steps_too(engine: Engine, sampler: str) -> None:  # STEP-6
    overrides = {**NO_STEPS, "img2img_extra_noise": 0.3}
    fields = {"sampler_name": sampler, "denoising_strength": 0.0}
    quiet, noisy = (
        process_images(job(engine, **fields, override_settings=each)).images[0] for each in (NO_STEPS, overrides)
    )
    assert pixels(quiet) != pixels(noisy)


def test_the_same_object_twice(engine: Engine) -> None:
    p = job(engine, **KINDS["batch"])
    first, second = process_images(p), process_images(p)
    assert [pixels(each) for each in first.images] == [pixels(each) for each in second.images]


# -- construction ------------------------------------------------------------------------------------------------------

COMMON: dict[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "seed_enable_extras": True,
    "sampler_name": None,
    "scheduler": None,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 50,
    "cfg_scale": 7.0,
    "width": 512,
    "height": 512,
    "restore_faces": None,
    "tiling": None,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "eta": None,
    "s_churn": None,
    "s_tmin": None,
    "s_tmax": None,
    "s_noise": None,
    "s_min_uncond": None,
    "override_settings_restore_afterwards": True,
    "refiner_checkpoint": None,
    "refiner_switch_at": None,
    "disable_extra_networks": False,
    "firstpass_image": None,
}
OWN: dict[str, Any] = {
    "init_images": None,
    "resize_mode": 0,
    "denoising_strength": 0.75,
    "image_cfg_scale": None,
    "mask": None,
    "mask_blur_x": 4,
    "mask_blur_y": 4,
    "mask_blur": 4,
    "mask_round": True,
    "inpainting_fill": 0,
    "inpaint_full_res": True,
    "inpaint_full_res_padding": 0,
    "inpainting_mask_invert": 0,
    "initial_noise_multiplier": 1.0,
    "latent_mask": None,
    "force_task_id": None,
}


@pytest.mark.parametrize(("name", "value"), (COMMON | OWN).items())
def test_defaults(engine: Engine, name: str, value: Any) -> None:  # REQ-1
    assert getattr(StableDiffusionProcessingImg2Img(sd_model=engine), name) == value


def test_own_fields_in_the_contracts_order() -> None:
    names = [each.name for each in dataclasses.fields(StableDiffusionProcessingImg2Img) if each.init]
    common = {each.name for each in dataclasses.fields(StableDiffusionProcessing)}
    assert [name for name in names if name not in common] == [name for name in OWN if name != "denoising_strength"]


def test_lists_are_nobody_elses(engine: Engine) -> None:  # REQ-6
    first, second = (StableDiffusionProcessingImg2Img(sd_model=engine) for _ in range(2))
    assert first.styles == []
    assert first.override_settings == {}
    assert first.styles is not second.styles
    assert first.override_settings is not second.override_settings


def test_the_mask_moves(engine: Engine) -> None:  # REQ-2
    mask = box()
    p = job(engine, mask=mask)
    assert p.image_mask is mask
    assert p.mask is None


def test_noise_multiplier_is_read_at_construction(engine: Engine) -> None:  # STEP-1
    shared.opts.initial_noise_multiplier = 0.8
    p = job(engine)
    shared.opts.initial_noise_multiplier = 0.3
    assert p.initial_noise_multiplier == 0.8
    assert job(engine, initial_noise_multiplier=0.5).initial_noise_multiplier == 0.5


@pytest.mark.parametrize(
    ("given", "x", "y", "read"),
    [
        ({}, 4, 4, 4),
        ({"mask_blur": 9}, 9, 9, 9),
        ({"mask_blur_x": 2, "mask_blur_y": 3}, 2, 3, None),
        ({"mask_blur_x": 2, "mask_blur_y": 3, "mask_blur": 5}, 5, 5, 5),
        ({"mask_blur": "7"}, 4, 4, 4),
        ({"mask_blur": None}, 4, 4, 4),
        ({"mask_blur": 0}, 0, 0, 0),
    ],
)
def test_mask_blur(engine: Engine, given: dict[str, Any], x: int, y: int, read: int | None) -> None:  # REQ-3, REQ-4
    p = job(engine, **given)
    assert (p.mask_blur_x, p.mask_blur_y, p.mask_blur) == (x, y, read)


def test_mask_blur_is_a_property(engine: Engine) -> None:
    p = job(engine)
    p.mask_blur = 6
    assert (p.mask_blur_x, p.mask_blur_y) == (6, 6)
    p.mask_blur_y = 1
    assert p.mask_blur is None


@pytest.mark.parametrize("seed", [None, "", "none", -1])
def test_no_seed_is_a_new_seed(engine: Engine, seed: Any) -> None:  # REQ-1, SEED-1
    seeds = {process_images(job(engine, seed=seed, steps=1)).seed for _ in range(3)}
    assert len(seeds) > 1
    assert min(seeds) >= 0


def test_extras_can_be_off(engine: Engine) -> None:  # REQ-1
    fields = {"subseed_strength": 0.5, "seed_resize_from_w": 64, "seed_resize_from_h": 64}
    request = job(engine, seed_enable_extras=False, **fields).request()
    assert request.variation_strength == 0
    assert request.seed_resize is None
    assert job(engine, **fields).request().seed_resize == (64, 64)
    assert job(engine, seed_resize_from_w=64).request().seed_resize is None


def test_the_model_is_honoured(engine: Engine, other_checkpoint: Path) -> None:
    with Engine(other_checkpoint, device="cpu", dtype="float32") as other:
        first, second, third = (process_images(job(each)) for each in (engine, other, engine))
    assert pixels(first.images[0]) != pixels(second.images[0])
    assert pixels(first.images[0]) == pixels(third.images[0])
    assert "Model: other" in second.info


def test_shared_model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "sd_model", engine, raising=False)
    assert StableDiffusionProcessingImg2Img().sd_model is engine
    with pytest.raises(TypeError, match="sd_model"):
        process_images(job(engine, sd_model="tiny"))


def test_what_is_not_offered_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="restore_faces"):
        process_images(job(engine, restore_faces=True))


# -- init and sample by hand -------------------------------------------------------------------------------------------


def test_init_publishes(engine: Engine) -> None:
    p = job(engine, mask=box(), inpaint_full_res=False, inpainting_fill=1, mask_blur=0, batch_size=2)
    p.init(["a", "b"], [1, 2], [3, 4])
    assert p.init_latent is not None
    assert p.nmask is not None
    assert isinstance(p.mask, Tensor)
    assert p.image_conditioning is not None
    assert p.init_latent.shape == (2, 4, 4, 4)
    assert p.nmask.shape[-3:] == (4, 4, 4)
    expected = torch.zeros(4, 4, 4)
    expected[:, 1:3, 1:3] = 1
    assert torch.equal(p.nmask.reshape(4, 4, 4), expected)  # 1 = regenerate
    assert torch.equal(p.mask, 1 - p.nmask)
    assert p.image_conditioning.shape == (2, 5, 1, 1)  # COND-1
    assert not p.image_conditioning.any()
    assert p.overlay_images is not None
    assert len(p.overlay_images) == 2  # IMG-2
    assert p.overlay_images[0].mode == "RGBA"
    assert p.mask_for_overlay.convert("L").getextrema() == (0, 255)
    assert p.paste_to is None


def test_init_publishes_overlays_in_the_sane_manner_too(engine: Engine, sane_options: None) -> None:
    p = job(engine, mask=box(), inpaint_full_res=False)
    p.init(["a"], [1], [3])
    assert p.overlay_images is not None
    assert p.overlay_images[0] is not None


def test_init_without_mask(engine: Engine) -> None:  # OVL-4
    p = job(engine)
    p.init(["a"], [1], [2])
    assert p.nmask is None
    assert p.mask is None
    assert p.overlay_images is None
    assert p.mask_for_overlay is None


def test_init_of_an_only_masked_job(engine: Engine) -> None:  # MASK-7
    p = job(engine, mask=box(area=(8, 8, 16, 16)), mask_blur=0)
    p.init(["a"], [1], [2])
    assert p.paste_to == (8, 8, 8, 8)
    assert p.mask_for_overlay.size == (32, 32)
    assert p.init_latent is not None
    assert p.init_latent.shape == (1, 4, 4, 4)


def test_a_blank_mask_is_dropped(engine: Engine) -> None:  # MASK-6
    p = job(engine, mask=box(area=(0, 0, 0, 0)))
    p.init(["a"], [1], [2])
    assert p.overlay_images == []
    assert p.mask_for_overlay is None
    assert p.nmask is None


def test_init_latent_holds_the_masked_content(engine: Engine) -> None:  # LAT-4
    p = job(engine, mask=box(), inpaint_full_res=False, inpainting_fill=3, mask_blur=0)
    p.init(["a"], [1], [2])
    assert p.init_latent is not None
    assert not p.init_latent[0, :, 1:3, 1:3].any()
    assert p.init_latent[0, :, 0].any()


def test_init_again_sees_what_was_changed_in_between(engine: Engine) -> None:
    p = job(engine)
    p.init(["a"], [1], [2])
    assert p.init_latent is not None
    before = p.init_latent.clone()
    p.init_images = [scene(seed=9).rotate(90)]
    p.init(["a"], [1], [2])
    assert not torch.equal(before, p.init_latent)


def test_sample_by_hand_is_what_process_images_does(engine: Engine) -> None:
    kept: list[Tensor] = []

    class Keeping(StableDiffusionProcessingImg2Img):
        def sample(self, *args: Any, **kwargs: Any) -> Tensor:
            kept.append(super().sample(*args, **kwargs))
            return kept[-1]

    fields = {"prompt": "a", "negative_prompt": "dog"}
    whole = Keeping(**{**_fields(engine), **fields})
    process_images(whole)
    p = job(engine, **fields)
    p.init(["a"], [1], [5])
    assert p.plan is not None
    texts = stages_of(engine).texts(p.plan, p.plan.batches[0])
    samples = p.sample(tuple(each.parts for each in texts), tuple(each.negative for each in texts), [1], [5], 0, ["a"])
    assert torch.equal(samples, kept[0])
    other = p.sample(tuple(each.parts for each in texts), tuple(each.negative for each in texts), [2], [5], 0, ["a"])
    assert not torch.equal(samples, other)  # the seeds given are the seeds used


def _fields(engine: Engine) -> dict[str, Any]:
    p = job(engine)
    return {each.name: getattr(p, each.name) for each in dataclasses.fields(p) if each.init and each.name != "mask"}


def test_sample_before_init(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="init"):
        job(engine).sample((), (), [1], [1], 0, [""])


def test_a_subclass_may_sample_its_own_way(engine: Engine) -> None:
    class Gray(StableDiffusionProcessingImg2Img):
        def sample(self, *args: Any, **kwargs: Any) -> Tensor:
            assert self.init_latent is not None
            return torch.zeros_like(self.init_latent)

    result = process_images(Gray(**_fields(engine)))
    values = np.asarray(result.images[0]).astype(int)
    assert values.std() < 8
    assert abs(values.mean() - np.asarray(process_images(job(engine)).images[0]).mean()) > 0


def test_what_the_job_publishes_while_it_runs(engine: Engine) -> None:  # JOB-4.3
    seen: list[tuple[int, list[str], list[int], list[int]]] = []

    class Watching(StableDiffusionProcessingImg2Img):
        def sample(self, *args: Any, **kwargs: Any) -> Tensor:
            seen.append((self.iteration, self.prompts, self.seeds, self.subseeds))
            return super().sample(*args, **kwargs)

    p = Watching(**{**_fields(engine), "batch_size": 2, "n_iter": 2, "prompt": ["a", "b", "c", "d"]})
    result = process_images(p)
    assert seen == [(0, ["a", "b"], [1, 2], [5, 6]), (1, ["c", "d"], [3, 4], [7, 8])]
    assert p.all_prompts == ["a", "b", "c", "d"]
    assert p.all_seeds == [1, 2, 3, 4]
    assert p.color_corrections is None  # JOB-5
    assert result.all_seeds == p.all_seeds


def test_own_infotext_fields_are_kept(engine: Engine) -> None:  # INFO-6: scripts write theirs
    result = process_images(job(engine, extra_generation_params={"My script": "on"}))
    assert "My script: on" in result.info


def test_processed(engine: Engine) -> None:
    result = process_images(job(engine, batch_size=2))
    assert isinstance(result, Processed)
    assert len(result.images) == len(result.infotexts) == 2
    assert result.images[0].info["parameters"] == result.info
    assert result.seed == 1


def test_own_infotext_fields_may_differ_from_picture_to_picture(engine: Engine) -> None:  # INFO-4
    own = {"Each": ["a", "b"], "Asked": lambda index: f"number {index}"}
    result = process_images(job(engine, batch_size=2, extra_generation_params=own))
    assert ["Each: a, Asked: number 0" in result.infotexts[0], "Each: b, Asked: number 1" in result.infotexts[1]] == [
        True,
        True,
    ]


def test_the_timestamp_of_the_job(engine: Engine) -> None:  # NAMEPAT-3
    assert len(process_images(job(engine, steps=1)).job_timestamp) == 14


# -- saving ------------------------------------------------------------------------------------------------------------


def saved(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_pictures_are_saved(engine: Engine, tmp_path: Path) -> None:  # OUT-5, NAMEPAT-2
    options = {"save_to_dirs": False, "grid_save_to_dirs": False, "save_mask": True}
    fields = {
        "outpath_samples": str(tmp_path / "s"),
        "outpath_grids": str(tmp_path / "g"),
        "override_settings": options,
    }
    result = process_images(
        job(engine, batch_size=2, mask=box(), do_not_save_samples=False, do_not_save_grid=False, **fields)
    )
    names = saved(tmp_path / "s")
    assert len([name for name in names if "-mask" in name]) == 2
    assert len(names) == 4
    assert len(saved(tmp_path / "g")) == 1
    first = next(name for name in names if "-mask" not in name)
    with Image.open(tmp_path / "s" / first) as picture:
        assert picture.info["parameters"] == result.infotexts[0]
        assert picture.tobytes() == result.images[0].tobytes()


def test_nothing_is_saved_unasked(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process_images(job(engine, batch_size=2))
    shared.opts.samples_save = shared.opts.grid_save = False
    process_images(job(engine, batch_size=2, do_not_save_samples=False, do_not_save_grid=False))
    assert saved(tmp_path) == []


# -- interruption ------------------------------------------------------------------------------------------------------


class Pressing(StableDiffusionProcessingImg2Img):
    """Presses a button of the page when an iteration begins."""

    when = 1
    button = "interrupt"

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.iteration == self.when:
            getattr(shared.state, self.button)()
        return super().sample(*args, **kwargs)


@pytest.mark.parametrize(
    ("button", "when", "count", "kept"),
    [
        ("interrupt", 1, 2, [0]),  # OUT-5: the second is incomplete
        ("skip", 1, 3, [0, 2]),
        ("stop_generating", 1, 2, [0, 1]),  # INT-3: the current iteration completes fully
        ("interrupt", 0, 1, []),
        ("stop_generating", 2, 3, [0, 1, 2]),
    ],
)
def test_buttons(engine: Engine, tmp_path: Path, button: str, when: int, count: int, kept: list[int]) -> None:
    p = Pressing(**{**_fields(engine), "n_iter": 3, "do_not_save_samples": False, "outpath_samples": str(tmp_path)})
    p.when, p.button = when, button
    result = process_images(p)
    whole = process_images(job(engine, n_iter=3))
    assert len(result.images) == count  # INT-3, INT-5
    same = [pixels(a) == pixels(b) for a, b in zip(result.images, whole.images, strict=False)]
    assert same == [i != when or button == "stop_generating" for i in range(count)]
    seeds = sorted(int(Path(name).stem.split("-")[-1]) - 1 for name in saved(tmp_path))
    assert seeds == kept


def test_state_while_the_job_runs(engine: Engine) -> None:  # STEP-8, JOB-2.10
    seen: list[tuple[Any, ...]] = []

    class Watching(StableDiffusionProcessingImg2Img):
        def sample(self, *args: Any, **kwargs: Any) -> Tensor:
            state = shared.state
            before = (state.job, state.job_count, state.job_no, state.sampling_steps)
            samples = super().sample(*args, **kwargs)
            seen.append((*before, state.sampling_step))
            return samples

    process_images(Watching(**{**_fields(engine), "n_iter": 2}))
    steps = int(0.75 * 3) + 1
    assert seen == [("img2img", 2, 0, steps, steps), ("img2img", 2, 1, steps, steps)]
    assert shared.state.job == ""
    assert shared.state.job_count == 0


def test_a_live_preview(engine: Engine) -> None:
    shared.opts.show_progress_every_n_steps = 1
    process_images(job(engine))
    assert isinstance(shared.state.current_image, Image.Image)


def test_an_error_ends_the_job(engine: Engine) -> None:
    with pytest.raises(ValueError):
        process_images(job(engine, steps=0))
    assert shared.state.job == ""
    process_images(job(engine))


def test_a_cancel_message_at_the_contracts_door(engine: Engine) -> None:
    from overpaint.events import Stop

    class Cancelling(StableDiffusionProcessingImg2Img):
        def sample(self, *args: Any, **kwargs: Any) -> Tensor:
            if self.iteration == 1:
                shared.state.ask(Stop.CANCEL)
            return super().sample(*args, **kwargs)

    result = process_images(Cancelling(**{**_fields(engine), "n_iter": 3}))
    assert len(result.images) == 1


def test_quirks_of_one_job_are_the_sites(engine: Engine) -> None:
    shared.opts.quirks = dataclasses.replace(Quirks.none(), truncate_pixels=True)
    cut = np.asarray(process_images(job(engine)).images[0]).astype(int)
    shared.opts.quirks = Quirks.none()
    rounded = np.asarray(process_images(job(engine)).images[0]).astype(int)
    assert set(np.unique(rounded - cut)) == {0, 1}  # DEC-3
