"""The real OpenAI client: against a desk that paints flat pictures, and against a started server."""

from __future__ import annotations

import base64
import gc
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from overpaint.models.built_in import built_in_names
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobError, JobState
from overpaint.service.limits import Limits
from tests.service.conftest import Server
from tests.service.doors.openai.openai_tools import Served, file_of, hole, opened, scene, served, until
from tests.service.fake_desk import FakeDesk

openai = pytest.importorskip("openai")

SMALL = {"steps": 4, "seed": 7, "sampler": "Euler"}


def client_for(url: str, token: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=60)


def upload(data: bytes, name: str = "picture.png") -> Any:
    return (name, io.BytesIO(data), "image/png")


def picture_of(told: Any, number: int = 0) -> Any:
    return opened(base64.b64decode(told.data[number].b64_json))


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


@pytest.fixture
def page(desk: FakeDesk, config: ServeConfig) -> Iterator[Served]:
    with served(desk, replace(config, limits=replace(Limits(), disconnect_grace=0.2))) as found:
        yield found


@pytest.fixture
def client(page: Served) -> Iterator[Any]:
    with client_for(page.url) as found:
        yield found


def test_a_stream_shows_what_is_painted(page: Served, client: Any) -> None:
    page.desk.held = True

    def streamed() -> list[Any]:
        return list(client.images.generate(prompt="a", size="96x64", stream=True, partial_images=2))

    thread, results = in_background(streamed)
    job = page.only_job()
    for step in range(1, 9):  # faster than they are sent; the third and the sixth are due
        page.call(page.show(job, step, 8, file_of(Image.new("RGB", (24, 16), (step, 0, 0)))))
    page.call(page.desk.paint_next())
    thread.join(60)
    first, second, done = results[0]
    assert [each.type for each in (first, second, done)] == [
        *["image_generation.partial_image"] * 2,
        "image_generation.completed",
    ]
    assert [first.partial_image_index, second.partial_image_index] == [0, 1]
    shown = [np.asarray(opened(base64.b64decode(each.b64_json))) for each in (first, second)]
    assert all(each.shape == (64, 96, 3) for each in shown) and [each[0, 0, 0] for each in shown] == [3, 6]
    assert opened(base64.b64decode(done.b64_json)).size == (96, 64)
    assert done.usage.total_tokens == 0 and done.size == "96x64"


def test_a_stream_that_fails(page: Served, client: Any) -> None:
    page.desk.script = JobError(code="sampling", message="the network gave NaN")
    with pytest.raises(openai.APIError, match="the network gave NaN"):
        list(client.images.generate(prompt="a", stream=True))


def test_every_no_has_its_class(page: Served, client: Any) -> None:
    refused: list[tuple[type[Exception], dict[str, Any]]] = [
        (openai.BadRequestError, {"size": "huge"}),
        (openai.BadRequestError, {"extra_body": {"strength": 0.4}}),
        (openai.NotFoundError, {"model": "flux"}),
    ]
    for kind, fields in refused:
        with pytest.raises(kind):
            client.images.generate(**{"prompt": "a", **fields})
    with pytest.raises(openai.BadRequestError) as error:
        client.images.edit(image=upload(b"no picture"), prompt="a")
    assert error.value.type == "invalid_request_error" and "PNG" in error.value.message
    page.desk.store.most_waiting = 0
    with pytest.raises(openai.RateLimitError):
        client.images.generate(prompt="a")
    page.desk.store.most_waiting = 64
    page.desk.script = JobError(code="internal", message="it failed")
    with pytest.raises(openai.InternalServerError, match="it failed"):
        client.with_options(max_retries=2).images.generate(prompt="a")
    assert len(page.desk.store.jobs) == 1  # the client was told not to try again


def test_a_job_that_somebody_else_cancels(page: Served, client: Any) -> None:
    page.desk.held = True

    def refused() -> Any:
        with pytest.raises(openai.APIStatusError) as error:
            client.images.generate(prompt="a")
        return error.value

    thread, results = in_background(refused)
    page.call(page.desk.cancel(page.only_job()))
    thread.join(60)
    assert (results[0].status_code, results[0].code) == (499, "cancelled")


def test_the_key_is_the_token(desk: FakeDesk, config: ServeConfig) -> None:
    with served(desk, replace(config, token="secret"), guarded=True) as page:
        with client_for(page.url) as client, pytest.raises(openai.AuthenticationError, match="token"):
            client.images.generate(prompt="a")
        with client_for(page.url, "secret") as client:
            told = client.images.edit(image=upload(file_of(scene())), prompt="a", response_format="url")
        place = told.data[0].url
        assert "secret" not in str([each.job for each in desk.store.jobs.values()]) + place
        bare, _, key = place.partition("?")
        assert httpx.get(bare, headers={"Authorization": "Bearer secret"}).status_code == 200
        shown = httpx.get(place)  # by a page or a chat program, which have no token
        assert shown.headers["content-type"] == "image/png" and opened(shown.content).size == (64, 64)
        assert httpx.head(place).status_code != 401
        other = bare.removesuffix("0") + "1"
        for wrong in (bare, f"{bare}?key=", f"{bare}?{key[:-1]}", f"{bare}?{key}&{key}", f"{other}?{key}"):
            assert httpx.get(wrong).status_code == 401, wrong
        job = bare.rpartition("/images/")[0]
        assert httpx.get(f"{job}?{key}").status_code == 401
        assert httpx.post(place).status_code == httpx.post(f"{job}/cancel?{key}").status_code == 401


def test_an_unknown_model_is_an_error_of_their_kind(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("no-such-model")
    assert error.value.type == "invalid_request_error" and "no-such-model" in error.value.message
    assert client.models.retrieve(built_in_names()[0]).object == "model"


def test_plain_answers_tell_usage_too(client: Any) -> None:
    told = client.images.generate(prompt="a")
    assert (told.usage.total_tokens, told.usage.input_tokens_details.text_tokens) == (0, 0)
    assert (told.usage.input_tokens, told.usage.output_tokens) == (0, 0)


def test_dall_e_answers_with_a_url_that_serves_the_picture(client: Any) -> None:
    told = client.images.generate(prompt="a", model="dall-e-3", size="96x64", n=2)
    assert [each.b64_json for each in told.data] == [None, None]
    assert [opened(httpx.get(each.url).content).size for each in told.data] == [(96, 64)] * 2


def test_models(page: Served, client: Any) -> None:
    assert [(each.id, each.object) for each in client.models.list()] == [(each, "model") for each in built_in_names()]


def langchain_shape(url: str) -> str:
    """What LangChain's DALL-E wrapper sends, and how it reads the answer."""
    told = client_for(url).images.generate(prompt="a lake", n=2, size="1024x1024", model="dall-e-2")
    return "\n".join([item.url for item in told.data])


def langchain(url: str) -> str:
    """The wrapper itself, where it is installed: it brings twenty packages along, so no extra asks for it."""
    with warnings.catch_warnings():  # of packages that nobody here chose
        warnings.simplefilter("ignore")
        found = pytest.importorskip("langchain_community.utilities.dalle_image_generator")
        wrapper = found.DallEAPIWrapper(base_url=f"{url}/v1", api_key="none", n=2)
        return str(wrapper.run("a lake"))


@pytest.mark.parametrize("run", [langchain_shape, langchain])
def test_langchain_gets_urls_of_pictures(run: Callable[[str], str], page: Served) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the wrapper does not close its client
        places = run(page.url).split("\n")
        assert [opened(httpx.get(each).content).size for each in places] == [(1024, 1024)] * 2
        gc.collect()


def test_a_client_that_leaves_takes_its_job_along(page: Served) -> None:
    page.desk.held = True
    with client_for(page.url) as client, pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).images.generate(prompt="a")
    job = page.only_job()
    until(lambda: page.desk.store.jobs[job].state is JobState.CANCELLED)


def test_a_client_that_leaves_a_stream_takes_its_job_along(page: Served) -> None:
    page.desk.held = True
    with httpx.Client(base_url=page.url) as client:
        with client.stream("POST", "/v1/images/generations", json={"prompt": "a", "stream": True}) as told:
            assert told.status_code == 200
            job = page.only_job()
        until(lambda: page.desk.store.jobs[job].state is JobState.CANCELLED)


def test_who_leaves_at_the_end_loses_nothing(page: Served) -> None:
    """Within the grace the job may still end by itself."""
    page.desk.held = True
    with httpx.Client(base_url=page.url) as client:
        with client.stream("POST", "/v1/images/generations", json={"prompt": "a", "stream": True}):
            job = page.only_job()
        page.call(page.desk.paint_next())
    assert page.call(page.desk.wait(job)).state is JobState.FINISHED


# -- a started server --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(running_server: Server) -> Iterator[Any]:
    with client_for(running_server.url) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (100, 76)])
def test_outside_the_mask_no_byte_changes(size: tuple[int, int], real: Any) -> None:
    source = scene(*size)
    mask = upload(file_of(hole(source)), "mask.png")
    fields = {**SMALL, "strength": 1, "masked_content": "noise"}
    told = real.images.edit(image=upload(file_of(source)), mask=mask, prompt="a cat", size="auto", extra_body=fields)
    result = np.asarray(picture_of(told))
    changed = (result != np.asarray(source)).any(-1)
    inside = np.asarray(hole(source))[..., 3] == 0
    assert result.shape == (size[1], size[0], 3)
    assert not changed[~inside].any() and changed[inside].mean() > 0.5


@pytest.mark.slow
def test_only_masked_with_the_picture_as_its_own_mask(real: Any) -> None:
    source = hole(scene(128, 96), (40, 40, 60, 60))
    fields = {**SMALL, "only_masked": True, "padding": 8, "extra_knob": 1}
    told = real.images.with_raw_response.edit(image=upload(file_of(source)), prompt="a cat", extra_body=fields)
    assert told.headers["X-Overpaint-Ignored"] == "extra_knob"
    result = np.asarray(picture_of(told.parse()).convert("RGBA"))
    outside = np.asarray(source)[..., 3] == 255
    assert (result[outside] == np.asarray(source)[outside]).all()
    assert (result[..., 3] == 255).all()


@pytest.mark.slow
def test_a_list_of_pictures_and_several_results(real: Any) -> None:
    sources = [scene(), scene(64, 48), hole(scene()).convert("RGB")]
    told = real.images.edit(
        image=[upload(file_of(each)) for each in sources], prompt="a cat", n=2, size="64x64",
        extra_body={**SMALL, "negative_prompt": "dogs", "strength": 0.5},
    )  # fmt: skip
    pictures = [picture_of(told, number) for number in range(6)]
    assert len(told.data) == 6 and {each.size for each in pictures} == {(64, 64)}
    assert "dogs" in pictures[0].info["parameters"]


@pytest.mark.slow
def test_sizes_formats_and_urls(real: Any, running_server: Server) -> None:
    told = real.images.edit(
        image=upload(file_of(scene())), prompt="a", size="96x72", response_format="url", extra_body=SMALL
    )
    with running_server.client() as client:
        answer = client.get(told.data[0].url)
    assert opened(answer.content).size == (96, 72)
    told = real.images.generate(prompt="a", size="64x64", n=2, output_format="jpeg", extra_body=SMALL)
    assert [picture_of(told, number).format for number in range(2)] == ["JPEG", "JPEG"]
    with pytest.deprecated_call():  # by OpenAI, for its own models
        told = real.images.create_variation(image=upload(file_of(scene(72, 64))), n=1, extra_body=SMALL)
    assert picture_of(told).size == (72, 64)


@pytest.mark.slow
def test_seeds_make_the_same_pictures(real: Any) -> None:
    told = [real.images.generate(prompt="a", size="64x64", extra_body=SMALL) for _ in range(2)]
    assert picture_of(told[0]).tobytes() == picture_of(told[1]).tobytes()


@pytest.mark.slow
def test_models_by_name(real: Any) -> None:
    (model,) = [each for each in real.models.list() if each.served]
    told = real.images.generate(model=model.id, prompt="a", size="64x64", extra_body=SMALL)
    assert picture_of(told).size == (64, 64)


@pytest.mark.slow
def test_streams(real: Any) -> None:
    given = {"prompt": "a", "size": "128x128", "stream": True, "extra_body": {**SMALL, "steps": 150}}
    for kind, work in {
        "image_generation": real.images.generate,
        "image_edit": partial(real.images.edit, image=upload(file_of(scene(64, 64)))),
    }.items():
        *looks, done = list(work(**given, partial_images=2))
        assert done.type == f"{kind}.completed" and opened(base64.b64decode(done.b64_json)).size == (128, 128)
        assert len(looks) == 2
        for number, each in enumerate(looks):
            assert (each.type, each.partial_image_index) == (f"{kind}.partial_image", number)
            assert opened(base64.b64decode(each.b64_json)).size == (128, 128)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3, 4, 5, 20, 33])
def test_as_many_partial_pictures_as_were_asked_for(steps: int, real: Any) -> None:
    """However quick the job is; fewer only where it has fewer steps."""
    given = {"prompt": "a", "size": "64x64", "stream": True, "partial_images": 3}
    *looks, done = real.images.generate(**given, extra_body={**SMALL, "steps": steps})
    assert done.type == "image_generation.completed"
    assert [each.partial_image_index for each in looks] == list(range(min(3, steps)))
    half = {**SMALL, "steps": 2 * steps, "strength": 0.5}  # of the steps, and one more
    *looks, done = real.images.edit(image=upload(file_of(scene(64, 64))), **given, extra_body=half)
    assert done.type == "image_edit.completed"
    assert [each.partial_image_index for each in looks] == list(range(min(3, steps + 1)))


@pytest.mark.slow
def test_leaving_frees_the_server(running_server: Server) -> None:
    slow = {"prompt": "a", "size": "256x256", "steps": 150, "n": 10, "stream": True}
    with running_server.client() as client:
        with client.stream("POST", "/v1/images/generations", json=slow) as told:
            assert told.status_code == 200
        until(lambda: client.get("/v1/jobs?limit=1").json()["jobs"][0]["state"] == "cancelled", 20)
