"""Recipes: everything that paints a picture again, and nothing that a stranger's file could abuse."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from overpaint.errors import PictureError, RequestError
from overpaint.events import Finished
from overpaint.files import kept_files
from overpaint.files.keeping import Origins, Target, save_painted
from overpaint.files.kept_files import FileRecord, file_sha256, find_file, open_kept
from overpaint.files.metadata import read_recipe
from overpaint.files.recipe import (
    PAINTING_OPTIONS,
    JobFiles,
    Recipe,
    changed_networks,
    networks_of,
    recipe_of,
    versions,
)
from overpaint.models.hashes import network_hash
from overpaint.outcome import Processed
from overpaint.parts import ControlUnit, Hires, Lora, SoftInpainting
from overpaint.planning.plans import Surroundings
from overpaint.request import PICTURE_FIELDS, Img2ImgRequest, PaintRequest, ResizeMode, Txt2ImgRequest
from overpaint.settings import OPTION_NAMES, Quirks, Settings
from tests.unit.fake_painter import FakePainter, drawing


def painted(settings: Settings | None = None, **fields: Any) -> Processed:
    return run(Img2ImgRequest(images=(drawing(),), **{"seed": 11, **fields}), settings)


def new(settings: Settings | None = None, **fields: Any) -> Processed:
    return run(Txt2ImgRequest(**{"seed": 11, "width": 32, "height": 24, **fields}), settings)


def run(request: PaintRequest, settings: Settings | None = None) -> Processed:
    *_, last = FakePainter().run(request, settings)
    assert isinstance(last, Finished)
    return last.result


def through_json(recipe: Recipe) -> Recipe:
    return Recipe.from_json(json.loads(json.dumps(recipe.to_json())))


def mask() -> Image.Image:
    picture = Image.new("L", (32, 24))
    picture.paste(200, (4, 4, 20, 16))
    return picture


class TestWhatIsKept:
    def test_every_field_of_the_request(self) -> None:
        fields: dict[str, Any] = {
            "prompt": "a moon",
            "negative_prompt": "sun",
            "strength": 0.4,
            "resize_mode": ResizeMode.CROP,
            "width": 40,
            "mask": mask(),
            "invert_mask": True,
            "mask_blur_x": 2,
            "only_masked": True,
            "padding": 5,
            "soft_inpainting": SoftInpainting(mask_influence=0.5),
            "variation_seed": 4,
            "variation_strength": 0.25,
            "seed_resize": (64, 64),
            "sampler": "Euler a",
            "cfg_scale": 5,
            "color_correction": True,
        }
        request = painted(**fields).plan.request
        recipe = through_json(recipe_of(painted(**fields), 0))
        assert set(recipe.request) == Img2ImgRequest.field_names() - PICTURE_FIELDS
        found = recipe.request_for(drawing(), {"mask": open_kept(recipe.mask, "mask", (), 10_000)})
        different = {
            name
            for name in Img2ImgRequest.field_names() - PICTURE_FIELDS
            if getattr(found, name) != getattr(request, name) and name != "noise_multiplier"
        }
        assert different == set()
        assert found.noise_multiplier == 1.0  # resolved
        assert found.mask is not None and found.mask.tobytes() == mask().tobytes()

    def test_one_picture_of_a_job_is_a_job_of_its_own(self) -> None:
        job = painted(prompt=("a", "b", "c", "d"), batch_size=2, iterations=2)
        third = through_json(recipe_of(job, 2)).request
        assert (third["prompt"], third["seed"], third["batch_size"], third["iterations"]) == ("c", 13, 1, 1)

    def test_the_same_job_has_the_same_recipe(self) -> None:
        assert recipe_of(painted(), 0) == recipe_of(painted(), 0)  # though unused variation seeds are random

    def test_options_that_changed_and_quirks(self) -> None:
        settings = Settings.reference(randn_source="NV", outdir_img2img_samples="elsewhere", uni_pc_order=2)
        recipe = through_json(recipe_of(painted(settings, overrides={"eta_noise_seed_delta": 31337}), 0))
        assert recipe.settings == {"randn_source": "NV", "uni_pc_order": 2, "eta_noise_seed_delta": 31337}
        assert recipe.settings_on(Settings(max_steps=9)) == Settings.reference(
            randn_source="NV", uni_pc_order=2, eta_noise_seed_delta=31337, max_steps=9, jpeg_quality=95
        )

    def test_what_the_site_says_otherwise_does_not_leak_in(self) -> None:
        recipe = recipe_of(painted(), 0)
        assert recipe.settings_on(Settings.reference(randn_source="CPU")) == Settings(jpeg_quality=80)

    def test_model_and_versions(self) -> None:
        recipe = through_json(recipe_of(painted(), 0))
        assert (recipe.model.name, recipe.model.hash) == ("fake", "0123456789")
        assert {"overpaint", "python", "numpy", "pillow"} <= set(recipe.versions) <= {*versions()}

    def test_painting_options_are_those_that_change_pixels(self) -> None:
        assert {"sd_vae", "randn_source", "eta_ancestral", "emphasis", "token_merging_ratio"} <= PAINTING_OPTIONS
        for name in PAINTING_OPTIONS:
            assert not name.startswith(("outdir", "save", "max_", "add_", "models_dir", "sd_model"))
        assert PAINTING_OPTIONS < OPTION_NAMES


class TestNewPictures:
    def test_every_field(self) -> None:
        fields: dict[str, Any] = {"prompt": "moon", "steps": 7, "hires": Hires(scale=1.5, steps=3, prompt="sun")}
        recipe = through_json(recipe_of(new(**fields), 0))
        assert recipe.kind == "txt2img"
        assert set(recipe.request) == Txt2ImgRequest.field_names() - PICTURE_FIELDS
        found = recipe.request_for()
        assert found == new(**fields).plan.request.with_changes(noise_multiplier=1.0)

    def test_one_picture_of_a_job_has_its_own_second_text(self) -> None:
        hires = Hires(prompt=("A", "b", "C"), negative_prompt="x", scale=1.5)
        job = new(prompt=("a", "b", "c"), iterations=3, hires=hires)
        kept = [through_json(recipe_of(job, index)).request["hires"] for index in range(3)]
        assert [each["prompt"] for each in kept] == ["A", "", "C"]  # empty: as in the first pass
        assert {each["negative_prompt"] for each in kept} == {"x"}

    def test_the_second_pass_can_be_dropped(self) -> None:
        recipe = recipe_of(new(hires=Hires()), 0)
        assert recipe.request_for(changes={"hires": None}) == new().plan.request.with_changes(noise_multiplier=1.0)

    def test_an_older_recipe_is_one_of_a_picture_painted_over(self) -> None:
        values = recipe_of(painted(), 0).to_json()
        for name in ("kind", "controls", "networks"):
            del values[name]
        assert Recipe.from_json(values) == recipe_of(painted(), 0)

    def test_whole_paths_of_models_stay_at_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.unit.fake_painter.surroundings_of", lambda request, settings: Surroundings())
        elsewhere = str(tmp_path / "m.safetensors")
        job = new(checkpoint=elsewhere, refiner=elsewhere, hires=Hires(checkpoint=elsewhere), controls=(control(),))
        kept = recipe_of(job, 0).request
        assert str(tmp_path) not in json.dumps(kept)
        assert {kept["checkpoint"], kept["refiner"], kept["hires"]["checkpoint"]} == {"m.safetensors"}


def control(**fields: Any) -> ControlUnit:
    return ControlUnit(**{"model": "canny", "image": drawing(), **fields})


class TestControls:
    def test_a_picture_without_a_file_travels_inside(self) -> None:
        recipe = through_json(recipe_of(painted(controls=(control(weight=0.5),)), 0))
        fields = {"controls": recipe.control_fields(())}
        (unit,) = recipe.request_for(drawing(), changes=fields).controls
        assert (unit.model, unit.weight, unit.image.tobytes()) == ("canny", 0.5, drawing().tobytes())

    def test_one_with_a_file_is_named(self, tmp_path: Path) -> None:
        drawing().save(tmp_path / "a.png")
        record = FileRecord.of(tmp_path / "a.png", tmp_path)
        job = new(controls=(control(), control(model="depth")))
        recipe = through_json(recipe_of(job, 0, JobFiles(controls=(record,))))
        assert recipe.controls[0] == record
        assert isinstance(recipe.controls[1], str)
        first, second = recipe.control_fields([tmp_path])
        assert (first["image"], second["model"]) == (str(tmp_path / "a.png"), "depth")

    def test_a_large_one_without_a_file_has_to_be_given_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.files.kept_files.LARGEST_CONTROLS", 10)
        recipe = through_json(recipe_of(new(controls=(control(),)), 0))
        assert recipe.controls == (None,)
        with pytest.raises(RequestError, match="give them again"):
            recipe.control_fields(())

    def test_a_mask_travels_inside(self) -> None:
        mask = Image.new("L", (8, 8), 255)
        job = new(controls=(control(mask=mask, mode="control"), control(passes="first")))
        recipe = through_json(recipe_of(job, 0))
        first, second = recipe.request_for(changes={"controls": recipe.control_fields(())}).controls
        assert first.mask is not None and first.mask.tobytes() == mask.tobytes() and second.mask is None
        assert (first.mode, second.passes) == ("control", "first")
        with pytest.raises(RequestError, match="give them again"):  # there was no room for it
            replace(recipe, control_masks=(None, None)).control_fields(())

    def test_a_changed_one_is_refused(self, tmp_path: Path) -> None:
        drawing().save(tmp_path / "a.png")
        record = FileRecord(path="a.png", sha256="0" * 64)
        recipe = recipe_of(new(controls=(control(),)), 0, JobFiles(controls=(record,)))
        with pytest.raises(RequestError, match="give --control"):
            recipe.control_fields([tmp_path])


class TestNetworks:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for number, name in enumerate(("ink", "oil", "wax")):
            save_file({"x": np.full(4, number, dtype=np.float32)}, tmp_path / f"{name}.safetensors")
        return tmp_path

    def test_all_of_a_picture_with_their_hashes(self, folder: Path) -> None:
        settings = Settings(lora_dir=str(folder), hypernetwork_dir=str(folder))
        job = new(
            settings,
            prompt=("a <lora:ink:1>", "b <hypernet:ink:1>"),
            iterations=2,
            loras=(Lora(name="oil"),),
            hires=Hires(prompt="c <lora:wax:1>"),
        )
        found = [through_json(recipe_of(job, index)).networks for index in range(2)]
        assert [sorted(each) for each in found] == [
            ["lora ink", "lora oil", "lora wax"],
            ["hypernet ink", "lora oil", "lora wax"],
        ]
        assert found[0]["lora ink"] == network_hash(folder / "ink.safetensors") == found[1]["hypernet ink"]

    def test_the_infotext_saves_reading_the_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        job = new(Settings(lora_dir=str(folder)), prompt="a <lora:ink:1>", loras=(Lora(name="oil"),))
        told = replace(job, extra_generation_params={"Lora hashes": "ink: 0123456789ab, oil: ba9876543210"})
        monkeypatch.setattr("overpaint.files.recipe.network_hash", lambda path: pytest.fail(f"it read {path}"))
        assert networks_of(told, 0) == {"lora ink": "0123456789ab", "lora oil": "ba9876543210"}

    def test_changed_files(self) -> None:
        before = {"lora ink": "0123456789ab", "lora oil": "ba9876543210", "lora gone": "1"}
        now = {"lora ink": "0123456789ab", "lora oil": "999999999999", "lora more": "2"}
        (warning,) = changed_networks(before, now)
        assert warning == (
            "lora oil: the picture was painted with ba9876543210, the file of this name is 999999999999 now"
        )


class TestMasks:
    def test_a_small_one_travels_inside(self) -> None:
        recipe = recipe_of(painted(mask=mask()), 0, JobFiles(mask=FileRecord(path="m.png", sha256="0")))
        assert isinstance(recipe.mask, str) and recipe.mask.startswith("data:image/png;base64,")

    def test_a_transparent_one_is_kept_as_it_is_read(self) -> None:  # MASK-1
        given = Image.new("RGBA", (32, 24))
        given.paste((0, 0, 0, 255), (4, 4, 20, 16))
        kept = open_kept(recipe_of(painted(mask=given), 0).mask, "mask", (), 10_000)
        assert kept is not None and kept.getbbox() == (4, 4, 20, 16)

    def test_a_large_one_is_named_by_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.files.kept_files.LARGEST_EMBEDDED", 10)
        record = FileRecord(path="m.png", sha256="0")
        assert through_json(recipe_of(painted(mask=mask()), 0, JobFiles(mask=record))).mask == record

    @pytest.mark.parametrize("text", ["", "data:image/png;base64,", "data:image/png;base64,????", "nonsense"])
    def test_a_broken_one_is_told(self, text: str) -> None:
        with pytest.raises(PictureError):
            open_kept(text, "mask", (), 10_000)

    def test_a_bomb_is_refused(self) -> None:
        recipe = recipe_of(painted(mask=mask()), 0)
        with pytest.raises(PictureError, match="max_source_pixels"):
            open_kept(recipe.mask, "mask", (), 100)


class TestSources:
    def test_the_path_is_relative_to_the_painted_picture(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        drawing().save(tmp_path / "in/a.png")
        record = FileRecord.of(tmp_path / "in/a.png", tmp_path / "out")
        assert record == FileRecord(path="../in/a.png", sha256=file_sha256(tmp_path / "in/a.png"))

    @pytest.mark.parametrize(
        ("place", "folder", "kept"),
        [
            ("/home/ann/photos/x.png", "/mnt/out", "x.png"),
            ("/home/ann/photos/x.png", "/home/bob/out", "x.png"),
            ("/home/ann/photos/x.png", "/home", "x.png"),
            ("/Users/ann/x.png", "/Users/bob", "x.png"),
            ("/data/people/ann/x.png", "/data/out", "x.png"),  # where a home is /data/people/me
            ("/home/ann/photos/x.png", "/home/ann/out", "../photos/x.png"),
            ("/home/ann/x.png", "/home/ann", "x.png"),
            ("/mnt/a/x.png", "/mnt/b", "../a/x.png"),
        ],
    )
    @pytest.mark.skipif(os.name != "posix", reason="the paths are those of POSIX")
    def test_no_path_shows_whose_it_is(
        self, place: str, folder: str, kept: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept_files, "file_sha256", lambda path: "0")
        monkeypatch.setattr(Path, "resolve", lambda self: self)
        monkeypatch.setenv("HOME", "/data/people/me")
        assert FileRecord.of(Path(place), Path(folder)).path == kept
        assert FileRecord.of(Path(place), Path(folder), whole=True).path == place

    def test_nothing_that_is_written_tells_a_whole_path_unless_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The home lies beside the folder of the results, as if both were at the root."""
        source, out = tmp_path / "ann/photos/x.png", tmp_path / "out"
        for each in (source.parent, out):
            each.mkdir(parents=True)
        drawing().save(source)
        monkeypatch.setenv("HOME", str(tmp_path / "ann"))
        for suffix in ("png", "jpg"):
            list(save_painted(painted(), Target(out / f"a.{suffix}", False), Origins(source)))
            whole = painted(settings=Settings(recipe_whole_paths=True))
            list(save_painted(whole, Target(out / f"b.{suffix}", False), Origins(source)))
        assert {each.name for each in out.iterdir()} >= {"a.jpg.overpaint.json", "b.jpg.overpaint.json"}
        for each in out.iterdir():
            is_text = each.suffix == ".json"
            told = str(each.read_bytes())
            if not is_text:
                with Image.open(each) as picture:
                    told += str(picture.info)
            names_whose = each.name.startswith("b.") and (is_text or each.suffix == ".png")
            assert ("ann" in told) == names_whose, each
        kept = Recipe.from_json(read_recipe(out / "a.png") or {}).source
        assert kept is not None and kept.path == "x.png"
        with pytest.raises(RequestError, match="give --picture"):
            find_file(kept, "picture", [out])
        assert find_file(kept, "picture", [out, source.parent]) == source.parent / "x.png"

    def test_it_is_found_there_or_beside(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "in").mkdir()
        drawing().save(tmp_path / "in/a.png")
        record = FileRecord.of(tmp_path / "in/a.png", tmp_path / "out")
        assert find_file(record, "picture", [tmp_path / "out"]).samefile(tmp_path / "in/a.png")
        (tmp_path / "in/a.png").rename(tmp_path / "out/a.png")
        assert find_file(record, "picture", [tmp_path / "out"]).samefile(tmp_path / "out/a.png")

    def test_another_picture_of_its_name_is_refused(self, tmp_path: Path) -> None:
        drawing().save(tmp_path / "a.png")
        record = FileRecord(path="a.png", sha256="0" * 64)
        with pytest.raises(RequestError, match="it changed since"):
            find_file(record, "picture", [tmp_path])

    def test_a_lost_one_is_asked_for(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="give --picture"):
            find_file(FileRecord(path="a.png", sha256="0"), "picture", [tmp_path])


class TestStrangers:
    @pytest.mark.parametrize(
        "values",
        [
            None,
            [],
            {},
            {"recipe": 2},
            {"recipe": True},
            {"recipe": 1},
            {"recipe": 1, "request": []},
            {"recipe": 1, "request": {}, "source": "a.png"},
            {"recipe": 1, "request": {}, "source": {"path": "a\0b", "sha256": "0"}},
            {"recipe": 1, "request": {}, "source": {"path": "a"}},
            {"recipe": 1, "request": {}, "quirks": "all"},
            {"recipe": 1, "request": {}, "settings": 3},
            {"recipe": 1, "request": {}, "model": "x"},
            {"recipe": 1, "request": {}, "kind": "audio"},
            {"recipe": 1, "request": {}, "kind": None},
            {"recipe": 1, "request": {}, "kind": []},
            {"recipe": 1, "request": {}, "networks": ["x"]},
            {"recipe": 1, "request": {}, "controls": {"x": 1}},
            {"recipe": 1, "request": {}, "controls": [3]},
        ],
    )
    def test_what_is_no_recipe_is_refused(self, values: object) -> None:
        with pytest.raises(RequestError):
            Recipe.from_json(values)

    def test_a_recipe_cannot_touch_the_site(self) -> None:
        hostile = {
            "models_dir": "/",
            "outdir_samples": "/",
            "max_source_pixels": 10**12,
            "sd_model_checkpoint": "/evil",
            "text_encoder_files": ["/evil"],
            "model_memory": 1e9,
            "lora_dir": "/",
        }
        recipe = Recipe.from_json(
            {
                "recipe": 1,
                "request": {"images": ["x"], "mask": "x", "unknown": 1, "overrides": hostile},
                "settings": hostile,
                "quirks": ["truncate_pixels", "no_such_quirk", "cls"],
            }
        )
        assert recipe.settings_on(Settings()) == Settings(quirks=Quirks(truncate_pixels=True))
        request = recipe.request_for(drawing(), {})
        assert (dict(request.overrides), request.mask) == ({}, None)

    @pytest.mark.parametrize(
        ("request_values", "controls"),
        [({"controls": 3}, []), ({"controls": [3]}, ["x"]), ({"controls": [{}, {}]}, ["x"]), ({"controls": [{}]}, [])],
    )
    def test_controls_that_are_none_are_refused(self, request_values: Any, controls: Any) -> None:
        recipe = Recipe.from_json({"recipe": 1, "request": request_values, "controls": controls})
        with pytest.raises(RequestError, match="controls"):
            recipe.control_fields(())

    def test_a_new_picture_has_no_source(self) -> None:
        recipe = Recipe.from_json({"recipe": 1, "kind": "txt2img", "request": {"strength": 0.5}})
        with pytest.raises(RequestError, match=r"strength=0\.5"):
            recipe.request_for()
        odd = Recipe.from_json({"recipe": 1, "kind": "txt2img", "request": {"hires": {"scale": 99}}})
        with pytest.raises(RequestError, match=r"hires\.scale"):
            odd.request_for()

    def test_wrong_values_are_told_like_any_others(self) -> None:
        recipe = Recipe.from_json({"recipe": 1, "request": {"strength": "high"}})
        with pytest.raises(RequestError, match="strength='high'"):
            recipe.request_for(drawing(), {})
