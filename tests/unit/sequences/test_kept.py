"""A folder that a sequence goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from overpaint.deep import deep_array
from overpaint.errors import RequestError
from overpaint.files.keeping import Origins
from overpaint.finish import FinishedPicture
from overpaint.opening import samples
from overpaint.outcome import FinishedBatch, ModelIdentity, account
from overpaint.pixels.seams import Seam
from overpaint.planning.plan import plan
from overpaint.sequences.kept import EXACT, JOURNAL, KeptSteps
from overpaint.sequences.loopback import Loopback
from overpaint.settings import Settings
from tests.unit.toy_job import asked, noisy_picture

SANE = Settings()


def kept(folder: Path, **fields: object) -> KeptSteps:
    loops = Loopback(request=asked(**{"seed": -1, **fields}), loops=3)
    return KeptSteps.opened(folder, loops, SANE, "model")


def paint(steps: KeptSteps, number: int) -> None:
    decided = plan(asked(seed=steps.sequence.request.seed), SANE)
    picture = FinishedPicture(noisy_picture(32, 32, seed=number))
    made = account(decided, ModelIdentity(), [FinishedBatch(decided.batches[0], (picture,))])
    steps.keep(number, made, Origins(), f"loop-{number + 1}.png")


def test_it_goes_on_with_the_seeds_it_began_with(tmp_path: Path) -> None:
    first = kept(tmp_path)
    paint(first, 0)
    paint(first, 1)
    again = kept(tmp_path)
    assert again.sequence.request.seed == first.sequence.request.seed != -1
    assert len(again.done) == 2
    assert again.done[1].pictures[0].tobytes() == noisy_picture(32, 32, seed=1).tobytes()
    assert "Steps: 4" in again.done[1].infotexts[0]


def test_a_line_that_a_crash_cut_is_not_believed(tmp_path: Path) -> None:
    steps = kept(tmp_path)
    paint(steps, 0)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"number": 1, "files": ["loop-2.p')
    again = kept(tmp_path)
    assert len(again.done) == 1
    paint(again, 1)
    assert len(kept(tmp_path).done) == 2


def test_a_picture_that_changed_is_painted_again(tmp_path: Path) -> None:
    steps = kept(tmp_path)
    paint(steps, 0)
    paint(steps, 1)
    (tmp_path / "loop-1.png").write_bytes(b"other")
    assert kept(tmp_path).done == ()
    (tmp_path / "loop-1.png").unlink()
    assert kept(tmp_path).done == ()


def test_a_folder_of_another_sequence_is_refused(tmp_path: Path) -> None:
    kept(tmp_path)
    with pytest.raises(RequestError, match="another sequence"):
        kept(tmp_path, prompt="another")
    (tmp_path / JOURNAL).write_text("nonsense\n")
    with pytest.raises(RequestError, match="another sequence"):
        kept(tmp_path)


def test_files_are_named_without_paths(tmp_path: Path) -> None:
    """A journal of a stranger points at no file elsewhere."""
    steps = kept(tmp_path)
    paint(steps, 0)
    head, line = (tmp_path / JOURNAL).read_text().splitlines()
    value = {**json.loads(line), "files": ["../../../etc/passwd"]}
    (tmp_path / JOURNAL).write_text(f"{head}\n{json.dumps(value)}\n")
    assert kept(tmp_path).done == ()


def test_depth_and_seams_are_read_back(tmp_path: Path) -> None:
    steps = kept(tmp_path)
    decided = plan(asked(seed=steps.sequence.request.seed), SANE)
    values = np.arange(32 * 32 * 3, dtype=np.uint16).reshape(32, 32, 3) * 21
    seam = Seam(1.0, 2.0, 0.5, 0.25, 3.0, 40.0, blend="bands")
    picture = FinishedPicture(deep_array(values), seam=seam)
    made = account(decided, ModelIdentity(), [FinishedBatch(decided.batches[0], (picture,))])
    steps.keep(0, made, Origins(), "loop-1.tif")
    (again,) = kept(tmp_path).done
    assert np.array_equal(samples(again.pictures[0]), values)
    assert again.seams == (seam,)
    head, line = (tmp_path / JOURNAL).read_text().splitlines()
    line = json.dumps({**json.loads(line), "seams": [{"sharpness": 3}]})  # of a version to come
    (tmp_path / JOURNAL).write_text(f"{head}\n{line}\n")
    assert kept(tmp_path).done[0].seams == (None,)


def test_pictures_beside_the_request_belong_to_it(tmp_path: Path) -> None:
    source, gray = noisy_picture(32, 32), noisy_picture(32, 32).convert("L")
    kept(tmp_path, images=(source,), strength_map=gray)
    with pytest.raises(RequestError, match="another sequence"):
        kept(tmp_path, images=(source,), strength_map=gray.rotate(90))


def test_without_its_exact_copy_a_lossy_step_is_painted_again(tmp_path: Path) -> None:
    steps = kept(tmp_path)
    decided = plan(asked(seed=steps.sequence.request.seed), SANE)
    picture = FinishedPicture(noisy_picture(32, 32))
    made = account(decided, ModelIdentity(), [FinishedBatch(decided.batches[0], (picture,))])
    steps.keep(0, made, Origins(), "loop-1.jpg")
    assert kept(tmp_path).done[0].pictures[0].tobytes() == noisy_picture(32, 32).tobytes()
    (tmp_path / EXACT / "loop-1.png").write_bytes(b"cut off")
    assert kept(tmp_path).done == ()
