"""The files that go with a transformer which came alone: text encoders and a VAE, looked for where programs keep them.

What is named in the options goes first. Else they are looked for beside the file and in the folders that other
programs have for them; the first that fits by its tensors is taken, in natural order. Torch-free but for GGUF files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from overpaint.errors import CheckpointError
from overpaint.models.catalog import natural_key
from overpaint.models.detect import told_family
from overpaint.models.families import UNET_PREFIX, VAE_PREFIX, Family
from overpaint.models.hashes import Stamp, stamp_of
from overpaint.models.header import Said, safetensors_shapes
from overpaint.models.specs import TextKind
from overpaint.models.transformer_shapes import (
    all_text_parts,
    suits,
    text_title,
    transformer_part,
    transformer_spec,
)

_TEXT_FOLDERS = ("text_encoders", "text_encoder", "clip")
_VAE_FOLDERS = ("vae", "VAE")
_VAE_PREFIXES = (VAE_PREFIX, "vae.")
_SUFFIXES = (".safetensors", ".gguf")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class NeededText:
    """A text encoder that a transformer lacks."""

    kind: TextKind
    width: int
    optional: bool = False

    @property
    def title(self) -> str:
        return text_title(self.kind, self.width)


@dataclass(frozen=True)
class Needs:
    """What a transformer that came alone lacks."""

    family: Family
    texts: tuple[NeededText, ...]
    vae: bool

    def titles(self) -> tuple[str, ...]:
        """As people call them."""
        return (*(each.title for each in self.texts), *(["a VAE"] if self.vae else []))


def text_encoders_for(path: Path, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The files of text encoders for a checkpoint: those that are named, else what lies where it is looked for."""
    if named:
        return tuple(named)
    needs = needs_of(path)
    if needs is None or not needs.texts:
        return ()
    there = list(_text_files(path))
    chosen = {each: _first(there, each) for each in needs.texts}
    if any(file is None and not each.optional for each, file in chosen.items()):
        told = " and ".join(each.title for each in needs.texts)
        lacks = " and ".join(each.title for each, file in chosen.items() if file is None)
        raise CheckpointError(
            f"{path.name}: it holds a {needs.family.title} transformer and no text encoder: give --text-encoder FILE "
            f"(the option text_encoder_files), this needs {told}; looked for {lacks} in {_told(path, _TEXT_FOLDERS)}"
        )
    return tuple(dict.fromkeys(str(each) for each in chosen.values() if each is not None))


def _first(there: Sequence[tuple[Path, TextKind, int]], needed: NeededText) -> Path | None:
    fitting = (file for file, kind, width in there if suits(kind, needed.kind) and width == needed.width)
    return next(fitting, None)


def vae_for(path: Path) -> Path | None:
    """The VAE for a transformer that brings none; None where it needs none.

    Of VAEs with equal shapes only the name tells which family they are of, so it has to begin as the family's does.
    """
    needs = needs_of(path)
    if needs is None or not needs.vae:
        return None
    for folder in _folders(path, _VAE_FOLDERS):
        for file in _files(folder):
            if file.stem.lower().startswith(needs.family.vae_names) and _is_vae(_shapes_of(file), needs.family):
                return file
    names = " or ".join(f"{each}.safetensors" for each in needs.family.vae_names)
    channels = _channels_of_vae(needs.family)
    raise CheckpointError(
        f"{path.name}: it holds a {needs.family.title} transformer and no VAE: give --vae FILE (the option sd_vae), "
        f"one with {channels} channels, often called {names}; looked in {_told(path, _VAE_FOLDERS)}"
    )


def needs_of(path: Path) -> Needs | None:
    """What a file lacks, if it holds the transformer of a flow family; None for anything else."""
    return _needs(path, stamp_of(path)) if path.suffix.lower() in _SUFFIXES and path.is_file() else None


@lru_cache(maxsize=64)
def _needs(path: Path, stamp: Stamp) -> Needs | None:
    shapes, metadata = _kept_header(path, stamp)
    found = transformer_part(shapes)
    if found is None:
        return None
    family, ours = told_family(found[0], Said(metadata, {}), path.name)[0], found[1]
    if not family.supported:
        return None
    network = transformer_spec(ours, family)
    assert network is not None
    there = list(all_text_parts(shapes))
    wanted = (
        NeededText(row.kind, width, row.optional) for row, width in zip(family.texts, network.text_widths, strict=True)
    )
    lacking = (
        each for each in wanted if not any(suits(kind, each.kind) and width == each.width for kind, width in there)
    )
    return Needs(family, tuple(lacking), not any(key.startswith(_VAE_PREFIXES) for key in shapes))


def _text_files(path: Path) -> Iterator[tuple[Path, TextKind, int]]:
    for folder in _folders(path, _TEXT_FOLDERS):
        for file in _files(folder):
            shapes = _shapes_of(file) if file != path else {}
            if not _holds_denoiser(shapes):  # text encoders of other models are trained further, or not for this one
                yield from ((file, kind, width) for kind, width in all_text_parts(shapes))


def _holds_denoiser(shapes: Shapes) -> bool:
    return any(key.startswith(UNET_PREFIX) for key in shapes) or transformer_part(shapes) is not None


def _is_vae(shapes: Shapes, family: Family) -> bool:
    first = next((shapes[key] for key in ("decoder.conv_in.weight", "decoder.conv1.weight") if key in shapes), ())
    frames, patch = (family.vae.kind == "wan", family.vae.patch) if family.vae is not None else (False, 1)
    fits = len(first) == (5 if frames else 4) and first[1] * patch**2 == family.latent.channels
    return fits and ("bn.running_mean" in shapes) == (patch > 1) and any(key.startswith("encoder.") for key in shapes)


def _channels_of_vae(family: Family) -> int:
    return family.latent.channels // (family.vae.patch**2 if family.vae is not None else 1)


def _folders(path: Path, names: tuple[str, ...]) -> list[Path]:
    """The file's own folder, and those of these names in it and in the two above."""
    own = path.absolute().parent
    beside = [above / name for above in (own, own.parent, own.parent.parent) for name in names]
    return [own, *(each for each in beside if each.is_dir())]


def _told(path: Path, names: tuple[str, ...]) -> str:
    return f"{path.absolute().parent} and the folders {', '.join(names)} beside and above it"


def _files(folder: Path) -> list[Path]:
    files = (each for each in folder.iterdir() if each.suffix.lower() in _SUFFIXES and each.is_file())
    return sorted(files, key=lambda each: natural_key(each.name))


def _shapes_of(path: Path) -> Shapes:
    """Of a file that cannot be read there are none; whoever opens it tells."""
    return _kept_header(path, stamp_of(path))[0]


@lru_cache(maxsize=16)
def _kept_header(path: Path, stamp: Stamp) -> tuple[Shapes, Mapping[str, str]]:
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors_shapes(path)
        from overpaint.models.gguf_files import open_gguf

        opened = open_gguf(path)
        return opened.shapes, opened.metadata
    except (CheckpointError, OSError):
        return {}, {}
