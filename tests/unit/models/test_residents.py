"""Several models in memory: kept, shared, forgotten, and never mixed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.backends.port import Backend
from overpaint.errors import CheckpointError
from overpaint.models import checkpoint, memory, residents
from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.families import SD1_SPEC, AutoencoderSpec, UNetSpec
from overpaint.models.files import read_all, read_checkpoint, write_safetensors
from overpaint.models.memory import GIB, size_of
from overpaint.models.residents import Resident, Residents
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import Packable
from overpaint.networks.text import ClipText
from overpaint.networks.unet import UNet
from overpaint.settings import Settings

UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.", "first_stage_model."
UNET_SPEC = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1,),
    num_res_blocks=1,
    input_depths=(1,),
    middle_depth=1,
    output_depths=(1, 1),
    heads=4,
    context_dim=16,
    linear_projections=False,
)
VAE_SPEC = AutoencoderSpec(channels=32, channel_mult=(1,), num_res_blocks=1)
TEXT_SPEC = replace(SD1_SPEC.texts[0], width=16, layers=1, heads=1, inner=32, vocabulary=99)
ROOMY = Settings(model_memory=4.0)
TIGHT = Settings(model_memory=1e-6)  # only the one asked for


def answer(backend: Backend) -> torch.Tensor:
    """Something that depends on every network."""
    text = backend.text(0, torch.arange(77)[None]).tokens
    mean, _ = backend.encode(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    eps = backend.denoise(mean, torch.tensor([500.0]), text)
    return torch.cat([eps.flatten(), backend.decode(mean).flatten()])


def decoded(resident: Resident) -> torch.Tensor:
    return resident.model.backend.decode(torch.ones(1, 4, 4, 4))


def made(path: Path, seed: int) -> Path:
    """A checkpoint of SD 1's layout that is as small as can be."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    with torch.device("meta"):
        networks = {UNET: UNet(UNET_SPEC), VAE: AutoencoderKL(VAE_SPEC), TEXT_SPEC.prefix: ClipText(TEXT_SPEC)}
    for prefix, network in networks.items():
        for name, each in network.named_parameters():
            values = rng.normal(0.0 if each.dim() > 1 else 0.5, max(1, each[0].numel()) ** -0.5, tuple(each.shape))
            tensors[prefix + name] = values.astype(np.float16)
    metadata = {"overpaint.num_heads": json.dumps(UNET_SPEC.heads), "overpaint.text_heads": json.dumps([1])}
    write_safetensors(path, tensors, metadata)
    return path


def written(path: Path, *parts: tuple[Path, str]) -> Path:
    """A checkpoint of parts of others: those of each file whose keys begin so."""
    tensors = {
        name: each.numpy()
        for source, start in parts
        for name, each in read_all(source).items()
        if name.startswith(start)
    }
    write_safetensors(path, tensors, read_checkpoint(parts[0][0]).metadata)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A and B differ in everything, twin has A's text encoder and VAE, vae.safetensors is B's."""
    folder = tmp_path_factory.mktemp("store")
    a, b = (made(folder / f"{name}.safetensors", seed) for seed, name in enumerate("ab"))
    written(folder / "twin.safetensors", (b, "model."), (a, TEXT), (a, VAE))
    bare = {name.removeprefix(VAE): each.numpy() for name, each in read_all(b).items() if name.startswith(VAE)}
    write_safetensors(folder / "vae.safetensors", bare, {})
    return folder


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    """The same files, for tests that change them."""
    return Path(shutil.copytree(store, tmp_path / "store"))


def many(**options: Any) -> Residents:
    return Residents("cpu", "float32", hashing=False, **options)


@pytest.fixture(scope="module")
def alone(store: Path) -> dict[str, torch.Tensor]:
    """What each model answers when it is the only one."""
    return {
        name: answer(load_checkpoint(store / f"{name}.safetensors", dtype="float32", hashing=False).backend)
        for name in ("a", "b", "twin")
    }


def denoiser(resident: Resident) -> torch.nn.Module:
    return resident.model.backend.networks.denoiser


def watched(resident: Resident) -> weakref.ref[torch.nn.Module]:
    return weakref.ref(resident.model.backend.networks.unet)


def is_alive(ref: weakref.ref[torch.nn.Module]) -> bool:
    gc.collect()
    return ref() is not None


def test_second_asking_loads_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, told = many(), list[tuple[int, int]]()
    first = models.have(store / "a.safetensors", None, ROOMY, lambda done, of: told.append((done, of)))
    assert told[-1] == (len(told), len(told))
    monkeypatch.setattr(residents, "load_checkpoint", lambda *args, **named: pytest.fail("loaded again"))
    again = models.have(
        Path(os.path.relpath(store / "a.safetensors")), None, ROOMY, lambda done, of: pytest.fail("told")
    )
    assert again.model.backend.networks.unet is first.model.backend.networks.unet
    assert models.recognise(store / "a.safetensors", ROOMY) == again.model.spec


def test_names_follow_the_jobs_folders(store: Path) -> None:  # FILE-2
    models = many()
    assert models.have(store / "a.safetensors", None, ROOMY).model.title == "a.safetensors"
    above = Settings(models_dir=str(store.parent))
    assert models.have(store / "a.safetensors", None, above).model.title == str(Path(store.name) / "a.safetensors")


@pytest.mark.parametrize("settings", [TIGHT, ROOMY], ids=["one at a time", "both"])
def test_taking_turns_is_as_using_each_alone(store: Path, alone: dict[str, torch.Tensor], settings: Settings) -> None:
    models = many()
    for name in ("a", "b", "a", "twin", "a", "twin", "b"):
        resident = models.have(store / f"{name}.safetensors", None, settings)
        assert torch.equal(answer(resident.model.backend), alone[name])
        assert resident.model.name == name
    assert len(models.paths()) == (1 if settings is TIGHT else 3)


def test_least_recently_used_are_forgotten(store: Path) -> None:
    models = many()
    a = models.have(store / "a.safetensors", None, ROOMY)
    gone, size = watched(a), size_of(models._entries[0].networks())
    del a
    models.have(store / "b.safetensors", None, ROOMY)
    models.have(store / "a.safetensors", None, ROOMY)
    assert [path.stem for path in models.paths()] == ["b", "a"]
    models.have(store / "twin.safetensors", None, Settings(model_memory=size / GIB))
    assert [path.stem for path in models.paths()] == ["a", "twin"]
    assert is_alive(gone)
    models.have(store / "b.safetensors", None, TIGHT)
    assert [path.stem for path in models.paths()] == ["b"]
    assert not is_alive(gone)


def test_what_a_job_holds_stays(store: Path, alone: dict[str, torch.Tensor]) -> None:
    models = many()
    with models.have(store / "a.safetensors", store / "vae.safetensors", TIGHT).held() as a:
        models.have(store / "b.safetensors", None, TIGHT)
        models.have(store / "twin.safetensors", None, TIGHT)
        assert sorted(path.stem for path in models.paths()) == ["a", "twin", "vae"]
        again = models.have(store / "a.safetensors", store / "vae.safetensors", TIGHT)
        assert again.model.backend.networks.unet is a.model.backend.networks.unet
    models.have(store / "b.safetensors", None, TIGHT)
    assert [path.stem for path in models.paths()] == ["b"]


def test_a_failure_leaves_everything_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = many()
    a = models.have(folder / "a.safetensors", None, TIGHT)
    (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-1000])
    (folder / "folder.safetensors").mkdir()
    for name in ("b", "nothing", "folder"):
        with pytest.raises(CheckpointError, match=name):
            models.have(folder / f"{name}.safetensors", None, TIGHT)
    with pytest.raises(CheckpointError, match=r"text\.safetensors"):
        models.have(
            folder / "twin.safetensors", written(folder / "text.safetensors", (folder / "a.safetensors", TEXT)), TIGHT
        )
    assert models.have(folder / "a.safetensors", None, TIGHT).model.backend.networks == a.model.backend.networks

    def no_disk(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "fill", no_disk)
    with pytest.raises(CheckpointError, match=r"twin\.safetensors: it cannot be read \(Input/output error\)"):
        models.have(folder / "twin.safetensors", None, TIGHT)
    assert [path.stem for path in models.paths()] == ["a"]


# -- VAEs ---------------------------------------------------------------------------------------------------------


def test_one_model_with_two_vaes_in_turns(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # VAE-5
    models, a, vae = many(), store / "a.safetensors", store / "vae.safetensors"
    own, other = models.have(a, None, TIGHT), models.have(a, vae, ROOMY)
    reads = list[str]()
    monkeypatch.setattr(residents, "load_codec", lambda model, path, **named: reads.append(str(path)))
    assert own.model.backend.networks.unet is other.model.backend.networks.unet
    assert (own.model.vae, other.model.vae and other.model.vae.name) == (None, "vae.safetensors")
    assert own.model.spec.latent.scale == other.model.spec.latent.scale
    b = load_checkpoint(store / "b.safetensors", dtype="float32", hashing=False).backend
    assert torch.equal(decoded(other), b.decode(torch.ones(1, 4, 4, 4)))
    assert not torch.equal(decoded(own), decoded(other))
    assert torch.equal(decoded(models.have(a, None, ROOMY)), decoded(own))
    assert torch.equal(decoded(models.have(a, vae, ROOMY)), decoded(other))
    assert reads == []


def test_own_vae_is_read_when_it_is_first_wanted(store: Path, alone: dict[str, torch.Tensor]) -> None:
    models, a = many(), store / "a.safetensors"
    with_file = models.have(a, store / "vae.safetensors", ROOMY)
    assert with_file.model.ignored == ()
    told: list[int] = []
    own = models.have(a, None, ROOMY, lambda done, of: told.append(of))
    assert len(told) == len(list(own.model.backend.networks.autoencoder.parameters()))
    assert torch.equal(answer(own.model.backend), alone["a"])


def test_vae_file_is_shared_and_forgotten_by_itself(store: Path) -> None:
    models, vae = many(), store / "vae.safetensors"
    a, b = (models.have(store / f"{name}.safetensors", vae, ROOMY) for name in "ab")
    assert a.model.backend.codec is b.model.backend.codec
    gone = weakref.ref(a.model.backend.codec)
    del a, b
    models.have(store / "b.safetensors", None, ROOMY)
    models.have(store / "b.safetensors", None, TIGHT)
    gc.collect()
    assert [path.stem for path in models.paths()] == ["b"]
    assert gone() is None


def test_vae_that_does_not_fit(store: Path, folder: Path) -> None:
    models = many()
    models.have(folder / "a.safetensors", None, ROOMY)
    bare = read_all(folder / "vae.safetensors")
    wide = {name: np.zeros(tuple(each.shape), np.float16) for name, each in bare.items()}
    for name, shape in (("decoder.conv_in.weight", 1), ("post_quant_conv.weight", 0)):
        wide[name] = np.concatenate([wide[name]] * 2, axis=shape)
    write_safetensors(folder / "wide.safetensors", wide, {})
    for path in ("a", "b"):
        with pytest.raises(CheckpointError, match=r"wide\.safetensors.*channels"):
            models.have(folder / f"{path}.safetensors", folder / "wide.safetensors", ROOMY)
    assert [path.stem for path in models.paths()] == ["a"]


def test_fallback_of_one_vae_leaves_the_others(store: Path) -> None:  # DEC-2
    models = Residents("cpu", "bfloat16", hashing=False)
    vae = store / "vae.safetensors"
    own, a, b = (models.have(store / f"{x}.safetensors", v, ROOMY) for x, v in (("a", None), ("a", vae), ("b", vae)))
    before = decoded(own)
    decode = (codec := a.model.backend.networks.autoencoder).decode
    codec.decode = lambda z: decode(z) * (float("nan") if z.dtype is torch.bfloat16 else 1)  # type: ignore[method-assign]
    assert torch.equal(decoded(a), decoded(b))
    assert a.model.backend.dtypes.vae is b.model.backend.dtypes.vae is torch.float32
    assert own.model.backend.dtypes.vae is torch.bfloat16
    assert torch.equal(decoded(own), before)
    later = models.have(store / "twin.safetensors", vae, ROOMY)
    assert not decoded(later).isnan().any()
    assert models.have(store / "twin.safetensors", None, ROOMY).model.backend.dtypes.vae is torch.bfloat16


# -- text encoders ------------------------------------------------------------------------------------------------


def test_equal_text_encoders_are_one(store: Path, alone: dict[str, torch.Tensor]) -> None:
    models, told = many(), list[int]()
    a = models.have(store / "a.safetensors", None, ROOMY)
    size = size_of(models._entries[0].networks())
    twin = models.have(store / "twin.safetensors", None, ROOMY, lambda done, of: told.append(of))
    (text,) = a.model.backend.networks.texts
    assert twin.model.backend.networks.texts == (text,)
    assert told[0] == len(told)
    assert models._size_of_idle(models._idle()) == 2 * size - size_of([text])
    assert models._size_of_idle(models._idle()[:1]) == size - size_of([text])
    b = models.have(store / "b.safetensors", None, ROOMY)
    assert b.model.backend.networks.texts != (text,)
    del a, twin, b
    twin = models.have(store / "twin.safetensors", None, TIGHT)
    assert [path.stem for path in models.paths()] == ["twin"]
    assert torch.equal(answer(twin.model.backend), alone["twin"])


def test_changed_text_encoder_is_not_shared(store: Path, alone: dict[str, torch.Tensor]) -> None:
    changed: list[torch.nn.Module] = []
    models = many(is_bare=lambda network: network not in changed)
    (text,) = models.have(store / "a.safetensors", None, ROOMY).model.backend.networks.texts
    changed.append(text)
    twin = models.have(store / "twin.safetensors", None, ROOMY).model.backend
    assert twin.networks.texts != (text,)
    assert torch.equal(answer(twin), alone["twin"])


def test_comparison_stops_at_the_first_difference(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = many()
    (text,) = models.have(store / "a.safetensors", None, ROOMY).model.backend.networks.texts
    unpacked: list[Any] = []
    dense: Callable[[Packable], torch.Tensor] = Packable.dense_weight

    def counted(layer: Packable) -> torch.Tensor:
        unpacked.append(layer)
        return dense(layer)

    monkeypatch.setattr(Packable, "dense_weight", counted)
    (other,) = models.have(store / "b.safetensors", None, ROOMY).model.backend.networks.texts
    assert other is not text
    assert len(unpacked) <= 1


def test_text_encoder_of_one_different_number_is_not_shared(folder: Path) -> None:
    tensors = {name: each.numpy().copy() for name, each in read_all(folder / "a.safetensors").items()}
    key = TEXT + "transformer.text_model.embeddings.token_embedding.weight"  # the last that is compared
    tensors[key][-1, -1] += 1
    write_safetensors(folder / "near.safetensors", tensors, read_checkpoint(folder / "a.safetensors").metadata)
    models = many()
    a, near = (models.have(folder / f"{name}.safetensors", None, ROOMY).model.backend for name in ("a", "near"))
    assert near.networks.texts != a.networks.texts


# -- files that change --------------------------------------------------------------------------------------------


def replaced(folder: Path, target: str, source: str) -> None:
    shutil.copyfile(folder / f"{source}.safetensors", folder / f"{target}.safetensors")
    os.utime(folder / f"{target}.safetensors", ns=(1, 1))


def test_swapped_file_is_loaded_again(folder: Path, alone: dict[str, torch.Tensor]) -> None:
    models, a = many(), folder / "a.safetensors"
    old = models.have(a, None, ROOMY)
    old.hold()
    replaced(folder, "a", "b")
    new = models.have(a, None, ROOMY)
    assert torch.equal(answer(new.model.backend), alone["b"])
    assert torch.equal(answer(old.model.backend), alone["a"])
    assert denoiser(new) is not denoiser(old)
    assert models.paths() == (a, a)
    old.release()
    models.have(a, None, ROOMY)
    assert models.paths() == (a,)


def test_swapped_configuration_counts(folder: Path) -> None:
    models, a = many(), folder / "a.safetensors"
    first = models.have(a, None, ROOMY).model.backend
    (folder / "a.yaml").write_text("model: {params: {parameterization: v}}")
    again = models.have(a, None, ROOMY).model
    assert again.backend.networks.unet is not first.networks.unet
    assert again.spec == models.recognise(a, ROOMY)


def test_swapped_vae(folder: Path) -> None:
    models, a, vae = many(), folder / "a.safetensors", folder / "vae.safetensors"
    first = models.have(a, vae, ROOMY)
    written(vae, (a, TEXT))
    with pytest.raises(CheckpointError, match=r"vae\.safetensors"):
        models.have(a, vae, ROOMY)
    assert not decoded(first).isnan().any()


def test_failed_swap_leaves_the_held_one(folder: Path, alone: dict[str, torch.Tensor]) -> None:
    models, a = many(), folder / "a.safetensors"
    with models.have(a, None, ROOMY).held() as old:
        a.write_bytes(b"nonsense")
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            models.have(a, None, ROOMY)
        assert torch.equal(answer(old.model.backend), alone["a"])


def test_vanished_file_serves_only_who_holds_it(folder: Path) -> None:
    models, a = many(), folder / "a.safetensors"
    held = models.have(a, None, ROOMY)
    a.rename(folder / "elsewhere")
    for ask in (models.have, lambda path, vae, settings: models.recognise(path, settings)):
        with pytest.raises(CheckpointError, match=r"a\.safetensors: the file is gone"):
            ask(a, None, ROOMY)
    with held.held():
        assert denoiser(models.have(a, None, ROOMY)) is denoiser(held)
    (folder / "elsewhere").rename(a)
    assert denoiser(models.have(a, None, ROOMY)) is denoiser(held)


def test_file_that_changes_while_it_is_read(folder: Path) -> None:
    models, b = many(), folder / "b.safetensors"
    with pytest.raises(CheckpointError, match=r"b\.safetensors: it changed while it was read"):
        models.have(b, None, ROOMY, lambda done, of: os.utime(b, ns=(done, done)))
    with pytest.raises(CheckpointError, match=r"b\.safetensors: it changed while it was read"):
        models.have(b, None, ROOMY, lambda done, of: os.truncate(b, 4096 * done))
    assert models.paths() == ()


# -- memory -------------------------------------------------------------------------------------------------------


@pytest.fixture
def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the next loads fail."""

    def arrange(failures: int) -> None:
        waiting: Iterator[int] = iter(range(failures))
        genuine = load_checkpoint

        def load(*args: Any, **named: Any) -> LoadedModel:
            if next(waiting, None) is not None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
            return genuine(*args, **named)

        monkeypatch.setattr(residents, "load_checkpoint", load)

    return arrange


def test_out_of_memory_forgets_the_rest_and_tries_again(store: Path, out_of_memory: Callable[[int], None]) -> None:
    models = many()
    a = models.have(store / "a.safetensors", None, ROOMY)
    models.have(store / "twin.safetensors", store / "vae.safetensors", ROOMY)
    with a.held():
        out_of_memory(1)
        models.have(store / "b.safetensors", None, ROOMY)
    assert [path.stem for path in models.paths()] == ["a", "b"]


def test_out_of_memory_for_good_is_one_sentence(store: Path, out_of_memory: Callable[[int], None]) -> None:
    models = many()
    a = models.have(store / "a.safetensors", None, ROOMY)
    a.hold()
    out_of_memory(2)
    with pytest.raises(CheckpointError, match=r"b\.safetensors: there is not enough memory .* cpu; close") as caught:
        models.have(store / "b.safetensors", None, ROOMY)
    assert caught.value.__context__ is None
    assert denoiser(models.have(store / "a.safetensors", None, ROOMY)) is denoiser(a)


def test_other_failures_of_torch_pass(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **named: Any) -> LoadedModel:
        raise RuntimeError("something else")

    monkeypatch.setattr(residents, "load_checkpoint", fail)
    with pytest.raises(RuntimeError, match="something else"):
        many().have(store / "a.safetensors", None, ROOMY)


def test_room_is_made_before_a_model_is_filled(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = many()
    for name in ("a", "b"):
        models.have(store / f"{name}.safetensors", None, ROOMY)
    needed = size_of(models._entries[0].networks())
    free = [0.5 * needed, 1.5 * needed]
    monkeypatch.setattr(residents, "free_memory", lambda device: int(free.pop(0)))
    seen: list[tuple[str, ...]] = []
    told = lambda done, of: seen.append(tuple(path.stem for path in models.paths()))  # noqa: E731
    models.have(store / "twin.safetensors", None, ROOMY, told)
    assert seen[0] == ("b",)
    assert free == []


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_LIMITS", tmp_path)
    machine = memory.total_memory(cpu)
    assert machine > GIB / 2
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.total_memory(cpu) == machine
    (tmp_path / "memory.max").write_text("4096000\n")
    (tmp_path / "memory.stat").write_text("anon 96000\nfile 500000\n")
    assert memory.total_memory(cpu) == 4096000
    assert memory.free_memory(cpu) == 4000000
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "nothing")
    (tmp_path / "memory.max").unlink()
    assert memory.free_memory(cpu) is None
