"""Recipes: everything that paints a picture again, and nothing that a stranger's file could abuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint.errors import PictureError, RequestError
from overpaint.events import Finished
from overpaint.outcome import Processed
from overpaint.recipe import (
    PAINTING_OPTIONS,
    FileRecord,
    Recipe,
    file_sha256,
    find_file,
    open_kept,
    recipe_of,
    versions,
)
from overpaint.request import FIELD_NAMES, PICTURE_FIELDS, Img2ImgRequest, ResizeMode, SoftInpainting
from overpaint.settings import OPTION_NAMES, Quirks, Settings
from tests.unit.fake_painter import FakePainter, drawing


def painted(settings: Settings | None = None, **fields: Any) -> Processed:
    request = Img2ImgRequest(images=(drawing(),), **{"seed": 11, **fields})
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
        assert set(recipe.request) == FIELD_NAMES - PICTURE_FIELDS
        found = recipe.request_for(drawing(), {"mask": open_kept(recipe.mask, "mask", (), 10_000)})
        different = {
            name
            for name in FIELD_NAMES - PICTURE_FIELDS
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
            randn_source="NV", uni_pc_order=2, eta_noise_seed_delta=31337, max_steps=9
        )

    def test_what_the_site_says_otherwise_does_not_leak_in(self) -> None:
        recipe = recipe_of(painted(), 0)
        assert recipe.settings_on(Settings.reference(randn_source="CPU")) == Settings()

    def test_model_and_versions(self) -> None:
        recipe = through_json(recipe_of(painted(), 0))
        assert (recipe.model.name, recipe.model.hash) == ("fake", "0123456789")
        assert {"overpaint", "python", "numpy", "pillow"} <= set(recipe.versions) <= {*versions()}

    def test_painting_options_are_those_that_change_pixels(self) -> None:
        assert {"sd_vae", "randn_source", "eta_ancestral", "emphasis", "token_merging_ratio"} <= PAINTING_OPTIONS
        for name in PAINTING_OPTIONS:
            assert not name.startswith(("outdir", "save", "max_", "add_", "models_dir", "sd_model"))
        assert PAINTING_OPTIONS < OPTION_NAMES


class TestMasks:
    def test_a_small_one_travels_inside(self) -> None:
        recipe = recipe_of(painted(mask=mask()), 0, mask=FileRecord(path="m.png", sha256="0"))
        assert isinstance(recipe.mask, str) and recipe.mask.startswith("data:image/png;base64,")

    def test_a_transparent_one_is_kept_as_it_is_read(self) -> None:  # MASK-1
        given = Image.new("RGBA", (32, 24))
        given.paste((0, 0, 0, 255), (4, 4, 20, 16))
        kept = open_kept(recipe_of(painted(mask=given), 0).mask, "mask", (), 10_000)
        assert kept is not None and kept.getbbox() == (4, 4, 20, 16)

    def test_a_large_one_is_named_by_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.recipe.LARGEST_EMBEDDED_MASK", 10)
        record = FileRecord(path="m.png", sha256="0")
        assert through_json(recipe_of(painted(mask=mask()), 0, mask=record)).mask == record

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

    def test_wrong_values_are_told_like_any_others(self) -> None:
        recipe = Recipe.from_json({"recipe": 1, "request": {"strength": "high"}})
        with pytest.raises(RequestError, match="strength='high'"):
            recipe.request_for(drawing(), {})
