"""Requests on their way into the store and out of it."""

from __future__ import annotations

import base64
import io
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from overpaint.errors import OverpaintError, PictureError, RequestError
from overpaint.extras import ExtrasRequest
from overpaint.request import Hires, Img2ImgRequest, Txt2ImgRequest
from overpaint.service.jobs import PICTURE_REFERENCE
from overpaint.service.limits import Limits
from overpaint.service.ports import TooLarge
from overpaint.service.request_limits import job_settings
from overpaint.service.requests import judged_request, kind_of, loaded_request, reference_of, stored_request
from overpaint.settings import Settings
from tests.service.fake_store import FakeStore

LIMITS = Limits()


def file_of(mode: str = "RGB", size: tuple[int, int] = (48, 32), color: Any = 90, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    picture = Image.new(mode, size, color)
    ImageDraw.Draw(picture).ellipse((4, 4, 20, 20), fill=255 if mode == "L" else (200, 40, 10))
    picture.save(data, kind)
    return data.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


SOURCE, MASK = file_of(), file_of("L", color=0)


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


def stored(store: FakeStore, limits: Limits = LIMITS, **values: Any) -> dict[str, Any]:
    return stored_request(values, store, limits)


def test_every_form_of_a_picture_is_the_same_request(store: FakeStore) -> None:
    kept = store.put_picture(SOURCE)
    forms: list[Any] = [SOURCE, encoded(SOURCE), f"data:image/png;base64,{encoded(SOURCE)}", kept]
    found = [stored(store, images=[each], mask=MASK, seed=7, variation_seed=3) for each in forms]
    assert all(each == found[0] for each in found)
    assert found[0]["images"] == [kept]
    assert found[0]["mask"] == reference_of(MASK)


def test_pictures_that_an_edit_model_looks_at(store: FakeStore) -> None:
    """Kept as sources are, with a source and without; what stands for them is a list."""
    seen = [encoded(SOURCE), store.put_picture(MASK)]
    sides: tuple[dict[str, Any], ...] = {"images": [encoded(SOURCE)]}, {}
    for more in sides:
        kept = stored(store, references=seen, seed=1, variation_seed=2, **more)
        assert kept["references"] == [reference_of(SOURCE), reference_of(MASK)]
        asked = loaded_request(kept, store.picture)
        assert isinstance(asked, Img2ImgRequest | Txt2ImgRequest)
        assert [each.size for each in asked.references] == [(48, 32), (48, 32)]
    with pytest.raises(RequestError, match=r"references\[0\]="):
        stored(store, references=[{"expression": "ellipse 1,1,9,9"}])


def test_what_is_loaded_is_what_was_asked(store: FakeStore) -> None:
    control = {"model": "canny", "image": encoded(MASK), "weight": 0.5}
    asked: dict[str, Any] = {
        "prompt": ["a", "b"],
        "batch_size": 2,
        "strength": 0.4,
        "resize_mode": "crop",
        "seed_resize": [64, 64],
    }
    told = stored(store, images=[SOURCE], mask=MASK, controls=[control], soft_inpainting={"mask_influence": 1}, **asked)
    request = loaded_request(told, store.picture)
    assert type(request) is Img2ImgRequest
    assert (request.prompt, request.strength, request.seed_resize) == (("a", "b"), 0.4, (64, 64))
    assert request.images[0].tobytes() == Image.open(io.BytesIO(SOURCE)).tobytes()
    assert request.controls[0].image.tobytes() == Image.open(io.BytesIO(MASK)).tobytes()
    assert request.soft_inpainting is not None and request.soft_inpainting.mask_influence == 1
    assert kind_of(told) == "paint"


def test_a_job_without_pictures_is_txt2img(store: FakeStore) -> None:
    told = stored(store, prompt="sea", hires={"scale": 1.5, "prompt": "waves"}, width=64, height=64)
    request = loaded_request(told, store.picture)
    assert type(request) is Txt2ImgRequest and request.hires == Hires(scale=1.5, prompt="waves")


def test_extras_say_so(store: FakeStore) -> None:
    told = stored(store, kind="extras", images=[SOURCE], scale=2, upscaler="Nearest")
    request = loaded_request(told, store.picture)
    assert type(request) is ExtrasRequest and (request.scale, request.upscaler) == (2, "Nearest")
    assert kind_of(told) == "extras"
    with pytest.raises(RequestError, match="only painting has a plan"):
        judged_request({"kind": "extras", "images": [SOURCE]}, store, LIMITS)


def test_seeds_are_known_before_anything_is_painted(store: FakeStore) -> None:
    told = stored(store, prompt="sea")
    assert told["seed"] >= 0 and told["variation_seed"] >= 0
    assert stored(store, prompt="sea")["seed"] != told["seed"]
    again = [stored_request({"prompt": "sea"}, store, LIMITS, rng=random.Random("key")) for _ in range(2)]
    assert again[0] == again[1]


def test_whole_numbers_may_be_written_as_20_0(store: FakeStore) -> None:
    assert stored(store, prompt="", steps=20.0, width=64.0, height=64)["steps"] == 20


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": 5}, "prompt=5: give a text or a list of texts"),
    ({"prompt": "\ud800"}, "half of a character"),
    ({"steps": "20"}, "steps='20': give a whole number"),
    ({"steps": True}, "give a whole number"),
    ({"steps": 20.5}, "give a whole number"),
    ({"cfg_scale": math.nan}, "give a finite number"),
    ({"cfg_scale": math.inf}, "give a finite number"),
    ({"cfg_scale": -1}, "give a value from 0 to 50"),
    ({"cfg_scale": 10**400}, "more than 63 bits"),
    ({"s_tmax": math.inf}, "give a finite number"),
    ({"seed": 2**64}, "more than 63 bits"),
    ({"seed": []}, "give at least one seed"),
    ({"round_mask": "yes"}, "round_mask='yes'"),
    ({"exact": 1}, "give true or false"),
    ({"resize_mode": 1}, "one of stretch, crop, fill, latent"),
    ({"overrides": [1]}, "give an object"),
    ({"overrides": {"outdir_samples": "/tmp"}}, "belongs to the server"),
    ({"overrides": {"max_source_pixels": 10**9}}, "belongs to the server"),
    ({"overrides": {"lora_dir": "/"}}, "belongs to the server"),
    ({"overrides": {"samples_format": "psd"}}, "samples_format='psd': choose one of png"),
    ({"overrides": {"jpeg_quality": 0}}, "give a quality from 1 to 100"),
    ({"overrides": {"eta_ddim": math.nan}}, "give a finite number"),
    ({"overrides": {"no_such": 1}}, "no_such=1"),
    ({"overrides": {"sd_vae": "../secret.pt"}}, "GET /v1/models"),
    ({"checkpoint": "/etc/passwd"}, "GET /v1/models"),
    ({"checkpoint": "C:\\x.ckpt"}, "GET /v1/models"),
    ({"refiner": "a/../../b"}, "GET /v1/models"),
    ({"controls": [{"model": "/x", "image": encoded(SOURCE)}]}, "GET /v1/models"),
    ({"controls": [{"model": "x"}]}, "it needs"),
    ({"controls": {}}, "controls={}: give a list of objects"),
    ({"seed_resize": 5}, "give a list of 2 whole numbers"),
    ({"seed_resize": [64]}, "give a list of 2 whole numbers"),
    ({"hires": {"checkpoint": "/x"}}, "hires.checkpoint"),
    ({"hires": 5}, "hires=5"),
    ({"sampler": "Eler"}, "did you mean 'Euler'"),
    ({"scheduler": "Karas"}, "did you mean 'Karras'"),
    ({"sampler": "a " * 5000}, "sampler="),
    ({"stepz": 20}, "did you mean 'steps'"),
    ({"images": [encoded(SOURCE)], "denoising_strength": 0.5}, "did you mean 'strength'?"),
    ({"init_images": [encoded(SOURCE)]}, "did you mean 'images'?"),
    ({"num_inference_steps": 5}, "did you mean 'steps'?"),
    ({"hires": {"hr_upscaler": "Latent"}}, "did you mean 'upscaler'?"),
    ({"kind": "extras", "images": [encoded(SOURCE)], "upscaling_resize": 3}, "did you mean 'scale'?"),
    ({"x" * 5000: 20}, "there is no such field"),
    ({"kind": "other"}, "give paint, extras, outpaint"),
    ({"kind": None}, "give paint, extras, outpaint"),
    ({"mask": encoded(MASK)}, "txt2img has no source"),
    ({"images": ["!!"]}, "images[0]: this is no base64"),
    ({"images": ["data:image/png,abc"]}, "images[0]: the data URL is not base64"),
    ({"images": ["https://example.com/a.png"]}, "images[0]: a URL stands here"),
    ({"images": [""]}, "give one as base64"),
    ({"images": [5]}, "give a picture"),
    ({"images": encoded(SOURCE)}, "give a list of picture"),
    ({"images": ["sha256:" + "0" * 64]}, "upload it first"),
    ({"images": ["sha256:../../etc/passwd"]}, "upload it first"),
    ({"images": [encoded(SOURCE)], "hires": {}}, "hires"),
    ({"images": [encoded(SOURCE), encoded(SOURCE)]}, "raise batch_size"),
    ({"kind": "extras"}, "images"),
    ({"kind": "extras", "images": [encoded(SOURCE)], "scale": 64, "size": [60000, 60000]}, "ask for less"),
    ({"kind": "extras", "images": [encoded(SOURCE)], "prompt": "x"}, "there is no such field"),
    ({"kind": "extras", "images": [encoded(SOURCE)], "size": [0, 5]}, "size"),
]


@pytest.mark.parametrize(("values", "said"), BAD, ids=[str(each[0])[:40] for each in BAD])
def test_what_cannot_be_used_is_refused_in_one_sentence(store: FakeStore, values: dict[str, Any], said: str) -> None:
    with pytest.raises(OverpaintError) as caught:
        stored_request(values, store, LIMITS)
    message = str(caught.value)
    assert said in message and "\n" not in message and len(message) < 700
    assert isinstance(caught.value, RequestError | PictureError)


def test_broken_pictures_are_refused(store: FakeStore) -> None:
    for data in (b"not a picture", SOURCE[:60], SOURCE[:-30]):
        with pytest.raises((PictureError, RequestError)):
            stored(store, images=[data])
    assert not (store.data / "inputs").exists(), "nothing is kept of a request that is refused"


AT_THE_LIMIT: list[tuple[str, Callable[[int], dict[str, Any]], int]] = [
    ("steps", lambda n: {"steps": n}, LIMITS.steps),
    ("images", lambda n: {"batch_size": n, "prompt": ""}, LIMITS.images),
    ("iterations", lambda n: {"iterations": n}, LIMITS.images),
    ("prompt", lambda n: {"prompt": " " * n}, LIMITS.prompt_chars),
    ("negative_prompt", lambda n: {"negative_prompt": " " * n}, LIMITS.prompt_chars),
    ("hires.prompt", lambda n: {"hires": {"prompt": " " * n, "scale": 1}}, LIMITS.prompt_chars),
    ("prompt_rows", lambda n: {"prompt": " AND ".join("a" * (n - 1))}, LIMITS.prompt_rows),
    ("rows of chunks", lambda n: {"prompt": " BREAK ".join("a" * (n - 1))}, LIMITS.prompt_rows),
    ("negative rows", lambda n: {"negative_prompt": "a " * 75 * (n - 2) + "b"}, LIMITS.prompt_rows),
    ("hires rows", lambda n: {"hires": {"prompt": "a AND " * (n - 2), "scale": 1}}, LIMITS.prompt_rows),
    ("loras", lambda n: {"loras": [{"name": "a"}] * n}, LIMITS.loras),
    ("tags", lambda n: {"prompt": "<lora:a:1>" * n}, LIMITS.loras),
    ("cfg_scale", lambda n: {"cfg_scale": n}, int(LIMITS.cfg_scale)),
    ("pass_pixels", lambda n: {"width": n, "height": 2048}, 2048),
    ("hires pass", lambda n: {"width": 64, "height": 64, "hires": {"width": n, "height": 2048}}, 2048),
    ("hires.steps", lambda n: {"hires": {"steps": n, "scale": 1}}, LIMITS.steps),
]


@pytest.mark.parametrize(("name", "values", "limit"), AT_THE_LIMIT, ids=[each[0] for each in AT_THE_LIMIT])
def test_limits_at_n_and_one_more(
    store: FakeStore, name: str, values: Callable[[int], dict[str, Any]], limit: int
) -> None:
    small = {"width": 64, "height": 64}
    stored_request({**small, **values(limit)}, store, LIMITS)
    with pytest.raises(RequestError):
        stored_request({**small, **values(limit + 1)}, store, LIMITS)


def test_versions_of_a_prompt_at_the_limit_and_beyond(store: FakeStore) -> None:
    """Two chunks at each step, and one of the negative prompt; samplers of the second order count steps twice."""
    limits = replace(LIMITS, prompt_chunks=41)
    wish: dict[str, Any] = {"width": 64, "height": 64, "prompt": "[a|b] " + "c " * 75}
    for sampler, steps in (("Euler", 20), ("Heun", 10)):
        stored_request({**wish, "sampler": sampler, "steps": steps}, store, limits)
        stored_request({**wish, "sampler": sampler, "steps": 150, "prompt": wish["prompt"][6:]}, store, limits)
        with pytest.raises(RequestError, match=r"chunks.*give at most 41"):
            stored_request({**wish, "sampler": sampler, "steps": steps + 1}, store, limits)


def test_prompts_that_would_hold_the_worker_are_refused_at_once(store: FakeStore, tmp_path: Path) -> None:
    small: dict[str, Any] = {"width": 64, "height": 64, "steps": 1}
    started = time.perf_counter()
    with pytest.raises(RequestError, match="prompt='5001 rows a step': give at most 64: parts between ANDs"):
        stored_request({**small, "prompt": "a AND " * 5000}, store, LIMITS)
    with pytest.raises(RequestError, match=r"hires\.prompt="):
        stored_request({**small, "hires": {"prompt": ["a AND " * 64], "scale": 1}}, store, LIMITS)
    assert time.perf_counter() - started < 1
    styles = tmp_path / "styles.csv"
    styles.write_text('name,prompt,negative_prompt\nboth,"{prompt} AND {prompt}",\nplain,"a lake",\n')
    settings = Settings(styles_file=str(styles))
    stored_request({**small, "prompt": "x", "styles": ["both"] * 5 + ["plain"]}, store, LIMITS, settings=settings)
    with pytest.raises(RequestError, match="65 rows"):
        stored_request({**small, "prompt": "x", "styles": ["both"] * 6}, store, LIMITS, settings=settings)
    with pytest.raises(RequestError, match=r"styles='both'.*more than 32000 characters"):
        stored_request({**small, "prompt": "x", "styles": ["both"] * 60}, store, LIMITS, settings=settings)


def test_limits_of_pictures(store: FakeStore) -> None:
    limits = replace(LIMITS, pictures=2, picture_bytes=len(SOURCE))
    stored(store, limits, images=[SOURCE, SOURCE], batch_size=2)
    with pytest.raises(TooLarge, match="more than 2 pictures"):
        stored(store, limits, images=[SOURCE] * 3, batch_size=3)
    with pytest.raises(TooLarge, match="more than 2 pictures"):
        stored(store, limits, images=[SOURCE, SOURCE], mask=MASK, batch_size=2)
    small = replace(LIMITS, picture_bytes=len(SOURCE) - 1)
    for form in (SOURCE, encoded(SOURCE)):
        with pytest.raises(TooLarge, match="give a smaller file"):
            stored(store, small, images=[form])


def test_a_source_s_pixels_count(store: FakeStore) -> None:
    stored(store, replace(LIMITS, source_pixels=48 * 32), images=[SOURCE])
    with pytest.raises((PictureError, RequestError, TooLarge)):
        stored(store, replace(LIMITS, source_pixels=48 * 32 - 1), images=[SOURCE])


def test_the_pixels_of_all_pictures_count_together(store: FakeStore) -> None:
    limits = replace(LIMITS, source_pixels=48 * 32)
    stored(store, limits, images=[SOURCE] * 4, batch_size=4)
    with pytest.raises(RequestError, match=f"all pictures may have {4 * 48 * 32} pixels"):
        stored(store, limits, images=[SOURCE] * 4, mask=MASK, batch_size=4)


def test_settings_stay_within_the_limits() -> None:
    settings = job_settings(Settings(max_steps=5000, max_images=3), LIMITS)
    assert (settings.max_steps, settings.max_images) == (LIMITS.steps, 3)
    assert settings.max_pixels_per_pass == LIMITS.pass_pixels


def test_references_are_hashes_of_the_file() -> None:
    assert reference_of(b"") == PICTURE_REFERENCE + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
