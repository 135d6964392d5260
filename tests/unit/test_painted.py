"""Painted pictures: what they know, what their files hold, how they show themselves."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import overpaint
from overpaint.cli import main
from overpaint.errors import OverpaintWarning, SaveError
from overpaint.events import Finished, Progress
from overpaint.files.keeping import KeptPicture, Origins
from overpaint.files.metadata import read_infotext, read_recipe
from overpaint.finish import FinishedPicture
from overpaint.models.families import SD1_SPEC
from overpaint.outcome import FinishedBatch, ModelIdentity, Processed, account
from overpaint.painted import PaintedPicture, with_stories
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest, PaintRequest
from overpaint.settings import Settings
from overpaint.watching import warn, watching
from tests.unit.fake_painter import FakePainter, drawing

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = ("png", "jpg", "webp", "avif", "tiff")


class Painter(FakePainter):
    """Paints as an engine does for Python: a call, and a result."""

    def paint(self, request: PaintRequest, settings: Settings | None = None, *, progress: Any = False) -> Processed:
        for event in self.run(request, settings):
            last = event
        assert isinstance(last, Finished)
        return with_stories(last.result)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a source that has something to keep."""
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x013B] = "somebody"
    drawing((64, 64)).save("cat.png", exif=exif, icc_profile=PROFILE)
    return tmp_path


def reopened(path: str | Path) -> Image.Image:
    return Image.open(io.BytesIO(Path(path).read_bytes()))


def painted(**fields: Any) -> PaintedPicture:
    engine: Any = Painter()
    picture = overpaint.img2img("cat.png", "a moon", engine=engine, seed=5, **fields)
    assert isinstance(picture, PaintedPicture)
    return picture


def result(**fields: Any) -> Processed:
    return Painter().paint(Img2ImgRequest(images=drawing((64, 64)), prompt="a moon", seed=5, **fields))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("way", ["PIL", "ours"])
def test_a_file_keeps_what_is_known(folder: Path, kind: str, way: str) -> None:
    picture, path = painted(), folder / f"x.{kind}"
    if way == "PIL":
        picture.save(path)
    else:
        assert overpaint.save(picture, path) == path
    assert read_infotext(path)[0] == picture.infotext
    saved = reopened(path)
    assert saved.info["icc_profile"] == PROFILE
    assert saved.getexif()[0x013B] == "somebody"
    recipe = read_recipe(path)
    if way == "PIL" and kind != "png":
        assert recipe is None
    else:
        assert recipe is not None
        assert (recipe["source"]["path"], recipe["request"]["seed"]) == ("cat.png", 5)


def test_again_paints_from_what_python_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint.cli import session

    painted().save("moon.png")
    fake = FakePainter()
    monkeypatch.setattr(session, "open_engine", lambda asked, settings, progress: fake)
    assert main(["again", "moon.png", "--any-model", "-q"]) == 0  # the one of the fake is in no folder
    assert (fake.requests[0].prompt, fake.requests[0].seed) == ("a moon", 5)


def test_save_takes_what_pil_takes(folder: Path) -> None:
    data = io.BytesIO()
    painted().save(data, format="PNG", compress_level=1)
    assert read_recipe(data.getvalue()) is not None
    with open("x.jpeg", "wb") as file:  # noqa: PTH123 (a file that is open)
        painted().save(file, "JPEG", quality=10)
    assert read_infotext(folder / "x.jpeg")[0] == painted().infotext
    painted().save("x.gif")
    painted().save("x.ppm")


def test_what_is_made_of_it_is_a_plain_picture(folder: Path) -> None:
    picture = painted()
    for other in (picture.resize((8, 8)), picture.crop((0, 0, 4, 4)), picture.convert("L"), picture.copy()):
        assert type(other) is Image.Image


def test_saving_never_replaces_unless_told(folder: Path) -> None:
    picture = painted()
    overpaint.save(picture, "x.jpg")
    before = Path("x.jpg").read_bytes()
    with pytest.raises(overpaint.RequestError, match="it exists"):
        overpaint.save(picture, "x.jpg")
    assert Path("x.jpg").read_bytes() == before
    overpaint.save(picture, "x.jpg", overwrite=True, quality=1)
    assert len(Path("x.jpg").read_bytes()) < len(before)
    assert sorted(each.name for each in folder.iterdir()) == ["cat.png", "x.jpg", "x.jpg.overpaint.json"]


def test_a_new_folder_is_made_and_names_get_numbers(folder: Path) -> None:
    picture = painted()
    assert overpaint.save(picture, "new/deep/") == Path("new/deep/painted.png")
    assert overpaint.save(picture, "new/deep/") == Path("new/deep/painted-1.png")
    several = result(batch_size=2, iterations=2)
    assert several.save("four.png") == tuple(Path(f"four-{number}.png") for number in (1, 2, 3, 4))
    assert [read_recipe(Path(f"four-{number}.png"))["request"]["seed"] for number in (1, 4)] == [5, 8]  # type: ignore[index]
    assert result().save("one.png") == (Path("one.png"),)


def test_a_folder_that_cannot_be_made_loses_nothing(folder: Path) -> None:
    with pytest.raises(SaveError, match="a file stands where a folder is wanted"):
        overpaint.save(painted(), "cat.png/")


def test_plain_pictures_are_saved_with_their_infotext(folder: Path) -> None:
    picture = drawing()
    picture.info["parameters"] = "a moon\nSteps: 3"
    assert overpaint.save(picture, "x.webp") == Path("x.webp")
    assert read_infotext(Path("x.webp"))[0] == "a moon\nSteps: 3"
    assert overpaint.save([picture, painted()], "y.png") == (Path("y-1.png"), Path("y-2.png"))


def test_a_number_of_pictures_is_a_list(folder: Path) -> None:
    engine: Any = Painter()
    two = overpaint.img2img("cat.png", "a moon", engine=engine, seed=5, batch_size=2)
    assert [each.seed for each in two] == [5, 6]
    assert isinstance(overpaint.img2img("cat.png", engine=engine), PaintedPicture)
    assert [type(each) for each in overpaint.txt2img("a moon", engine=engine, iterations=1)] == [PaintedPicture]


def test_requests_and_results_pickle(folder: Path) -> None:
    request = Img2ImgRequest(images=drawing(), overrides={"eta_ancestral": 0.5}, resize_mode="crop")
    assert pickle.loads(pickle.dumps(request)) == request == copy.deepcopy(request)
    several = result(batch_size=2, overrides={"upscaler_for_img2img": "Lanczos"}, width=128, height=128)
    again = pickle.loads(pickle.dumps(several))
    assert (repr(again), again.infotexts, again.warnings) == (repr(several), several.infotexts, several.warnings)
    assert [each.tobytes() for each in again.images] == [each.tobytes() for each in several.images]
    picture = pickle.loads(pickle.dumps(painted()))
    picture.save("x.png")
    assert read_recipe(folder / "x.png")["source"]["path"] == "cat.png"  # type: ignore[index]
    new = pickle.loads(
        pickle.dumps(Painter().paint(overpaint.Txt2ImgRequest(hires=overpaint.Hires(upscaler="Lanczos"))))
    )
    assert new.images[-1].size == (1024, 1024)


def test_a_picture_keeps_no_canvas_alive(folder: Path) -> None:
    made = painted()._made
    assert (made.images, made.plan.canvases, made.plan.mask) == ((), (), None)


def test_a_result_shows_itself_in_two_lines(folder: Path) -> None:
    told = repr(result(batch_size=2))
    assert told == "<Processed: 2 pictures of 64x64, DPM++ 2M, 20 steps, seed 5, 6, model fake\n 'a moon'>"
    assert told.count("\n") == 1
    long = result(iterations=30)
    assert repr(long).count("\n") == 1 and "..." in repr(long) and len(repr(long)) < 250


def test_a_notebook_shows_the_pictures(folder: Path) -> None:
    html = result(iterations=12)._repr_html_()
    assert html.count('<img src="data:image/png;base64,') == 8
    assert "more</p>" in html
    tricky = Painter().paint(Img2ImgRequest(images=drawing(), prompt='<b>"x"</b>'))._repr_html_()
    assert "<b>" not in tricky
    assert painted()._repr_png_()


def test_warnings_name_the_line_of_the_program() -> None:
    namespace: dict[str, Any] = {"__name__": "somebody", "warn": warn}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exec(compile("\n\nwarn(['painted smaller'])", "program.py", "exec"), namespace)
    ((message, category, filename, line),) = [(str(w.message), w.category, w.filename, w.lineno) for w in told]
    assert (message, category, filename, line) == ("painted smaller", OverpaintWarning, "program.py", 3)


def test_a_function_hears_of_every_step() -> None:
    steps: list[Progress] = []
    with watching(steps.append) as step:
        step(Progress(1, 2, 0.5))
    assert steps == [Progress(1, 2, 0.5)]
    with watching(False) as step:
        step(Progress(1, 2, 0.5))


def test_a_bar_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(True) as step:
        step(Progress(2, 2, 0.5))
    out, error = capsys.readouterr()
    assert out == ""
    assert "painting" in error and "2/2" in error


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    shown: list[str] = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, html: str) -> None:
            shown.append(html)

    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    display.HTML = str  # type: ignore[attr-defined]
    display.display = lambda html, display_id: shown.append(html) or Handle()  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with watching(True) as step:
        step(Progress(1, 4, 0.5))
    assert [each.split("</progress> ")[1] for each in shown] == ["0/0", "1/4"]


def lossy_difference(path: Path, picture: Image.Image) -> int:
    return int(np.abs(np.asarray(reopened(path).convert("RGB"), int) - np.asarray(picture.convert("RGB"), int)).max())


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8))


def with_noise(source: Any, **fields: Any) -> Processed:
    """A result that is not flat, so that a lossy format shows."""
    request = Img2ImgRequest(images=source, seed=5, **fields)
    decided = plan(request, Settings(), SD1_SPEC)
    batch = FinishedBatch(decided.batches[0], (FinishedPicture(noise()),))
    return with_stories(account(decided, ModelIdentity("fake", "0123456789"), [batch]))


def test_a_lossless_webp_stays_lossless(folder: Path) -> None:
    for lossless in (True, False):
        noise().save("source.webp", lossless=lossless)
        made = with_noise(overpaint.open_picture("source.webp"))
        made.save("x.webp", overwrite=True)
        assert (lossy_difference(Path("x.webp"), noise()) == 0) is lossless
        made.images[0].save("y.webp")
        assert (lossy_difference(Path("y.webp"), noise()) == 0) is lossless


def test_what_is_transparent_keeps_its_colours_in_a_lossless_webp(folder: Path) -> None:
    picture = noise().convert("RGBA")
    picture.putalpha(0)
    picture.info["lossless"] = True
    overpaint.save(picture, "x.webp")
    assert reopened("x.webp").tobytes() == picture.tobytes()


@pytest.mark.parametrize("kind", ["jpg", "bmp"])
def test_a_background_stands_behind_what_a_format_cannot_hold(folder: Path, kind: str) -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 255, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 32, 64))
    made = with_noise(clear)
    painted = PaintedPicture.of(KeptPicture(0, clear, "", 5, 0), replace(made, images=()), Origins())
    with pytest.warns(OverpaintWarning, match=r"^x\..* holds no transparency.* use PNG$"):
        overpaint.save(clear, f"x.{kind}")
    with pytest.warns(OverpaintWarning, match=r"^y\..* holds no transparency"):
        overpaint.save(painted, f"y.{kind}")
    with pytest.warns(OverpaintWarning, match=r"^z\..* holds no transparency"):
        painted.save(f"z.{kind}")
    for name in "xyz":
        shown = np.asarray(reopened(f"{name}.{kind}").convert("RGB"), dtype=int)
        assert np.abs(shown[:, :24] - (255, 0, 0)).max() < 8
        assert np.abs(shown[:, 40:] - 255).max() < 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overpaint.save(clear, "x.png")
        overpaint.save(noise().convert("RGBA"), f"opaque.{kind}")


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_lossless_formats_keep_every_pixel(folder: Path, kind: str) -> None:
    with_noise(drawing((64, 64))).save(f"x.{kind}")
    assert lossy_difference(Path(f"x.{kind}"), noise()) == 0


def test_16_bits_of_gray_are_written_as_they_are(folder: Path) -> None:
    deep = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)
    for kind in ("png", "tiff"):
        overpaint.save(deep, f"x.{kind}")
        assert reopened(f"x.{kind}").mode == "I;16"
        assert np.array_equal(np.asarray(reopened(f"x.{kind}")), np.asarray(deep))


def quantisation(path: str) -> list[int]:
    tables: Any = reopened(path).quantization  # type: ignore[attr-defined]
    return list(tables[0])


def test_the_native_quality_is_95(folder: Path) -> None:
    noise().save("wanted.jpg", quality=95)
    made = with_noise(drawing((64, 64)))
    made.save("x.jpg")
    made.images[0].save("y.jpg")
    assert quantisation("x.jpg") == quantisation("y.jpg") == quantisation("wanted.jpg")
    assert Settings.reference().jpeg_quality == 80
