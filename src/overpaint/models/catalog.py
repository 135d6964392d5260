"""The files of models below a folder, by name: one table of kinds, one function that lists, one that finds. Torch-free.

Checkpoints have more names: `hashes` has theirs, `find` finds them. Upscalers are listed by `upscaler_names`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.hints import did_you_mean, listed
from overpaint.models.header import is_text, metadata_of
from overpaint.named_files import is_endless

_NAMELESS = "none"  # LORA-1: what an option says for "no network"
_DIFFUSERS_STEM = "diffusion_pytorch_model"
_HASH = re.compile(r"\s*\[[0-9a-fA-F]+\]$")


@dataclass(frozen=True)
class FileKind:
    """A kind of file: the option that names its folder, and which files of the folder are of it."""

    what: str  # in a message
    option: str
    suffixes: tuple[str, ...]
    in_any_case: bool = False
    has_alias: bool = False  # the name that its trainer gave it, in the file's metadata
    has_extension: bool = False  # as a part of its name
    may_be_folder: bool = False  # as diffusers writes it


VAE = FileKind("VAE", "vae_dir", (".ckpt", ".pt", ".safetensors"), has_extension=True)
VAE_BESIDE_MODEL = FileKind("VAE", "models_dir", (".vae.ckpt", ".vae.pt", ".vae.safetensors"), has_extension=True)
LORA = FileKind("LoRA", "lora_dir", (".safetensors", ".pt", ".ckpt"), has_alias=True)
HYPERNETWORK = FileKind("hypernetwork", "hypernetwork_dir", (".safetensors", ".pt", ".ckpt"), has_alias=True)
EMBEDDING = FileKind("embedding", "embeddings_dir", (".pt", ".bin", ".safetensors"), in_any_case=True)
# NOTE: a picture may hold an embedding (TIF-1), which shows only when it is opened.
PICTURE_OF_EMBEDDING = FileKind("embedding", "embeddings_dir", (".png", ".webp", ".jxl", ".avif"), in_any_case=True)
CONTROLNET = FileKind(
    "ControlNet", "controlnet_dir", (".safetensors", ".pth", ".pt", ".ckpt", ".bin"), may_be_folder=True
)
UPSCALER = FileKind("upscaler", "esrgan_dir", (".safetensors", ".pth", ".pt"))


@dataclass(frozen=True)
class ModelFile:
    """A file, or a folder as diffusers writes it, by its own name and the one that its trainer gave it."""

    path: Path
    name: str
    alias: str


def files_of(folder: str | Path, *kinds: FileKind) -> tuple[ModelFile, ...]:
    """The files of these kinds in a folder and below it, in natural order; without a folder there are none.

    Of two ControlNets with one name, the second goes by its place as well.
    """
    found, names = dict[Path, ModelFile](), set[str]()
    for root, path in ((top, path) for top in folders_in(folder) for path in files_below(top)):
        kind = next((each for each in kinds if _is_of(path, each)), None)
        if kind is None:
            continue
        is_part = kind.may_be_folder and path.name.startswith(_DIFFUSERS_STEM) and path.parent != root
        entry = path.parent if is_part else path
        if entry in found:
            continue
        name = entry.name if is_part or kind.has_extension else path.stem
        if kind.may_be_folder and name in names:
            name = entry.relative_to(root).with_suffix("").as_posix()
        names.add(name)
        alias = metadata_of(path).get("ss_output_name", "") if kind.has_alias else ""
        found[entry] = ModelFile(entry, name, alias or name)
    return tuple(found.values())


def folders_in(named: str | Path) -> tuple[Path, ...]:
    """The folders that an option names: one, or several as in PATH, with the system's separator between them."""
    if not named:
        return ()
    if isinstance(named, Path) or os.pathsep not in named or Path(named).is_dir():
        return (Path(named),)
    return tuple(Path(each) for each in named.split(os.pathsep) if each)


def find_file(files: Iterable[ModelFile], text: str, *, by_place: bool = False) -> ModelFile | None:
    """The file of this name or alias (LORA-1); a later file wins a name that two share.

    An alias of several files, or "none", leads nowhere: those are reached by file name. `by_place` finds a file also by
    the end of its path, with or without its extension.
    """
    files = tuple(files)
    counts = Counter(each.alias for each in files)
    table: dict[str, ModelFile] = {}
    for each in files:
        table[each.name] = each
        if counts[each.alias] == 1 and each.alias != _NAMELESS:
            table[each.alias] = each
    if text in table or not by_place:
        return table.get(text)
    placed = find_by_place((each.path for each in files), text)
    return next((each for each in files if each.path == placed), None)


def near_or_known(text: str, files: Sequence[ModelFile], otherwise: str) -> str:
    """The end of an error: the one that was probably meant, or those there are, or what to do where there are none."""
    called = {each.name: each.name for each in files}
    near = did_you_mean(text, called | {each.alias: each.name for each in files})
    return near or f"known: {listed(called)}" if files else otherwise


def listed_controlnet(files: Sequence[ModelFile], name: str) -> ModelFile | None:
    """A name may carry its suffix, or the hash in brackets that clients of the reference's API send."""
    plain = _HASH.sub("", name)
    bare = next((plain.removesuffix(each) for each in CONTROLNET.suffixes if plain.endswith(each)), plain)
    found = (find_file(files, each) for each in (name, plain, bare))
    return next((each for each in found if each is not None), None)


def find_controlnet(name: str, folder: str | Path, field: str = "controls.model") -> Path:
    """The file or folder that a name or a path means."""
    path = Path(name)
    if path.is_file() or (path.is_dir() and weights_of(path) is not None):
        return path
    known = files_of(folder, CONTROLNET)
    found = listed_controlnet(known, name)
    if found is not None:
        return found.path
    if not folder:
        raise CheckpointError(f"{field}={name!r}: there is no such file; set the option controlnet_dir, or give a path")
    known_names = near_or_known(_HASH.sub("", name), known, "the folder holds none")
    raise CheckpointError(f"{field}={name!r}: there is no such ControlNet in {str(folder)!r}; {known_names}")


def weights_of(folder: Path) -> Path | None:
    """The weights in a folder of diffusers; full precision first, safetensors first."""
    names = (f"{_DIFFUSERS_STEM}{kind}{suffix}" for suffix in (".safetensors", ".bin") for kind in ("", ".fp16"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def files_below(folder: Path) -> Iterator[Path]:
    """All files, links followed: folders in natural order, and files in natural order inside each.

    Hidden folders are left out, such as an environment of Python with the models of its packages; so are pipes.
    """
    for root, names in sorted(_shown(folder), key=lambda entry: natural_key(entry[0])):
        paths = (Path(root) / name for name in sorted(filter(is_text, names), key=natural_key))
        yield from (path for path in paths if not is_endless(path))


def _shown(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        yield root, names


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts "model2" before "model10"."""
    parts = re.split(r"(\d+)", text.lower())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def find_by_place(paths: Iterable[Path], text: str) -> Path | None:
    """The one path that ends like this text, with or without its extension: `sdxl/tiny` for `sdxl/tiny.safetensors`."""
    found = at_place(paths, text)
    return found[0] if len(found) == 1 else None


def at_place(paths: Iterable[Path], text: str) -> list[Path]:
    """All paths that end like this text."""
    wanted = tuple(part for part in text.replace("\\", "/").split("/") if part)
    return [path for path in paths if wanted and wanted in _endings(path, len(wanted))]


def _endings(path: Path, length: int) -> tuple[tuple[str, ...], ...]:
    tail = path.parts[-length:]
    return tail, (*tail[:-1], path.stem)


def _is_of(path: Path, kind: FileKind) -> bool:
    """Previews of embeddings are none (TIF-1)."""
    name = path.name.lower() if kind.in_any_case else path.name
    return name.endswith(kind.suffixes) and not (kind.in_any_case and ".preview." in name)
