"""Wherever weights live, and in whatever form, pictures are the same to the last bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from overpaint.backends.torch_backend import TorchBackend
from overpaint.engine import Engine, stages_of
from overpaint.errors import CheckpointError
from overpaint.events import Cancelled, Control, Painted, Progress, Stop
from overpaint.models import checkpoint, filling, placing
from overpaint.models.checkpoint import LoadedModel
from overpaint.models.memory import GIB, size_of
from overpaint.models.placement import MemoryNeeds, Placement, place
from overpaint.networks.layers import Packable
from overpaint.outcome import Processed
from overpaint.parts import Lora
from overpaint.settings import Settings
from tests.engine.conftest import pixels
from tests.engine.test_flow import asked, painted
from tests.engine.test_flux import STYLES
from tests.flow_toys import Tensors, save
from tests.flux_toys import FluxToy, toy_flux

PACKED = torch.float8_e4m3fn
WAYS = {
    "stored": Placement(0, stored=True),
    "texts leave": Placement(0, texts_leave=True),
    "taking turns": Placement(0, texts_leave=True, denoiser_waits=True),
    "taking turns, stored": Placement(0, stored=True, texts_leave=True, denoiser_waits=True),
    "streamed": Placement(0, texts_leave=True, streamed=3, blocks=4),
    "streamed, stored": Placement(0, stored=True, texts_leave=True, streamed=2, blocks=4),
    "all streamed": Placement(
        0, stored=True, texts_leave=True, texts_streamed=True, denoiser_waits=True, streamed=4, blocks=4
    ),
}


def in_8_bits(tensors: Tensors) -> Tensors:
    """As other programs store them: matrices in 8 bits, each beside its scale."""
    made: Tensors = {}
    for name, each in tensors.items():
        if each.dim() == 2 and name.endswith("weight"):
            scale = each.abs().max() / 400
            made[name] = (each / scale).to(PACKED)
            made[f"{name.removesuffix('weight')}scale_weight"] = scale.reshape(1)
        else:
            made[name] = each
    return made


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> FluxToy:
    toy = toy_flux(tmp_path_factory.mktemp("memory"))
    save(in_8_bits(toy.transformer), toy.path)
    for name, make in STYLES.items():
        save(make(), toy.folder / "loras" / f"{name}.safetensors")
    return toy


def engine_of(toy: FluxToy, **options: Any) -> Engine:
    settings = Settings(lora_dir=str(toy.folder / "loras"), encodings_memory=0.0, **options)
    return Engine(toy.path, device="cpu", dtype="bfloat16", settings=settings)


@pytest.fixture(scope="module")
def whole(toy: FluxToy) -> Iterator[Engine]:
    with engine_of(toy) as made:
        yield made


@pytest.fixture(params=list(WAYS))
def moving(request: pytest.FixtureRequest, toy: FluxToy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A CPU that plays a device with memory of its own, where anything is copied in every call."""
    way = WAYS[request.param]
    monkeypatch.setattr(checkpoint, "place", lambda *_, **__: way)
    with engine_of(toy, device_memory=1.0 if way.streamed else 0.0) as made:
        assert model_of(made).placement is way
        yield made


def model_of(engine: Engine) -> LoadedModel:
    return stages_of(engine).loaded


def test_pictures_are_the_same_to_the_last_bit(whole: Engine, moving: Engine) -> None:
    """With one text and the next; with a LoRA that is put on, changed and taken off; after a job that was cancelled."""
    jobs = [
        asked(steps=2),
        asked(steps=2, prompt="a cat on a mat", loras=(Lora(name="kohya", weight=0.7),)),
        asked(steps=2, loras=(Lora(name="kohya", weight=-0.4),)),
        asked(steps=2),
    ]
    expected = [painted(whole, each) for each in jobs]
    assert len({each[0] for each in expected}) == 3
    assert [painted(moving, each) for each in jobs] == expected
    box = Control()
    for event in moving.run(jobs[1], control=box):
        if isinstance(event, Progress) and event.step == 1:
            box.ask(Stop.CANCEL)
        last = event
    assert last == Cancelled(None)
    assert painted(moving, jobs[0]) == expected[0]


def test_jobs_take_turns(whole: Engine, moving: Engine) -> None:
    jobs = {name: asked(steps=1, prompt=name, exact=True) for name in ("a cat", "a red red cat")}
    ends = dict(moving.run_together(jobs, rows_per_call=1))
    found = {name: [pixels(each) for each in event.result.images] for name, event in ends.items()}  # type: ignore[union-attr]
    assert found == {name: painted(whole, job) for name, job in jobs.items()}


def denoiser_of(engine: Engine) -> torch.nn.Module:
    denoiser: torch.nn.Module = model_of(engine).backend.networks.denoiser
    return denoiser


def test_stored_weights_take_what_they_take_in_their_file(toy: FluxToy, whole: Engine) -> None:
    with engine_of(toy, weights_kept="stored") as made:
        layers = [each for each in denoiser_of(made).modules() if isinstance(each, Packable)]
        before = size_of([denoiser_of(made)])
        assert sum(each.stored is not None for each in layers) == len(layers) > 20
        painted(made, asked(steps=1))
        assert size_of([denoiser_of(made)]) == before < 0.6 * size_of([denoiser_of(whole)])
        assert all(not each.packed and each.weight.numel() == 0 for each in layers)
        assert "as was asked" in model_of(made).placement.reasons[0]


def test_text_encoders_are_read_again_for_a_new_text_alone(toy: FluxToy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was encoded is kept, so that they stay away as long as no new text comes."""
    read: list[int] = []
    kept = filling.fill

    def noted(sources: Any, progress: Any) -> None:
        read.append(len(sources))
        kept(sources, progress)

    monkeypatch.setattr(placing, "fill", noted)
    monkeypatch.setattr(checkpoint, "place", lambda *_, **__: WAYS["texts leave"])
    with Engine(toy.path, device="cpu", dtype="bfloat16") as made:
        texts = model_of(made).backend.networks.texts
        for seed, prompt, times in ((1, "a cat", 2), (2, "a cat", 2), (2, "another cat", 4)):
            assert size_of(texts) == 0
            painted(made, asked(steps=1, seed=seed, prompt=prompt))
            assert len(read) == times
        assert size_of(texts) == 0


def test_a_file_that_changes_while_its_weights_are_away(toy: FluxToy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that needs them again gets an error, and what it has painted is not lost."""
    monkeypatch.setattr(checkpoint, "place", lambda *_, **__: WAYS["texts leave"])
    file = toy.folder / "text_encoders" / "t5xxl.safetensors"
    prompts = ("a cat", "another cat")
    with (
        engine_of(toy) as made,
        pytest.raises(CheckpointError, match=r"t5xxl\.safetensors: it is not the file") as told,
    ):
        for event in made.run(asked(steps=1, prompt=prompts, iterations=2)):
            if isinstance(event, Painted):
                os.utime(file, ns=(1, 1))
    result = told.value.result
    assert isinstance(result, Processed) and len(result.images) == 1


def test_blocks_are_copied_in_every_call_and_not_kept(toy: FluxToy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "place", lambda *_, **__: WAYS["streamed"])
    with engine_of(toy, device_memory=1.0) as made:
        backend = model_of(made).backend
        assert isinstance(backend, TorchBackend) and backend.residence.lane is not None
        blocks = placing.blocks_of(backend.networks.denoiser)[1:]
        size = sum(parameter.nbytes for each in blocks for parameter in each.parameters())
        lane = backend.residence.lane
        painted(made, asked(steps=1))
        first = lane.copied
        painted(made, asked(steps=3, seed=2))
        texts = sum(parameter.nbytes for each in backend.networks.texts for parameter in each.parameters())
        assert first == size + texts
        assert lane.copied - first == 3 * size + texts
        assert not any(each.packed for block in blocks for each in block.modules() if isinstance(each, Packable))


def test_a_device_of_stated_size_decides(toy: FluxToy, whole: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the sizes of this model: a little too small for all of it, and much too small."""
    found: list[MemoryNeeds] = []

    def noted(needs: MemoryNeeds, *given: Any, **named: Any) -> Placement:
        found.append(needs)
        return place(needs, *given, **named)

    monkeypatch.setattr(checkpoint, "place", noted)
    with engine_of(toy, device_memory=64.0) as made:
        placement = model_of(made).placement
        assert not placement.moves and not placement.stored
    (needs,) = found
    with engine_of(toy, device_memory=(placement.needed / 0.95 - 1000) / GIB) as made:
        assert model_of(made).placement.texts_leave and not model_of(made).placement.streamed
        assert painted(made, asked(steps=1)) == painted(whole, asked(steps=1))
    with engine_of(toy, device_memory=(needs.working + needs.unpacking + needs.codec + 120_000) / 0.95 / GIB) as made:
        assert model_of(made).placement.streamed
        assert painted(made, asked(steps=1)) == painted(whole, asked(steps=1))
