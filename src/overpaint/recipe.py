"""The manifest of a painted picture: all that is needed to paint it again and that its infotext does not say.

A recipe is about one picture, whatever job it came from: its own text and seed, its own source. Pictures are named
by path and SHA-256; a small mask travels inside. Recipes arrive in files of strangers, so nothing in one is trusted:
only options that change a picture are taken over, and a path is believed only if what lies there has the right hash.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from overpaint.errors import PictureError, RequestError
from overpaint.pictures import open_picture
from overpaint.pixels.mask import to_gray_mask
from overpaint.request import FIELD_NAMES, PICTURE_FIELDS, Img2ImgRequest, Picture
from overpaint.settings import OPTION_NAMES, Quirks, Settings
from overpaint.version import __version__

if TYPE_CHECKING:
    from overpaint.outcome import Processed

RECIPE_VERSION = 1
LARGEST_EMBEDDED_MASK = 262_144  # bytes of PNG; a larger mask is named by its file

_NAMES = tuple(each.name for each in fields(Settings))
# The sections of `Settings` from the autoencoder to the prompts; folders, limits and saving belong to the site.
PAINTING_OPTIONS = frozenset(_NAMES[_NAMES.index("sd_vae") : _NAMES.index("outdir_samples")])
_QUIRK_NAMES = frozenset(each.name for each in fields(Quirks))


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file by place and content. The path is relative to the painted picture where that is possible."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path, beside: Path | None = None) -> FileRecord:
        """The record of a file, as seen from the folder of the painted picture."""
        return cls(path=_seen_from(path.resolve(), beside), sha256=file_sha256(path))


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

    request: Mapping[str, Any]  # Img2ImgRequest.to_json, without pictures, the seeds known
    source: FileRecord | None = None
    mask: FileRecord | str | None = None  # a PNG data URL when small
    latent_mask: FileRecord | str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # options that differ from their defaults
    quirks: tuple[str, ...] = ()
    model: ModelRecord = ModelRecord()
    versions: Mapping[str, str] = field(default_factory=dict)
    version: int = RECIPE_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "recipe": self.version,
            "request": dict(self.request),
            "source": _record_json(self.source),
            "mask": _record_json(self.mask),
            "latent_mask": _record_json(self.latent_mask),
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "quirks": list(self.quirks),
            "model": {each.name: getattr(self.model, each.name) for each in fields(ModelRecord)},
            "versions": dict(self.versions),
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
        quirks = given.get("quirks") or []
        if not isinstance(quirks, list):
            raise RequestError("recipe.quirks", quirks, "a list of names belongs there")
        return cls(
            request={name: value for name, value in request.items() if name in FIELD_NAMES - PICTURE_FIELDS},
            source=_file_record("source", given.get("source")),
            mask=_mask_record("mask", given.get("mask")),
            latent_mask=_mask_record("latent_mask", given.get("latent_mask")),
            settings=_painting(_mapping("recipe.settings", given.get("settings") or {})),
            quirks=tuple(each for each in quirks if each in _QUIRK_NAMES),
            model=_model_record(given.get("model") or {}),
            versions={str(k): str(v) for k, v in _mapping("recipe.versions", given.get("versions") or {}).items()},
        )

    def settings_on(self, site: Settings) -> Settings:
        """The site's settings, with what this picture was painted with on top."""
        reset = {name: getattr(_DEFAULT_SETTINGS, name) for name in PAINTING_OPTIONS}
        quirks = Quirks(**dict.fromkeys(self.quirks, True))
        return Settings(**{**_values(site), **reset, "quirks": quirks}).with_changes(self.settings)

    def request_for(
        self, source: Picture, masks: Mapping[str, Picture | None], changes: Mapping[str, Any] | None = None
    ) -> Img2ImgRequest:
        """The request, with its pictures found again and some fields otherwise."""
        given = dict(self.request)
        given["overrides"] = _painting(_mapping("recipe.request.overrides", given.get("overrides") or {}))
        return Img2ImgRequest.from_json({**given, **masks, **(changes or {}), "images": [source]})


_DEFAULT_SETTINGS = Settings()


def recipe_of(
    processed: Processed,
    index: int,
    *,
    source: FileRecord | None = None,
    mask: FileRecord | None = None,
    latent_mask: FileRecord | None = None,
) -> Recipe:
    """The recipe of the picture with this index in the job."""
    plan = processed.plan
    image = plan.images[index]
    own = {
        "prompt": image.prompt,  # with styles in and comments out: what was painted
        "negative_prompt": image.negative_prompt,
        "styles": [],
        "seed": image.seed,
        "variation_seed": image.subseed if plan.request.variation_strength else -1,  # unused ones are random
        "batch_size": 1,
        "iterations": 1,
        "noise_multiplier": plan.sampler.noise_multiplier,
        "overrides": {},
    }
    request = {
        name: value for name, value in plan.request.to_json(pictures=False).items() if name not in PICTURE_FIELDS
    }
    model = processed.model
    return Recipe(
        request={**request, **own},
        source=source,
        mask=_kept_mask(plan.request.mask, plan.request.round_mask, mask),
        latent_mask=_kept_mask(plan.request.latent_mask, plan.request.round_mask, latent_mask),
        settings=changed_options(plan.settings),
        quirks=quirks_on(plan.settings),
        model=ModelRecord(name=model.name, hash=model.hash, vae_name=model.vae_name, vae_hash=model.vae_hash),
        versions=versions(),
    )


def changed_options(settings: Settings) -> dict[str, Any]:
    """The options that change a picture and are not at their defaults."""
    names = sorted(PAINTING_OPTIONS)
    pairs = ((name, getattr(settings, name)) for name in names)
    return {name: value for name, value in pairs if value != getattr(_DEFAULT_SETTINGS, name)}


def quirks_on(settings: Settings) -> tuple[str, ...]:
    """The accidents of the reference that are asked for."""
    return tuple(sorted(name for name in _QUIRK_NAMES if getattr(settings.quirks, name)))


def find_file(record: FileRecord, what: str, near: Sequence[Path]) -> Path:
    """The recorded file, looked for near the given folders; one whose content changed is refused."""
    changed = None
    for candidate in dict.fromkeys(_candidates(record, near)):
        if not candidate.is_file():
            continue
        if file_sha256(candidate) == record.sha256:
            return candidate
        changed = changed or candidate
    if changed is not None:
        remedy = f"it changed since (its SHA-256 is another one); give --{what} to paint from it all the same"
        raise RequestError(what, str(changed), remedy)
    raise RequestError(what, record.path, f"it is not there any more; give --{what} with its new place")


def open_kept(kept: FileRecord | str | None, what: str, near: Sequence[Path], max_pixels: int) -> Picture | None:
    """A mask out of a recipe."""
    if kept is None:
        return None
    if isinstance(kept, FileRecord):
        return open_picture(find_file(kept, what, near), max_pixels=max_pixels)
    try:
        return open_picture(base64.b64decode(kept.partition(",")[2], validate=True), max_pixels=max_pixels)
    except ValueError as error:
        raise PictureError(f"the recipe's {what} cannot be read ({error}); give --{what}") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What can change a picture's last bits, by name; asked of the installation, so that nothing heavy is imported."""
    found = {"overpaint": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _candidates(record: FileRecord, near: Sequence[Path]) -> Iterator[Path]:
    path = Path(record.path)
    if path.is_absolute():
        yield path
    for folder in near:
        yield folder / path
        yield folder / path.name


def _seen_from(path: Path, folder: Path | None) -> str:
    """A relative path keeps pictures and sources movable together, and a user's home folder out of shared pictures."""
    if folder is None:
        return path.name
    try:
        return PurePosixPath(Path(os.path.relpath(path, folder.resolve()))).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _kept_mask(mask: Picture | None, round_mask: bool, record: FileRecord | None) -> FileRecord | str | None:
    if mask is None:
        return None
    data = io.BytesIO()
    to_gray_mask(mask, round_mask).save(data, format="PNG", optimize=True)
    if data.tell() > LARGEST_EMBEDDED_MASK and record is not None:
        return record
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


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


def _model_record(value: object) -> ModelRecord:
    given = _mapping("recipe.model", value)
    known = {each.name: given[each.name] for each in fields(ModelRecord) if isinstance(given.get(each.name), str)}
    return ModelRecord(**known)
