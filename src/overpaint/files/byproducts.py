"""What a job can make beside its pictures, for options to save: masks, and pictures with uncorrected colours."""

from __future__ import annotations

from dataclasses import dataclass

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
