"""One line: what reaches the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import overpaint
from overpaint import masks
from overpaint.errors import PictureError, RequestError
from overpaint.events import Finished
from overpaint.outcome import Processed
from overpaint.parts import Hires
from overpaint.request import Img2ImgRequest, PaintRequest, Txt2ImgRequest
from overpaint.settings import Settings
from tests.unit.fake_painter import FakePainter, drawing

if TYPE_CHECKING:
    from overpaint.engine import Engine


class Recorder(FakePainter):
    """An engine of flat colours."""

    def paint(self, request: PaintRequest, settings: Settings | None = None, *, progress: Any = False) -> Processed:
        *_, last = self.run(request, settings)
        assert isinstance(last, Finished)
        return last.result


@pytest.fixture
def engine() -> Recorder:
    return Recorder()


def as_engine(recorder: Recorder) -> Engine:
    return cast("Engine", recorder)


def test_bad_fields_are_told_before_a_model_is_loaded() -> None:
    with pytest.raises(RequestError, match="has no source"):
        overpaint.txt2img("a moon", strength=0.5)  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="steps"):
        overpaint.txt2img("a moon", steps=0)


def test_a_new_picture(engine: Recorder) -> None:
    overpaint.txt2img("a moon", engine=as_engine(engine), hires=Hires(scale=1.5), seed=4)
    assert engine.requests == [Txt2ImgRequest(prompt="a moon", hires=Hires(scale=1.5), seed=4)]


def test_over_a_picture(engine: Recorder, tmp_path: Path) -> None:
    drawing().save(tmp_path / "a.png")
    overpaint.img2img(tmp_path / "a.png", "a moon", engine=as_engine(engine), strength=0.5)
    (request,) = engine.requests
    assert (type(request), request.prompt, request.strength) == (Img2ImgRequest, "a moon", 0.5)


def test_a_mask_in_words_is_drawn_on_the_picture(engine: Recorder, tmp_path: Path) -> None:
    drawing().save(tmp_path / "a.png")
    painted = overpaint.img2img(tmp_path / "a.png", engine=as_engine(engine), mask="ellipse 8,4,24,20 | feather out 2")
    (request,) = engine.requests
    assert request.mask == masks.draw("ellipse 8,4,24,20 | feather out 2", drawing())
    assert painted.recipe is not None and str(painted.recipe["mask"]).startswith("data:image/png")
    with pytest.raises(RequestError, match="did you mean 'ellipse'"):
        overpaint.img2img(tmp_path / "a.png", engine=as_engine(engine), mask="elipse 8,4,24,20")
    with pytest.raises(PictureError, match="there is no such file"):
        overpaint.img2img(tmp_path / "a.png", engine=as_engine(engine), mask=str(tmp_path / "none.png"))


def test_a_checkpoint_of_an_engine_that_is_there(engine: Recorder, tmp_path: Path) -> None:
    overpaint.txt2img("a moon", engine=as_engine(engine), checkpoint=tmp_path / "m.safetensors")
    assert engine.requests[0].checkpoint == str(tmp_path / "m.safetensors")
