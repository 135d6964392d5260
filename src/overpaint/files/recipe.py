"""The manifest of a painted picture: all that is needed to paint it again and that its infotext does not say.

A recipe is about one picture, whatever job it came from: its own text and seed, its own source. Pictures are named
by path and SHA-256; a small mask travels inside. Recipes arrive in files of strangers, so nothing in one is trusted:
only options that change a picture are taken over, and a path is believed only if what lies there has the right hash.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from overpaint.adapters.wanted import LoraUse
from overpaint.errors import RequestError
from overpaint.files.kept_files import FileRecord, embedded_controls, find_file, kept_mask
from overpaint.models.hashes import network_hash
from overpaint.models.usual import USUAL
from overpaint.request import PICTURE_FIELDS, PaintRequest, Picture, RequestKind
from overpaint.settings import OPTION_NAMES, Quirks, Settings
from overpaint.version import __version__

if TYPE_CHECKING:
    from overpaint.outcome import Processed
    from overpaint.planning.plans import NetworkPlan

RECIPE_VERSION = 1

_NAMES = tuple(each.name for each in fields(Settings))
_OF_THE_SITE = {
    "text_encoder_files",
    "model_memory",
    "device_memory",
    "weights_kept",
    "encodings_memory",
    "backend",
}
# The sections of `Settings` from the autoencoder to the prompts; folders, limits and saving belong to the site.
PAINTING_OPTIONS = frozenset(_NAMES[_NAMES.index("sd_vae") : _NAMES.index("outdir_samples")]) - _OF_THE_SITE
_SINCE: Mapping[str, Any] = {"blend": "plain"}  # fields that the first recipes do not have, as it was then
_QUIRK_NAMES = frozenset(each.name for each in fields(Quirks))


@dataclass(frozen=True, kw_only=True)
class JobFiles:
    """The files that a job's pictures came from, as far as they came from files."""

    source: FileRecord | None = None
    mask: FileRecord | None = None
    latent_mask: FileRecord | None = None
    strength_map: FileRecord | None = None
    controls: tuple[FileRecord | None, ...] = ()
    references: tuple[FileRecord | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The weights a picture was painted with."""

    name: str = ""
    hash: str = ""
    vae_name: str | None = None
    vae_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one picture was made."""

    request: Mapping[str, Any]  # as its to_json says, without pictures, the seeds known
    kind: RequestKind = "img2img"
    source: FileRecord | None = None
    mask: FileRecord | str | None = None  # a PNG data URL when small
    latent_mask: FileRecord | str | None = None
    strength_map: FileRecord | str | None = None
    controls: tuple[FileRecord | str | None, ...] = ()  # the pictures of the request's controls
    control_masks: tuple[str | None, ...] = ()  # and where they count
    references: tuple[FileRecord | str | None, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)  # LoRAs and hypernetworks -> their hashes
    settings: Mapping[str, Any] = field(default_factory=dict)  # options that differ from their defaults
    quirks: tuple[str, ...] = ()
    model: ModelRecord = ModelRecord()
    versions: Mapping[str, str] = field(default_factory=dict)
    tool: Mapping[str, Any] | None = None  # that the request was given to, such as outpaint, with its fields
    version: int = RECIPE_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "recipe": self.version,
            "kind": self.kind,
            "request": dict(self.request),
            "source": _record_json(self.source),
            "mask": _record_json(self.mask),
            "latent_mask": _record_json(self.latent_mask),
            **({"strength_map": _record_json(self.strength_map)} if self.strength_map is not None else {}),
            "controls": [_record_json(each) for each in self.controls],
            **({"control_masks": list(self.control_masks)} if any(self.control_masks) else {}),
            **({"references": [_record_json(each) for each in self.references]} if self.references else {}),
            "networks": dict(self.networks),
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "quirks": list(self.quirks),
            "model": {each.name: getattr(self.model, each.name) for each in fields(ModelRecord)},
            "versions": dict(self.versions),
            **({"tool": dict(self.tool)} if self.tool is not None else {}),
        }

    @classmethod
    def from_json(cls, values: object) -> Recipe:
        """The recipe that `to_json` wrote; anything else is a `RequestError`."""
        given = _mapping("recipe", values)
        version = given.get("recipe")
        if version != RECIPE_VERSION or isinstance(version, bool):
            remedy = f"this overpaint {__version__} reads recipes of version {RECIPE_VERSION}"
            raise RequestError("recipe", version, remedy)
        request = _mapping("recipe.request", given.get("request"))
        kind = given.get("kind", "img2img")
        if kind not in get_args(RequestKind):
            raise RequestError("recipe.kind", kind, f"one of {', '.join(get_args(RequestKind))} belongs there")
        return cls(
            kind=kind,
            request={
                name: value for name, value in request.items() if name in PaintRequest.field_names() - PICTURE_FIELDS
            },
            source=_file_record("source", given.get("source")),
            mask=_mask_record("mask", given.get("mask")),
            latent_mask=_mask_record("latent_mask", given.get("latent_mask")),
            strength_map=_mask_record("strength_map", given.get("strength_map")),
            controls=tuple(_mask_record("controls", each) for each in _list("controls", given.get("controls"))),
            control_masks=tuple(_kept_text(each) for each in _list("control_masks", given.get("control_masks"))),
            references=tuple(_mask_record("references", each) for each in _list("references", given.get("references"))),
            networks=_texts("networks", given.get("networks")),
            settings=_painting(_table("settings", given.get("settings"))),
            quirks=tuple(each for each in _list("quirks", given.get("quirks")) if each in _QUIRK_NAMES),
            model=_model_record(given.get("model") or {}),
            versions=_texts("versions", given.get("versions")),
            tool=_table("tool", given["tool"]) if given.get("tool") is not None else None,
        )

    def settings_on(self, site: Settings) -> Settings:
        """The site's settings, with what this picture was painted with on top."""
        reset = {name: getattr(_DEFAULT_SETTINGS, name) for name in PAINTING_OPTIONS}
        quirks = Quirks(**dict.fromkeys(self.quirks, True))
        return Settings(**{**_values(site), **reset, "quirks": quirks}).with_changes(self.settings)

    def request_for(
        self,
        source: Picture | None = None,
        masks: Mapping[str, Picture | None] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> PaintRequest:
        """The request, with its pictures found again and some fields otherwise; controls are changes, if it has any."""
        overrides = _painting(_table("request.overrides", self.request.get("overrides")))
        given = {**_SINCE, **self.request, "overrides": overrides, **(changes or {})}
        pictures = {} if self.kind == "txt2img" else {**(masks or {}), "images": [source]}
        return PaintRequest.from_json({**given, **pictures})

    def control_fields(self, near: Sequence[Path]) -> list[dict[str, Any]]:
        """The request's controls as JSON has them, each picture as the path of its file, or as a data URL."""
        units = [_table("request.controls", each) for each in _list("request.controls", self.request.get("controls"))]
        masks = self.control_masks or (None,) * len(units)
        # A unit that had a mask says nothing of it; one that had none says so.
        lost = any(mask is None and unit.get("mask", "") == "" for unit, mask in zip(units, masks, strict=False))
        if len(self.controls) != len(units) or any(each is None for each in self.controls) or lost:
            raise RequestError("controls", len(units), "the recipe does not hold all their pictures; give them again")
        images = (
            str(find_file(each, "control", near)) if isinstance(each, FileRecord) else each for each in self.controls
        )
        given = zip(units, images, masks, strict=True)
        return [{**unit, "image": image, "mask": mask} for unit, image, mask in given]

    def reference_fields(self, near: Sequence[Path]) -> list[str]:
        """The pictures that an edit model looked at, in the same way."""
        if any(each is None for each in self.references):
            remedy = "the recipe does not hold all of them; give them again"
            raise RequestError("references", len(self.references), remedy)
        return [
            str(find_file(each, "look-at", near)) if isinstance(each, FileRecord) else str(each)
            for each in self.references
        ]


_DEFAULT_SETTINGS = Settings()


def recipe_of(processed: Processed, index: int, files: JobFiles | None = None) -> Recipe:
    """The recipe of the picture with this index in the job."""
    plan, model, files = processed.plan, processed.model, files or JobFiles()
    request = plan.request if plan.tool is None else plan.tool.request
    told = {name: value for name, value in request.to_json(pictures=False).items() if name not in PICTURE_FIELDS}
    controls, masks = _kept_controls(request, files.controls)
    references = _kept_pictures(request.references, files.references)
    return Recipe(
        kind=request.kind,
        request={**told, **_own_fields(processed, index, told)},
        source=files.source,
        mask=kept_mask(request.mask, request.round_mask, files.mask),
        latent_mask=kept_mask(request.latent_mask, request.round_mask, files.latent_mask),
        strength_map=kept_mask(request.strength_map, False, files.strength_map),
        controls=controls,
        control_masks=masks,
        references=references,
        networks=networks_of(processed, index),
        settings=changed_options(plan.settings),
        quirks=quirks_on(plan.settings),
        tool=None if plan.tool is None else plan.tool.values,
        model=ModelRecord(name=model.name, hash=model.hash, vae_name=model.vae_name, vae_hash=model.vae_hash),
        versions=versions(),
    )


def _own_fields(processed: Processed, index: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are others for this picture alone than for its job."""
    plan = processed.plan
    image, request = plan.images[index], plan.request if plan.tool is None else plan.tool.request
    own: dict[str, Any] = {
        "prompt": image.prompt,  # with styles in and comments out: what was painted
        "negative_prompt": image.negative_prompt,
        "styles": [],
        "seed": image.seed,
        "variation_seed": image.subseed if request.variation_strength else -1,  # unused ones are random
        "batch_size": 1,
        "iterations": 1,
        "noise_multiplier": plan.sampler.noise_multiplier,
        "overrides": {},
        "checkpoint": _shared_name(request.checkpoint),
        "refiner": _shared_name(request.refiner),
        "controls": [{**each, "model": _shared_name(each["model"])} for each in told["controls"]],
    }
    own |= {name: getattr(plan.request, name) for name in USUAL if told[name] is None}
    if plan.hires is not None and request.hires is not None:
        second = plan.hires.plan.images[index]
        texts = {name: getattr(second, name) for name in ("prompt", "negative_prompt")}
        texts = {name: "" if text == own[name] else text for name, text in texts.items()}
        own["hires"] = {**told["hires"], **texts, "checkpoint": _shared_name(request.hires.checkpoint)}
    return own


def _shared_name(name: str | None) -> str | None:
    """A model's name as others may know it: recipes are shared, and a user's folders are no one's business."""
    return Path(name).name if name is not None and Path(name).is_absolute() else name


def networks_of(processed: Processed, index: int) -> dict[str, str]:
    """The LoRAs and hypernetworks of a picture, both passes': "lora name" -> hash."""
    plan = processed.plan
    both = [plan.images[index], *([plan.hires.plan.images[index]] if plan.hires is not None else ())]
    told = hashes_told(processed.extra_generation_params)
    return {network_name(each): _hash_of(each, told) for image in both for each in image.networks}


def network_name(network: NetworkPlan) -> str:
    """The kind and the name it was asked for by."""
    return f"{'lora' if isinstance(network.use, LoraUse) else 'hypernet'} {network.use.name}"


def _hash_of(network: NetworkPlan, told: Mapping[str, str]) -> str:
    """As the infotext has it; a file that it does not speak of is read."""
    name = network.use.name.replace(":", "").replace(",", "")
    return (told.get(name) if isinstance(network.use, LoraUse) else None) or network_hash(network.file.path)


def hashes_told(infotext_fields: Mapping[str, object]) -> dict[str, str]:
    """What an infotext says of its LoRAs: name -> hash (LORA-10)."""
    pairs = (each.partition(": ") for each in str(infotext_fields.get("Lora hashes", "")).split(", "))
    return {name: digest for name, colon, digest in pairs if colon}


def changed_networks(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings of files that are not what they were under the same names."""
    return tuple(
        f"{name}: the picture was painted with {digest}, the file of this name is {now[name]} now"
        for name, digest in before.items()
        if name in now and not now[name].startswith(digest) and not digest.startswith(now[name])
    )


def changed_options(settings: Settings) -> dict[str, Any]:
    """The options that change a picture and are not at their defaults."""
    names = sorted(PAINTING_OPTIONS)
    pairs = ((name, getattr(settings, name)) for name in names)
    return {name: value for name, value in pairs if value != getattr(_DEFAULT_SETTINGS, name)}


def quirks_on(settings: Settings) -> tuple[str, ...]:
    """The accidents of the reference that are asked for."""
    return tuple(sorted(name for name in _QUIRK_NAMES if getattr(settings.quirks, name)))


def versions() -> dict[str, str]:
    """What can change a picture's last bits, by name; asked of the installation, so that nothing heavy is imported."""
    found = {"overpaint": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _kept_controls(
    request: PaintRequest, files: tuple[FileRecord | None, ...]
) -> tuple[tuple[FileRecord | str | None, ...], tuple[str | None, ...]]:
    """Control pictures and their masks: named by their files, as sources are; what has none travels inside."""
    masks = embedded_controls([each.mask for each in request.controls])
    return _kept_pictures([each.image for each in request.controls], files), masks


def _kept_pictures(
    pictures: Sequence[Picture | None], files: tuple[FileRecord | None, ...]
) -> tuple[FileRecord | str | None, ...]:
    known = (*files, *(None for _ in pictures))[: len(pictures)]
    pairs = zip(pictures, known, strict=True)
    inside = embedded_controls([None if file is not None else picture for picture, file in pairs])
    return tuple(file or own for file, own in zip(known, inside, strict=True))


def _values(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in OPTION_NAMES}


def _painting(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in PAINTING_OPTIONS}


def _record_json(record: FileRecord | str | None) -> Any:
    return {"path": record.path, "sha256": record.sha256} if isinstance(record, FileRecord) else record


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestError(name, value, "it is not a recipe of overpaint; a JSON object belongs there")
    return value


def _table(name: str, value: object) -> Mapping[str, Any]:
    return _mapping(f"recipe.{name}", value or {})


def _texts(name: str, value: object) -> dict[str, str]:
    return {str(key): str(each) for key, each in _table(name, value).items()}


def _list(name: str, value: object) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise RequestError(f"recipe.{name}", value, "a list belongs there")
    return value or []


def _file_record(name: str, value: object) -> FileRecord | None:
    if value is None:
        return None
    given = _mapping(f"recipe.{name}", value)
    path, digest = given.get("path"), given.get("sha256")
    if not isinstance(path, str) or not isinstance(digest, str) or "\0" in path:
        raise RequestError(f"recipe.{name}", dict(given), "a path and a sha256 belong there")
    return FileRecord(path=path, sha256=digest)


def _mask_record(name: str, value: object) -> FileRecord | str | None:
    return value if isinstance(value, str) else _file_record(name, value)


def _kept_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _model_record(value: object) -> ModelRecord:
    given = _mapping("recipe.model", value)
    known = {each.name: given[each.name] for each in fields(ModelRecord) if isinstance(given.get(each.name), str)}
    return ModelRecord(**known)
