"""The reference's fields here: one table of names, read in both directions by bodies, complaints and infotexts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.other_names import REFERENCE, ours_of
from overpaint.parts import Hires
from overpaint.processing import StableDiffusionProcessingImg2Img as Img2ImgOfTheContract
from overpaint.processing import StableDiffusionProcessingTxt2Img as Txt2ImgOfTheContract
from overpaint.request import Img2ImgRequest, Txt2ImgRequest
from overpaint.service.doors.webui.bodies import (
    Body,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
)
from overpaint.service.doors.webui.infotext import _ALL, _EVERYWHERE, _HIRES
from overpaint.service.doors.webui.names import as_they_call_it

IMG2IMG, TXT2IMG = StableDiffusionProcessingImg2Img.model_fields, StableDiffusionProcessingTxt2Img.model_fields
OURS = Img2ImgRequest.field_names() | Txt2ImgRequest.field_names()
OF_HIRES = frozenset(Hires.__dataclass_fields__)
# What the API gives a job that leaves it out, and the Python door does not (REQ-1, API-4).
OF_THE_API: dict[str, Any] = {
    "denoising_strength": None,
    "sampler_index": "Euler",
    "alwayson_scripts": {},
    "script_args": [],
}


@pytest.mark.parametrize("name", sorted(IMG2IMG.keys() | TXT2IMG.keys()))
def test_every_field_of_a_body_is_one_of_ours_or_known_to_be_none(name: str) -> None:
    assert name in OURS or name.startswith("firstphase_") or ours_of(name, OURS | OF_HIRES) is not None


@pytest.mark.parametrize("ours", sorted(REFERENCE))
def test_the_table_is_read_in_both_directions(ours: str) -> None:
    theirs = REFERENCE[ours]
    found = ours_of(theirs.rpartition(".")[2], OURS | OF_HIRES)
    assert found is not None and (ours in found or theirs == "denoising_strength")
    complaint = as_they_call_it(RequestError(ours, 1, "give another"), "/sdapi/v1/img2img")
    assert (complaint.field, str(complaint)) == (theirs, f"{theirs}=1: give another")
    field = theirs.partition(".")[0]
    assert field in IMG2IMG or field in TXT2IMG


def test_an_infotext_fills_fields_that_a_body_has() -> None:
    assert {name for name, _, _ in _ALL} <= IMG2IMG.keys()
    assert {name for name, _, _ in _HIRES} <= TXT2IMG.keys()
    assert {name for name, _, _ in _ALL} & TXT2IMG.keys() >= _EVERYWHERE


@pytest.mark.parametrize(
    "body, contract",
    [
        (StableDiffusionProcessingImg2Img, Img2ImgOfTheContract),
        (StableDiffusionProcessingTxt2Img, Txt2ImgOfTheContract),
    ],
)
def test_both_doors_of_the_reference_have_the_same_defaults(body: type[Body], contract: type) -> None:
    own = {each.name: each.default for each in dataclasses.fields(contract)}
    api = {name: each.default for name, each in body.model_fields.items()}
    assert len(own.keys() & api.keys()) > 40
    differing = {name: api[name] for name in own.keys() & api.keys() if api[name] != own[name]}
    assert differing == {name: OF_THE_API[name] for name in differing.keys() & OF_THE_API.keys()}
