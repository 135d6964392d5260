"""A folder that a sequence goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overpaint.errors import RequestError
from overpaint.files.keeping import Origins
from overpaint.finish import FinishedPicture
from overpaint.outcome import FinishedBatch, ModelIdentity, account
from overpaint.planning.plan import plan
from overpaint.sequences.kept import JOURNAL, KeptSteps
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
