"""The server's options (OPT-1 to OPT-3): one book for all clients, of which every job takes a frozen copy.

What was changed is kept in the store, so that it outlives the server. Folders and limits are the site's: they are in
no answer, and no client may set them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from overpaint.contract.options import reference_tables
from overpaint.errors import RequestError, SettingError
from overpaint.files.recipe import PAINTING_OPTIONS
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.models.hashes import CheckpointFile
from overpaint.planning.plan import plan
from overpaint.request import Txt2ImgRequest
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.errors import Refusal
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk
from overpaint.settings import OPTION_NAMES, REFERENCE_QUALITY, Quirks, Settings

KEPT_AS = "sdapi_options"  # in the store
CHECKPOINT, CHECKPOINT_HASH = "sd_model_checkpoint", "sd_checkpoint_hash"
OUTPUT_FOLDER = "outputs"  # below the data folder

_OF_THE_SITE = frozenset(
    {
        "styles_file",
        "text_encoder_files",
        "model_memory",
        "device_memory",
        "weights_kept",
        "encodings_memory",
        "backend",
        "flow_shift",
        "unoffered_features",
        "recipe_whole_paths",
    }
) | {name for name in OPTION_NAMES if name.endswith("_dir") or name.startswith("max_")}
CLIENT_OPTIONS = OPTION_NAMES - _OF_THE_SITE
_OURS_ALONE = frozenset(
    {"skip_late_cond", "deepcache_interval", "inpaint_window"}
)  # obeyed; the list is the reference's
_DEFAULTS = Settings()
_READ_ONLY = frozenset({CHECKPOINT_HASH})
_RESTRICTED = "api_"  # OPT-2: what begins so is left as it is, without a word
# Options that would change pictures and have one value here: as it is, so that a whole dict can be posted back.
_FIXED: Mapping[str, Any] = MappingProxyType(
    {"fp8_storage": "Disable", "sd_unet": "Automatic", "use_old_emphasis_implementation": False}
)
_OF_OTHER_PROGRAMS = "forge_"  # clients send these along to whatever server they find
_SMALL = Txt2ImgRequest(width=64, height=64, steps=1)
_BY_NAME = {"sd_vae": ("Automatic", "auto", "None", "")}  # and the names of files


@dataclass(frozen=True)
class Overrides:
    """The `override_settings` of one job: what the painting takes, what its settings take, what is left out."""

    painting: Mapping[str, Any]
    settings: Settings
    checkpoint: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class OptionsBook:
    """The options over what the server was started with. It keeps nothing itself: the store does."""

    desk: Desk
    base: Settings
    output_roots: tuple[Path, ...]

    @classmethod
    def of(cls, desk: Desk, config: ServeConfig) -> OptionsBook:
        """The reference's defaults with this server's folders; pictures are saved below its data folder."""
        root = config.data.absolute() / OUTPUT_FOLDER
        site = {name: Path(getattr(config.settings, name)) for name in _outdirs() if getattr(config.settings, name)}
        placed = {name: path if path.is_absolute() else config.data.absolute() / path for name, path in site.items()}
        given = config.settings.jpeg_quality
        quality = REFERENCE_QUALITY if given == Settings.jpeg_quality else given
        base = replace(config.settings, quirks=Quirks.reference(), return_grid=True, jpeg_quality=quality)
        base = base.with_changes({name: str(path) for name, path in placed.items()})
        configured = tuple(placed[name] for name, path in site.items() if path.is_absolute())
        return cls(desk, base, (root, *configured))

    def settings(self) -> Settings:
        """The options in force, as settings."""
        own = CLIENT_OPTIONS - {CHECKPOINT}
        return self.base.with_changes({name: value for name, value in self._kept().items() if name in own})

    def checkpoint_in_force(self, models: KnownModels) -> CheckpointFile:
        """The one that was chosen; the one that the server was started with, if none was or it is gone."""
        chosen = self._kept().get(CHECKPOINT)
        return (models.checkpoint(chosen) if chosen else None) or models.current()

    def values(self, models: KnownModels) -> dict[str, Any]:
        """OPT-1: every option with its value."""
        settings, kept, current = self.settings(), self._kept(), self.checkpoint_in_force(models)
        own = {name: _plain(getattr(settings, name)) for name in CLIENT_OPTIONS - _OURS_ALONE}
        inert = {
            **reference_tables()["options"],
            **{k: v for k, v in kept.items() if k in reference_tables()["options"]},
        }
        return {**inert, **_FIXED, **own, CHECKPOINT: current.title, CHECKPOINT_HASH: current.sha256}

    def set(self, values: Mapping[str, Any], title: str | None = None, spec: ModelSpec = SD1_SPEC) -> None:
        """OPT-2: one after another; those before one that cannot be set are set. `title` is the checkpoint's."""
        changed: dict[str, Any] = {}
        before = self.settings()
        try:
            for name, value in values.items():
                if name == CHECKPOINT:
                    changed.update({} if title is None else {CHECKPOINT: title})
                elif not _is_left_alone(name, value):
                    checked = self._checked(name, value)
                    _try(before, name, checked, spec)
                    changed[name] = checked
        finally:
            if changed:
                self.desk.store.set_option(KEPT_AS, {**self._kept(), **changed})

    def overridden(self, given: Mapping[str, Any], vaes: Iterable[str]) -> Overrides:
        """The options of one job: the book's with its own on top (I2I-10, the sane way: nobody else sees them)."""
        painting: dict[str, Any] = {}
        saving: dict[str, Any] = {}
        warnings: list[str] = []
        for name, value in given.items():
            if name.startswith(_OF_OTHER_PROGRAMS):
                warnings.append(f"override_settings.{name}: not obeyed, it is another program's option")
            elif name != CHECKPOINT and not _is_left_alone(name, value) and name in CLIENT_OPTIONS:
                target = painting if name in PAINTING_OPTIONS else saving
                target[name] = self._checked(name, value, vaes)
            elif name not in (*reference_tables()["options"], CHECKPOINT) and not _is_left_alone(name, value):
                self._checked(name, value)
        settings = self.settings().with_changes(saving)
        wanted = given.get(CHECKPOINT)
        return Overrides(painting, settings, None if wanted is None else str(wanted), tuple(warnings))

    def _kept(self) -> dict[str, Any]:
        return dict(self.desk.store.option(KEPT_AS) or {})

    def _checked(self, name: str, value: Any, known: Iterable[str] | None = None) -> Any:
        """The value as it is kept; a wrong one is an error."""
        if name in reference_tables()["options"]:
            return value
        if name in _FIXED:
            raise SettingError(name, value, f"this version offers only {_FIXED[name]!r}")
        if name not in CLIENT_OPTIONS:
            raise unknown_option(name)
        coerced = getattr(_DEFAULTS.with_changes({name: value}), name)
        if name in _outdirs() and coerced:
            return str(self._inside(name, coerced))
        if name in _BY_NAME and coerced not in (*_BY_NAME[name], *(known or ())) and _is_path(coerced):
            raise SettingError(name, value, "give the name of a file that is listed")
        return _plain(coerced)

    def _inside(self, name: str, value: str) -> Path:
        """A folder for results lies where the site lets pictures be saved."""
        path = (self.output_roots[0].parent / value).resolve()
        if not any(path.is_relative_to(root.resolve()) for root in self.output_roots):
            raise SettingError(name, value, f"give a folder below {OUTPUT_FOLDER}")
        return path


def _try(settings: Settings, name: str, value: Any, spec: ModelSpec) -> None:
    """A value with which no job could be planned is refused here, and not each time that one is."""
    if name not in CLIENT_OPTIONS or _plain(getattr(settings, name)) == value:
        return
    try:
        plan(_SMALL, settings.with_changes({name: value}), spec)
    except RequestError as error:
        if error.field == name:
            raise


def unknown_option(name: str) -> Refusal:
    """I2I-9, OPT-2: as the reference says it, to the letter."""
    return Refusal(500, "KeyError", repr(name))


def _is_left_alone(name: str, value: Any) -> bool:
    """Restricted and read-only options stay as they are; so does one that is posted back as read, or as null."""
    if value is None and (name in CLIENT_OPTIONS or name in _FIXED):
        return getattr(_DEFAULTS, name, True) is not None
    return name.startswith(_RESTRICTED) or name in _READ_ONLY or (name in _FIXED and value == _FIXED[name])


def _outdirs() -> tuple[str, ...]:
    return tuple(sorted(name for name in OPTION_NAMES if name.startswith("outdir_")))


def _is_path(name: str) -> bool:
    return Path(name).exists() or "/" in name or "\\" in name


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
