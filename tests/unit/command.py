"""What the tests of the command share: a folder to stand in, a painter without weights, and small model files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from overpaint.cli import session
from overpaint.models.built_in import default_path
from overpaint.models.hashes import sha256_of, user_hash_cache
from overpaint.outcome import ModelIdentity
from overpaint.request import PaintRequest
from tests.unit.fake_painter import FakePainter, drawing

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePainter:
    """An empty folder to stand in, with a source and a mask, and the painter that the command gets."""
    fake = FakePainter()
    monkeypatch.setattr(session, "open_engine", lambda asked, settings, progress: fake)
    fake.model = ModelIdentity("overpaint-mini", sha256_of(default_path(), user_hash_cache())[:10])
    for variable in [each for each in os.environ if each.startswith("OVERPAINT_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("OVERPAINT_CONFIG", "")
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x010E] = "my drawing"
    drawing().save("cat.png", exif=exif)
    mask = Image.new("L", (32, 24))
    mask.paste(255, (8, 8, 24, 20))
    mask.save("mask.png")
    return fake


def asked_for(painter: FakePainter) -> PaintRequest:
    """What the painter was asked for last."""
    return painter.requests[-1]


def adapter(name: str, content: float = 1.0, folder: Path | None = None) -> Path:
    """A LoRA's file as far as names and hashes go."""
    path = (folder or Path()) / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.lora_down.weight": np.full((1, 1), content, dtype=np.float32)}, path)
    return path


def header_only(name: str, target: Path) -> None:
    """A model file with a true header and nothing but a hole behind it."""
    from tests.checkpoints import recorded_header  # which loads torch

    header = recorded_header(name)
    length = int.from_bytes(header[:8], "little")
    described = json.loads(header[8 : 8 + length])
    end = max(each["data_offsets"][1] for key, each in described.items() if key != "__metadata__")
    with target.open("wb") as file:
        file.write(header[: 8 + length])
        file.truncate(8 + length + end)
