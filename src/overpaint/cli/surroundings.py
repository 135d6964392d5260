"""What a job may name beside itself, read from this site's folders and from headers; no model is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overpaint.cli.options import GivenOptions

if TYPE_CHECKING:
    from pathlib import Path

    from overpaint.planning.plans import Surroundings
    from overpaint.request import PaintRequest
    from overpaint.settings import Settings


def surroundings_of(request: PaintRequest, settings: Settings, path: Path | None = None) -> Surroundings:
    """For planning only: upscalers are known by name, and resample. `path` is the checkpoint's."""
    from dataclasses import replace

    from overpaint.models.built_in import words_of
    from overpaint.models.companions import text_encoders_for
    from overpaint.models.what_is import spec_of
    from overpaint.planning import preflight

    known = preflight.surroundings_of(
        request, settings, lambda path: spec_of(path, text_encoders_for(path, settings.text_encoder_files))
    )
    return known if path is None else replace(known, words=words_of(path))


def path_asked_for(asked: GivenOptions, settings: Settings) -> Path:
    """The file or folder of the model in question."""
    from overpaint.cli.chosen_model import model_asked_for
    from overpaint.models.find import find_checkpoint

    return find_checkpoint(model_asked_for(asked, settings), settings)
