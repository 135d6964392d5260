"""The folder in which mistakes are made: a few pictures, a text, models by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from overpaint.files.metadata import encode_picture
from overpaint.outcome import ModelIdentity
from tests.unit.command import adapter, painter
from tests.unit.fake_painter import FakePainter, drawing

__all__ = ["folder", "painter"]

INFOTEXT = (
    "moon\nSteps: 12, Sampler: Euler, Seed: 1, Size: 32x24, Model hash: 0123456789, Model: dreams, Version: v1.10.1"
)


def checkpoint(path: Path) -> None:
    """A checkpoint as far as its name and the names of its tensors go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"model.diffusion_model.x": np.zeros(1, np.float32)}, path)


@pytest.fixture
def folder(painter: FakePainter) -> FakePainter:
    """Stand in it; the painter that is given has to stay unasked."""
    Path("notes.txt").write_text("no picture")
    Path("broken.png").write_bytes(Path("cat.png").read_bytes()[:60])
    Path("weights.bin").write_bytes(bytes(range(256)))
    drawing((90, 10)).save("wide.png")
    Path("photos").mkdir()
    drawing().save("photos/a.png")
    for name in ("xlora", "xloraboth", "xloha"):
        adapter(name, folder=Path("loras"))
    for number in range(1, 24):
        adapter(f"style{number}", folder=Path("many"))
    checkpoint(Path("webui/models/Stable-diffusion/dreams.safetensors"))
    checkpoint(Path("webui/models/Stable-diffusion/sdxl/paper.safetensors"))
    Path("other.png").write_bytes(encode_picture(drawing(), "png", infotext=INFOTEXT))
    with_source = INFOTEXT.replace("Seed: 1", "Seed: 1, Denoising strength: 0.5")
    Path("old.png").write_bytes(encode_picture(drawing(), "png", infotext=with_source))
    Path("mine.png").write_bytes(encode_picture(Image.new("L", (8, 8)), "png", infotext="just words"))
    painter.model = ModelIdentity("overpaint-mini", painter.model.hash)
    return painter
