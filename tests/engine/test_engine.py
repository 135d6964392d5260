"""The native door: what an engine is, paints, and writes down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import overpaint
from overpaint.engine import Engine, stages_of
from overpaint.errors import CheckpointError, RequestError, SamplingError
from overpaint.request import MaskedContent, ResizeMode, SoftInpainting
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext
from tests.conftest import label
from tests.engine.conftest import asked, box, painted, pixels, scene


def test_an_engine_closes_twice(checkpoint: Path) -> None:
    with Engine(checkpoint, device=torch.device("cpu"), dtype=torch.float32) as engine:
        assert (engine.spec.family, engine.device) == ("sd1", "cpu")
        engine.close()
    engine.close()


def test_a_model_is_named(engine: Engine) -> None:
    assert engine.model.name == "tiny"
    assert len(engine.model.hash) == 10


@pytest.mark.parametrize("sampler", [each.name for each in SAMPLERS])
@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_every_sampler_paints(engine: Engine, sampler: str, manner: Settings) -> None:  # TAB-1
    # This one asks as often as it likes, and most often where the noise is strong.
    short: dict[str, Any] = {"strength": 0.1, "eta": 0.0, "steps": 10} if sampler == "DPM adaptive" else {}
    result = engine.paint(asked(**{"sampler": sampler, "steps": 5, "images": (scene(16, 16),), **short}), manner)
    assert result.images[0].size == (16, 16)
    assert np.asarray(result.images[0]).std() > 3
    assert result.sampler_name == sampler


@pytest.mark.parametrize("scheduler", [each.label for each in SCHEDULERS])
def test_every_schedule_paints(engine: Engine, scheduler: str) -> None:  # SCH
    result = engine.paint(asked(scheduler=scheduler, steps=4, images=(scene(16, 16),)))
    assert split_infotext(result.info).fields["Schedule type"] == scheduler


@pytest.mark.parametrize("strength", [0.0, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("sampler", ["Euler", "DPM fast", "DDIM", "UniPC", "DPM++ 2M SDE", "Restart"])
def test_every_strength_paints(engine: Engine, sampler: str, strength: float) -> None:  # STEP-4, STEP-5
    for steps in (1, 3):
        found = engine.paint(asked(sampler=sampler, strength=strength, steps=steps, images=(scene(16, 16),)))
        if strength == 0:
            assert pixels(found.images[0]) == pixels(scene(16, 16))


def test_little_strength_changes_little(engine: Engine) -> None:
    source = np.asarray(scene()).astype(float)
    # The tiny codec keeps the mean of 8x8 pixels; what is compared is what it can keep.
    blocks = [
        np.asarray(engine.paint(asked(strength=each, steps=10)).images[0], float).reshape(4, 8, 4, 8, 3).mean((1, 3))
        for each in (0.1, 0.9)
    ]
    wanted = source.reshape(4, 8, 4, 8, 3).mean((1, 3))
    near, far = (float(np.abs(each - wanted).mean()) for each in blocks)
    assert near < far


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a dog"},
        {"negative_prompt": "a dog"},
        {"prompt": "a cat AND a dog :0.5"},
        {"prompt": "[a cat:a dog:0.5]"},
        {"prompt": "(a:1.9) cat"},
        {"clip_skip": 2},
        {"cfg_scale": 3.0},
        {"seed": 2},
        {"variation_strength": 0.2},
        {"seed_resize": (48, 48)},
        {"strength": 0.5},
        {"steps": 4},
        {"sampler": "Heun"},
        {"scheduler": "Karras"},
        {"noise_multiplier": 0.9},
        {"tiling": True},
        {"color_correction": True},
        {"s_churn": 8.0},
        {"overrides": {"randn_source": "NV"}},
        {"overrides": {"img2img_extra_noise": 0.2}},
        {"overrides": {"eta_noise_seed_delta": 3}, "sampler": "Euler a"},
        {"overrides": {"emphasis": "None"}, "prompt": "(a) cat"},
        {"overrides": {"img2img_fix_steps": True}},
        {"overrides": {"sd_noise_schedule": "Zero Terminal SNR"}},
        {"mask": box()},
        {"mask": box(), "masked_content": MaskedContent.NOISE},
        {"mask": box(), "soft_inpainting": SoftInpainting()},
        {"resize_mode": ResizeMode.FILL, "width": 48, "height": 32},
    ],
    ids=label,
)
def test_what_is_asked_reaches_the_picture(engine: Engine, fields: dict[str, Any]) -> None:
    assert painted(engine, **fields) != painted(engine)


@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("size", [(37, 29), (8, 64), (65, 33)])
def test_sizes_are_as_asked(engine: Engine, mode: ResizeMode, size: tuple[int, int]) -> None:
    result = engine.paint(asked(resize_mode=mode, width=size[0], height=size[1], steps=1))
    assert result.images[0].size == size


@pytest.mark.parametrize("steps", [1, 2])
def test_tiled_edges_meet(engine: Engine, steps: int) -> None:  # ARCH-9
    source = Image.new("RGB", (32, 32), (120, 120, 120))
    turned = source.copy()
    for image in (source, turned):
        image.paste((200, 40, 40), (8, 8, 16, 16))
    plain = painted(engine, images=(source,), tiling=True, steps=steps)
    assert plain == painted(engine, images=(turned,), tiling=True, steps=steps)


def test_infotext_of_a_rich_request_reads_back(engine: Engine) -> None:  # INFO, PARSE
    result = engine.paint(
        asked(
            prompt='a "cat", (big:1.2)\non a mat',
            negative_prompt="blurry: yes",
            sampler="DPM2 a",
            scheduler="Karras",
            eta=0.5,
            mask=box(),
            invert_mask=True,
            only_masked=True,
            padding=4,
            width=32,
            height=32,
            masked_content=MaskedContent.NOTHING,
            variation_strength=0.1,
            clip_skip=2,
            s_min_uncond=20.0,
            overrides={"randn_source": "CPU", "emphasis": "No norm", "s_min_uncond_all": True},
        )
    )
    found = split_infotext(result.info)
    assert found.prompt == 'a "cat", (big:1.2)\non a mat'
    assert found.negative_prompt == "blurry: yes"
    assert list(found.fields) == [
        "Steps",
        "Sampler",
        "Schedule type",
        "CFG scale",
        "Seed",
        "Size",
        "Model hash",
        "Model",
        "Variation seed",
        "Variation seed strength",
        "Denoising strength",
        "Clip skip",
        "RNG",
        "Mask mode",
        "Mask blur",
        "Inpaint area",
        "Masked area padding",
        "Masked content",
        "Emphasis",
        "Eta",
        "NGMS",
        "NGMS all steps",
        "Version",
    ]
    assert found.fields["Size"] == "32x32"
    assert found.fields["Masked content"] == "latent nothing"
    assert found.fields["Emphasis"] == "No norm"
    assert found.fields["NGMS"] == "20.0"


def test_emphasis_is_written_every_time(engine: Engine) -> None:  # INFO-8
    for _ in range(2):
        result = engine.paint(asked(prompt="(a) cat", overrides={"emphasis": "Ignore"}, steps=1))
        assert "Emphasis: Ignore" in result.info


def test_a_network_that_answers_nan(engine: Engine, checkpoint: Path) -> None:
    with Engine(checkpoint, device="cpu", dtype="float32") as broken:
        with torch.no_grad():
            for parameter in stages_of(broken).backend.networks.unet.out.parameters():
                parameter.fill_(float("nan"))
        for sampler in ("Euler", "DDIM", "DPM adaptive"):
            with pytest.raises(SamplingError, match=sampler) as caught:
                broken.paint(asked(sampler=sampler))
            assert "float32" in str(caught.value)


def test_a_decoder_that_answers_nan(checkpoint: Path) -> None:  # DEC-2
    with Engine(checkpoint, device="cpu", dtype="float32") as broken:
        with torch.no_grad():
            for parameter in (
                stages_of(broken).backend.networks.autoencoder.get_submodule("decoder.conv_out").parameters()
            ):
                parameter.fill_(float("nan"))
        with pytest.raises(SamplingError, match="vae"):
            broken.paint(asked(steps=1))


def test_a_failure_keeps_the_pictures_that_were_finished(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a job in its second iteration, the first one's picture can be had."""
    from overpaint.events import Started

    events = engine.run(asked(iterations=2, steps=1, strength=1))
    assert isinstance(next(events), Started)
    calls = 0
    answer = type(stages_of(engine).backend).denoise

    def once(self: Any, *args: Any, **said: Any) -> Any:
        nonlocal calls
        calls += 1
        return answer(self, *args, **said) * (1 if calls == 1 else float("nan"))

    monkeypatch.setattr(type(stages_of(engine).backend), "denoise", once)
    with pytest.raises(SamplingError) as caught:
        list(events)
    result = getattr(caught.value, "result", None)
    assert result is not None
    assert len(result.images) == 1


def test_an_unknown_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors"):
        Engine(tmp_path / "no.safetensors")


def test_an_unknown_checkpoint_in_a_job(engine: Engine) -> None:
    for fields in ({"checkpoint": "no-such"}, {"overrides": {"sd_model_checkpoint": "no-such"}}):
        with pytest.raises(CheckpointError, match="no-such"):
            engine.paint(asked(**fields))


@pytest.mark.parametrize("fields", [{"device": "nowhere"}, {"dtype": "float12"}])
def test_a_device_that_is_none(checkpoint: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(fields))):
        Engine(checkpoint, **fields)


def test_one_line(engine: Engine, tmp_path: Path) -> None:
    scene().save(tmp_path / "in.png")
    box().save(tmp_path / "mask.png")
    fields: dict[str, Any] = {"sampler": "Euler", "steps": 2, "seed": 1, "mask": tmp_path / "mask.png"}
    result = overpaint.img2img(tmp_path / "in.png", "a cat", engine=engine, **fields)
    assert result.size == (32, 32)
    assert result.info["parameters"].startswith("a cat\n")
    same = overpaint.img2img((tmp_path / "in.png").read_bytes(), "a cat", engine=engine, **fields)
    assert pixels(result) == pixels(same)


def test_one_line_with_its_own_engine(checkpoint: Path) -> None:
    assert overpaint.img2img(scene(16, 16), "x", checkpoint=checkpoint, steps=1).size == (16, 16)


def test_masks_and_grids_are_returned_on_request(engine: Engine) -> None:  # OUT-4, GRID-3
    options = Settings(return_mask=True, return_mask_composite=True, return_grid=True)
    result = engine.paint(asked(mask=box(), batch_size=2, steps=1), options)
    assert [each.mode for each in result.images] == ["RGB", "RGB", "RGB", "RGBA", "RGB", "RGB", "RGBA"]
    assert result.index_of_first_image == 1
