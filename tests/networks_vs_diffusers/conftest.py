"""Each family's networks and file, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch

from overpaint.engine import Engine
from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from tests.networks_vs_diffusers.families import Built, build

Build = Callable[..., Built]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """(name, dtype of the file, still codec) -> both sides of a family."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("families")

    @cache
    def made(name: str, dtype: torch.dtype = torch.float32, still: bool = False) -> Built:
        return build(name, folder, dtype, still=still)

    return made


@pytest.fixture(scope="session")
def loaded(built: Build) -> Callable[..., LoadedModel]:
    """The same family's file as overpaint loads it."""

    @cache
    def load(name: str, dtype: torch.dtype = torch.float32, still: bool = False) -> LoadedModel:
        return load_checkpoint(built(name, dtype, still).path, dtype="float32", hashing=False)

    return load


@pytest.fixture(scope="session")
def engines(built: Build) -> Iterator[Callable[[str], Engine]]:
    """name -> an engine on a family whose codec's posterior has no width, for diffusers always draws from it."""
    made: dict[str, Engine] = {}

    def engine(name: str) -> Engine:
        if name not in made:
            made[name] = Engine(built(name, torch.float32, True).path, device="cpu", dtype="float32")
        return made[name]

    yield engine
    for each in made.values():
        each.close()
