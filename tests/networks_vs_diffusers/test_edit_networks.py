"""The eyes of Qwen2.5-VL, and the text decoder that reads what they saw, against transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.specs import TextSpec
from overpaint.models.vision_specs import Eyes, VisionSpec
from overpaint.networks.decoder_text import QwenText
from overpaint.networks.text import TokenPicture
from overpaint.networks.vision import VisionTower
from tests.networks_vs_diffusers.edit_sources import (
    MARKS,
    PAD,
    picture,
    small_seeing_qwen25,
    vision_half,
)
from tests.networks_vs_diffusers.newer_sources import QWEN_WORDS, VOCABULARY
from tests.networks_vs_diffusers.test_flow_networks import close, filled

pytest.importorskip("transformers")

EYES = VisionSpec(
    width=160, layers=9, heads=2, inner=40, out=QWEN_WORDS, eyes=Eyes(side=384, several=True), whole_every=8
)
TEXT = TextSpec(
    kind="qwen25_edit",
    prefix="",
    vocabulary=VOCABULARY + len(MARKS),
    width=QWEN_WORDS,
    layers=2,
    heads=2,
    key_heads=1,
    head_dim=128,
    inner=64,
    layer=-1,
    final_norm=True,
    unread=3,
    vision=EYES,
)
SIZES = [(56, 56), (28, 84), (140, 196), (252, 112)]  # of one window, of less, of several with rests


@pytest.fixture(scope="module")
def theirs() -> Any:
    return small_seeing_qwen25()


def as_they_want(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels and their places in cells, as their processor makes them."""
    transformers = pytest.importorskip("transformers")
    maker = transformers.Qwen2VLImageProcessorPil(do_resize=False, do_rescale=False)
    made = maker((pixels[0] + 1).div(2).numpy(), return_tensors="pt", input_data_format="channels_first")
    return made["pixel_values"], made["image_grid_thw"]


@pytest.mark.parametrize(("wide", "high"), SIZES)
def test_what_they_see(wide: int, high: int, theirs: Any) -> None:
    ours = filled(VisionTower(EYES), vision_half(theirs))
    pixels = picture(wide, high)
    expected = theirs.model.visual(*as_they_want(pixels)).pooler_output
    assert close(ours(pixels), expected)
    assert len(expected) == wide * high // 28**2


def test_a_text_with_two_pictures(theirs: Any) -> None:
    """Each token of a picture has a row and a column, and what follows goes on behind the longer side."""
    text = dict(theirs.model.language_model.state_dict())
    text |= {f"visual.{key}": each for key, each in vision_half(theirs).items()}
    ours = QwenText(TEXT)
    filled(ours, text)
    ids = torch.randint(0, VOCABULARY, (1, 21), generator=torch.Generator().manual_seed(0))
    shown = [picture(56, 112), picture(84, 28, seed=1)]
    grids = [as_they_want(each) for each in shown]
    long = torch.cat([ids[:, :7], _pads(shown[0]), ids[:, 7:15], _pads(shown[1]), ids[:, 15:]], dim=1)
    expected = theirs(
        long,
        pixel_values=torch.cat([each[0] for each in grids]),
        image_grid_thw=torch.cat([each[1] for each in grids]),
        mm_token_type_ids=(long == PAD).int(),
        output_hidden_states=True,
    ).hidden_states[-1][:, 3:]
    slots = [TokenPicture(7, shown[0]), TokenPicture(15, shown[1])]
    assert close(ours.encode(ids, pictures=slots).tokens, expected)
    plain = theirs(ids, output_hidden_states=True).hidden_states[-1][:, 3:]
    assert close(ours.encode(ids).tokens, plain)


def _pads(pixels: Tensor) -> Tensor:
    return torch.full((1, pixels.shape[2] * pixels.shape[3] // 28**2), PAD)
