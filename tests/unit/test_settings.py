"""Settings and quirks."""

from __future__ import annotations

from dataclasses import fields

import pytest

from overpaint.errors import SettingError
from overpaint.settings import OPTION_NAMES, Quirks, Settings


def test_quirks_are_all_on_or_all_off() -> None:
    assert all(getattr(Quirks.reference(), each.name) for each in fields(Quirks))
    assert not any(getattr(Quirks.none(), each.name) for each in fields(Quirks))
    assert Settings().quirks == Quirks.none()
    assert Settings.reference().quirks == Quirks.reference()


def test_changes_make_a_copy() -> None:
    before = Settings()
    after = before.with_changes({"eta_ddim": 0.5, "uni_pc_order": 2.0, "infotext_skip_pasting": ["Seed"]})
    assert (before.eta_ddim, after.eta_ddim) == (0.0, 0.5)
    assert after.uni_pc_order == 2  # JSON clients send 2.0
    assert isinstance(after.uni_pc_order, int)
    assert after.infotext_skip_pasting == ("Seed",)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean 'eta_ddim'"):
        Settings().with_changes({"eta_dim": 1})
    with pytest.raises(KeyError):  # what users of the reference catch
        Settings().with_changes({"quirks": None})


@pytest.mark.parametrize(("name", "value"), [("eta_ddim", "much"), ("uni_pc_order", 2.5), ("randn_source", 3)])
def test_a_value_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=name):
        Settings().with_changes({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("randn_source", "MPS"), ("emphasis", "loud"), ("sd_noise_schedule", "Zero"), ("uni_pc_variant", "bh3")],
)
def test_a_choice_that_does_not_exist_is_refused(name: str, value: object) -> None:
    with pytest.raises(SettingError, match="choose one of"):
        Settings().with_changes({name: value})


def test_every_option_can_be_set_to_its_own_value() -> None:
    settings = Settings()
    assert settings.with_changes({name: getattr(settings, name) for name in OPTION_NAMES}) == settings
