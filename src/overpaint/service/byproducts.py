"""By-products of a job of the service: in its result folder, named after their picture, and in no list of results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overpaint.files.byproducts import BYPRODUCTS, Byproduct, wanted_byproducts
from overpaint.files.metadata import encode_picture
from overpaint.files.saving import OWNER, save_bytes
from overpaint.request import Picture
from overpaint.settings import Settings

__all__ = ["BYPRODUCTS", "byproduct_file", "keep_byproducts", "wanted_byproducts", "without_byproducts"]


def without_byproducts(settings: Settings) -> Settings:
    """For a job of which nothing is saved."""
    return settings.with_changes({each.option: False for each in BYPRODUCTS})


def byproduct_file(picture_file: str, kind: Byproduct) -> str:
    """Its name in the job's folder."""
    return f"{Path(picture_file).stem}{kind.suffix}.png"


def keep_byproducts(
    folder: Path, picture_file: str, found: Mapping[str, Picture | None], settings: Settings
) -> tuple[Path, ...]:
    """Write what there is of one picture, by attribute, in the place of files that are there already."""
    wanted = ((each, found.get(each.attribute)) for each in wanted_byproducts(settings))
    return tuple(
        save_bytes(
            folder / byproduct_file(picture_file, kind), encode_picture(picture, "png"), replace=True, mode=OWNER
        )
        for kind, picture in wanted
        if picture is not None
    )
