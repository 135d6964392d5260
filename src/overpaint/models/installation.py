"""An installation of the reference, used as it lies: its models, its styles, and what its options say.

Nothing is ever written there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from overpaint.contract.options import reference_tables
from overpaint.errors import RequestError
from overpaint.models.catalog import natural_key
from overpaint.models.families import SD1_SPEC
from overpaint.models.find import model_folders
from overpaint.models.hashes import list_checkpoints
from overpaint.models.launch_flags import LaunchFlags, read_flags
from overpaint.models.ui_defaults import UI_CONFIG, UiDefaults, read_ui_defaults
from overpaint.models.upscaler_names import find_upscaler_name
from overpaint.models.vae_names import list_vaes
from overpaint.planning.plan import plan
from overpaint.request import Txt2ImgRequest
from overpaint.settings import OPTION_NAMES, REFERENCE_QUALITY, Settings
from overpaint.text.styles import load_styles

CONFIG, STYLES, CHECKPOINT = "config.json", "styles.csv", "sd_model_checkpoint"
_FIELD = "--webui"
_MARK = "models/Stable-diffusion"
_MOST_BYTES = 16 * 2**20

# option: (places in an installation, the flag of its launcher, whether that adds a folder or takes another)
_PLACES: Mapping[str, tuple[tuple[str, ...], str, bool]] = {
    "models_dir": ((_MARK,), "--ckpt-dir", True),
    "vae_dir": (("models/VAE",), "--vae-dir", True),
    "taesd_dir": (("models/VAE-approx",), "", False),
    "lora_dir": (("models/Lora", "models/LyCORIS"), "--lora-dir", False),
    "embeddings_dir": (("embeddings",), "--embeddings-dir", False),
    "hypernetwork_dir": (("models/hypernetworks",), "--hypernetwork-dir", False),
    "controlnet_dir": (("models/ControlNet", "extensions/sd-webui-controlnet/models"), "--controlnet-dir", True),
    "esrgan_dir": (("models/ESRGAN",), "--esrgan-models-path", False),
    "realesrgan_dir": (("models/RealESRGAN",), "--realesrgan-models-path", False),
    "swinir_dir": (("models/SwinIR",), "--swinir-models-path", False),
    "scunet_dir": (("models/ScuNET",), "--scunet-models-path", False),
    "dat_dir": (("models/DAT",), "--dat-models-path", False),
}
_OURS_ALONE = frozenset(
    {
        "text_encoder_files",
        "model_memory",
        "device_memory",
        "weights_kept",
        "unoffered_features",
        "recipe_whole_paths",
        "styles_file",
    }
) | {name for name in OPTION_NAMES if name.endswith("_dir") or name.startswith("max_")}
_OUTPUTS = frozenset(name for name in OPTION_NAMES if name.startswith("outdir_"))
_READ_BACK = frozenset({"sd_checkpoint_hash"})  # follows from another one
_SITE = Settings()
# The reference's, where ours differ: a value that nobody chose takes no place of ours.
_DEFAULTS: Mapping[str, Any] = {"return_grid": True, "jpeg_quality": REFERENCE_QUALITY}
_SMALL = Txt2ImgRequest(width=64, height=64, steps=1)


class LeftOut(NamedTuple):
    """An option there that does not count here."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Installation:
    """What there is in the folder, in our words."""

    root: Path
    folders: Mapping[str, str] = field(default_factory=dict)  # by option
    options: Mapping[str, Any] = field(default_factory=dict)  # those that were changed there and that we have
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)  # the others that were changed there
    troubles: tuple[str, ...] = ()  # what cannot be read, or is not where it should be
    defaults: UiDefaults = field(default_factory=UiDefaults)  # of its page; no API goes by them, there or here

    def settings(self, base: Settings | None = None) -> Settings:
        """Some settings with its folders, and with its options where they say nothing else."""
        base = base or _SITE
        return base.with_changes({**self.folders, **self.options_for(base)})

    def options_for(self, base: Settings) -> dict[str, Any]:
        """The options of which `base` says nothing of its own."""
        return {name: value for name, value in self.options.items() if getattr(base, name) == getattr(_SITE, name)}


def webui_settings(folder: str | Path, base: Settings | None = None) -> Settings:
    """The settings of an installation of AUTOMATIC1111's webui: its folders of models, its styles, its options.

    An option that `base` has changed stays as it is there. Nothing is ever written to the folder.
    """
    return read_installation(folder).settings(base)


def read_installation(folder: str | Path) -> Installation:
    """The installation in a folder; a folder that holds none is refused with what was looked for."""
    root = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100 (links are followed as named)
    flags = read_flags(root)
    data = flags.last("--data-dir") or root
    models = flags.last("--models-dir") or _below(data, "models")
    _check_is_one(folder, root, data, models, flags)
    troubles: list[str] = []
    folders: dict[str, str] = {}
    for option in _PLACES:
        found = list(dict.fromkeys(_folders_of(option, data, models, flags, troubles)))
        if found:
            folders[option] = os.pathsep.join(map(str, found))
    styles = flags.all("--styles-file") or tuple(filter(Path.is_file, [data / STYLES]))
    if styles:
        folders["styles_file"] = str(styles[-1])
        troubles += _trouble_with(styles[-1])
    config = _read_config(flags.last("--ui-settings-file") or data / CONFIG)
    options, left_out = _sorted_out(config, _SITE.with_changes(folders), flags)
    defaults = read_ui_defaults(flags.last("--ui-config-file") or data / UI_CONFIG)
    troubles += defaults.troubles
    return Installation(root, folders, options, left_out, tuple(dict.fromkeys(troubles)), defaults)


# -- folders ---------------------------------------------------------------------------------------------------------


def _check_is_one(folder: str | Path, root: Path, data: Path, models: Path | None, flags: LaunchFlags) -> None:
    if not data.is_dir():
        raise RequestError(_FIELD, str(folder), "there is no such folder")
    if (models is not None and _below(models, "Stable-diffusion")) or flags.last("--ckpt-dir") is not None:
        return
    inside = next((each for each in root.parents if _below(each, _MARK) is not None), None)
    remedy = f"; {inside} is one" if inside is not None else "; --models takes any folder of models"
    raise RequestError(_FIELD, str(folder), f"it is no installation of the webui: it has no folder {_MARK}{remedy}")


def _folders_of(
    option: str, data: Path, models: Path | None, flags: LaunchFlags, troubles: list[str]
) -> Iterator[Path]:
    """Those that can be read, in the order in which the reference looks at them."""
    places, flag, adds = _PLACES[option]
    named = flags.all(flag) if flag else ()
    own = named if adds else named[-1:]
    missing = (each for each in own if not each.is_dir())
    troubles += [f"{flag} {each} of {flags.source}: there is no such folder" for each in missing]
    usual: list[Path] = []
    for place in places if adds or not named else ():
        inside = place.removeprefix("models/")
        found = _below(models, inside) if inside != place and models is not None else _below(data, place)
        usual += [] if found is None else [found]
    for each in (*own, *usual):
        if each.is_dir():
            troubles += _unreadable(each)
            yield each
        elif each.is_symlink():
            troubles.append(f"{each}: this link leads nowhere")


def _trouble_with(styles: Path) -> list[str]:
    """Told at once: a style that is asked for is missing otherwise, and nobody knows why."""
    try:
        return [] if load_styles(styles) or styles.is_file() else [f"{styles}: there is no such file of styles"]
    except RequestError as error:
        return [f"{styles}: its styles cannot be used; {error.remedy}"]


def _below(folder: Path, place: str) -> Path | None:
    """What lies there, whatever the case of its name; a link that leads nowhere counts."""
    found = folder
    for part in place.split("/"):
        try:
            names = sorted(each.name for each in found.iterdir())
        except OSError:
            return None
        name = part if part in names else next((each for each in names if each.lower() == part.lower()), None)
        if name is None:
            return None
        found = found / name
    return found if found.is_dir() or found.is_symlink() else None


def _unreadable(folder: Path) -> list[str]:
    """The folders below that the system does not let anyone list: what is in them is missing from every list."""
    found: list[str] = []

    def refused(error: OSError) -> None:
        found.append(f"{error.filename}: it cannot be read ({error.strerror}), so what is in it is not known")

    seen: set[str] = set()
    for root, folders, _ in os.walk(folder, onerror=refused, followlinks=True):
        seen.add(os.path.realpath(root))
        kept = (each for each in folders if not each.startswith("."))
        folders[:] = [each for each in kept if os.path.realpath(Path(root) / each) not in seen]
    return sorted(found, key=natural_key)


# -- options ---------------------------------------------------------------------------------------------------------


def _read_config(path: Path) -> dict[str, Any]:
    """A file that cannot be read is refused: without it, pictures would come out otherwise and nobody would know."""
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than 16 MiB")
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(table, dict):
            raise ValueError("it holds no table of options")
    except (OSError, ValueError, RecursionError) as error:
        remedy = f"mend {path.name}, or give --models, which reads no options"
        raise RequestError(_FIELD, str(path), f"its options cannot be read ({error}); {remedy}") from None
    return table


def _sorted_out(
    config: Mapping[str, Any], site: Settings, flags: LaunchFlags
) -> tuple[dict[str, Any], dict[str, LeftOut]]:
    """The options that count, and why the others do not; what stands at its default is neither."""
    told: dict[str, Any] = {str(name): value for name, value in config.items()}
    for flag, option in (("--ckpt", CHECKPOINT), ("--vae-path", "sd_vae")):
        if (path := flags.last(flag)) is not None:
            told[option] = str(path)
    options: dict[str, Any] = {}
    left_out: dict[str, LeftOut] = {}
    for name, value in told.items():
        if not _is_changed(name, value):
            continue
        reason = _reason_against(name)
        if reason is None:
            try:
                options[name] = _checked(name, value, site)
                continue
            except RequestError as error:
                reason = error.remedy
        left_out[name] = LeftOut(value, reason)
    return options, left_out


def _is_changed(name: str, value: Any) -> bool:
    """Whether somebody chose it."""
    if name in _READ_BACK or value is None:
        return False
    inert = reference_tables()["options"]
    if name in inert:
        return bool(value != inert[name])
    if name not in OPTION_NAMES or name in _OURS_ALONE:
        return True
    default = _DEFAULTS.get(name, getattr(_SITE, name))
    return bool((tuple(value) if isinstance(value, list) else value) != default)


def _reason_against(name: str) -> str | None:
    if name in _OUTPUTS:
        return "results go where this program is told to put them"
    if name in reference_tables()["options"]:
        return "it changes nothing here"
    return None if name in OPTION_NAMES - _OURS_ALONE else "there is no such option here"


def _checked(name: str, value: Any, site: Settings) -> Any:
    """The value as it is kept. One that would spoil every job is an error here."""
    if name == CHECKPOINT:
        return _checkpoint(value, site)
    changed = site.with_changes({name: value})
    if name == "sd_vae" and value not in ("Automatic", "None", "auto", ""):
        if value not in list_vaes(site) and not Path(value).is_file():
            raise RequestError(name, value, "there is no such file")
    elif name == "upscaler_for_img2img":
        find_upscaler_name(value, site, name)
    else:
        plan(_SMALL, changed, SD1_SPEC)
    return getattr(changed, name)


def _checkpoint(title: Any, site: Settings) -> str:
    """The file that a title means there. Its hash is not asked for: that would read the whole file."""
    if not isinstance(title, str):
        raise RequestError(CHECKPOINT, title, "it is no name")
    if Path(title).is_file():
        return title
    files = list_checkpoints(model_folders(site))
    name = title.rpartition(" [")[0] if title.endswith("]") else title
    whole = [each for each in files if each.name.replace("\\", "/") == name.replace("\\", "/")]
    found = whole or [each for each in files if name in (each.name_for_extra, each.model_name)]
    if not found:
        raise RequestError(CHECKPOINT, title, "there is no such checkpoint now")
    return str(found[-1].path)
