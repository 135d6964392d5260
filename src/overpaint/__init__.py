"""overpaint: paint over an existing picture, or a new one, with Stable Diffusion checkpoints.

    import overpaint
    overpaint.img2img("photo.png", "a watercolour").save("painted.png")
    overpaint.txt2img("a lighthouse at dusk").save("lighthouse.png")

Three circles: `img2img` and `txt2img` for one line, `Engine` for loaded models and their events, `plan` for what a job
would do. Importing this package loads no torch; the names that need it do so when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overpaint.engine import Engine
    from overpaint.errors import (
        CheckpointError,
        OverpaintError,
        OverpaintWarning,
        PictureError,
        PictureTypeError,
        RequestError,
        RequestTypeError,
        SamplingError,
        SaveError,
        SettingError,
    )
    from overpaint.events import Cancelled, Control, Failed, Finished, Preview, Progress, Started, Stop
    from overpaint.models.installation import webui_settings
    from overpaint.opening import open_picture, samples
    from overpaint.outcome import Processed
    from overpaint.painted import PaintedPicture, save
    from overpaint.parts import ControlUnit, Hires, Lora, SoftInpainting
    from overpaint.planning.plan import Plan, plan
    from overpaint.quick import img2img, txt2img
    from overpaint.request import Img2ImgRequest, MaskedContent, PaintRequest, ResizeMode, Txt2ImgRequest
    from overpaint.settings import Quirks, Settings
    from overpaint.tools import PaintedGrid, enlarge, grid, loopback, outpaint
    from overpaint.version import __version__
    from overpaint.ways_in import PageInputs, WayIn, requests_for

__all__ = [
    "Cancelled",
    "CheckpointError",
    "Control",
    "ControlUnit",
    "Engine",
    "Failed",
    "Finished",
    "Hires",
    "Img2ImgRequest",
    "Lora",
    "MaskedContent",
    "OverpaintError",
    "OverpaintWarning",
    "PageInputs",
    "PaintRequest",
    "PaintedGrid",
    "PaintedPicture",
    "PictureError",
    "PictureTypeError",
    "Plan",
    "Preview",
    "Processed",
    "Progress",
    "Quirks",
    "RequestError",
    "RequestTypeError",
    "ResizeMode",
    "SamplingError",
    "SaveError",
    "SettingError",
    "Settings",
    "SoftInpainting",
    "Started",
    "Stop",
    "Txt2ImgRequest",
    "WayIn",
    "__version__",
    "enlarge",
    "grid",
    "img2img",
    "loopback",
    "open_picture",
    "outpaint",
    "plan",
    "requests_for",
    "samples",
    "save",
    "txt2img",
    "webui_settings",
]

_HOMES = {
    "overpaint.engine": ("Engine",),
    "overpaint.errors": (
        "CheckpointError",
        "OverpaintError",
        "OverpaintWarning",
        "PictureError",
        "PictureTypeError",
        "RequestError",
        "RequestTypeError",
        "SamplingError",
        "SaveError",
        "SettingError",
    ),
    "overpaint.events": (
        "Cancelled",
        "Control",
        "Failed",
        "Finished",
        "Preview",
        "Progress",
        "Started",
        "Stop",
    ),
    "overpaint.models.installation": ("webui_settings",),
    "overpaint.outcome": ("Processed",),
    "overpaint.painted": ("PaintedPicture", "save"),
    "overpaint.opening": ("open_picture", "samples"),
    "overpaint.planning.plan": ("Plan", "plan"),
    "overpaint.parts": ("ControlUnit", "Hires", "Lora", "SoftInpainting"),
    "overpaint.quick": ("img2img", "txt2img"),
    "overpaint.request": ("Img2ImgRequest", "MaskedContent", "PaintRequest", "ResizeMode", "Txt2ImgRequest"),
    "overpaint.settings": ("Quirks", "Settings"),
    "overpaint.tools": ("PaintedGrid", "enlarge", "grid", "loopback", "outpaint"),
    "overpaint.version": ("__version__",),
    "overpaint.ways_in": ("PageInputs", "WayIn", "requests_for"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker knows the names from above, and that there are no others

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'overpaint' has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
