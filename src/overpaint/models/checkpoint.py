"""From a file to networks on a device: read the header, recognise, check that all is there, then load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from overpaint.backends.choice import BackendKind, backend_for, dtypes_for
from overpaint.backends.port import Backend, Dtypes
from overpaint.backends.residence import Residence
from overpaint.backends.torch_backend import SharedAutoencoder, TorchBackend
from overpaint.errors import CheckpointError
from overpaint.models.detect import detect, normalised_keys
from overpaint.models.families import UNET_PREFIX, VAE_PREFIX, AutoencoderSpec, ModelSpec
from overpaint.models.files import Progress, Weights
from overpaint.models.filling import Source, check, fill, holds, source_of
from overpaint.models.hashes import CheckpointFile, checkpoint_file, sha256_of, stamp_of, user_hash_cache
from overpaint.models.header import read_sidecar
from overpaint.models.memory import room_on
from overpaint.models.opened import open_model
from overpaint.models.placement import WHOLE, Placement, WeightsForm, place
from overpaint.models.placing import Parts, make_room, needs_of
from overpaint.models.vaes import open_vae
from overpaint.models.working_memory import unpacking_bytes, working_bytes
from overpaint.networks.codecs import CodecNetwork, codec_network
from overpaint.networks.denoisers import DenoiserNetwork, denoiser_network
from overpaint.networks.layers import laid_out, take_room
from overpaint.networks.text_networks import TextNetwork, text_network

_PROBE_THRESHOLD = -1.0


@dataclass(frozen=True)
class LoadedVae:
    """The VAE file in use instead of the checkpoint's own (VAE-3)."""

    name: str
    sha256: str | None


@dataclass(frozen=True)
class LoadedCodec:
    """An autoencoder in memory, and the file it came from if it is not the checkpoint's own."""

    codec: SharedAutoencoder
    spec: AutoencoderSpec
    file: LoadedVae | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory: what it is, the networks, the names it goes by, and what of the file was not used."""

    spec: ModelSpec
    backend: Backend
    file: CheckpointFile
    vae: LoadedVae | None = None
    ignored: tuple[str, ...] = ()
    placement: Placement = WHOLE

    @property
    def name(self) -> str:
        return self.file.name_for_extra

    @property
    def title(self) -> str:
        return self.file.title

    @property
    def shorthash(self) -> str | None:
        return self.file.shorthash

    def with_codec(self, loaded: LoadedCodec) -> LoadedModel:
        """The same U-Net and text encoders beside another autoencoder; the scale factor stays (VAE-5)."""
        spec = replace(self.spec, vae=loaded.spec)
        return replace(self, spec=spec, backend=self.backend.with_codec(loaded.codec), vae=loaded.file)


def _no_room_needed(needed: int) -> None:
    """Who loads one model makes no room for it."""


@dataclass(frozen=True)
class AtHand:
    """What is in memory already and may be shared, and who hears how many bytes are about to be filled."""

    codec: LoadedCodec | None = None  # used instead of the checkpoint's own
    texts: tuple[TextNetwork, ...] = ()  # used where they hold the file's numbers
    make_room: Callable[[int], None] = _no_room_needed


_NOTHING_AT_HAND = AtHand()


@dataclass(frozen=True)
class MemoryWanted:
    """How a user wants the memory of the device to be used."""

    weights: WeightsForm = "auto"
    device_memory: float = 0.0  # GiB that a model may take of it; 0: what is free


_AS_IT_IS, _WHOLE = MemoryWanted(), MemoryWanted("whole")


@dataclass(frozen=True)
class _Opened:
    """A checkpoint whose header was read."""

    spec: ModelSpec
    weights: Weights
    keys: Mapping[str, str]  # our name -> the file's


def load_checkpoint(
    path: Path,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    backend: BackendKind | None = None,
    vae_path: Path | None = None,
    folders: tuple[Path, ...] = (),
    progress: Progress | None = None,
    hashing: bool = True,
    hash_cache: Path | None = None,
    text_encoders: tuple[Path, ...] = (),
    at_hand: AtHand = _NOTHING_AT_HAND,
    memory: MemoryWanted = _AS_IT_IS,
) -> LoadedModel:
    """Load a checkpoint. Everything is checked before the first tensor is read, and weights are copied, never mapped.

    `folders` are those that names are relative to (FILE-2); `hash_cache` is the user's unless given; `text_encoders`
    are files for checkpoints that bring none.
    """
    path, vae_path = Path(path), Path(vae_path) if vae_path is not None else None
    kind = backend or backend_for(device)
    cache = (hash_cache or user_hash_cache()) if hashing else None
    files = (path, *text_encoders, *([vae_path] if vae_path is not None else []))
    with _steady(*files):
        opened = _open(path, text_encoders)
        dtypes = dtypes_for(opened.spec, kind, device, dtype)
        made = _lay_out(opened, vae_path, at_hand.codec, dtypes)
        check(made.sources, opened.spec.title)
        made = made.sharing(at_hand.texts, torch.device(device))
        placed = _placed(made, opened, at_hand, memory if kind.name == "torch" else _WHOLE, device, files)
        with ThreadPoolExecutor(1) as hasher:  # reading the file once more, beside the loading
            digest = hasher.submit(sha256_of, path, cache) if cache is not None and path.is_file() else None
            fill(placed.now, progress)
            file = checkpoint_file(path, folders, digest.result() if digest is not None else None)
    built = kind.build(made.denoiser, made.autoencoder, made.texts, device=device, dtypes=dtypes)
    if isinstance(built, TorchBackend):
        built.residence = placed.residence()
    spec = replace(opened.spec, vae=made.vae)
    if spec.family == "sd2" and spec.facts["prediction"] == "family default":
        spec = _probed(spec, built)
    vae = at_hand.codec.file if at_hand.codec is not None else _named(vae_path, cache)
    return LoadedModel(spec, built, file, vae, made.ignored, placed.placement)


def load_codec(
    model: LoadedModel,
    vae_path: Path | None,
    *,
    backend: BackendKind | None = None,
    progress: Progress | None = None,
    hashing: bool = True,
    hash_cache: Path | None = None,
    text_encoders: tuple[Path, ...] = (),
) -> LoadedCodec:
    """The autoencoder of a VAE file for this model's latents, or the checkpoint's own where no file is given."""
    device, dtype = model.backend.device, model.backend.dtypes.vae
    with _steady(model.file.path if vae_path is None else vae_path):
        if vae_path is None:
            blank_one = _own_codec(_open(model.file.path, text_encoders), dtype)
        else:
            blank_one = _codec_of_file(vae_path, model.spec.vae, dtype)
        check([blank_one.source], model.spec.title)
        take_room(blank_one.network.modules(), device)
        fill([blank_one.source], progress)
    named = _named(vae_path, (hash_cache or user_hash_cache()) if hashing else None)
    return LoadedCodec((backend or backend_for(device)).codec(blank_one.network, dtype), blank_one.spec, named)


def recognise(path: Path, text_encoders: tuple[Path, ...] = ()) -> ModelSpec:
    """What a file is, from its header and the files beside it; no tensor is read."""
    path = Path(path)
    with _steady(path, *text_encoders):
        return _open(path, text_encoders).spec


def _open(path: Path, text_encoders: tuple[Path, ...]) -> _Opened:
    """The one place where checkpoints are opened."""
    weights = open_model(path, text_encoders=text_encoders)
    try:
        spec = detect(weights.shapes, weights.metadata, read_sidecar(path), path.name)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    keys = normalised_keys(weights.shapes)
    return _Opened(replace(spec, in_files=_in_files(spec, weights, keys)) if spec.is_flow else spec, weights, keys)


def _in_files(spec: ModelSpec, weights: Weights, keys: Mapping[str, str]) -> dict[str, int]:
    """Bytes of each part as it is stored, by the names that `parameters_of` gives."""
    prefixes = {"transformer": (UNET_PREFIX,), "text_encoders": tuple(each.prefix for each in spec.texts)}
    prefixes["vae"] = (VAE_PREFIX,)
    found = {
        part: sum(weights.sizes.get(key, 0) for new, key in keys.items() if new.startswith(starts))
        for part, starts in prefixes.items()
    }
    return {part: size for part, size in found.items() if size}


@contextmanager
def _steady(*paths: Path) -> Iterator[None]:
    """Whatever a file that changes while it is read may break: one clear error."""
    before = {path: stamp_of(path) for path in paths}
    failed: Exception | None = None
    try:
        yield
    except (CheckpointError, OSError) as error:
        failed = error
    changed = next((path for path, stamp in before.items() if stamp_of(path) != stamp), None)
    if changed is not None:
        raise CheckpointError(f"{changed.name}: it changed while it was read; wait until it is whole") from failed
    if isinstance(failed, OSError):
        name = Path(failed.filename).name if isinstance(failed.filename, str) else paths[0].name
        raise CheckpointError(
            f"{name}: it cannot be read ({failed.strerror or failed}); check the file and its rights"
        ) from failed
    if failed is not None:
        raise failed


@dataclass(frozen=True)
class _Made:
    """The networks of a checkpoint; `sources` tell which of them are blank, and where their numbers are."""

    denoiser: DenoiserNetwork
    autoencoder: CodecNetwork | SharedAutoencoder
    vae: AutoencoderSpec
    texts: tuple[TextNetwork, ...]
    sources: tuple[Source, ...]
    ignored: tuple[str, ...]

    def sharing(self, at_hand: tuple[TextNetwork, ...], device: torch.device) -> _Made:
        """Text encoders at hand take the places of blank ones that would become the same."""
        sources = {id(source.network): source for source in self.sources}
        texts = tuple(_twin(text, sources[id(text)], at_hand, device) or text for text in self.texts)
        replaced = {id(text) for text in self.texts} - {id(text) for text in texts}
        return replace(self, texts=texts, sources=tuple(sources[each] for each in sources if each not in replaced))


def _twin(
    text: TextNetwork, source: Source, at_hand: tuple[TextNetwork, ...], device: torch.device
) -> TextNetwork | None:
    """The network at hand that a blank one would become."""
    wanted = next(text.parameters())
    for each in at_hand:
        there = next(each.parameters())
        alike = (
            each.spec == text.spec
            and there.dtype is wanted.dtype
            and there.device == device
            and not hasattr(each, "mover")
        )
        if alike and holds(each, source):
            return each
    return None


@dataclass(frozen=True)
class _BlankCodec:
    network: CodecNetwork
    spec: AutoencoderSpec
    source: Source


def _lay_out(opened: _Opened, vae_path: Path | None, codec: LoadedCodec | None, dtypes: Dtypes) -> _Made:
    """Networks for a checkpoint, without memory; an autoencoder that is there already is taken as it is."""
    spec, weights, keys = opened.spec, opened.weights, opened.keys
    denoiser = laid_out(partial(denoiser_network, spec.denoiser), dtypes.unet)
    texts = [laid_out(partial(text_network, text), dtypes.text) for text in spec.texts]
    sources = [source_of(UNET_PREFIX, denoiser, weights, keys)]
    sources += [source_of(text.prefix, tower, weights, keys) for text, tower in zip(spec.texts, texts, strict=True)]
    autoencoder: CodecNetwork | SharedAutoencoder
    if codec is not None and codec.spec.speaks_as(spec.vae):
        autoencoder, vae = codec.codec, codec.spec
    else:
        if vae_path is None:
            blank_one = _own_codec(opened, dtypes.vae)
        else:
            blank_one = _codec_of_file(vae_path, spec.vae, dtypes.vae)
        autoencoder, vae = blank_one.network, blank_one.spec
        sources.insert(1, blank_one.source)
    return _Made(denoiser, autoencoder, vae, tuple(texts), tuple(sources), _ignored(opened, sources))


@dataclass(frozen=True)
class _PlacedModel:
    """What is filled now, where everything is, and what makes it come and go."""

    now: list[Source]
    residence: Callable[[], Residence]
    placement: Placement


def _placed(
    made: _Made, opened: _Opened, at_hand: AtHand, memory: MemoryWanted, device: str, files: tuple[Path, ...]
) -> _PlacedModel:
    """Decide where the weights are to live, and take the memory."""
    stamps = {path: stamp_of(path) for path in files}

    @contextmanager
    def steady() -> Iterator[None]:
        changed = next((path for path, stamp in stamps.items() if stamp_of(path) != stamp), None)
        if changed is not None:
            raise CheckpointError(f"{changed.name}: it is not the file any more that was loaded; start the job again")
        with _steady(*files):
            yield

    codec = made.autoencoder if isinstance(made.autoencoder, nn.Module) else None
    parts = Parts(made.denoiser, made.texts, {each.network: each for each in made.sources}, codec, steady)
    needs = needs_of(parts, working_bytes(opened.spec), unpacking_bytes(opened.spec))
    at_hand.make_room(needs.denoiser.whole + needs.texts.whole + needs.codec)
    where = torch.device(device)
    room = room_on(where, memory.device_memory)
    streams = where.type not in ("cpu", "mps") or memory.device_memory > 0
    placement = place(needs, room, memory.weights, streams=streams)
    now, residence = make_room(parts, placement, where, copies=streams)
    return _PlacedModel(now, residence, placement)


def _own_codec(opened: _Opened, dtype: torch.dtype) -> _BlankCodec:
    network = laid_out(partial(codec_network, opened.spec.vae), dtype)
    return _BlankCodec(network, opened.spec.vae, source_of(VAE_PREFIX, network, opened.weights, opened.keys))


def _codec_of_file(path: Path, wanted: AutoencoderSpec, dtype: torch.dtype) -> _BlankCodec:
    try:
        vae = open_vae(path, wanted)
    except CheckpointError as error:
        if path.name in str(error):
            raise
        raise CheckpointError(f"vae={path.name}: {error}") from error
    network = laid_out(partial(codec_network, vae.spec), dtype)
    names = {name for name, _ in network.named_parameters()}
    extra = sorted(set(vae.keys) - names)
    if extra:
        raise CheckpointError(
            f"vae={path.name}: it holds {len(extra)} tensors that no VAE has ({', '.join(extra[:4])}); use another file"
        )
    return _BlankCodec(network, vae.spec, Source(network, vae.weights, {key: key for key in vae.keys}))


def _named(vae_path: Path | None, cache: Path | None) -> LoadedVae | None:
    """The names a VAE goes by; folders, and files without a cache, are not hashed."""
    if vae_path is None:
        return None
    return LoadedVae(vae_path.name, sha256_of(vae_path, cache) if cache is not None and vae_path.is_file() else None)


def _ignored(opened: _Opened, sources: list[Source]) -> tuple[str, ...]:
    """Keys of the file that belong to no network (KEYS-3): training state, schedules, moving averages."""
    used = {key for source in sources if source.weights is opened.weights for key in source.used()}
    if not any(name in used for new, name in opened.keys.items() if new.startswith(VAE_PREFIX)):
        used |= {name for new, name in opened.keys.items() if new.startswith(VAE_PREFIX)}  # waits for its turn
    return tuple(key for key in opened.weights.shapes if key not in used)


def _probed(spec: ModelSpec, backend: Backend) -> ModelSpec:
    """SD 2 files do not say what they predict: at full noise a v network answers with minus the picture (FAM-2)."""
    x = torch.full((1, spec.unet.in_channels, 8, 8), 0.5)
    context = torch.full((1, 2, spec.unet.context_dim), 0.5)
    out = backend.denoise(x, torch.tensor([999.0]), context)
    is_v = float((out.cpu() - x).mean()) < _PROBE_THRESHOLD
    return replace(
        spec,
        prediction="v" if is_v else "eps",
        native_size=768 if is_v and spec.facts.get("native_size") == "family default" else spec.native_size,
        facts={**spec.facts, "prediction": "probe"},
    )
