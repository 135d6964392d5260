"""From file to networks: complete or not at all, other layouts and storage types, VAE overrides, the v probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overpaint.backends.port import Backend
from overpaint.errors import CheckpointError
from overpaint.models import checkpoint as module
from overpaint.models.checkpoint import LoadedModel, load_checkpoint, load_codec, recognise
from overpaint.models.files import read_all, read_checkpoint, write_safetensors
from overpaint.models.filling import Source, holds
from tests.tiny import make_tiny_checkpoint

Tensors = dict[str, NDArray[Any]]


def loaded(path: Path, **options: Any) -> LoadedModel:
    return load_checkpoint(path, dtype="float32", hashing=False, **options)


def rewritten(source: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    tensors = {name: tensor.numpy() for name, tensor in read_all(source).items()}
    write_safetensors(target, change(tensors), read_checkpoint(source).metadata)
    return target


def answer(backend: Backend) -> torch.Tensor:
    """Something that depends on every network."""
    ids = torch.full((1, 77), 49407)
    ids[0, :3] = torch.tensor([49406, 320, 2368])
    text = backend.text(0, ids).tokens
    generator = torch.Generator().manual_seed(0)
    mean, _ = backend.encode(torch.rand(1, 3, 32, 32, generator=generator))
    eps = backend.denoise(mean, torch.tensor([500.0]), text)
    return torch.cat([eps.flatten(), backend.decode(mean).flatten()])


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_checkpoint(tiny, dtype="float32", hash_cache=tmp_path_factory.mktemp("cache") / "hashes.json")


def test_names_and_facts(model: LoadedModel, tiny: Path) -> None:  # FILE-2 to FILE-5
    assert (model.name, model.spec.family) == ("sketch", "sd1")
    assert model.title == f"sketch.safetensors [{model.shorthash}]"
    assert model.shorthash is not None
    assert len(model.shorthash) == 10
    assert (model.vae, model.ignored) == (None, ())
    assert recognise(tiny) == model.spec


def test_every_parameter_holds_the_files_numbers(model: LoadedModel, tiny: Path) -> None:
    stored = read_all(tiny)
    unet = model.backend.networks.unet
    key = "input_blocks.3.1.transformer_blocks.0.ff.net.0.proj"
    layer: Any = unet.get_submodule(key)
    assert torch.equal(layer.dense_weight(), stored[f"model.diffusion_model.{key}.weight"].float())
    assert torch.equal(layer.bias, stored[f"model.diffusion_model.{key}.bias"].float())
    networks = model.backend.networks
    prefixes = {"model.diffusion_model.": networks.unet, "first_stage_model.": networks.autoencoder}
    for prefix, network in {**prefixes, model.spec.texts[0].prefix: networks.texts[0]}.items():
        keys = {name: prefix + name for name, _ in network.named_parameters()}
        assert holds(network, Source(network, read_checkpoint(tiny), keys))


def test_progress_counts_every_tensor(tiny: Path) -> None:
    told: list[tuple[int, int]] = []
    loaded(tiny, progress=lambda done, of: told.append((done, of)))
    assert told[0] == (1, len(told))
    assert told[-1] == (len(told), len(told))


def test_old_text_keys_and_training_state(model: LoadedModel, tiny: Path, tmp_path: Path) -> None:  # KEYS-1, KEYS-3
    def change(tensors: Tensors) -> Tensors:
        old = {name.replace("transformer.text_model.", "transformer."): each for name, each in tensors.items()}
        ema = {f"model_ema.{i}": np.zeros(2, dtype=np.float32) for i in range(3)}
        return {**old, **ema, "alphas_cumprod": np.zeros(4, dtype=np.float32)}

    other = loaded(rewritten(tiny, tmp_path / "old.safetensors", change))
    assert torch.equal(answer(other.backend), answer(model.backend))
    assert sorted(other.ignored) == ["alphas_cumprod", "model_ema.0", "model_ema.1", "model_ema.2"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickled_checkpoint_is_the_same_model(model: LoadedModel, tiny: Path, tmp_path: Path, zipped: bool) -> None:
    saved = {"state_dict": read_all(tiny), "global_step": np.int64(5)}
    torch.save(saved, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    (tmp_path / "x.yaml").write_text("model: {params: {unet_config: {params: {num_heads: 8}}}}")
    other = loaded(tmp_path / "x.ckpt")
    assert other.spec.facts["heads"] == "sidecar"
    assert torch.equal(answer(other.backend), answer(model.backend))


def test_float32_storage(model: LoadedModel, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    rewritten(tiny, path, lambda tensors: {name: each.astype(np.float32) for name, each in tensors.items()})
    assert torch.equal(answer(loaded(path).backend), answer(model.backend))


def test_attention_of_the_codec_stored_as_matrices(model: LoadedModel, tiny: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {name: each[:, :, 0, 0] if "attn_1.q.weight" in name else each for name, each in tensors.items()}

    other = loaded(rewritten(tiny, tmp_path / "x.safetensors", change))
    assert torch.equal(answer(other.backend), answer(model.backend))


def test_missing_tensors_are_told_before_anything_is_read(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {name: each for name, each in tensors.items() if "time_embed.2." not in name}

    path = rewritten(tiny, tmp_path / "torn.safetensors", change)
    monkeypatch.setattr(module, "fill", lambda *args: pytest.fail("tensors were read"))
    with pytest.raises(CheckpointError, match=r"torn\.safetensors: 2 tensors that a Stable Diffusion 1 .*time_embed"):
        loaded(path)


def test_tensor_of_another_size(tiny: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {**tensors, "model.diffusion_model.out.0.weight": np.zeros(31, dtype=np.float16)}

    with pytest.raises(CheckpointError, match=r"out\.0\.weight is \[31\].*needs \[32\]"):
        loaded(rewritten(tiny, tmp_path / "x.safetensors", change))


def test_cut_off_file(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(tiny.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="behind the end"):
        loaded(tmp_path / "x.safetensors")


def test_sidecar_that_cannot_be_read(tiny: Path, tmp_path: Path) -> None:
    path = rewritten(tiny, tmp_path / "x.safetensors", lambda tensors: tensors)
    (tmp_path / "x.yaml").write_text("model: [")
    with pytest.raises(CheckpointError, match=r"x\.yaml"):
        recognise(path)
    (tmp_path / "x.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(CheckpointError, match=r"x\.yaml"):
        recognise(path)


@pytest.fixture
def other_vae(tmp_path: Path) -> Path:
    """A VAE of its own, in a file with bare names."""
    prefix = "first_stage_model."
    source = make_tiny_checkpoint(tmp_path / "seed1.safetensors", seed=1)

    def change(tensors: Tensors) -> Tensors:
        bare = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        return {**bare, "loss.logvar": np.zeros(1, dtype=np.float32)}

    return rewritten(source, tmp_path / "other.vae.safetensors", change)


def test_vae_of_another_file(model: LoadedModel, tiny: Path, other_vae: Path, tmp_path: Path) -> None:  # VAE-3 to VAE-5
    cache = tmp_path / "hashes.json"
    with_vae = load_checkpoint(tiny, dtype="float32", vae_path=other_vae, hash_cache=cache)
    assert with_vae.vae is not None
    assert with_vae.vae.name == "other.vae.safetensors"
    assert with_vae.vae.sha256 is not None
    z = torch.randn(1, 4, 4, 4)
    own, other = model.backend.decode(z), with_vae.backend.decode(z)
    assert not torch.equal(own, other)
    restored = with_vae.with_codec(load_codec(with_vae, None, hash_cache=cache))
    assert restored.vae is None
    assert torch.equal(restored.backend.decode(z), own)
    again = restored.with_codec(load_codec(restored, other_vae, hash_cache=cache))
    assert again.vae == with_vae.vae
    assert torch.equal(again.backend.decode(z), other)


def test_vae_with_tensors_that_no_vae_has(tiny: Path, other_vae: Path, tmp_path: Path) -> None:  # VAE-4
    path = rewritten(
        other_vae, tmp_path / "odd.safetensors", lambda tensors: {**tensors, "stranger": np.zeros(1, dtype=np.float32)}
    )
    with pytest.raises(CheckpointError, match="stranger"):
        loaded(tiny, vae_path=path)


def test_probe_for_v_prediction(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:  # FAM-2
    seen: list[tuple[torch.Tensor, ...]] = []

    def network(shift: float) -> Callable[..., torch.Tensor]:
        def call(x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            seen.append((x, timesteps, context))
            return x + shift

        return call

    for shift, prediction, size in ((-1.2, "v", 768), (-0.4, "eps", 512)):
        monkeypatch.setattr(model.backend, "denoise", network(shift))
        spec = module._probed(model.spec, model.backend)
        assert (spec.prediction, spec.native_size, spec.facts["prediction"]) == (prediction, size, "probe")
    x, timesteps, context = seen[0]
    assert torch.equal(x, torch.full((1, 4, 8, 8), 0.5))
    assert torch.equal(context, torch.full((1, 2, 64), 0.5))
    assert timesteps.tolist() == [999]
