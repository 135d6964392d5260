"""Mistakes that people make in Python: the call, the error, and the whole sentence it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import overpaint
from overpaint.errors import OverpaintError
from tests.unit.fake_painter import FakePainter, drawing

# Whoever makes these mistakes has no type checker.
img2img: Any = overpaint.img2img
txt2img: Any = overpaint.txt2img
Request: Any = overpaint.Img2ImgRequest
NewPicture: Any = overpaint.Txt2ImgRequest
Settings: Any = overpaint.Settings
save: Any = overpaint.save
Engine: Any = overpaint.Engine
open_picture: Any = overpaint.open_picture

CAT = drawing()
_ARRAY = np.zeros((3, 8, 8), np.uint8)

MISTAKES: list[tuple[str, Callable[[], object], str, str]] = [
    ("no picture", lambda: img2img(), "RequestError", "image=None: give the picture to paint over"),
    (
        "a file that is not there",
        lambda: img2img("gone.png", "a cat"),
        "PictureError",
        "gone.png: there is no such file",
    ),
    (
        "a text file",
        lambda: img2img("notes.txt", "a cat"),
        "PictureError",
        "notes.txt: the picture cannot be opened: it is none of PNG, JPEG, MPO, WEBP, AVIF, GIF, BMP, DIB, TIFF, PPM, "
        "JPEG2000, ICO, TGA",
    ),
    (
        "a number",
        lambda: img2img(7, "a cat"),
        "PictureTypeError",
        "int is no picture: give a path, bytes, a PIL picture, a numpy array or a torch tensor",
    ),
    (
        "a mask that is not there",
        lambda: img2img(CAT, "a cat", mask="gone.png"),
        "PictureError",
        "gone.png: there is no such file",
    ),
    (
        "a misspelt field",
        lambda: img2img(CAT, "a cat", strenght=0.5),
        "RequestTypeError",
        "strenght=0.5: there is no such field; did you mean 'strength'?",
    ),
    (
        "a misspelt field of a request",
        lambda: Request(images=CAT, promt="a cat"),
        "RequestTypeError",
        "promt='a cat': there is no such field; did you mean 'prompt'?",
    ),
    (
        "a misspelt change",
        lambda: Request(images=CAT).with_changes(stepz=3),
        "RequestTypeError",
        "stepz=3: there is no such field; did you mean 'steps'?",
    ),
    ("per cent", lambda: img2img(CAT, strength=75), "RequestError", "strength=75: give a value from 0 to 1"),
    (
        "a text for a number",
        lambda: img2img(CAT, steps="20"),
        "RequestTypeError",
        "steps='20': give a whole number from 1 to 10000",
    ),
    (
        "a fraction of a step",
        lambda: img2img(CAT, steps=20.5),
        "RequestTypeError",
        "steps=20.5: give a whole number from 1 to 10000",
    ),
    ("no steps", lambda: img2img(CAT, steps=0), "RequestError", "steps=0: give a value from 1 to 10000"),
    (
        "a prompt that is no text",
        lambda: img2img(CAT, 7),
        "RequestTypeError",
        "prompt=7: give a text, or a non-empty list of texts, one per picture",
    ),
    (
        "a text for yes",
        lambda: img2img(CAT, only_masked="yes"),
        "RequestTypeError",
        "only_masked='yes': give True or False",
    ),
    (
        "a style as a text",
        lambda: img2img(CAT, styles="Ink"),
        "RequestTypeError",
        "styles='Ink': give a list of style names",
    ),
    (
        "the number of a resize mode",
        lambda: img2img(CAT, resize_mode=1),
        "RequestError",
        "resize_mode=1: choose one of stretch, crop, fill, latent",
    ),
    (
        "an unknown filling",
        lambda: img2img(CAT, masked_content="latent noise"),
        "RequestError",
        "masked_content='latent noise': choose one of fill, original, noise, nothing",
    ),
    (
        "a seed that is too large",
        lambda: img2img(CAT, seed=2**64),
        "RequestError",
        f"seed={2**64}: give a whole number below 2^63, or -1 for a new one",
    ),
    (
        "a seed of None",
        lambda: img2img(CAT, seed=None),
        "RequestTypeError",
        "seed=None: give a whole number below 2^63, or -1 for a new one",
    ),
    (
        "more pictures than places",
        lambda: Request(images=[CAT, CAT]),
        "RequestError",
        "images='2 pictures': raise batch_size to 2 or give at most 1",
    ),
    ("no pictures", lambda: Request(images=[]), "RequestError", "images=(): give at least one source picture"),
    (
        "a request without a picture",
        lambda: Request(prompt="a cat"),
        "RequestTypeError",
        "Img2ImgRequest.images=None: it is missing; give it by name",
    ),
    (
        "a request by places",
        lambda: Request("cat.png", "a cat"),
        "RequestTypeError",
        "Img2ImgRequest='cat.png': give its fields by name, as in Img2ImgRequest(images=...)",
    ),
    (
        "a path in a request",
        lambda: Request(images="cat.png"),
        "RequestTypeError",
        "images[0]='cat.png': give a PIL picture, a numpy array or a torch tensor; overpaint.open_picture opens a file",
    ),
    (
        "channels at the wrong end",
        lambda: Request(images=_ARRAY),
        "RequestError",
        "images=ndarray of (3, 8, 8), uint8: an array is (height, width) or (height, width, channels), with 1, 3 or 4 "
        "channels; np.moveaxis(array, 0, -1) brings channels to the end",
    ),
    (
        "floats up to 255",
        lambda: Request(images=np.full((8, 8, 3), 255.0)),
        "RequestError",
        "images=ndarray of (8, 8, 3), float64, from 255 to 255: floats go from 0, black, to 1, white; divide by 255, "
        "or shift -1..1 to 0..1",
    ),
    (
        "a source in txt2img",
        lambda: txt2img("a moon", strength=0.5),
        "RequestError",
        "strength=0.5: leave it out, since txt2img has no source, or give a source picture",
    ),
    (
        "hires as a table of wrong names",
        lambda: overpaint.Hires(scael=2),  # type: ignore[call-arg]
        "RequestTypeError",
        "hires.scael=2: there is no such field; did you mean 'scale'?",
    ),
    (
        "hires that is no Hires",
        lambda: NewPicture(prompt="a moon", hires=2),
        "RequestTypeError",
        "hires=2: give an overpaint.Hires",
    ),
    (
        "a LoRA by its name alone",
        lambda: Request(images=CAT, loras=["ink"]),
        "RequestTypeError",
        "loras[0]='ink': give an overpaint.Lora, or a table of its fields",
    ),
    (
        "a LoRA without a name",
        lambda: overpaint.Lora(weight=1),  # type: ignore[call-arg]
        "RequestTypeError",
        "Lora.name=None: it is missing; give it by name",
    ),
    (
        "one LoRA without a list",
        lambda: Request(images=CAT, loras=overpaint.Lora(name="ink")),
        "RequestTypeError",
        "loras=Lora(name='ink', weight=1.0, text_weight=None): give a list of overpaint.Lora",
    ),
    (
        "options that are no table",
        lambda: Request(images=CAT, overrides="eta=1"),
        "RequestTypeError",
        "overrides='eta=1': give a table of options, such as {'eta_ancestral': 0.5}",
    ),
    (
        "an unknown option",
        lambda: Settings(random_source="CPU"),
        "SettingError",
        "random_source='CPU': did you mean 'randn_source'?",
    ),
    (
        "an option of another kind",
        lambda: Settings(jpeg_quality="high"),
        "SettingError",
        "jpeg_quality='high': give a whole number",
    ),
    (
        "a quality that there is not",
        lambda: Settings(jpeg_quality=101),
        "SettingError",
        "jpeg_quality=101: give a quality from 1 to 100",
    ),
    (
        "an unknown quirk",
        lambda: overpaint.Quirks(truncate_pixel=True),  # type: ignore[call-arg]
        "SettingError",
        "quirks.truncate_pixel=True: did you mean 'truncate_pixels'?",
    ),
    (
        "a path for an engine",
        lambda: img2img(CAT, engine="sd15.safetensors"),
        "RequestTypeError",
        "engine='sd15.safetensors': give an overpaint.Engine; a model's file is the checkpoint",
    ),
    (
        "a number for a checkpoint",
        lambda: img2img(CAT, checkpoint=15),
        "RequestTypeError",
        "checkpoint=15: give a path or a name; `overpaint models` lists them",
    ),
    (
        "settings as a table",
        lambda: img2img(CAT, settings={"eta": 1}),
        "RequestTypeError",
        "settings={'eta': 1}: give an overpaint.Settings",
    ),
    (
        "progress as a word",
        lambda: img2img(CAT, progress="bar"),
        "RequestTypeError",
        "progress='bar': give True for a bar, or a function of each overpaint.Progress",
    ),
    (
        "a device that there is not",
        lambda: Engine(device="gpu"),
        "RequestError",
        "device='gpu': use auto, cpu, cuda, cuda:1 or mps",
    ),
    (
        "a device by its number",
        lambda: Engine(device=0),
        "RequestError",
        "device=0: use auto, cpu, cuda, cuda:1 or mps",
    ),
    (
        "no device",
        lambda: Engine(device=None),
        "RequestError",
        "device=None: use auto, cpu, cuda, cuda:1 or mps",
    ),
    (
        "a device that is not here",
        lambda: Engine(device="cuda:99"),
        "RequestError",
        "device='cuda:99': PyTorch finds no such device on this machine; use auto or cpu",
    ),
    (
        "a precision by its short name",
        lambda: Engine(dtype="fp16"),
        "RequestError",
        "dtype='fp16': use auto, float32, float16, bfloat16",
    ),
    (
        "a precision as a number",
        lambda: Engine(dtype=16),
        "RequestError",
        "dtype=16: use auto, float32, float16, bfloat16",
    ),
    (
        "a precision of torch that is not painted with",
        lambda: Engine(dtype=torch.float64),
        "RequestError",
        "dtype=torch.float64: use auto, float32, float16, bfloat16",
    ),
    (
        "a number for an engine's checkpoint",
        lambda: Engine(15),
        "RequestTypeError",
        "checkpoint=15: give a path or a name; `overpaint models` lists them",
    ),
    (
        "a model file that is not there",
        lambda: Engine("gone.safetensors"),
        "CheckpointError",
        "checkpoint='gone.safetensors': there is no such file or name; built in: overpaint-mini, "
        "overpaint-mini-inpainting, overpaint-mini-edit, overpaint-mini-flow; set the option models_dir for others",
    ),
    (
        "an engine's progress as a word",
        lambda: Engine(progress=True),
        "RequestTypeError",
        "progress=True: give a function of two numbers: tensors loaded, and of how many",
    ),
    (
        "saving a number",
        lambda: save(7, "x.png"),
        "RequestTypeError",
        "picture=7: give what img2img, txt2img or Engine.paint returned",
    ),
    (
        "saving as nothing known",
        lambda: save(CAT, "x.xcf"),
        "RequestError",
        "path='x.xcf': give a name that ends in one of "
        ".png, .jpg, .jpeg, .webp, .avif, .tif, .tiff, .bmp, .heic, .heif",
    ),
    (
        "saving over a picture",
        lambda: save(CAT, "cat.png"),
        "RequestError",
        "path='cat.png': it exists; give overwrite=True or another name",
    ),
    (
        "saving where no folder is",
        lambda: save(CAT, "gone/x.png"),
        "RequestError",
        "path='gone/x.png': its folder does not exist; make it first, or end the path in a slash",
    ),
    (
        "saving with no quality",
        lambda: save(CAT, "x.jpg", quality=0),
        "SettingError",
        "jpeg_quality=0: give a quality from 1 to 100",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    CAT.save("cat.png")
    Path("notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(("call", "kind", "said"), [each[1:] for each in MISTAKES], ids=[each[0] for each in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(call: Callable[[], object], kind: str, said: str, folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(OverpaintError) as caught:
        call()
    assert (type(caught.value).__name__, str(caught.value)) == (kind, said)
    assert ("\n" in said, isinstance(caught.value, TypeError)) == (False, kind.endswith("TypeError"))
    assert sorted(folder.iterdir()) == before


def test_a_mistake_is_told_before_a_model_is_loaded() -> None:
    painter = FakePainter()
    with pytest.raises(OverpaintError):
        img2img(CAT, "a cat", engine=painter, strenght=1)
    assert painter.requests == []
    assert isinstance(CAT, Image.Image)
