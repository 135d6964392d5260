"""What a job can make beside its pictures, for options to save: masks, and pictures with uncorrected colours.

They lie in the job's result folder, named after the picture they belong to, and are in no list of results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overpaint.files.metadata import encode_picture
from overpaint.files.saving import OWNER, save_bytes
from overpaint.request import Picture
from overpaint.settings import Settings


@dataclass(frozen=True)
class Byproduct:
    """One kind of them: the attribute of a `FinishedPicture`, what its file's name ends with, the option that wants it.

    `comes_first`: it is saved before its picture, as the reference does.
    """

    attribute: str
    suffix: str
    option: str
    comes_first: bool = False


BYPRODUCTS = (
    Byproduct(
        "uncorrected", "-before-color-correction", "save_images_before_color_correction", comes_first=True
    ),  # CC-5
    Byproduct("mask", "-mask", "save_mask"),  # OUT-4
    Byproduct("mask_composite", "-mask-composite", "save_mask_composite"),
)


def wanted_byproducts(settings: Settings) -> tuple[Byproduct, ...]:
    """Those that the options ask for."""
    return tuple(each for each in BYPRODUCTS if getattr(settings, each.option))


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
