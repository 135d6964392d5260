"""One small model for the folder, made by the project itself; options and flags as new before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import modules.shared as shared
from modules.processing import StableDiffusionProcessingImg2Img
from overpaint.engine import Engine
from overpaint.request import Img2ImgRequest, PaintRequest, Picture
from overpaint.settings import Settings
from tests.tiny import make_tiny_checkpoint

if TYPE_CHECKING:
    from tests.engine.toys import Site


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "other.safetensors", seed=1)


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> Iterator[Engine]:
    with Engine(checkpoint, device="cpu", dtype="float32") as made:
        yield made


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Folders full of things to hang on the tiny checkpoint; whoever changes files makes a site of his own."""
    from tests.engine.toys import make_site

    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def site_engine(site: Site) -> Iterator[Engine]:
    with Engine(site.model("tiny"), device="cpu", dtype="float32", settings=site.settings) as made:
        yield made


@pytest.fixture(autouse=True)
def as_new() -> Iterator[None]:
    def renew() -> None:
        shared.opts.replace_all(Settings.reference())
        shared.state.begin()
        shared.state.end()

    renew()
    yield
    renew()


@pytest.fixture
def sane_options() -> None:
    """The contract's door without the reference's accidents."""
    shared.opts.replace_all(Settings())


def scene(width: int = 32, height: int = 32, mode: str = "RGB", seed: int = 0) -> Picture:
    """A smooth gradient with grain: something a codec can carry."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 255 // (width + height)]
    values = np.stack(channels, axis=-1) + np.random.default_rng(seed).integers(-20, 20, (height, width, 3))
    picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray((x * 7 + y * 13).astype(np.uint8)))
    return picture


def box(width: int = 32, height: int = 32, area: tuple[int, int, int, int] = (8, 8, 24, 24)) -> Picture:
    """A black mask with a white box."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, area)
    return mask


def asked(**fields: Any) -> PaintRequest:
    """A request small enough to run in a tenth of a second."""
    given = {
        "images": (scene(),),
        "prompt": "a cat",
        "negative_prompt": "dog",
        "sampler": "Euler",
        "steps": 3,
        "seed": 1,
        "variation_seed": 5,
        **fields,
    }
    return Img2ImgRequest(**given)


def job(engine: Engine, **fields: Any) -> StableDiffusionProcessingImg2Img:
    """The same at the contract's door, saving nothing."""
    given = {
        "sd_model": engine,
        "init_images": [scene()],
        "prompt": "a cat",
        "negative_prompt": "dog",
        "sampler_name": "Euler",
        "steps": 3,
        "seed": 1,
        "subseed": 5,
        "width": 32,
        "height": 32,
        "do_not_save_samples": True,
        "do_not_save_grid": True,
        **fields,
    }
    return StableDiffusionProcessingImg2Img(**given)


def pixels(picture: Picture) -> bytes:
    """Mode, size and every byte."""
    return f"{picture.mode} {picture.size} ".encode() + picture.tobytes()


def painted(engine: Engine, settings: Settings | None = None, **fields: Any) -> list[bytes]:
    return [pixels(each) for each in engine.paint(asked(**fields), settings).images]
