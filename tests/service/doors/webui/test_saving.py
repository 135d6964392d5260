"""What is saved of jobs of the reference's API: which files, under which names, and once, whatever happens between."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from overpaint.files.naming import NameFacts
from overpaint.files.saving import save_picture
from overpaint.outcome import init_image_hash
from overpaint.service.byproducts import BYPRODUCTS, byproduct_file, keep_byproducts
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui import saved_files, saving
from overpaint.service.doors.webui.saving import WISHES, Saver, SavingOptions
from overpaint.service.jobs import Job, JobError, JobResult
from overpaint.settings import Settings
from tests.service import fake_desk
from tests.service.conftest import StartServer
from tests.service.doors.webui.test_jobs import BASE, MASK, PICTURE, SMALL, SOURCE, answered, client_for
from tests.service.fake_desk import FakeDesk
from tests.service.fake_store import FakeStore

WISH = SavingOptions(kind="img2img", pictures=True, sources=False)
ALL_OF_THEM = {each.option: True for each in BYPRODUCTS}


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, config) as made:
        yield made


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk keeps by-products, as a worker does."""
    paint = fake_desk.paint

    def painted(job: Job, store: FakeStore) -> JobResult:
        result = paint(job, store)
        made = {each.attribute: Image.new("RGBA", (8, 8), index) for index, each in enumerate(BYPRODUCTS)}
        for each in result.pictures:
            folder, settings = (store.data / each.file).parent, Settings.from_json(job.settings)
            keep_byproducts(folder, Path(each.file).name, made, settings)
        return result

    monkeypatch.setattr(fake_desk, "paint", painted)


def saved(config: ServeConfig, kind: str = "img2img-images") -> list[str]:
    return sorted(path.name for path in (config.data / "outputs" / kind).rglob("*.*"))


def test_byproducts_are_saved_with_their_pictures(
    client: TestClient, config: ServeConfig, beside: None
) -> None:  # OUT-4, CC-5
    told = answered(client, **SOURCE, mask=MASK, seed=5, batch_size=2, save_images=True, override_settings=ALL_OF_THEM)
    assert saved(config) == [
        *("00000-5-before-color-correction.png", "00001-5.png", "00002-5-mask.png", "00003-5-mask-composite.png"),
        *("00004-6-before-color-correction.png", "00005-6.png", "00006-6-mask.png", "00007-6-mask-composite.png"),
    ]
    assert len(told["images"]) == 2  # they are saved, not returned
    folder = next((config.data / "outputs/img2img-images").iterdir())
    with Image.open(folder / "00002-5-mask.png") as mask, Image.open(folder / "00001-5.png") as picture:
        assert mask.size == (8, 8) and mask.info["parameters"] == picture.info["parameters"]


def test_options_of_the_server_do_it_too(client: TestClient, config: ServeConfig, beside: None) -> None:
    assert client.post(f"{BASE}/options", json={"save_mask": True}).status_code == 200
    answered(client, **SOURCE, mask=MASK, seed=5, save_images=True)
    assert saved(config) == ["00000-5.png", "00001-5-mask.png"]
    answered(client, **SOURCE, mask=MASK, seed=5, save_images=True, override_settings={"save_mask": False})
    assert saved(config) == ["00000-5.png", "00001-5-mask.png", "00002-5.png"]


def test_without_save_images_no_byproduct_is_made(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:
    answered(client, **SOURCE, mask=MASK, override_settings=ALL_OF_THEM)
    settings = Settings.from_json(list(desk.store.jobs.values())[-1].job.settings)
    assert not any(getattr(settings, each.option) for each in BYPRODUCTS)
    assert not (config.data / "outputs").exists() and not desk.store.option(WISHES)


def test_sources_are_kept_by_their_hash(client: TestClient, config: ServeConfig) -> None:  # IMG-1
    """Whether pictures are saved or not, and never twice."""
    with Image.open(io.BytesIO(base64.b64decode(PICTURE))) as picture:
        name = f"{init_image_hash(picture)}.png"
    for _ in range(2):
        answered(client, **SOURCE, override_settings={"save_init_img": True})
        assert saved(config, "init-images") == [name]
    assert saved(config) == []
    answered(client, "txt2img", **SMALL, override_settings={"save_init_img": True})
    assert saved(config, "init-images") == [name]


def test_nothing_is_overwritten(client: TestClient, config: ServeConfig) -> None:
    """Not even where the options name files without a number, and say that they may replace one another."""
    options = {"save_images_add_number": False, "samples_filename_pattern": "same", "save_to_dirs": False}
    for _ in range(3):
        answered(client, **SOURCE, save_images=True, override_settings=options)
    assert saved(config) == ["same-1.png", "same-2.png", "same.png"]


def test_names_stay_below_the_servers_folder(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:
    for pattern in ("../../out", "/etc/[seed]", "a/../../../b"):
        options = {"samples_filename_pattern": pattern, "directories_filename_pattern": pattern}
        answered(client, **SOURCE, save_images=True, override_settings=options)
    found = [path for path in config.data.parent.rglob("*.png") if "results" not in path.parts]
    assert len(found) == 3 and all(path.is_relative_to(config.data / "outputs/img2img-images") for path in found)
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "override_settings": {"outdir_samples": "../elsewhere"}})
    assert answer.status_code == 422


def test_texts_and_formats_are_the_options(client: TestClient, config: ServeConfig) -> None:  # STORE-6
    options = {"samples_format": "jpg", "save_txt": True}
    answered(client, **SOURCE, seed=5, save_images=True, override_settings=options)
    assert saved(config) == ["00000-5.jpg", "00000-5.txt"]


def test_what_cannot_be_saved_is_told_and_tried_again(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:
    config.data.mkdir(exist_ok=True)
    (config.data / "outputs").write_text("a file stands where the folder should")
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "save_images": True, "seed": 5})
    assert (answer.status_code, answer.json()["error"]) == (503, "SaveError")
    assert len(desk.store.option(WISHES)) == 1
    (config.data / "outputs").unlink()
    with client_for(desk, config):  # the server's next start
        until(lambda: not desk.store.option(WISHES))
    assert saved(config) == ["00000-5.png"]


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_refused_job_leaves_no_wish(client: TestClient, desk: FakeDesk) -> None:
    desk.store.most_waiting = 0
    assert client.post(f"{BASE}/img2img", json={**SOURCE, "save_images": True}).status_code == 429
    assert not desk.store.option(WISHES)


def test_a_failed_job_leaves_no_wish(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:
    desk.script = JobError(code="sampling", message="it went wrong")
    assert client.post(f"{BASE}/img2img", json={**SOURCE, "save_images": True}).status_code == 500
    assert not desk.store.option(WISHES) and saved(config) == []


# -- a server that is killed -------------------------------------------------------------------------------------------


class Killed(Exception):  # noqa: N818 (what happens to a server)
    """Nothing that comes after it happens."""


class Fate:
    """Lets a number of steps happen, and then nothing any more; each step may be survived by what it wrote or not."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **named: Any) -> Any:
            self._step()
            result = work(*args, **named)
            self._step()
            return result

        return done

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise Killed


def job_with(desk: FakeDesk, config: ServeConfig, job_id: str, **options: Any) -> Job:
    """One as the route makes it: two batches of one picture with a mask."""
    folder = str(config.data / "outputs/img2img-images")
    settings = Settings().with_changes(
        {"outdir_img2img_samples": folder, "save_mask": True, "save_txt": True, **options}
    )
    reference = desk.store.put_picture(base64.b64decode(PICTURE))
    request = {"images": [reference], "seed": 5, "iterations": 2, "width": 64, "height": 64}
    return Job(id=job_id, kind="paint", request=request, settings=settings.to_json(), origin="sdapi")


@pytest.mark.usefixtures("beside")
def test_killed_at_any_moment_every_picture_is_saved_once(
    desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between any two writes: of the store, of a picture, of the text beside it."""
    write, kills = save_picture, 0

    async def first_server(fate: Fate, job: Job) -> None:
        saver = Saver(desk)
        with monkeypatch.context() as patch:
            patch.setattr(desk.store, "set_option", fate.around(desk.store.set_option))
            patch.setattr(saved_files, "save_picture", fate.around(write))
            await saver.promise(job.id, WISH)
            await desk.submit(job)
            await saver.follow(job.id)

    async def second_server() -> None:
        saver = Saver(desk)
        await saver.resume()
        await asyncio.gather(*(saver.follow(each) for each in dict(desk.store.option(WISHES) or {})))

    for steps in range(100):
        config = replace(config, data=tmp_path / f"run{steps}")
        job = job_with(desk, config, f"job{steps}")
        try:
            asyncio.run(first_server(Fate(steps), job))
        except Killed:
            kills += 1
        else:
            break
        asyncio.run(second_server())
        expected = [f"{number:05}-{name}" for number, name in enumerate(("5", "5-mask", "6", "6-mask"))]
        wanted = [f"{each}.{kind}" for each in expected for kind in ("png", "txt")]
        assert saved(config) == (wanted if desk.store.get(job.id) is not None else []), steps
        assert not desk.store.option(WISHES)
    assert kills == 20  # the wish, four places with their pictures, the end: two moments each


def test_a_name_that_was_taken_meanwhile_is_left_alone(desk: FakeDesk, config: ServeConfig) -> None:
    """Chosen, written down, and then somebody else's before the picture came."""
    write_picture(desk.store.result_file("a", "0.png"))
    item = saved_files.Item(
        store=desk.store,
        job_id="a",
        key="0.png",
        root=config.data / "out",
        facts=NameFacts(seed=5),
        infotext="",
    )
    settings = Settings(save_to_dirs=False)
    path = saved_files.place_for(item, settings)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    saved_files.save_at(path, item, settings, may_be_there=False)
    assert path.read_bytes() == b"mine" and len(list(path.parent.glob("*.png"))) == 2


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), 7).save(path)
    return path


def test_results_that_are_gone_are_let_go(desk: FakeDesk, config: ServeConfig) -> None:
    async def both() -> None:
        saver = Saver(desk)
        job = job_with(desk, config, "old")
        await saver.promise(job.id, WISH)
        await desk.submit(job)
        desk.store.expire(keep_seconds=-1, keep_bytes=0)
        await saver.resume()
        await saver.follow(job.id)

    asyncio.run(both())
    assert saved(config) == [] and not desk.store.option(WISHES)


def test_two_jobs_at_once_choose_different_names(desk: FakeDesk, config: ServeConfig) -> None:
    async def many() -> None:
        saver = Saver(desk)
        for number in range(8):
            job = job_with(desk, config, f"job{number}", save_mask=False, save_txt=False)
            await saver.promise(job.id, WISH)
            await desk.submit(job)
        await asyncio.gather(*(saver.follow(f"job{number}") for number in range(8)))

    asyncio.run(many())
    assert len(saved(config)) == len({each.partition("-")[0] for each in saved(config)}) == 16


def test_the_names_of_byproducts_are_names_of_result_files() -> None:
    names = [byproduct_file("3.webp", each) for each in BYPRODUCTS]
    assert names == ["3-before-color-correction.png", "3-mask.png", "3-mask-composite.png"]
    assert all(hasattr(Settings(), each.option) for each in BYPRODUCTS)
    assert saving.WISHES == WISHES


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_server_that_is_killed_saves_after_its_next_start(start_server: StartServer) -> None:
    server = start_server()
    job = {**SOURCE, "n_iter": 3, "steps": 40, "width": 192, "height": 192, "denoising_strength": 1.0, "seed": 5}
    body = {**job, "save_images": True, "mask": MASK, "inpaint_full_res": False}

    def post() -> None:
        with server.client() as client:
            try:
                client.post(f"{BASE}/img2img", json=body)
            except OSError:
                pass
            except Exception as error:  # httpx has its own
                assert "disconnect" in str(error).lower() or "connection" in str(error).lower()

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    with server.client() as client:
        until(lambda: client.get(f"{BASE}/progress").json()["state"]["job_no"] == 1, 60)
    server.kill()
    thread.join(60)
    outputs = server.data / "outputs/img2img-images"
    assert not list(outputs.rglob("*.png"))
    start_server(data=server.data)
    until(lambda: len(list(outputs.rglob("*.png"))) == 3, 60)
    time.sleep(1)
    assert sorted(path.name for path in outputs.rglob("*.*")) == ["00000-5.png", "00001-6.png", "00002-7.png"]


@pytest.mark.slow
def test_a_real_worker_makes_the_byproducts(start_server: StartServer) -> None:
    """Masks and uncorrected pictures as they are returned, or would be."""
    server = start_server()
    options = {**ALL_OF_THEM, "img2img_color_correction": True, "save_init_img": True, "return_mask": True}
    body = {**SOURCE, "mask": MASK, "seed": 5, "inpaint_full_res": False, "mask_blur": 0, "save_images": True}
    with server.client() as client:
        told = client.post(f"{BASE}/img2img", json={**body, "override_settings": options}).json()
    outputs = server.data / "outputs"
    names = sorted(path.name for path in (outputs / "img2img-images").rglob("*.*"))
    assert names == [
        *("00000-5-before-color-correction.png", "00001-5.png", "00002-5-mask.png", "00003-5-mask-composite.png"),
    ]
    (mask,) = (outputs / "img2img-images").rglob("*-mask.png")
    *_, returned = told["images"]
    with Image.open(mask) as ours, Image.open(io.BytesIO(base64.b64decode(returned))) as theirs:
        assert (ours.mode, ours.tobytes()) == (theirs.mode, theirs.tobytes())
    (composite,) = (outputs / "img2img-images").rglob("*-mask-composite.png")
    with Image.open(composite) as image:
        assert image.mode == "RGBA"
    (source,) = (outputs / "init-images").iterdir()
    info = json.loads(told["info"])
    assert f"Init image hash: {source.stem}" in info["infotexts"][-1]
