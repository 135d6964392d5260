"""`overpaint info FILE`: what a model file is, or how a picture was painted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from overpaint.cli.arguments import AsJson
from overpaint.cli.output import note, say, say_json, table
from overpaint.cli.told import is_stdin
from overpaint.errors import PictureError

UNUSABLE = 3
MODEL_SUFFIXES = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf"})
# How a file of a kind is used, by its name without extension, its name, and its folder.
_USE: Mapping[str, str] = {
    "controlnet": "--control {drawn}",
    "embedding": "the word {stem!r} in a prompt",
    "hypernet": "<hypernet:{stem}:1>",
    "lora": "<lora:{stem}:1>",
    "taesd": "--set {taesd}",
    "text_encoder": "--text-encoder {name}",
    "upscaler": "--hires-upscaler {quoted}",
    "vae": "--vae {name}",
}


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A model file or a built-in model's name, or a painted picture; - reads a picture from stdin.",
            show_default=False,
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
    if not (is_stdin(file) or file.exists()):
        raise PictureError(f"{file}: there is no such file")
    account = _model_account(file) if is_model else picture_account(file)
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


def _model_account(file: Path) -> dict[str, Any]:
    from overpaint.models.what_is import what_is

    account = what_is(file)
    use = None if account["problems"] else use_of(file, account["kind"])
    return account if use is None else {**account, "use_as": use}


def use_of(path: Path, kind: str) -> str | None:
    """What to write to use a model file of this kind; a checkpoint's name is enough, and so it has none."""
    if kind not in _USE:
        return None
    return _USE[kind].format(
        stem=path.stem,
        name=quote(path.name),
        quoted=quote(path.stem),
        drawn=quote(f"{path.stem}=PICTURE"),
        taesd=quote(f"taesd_dir={path.parent}"),
    )


def picture_account(path: Path) -> dict[str, Any]:
    """A picture in plain values: its infotext, taken apart, and its recipe."""
    from overpaint.cli.told import told_of
    from overpaint.text.infotext import split_infotext

    told = told_of(path)
    text = told.infotext
    parts = split_infotext(text) if text else None
    return {
        "kind": "picture",
        "path": str(path),
        "infotext": text,
        "prompt": parts.prompt if parts else None,
        "negative_prompt": parts.negative_prompt if parts else None,
        "parameters": dict(parts.fields) if parts else {},
        "items": {name: value for name, value in told.items.items() if isinstance(value, str | int | float)},
        "recipe": told.recipe,
    }


def _say_model(account: Mapping[str, Any]) -> None:
    if account["kind"] != "model":
        say(table(list(_rows_of(account))))
        for each in account["problems"]:
            note(each)
        return
    known = account.get("known_from", {})
    rows: list[tuple[object, ...]] = [("file", account["path"], "")]
    names = ["title", "family", "conditioning", "prediction", "scale_factor", "native_size", "input_channels"]
    names += ["shift", "guidance", "sha256"]
    for name in names:
        if account.get(name) is not None:
            origin = f"({known[name]})" if name in known else ""
            rows.append((name.replace("_", " "), account[name], origin))
    if account.get("usual"):
        rows.append(("usual", ", ".join(f"{name} {value:g}" for name, value in account["usual"].items()), ""))
    rows += [(name, ", ".join(account[name]), "") for name in ("needs", "beside") if account.get(name)]
    rows += [(name, f"{count / 1e6:.1f} M parameters", "") for name, count in account.get("parameters", {}).items()]
    say(table(rows))
    if account.get("words"):
        say(f"words it knows: {' '.join(account['words'])}")
    for each in account["problems"]:
        note(each)


def _rows_of(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """An account for people: what is not there is left out."""
    for name, value in account.items():
        if value in (None, [], False) or name == "problems":
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else str(value)
        yield name.replace("_", " "), shown


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
