"""Whatever a job names that cannot be used: one sentence that says what, and the next job is painted as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from overpaint.engine import Engine
from overpaint.errors import CheckpointError, OverpaintError
from overpaint.events import Event, Finished, Painted, Progress
from overpaint.request import ControlUnit, Hires, PaintRequest
from overpaint.settings import Settings
from tests.engine.conftest import asked, painted, pixels
from tests.engine.toys import Site, control, copy_of, dreamt, hint, hypernet, unet_spec, vectors
from tests.tiny import make_tiny_checkpoint
from tests.unit.models.other_layouts import TEXT, UNET, VAE
from tests.unit.models.test_gguf_files import plain_gguf
from tests.unit.toy_control import SD1

PLAIN = {"overpaint.num_heads": "8", "overpaint.text_heads": "[1]"}


@pytest.fixture(scope="module")
def own(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with files that cannot be used among the others."""
    made = copy_of(site, tmp_path_factory.mktemp("bad"))
    models, tensors = made.folder("models"), load_file(made.model("tiny"))
    first = f"{UNET}input_blocks.0.0.weight"
    for name, channels in (("inpaint", 9), ("edit", 8)):
        wide = torch.zeros(32, channels, 3, 3, dtype=torch.float16)
        wide[:, :4] = tensors[first]
        save_file({**tensors, first: wide}, models / f"{name}.safetensors", PLAIN)
    save_file({key: each for key, each in tensors.items() if not key.startswith(TEXT)}, models / "mute.safetensors")
    (models / "cut.safetensors").write_bytes(Path(made.model("tiny")).read_bytes()[:-1000])
    (models / "nothing.safetensors").write_bytes(b"")
    words = {"token_embd.weight": tensors[first].float().numpy(), "blk.0.attn_q.weight": tensors[first].float().numpy()}
    plain_gguf(models / "words.gguf", words)
    shards(models / "sharded", tensors)
    bad_vaes(made.folder("vaes"), tensors)
    control(made, "narrow", seed=3, spec=SD1)
    (made.folder("controls") / "cut.safetensors").write_bytes(b"\x08\0\0\0")
    (made.folder("upscalers") / "broken.pth").write_bytes(b"nothing")
    save_file({"emb_params": vectors(1, 65)}, made.folder("embeddings") / "broad.safetensors")
    save_file({"emb_params": vectors(1, seed=2)}, made.folder("embeddings") / "house.safetensors")
    hypernet(made.folder("hypernets") / "other.pt", width=48)
    return made


def shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    import json

    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    index = {
        "weight_map": {key.removeprefix(UNET): "diffusion_pytorch_model-00001-of-00002.safetensors" for key in tensors}
    }
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def bad_vaes(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    vae = {key.removeprefix(VAE): each for key, each in tensors.items() if key.startswith(VAE)}
    wide = dict(vae)
    for key in ("decoder.conv_in.weight", "post_quant_conv.weight", "quant_conv.weight", "encoder.conv_out.weight"):
        each = vae[key]
        rows = 16 if key == "post_quant_conv.weight" else 32 if each.shape[0] == 8 else each.shape[0]
        columns = 16 if each.shape[1] == 4 else 32 if key == "quant_conv.weight" else each.shape[1]
        wide[key] = torch.zeros(rows, columns, *each.shape[2:], dtype=each.dtype)
    for key, count in (("post_quant_conv.bias", 16), ("quant_conv.bias", 32), ("encoder.conv_out.bias", 32)):
        wide[key] = torch.zeros(count, dtype=torch.float16)
    save_file(wide, folder / "sixteen.safetensors")
    save_file({"some.thing": torch.ones(3)}, folder / "strange.safetensors")


@pytest.fixture(scope="module")
def engine(own: Site) -> Engine:
    return Engine(own.model("tiny"), device="cpu", dtype="float32", settings=own.settings)


def unit(**fields: Any) -> ControlUnit:
    return ControlUnit(**{"model": "edges", "image": hint(), **fields})


CASES: list[tuple[PaintRequest, tuple[str, ...]]] = [
    (asked(checkpoint="nobody"), ("checkpoint='nobody'", "known in", "tiny.safetensors")),
    (asked(checkpoint="cut"), ("cut.safetensors",)),
    (asked(checkpoint="nothing"), ("nothing.safetensors",)),
    (asked(checkpoint="words.gguf"), ("words.gguf",)),
    (asked(checkpoint="sharded"), ("diffusion_pytorch_model-00001-of-00002.safetensors", "missing", "download")),
    (asked(checkpoint="mute"), ("mute.safetensors", "text")),
    (asked(overrides={"sd_vae": "nobody"}), ("sd_vae='nobody'", "pale")),
    (asked(overrides={"sd_vae": "sixteen.safetensors"}), ("sixteen.safetensors", "16")),
    (asked(overrides={"sd_vae": "strange.safetensors"}), ("strange.safetensors",)),
    (asked(refiner="nobody"), ("refiner", "nobody", "known in")),
    (asked(refiner="inpaint"), ("refiner='inpaint'", "9 channels", "4")),
    (asked(refiner="edit", checkpoint="inpaint"), ("refiner='edit'", "8 channels", "9")),
    (asked(refiner="cut"), ("cut.safetensors",)),
    (dreamt(checkpoint="edit"), ("edit model", "give one")),
    (dreamt(checkpoint="nobody"), ("checkpoint='nobody'",)),
    (dreamt(hires=Hires(checkpoint="nobody")), ("hires.checkpoint", "nobody")),
    (dreamt(hires=Hires(checkpoint="edit")), ("hires.checkpoint='edit'",)),
    (dreamt(hires=Hires(upscaler="nobody")), ("hires.upscaler='nobody'", "Latent", "grow")),
    (dreamt(hires=Hires(upscaler="broken")), ("broken",)),
    (dreamt(hires=Hires(sampler="nobody")), ("hires.sampler='nobody'",)),
    (dreamt(hires=Hires(scheduler="nobody")), ("hires.scheduler='nobody'",)),
    (dreamt(width=1024, height=1024, hires=Hires(scale=16)), ("16384x16384", "max_pixels_per_pass")),
    (dreamt(hires=Hires(width=16000, height=16000)), ("16000x16000", "max_pixels_per_pass")),
    (dreamt(width=8, height=2048, hires=Hires(width=2048)), ("hires.height", "16384")),
    (dreamt(hires=Hires(prompt=("a", "b"))), ("hires.prompt", "2 texts", "1")),
    (dreamt(batch_size=2, prompt=("a", "b"), hires=Hires(prompt=("a", "b", "c"))), ("hires.prompt", "3 texts", "2")),
    (dreamt(batch_size=2, hires=Hires(negative_prompt=("a",))), ("hires.negative_prompt", "1 texts", "2")),
    (asked(overrides={"upscaler_for_img2img": "nobody"}), ("upscaler_for_img2img", "nobody")),
    (asked(width=64, overrides={"upscaler_for_img2img": "broken"}), ("broken",)),
    (asked(controls=(unit(), unit(model="nobody"))), ("controls[1].model='nobody'", "edges")),
    (asked(controls=(unit(model="narrow"),)), ("controls[0].model='narrow'", "24")),
    (asked(controls=(unit(model="cut"),)), ("cut.safetensors",)),
    (asked(prompt="a <hypernet:other:1>"), ("other", "48", "64")),
]


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(OverpaintError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    ("request_", "words"), CASES, ids=lambda each: " ".join(each)[:60] if isinstance(each, tuple) else ""
)
def test_one_sentence_and_on_with_the_next(engine: Engine, request_: PaintRequest, words: tuple[str, ...]) -> None:
    before = painted(engine)
    message = sentence(lambda: engine.paint(request_))
    for word in words:
        assert word in message
    assert painted(engine) == before


@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_an_engine_of_what_is_none(own: Site, manner: Settings) -> None:
    for name in ("cut.safetensors", "nothing.safetensors", "words.gguf", "sharded", "mute.safetensors"):
        sentence(lambda name=name: Engine(own.folder("models") / name, device="cpu", dtype="float32", settings=manner))  # type: ignore[misc]


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (1, 1)),
        Image.new("1", (3, 40)),
        Image.new("LA", (32, 32)),
        Image.new("P", (32, 32)),
        Image.new("I;16", (32, 32), 40_000),
        Image.new("CMYK", (32, 32)),
        Image.new("RGBA", (9, 2000)),
    ],
    ids=lambda each: f"{each.mode} {each.size}",
)
@pytest.mark.parametrize("preprocessor", ["none", "canny", "invert"])
def test_any_picture_can_be_followed(engine: Engine, picture: Image.Image, preprocessor: str) -> None:
    unit_ = unit(image=picture, preprocessor=preprocessor)
    assert engine.paint(asked(controls=(unit_,), steps=1)).images[0].size == (32, 32)


def test_a_control_picture_of_floats(engine: Engine) -> None:
    message = sentence(lambda: unit(image=Image.new("F", (32, 32), 0.5)))
    assert message.startswith("controls.image='F': its pixels are floats")


def test_a_control_picture_that_cannot_be_decoded(engine: Engine) -> None:
    import io

    data = io.BytesIO()
    hint(64, 64).save(data, format="PNG")
    with Image.open(io.BytesIO(data.getvalue()[:300])) as lazy:
        message = sentence(lambda: engine.paint(asked(controls=(unit(image=lazy),))))
    assert "controls" in message
    assert "image" in message


def test_a_control_picture_beyond_the_sites_limit(engine: Engine, own: Site) -> None:
    options = own.with_options(max_source_pixels=2000)
    big = asked(controls=(unit(image=Image.new("RGB", (100, 100))),))
    assert "controls[0].image" in sentence(lambda: engine.paint(big, options))


def test_embeddings_that_do_not_fit_or_are_words(engine: Engine) -> None:
    result = engine.paint(asked(prompt="a broad house"))
    told = " ".join(result.warnings)
    assert "'broad'" in told
    assert "65" in told
    assert "'house'" in told
    assert "TI hashes" in result.info
    assert pixels(result.images[0]) != painted(engine, prompt="a broad home")[0]
    assert engine.paint(asked(prompt="a home")).warnings == ()


# -- files that change -------------------------------------------------------------------------------------------------


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "a.safetensors")


def until(story: Any, kind: type[Event]) -> None:
    next(each for each in story if isinstance(each, kind))


def replace_by_another(path: Path) -> None:
    path.unlink()
    make_tiny_checkpoint(path, seed=5)


def test_a_checkpoint_swapped_between_jobs(moving: Path) -> None:
    with Engine(moving, device="cpu", dtype="float32") as engine:
        first = engine.paint(asked())
        replace_by_another(moving)
        second = engine.paint(asked())
        assert pixels(first.images[0]) != pixels(second.images[0])
        assert first.model.hash != second.model.hash
        with Engine(moving, device="cpu", dtype="float32") as fresh:
            assert painted(fresh) == [pixels(second.images[0])]


@pytest.mark.parametrize("kind", [Progress, Painted])
@pytest.mark.parametrize("other_job", [False, True])
def test_a_checkpoint_swapped_during_a_job(moving: Path, kind: type[Event], other_job: bool) -> None:
    with Engine(moving, device="cpu", dtype="float32") as engine:
        request = asked(iterations=2)
        whole = engine.paint(request)
        story = engine.run(request)
        until(story, kind)
        replace_by_another(moving)
        if other_job:
            assert painted(engine) != [pixels(whole.images[0])]
        *_, last = story
        assert isinstance(last, Finished)
        assert [pixels(each) for each in last.result.images] == [pixels(each) for each in whole.images]
        assert last.result.infotexts == whole.infotexts


def test_a_checkpoint_that_is_gone(moving: Path, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "b.safetensors", seed=1)
    with Engine(moving, device="cpu", dtype="float32") as engine:
        before = painted(engine)
        story = engine.run(asked(iterations=2))
        until(story, Progress)
        data = moving.read_bytes()
        moving.unlink()
        *_, last = story
        assert isinstance(last, Finished)
        assert pixels(last.result.images[0]) == before[0]
        message = sentence(lambda: engine.paint(asked()))
        assert "a.safetensors: the file is gone" in message
        assert painted(engine, checkpoint=str(other)) != before
        moving.write_bytes(data)
        assert painted(engine) == before


def test_a_second_models_file_is_gone_before_it_is_wanted(moving: Path, tmp_path: Path) -> None:
    """What was painted until then is in the error."""
    other = make_tiny_checkpoint(tmp_path / "b.safetensors", seed=1)
    with Engine(moving, device="cpu", dtype="float32") as engine:
        before = painted(engine)
        for request in (
            asked(refiner=str(other), iterations=2),
            dreamt(hires=Hires(checkpoint=str(other)), iterations=2),
        ):
            story = engine.run(request)
            until(story, Progress)
            data = other.read_bytes()
            other.unlink()
            with pytest.raises(CheckpointError, match=r"b\.safetensors"):
                list(story)
            other.write_bytes(data)
            assert painted(engine) == before


def test_a_checkpoint_written_half(moving: Path) -> None:
    with Engine(moving, device="cpu", dtype="float32") as engine:
        before = painted(engine)
        data = moving.read_bytes()
        moving.write_bytes(data[: len(data) // 2])
        sentence(lambda: engine.paint(asked()))
        moving.write_bytes(data)
        assert painted(engine) == before


def test_unet_spec_is_what_controls_are_made_for(own: Site) -> None:
    assert unet_spec(own).context_dim == 64
