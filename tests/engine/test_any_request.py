"""Requests at random: what they ask is painted, or it is said in one sentence why not; nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overpaint.engine import Engine
from overpaint.errors import OverpaintError
from overpaint.events import Finished, Progress, Started
from overpaint.request import (
    ControlUnit,
    Hires,
    Img2ImgRequest,
    Lora,
    MaskedContent,
    PaintRequest,
    ResizeMode,
    SoftInpainting,
)
from overpaint.request import Txt2ImgRequest as Dream
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from tests.engine.conftest import box, painted, scene
from tests.engine.toys import Site, hint

_TEXTS = st.one_of(
    st.sampled_from(
        [
            "a cat",
            "",
            "a <lora:red:0.5> cat AND a zorbleflux :0.4",
            "[a:b:0.5] <lora:text:1:0.2>",
            "<hypernet:waves:0.3> a [cat|dog]",
            "(((" * 5,
            "word " * 90,
            "a BREAK b",
            "a <lora:blue:1:0:1>",
            "<lora:nobody:1><lora:red:x>",
        ]
    ),
    st.text(max_size=20),
)
_NAMES = st.sampled_from([None, None, None, "tiny", "other", "twin", "nobody"])
_FRACTIONS = st.sampled_from([0.0, 0.1, 0.5, 1.0])
_SIDES = st.sampled_from([None, 1, 8, 16, 23, 40])
_SAMPLERS = st.sampled_from([each.name for each in SAMPLERS if each.name != "DPM adaptive"])
_SCHEDULERS = st.sampled_from([each.label for each in SCHEDULERS])
_LISTS = st.one_of(_TEXTS, _TEXTS, _TEXTS, st.lists(_TEXTS, min_size=1, max_size=4).map(tuple))

_LORAS = st.builds(
    Lora,
    name=st.sampled_from(["red", "blue", "text"]),
    weight=st.sampled_from([-1.0, 0.0, 0.3, 1.0]),
    text_weight=st.sampled_from([None, 0.5]),
)


@st.composite
def _controls(draw: st.DrawFn) -> ControlUnit:
    start, end = sorted((draw(_FRACTIONS), draw(_FRACTIONS)))
    name = draw(st.sampled_from(["edges", "depth"]))
    preprocessor: Any = draw(st.sampled_from(["none", "canny", "invert"]))
    weight = draw(st.sampled_from([0.0, 0.7, -1.0]))
    image = hint(draw(st.integers(1, 40)), 20)
    return ControlUnit(model=name, image=image, start=start, end=end, preprocessor=preprocessor, weight=weight)


_HIRES = st.builds(
    Hires,
    scale=st.sampled_from([0.3, 1.0, 1.3, 2.0]),
    width=_SIDES,
    height=_SIDES,
    upscaler=st.sampled_from([None, "Latent (nearest)", "Lanczos", "None", "grow"]),
    steps=st.sampled_from([None, 1, 3]),
    strength=_FRACTIONS,
    sampler=st.one_of(st.none(), _SAMPLERS),
    scheduler=st.one_of(st.none(), _SCHEDULERS),
    checkpoint=_NAMES,
    prompt=_LISTS,
    negative_prompt=_LISTS,
)
_COMMON: dict[str, st.SearchStrategy[Any]] = {
    "prompt": _LISTS,
    "negative_prompt": _LISTS,
    "seed": st.integers(-1, 2**40),
    "variation_strength": _FRACTIONS,
    "batch_size": st.integers(1, 3),
    "iterations": st.integers(1, 2),
    "sampler": _SAMPLERS,
    "scheduler": _SCHEDULERS,
    "steps": st.integers(1, 4),
    "cfg_scale": st.sampled_from([0.0, 1.0, 7.0]),
    "eta": st.sampled_from([None, 0.0, 1.0]),
    "tiling": st.sampled_from([None, True]),
    "clip_skip": st.sampled_from([None, 2, 9]),
    "loras": st.lists(_LORAS, max_size=2).map(tuple),
    "use_networks": st.booleans(),
    "controls": st.lists(_controls(), max_size=2).map(tuple),
    "checkpoint": _NAMES,
    "refiner": _NAMES,
    "refiner_switch_at": st.one_of(st.none(), _FRACTIONS),
    "exact": st.booleans(),
    "overrides": st.sampled_from(
        [
            {},
            {"sd_vae": "pale.safetensors"},
            {"sd_vae_decode_method": "TAESD", "sd_vae_encode_method": "TAESD"},
            {"upscaler_for_img2img": "grow"},
            {"lora_functional": True, "pad_cond_uncond": True},
            {"sd_lora": "red", "hires_fix_refiner_pass": "both passes"},
            {"show_progress_every_n_steps": 1, "show_progress_type": "Full"},
            {"return_grid": True, "refiner_switch_by_sample_steps": True},
            {"sd_noise_schedule": "Zero Terminal SNR", "sgm_noise_multiplier": True},
        ]
    ),
}
_DREAMS = st.fixed_dictionaries({"width": _SIDES.filter(bool), "height": _SIDES.filter(bool), **_COMMON}).flatmap(
    lambda fields: st.one_of(st.none(), _HIRES).map(lambda hires: (Dream, {**fields, "hires": hires}))
)
_PAINTINGS = st.fixed_dictionaries(
    {
        "images": st.lists(st.builds(scene, st.integers(1, 40), st.just(24)), min_size=1, max_size=2).map(tuple),
        "width": _SIDES,
        "height": _SIDES,
        "strength": _FRACTIONS,
        "resize_mode": st.sampled_from(list(ResizeMode)),
        "mask": st.sampled_from([None, box(24, 24, (4, 4, 12, 16)), box(24, 24, (0, 0, 0, 0))]),
        "masked_content": st.sampled_from(list(MaskedContent)),
        "soft_inpainting": st.sampled_from([None, SoftInpainting()]),
        "color_correction": st.sampled_from([None, True]),
        **_COMMON,
    }
).map(lambda fields: (Img2ImgRequest, fields))


@pytest.mark.slow
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=st.one_of(_DREAMS, _PAINTINGS), reference=st.booleans())
def test_any_request(
    site_engine: Engine, site: Site, asked: tuple[type[PaintRequest], dict[str, Any]], reference: bool
) -> None:
    kind, fields = asked
    manner = (site.reference if reference else site.settings).with_changes({"max_pixels_per_pass": 16_384})
    try:
        started, *middle, last = site_engine.run(kind(**fields), manner)
    except OverpaintError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        return
    assert isinstance(started, Started)
    assert isinstance(last, Finished)
    count = last.result.index_of_first_image + started.images
    assert len(last.result.images) == len(last.result.infotexts) == count
    steps = [each.step for each in middle if isinstance(each, Progress)]
    assert steps == sorted(steps)
    assert not steps or steps[-1] == started.steps


def test_and_nothing_was_left_behind(site_engine: Engine, site: Site) -> None:
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as fresh:
        assert painted(site_engine) == painted(fresh)
