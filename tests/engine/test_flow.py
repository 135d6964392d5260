"""A flow model through the whole engine: requests, masks, neighbours, stops, recipes, and what means nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from overpaint.engine import Engine, stages_of
from overpaint.errors import CheckpointError, RequestError, SettingError
from overpaint.events import Cancelled, Control, Finished, Preview, Progress, Stop
from overpaint.networks.taesd import taesd_decoder
from overpaint.parts import Hires, Lora
from overpaint.request import Img2ImgRequest, PaintRequest, Picture, SoftInpainting, Txt2ImgRequest
from overpaint.settings import Settings
from tests.engine.conftest import box, pixels, scene
from tests.flow_toys import ToyFiles, save, tensors_of, toy_zimage

SIZE = 40  # not a multiple of a token's 16 pixels


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyFiles:
    return toy_zimage(tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def flow_engine(toy: ToyFiles) -> Iterator[Engine]:
    """Its text encoder and its VAE are found beside it."""
    with Engine(toy.path, device="cpu", dtype="float32") as made:
        yield made


def asked(**fields: Any) -> Img2ImgRequest:
    given = {"images": (scene(SIZE, SIZE),), "prompt": "a red cat", "steps": 3, "seed": 1, **fields}
    return Img2ImgRequest(**given)


def painted(engine: Engine, request: PaintRequest) -> list[bytes]:
    return [pixels(each) for each in engine.paint(request).images]


def values(picture: Picture) -> Any:
    return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_the_mask_leaves_out_stays(only_masked: bool, strength: float, flow_engine: Engine) -> None:
    """A blurred mask reaches a few pixels further, and no pixel beyond."""
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (20, 20, 32, 32))
    crop = {"only_masked": True, "width": 32, "height": 32} if only_masked else {}
    result = flow_engine.paint(
        asked(images=(source,), mask=mask, mask_blur_x=1, mask_blur_y=1, strength=strength, **crop)
    )
    before, after = values(source), values(result.images[0])
    assert np.array_equal(after[:14], before[:14]) and np.array_equal(after[:, :14], before[:, :14])
    assert not np.array_equal(after[20:32, 20:32], before[20:32, 20:32])


def test_a_hard_mask_is_kept_to_the_pixel(flow_engine: Engine) -> None:
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (13, 7, 30, 29))
    result = flow_engine.paint(asked(images=(source,), mask=mask, mask_blur_x=0, mask_blur_y=0))
    kept = np.asarray(mask.convert("L")) == 0
    assert np.array_equal(values(result.images[0])[kept], values(source)[kept])


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DPM++ 2M SDE", "Heun", "LCM"])
def test_every_picture_is_its_own(sampler: str, flow_engine: Engine) -> None:
    """Whatever its neighbours, their order and their number; from noise, where the first step is a special one."""
    said: dict[str, Any] = {"prompt": "a red cat", "steps": 3, "width": 32, "height": 32, "sampler": sampler}
    both = painted(flow_engine, Txt2ImgRequest(**said, seed=4, batch_size=2))
    alone = [painted(flow_engine, Txt2ImgRequest(**said, seed=each))[0] for each in (5, 4)]
    assert both == alone[::-1]
    assert both[0] != both[1]


def test_texts_of_different_lengths_share_a_batch(flow_engine: Engine) -> None:
    texts = ("cat", "a red cat and another red cat on a red red red mat")
    both = painted(flow_engine, asked(prompt=texts, batch_size=2, seed=(1, 2)))
    assert both == [painted(flow_engine, asked(prompt=text, seed=i + 1))[0] for i, text in enumerate(texts)]


def test_guidance(flow_engine: Engine) -> None:
    """Unasked, the family's own scale; a negative text counts from a scale above 1, and below it is told of."""
    plain, said = flow_engine.paint(asked()), flow_engine.paint(asked(negative_prompt="a cat"))
    assert "CFG scale: 1.0" in plain.infotexts[0]
    assert pixels(plain.images[0]) == pixels(said.images[0])
    assert any(each.startswith("negative_prompt: it does nothing at cfg_scale 1") for each in said.warnings)
    led = flow_engine.paint(asked(negative_prompt="a cat", cfg_scale=3.0))
    assert pixels(led.images[0]) != pixels(plain.images[0]) and not led.warnings


def test_weights_in_the_prompt_are_told_of(flow_engine: Engine) -> None:
    weighed = flow_engine.paint(asked(prompt="a (red:1.4) cat"))
    assert pixels(weighed.images[0]) == painted(flow_engine, asked())[0]
    assert weighed.warnings == (
        "prompt: a Z-Image model knows no weights, so what is in brackets counts like the rest",
    )


def test_a_text_that_is_too_long_is_told_of(flow_engine: Engine) -> None:
    result = flow_engine.paint(asked(prompt="red " * 400, steps=1))
    assert any("a Z-Image model reads 512; shorten it" in each for each in result.warnings)


def test_the_text_may_change_on_the_way(flow_engine: Engine) -> None:
    changing = painted(flow_engine, asked(prompt="a [red:blue and red:0.5] cat", steps=4, strength=1.0))
    assert changing != painted(flow_engine, asked(steps=4, strength=1.0))


@pytest.mark.parametrize("strength", [0.3, 0.62, 1.0])
def test_strength_and_soft_masks(strength: float, flow_engine: Engine) -> None:
    mask = box(SIZE, SIZE, (8, 8, 32, 32))
    result = flow_engine.paint(asked(mask=mask, strength=strength, soft_inpainting=SoftInpainting()))
    assert result.images[0].size == (SIZE, SIZE)


def test_a_strength_map(flow_engine: Engine) -> None:
    shades = Image.new("L", (SIZE, SIZE), 90)
    shades.paste(0, (0, 0, 16, SIZE))
    shades.paste(255, (32, 0, SIZE, SIZE))
    result = flow_engine.paint(asked(strength_map=shades, strength=1.0, steps=4, mask_blur_x=0, mask_blur_y=0))
    before, after = values(scene(SIZE, SIZE)), values(result.images[0])
    assert np.array_equal(after[:, :16], before[:, :16])
    assert not np.array_equal(after[:, 16:32], before[:, 16:32])


def test_a_second_pass(flow_engine: Engine) -> None:
    hires = Hires(scale=2.0, strength=0.5, upscaler="Latent")
    result = flow_engine.paint(Txt2ImgRequest(prompt="cat", steps=2, width=16, height=16, seed=1, hires=hires))
    assert result.images[0].size == (32, 32)


def test_the_tiny_autoencoder_of_16_channels(flow_engine: Engine, tmp_path: Path) -> None:
    """For previews and in the place of the codec; without its file the error says what it is called."""
    tiny = taesd_decoder(16)
    save(tensors_of(tiny, 5), tmp_path / "taef1_decoder.safetensors")
    options: dict[str, Any] = {"show_progress_type": "TAESD", "show_progress_every_n_steps": 1}
    events = list(flow_engine.run(asked(), Settings(taesd_dir=str(tmp_path), **options)))
    (preview, *_) = [each for each in events if isinstance(each, Preview)]
    assert preview.image.size == (SIZE, SIZE)
    with pytest.raises(SettingError, match="taef1_encoder"):
        flow_engine.paint(asked(), Settings(taesd_dir=str(tmp_path), sd_vae_encode_method="TAESD"))


def test_cancel_and_finish(flow_engine: Engine) -> None:
    for message, last in ((Stop.CANCEL, Cancelled), (Stop.FINISH_EARLY, Finished)):
        control, events = Control(), []
        for event in flow_engine.run(asked(steps=6, strength=1.0), None, control):
            events.append(event)
            if isinstance(event, Progress) and event.step == 2:
                control.ask(message)
        assert isinstance(events[-1], last)
        assert sum(isinstance(each, Progress) for each in events) == 2


def test_a_picture_can_be_painted_again(flow_engine: Engine, toy: ToyFiles, tmp_path: Path) -> None:
    from overpaint.cli import main

    source, first, second = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    scene(SIZE, SIZE).save(source)
    base = ["--model", str(toy.path), "--device", "cpu", "--dtype", "float32"]
    words = ["paint", str(source), "a red cat", "--steps", "3", "--strength", "0.6", "--seed", "5"]
    assert main([*words, "-o", str(first), *base]) == 0
    assert main(["again", str(first), "-o", str(second), *base]) == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"sampler": "DDIM"}, "sampler='DDIM'.*Z-Image.*the nearest is Euler"),
        ({"sampler": "UniPC"}, r"the nearest is DPM\+\+ 2M"),
        ({"scheduler": "Align Your Steps"}, "choose Automatic"),
        ({"refiner": "overpaint-mini"}, "refiner=.*choose one of the same kind"),
    ],
)
def test_what_means_nothing_is_refused(fields: dict[str, Any], wanted: str, flow_engine: Engine) -> None:
    with pytest.raises(RequestError, match=wanted):
        flow_engine.plan(asked(**fields))


WANTED = (
    "layers.0.attention.to_q",
    "layers.1.attention.to_v",
    "layers.1.feed_forward.w1",
    "layers.0.attention.to_out.0",
)
STYLES = {  # how programs write the four layers above, and what they call down and up
    "diffusers": ("transformer.{}", WANTED, "lora_A", "lora_B"),
    "kohya": ("lora_unet_{}", tuple(each.replace(".", "_") for each in WANTED), "lora_down", "lora_up"),
    "comfyui": ("diffusion_model.{}", WANTED, "lora_A", "lora_B"),
}


def lora_tensors(style: str) -> dict[str, Tensor]:
    start, names, down, up = STYLES[style]
    tensors: dict[str, Tensor] = {}
    for i, (name, own) in enumerate(zip(names, WANTED, strict=True)):
        generator = torch.Generator().manual_seed(i)
        outputs = 64 if "w1" in own else 32
        key = start.format(name)
        tensors[f"{key}.{down}.weight"] = torch.randn(4, 32, generator=generator)
        tensors[f"{key}.{up}.weight"] = torch.randn(outputs, 4, generator=generator)
    return tensors


@pytest.mark.parametrize("style", STYLES)
def test_a_lora_in_the_names_of_every_program(style: str, flow_engine: Engine, toy: ToyFiles, tmp_path: Path) -> None:
    """The same as with its product added to the weights by hand; and off again without a trace."""
    save(lora_tensors(style), tmp_path / "loras" / "ink.safetensors")
    site = Settings(lora_dir=str(tmp_path / "loras"))
    plain = painted(flow_engine, asked())
    worn = [pixels(each) for each in flow_engine.paint(asked(loras=(Lora(name="ink", weight=0.5),)), site).images]
    assert painted(flow_engine, asked()) == plain != worn
    network = stages_of(flow_engine).loaded.backend.networks.denoiser
    changed = dict(toy.transformer)
    for i, own in enumerate(WANTED):
        (_, down), (_, up) = list(lora_tensors("diffusers").items())[2 * i : 2 * i + 2]
        delta = 0.5 * up @ down
        layer, part = own.replace("to_out.0", "out"), own[-1]
        if own.endswith(("to_q", "to_v")):
            layer = own[: -len("to_q")] + "qkv"
            rows = 32 * "qkv".index(part)
            delta = torch.cat([torch.zeros(rows, 32), delta, torch.zeros(64 - rows, 32)])
        changed[f"{layer}.weight"] = changed[f"{layer}.weight"] + delta
    path = save(changed, tmp_path / "z.safetensors")
    beside = Settings(text_encoder_files=(str(toy.text_path),), sd_vae=str(toy.vae_path))
    with Engine(path, device="cpu", dtype="float32", settings=beside) as merged:
        found = np.frombuffer(painted(merged, asked())[0], np.uint8).astype(int)
    assert np.abs(found - np.frombuffer(worn[0], np.uint8).astype(int)).max() <= 1
    assert network is stages_of(flow_engine).loaded.backend.networks.denoiser


def test_what_is_made_for_others_is_refused(flow_engine: Engine, tmp_path: Path) -> None:
    """A LoRA of another family, and a ControlNet."""
    stranger = {"double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(2, 8)}
    stranger["double_blocks.0.img_attn.qkv.lora_B.weight"] = torch.ones(8, 2)
    save(stranger, tmp_path / "flux.safetensors")
    site = Settings(lora_dir=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"flux.*(Flux|no layer)"):
        flow_engine.paint(asked(loras=(Lora(name="flux"),)), site)
