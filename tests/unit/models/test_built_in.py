"""The models that come with the package, and those grown from one by a delta: made up here, so that none is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overpaint.cli import main
from overpaint.errors import CheckpointError
from overpaint.models import built_in
from overpaint.models.built_in import built_in_files, built_in_names, built_in_path, default_path, grown
from overpaint.models.detect import detect
from overpaint.models.find import find_checkpoint, find_refiner
from overpaint.models.hashes import sha256_of
from overpaint.models.header import safetensors_bytes, safetensors_shapes
from overpaint.settings import Settings
from tests.tiny import make_tiny_checkpoint

GROWN = "overpaint-mini-inpainting"
UNET = "model.diffusion_model."
FIRST, LINEAR, CONV = (
    "input_blocks.0.0",
    "input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "middle_block.0.in_layers.2",
)
Tensors = dict[str, NDArray[Any]]


def base() -> Tensors:
    rng = np.random.default_rng(0)
    shapes = {FIRST: (8, 4, 3, 3), LINEAR: (6, 5), CONV: (7, 8, 3, 3)}
    return {f"{name}.weight": rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def factors(layer: str, up: tuple[int, ...], down: tuple[int, ...]) -> Tensors:
    rng = np.random.default_rng(1)
    shapes = {"lora_up": up, "lora_down": down}
    return {f"{layer}.{name}.weight": rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def test_factors_are_multiplied_and_added() -> None:
    delta = {**factors(LINEAR, (6, 2), (2, 5)), **factors(CONV, (7, 3, 1, 1), (3, 8, 3, 3))}
    result = grown(base(), delta)
    up, down = (delta[f"{LINEAR}.lora_{part}.weight"].astype(np.float64) for part in ("up", "down"))
    assert np.array_equal(result[f"{LINEAR}.weight"], (base()[f"{LINEAR}.weight"] + up @ down).astype(np.float16))
    up, down = (delta[f"{CONV}.lora_{part}.weight"].astype(np.float64) for part in ("up", "down"))
    added = np.einsum("orxy,rihw->oihw", up, down)
    assert np.allclose(result[f"{CONV}.weight"], base()[f"{CONV}.weight"] + added, atol=0.02)
    assert np.array_equal(result[f"{FIRST}.weight"], base()[f"{FIRST}.weight"])
    assert {each.dtype for each in result.values()} == {np.dtype(np.float16)}


def test_whole_tensors_take_the_place() -> None:
    wide = np.ones((8, 9, 3, 3), dtype=np.float32)
    result = grown(base(), {f"{FIRST}.weight": wide})
    assert result[f"{FIRST}.weight"].shape == (8, 9, 3, 3)
    assert result[f"{FIRST}.weight"].dtype == np.float16


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        (factors("nothing", (6, 2), (2, 5)), "nothing.weight: the model that this should change does not have it"),
        ({"other.weight": np.ones(2, np.float16)}, "other.weight: the model"),
        ({f"{LINEAR}.lora_up.weight": np.ones((6, 2), np.float16)}, "lora_down.weight: one of two factors is missing"),
        (factors(LINEAR, (6, 2), (2, 4)), "do not make"),
    ],
)
def test_a_delta_for_another_model(delta: Tensors, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        grown(base(), delta)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose model is the tests' small one, with the delta of one sibling."""
    data = tmp_path / "data"
    checkpoint = make_tiny_checkpoint(data / "overpaint-mini.safetensors")
    shapes, _ = safetensors_shapes(checkpoint)
    first = shapes[f"{UNET}{FIRST}.weight"]
    wide = np.zeros((first[0], 9, *first[2:]), dtype=np.float16)
    delta = {f"{UNET}{FIRST}.weight": wide}
    title = {"modelspec.title": "with a hole"}
    (data / f"{GROWN}.delta.safetensors").write_bytes(safetensors_bytes(delta, title))
    (data / "words.txt").write_text("a the", encoding="utf-8")
    monkeypatch.setattr(built_in, "DATA", data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return data


def test_what_is_not_shipped_is_not_listed(tmp_path: Path) -> None:
    assert built_in_names(tmp_path) == ("overpaint-mini",)
    (tmp_path / "overpaint-mini-edit.delta.safetensors").write_bytes(b"")
    assert built_in_names(tmp_path) == ("overpaint-mini", "overpaint-mini-edit")


def test_a_sibling_is_written_once(shipped: Path, tmp_path: Path) -> None:
    path = built_in_path(GROWN, shipped, tmp_path / "kept")
    assert path.name == f"{GROWN}.safetensors"
    before = path.stat()
    assert built_in_path(GROWN, shipped, tmp_path / "kept") == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert built_in_path(GROWN, shipped, tmp_path / "elsewhere").read_bytes() == path.read_bytes()
    shapes, metadata = safetensors_shapes(path)
    spec = detect(shapes, metadata)
    assert (spec.conditioning, spec.unet.in_channels, metadata["modelspec.title"]) == ("inpaint", 9, "with a hole")
    make_tiny_checkpoint(shipped / "overpaint-mini.safetensors", seed=1)  # an upgrade
    assert built_in_path(GROWN, shipped, tmp_path / "kept") != path


def test_a_cache_that_cannot_be_written(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=f"{GROWN}: it is made from"):
        built_in_path(GROWN, shipped, tmp_path / "file")


def test_siblings_are_found_by_name_and_listed(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_checkpoint(GROWN, Settings())
    assert found.name == f"{GROWN}.safetensors"
    assert find_refiner(GROWN, Settings()) == found
    assert main(["models", "--json"]) == 0
    models = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert set(models) >= {"overpaint-mini", GROWN}
    assert models[GROWN]["family"] == "Stable Diffusion 1 inpainting"
    assert main(["info", GROWN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_channels"] == 9


class TestTheShippedModel:
    def test_it_is_the_default_by_every_name(self) -> None:
        path = default_path()
        assert find_checkpoint(None, Settings()) == path
        digest = sha256_of(path)
        names = ("overpaint-mini", "overpaint-mini.safetensors", f"overpaint-mini [{digest[:10]}]", digest[:10])
        for name in names:
            assert find_checkpoint(name, Settings()) == path, name
        listed = built_in_files()[0]
        assert (listed.title, listed.sha256) == (f"overpaint-mini.safetensors [{digest[:10]}]", digest)

    def test_a_file_of_that_name_in_the_users_folder_comes_first(self, tmp_path: Path) -> None:
        own = tmp_path / "overpaint-mini.safetensors"
        own.write_bytes(b"own")
        assert find_checkpoint("overpaint-mini", Settings(models_dir=str(tmp_path))) == own
        assert find_checkpoint(None, Settings(models_dir=str(tmp_path))) == default_path()

    def test_its_header_says_what_it_is(self) -> None:
        shapes, metadata = safetensors_shapes(default_path())
        spec = detect(shapes, metadata)
        assert (spec.family, spec.prediction, spec.native_size) == ("sd1", "eps", 128)
        assert spec.facts["native_size"] == spec.facts["heads"] == "metadata"
        assert metadata["modelspec.license"] == "Apache-2.0"

    def test_info_knows_its_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", "overpaint-mini"]) == 0
        assert "Stable Diffusion 1" in capsys.readouterr().out

    def test_an_unknown_name_is_told_what_there_is(self) -> None:
        with pytest.raises(CheckpointError, match="built in: overpaint-mini"):
            find_checkpoint("overpaint-maxi", Settings())
