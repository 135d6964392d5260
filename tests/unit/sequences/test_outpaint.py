"""Outpaint: sizes, what the new part starts from, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.deep import deep_array
from overpaint.errors import RequestError
from overpaint.opening import samples
from overpaint.planning.plan import plan
from overpaint.sequences.forms import KINDS, known_kind, sequence_of, split_fields, tool_json
from overpaint.sequences.outpaint import STARTS, Outpainting, margins_for
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings
from tests import profiles
from tests.unit.toy_job import asked, noisy_picture


def grown(**fields: Any) -> Outpainting:
    made = sequence_of("outpaint", fields, asked(images=(noisy_picture(40, 24),)))
    assert isinstance(made, Outpainting)
    return made


@pytest.mark.parametrize(
    ("how", "sides"),
    [
        ({"to": (100, 48)}, (30, 12, 30, 12)),
        ({"to": "100x48", "anchor": "left"}, (0, 12, 60, 12)),
        ({"to": "100x48", "anchor": "bottom-right"}, (60, 24, 0, 0)),
        ({"aspect": "2:1"}, (4, 0, 4, 0)),
        ({"aspect": "1:1", "anchor": "top"}, (0, 0, 0, 16)),
        ({"aspect": (40, 24), "to": None}, (0, 0, 0, 0)),
    ],
)
def test_sides_for_a_size_or_a_shape(how: dict[str, Any], sides: tuple[int, ...]) -> None:
    assert tuple(margins_for((40, 24), **how).values()) == sides


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_old_picture_lies_in_its_place(start: str, mode: str) -> None:
    picture = noisy_picture(40, 24, mode)
    made = Outpainting(request=asked(images=(picture,)), left=50, top=7, right=3, bottom=61, start=start)
    request = made.step(0, []).request
    assert request.images[0].size == (93, 92) == (request.width, request.height)
    kept = request.images[0].crop((50, 7, 90, 31))
    assert kept.tobytes() == (picture if mode != "L" else picture.convert("RGB")).tobytes()
    mask = np.asarray(request.mask)
    assert mask[7:31, 50:90].max() == 0
    assert (mask == 0).sum() == 40 * 24
    assert (request.mask_blur_x, request.mask_blur_y, request.masked_content.value) == (0, 0, "original")


@pytest.mark.parametrize("start", STARTS)
def test_the_new_part_goes_on_from_the_edge(start: str) -> None:
    """Beside the edge it has the edge's colours: a picture half dark, half light stays so."""
    picture = Image.new("RGB", (64, 64), (40, 40, 40))
    picture.paste((200, 200, 200), (0, 32, 64, 64))
    canvas = np.asarray(STARTS[start](picture, grown(left=32).margins)).astype(int)
    assert canvas.shape == (64, 96, 3)
    beside = canvas[:, 24:32].mean(axis=(1, 2))
    assert beside[:24].mean() < 80
    assert beside[-24:].mean() > 160


def test_only_the_part_beside_the_new_one_may_be_seen() -> None:
    request = grown(right=16, context=8).step(0, []).request
    assert (request.only_masked, request.padding, request.width) == (True, 8, None)
    crop = plan(request).mask
    assert crop is not None
    assert crop.crop is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "does not grow"),
        ({"left": 0}, "does not grow"),
        ({"left": 100_000}, "left=100000"),
        ({"left": 16_384, "right": 16_384}, "at most 16384 pixels a side"),
        ({"left": -8}, "left=-8"),
        ({"left": 8, "start": "snow"}, "choose one of noise, mirror, stretch"),
        ({"to": "10x10"}, "outpainting cuts nothing off"),
        ({"to": "wide"}, "1024x768"),
        ({"aspect": "0:1"}, "aspect"),
        ({"aspect": "16:9", "anchor": "middle"}, "choose one of center"),
        ({"aspect": "16:9", "left": 8}, "not both"),
        ({"aspect": "16:9", "to": "90x90"}, "give one of them"),
        ({"lefft": 8}, "did you mean 'left'"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        grown(**fields)


def test_a_mask_of_ones_own_is_refused() -> None:
    with pytest.raises(RequestError, match="the new part is the mask"):
        Outpainting(request=asked(mask=noisy_picture(32, 32)), left=8)


# -- plain values ------------------------------------------------------------------------------------------------------

TOOLS: list[tuple[str, dict[str, Any]]] = [
    ("outpaint", {"left": 8, "start": "mirror"}),
    ("loopback", {"loops": 2, "curve": "lazy"}),
    ("enlarge", {"scale": 1.5, "tile": 64}),
    ("grid", {"x": "steps=1-3", "y": {"size": ["32x32", "64x32"]}, "z": {"field": "order", "values": ["a", "cat"]}}),
    ("prompt-matrix", {"which": "negative"}),
    ("prompts", {"text": "a\nb"}),
    ("sd-upscale", {"overlap": 8, "upscaler": "Lanczos"}),
    ("outpainting-mk2", {"pixels": 16, "directions": ["left"]}),
    ("poor-mans-outpainting", {"pixels": 16, "masked_content": "original"}),
    ("alternative-test", {"decode_steps": 5}),
    ("script", {"title": "loopback", "args": [2, 0.5, "Linear", "None"]}),
]


@pytest.mark.parametrize(("kind", "tool"), TOOLS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_tool_from_plain_values_and_back(kind: str, tool: dict[str, Any]) -> None:
    request = asked(prompt="a cat", width=32, height=32)
    made = sequence_of(kind, tool, request)
    assert isinstance(made, PaintingSequence)
    if kind != "script":
        again = sequence_of(kind, tool_json(made), request)
        assert [each.request for each in again.outline()] == [each.request for each in made.outline()]


def test_all_kinds_are_tried() -> None:
    assert {kind for kind, _ in TOOLS} == {*KINDS, "script"}


def test_fields_of_a_tool_and_of_its_request() -> None:
    tool, rest = split_fields("outpaint", {"kind": "outpaint", "left": 8, "steps": 5})
    assert (tool, rest) == ({"left": 8}, {"steps": 5, "strength": 0.9})
    with pytest.raises(RequestError, match="did you mean 'steps'"):
        split_fields("outpaint", {"stepps": 5})
    with pytest.raises(RequestError, match="did you mean 'outpaint'"):
        known_kind("outpant")
    with pytest.raises(RequestError, match="a list of arguments"):
        sequence_of("script", {"title": "Loopback", "args": "4"}, asked())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_old_samples_of_16_bits_lie_in_the_new_picture(channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (24, 40, channels)).astype(np.uint16)
    source = deep_array(values)
    source.info["icc_profile"] = profiles.display_p3()
    made = sequence_of("outpaint", {"left": 16, "top": 8}, asked(images=(source,)))
    assert isinstance(made, Outpainting)
    found = samples(made.canvas)
    assert found.shape == (32, 56, 4 if channels in (2, 4) else 3)
    old = found[8:, 16:]
    gray = channels < 3
    assert np.array_equal(old[..., :3], np.repeat(values[..., :1], 3, axis=2) if gray else values[..., :3])
    assert made.canvas.info["icc_profile"] == profiles.display_p3()
    (step,) = made.outline()
    assert not plan(step.request).warnings


def test_cmyk_is_outpainted_as_cmyk() -> None:
    source = noisy_picture(40, 24).convert("CMYK")
    made = sequence_of("outpaint", {"left": 16}, asked(images=(source,)))
    assert isinstance(made, Outpainting)
    assert made.canvas.mode == "CMYK"
    assert np.array_equal(np.asarray(made.canvas)[:, 16:], np.asarray(source))


def test_enlarging_keeps_depth_and_profile() -> None:
    source = deep_array(np.random.default_rng(0).integers(0, 65536, (24, 40, 4)).astype(np.uint16))
    source.info["icc_profile"] = profiles.display_p3()
    made = sequence_of("enlarge", {"scale": 2}, asked(images=(source,))).prepared(Settings(), {})
    larger = made.step(0, ()).request.images[0]
    assert samples(larger).dtype == np.uint16
    assert samples(larger).shape == (48, 80, 4)
    assert larger.info["icc_profile"] == profiles.display_p3()
