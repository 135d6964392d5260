"""Another backend is a class that answers the calls of `backends.port`, and a row; nothing above it knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.backends import choice
from overpaint.backends.port import Abilities, Backend
from overpaint.backends.torch_backend import SharedAutoencoder, TorchBackend
from overpaint.engine import Engine, stages_of
from overpaint.errors import CheckpointError, RequestError, SettingError
from overpaint.request import ControlUnit, Lora
from tests.engine.conftest import asked, painted
from tests.engine.toys import Site, hint

CALLS: list[str] = []


class FrozenBackend:
    """Stands for one whose weights are compiled: it computes through another, and can wear nothing."""

    def __init__(self, inner: TorchBackend) -> None:
        self._inner = inner
        self.device, self.networks, self.dtypes = inner.device, inner.networks, inner.dtypes

    abilities = Abilities(adapters=False, controls=None, full_precision=True)

    @property
    def codec(self) -> SharedAutoencoder:
        return self._inner.codec

    def text(self, *args: Any, **said: Any) -> Any:
        CALLS.append("text")
        return self._inner.text(*args, **said)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        CALLS.append("encode")
        return self._inner.encode(pixels)

    def decode(self, *args: Any) -> Tensor:
        CALLS.append("decode")
        return self._inner.decode(*args)

    def denoise(self, *args: Any, **said: Any) -> Tensor:
        CALLS.append("denoise")
        return self._inner.denoise(*args, **said)

    def wear(self, loras: Any, hypernets: Any, *args: Any, **said: Any) -> tuple[int, ...]:
        assert not loras
        assert not hypernets
        return ()

    remarks: tuple[str, ...] = ()

    def set_tiling(self, on: bool) -> None:
        self._inner.set_tiling(on)

    def with_codec(self, codec: SharedAutoencoder) -> FrozenBackend:
        return FrozenBackend(self._inner.with_codec(codec))


def build(*networks: Any, **said: Any) -> Backend:
    made: Any = FrozenBackend(TorchBackend(*networks, **said))
    backend: Backend = made
    return backend


@pytest.fixture
def frozen_engine(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    row = replace(choice.BACKENDS[-1], name="frozen", build=build, computes_on=lambda kind: kind == "cpu")
    monkeypatch.setattr(choice, "BACKENDS", (row, *choice.BACKENDS))
    CALLS.clear()
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as made:
        yield made


def test_the_last_row_takes_every_device() -> None:
    assert {choice.backend_for(each).name for each in ("cpu", "cuda", "cuda:1", "mps", "xpu")} == {"torch"}


def test_another_backend_is_one_row(frozen_engine: Engine, site_engine: Engine) -> None:
    assert type(stages_of(frozen_engine).backend).__name__ == "FrozenBackend"
    assert painted(frozen_engine) == painted(site_engine)
    assert dict.fromkeys(CALLS) == dict.fromkeys(("encode", "text", "denoise", "decode"))
    assert CALLS.count("denoise") == len(frozen_engine.plan(asked()).sampler.used) - 1


def test_what_it_cannot_wear_is_refused_by_name(frozen_engine: Engine) -> None:
    with pytest.raises(CheckpointError, match=r"red: .*leave it out"):
        frozen_engine.paint(asked(loras=(Lora(name="red"),)))
    with pytest.raises(CheckpointError, match=r"controls\[0\].model='edges': .*leave it out"):
        frozen_engine.paint(asked(controls=(ControlUnit(model="edges", image=hint()),)))
    assert len(frozen_engine.paint(asked()).images) == 1


def test_torch_says_what_it_can(site_engine: Engine, site: Site) -> None:
    assert stages_of(site_engine).backend.abilities == Abilities(
        adapters=True, controls=torch.float32, full_precision=True
    )
    with Engine(site.model("tiny"), device="cpu", dtype="bfloat16", settings=site.settings) as rounded:
        found = stages_of(rounded).backend.abilities
    assert found == Abilities(adapters=True, controls=torch.bfloat16, full_precision=False)


def test_automatic_is_torch_and_a_missing_package_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice.backend_for("cpu", "auto").name == "torch"
    assert choice.backend_for("cpu", "openvino").name == "openvino"
    monkeypatch.setattr("overpaint.models.find.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"backend='openvino': it is not installed; .*'overpaint\[openvino\]'"):
        Engine(site.model("tiny"), backend="openvino")
    with pytest.raises(SettingError, match="backend='tpu': choose one of auto, torch, openvino"):
        Engine(site.model("tiny"), backend="tpu")
