"""What a job may name beside itself, read from this site's folders and from headers; no model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from overpaint.cli.options import Asked

if TYPE_CHECKING:
    from overpaint.models.families import ModelSpec
    from overpaint.pixels.resize import Upscaler
    from overpaint.plans import OtherModel, Surroundings
    from overpaint.request import Img2ImgRequest
    from overpaint.settings import Settings


def surroundings_of(request: Img2ImgRequest, settings: Settings) -> Surroundings:
    """For planning only: upscalers are known by name, and resample."""
    from overpaint.adapters.wanted import list_adapters
    from overpaint.planning import effective_settings
    from overpaint.plans import Surroundings
    from overpaint.request import Txt2ImgRequest
    from overpaint.styles import load_styles

    settings = effective_settings(request, settings)
    hires = request.hires if isinstance(request, Txt2ImgRequest) else None
    return Surroundings(
        styles=load_styles(settings.styles_file) if settings.styles_file else (),
        loras=list_adapters([Path(settings.lora_dir)]) if settings.lora_dir else (),
        hypernets=list_adapters([Path(settings.hypernetwork_dir)]) if settings.hypernetwork_dir else (),
        upscalers=_upscalers(settings),
        refiner=_other(request.refiner, settings, "refiner") if request.refiner else None,
        hires_model=_other(hires.checkpoint, settings, "hires.checkpoint") if hires and hires.checkpoint else None,
    )


def _upscalers(settings: Settings) -> Mapping[str, Upscaler]:
    from overpaint.models.upscaler_names import list_upscalers
    from overpaint.pixels.resize import UPSCALERS

    resample = UPSCALERS["Lanczos"]
    assert resample is not None
    return {each.name: resample for each in list_upscalers(settings) if each.path is not None}


def _other(name: str, settings: Settings, argument: str) -> OtherModel:
    from overpaint.cli.info import spec_of
    from overpaint.models.find import find_refiner, model_folders
    from overpaint.models.hashes import checkpoint_file
    from overpaint.plans import OtherModel

    path = find_refiner(name, settings, argument=argument)
    return OtherModel(path, checkpoint_file(path, model_folders(settings)).short_title, spec_of(path, settings))


def spec_asked_for(asked: Asked, settings: Settings) -> ModelSpec:
    """A model's header decides only if one is named; otherwise SD 1.x is meant."""
    from overpaint.models.families import SD1_SPEC

    named = asked.text("model") or settings.sd_model_checkpoint
    if not named:
        return SD1_SPEC
    from overpaint.cli.info import spec_of
    from overpaint.models.find import find_checkpoint

    return spec_of(find_checkpoint(named, settings), settings)
