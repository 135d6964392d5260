"""From what was asked to a job: the request of a new picture, or of one that was painted before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.cli.chosen_model import model_asked_for, model_painted_with
from overpaint.cli.options import GivenOptions
from overpaint.cli.told import from_stdin, is_stdin, told_of
from overpaint.errors import CheckpointError, PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import Origins
    from overpaint.files.recipe import Recipe
    from overpaint.models.catalog import ModelFile
    from overpaint.models.ui_defaults import Tab
    from overpaint.parts import Hires
    from overpaint.request import PaintRequest, Picture
    from overpaint.settings import Settings
    from overpaint.stores import AnyFile


@dataclass(frozen=True)
class CommandJob:
    """Everything that is decided before the engine is opened."""

    request: PaintRequest
    settings: Settings
    origins: Origins
    model: str | None = None  # the checkpoint; None: the built-in one
    painted_with: str = ""  # the hash of the model an earlier picture was painted with
    networks: Mapping[str, str] = field(default_factory=dict)  # and those of what hung on it, by name
    tool: Mapping[str, Any] | None = None  # that the request is given to, with its kind
    repeats: bool = False  # an earlier picture, which has options of its own
    notes: tuple[str, ...] = ()  # what its user should know before anything is painted

    @property
    def tab(self) -> Tab:
        """Of a webui's page, where such jobs are made."""
        if not self.request.has_source:
            return "txt2img"
        return "img2img" if self.request.mask is None else "inpaint"


@dataclass(frozen=True)
class Files:
    """The pictures that a command names."""

    source: Path | None = None  # "-" is what comes in on stdin
    mask: str | None = None  # a file, or a mask in words
    strength_map: str | None = None  # the same

    def origins(self, fields: Mapping[str, Any]) -> Origins:
        """The files by which a recipe finds the pictures again; some are named in fields."""
        from overpaint.files.keeping import Origins
        from overpaint.text.shorthand import control_files, reference_files

        source = None if self.source is None or is_stdin(self.source) else self.source
        masks = {name: path for name, path in self.masks.items() if not is_stdin(path)}
        return Origins(source, masks, control_files(fields), reference_files(fields))

    @property
    def tab(self) -> Tab:
        """Of a webui's page, where such jobs are made."""
        if self.source is None:
            return "txt2img"
        return "img2img" if self.mask is None else "inpaint"

    @property
    def masks(self) -> dict[str, Path]:
        """By field of the request; one in words has no file."""
        return {name: Path(text) for name, text in self.given_masks.items() if name not in self._in_words}

    @property
    def given_masks(self) -> dict[str, str]:
        """What is given, in whatever form."""
        given = {"mask": self.mask, "strength_map": self.strength_map}
        return {name: text for name, text in given.items() if text is not None}

    def opened_masks(self, source: Picture | None, settings: Settings) -> dict[str, Picture]:
        """The masks themselves; one in words is drawn on the source."""
        from overpaint import masks

        read = masks.files_in(Path(), settings.max_source_pixels)
        found = {name: opened(path, settings) for name, path in self.masks.items()}
        if source is not None:
            found |= {name: masks.draw(text, source, read) for name, text in self._in_words.items()}
        return found

    @property
    def _in_words(self) -> dict[str, str]:
        from overpaint.masks import means_mask

        return {name: text for name, text in self.given_masks.items() if means_mask(text)}


def job_of(files: Files, prompt: str, asked: GivenOptions) -> CommandJob:
    """The request of `paint`, `txt2img` and `plan`."""
    settings = asked.settings()
    fields = asked.with_prompt(prompt).fields_over(files.tab)
    return _job(files, {"prompt": "", **fields}, settings, model=model_asked_for(asked, settings))


def _job(files: Files, fields: Mapping[str, Any], settings: Settings, **known: Any) -> CommandJob:
    """A job of fields as JSON has them; without a source it is a txt2img job."""
    from overpaint.request import PaintRequest
    from overpaint.text.shorthand import with_pictures, without_second_pass

    source = None
    if files.source is not None:
        fields = without_second_pass(fields)
        if files.source.is_dir():
            folder = files.source
            raise PictureError(f"{folder}: it is a folder; `overpaint batch {folder} OUT` paints every picture of one")
        source = opened(files.source, settings)
    pictures: dict[str, Any] = dict(files.opened_masks(source, settings))
    if source is not None:
        pictures["images"] = [source]
    whole = with_pictures(fields, lambda path: opened(path, settings))
    origins = files.origins(fields)
    return CommandJob(PaintRequest.from_json({**whole, **pictures}), settings, origins, **known)


def opened(path: AnyFile, settings: Settings) -> Picture:
    """A picture file, or what comes in on stdin, decoded; complaints name the file."""
    from overpaint.pictures import open_picture
    from overpaint.stores import content_of

    stdin = isinstance(path, Path) and is_stdin(path)
    name = "stdin" if stdin else str(path)
    try:
        return open_picture(from_stdin() if stdin else content_of(path), max_pixels=settings.max_source_pixels)
    except PictureError as error:
        told = str(error)
        raise PictureError(told if told.startswith(f"{name}: ") else f"{name}: {told}") from error


def repeated_job(painted: Path, files: Files, asked: GivenOptions, *, any_model: bool = False) -> CommandJob:
    """The request of `again`: from a recipe, else from an infotext."""
    from overpaint.files.recipe import Recipe

    if is_stdin(painted) and (files.mask == "-" or (files.source is not None and is_stdin(files.source))):
        raise RequestError("PICTURE", "-", "stdin can be one file only; name the others")
    told = told_of(painted)
    if told.recipe is not None:
        return _from_recipe(Recipe.from_json(told.recipe), told.folder, files, asked, any_model)
    if told.infotext is None:
        raise PictureError(f"{told.name}: it holds neither a recipe nor an infotext; use `overpaint paint`")
    return _from_infotext(told.infotext, files, asked, any_model)


def _model_again(name: str, digest: str, settings: Settings, asked: GivenOptions, any_model: bool) -> str | None:
    """The model of an earlier picture, unless another one is asked for."""
    if any_model or "model" in asked.given or not (name or digest):
        return model_asked_for(asked, settings)
    return model_painted_with(name, digest, settings)


def _from_recipe(recipe: Recipe, folder: Path, files: Files, asked: GivenOptions, any_model: bool) -> CommandJob:
    from overpaint.files.kept_files import find_file, open_kept
    from overpaint.settings import Settings
    from overpaint.text.shorthand import with_pictures, without_second_pass

    settings = asked.settings(recipe.settings_on(Settings()))
    near, limit = (folder, Path()), settings.max_source_pixels
    kept_hires = recipe.request.get("hires")
    changes = asked.fields(kept_hires if isinstance(kept_hires, Mapping) else None)
    if recipe.kind == "txt2img":
        _refuse_files(files)
    elif files.source is None:
        if recipe.source is None:
            raise RequestError("--picture", None, "the recipe names no source file; give it")
        files = replace(files, source=find_file(recipe.source, "picture", near))
    if recipe.kind == "img2img":
        changes = without_second_pass(changes)
    if recipe.request.get("controls") and "controls" not in changes:
        changes["controls"] = recipe.control_fields(near)
    if recipe.references and "references" not in changes:
        changes["references"] = recipe.reference_fields(near)
    kept = {name: getattr(recipe, name) for name in _MASKS if name not in files.given_masks}
    masks = {name: open_kept(each, name, near, limit) for name, each in kept.items()}
    source = None if files.source is None else opened(files.source, settings)
    masks |= files.opened_masks(source, settings)
    request = recipe.request_for(source, masks, with_pictures(changes, lambda path: opened(path, settings)))
    model = _model_again(recipe.model.name, recipe.model.hash, settings, asked, any_model)
    request = _without_other_checkpoint(request, model, settings)
    origins = files.origins(changes)
    painted_with, networks = recipe.model.hash, recipe.networks
    return CommandJob(request, settings, origins, model, painted_with, networks, tool=recipe.tool, repeats=True)


_MASKS = ("mask", "latent_mask", "strength_map")


def _without_other_checkpoint(request: PaintRequest, model: str | None, settings: Settings) -> PaintRequest:
    """The model was found by what it is; a name that means another one here, or nothing, is left out."""
    from overpaint.models.find import find_checkpoint

    if request.checkpoint is None:
        return request
    with suppress(CheckpointError):
        if find_checkpoint(request.checkpoint, settings) == find_checkpoint(model, settings):
            return request
    return request.with_changes(checkpoint=None)


def _refuse_files(files: Files) -> None:
    """Of a picture that was painted from noise."""
    given_files = ("--picture", files.source), ("--mask", files.mask), ("--strength-map", files.strength_map)
    for flag, given in given_files:
        if given is not None:
            raise RequestError(flag, str(given), "the picture was painted from noise, without a source; leave it out")


def _from_infotext(text: str, files: Files, asked: GivenOptions, any_model: bool) -> CommandJob:
    """An infotext tells neither source nor mask, and of the reference's pictures expects the reference's ways."""
    from overpaint.settings import Quirks, Settings
    from overpaint.text.control_notes import controls_told
    from overpaint.text.pasting import fields_without_effect, is_txt2img, option_overrides, request_fields

    parsed, networks = _with_local_names(text, asked.settings())
    if is_txt2img(parsed):
        _refuse_files(files)
    elif files.source is None:
        remedy = "the picture has an infotext but no recipe; give the source it was made of"
        raise RequestError("--picture", None, remedy)
    elif files.mask is None and ("Mask blur" in parsed or parsed.get("Inpaint area") == "Only masked"):
        raise RequestError("--mask", None, "the infotext speaks of a mask but does not hold it; give it")
    elif files.strength_map is None and "Strength map" in parsed:
        raise RequestError("--strength-map", None, "the infotext speaks of a map but does not hold it; give it")
    is_reference = str(parsed.get("Version", "v")).startswith("v")
    site = replace(Settings(), quirks=Quirks.reference() if is_reference else Quirks.none())
    changes, notes = _with_rng(option_overrides(parsed, site), text, is_reference, asked)
    settings = asked.settings(site.with_changes(changes))
    told = request_fields(parsed)
    fields = {**told, **asked.fields(_table_of(told.get("hires")))}
    if (units := controls_told(parsed)) and "controls" not in fields:
        raise RequestError("--control", None, f"the infotext does not hold its picture; give {_controls_again(units)}")
    name, digest = (str(parsed.get(key, "")) for key in ("Model", "Model hash"))
    if silent := fields_without_effect(text):
        notes = (*notes, f"these fields of the infotext have no effect here: {', '.join(silent)}")
    if not (name or digest) and "model" not in asked.given:
        notes = (*notes, "the infotext names no model; --model chooses one")
    model = _model_again(name, digest, settings, asked, any_model)
    known = {"painted_with": digest, "networks": networks, "notes": notes}
    return _job(files, fields, settings, model=model, repeats=True, **known)


def _with_rng(
    changes: dict[str, Any], text: str, is_reference: bool, asked: GivenOptions
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The reference's default noise is that of a graphics card, of which its infotexts say nothing."""
    from overpaint.text.infotext import split_infotext

    chosen = any(str(each).partition("=")[0].strip() == "randn_source" for each in asked.given.get("set", ()))
    if not is_reference or chosen or "RNG" in split_infotext(text).fields:
        return changes, ()
    said = "the infotext names no RNG, so the noise is that of an NVIDIA card, the webui's default (randn_source=NV)"
    return {**changes, "randn_source": "NV"}, (f"{said}; --set randn_source=CPU if it was painted without one",)


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
    from overpaint.files.recipe import hashes_told
    from overpaint.models.catalog import LORA, files_of, find_file
    from overpaint.text.infotext import parse_infotext

    parsed = parse_infotext(text)
    told = hashes_told(parsed)
    files = files_of(settings.lora_dir, LORA) if told else ()
    if any(find_file(files, name) is None for name in told):
        parsed = parse_infotext(text, lora_aliases=dict(_hashes(files)))
    return parsed, {f"lora {name}": digest for name, digest in told.items()}


def _hashes(files: Iterable[ModelFile]) -> Iterator[tuple[str, str]]:
    """Hash and name of every file that can be read."""
    from overpaint.models.hashes import network_hash

    for each in files:
        with suppress(CheckpointError, OSError):
            yield network_hash(each.path), each.name
