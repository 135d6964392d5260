"""Parts that were measured one by one have to be one model together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from overpaint.errors import CheckpointError
from overpaint.models.families import SD1_SPEC, ModelSpec, fitting

_TEXT = SD1_SPEC.texts[0]
_POOLED = replace(_TEXT, kind="openclip", width=1280, pooled=True)


def spec(family: str = "sd1", **unet: Any) -> ModelSpec:
    return replace(SD1_SPEC, family=family, denoiser=replace(SD1_SPEC.unet, **unet))


SDXL = replace(spec("sdxl", context_dim=2048, adm_channels=2816), texts=(_TEXT, _POOLED))
REFINER = replace(spec("sdxl-refiner", context_dim=1280, adm_channels=2560), texts=(_POOLED,))


@pytest.mark.parametrize(
    "given",
    [
        SD1_SPEC,
        replace(spec(in_channels=9), conditioning="inpaint"),
        replace(spec(in_channels=8), conditioning="edit"),
        SDXL,
        REFINER,
        replace(SDXL, denoiser=replace(SDXL.unet, middle_depth=None)),  # FAM-4
        replace(SDXL, family="sdxl-inpaint", conditioning="inpaint", denoiser=replace(SDXL.unet, in_channels=9)),
    ],
)
def test_models_that_were_published(given: ModelSpec) -> None:  # ARCH
    assert fitting(given) is given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (spec(in_channels=9), "takes 9 channels.*takes 4"),
        (replace(spec(in_channels=4), conditioning="inpaint"), "takes 4 channels.*takes 9"),
        (replace(SDXL, denoiser=replace(SDXL.unet, in_channels=8)), "takes 8 channels"),
        (spec(middle_depth=None), "missing"),
        (replace(REFINER, denoiser=replace(REFINER.unet, middle_depth=None)), "missing"),
        (spec(context_dim=1024), "1024 wide.*make 768"),
        (spec(adm_channels=1536), "takes 1536 numbers.*takes 0"),
        (replace(SDXL, denoiser=replace(SDXL.unet, adm_channels=2560)), "takes 2560 numbers.*takes 2816"),
        (replace(REFINER, denoiser=replace(REFINER.unet, adm_channels=None)), "takes 0 numbers.*takes 2560"),
    ],
)
def test_parts_that_do_not_fit(given: ModelSpec, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        fitting(given)
