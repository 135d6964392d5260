"""Which VAE files there are, and which one goes with a checkpoint (VAE-1 to VAE-3). Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overpaint.models.catalog import VAE, VAE_BESIDE_MODEL, files_of, natural_key
from overpaint.named_files import is_endless
from overpaint.settings import Settings

_AUTOMATIC = ("Automatic", "auto")
_MAX_NOTES_BYTES = 2**20


@dataclass(frozen=True)
class VaeChoice:
    """The file to use instead of the checkpoint's own VAE (None: its own), and a message where a choice was not met."""

    path: Path | None
    message: str = ""


def list_vaes(settings: Settings) -> dict[str, Path]:
    """VAE files by their own names, in natural order (VAE-1): beside models only files called *.vae.*."""
    files = (*files_of(settings.models_dir, VAE_BESIDE_MODEL), *files_of(settings.vae_dir, VAE))
    found = {each.name: each.path for each in files}
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def choose_vae(
    checkpoint: Path,
    candidates: Mapping[str, Path],
    *,
    setting: str = "Automatic",
    setting_first: bool = True,
) -> VaeChoice:
    """VAE-2. `setting` and `setting_first` are `sd_vae` and `sd_vae_overrides_per_model_preferences`."""
    wished = setting if setting not in _AUTOMATIC else None
    if setting_first and wished is not None:
        return _named(wished, candidates)
    preferred = _preference(checkpoint)
    if preferred is not None and preferred not in _AUTOMATIC:
        return _named(preferred, candidates)
    near = next((path for name, path in candidates.items() if name.startswith(checkpoint.stem)), None)
    if near is not None:
        return VaeChoice(near)
    return _named(wished, candidates) if wished is not None else VaeChoice(None)


def _named(name: str, candidates: Mapping[str, Path]) -> VaeChoice:
    if name == "None":
        return VaeChoice(None)
    if name in candidates:
        return VaeChoice(candidates[name])
    return VaeChoice(None, f"sd_vae={name!r}: there is no such VAE file, so the checkpoint's own is used")


def _preference(checkpoint: Path) -> str | None:
    """What the user wrote about this model in the .json file beside it."""
    notes = checkpoint.with_suffix(".json")
    if is_endless(notes):
        return None
    try:
        with notes.open("rb") as file:
            said = json.loads(file.read(_MAX_NOTES_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    vae = said.get("vae") if isinstance(said, dict) else None
    return vae if isinstance(vae, str) and vae else None
