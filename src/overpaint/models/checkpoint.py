"""From a file to networks on a device: read the header, recognise, check that all is there, then load."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from overpaint.backends.torch_backend import TorchBackend, resolve_dtypes
from overpaint.errors import CheckpointError
from overpaint.models.detect import detect, missing_message, normalised_keys
from overpaint.models.families import UNET_PREFIX, VAE_PREFIX, ModelSpec
from overpaint.models.files import Progress, Weights, read_checkpoint
from overpaint.models.hashes import CheckpointFile, checkpoint_file, sha256_of, user_hash_cache
from overpaint.models.header import read_sidecar
from overpaint.models.vaes import VaeFile, open_vae
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import Packable, blank
from overpaint.networks.text import text_network
from overpaint.networks.unet import UNet

_PROBE_THRESHOLD = -1.0
_PLACERS = 2  # threads that convert and pack
_READ_AHEAD = 6  # tensors in memory that wait for them


@dataclass(frozen=True)
class LoadedVae:
    """The VAE file in use instead of the checkpoint's own (VAE-3)."""

    name: str
    sha256: str | None


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory: what it is, the networks, the names it goes by, and what of the file was not used."""

    spec: ModelSpec
    backend: TorchBackend
    file: CheckpointFile
    vae: LoadedVae | None = None
    ignored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.file.name_for_extra

    @property
    def title(self) -> str:
        return self.file.title

    @property
    def shorthash(self) -> str | None:
        return self.file.shorthash


@dataclass(frozen=True)
class _Source:
    """Where one network's parameters are: parameter name -> key in the file."""

    network: nn.Module
    weights: Weights
    keys: Mapping[str, str]


def load_checkpoint(
    path: Path,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    vae_path: Path | None = None,
    folders: tuple[Path, ...] = (),
    progress: Progress | None = None,
    hashing: bool = True,
    hash_cache: Path | None = None,
) -> LoadedModel:
    """Load a checkpoint. Everything is checked before the first tensor is read, and weights are copied, never mapped.

    `folders` are those that names are relative to (FILE-2); `hash_cache` is the user's unless given.
    """
    path = Path(path)
    weights = read_checkpoint(path)
    keys = normalised_keys(weights.shapes)
    spec = _named_in_errors(path, weights)
    vae = open_vae(Path(vae_path), spec.vae.latent_channels) if vae_path is not None else None
    if vae is not None:
        spec = replace(spec, vae=vae.spec)
    dtypes = resolve_dtypes(device, dtype)
    unet = blank(partial(UNet, spec.unet), device, dtypes.unet)
    codec = blank(partial(AutoencoderKL, spec.vae), device, dtypes.vae)
    texts = [blank(partial(text_network, text), device, dtypes.text) for text in spec.texts]
    sources = [_source(UNET_PREFIX, unet, weights, keys), _vae_source(codec, weights, keys, vae)]
    sources += [_source(text.prefix, tower, weights, keys) for text, tower in zip(spec.texts, texts, strict=True)]
    _check(sources, spec)
    cache = hash_cache or user_hash_cache()
    with ThreadPoolExecutor(1) as hasher:  # reading the file once more, beside the loading
        digest = hasher.submit(sha256_of, path, cache) if hashing else None
        _fill(sources, progress)
        file = checkpoint_file(path, folders, digest.result() if digest is not None else None)
    backend = TorchBackend(unet, codec, texts, device=device, dtypes=dtypes)
    if spec.family == "sd2" and spec.facts["prediction"] == "family default":
        spec = _probed(spec, backend)
    loaded_vae = (
        LoadedVae(vae.weights.path.name, sha256_of(vae.weights.path, cache) if hashing else None) if vae else None
    )
    return LoadedModel(spec, backend, file, loaded_vae, _ignored(weights, sources))


def recognise(path: Path) -> ModelSpec:
    """What a file is, from its header and the files beside it; no tensor is read."""
    return _named_in_errors(Path(path), read_checkpoint(Path(path)))


def load_vae_into(model: LoadedModel, vae_path: Path | None, *, hash_cache: Path | None = None) -> LoadedModel:
    """The same model with another VAE, or with its own again (VAE-5); the scale factor stays."""
    own = read_checkpoint(model.file.path)
    spec = _named_in_errors(model.file.path, own)
    vae = open_vae(vae_path, spec.vae.latent_channels) if vae_path is not None else None
    shape = vae.spec if vae is not None else spec.vae
    codec = blank(partial(AutoencoderKL, shape), str(model.backend.device), model.backend.dtypes.vae)
    source = _vae_source(codec, own, normalised_keys(own.shapes), vae)
    _check([source], spec)
    _fill([source], None)
    model.backend.replace_autoencoder(codec)
    cache = hash_cache or user_hash_cache()
    loaded = LoadedVae(vae.weights.path.name, sha256_of(vae.weights.path, cache)) if vae is not None else None
    return replace(model, spec=replace(model.spec, vae=shape), vae=loaded)


def _named_in_errors(path: Path, weights: Weights) -> ModelSpec:
    try:
        return detect(weights.shapes, weights.metadata, read_sidecar(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _source(prefix: str, network: nn.Module, weights: Weights, keys: Mapping[str, str]) -> _Source:
    return _Source(
        network, weights, {new.removeprefix(prefix): old for new, old in keys.items() if new.startswith(prefix)}
    )


def _vae_source(codec: nn.Module, weights: Weights, keys: Mapping[str, str], vae: VaeFile | None) -> _Source:
    if vae is None:
        return _source(VAE_PREFIX, codec, weights, keys)
    wanted = {name for name, _ in codec.named_parameters()}
    extra = sorted(set(vae.keys) - wanted)
    if extra:
        raise CheckpointError(
            f"vae={vae.weights.path.name}: it holds {len(extra)} tensors that no VAE has ({', '.join(extra[:4])}); "
            "use another file"
        )
    return _Source(codec, vae.weights, {key: key for key in vae.keys})


def _check(sources: list[_Source], spec: ModelSpec) -> None:
    """Every parameter has a tensor of its size, or nothing is loaded."""
    for source in sources:
        name = source.weights.path.name
        parameters = dict(source.network.named_parameters())
        missing = [source.keys.get(each, each) for each in parameters if each not in source.keys]
        if missing:
            raise CheckpointError(f"{name}: {missing_message(missing, spec.title)}")
        for each, parameter in parameters.items():
            shape = source.weights.shapes[source.keys[each]]
            if _without_ones(shape) != _without_ones(tuple(parameter.shape)):
                raise CheckpointError(
                    f"{name}: tensor {source.keys[each]} is {list(shape)}, "
                    f"but a {spec.title} network of these widths needs {list(parameter.shape)}; use another file"
                )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """1x1 convolutions are stored as matrices by some tools."""
    return tuple(size for size in shape if size != 1)


def _fill(sources: list[_Source], progress: Progress | None) -> None:
    """Read tensor after tensor while others are converted and packed: most time goes into touching new memory."""
    total = sum(len(list(source.network.parameters())) for source in sources)
    waiting: deque[Future[None]] = deque()
    done = 0
    with ThreadPoolExecutor(_PLACERS) as pool:
        for source in sources:
            names = {source.keys[name]: name for name, _ in source.network.named_parameters()}
            for key, tensor in source.weights.read(names):
                waiting.append(pool.submit(_place, source.network, names[key], tensor))
                if len(waiting) > _READ_AHEAD:
                    waiting.popleft().result()
                done += 1
                if progress is not None:
                    progress(done, total)
        for each in waiting:
            each.result()


@torch.no_grad()
def _place(network: nn.Module, name: str, tensor: Tensor) -> None:
    """One tensor into its layer."""
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    if isinstance(layer, Packable) and parameter == "weight":
        layer.fill(tensor)
    else:
        target: Tensor = getattr(layer, parameter)
        target.copy_(tensor.view(target.shape))


def _ignored(weights: Weights, sources: list[_Source]) -> tuple[str, ...]:
    """Keys of the file that belong to no parameter (KEYS-3): training state, schedules, moving averages."""
    used = {
        source.keys[name]
        for source in sources
        if source.weights is weights
        for name, _ in source.network.named_parameters()
    }
    return tuple(key for key in weights.shapes if key not in used)


def _probed(spec: ModelSpec, backend: TorchBackend) -> ModelSpec:
    """SD 2 files do not say what they predict: at full noise a v network answers with minus the picture (FAM-2)."""
    x = torch.full((1, spec.unet.in_channels, 8, 8), 0.5)
    context = torch.full((1, 2, spec.unet.context_dim), 0.5)
    out = backend.unet(x, torch.tensor([999.0]), context)
    is_v = float((out.cpu() - x).mean()) < _PROBE_THRESHOLD
    return replace(
        spec,
        prediction="v" if is_v else "eps",
        native_size=768 if is_v else spec.native_size,
        facts={**spec.facts, "prediction": "probe"},
    )
