"""The open result: made of the engine's own, or by a script from a job and pictures of its own."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from overpaint.contract.processed import Processed
from overpaint.finish import FinishedPicture
from overpaint.outcome import FinishedBatch, ModelIdentity, account
from tests.unit.toy_job import REFERENCE, planned

SMALL = Image.new("RGB", (4, 4))
PLAN = planned(REFERENCE, batch_size=2, prompt="a cat", steps=5)


@pytest.fixture
def made() -> Processed:
    done = [FinishedBatch(batch, tuple(FinishedPicture(SMALL) for _ in batch)) for batch in PLAN.batches]
    return Processed.of(account(PLAN, ModelIdentity("tiny", "0123456789"), done))


def job(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"prompt": "a cat", "negative_prompt": "", "seed": 5, "subseed": [7, 8], **fields})


def test_of_the_engines_result(made: Processed) -> None:  # I2I-7
    assert made.result is not None
    assert json.loads(made.js()) == json.loads(made.result.js())
    assert (made.all_seeds, made.all_prompts, made.steps) == ([1, 2], ["a cat", "a cat"], 5)
    assert made.plan is PLAN and made.sd_model_name == "tiny"
    assert [made.infotext(None, number) for number in range(2)] == made.infotexts


def test_changes_are_its_own(made: Processed) -> None:
    other = copy.deepcopy(made)
    other.images.append(SMALL)
    other.all_seeds.append(9)
    other.extra_generation_params["Mine"] = 1
    assert (len(made.images), made.all_seeds) == (2, [1, 2]) and "Mine" not in made.extra_generation_params
    assert other.result is made.result
    assert json.loads(other.js())["extra_generation_params"]["Mine"] == 1
    assert "Mine: 1" in other.infotext(None, 0) and "Mine" not in made.infotext(None, 0)


def test_of_a_scripts_own_pictures() -> None:
    own = Processed(job(width=64, steps=9), [SMALL, SMALL], 5, "told", comments="said", index_of_first_image=1)
    assert (own.infotexts, own.info, own.comments, own.index_of_first_image) == (["told", "told"], "told", "said", 1)
    assert (own.width, own.height, own.steps) == (64, 512, 9)  # a field the job lacks has the reference's value
    assert (own.all_prompts, own.all_seeds, own.subseed) == (["a cat"], [5], 7)
    assert own.result is None and own.infotext(job(), 1) == "told"
    assert json.loads(own.js())["seed"] == 5


def test_lists_of_texts_stand_for_their_first() -> None:
    own = Processed(job(prompt=["x", "y"]), [SMALL], all_prompts=["x", "y"], infotexts=["one"])
    assert (own.prompt, own.all_prompts, own.infotexts, own.seed) == ("x", ["x", "y"], ["one"], -1)


def test_the_jobs_model_is_told() -> None:
    named = job(model=ModelIdentity("tiny", "01", "pale", "23"))
    own = Processed(named, [SMALL])
    assert (own.sd_model_name, own.sd_model_hash, own.sd_vae_name, own.sd_vae_hash) == ("tiny", "01", "pale", "23")
    assert Processed(job(), [SMALL]).sd_model_name is None


def test_what_nobody_has_is_an_error(made: Processed) -> None:
    for each in (made, Processed(job(), [SMALL])):
        with pytest.raises(AttributeError, match="no_such"):
            each.no_such  # noqa: B018
    assert not hasattr(Processed.__new__(Processed), "images")
    made.anything = 3
    assert copy.copy(made).anything == 3
