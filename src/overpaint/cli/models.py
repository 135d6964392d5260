"""`overpaint models`: what the folders of models hold, by the names that commands and prompts use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli.arguments import AsJson
from overpaint.cli.folders import folders_below
from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import say, say_json, table
from overpaint.cli.webui_told import tell_webui
from overpaint.errors import CheckpointError, RequestError

if TYPE_CHECKING:
    from overpaint.settings import Settings

Entry = dict[str, Any]


def _checkpoints(site: Settings) -> list[Entry]:
    from overpaint.models.find import model_folders
    from overpaint.models.hashes import list_checkpoints, user_hash_cache

    return [_checkpoint(each) for each in list_checkpoints(model_folders(site), cache=user_hash_cache())]


def _built_in() -> list[Entry]:
    from overpaint.models.built_in import built_in_files

    return [{**_checkpoint(each), "name": each.name_for_extra} for each in built_in_files()]


def _checkpoint(file: Any) -> Entry:
    from overpaint.models.what_is import row_of

    try:
        family, problem = row_of(file.path).title, None
    except CheckpointError as error:
        family, problem = None, str(error)
    known = {"path": str(file.path), "name": file.name, "title": file.title, "hash": file.shorthash}
    return {**known, "family": family, "problem": problem}


def _adapters(tag: str) -> Callable[[Settings], list[Entry]]:
    def listed(site: Settings) -> list[Entry]:
        from overpaint.models.catalog import HYPERNETWORK, LORA, files_of

        found = files_of(site.lora_dir, LORA) if tag == "lora" else files_of(site.hypernetwork_dir, HYPERNETWORK)
        return [
            {"path": str(each.path), "name": each.name, "alias": each.alias, "use_as": f"<{tag}:{each.name}:1>"}
            for each in found
        ]

    return listed


def _vaes(site: Settings) -> list[Entry]:
    from overpaint.models.vae_names import list_vaes

    return [_entry(path, name, f"--vae {quote(name)}") for name, path in list_vaes(site).items()]


def _embeddings(site: Settings) -> list[Entry]:
    from overpaint.adapters.embedding_files import embedding_files, read_embedding

    entries: list[Entry] = []
    for path in embedding_files(Path(site.embeddings_dir)):
        try:
            data = read_embedding(path)
        except CheckpointError as error:
            entries.append({**_entry(path, path.stem, None), "problem": str(error)})
            continue
        if data is not None:  # a picture may hold none
            entries.append(_entry(path, data.name, data.name))
    return entries


def _controlnets(site: Settings) -> list[Entry]:
    from overpaint.models.catalog import CONTROLNET, files_of

    found = files_of(site.controlnet_dir, CONTROLNET)
    return [_entry(each.path, each.name, f"--control {quote(f'{each.name}=PICTURE')}") for each in found]


def _upscalers(site: Settings) -> list[Entry]:
    from overpaint.models.upscaler_names import list_upscalers

    return [
        _entry(each.path, each.name, f"--hires-upscaler {quote(each.name)}")
        for each in list_upscalers(site)
        if each.path is not None
    ]


def _styles(site: Settings) -> list[Entry]:
    from overpaint.text.styles import load_styles

    file = Path(site.styles_file)
    return [
        _entry(file, each.name, f"--style {quote(each.name)}") for each in load_styles(file) if each.prompt is not None
    ]


def _entry(path: Path, name: str, use_as: str | None) -> Entry:
    return {"path": str(path), "name": name, "use_as": use_as}


@dataclass(frozen=True)
class _Kind:
    """A kind of model: the option that names its folder, and how that is read."""

    option: str
    what: str
    listed: Callable[[Settings], list[Entry]]


KINDS: Mapping[str, _Kind] = {
    "checkpoint": _Kind("models_dir", "checkpoint", _checkpoints),
    "lora": _Kind("lora_dir", "LoRA", _adapters("lora")),
    "vae": _Kind("vae_dir", "VAE", _vaes),
    "embedding": _Kind("embeddings_dir", "embedding", _embeddings),
    "controlnet": _Kind("controlnet_dir", "ControlNet", _controlnets),
    "upscaler": _Kind("esrgan_dir", "upscaler", _upscalers),
    "hypernet": _Kind("hypernetwork_dir", "hypernetwork", _adapters("hypernet")),
    "style": _Kind("styles_file", "style", _styles),
}
_OPTIONS = tuple(each for each in JOB_OPTIONS if each.name in ("models", "webui", "set"))
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
    site = _site(folder, KINDS[kind], asked)
    chosen = getattr(site, KINDS[kind].option)
    listed = KINDS[kind].listed(site)
    if kind == "checkpoint":
        listed = _where_they_belong(listed, site)
    found = [*(_built_in() if kind == "checkpoint" and folder is None else ()), *listed]
    tell_webui(asked, as_json, options_count=False)
    if as_json:
        say_json({"kind": kind, "folder": chosen, "models": found})
    elif not found:
        say(f"no {KINDS[kind].what} in {folder or chosen}")
    elif kind == "checkpoint":
        rows = [(each["name"], each["hash"] or "", each["family"] or _advice(each["problem"])) for each in found]
        say(table(rows, ("MODEL", "HASH", "FAMILY")))
    else:
        say(table([_row(each) for each in found], ("NAME", "WRITE", "")))
    return 0


def _site(given: Path | None, kind: _Kind, asked: GivenOptions) -> Settings:
    """With the folder that was named, the configured one, or for checkpoints the one we are in."""
    from overpaint.models.catalog import folders_in
    from overpaint.settings import Settings

    site = asked.settings()
    if given is not None:
        folder = str(given)
        if kind.option == "styles_file":
            folder = str(given / "styles.csv") if given.is_dir() else folder
        elif given.is_dir():  # a whole folder of models has one for each kind
            folder = folders_below(str(given)).get(kind.option, folder)
        site = Settings().with_changes({kind.option: folder})
    elif not getattr(site, kind.option) and kind.option == "models_dir":
        site = site.with_changes({kind.option: "."})
    places = folders_in(getattr(site, kind.option))
    if not places:
        what = "file" if kind.option == "styles_file" else "folder"
        raise RequestError("DIR", None, f"name the {what}, or set the option {kind.option}")
    for each in places if kind.option != "styles_file" else ():
        if not each.is_dir():
            raise CheckpointError(f"{each}: there is no such folder")
    return site


def _where_they_belong(entries: list[Entry], site: Settings) -> list[Entry]:
    """Without the files of other kinds that lie in the folders of their kinds, such as `Lora` below this one."""
    from overpaint.models.catalog import folders_in

    below = [folders_below(str(each)).items() for each in folders_in(site.models_dir)]
    others = [Path(path).resolve() for each in below for name, path in each if name != "models_dir"]

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
