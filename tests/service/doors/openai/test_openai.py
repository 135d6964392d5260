"""OpenAI's Images API on a desk without a worker: what is asked, what is answered, and every no in its shape."""

from __future__ import annotations

import base64
import io
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from overpaint.deep import deep_array
from overpaint.errors import CheckpointError, RequestError
from overpaint.files.metadata import encode_picture
from overpaint.opening import samples
from overpaint.pictures import open_picture
from overpaint.service.config import ServeConfig
from overpaint.service.doors.openai import requests as openai_requests
from overpaint.service.doors.openai.answers import packed
from overpaint.service.doors.openai.masks import _lowest, masked
from overpaint.service.doors.openai.requests import body_schema, read_images_request
from overpaint.service.jobs import JobError
from overpaint.service.limits import Limits
from overpaint.service.requests import stored_request
from overpaint.settings import Settings
from tests import profiles
from tests.service.conftest import client_of
from tests.service.doors.openai.openai_tools import app_on, file_of, hole, opened, scene
from tests.service.fake_desk import FakeDesk
from tests.service.queue.desk_tools import run

SOURCE = file_of(scene())
Part = tuple[str, tuple[str, bytes, str]]


def part(name: str, data: bytes, media_type: str = "image/png") -> Part:
    return (name, ("picture.png", data, media_type))


def ask(desk: FakeDesk, config: ServeConfig, way: str, **given: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with client_of(app_on(desk, config, whole=False)) as client:
            return await client.post(f"/v1/images/{way}", **given)

    return run(asked(), 20)


def stored(desk: FakeDesk) -> dict[str, Any]:
    """The latest request that was accepted."""
    (*_, record) = desk.store.jobs.values()
    return dict(record.job.request)


def kept(desk: FakeDesk, reference: str) -> Image.Image:
    return opened(desk.store.picture(reference))


# -- what is asked -----------------------------------------------------------------------------------------------


def test_an_edit_is_an_img2img_job(desk: FakeDesk, config: ServeConfig) -> None:
    form = {"prompt": "a red sofa", "model": "gpt-image-1", "n": "2", "size": "auto", "strength": "0.4", "seed": "7"}
    told = ask(desk, config, "edits", data=form, files=[part("image", SOURCE)])
    assert told.status_code == 200, told.text
    body = told.json()
    assert set(body) == {"created", "data", "output_format", "usage"} and len(body["data"]) == 2
    assert opened(base64.b64decode(body["data"][1]["b64_json"])).size == (64, 64)
    request = stored(desk)
    assert request["prompt"] == "a red sofa" and request["strength"] == 0.4 and request["seed"] == 7
    assert (request["iterations"], request["batch_size"], request.get("mask")) == (2, 1, None)
    assert desk.store.picture(request["images"][0]) == SOURCE
    (record,) = desk.store.jobs.values()
    assert record.job.origin == "openai" and record.job.queue_seconds == 900


def test_a_mask_shows_by_its_alpha_what_changes(desk: FakeDesk, config: ServeConfig) -> None:
    files = [part("image", SOURCE), part("mask", file_of(hole(scene())))]
    assert ask(desk, config, "edits", data={"prompt": "a"}, files=files).status_code == 200
    request = stored(desk)
    mask = np.asarray(kept(desk, request["mask"]))
    assert mask.shape == (64, 64) and (mask[16:40, 16:40] == 255).all() and mask.sum() == 255 * 24 * 24
    assert (request["mask_blur_x"], request["mask_blur_y"]) == (0, 0)  # nothing outside changes
    assert request["masked_content"] == "original"
    assert desk.store.picture(request["images"][0]) == SOURCE


def test_a_picture_may_be_its_own_mask(desk: FakeDesk, config: ServeConfig) -> None:
    cut = hole(scene())
    assert ask(desk, config, "edits", data={}, files=[part("image", file_of(cut))]).status_code == 200
    request = stored(desk)
    assert np.asarray(kept(desk, request["mask"]))[20, 20] == 255
    assert request["masked_content"] == "fill"  # there is nothing to start from
    source = kept(desk, request["images"][0])
    assert source.getchannel("A").getextrema() == (255, 255)  # else nobody sees what is painted
    outside = np.asarray(cut)[..., 3] == 255
    assert (np.asarray(source)[outside] == np.asarray(cut)[outside]).all()


@pytest.mark.parametrize("way", ["alpha", "white"])
def test_masks_of_both_kinds_mean_the_same(way: str) -> None:
    shape = np.zeros((64, 64), np.uint8)
    shape[16:40, 16:40] = 255
    white = Image.fromarray(shape)
    given = (
        hole(scene()) if way == "alpha" else Image.merge("RGBA", (white, white, white, Image.new("L", (64, 64), 255)))
    )
    found = masked([SOURCE], file_of(given))
    assert (np.asarray(opened(found.values["mask"])) == shape).all()


def test_half_transparent_sources_keep_what_is_not_painted() -> None:
    source = scene().convert("RGBA")
    source.putalpha(Image.linear_gradient("L").resize((64, 64)))
    found = masked([file_of(source)], file_of(hole(scene(), (0, 0, 64, 8))))
    alpha = np.asarray(opened(found.pictures[0]).getchannel("A"))
    assert (alpha[:8] == 255).all() and (alpha[8:] == np.asarray(source.getchannel("A"))[8:]).all()
    assert found.values["mask_blur_x"] == 0 and found.size == (64, 64)


def test_a_list_of_pictures_is_a_batch(desk: FakeDesk, config: ServeConfig) -> None:
    files = [
        part("image[]", SOURCE),
        part("image[]", file_of(scene(48, 64))),
        part("image[]", file_of(scene(), "JPEG")),
    ]
    told = ask(desk, config, "edits", data={"prompt": "a"}, files=files)
    assert len(told.json()["data"]) == 3
    assert stored(desk)["batch_size"] == 3 and len(stored(desk)["images"]) == 3


def test_sizes(desk: FakeDesk, config: ServeConfig) -> None:
    ask(desk, config, "edits", data={"prompt": "a", "size": "128x96"}, files=[part("image", SOURCE)])
    assert (stored(desk)["width"], stored(desk)["height"]) == (128, 96)
    ask(desk, config, "edits", data={"prompt": "a", "size": "auto"}, files=[part("image", SOURCE)])
    assert (stored(desk)["width"], stored(desk)["height"]) == (None, None)
    ask(desk, config, "generations", json={"prompt": "a", "size": "auto", "width": 80, "height": 72})
    assert (stored(desk)["width"], stored(desk)["height"]) == (80, 72)


def test_own_fields_of_a_form() -> None:
    form = {
        "steps": "12", "cfg_scale": "4.5", "only_masked": "True", "mask_blur": "6", "mask_blur_x": "2", "padding": "8",
        "masked_content": "noise", "negative_prompt": "7", "styles": "one, two", "seed": "[1, 2]", "tiling": "false",
        "soft_inpainting": '{"schedule_bias": 1.5}', "sampler": "", "strength": "",
    }  # fmt: skip
    values = read_images_request(form, [SOURCE], file_of(hole(scene()))).values
    assert (values["steps"], values["cfg_scale"], values["only_masked"], values["tiling"]) == (12, 4.5, True, False)
    assert (values["mask_blur_x"], values["mask_blur_y"]) == (2, 6)  # what is asked for is obeyed
    assert (values["styles"], values["seed"], values["negative_prompt"]) == (["one", "two"], [1, 2], "7")
    assert values["soft_inpainting"] == {"schedule_bias": 1.5} and values["masked_content"] == "noise"
    assert "sampler" not in values and "strength" not in values  # empty fields of forms say nothing


def test_a_generation_is_a_txt2img_job(desk: FakeDesk, config: ServeConfig) -> None:
    wanted = {"prompt": "a lake", "model": "dall-e-3", "n": 2, "size": "96x64", "quality": "hd", "style": "vivid",
              "response_format": "b64_json", "seed": 3, "steps": 5, "negative_prompt": "people"}  # fmt: skip
    told = ask(desk, config, "generations", json=wanted)
    assert told.status_code == 200 and "X-Overpaint-Ignored" not in told.headers
    assert [opened(base64.b64decode(each["b64_json"])).size for each in told.json()["data"]] == [(96, 64)] * 2
    request = stored(desk)
    assert (request["steps"], request["negative_prompt"], request["iterations"]) == (5, "people", 2)
    assert "images" not in request


def test_a_variation_is_of_the_whole_picture(desk: FakeDesk, config: ServeConfig) -> None:
    files = [part("image", file_of(hole(scene())))]
    told = ask(desk, config, "variations", data={"n": "2", "strength": "0.3"}, files=files)
    assert len(told.json()["data"]) == 2
    request = stored(desk)
    assert request.get("mask") is None and request["strength"] == 0.3 and request["masked_content"] == "original"
    assert desk.store.picture(request["images"][0]) == files[0][1][1]
    told = ask(desk, config, "variations", files=[*files, part("mask", SOURCE)])
    assert told.status_code == 400 and told.json()["error"]["param"] == "mask"


def test_unknown_fields_are_named(desk: FakeDesk, config: ServeConfig) -> None:
    wanted = {"prompt": "a", "watermark": True, "checkpoint": "x", "zoom": 2, "evil\r\nSet-Cookie: a": 1}
    told = ask(desk, config, "generations", json=wanted)
    assert told.headers["X-Overpaint-Ignored"] == "checkpoint, watermark, zoom"
    assert "Set-Cookie" not in told.headers


def test_keys_make_a_repeated_request_one_job(desk: FakeDesk, config: ServeConfig) -> None:
    given: dict[str, Any] = {"json": {"prompt": "a"}, "headers": {"Idempotency-Key": "k1"}}
    assert [ask(desk, config, "generations", **given).status_code for _ in range(2)] == [200, 200]
    assert len(desk.store.jobs) == 1
    told = ask(desk, config, "generations", **{**given, "json": {"prompt": "b"}})
    assert told.status_code == 409 and told.json()["error"]["code"] == "conflict"


def test_open_webui_edits(desk: FakeDesk, config: ServeConfig) -> None:
    """What it was seen to send: one picture as `image`, several as `image[]`, and fields of newer models."""
    form = {"model": "gpt-image-1", "prompt": "make it night", "n": "1", "size": "64x64", "background": "auto"}
    for name, count in (("image", 1), ("image[]", 2)):
        files = [part(name, SOURCE) for _ in range(count)]
        told = ask(desk, config, "edits", data={**form, "response_format": "b64_json"}, files=files)
        assert told.status_code == 200 and len(told.json()["data"]) == count
        assert all(set(each) == {"b64_json"} for each in told.json()["data"])


# -- what is answered --------------------------------------------------------------------------------------------


def test_urls_lead_to_the_pictures(desk: FakeDesk, config: ServeConfig) -> None:
    wanted = {"prompt": "a", "n": 2, "response_format": "url", "output_format": "webp"}
    told = ask(desk, config, "generations", json=wanted).json()
    assert told["output_format"] == "png"  # the file as it is kept
    (job,) = desk.store.jobs
    places = [f"/v1/jobs/{job}/images/{number}" for number in range(2)]
    assert [each["url"] for each in told["data"]] == [f"http://127.0.0.1:7860{place}" for place in places]

    async def got() -> httpx.Response:
        async with client_of(app_on(desk, config)) as client:
            return await client.get(places[1])

    assert opened(run(got(), 20).content).size == (64, 64)


URLS = [
    ("dall-e-2", None, True),
    ("dall-e-3", None, True),
    ("dall-e-3", "b64_json", False),
    ("gpt-image-1", None, False),
    ("gpt-image-1", "url", True),
    (None, None, False),
]


@pytest.mark.parametrize(("model", "wanted", "as_url"), URLS)
def test_dall_e_answers_by_url_unless_asked_otherwise(
    model: str | None, wanted: str | None, as_url: bool, desk: FakeDesk, config: ServeConfig
) -> None:
    fields = {name: each for name, each in {"model": model, "response_format": wanted}.items() if each is not None}
    asked = [
        ask(desk, config, "generations", json={"prompt": "a", **fields}),
        ask(desk, config, "edits", data={"prompt": "a", **fields}, files=[part("image", SOURCE)]),
        ask(desk, config, "variations", data=fields, files=[part("image", SOURCE)]),
    ]
    assert [set(told.json()["data"][0]) for told in asked] == [{"url"} if as_url else {"b64_json"}] * 3


def test_urls_begin_as_the_client_calls_the_server(desk: FakeDesk, config: ServeConfig) -> None:
    """Behind a proxy the Host header is the server's name out there, and X-Forwarded-Proto says how it is reached."""
    for headers, base in (
        ({}, "http://127.0.0.1:7860/v1/jobs/"),
        ({"Host": "paint.example:8443"}, "http://paint.example:8443/v1/jobs/"),
        ({"Host": "paint.example", "X-Forwarded-Proto": "https"}, "https://paint.example/v1/jobs/"),
        ({"Host": "paint.example", "X-Forwarded-Proto": "javascript"}, "http://paint.example/v1/jobs/"),
    ):
        told = ask(desk, config, "generations", json={"prompt": "a", "response_format": "url"}, headers=headers)
        assert told.json()["data"][0]["url"].startswith(base)


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png", "avif", "tiff"])
def test_formats(kind: str, desk: FakeDesk, config: ServeConfig) -> None:
    wanted = {"prompt": "a", "output_format": kind, "output_compression": 80}
    told = ask(desk, config, "generations", json=wanted).json()
    assert told["output_format"] == kind
    assert opened(base64.b64decode(told["data"][0]["b64_json"])).format == kind.upper()


def deep_values(channels: int) -> Any:
    return np.random.default_rng(channels).integers(0, 65_536, (48, 64, channels)).astype(np.uint16)


@pytest.mark.parametrize(("kind", "mode"), [("png", "RGB;16"), ("tiff", "RGB;16"), ("jpeg", "RGB"), ("heic", "RGB;16")])
def test_formats_of_16_bits_keep_them_if_they_can(kind: str, mode: str) -> None:
    pytest.importorskip("pillow_heif")
    data = encode_picture(deep_array(deep_values(3)), "png", icc=profiles.display_p3())
    found = open_picture(base64.b64decode(packed(data, read_images_request({"prompt": "a", "output_format": kind}))))
    assert found.info["icc_profile"] == profiles.display_p3()
    assert samples(found).dtype == (np.uint16 if mode.endswith("16") else np.uint8)
    if kind in ("png", "tiff"):
        assert np.array_equal(samples(found), deep_values(3))


def test_heic_is_no_format_where_it_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_requests, "can_write_heic", lambda: False)
    with pytest.raises(RequestError, match="choose one of png, jpeg, webp, avif, tiff"):
        read_images_request({"prompt": "a", "output_format": "heic"})


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "HEIC"])
def test_sources_of_more_formats(kind: str, desk: FakeDesk, config: ServeConfig) -> None:
    pytest.importorskip("pillow_heif")
    data = encode_picture(scene(), kind.lower())
    files = [part("image", data, f"image/{kind.lower()}"), part("mask", file_of(hole(scene())))]
    told = ask(desk, config, "edits", data={"prompt": "a"}, files=files)
    assert told.status_code == 200, told.text
    assert desk.store.picture(stored(desk)["images"][0]) == data


def test_a_source_of_16_bits_that_shows_through_keeps_them() -> None:
    """Where it is repainted, it is opaque; the rest of its samples, and its profile, stay."""
    data = encode_picture(deep_array(deep_values(4)), "png", icc=profiles.display_p3())
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (8, 8, 24, 24))
    (shown,) = masked([data], file_of(mask)).pictures
    found = open_picture(shown)
    wanted = deep_values(4)
    wanted[8:24, 8:24, 3] = 65_535
    assert np.array_equal(samples(found), wanted)
    assert found.info["icc_profile"] == profiles.display_p3()


def test_a_stream_ends_with_the_pictures(desk: FakeDesk, config: ServeConfig) -> None:
    wanted = {"prompt": "a", "stream": True, "partial_images": 2, "size": "64x64", "n": 2}
    told = ask(desk, config, "generations", json=wanted)
    assert told.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(each.partition("data: ")[2]) for each in told.text.strip().split("\n\n")]
    assert [each["type"] for each in events] == ["image_generation.completed"] * 2
    assert {"b64_json", "background", "created_at", "output_format", "quality", "size", "usage"} <= events[0].keys()
    assert events[0]["size"] == "64x64"
    (record,) = desk.store.jobs.values()
    settings = Settings.from_json(record.job.settings)
    assert settings.live_previews_enable and settings.show_progress_every_n_steps == 1


def test_a_stream_tells_of_a_failure(desk: FakeDesk, config: ServeConfig) -> None:
    desk.script = JobError(code="memory", message="there is too little memory")
    told = ask(desk, config, "generations", json={"prompt": "a", "stream": True})
    assert told.text.startswith("event: error\n")
    error = json.loads(told.text.partition("data: ")[2])["error"]
    assert (error["code"], error["type"]) == ("memory", "server_error")


FAILURES = {"invalid": 400, "checkpoint": 400, "memory": 503, "crashed": 503, "deadline": 504, "hung": 504,
            "sampling": 500, "internal": 500, "save": 503}  # fmt: skip


@pytest.mark.parametrize("code", FAILURES)
def test_failed_jobs(code: str, desk: FakeDesk, config: ServeConfig) -> None:
    desk.script = JobError(code=code, message="it did not work")
    told = ask(desk, config, "generations", json={"prompt": "a"})
    assert told.status_code == FAILURES[code]
    kind = "invalid_request_error" if told.status_code < 500 else "server_error"
    assert told.json() == {"error": {"message": "it did not work", "type": kind, "param": None, "code": code}}
    assert told.headers["X-Should-Retry"] == "false"  # the client would paint it again, to the same end


def test_a_full_queue(desk: FakeDesk, config: ServeConfig) -> None:
    desk.store.most_waiting = 0
    told = ask(desk, config, "generations", json={"prompt": "a"})
    assert (told.status_code, told.headers["Retry-After"]) == (429, "7")
    assert told.json()["error"]["code"] == "rate_limit_exceeded"


def test_pictures_that_are_gone(desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.store, "result_file", lambda job, name: config.data / "gone.png")
    monkeypatch.setattr("tests.service.fake_desk.paint", _without_file)
    told = ask(desk, config, "generations", json={"prompt": "a"})
    assert told.status_code == 410 and told.json()["error"]["code"] == "gone"


def _without_file(job: Any, store: Any) -> Any:
    from overpaint.service.jobs import JobResult, ResultPicture

    return JobResult(pictures=(ResultPicture(number=0, file="0.png"),))


# -- every no ----------------------------------------------------------------------------------------------------

BROKEN = SOURCE[:60] + b"\x00" * 20 + SOURCE[80:]
BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "n too large": ({"n": "11"}, "n"),
    "n zero": ({"n": "0"}, "n"),
    "n no number": ({"n": "two"}, "n"),
    "n far too long": ({"n": "9" * 5000}, "n"),
    "size no size": ({"size": "large"}, "size"),
    "size too long": ({"size": "9" * 5000 + "x64"}, "size"),
    "size too large": ({"size": "99999x99999"}, "size"),
    "size of zero": ({"size": "0x64"}, "size"),
    "size over the pass": ({"size": "4096x4096"}, "size"),
    "format": ({"output_format": "gif"}, "output_format"),
    "response format": ({"response_format": "xml"}, "response_format"),
    "stream": ({"stream": "maybe"}, "stream"),
    "partials": ({"stream": "true", "partial_images": "4"}, "partial_images"),
    "strength": ({"strength": "1.5"}, "strength"),
    "strength no number": ({"strength": "much"}, "strength"),
    "not finite": ({"cfg_scale": "NaN"}, "cfg_scale"),
    "endless": ({"cfg_scale": "Infinity"}, "cfg_scale"),
    "deep": ({"overrides": "[" * 100_000}, "overrides"),
    "steps": ({"steps": "151"}, "steps"),
    "sampler": ({"sampler": "Oil"}, "sampler"),
    "resize mode": ({"resize_mode": "shrink"}, "resize_mode"),
    "prompt": ({"prompt": "x" * 32_001}, "prompt"),
    "option of the site": ({"overrides": '{"lora_dir": "/"}'}, "overrides.lora_dir"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_fields(case: str, desk: FakeDesk, config: ServeConfig) -> None:
    fields, name = BAD_FIELDS[case]
    told = ask(desk, config, "edits", data={"prompt": "a", **fields}, files=[part("image", SOURCE)])
    assert told.status_code == 400, told.text
    error = told.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"] == name and len(error["message"]) < 1000
    assert not desk.store.jobs


NASTY = (
    "",
    "x",
    "-1",
    "1e999",
    "9" * 400,
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    '"x"',
    "[" * 2000,
    "\ud800",
    "\x00",
    "a=b",
)


@pytest.mark.parametrize("name", sorted(body_schema(Limits(), picture=True, mask=True)["properties"]))
def test_no_field_is_a_surprise(name: str, desk: FakeDesk) -> None:
    """Whatever stands in a field: it is understood, or refused by a sentence."""
    values: tuple[Any, ...] = (*NASTY, None, True, -1, 1.5, float("nan"), 10**400, [], {}, [None], {"a": [{}]})
    for value in values:
        with suppress(RequestError, CheckpointError):
            wish = read_images_request({"prompt": "a", name: value}, [SOURCE])
            stored_request(wish.values, desk.store, Limits())


BAD_FILES: dict[str, tuple[list[Part], int]] = {
    "none": ([], 400),
    "empty": ([part("image", b"")], 400),
    "text": ([part("image", b"hello")], 400),
    "broken": ([part("image", BROKEN)], 400),
    "broken mask": ([part("image", SOURCE), part("mask", BROKEN)], 400),
    "cut off": ([part("image", SOURCE[:100])], 400),
    "elsewhere": ([part("image", SOURCE), part("reference", SOURCE)], 400),
    "too many": ([part("image[]", SOURCE)] * 5, 400),
    "large": ([part("image", SOURCE + b"\x00" * 20_000)], 413),
    "wide": ([part("image", file_of(Image.new("L", (600, 2))))], 400),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case: str, desk: FakeDesk, config: ServeConfig) -> None:
    files, status = BAD_FILES[case]
    config = replace(config, limits=replace(Limits(), pictures=3, picture_bytes=20_000))
    told = ask(desk, config, "edits", data={"prompt": "a"}, files=files or None)
    assert told.status_code == status, told.text
    assert told.json()["error"]["type"] == "invalid_request_error"
    assert not desk.store.jobs


def test_limits_of_pictures(desk: FakeDesk, config: ServeConfig) -> None:
    config = replace(config, limits=replace(Limits(), pictures=3))
    for count, status in ((3, 200), (4, 413)):
        told = ask(desk, config, "edits", data={"prompt": "a"}, files=[part("image[]", SOURCE)] * count)
        assert told.status_code == status


def test_results_beyond_the_limit(desk: FakeDesk, config: ServeConfig) -> None:
    told = ask(desk, config, "edits", data={"prompt": "a", "n": "9"}, files=[part("image[]", SOURCE)] * 2)
    assert told.status_code == 400 and told.json()["error"]["param"] == "n"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"prompt": ""}', 400),
        (b'{"prompt": 5}', 400),
        (b'{"prompt": "a", "n": true}', 400),
        (b'{"prompt": "a", "n": 1.5}', 400),
        (b'{"prompt": "a", "strength": 0.5}', 400),  # there is no source
        (b'{"prompt": "a", "model": "no such model"}', 404),
        (b'{"prompt": "a", "model": {}}', 200),
        (b'{"prompt": "a", "controls": [{"model": "x", "image": "http://localhost/"}]}', 400),
        (b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b"\xff\xfe", 400),
    ],
)
def test_bad_bodies(body: bytes, status: int, desk: FakeDesk, config: ServeConfig) -> None:
    told = ask(desk, config, "generations", content=body, headers={"Content-Type": "application/json"})
    assert told.status_code == status, told.text
    assert status == 200 or set(told.json()["error"]) == {"message", "type", "param", "code"}


def test_other_media_types(desk: FakeDesk, config: ServeConfig) -> None:
    told = ask(desk, config, "generations", content=b"prompt=a", headers={"Content-Type": "text/plain"})
    assert told.status_code == 415 and told.json()["error"]["code"] == "media_type"
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "application/json", "text/plain"):
        told = ask(desk, config, "edits", content=b"--y\r\nnonsense", headers={"Content-Type": kind})
        assert told.status_code == 400, (kind, told.text)
        assert told.json()["error"]["type"] == "invalid_request_error"


def test_the_served_model_goes_by_its_name(desk: FakeDesk, config: ServeConfig, tmp_path: Any) -> None:
    (tmp_path / "models").mkdir()
    for name in ("one", "two"):
        (tmp_path / "models" / f"{name}.safetensors").write_bytes(b"")
    settings = replace(Settings(), models_dir=str(tmp_path / "models"))
    config = replace(config, settings=settings, checkpoint=str(tmp_path / "models" / "one.safetensors"))
    for name, wanted in (("one", None), ("two", "two"), ("gpt-image-9-mini", None), ("default", None)):
        told = ask(desk, config, "generations", json={"prompt": "a", "model": name})
        assert told.status_code == 200, told.text
        assert stored(desk)["checkpoint"] == wanted
    told = ask(desk, config, "generations", json={"prompt": "a", "model": "../one"})
    assert told.status_code == 404 and told.json()["error"]["param"] is None


def test_the_document_names_what_is_read() -> None:
    schema = body_schema(Limits(), picture=True, mask=True)
    assert {"image", "mask", "prompt", "strength", "mask_blur", "size"} <= schema["properties"].keys()
    for name, each in body_schema(Limits(), picture=False)["properties"].items():
        read_images_request({name: each.get("default", "")})  # the defaults are understood
    with pytest.raises(RequestError, match="size"):
        read_images_request({"size": "12"})


def test_masks_of_another_size_and_turned_pictures() -> None:
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(64, 32).save(turned, "JPEG", exif=exif)
    found = masked([turned.getvalue()], file_of(hole(scene(64, 128))))
    assert found.size == (32, 64) and found.pictures == (turned.getvalue(),)
    cut = masked([file_of(hole(scene()))], file_of(hole(scene(128, 128), (0, 0, 128, 64))))
    alpha = np.asarray(opened(cut.pictures[0]).getchannel("A"))
    assert (alpha[:32] == 255).all() and (alpha[32:40, 16:40] == 0).all()


@pytest.mark.parametrize("height", [1, 127, 128, 129, 300])
def test_the_lowest_value_of_a_channel_is_found_in_every_strip(height: int) -> None:
    for line in {0, height // 2, height - 1}:
        channel = Image.new("L", (5, height), 200)
        assert _lowest(channel) == 200
        channel.putpixel((4, line), 7)
        assert _lowest(channel) == 7 == channel.getextrema()[0]
