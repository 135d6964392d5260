"""Which models a server knows by name, from its folders alone: nothing here opens a model or needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import CheckpointError, RequestError
from overpaint.models.built_in import built_in_files, default_path
from overpaint.models.catalog import CONTROLNET, EMBEDDING, HYPERNETWORK, LORA, ModelFile, files_of, listed_controlnet
from overpaint.models.find import check_backend, check_machine, find_checkpoint, model_folders
from overpaint.models.hashes import (
    CheckpointFile,
    checkpoint_file,
    find_closest,
    find_exact,
    find_hashed,
    list_checkpoints,
    user_hash_cache,
)
from overpaint.models.vae_names import list_vaes
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings


@dataclass(frozen=True)
class KnownModels:
    """The models of a server: those of its folders, the one it was started with, and the built-in ones."""

    settings: Settings
    served: Path

    @classmethod
    def of(cls, config: ServeConfig) -> KnownModels:
        return cls(config.settings, served_checkpoint(config))

    def checkpoints(self) -> tuple[CheckpointFile, ...]:
        """All of them, with the hashes that are known by now; one from elsewhere that is served comes first."""
        built_in = built_in_files()
        serves_built_in = any(each.path == self.served for each in built_in)
        return (*built_in, *self._own()) if serves_built_in else (*self._own(), *built_in)

    def _own(self) -> tuple[CheckpointFile, ...]:
        """Without the built-in ones."""
        found = list_checkpoints(model_folders(self.settings), cache=user_hash_cache())
        if not self.served.exists() or any(each.path == self.served for each in (*found, *built_in_files())):
            return found
        return (*list_checkpoints((), self.served, user_hash_cache()), *found)

    def checkpoint(self, name: str) -> CheckpointFile | None:
        """The checkpoint of which this is an alias (FILE-6); a hash in the name is computed where it is not known."""
        known = (*built_in_files(), *self._own())  # the later one wins a name that two share
        return find_exact(known, name) or find_hashed(known, name, user_hash_cache())

    def named(self, field_name: str, name: str) -> CheckpointFile:
        """The same, where there has to be one; `field_name` is what the client calls it."""
        found = self.checkpoint(name)
        if found is None:
            raise UnknownCheckpoint(field_name, name)
        return found

    def closest(self, name: str) -> CheckpointFile | None:
        """The checkpoint that a refiner's name means (FILE-7)."""
        return find_closest(self._own(), name) or find_exact(built_in_files(), name)

    def current(self) -> CheckpointFile:
        """The checkpoint that was served at the start."""
        found = (each for each in self.checkpoints() if each.path == self.served)
        return next(found, checkpoint_file(self.served, model_folders(self.settings)))

    def vaes(self) -> Mapping[str, Path]:
        return list_vaes(self.settings)

    def loras(self) -> tuple[ModelFile, ...]:
        return files_of(self.settings.lora_dir, LORA)

    @property
    def has_controlnets(self) -> bool:
        """Whether the site has any."""
        return bool(self.controlnets())

    def controlnets(self) -> tuple[ModelFile, ...]:
        return files_of(self.settings.controlnet_dir, CONTROLNET)

    def embeddings(self) -> tuple[ModelFile, ...]:
        """Without those in pictures: every picture would have to be opened for it."""
        return files_of(self.settings.embeddings_dir, EMBEDDING)

    def controlnet(self, name: str) -> str | None:
        """How the ControlNet is listed that this name means: clients add a hash, or the file's suffix."""
        found = listed_controlnet(self.controlnets(), name)
        return None if found is None else found.name

    def hypernetworks(self) -> tuple[ModelFile, ...]:
        return files_of(self.settings.hypernetwork_dir, HYPERNETWORK)


class UnknownCheckpoint(CheckpointError):  # noqa: N818 (what a client named)
    """There is no checkpoint of this name."""

    def __init__(self, field_name: str, name: str) -> None:
        super().__init__(f"{field_name}={name[:80]!r}: there is no such model; GET /v1/models lists them")
        self.field = field_name


def served_checkpoint(config: ServeConfig) -> Path:
    """The checkpoint a server starts with; the worker says what is wrong with one that is not there."""
    wanted = config.checkpoint or config.settings.sd_model_checkpoint
    if wanted is None:
        return default_path()
    try:
        return find_checkpoint(wanted, config.settings)
    except CheckpointError:
        return Path(wanted).absolute()


def check_started(config: ServeConfig) -> None:
    """What a server is started with, as far as its words tell; what they stand for, the worker finds out."""
    for device in config.worker_devices:
        check_machine(device, config.dtype, dashes="--")
    check_backend(config.settings.backend)
    wanted = config.checkpoint or config.settings.sd_model_checkpoint
    if wanted is None:
        return
    try:
        find_checkpoint(wanted, config.settings)
    except CheckpointError as error:
        flag = "--model" if config.checkpoint else "sd_model_checkpoint"
        raise RequestError(flag, wanted, str(error).partition(": ")[2]) from None
