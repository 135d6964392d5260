"""What clients ask of the extension "ControlNet" before they use it: /controlnet."""

from __future__ import annotations

import asyncio
import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel

from overpaint.errors import RequestError
from overpaint.parts import AMOUNTS, Preprocessor
from overpaint.pixels.control import Frame, control_picture
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.bodies import Body, Float, Int, Str, Text
from overpaint.service.doors.webui.control_units import CANNY, UNITS, preprocessor_of
from overpaint.service.doors.webui.errors import ReferenceRoute, http_refusal
from overpaint.service.doors.webui.pictures import PictureReader, decoded
from overpaint.service.guard.budgets import at_work
from overpaint.service.known_models import KnownModels
from overpaint.text.control_notes import MODULES as NAMES

VERSION = 3  # of the extension, whose units these are
MODULES = tuple(name for name in NAMES if name != "invert")  # which is another's second name
RESOLUTIONS = (64, 2048)  # of the shorter side
# What each type of control is called, the module it begins with, and words that its models' names hold.
_TYPES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Canny": ("canny", ("canny",)),
    "Depth": ("none", ("depth",)),
    "NormalMap": ("none", ("normal",)),
    "OpenPose": ("none", ("openpose",)),
    "MLSD": ("none", ("mlsd",)),
    "Lineart": ("invert (from white bg & black line)", ("lineart",)),
    "SoftEdge": ("none", ("softedge", "hed", "pidi")),
    "Scribble/Sketch": ("invert (from white bg & black line)", ("scribble", "sketch")),
    "Segmentation": ("none", ("seg",)),
    "Shuffle": ("none", ("shuffle",)),
    "Tile/Blur": ("tile_resample", ("tile", "blur")),
    "Inpaint": ("none", ("inpaint",)),
    "InstructP2P": ("none", ("ip2p",)),
    "Recolor": ("recolor_luminance", ("recolor",)),
}
_SLIDERS: Mapping[str, str] = {
    "threshold": "Binarization Threshold",
    "blur_gaussian": "Sigma",
    "tile_resample": "Down Sampling Rate",
    "recolor_luminance": "Gamma Correction",
    "recolor_intensity": "Gamma Correction",
    "scribble_xdog": "XDoG Threshold",
}


class DetectRequest(Body):
    """POST /controlnet/detect."""

    controlnet_module: Str = "none"
    controlnet_input_images: list[Text] | None = None
    controlnet_images: list[Text] | None = None  # webuiapi's name for them
    controlnet_processor_res: Int = 512
    controlnet_threshold_a: Float = -1
    controlnet_threshold_b: Float = -1


class DetectResponse(BaseModel):
    images: list[str]
    info: str


def controlnet_routes(config: ServeConfig, models: KnownModels, pictures: PictureReader) -> APIRouter:
    """GET /version, /model_list, /module_list, /control_types, /settings; POST /detect."""
    routes = APIRouter(prefix="/controlnet", route_class=ReferenceRoute)

    @routes.get("/version")
    async def version() -> dict[str, Any]:
        return {"version": VERSION}

    @routes.get("/model_list")
    async def model_list(update: bool = True) -> dict[str, Any]:
        return {"model_list": await asyncio.to_thread(lambda: [each.name for each in models.controlnets()])}

    @routes.get("/module_list")
    async def module_list(alias_names: bool = False) -> dict[str, Any]:
        return {"module_list": list(MODULES), "module_detail": {name: _detail(name) for name in MODULES}}

    @routes.get("/control_types")
    async def control_types() -> dict[str, Any]:
        found = await asyncio.to_thread(lambda: [each.name for each in models.controlnets()])
        every = {"All": _control_type("none", list(MODULES), ["None", *found], "None")}
        return {"control_types": {**every, **{name: _of_type(*each, found) for name, each in _TYPES.items()}}}

    @routes.get("/settings")
    async def settings() -> dict[str, Any]:
        return {"control_net_unit_count": UNITS}

    @routes.post("/detect")
    async def detect(body: DetectRequest) -> DetectResponse:
        asked = body.effective()
        names = ("controlnet_input_images", "controlnet_images")
        named = [(f"{name}[{i}]", each) for name in names for i, each in enumerate(asked[name] or ())]
        if not named:
            raise http_refusal(422, "No image selected")
        sources = await pictures.read_all(named)
        found = [(name, data) for (name, _), data in zip(named, sources, strict=True)]
        images = await at_work(_detected, found, asked, config.limits.pass_pixels)
        return DetectResponse(images=images, info="Success")

    return routes


def _detail(name: str) -> dict[str, Any]:
    """Every module works with a model. Sliders by their places: how finely it looks, then its own two numbers."""
    low, high = CANNY
    fine = {"name": "Resolution", "value": 512, "min": RESOLUTIONS[0], "max": RESOLUTIONS[1], "step": 8}
    ends = {"min": 1, "max": 255, "step": 1}
    edges: list[dict[str, Any]] = [
        {"name": "Low Threshold", "value": low, **ends},
        {"name": "High Threshold", "value": high, **ends},
    ]
    sliders = {"none": [], "canny": [fine, *edges]}.get(name, [fine])
    if name in AMOUNTS:
        usual, least, most = AMOUNTS[name]
        sliders.append({"name": _SLIDERS[name], "value": usual, "min": least, "max": most, "step": 0.01})
    return {"model_free": False, "sliders": sliders}


def _of_type(module: str, words: Sequence[str], found: Sequence[str]) -> dict[str, Any]:
    """What goes with one type of control: no module, the one that makes its pictures, and the models by their names."""
    models = [name for name in found if any(word in name.lower() for word in words)]
    modules = list(dict.fromkeys(("none", module)))
    return _control_type(module, modules, ["None", *models], models[0] if models else "None")


def _control_type(module: str, modules: list[str], models: list[str], model: str) -> dict[str, Any]:
    return {"module_list": modules, "model_list": models, "default_option": module, "default_model": model}


def _detected(sources: Sequence[tuple[str, bytes]], asked: dict[str, Any], most_pixels: int) -> list[str]:
    """What a ControlNet would be shown of each."""
    preprocessor = preprocessor_of(asked["controlnet_module"] or "none")
    if preprocessor is None:
        remedy = "GET /controlnet/module_list lists what there is"
        raise RequestError("controlnet_module", asked["controlnet_module"], remedy)
    low, high = (
        usual if asked[name] < 0 else round(min(asked[name], 2000))
        for name, usual in zip(("controlnet_threshold_a", "controlnet_threshold_b"), CANNY, strict=True)
    )
    side = min(max(asked["controlnet_processor_res"], RESOLUTIONS[0]), RESOLUTIONS[1])
    usual, least, most = AMOUNTS.get(preprocessor, (0.0, 0.0, 0.0))
    amount = asked["controlnet_threshold_a"]
    numbers = _Numbers(low, high, amount if least <= amount <= most else usual)
    return [_shown(name, each, (side, most_pixels), preprocessor, numbers) for name, each in sources]


class _Numbers(NamedTuple):
    """Those of a preprocessor."""

    canny_low: int
    canny_high: int
    amount: float


def _shown(name: str, data: bytes, size: tuple[int, int], preprocessor: Preprocessor, numbers: _Numbers) -> str:
    """`size`: of the shorter side, and in pixels at most."""
    with decoded(name, data) as picture:
        side, most = size
        scale = min(side / min(picture.size), math.sqrt(most / (picture.width * picture.height)))
        wide, high = (max(1, int(each * scale)) for each in picture.size)
        frame = Frame(width=wide, height=high, pass_width=wide, pass_height=high)
        found = control_picture(picture, frame, preprocessor, **numbers._asdict())
    written = io.BytesIO()
    found.save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()
