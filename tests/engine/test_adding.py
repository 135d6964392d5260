"""The adding rule: a sampler or a schedule is a row, and its name beside its function; a field of a request is a line.

They are added to the source as a contributor would write them, in a process of their own, and then used.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

Edits = Mapping[str, tuple[tuple[str, str], ...]]

FIELD_EDITS: Edits = {
    "overpaint.request": (
        ("    hires: Hires | None = None\n", "    hires: Hires | None = None\n    glow: float = 0.0\n"),
    ),
    "overpaint.other_names": (
        (
            '        "padding": "inpaint_full_res_padding",\n',
            '        "padding": "inpaint_full_res_padding",\n        "glow": "glow_amount",\n',
        ),
    ),
}
EDITS: Edits = {
    "overpaint.sampler_table": (
        ('    SamplerSpec("LCM"', '    SamplerSpec("Toy step", ("k_toy",), noise="none"),\n    SamplerSpec("LCM"'),
        ('    SchedulerSpec("beta"', '    SchedulerSpec("halving", "Halving"),\n    SchedulerSpec("beta"'),
    ),
    "overpaint.samplers": (
        (
            "_OVER_SIGMAS: ",
            "def toy_step(x, sigmas):\n"
            "    for sigma, below in zip(sigmas, sigmas[1:]):\n"
            "        denoised = yield Query(x, sigma)\n"
            "        x = x + (x - denoised) / sigma * (below - sigma)\n"
            "    return x\n\n\n_OVER_SIGMAS: ",
        ),
        ('    "LCM": lcm,\n', '    "LCM": lcm,\n    "Toy step": toy_step,\n'),
    ),
    "overpaint.schedules": (
        (
            "_FORMULAS: ",
            "def _halving(n, ends):\n"
            "    halves = np.float32(0.5) ** np.arange(n, dtype=np.float32)\n"
            "    return _ending_in_zero(np.float32(ends.high) * halves)\n\n\n"
            "_FORMULAS: ",
        ),
        ('    "beta": _beta,\n', '    "beta": _beta,\n    "halving": _halving,\n'),
    ),
}

EDITED = """
import importlib.abc, importlib.machinery, importlib.util, json, sys

EDITS = json.loads(sys.argv[1])

class Edited(importlib.abc.SourceLoader):
    def __init__(self, name, path):
        self.name, self.path = name, path
    def get_filename(self, name):
        return self.path
    def get_data(self, path):
        text = open(path, encoding="utf-8").read()
        for before, after in EDITS[self.name]:
            assert text.count(before) == 1, (self.name, before)
            text = text.replace(before, after)
        return text.encode()

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in EDITS:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        made = importlib.util.spec_from_file_location(name, found.origin, loader=Edited(name, found.origin))
        made.submodule_search_locations = found.submodule_search_locations
        return made

sys.meta_path.insert(0, Finder())
"""

PAINTS = """
import numpy as np
from overpaint import Engine, Txt2ImgRequest, plan
from overpaint.cli import main
from overpaint.text.infotext import parse_infotext
from overpaint.text.pasting import request_fields

small = {"prompt": "a cat", "seed": 3, "steps": 4, "width": 32, "height": 32}
with Engine(sys.argv[2], device="cpu", dtype="float32") as engine:
    def painted(**fields):
        return engine.paint(Txt2ImgRequest(**small, **fields))
    toy, euler = painted(sampler="k_toy"), painted(sampler="Euler")
    halved = painted(sampler="toy step halving")
parsed = parse_infotext(halved.infotexts[0])
read = request_fields(parsed)
used = plan(Txt2ImgRequest(**small, sampler="Toy step", scheduler="halving")).sampler.used
main(["samplers", "--json"])
print(json.dumps({
    "apart": int(np.abs(np.asarray(toy.images[0], int) - np.asarray(euler.images[0], int)).max()),
    "differs": toy.images[0].tobytes() != halved.images[0].tobytes(),
    "names": [parsed["Sampler"], parsed["Schedule type"], read["sampler"], read["scheduler"]],
    "used": used,
}))
"""

READS = """
from dataclasses import fields
from types import SimpleNamespace
from overpaint import PaintRequest
from overpaint.contract.fields import StableDiffusionProcessing
from overpaint.contract.requests import common_fields
from overpaint.other_names import hint
from overpaint.service.limits import Limits
from overpaint.service.schema import job_schema

glowing = PaintRequest(prompt="a cat", glow=0.5)
common = {each.name: each.default for each in fields(StableDiffusionProcessing)}
jobs = (SimpleNamespace(**common), SimpleNamespace(**common, glow_amount=0.5))
print(json.dumps({
    "again": PaintRequest.from_json(glowing.to_json()) == glowing,
    "contract": [common_fields(each).get("glow") for each in jobs],
    "hint": hint("glow_amount", PaintRequest.field_names()),
    "schema": [kind["properties"].get("glow", {}).get("default") for kind in job_schema(Limits())["oneOf"][:2]],
}))
"""


def answers(edits: Edits, program: str, *given: str) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", EDITED + program, json.dumps(edits), *given]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.slow
def test_a_field_of_a_request_is_one_line_and_its_other_name_another() -> None:
    told = json.loads(answers(FIELD_EDITS, READS)[-1])
    assert told == {
        "again": True,
        "contract": [None, 0.5],
        "hint": "there is no such field; did you mean 'glow'?",
        "schema": [0.0, 0.0],
    }


@pytest.mark.slow
def test_a_sampler_and_a_schedule_are_a_row_and_a_function_each(checkpoint: Path) -> None:
    *listed, last = answers(EDITS, PAINTS, str(checkpoint))
    assert any("Toy step" in line for line in listed) and any("Halving" in line for line in listed)
    told = json.loads(last)
    assert told["apart"] <= 1  # it is Euler's method, written again
    assert told["differs"]
    assert told["names"] == ["Toy step", "Halving", "Toy step", "Halving"]
    first, second, third, fourth, end = told["used"]
    assert (second, third, fourth, end) == pytest.approx((first / 2, first / 4, first / 8, 0))
