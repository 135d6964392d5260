"""Qwen-Image and Flux.2 klein through the whole engine: masks, neighbours, pictures that are looked at, LoRAs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.engine import Engine
from overpaint.errors import CheckpointError, RequestError
from overpaint.events import Cancelled, Control, Progress, Stop
from overpaint.request import Txt2ImgRequest
from overpaint.settings import Settings
from tests.engine.conftest import box, pixels, scene
from tests.engine.test_flow import SIZE, asked, painted, values
from tests.engine.test_flux import nearly, worn_with
from tests.flow_toys import save
from tests.newer_toys import WIDTH, NewerToy, toy_klein, toy_qwen_image


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> NewerToy:
    return toy_qwen_image(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> NewerToy:
    return toy_klein(tmp_path_factory.mktemp("klein"))


@pytest.fixture(scope="module")
def qwen_engine(qwen: NewerToy) -> Iterator[Engine]:
    with Engine(qwen.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def klein_engine(klein: NewerToy) -> Iterator[Engine]:
    with Engine(klein.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(params=["qwen", "klein"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_engine")


def test_a_hard_mask_is_kept_to_the_pixel(engine: Engine) -> None:
    """At a size that is no multiple of a token's, whatever a cell stands for."""
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (13, 7, 30, 29))
    result = engine.paint(asked(images=(source,), mask=mask, mask_blur_x=0, mask_blur_y=0))
    kept = np.asarray(mask.convert("L")) == 0
    after = values(result.images[0])
    assert after.shape == (SIZE, SIZE, 3)
    assert np.array_equal(after[kept], values(source)[kept])
    assert not np.array_equal(after[~kept], values(source)[~kept])


def test_every_picture_is_its_own(engine: Engine) -> None:
    """Whatever its neighbours and their order, and however long their texts are."""
    texts = ("cat", "a red cat, a cat, a red red red cat " * 3)
    said: dict[str, Any] = {"steps": 2, "width": 32, "height": 32}
    both = painted(engine, Txt2ImgRequest(**said, prompt=texts, seed=(4, 5), batch_size=2))
    alone = [painted(engine, Txt2ImgRequest(**said, prompt=texts[i], seed=4 + i))[0] for i in (1, 0)]
    assert both == alone[::-1]
    assert both[0] != both[1]


def test_many_jobs_at_once_and_one_that_is_cancelled(engine: Engine) -> None:
    sides: tuple[dict[str, Any], ...] = ({}, {"width": 32, "height": 48}, {"strength": 0.5, "mask": box(SIZE, SIZE)})
    jobs = {i: asked(**{"seed": i, "prompt": "cat " * (i + 1), "exact": True, **side}) for i, side in enumerate(sides)}
    alone = {i: painted(engine, job) for i, job in jobs.items()}
    boxes = {i: Control() for i in jobs}
    last: dict[int, Any] = {}
    for number, event in engine.run_together(jobs, controls=boxes, rows_per_call=4):
        last[number] = event
        if number == 1 and isinstance(event, Progress) and event.step == 1:
            boxes[number].ask(Stop.CANCEL)
    assert last.pop(1) == Cancelled(None)
    assert {i: [pixels(each) for each in event.result.images] for i, event in last.items()} == {
        i: alone[i] for i in last
    }


def test_pictures_that_klein_looks_at(klein_engine: Engine, qwen_engine: Engine) -> None:
    """Each counts, and so does their order; a model that looks at none says so."""
    seen = scene(48, 32), scene(64, 64).rotate(90)
    found = [painted(klein_engine, asked(references=each))[0] for each in ((), seen[:1], seen, seen[::-1])]
    assert len(set(found)) == 4
    with pytest.raises(RequestError, match=r"references=.*a Qwen-Image model looks at none"):
        qwen_engine.plan(asked(references=seen))


def test_an_edit_leaves_what_is_outside_the_mask(klein_engine: Engine) -> None:
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (16, 16, 32, 32))
    blur = {"mask_blur_x": 0, "mask_blur_y": 0}
    result = klein_engine.paint(asked(images=(source,), mask=mask, strength=1.0, references=(scene(32, 32),), **blur))
    kept = np.asarray(mask.convert("L")) == 0
    assert np.array_equal(values(result.images[0])[kept], values(source)[kept])


def test_what_counts_for_nothing_is_said(klein_engine: Engine, qwen_engine: Engine) -> None:
    told = klein_engine.paint(asked(negative_prompt="a cat"))
    assert any(each.startswith("negative_prompt: it does nothing at cfg_scale 1") for each in told.warnings)
    led = qwen_engine.paint(asked(negative_prompt="red"))
    assert not led.warnings and pixels(led.images[0]) != painted(qwen_engine, asked(negative_prompt="cat"))[0]
    heavy = qwen_engine.paint(asked(prompt="a (red:1.4) cat"))
    assert pixels(heavy.images[0]) == painted(qwen_engine, asked())[0]
    assert heavy.warnings[0].startswith("prompt: a Qwen-Image model knows no weights")
    told = klein_engine.paint(asked(guidance=3.0, steps=1))
    assert any(each.startswith("guidance: a Flux.2 klein model is not told") for each in told.warnings)


def test_a_picture_has_no_scale_of_its_own(klein_engine: Engine) -> None:
    """What InstructPix2Pix has; a flow model was never shown an empty picture."""
    told = klein_engine.paint(asked(image_cfg_scale=2.0, cfg_scale=3.0))
    assert "image_cfg_scale: only models such as InstructPix2Pix use it; it was ignored" in told.warnings
    assert pixels(told.images[0]) == painted(klein_engine, asked(cfg_scale=3.0))[0]


@pytest.mark.parametrize("name", ["qwen", "klein"])
def test_half_precision(name: str, request: pytest.FixtureRequest) -> None:
    """bfloat16 is near float32, and the codecs' own means and widths lose nothing by it."""
    toy, exact = (request.getfixturevalue(each) for each in (name, f"{name}_engine"))
    with Engine(toy.path, device="cpu", dtype="bfloat16") as half:
        found, wanted = (values(each.paint(asked(cfg_scale=1.0)).images[0]).astype(float) for each in (half, exact))
    assert 0 < np.abs(found - wanted).mean() < 12


def test_texts_that_are_cut_are_told_of(engine: Engine) -> None:
    result = engine.paint(asked(prompt="red cat " * 300, steps=1))
    assert any("shorten it" in each for each in result.warnings)


def test_samplers_over_timesteps_are_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"sampler='DDIM'.*the nearest is Euler"):
        engine.plan(asked(sampler="DDIM"))


def test_painted_again(klein: NewerToy, tmp_path: Path) -> None:
    """With a picture that is looked at."""
    from overpaint.cli import main

    source, first, second = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    scene(SIZE, SIZE).save(source)
    base = ["--model", str(klein.path), "--device", "cpu", "--dtype", "float32"]
    assert main(["paint", str(source), "a cat", "--steps", "2", "-o", str(first), *base]) == 0
    assert main(["again", str(first), "-o", str(second), *base]) == 0
    assert first.read_bytes() == second.read_bytes()


# -- LoRAs -------------------------------------------------------------------------------------------------------------

QWEN_LAYERS = {"transformer_blocks.0.attn.to_q": WIDTH, "transformer_blocks.1.txt_mlp.net.0.proj": 96}
KLEIN_LAYERS = {"double_blocks.0.img_attn.qkv": 3 * WIDTH, "single_blocks.1.linear1": 3 * WIDTH + 192}


def _pair(seed: int, outputs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, WIDTH, generator=generator), torch.randn(outputs, 4, generator=generator)


def _named(layers: dict[str, int], start: str, join: str, down: str, up: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for i, (layer, outputs) in enumerate(layers.items()):
        key = start + layer.replace(".", join)
        tensors[f"{key}.{down}.weight"], tensors[f"{key}.{up}.weight"] = _pair(i, outputs)
    return tensors


def _klein_of_diffusers() -> dict[str, Tensor]:
    """Queries, keys and values apart; single blocks in one."""
    tensors: dict[str, Tensor] = {}
    (down, up), single = _pair(0, 3 * WIDTH), _pair(1, 3 * WIDTH + 192)
    for each, rows in zip("qkv", up.chunk(3), strict=True):
        key = f"transformer.transformer_blocks.0.attn.to_{each}"
        tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"] = down.clone(), rows.clone()
    key = "transformer.single_transformer_blocks.1.attn.to_qkv_mlp_proj"
    tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"] = single
    return tensors


Style = tuple[dict[str, int], Callable[[], dict[str, Tensor]]]
STYLES: dict[str, Style] = {
    "qwen-kohya": (QWEN_LAYERS, lambda: _named(QWEN_LAYERS, "lora_unet_", "_", "lora_down", "lora_up")),
    "qwen-comfyui": (QWEN_LAYERS, lambda: _named(QWEN_LAYERS, "diffusion_model.", ".", "lora_A", "lora_B")),
    "qwen-diffusers": (QWEN_LAYERS, lambda: _named(QWEN_LAYERS, "transformer.", ".", "lora_A", "lora_B")),
    "klein-kohya": (KLEIN_LAYERS, lambda: _named(KLEIN_LAYERS, "lora_unet_", "_", "lora_down", "lora_up")),
    "klein-comfyui": (KLEIN_LAYERS, lambda: _named(KLEIN_LAYERS, "diffusion_model.", ".", "lora_A", "lora_B")),
    "klein-diffusers": (KLEIN_LAYERS, _klein_of_diffusers),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_lora_in_the_names_of_every_program(
    style: str, request: pytest.FixtureRequest, tmp_path: Path, qwen: NewerToy, klein: NewerToy
) -> None:
    """The same as with its product added to the weights by hand; and off again without a trace."""
    toy, engine = (
        (qwen if style.startswith("qwen") else klein),
        request.getfixturevalue(f"{style.split('-')[0]}_engine"),
    )
    layers, tensors = STYLES[style]
    save(tensors(), tmp_path / "loras" / "ink.safetensors")
    plain = painted(engine, asked())
    worn = worn_with(engine, tmp_path, "ink")
    assert painted(engine, asked()) == plain != worn
    changed = dict(toy.transformer)
    for i, (layer, outputs) in enumerate(layers.items()):
        down, up = _pair(i, outputs)
        changed[f"{layer}.weight"] = changed[f"{layer}.weight"] + 0.1 * up @ down
    path = save(changed, tmp_path / "merged.safetensors")
    text, vae = (next((toy.folder / each).glob("*.safetensors")) for each in ("text_encoders", "vae"))
    site = Settings(text_encoder_files=(str(text),), sd_vae=str(vae))
    with Engine(path, device="cpu", dtype="float32", settings=site) as merged:
        assert nearly(painted(merged, asked()), worn)


def test_a_lora_of_klein_is_not_for_qwen_image(qwen_engine: Engine, tmp_path: Path) -> None:
    save(STYLES["klein-kohya"][1](), tmp_path / "loras" / "ink.safetensors")
    with pytest.raises(CheckpointError, match=r"no layer of it belongs to a Qwen-Image"):
        worn_with(qwen_engine, tmp_path, "ink")
