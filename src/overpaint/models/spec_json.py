"""A model's specification that travelled as JSON. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from overpaint.models.shifts import Shift
from overpaint.models.specs import AutoencoderSpec, DenoiserSpec, LatentSpec, ModelSpec, TextSpec
from overpaint.models.vision_specs import Eyes, VisionSpec


def spec_from_json(values: Mapping[str, Any]) -> ModelSpec:
    """A `ModelSpec` that travelled as JSON; which class a part has, its fields tell."""
    parts = {
        "denoiser": _part(values["denoiser"], DenoiserSpec),
        "vae": _part(values["vae"], AutoencoderSpec),
        "latent": _part(values["latent"], LatentSpec),
        "texts": tuple(map(_text, values["texts"])),
        "shift": _part(values["shift"], Shift),
    }
    return ModelSpec(**{**values, **parts})


def _text(values: Mapping[str, Any]) -> TextSpec:
    seen = values["vision"]
    vision = None if seen is None else _part({**seen, "eyes": _part(seen["eyes"], Eyes)}, VisionSpec)
    return TextSpec(**{**vars(_part({**values, "vision": None}, TextSpec)), "vision": vision})


def _part(values: Mapping[str, Any], kinds: Any) -> Any:
    told = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    classes = get_args(kinds) or (kinds,)
    return next(each for each in classes if {own.name for own in fields(each)} == told.keys())(**told)
