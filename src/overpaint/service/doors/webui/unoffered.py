"""What clients tick by habit and this server does not have: it is left out with a warning, and the job goes on.

The option `unoffered_features` says "refuse" where a site would rather have an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overpaint.errors import RequestError
from overpaint.planning.hires import LATENT_UPSCALES
from overpaint.service.doors.webui.upscalers import chosen_upscaler
from overpaint.settings import Settings

Left = tuple[dict[str, Any], tuple[str, ...]]

_FACES = "not obeyed, faces are not restored here"
_SAID = "not obeyed, there is no such script here"
# Titles of scripts that clients are known to send; several carry a version or another program's name behind them.
_ELSEWHERE = (
    *("adetailer", "additional networks for generating", "animatediff", "cfg rescale", "characteristic guidance"),
    *("comments", "composable lora", "cutoff", "dynamic prompts", "dynamic thresholding", "dynamicthresholding"),
    *("face editor", "faceswaplab", "forge couple", "freeu", "hypertile", "ic light", "ip-adapter"),
    *("kohya hrfix", "latent couple", "latentmodifier", "layerdiffus", "lora block weight", "multidiffusion"),
    *("negpip", "neutral prompt", "never oom", "perturbed-attention guidance", "reactor", "regional prompter"),
    *("roop", "segment anything", "self attention guidance", "selfattentionguidance", "simple wildcards"),
    *("stylealign", "tiled diffusion", "tiled vae", "tiledvae"),
)
_SWITCHES = ("enabled", "enable", "is_enabled", "active", "ad_tab_enable")
_NOTHING = (None, False, "", "None", "none", 0)


def without_unoffered(fields: Mapping[str, Any], settings: Settings) -> Left:
    """The fields of a body as far as they are offered, and what is said of the rest."""
    kept, warnings = dict(fields), list[str]()
    if kept.get("restore_faces") and warns(settings):
        kept["restore_faces"] = None
        warnings.append(f"restore_faces: {_FACES}")
    upscaler = kept.get("hr_upscaler")
    if kept.get("enable_hr") and upscaler and upscaler not in LATENT_UPSCALES:
        kept["hr_upscaler"], said = chosen_upscaler("hr_upscaler", upscaler, settings)
        warnings.extend(said)
    options, said = _options(kept.get("override_settings") or {}, settings)
    kept["override_settings"] = options
    return kept, (*warnings, *said)


def _options(given: Mapping[str, Any], settings: Settings) -> Left:
    options, warnings = dict(given), list[str]()
    if options.get("face_restoration") is True and warns(settings):
        del options["face_restoration"]
        warnings.append(f"override_settings.face_restoration: {_FACES}")
    name = "upscaler_for_img2img"
    if isinstance(upscaler := options.get(name), str) and upscaler:
        options[name], said = _img2img_upscaler(upscaler, settings)
        warnings.extend(said)
    return options, tuple(warnings)


def _img2img_upscaler(name: str, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """The reference resamples where it knows no such upscaler; that is told when the job is planned."""
    try:
        return chosen_upscaler("override_settings.upscaler_for_img2img", name, settings)
    except RequestError:
        return name, ()


def warns(settings: Settings) -> bool:
    """Whether the site lets jobs go on without what it does not have."""
    return settings.unoffered_features == "warn"


def is_known_elsewhere(title: str) -> bool:
    """Whether this is a script of another site, and no slip of the pen."""
    return title.lower().startswith(_ELSEWHERE)


def left_out(place: str, args: tuple[Any, ...]) -> tuple[str, ...]:
    """What is said of a script that is not here: nothing, if it is switched off."""
    return (f"{place}: {_SAID}",) if asks_for_something(args) else ()


def asks_for_something(args: tuple[Any, ...]) -> bool:
    """Whether a script with these arguments would do anything: its first switch, where it has one, is the main one."""
    if next((each for each in args if isinstance(each, bool)), None) is False:
        return False
    tables = [each for each in args if isinstance(each, Mapping)]
    if tables:
        return any(map(_is_on, tables))
    return any(isinstance(each, list) or each not in _NOTHING for each in args)


def _is_on(unit: Mapping[str, Any]) -> bool:
    if any(unit.get(name) is False for name in _SWITCHES):
        return False
    if "ad_model" in unit:
        return unit["ad_model"] not in _NOTHING
    return any(isinstance(each, list | Mapping) or each not in _NOTHING for each in unit.values())
