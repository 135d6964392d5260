"""Which model a job gets, what is looked up for it, and that what is in place already costs nothing."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from overpaint.errors import CheckpointError
from overpaint.models.families import SD1_SPEC
from overpaint.outcome import ModelIdentity
from overpaint.painting.model_cache import ModelCache, identity_of
from overpaint.planning.plans import Plan
from overpaint.settings import Quirks, Settings
from tests.unit.toy_job import asked, planned


class Ready:
    """A model in place, as far as the cache asks."""

    def __init__(self) -> None:
        self.times = 0

    def put_in_place(self) -> None:
        self.times += 1


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    """Of a site with two checkpoints; no file is opened."""
    for name in ("own", "other"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"none is opened")
    return ModelCache("cpu", "float32", tmp_path / "own.safetensors")


@pytest.fixture
def made(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> list[Ready]:
    """What was made ready from the beginning."""
    made: list[Ready] = []

    def make(plan: Plan, batch: Any, *, forgiving: bool) -> Ready:
        made.append(Ready())
        return made[-1]

    monkeypatch.setattr(cache, "_make_ready", make)
    return made


def site(cache: ModelCache, **options: Any) -> Settings:
    return Settings(models_dir=str(cache._default.parent), **options)


@pytest.mark.parametrize("name", [None, "own", "own.safetensors"])
def test_an_engines_own_checkpoint(cache: ModelCache, name: str | None) -> None:
    assert cache.model_for(asked(checkpoint=name), site(cache)) == cache._default
    assert cache.model_for(asked(overrides={"sd_model_checkpoint": name}), site(cache)) == cache._default


def test_another_by_name(cache: ModelCache) -> None:
    found = cache.model_for(asked(checkpoint="other"), site(cache))
    assert found.name == "other.safetensors"
    assert cache.model_for(asked(overrides={"sd_model_checkpoint": "other"}), site(cache)) == found


def test_a_name_that_nobody_has(cache: ModelCache) -> None:  # JOB-1
    with pytest.raises(CheckpointError, match="nobody"):
        cache.model_for(asked(checkpoint="nobody"), site(cache))
    falling_back = site(cache, quirks=Quirks(unknown_names_fall_back=True))
    assert cache.model_for(asked(checkpoint="nobody"), falling_back) == cache._default


def test_only_what_a_request_names_is_looked_up(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[str]()

    def files(folder: str, kind: Any) -> tuple[str]:
        looked.append(folder)
        return (folder,)

    def upscalers(settings: Settings) -> dict[str, Any]:
        looked.append("upscalers")
        return {}

    monkeypatch.setattr("overpaint.painting.model_cache.files_of", files)
    monkeypatch.setattr(cache, "upscalers", upscalers)
    settings = site(cache, lora_dir="loras", hypernetwork_dir="hypernets")

    def known(**fields: Any) -> Any:
        looked.clear()
        return cache.surroundings(asked(**fields), settings, cache._default, settings)

    plain = known()
    assert looked == [] and (plain.loras, plain.hypernets, plain.refiner, plain.hires_model) == ((), (), None, None)
    assert known(prompt="a cat <lora:red:1>").loras == ("loras",) and looked == ["loras", "hypernets"]
    settings = settings.with_changes({"upscaler_for_img2img": "4x-sharp"})
    known()
    assert looked == ["upscalers"]
    settings = settings.with_changes({"upscaler_for_img2img": "Lanczos"})
    known()
    assert looked == []


def test_what_is_in_place_is_not_made_again(cache: ModelCache, made: list[Ready]) -> None:
    plan = planned(batch_size=1, iterations=2)
    first, second = plan.batches
    with cache.holding(plan):
        ready: Any = cache.ready(plan, first)
        found: Any = cache.ready(plan, first)
        assert found is ready and (len(made), made[0].times) == (1, 0)
        assert cache.ready(plan, second) is not ready and len(made) == 2
        assert cache.ready(plan, first) is not ready and len(made) == 3  # of a pass, the latest is kept


def test_jobs_that_take_turns_put_theirs_back(cache: ModelCache, made: list[Ready]) -> None:
    plans = [planned(seed=seed) for seed in (1, 2)]
    with cache.holding(plans[0]), cache.holding(plans[1]):
        ready: list[Any] = [cache.ready(plan, plan.batches[0]) for plan in plans]
        for turn in range(1, 4):
            for plan, own in zip(plans, ready, strict=True):
                found: Any = cache.ready(plan, plan.batches[0])
                assert found is own
                assert own.times == turn
    assert len(made) == 2


def test_a_forgiving_look_is_another_one(cache: ModelCache, made: list[Ready]) -> None:
    plan = planned()
    with cache.holding(plan):
        strict = cache.ready(plan, plan.batches[0])
        assert cache.ready(plan, plan.batches[0], forgiving=True) is not strict
        assert cache.ready(plan, plan.batches[0]) is strict
    assert len(made) == 2


def test_after_a_job_files_are_looked_at_anew(cache: ModelCache, made: list[Ready]) -> None:
    plan = planned()
    for _ in range(2):
        with cache.holding(plan):
            cache.ready(plan, plan.batches[0])
            with cache.holding(plan):  # a stage within
                pass
    assert len(made) == 2
    cache.ready(plan, plan.batches[0])
    assert len(made) == 3 and cache._made == {}


def test_what_fails_half_way_is_not_in_place(
    cache: ModelCache, made: list[Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned()
    cache.ready(plan, plan.batches[0])

    def failing(*given: Any, **named: Any) -> Any:
        raise CheckpointError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(cache, "_make_ready", failing)
        with pytest.raises(CheckpointError):
            cache.ready(planned(), plan.batches[0])
    cache.ready(plan, plan.batches[0])
    assert len(made) == 2  # it was put on anew


@pytest.mark.parametrize("digest", [None, "0123456789abcdef"])
def test_how_a_model_is_named(digest: str | None) -> None:
    class Vae:
        name, sha256 = "pale.safetensors", digest

    class Model:
        name, shorthash, vae = "own", digest and digest[:10], Vae()

    model: Any = Model()
    assert identity_of(model) == ModelIdentity("own", (digest or "")[:10], "pale.safetensors", digest and digest[:10])
    model.vae = None
    assert identity_of(model).vae_name is None


def test_a_checkpoint_keeps_its_adapters_with_every_vae_and_as_long_as_it_is_in_memory(cache: ModelCache) -> None:
    def loaded(denoiser: nn.Module) -> Any:  # a new value with each VAE
        return SimpleNamespace(spec=SD1_SPEC, backend=SimpleNamespace(networks=SimpleNamespace(denoiser=denoiser)))

    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    kept = cache._adapters_of(loaded(first))
    assert cache._adapters_of(loaded(first)) is kept
    assert cache._adapters_of(loaded(second)) is not kept
    assert len(cache._adapters) == 2
    gone = weakref.ref(kept)
    del first, kept
    gc.collect()
    assert gone() is None and len(cache._adapters) == 1
