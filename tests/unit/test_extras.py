from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from overpaint.errors import RequestError
from overpaint.extras import FIELD_NAMES, REFERENCE_DEFAULTS, ExtrasRequest, ExtrasResult, reference_fields, run_extras
from overpaint.files.metadata import encode_picture
from overpaint.pictures import open_picture
from overpaint.pixels.resize import Upscaler
from overpaint.settings import Settings

SANE, REFERENCE = Settings(), Settings.reference()


def from_reference(values: Mapping[str, Any], images: Sequence[Image.Image]) -> ExtrasRequest:
    return ExtrasRequest(images=tuple(images), **reference_fields(values))


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def levels(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def done(
    picture: Image.Image, settings: Settings = SANE, known: dict[str, Upscaler] | None = None, **fields: Any
) -> ExtrasResult:
    (result,) = run_extras(ExtrasRequest(images=(picture,), **fields), settings, known)
    return result


class TestByFactor:
    def test_nearest_repeats_pixels(self) -> None:
        picture = noise(10, 7)
        result = done(picture, upscaler="Nearest", scale=3)
        assert np.array_equal(levels(result.image), levels(picture).repeat(3, 0).repeat(3, 1))

    def test_only_the_reference_rounds_down_to_multiples_of_8(self) -> None:  # EX-3
        assert done(noise(150, 100), REFERENCE, scale=2).image.size == (296, 200)
        assert done(noise(150, 100), scale=2).image.size == (300, 200)
        assert done(noise(100, 57), scale=1.15).image.size == (115, 65)

    def test_none_leaves_the_picture_as_it_is(self) -> None:  # EX-3
        picture = noise(9, 9)
        for settings in (SANE, REFERENCE):
            result = done(picture, settings, upscaler="None", second_upscaler="Lanczos", second_visibility=1)
            assert result.image is picture and result.fields == {} and result.info == ""

    def test_smaller(self) -> None:
        assert done(noise(100, 50), scale=0.5).image.size == (50, 25)
        assert done(noise(2, 2), scale=0.1).image.size == (1, 1)

    def test_a_scale_of_1_runs_a_network_once(self) -> None:
        calls: list[float] = []

        def cleaner(image: Image.Image, scale: float) -> Image.Image:
            calls.append(scale)
            return Image.new("RGB", image.size, "red")

        assert done(noise(9, 9), known={"clean": cleaner}, upscaler="clean", scale=1).image.getpixel((4, 4)) == (
            255,
            0,
            0,
        )
        assert len(calls) == 1
        assert done(noise(9, 9), known={"clean": cleaner}, upscaler="clean", scale=2).image.size == (18, 18)
        assert len(calls) == 2


class TestToSize:
    def test_fields_and_size(self) -> None:  # EX-3
        cropped = done(noise(40, 30), size=(64, 64))
        assert cropped.image.size == (64, 64)
        assert (
            cropped.info == "Postprocess upscale to: 64x64, Postprocess crop to: 64x64, Postprocess upscaler: Lanczos"
        )
        whole = done(noise(40, 30), size=(64, 64), crop=False)
        assert whole.image.size == (85, 64)
        assert whole.info == "Postprocess upscale to: 64x64, Postprocess upscaler: Lanczos"

    def test_the_middle_is_kept(self) -> None:
        picture = noise(20, 10)
        result = levels(done(picture, upscaler="Nearest", size=(20, 20)).image)
        assert np.array_equal(result, levels(picture).repeat(2, 0).repeat(2, 1)[:, 10:30])

    def test_the_reference_leaves_black_edges(self) -> None:  # EX-3: 33x33 -> factor 100/33 -> 96x96 in the middle
        white = Image.new("RGB", (33, 33), "white")
        result = levels(done(white, REFERENCE, size=(100, 100)).image)
        assert result.shape == (100, 100, 3)
        assert (result[2:98, 2:98] == 255).all() and result[:2].max() == result[98:].max() == 0
        assert levels(done(white, size=(100, 100)).image).min() == 255

    @examples(max_examples=60, deadline=None)
    @given(*(st.integers(1, 60) for _ in range(4)), st.booleans(), st.sampled_from(["Lanczos", "Nearest"]))
    def test_every_size_is_covered_exactly(
        self, width: int, height: int, wide: int, high: int, crop: bool, name: str
    ) -> None:
        result = done(Image.new("RGB", (width, height), "white"), size=(wide, high), crop=crop, upscaler=name).image
        assert levels(result).min() == 255
        if crop:
            assert result.size == (wide, high)
        else:
            assert result.width >= wide and result.height >= high
            assert result.width == wide or result.height == high

    @examples(max_examples=60, deadline=None)
    @given(*(st.integers(1, 40) for _ in range(4)))
    def test_nearest_never_makes_new_colours(self, width: int, height: int, wide: int, high: int) -> None:
        picture = noise(width, height)
        if max(wide / width, high / height) > 1:
            result = done(picture, upscaler="Nearest", size=(wide, high)).image
            colours = [{tuple(pixel) for pixel in levels(each).reshape(-1, 3)} for each in (picture, result)]
            assert colours[1] <= colours[0]


class TestTwo:
    def test_blended_linearly(self) -> None:  # EX-3
        picture = noise(16, 16)
        first, second = (levels(done(picture, upscaler=each).image) for each in ("Nearest", "Lanczos"))
        both = done(picture, upscaler="Nearest", second_upscaler="Lanczos", second_visibility=0.25)
        assert np.abs(levels(both.image) - (0.75 * first + 0.25 * second)).max() <= 1
        assert both.info.endswith("Postprocess upscaler: Nearest, Postprocess upscaler 2: Lanczos")

    def test_an_invisible_second_one_is_not_run(self) -> None:
        def never(image: Image.Image, scale: float) -> Image.Image:
            raise AssertionError(scale)

        result = done(noise(8, 8), known={"never": never}, second_upscaler="never")
        assert result.info == "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"

    @pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK"])
    def test_modes(self, mode: str) -> None:
        picture = noise(8, 8).convert(mode)
        result = done(picture, second_upscaler="Nearest", second_visibility=0.5).image
        assert result.mode == (mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB")
        assert done(picture, REFERENCE).image.mode == "RGB"

    def test_transparency(self) -> None:
        picture = noise(8, 8, "RGBA")
        assert done(picture).image.mode == "RGBA"
        palette = Image.new("P", (8, 8))
        palette.info["transparency"] = 0
        assert done(palette).image.mode == "RGBA"
        gray = Image.new("L", (8, 8))
        gray.info["transparency"] = 0
        assert done(gray).image.mode == "RGBA"


def test_the_infotext_of_the_painting_stays() -> None:  # EX-3
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 3"
    painted = open_picture(encode_picture(noise(8, 8), "png", infotext=text))
    assert done(painted).infotext == text
    assert done(noise(8, 8)).infotext is None


def test_names_with_commas_are_quoted() -> None:
    result = done(noise(8, 8), known={"a, b": lambda image, scale: image.resize((16, 16))}, upscaler="a, b")
    assert result.info == 'Postprocess upscale by: 2, Postprocess upscaler: "a, b"'


def test_pictures_are_made_one_by_one() -> None:
    seen: list[tuple[int, int]] = []

    def double(image: Image.Image, scale: float) -> Image.Image:
        seen.append(image.size)
        return image.resize((2 * image.width, 2 * image.height))

    pictures = tuple(noise(8, side) for side in (4, 5, 6))
    results = run_extras(ExtrasRequest(images=pictures, upscaler="double"), SANE, {"double": double})
    assert not seen
    assert next(results).image.size == (16, 8) and seen == [(8, 4)]
    assert [each.image.size for each in results] == [(16, 10), (16, 12)]


class TestLimits:
    def test_results(self) -> None:
        request = ExtrasRequest(images=(noise(10, 10), noise(20, 20)), scale=4)
        with pytest.raises(RequestError, match=r"^scale=4: images\[1\] would become 80x80, more than 6000 pixels"):
            run_extras(request, SANE, max_pixels=6000)
        request = ExtrasRequest(images=(noise(1, 60),), size=(60, 1), crop=True)
        with pytest.raises(RequestError, match=r"^size=\(60, 1\): images\[0\] would become 60x3600"):
            run_extras(request, SANE, max_pixels=6000)

    def test_sources(self) -> None:
        request = ExtrasRequest(images=(noise(30, 40),))
        with pytest.raises(RequestError, match=r"images\[0\]='30x40': .*max_source_pixels=1000"):
            run_extras(request, Settings(max_source_pixels=1000))

    @pytest.mark.parametrize("settings", [SANE, REFERENCE])
    @pytest.mark.parametrize("field", ["upscaler", "second_upscaler"])
    def test_unknown_upscalers(self, settings: Settings, field: str) -> None:  # EX-3: in the reference, too
        fields: dict[str, Any] = {field: "Gone"}
        request = ExtrasRequest(images=(noise(8, 8),), **fields)
        with pytest.raises(RequestError, match=rf"^{field}='Gone': give one of None, Lanczos, Nearest, mine$"):
            run_extras(request, settings, {"mine": lambda image, scale: image})


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"images": ()}, "at least one picture"),
    "no picture": ({"images": ("a.png",)}, r"images\[0\]='a.png': give a PIL picture"),
    "scale": ({"scale": 0}, "scale=0"),
    "nan": ({"scale": math.nan}, "scale=nan"),
    "size": ({"size": (64,)}, r"size=\(64,\): give \(width, height\)"),
    "side": ({"size": (64, 0)}, "size=0"),
    "text": ({"size": "64x64"}, r"size='64x64': give \(width, height\)"),
    "crop": ({"crop": 1}, "crop=1: say true or false"),
    "name": ({"upscaler": None}, "upscaler=None: give the name"),
    "visibility": ({"second_visibility": 1.5}, "second_visibility=1.5"),
    "faces": ({"gfpgan_visibility": 0.5}, "gfpgan_visibility=0.5: faces are not restored here; leave it at 0"),
    "more faces": ({"codeformer_visibility": 1}, "codeformer_visibility=1: faces are not restored here"),
}


@pytest.mark.parametrize("name", BAD)
def test_requests_that_cannot_be_used(name: str) -> None:
    fields, message = BAD[name]
    with pytest.raises(RequestError, match=message):
        ExtrasRequest(**{"images": (noise(8, 8),), **fields})


def test_json() -> None:
    request = ExtrasRequest(images=(noise(4, 3), noise(2, 2, "RGBA")), size=(9, 8), crop=False, upscaler="x")
    again = ExtrasRequest.from_json(json.loads(json.dumps(request.to_json())))
    assert [each.tobytes() for each in again.images] == [each.tobytes() for each in request.images]
    assert again.to_json() == request.to_json() and again.size == (9, 8)
    assert set(request.to_json()) == FIELD_NAMES and set(request.to_json(pictures=False)) == FIELD_NAMES - {"images"}
    with pytest.raises(RequestError, match="scael=2: there is no such field; did you mean 'scale'"):
        ExtrasRequest.from_json({"images": request.images, "scael": 2})
    with pytest.raises(RequestError, match="images=None"):
        ExtrasRequest.from_json({})


class TestReference:
    def test_defaults_are_the_recorded_ones(self, parity: Path) -> None:  # EX-1, EX-2
        schemas = json.loads((parity / "api/openapi.json").read_text())["components"]["schemas"]
        elsewhere = {"show_extras_results", "codeformer_weight", "upscale_first", "image", "imageList"}
        for name in ("ExtrasSingleImageRequest", "ExtrasBatchImagesRequest"):
            recorded = {key: each.get("default") for key, each in schemas[name]["properties"].items()}
            assert {key: each for key, each in recorded.items() if key not in elsewhere} == REFERENCE_DEFAULTS
        request = from_reference({}, [noise(4, 4)])
        assert request == ExtrasRequest(images=request.images, upscaler="None")

    def test_every_name(self) -> None:
        values = {
            "resize_mode": 1,
            "upscaling_resize": 3.0,
            "upscaling_resize_w": 96,
            "upscaling_resize_h": 64,
            "upscaling_crop": False,
            "upscaler_1": "Lanczos",
            "upscaler_2": "Nearest",
            "extras_upscaler_2_visibility": 0.5,
            "show_extras_results": True,
            "upscale_first": None,
        }
        request = from_reference(values, [noise(4, 4)])
        wanted = ExtrasRequest(
            images=request.images,
            scale=3.0,
            size=(96, 64),
            crop=False,
            second_upscaler="Nearest",
            second_visibility=0.5,
        )
        assert request == wanted
        assert from_reference({**values, "resize_mode": 0}, request.images).size is None

    def test_faces_and_modes(self) -> None:
        with pytest.raises(RequestError, match="codeformer_visibility"):
            from_reference({"codeformer_visibility": 0.1}, [noise(4, 4)])
        with pytest.raises(RequestError, match="resize_mode=2"):
            from_reference({"resize_mode": 2}, [noise(4, 4)])
