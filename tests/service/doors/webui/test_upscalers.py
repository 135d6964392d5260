"""Upscalers under the names that clients have built in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from overpaint.service.config import ServeConfig
from overpaint.settings import Settings
from tests.service.doors.webui.test_jobs import (
    BASE,
    PICTURE,
    SMALL,
    answered,
    client_for,
    request_of,
    stored,
    warnings_of,
)
from tests.service.fake_desk import FakeDesk

HIRES: dict[str, Any] = {**SMALL, "enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5}


@pytest.fixture
def site(config: ServeConfig, tmp_path: Path) -> ServeConfig:
    """The reference's folders, with a file in most of them."""
    files = (
        *("ESRGAN/ESRGAN.pth", "ESRGAN/4x-UltraSharp.pth", "RealESRGAN/RealESRGAN_x4plus.pth"),
        *("RealESRGAN/realesr-general-x4v3.pth", "SwinIR/SwinIR_4x.pth"),
    )
    for name in files:
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folders = {f"{name.lower()}_dir": str(tmp_path / "models" / name) for name in ("ESRGAN", "RealESRGAN", "SwinIR")}
    return replace(config, settings=Settings().with_changes(folders))


@pytest.fixture
def client(desk: FakeDesk, site: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, site) as made:
        yield made


def test_folders_are_read_under_the_references_names(client: TestClient, site: ServeConfig) -> None:
    listed = [each["name"] for each in client.get(f"{BASE}/upscalers").json()]
    assert listed == [
        *("None", "Lanczos", "Nearest", "4x-UltraSharp", "ESRGAN", "R-ESRGAN 4x+", "R-ESRGAN General 4xV3"),
    ]
    folder = Path(site.settings.realesrgan_dir)
    assert client.get(f"{BASE}/realesrgan-models").json() == [
        {"name": "R-ESRGAN 4x+", "path": str(folder / "RealESRGAN_x4plus.pth"), "scale": 4},
        {"name": "R-ESRGAN General 4xV3", "path": str(folder / "realesr-general-x4v3.pth"), "scale": 4},
    ]


@pytest.mark.parametrize("name", ["R-ESRGAN 4x+", "ESRGAN_4x", "4x-UltraSharp", "RealESRGAN_x4plus", "r-esrgan 4X+"])
def test_a_built_in_name_finds_its_file(client: TestClient, desk: FakeDesk, name: str) -> None:
    told = answered(client, "txt2img", **HIRES, hr_upscaler=name)
    assert request_of(desk).hires.upscaler.casefold() == name.casefold() and not warnings_of(told)
    answered(client, "extra-single-image", image=PICTURE, upscaler_1=name)
    assert request_of(desk).upscaler.casefold() == name.casefold()


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("R-ESRGAN 4x+ Anime6B", "it needs the file RealESRGAN_x4plus_anime_6B.pth in the folder that the option "
         "realesrgan_dir names"),
        ("4x_foolhardy_Remacri", "it needs the file 4x_foolhardy_Remacri.pth"),
        ("SwinIR_4x", "SwinIR networks are not offered here"),
        ("SwinIR 4x", "SwinIR networks are not offered here"),
        ("DAT x2", "DAT networks are not offered here"),
        ("ScuNET GAN", "ScuNET networks are not offered here"),
    ],
)  # fmt: skip
def test_a_known_name_without_its_file_is_resampled_and_that_is_said(
    client: TestClient, desk: FakeDesk, name: str, needs: str
) -> None:
    told = answered(client, "txt2img", **HIRES, hr_upscaler=name)
    assert request_of(desk).hires.upscaler == "Lanczos"
    (warning,) = warnings_of(told)
    assert warning.startswith(f"hr_upscaler={name!r}: {needs}") and warning.endswith("; Lanczos was used")
    assert json.loads(told["info"])["width"] == 64 and told["parameters"]["hr_upscaler"] == name
    told = answered(client, "extra-single-image", image=PICTURE, upscaler_1=name, upscaler_2=name)
    assert request_of(desk).upscaler == request_of(desk).second_upscaler == "Lanczos"
    assert "upscaler_1=" in told["html_info"] and "upscaler_2=" in told["html_info"]
    told = answered(client, init_images=[PICTURE], **SMALL, override_settings={"upscaler_for_img2img": name})
    assert stored(desk)["overrides"]["upscaler_for_img2img"] == "Lanczos"
    assert warnings_of(told)[0].startswith(f"override_settings.upscaler_for_img2img={name!r}: {needs}")


def test_a_name_that_nobody_knows_stays_an_error(client: TestClient) -> None:
    answer = client.post(f"{BASE}/txt2img", json={**HIRES, "hr_upscaler": "8x_NoSuch"})
    assert answer.status_code == 422 and "hr_upscaler='8x_NoSuch'" in answer.json()["errors"]
    answer = client.post(f"{BASE}/extra-single-image", json={"image": PICTURE, "upscaler_1": "8x_NoSuch"})
    assert (answer.status_code, answer.json()["error"]) == (500, "AssertionError")  # EX-3


def test_an_upscaler_that_is_not_used_is_not_judged(client: TestClient) -> None:
    told = answered(client, "txt2img", **SMALL, enable_hr=False, hr_upscaler="8x_NoSuch")
    assert not warnings_of(told)
