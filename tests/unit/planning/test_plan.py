"""JOB, REQ, PAR, INFO-6: what is decided before any network is touched."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from overpaint.errors import OverpaintError, RequestError, SettingError
from overpaint.planning.plan import plan
from overpaint.planning.plans import Surroundings
from overpaint.planning.preflight import network_calls
from overpaint.request import MaskedContent, SoftInpainting
from overpaint.sampler_table import SAMPLERS
from overpaint.settings import Settings
from overpaint.text.styles import Style
from tests.unit.toy_job import REFERENCE, SANE, asked, box_mask, noisy_picture, planned, with_quirk

WHITE_BOX = box_mask(32, 32, (8, 8, 20, 20))
BOTH = pytest.mark.parametrize("settings", [SANE, REFERENCE], ids=["sane", "reference"])


# -- steps, start, parameters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strength", "steps", "t_enc"), [(0.7, 10, 7), (0.6, 20, 12), (0.57, 100, 56), (0.29, 100, 28), (1, 20, 19)]
)
@BOTH
def test_step_rule(settings: Settings, strength: float, steps: int, t_enc: int) -> None:  # STEP-3
    decided = planned(settings, strength=strength, steps=steps, sampler="Euler").sampler
    assert decided.t_enc == t_enc
    assert decided.steps == steps
    assert decided.evaluations == t_enc + 1  # STEP-8
    assert len(decided.used) == t_enc + 2  # STEP-4: the last is 0
    assert decided.start == decided.used[0] == float(decided.schedule[steps - t_enc - 1])


@pytest.mark.parametrize(("strength", "asked_steps", "steps"), [(0.3, 20, 66), (0.7, 10, 14), (0.57, 100, 175)])
def test_fixed_steps(strength: float, asked_steps: int, steps: int) -> None:  # STEP-3, rule B
    options = Settings.reference(img2img_fix_steps=True)
    decided = planned(options, strength=strength, steps=asked_steps, sampler="Euler").sampler
    assert (decided.steps, decided.t_enc) == (steps, asked_steps - 1)
    assert decided.prompt_steps == asked_steps  # SCHED-4: prompts count the request's steps


def test_timesteps_of_the_reference() -> None:  # TS-1, STEP-5
    decided = planned(REFERENCE, strength=0.6, steps=10, sampler="DDIM").sampler
    assert decided.start == 601
    assert decided.used == (1, 101, 201, 301, 401, 501)


def test_timesteps_without_the_skipped_call() -> None:  # STEP-5: noised to the first timestep that is evaluated
    decided = planned(strength=0.6, steps=10, sampler="DDIM").sampler
    assert decided.start == decided.used[-1] == 601


@pytest.mark.parametrize("sampler", ["Euler", "DPM fast", "DPM adaptive", "DDIM", "PLMS", "UniPC", "LCM", "Restart"])
@pytest.mark.parametrize("fixed", [False, True], ids=["plain", "img2img_fix_steps"])
def test_strength_zero_is_the_identity(sampler: str, fixed: bool) -> None:  # STEP-4, STEP-10
    assert planned(Settings(img2img_fix_steps=fixed), strength=0, sampler=sampler).unchanged


@pytest.mark.parametrize("sampler", [each.name for each in SAMPLERS])
@pytest.mark.parametrize("discards", [False, True], ids=["plain", "discards"])
def test_strength_zero_with_fixed_steps_has_no_steps(sampler: str, discards: bool) -> None:  # STEP-3 B, STEP-10
    options = Settings.reference(img2img_fix_steps=True, always_discard_next_to_last_sigma=discards)
    decided = planned(options, strength=0, sampler=sampler)
    walk = decided.sampler
    assert (walk.steps, walk.evaluations, walk.start) == (0, 0, 0.0)
    assert walk.used == (() if walk.spec.family == "timestep" else (0.0,))
    assert network_calls(decided) == 0
    assert decided.unchanged is None
    assert decided.warnings == ("strength: at 0 the autoencoder still runs, so the picture changes a little",)


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM2 a", "Euler", "DPM++ 3M SDE"])
def test_a_schedule_without_steps_is_named_as_any_other(sampler: str) -> None:  # INFO-6
    options = Settings.reference(img2img_fix_steps=True, rho=5.0)
    none, some = (planned(options, strength=each, sampler=sampler).sampling_notes for each in (0, 0.5))
    assert list(none.items()) == list(some.items())


def test_fixed_steps_of_a_tiny_strength_stay_within_limits() -> None:  # STEP-3: steps / strength is 4 million here
    try:
        decided = planned(Settings(img2img_fix_steps=True), strength=1e-6, sampler="Euler").sampler
    except OverpaintError as error:
        assert "strength" in str(error)
    else:
        assert decided.steps <= 1_000_000


@pytest.mark.parametrize(
    ("sampler", "second_order"), [("Euler", False), ("Heun", True), ("DPM2 a", True), ("DPM++ SDE", True)]
)
def test_prompt_steps_count_double(sampler: str, second_order: bool) -> None:  # TAB-3
    assert planned(sampler=sampler, steps=7).sampler.prompt_steps == (14 if second_order else 7)


def test_guidance_of_cfg_pp() -> None:  # TUP-2
    assert planned(sampler="DDIM CFG++", cfg_scale=7.5).sampler.cfg_scale == pytest.approx(0.6)
    assert planned(sampler="DDIM", cfg_scale=7.5).sampler.cfg_scale == 7.5


@pytest.mark.parametrize(
    ("sampler", "given", "expected"),
    [("Euler a", None, 0.9), ("Euler a", 0.5, 0.5), ("DDIM", None, 0.2), ("DDIM", 0, 0.0)],
)
def test_eta(sampler: str, given: float | None, expected: float) -> None:  # PAR-1
    options = Settings(eta_ancestral=0.9, eta_ddim=0.2)
    assert planned(options, sampler=sampler, eta=given).sampler.eta == expected


def test_churn_of_the_request_wins_unless_the_reference_lets_the_option() -> None:  # PAR-3
    changed = {"s_churn": 5.0, "s_noise": 1.0}
    fields = {"sampler": "Euler", "s_churn": 2.0, "s_noise": 1.1, "overrides": changed}
    sane, reference = planned(SANE, **fields).sampler, planned(REFERENCE, **fields).sampler
    assert (sane.s_churn, sane.s_noise) == (2.0, 1.1)
    assert (reference.s_churn, reference.s_noise) == (5.0, 1.1)  # s_noise is at its default, so the request's counts


@pytest.mark.parametrize("given", [None, 0, 0.0])
def test_unset_s_tmax_is_infinite(given: float | None) -> None:  # JOB-2.5
    assert planned(s_tmax=given).sampler.s_tmax == math.inf


def test_noise_multiplier() -> None:  # STEP-1
    override = {"initial_noise_multiplier": 0.5}
    assert planned(SANE, overrides=override).sampler.noise_multiplier == 0.5
    assert planned(REFERENCE, overrides=override).sampler.noise_multiplier == 1.0
    assert planned(REFERENCE, noise_multiplier=0.8).sampler.noise_multiplier == 0.8
    assert planned(Settings(initial_noise_multiplier=0.7)).sampler.noise_multiplier == 0.7


def test_late_tables() -> None:  # SIG-11
    options = Settings.reference(sd_noise_schedule="Zero Terminal SNR")
    first = plan(asked(sampler="Euler", strength=1), options, known=Surroundings(tables_in_force=REFERENCE))
    second = plan(asked(sampler="Euler", strength=1), options, known=Surroundings(tables_in_force=first.settings))
    assert first.sampler.start == pytest.approx(14.61464214)
    assert second.sampler.start == pytest.approx(4518.7637, rel=1e-6)  # SIG-10
    sane = plan(asked(sampler="Euler", strength=1), dataclasses.replace(SANE, sd_noise_schedule="Zero Terminal SNR"))
    assert sane.sampler.start == second.sampler.start


# -- texts and seeds ---------------------------------------------------------------------------------------------------


@BOTH
def test_one_prompt_serves_every_picture(settings: Settings) -> None:  # JOB-3, SEED-2
    decided = planned(settings, prompt="a cat", negative_prompt="blurry", batch_size=2, iterations=2, seed=7)
    assert [each.prompt for each in decided.images] == ["a cat"] * 4
    assert [each.seed for each in decided.images] == [7, 8, 9, 10]
    assert [each.subseed for each in decided.images] == [2, 3, 4, 5]
    assert [[each.index for each in batch] for batch in decided.batches] == [[0, 1], [2, 3]]


@BOTH
def test_a_variation_keeps_the_seed(settings: Settings) -> None:  # SEED-2
    decided = planned(settings, batch_size=3, seed=7, variation_seed=20, variation_strength=0.3)
    assert [(each.seed, each.subseed) for each in decided.images] == [(7, 20), (7, 21), (7, 22)]


@BOTH
def test_prompt_lists(settings: Settings) -> None:  # JOB-3
    decided = planned(settings, prompt=("a", "b"), negative_prompt="n", batch_size=2)
    assert [(each.prompt, each.negative_prompt) for each in decided.images] == [("a", "n"), ("b", "n")]
    decided = planned(settings, prompt="p", negative_prompt=("x", "y"), batch_size=2)
    assert [(each.prompt, each.negative_prompt) for each in decided.images] == [("p", "x"), ("p", "y")]


def test_a_short_prompt_list_ends_the_reference_early() -> None:  # JOB-3
    decided = planned(REFERENCE, prompt=("a", "b", "c"), batch_size=2, iterations=3)
    assert [len(batch) for batch in decided.batches] == [2, 1]
    with pytest.raises(RequestError, match=r"prompt=.*give 6"):
        planned(SANE, prompt=("a", "b", "c"), batch_size=2, iterations=3)


@pytest.mark.parametrize("name", ["seed", "variation_seed"])
def test_a_list_of_seeds_serves_every_picture_or_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        planned(batch_size=3, **{name: (1, 2)})


def test_fewer_pictures_than_places() -> None:  # IMG-3
    fields: dict[str, Any] = {"images": (noisy_picture(32, 32), noisy_picture(32, 32, seed=1)), "batch_size": 3}
    assert [len(batch) for batch in planned(REFERENCE, **fields).batches] == [2]
    sane = planned(SANE, **fields)
    assert [len(batch) for batch in sane.batches] == [3]
    assert sane.canvas_of(2) is sane.canvases[0]


@BOTH
def test_styles_and_comments(settings: Settings) -> None:  # JOB-3, STY
    styles = (Style("oil", "oil painting of {prompt}", "photo"), Style("big", "large", ""))
    request = asked(prompt="a cat # from memory", negative_prompt="blurry", styles=("oil", "big"))
    image = plan(request, settings, known=Surroundings(styles=styles)).images[0]
    assert "#" not in image.prompt
    assert "oil painting of a cat" in image.prompt
    assert image.prompt.endswith("large") or "memory" not in image.prompt
    assert image.negative_prompt == "blurry, photo"


def test_unknown_names() -> None:  # NAME-1, STY-2
    for field, value, near in (
        ("sampler", "Eular", "Euler"),
        ("scheduler", "Karas", "Karras"),
        ("styles", ("cubist",), "cubist"),
        ("overrides", {"img2img_color_corection": True}, "img2img_color_correction"),
    ):
        with pytest.raises(RequestError, match=near):
            planned(SANE, **{field: value})
    reference = planned(REFERENCE, sampler="Eular", scheduler="Karas", styles=("cubist",))
    assert (reference.sampler.spec.name, reference.sampler.scheduler) == ("DPM++ 2M", "Automatic")
    with pytest.raises(SettingError, match="img2img_color_correction"):  # JOB-1.4: KeyError there too
        planned(REFERENCE, overrides={"img2img_color_corection": True})


def test_an_unknown_style_names_the_known() -> None:
    with pytest.raises(RequestError, match="oil"):
        plan(asked(styles=("oill",)), SANE, known=Surroundings(styles=(Style("oil", "", ""),)))


# -- options and the request's own values ------------------------------------------------------------------------------


@BOTH
def test_the_requests_own_values_win(settings: Settings) -> None:  # PAR-3
    site = settings.with_changes({"tiling": True, "CLIP_stop_at_last_layers": 2})
    decided = planned(site, tiling=False, clip_skip=3, color_correction=True, overrides={"tiling": True})
    assert not decided.settings.tiling
    assert decided.settings.CLIP_stop_at_last_layers == 3
    assert decided.settings.img2img_color_correction
    assert planned(site).settings.tiling
    assert site.tiling  # a site's settings are nobody's to change


def test_a_plan_leaves_the_request_as_it_was() -> None:
    request = asked(prompt=("a", "b"), batch_size=2, mask=WHITE_BOX, overrides={"tiling": True})
    before = request.to_json()
    first, second = plan(request, SANE), plan(request, SANE)
    assert request.to_json() == before
    assert first.images == second.images
    assert first.sampler.used == second.sampler.used


# -- infotext notes ----------------------------------------------------------------------------------------------------


@BOTH
def test_notes_are_in_the_order_of_the_job(settings: Settings) -> None:  # INFO-6
    decided = planned(
        settings,
        mask=WHITE_BOX,
        invert_mask=True,
        only_masked=True,
        padding=8,
        masked_content=MaskedContent.FILL,
        soft_inpainting=SoftInpainting(),
        width=32,
        height=32,
    )
    assert list(decided.notes) == [
        "Soft inpainting enabled",
        "Soft inpainting schedule bias",
        "Soft inpainting preservation strength",
        "Soft inpainting transition contrast boost",
        "Soft inpainting mask influence",
        "Soft inpainting difference threshold",
        "Soft inpainting difference contrast",
        "Denoising strength",
        "Mask mode",
        "Mask blur",
        "Inpaint area",
        "Masked area padding",
        "Masked content",
    ]
    assert decided.notes["Mask mode"] == "Inpaint not masked"
    assert decided.notes["Masked content"] == "fill"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (MaskedContent.FILL, "fill"),
        (MaskedContent.ORIGINAL, None),
        (MaskedContent.NOISE, "latent noise"),
        (MaskedContent.NOTHING, "latent nothing"),
    ],
)
def test_masked_content_note(content: MaskedContent, text: str | None) -> None:  # INFO-7, LAT-4 to LAT-6
    assert planned(mask=WHITE_BOX, masked_content=content).notes.get("Masked content") == text
    assert "Masked content" not in planned(masked_content=content).notes


def test_mask_blur_note() -> None:  # MASK-4
    assert planned(mask=WHITE_BOX, mask_blur_x=3, mask_blur_y=3).notes["Mask blur"] == 3
    assert planned(mask=WHITE_BOX, mask_blur_x=3, mask_blur_y=4).notes["Mask blur"] is None
    assert "Mask blur" not in planned(mask=WHITE_BOX, mask_blur_x=0, mask_blur_y=0).notes


def test_sampling_notes() -> None:  # INFO-6
    options = Settings.reference(
        sd_noise_schedule="Zero Terminal SNR",
        img2img_extra_noise=0.1,
        s_churn=5.0,
        s_noise=1.01,
        sigma_min=0.1,
        rho=5.0,
        always_discard_next_to_last_sigma=True,
    )
    decided = planned(options, sampler="Euler", scheduler="Karras", noise_multiplier=0.9)
    assert list(decided.sampling_notes) == [
        "Noise Schedule",
        "Noise multiplier",
        "Discard penultimate sigma",
        "Schedule type",
        "Schedule min sigma",
        "Schedule rho",
        "Extra noise",
        "Sigma churn",
        "Sigma noise",
    ]


def test_downcast_note() -> None:  # SIG-9
    assert planned(Settings(use_downcasted_alpha_bar=True)).sampling_notes == {
        "Downcast alphas_cumprod": True,
        "Schedule type": "Karras",
    }


def test_two_table_options_together_start_somewhere() -> None:  # SIG-9, SIG-10: half precision ends at 65504
    options = Settings(use_downcasted_alpha_bar=True, sd_noise_schedule="Zero Terminal SNR")
    assert math.isfinite(planned(options, sampler="Euler", strength=1).sampler.start)


def test_eta_notes() -> None:  # PAR-1
    assert planned(sampler="Euler a", eta=0.5).sampling_notes["Eta"] == 0.5
    assert "Eta" not in planned(sampler="Euler a").sampling_notes
    assert planned(sampler="DDIM", eta=0.5).sampling_notes["Eta DDIM"] == 0.5
    assert not {"Eta", "Eta DDIM"} & planned(sampler="Euler", eta=0.5).sampling_notes.keys()


def test_a_request_value_alone_is_not_written_by_the_reference() -> None:  # PAR-3
    assert "Sigma churn" not in planned(REFERENCE, sampler="Euler", s_churn=5.0).sampling_notes
    assert planned(SANE, sampler="Euler", s_churn=5.0).sampling_notes["Sigma churn"] == 5.0


def test_old_timelines_are_noted_where_they_matter() -> None:  # SCHED-5
    options = Settings(use_old_scheduling=True)
    note = "Old prompt editing timelines"
    assert note not in planned(options, prompt="a cat").text_notes
    assert planned(options, prompt="[a cat:a dog:1.5]", steps=20).text_notes.get(note) is True


# -- nothing to do -----------------------------------------------------------------------------------------------------


def test_a_blank_mask() -> None:  # MASK-6, MASK-8
    blank = box_mask(32, 32, (0, 0, 0, 0))
    for only_masked in (False, True):
        sane = planned(SANE, mask=blank, only_masked=only_masked, width=32, height=32)
        assert sane.unchanged
        assert any("mask" in each for each in sane.warnings)
    only = planned(REFERENCE, mask=blank, only_masked=True)
    assert only.mask is None
    assert only.unchanged is None
    assert "mask is blank" in only.comments[0]
    whole = planned(REFERENCE, mask=blank)
    assert whole.mask is not None
    assert not whole.mask.latent.any()
    assert not whole.comments


def test_an_inverted_white_mask_is_blank() -> None:
    white = box_mask(32, 32, (0, 0, 32, 32))
    assert planned(SANE, mask=white, invert_mask=True).unchanged


def test_strength_zero_of_the_reference_runs() -> None:  # STEP-4
    decided = planned(REFERENCE, strength=0, sampler="Euler")
    assert decided.unchanged is None
    assert decided.sampler.evaluations == 1
    assert any("strength" in each for each in decided.warnings)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"steps": 1001}, ("steps=1001", "max_steps")),
        ({"batch_size": 50, "iterations": 40}, ("2000", "max_images")),
        ({"prompt": "x" * 32_001}, ("prompt", "32001", "max_prompt_chars")),
        ({"negative_prompt": ("x" * 32_001,)}, ("negative_prompt", "max_prompt_chars")),
        ({"width": 4096, "height": 4096}, ("4096x4096",)),
        ({"width": 7, "height": 64, "overrides": {}}, ("7x64", "8x8")),
    ],
)
def test_limits(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        planned(REFERENCE, **fields)
    for name in names:
        assert name in str(caught.value)


def test_a_size_beyond_the_limit_is_refused_before_any_picture_is_made() -> None:
    started = time.process_time()
    with pytest.raises(RequestError, match="8192x8192"):
        planned(SANE, width=8192, height=8192, mask=WHITE_BOX)
    assert time.process_time() - started < 0.1


def test_what_is_not_offered_is_refused() -> None:
    with pytest.raises(SettingError, match="face_restoration"):
        planned(overrides={"face_restoration": True})


BRACKETS = ["(" * 100_000, "[" * 100_000, "[(" * 50_000, "(((a:1.1)" * 11_000, "[a|" * 33_000, "[[a:b:" * 16_000]


@BOTH
@pytest.mark.parametrize("prompt", BRACKETS, ids=lambda text: text[:9])
def test_brackets_without_end(settings: Settings, prompt: str) -> None:
    request = asked(prompt=prompt[:100_000])
    started = time.process_time()
    with pytest.raises(RequestError, match="max_prompt_chars"):
        plan(request, settings)
    assert time.process_time() - started < 0.1
    for old in (False, True):
        raised = settings.with_changes({"max_prompt_chars": 200_000, "use_old_scheduling": old})
        started = time.process_time()
        with suppress(RequestError):  # brackets multiply, to a weight that is refused
            plan(request, raised)
        assert time.process_time() - started < 1


# -- each accident alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(SANE.quirks)])
def test_every_accident_can_be_had_alone(name: str) -> None:
    for fields in ({}, {"only_masked": True, "width": 32, "height": 40}, {"width": 30, "height": 42}):
        decided = planned(with_quirk(name), mask=WHITE_BOX, **fields)
        assert decided.settings.quirks != SANE.quirks
        assert decided.batches


@runs(deadline=None)
@given(
    steps=st.integers(1, 150),
    strength=st.floats(0, 1),
    sampler=st.sampled_from(["Euler", "Heun", "DPM++ 2M", "DPM2 a", "DDIM", "UniPC", "LCM", "Restart"]),
    reference=st.booleans(),
)
def test_the_walk_is_always_monotone(steps: int, strength: float, sampler: str, reference: bool) -> None:
    decided = planned(REFERENCE if reference else SANE, steps=steps, strength=strength, sampler=sampler).sampler
    descending = decided.spec.family != "timestep"
    assert list(decided.used) == sorted(decided.used, reverse=descending)
    assert all(math.isfinite(each) for each in decided.used)
    assert math.isfinite(decided.start)


def test_clip_skip_stays_within_the_text_encoder() -> None:  # ENCODE-4
    assert planned(clip_skip=13).settings.CLIP_stop_at_last_layers == 13  # what goes into the first of 12 layers
    with pytest.raises(RequestError, match="clip_skip=14: give 1 to 13"):
        planned(clip_skip=14)
    with pytest.raises(RequestError, match="CLIP_stop_at_last_layers=0: give 1 to 13"):
        planned(overrides={"CLIP_stop_at_last_layers": 0})
