"""docs/guides/service.md is true: its figures are the limits, and what it shows runs against a started server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from overpaint import cli
from overpaint.service.limits import Limits
from tests.service.conftest import Server
from tests.service.doors.openai.openai_tools import hole, scene

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "service.md"
SHOWN = "http://127.0.0.1:7860"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_limits_are_those_of_the_code() -> None:
    rows = [line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {
        name: float(figure)
        for names, figures in rows
        for name, figure in zip(re.findall(r"`(\w+)`", names), re.findall(r"(?<![:\w])\d+", figures), strict=False)
    }
    assert {each.name: getattr(Limits(), each.name) for each in fields(Limits)}.items() <= told.items()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page names, in the working folder."""
    scene().save(tmp_path / "photo.jpg")
    scene().save(tmp_path / "photo.png")
    hole(scene()).save(tmp_path / "hole.png")
    hole(scene()).getchannel("A").point(lambda value: 255 - value).save(tmp_path / "mask.png")
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("package", ["overpaint.client", "openai", "webuiapi"])
def test_python_runs(package: str, photos: Path, running_server: Server) -> None:
    pytest.importorskip(package)
    (block,) = [each for each in blocks("py") if f"import {package}" in each or f"from {package}" in each]
    port = running_server.url.rpartition(":")[2]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block.replace("7860", port).replace("512x512", "64x64"), str(PAGE), "exec"), names)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_is_answered(photos: Path, running_server: Server) -> None:
    lines = [each for block in blocks("sh") for each in block.splitlines() if each.startswith("curl -s ")]
    assert lines
    for line in lines:
        words = shlex.split(line.replace(SHOWN, running_server.url).replace('"steps": 4', '"steps": 4, "width": 64'))
        told = subprocess.run([*words, "--fail"], capture_output=True, text=True, check=True, timeout=60)
        assert {"id", "picture", "jobs"} & json.loads(told.stdout).keys(), line


@pytest.mark.slow
def test_commands_run(photos: Path, running_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERPAINT_URL", running_server.url)
    lines = [each for block in blocks("sh") for each in block.splitlines() if each.startswith("overpaint")]
    commands = [shlex.split(each)[1:] for each in lines if " serve" not in each]
    for each in ("order-18", "order-19"):
        assert cli.main(["submit", "photo.jpg", "a", "--id", each, "--steps", "20"]) == 0
    for words in commands:
        small = ["64x64" if each == "512x512" else each for each in words]
        assert cli.main(small) in (0, 1), words  # to cancel what is over already is an error
    assert len(list((photos / "results").glob("*.png"))) == 2
