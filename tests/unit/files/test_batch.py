"""Folder and manifest batches: what becomes a row, and that no end of a process loses or repeats a picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint.errors import PictureError, RequestError, SamplingError, SaveError
from overpaint.events import Control, Stop
from overpaint.files.batch import (
    Batch,
    BatchEvent,
    BatchStopped,
    RowFailed,
    RowPainted,
    RowSkipped,
    run_batch,
)
from overpaint.files.journal import JOURNAL_NAME, Journal
from overpaint.files.metadata import read_infotext, read_recipe
from overpaint.files.rows import BatchRow, UnreadableRow, read_rows
from overpaint.files.saving import save_first_free
from overpaint.parts import Hires, Lora
from overpaint.request import Img2ImgRequest, Picture, Txt2ImgRequest
from overpaint.settings import Settings
from overpaint.stores import AnyFile
from tests.unit.command import adapter
from tests.unit.fake_painter import FakePainter, drawing

ROOT = Path(__file__).resolve().parents[3]


def fill(folder: Path, *names: str) -> Path:
    """A folder of different pictures."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(color=(number, 2 * number, 50)).save(path)
    return folder


def manifest(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in rows), encoding="utf-8")
    return path


def paint_all(
    source: Path, batch: Batch, painter: FakePainter | None = None, control: Control | None = None, **options: Any
) -> list[BatchEvent]:
    rows = read_rows(source, batch.out, **options)
    return list(run_batch(rows, batch, lambda: painter or FakePainter(), control))


def kinds(events: list[BatchEvent]) -> list[str]:
    told = (RowPainted, RowSkipped, RowFailed, BatchStopped)
    return [type(each).__name__ for each in events if isinstance(each, told)]


def contents(folder: AnyFile) -> dict[str, bytes]:
    """All results by name."""
    assert isinstance(folder, Path)
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != JOURNAL_NAME)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


class TestFolders:
    def test_pictures_in_natural_order(self, tmp_path: Path) -> None:  # BATCH-1
        fill(tmp_path, "p10.png", "p2.PNG", "p1.webp", ".hidden.png", "sub/p3.png")
        (tmp_path / "notes.txt").write_text("no picture")
        assert [row.name for row in read_rows(tmp_path, tmp_path / "out")] == ["p1.webp", "p2.PNG", "p10.png"]

    def test_sub_folders_when_asked_but_not_the_output_nor_the_masks(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png", "deep/er/b.png", "out/a.png", "masks/a.png", "masks/b.png")
        rows = read_rows(tmp_path, tmp_path / "out", recursive=True, masks=tmp_path / "masks")
        assert [str(row.output) for row in rows if isinstance(row, BatchRow)] == ["a", "deep/er/b"]

    def test_one_mask_serves_all(self, tmp_path: Path) -> None:  # BATCH-2
        fill(tmp_path / "in", "a.png", "b.png")
        only = fill(tmp_path / "masks", "any.png") / "any.png"
        for masks in (only, only.parent):
            rows = read_rows(tmp_path / "in", tmp_path / "out", masks=masks)
            assert [row.files["mask"] for row in rows if isinstance(row, BatchRow)] == [only, only]

    def test_masks_by_stem_and_none_is_a_failure(self, tmp_path: Path) -> None:  # BATCH-2
        fill(tmp_path / "in", "a.jpg", "b.png", "c/a.png")
        masks = fill(tmp_path / "masks", "a.png", "c/a.webp", "x.png")
        first, missing, deep = read_rows(tmp_path / "in", tmp_path / "out", masks=masks, recursive=True)
        assert isinstance(first, BatchRow) and first.files["mask"] == masks / "a.png"
        assert isinstance(missing, UnreadableRow) and "no mask b.*" in missing.problem
        assert isinstance(deep, BatchRow) and deep.files["mask"] == masks / "c/a.webp"

    def test_a_source_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(PictureError, match="no such folder"):
            read_rows(tmp_path / "nothing", tmp_path / "out")
        with pytest.raises(RequestError, match="masks="):
            read_rows(tmp_path, tmp_path / "out", masks=tmp_path / "nothing")


class TestNewPictures:
    def test_rows_without_a_picture(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png", "sub/b.png")
        source = manifest(
            tmp_path / "rows.jsonl",
            {"prompt": "moon", "width": 64, "height": 48, "hires": {"scale": 1.5}},
            {"prompt": "sun", "output": "x/sun", "controls": ["canny=sub/b.png,weight=0.5"]},
            {"picture": "a.png"},
        )
        painter = FakePainter()
        batch = Batch(out=tmp_path / "out", fields={"seed": 4, "width": 32, "height": 24, "steps": 5})
        assert kinds(paint_all(source, batch, painter)) == ["RowPainted"] * 3
        moon, sun, over = painter.requests
        assert moon == Txt2ImgRequest(prompt="moon", width=64, height=48, hires=Hires(scale=1.5), seed=4, steps=5)
        assert [(each.model, each.weight, each.image.size) for each in sun.controls] == [("canny", 0.5, (32, 24))]
        assert (type(over), over.width) == (Img2ImgRequest, 32)
        assert sorted(contents(batch.out)) == ["a.png", "txt2img-1.png", "x/sun.png"]
        recipe = read_recipe(tmp_path / "out" / "x/sun.png")
        assert recipe is not None
        assert recipe["controls"][0]["path"] == "../../sub/b.png"
        assert kinds(paint_all(source, batch, painter)) == ["RowSkipped"] * 3

    def test_a_changed_control_picture_is_another_row(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png")
        source = manifest(tmp_path / "rows.jsonl", {"prompt": "sun", "controls": ["canny=a.png"]})
        batch = Batch(out=tmp_path / "out", fields={"width": 32, "height": 24})
        assert kinds(paint_all(source, batch)) == ["RowPainted"]
        drawing(color=(9, 9, 9)).save(tmp_path / "a.png")
        assert kinds(paint_all(source, batch)) == ["RowPainted"]

    def test_what_is_asked_of_all_reaches_those_that_can_have_it(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png")
        source = manifest(tmp_path / "rows.jsonl", {"prompt": "sun"}, {"picture": "a.png"})
        painter = FakePainter()
        fields = {"strength": 0.5, "hires": {"scale": 1.5}, "width": 32, "height": 24}
        assert kinds(paint_all(source, Batch(out=tmp_path / "out", fields=fields), painter)) == ["RowPainted"] * 2
        assert painter.requests[0] == Txt2ImgRequest(
            prompt="sun", hires=Hires(scale=1.5), width=32, height=24, seed=painter.requests[0].seed
        )
        assert painter.requests[1].strength == 0.5

    @pytest.mark.parametrize(
        ("row", "fields", "name"),
        [({"picture": "a.png"}, {"hires": {}}, "hires"), ({"prompt": "sun"}, {"strength": 0.5}, "strength")],
    )
    def test_what_none_can_have_is_refused(
        self, tmp_path: Path, row: object, fields: dict[str, Any], name: str
    ) -> None:
        fill(tmp_path, "a.png")
        source = manifest(tmp_path / "rows.jsonl", row)
        with pytest.raises(RequestError) as caught:
            paint_all(source, Batch(out=tmp_path / "out", fields=fields))
        assert caught.value.field == name
        assert not (tmp_path / "out").exists()

    def test_loras_of_rows_and_of_all(self, tmp_path: Path) -> None:
        for name in ("ink", "oil"):
            adapter(name, folder=tmp_path)
        source = manifest(tmp_path / "rows.jsonl", {"prompt": "sun", "loras": ["ink:0.5"]}, {"prompt": "sun"})
        painter = FakePainter()
        fields = {"width": 32, "height": 24, "loras": [{"name": "oil"}]}
        batch = Batch(out=tmp_path / "out", fields=fields, settings=Settings(lora_dir=str(tmp_path)))
        assert kinds(paint_all(source, batch, painter)) == ["RowPainted"] * 2
        assert [each.loras for each in painter.requests] == [(Lora(name="ink", weight=0.5),), (Lora(name="oil"),)]


class TestManifests:
    def test_a_row_is_a_request(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png", "m.png")
        row = {"picture": "a.png", "mask": "m.png", "output": "x/y.png", "prompt": "moon", "strength": 0.4, "seed": 9}
        source = manifest(tmp_path / "rows.jsonl", row, "", {"picture": "a.png"})
        painter = FakePainter()
        batch = Batch(out=tmp_path / "out", fields={"prompt": "sun", "seed": 4, "steps": 7})
        assert kinds(paint_all(source, batch, painter)) == ["RowPainted", "RowPainted"]
        first, second = painter.requests
        assert (first.prompt, first.strength, first.seed, first.steps) == ("moon", 0.4, 9, 7)
        assert first.mask is not None
        assert (second.prompt, second.seed, second.mask) == ("sun", 4, None)
        assert sorted(contents(batch.out)) == ["a.png", "x/y.png"]

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ("{", "not JSON"),
            ("[1]", "one JSON object"),
            ("[" * 100_000, "not JSON"),
            ({}, "picture=None"),
            ({"output": "x"}, "picture=None"),
            ({"mask": "a.png", "prompt": "x"}, "source picture that the mask is for"),
            ({"prompt": "x", "strength": 0.5}, "has no source"),
            ({"picture": "a.png", "hires": {}}, "only a picture painted from noise"),
            ({"prompt": "x", "hires": {"scale": 99}}, "hires.scale=99"),
            ({"prompt": "x", "hires": 2}, "a table of its fields"),
            ({"prompt": "x", "loras": ["ink:heavy"]}, "give NAME"),
            ({"prompt": "x", "loras": "ink"}, "give a list"),
            ({"prompt": "x", "controls": ["canny"]}, "give MODEL=PICTURE"),
            ({"prompt": "x", "controls": ["canny=gone.png"]}, "gone.png"),
            ({"prompt": "x", "controls": [{"model": "canny"}]}, "controls"),
            ({"prompt": "x", "output": "../a"}, "inside the output folder"),
            ({"picture": 3}, "picture=3"),
            ({"picture": "a.png", "output": "../a.png"}, "inside the output folder"),
            ({"picture": "a.png", "output": "/a.png"}, "inside the output folder"),
            ({"picture": "a.png", "output": "c\\..\\..\\a.png"}, "inside the output folder"),
            ({"picture": "a.png", "images": []}, "name its file as picture"),
            ({"picture": "a.png", "strenght": 1}, "did you mean 'strength'"),
            ({"picture": "a.png", "strength": 2}, "from 0 to 1"),
            ({"picture": "gone.png"}, "gone.png"),
            ({"picture": "rows.jsonl"}, "cannot be opened"),
        ],
    )
    def test_a_bad_row_is_told_and_does_not_stop_the_others(self, tmp_path: Path, row: object, problem: str) -> None:
        fill(tmp_path, "a.png")
        source = manifest(tmp_path / "rows.jsonl", row, {"picture": "a.png", "output": "good"})
        events = paint_all(source, Batch(out=tmp_path / "out"))
        assert kinds(events) == ["RowFailed", "RowPainted"]
        failed = next(each for each in events if isinstance(each, RowFailed))
        assert problem in str(failed.error)
        assert list(contents(tmp_path / "out")) == ["good.png"]

    def test_pictures_elsewhere_keep_only_their_names(self, tmp_path: Path) -> None:
        outside = fill(tmp_path, "other/a.png") / "other/a.png"
        here = tmp_path / "here"
        here.mkdir()
        rows = read_rows(manifest(here / "m.jsonl", {"picture": "../other/a.png"}, {"picture": str(outside)}), here)
        assert [str(row.output) for row in rows if isinstance(row, BatchRow)] == ["a", "a"]

    def test_equal_rows_are_two_pictures(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png")
        source = manifest(tmp_path / "rows.jsonl", *[{"picture": "a.png", "seed": 1}] * 2)
        batch = Batch(out=tmp_path / "out")
        assert kinds(paint_all(source, batch)) == ["RowPainted"] * 2
        assert sorted(contents(batch.out)) == ["a-1.png", "a.png"]
        assert kinds(paint_all(source, batch)) == ["RowSkipped"] * 2

    @pytest.mark.parametrize("text", [".", "/", "..", "./", "a/..", "//", "sub/.."])
    def test_a_row_whose_picture_is_a_folder_fails_alone(self, tmp_path: Path, text: str) -> None:
        fill(tmp_path, "a.png")
        rows = manifest(tmp_path / "rows.jsonl", {"picture": text}, {"picture": "a.png"})
        events = paint_all(rows, Batch(out=tmp_path / "out"))
        assert kinds(events) == ["RowFailed", "RowPainted"]
        assert list(contents(tmp_path / "out")) == ["a.png"]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files")
    @pytest.mark.parametrize("field", ["picture", "mask", "latent_mask"])
    @pytest.mark.timeout(30)
    def test_a_row_that_names_a_pipe_or_a_device_fails_alone(self, tmp_path: Path, field: str) -> None:
        fill(tmp_path, "a.png")
        os.mkfifo(tmp_path / "pipe.png")
        odd: list[object] = [{"picture": "a.png", field: each} for each in ("/dev/zero", "pipe.png", "/dev/stdin")]
        rows = manifest(tmp_path / "rows.jsonl", *odd, {"picture": "a.png"})
        events = paint_all(rows, Batch(out=tmp_path / "out"))
        assert kinds(events) == ["RowFailed", "RowFailed", "RowFailed", "RowPainted"]


class TestResults:
    def test_each_carries_infotext_and_recipe(self, tmp_path: Path) -> None:
        fill(tmp_path / "in", "a.png")
        paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 5}))
        text, _ = read_infotext(tmp_path / "out/a.png")
        recipe = read_recipe(tmp_path / "out/a.png")
        assert text is not None and "Seed: 5" in text
        assert recipe is not None and recipe["source"]["path"] == "../in/a.png"

    def test_other_formats_have_the_recipe_beside(self, tmp_path: Path) -> None:
        fill(tmp_path / "in", "a.png")
        batch = Batch(out=tmp_path / "out", format="webp")
        events = paint_all(tmp_path / "in", batch)
        assert sorted(contents(batch.out)) == ["a.webp", "a.webp.overpaint.json"]
        assert [each.files for each in events if isinstance(each, RowPainted)] == [("a.webp",)]
        assert read_recipe(tmp_path / "out" / "a.webp") is not None

    def test_several_pictures_a_row_are_numbered(self, tmp_path: Path) -> None:  # BATCH-3
        fill(tmp_path / "in", "a.png")
        events = paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 5, "iterations": 2}))
        painted = next(each for each in events if isinstance(each, RowPainted))
        assert (painted.files, painted.seeds) == (("a-1.png", "a-2.png"), (5, 6))

    def test_nothing_is_overwritten(self, tmp_path: Path) -> None:  # BATCH-3
        fill(tmp_path / "in", "a.png", "a.jpg")
        theirs = fill(tmp_path / "out", "a.png") / "a.png"
        before = theirs.read_bytes()
        paint_all(tmp_path / "in", Batch(out=tmp_path / "out"))
        assert theirs.read_bytes() == before
        assert sorted(contents(tmp_path / "out")) == ["a-1.png", "a-2.png", "a.png"]

    def test_overwriting_on_request_spares_this_batch(self, tmp_path: Path) -> None:
        fill(tmp_path / "in", "a.png", "a.jpg")
        theirs = fill(tmp_path / "out", "a.png") / "a.png"
        before = theirs.read_bytes()
        paint_all(tmp_path / "in", Batch(out=tmp_path / "out", overwrite=True))
        assert theirs.read_bytes() != before
        assert sorted(contents(tmp_path / "out")) == ["a-1.png", "a.png"]

    def test_one_seed_for_all_and_for_the_next_time(self, tmp_path: Path) -> None:  # BATCH-1
        fill(tmp_path / "in", "a.png", "b.png")
        painter = FakePainter()
        batch = Batch(out=tmp_path / "out")
        paint_all(tmp_path / "in", batch, painter)
        (tmp_path / "out/b.png").unlink()
        paint_all(tmp_path / "in", batch, painter)
        seeds = [each.seed for each in painter.requests]
        assert len(seeds) == 3 and len(set(seeds)) == 1 and seeds[0] != -1

    def test_a_full_disk_ends_the_batch_and_keeps_what_is_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(tmp_path / "in", "a.png", "b.png")

        def full(paths: list[Path], data: bytes, **options: Any) -> Path:
            if paths[0].name == "b.png":
                raise SaveError("b.png: the disk is full")
            return save_first_free(paths, data, **options)

        monkeypatch.setattr("overpaint.files.places.save_first_free", full)
        batch = Batch(out=tmp_path / "out", fields={"seed": 1})
        with pytest.raises(SaveError):
            paint_all(tmp_path / "in", batch)
        assert sorted(contents(batch.out)) == ["a.png"]
        monkeypatch.undo()
        assert kinds(paint_all(tmp_path / "in", batch)) == ["RowSkipped", "RowPainted"]

    def test_a_failing_job_is_told_and_the_next_one_runs(self, tmp_path: Path) -> None:
        def fail_once(step: int) -> None:
            if step == 2:
                raise SamplingError("the network produced NaN")

        fill(tmp_path / "in", "a.png", "b.png")
        batch = Batch(out=tmp_path / "out")
        assert kinds(paint_all(tmp_path / "in", batch, FakePainter(fail_once))) == ["RowFailed", "RowPainted"]
        assert kinds(paint_all(tmp_path / "in", batch)) == ["RowPainted", "RowSkipped"]


class TestGoingOn:
    @pytest.mark.parametrize("recursive", [True, False])
    def test_results_in_the_folder_itself_are_no_sources(self, tmp_path: Path, recursive: bool) -> None:
        fill(tmp_path, "a.png", "sub/b.png")
        batch = Batch(out=tmp_path)
        first = paint_all(tmp_path, batch, recursive=recursive)
        painted = contents(tmp_path)
        assert kinds(first) == ["RowPainted"] * (2 if recursive else 1)
        for _ in range(2):
            assert kinds(paint_all(tmp_path, batch, recursive=recursive)) == ["RowSkipped"] * len(kinds(first))
            assert contents(tmp_path) == painted

    def test_results_of_a_killed_batch_are_no_sources_either(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png")
        paint_all(tmp_path, Batch(out=tmp_path))
        journal = tmp_path / JOURNAL_NAME
        lines = [each for each in journal.read_bytes().splitlines() if b'"done"' not in each]
        journal.write_bytes(b"\n".join(lines) + b'\n{"row": "torn')
        assert kinds(paint_all(tmp_path, Batch(out=tmp_path))) == ["RowSkipped"]

    def test_another_picture_under_the_name_of_a_result_is_a_source(self, tmp_path: Path) -> None:
        fill(tmp_path, "a.png")
        paint_all(tmp_path, Batch(out=tmp_path))
        drawing(color=(9, 99, 9)).save(tmp_path / "a-1.png")
        assert sorted(kinds(paint_all(tmp_path, Batch(out=tmp_path)))) == ["RowPainted", "RowSkipped"]

    def test_a_stop_keeps_what_is_finished_and_the_rest_comes_next_time(self, tmp_path: Path) -> None:
        control = Control()

        def stop(step: int) -> None:
            if step == 8:  # in the second of two pictures of the second row
                control.ask(Stop.CANCEL)

        fill(tmp_path / "in", "a.png", "b.png", "c.png")
        batch = Batch(out=tmp_path / "out", fields={"seed": 3, "iterations": 1})
        assert kinds(paint_all(tmp_path / "in", batch, FakePainter(stop), control)) == [
            *["RowPainted"] * 2,
            "BatchStopped",
        ]
        assert sorted(contents(batch.out)) == ["a.png", "b.png"]
        assert kinds(paint_all(tmp_path / "in", batch)) == ["RowSkipped", "RowSkipped", "RowPainted"]

    def test_the_finished_part_of_a_row_is_kept_and_not_doubled(self, tmp_path: Path) -> None:
        control = Control()
        fill(tmp_path / "in", "a.png")
        batch = Batch(out=tmp_path / "out", fields={"seed": 3, "iterations": 3})
        stop: Callable[[int], None] = lambda step: control.ask(Stop.CANCEL) if step == 5 else None  # noqa: E731
        assert kinds(paint_all(tmp_path / "in", batch, FakePainter(stop), control)) == ["BatchStopped"]
        assert sorted(contents(batch.out)) == ["a-1.png"]
        assert kinds(paint_all(tmp_path / "in", batch)) == ["RowPainted"]
        assert sorted(contents(batch.out)) == ["a-1.png", "a-2.png", "a-3.png"]

    def test_what_changed_is_painted_anew_beside_the_old(self, tmp_path: Path) -> None:
        fill(tmp_path / "in", "a.png", "b.png")
        batch = Batch(out=tmp_path / "out", fields={"seed": 3})
        paint_all(tmp_path / "in", batch)
        drawing(color=(1, 2, 3)).save(tmp_path / "in/a.png")
        assert kinds(paint_all(tmp_path / "in", batch)) == ["RowPainted", "RowSkipped"]
        assert sorted(contents(batch.out)) == ["a-1.png", "a.png", "b.png"]
        others = (
            replace(batch, model="x"),
            replace(batch, settings=Settings.reference()),
            replace(batch, fields={"seed": 4}),
        )
        for other in others:
            assert kinds(paint_all(tmp_path / "in", other)) == ["RowPainted"] * 2

    def test_no_painter_is_made_when_all_is_done(self, tmp_path: Path) -> None:
        fill(tmp_path / "in", "a.png")
        batch = Batch(out=tmp_path / "out")
        paint_all(tmp_path / "in", batch)

        def none() -> FakePainter:
            raise AssertionError("a model was loaded for nothing")

        assert kinds(list(run_batch(read_rows(tmp_path / "in", batch.out), batch, none))) == ["RowSkipped"]

    def test_two_batches_cannot_write_to_one_folder(self, tmp_path: Path) -> None:
        with Journal(tmp_path), pytest.raises(RequestError, match="another batch"), Journal(tmp_path):
            pass

    @pytest.mark.parametrize(
        ("point", "count", "repainted"),
        [
            ("in a step", 5, 2),
            ("before writing", 2, 2),
            ("half a file", 2, 2),
            ("before done", 2, 1),
            ("half a line", 4, 1),
            ("after done", 2, 1),
        ],
    )
    def test_a_killed_process_loses_nothing_and_repeats_nothing(
        self, tmp_path: Path, point: str, count: int, repainted: int
    ) -> None:
        fill(tmp_path / "in", "a.png", "b.png", "c.png")
        paint_all(tmp_path / "in", Batch(out=tmp_path / "whole", fields={"seed": 3}, settings=_quiet()))
        out = tmp_path / "out"
        line = ["batch", str(tmp_path / "in"), str(out), "--seed", "3"]
        command = [sys.executable, "-m", "tests.unit.killed_batch", point, str(count), *line]
        assert subprocess.run(command, check=False, capture_output=True, cwd=ROOT).returncode == -9
        painter = FakePainter()
        batch = Batch(out=out, fields={"seed": 3}, settings=_quiet())
        events = paint_all(tmp_path / "in", batch, painter)
        assert kinds(events).count("RowFailed") == 0
        assert len(painter.requests) == repainted
        assert contents(out) == contents(tmp_path / "whole")


def _quiet() -> Settings:
    """What the command asks of an engine."""
    from overpaint.cli.options import GivenOptions

    return GivenOptions({}).settings()


def test_pictures_of_a_batch_are_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "in", "a.png")
    paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 77}))
    from PIL import Image

    picture: Picture = Image.open(tmp_path / "out/a.png")
    assert picture.getpixel((0, 0)) == (77, 0, 9)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="choose one of png"):
        Batch(out=tmp_path, format="tga")


def test_the_rows_of_the_guide_are_rows(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guides/batch.md").read_text(encoding="utf-8")
    lines = [line for line in guide.splitlines() if line.startswith('    {"picture"')]
    fill(tmp_path, "a.jpg", "b.jpg", "b-mask.png")
    source = manifest(tmp_path / "rows.jsonl", *lines)
    assert kinds(paint_all(source, Batch(out=tmp_path / "out"))) == ["RowPainted"] * 3
    assert sorted(contents(tmp_path / "out")) == ["a.png", "b.png", "doors/blue.png"]


def test_masks_in_words(tmp_path: Path) -> None:
    """Of one row, or of all; what they name counts for what was painted, and a mistake is that row's."""
    fill(tmp_path, "a.png", "b.png")
    Image.new("L", (32, 24), 255).save(tmp_path / "area.png")
    rows = (
        {"picture": "a.png", "mask": "ellipse 2,2,20,20 & file area.png"},
        {"picture": "b.png", "mask": "elipse 2,2,20,20"},
        {"picture": "b.png", "mask": "area.png"},
        {"picture": "b.png"},
    )
    painter, batch = FakePainter(), Batch(out=tmp_path / "out", fields={"steps": 2})
    events = paint_all(manifest(tmp_path / "rows.jsonl", *rows), batch, painter, masks="rectangle 0,0,9,9")
    assert [
        each.problem for each in read_rows(tmp_path / "rows.jsonl", batch.out) if isinstance(each, UnreadableRow)
    ] == ["mask='elipse': did you mean 'ellipse'? (at character 1)"]
    assert len([each for each in events if isinstance(each, RowPainted)]) == 3
    found = [each.mask.getbbox() for each in painter.requests if each.mask is not None]
    assert found == [(2, 2, 20, 20), (0, 0, 32, 24), (0, 0, 9, 9)]
    again = paint_all(tmp_path / "rows.jsonl", batch, FakePainter(), masks="rectangle 0,0,9,9")
    assert len([each for each in again if isinstance(each, RowSkipped)]) == 3
    Image.new("L", (32, 24), 0).save(tmp_path / "area.png")
    again = paint_all(tmp_path / "rows.jsonl", batch, FakePainter(), masks="rectangle 0,0,9,9")
    assert len([each for each in again if isinstance(each, RowSkipped)]) == 1
