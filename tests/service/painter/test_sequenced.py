"""Sequences as jobs of the service: what a resumed one gives is what an undisturbed one gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.deep import deep_array
from overpaint.events import Stop
from overpaint.files.metadata import encode_picture
from overpaint.opening import samples
from overpaint.pictures import open_picture
from overpaint.service.jobs import Job, JobState
from overpaint.service.limits import Limits
from overpaint.service.painter.engine_holder import EngineHolder
from overpaint.service.requests import kind_of, stored_request
from overpaint.settings import Settings
from tests.service.fake_store import FakeStore
from tests.service.painter.test_worker import bench, data, every_step, stopped, store
from tests.service.painter.worker_tools import all_files, carried_out
from tests.service.queue.desk_tools import source

__all__ = ["bench", "data", "every_step", "store"]

DEEP = encode_picture(deep_array(np.random.default_rng(0).integers(0, 65536, (32, 40, 3)).astype(np.uint16)), "png")
HALF = encode_picture(Image.fromarray(np.tile(np.array([0] * 20 + [255] * 20, np.uint8), (32, 1))), "png")
SHEET = Settings(return_grid=True)
REFERENCE = Settings.reference(return_grid=True)
TOOLS: dict[str, tuple[Settings, dict[str, Any], int]] = {
    "grid": (SHEET, {"kind": "grid", "x": "steps=1-3", "y": {"cfg_scale": [1, 7]}}, 6),
    "loopback": (SHEET, {"kind": "loopback", "loops": 3}, 3),
    "reference loopback": (REFERENCE, {"kind": "script", "title": "Loopback", "args": [3, 0.9, "Lazy", "None"]}, 3),
    "tiles": (
        REFERENCE,
        {"kind": "script", "title": "SD upscale", "args": ["", 8, "Lanczos", 2.0], "width": 32, "height": 32},
        9,
    ),
    "prompts": (Settings(), {"kind": "prompts", "text": "a\nb", "seed": -1}, 2),
    "deep loopback": (
        Settings(),
        {"kind": "loopback", "loops": 3, "images": [DEEP], "mask": HALF, "overrides": {"samples_format": "tif"}},
        3,
    ),
    "mk2": (REFERENCE, {"kind": "outpainting-mk2", "pixels": 64, "directions": ["left", "up"]}, 2),
}


def ordered(store: FakeStore, settings: Settings, fields: Mapping[str, Any]) -> Job:
    """A job as a door takes it in."""
    given = {"images": [store.put_picture(source())], "steps": 2, "sampler": "Euler", "seed": 7, **fields}
    stored = stored_request(given, store, Limits(), settings=settings)
    return Job(id="a", kind=kind_of(stored), request=stored, settings=settings.to_json(), client="test")


def test_inpainted_steps_tell_their_seam(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    for fields in ({"kind": "outpaint", "left": 16}, {"kind": "loopback", "loops": 2, "mask": HALF, "images": [DEEP]}):
        ended, _ = carried_out(bench, ordered(store, Settings(), fields), tmp_path / str(fields["kind"]))
        assert ended.state is JobState.FINISHED, ended.error
        seams = [each.seam for each in ended.result.pictures]
        assert seams and all(each is not None and each["outside"] == 0 and each["coverage"] > 0 for each in seams)
    plain, _ = carried_out(bench, ordered(store, Settings(), {"kind": "loopback", "loops": 1}), tmp_path / "plain")
    assert [each.seam for each in plain.result.pictures] == [None]


def test_a_request_says_how_its_files_are_kept(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    settings, fields, _ = TOOLS["deep loopback"]
    ended, _ = carried_out(bench, ordered(store, settings, fields), tmp_path)
    for each in ended.result.pictures:
        assert (each.media_type, Path(each.file).suffix) == ("image/tiff", ".tif")
        assert samples(open_picture(tmp_path / each.file)).dtype == np.uint16


@pytest.mark.parametrize("name", TOOLS)
def test_going_on_gives_the_same_bytes(bench: EngineHolder, store: FakeStore, tmp_path: Path, name: str) -> None:
    settings, fields, steps = TOOLS[name]
    job = ordered(store, settings, fields)
    assert job.kind == "sequence"
    whole, told = carried_out(bench, job, tmp_path / "whole")
    assert whole.state is JobState.FINISHED, whole.error
    assert len(told.batches) == steps
    for count in sorted({1, steps - 1, steps}):
        folder = tmp_path / f"cut{count}"
        folder.mkdir()
        for batch in told.batches[:count]:
            for each in batch.pictures:
                (folder / each.file).write_bytes((tmp_path / "whole" / each.file).read_bytes())
        again, told_again = carried_out(bench, job, folder, done=tuple(told.batches[:count]))
        assert again == whole
        assert all_files(folder) == all_files(tmp_path / "whole")
        assert [each.number for each in told_again.batches] == list(range(count, steps))


def test_a_step_whose_file_is_damaged_is_painted_again(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = ordered(store, *TOOLS["loopback"][:2])
    whole, told = carried_out(bench, job, tmp_path / "whole")
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / told.batches[0].pictures[0].file).write_bytes(b"no picture")
    again, told_again = carried_out(bench, job, folder, done=tuple(told.batches))
    assert (again, len(told_again.batches)) == (whole, 3)


def test_sheets_come_first_and_cells_in_their_order(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    ended, _ = carried_out(bench, ordered(store, *TOOLS["grid"][:2]), tmp_path)
    assert [each.kind for each in ended.result.pictures] == ["grid"] + 6 * ["picture"]
    assert [each.number for each in ended.result.pictures] == list(range(7))
    assert [text.partition("Steps: ")[2][0] for text in ended.result.infotexts[1:]] == list("123123")


@pytest.mark.usefixtures("every_step")
def test_a_cancelled_sequence_keeps_its_finished_steps(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    ended, told = stopped(bench, ordered(store, *TOOLS["loopback"][:2]), tmp_path, Stop.CANCEL, at=3)
    assert ended.state is JobState.CANCELLED
    assert ended.result.stopped
    assert len(ended.result.pictures) == len(told.batches) == 1


def test_what_a_step_cannot_be_is_told_of_the_job(bench: EngineHolder, store: FakeStore, tmp_path: Path) -> None:
    job = ordered(store, Settings(), {"kind": "outpaint", "left": 8})
    wrong = {**job.request, "sequence": {"kind": "outpaint", "left": 0}}
    ended, _ = carried_out(bench, Job(id="a", kind="sequence", request=wrong, settings={}), tmp_path)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code == "invalid"
    assert "does not grow" in ended.error.message
