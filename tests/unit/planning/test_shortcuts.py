"""What a pass leaves out: which ratio counts (JOB-12), where tokens merge, what is refused, what is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from overpaint.errors import SettingError
from overpaint.models.families import SD1_SPEC, ModelSpec, UNetSpec
from overpaint.planning.plan import plan
from overpaint.planning.shortcuts import EVERYTHING, Shortcuts, TokenMerging, attention_level
from overpaint.request import Hires, Txt2ImgRequest
from overpaint.settings import Quirks, Settings
from overpaint.text.infotext import split_infotext
from overpaint.text.pasting import option_overrides
from tests.flow_toys import ZIMAGE
from tests.unit.toy_job import SANE, asked, planned

SDXL = replace(SD1_SPEC.unet, channel_mult=(1, 2, 4), input_depths=(0, 0, 2, 2, 10, 10))
FLOW = replace(SD1_SPEC, family="zimage", title="Z-Image", denoiser=ZIMAGE, prediction="flow")


def merged(spec: ModelSpec = SD1_SPEC, settings: Settings = SANE, **fields: Any) -> float:
    return plan(asked(**fields), settings, spec).shortcuts.merged_share


def test_the_default_leaves_nothing_out() -> None:
    assert planned().shortcuts == EVERYTHING == Shortcuts()
    assert not EVERYTHING.any and EVERYTHING.notes() == {}


@pytest.mark.parametrize(
    ("options", "overrides", "ratio"),
    [
        ({"token_merging_ratio": 0.3}, {}, 0.3),
        ({"token_merging_ratio": 0.3, "token_merging_ratio_img2img": 0.4}, {}, 0.4),
        ({"token_merging_ratio_img2img": 0.4}, {"token_merging_ratio": 0.5}, 0.5),
        ({"token_merging_ratio_img2img": 0.4}, {"token_merging_ratio": 0.0}, 0.4),
        ({"token_merging_ratio_hr": 0.4}, {}, 0.0),
    ],
)
def test_which_ratio_counts(options: dict[str, float], overrides: dict[str, float], ratio: float) -> None:  # JOB-12
    assert merged(settings=SANE.with_changes(options), overrides=overrides) == ratio


def test_a_job_without_a_source_and_its_second_pass() -> None:
    settings = Settings(token_merging_ratio=0.3, token_merging_ratio_img2img=0.4)
    made = plan(Txt2ImgRequest(width=64, height=64, steps=4, seed=1, hires=Hires(strength=0.5)), settings)
    assert made.hires is not None
    assert made.shortcuts.merged_share == made.hires.plan.shortcuts.merged_share == 0.3
    assert made.notes["Token merging ratio hr"] == 0.3
    made = plan(made.request, settings.with_changes({"token_merging_ratio_hr": 0.6}))
    assert made.hires is not None
    assert (made.notes["Token merging ratio"], made.notes["Token merging ratio hr"]) == (0.3, 0.6)
    assert made.hires.plan.shortcuts.merged_share == 0.6


def test_where_tokens_merge() -> None:
    full_size = Settings(quirks=Quirks(merge_full_size_tokens_only=True))
    xl = replace(SD1_SPEC, denoiser=SDXL)
    assert plan(asked(overrides={"token_merging_ratio": 0.5})).shortcuts.merging == TokenMerging(0.5, 0)
    assert attention_level(SDXL, SANE) == 1 and attention_level(SDXL, full_size) is None
    made = plan(asked(overrides={"token_merging_ratio": 0.5}), full_size, xl)
    assert made.shortcuts == EVERYTHING
    assert any("token_merging_ratio" in each and "nothing is merged" in each for each in made.warnings)
    assert "Token merging ratio" not in made.notes
    assert not any("merg" in each for each in planned(full_size).warnings)


def test_another_model_goes_on_at_its_own_level() -> None:
    xl = replace(SD1_SPEC, denoiser=SDXL)
    made = Shortcuts(TokenMerging(0.5, 0), 2)
    assert made.with_model(xl, SANE) == Shortcuts(TokenMerging(0.5, 1), 2)
    assert made.with_model(FLOW, SANE) == EVERYTHING
    assert Shortcuts(deep_interval=3).with_model(xl, SANE) == Shortcuts(deep_interval=3)


def test_a_model_without_a_u_net_says_that_it_leaves_nothing_out() -> None:
    made = plan(asked(overrides={"deepcache_interval": 2, "token_merging_ratio": 0.5}), SANE, FLOW)
    assert made.shortcuts == EVERYTHING
    assert [each for each in made.warnings if "no U-Net" in each and "deepcache_interval" in each]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_merging_ratio", 1.0),
        ("token_merging_ratio_img2img", -0.1),
        ("token_merging_ratio_hr", float("nan")),
        ("deepcache_interval", 0),
        ("deepcache_interval", 101),
        ("skip_late_cond", 1.1),
    ],
)
def test_what_cannot_be(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=f"^{name}=.*give "):
        planned(overrides={name: value})


def test_infotext_and_back() -> None:
    made = planned(overrides={"token_merging_ratio": 0.5, "deepcache_interval": 3})
    assert made.notes["Token merging ratio"] == 0.5 and made.notes["DeepCache interval"] == 3
    text = "a\nSteps: 4, Sampler: Euler, Token merging ratio: 0.5, Token merging ratio hr: 0.2, DeepCache interval: 3"
    found = option_overrides(split_infotext(f"{text}, Skip Late CFG: 0.25").fields)
    assert found == {
        "token_merging_ratio": 0.5,
        "token_merging_ratio_hr": 0.2,
        "deepcache_interval": 3,
        "skip_late_cond": 0.25,
    }


def test_families_with_u_nets_have_a_level() -> None:
    assert isinstance(SD1_SPEC.denoiser, UNetSpec) and attention_level(SD1_SPEC.denoiser, SANE) == 0
