"""Whatever comes in at either door: one clear message, nothing half-written, nothing lost."""

from __future__ import annotations

import errno
import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import modules.shared as shared
import overpaint
from modules.processing import Processed, process_images
from overpaint.engine import Engine
from overpaint.errors import OverpaintError, PictureError, RequestError, SaveError
from overpaint.pictures import open_picture
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext
from tests.conftest import label
from tests.engine.conftest import asked, box, job, pixels, scene

SANE = pytest.mark.usefixtures("sane_options")
NAN, INF = float("nan"), float("inf")
TWO = [scene(seed=1), scene(seed=2)]

# native name, the contract's name, value
NUMBERS: list[tuple[str, str, Any]] = [
    ("strength", "denoising_strength", -0.1),
    ("strength", "denoising_strength", 1.01),
    ("strength", "denoising_strength", NAN),
    ("strength", "denoising_strength", "0.5"),
    ("width", "width", 0),
    ("width", "width", -8),
    ("width", "width", NAN),
    ("width", "width", 33.5),
    ("height", "height", 10**9),
    ("steps", "steps", 0),
    ("steps", "steps", -3),
    ("steps", "steps", NAN),
    ("steps", "steps", 100_000),
    ("steps", "steps", True),
    ("cfg_scale", "cfg_scale", NAN),
    ("cfg_scale", "cfg_scale", INF),
    ("batch_size", "batch_size", 0),
    ("iterations", "n_iter", -1),
    ("mask_blur_x", "mask_blur_x", -1),
    ("mask_blur_y", "mask_blur_y", NAN),
    ("padding", "inpaint_full_res_padding", -1),
    ("variation_strength", "subseed_strength", 1.5),
    ("eta", "eta", -1),
    ("s_churn", "s_churn", NAN),
    ("s_noise", "s_noise", -1),
    ("noise_multiplier", "initial_noise_multiplier", NAN),
    ("seed", "seed", 2**70),
]


def message_of(call: Callable[[], object]) -> str:
    """What is said, quickly, by an error that callers can name."""
    with suppress(OverpaintError):
        call()  # what it imports is no part of the time
    started = time.process_time()
    with pytest.raises(OverpaintError) as caught:
        call()
    assert time.process_time() - started < 0.5
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(("native", "contract", "value"), NUMBERS, ids=lambda value: repr(value)[:20])
def test_numbers(engine: Engine, native: str, contract: str, value: Any) -> None:
    message = message_of(lambda: engine.paint(asked(**{native: value})))
    assert message.startswith((f"{native}=", f"{native} "))
    assert repr(value)[:20] in message
    message = message_of(lambda: process_images(job(engine, **{contract: value})))
    assert any(name in message for name in (native, contract))
    assert shared.state.job == ""


@pytest.mark.parametrize("steps", [1001, 10_000])
def test_steps_beyond_the_limit(engine: Engine, steps: int) -> None:
    assert "max_steps" in message_of(lambda: engine.paint(asked(steps=steps)))
    assert "max_steps" in message_of(lambda: process_images(job(engine, steps=steps)))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"init_images": None}, ("images",)),
        ({"init_images": []}, ("images",)),
        ({"init_images": ["data:image/png;base64,AAAA"]}, ("images[0]",)),
        ({"init_images": [None]}, ("images[0]",)),
        ({"init_images": TWO}, ("images", "batch_size")),
        ({"init_images": TWO * 2, "batch_size": 3}, ("images", "4", "batch_size")),
        ({"mask": "mask.png"}, ("mask",)),
        ({"resize_mode": 4}, ("resize_mode", "3")),
        ({"resize_mode": -1}, ("resize_mode",)),
        ({"inpainting_fill": 7}, ("inpainting_fill", "7")),
        ({"prompt": None}, ("prompt",)),
        ({"prompt": []}, ("prompt",)),
        ({"prompt": ["a", "b"], "negative_prompt": ["x"], "batch_size": 2}, ("negative_prompt", "2")),
        ({"override_settings": {"samples_formats": "png"}}, ("samples_formats", "samples_format")),
        ({"override_settings": {"randn_source": "TPU"}}, ("randn_source", "GPU, CPU, NV")),
        ({"width": 4000, "height": 4000}, ("4000x4000",)),
        ({"n_iter": 1001}, ("1001", "max_images")),
        ({"width": 4, "height": 4}, ("4x4", "8x8")),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_the_contracts_door(engine: Engine, fields: dict[str, Any], names: tuple[str, ...], manner: Settings) -> None:
    if manner == Settings() and "width" in fields and fields["width"] == 4:
        pytest.skip("a picture of 4x4 is painted within a pass of 8x8")
    shared.opts.replace_all(manner)
    message = message_of(lambda: process_images(job(engine, **fields)))
    for name in names:
        assert name in message


@SANE
@pytest.mark.parametrize(
    ("native", "contract", "names"),
    [
        ({"sampler": "Eulr a"}, {"sampler_name": "Eulr a"}, ("sampler='Eulr a'", "'Euler a'")),
        ({"scheduler": "Karas"}, {"scheduler": "Karas"}, ("scheduler='Karas'", "'Karras'")),
        ({"styles": ("cubist",)}, {"styles": ["cubist"]}, ("styles", "'cubist'", "styles_file")),
        ({"prompt": ("a",) * 3, "batch_size": 2}, {"prompt": ["a"] * 3, "batch_size": 2}, ("prompt", "give 2")),
        ({"prompt": "a <lora:nothing:1>"}, {"prompt": "a <lora:nothing:1>"}, ("prompt", "nothing")),
        (
            {"overrides": {"sd_model_checkpoint": "no-such"}},
            {"override_settings": {"sd_model_checkpoint": "no-such"}},
            ("no-such",),
        ),
        ({"overrides": {"sd_vae": "no-such"}}, {"override_settings": {"sd_vae": "no-such"}}, ("no-such",)),
        ({"mask": box(64, 32)}, {"mask": box(64, 32)}, ("mask='64x32'", "32x32")),
    ],
    ids=label,
)
def test_unknown_names_at_both_doors(
    engine: Engine, native: dict[str, Any], contract: dict[str, Any], names: tuple[str, ...]
) -> None:
    for message in (
        message_of(lambda: engine.paint(asked(**native))),
        message_of(lambda: process_images(job(engine, **contract))),
    ):
        for name in names:
            assert name in message


def test_unknown_fields_name_the_nearest() -> None:
    assert "strength" in message_of(lambda: asked().with_changes(strenght=0.5))  # type: ignore[call-arg]
    assert "strength" in message_of(lambda: overpaint.Img2ImgRequest.from_json({"images": [], "strenght": 0.5}))


@SANE
@pytest.mark.parametrize("only", [False, True])
def test_a_mask_of_another_size_but_the_same_shape(engine: Engine, only: bool) -> None:  # MASK-9
    fields: dict[str, Any] = {"mask": box(64, 64, (16, 16, 32, 32)), "steps": 1}
    native = engine.paint(asked(only_masked=only, padding=0, width=32, height=32, **fields))
    contract = process_images(job(engine, inpaint_full_res=only, inpainting_fill=1, **fields))
    assert any("mask" in each and "64" in each for each in native.warnings)
    assert native.warnings == contract.warnings
    assert pixels(native.images[0]) == pixels(contract.images[0])


# -- pictures ----------------------------------------------------------------------------------------------------------


def bomb(width: int = 100_000, height: int = 100_000) -> bytes:
    """A PNG whose header promises ten thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def cut_short() -> bytes:
    data = io.BytesIO()
    scene(64, 64).save(data, format="PNG")
    return data.getvalue()[:500]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "opened"),
        (b"hello", "opened"),
        (cut_short(), "decoded"),
        (bomb(), "large|pixels"),
        (bomb(10_500, 10_500), "pixels"),
    ],
    ids=["empty", "text", "cut short", "bomb", "many pixels"],
)
def test_pictures_that_are_none(engine: Engine, data: bytes, word: str) -> None:
    started = time.process_time()
    with pytest.raises(PictureError, match=word):
        overpaint.img2img(data, "x", engine=engine)
    with pytest.raises(PictureError, match=word):
        overpaint.img2img(scene(), "x", mask=data, engine=engine)
    assert time.process_time() - started < 0.5


def test_a_picture_beyond_the_sites_limit(engine: Engine) -> None:
    """Whoever opened it: a source above `max_source_pixels` is refused by the engine too."""
    options = Settings(max_source_pixels=500)
    assert "max_source_pixels" in message_of(lambda: engine.paint(asked(), options))


def test_a_lazy_picture_that_cannot_be_decoded(engine: Engine) -> None:
    """Pillow decodes late: a file cut short is found out only when its pixels are asked for."""
    with Image.open(io.BytesIO(cut_short())) as lazy:
        message = message_of(lambda: engine.paint(asked(images=(lazy,))))
        assert "images" in message or "decoded" in message


@pytest.mark.parametrize(
    ("path", "said"),
    [("nowhere.png", "nowhere.png: there is no such file"), (".", ".: it is a folder; give one picture")],
)
def test_a_file_that_is_not_there(engine: Engine, path: str, said: str) -> None:
    with pytest.raises(PictureError) as caught:
        overpaint.img2img(path, "x", engine=engine)
    assert str(caught.value) == said


def test_opening_leaves_no_file_open(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "gif", "webp", "tiff"):
        scene().save(tmp_path / f"a.{suffix}")
        open_picture(tmp_path / f"a.{suffix}")


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["(" * 100_000, "[" * 100_000, "[(a:b|" * 16_600, "<lora:" * 16_600])
@pytest.mark.parametrize("manner", [Settings(), Settings.reference()], ids=["sane", "reference"])
def test_brackets_without_end(engine: Engine, text: str, manner: Settings) -> None:
    shared.opts.replace_all(manner)
    started = time.process_time()
    assert "max_prompt_chars" in message_of(lambda: engine.paint(asked(prompt=text), manner))
    assert "max_prompt_chars" in message_of(lambda: process_images(job(engine, negative_prompt=text)))
    assert time.process_time() - started < 0.2


def test_brackets_within_the_limit(engine: Engine) -> None:
    started = time.process_time()
    engine.plan(asked(prompt="[(" * 16_000))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["a: " * 33_000, 'k: "' * 25_000, "\\" * 100_000, 'a: "\\' * 16_000, "ab" * 50_000])
def test_adversarial_infotext(text: str) -> None:
    started = time.process_time()
    split_infotext(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "prompt", ["\x00", "\ud800", "🐱" * 50, "a\r\nb", "(((", "[a:b:]", "a AND :", "<>", "BREAK BREAK"]
)
def test_odd_prompts_are_painted(engine: Engine, prompt: str) -> None:
    for manner in (Settings(), Settings.reference()):
        result = engine.paint(asked(prompt=prompt, steps=1, images=(scene(16, 16),)), manner)
        assert len(result.images) == 1


# -- disks -------------------------------------------------------------------------------------------------------------


def full_disk(after: int, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The disk has room for some files and then for none."""
    kept, count = getattr(os, call), 0

    def failing(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return kept(*args)

    monkeypatch.setattr(os, call, failing)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    full_disk(0, monkeypatch, call)
    p = job(engine, n_iter=2, do_not_save_samples=False, outpath_samples=str(tmp_path / "out"))
    with pytest.raises(SaveError, match="free space") as caught:
        process_images(p)
    assert str(tmp_path / "out") in str(caught.value)
    assert files(tmp_path) == []  # nothing half-written
    result = caught.value.result
    assert isinstance(result, Processed)
    assert len(result.images) == 1  # what was painted is in the error
    assert shared.state.job == ""


def test_a_disk_that_fills_up_keeps_what_was_saved(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(1, monkeypatch, "write")
    p = job(engine, n_iter=3, do_not_save_samples=False, outpath_samples=str(tmp_path))
    with pytest.raises(SaveError) as caught:
        process_images(p)
    (only,) = files(tmp_path)
    result = caught.value.result
    assert isinstance(result, Processed)
    assert len(result.images) == 2
    with Image.open(only) as picture:
        assert picture.tobytes() == result.images[0].tobytes()


def test_a_folder_that_cannot_be(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    p = job(engine, do_not_save_samples=False, outpath_samples=str(tmp_path / "out"))
    with pytest.raises(SaveError, match="file stands"):
        process_images(p)
    assert (tmp_path / "out").read_text() == "a file"


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:100], lambda data: data[:-1000], lambda data: b"", lambda data: b"\xff" * 64 + data[64:]],
    ids=["header cut", "tail cut", "empty", "nonsense"],
)
def test_models_that_are_none(checkpoint: Path, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(spoil(checkpoint.read_bytes()))
    with pytest.raises(overpaint.CheckpointError, match=r"broken\.safetensors"):
        Engine(path, device="cpu", dtype="float32")


def test_errors_are_of_the_kinds_that_callers_know(engine: Engine) -> None:
    with pytest.raises(ValueError):
        engine.paint(asked(steps=1_001))
    with pytest.raises(KeyError):
        engine.paint(asked(overrides={"nothing": 1}))
    assert issubclass(SaveError, OSError)
    assert issubclass(RequestError, OverpaintError)
