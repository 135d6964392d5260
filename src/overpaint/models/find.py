"""Which file and which device a job means: names, folders and defaults resolved."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from overpaint.errors import CheckpointError, RequestError, RequestTypeError
from overpaint.hints import did_you_mean, listed
from overpaint.models.built_in import built_in_files, built_in_names, default_path
from overpaint.models.catalog import at_place, find_by_place, folders_in
from overpaint.models.companions import vae_for
from overpaint.models.hashes import (
    CheckpointFile,
    find_closest,
    find_exact,
    find_hashed,
    is_model_folder,
    list_checkpoints,
    user_hash_cache,
)
from overpaint.models.vae_names import VaeChoice, choose_vae, list_vaes
from overpaint.settings import Settings

_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:\d{1,3})?", re.ASCII)
_DEVICES = "auto, cpu, cuda, cuda:1 or mps"
_DTYPES = "auto, float32, float16, bfloat16"


def find_checkpoint(checkpoint: str | Path | None, settings: Settings) -> Path:
    """A path, a name known in the model folder, a built-in one, the configured one, or the default."""
    wanted = checkpoint or settings.sd_model_checkpoint
    if wanted is None:
        return default_path()
    path = _named_path(wanted)
    if path is not None:
        return path
    known = _known(settings)
    found = (
        _named(known, str(wanted), settings)
        or find_hashed(known, str(wanted), user_hash_cache())
        or find_exact(built_in_files(), str(wanted))
    )
    placed = found.path if found is not None else find_by_place((each.path for each in known), str(wanted))
    if placed is not None:
        return placed
    if Path(wanted).is_dir():
        return Path(os.path.abspath(wanted))  # noqa: PTH100 (opening it tells what is wrong)
    raise _unknown("checkpoint", wanted, known, settings)


def find_refiner(name: str | Path, settings: Settings, *, argument: str = "refiner_checkpoint") -> Path:
    """A path, or the known checkpoint whose title comes closest (FILE-7); `argument` is named in the error."""
    path = _named_path(name)
    if path is not None:
        return path
    known = _known(settings)
    found = find_closest(known, str(name)) or find_exact(built_in_files(), str(name))
    if found is not None:
        return found.path
    raise _unknown(argument, name, known, settings)


def _named(known: tuple[CheckpointFile, ...], text: str, settings: Settings) -> CheckpointFile | None:
    """The file that has this name; a short one that files of several folders have is refused.

    The reference takes one of them (FILE-6).
    """
    if settings.quirks.unknown_names_fall_back:
        return find_exact(known, text)
    whole = [each for each in known if text in (each.name, each.model_name)]
    if whole:
        return whole[-1]
    placed = at_place((each.path for each in known), text)
    sharing = [each.name for each in known if text == each.name_for_extra or each.path in placed]
    if len(sharing) > 1:
        raise CheckpointError(
            f"checkpoint={text!r}: {len(sharing)} files have this name; give one of {listed(sharing)}"
        )
    return find_exact(known, text)


def _named_path(wanted: str | Path) -> Path | None:
    """The file, or the folder that is one checkpoint, if it is there."""
    path = Path(os.path.abspath(wanted))  # noqa: PTH100 (links are followed as named)
    return path if path.is_file() or is_model_folder(path) else None


def _known(settings: Settings) -> tuple[CheckpointFile, ...]:
    return list_checkpoints(model_folders(settings), cache=user_hash_cache())


def _unknown(
    argument: str, wanted: str | Path, known: tuple[CheckpointFile, ...], settings: Settings
) -> CheckpointError:
    names = [each.name for each in known]
    called = {called: each.name for each in known for called in (each.name_for_extra, each.name)}
    near = did_you_mean(str(wanted), called | {each: each for each in built_in_names()})
    built_in = f"built in: {', '.join(built_in_names())}"
    told = f"{built_in}; set the option models_dir for others"
    if settings.models_dir:
        told = f"known in {settings.models_dir}: {listed(names) or 'none'}; {built_in}"
    missing = "there is no such file or name"
    return CheckpointError(f"{argument}={str(wanted)!r}: {missing}; {f'{near} ' if near else ''}{told}")


def model_folders(settings: Settings) -> tuple[Path, ...]:
    return folders_in(settings.models_dir)


def find_vae(checkpoint: Path, settings: Settings) -> VaeChoice:
    """VAE-2 with this site's folders; a setting may also name a file, or a folder of diffusers."""
    if settings.sd_vae not in ("", "None") and Path(settings.sd_vae).exists():
        return VaeChoice(Path(settings.sd_vae))
    candidates = list_vaes(settings)
    choice = choose_vae(
        checkpoint,
        candidates,
        setting=_vae_name(settings, candidates),
        setting_first=settings.sd_vae_overrides_per_model_preferences,
    )
    if choice.message and not settings.quirks.unknown_names_fall_back:
        told = did_you_mean(settings.sd_vae, list(candidates)) or f"known: {listed(candidates)}"
        told = told if candidates else "none is known; set the option vae_dir, or give a path"
        raise CheckpointError(f"sd_vae={settings.sd_vae!r}: there is no such VAE; {told}")
    return choice if choice.path is not None else VaeChoice(vae_for(checkpoint))


def _vae_name(settings: Settings, candidates: Mapping[str, Path]) -> str:
    """The setting, or the full name of the file that it means without its extension or with its folder."""
    if settings.quirks.unknown_names_fall_back or settings.sd_vae in candidates:
        return settings.sd_vae
    placed = find_by_place(candidates.values(), settings.sd_vae)
    return settings.sd_vae if placed is None else placed.name


def check_named(checkpoint: object) -> None:
    """What a program may name a checkpoint by; whether it is there, finding it tells."""
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise RequestTypeError("checkpoint", checkpoint, "give a path or a name; `overpaint models` lists them")


def check_machine(device: object, dtype: object, *, dashes: str = "") -> tuple[str, str]:
    """A device and a precision as texts, also where torch's own were given; that a device is there, only torch knows.

    `dashes` stand before the names in an error, where they were given as flags.
    """
    if _DEVICE.fullmatch(str(device)) is None:
        raise RequestError(f"{dashes}device", device, f"use {_DEVICES}")
    if str(dtype).removeprefix("torch.") not in _DTYPES.split(", "):
        raise RequestError(f"{dashes}dtype", dtype, f"use {_DTYPES}")
    return str(device), str(dtype).removeprefix("torch.")


def check_backend(name: str) -> None:
    """That who is to compute is installed; what it computes on, it says itself."""
    if name == "openvino" and find_spec("openvino") is None:
        remedy = "it is not installed; run pip install 'overpaint[openvino]', or use torch"
        raise RequestError("backend", name, remedy)


def choose_device(name: str) -> str:
    """ "auto" is the accelerator torch sees, else the CPU."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError("device", name, f"use {_DEVICES}") from None
    if not _is_there(device.type, device.index or 0):
        raise RequestError("device", name, "PyTorch finds no such device on this machine; use auto or cpu")
    return str(device)


def _is_there(kind: str, number: int) -> bool:
    """Of others than these it is not asked; using one tells."""
    import torch

    if kind == "cuda":
        return torch.cuda.is_available() and number < torch.cuda.device_count()
    return kind != "mps" or torch.backends.mps.is_available()
