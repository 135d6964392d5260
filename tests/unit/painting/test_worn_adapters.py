"""What a model wears for a batch: what is said of it, what its key is, and files that are read once."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from overpaint.adapters.lora import LoraFile
from overpaint.adapters.wanted import HypernetUse, LoraUse
from overpaint.adapters.wear import WornLora
from overpaint.errors import CheckpointError
from overpaint.models.catalog import ModelFile
from overpaint.models.families import SD1_SPEC
from overpaint.painting import worn_adapters
from overpaint.painting.worn_adapters import FILES_KEPT, Adapters, AdaptersInPlace, ModelAdapters, _Files
from overpaint.planning.plans import NetworkPlan
from overpaint.settings import Quirks, Settings


def file_of(name: str, folder: Path = Path("/nowhere")) -> ModelFile:
    return ModelFile(folder / f"{name}.safetensors", name, name)


def lora(name: str = "red", **given: Any) -> LoraFile:
    made = {"hash12": f"{name}-hash", "layers": {}, "unmatched": (), "embeddings": {}, **given}
    return LoraFile(file=file_of(name), **made)


class ToyBackend:
    """Keeps what it is asked to wear; every LoRA leaves out two layers."""

    def __init__(self, adapters: bool = True) -> None:
        self.device = torch.device("cpu")
        self.abilities = SimpleNamespace(adapters=adapters)
        self.asked: list[tuple[Any, ...]] = []

    def wear(self, loras: Any, hypernets: Any, quirks: Quirks, *, functional: bool) -> tuple[int, ...]:
        self.asked.append((loras, hypernets, quirks, functional))
        return (2,) * len(loras)


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read; one named "broken" cannot be."""
    reads: list[str] = []

    def read(file: ModelFile, spec: Any, quirks: Quirks) -> LoraFile:
        reads.append(file.name)
        if file.name == "broken":
            raise CheckpointError("broken: it is no LoRA")
        return lora(file.name)

    monkeypatch.setattr(worn_adapters, "read_lora", read)
    monkeypatch.setattr(worn_adapters, "read_hypernet", lambda path: path.stem)
    for name in ("red", "blue", "broken", "waves"):
        file_of(name, tmp_path).path.write_text(name)
    return reads


@pytest.fixture
def adapters() -> ModelAdapters:
    return ModelAdapters(SimpleNamespace(spec=SD1_SPEC))  # type: ignore[arg-type]


def wanted(folder: Path, *names: str, **given: Any) -> list[NetworkPlan]:
    return [NetworkPlan(file_of(name, folder), LoraUse(name, **given)) for name in names]


def test_without_adapters_how_they_are_applied_does_not_matter() -> None:
    assert Adapters().key is None
    assert Adapters(functional=True, quirks=Quirks.reference()).key is None
    file = lora()
    red, again = (Adapters((WornLora(file, 0.5),)) for _ in range(2))
    assert red.key == again.key is not None
    assert red.key != Adapters((WornLora(file, 0.6),)).key
    assert red.key != Adapters((WornLora(file, 0.5),), functional=True).key


def test_what_is_said() -> None:  # LORA-6, LORA-10
    worn = AdaptersInPlace(
        (("r:e,d", lora(unmatched=("x.alpha", "y.alpha"))), ("blue", lora("blue"))), {"red": 3, "blue": 0}
    )
    assert worn.hashes == {"red": "red-hash", "blue": "blue-hash"}
    assert worn.comments() == ("Networks with errors: red (3)",)
    (warning,) = worn.warnings()
    assert "2 of its keys name no layer" in warning and "x.alpha" in warning
    bare = AdaptersInPlace()
    assert (bare.hashes, bare.comments(), bare.warnings(), bare.embeddings(Settings())) == ({}, (), (), ())


def test_exactly_what_is_wanted_is_put_on(adapters: ModelAdapters, reads: list[str], tmp_path: Path) -> None:
    backend: Any = ToyBackend()
    networks = [
        *wanted(tmp_path, "red", "blue", unet=0.3),
        NetworkPlan(file_of("waves", tmp_path), HypernetUse("waves", 0.7)),
    ]
    worn = adapters.wear(backend, networks, Settings(lora_functional=True))
    loras, hypernets, _, functional = backend.asked[-1]
    assert [(each.file.file.name, each.unet) for each in loras] == [("red", 0.3), ("blue", 0.3)]
    assert (hypernets, functional) == ((("waves", 0.7),), True)
    assert worn.misfits == {"red": 2, "blue": 2}
    again = adapters.wear(backend, networks, Settings(lora_functional=True))
    assert again.adapters.key == worn.adapters.key
    assert reads == ["red", "blue"]
    assert adapters.wear(backend, networks[1:], Settings(lora_functional=True)).adapters.key != worn.adapters.key
    adapters.wear(backend, (), Settings())
    assert backend.asked[-1][:2] == ((), ())


def test_a_changed_file_is_read_again(adapters: ModelAdapters, reads: list[str], tmp_path: Path) -> None:
    backend: Any = ToyBackend()
    before = adapters.wear(backend, wanted(tmp_path, "red"), Settings())
    path = file_of("red", tmp_path).path
    path.write_text("another")
    os.utime(path, (1, 1))
    assert adapters.wear(backend, wanted(tmp_path, "red"), Settings()).adapters.key != before.adapters.key
    assert reads == ["red", "red"]


def test_a_file_that_cannot_be_read(adapters: ModelAdapters, reads: list[str], tmp_path: Path) -> None:  # LORA-4
    backend: Any = ToyBackend()
    networks = wanted(tmp_path, "red", "broken")
    with pytest.raises(CheckpointError, match="broken"):
        adapters.wear(backend, networks, Settings())
    assert backend.asked == []
    for worn in (
        adapters.wear(backend, networks, Settings(), forgiving=True),
        adapters.wear(backend, networks, Settings.reference()),
    ):
        assert list(worn.hashes) == ["red"]


def test_a_device_that_takes_none(adapters: ModelAdapters, reads: list[str], tmp_path: Path) -> None:
    backend: Any = ToyBackend(adapters=False)
    with pytest.raises(CheckpointError, match="red: models on cpu take no adapters; leave it out"):
        adapters.wear(backend, wanted(tmp_path, "red"), Settings())
    adapters.wear(backend, (), Settings())
    assert reads == [] and len(backend.asked) == 1


def test_the_latest_files_are_kept(tmp_path: Path) -> None:
    files, reads = _Files[str](), list[str]()

    def read(path: Path) -> str:
        reads.append(path.name)
        return path.name

    paths = [tmp_path / f"{number}" for number in range(FILES_KEPT + 1)]
    for path in paths:
        path.touch()
        files.get(path, read)
    files.get(paths[1], read)  # used last, so it outlives the next one
    files.get(paths[0], read)
    files.get(paths[1], read)
    assert reads == [*(path.name for path in paths), "0"]
    files.get(paths[1], read, "in another manner")
    assert reads[-1] == "1"
