"""The reference's selectable scripts: every recorded picture, through the contract's door (SCR-1 to SCR-6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modules.processing import Processed, StableDiffusionProcessingImg2Img
from modules.scripts import run_script
from overpaint.engine import Engine
from tests.conftest import PARITY
from tests.parity.test_extra import EXTRA
from tests.parity.test_goldens import PIXEL_TOLERANCE, without_version

CASES: list[dict[str, Any]] = [
    case for case in json.loads((EXTRA / "cases.json").read_text()) if case.get("script") and case["kind"] == "img2img"
]

pytestmark = pytest.mark.slow


def paint(case: dict[str, Any], engine: Engine) -> Processed:
    params = dict(case["params"])
    params["init_images"] = [Image.open(PARITY / each) for each in params["init_images"]]
    if params.get("mask"):
        params["mask"] = Image.open(PARITY / params["mask"])
    overrides = {**(case.get("opts") or {}), **(params.pop("override_settings", None) or {})}
    saving: dict[str, Any] = {"do_not_save_samples": True, "do_not_save_grid": True}
    p = StableDiffusionProcessingImg2Img(sd_model=engine, override_settings=overrides, **saving, **params)
    return run_script(p, case["script"]["title"], *case["script"]["args"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_same_pictures(case: dict[str, Any], engines: Callable[[str], Engine]) -> None:
    golden = EXTRA / "goldens" / case["name"]
    recorded = json.loads((golden / "case.json").read_text())
    result = paint(case, engines(case["checkpoint"]))
    assert [list(each.size) for each in result.images] == recorded["sizes"]
    for i, image in enumerate(result.images):
        expected = np.asarray(Image.open(golden / f"image{i}.png"), dtype=np.int16)
        assert np.abs(np.asarray(image, dtype=np.int16) - expected).max() <= PIXEL_TOLERANCE, i
    assert [without_version(each) for each in result.infotexts] == [without_version(t) for t in recorded["infotexts"]]
    assert without_version(result.info) == without_version(recorded["info"])
    assert result.all_seeds == recorded["all_seeds"]
    assert result.extra_generation_params == recorded["extra_generation_params"]
