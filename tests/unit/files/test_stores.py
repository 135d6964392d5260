"""Batches in object stores: what a folder's batch does, by names that are URLs. Memory is the store here; S3 is spoken
to by `tests/unit/test_s3.py`."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec")

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from overpaint import stores
from overpaint.cli import main
from overpaint.cluster.handing_out import HandingOut
from overpaint.cluster.node_painter import NodePainter
from overpaint.cluster.port import BatchOrder, PainterReady, PoolNews, RowGroup
from overpaint.errors import PictureError, RequestError, SaveError
from overpaint.events import Control
from overpaint.files.batch import Batch, BatchEvent, RowFailed, RowPainted, RowPlanned, look_at_batch, run_batch
from overpaint.files.ledgers import ledger_of
from overpaint.files.listed_rows import ListedRows, rows_of
from overpaint.files.metadata import read_recipe
from overpaint.files.places import StorePlace
from overpaint.files.rows import BatchRow, UnreadableRow
from overpaint.files.shards import Shard
from overpaint.files.store_ledger import StoreLedger
from overpaint.stores import AnyFile, StoreFile, file_named
from overpaint.version import __version__
from tests.unit.cluster.test_node_painter import opened
from tests.unit.fake_painter import FakePainter
from tests.unit.files.test_batch import contents, fill, kinds, paint_all

TOP = "memory://bucket"


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryFileSystem]:
    """Empty before, and afterwards."""
    fs = fsspec.filesystem("memory", use_listings_cache=False)
    for each in (fs.store, fs.pseudo_dirs):
        each.clear()
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def place(name: str) -> StoreFile:
    found = file_named(f"{TOP}/{name}")
    assert isinstance(found, StoreFile)
    return found


def upload(fs: MemoryFileSystem, folder: Path, name: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fs.pipe_file(f"/bucket/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def stored(fs: MemoryFileSystem, name: str) -> dict[str, bytes]:
    """The results of a batch."""
    start = len(f"/bucket/{name}/")
    return {path[start:]: fs.cat_file(path) for path in fs.find(f"/bucket/{name}") if ".overpaint-batch" not in path}


def paint(source: AnyFile, batch: Batch, painter: FakePainter | None = None, **options: Any) -> list[BatchEvent]:
    return list(run_batch(rows_of(source, batch.out, **options), batch, lambda: painter or FakePainter()))


class TestWhatAFolderDoes:
    def test_the_same_names_and_bytes(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        """Equal stems, names that numbering makes, and sub-folders included; in shards, too."""
        fill(tmp_path / "in", "a.png", "a.jpg", "a-1.png", "b-2.png", "sub/c.png", "sub/c-1.webp")
        upload(memory, tmp_path / "in", "in")
        paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 3}), recursive=True)
        whole = contents(tmp_path / "out")
        batch = Batch(out=place("out"), fields={"seed": 3})
        assert kinds(paint(place("in"), batch, recursive=True)) == ["RowPainted"] * 6
        assert stored(memory, "out") == whole
        for number in (1, 0):
            paint(place("in"), Batch(out=place("parts"), fields={"seed": 3}, shard=Shard(number, 2)), recursive=True)
        assert stored(memory, "parts") == whole
        painter = FakePainter()
        for out in ("out", "parts"):
            again = Batch(out=place(out), fields={"seed": 3})
            assert set(kinds(paint(place("in"), again, painter, recursive=True))) == {"RowSkipped"}
        assert not painter.requests

    def test_masks_manifests_and_recipes(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        fill(tmp_path / "in", "a.png", "b.png")
        fill(tmp_path / "masks", "a.png", "b.png")
        upload(memory, tmp_path / "in", "in")
        upload(memory, tmp_path / "masks", "masks")
        paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 3}), masks=tmp_path / "masks")
        paint(place("in"), Batch(out=place("out"), fields={"seed": 3}), masks=place("masks"))
        assert stored(memory, "out") == contents(tmp_path / "out")
        recipe = read_recipe(memory.cat_file("/bucket/out/a.png"))
        assert recipe is not None and recipe["source"]["path"] == "../in/a.png"
        # By a manifest there, and from one on disk that names files there.
        lines = [json.dumps({"picture": "in/a.png", "mask": "masks/a.png", "output": "x"}), '{"picture": "in/b.p']
        memory.pipe_file("/bucket/rows.jsonl", "\n".join(lines).encode())
        rows = rows_of(place("rows.jsonl"), place("out"))
        assert [type(each) for each in rows] == [BatchRow, UnreadableRow]
        assert kinds(list(run_batch(rows, Batch(out=place("out")), FakePainter))) == ["RowPainted", "RowFailed"]
        (tmp_path / "rows.csv").write_text(f"picture,strength\n{TOP}/in/a.png,0.5\n{TOP}/in/gone.png,0.5\n", "utf-8")
        events = paint(tmp_path / "rows.csv", Batch(out=tmp_path / "local", fields={"seed": 3}))
        assert kinds(events) == ["RowPainted", "RowFailed"] and sorted(contents(tmp_path / "local")) == ["a.png"]
        memory.pipe_file("/bucket/rows.csv", b"picture,strength\nin/a.png,0.5\nin/b.png")
        assert kinds(paint(place("rows.csv"), Batch(out=place("csv")))) == ["RowPainted", "RowFailed"]

    def test_a_manifest_in_parquet(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        with memory.open("/bucket/rows.parquet", "wb") as file:
            parquet.write_table(arrow.table({"picture": ["in/a.png"], "seed": [7]}), file)
        [painted] = paint(place("rows.parquet"), Batch(out=place("out")))[-1:]
        assert isinstance(painted, RowPainted) and painted.seeds == (7,)
        memory.pipe_file("/bucket/torn.parquet", memory.cat_file("/bucket/rows.parquet")[:-9])
        with pytest.raises(PictureError, match="cannot be read as Parquet"):
            rows_of(place("torn.parquet"), place("out"))

    def test_changed_and_deleted_files_are_painted_again(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        fill(tmp_path / "in", "a.png", "b.png", "c.png")
        upload(memory, tmp_path / "in", "in")
        batch = Batch(out=place("out"))
        seeds = {each.seeds for each in paint(place("in"), batch) if isinstance(each, RowPainted)}
        assert len(seeds) == 1  # chosen once, and kept
        memory.rm_file("/bucket/out/b.png")
        memory.pipe_file("/bucket/in/c.png", memory.cat_file("/bucket/in/a.png"))
        planned = [
            each.files for each in look_at_batch(rows_of(place("in"), batch.out), batch) if isinstance(each, RowPlanned)
        ]
        assert planned == [("b.png",), ("c-1.png",)]
        painted = [each for each in paint(place("in"), batch) if isinstance(each, RowPainted)]
        assert [each.files for each in painted] == planned and {each.seeds for each in painted} == seeds

    def test_what_others_own_stays(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        memory.pipe_file("/bucket/out/a.png", b"somebody's")
        paint(place("in"), Batch(out=place("out")))
        assert memory.cat_file("/bucket/out/a.png") == b"somebody's" and memory.exists("/bucket/out/a-1.png")

    def test_a_dry_run_writes_nothing(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        assert main(["batch", f"{TOP}/in", f"{TOP}/out", "--dry-run"]) == 0
        assert not memory.exists("/bucket/out")


class TestWhoIsFirst:
    def test_a_name_that_is_taken_in_the_same_moment(
        self, tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another batch creates the file after this one has seen that the name was free."""
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        create = StorePlace.create

        def late(self: StorePlace, name: str, data: bytes) -> bool:
            if name == "a.png":
                memory.pipe_file("/bucket/out/a.png", b"somebody's")
            return create(self, name, data)

        monkeypatch.setattr(StorePlace, "create", late)
        events = paint(place("in"), Batch(out=place("out")))
        assert [each.files for each in events if isinstance(each, RowPainted)] == [("a-1.png",)]
        assert memory.cat_file("/bucket/out/a.png") == b"somebody's"

    def test_two_painters_of_one_row_make_one_file(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        """As when a machine was thought to be lost, and was only slow."""
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        batch = Batch(out=place("out"), fields={"seed": 3})

        def meanwhile(step: int) -> None:
            if step == 2:
                paint(place("in"), batch)

        events = paint(place("in"), batch, FakePainter(meanwhile))
        assert [each.files for each in events if isinstance(each, RowPainted)] == [("a.png",)]
        assert list(stored(memory, "out")) == ["a.png"]

    def test_a_store_that_cannot_refuse(
        self, tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is asked before; nothing that is there is lost."""

        def lenient(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
            self.open(path, "wb", data=value)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", lenient)
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        memory.pipe_file("/bucket/out/a.png", b"somebody's")
        with ledger_of(place("out")) as ledger:
            assert isinstance(ledger.place, StorePlace) and not ledger.place.is_strict
            assert not ledger.place.create("a.png", b"mine")
        paint(place("in"), Batch(out=place("out")))
        assert memory.cat_file("/bucket/out/a.png") == b"somebody's" and memory.exists("/bucket/out/a-1.png")


class TestLedger:
    def test_lines_become_few_and_say_the_same(self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.files.store_ledger._CHUNK", 5)
        with ledger_of(place("out"), worker="a") as one, ledger_of(place("out"), worker="b") as two:
            for number in range(12):
                for name, ledger in (("a", one), ("b", two)):
                    ledger.promise(f"{name}{number}", "row", {f"{name}{number}.png": "0"})
                    ledger.place.create(f"{name}{number}.png", b"1")
                    ledger.done(f"{name}{number}")
            two.read_others()
            assert all(two.whole(f"a{number}") for number in range(12))
        with ledger_of(place("out")) as leader:
            assert all(leader.whole(f"{name}{number}") for name in "ab" for number in range(12))
            assert len(memory.find("/bucket/out/.overpaint-batch/lines")) < 12
            assert leader.owner("b3.png") == "b3"

    def test_what_vanishes_while_it_is_read_is_found_again(
        self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody puts lines together between the listing and the reading."""
        with ledger_of(place("out"), worker="a") as worker:
            worker.promise("x", "row", {"x.png": "0"})
            worker.promise("y", "row", {"y.png": "0"})
            listed = StoreLedger._listed

            def meanwhile(self: StoreLedger) -> Iterator[str]:
                found = list(listed(self))
                worker.__exit__(None, None, None)
                return iter(found)

            reader = StoreLedger(place("out"))
            monkeypatch.setattr(StoreLedger, "_listed", meanwhile)
            reader.read_others()
        assert reader.entry("x") is not None and reader.entry("y") is not None

    def test_many_results_are_seen_by_one_listing(
        self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ledger_of(place("out")) as ledger:
            for number in range(120):
                ledger.promise(f"k{number}", "row", {f"{number}.png": "0"})
                ledger.place.create(f"{number}.png", b"1")
                ledger.done(f"k{number}")
        memory.rm_file("/bucket/out/7.png")
        with ledger_of(place("out")) as ledger:
            monkeypatch.setattr(StoreFile, "about", lambda self: pytest.fail("asked for one"))
            assert [number for number in range(120) if not ledger.whole(f"k{number}")] == [7]


class LazyStore(AbstractFileSystem):  # type: ignore[misc]
    """Lists its folders only when they are asked for, and has as many as are wanted."""

    protocol = "lazy"
    folders, files_each = 0, 500

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.partition("://")[2] if "://" in path else path

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        raise FileNotFoundError(path)

    def walk(self, path: str, **options: Any) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        for folder in range(self.folders):
            names = (f"p{number}.png" for number in range(self.files_each))
            yield f"{path}/{folder:05}", {}, {name: {"type": "file", "size": 9, "ETag": name} for name in names}


def listed_memory(monkeypatch: pytest.MonkeyPatch, folders: int) -> tuple[int, int]:
    """(rows that are given, the most bytes that it took)"""
    monkeypatch.setattr(LazyStore, "folders", folders)
    monkeypatch.setattr(stores, "opened_store", lambda place: (LazyStore(), place.path))
    source, out = StoreFile("lazy://bucket"), StoreFile("memory://out")
    tracemalloc.start()
    try:
        rows = ListedRows(source, out, recursive=True)
        count = sum(1 for _ in rows)
        assert len(rows) == count
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestListings:
    def test_a_listing_is_streamed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is held of a picture is some bytes, not its row."""
        few, little = listed_memory(monkeypatch, 1)
        many, much = listed_memory(monkeypatch, 6)
        assert (few, many) == (500, 3000) and (much - little) / (many - few) < 60

    @pytest.mark.long
    @pytest.mark.timeout(1800)
    def test_a_million_pictures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        count, peak = listed_memory(monkeypatch, 2000)
        assert count == 1_000_000 and peak < 100 << 20

    def test_rows_are_handed_out_while_they_are_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing paints here: it is looked at how far the listing was read."""
        monkeypatch.setattr(stores, "opened_store", lambda place: (LazyStore(), place.path))
        monkeypatch.setattr(LazyStore, "folders", 8)
        monkeypatch.setattr("overpaint.cluster.handing_out._AHEAD", 50)
        row_of, made = ListedRows._row, list[int]()

        def counted(self: ListedRows, number: int, *rest: Any) -> BatchRow | UnreadableRow:
            made.append(number)
            return row_of(self, number, *rest)

        monkeypatch.setattr(ListedRows, "_row", counted)
        given: list[RowGroup] = []

        class Pool:
            def give(self, painter: str, groups: Any, *, again: bool) -> None:
                given.extend(groups)
                raise RuntimeError("enough")

            def news(self, seconds: float) -> list[PoolNews]:
                return [PainterReady("one", "here")]

            def replace(self, painter: str) -> None: ...

            def stop(self) -> None: ...

        rows = ListedRows(StoreFile("lazy://bucket"), StoreFile("memory://out"), recursive=True)
        with pytest.raises(RuntimeError, match="enough"):
            list(HandingOut(rows, Pool()).events(Control()))
        assert given and len(rows) == 4000 and len(made) == 50

    def test_names_that_lead_elsewhere(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        fill(tmp_path, "a.png")
        for key in ("in/../../x.png", "in/sub/..\\..\\y.png", "in/.hidden.png", "in/a.png"):
            memory.store[f"/bucket/{key}"] = memory._open(f"/bucket/{key}", "wb")
            memory.store[f"/bucket/{key}"].write((tmp_path / "a.png").read_bytes())
        rows = list(rows_of(place("in"), tmp_path / "out", recursive=True))
        assert {each.name for each in rows if isinstance(each, BatchRow)} == {"a.png"}
        assert all("no result can have this name" in each.problem for each in rows if isinstance(each, UnreadableRow))


def test_a_painter_on_some_machine(tmp_path: Path, memory: MemoryFileSystem) -> None:
    """It needs no folder that the others have, and is given names, not pictures."""
    fill(tmp_path / "in", "a.png", "b.png")
    upload(memory, tmp_path / "in", "in")
    paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 3}))
    batch = Batch(out=place("out"), fields={"seed": 3})
    opener = partial(opened, FakePainter())
    groups = [list(each) for each in ListedRows(place("in"), place("out")).groups()]
    given = pickle.dumps(groups)
    assert len(given) < 2000
    before = Path.cwd()
    for is_in_stores, told in ((False, "has no such folder"), (True, "")):
        order = BatchOrder(batch, opener, tmp_path / "gone", is_in_stores=is_in_stores)
        painter = NodePainter("one")
        try:
            assert told in painter.start(order, __version__)
            if is_in_stores:
                done = painter.paint(pickle.loads(given), False)
                assert [each.state for each in done.rows] == ["painted", "painted"]
        finally:
            painter.close()
            os.chdir(before)
    assert stored(memory, "out") == contents(tmp_path / "out")


class TestBadInput:
    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("ftp://host/in", "it is of no store that is known"),
            ("simplecache::s3://bucket/in", "it is of no store that is known"),
            ("s3://", "name a bucket"),
            ("file://elsewhere/in", "three slashes"),
        ],
    )
    def test_urls_that_cannot_be_used(self, url: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
        for line in ([url, f"{TOP}/out"], [f"{TOP}/in", url]):
            assert main(["batch", *line]) == 2
            said = capsys.readouterr().err
            assert told in said and said.count("\n") <= 2

    @pytest.mark.parametrize(
        "url",
        ["s3://key:hush@bucket/in", "s3://hush@bucket/in", "az://box/in?sig=hush&sv=1", "abfss://box:hush@account/in"],
    )
    def test_secrets_in_a_url(self, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Refused with the remedy, and not repeated."""
        assert main(["batch", url, f"{TOP}/out"]) == 2
        told = capsys.readouterr().err
        assert "in the environment" in told and "hush" not in told
        (tmp_path / "rows.jsonl").write_text(json.dumps({"picture": url}), "utf-8")
        [row] = rows_of(tmp_path / "rows.jsonl", tmp_path / "out")
        assert isinstance(row, UnreadableRow) and "in the environment" in row.problem and "hush" not in row.problem

    def test_packages_that_are_missing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for missing, told in (("fsspec", "pip install 'overpaint[stores]'"), ("s3fs", "pip install s3fs")):
            monkeypatch.setattr(stores, "find_spec", lambda name, missing=missing: None if name == missing else name)
            assert main(["batch", "s3://bucket/in", "out"]) == 2
            assert told in capsys.readouterr().err

    def test_nothing_there(self, memory: MemoryFileSystem) -> None:
        with pytest.raises(PictureError, match="no such"):
            rows_of(place("gone"), place("out"))
        with pytest.raises(RequestError, match="this is SOURCE"):
            rows_of(place("in"), place("in"))

    def test_the_output_inside_the_source_is_no_source(self, tmp_path: Path, memory: MemoryFileSystem) -> None:
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")
        for _ in range(2):
            paint(place("in"), Batch(out=place("in/out")), recursive=True)
        assert sorted(stored(memory, "in")) == ["a.png", "out/a.png"]

    def test_no_rights(self, tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        """Said before anything is painted; and what cannot be read is that row's."""
        fill(tmp_path / "in", "a.png")
        upload(memory, tmp_path / "in", "in")

        def refuse(*values: object, **named: object) -> None:
            raise PermissionError("Access Denied, AWSAccessKeyId=hush")

        painter = FakePainter()
        with monkeypatch.context() as patched:
            patched.setattr(MemoryFileSystem, "pipe_file", refuse)
            with pytest.raises(SaveError, match="no rights there") as told:
                paint(place("in"), Batch(out=place("out")), painter)
        assert "environment" in str(told.value) and "hush" not in str(told.value) and not painter.requests
        rows = rows_of(place("in"), place("out"))
        monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
        [failed] = run_batch(rows, Batch(out=place("out"), fields={"seed": 1}), lambda: painter)
        assert isinstance(failed, RowFailed) and "no rights there" in str(failed.error)

    def test_without_fsspec_nothing_of_it_is_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(tmp_path / "in", "a.png")
        imported = builtins.__import__

        def without(name: str, *values: Any, **named: Any) -> Any:
            assert not name.startswith(("fsspec", "s3fs"))
            return imported(name, *values, **named)

        monkeypatch.setattr(builtins, "__import__", without)
        monkeypatch.setattr(stores, "import_module", lambda name: pytest.fail(name))
        assert kinds(paint(tmp_path / "in", Batch(out=tmp_path / "out"))) == ["RowPainted"]
