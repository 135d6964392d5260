"""What a job may name beside itself, read from this site's folders and from headers; no model is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overpaint.cli.options import Asked

if TYPE_CHECKING:
    from overpaint.models.families import ModelSpec
    from overpaint.planning.plans import Surroundings
    from overpaint.request import Img2ImgRequest
    from overpaint.settings import Settings


def surroundings_of(request: Img2ImgRequest, settings: Settings) -> Surroundings:
    """For planning only: upscalers are known by name, and resample."""
    from overpaint.cli.info import spec_of
    from overpaint.planning import preflight

    return preflight.surroundings_of(request, settings, lambda path: spec_of(path, settings))


def spec_asked_for(asked: Asked, settings: Settings) -> ModelSpec:
    """What the header of the model in question says."""
    from overpaint.cli.chosen_model import model_asked_for
    from overpaint.cli.info import spec_of
    from overpaint.models.find import find_checkpoint

    return spec_of(find_checkpoint(model_asked_for(asked, settings), settings), settings)
