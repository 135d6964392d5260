"""Flux.1, Chroma and Stable Diffusion 3.5 through the whole engine: masks, neighbours, guidance, LoRAs, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine
from overpaint.errors import CheckpointError, RequestError
from overpaint.events import Cancelled, Control, Finished, Painted, Progress, Stop
from overpaint.models.header import safetensors_shapes
from overpaint.parts import Lora
from overpaint.request import Txt2ImgRequest
from overpaint.settings import Settings
from overpaint.text.infotext import parse_infotext
from overpaint.text.pasting import request_fields
from tests.engine.conftest import box, pixels, scene
from tests.engine.test_flow import SIZE, asked, painted, values
from tests.flow_toys import save
from tests.flux_toys import FluxToy, toy_chroma, toy_flux, toy_sd35


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> FluxToy:
    return toy_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def flux_engine(flux: FluxToy) -> Iterator[Engine]:
    with Engine(flux.path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def sd35_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(toy_sd35(tmp_path_factory.mktemp("sd35")).path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def chroma_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(toy_chroma(tmp_path_factory.mktemp("chroma")).path, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(params=["flux", "sd35", "chroma"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_engine")


def test_a_hard_mask_is_kept_to_the_pixel(engine: Engine) -> None:
    source, mask = scene(SIZE, SIZE), box(SIZE, SIZE, (13, 7, 30, 29))
    result = engine.paint(asked(images=(source,), mask=mask, mask_blur_x=0, mask_blur_y=0))
    kept = np.asarray(mask.convert("L")) == 0
    after = values(result.images[0])
    assert np.array_equal(after[kept], values(source)[kept])
    assert not np.array_equal(after[~kept], values(source)[~kept])


def test_every_picture_is_its_own(engine: Engine) -> None:
    """Whatever its neighbours and their order, and however long their texts are."""
    texts = ("cat", "a red cat, a cat, a red red red cat " * 12)
    said: dict[str, Any] = {"steps": 2, "width": 32, "height": 32}
    both = painted(engine, Txt2ImgRequest(**said, prompt=texts, seed=(4, 5), batch_size=2))
    alone = [painted(engine, Txt2ImgRequest(**said, prompt=texts[i], seed=4 + i))[0] for i in (1, 0)]
    assert both == alone[::-1]
    assert both[0] != both[1]


def test_guidance_that_the_network_is_told(flux_engine: Engine) -> None:
    """Unasked the family's own; what is asked for counts, and stands in the infotext that can be pasted."""
    plain = flux_engine.paint(asked())
    assert "CFG scale: 1.0" in plain.infotexts[0] and "Distilled CFG Scale: 3.5" in plain.infotexts[0]
    assert pixels(plain.images[0]) == painted(flux_engine, asked(guidance=3.5))[0]
    strict = flux_engine.paint(asked(guidance=20))
    assert pixels(strict.images[0]) != pixels(plain.images[0])
    assert request_fields(parse_infotext(strict.infotexts[0]))["guidance"] == 20


def test_neighbours_may_be_guided_differently(flux_engine: Engine) -> None:
    """Jobs that go on side by side share calls, and yet each is told its own."""
    requests = [asked(guidance=each) for each in (1.0, 9.0)]
    alone = [painted(flux_engine, each)[0] for each in requests]
    last = dict(flux_engine.run_together(dict(enumerate(requests)), rows_per_call=4))
    assert alone[0] != alone[1]
    for number, event in last.items():
        assert isinstance(event, Finished)
        assert nearly([pixels(each) for each in event.result.images], [alone[number]])


def test_many_jobs_at_once_and_one_that_is_cancelled(engine: Engine) -> None:
    """Each picture is what it is alone, to the bit where that is wanted."""
    sides: tuple[dict[str, Any], ...] = (
        {},
        {"width": 32, "height": 48},
        {"strength": 0.5, "mask": box(SIZE, SIZE)},
        {"sampler": "Euler a"},
    )
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


def test_a_job_goes_on_behind_what_is_finished(engine: Engine) -> None:
    """The batches that were kept are taken as they are; the others are what they would have been."""
    request = asked(iterations=3, seed=8)
    plan = engine.plan(request)
    whole = [event for event in engine.run_plan(plan) if isinstance(event, Painted | Finished)]
    *painted_ones, finished = whole
    kept = [event.batch for event in painted_ones if isinstance(event, Painted)][:2]
    *events, again = engine.run_plan(plan, None, kept)
    assert isinstance(finished, Finished) and isinstance(again, Finished)
    assert sum(isinstance(each, Painted) for each in events) == 1
    found, wanted = ([pixels(each) for each in one.result.images] for one in (again, finished))
    assert found == wanted and len(set(found)) == 3


def test_what_is_not_told_is_said(flux_engine: Engine, sd35_engine: Engine) -> None:
    told = sd35_engine.paint(asked(guidance=3.0, cfg_scale=1.0))
    assert any(each.startswith("guidance: a Stable Diffusion 3.5 model is not told") for each in told.warnings)
    told = flux_engine.paint(asked(negative_prompt="a cat"))
    assert any(each.startswith("negative_prompt: it does nothing at cfg_scale 1") for each in told.warnings)
    led = flux_engine.paint(asked(negative_prompt="red", cfg_scale=3.0))
    assert pixels(led.images[0]) != pixels(told.images[0]) and not led.warnings


def test_a_negative_text_that_counts_for_nothing_is_not_read(
    flux_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text encoder of ten gigabytes has other things to do."""
    read: list[int] = []
    kept = TorchBackend.text

    def text(self: TorchBackend, encoder: int, ids: Tensor, **named: Any) -> Any:
        read.append(encoder)
        return kept(self, encoder, ids, **named)

    monkeypatch.setattr(TorchBackend, "text", text)
    site = Settings(encodings_memory=0)
    flux_engine.paint(asked(negative_prompt="a mat"), site)
    assert read == [0, 1]
    flux_engine.paint(asked(negative_prompt="a mat", cfg_scale=2.0), site)
    assert read == [0, 1] * 3


def test_chroma_is_led_by_two_texts(chroma_engine: Engine) -> None:
    """Unasked, at the family's own scale; texts of different lengths go on side by side."""
    plain = chroma_engine.paint(asked())
    assert "CFG scale: 3.0" in plain.infotexts[0] and not plain.warnings
    led = chroma_engine.paint(asked(negative_prompt="a red red red cat"))
    assert pixels(led.images[0]) != pixels(plain.images[0])


def test_a_lora_for_chroma(chroma_engine: Engine, tmp_path: Path) -> None:
    """In the names of every program: its layers are called as those of Flux.1."""
    plain = painted(chroma_engine, asked())
    found = set()
    for style, made in STYLES.items():
        save(made(), tmp_path / "loras" / f"{style}.safetensors")
        worn = worn_with(chroma_engine, tmp_path, style)
        assert worn != plain
        found.add(worn[0])
    assert len(found) == 1
    assert painted(chroma_engine, asked()) == plain


def test_weights_in_the_prompt(flux_engine: Engine, sd35_engine: Engine) -> None:
    """Nothing to Flux, whose words T5 alone reads; of SD 3's encoders the CLIPs know them."""
    heavy = flux_engine.paint(asked(prompt="a (red:1.4) cat"))
    assert pixels(heavy.images[0]) == painted(flux_engine, asked())[0]
    assert heavy.warnings[0].startswith("prompt: a Flux.1 dev model knows no weights")
    heavy = sd35_engine.paint(asked(prompt="a (red:1.4) cat"))
    assert pixels(heavy.images[0]) != painted(sd35_engine, asked())[0]
    assert "only the CLIPs know weights" in heavy.warnings[0]


def test_texts_that_t5_cuts_are_told_of(flux_engine: Engine) -> None:
    result = flux_engine.paint(asked(prompt="red " * 600, steps=1))
    assert any("a Flux.1 dev model reads 512; shorten it" in each for each in result.warnings)


def test_sizes_beyond_its_places_are_refused(sd35_engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"112x32.*knows places for 96 pixels a side"):
        sd35_engine.plan(Txt2ImgRequest(prompt="cat", width=112, height=32))


def test_samplers_over_timesteps_are_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"sampler='DDIM'.*the nearest is Euler"):
        engine.plan(asked(sampler="DDIM"))


def test_painted_again(flux: FluxToy, tmp_path: Path) -> None:
    from overpaint.cli import main

    source, first, second = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    scene(SIZE, SIZE).save(source)
    base = ["--model", str(flux.path), "--device", "cpu", "--dtype", "float32"]
    assert main(["paint", str(source), "a cat", "--steps", "2", "--guidance", "2", "-o", str(first), *base]) == 0
    assert main(["again", str(first), "-o", str(second), *base]) == 0
    assert first.read_bytes() == second.read_bytes()


# -- LoRAs -------------------------------------------------------------------------------------------------------------

WIDTH, INNER = 64, 96


def _pair(seed: int, outputs: int, inputs: int = WIDTH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, inputs, generator=generator), torch.randn(outputs, 4, generator=generator)


def in_one(start: str, join: str, down: str, up: str) -> dict[str, Tensor]:
    """Trainers that keep fused layers."""
    wanted = {"double_blocks.0.img_attn.qkv": 3 * WIDTH, "single_blocks.1.linear1": 3 * WIDTH + INNER}
    wanted |= {"double_blocks.1.txt_attn.proj": WIDTH}
    tensors: dict[str, Tensor] = {}
    for i, (layer, outputs) in enumerate(wanted.items()):
        key = start + layer.replace(".", join)
        tensors[f"{key}.{down}.weight"], tensors[f"{key}.{up}.weight"] = _pair(i, outputs)
    return tensors


def split() -> dict[str, Tensor]:
    """The same product, each part of a fused layer by itself."""
    double, single = "transformer.transformer_blocks.0.attn.", "transformer.single_transformer_blocks.1."
    tensors: dict[str, Tensor] = {}
    for i, (names, sizes) in enumerate(
        (
            ([f"{double}to_{each}" for each in "qkv"], [WIDTH] * 3),
            ([*(f"{single}attn.to_{each}" for each in "qkv"), f"{single}proj_mlp"], [WIDTH] * 3 + [INNER]),
            (["transformer.transformer_blocks.1.attn.to_add_out"], [WIDTH]),
        )
    ):
        down, up = _pair(i, sum(sizes))
        for name, rows in zip(names, torch.split(up, sizes), strict=True):
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = down.clone(), rows.clone()
    return tensors


STYLES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "kohya": lambda: in_one("lora_unet_", "_", "lora_down", "lora_up"),
    "comfyui": lambda: in_one("diffusion_model.", ".", "lora_A", "lora_B"),
    "diffusers": split,
}


@pytest.mark.parametrize("style", STYLES)
def test_a_lora_in_the_names_of_every_program(style: str, flux_engine: Engine, flux: FluxToy, tmp_path: Path) -> None:
    """The same as with its product added to the weights by hand; and off again without a trace."""
    save(STYLES[style](), tmp_path / "loras" / "ink.safetensors")
    plain = painted(flux_engine, asked())
    worn = worn_with(flux_engine, tmp_path, "ink")
    assert painted(flux_engine, asked()) == plain != worn
    changed = dict(flux.transformer)
    for i, layer in enumerate(
        ("double_blocks.0.img_attn.qkv", "single_blocks.1.linear1", "double_blocks.1.txt_attn.proj")
    ):
        down, up = _pair(i, len(changed[f"{layer}.weight"]))
        changed[f"{layer}.weight"] = changed[f"{layer}.weight"] + 0.1 * up @ down
    assert nearly(merged(changed, flux, tmp_path), worn)


def test_a_lora_of_xlabs(flux_engine: Engine, flux: FluxToy, tmp_path: Path) -> None:
    """It names processors, and of single blocks makes queries, keys and values alone."""
    wanted = {
        "double_blocks.0.processor.qkv_lora1": ("double_blocks.0.img_attn.qkv", 3 * WIDTH),
        "double_blocks.0.processor.proj_lora2": ("double_blocks.0.txt_attn.proj", WIDTH),
        "single_blocks.0.processor.qkv_lora": ("single_blocks.0.linear1", 3 * WIDTH),
    }
    tensors: dict[str, Tensor] = {}
    changed = dict(flux.transformer)
    for i, (name, (layer, outputs)) in enumerate(wanted.items()):
        down, up = _pair(i, outputs)
        tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
        weight = changed[f"{layer}.weight"].clone()
        weight[:outputs] += 0.1 * up @ down
        changed[f"{layer}.weight"] = weight
    save(tensors, tmp_path / "loras" / "ink.safetensors")
    assert nearly(merged(changed, flux, tmp_path), worn_with(flux_engine, tmp_path, "ink"))


def test_a_lora_of_the_text_encoders(flux_engine: Engine, tmp_path: Path) -> None:
    """Of CLIP and of T5, by the numbers that trainers give them."""
    keys = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": (32, 24),
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q": (32, 64),
    }
    for name, (outputs, inputs) in keys.items():
        down, up = _pair(1, outputs, inputs)
        save(
            {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "loras" / f"{name}.safetensors"
        )
        assert worn_with(flux_engine, tmp_path, name) != painted(flux_engine, asked())


def test_a_lora_of_flux_is_not_for_stable_diffusion_3(sd35_engine: Engine, tmp_path: Path) -> None:
    save(STYLES["kohya"](), tmp_path / "loras" / "ink.safetensors")
    with pytest.raises(CheckpointError, match=r"no layer of it belongs to a Stable Diffusion 3\.5.*made for Flux"):
        worn_with(sd35_engine, tmp_path, "ink")


def worn_with(engine: Engine, folder: Path, name: str) -> list[bytes]:
    site = Settings(lora_dir=str(folder / "loras"))
    return [pixels(each) for each in engine.paint(asked(loras=(Lora(name=name, weight=0.1),)), site).images]


def merged(tensors: dict[str, Tensor], toy: FluxToy, folder: Path) -> list[bytes]:
    path = save(tensors, folder / "merged.safetensors")
    texts = sorted(map(str, (toy.folder / "text_encoders").iterdir()))
    site = Settings(text_encoder_files=tuple(texts), sd_vae=str(toy.folder / "vae" / "ae.safetensors"))
    with Engine(path, device="cpu", dtype="float32", settings=site) as engine:
        return painted(engine, asked())


def nearly(found: list[bytes], wanted: list[bytes]) -> bool:
    """But for rounding."""
    pairs = [np.frombuffer(each[0], np.uint8).astype(int) for each in (found, wanted)]
    return bool(np.abs(pairs[0] - pairs[1]).max() <= 1)


def test_the_plan_predicts_what_the_weights_take(flux: FluxToy, tmp_path: Path, capsys: Any) -> None:
    """Two bytes for each number of its files, by network."""
    from overpaint.cli import main

    scene(SIZE, SIZE).save(tmp_path / "a.png")
    line = ["plan", str(tmp_path / "a.png"), "a cat", "--model", str(flux.path)]
    assert main([*line, "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    for name, folder in {"transformer": "diffusion_models", "text_encoders": "text_encoders"}.items():
        shapes = [safetensors_shapes(each)[0] for each in (flux.folder / folder).glob("*.safetensors")]
        assert memory[name] == 2 * sum(math.prod(shape) for each in shapes for shape in each.values())
    assert memory["vae"] == 2 * 83_819_683  # of the published one, as long as no file of it was opened
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")
    assert main(line) == 0
    assert "weights in 16 bits" in capsys.readouterr().out


def test_people_are_told_what_lies_beside_it(flux: FluxToy, capsys: Any) -> None:
    """By `info`, and by `models` the family, though the file is not all of the model."""
    from overpaint.cli import main

    assert main(["info", str(flux.path)]) == 0
    told = capsys.readouterr().out
    for each in ("guidance        3.5", "CLIP 24 wide, T5 64 wide, a VAE", "clip_l.safetensors, t5xxl.safetensors, ae"):
        assert each in told
    assert main(["info", str(flux.folder / "text_encoders" / "clip_l.safetensors")]) == 0
    assert "use as   --text-encoder clip_l.safetensors" in capsys.readouterr().out
    assert main(["models", str(flux.path.parent), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert (entry["name"], entry["family"], entry["problem"]) == ("flux1-dev.safetensors", "Flux.1 dev", None)
