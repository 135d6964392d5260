"""What all jobs of the contract's door share: engine, settings, what a plan publishes, and what changed since."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import modules.shared as shared
from overpaint.contract import facade
from overpaint.contract.facade import Facade, _drain
from overpaint.engine import Engine
from overpaint.errors import PaintingCancelled
from overpaint.events import Preview, Progress
from overpaint.painting.sampling import BatchTensors
from overpaint.painting.stages import Sampled
from tests.unit.toy_job import noisy_picture, planned


class ToyEngine(Engine):
    """An engine of the caller's own, as far as settings go."""

    def __init__(self, **folders: str) -> None:
        self.settings = shared.opts.snapshot().with_changes(folders)


def test_what_is_no_engine_is_refused() -> None:
    with pytest.raises(TypeError, match=r"sd_model='sd15': give an overpaint\.Engine"):
        Facade(sd_model="sd15").engine()
    engine = ToyEngine()
    assert Facade(sd_model=engine).engine() is engine


def test_lists_are_nobody_elses() -> None:  # REQ-6
    styles, changes = ["a"], {"tiling": True}
    made = Facade(sd_model=ToyEngine(), styles=styles, override_settings=changes)
    assert made.styles == styles and made.styles is not styles
    assert made.override_settings == changes and made.override_settings is not changes
    assert Facade(sd_model=ToyEngine()).extra_generation_params == {}


def test_an_engine_of_the_callers_keeps_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.cmd_opts, "lora_dir", "from the command")
    monkeypatch.setattr(shared.cmd_opts, "embeddings_dir", "from the command")
    own = Facade(sd_model=ToyEngine(lora_dir=str(tmp_path))).settings()
    assert (own.lora_dir, own.embeddings_dir) == (str(tmp_path), "from the command")
    monkeypatch.setattr(shared.engines, "has_made", lambda engine: True)
    assert Facade(sd_model=ToyEngine(lora_dir=str(tmp_path))).settings().lora_dir == "from the command"


def test_a_plan_is_published() -> None:
    plan = replace(planned(batch_size=3, iterations=2, prompt="a cat"), notes={"Mask blur": 4})
    made = Facade(sd_model=ToyEngine(), extra_generation_params={"Mine": 1})
    made.adopt(plan)
    assert made.extra_generation_params == {"Mine": 1, "Mask blur": 4}  # the caller's own come first
    assert next(iter(made.extra_generation_params)) == "Mine"
    assert (made.all_seeds, made.batch_size) == ([1, 2, 3, 4, 5, 6], 3)
    made.begin_batch(1, plan.batches[1])
    assert (made.iteration, made.seeds, made.prompts) == (1, [4, 5, 6], ["a cat"] * 3)


def test_sampling_wants_init_first() -> None:
    with pytest.raises(RuntimeError, match="call init first"):
        Facade(sd_model=ToyEngine()).sample((), (), (), (), 0.0, ())


@pytest.mark.parametrize("name", ["init_latent", "nmask", "image_conditioning"])
def test_what_a_script_put_in_the_place_of_a_tensor_counts(name: str) -> None:
    made = Facade(sd_model=ToyEngine())
    given = tuple(torch.full((1,), float(number)) for number in range(3))
    made.init_latent, made.nmask, made.image_conditioning = made._published = given
    tensors = BatchTensors(init=given[0], nmask=given[1], image_conditioning=None, texts=(), empty_text=None)
    assert made._changed(tensors) is tensors  # what is published for models that see no picture is no conditioning
    own = torch.full((1,), 9.0)
    setattr(made, name, own)
    changed = made._changed(tensors)
    fields = {"init_latent": "init"}.get(name, name)
    assert getattr(changed, fields) is own
    made.close()
    assert made.init_latent is made.nmask is made.image_conditioning is None


def test_a_story_is_shown_while_it_runs() -> None:
    sampled = Sampled(torch.zeros(1), True, {})
    state = SimpleNamespace(sampling_steps=4, sampling_step=0, current_image=None)
    picture, seen = noisy_picture(4, 4), list[int]()

    def story() -> Generator[Any, None, Sampled | None]:
        for step in (5, 6):
            yield Progress(step, 8, 1.0, 1)
            seen.append(state.sampling_step)
        yield Preview(6, picture)
        return sampled

    assert _drain(story(), state) is sampled
    assert seen == [1, 2] and state.current_image is picture


def test_a_cancelled_story_is_an_error() -> None:
    def story() -> Generator[Any, None, Sampled | None]:
        yield from ()
        return None

    with pytest.raises(PaintingCancelled):
        _drain(story(), SimpleNamespace())


def test_what_is_shared_is_the_references_module() -> None:
    assert facade.shared_state() is shared
