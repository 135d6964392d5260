from __future__ import annotations

import json
from pathlib import Path

import pytest

from overpaint.errors import RequestError
from overpaint.models.upscaler_names import UpscalerName, find_upscaler_name, list_upscalers
from overpaint.settings import Settings


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    (tmp_path / "deep").mkdir()
    for name in ("b_x2.pth", "A-4x.pth", "deep/c.pt", "both.pth", "both.safetensors", "notes.txt", "None.pth"):
        (tmp_path / name).touch()
    return Settings(esrgan_dir=str(tmp_path))


def names(settings: Settings) -> list[str]:
    return [each.name for each in list_upscalers(settings)]


def test_built_in_ones_first_then_files_by_lower_case_name(site: Settings, parity: Path) -> None:
    assert names(site) == ["None", "Lanczos", "Nearest", "A-4x", "b_x2", "both", "c"]
    assert names(Settings()) == ["None", "Lanczos", "Nearest"]
    recorded = [each["name"] for each in json.loads((parity / "api/GET_upscalers.json").read_text())]
    assert recorded[:3] == names(Settings())
    assert recorded[3:] == sorted(recorded[3:], key=str.lower)


def test_safetensors_win_and_folders_do_not_count(site: Settings) -> None:
    found = {each.name: each.path for each in list_upscalers(site)}
    assert found["both"] == Path(site.esrgan_dir) / "both.safetensors"
    assert found["c"] == Path(site.esrgan_dir) / "deep" / "c.pt"
    assert found["None"] is None


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("4x-Sharp", 4),
        ("Photo_x2", 2),
        ("2x", 2),
        ("DAT x3", 3),
        ("Lanczos", 4),
        ("max8", 4),
        ("512x768", 4),
        ("x16", 4),
    ],
)
def test_scale_is_what_the_name_promises(name: str, scale: float) -> None:
    assert UpscalerName(name).scale == scale


def test_recorded_scales(parity: Path) -> None:
    for each in json.loads((parity / "api/GET_upscalers.json").read_text()):
        assert UpscalerName(each["name"]).scale == each["scale"]


def test_find(site: Settings) -> None:
    assert find_upscaler_name("A-4X", site).name == "A-4x"
    assert find_upscaler_name("lanczos", site) == UpscalerName("Lanczos")
    with pytest.raises(RequestError, match=r"hires\.upscaler='d': give one of None, Lanczos, Nearest, A-4x, .*, c$"):
        find_upscaler_name("d", site, "hires.upscaler")
    with pytest.raises(RequestError, match="esrgan_dir"):
        find_upscaler_name("A-4x", Settings())


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    for name in ("a.pth", "A.pth"):
        (tmp_path / name).touch()
    site = Settings(esrgan_dir=str(tmp_path))
    if len(list(tmp_path.iterdir())) == 2:  # some disks know no case
        assert [find_upscaler_name(each, site).name for each in ("a", "A")] == ["a", "A"]
