"""A refiner: where it takes over, what it takes along, and what is said of it (REF-1, REF-2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine, stages_of
from overpaint.request import Hires, PaintRequest
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext
from tests.engine.conftest import asked, box, painted, pixels, scene
from tests.engine.toys import Site, dreamt, lora


@pytest.fixture
def asked_of(site_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which U-Net answered each call: "own" or "refiner"."""
    calls: list[str] = []
    painted(site_engine, steps=1)
    own, kept = stages_of(site_engine).backend.networks.unet, TorchBackend.denoise

    def watched(self: TorchBackend, *args: Any, **told: Any) -> Tensor:
        calls.append("own" if self.networks.unet is own else "refiner")
        return kept(self, *args, **told)

    monkeypatch.setattr(TorchBackend, "denoise", watched)
    yield calls


def switch(engine: Engine, request: PaintRequest, calls: list[str], settings: Settings | None = None) -> int:
    """After how many calls of the job's own model."""
    calls.clear()
    engine.paint(request, settings)
    count = calls.index("refiner") if "refiner" in calls else len(calls)
    assert "own" not in calls[count:]
    return count


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DPM++ 2M", "UniPC"])
def test_it_takes_over_at_a_level_of_noise(site_engine: Engine, asked_of: list[str], sampler: str) -> None:
    fields: dict[str, Any] = {"sampler": sampler, "steps": 10, "refiner": "other"}
    found = [switch(site_engine, dreamt(refiner_switch_at=at, **fields), asked_of) for at in (0.01, 0.3, 0.5, 0.8, 1.0)]
    assert found == sorted(found)
    assert found[0] <= 1
    assert abs(found[2] - 5) <= 1
    assert found[-1] == 10
    # A source that is noised little begins where the refiner is at work already.
    assert switch(site_engine, asked(strength=0.3, refiner_switch_at=0.5, **fields), asked_of) == 0


@pytest.mark.parametrize(("sampler", "calls"), [("Euler", 1), ("Heun", 2), ("DDIM", 1), ("DPM++ SDE", 2)])
def test_it_takes_over_after_a_part_of_the_steps(
    site_engine: Engine, site: Site, asked_of: list[str], sampler: str, calls: int
) -> None:
    settings = site.with_options(refiner_switch_by_sample_steps=True)
    fields: dict[str, Any] = {"sampler": sampler, "steps": 10, "refiner": "other"}
    for at in (0.2, 0.5, 0.8):
        found = switch(site_engine, dreamt(refiner_switch_at=at, **fields), asked_of, settings)
        assert found == at * 10 * calls
    info = split_infotext(site_engine.paint(dreamt(**fields), settings).info).fields
    assert info["Refiner switch by sampling steps"] == "True"


@pytest.mark.parametrize(
    ("sampler", "at"),
    [*product(["Euler", "DDIM", "DPM++ 2M SDE", "Euler a"], [0.0, 0.4, 1.0]), ("DPM adaptive", 0.5)],
)
def test_a_refiner_of_the_same_numbers_changes_nothing(site_engine: Engine, sampler: str, at: float) -> None:
    fields: dict[str, Any] = {"sampler": sampler, "steps": 5, "images": (scene(16, 16),)}
    if sampler == "DPM adaptive":
        fields |= {"strength": 0.2, "eta": 0.0, "steps": 8, "overrides": {"sigma_max": 2.0}, "scheduler": "Karras"}
    plain = painted(site_engine, **fields)
    result = site_engine.paint(asked(refiner="tiny", refiner_switch_at=at, **fields))
    assert [pixels(each) for each in result.images] == plain


def test_what_is_said_of_it(site_engine: Engine) -> None:
    fields = split_infotext(site_engine.paint(dreamt(refiner="other", steps=10)).info).fields
    assert fields["Refiner"].startswith("other [")
    assert fields["Refiner switch at"] == "0.8"
    assert fields["Model"] == "tiny"
    assert "Refiner switch by sampling steps" not in fields
    # One that never comes to work is not mentioned.
    unused = split_infotext(site_engine.paint(dreamt(refiner="other", refiner_switch_at=1.0)).info).fields
    assert "Refiner" not in unused


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DPM++ SDE", "DPM adaptive"])
@pytest.mark.parametrize("extra", [{}, {"mask": box(16, 16, (4, 4, 12, 16))}], ids=["plain", "mask"])
def test_exact_batches(site_engine: Engine, sampler: str, extra: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"sampler": sampler, "steps": 6, "refiner": "other", "refiner_switch_at": 0.5, **extra}
    fields["images"] = (scene(16, 16),)
    if sampler == "DPM adaptive":
        short = {"strength": 0.2, "steps": 8, "refiner_switch_at": 0.7}
        fields |= {**short, "eta": 0.0, "overrides": {"sigma_max": 2.0}, "scheduler": "Karras"}
    prompts = ("a cat", "a much longer text " * 12)
    alone = [painted(site_engine, seed=1 + i, prompt=each, **fields)[0] for i, each in enumerate(prompts)]
    for exact in (True, False):
        batch = site_engine.paint(asked(batch_size=2, prompt=prompts, exact=exact, **fields)).images
        if exact:
            assert [pixels(each) for each in batch] == alone
        else:
            for one, of_batch in zip(alone, batch, strict=True):
                wanted = np.frombuffer(one[len(b"RGB (16, 16) ") :], np.uint8).astype(int)
                assert np.abs(wanted - np.asarray(of_batch).ravel()).max() <= 2


@pytest.mark.parametrize("which", ["first pass", "second pass", "both passes"])
def test_in_which_pass(site_engine: Engine, site: Site, asked_of: list[str], which: str) -> None:
    settings = site.with_options(hires_fix_refiner_pass=which)
    request = dreamt(steps=4, refiner="other", refiner_switch_at=0.5, hires=Hires(scale=1.5, steps=4, strength=1.0))
    asked_of.clear()
    result = site_engine.paint(request, settings)
    assert len(asked_of) == 8
    assert ("refiner" in asked_of[:4]) == (which != "second pass")
    assert ("refiner" in asked_of[4:]) == (which != "first pass")
    fields = split_infotext(result.info).fields
    assert fields["Refiner"].startswith("other [")
    assert fields.get("Hires refiner") == (None if which == "second pass" else which)


def test_loras_that_do_not_fit_it_are_left_out(site_engine: Engine, site: Site, tmp_path: Any) -> None:
    """They were asked for the job's own model; the refiner wears what fits it."""
    lora(tmp_path / "red.safetensors")
    settings = site.with_options(lora_dir=str(tmp_path))
    fields: dict[str, Any] = {"refiner": "other", "refiner_switch_at": 0.5, "steps": 6, "strength": 1.0}
    with_lora = painted(site_engine, settings, prompt="a cat <lora:red:1>", **fields)
    assert with_lora != painted(site_engine, settings, **fields)
    plain = painted(site_engine, checkpoint="other")
    assert painted(site_engine, settings, prompt="a cat <lora:red:1>", checkpoint="other") != plain
    assert painted(site_engine, checkpoint="other") == plain
