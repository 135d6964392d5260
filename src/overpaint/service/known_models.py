"""Which models a server knows by name, from its folders alone: nothing here opens a model or needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overpaint.adapters.wanted import AdapterFile, list_adapters
from overpaint.errors import CheckpointError
from overpaint.models.find import default_path, find_checkpoint, model_folders
from overpaint.models.hashes import (
    CheckpointFile,
    checkpoint_file,
    find_closest,
    find_exact,
    list_checkpoints,
    sha256_of,
    user_hash_cache,
)
from overpaint.models.vae_names import list_vaes
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings


@dataclass(frozen=True)
class KnownModels:
    """The models of a server: those of its folders, and the one it was started with."""

    settings: Settings
    served: Path

    @classmethod
    def of(cls, config: ServeConfig) -> KnownModels:
        return cls(config.settings, served_checkpoint(config))

    def checkpoints(self) -> tuple[CheckpointFile, ...]:
        """All of them, with the hashes that are known by now; one from elsewhere that is served comes first."""
        folders = model_folders(self.settings)
        found = list_checkpoints(folders, cache=user_hash_cache())
        if any(each.path == self.served for each in found):
            return found
        return (*list_checkpoints((), self.served, user_hash_cache()), *found)

    def checkpoint(self, name: str) -> CheckpointFile | None:
        """The checkpoint of which this is an alias (FILE-6); a hash in the name is computed where it is not known."""
        known = self.checkpoints()
        exact = find_exact(known, name)
        if exact is not None or not name.endswith("]"):
            return exact
        plain, _, digest = name[:-1].rpartition(" [")
        for each in known:
            if each.sha256 is None and not each.is_folder and plain in each.aliases() and each.path.is_file():
                hashed = sha256_of(each.path, user_hash_cache())
                if digest and hashed.startswith(digest):
                    return checkpoint_file(each.path, model_folders(self.settings), hashed)
        return None

    def closest(self, name: str) -> CheckpointFile | None:
        """The checkpoint that a refiner's name means (FILE-7)."""
        return find_closest(self.checkpoints(), name)

    def current(self) -> CheckpointFile:
        """The checkpoint that was served at the start."""
        found = (each for each in self.checkpoints() if each.path == self.served)
        return next(found, checkpoint_file(self.served, model_folders(self.settings)))

    def vaes(self) -> Mapping[str, Path]:
        folder = self.settings.vae_dir
        return list_vaes(model_folders=model_folders(self.settings), vae_folders=[Path(folder)] if folder else [])

    def loras(self) -> tuple[AdapterFile, ...]:
        return _adapters(self.settings.lora_dir)

    def hypernetworks(self) -> tuple[AdapterFile, ...]:
        return _adapters(self.settings.hypernetwork_dir)


def served_checkpoint(config: ServeConfig) -> Path:
    """The checkpoint a server starts with; the worker says what is wrong with one that is not there."""
    wanted = config.checkpoint or config.settings.sd_model_checkpoint
    if wanted is None:
        return default_path()
    try:
        return find_checkpoint(wanted, config.settings)
    except CheckpointError:
        return Path(wanted).absolute()


def _adapters(folder: str) -> tuple[AdapterFile, ...]:
    return list_adapters([Path(folder)]) if folder else ()
