"""`overpaint info FILE`: what a model file is, or how a picture was painted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.output import note, say, say_json, table
from overpaint.cli.paint import AsJson
from overpaint.errors import CheckpointError, PictureError

if TYPE_CHECKING:
    from overpaint.models.families import ModelSpec
    from overpaint.settings import Settings

UNUSABLE = 3
MODEL_SUFFIXES = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf"})
_NETWORKS = {"model.diffusion_model.": "U-Net", "first_stage_model.": "VAE", "cond_stage_model.": "text encoder"}
_NETWORKS |= {"conditioner.": "text encoders"}

Header = tuple[Mapping[str, tuple[int, ...]], Mapping[str, str]]


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A model file or a built-in model's name, or a painted picture.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> int:
    """Say what a model file is, or how a picture was painted.

    It tells how each fact was known.

    A checkpoint may be a folder. LoRAs, VAEs, ControlNets, upscalers, embeddings and hypernetworks are recognised too.
    """
    file = _built_in(file)
    is_model = file.suffix.lower() in MODEL_SUFFIXES or file.is_dir()
    if not file.exists():
        raise PictureError(f"{file}: there is no such file")
    account = model_account(file) if is_model else picture_account(file)
    if as_json:
        say_json(account)
    elif is_model:
        _say_model(account)
    else:
        _say_picture(account)
    return UNUSABLE if account.get("problems") else 0


def _built_in(file: Path) -> Path:
    """The file of a model that comes with the package, if this is its name and not that of a file."""
    from overpaint.models.built_in import built_in_names, built_in_path

    return built_in_path(str(file)) if str(file) in built_in_names() and not file.exists() else file


def spec_of(path: Path, settings: Settings | None = None) -> ModelSpec:
    """What a model is, from its header and the configuration beside it."""
    from overpaint.models.detect import detect
    from overpaint.models.families import UNET_PREFIX
    from overpaint.models.header import read_sidecar

    texts = settings.text_encoder_files if settings is not None else ()
    shapes, metadata = read_header(path) if path.suffix.lower() == ".safetensors" else ({}, {})
    if texts or not any(key.startswith(UNET_PREFIX) for key in shapes):  # it takes more to know these, and torch
        from overpaint.models.checkpoint import recognise

        return recognise(path, tuple(map(Path, texts)))
    try:
        return detect(shapes, metadata, read_sidecar(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def read_header(path: Path) -> Header:
    """Shapes and metadata. A safetensors file is asked by its own library: that needs no torch."""
    if path.suffix.lower() != ".safetensors":
        from overpaint.models.files import read_checkpoint

        weights = read_checkpoint(path)
        return weights.shapes, weights.metadata
    from overpaint.models.header import safetensors_shapes

    return safetensors_shapes(path)


def model_account(path: Path) -> dict[str, Any]:
    """A model file in plain values; what keeps it from being used is listed as its problems."""
    account: dict[str, Any] = {"kind": "model", "path": str(path), "bytes": _bytes(path), "problems": []}
    try:
        other = _other_account(path)
        return {**account, **other} if other is not None else {**account, **_checkpoint_account(path)}
    except CheckpointError as error:
        from overpaint.cli.other_files import account_of_upscaler

        upscaler = account_of_upscaler(path) if path.suffix.lower() in (".pth", ".pt", ".safetensors") else None
        return {**account, **(upscaler or {"problems": [str(error)]})}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(each.stat().st_size for each in files if each.is_file())


def _other_account(path: Path) -> dict[str, Any] | None:
    """Of a file that is no checkpoint."""
    from overpaint.cli.other_files import account_of_other, account_of_pickle

    if path.is_dir() or path.suffix.lower() == ".gguf":
        return None
    try:
        shapes, metadata = read_header(path)
    except CheckpointError:
        told = account_of_pickle(path) if path.suffix.lower() in (".pt", ".bin", ".pth") else None
        if told is None:
            raise
        return told
    return account_of_other(path, shapes, metadata)


def _checkpoint_account(path: Path) -> dict[str, Any]:
    from overpaint.models.built_in import words_of
    from overpaint.models.hashes import checkpoint_file, sha256_of, user_hash_cache

    account = {**_spec_account(spec_of(path)), "parameters": _sizes(path)}
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
        "input_channels": spec.unet.in_channels,
        "known_from": dict(spec.facts),
    }


def _sizes(path: Path) -> dict[str, int]:
    """Parameters by network."""
    from overpaint.models.families import UNET_PREFIX

    shapes = read_header(path)[0] if path.suffix.lower() == ".safetensors" else {}
    if not any(key.startswith(UNET_PREFIX) for key in shapes):
        from overpaint.models.opened import open_model

        shapes = open_model(path).shapes
    sizes: dict[str, int] = {}
    for key, shape in shapes.items():
        name = next((name for prefix, name in _NETWORKS.items() if key.startswith(prefix)), "other")
        sizes[name] = sizes.get(name, 0) + math.prod(shape)
    return sizes


def picture_account(path: Path) -> dict[str, Any]:
    """A picture in plain values: its infotext, taken apart, and its recipe."""
    from overpaint.cli.jobs import is_text, told_infotext
    from overpaint.files.metadata import read_infotext, read_recipe
    from overpaint.text.infotext import split_infotext

    text, items = (told_infotext(path), {}) if is_text(path) else read_infotext(path)
    recipe = None if is_text(path) else read_recipe(path)
    parts = split_infotext(text) if text else None
    return {
        "kind": "picture",
        "path": str(path),
        "infotext": text,
        "prompt": parts.prompt if parts else None,
        "negative_prompt": parts.negative_prompt if parts else None,
        "parameters": dict(parts.fields) if parts else {},
        "items": {name: value for name, value in items.items() if isinstance(value, str | int | float)},
        "recipe": recipe,
    }


def _say_model(account: Mapping[str, Any]) -> None:
    if account["kind"] != "model":
        from overpaint.cli.other_files import rows_of

        say(table(list(rows_of(account))))
        for each in account["problems"]:
            note(each)
        return
    known = account.get("known_from", {})
    rows: list[tuple[object, ...]] = [("file", account["path"], "")]
    names = ("title", "family", "conditioning", "prediction", "scale_factor", "native_size", "input_channels", "sha256")
    for name in names:
        if account.get(name) is not None:
            origin = f"({known[name]})" if name in known else ""
            rows.append((name.replace("_", " "), account[name], origin))
    rows += [(name, f"{count / 1e6:.1f} M parameters", "") for name, count in account.get("parameters", {}).items()]
    say(table(rows))
    if account.get("words"):
        say(f"words it knows: {' '.join(account['words'])}")
    for each in account["problems"]:
        note(each)


def _say_picture(account: Mapping[str, Any]) -> None:
    if account["infotext"] is None and account["recipe"] is None:
        say("no infotext and no recipe in it")
        return
    if account["infotext"]:
        say(account["infotext"])
    recipe = account["recipe"] or {}
    for name in ("source", "controls", "model", "networks", "quirks", "settings", "versions"):
        if recipe.get(name):
            say(f"{name}: {_one_line(recipe[name])}")


def _one_line(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each is not None)
    return ", ".join(map(_one_line, value)) if isinstance(value, list) else str(value)[:200]
