"""What a model file is. The engine, the command and the service all ask here, and so get the same answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from overpaint.errors import CheckpointError
from overpaint.models.built_in import words_of
from overpaint.models.companions import needs_of, text_encoders_for, vae_for
from overpaint.models.detect import detect
from overpaint.models.families import FAMILIES, UNET_PREFIX, Family, ModelSpec
from overpaint.models.hashes import checkpoint_file, sha256_of, user_hash_cache
from overpaint.models.header import read_sidecar, safetensors_shapes
from overpaint.models.other_kinds import account_of_other, account_of_pickle, account_of_upscaler
from overpaint.models.transformer_shapes import transformer_part
from overpaint.models.usual import usual_of

Header = tuple[Mapping[str, tuple[int, ...]], Mapping[str, str]]

_NETWORKS = {"model.diffusion_model.": "U-Net", "first_stage_model.": "VAE", "cond_stage_model.": "text encoder"}
_NETWORKS |= {"conditioner.": "text encoders", "text_encoders.": "text encoders"}
_PICKLES = (".pt", ".bin", ".pth")
_UPSCALERS = (".pth", ".pt", ".safetensors")


class UntoldError(CheckpointError):
    """It takes more than a file's header, and torch, to know what it is."""


def spec_of(path: Path, text_encoders: Iterable[str | Path] = (), *, header_only: bool = False) -> ModelSpec:
    """What a checkpoint is; no tensor is read.

    Most safetensors files tell it by their header. Everything else, and a checkpoint that may take its text encoders
    from other files, needs torch: with `header_only` that is an `UntoldError`.
    """
    texts = tuple(map(Path, text_encoders))
    is_readable = not texts and _is_safetensors(path) and path.is_file()
    shapes, metadata = safetensors_shapes(path) if is_readable else ({}, {})
    if any(key.startswith(UNET_PREFIX) for key in shapes) and transformer_part(shapes) is None:
        try:
            return detect(shapes, metadata, read_sidecar(path))
        except CheckpointError as error:
            raise CheckpointError(f"{path.name}: {error}") from error
    if header_only:
        raise UntoldError(f"{path.name}: its header alone does not tell what it is; plan it with `overpaint plan`")
    from overpaint.models.checkpoint import recognise

    return recognise(path, texts)


def row_of(path: Path, *, header_only: bool = False) -> Family | ModelSpec:
    """What family a checkpoint is of, whether or not what it needs is there, too."""
    needs = None if header_only and not _is_safetensors(path) else needs_of(path)  # NOTE: GGUF is read with torch
    return needs.family if needs is not None else spec_of(path, header_only=header_only)


def sees_pictures(path: Path) -> bool:
    """Whether a checkpoint looks at a request's `references`, as its header tells, or else its name."""
    try:
        return row_of(path, header_only=True).sees_pictures
    except Exception:  # of a GGUF, for one; no file keeps a request from being judged
        return _named_as_seeing(path.name.lower())


def _named_as_seeing(name: str) -> bool:
    """Whether a name makes it one of those that look: a family of the same shapes with another name does not."""
    blind = {each.marks for each in FAMILIES if not (each.called or each.sees_pictures)}
    seeing = (each for each in FAMILIES if each.sees_pictures and each.called and each.marks in blind)
    return any(re.search(each.called, name) for each in seeing)


def what_is(path: Path) -> dict[str, Any]:
    """A model file of any kind in plain values; what keeps it from being used is listed as its problems."""
    account: dict[str, Any] = {"kind": "model", "path": str(path), "bytes": _bytes(path), "problems": []}
    try:
        other = _other_account(path)
        return {**account, **other} if other is not None else {**account, **_checkpoint_account(path)}
    except CheckpointError as error:
        upscaler = account_of_upscaler(path) if path.suffix.lower() in _UPSCALERS else None
        return {**account, **(upscaler or {"problems": [str(error)]})}


def read_header(path: Path) -> Header:
    """Shapes and metadata. A safetensors file is asked by its own library: that needs no torch."""
    if _is_safetensors(path):
        return safetensors_shapes(path)
    from overpaint.models.files import read_checkpoint

    weights = read_checkpoint(path)
    return weights.shapes, weights.metadata


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(each.stat().st_size for each in files if each.is_file())


def _other_account(path: Path) -> dict[str, Any] | None:
    """Of a file that is no checkpoint."""
    if path.is_dir() or path.suffix.lower() == ".gguf":
        return None
    try:
        shapes, metadata = read_header(path)
    except CheckpointError:
        found = account_of_pickle(path) if path.suffix.lower() in _PICKLES else None
        if found is None:
            raise
        return found
    return account_of_other(path, shapes, metadata)


def _checkpoint_account(path: Path) -> dict[str, Any]:
    needs = needs_of(path)
    lacking = {"family": needs.family.title, "needs": list(needs.titles())} if needs is not None else {}
    try:
        beside = {} if needs is None else {"beside": [Path(each).name for each in text_encoders_for(path)]}
        spec = spec_of(path, text_encoders_for(path))
        if needs is not None and needs.vae and (vae := vae_for(path)) is not None:
            beside["beside"].append(vae.name)
    except CheckpointError as error:
        if not lacking:
            raise
        return {**lacking, "problems": [str(error)]}
    account = {**_spec_account(spec), **lacking, **beside, "parameters": _sizes(path)}
    named = checkpoint_file(path, (), sha256_of(path, user_hash_cache()) if path.is_file() else None)
    words = {"words": sorted(words_of(path))} if words_of(path) else {}
    return {**account, "title": named.title, "hash": named.shorthash, "sha256": named.sha256, **words}


def _spec_account(spec: ModelSpec) -> dict[str, Any]:
    return {
        "family": spec.title,
        "prediction": spec.prediction,
        "conditioning": spec.conditioning,
        "native_size": spec.native_size,
        "scale_factor": spec.latent.scale,
        "input_channels": spec.denoiser.in_channels,
        **({"shift": round(spec.shift.of(4096, 20), 4)} if spec.is_flow else {}),
        **({"guidance": spec.guidance} if spec.guidance is not None else {}),
        "usual": usual_of(spec),
        "known_from": dict(spec.facts),
    }


def _sizes(path: Path) -> dict[str, int]:
    """Parameters by network."""
    shapes = read_header(path)[0] if _is_safetensors(path) else {}
    if not any(key.startswith(UNET_PREFIX) for key in shapes):
        from overpaint.models.opened import open_model

        shapes = open_model(path).shapes
    sizes: dict[str, int] = {}
    names = _NETWORKS if transformer_part(shapes) is None else {**_NETWORKS, UNET_PREFIX: "transformer"}
    for key, shape in shapes.items():
        name = next((name for prefix, name in names.items() if key.startswith(prefix)), "other")
        sizes[name] = sizes.get(name, 0) + math.prod(shape)
    return sizes
