"""Textual inversion: every recorded encoding of a text with embeddings, and what its infotext said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from overpaint.adapters.embedding_files import bundled_embeddings
from overpaint.adapters.embeddings import EmbeddingShelf, EmbeddingTable
from overpaint.engine import Engine, stages_of
from overpaint.models.files import read_all
from overpaint.painting.conditioning import Conditioner
from overpaint.painting.texts import ScheduledCond
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest
from overpaint.settings import Settings
from overpaint.text.prompt import take_network_tags
from tests.conftest import PARITY

TOLERANCE = 2e-5
NEEDS_LORA_IN_PLACE = {"ti_with_lora"}  # its text network wears one
CASES: list[dict[str, Any]] = [
    case
    for case in json.loads((PARITY / "extra" / "cases.json").read_text())
    if (case["group"] == "ti" or "lora_bundle" in case["name"]) and case["name"] not in NEEDS_LORA_IN_PLACE
]

pytestmark = pytest.mark.slow


def table_of(case: dict[str, Any], engine: Engine, parity: Path, folder: Path) -> EmbeddingTable:
    """From the case's own files: a folder of embeddings, and what the LoRAs that its prompt names bring."""
    files = [parity / "extra" / each for each in case["files"]]
    for each in files:
        if each.parent.name == "embeddings":
            shutil.copy(each, folder)
    table = EmbeddingShelf().table(folder, engine.spec)
    worn = {tag.args[0] for tag in take_network_tags(case["params"]["prompt"])[1]}
    for each in files:
        if each.parent.name == "Lora" and each.stem in worn:
            table = table.with_bundled(bundled_embeddings(each.stem, read_all(each)))
    return table


def conditioner_of(case: dict[str, Any], engine: Engine, table: EmbeddingTable, parity: Path) -> Conditioner:
    params = case["params"]
    request = Img2ImgRequest(
        images=(Image.open(parity / params["init_images"][0]),),
        prompt=take_network_tags(params["prompt"])[0],
        negative_prompt=params["negative_prompt"],
        seed=params["seed"],
        steps=params["steps"],
        sampler=params["sampler_name"],
        width=params["width"],
        height=params["height"],
        strength=params["denoising_strength"],
    )
    settings = Settings.reference(**case.get("opts") or {})
    job = plan(request, settings, engine.spec)
    return Conditioner(engine.spec, stages_of(engine).backend, job, table)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_same_encodings(
    case: dict[str, Any], engines: Callable[[str], Engine], parity: Path, tmp_path: Path
) -> None:  # TI-1 to TI-4, TOK-3, TOK-4, TIF-1 to TIF-5, LORA-9
    golden = parity / "extra" / "goldens" / case["name"]
    data = np.load(golden / "data.npz")
    engine = engines(case["checkpoint"])
    conditioner = conditioner_of(case, engine, table_of(case, engine, parity, tmp_path), parity)
    batch = conditioner.plan.batches[0]
    (image,) = conditioner.images(batch)
    compared: tuple[tuple[str, ScheduledCond], ...] = (("cond", image.parts[0][0]), ("uncond", image.negative))
    for name, scheduled in compared:
        for call, index in enumerate(data[f"{name}_index"]):
            cond = scheduled.at(call, conditioner.settings.quirks)
            expected = torch.from_numpy(data[f"{name}_{index}"])
            torch.testing.assert_close(cond.context[None], expected, atol=TOLERANCE, rtol=0)
            if cond.vector is not None:
                expected = torch.from_numpy(data[f"{name}_vector_{data[f'{name}_vector_index'][call]}"])
                torch.testing.assert_close(cond.vector[None], expected, atol=TOLERANCE, rtol=0)

    fields = json.loads((golden / "case.json").read_text())["extra_generation_params"]
    said = {name: value for name, value in fields.items() if name in ("TI hashes", "Emphasis")}
    assert conditioner.notes(batch) == said
