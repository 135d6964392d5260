"""What somebody made the defaults of an installation's page: its `ui-config.json`, in the words of our requests.

The file has every field of the page, whether somebody chose its value or not; what stands at the reference's own
default is nobody's choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from PIL import Image

from overpaint.errors import OverpaintError
from overpaint.request import Img2ImgRequest, MaskedContent, Txt2ImgRequest
from overpaint.sampler_table import normalise
from overpaint.settings import Quirks

UI_CONFIG = "ui-config.json"
Tab = Literal["txt2img", "img2img", "inpaint"]
_MOST_BYTES = 2**20
_SCRIPTS = "customscript/sampler.py/"  # where newer versions keep some of them


@dataclass(frozen=True)
class _Default:
    """A field of the page."""

    fields: tuple[str, ...]  # of a request
    value: Any  # the reference's
    read: Callable[[Any], Any]


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or int(value) != value:
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _known_name(sampler: Any, scheduler: Any) -> str:
    """The one of the two that is not the default; "DPM++ 2M Karras" names both."""
    normalise(_text(sampler), _text(scheduler), quirks=Quirks.none())
    return str(scheduler if sampler == Txt2ImgRequest.sampler else sampler)


_CONTENTS = {"fill": "fill", "original": "original", "latent noise": "noise", "latent nothing": "nothing"}
_BOTH: Mapping[str, _Default] = {
    "Sampling method": _Default(("sampler",), "DPM++ 2M", lambda value: _known_name(value, Txt2ImgRequest.scheduler)),
    "Schedule type": _Default(("scheduler",), "Automatic", lambda value: _known_name(Txt2ImgRequest.sampler, value)),
    "Sampling steps": _Default(("steps",), 20, _whole),
    "CFG Scale": _Default(("cfg_scale",), 7.0, _number),
    "Negative prompt": _Default(("negative_prompt",), "", _text),
}
_IMG2IMG: Mapping[str, _Default] = {**_BOTH, "Denoising strength": _Default(("strength",), 0.75, _number)}
_OF_TAB: Mapping[Tab, Mapping[str, _Default]] = {
    "img2img": _IMG2IMG,
    "inpaint": {
        **_IMG2IMG,
        "Mask blur": _Default(("mask_blur_x", "mask_blur_y"), 4, _whole),
        "Masked content": _Default(("masked_content",), "original", lambda v: MaskedContent(_CONTENTS[v]).value),
        "Inpaint area": _Default(("only_masked",), "Whole picture", lambda v: {"Only masked": True}[v]),
        "Only masked padding, pixels": _Default(("padding",), 32, _whole),
    },
    "txt2img": {**_BOTH, "Width": _Default(("width",), 512, _whole), "Height": _Default(("height",), 512, _whole)},
}
_ANY = Img2ImgRequest(images=(Image.new("RGB", (8, 8)),))
_SIZES = ("Width", "Height")


def _nothing() -> Mapping[Tab, Mapping[str, Any]]:
    return MappingProxyType({})


@dataclass(frozen=True)
class UiDefaults:
    """The defaults that were chosen there, by tab, as fields of a request."""

    tabs: Mapping[Tab, Mapping[str, Any]] = field(default_factory=_nothing)
    troubles: tuple[str, ...] = ()

    def of(self, tab: Tab) -> dict[str, Any]:
        return dict(self.tabs.get(tab, {}))


def read_ui_defaults(path: Path) -> UiDefaults:
    """Of a file that is there or not. What of it cannot be used is told, and is no reason to paint nothing."""
    try:
        if not path.is_file():
            return UiDefaults()
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than 1 MiB")
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(table, dict):
            raise ValueError("it holds no table")
    except (OSError, ValueError, RecursionError) as error:
        return UiDefaults(troubles=(f"{path}: its defaults cannot be read ({error}), so they do not count",))
    troubles: list[str] = []
    tabs = {tab: _of_tab(table, tab, path, troubles) for tab in _OF_TAB}
    return UiDefaults(tabs, tuple(dict.fromkeys(troubles)))


def _of_tab(table: Mapping[str, Any], tab: Tab, path: Path, troubles: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    place = "txt2img" if tab == "txt2img" else "img2img"  # inpainting is a part of that one
    for label, default in _OF_TAB[tab].items():
        keys = (f"{_SCRIPTS}{place}/{label}/value", f"{place}/{label}/value")
        value = next((table[key] for key in keys if key in table), default.value)
        if value in (default.value, None):
            continue
        try:
            read = default.read(value)
            _ANY.with_changes(**dict.fromkeys(default.fields, read))
        except (OverpaintError, ValueError, KeyError, TypeError):
            troubles.append(
                f"{path}: {place}/{label}={json.dumps(value)} is no value for it here, so it does not count"
            )
            continue
        found |= dict.fromkeys(default.fields, read)
    if tab == "img2img" and any(table.get(f"{tab}/{each}/value", 512) not in (512, 512.0) for each in _SIZES):
        told = "the size of its img2img tab does not count, since a picture keeps its own here; --size gives one"
        troubles.append(f"{path}: {told}")
    return found
