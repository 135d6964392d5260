"""Which ControlNets there are, and which one a name means. Without torch.

A ControlNet is a file, called by its stem, or a folder as diffusers writes it, called by the folder's name.
"""

from __future__ import annotations

import re
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.hints import did_you_mean, listed
from overpaint.models.hashes import files_below

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_DIFFUSERS_STEM = "diffusion_pytorch_model"


def list_controlnets(folder: str | Path) -> dict[str, Path]:
    """Name -> file or folder, in natural order; of two with the same name, the second goes by its place as well."""
    found: dict[str, Path] = {}
    if not folder:
        return found
    root = Path(folder)
    for path in files_below(root, SUFFIXES):
        entry = path.parent if path.name.startswith(_DIFFUSERS_STEM) and path.parent != root else path
        if entry in found.values():
            continue
        name = entry.name if entry is not path else path.stem
        found[name if name not in found else entry.relative_to(root).with_suffix("").as_posix()] = entry
    return found


def weights_of(folder: Path) -> Path | None:
    """The weights in a folder of diffusers; full precision first, safetensors first."""
    names = (f"{_DIFFUSERS_STEM}{kind}{suffix}" for suffix in (".safetensors", ".bin") for kind in ("", ".fp16"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def find_controlnet(name: str, folder: str | Path, field: str = "controls.model") -> Path:
    """The file or folder that a name or a path means.

    A name may carry its suffix, or the hash in brackets that clients of the reference's API send.
    """
    path = Path(name)
    if path.is_file() or (path.is_dir() and weights_of(path) is not None):
        return path
    known = list_controlnets(folder)
    plain = re.sub(r"\s*\[[0-9a-fA-F]+\]$", "", name)
    for wanted in (name, plain, _without_suffix(plain)):
        if wanted in known:
            return known[wanted]
    if not folder:
        raise CheckpointError(f"{field}={name!r}: there is no such file; set the option controlnet_dir, or give a path")
    told = did_you_mean(plain, list(known)) or f"known: {listed(known)}" if known else "the folder holds none"
    raise CheckpointError(f"{field}={name!r}: there is no such ControlNet in {str(folder)!r}; {told}")


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(each) for each in SUFFIXES if name.endswith(each)), name)
