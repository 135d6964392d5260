"""From titles and arguments to sequences: what each step asks for, and what is refused (SCR-2 to SCR-6, LIST-3)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from overpaint.errors import RequestError
from overpaint.request import Img2ImgRequest, MaskedContent, Txt2ImgRequest
from overpaint.sequences.alternative import AlternativeTest
from overpaint.sequences.loopback import Loopback
from overpaint.sequences.outpaint_mk2 import OutpaintingMk2
from overpaint.sequences.outpaint_tiles import OutpaintedTiles
from overpaint.sequences.reference_upscale import PastedTiles
from overpaint.sequences.script_arguments import SCRIPTS
from overpaint.sequences.scripts import find_script, script_sequence
from overpaint.sequences.story import PaintingSequence, StepResult
from overpaint.settings import Settings
from tests.conftest import PARITY
from tests.unit.toy_job import asked, noisy_picture

REFERENCE = Settings.reference()


def made(title: str, *args: Any, **fields: Any) -> PaintingSequence:
    given = {"images": (noisy_picture(64, 64),), "width": 64, "height": 64, **fields}
    return script_sequence(title, args, asked(**given), REFERENCE)


def results(sequence: PaintingSequence, count: int) -> list[StepResult]:
    """Pretended results, each of its own colours."""
    done: list[StepResult] = []
    for number in range(count):
        request = sequence.step(number, done).request
        size = (request.width or 64, request.height or 64)
        pictures = tuple(noisy_picture(*size, seed=number) for _ in range(request.batch_size))
        done.append(StepResult(pictures=pictures, infotexts=(f"text {number}",) * len(pictures), seeds=(number,)))
    return done


@pytest.mark.skipif(not (PARITY / "api" / "GET_script-info.json").exists(), reason="not recorded here")
def test_arguments_are_the_recorded_ones() -> None:
    recorded = {
        each["name"]: each["args"]
        for each in json.loads((PARITY / "api" / "GET_script-info.json").read_text())
        if each["is_img2img"] and not each["is_alwayson"]
    }
    assert sorted(recorded) == sorted(each.title.lower() for each in SCRIPTS)
    for script in SCRIPTS:
        for own, theirs in zip(script.arguments, recorded[script.title.lower()], strict=True):
            choices = theirs.pop("choices", None)
            if own.label != "Upscaler":  # those of the site
                assert list(own.choices) == choices if own.choices is not None else choices is None
            assert (own.label, own.value) == (theirs["label"], theirs["value"])
            ranged = {"minimum": own.minimum, "maximum": own.maximum, "step": own.step}
            assert ranged == {name: theirs.get(name) for name in ranged}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda each: each.title)
def test_every_script_has_defaults_and_counts_its_arguments(script: Any) -> None:
    fields = {"prompt": "a|b"}
    if script.title in ("Prompts from file or textbox", "X/Y/Z plot"):  # whose defaults are empty
        with pytest.raises(RequestError):
            made(script.title, **fields)
    elif script.title in ("SD upscale", "Poor man's outpainting"):  # whose overlap is larger than these tiles
        with pytest.raises(RequestError, match="overlap"):
            made(script.title, **fields)
    else:
        assert len(made(script.title.upper(), **fields)) >= 1
    with pytest.raises(RequestError, match="by position") as caught:
        made(script.title, "one", **fields)
    assert script.title in str(caught.value)


def test_an_unknown_title_lists_the_titles() -> None:
    with pytest.raises(RequestError, match=r"did you mean 'Loopback'.*SD upscale"):
        find_script("Lopback")
    with pytest.raises(RequestError, match="Outpainting mk2"):
        find_script("no such thing at all")


def test_scripts_of_pictures_need_one() -> None:
    with pytest.raises(RequestError, match="img2img only"):
        script_sequence("Loopback", (), Txt2ImgRequest(), REFERENCE)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("Linear", [0.8, 0.6, 0.4]),
        ("Aggressive", [0.8, 0.8 - 0.4 * np.sin(np.pi / 4), 0.4]),
        ("Lazy", [0.8, 0.8 - 0.4 * (1 - np.cos(np.pi / 4)), 0.4]),
    ],
)
def test_loopback_strengths(curve: str, expected: list[float]) -> None:
    """SCR-3."""
    sequence = made("Loopback", 3, 0.4, curve, "None", strength=0.8)
    done = results(sequence, 3)
    requests = [sequence.step(n, done[:n]).request for n in range(3)]
    assert [each.strength for each in requests] == pytest.approx(expected)
    assert [each.seed for each in requests] == [1, 2, 3]
    assert requests[2].images == done[1].pictures
    assert Loopback(request=sequence.request, loops=1, final_strength=0.1).strength(0) == 0.8


def test_loopback_shows_a_row_and_every_loop_or_the_last_of_each_iteration() -> None:
    settings = REFERENCE.with_changes({"return_grid": True})
    one = made("Loopback", 3, 0.4, "Linear", "None")
    shown = one.assembled(results(one, 3), settings)
    assert [each.size for each in shown.images] == [(192, 64), (64, 64), (64, 64), (64, 64)]
    assert (shown.first, set(shown.infotexts)) == (1, {"text 0"})
    two = made("Loopback", 3, 0.4, "Linear", "None", iterations=2)
    done = results(two, 6)
    assert two.assembled(done, settings).images[1:] == done[2].pictures + done[5].pictures
    own = two.assembled(done, Settings())
    assert own.infotexts == ("text 2", "text 5")


def test_loopback_fills_the_mask_only_once() -> None:
    sequence = made("Loopback", 2, 0.4, "Linear", "None", mask=noisy_picture(64, 64), masked_content="noise")
    done = results(sequence, 1)
    contents = [sequence.step(n, done[:n]).request.masked_content for n in range(2)]
    assert contents == [MaskedContent.NOISE, MaskedContent.ORIGINAL]


def test_upscaled_tiles_in_batches() -> None:
    """SCR-2: nine tiles in batches of two, the seed one more with each batch, and again from the next seed."""
    sequence = made("SD upscale", "", 8, 0, 2.0, width=32, height=32, batch_size=2, iterations=2)
    sequence = sequence.prepared(REFERENCE, {})
    assert len(sequence) == 2 * 5
    done = results(sequence, 10)
    assert [sequence.step(n, done[:n]).request.seed for n in (0, 1, 4, 5, 9)] == [1, 2, 5, 2, 6]
    assert len(sequence.step(4, done).request.images) == 1
    whole = sequence.assembled(done, REFERENCE)
    assert [each.size for each in whole.images] == [(64, 64), (64, 64)]
    assert whole.infotexts == ("text 0", "text 0")


def test_upscaler_by_name_in_any_case_or_by_number() -> None:
    for given, name in (("lanczos", "Lanczos"), (1, "Lanczos"), (2.0, "Nearest")):
        sequence = made("SD upscale", "", 8, given, 1.5)
        assert isinstance(sequence, PastedTiles)
        assert sequence.upscaler == name
        assert sequence.prepared(REFERENCE, {}).step(0, []).notes["SD upscale upscaler"] == name
    with pytest.raises(RequestError, match="upscaler"):
        made("SD upscale", "", 8, "no such", 2.0).prepared(REFERENCE, {})


def test_poor_mans_masks_are_drawn_in_where_the_picture_grows() -> None:
    """SCR-4: the mask by twice the blur, the latent mask by half of it; edges included, as Pillow draws."""
    sequence = made("Poor man's outpainting", 32, 4, 0, ["left"])
    assert isinstance(sequence, OutpaintedTiles)
    assert sequence.size == (128, 64)
    row = np.asarray(sequence.kept(8))[0]
    assert row[: 64 + 8].min() == 255
    assert row[64 + 8 :].max() == 0
    assert np.asarray(sequence.kept(2))[0].tolist() == [255] * 66 + [0] * 62
    request = sequence.step(0, []).request
    assert (request.mask_blur_x, request.only_masked, request.masked_content.value) == (8, False, "fill")
    assert [sequence.step(n, []).request.seed for n in range(len(sequence))] == list(range(1, len(sequence) + 1))


def test_poor_mans_old_tiles_stay() -> None:
    sequence = made("Poor man's outpainting", 16, 4, "fill", ["right"], images=(noisy_picture(112, 64),))
    assert isinstance(sequence, OutpaintedTiles)
    assert sequence.places == tuple(p for p in sequence.grid.places if p[0] + 64 > 112)
    whole = sequence.assembled(results(sequence, len(sequence)), REFERENCE).images[0]
    kept = whole.crop((0, 0, min(p[0] for p in sequence.places), 64))
    assert kept.tobytes() == noisy_picture(112, 64).crop((0, 0, *kept.size)).tobytes()


def test_mk2_goes_left_right_up_down_with_one_seed() -> None:
    """SCR-5."""
    sequence = made("Outpainting mk2", "", 64, 8, ["down", "left"], 1.0, 0.05)
    assert isinstance(sequence, OutpaintingMk2)
    assert sequence.sides == (("left", 64), ("down", 64))
    done = results(sequence, 2)
    first, second = (sequence.step(n, done[:n]).request for n in range(2))
    assert (first.seed, second.seed) == (1, 1)
    assert (first.width, first.height) == (64, 64)
    assert (second.width, second.height) == (128, 64)
    assert (first.mask_blur_x, first.mask_blur_y) == (32, 32)
    (whole,) = sequence.assembled(done, REFERENCE).images
    assert whole.size == (128, 128)
    inset = (8, 0, 64, 56)  # the blur's width is begun with noise, too
    assert whole.crop((72, 0, 128, 56)).tobytes() == noisy_picture(64, 64).crop(inset).tobytes()


def test_mk2_starts_from_noise_that_is_the_same_every_time() -> None:
    sequence = made("Outpainting mk2", "", 64, 8, ["right"], 1.0, 0.05, width=128)
    pictures = [np.asarray(sequence.step(0, []).request.images[0]) for _ in range(2)]
    assert (pictures[0] == pictures[1]).all()
    old, new = pictures[0][:, :57], pictures[0][:, 57:]
    for level in (10, 50, 90):  # the known part's histogram
        assert np.allclose(np.percentile(new, level), np.percentile(old, level), atol=4)


def test_the_alternative_test_overrides_what_it_was_made_for() -> None:
    """SCR-6."""
    sequence = made("img2img alternative test", "", True, True, "a hat", "no", True, 30, True, 1.5, 0.1, True)
    assert isinstance(sequence, AlternativeTest)
    step = sequence.step(0, [])
    assert (step.request.sampler, step.request.prompt, step.request.steps) == ("Euler", "a hat", 30)
    assert step.request.strength == 1
    assert step.decoding is not None
    assert (step.decoding.cfg_scale, step.decoding.randomness, step.decoding.sigma_adjustment) == (1.5, 0.1, True)
    kept = made("img2img alternative test", "", False, False, "x", "", False, 30, False, 1, 0, False).step(0, [])
    assert kept.request == asked(images=sequence.request.images, width=64, height=64)


@pytest.mark.parametrize(
    ("title", "args", "message"),
    [
        ("Loopback", (0, 0.5, "Linear", "None"), "loops"),
        ("Loopback", (2, 1.5, "Linear", "None"), "final_strength"),
        ("Loopback", (2, 0.5, "Steep", "None"), "curve"),
        ("Loopback", (2, 0.5, "Linear", "CLIP"), "not interrogated"),
        ("Outpainting mk2", ("", 0, 8, ["left"], 1, 0), "pixels"),
        ("Outpainting mk2", ("", 100_000, 8, ["left"], 1, 0), "pixels"),
        ("Outpainting mk2", ("", 64, 8, [], 1, 0), "directions"),
        ("Outpainting mk2", ("", 64, 8, ["north"], 1, 0), "directions"),
        ("Poor man's outpainting", (64, 8, 9, ["left"]), "Masked content"),
        ("SD upscale", ("", 8, 99, 2), "Upscaler"),
        ("SD upscale", ("", 8, "None", 0), "scale"),
    ],
)
def test_wrong_arguments(title: str, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        made(title, *args)


def test_requests_of_steps_are_requests() -> None:
    sequence = made("Loopback", 2, 0.4, "Linear", "None")
    assert all(isinstance(each.request, Img2ImgRequest) for each in sequence.outline())
