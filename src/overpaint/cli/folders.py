"""`--models DIR`: where a folder of models keeps what, by the names that such folders usually have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overpaint.errors import RequestError

# option: names of sub-folders, in lower case
_USUAL: Mapping[str, tuple[str, ...]] = {
    "models_dir": ("stable-diffusion", "checkpoints"),
    "vae_dir": ("vae",),
    "taesd_dir": ("vae-approx", "vae_approx"),
    "lora_dir": ("lora", "loras"),
    "embeddings_dir": ("embeddings",),
    "hypernetwork_dir": ("hypernetworks",),
    "controlnet_dir": ("controlnet", "controlnets"),
    "esrgan_dir": ("esrgan", "upscale_models"),
    "realesrgan_dir": ("realesrgan",),
    "swinir_dir": ("swinir",),
    "scunet_dir": ("scunet",),
    "dat_dir": ("dat",),
}


def folders_below(root: str) -> dict[str, str]:
    """The options that a folder of models sets; one without such sub-folders holds checkpoints alone."""
    top = Path(root).expanduser()
    if not top.is_dir():
        raise RequestError("--models", root, "there is no such folder")
    top = _folders_in(top).get("models", top)
    found = _folders_in(top)
    beside = top.resolve().parent / "embeddings"
    if found.keys() & set(_USUAL["models_dir"]) and beside.is_dir():
        found = {"embeddings": beside, **found}
    options = {
        option: str(next(found[name] for name in names if name in found))
        for option, names in _USUAL.items()
        if found.keys() & set(names)
    }
    return {"models_dir": str(top), **options}


def _folders_in(folder: Path) -> dict[str, Path]:
    return {each.name.lower(): each for each in sorted(folder.iterdir()) if each.is_dir()}
