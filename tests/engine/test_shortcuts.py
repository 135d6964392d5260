"""Steps that do less, from the option to the picture: off by default, told in the infotext, each job its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from modules.processing import process_images
from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine
from overpaint.events import Finished
from overpaint.files.recipe import recipe_of
from overpaint.outcome import Processed
from overpaint.request import ControlUnit, PaintRequest
from overpaint.settings import Settings
from overpaint.tools import enlarge
from tests.engine.conftest import asked, box, job, painted, pixels, scene
from tests.engine.toys import Site, hint

OPTIONS: dict[str, dict[str, Any]] = {
    "merging": {"token_merging_ratio": 0.5},
    "deepcache": {"deepcache_interval": 2},
    "late": {"skip_late_cond": 0.5},
    "all": {"token_merging_ratio": 0.5, "deepcache_interval": 2, "skip_late_cond": 0.25},
}
TOLD = {
    "merging": "Token merging ratio: 0.5",
    "deepcache": "DeepCache interval: 2",
    "late": "Skip Late CFG: 0.5",
    "all": "Token merging ratio: 0.5",
}


def asked_for(name: str | None = None, **fields: Any) -> PaintRequest:
    size = {"images": (scene(64, 64),), "width": 64, "height": 64, "steps": 4, "strength": 1.0}
    return asked(**{**size, "overrides": OPTIONS[name] if name else {}, **fields})


def difference(one: Processed, other: Processed) -> float:
    a, b = (np.asarray(each.images[0]).astype(float) for each in (one, other))
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_changes_the_picture_a_little_and_says_so(site_engine: Engine, name: str) -> None:
    exact, less = site_engine.paint(asked_for()), site_engine.paint(asked_for(name))
    assert 0 < difference(exact, less) < 60
    assert TOLD[name] in less.info and TOLD[name] not in exact.info
    assert less.warnings == ()
    again = site_engine.paint(asked_for())
    assert [pixels(each) for each in again.images] == [pixels(each) for each in exact.images]


def test_jobs_of_every_kind_side_by_side(site_engine: Engine) -> None:
    small = {"images": (scene(32, 32),), "width": 32, "height": 32, "steps": 4}
    jobs = {str(name): asked_for(name, **small) for name in (None, *OPTIONS)}
    alone = {name: site_engine.paint(request) for name, request in jobs.items()}
    last = dict(site_engine.run_together(jobs, at_once=len(jobs), rows_per_call=16))
    for name, event in last.items():
        assert isinstance(event, Finished)
        assert difference(event.result, alone[name]) <= 1, name


def test_two_pictures_by_themselves(site_engine: Engine) -> None:
    """Each row in its own call, and each picture in its own run, are what they are together."""
    both = site_engine.paint(asked_for("all", batch_size=2))
    exact = site_engine.paint(asked_for("all", batch_size=2, exact=True))
    apart = site_engine.paint(
        asked_for(batch_size=2, overrides={**OPTIONS["all"], "batch_cond_uncond": False}, exact=True)
    )
    for other in (exact, apart):
        for one, own in zip(both.images, other.images, strict=True):
            assert int(np.abs(np.asarray(one).astype(int) - np.asarray(own)).max()) <= 1


def test_with_a_controlnet_and_a_refiner(site_engine: Engine) -> None:
    unit = ControlUnit(model="edges", image=hint(64, 64), end=0.6)
    for fields in ({"controls": (unit,)}, {"refiner": "other", "refiner_switch_at": 0.5}):
        exact, less = (site_engine.paint(asked_for(name, **fields)) for name in (None, "all"))
        assert 0 < difference(exact, less) < 60


def test_a_canvas_in_parts(site_engine: Engine, site: Site) -> None:
    small = scene(64, 64)
    given: dict[str, Any] = {"engine": site_engine, "tile": 64, "overlap": 16, "steps": 3, "seed": 1}
    less, exact = (enlarge(small, scale=2, overrides=each, **given) for each in (OPTIONS["all"], {}))
    assert less.size == (128, 128)
    assert 0 < float(np.abs(np.asarray(less).astype(float) - np.asarray(exact)).mean()) < 30


def test_the_recipe_knows(site_engine: Engine, tmp_path: Path) -> None:
    made = recipe_of(site_engine.paint(asked_for("all")), 0)
    assert OPTIONS["all"].items() <= made.settings.items()


def test_at_the_contracts_door(engine: Engine) -> None:  # JOB-12
    size = {"width": 64, "height": 64, "init_images": [scene(64, 64)]}
    made = process_images(job(engine, token_merging_ratio=0.5, **size))
    assert made.get_token_merging_ratio() == 0  # as the reference: this model has no attention at full size
    assert any("nothing is merged" in each for each in made.warnings)
    assert "Token merging ratio" not in made.info


def test_openvino_says_that_torch_makes_these_steps(site: Site) -> None:
    pytest.importorskip("openvino")
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings, backend="openvino") as made:
        less = made.paint(asked_for("deepcache"))
    assert any("deepcache_interval" in each and "torch" in each for each in less.warnings)


def test_the_options_of_a_site_count_too(site_engine: Engine, site: Site) -> None:
    settings: Settings = site.with_options(deepcache_interval=2)
    size: dict[str, Any] = {"images": (scene(64, 64),), "width": 64, "height": 64, "steps": 4}
    assert painted(site_engine, settings, **size) == painted(site_engine, overrides={"deepcache_interval": 2}, **size)


# -- a window round the mask -------------------------------------------------------------------------------------------


def windowed(option: str = "8", **fields: Any) -> PaintRequest:
    size = {"images": (scene(64, 64),), "width": 64, "height": 64, "mask": box(64, 64, (8, 8, 24, 24))}
    sharp = {"mask_blur_x": 0, "mask_blur_y": 0, "steps": 4}
    return asked(**{**size, **sharp, "overrides": {"inpaint_window": option}, **fields})


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM", "UniPC"])
@pytest.mark.parametrize("reference", [False, True])
def test_what_lies_outside_is_that_of_the_whole_picture(
    site_engine: Engine, site: Site, shapes: list[tuple[int, ...]], sampler: str, reference: bool
) -> None:
    settings = site.reference if reference else site.settings
    whole, window = (site_engine.paint(windowed(each, sampler=sampler), settings) for each in ("off", "8"))
    assert {each[-2:] for each in shapes} == {(8, 8), (4, 4)}
    assert "Inpaint window: 8" in window.info and "Inpaint window" not in whole.info
    a, b = (np.asarray(each.images[0]).astype(int) for each in (whole, window))
    outside = np.asarray(box(64, 64, (8, 8, 24, 24))) == 0
    assert np.array_equal(a[outside], b[outside])
    assert not np.array_equal(a[~outside], b[~outside])


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Of what each call of the denoiser is given."""
    made: list[tuple[int, ...]] = []
    kept = TorchBackend.denoise

    def denoise(self: TorchBackend, x: Tensor, *values: Any, **named: Any) -> Tensor:
        made.append(tuple(x.shape))
        return kept(self, x, *values, **named)

    monkeypatch.setattr(TorchBackend, "denoise", denoise)
    return made


@pytest.mark.parametrize("reference", [False, True])
def test_no_more_is_decoded_than_is_shown(
    site_engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch, reference: bool
) -> None:
    monkeypatch.setattr("overpaint.painting.windowed.MARGIN", 1)  # what the rule takes is all of so small a picture
    decoded: list[tuple[int, ...]] = []
    kept = TorchBackend.decode

    def decode(self: TorchBackend, z: Tensor, fallback: Any = None) -> Tensor:
        decoded.append(tuple(z.shape[-2:]))
        return kept(self, z, fallback)

    monkeypatch.setattr(TorchBackend, "decode", decode)
    settings = site.reference if reference else site.settings
    large: dict[str, Any] = {
        "images": (scene(96, 96),),
        "width": 96,
        "height": 96,
        "mask": box(96, 96, (8, 8, 24, 24)),
        "steps": 2,
    }
    part = np.asarray(site_engine.paint(windowed(**large), settings).images[0]).astype(int)
    monkeypatch.setattr("overpaint.painting.windowed.MARGIN", 99)
    whole = np.asarray(site_engine.paint(windowed(**large), settings).images[0]).astype(int)
    assert decoded == [(6, 6), (12, 12)]  # cells: 0 to 40 pixels with the band, and the margin on two sides
    outside = np.asarray(box(96, 96, (8, 8, 24, 24))) == 0
    assert np.array_equal(part[outside], whole[outside])
    assert np.abs(part - whole)[~outside].mean() < 1  # a level: norms look at all that is decoded


def test_windows_do_not_share_calls(site_engine: Engine) -> None:
    jobs = {
        "here": windowed(),
        "there": windowed(mask=box(64, 64, (40, 40, 56, 56))),
        "whole": windowed("off"),
        "less": windowed(overrides={"inpaint_window": "8", **OPTIONS["all"]}),
    }
    alone = {name: site_engine.paint(request) for name, request in jobs.items()}
    for name, event in dict(site_engine.run_together(jobs, at_once=4, rows_per_call=16)).items():
        assert isinstance(event, Finished)
        assert [pixels(each) for each in event.result.images] == [pixels(each) for each in alone[name].images]
