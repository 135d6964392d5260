"""The worker: what a resumed job gives is what an uninterrupted one gives, and no failure reaches the next job."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from overpaint.deep import deep_array
from overpaint.engine import stages_of
from overpaint.errors import CheckpointError, PictureError, RequestError, SamplingError, SaveError, SettingError
from overpaint.events import Control, Stop
from overpaint.extras import INFO_ITEM, ExtrasRequest
from overpaint.files.metadata import encode_picture, read_infotext
from overpaint.opening import samples
from overpaint.painting.stages import Stages
from overpaint.pictures import open_picture
from overpaint.request import Img2ImgRequest
from overpaint.service.jobs import DoneBatch, Job, JobState, Record
from overpaint.service.painter import painting, questions, sequenced
from overpaint.service.painter.engine_holder import EngineHolder
from overpaint.service.painter.jobs_in_hand import trouble_of
from overpaint.service.painter.painting import LOOKS, Ended, Enlarging, Looks, Task, error_of
from overpaint.service.painter.worker import Worker
from overpaint.service.requests import loaded_request
from overpaint.service.store.forms import batch_of, job_of, plain, result_of
from overpaint.service.wire import Message, encoded, read
from overpaint.service.workers.port import WorkerRefused
from overpaint.settings import Settings
from tests import profiles
from tests.service.fake_store import FakeStore
from tests.service.painter.worker_tools import Told, all_files, carried_out, holder_of
from tests.service.queue.desk_tools import (
    account_of,
    config_for,
    ended_well,
    files_of,
    opened,
    run,
    source,
    story_of,
    until_ready,
    until_running,
)
from tests.service.queue.desk_tools import (
    painting as paint_job,
)
from tests.tiny import make_tiny_checkpoint

GRID = Settings(return_grid=True, show_progress_every_n_steps=1)
MASKS = Settings(return_mask=True, return_mask_composite=True, return_grid=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def bench(tiny_checkpoint: Path, data: Path) -> Iterator[EngineHolder]:
    made = holder_of(data, tiny_checkpoint)
    yield made
    made.put_away()


@pytest.fixture
def store(data: Path) -> FakeStore:
    return FakeStore(data)


# -- what comes of a job -----------------------------------------------------------------------------------------------


def test_the_result_is_the_engines_own(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = paint_job(store, "a", settings=GRID, iterations=2, batch_size=2, prompt="a (cat:1.2)")
    ended, told = carried_out(bench, job, tmp_path / "a")
    request = loaded_request(job.request, bench.picture)
    assert isinstance(request, Img2ImgRequest)
    processed = bench.engine().paint(request, GRID)
    assert ended.state is JobState.FINISHED
    assert ended.result.infotexts == processed.infotexts
    assert ended.result.info == processed.js()
    assert [each.kind for each in ended.result.pictures] == ["grid"] + 4 * ["picture"]
    assert [each.seed for each in ended.result.pictures] == [None, 7, 8, 9, 10]
    for each, image, text in zip(ended.result.pictures, processed.images, processed.infotexts, strict=True):
        path = tmp_path / "a" / each.file
        with Image.open(path) as found:
            assert (found.mode, found.size, found.tobytes()) == (image.mode, image.size, image.tobytes())
        assert (each.width, each.height) == image.size
        assert read_infotext(path)[0] == each.infotext == text
    assert told.kinds[:2] == ["taken", "started"]
    assert told[1][1] == {"images": 4, "batches": 2, "crop": None, "warnings": []}
    assert [each.number for each in told.batches] == [0, 1]
    previews = [values for kind, values in told if kind == "preview"]
    steps = [each["step"] for each in previews]
    assert steps == sorted(set(steps)) and 3 <= len(steps) <= LOOKS  # few, but of every part of the job
    assert Image.open(io.BytesIO(base64.b64decode(previews[0]["png"]))).format == "PNG"


def test_what_a_jpeg_does_not_hold_is_told_and_white_lies_behind_it(
    bench: EngineHolder, store: FakeStore, tmp_path: Path
) -> None:
    data = io.BytesIO()
    Image.new("RGBA", (64, 48), (0, 0, 200, 0)).save(data, "PNG")
    clear: dict[str, Any] = {"images": [store.put_picture(data.getvalue())]}
    job = paint_job(store, "jpeg", settings=Settings(samples_format="jpg"), **clear, width=64, height=48)
    ended, told = carried_out(bench, job, tmp_path / "jpeg")
    said = "samples_format=jpg: JPEG holds no transparency, so a background is put behind it; use PNG"
    assert said in ended.result.warnings
    assert said in told.batches[0].warnings
    with Image.open(tmp_path / "jpeg" / ended.result.pictures[0].file) as found:
        assert found.format == "JPEG"
        assert np.asarray(found).min() > 250
    reference = Settings.reference(samples_format="jpg")
    ended, _ = carried_out(bench, replace(job, settings=reference.to_json()), tmp_path / "reference")
    assert not ended.result.warnings


def test_16_bits_and_what_stands_beside_the_pixels_come_through_a_job(
    bench: EngineHolder, store: FakeStore, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (48, 64, 3)).astype(np.uint16)
    given = encode_picture(deep_array(values), "png", icc=profiles.display_p3(), xmp=b"<x/>", dpi=(300, 300))
    mask, shown = np.zeros((48, 64), np.uint8), io.BytesIO()
    mask[8:24, 8:24] = 255
    Image.fromarray(mask).save(shown, "PNG")
    pictures: dict[str, Any] = {"images": [store.put_picture(given)], "mask": store.put_picture(shown.getvalue())}
    job = paint_job(store, "deep", **pictures, width=64, height=48, mask_blur_x=0, mask_blur_y=0)
    ended, _ = carried_out(bench, job, tmp_path / "deep")
    assert ended.state is JobState.FINISHED
    found = open_picture((tmp_path / "deep" / ended.result.pictures[0].file).read_bytes())
    assert np.array_equal(samples(found)[mask == 0], values[mask == 0])
    assert not np.array_equal(samples(found)[mask > 0], values[mask > 0])
    assert (found.info["icc_profile"], found.info["xmp"]) == (profiles.display_p3(), b"<x/>")
    assert [round(each) for each in found.info["dpi"]] == [300, 300]
    job = paint_job(store, "tif", **pictures, width=64, height=48, overrides={"samples_format": "tif"})
    ended, _ = carried_out(bench, job, tmp_path / "tif")
    (picture,) = ended.result.pictures
    assert (picture.file, picture.media_type) == ("0.tif", "image/tiff")
    assert samples(open_picture(tmp_path / "tif" / picture.file)).dtype == np.uint16


def test_enlarging_keeps_16_bits(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint16)
    given = store.put_picture(encode_picture(deep_array(values), "tif"))
    ended, _ = carried_out(bench, extras_job(store, 1, images=[given]), tmp_path)
    found = samples(open_picture(tmp_path / ended.result.pictures[0].file))
    assert found.dtype == np.uint16 and found.shape == (96, 128, 3)
    assert len(np.unique(found % 257)) > 200


@pytest.mark.parametrize("steps", [*range(1, 30), 150, 1000])
def test_looks_are_few_and_hold_those_at_even_distances(steps: int) -> None:
    """In a job that takes no time at all: what is let through is what partial pictures need, and not much more."""
    looks = Looks()
    shown = [step for step in range(1, steps + 1) if looks.is_due(step, steps)]
    assert min(LOOKS, steps) <= len(shown) <= LOOKS + 1
    for wanted in range(1, min(3, steps) + 1):
        due = [next((each for each in shown if each * (wanted + 1) >= steps * k), 0) for k in range(1, wanted + 1)]
        assert 0 not in due and len(set(due)) == wanted


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (GRID, {"iterations": 3}),
        (Settings(), {"iterations": 3, "batch_size": 2, "sampler": "DPM++ 2M SDE"}),
        (MASKS, {"iterations": 3, "mask": True, "mask_blur_x": 0, "mask_blur_y": 0}),
        (Settings(samples_format="jpg", enable_pnginfo=False), {"iterations": 3}),
        (Settings(samples_format="webp", return_grid=True), {"iterations": 3}),
        (Settings.reference(return_grid=True), {"iterations": 3, "sampler": "Euler a", "strength": 0.5}),
        (GRID, {"iterations": 3, "strength": 0}),
        (GRID, {"iterations": 3, "images": [], "strength": 1, "width": 32, "height": 32}),
        (Settings(), {"iterations": 3, "prompt": ["a", "b", "c"], "overrides": {"eta_noise_seed_delta": 3}}),
    ],
    ids=["grid", "batches", "masks", "jpeg", "webp grid", "reference", "unchanged", "txt2img", "prompts"],
)
def test_going_on_gives_the_same_bytes(
    bench: EngineHolder, store: FakeStore, tmp_path: Path, settings: Settings, fields: dict[str, Any]
) -> None:
    if fields.get("mask"):
        file = io.BytesIO()
        mask = Image.new("L", (32, 32))
        mask.paste(255, (8, 8, 24, 24))
        mask.save(file, "PNG")
        fields = {**fields, "mask": store.put_picture(file.getvalue())}
    job = paint_job(store, "a", settings=settings, **fields)
    whole, told = carried_out(bench, job, tmp_path / "whole")
    assert whole.state is JobState.FINISHED
    assert len(told.batches) == 3
    of_pictures = [each.seam for each in whole.result.pictures if each.kind == "picture"]
    assert all((each is not None and each["outside"] == 0) is bool(fields.get("mask")) for each in of_pictures)
    for count in range(4):
        folder = tmp_path / f"cut{count}"
        folder.mkdir()
        for batch in told.batches[:count]:
            for each in batch.pictures:
                (folder / each.file).write_bytes((tmp_path / "whole" / each.file).read_bytes())
        (folder / ".torn.tmp").write_bytes(b"half")
        again, told_again = carried_out(bench, job, folder, done=tuple(told.batches[:count]))
        assert again == whole
        assert all_files(folder) == all_files(tmp_path / "whole")
        can_go_on = "strength" not in fields or fields["strength"] != 0
        if can_go_on and not (settings.return_grid and settings.samples_format != "png"):
            assert [each.number for each in told_again.batches] == [0, 1, 2][count:]


def test_what_is_not_whole_is_painted_again(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = paint_job(store, "a", settings=GRID, iterations=3)
    whole, told = carried_out(bench, job, tmp_path / "whole")
    for damage in (b"", b"no picture", None):
        folder = tmp_path / f"damaged{damage!r:.6}"
        folder.mkdir()
        for batch in told.batches:
            for each in batch.pictures:
                (folder / each.file).write_bytes((tmp_path / "whole" / each.file).read_bytes())
        second = folder / told.batches[1].pictures[0].file
        if damage is None:
            second.unlink()
        else:
            second.write_bytes(damage)
        again, told_again = carried_out(bench, job, folder, done=tuple(told.batches))
        assert again == whole
        assert all_files(folder) == all_files(tmp_path / "whole")
        assert [each.number for each in told_again.batches] == [1, 2]


def test_a_job_does_not_depend_on_the_one_before(
    bench: EngineHolder, store: FakeStore, tmp_path: Path
) -> None:  # SIG-11
    job = paint_job(store, "a", settings=Settings.reference())
    first, _ = carried_out(bench, job, tmp_path / "first")
    other = paint_job(store, "b", settings=Settings.reference(), overrides={"sd_noise_schedule": "Zero Terminal SNR"})
    carried_out(bench, other, tmp_path / "other")
    second, _ = carried_out(bench, job, tmp_path / "second")
    assert first == second
    assert all_files(tmp_path / "first") == all_files(tmp_path / "second")


# -- stopping ----------------------------------------------------------------------------------------------------------


def stopped(bench: EngineHolder, job: Job, folder: Path, how: Stop, at: int) -> tuple[Ended, Told]:
    """Ask for a stop when so many steps were told."""
    control, told = Control(), Told()

    def tell(kind: str, **values: object) -> None:
        told(kind, **values)
        if kind == "progress" and told.kinds.count("progress") == at:
            control.ask(how)

    ended, _ = carried_out(bench, job, folder, control=control, tell=tell)
    return ended, told


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (painting, sequenced):
        monkeypatch.setattr(room, "SECONDS_BETWEEN_STEPS", 0.0)


@pytest.mark.usefixtures("every_step")
def test_cancel_keeps_what_was_finished(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = paint_job(store, "a", iterations=3)
    ended, told = stopped(bench, job, tmp_path / "a", Stop.CANCEL, at=4)
    assert ended.state is JobState.CANCELLED
    assert told.kinds.count("progress") == 4  # within one step
    assert [each.file for each in ended.result.pictures] == ["0.png"]
    assert ended.result.stopped
    nothing, _ = stopped(bench, job, tmp_path / "b", Stop.CANCEL, at=1)
    assert (nothing.state, nothing.result.pictures) == (JobState.CANCELLED, ())


@pytest.mark.usefixtures("every_step")
def test_finish_early_and_skip(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:  # INT-2, INT-3
    job = paint_job(store, "a", iterations=3)
    early, told = stopped(bench, job, tmp_path / "early", Stop.FINISH_EARLY, at=4)
    assert early.state is JobState.FINISHED
    assert early.result.stopped
    assert [each.complete for each in told.batches] == [True, False]
    skipped, told = stopped(bench, job, tmp_path / "skipped", Stop.SKIP, at=1)
    assert skipped.result.stopped
    assert [each.complete for each in told.batches] == [False, True, True]


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("how", [Stop.CANCEL, Stop.FINISH_EARLY, Stop.SKIP])
def test_a_stop_at_the_very_end(bench: EngineHolder, store: FakeStore, tmp_path: Path, how: Stop) -> None:
    """Everything is painted and kept: whether it was heard in time or not, the account is a whole one."""
    job = paint_job(store, "a", iterations=2)
    whole, _ = carried_out(bench, job, tmp_path / "whole")
    control, told = Control(), Told()

    def tell(kind: str, **values: object) -> None:
        told(kind, **values)
        if len(told.batches) == 2:
            control.ask(how)

    ended, _ = carried_out(bench, job, tmp_path / "a", control=control, tell=tell)
    assert ended.state in (JobState.FINISHED, *([JobState.CANCELLED] if how is Stop.CANCEL else []))
    assert ended.result.pictures == whole.result.pictures
    assert all_files(tmp_path / "a") == all_files(tmp_path / "whole")


def test_a_firmer_stop_replaces_a_milder_one() -> None:
    for first in Stop:
        for second in Stop:
            worker, control = Worker(io.BytesIO(), io.BytesIO()), Control()
            worker._controls["a"] = control
            for how in (first, second):
                worker._take({"type": "stop", "job": "a", "how": how.value})
            worker._take({"type": "stop", "job": "b", "how": "cancel"})
            firmness = ("skip", "after batch", "finish early", "cancel")
            assert control.message is max(first, second, key=lambda each: firmness.index(each.value))


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("steps", 0, "give more"), "invalid"),
        (SettingError("x", 0, "no"), "invalid"),
        (PictureError("torn"), "invalid"),
        (CheckpointError("gone"), "checkpoint"),
        (SaveError("full"), "save"),
        (SamplingError("NaN"), "sampling"),
        (SamplingError("memory: there is not enough"), "memory"),
        (MemoryError(), "memory"),
        (ValueError("/home/somebody/secret"), "internal"),
    ],
)
def test_codes_of_errors(error: Exception, code: str) -> None:
    told = error_of(error)
    assert told.code == code
    assert told.message
    assert "secret" not in told.message


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"checkpoint": "nobody"}, "checkpoint"),
        ({"sampler": "nobody"}, "invalid"),
        ({"images": ["sha256:" + 64 * "0"]}, "invalid"),
        ({"images": ["sha256:../../etc/passwd"]}, "invalid"),
        ({"steps": "many"}, "invalid"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_done(
    bench: EngineHolder, store: FakeStore, tmp_path: Path, fields: dict[str, Any], code: str
) -> None:
    ended, _ = carried_out(bench, paint_job(store, "bad", **fields), tmp_path / "bad")
    assert (ended.state, ended.error and ended.error.code) == (JobState.FAILED, code)
    good, _ = carried_out(bench, paint_job(store, "good"), tmp_path / "good")
    assert good.state is JobState.FINISHED


def failing(times: int, error: Exception) -> Any:
    """The engine's stage, but for the first calls."""
    whole, left = Stages.sample_tensors, [times]

    def sample_tensors(self: Stages, *values: Any, **named: Any) -> Any:
        if named.get("number") == 1 and left[0]:
            left[0] -= 1
            raise error
        return (yield from whole(self, *values, **named))

    return sample_tensors


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
NAN = SamplingError("sampler='Euler': the network produced NaN; use dtype='float32'")


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, NAN], ids=["memory", "nan"])
def test_one_smaller_retry(
    bench: EngineHolder, store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job = paint_job(store, "a", settings=GRID, iterations=3, batch_size=2)
    whole, _ = carried_out(bench, job, tmp_path / "whole")
    monkeypatch.setattr(Stages, "sample_tensors", failing(1, error))
    again, told = carried_out(bench, job, tmp_path / "again")
    assert again.state is JobState.FINISHED
    assert len(again.result.warnings) == 1
    assert [each.number for each in told.batches] == [0, 1, 2]  # the first is not painted twice
    assert again.result.infotexts == whole.result.infotexts
    for each in again.result.pictures:  # single calls may round otherwise
        images = [np.asarray(Image.open(tmp_path / name / each.file), dtype=int) for name in ("whole", "again")]
        assert abs(images[0] - images[1]).max() <= 1


@pytest.mark.parametrize(("error", "code"), [(OUT_OF_MEMORY, "memory"), (NAN, "sampling")])
def test_then_that_job_only_fails(
    bench: EngineHolder, store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    monkeypatch.setattr(Stages, "sample_tensors", failing(2, error))
    job = paint_job(store, "a", iterations=3)
    ended, _ = carried_out(bench, job, tmp_path / "a")
    assert (ended.state, ended.error and ended.error.code) == (JobState.FAILED, code)
    assert [each.file for each in ended.result.pictures] == ["0.png"]  # what was finished before
    good, _ = carried_out(bench, job, tmp_path / "b")
    assert good.state is JobState.FINISHED


def test_a_half_precision_engine_is_made_anew_in_float32(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, full = (holder_of(tmp_path, tiny_checkpoint, dtype=each) for each in ("bfloat16", "float32"))
    job = paint_job(FakeStore(tmp_path), "a", iterations=2)
    carried_out(full, job, tmp_path / "full")
    monkeypatch.setattr(Stages, "sample_tensors", failing(1, NAN))
    ended, _ = carried_out(half, job, tmp_path / "half")
    assert ended.state is JobState.FINISHED
    assert (tmp_path / "half" / "1.png").read_bytes() == (tmp_path / "full" / "1.png").read_bytes()
    assert stages_of(half.engine()).backend.dtypes.unet is torch.bfloat16
    for each in (half, full):
        each.put_away()


def test_trouble() -> None:
    wrapped = SamplingError("memory: there is not enough of it")
    wrapped.__cause__ = OUT_OF_MEMORY
    assert [trouble_of(each) for each in (OUT_OF_MEMORY, wrapped, MemoryError())] == 3 * ["memory"]
    assert trouble_of(NAN) == "nan"
    assert trouble_of(ValueError("NaN")) is None


# -- extras ------------------------------------------------------------------------------------------------------------


def extras_job(store: FakeStore, count: int = 3, **fields: Any) -> Job:
    request = {
        "kind": "extras",
        "images": [store.put_picture(source(seed)) for seed in range(count)],
        "upscaler": "Lanczos",
        "scale": 2,
        **fields,
    }
    return Job(id="e", kind="extras", request=request, settings={})


def test_pictures_are_enlarged(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = extras_job(store)
    ended, told = carried_out(bench, job, tmp_path / "whole")
    assert ended.state is JobState.FINISHED
    assert [each.file for each in ended.result.pictures] == ["0.png", "1.png", "2.png"]
    info = "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    assert ended.result.extra == {"infos": 3 * [info], "html_info": f"<p>{info}</p>"}
    with Image.open(tmp_path / "whole" / "0.png") as image:
        assert image.size == (64, 64)
        assert image.info[INFO_ITEM] == info
    for count in range(4):
        folder = tmp_path / f"cut{count}"
        folder.mkdir()
        for each in ended.result.pictures[:count]:
            (folder / each.file).write_bytes((tmp_path / "whole" / each.file).read_bytes())
        again, told_again = carried_out(bench, job, folder, done=tuple(told.batches[:count]))
        assert again == ended
        assert all_files(folder) == all_files(tmp_path / "whole")
        assert len(told_again.batches) == 3 - count


def test_extras_can_be_stopped(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    control, told = Control(), Told()

    def tell(kind: str, **values: object) -> None:
        told(kind, **values)
        if kind == "painted":
            control.ask(Stop.CANCEL)

    ended, _ = carried_out(bench, extras_job(store), tmp_path / "a", control=control, tell=tell)
    assert (ended.state, len(ended.result.pictures)) == (JobState.CANCELLED, 1)
    early, _ = carried_out(bench, extras_job(store), tmp_path / "b", control=control)
    assert (early.state, early.result.pictures) == (JobState.CANCELLED, ())


def test_extras_that_cannot_be_done(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    ended, _ = carried_out(bench, extras_job(store, upscaler="nobody"), tmp_path / "a")
    assert (ended.state, ended.error and ended.error.code) == (JobState.FAILED, "invalid")


def test_extras_without_memory_go_on_in_small_tiles(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    sizes: list[int] = []

    def upscalers(settings: Settings, *_: Any) -> Mapping[str, Any]:
        sizes.append(settings.ESRGAN_tile)
        if len(sizes) == 1:
            raise OUT_OF_MEMORY
        return {}

    task = Task(job=extras_job(store), folder=tmp_path / "a")
    request = loaded_request(task.job.request, bench.picture)
    assert isinstance(request, ExtrasRequest)
    work = Enlarging(task, request)
    with pytest.raises(torch.OutOfMemoryError):
        work.run(upscalers)
    ended = work.run_smaller(upscalers, "said")
    assert (ended.state, ended.result.warnings, sizes) == (JobState.FINISHED, ("said",), [192, 64])


# -- questions ---------------------------------------------------------------------------------------------------------


def test_questions(tiny_checkpoint: Path, tmp_path: Path) -> None:
    own = holder_of(tmp_path, tiny_checkpoint, dtype="auto")
    assert questions.answer(own, "model", {}) is None
    assert questions.answer(own, "reload", {})["name"] == tiny_checkpoint.stem
    memory = questions.answer(own, "memory", {})
    assert memory["ram"]["total"] > memory["ram"]["used"] > 0
    with pytest.raises(CheckpointError):
        questions.answer(own, "load", {"checkpoint": "nobody"})
    other = make_tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    assert questions.answer(own, "load", {"checkpoint": str(other)})["name"] == "other"
    assert questions.answer(own, "load", {})["name"] == tiny_checkpoint.stem  # still that of jobs that name none
    assert questions.answer(own, "embeddings", {}) == {"loaded": {}, "skipped": {}}
    assert questions.answer(own, "unload", {}) is None
    assert not own.has_engine
    with pytest.raises(RequestError, match="what='eval'"):
        questions.answer(own, "eval", {})
    own.put_away()


# -- the process -------------------------------------------------------------------------------------------------------


def started(tmp_path: Path, checkpoint: str, **more: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "overpaint.service.painter.worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    values = {"data": str(tmp_path), "checkpoint": checkpoint, "device": "cpu", "dtype": "float32", "settings": {}}
    process.stdin.write(encoded({"type": "start", **values, **more}))
    process.stdin.flush()
    return process


def sent(process: subprocess.Popen[bytes], **message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(encoded(message))
    process.stdin.flush()


def heard(process: subprocess.Popen[bytes], kind: str) -> Message:
    assert process.stdout is not None
    while (message := read(process.stdout)) is not None:  # type: ignore[arg-type]
        if message["type"] == kind:
            return message
    raise AssertionError(f"the worker ended without {kind!r}")


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    code = process.wait(seconds)
    for each in (process.stdin, process.stdout, process.stderr):
        assert each is not None
        each.close()
    return code


def test_without_its_parent_a_worker_ends_at_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    process = started(tmp_path, str(tiny_checkpoint))
    assert process.stdin is not None
    heard(process, "ready")
    if hasattr(os, "getpriority"):  # who answers requests comes first
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    job = paint_job(FakeStore(tmp_path), "a", steps=150, strength=1.0, images=[], width=256, height=256)
    folder = tmp_path / "results" / "a"
    process.stdin.write(encoded({"type": "job", "job": plain(job), "done": [], "folder": str(folder)}))
    process.stdin.flush()
    heard(process, "progress")
    process.stdin.close()
    now = time.monotonic()
    ended(process, 10)
    assert time.monotonic() - now < 2
    assert list(folder.iterdir()) == []


def given(process: subprocess.Popen[bytes], data: Path, job: Job, done: Sequence[DoneBatch] = ()) -> None:
    folder = str(data / "results" / job.id)
    sent(process, type="job", job=plain(job), done=plain(list(done)), folder=folder)


def messages(process: subprocess.Popen[bytes]) -> Iterator[Message]:
    assert process.stdout is not None
    while (message := read(process.stdout)) is not None:  # type: ignore[arg-type]
        yield message


def test_a_worker_with_several_jobs_may_be_killed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Another one goes on from what was told of each, in any order and with new ones; nothing is lost or doubled."""
    store = FakeStore(tmp_path)
    steps = [4, 4, 4, 4, 150]  # the last one is to be cancelled long before it ends
    jobs = [paint_job(store, f"k{n}", seed=n, steps=steps[n], iterations=3, strength=1.0, exact=True) for n in range(5)]
    first = started(tmp_path, str(tiny_checkpoint), slots=4)
    ready = heard(first, "ready")
    assert ready["slots"] == 4 and ready["holds"] == [str(tiny_checkpoint)]
    for each in jobs[:4]:
        given(first, tmp_path, each)
    done: dict[str, list[DoneBatch]] = {each.id: [] for each in jobs}
    for message in messages(first):
        if message["type"] == "painted":
            done[message["job"]].append(batch_of(message["batch"]))
        if sum(map(len, done.values())) == 6:
            break
    first.kill()
    ended(first, 10)
    assert sum(map(bool, done.values())) > 1
    second = started(tmp_path, str(tiny_checkpoint), slots=4)
    for each in reversed(jobs):
        given(second, tmp_path, each, done[each.id])
    ends, is_stopped = dict[str, Message](), False
    for message in messages(second):
        if message["type"] == "painted":
            done[message["job"]].append(batch_of(message["batch"]))
        if message["type"] == "ended":
            ends[message["job"]] = message
        if message["type"] == "progress" and message["job"] == "k4" and not is_stopped:  # not every step is told
            sent(second, type="stop", job="k4", how="cancel")
            is_stopped = True
        if len(ends) == len(jobs):
            break
    sent(second, type="shutdown")
    assert ended(second, 10) == 0
    own = holder_of(tmp_path, tiny_checkpoint)
    for each in jobs[:4]:
        whole, _ = carried_out(own, each, tmp_path / "whole" / each.id)
        assert ends[each.id]["state"] == "finished"
        assert [batch.number for batch in done[each.id]] == [0, 1, 2]
        assert result_of(ends[each.id]["result"]) == whole.result
        assert all_files(tmp_path / "results" / each.id) == all_files(tmp_path / "whole" / each.id)
    assert ends["k4"]["state"] == "cancelled"
    assert len(done["k4"]) == len(ends["k4"]["result"]["pictures"]) < 3
    own.put_away()


def test_a_worker_says_hello_before_it_loads_torch(tmp_path: Path) -> None:
    code = "import overpaint.service.painter.worker, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_desk_with_a_true_worker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    store = FakeStore(tmp_path)

    async def story() -> None:
        async with opened(store, config_for(tmp_path, tiny_checkpoint)) as desk:
            assert desk.state() == "STARTING"
            jobs = [paint_job(store, f"j{n}", settings=GRID, seed=n, iterations=2) for n in range(3)]
            for each in jobs:
                await desk.submit(each)
            records = [ended_well(await desk.wait(each.id)) for each in jobs]
            twin = ended_well(await desk.wait((await desk.submit(replace(jobs[1], id="twin"))).id))
            assert files_of(store, twin) == files_of(store, records[1])
            assert account_of(twin.result) == account_of(records[1].result)

            long = paint_job(store, "long", settings=GRID, steps=150, strength=1.0, iterations=16, batch_size=1)
            await desk.submit(long)
            await until_running(desk, "long", step=2)
            live = desk.running()
            assert live is not None and (live.steps, live.batches, live.images) == (150 * 16, 16, 16)
            assert desk.state() == "BUSY"
            memory = await desk.ask("memory")  # while it runs
            assert memory["ram"]["used"] > 0
            assert desk.running() is not None
            now = time.monotonic()
            record = await desk.cancel("long")
            assert record.state is JobState.CANCELLED
            assert time.monotonic() - now < 2

            await desk.submit(replace(long, id="early"))
            await until_running(desk, "early", step=2)
            await desk.finish_early("another")
            await desk.finish_early()
            record = ended_well(await desk.wait("early"))
            assert record.result.stopped

            with pytest.raises(WorkerRefused):
                await desk.ask("load", {"checkpoint": "nobody"})
            assert desk.state() == "READY"
            await desk.ask("unload")
            assert await desk.ask("model") is None
            ended_well(await desk.wait((await desk.submit(replace(jobs[0], id="reloaded"))).id))
            assert [each.name for each in await story_of(desk, "reloaded")][-1] == "finished"

    run(story())


def test_a_desk_has_jobs_done_side_by_side(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """One is cancelled among its neighbours, and all of them are what they are alone."""
    store = FakeStore(tmp_path)
    jobs = [paint_job(store, f"s{n}", seed=n, steps=40, strength=1.0, exact=True) for n in range(4)]
    config = replace(config_for(tmp_path, tiny_checkpoint), jobs_per_worker=4)

    async def story() -> list[Record]:
        async with opened(store, config) as desk:
            for each in jobs:
                await desk.submit(each)
            events = desk.events("s1")
            async for event in events:
                if event.name == "progress":
                    await desk.cancel("s1")
            return [await desk.wait(each.id) for each in jobs]

    records = run(story())
    states = [each.state for each in records]
    assert states == [JobState.FINISHED, JobState.CANCELLED, JobState.FINISHED, JobState.FINISHED]
    moments = {(each.name, each.job): each.at for job in jobs for each in store.events_after(job.id, 0)}
    last_start = max(at for (name, _), at in moments.items() if name == "started")
    assert last_start < min(at for (name, _), at in moments.items() if name == "finished")
    own = holder_of(tmp_path, tiny_checkpoint)
    for job, record in zip(jobs, records, strict=True):
        if record.state is JobState.FINISHED:
            carried_out(own, job, tmp_path / "alone" / job.id)
            assert all_files(tmp_path / "results" / job.id) == all_files(tmp_path / "alone" / job.id)
    own.put_away()


def test_a_checkpoint_that_is_not_there(tmp_path: Path, tiny_checkpoint: Path) -> None:
    missing = tmp_path / "model.safetensors"
    store = FakeStore(tmp_path)

    async def story() -> None:
        async with opened(store, config_for(tmp_path, missing)) as desk:
            await desk.submit(paint_job(store, "a"))
            record = await desk.wait("a")
            assert record.error is not None and record.error.code == "checkpoint"
            assert desk.state() == "UNHEALTHY"
            missing.write_bytes(tiny_checkpoint.read_bytes())
            await desk.submit(paint_job(store, "b"))
            ended_well(await desk.wait("b"))
            await until_ready(desk)

    run(story())


def test_forms_there_and_back(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = paint_job(store, "a", settings=MASKS, iterations=2)
    ended, told = carried_out(bench, job, tmp_path / "a")
    assert job_of(json.loads(json.dumps(plain(job)))) == job
    assert result_of(json.loads(json.dumps(plain(ended.result)))) == ended.result
    assert all(batch_of(json.loads(json.dumps(plain(each)))) == each for each in told.batches)
