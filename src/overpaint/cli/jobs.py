"""From what was asked to a job: the request of a new picture, or of one that was painted before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.cli.options import Asked
from overpaint.errors import CheckpointError, PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.adapters.wanted import AdapterFile
    from overpaint.files.keeping import Origins
    from overpaint.files.recipe import Recipe
    from overpaint.parts import Hires
    from overpaint.request import Img2ImgRequest, Picture
    from overpaint.settings import Settings


@dataclass(frozen=True)
class Job:
    """Everything that is decided before the engine is opened."""

    request: Img2ImgRequest
    settings: Settings
    origins: Origins
    painted_with: str = ""  # the hash of the model an earlier picture was painted with
    networks: Mapping[str, str] = field(default_factory=dict)  # and those of what hung on it, by name


@dataclass(frozen=True)
class Files:
    """The pictures that a command names."""

    source: Path | None = None
    mask: Path | None = None

    @property
    def masks(self) -> dict[str, Path]:
        """By field of the request."""
        return {} if self.mask is None else {"mask": self.mask}


def job_of(files: Files, prompt: str, asked: Asked) -> Job:
    """The request of `paint`, `txt2img` and `plan`."""
    settings, fields = asked.settings(), asked.fields()
    return _job(files, {"prompt": prompt, **fields}, settings)


def _job(files: Files, fields: Mapping[str, Any], settings: Settings, **known: Any) -> Job:
    """A job of fields as JSON has them; without a source it is a txt2img job."""
    from overpaint.files.keeping import Origins
    from overpaint.request import request_from_json
    from overpaint.text.shorthand import control_files, with_control_pictures, without_second_pass

    pictures: dict[str, Any] = {name: opened(path, settings) for name, path in files.masks.items()}
    if files.source is not None:
        fields = without_second_pass(fields)
        pictures["images"] = [opened(files.source, settings)]
    whole = with_control_pictures(fields, lambda path: opened(path, settings))
    origins = Origins(files.source, files.masks, control_files(fields))
    return Job(request_from_json({**whole, **pictures}), settings, origins, **known)


def opened(path: Path, settings: Settings) -> Picture:
    """A picture file, decoded; complaints name the file."""
    from overpaint.pictures import open_picture

    try:
        return open_picture(path, max_pixels=settings.max_source_pixels)
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error


def repeated_job(painted: Path, files: Files, asked: Asked) -> Job:
    """The request of `again`: from the recipe in or beside the picture, else from its infotext."""
    from overpaint.files.metadata import read_infotext, read_recipe
    from overpaint.files.recipe import Recipe

    values = read_recipe(painted)
    if values is not None:
        return _from_recipe(Recipe.from_json(values), painted, files, asked)
    text, _ = read_infotext(painted)
    if text is None:
        raise PictureError(f"{painted}: it holds neither a recipe nor an infotext; use `overpaint paint`")
    return _from_infotext(text, files, asked)


def _from_recipe(recipe: Recipe, painted: Path, files: Files, asked: Asked) -> Job:
    from overpaint.files.keeping import Origins
    from overpaint.files.kept_files import find_file, open_kept
    from overpaint.settings import Settings
    from overpaint.text.shorthand import control_files, with_control_pictures, without_second_pass

    settings = asked.settings(recipe.settings_on(Settings()))
    near, limit = (painted.parent, Path()), settings.max_source_pixels
    kept_hires = recipe.request.get("hires")
    changes = asked.fields(kept_hires if isinstance(kept_hires, Mapping) else None)
    if recipe.kind == "txt2img":
        _refuse_files(files)
    elif files.source is None:
        if recipe.source is None:
            raise RequestError("--picture", None, "the recipe names no source file; give it")
        files = Files(find_file(recipe.source, "picture", near), files.mask)
    if recipe.kind == "img2img":
        changes = without_second_pass(changes)
    if recipe.request.get("controls") and "controls" not in changes:
        changes["controls"] = recipe.control_fields(near)
    kept = {name: getattr(recipe, name) for name in ("mask", "latent_mask") if name not in files.masks}
    masks = {name: open_kept(each, name, near, limit) for name, each in kept.items()}
    masks |= {name: opened(path, settings) for name, path in files.masks.items()}
    source = None if files.source is None else opened(files.source, settings)
    request = recipe.request_for(source, masks, with_control_pictures(changes, lambda path: opened(path, settings)))
    origins = Origins(files.source, files.masks, control_files(changes))
    return Job(request, settings, origins, recipe.model.hash, recipe.networks)


def _refuse_files(files: Files) -> None:
    """Of a picture that was painted from noise."""
    for flag, path in (("--picture", files.source), ("--mask", files.mask)):
        if path is not None:
            raise RequestError(flag, str(path), "the picture was painted from noise, without a source; leave it out")


def _from_infotext(text: str, files: Files, asked: Asked) -> Job:
    """An infotext tells neither source nor mask, and of the reference's pictures expects the reference's ways."""
    from dataclasses import replace

    from overpaint.settings import Quirks, Settings
    from overpaint.text.control_notes import controls_told
    from overpaint.text.pasting import is_txt2img, option_overrides, request_fields

    parsed, networks = _with_local_names(text, asked.settings())
    if is_txt2img(parsed):
        _refuse_files(files)
    elif files.source is None:
        remedy = "the picture has an infotext but no recipe; give the source it was made of"
        raise RequestError("--picture", None, remedy)
    elif files.mask is None and ("Mask blur" in parsed or parsed.get("Inpaint area") == "Only masked"):
        raise RequestError("--mask", None, "the infotext speaks of a mask but does not hold it; give it")
    is_reference = str(parsed.get("Version", "v")).startswith("v")
    site = replace(Settings(), quirks=Quirks.reference() if is_reference else Quirks.none())
    settings = asked.settings(site.with_changes(option_overrides(parsed, site)))
    told = request_fields(parsed)
    fields = {**told, **asked.fields(_table_of(told.get("hires")))}
    if (units := controls_told(parsed)) and "controls" not in fields:
        raise RequestError("--control", None, f"the infotext does not hold its picture; give {_controls_again(units)}")
    painted_with = str(parsed.get("Model hash", ""))
    return _job(files, fields, settings, painted_with=painted_with, networks=networks)


def _controls_again(units: Iterable[Mapping[str, Any]]) -> str:
    """ControlNets as the command line has them, each with a place for its picture."""
    from overpaint.text.shorthand import control_text

    return " ".join(f"--control {control_text(each)}" for each in units)


def _table_of(hires: Hires | None) -> dict[str, Any] | None:
    return None if hires is None else vars(hires)


def _with_local_names(text: str, settings: Settings) -> tuple[dict[str, object], dict[str, str]]:
    """A parsed infotext, its LoRAs by the names that their files have here, and the hashes it gives them (PARSE-8).

    Files are read for their hashes only where a name is not known.
    """
    from overpaint.adapters.wanted import find_adapter, list_adapters
    from overpaint.files.recipe import hashes_told
    from overpaint.text.infotext import parse_infotext

    parsed = parse_infotext(text)
    told = hashes_told(parsed)
    files = list_adapters([Path(settings.lora_dir)]) if told and settings.lora_dir else ()
    if any(find_adapter(files, name) is None for name in told):
        parsed = parse_infotext(text, lora_aliases=dict(_hashes(files)))
    return parsed, {f"lora {name}": digest for name, digest in told.items()}


def _hashes(files: Iterable[AdapterFile]) -> Iterator[tuple[str, str]]:
    """Hash and name of every file that can be read."""
    from overpaint.models.hashes import network_hash

    for each in files:
        with suppress(CheckpointError, OSError):
            yield network_hash(each.path), each.name
