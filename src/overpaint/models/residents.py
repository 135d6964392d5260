"""The models in memory: several at a time, the least recently used ones forgotten when memory is short.

One thread owns them. Jobs that take turns hold what they use: what is held is never forgotten.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from overpaint.backends.choice import BackendKind, backend_for, dtypes_for
from overpaint.errors import CheckpointError
from overpaint.models.checkpoint import (
    AtHand,
    LoadedCodec,
    LoadedModel,
    MemoryWanted,
    load_checkpoint,
    load_codec,
)
from overpaint.models.companions import text_encoders_for
from overpaint.models.families import ModelSpec
from overpaint.models.files import Progress
from overpaint.models.find import model_folders
from overpaint.models.hashes import Stamp, checkpoint_file, stamp_of
from overpaint.models.memory import GIB, free_memory, give_back, is_out_of_memory, size_of, total_memory
from overpaint.models.what_is import spec_of
from overpaint.networks.codecs import codec_network
from overpaint.networks.layers import blank
from overpaint.networks.text_networks import TextNetwork
from overpaint.settings import Settings

_E = TypeVar("_E", bound="_Entry")

_ROOM = 1.2  # what a model needs while it is filled, as a multiple of its size


@dataclass(eq=False)
class _Entry:
    """What is kept or forgotten as a whole."""

    files: tuple[Path, ...]
    stamps: tuple[Stamp, ...]  # of the files, when they were read
    holders: int = 0

    def networks(self) -> tuple[nn.Module, ...]:
        raise NotImplementedError


@dataclass(eq=False)
class _Vae(_Entry):
    """A VAE file; any model whose latents it fits may use it."""

    loaded: LoadedCodec = field(kw_only=True)

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.loaded.codec.network,)


@dataclass(eq=False)
class _Model(_Entry):
    """A checkpoint, its own autoencoder apart: that is read when it is first wanted."""

    trunk: LoadedModel = field(kw_only=True)  # NOTE: its autoencoder has a shape but no memory
    codec: LoadedCodec | None = field(kw_only=True)

    def networks(self) -> tuple[nn.Module, ...]:
        networks = self.trunk.backend.networks
        codec = (self.codec.codec.network,) if self.codec is not None else ()
        return (networks.denoiser, *networks.texts, *codec)


@dataclass(frozen=True, eq=False)
class Resident:
    """A model in memory as one job wants it."""

    model: LoadedModel
    _entries: tuple[_Entry, ...] = field(repr=False)

    def hold(self) -> None:
        """From now on this is not forgotten."""
        for each in self._entries:
            each.holders += 1

    def release(self) -> None:
        """The end of one `hold`."""
        for each in self._entries:
            each.holders -= 1

    @contextmanager
    def held(self) -> Iterator[Resident]:
        self.hold()
        try:
            yield self
        finally:
            self.release()


@dataclass(frozen=True)
class _WantedFiles:
    """What a job wants."""

    files: tuple[Path, ...]  # the checkpoint, and the text encoders it may need
    vae_files: tuple[Path, ...]  # one, or none for the checkpoint's own
    settings: Settings

    @property
    def path(self) -> Path:
        return self.files[0]

    @property
    def vae(self) -> Path | None:
        return self.vae_files[0] if self.vae_files else None


def _always(network: nn.Module) -> bool:
    return True


class Residents:
    """Models by file, on one device.

    `is_bare` says whether a text encoder has its file's numbers
    and nothing merged into them: only then can another model share it.
    """

    def __init__(
        self,
        device: str,
        dtype: str = "auto",
        *,
        backend: str = "auto",
        is_bare: Callable[[nn.Module], bool] = _always,
        hashing: bool = True,
        hash_cache: Path | None = None,
    ) -> None:
        self._device, self._dtype, self._backend = device, dtype, backend_for(device, backend)
        self._is_bare = is_bare
        self._hashing, self._hash_cache = hashing, hash_cache
        self._entries: list[_Model | _Vae] = []  # the least recently used first

    def have(self, path: Path, vae_path: Path | None, settings: Settings, progress: Progress | None = None) -> Resident:
        """The model of a file with a VAE in place (None: its own). What was there before a failure still is."""
        wanted = _wanted_files(path, vae_path, settings)
        model, vae = self._completed(wanted, self._model(wanted), self._vae(wanted.vae), progress)
        kept: list[_Model | _Vae] = [model] if vae is None else [vae, model]
        self._entries = [each for each in self._entries if each not in kept] + kept
        self._forget_superseded()
        self._forget_over_budget(kept, settings)
        return _resident(model, vae, settings)

    def recognise(self, path: Path, settings: Settings) -> ModelSpec:
        """What a file is: as it was loaded, if it is in memory, else from its header."""
        wanted = _wanted_files(path, None, settings)
        model = self._model(wanted)
        return model.trunk.spec if model is not None else spec_of(wanted.path, wanted.files[1:])

    def paths(self) -> tuple[Path, ...]:
        """The files in memory, VAEs too, the least recently used first."""
        return tuple(each.files[0] for each in self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._forget(list(self._entries))

    # -- finding and loading --------------------------------------------------------------------------------------

    def _completed(
        self, wanted: _WantedFiles, model: _Model | None, vae: _Vae | None, progress: Progress | None
    ) -> tuple[_Model, _Vae | None]:
        """What was found, and the rest loaded. If memory runs out, idle models are forgotten and it is tried again."""
        for _ in range(2):
            try:
                if model is None:
                    return self._load(wanted, vae, progress)
                return model, self._with_codec(wanted, model, vae, progress)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # NOTE: not in the handler: the error's frames keep the half-filled networks alive, and in circles
            gc.collect()
            if not self._forget(self._idle(model, vae)):
                break
        remedy = "close other programs, wait for other jobs, or use half precision or a smaller model"
        raise CheckpointError(f"{wanted.path.name}: there is not enough memory for it on {self._device}; {remedy}")

    def _model(self, wanted: _WantedFiles) -> _Model | None:
        """The checkpoint in memory, if it is still what is on the disk."""
        known = [each for each in self._entries if isinstance(each, _Model) and each.files == wanted.files]
        stamps = _stamps(wanted.files)
        if known and not stamps[0]:
            return _vanished(known)
        return next((each for each in known if each.stamps == stamps), None)

    def _vae(self, path: Path | None) -> _Vae | None:
        """The VAE file in memory, if it is still what is on the disk."""
        known = [each for each in self._entries if isinstance(each, _Vae) and each.files == (path,)]
        if path is None or not known:
            return None
        stamps = _stamps((path,))
        return next((each for each in known if each.stamps == stamps), None) if stamps[0] else _vanished(known)

    def _load(self, wanted: _WantedFiles, vae: _Vae | None, progress: Progress | None) -> tuple[_Model, _Vae | None]:
        stamps, vae_stamps = _stamps(wanted.files), _stamps(wanted.vae_files)
        texts = tuple(text for text in self._texts() if self._is_bare(text))
        loaded = load_checkpoint(
            wanted.path,
            device=self._device,
            dtype=self._dtype,
            backend=self._backend,
            vae_path=wanted.vae,
            folders=model_folders(wanted.settings),
            progress=progress,
            hashing=self._hashing,
            hash_cache=self._hash_cache,
            text_encoders=wanted.files[1:],
            memory=MemoryWanted(wanted.settings.weights_kept, wanted.settings.device_memory),
            at_hand=AtHand(vae.loaded if vae is not None else None, texts, partial(self._make_room, vae)),
        )
        codec = LoadedCodec(loaded.backend.codec, loaded.spec.vae, loaded.vae)
        if wanted.vae is not None and vae is None:
            vae = _Vae(wanted.vae_files, vae_stamps, loaded=codec)
        own_codec = codec if wanted.vae is None else None
        trunk = _trunk(loaded, self._backend, self._dtype)
        return _Model(wanted.files, stamps, trunk=trunk, codec=own_codec), vae

    def _with_codec(
        self, wanted: _WantedFiles, model: _Model, vae: _Vae | None, progress: Progress | None
    ) -> _Vae | None:
        """Load the autoencoder that a model in memory lacks."""
        if vae is not None and vae.loaded.spec.speaks_as(model.trunk.spec.vae):
            return vae
        if wanted.vae is None and model.codec is not None:
            return None
        stamps = _stamps(wanted.vae_files)
        codec = load_codec(
            model.trunk,
            wanted.vae,
            backend=self._backend,
            progress=progress,
            hashing=self._hashing,
            hash_cache=self._hash_cache,
            text_encoders=wanted.files[1:],
        )
        if wanted.vae is None:
            model.codec = codec
            return None
        return _Vae(wanted.vae_files, stamps, loaded=codec)

    def _texts(self) -> Iterator[TextNetwork]:
        """Every text encoder in memory once."""
        models = (each for each in self._entries if isinstance(each, _Model))
        texts = {id(text): text for each in models for text in each.trunk.backend.networks.texts}
        return iter(texts.values())

    # -- forgetting -----------------------------------------------------------------------------------------------

    def _idle(self, *kept: _Entry | None) -> list[_Model | _Vae]:
        """What is not in use, the least recently used first."""
        return [each for each in self._entries if not each.holders and each not in kept]

    def _forget(self, entries: list[_Model | _Vae]) -> bool:
        if not entries:
            return False
        self._entries = [each for each in self._entries if each not in entries]
        networks = [weakref.ref(network) for each in entries for network in each.networks()]
        entries.clear()  # NOTE: the caller's list would keep them alive
        if any(network() is not None for network in networks):
            gc.collect()  # what hangs on a network may point back at it
        give_back(torch.device(self._device))
        return True

    def _make_room(self, vae: _Vae | None, needed: int) -> None:
        """Before a model is filled: Linux does not refuse memory that it lacks, it ends the process."""
        device = torch.device(self._device)
        while (free := free_memory(device)) is not None and free < _ROOM * needed:
            if not self._forget(self._idle(vae)[:1]):
                return

    def _forget_superseded(self) -> None:
        """Models whose files were replaced since; a job that holds one goes on with it."""
        newest = {each.files: each for each in self._entries}
        self._forget([each for each in self._idle() if newest[each.files] is not each])

    def _forget_over_budget(self, wanted: list[_Model | _Vae], settings: Settings) -> None:
        budget = settings.model_memory * GIB or total_memory(torch.device(self._device)) / 3
        while self._size_of_idle(self._idle(*wanted)) > budget:
            self._forget(self._idle(*wanted)[:1])

    def _size_of_idle(self, idle: list[_Model | _Vae]) -> int:
        """What forgetting all of them would free: networks that others share stay."""
        busy = {id(network) for each in self._entries if each not in idle for network in each.networks()}
        return size_of(network for each in idle for network in each.networks() if id(network) not in busy)


def _wanted_files(path: Path, vae_path: Path | None, settings: Settings) -> _WantedFiles:
    files = (_absolute(path), *map(_absolute, text_encoders_for(path, settings.text_encoder_files)))
    return _WantedFiles(files, (_absolute(vae_path),) if vae_path is not None else (), settings)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (links are followed as named)


def _stamps(files: tuple[Path, ...]) -> tuple[Stamp, ...]:
    return tuple(map(stamp_of, files))


def _vanished(known: list[_E]) -> _E:
    """A file that is gone, but in memory.

    A job that began with it may go on, batch after batch. A new job gets an error: what a request means must not depend
    on what was painted before, and its picture could never be painted again.
    """
    held = next((each for each in reversed(known) if each.holders), None)
    if held is None:
        raise CheckpointError(f"{known[0].files[0].name}: the file is gone; put it back or choose another")
    return held


def _trunk(loaded: LoadedModel, kind: BackendKind, name: str) -> LoadedModel:
    """The model with the shape of an autoencoder in place of one: who keeps it keeps no VAE alive."""
    dtype = dtypes_for(loaded.spec, kind, loaded.backend.device, name).vae
    shape = kind.codec(blank(partial(codec_network, loaded.spec.vae), "meta", dtype), dtype)
    return loaded.with_codec(LoadedCodec(shape, loaded.spec.vae))


def _resident(model: _Model, vae: _Vae | None, settings: Settings) -> Resident:
    codec = vae.loaded if vae is not None else model.codec
    assert codec is not None  # it was loaded, or nothing was
    file = checkpoint_file(model.files[0], model_folders(settings), model.trunk.file.sha256)
    loaded = replace(model.trunk.with_codec(codec), file=file)
    return Resident(loaded, (model,) if vae is None else (model, vae))
