"""`overpaint models`: what the folders of models hold, by the names that commands and prompts use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from overpaint.cli.folders import folders_below
from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import say, say_json, table
from overpaint.cli.paint import AsJson
from overpaint.errors import CheckpointError, RequestError

Entry = dict[str, Any]


def _checkpoints(folder: Path) -> list[Entry]:
    from overpaint.models.hashes import list_checkpoints, user_hash_cache

    return [_checkpoint(each) for each in list_checkpoints([folder], cache=user_hash_cache())]


def _built_in() -> list[Entry]:
    from overpaint.models.built_in import built_in_files

    return [{**_checkpoint(each), "name": each.name_for_extra} for each in built_in_files()]


def _checkpoint(file: Any) -> Entry:
    from overpaint.models.what_is import spec_of

    try:
        family, problem = spec_of(file.path).title, None
    except CheckpointError as error:
        family, problem = None, str(error)
    known = {"path": str(file.path), "name": file.name, "title": file.title, "hash": file.shorthash}
    return {**known, "family": family, "problem": problem}


def _adapters(tag: str) -> Callable[[Path], list[Entry]]:
    def listed(folder: Path) -> list[Entry]:
        from overpaint.models.catalog import HYPERNETWORK, LORA, files_of

        found = files_of(folder, LORA if tag == "lora" else HYPERNETWORK)
        return [
            {"path": str(each.path), "name": each.name, "alias": each.alias, "use_as": f"<{tag}:{each.name}:1>"}
            for each in found
        ]

    return listed


def _vaes(folder: Path) -> list[Entry]:
    from overpaint.models.vae_names import list_vaes
    from overpaint.settings import Settings

    found = list_vaes(Settings(vae_dir=str(folder)))
    return [_entry(path, name, f"--vae {quote(name)}") for name, path in found.items()]


def _embeddings(folder: Path) -> list[Entry]:
    from overpaint.adapters.embedding_files import embedding_files, read_embedding

    entries: list[Entry] = []
    for path in embedding_files(folder):
        try:
            data = read_embedding(path)
        except CheckpointError as error:
            entries.append({**_entry(path, path.stem, None), "problem": str(error)})
            continue
        if data is not None:  # a picture may hold none
            entries.append(_entry(path, data.name, data.name))
    return entries


def _controlnets(folder: Path) -> list[Entry]:
    from overpaint.models.catalog import CONTROLNET, files_of

    found = files_of(folder, CONTROLNET)
    return [_entry(each.path, each.name, f"--control {quote(f'{each.name}=PICTURE')}") for each in found]


def _upscalers(folder: Path) -> list[Entry]:
    from overpaint.models.upscaler_names import list_upscalers
    from overpaint.settings import Settings

    found = list_upscalers(Settings(esrgan_dir=str(folder)))
    return [
        _entry(each.path, each.name, f"--hires-upscaler {quote(each.name)}") for each in found if each.path is not None
    ]


def _entry(path: Path, name: str, use_as: str | None) -> Entry:
    return {"path": str(path), "name": name, "use_as": use_as}


@dataclass(frozen=True)
class _Kind:
    """A kind of model: the option that names its folder, and how that is read."""

    option: str
    what: str
    listed: Callable[[Path], list[Entry]]


KINDS: Mapping[str, _Kind] = {
    "checkpoint": _Kind("models_dir", "checkpoint", _checkpoints),
    "lora": _Kind("lora_dir", "LoRA", _adapters("lora")),
    "vae": _Kind("vae_dir", "VAE", _vaes),
    "embedding": _Kind("embeddings_dir", "embedding", _embeddings),
    "controlnet": _Kind("controlnet_dir", "ControlNet", _controlnets),
    "upscaler": _Kind("esrgan_dir", "upscaler", _upscalers),
    "hypernet": _Kind("hypernetwork_dir", "hypernetwork", _adapters("hypernet")),
}
_OPTIONS = tuple(each for each in JOB_OPTIONS if each.name in ("models", "set"))
Folder = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="The folder (default: the configured one).", show_default=False)
]
OfKind = Annotated[str, typer.Option("--kind", help=f"One of {', '.join(KINDS)}.")]


@takes(*_OPTIONS)
def models(*, folder: Folder = None, kind: OfKind = "checkpoint", as_json: AsJson = False, asked: GivenOptions) -> int:
    """List the models of a folder by the names that commands use.

    Folders below it count too. Unless a folder is named, those that are built in come first.
    Checkpoints come with family and, where it is known already, hash; folders and GGUF files count too.
    """
    if kind not in KINDS:
        raise RequestError("--kind", kind, f"choose one of {', '.join(KINDS)}")
    chosen = _folder(folder, KINDS[kind], asked)
    listed = KINDS[kind].listed(chosen)
    if kind == "checkpoint":
        listed = _where_they_belong(listed, chosen)
    found = [*(_built_in() if kind == "checkpoint" and folder is None else ()), *listed]
    if as_json:
        say_json({"kind": kind, "folder": str(chosen), "models": found})
    elif not found:
        say(f"no {KINDS[kind].what} in {chosen}")
    elif kind == "checkpoint":
        rows = [(each["name"], each["hash"] or "", each["family"] or _advice(each["problem"])) for each in found]
        say(table(rows, ("MODEL", "HASH", "FAMILY")))
    else:
        say(table([_row(each) for each in found], ("NAME", "WRITE", "")))
    return 0


def _folder(given: Path | None, kind: _Kind, asked: GivenOptions) -> Path:
    """The folder that was named, the configured one, or for checkpoints the one we are in."""
    configured = getattr(asked.settings(), kind.option)
    folder = Path(configured) if configured else None
    if given is not None:
        folder = given
        if given.is_dir():  # a whole folder of models has one for each kind
            folder = Path(folders_below(str(given)).get(kind.option, given))
    if folder is None and kind.option == "models_dir":
        folder = Path()
    if folder is None:
        raise RequestError("DIR", None, f"name the folder, or set the option {kind.option}")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    return folder


def _where_they_belong(entries: list[Entry], folder: Path) -> list[Entry]:
    """Without the files of other kinds that lie in the folders of their kinds, such as `Lora` below this one."""
    others = [Path(path).resolve() for name, path in folders_below(str(folder)).items() if name != "models_dir"]

    def belongs(entry: Entry) -> bool:
        path = Path(entry["path"]).resolve()
        return entry["family"] is None and any(path.is_relative_to(each) for each in others)

    return [each for each in entries if not belongs(each)]


def _advice(problem: str) -> str:
    """The end of an error: what to do."""
    return problem.rpartition("): ")[2]


def _row(entry: Entry) -> tuple[str, str, str]:
    """The alias is shown where it is another name."""
    alias = entry.get("alias")
    note = f"also {alias}" if alias not in (None, entry["name"]) else entry.get("problem") or ""
    return entry["name"], entry["use_as"] or "", note
