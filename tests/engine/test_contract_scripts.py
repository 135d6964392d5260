"""What scripts of the reference do at the contract's door: with the result, with options, and with other scripts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import modules.shared as shared
from modules.processing import Processed, StableDiffusionProcessingTxt2Img, process_images
from overpaint.contract.options import FOLDERS
from overpaint.engine import Engine
from overpaint.errors import RequestError, SettingError
from overpaint.outcome import Processed as Result
from overpaint.settings import Settings
from tests.conftest import label
from tests.engine.conftest import box, job, pixels
from tests.engine.toys import Site

OFF: list[dict[str, Any]] = [
    {},
    {"alwayson_scripts": None, "scripts": None, "script_args": None},
    {"alwayson_scripts": {}, "scripts": {}, "script_args": []},
    {"script_args": (), "scripts": []},
    {"script_args": [0]},  # the reference's "no script is selected"
    {"alwayson_scripts": {"Soft Inpainting": {"args": [False, 1, 0.5]}}},
    {"alwayson_scripts": {"ADetailer": {"args": [False]}, "Dynamic Prompts": {}, "other": None}},
    {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": False, "module": "canny"}, None]}}},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"script_args": [1, "x"]}, r"script_args=\[1, 'x'\]: scripts and extensions do not run here"),
    ({"scripts": object()}, "scripts=<object"),
    ({"alwayson_scripts": ["soft inpainting"]}, "alwayson_scripts="),
    ({"alwayson_scripts": {"ADetailer": {"args": [True]}}}, "alwayson_scripts='ADetailer': scripts and extensions"),
    ({"scripts": {"X/Y/Z plot": {"args": [1]}}}, "scripts='X/Y/Z plot'"),
    ({"alwayson_scripts": {"Soft Inpanting": {"args": [True]}}}, "did you mean 'Soft inpainting'"),
    ({"alwayson_scripts": {"Refiner": {"args": [True, "x", 0.8]}}}, "the job's own fields"),
    ({"alwayson_scripts": {"ControlNet": {"args": [{"module": "canny"}]}}}, "Img2ImgRequest its field controls"),
    ({"alwayson_scripts": {"Soft inpainting": {"args": True}}}, "a list of arguments by position"),
]


# -- other scripts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", OFF, ids=label)
def test_scripts_that_ask_for_nothing_pass(engine: Engine, fields: dict[str, Any]) -> None:
    assert job(engine, **fields).request() == job(engine).request()


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=label)
def test_scripts_that_do_not_run_here_are_refused(engine: Engine, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        process_images(job(engine, **fields))
    with pytest.raises(RequestError):
        StableDiffusionProcessingTxt2Img(sd_model=engine, **fields).request()


def test_soft_inpainting_is_one_of_img2img(engine: Engine) -> None:
    soft: dict[str, Any] = {"alwayson_scripts": {"Soft inpainting": {"args": [True, 2]}}}
    found = job(engine, mask=box(), **soft).request().soft_inpainting
    assert found is not None
    assert found.schedule_bias == 2
    with pytest.raises(RequestError, match="img2img only"):
        StableDiffusionProcessingTxt2Img(sd_model=engine, **soft).request()


def test_a_second_pass_of_a_finished_picture_is_refused(engine: Engine) -> None:
    p = StableDiffusionProcessingTxt2Img(sd_model=engine, firstpass_image=box())
    with pytest.raises(RequestError, match="firstpass_image"):
        p.request()


# -- the result --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def painted(engine: Engine) -> Processed:
    shared.opts.reset()
    return process_images(job(engine, batch_size=2, seed=5, do_not_save_samples=True, do_not_save_grid=True))


def test_a_result_is_open_to_change(painted: Processed) -> None:
    result, extra = copy.deepcopy(painted), Image.new("RGB", (4, 4))
    result.images.append(extra)
    result.infotexts.append("mine")
    result.images.insert(result.index_of_first_image, extra)
    result.seed, result.info, result.extra_generation_params["Mine"] = 99, "told", 1
    result.own_word = "kept"
    assert [each.size for each in result.images] == [(4, 4), (32, 32), (32, 32), (4, 4)]
    account = json.loads(result.js())
    assert (account["seed"], account["infotexts"][-1], account["extra_generation_params"]["Mine"]) == (99, "mine", 1)
    assert result.own_word == "kept"
    assert (len(painted.images), painted.seed) == (2, 5)


def test_the_frozen_result_lies_inside(painted: Processed) -> None:
    assert isinstance(painted.result, Result)
    assert list(painted.result.images) == painted.images
    assert painted.plan is painted.result.plan
    assert painted.warnings == ()
    assert painted.js() == painted.result.js()
    with pytest.raises(AttributeError, match="no_such"):
        painted.no_such  # noqa: B018
    assert not hasattr(Processed.__new__(Processed), "plan")
    assert copy.copy(painted).all_seeds == [5, 6]


def test_what_scripts_read(painted: Processed, engine: Engine) -> None:
    assert painted.index_of_first_image == 0
    assert (painted.all_seeds, painted.all_prompts, painted.seed) == ([5, 6], ["a cat", "a cat"], 5)
    assert painted.get_token_merging_ratio() == painted.get_token_merging_ratio(for_hr=True) == 0
    assert [painted.infotext(job(engine), i) for i in range(2)] == painted.infotexts
    assert painted.info == painted.infotexts[0]
    assert painted.comments == ""


def test_scripts_make_results_of_their_own(engine: Engine) -> None:
    """As a loop does that runs a job several times and hands out all pictures."""
    p = job(engine, prompt="a cat", seed=7)
    first = process_images(p)
    own = Processed(p, [*first.images, box()], first.seed, first.info, infotexts=[*first.infotexts, "b"])
    assert (len(own.images), own.infotexts[1], own.index_of_first_image) == (2, "b", 0)
    assert (own.seed, own.prompt, own.all_prompts, own.all_seeds) == (7, "a cat", ["a cat"], [7])
    assert own.infotext(p, 0) == first.infotexts[0]
    account, theirs = json.loads(own.js()), json.loads(first.js())
    same = ("prompt", "width", "steps", "sd_model_hash", "version", "styles")
    assert list(account) == list(theirs)
    assert [account[name] for name in same] == [theirs[name] for name in same]
    assert Processed(job(engine, prompt=["x", "y"]), [box()]).prompt == "x"


# -- options and folders -----------------------------------------------------------------------------------------------


def test_options_begin_again() -> None:
    shared.opts.tiling, shared.opts.eta_ddim, shared.opts.sd_checkpoint_cache = True, 0.5, 3
    shared.opts.reset("tiling", "sd_checkpoint_cache")
    assert (shared.opts.tiling, shared.opts.eta_ddim, shared.opts.sd_checkpoint_cache) == (False, 0.5, None)
    with pytest.raises(SettingError, match="did you mean 'tiling'"):
        shared.opts.reset("eta_ddim", "tilling")
    assert shared.opts.eta_ddim == 0.5
    shared.opts.quirks = Settings().quirks
    shared.opts.reset()
    assert shared.opts.snapshot() == Settings.reference()


@pytest.mark.parametrize("restored", [True, False])
def test_overrides_hold_after_the_job_if_they_are_to(engine: Engine, restored: bool) -> None:  # JOB-1.8
    overrides = {"eta_ddim": 0.5, "sd_checkpoint_cache": 3}
    p = job(engine, override_settings=overrides, override_settings_restore_afterwards=restored)
    process_images(p)
    found = (shared.opts.eta_ddim, shared.opts.sd_checkpoint_cache)
    shared.opts.reset()
    assert found == ((0.0, None) if restored else (0.5, 3))


def test_folders_are_named_rightly_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"cmd_opts\.lora_folder='x': did you mean 'lora_dir'"):
        shared.cmd_opts.lora_folder = "x"
    with pytest.raises(SettingError, match=r"cmd_opts\.medvram=True: give one of .*models_dir"):
        shared.cmd_opts.medvram = True
    with pytest.raises(SettingError, match=r"cmd_opts\.lora_dir=3: give a path"):
        shared.cmd_opts.lora_dir = 3
    with pytest.raises(AttributeError, match="medvram"):
        shared.cmd_opts.medvram  # noqa: B018
    assert shared.cmd_opts.lora_dir is None
    shared.cmd_opts.lora_dir = tmp_path
    assert (shared.cmd_opts.lora_dir, shared.cmd_opts.given()) == (str(tmp_path), {"lora_dir": str(tmp_path)})
    shared.cmd_opts.lora_dir = None
    assert shared.cmd_opts.given() == {}


def test_an_engine_keeps_its_folders(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.reference) as own:
        plain, red = (process_images(job(own, prompt=each)) for each in ("a cat", "a cat <lora:red:1>"))
        assert "Lora hashes" in red.info
        assert pixels(plain.images[0]) != pixels(red.images[0])
        shared.cmd_opts.lora_dir = tmp_path  # of the process: for engines that name none
        assert job(own).settings().lora_dir == str(site.folder("loras"))
        monkeypatch.setattr(shared.engines, "_engine", own)  # made from the options, it goes on following them
        assert job(own).settings().lora_dir == str(tmp_path)
        shared.cmd_opts.lora_dir = None
        assert job(own).settings().lora_dir == ""


def test_the_guide_names_every_folder() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "from-a1111.md").read_text()
    assert [name for name in FOLDERS if f"`{name}`" not in guide] == []
