"""INFO, GRID, JOB-6, OUT-4, I2I-7: the account a job gives of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from overpaint.finish import FinishedPicture
from overpaint.models.families import SD1_SPEC
from overpaint.outcome import FinishedBatch, ModelIdentity, Processed, account, contact_sheet
from overpaint.planning.plan import Plan, plan
from overpaint.request import MaskedContent, SoftInpainting
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext
from overpaint.version import __version__
from tests.unit.toy_job import REFERENCE, SANE, asked, box_mask, planned

MODEL = ModelIdentity("tiny-sd15", "0c72c677cf")
MASK = box_mask(32, 32, (8, 8, 20, 20))


def done(decided: Plan, **extras: Image.Image) -> list[FinishedBatch]:
    """Every batch of a plan with one-coloured pictures, and what sampling would add to the infotext."""
    return [
        FinishedBatch(batch, tuple(_finished(each.index, extras) for each in batch), decided.sampling_notes)
        for batch in decided.batches
    ]


def _finished(index: int, extras: dict[str, Any]) -> FinishedPicture:
    return FinishedPicture(Image.new("RGB", (8, 8), (index, 0, 0)), **extras)


def told(decided: Plan, model: ModelIdentity = MODEL) -> Processed:
    return account(decided, model, done(decided))


def parameters(decided: Plan, model: ModelIdentity = MODEL) -> dict[str, str]:
    return split_infotext(told(decided, model).infotexts[0]).fields


def test_the_reference_example() -> None:  # INFO-12 a
    decided = planned(
        REFERENCE,
        prompt="a photo of a cat, highly detailed",
        negative_prompt="blurry, low quality",
        steps=8,
        sampler="Euler",
        cfg_scale=7.0,
        seed=1234,
        width=128,
        height=128,
        strength=0.6,
    )
    assert told(decided).infotexts[0] == (
        "a photo of a cat, highly detailed\nNegative prompt: blurry, low quality\n"
        "Steps: 8, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 1234, Size: 128x128, "
        f"Model hash: 0c72c677cf, Model: tiny-sd15, Denoising strength: 0.6, Version: overpaint-{__version__}"
    )


def test_the_variation_example() -> None:  # INFO-12 c
    decided = planned(REFERENCE, variation_seed=99, variation_strength=0.3, strength=0.6)
    text = told(decided).info
    assert "Model: tiny-sd15, Variation seed: 99, Variation seed strength: 0.3, Denoising strength: 0.6" in text


def test_the_soft_example() -> None:  # INFO-12 d
    decided = planned(REFERENCE, mask=MASK, mask_blur_x=8, mask_blur_y=8, soft_inpainting=SoftInpainting())
    assert (
        "Denoising strength: 0.75, Soft inpainting enabled: True, Soft inpainting schedule bias: 1, "
        "Soft inpainting preservation strength: 0.5, Soft inpainting transition contrast boost: 4, "
        "Soft inpainting mask influence: 0, Soft inpainting difference threshold: 0.5, "
        "Soft inpainting difference contrast: 2, Mask blur: 8, Version: "
    ) in told(decided).info


def test_the_churn_example() -> None:  # INFO-12 e
    decided = planned(Settings.reference(s_churn=5.0, s_tmax=8.0, s_noise=1.01), sampler="DPM2")
    text = told(decided).info
    assert "Sampler: DPM2, Schedule type: Karras, " in text
    assert "Sigma churn: 5.0, Sigma tmax: 8.0, Sigma noise: 1.01, Version: " in text


def test_the_inverted_example() -> None:  # INFO-12 f
    assert "Mask mode: Inpaint not masked, Mask blur: 4, Version: " in told(planned(mask=MASK, invert_mask=True)).info


def test_all_fields_of_a_rich_request_are_in_order() -> None:  # INFO-5, INFO-6
    options = Settings.reference(
        eta_noise_seed_delta=31337, randn_source="CPU", img2img_extra_noise=0.1, initial_noise_multiplier=0.9
    )
    request = asked(
        prompt="a, b",
        negative_prompt="c: d",
        sampler="DPM2 a",
        scheduler="Karras",
        eta=0.8,
        mask=MASK,
        invert_mask=True,
        only_masked=True,
        padding=8,
        width=32,
        height=32,
        masked_content=MaskedContent.NOISE,
        seed_resize=(64, 72),
        variation_strength=0.25,
        clip_skip=2,
        tiling=True,
    )
    decided = plan(request, options, replace(SD1_SPEC, conditioning="inpaint"))
    model = ModelIdentity("m, x", "abcdef1234", "vae.pt", "1234567890")
    found = split_infotext(told(decided, model).info)
    assert (found.prompt, found.negative_prompt) == ("a, b", "c: d")
    assert list(found.fields.items()) == [
        ("Steps", "4"),
        ("Sampler", "DPM2 a"),
        ("Schedule type", "Karras"),
        ("CFG scale", "7.0"),
        ("Seed", "1"),
        ("Size", "32x32"),
        ("Model hash", "abcdef1234"),
        ("Model", "m, x"),
        ("VAE hash", "1234567890"),
        ("VAE", "vae.pt"),
        ("Variation seed", "2"),
        ("Variation seed strength", "0.25"),
        ("Seed resize from", "64x72"),
        ("Denoising strength", "0.75"),
        ("Conditional mask weight", "1.0"),
        ("Clip skip", "2"),
        ("ENSD", "31337"),
        ("RNG", "CPU"),
        ("Tiling", "True"),
        ("Mask mode", "Inpaint not masked"),
        ("Mask blur", "4"),
        ("Inpaint area", "Only masked"),
        ("Masked area padding", "8"),
        ("Masked content", "latent noise"),
        ("Noise multiplier", "0.9"),
        ("Extra noise", "0.1"),
        ("Eta", "0.8"),
        ("Version", f"overpaint-{__version__}"),
    ]


@pytest.mark.parametrize(
    ("sampler", "eta", "written"), [("Euler a", None, True), ("Euler a", 0.0, False), ("Euler", None, False)]
)
def test_ensd(sampler: str, eta: float | None, written: bool) -> None:  # INFO-5 18
    decided = planned(Settings(eta_noise_seed_delta=5), sampler=sampler, eta=eta)
    assert ("ENSD" in parameters(decided)) == written


def test_fields_can_be_switched_off() -> None:  # INFO-5
    names = ("add_model_name_to_info", "add_model_hash_to_info", "add_vae_name_to_info", "add_vae_hash_to_info")
    options = Settings(add_version_to_infotext=False).with_changes(dict.fromkeys(names, False))
    model = ModelIdentity("m", "h", "v", "vh")
    assert not {"Model", "Model hash", "VAE", "VAE hash", "Version"} & parameters(planned(options), model).keys()
    assert {"Model", "Model hash", "VAE", "VAE hash", "Version"} <= parameters(planned(), model).keys()


def test_every_picture_has_its_own_account() -> None:  # INFO-5 6, INFO-9
    result = told(planned(batch_size=2, iterations=2, seed=5, prompt=("a", "b", "c", "d")))
    found = [split_infotext(each) for each in result.infotexts]
    assert [each.fields["Seed"] for each in found] == ["5", "6", "7", "8"]
    assert [each.prompt for each in found] == ["a", "b", "c", "d"]
    assert [each.info["parameters"] for each in result.images] == list(result.infotexts)
    assert not account(planned(Settings(enable_pnginfo=False)), MODEL, done(planned())).images[0].info


@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_notes_add_up_over_iterations(manner: Settings) -> None:  # INFO-10
    decided = planned(manner, iterations=2)
    first, second = done(decided)
    result = account(decided, MODEL, [replace(first, notes={"NGMS": 1}), replace(second, notes={"Emphasis": "None"})])
    assert "NGMS" in result.infotexts[0]
    assert "Emphasis" not in result.infotexts[0]
    assert ("NGMS: 1, Emphasis: None" in result.infotexts[1]) == (manner == Settings.reference())
    assert "Emphasis: None" in result.infotexts[1]
    assert result.extra_generation_params["Emphasis"] == "None"


def test_nothing_painted_still_has_an_infotext() -> None:  # JOB-6
    result = account(planned(), MODEL, [])
    assert result.images == ()
    assert len(result.infotexts) == 1
    assert result.stopped


def test_returned_masks_follow_their_picture() -> None:  # OUT-4, OUT-6
    options = Settings(return_mask=True, return_mask_composite=True)
    decided = planned(options, mask=MASK, batch_size=2)
    extra = {"mask": Image.new("L", (8, 8)), "mask_composite": Image.new("RGBA", (8, 8))}
    result = account(decided, MODEL, done(decided, **extra))
    assert [each.mode for each in result.images] == ["RGB", "L", "RGBA"] * 2
    assert len(result.infotexts) == 2


def test_returned_grid_comes_first() -> None:  # GRID-3
    decided = planned(Settings(return_grid=True), batch_size=2, iterations=2)
    result = told(decided)
    assert result.index_of_first_image == 1
    assert (len(result.images), len(result.infotexts)) == (5, 5)
    assert result.images[0].size == (16, 16)
    assert result.infotexts[0] == result.infotexts[1]
    assert told(planned(Settings(return_grid=True))).index_of_first_image == 0


def test_contact_sheet() -> None:  # GRID-1, GRID-2
    pictures = [Image.new("RGB", (8, 8))] * 3
    batch = planned(batch_size=3)
    assert contact_sheet(batch, pictures[:1]) is None
    assert contact_sheet(planned(Settings(grid_only_if_multiple=False)), pictures[:1]) is not None
    by_batch = contact_sheet(planned(Settings(n_rows=0), batch_size=3), pictures)
    assert by_batch is not None
    assert by_batch.size == (8, 24)
    assert contact_sheet(batch, []) is None


def test_json_for_clients() -> None:  # I2I-7
    decided = planned(prompt="p", negative_prompt="n", batch_size=2, seed_resize=(64, 72), clip_skip=2)
    told_json = json.loads(told(decided).js())
    assert told_json["all_seeds"] == [1, 2]
    assert told_json["all_prompts"] == ["p", "p"]
    assert (told_json["seed_resize_from_w"], told_json["seed_resize_from_h"]) == (64, 72)
    assert told_json["sd_model_hash"] == "0c72c677cf"
    assert told_json["clip_skip"] == 2
    assert told_json["denoising_strength"] == 0.75
    assert len(told_json["infotexts"]) == 2
    assert told_json["is_using_inpainting_conditioning"] is False


def test_short_names() -> None:
    result = told(planned(prompt="p", negative_prompt="n", batch_size=2, styles=(), strength=0.5, steps=3))
    assert (result.prompt, result.negative_prompt, result.seed, result.subseed) == ("p", "n", 1, 2)
    assert (result.width, result.height, result.batch_size, result.steps) == (32, 32, 2, 3)
    assert (result.sampler_name, result.cfg_scale, result.denoising_strength) == ("DPM++ 2M", 7.0, 0.5)
    assert result.styles == []
    assert result.info == result.infotexts[0]
    assert result.comments == ""


def test_comments_of_the_reference() -> None:  # MASK-6
    blank = box_mask(32, 32, (0, 0, 0, 0))
    result = told(planned(REFERENCE, mask=blank, only_masked=True))
    assert "mask is blank" in result.comments
    assert result.comments.endswith("\n")


def test_an_account_is_deterministic() -> None:
    decided = planned(SANE, batch_size=2)
    assert told(decided).infotexts == told(decided).infotexts
