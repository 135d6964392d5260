"""Finished pictures made larger: by a factor or to a size, by one upscaler or a blend of two (EX-1 to EX-4).

The networks are handed in as callables, so nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from PIL import Image

from overpaint.deep import DeepPicture, deep_of
from overpaint.deep_pixels import mixed, resized
from overpaint.errors import RequestError
from overpaint.files.metadata import read_infotext
from overpaint.other_names import REFERENCE_EXTRAS
from overpaint.parts import check_number, nearest
from overpaint.pixels.resize import Upscaler, find_upscaler, scaled_size, upscaled, upscaled_to
from overpaint.request import Picture, data_url, pictures_from_json
from overpaint.settings import Settings
from overpaint.taking import check_decodes
from overpaint.text.infotext import quote

LARGEST_RESULT = 178_956_970  # pixels: what Pillow opens again
INFO_ITEM = "postprocessing"
"""The text item of a PNG that says what was done, beside the infotext of the painting."""

_LARGEST_SIDE = 65_535
_FACES = ("gfpgan_visibility", "codeformer_visibility")
_RESAMPLING = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
_KEPT_MODES = ("L", "LA", "RGB", "RGBA")


@dataclass(frozen=True, kw_only=True)
class ExtrasRequest:
    """Pictures to enlarge, all in the same way."""

    images: tuple[Picture, ...]
    upscaler: str = "Lanczos"  # "None" leaves the pictures as they are
    scale: float = 2
    size: tuple[int, int] | None = None  # (width, height) to cover; `scale` does not count then
    crop: bool = True  # cut off what `size` does not cover
    second_upscaler: str = "None"
    second_visibility: float = 0.0  # how much of the second one's picture shows
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0

    def __post_init__(self) -> None:
        for name in ("images", "size"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_pictures(self.images)
        for name in ("upscaler", "second_upscaler"):
            if not isinstance(getattr(self, name), str):
                raise RequestError(name, getattr(self, name), "give the name of an upscaler")
        check_number("scale", self.scale, low=0.01, high=64)
        if self.size is not None:
            _check_size(self.size)
        if not isinstance(self.crop, bool):
            raise RequestError("crop", self.crop, "say true or false")
        for name in ("second_visibility", *_FACES):
            check_number(name, getattr(self, name), low=0, high=1)
        for name in _FACES:
            if getattr(self, name) > 0:
                raise RequestError(name, getattr(self, name), "faces are not restored here; leave it at 0")

    def to_json(self, *, pictures: bool = True) -> dict[str, Any]:
        """Plain JSON values; pictures become PNG data URLs, or are left out."""
        values = {name: getattr(self, name) for name in sorted(FIELD_NAMES - {"images"})}
        values["size"] = None if self.size is None else list(self.size)
        return {**({"images": [data_url(each) for each in self.images]} if pictures else {}), **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ExtrasRequest:
        """The request that `to_json` wrote; unknown names are errors that name the nearest."""
        unknown = sorted(set(values) - FIELD_NAMES)
        if unknown:
            raise RequestError(unknown[0], values[unknown[0]], nearest(unknown[0], FIELD_NAMES))
        return cls(**{**values, "images": pictures_from_json("images", values.get("images"))})


FIELD_NAMES = frozenset(each.name for each in fields(ExtrasRequest))
_READ_PLAINLY = {**{ours: ours for ours in _FACES}, **{o: t for o, t in REFERENCE_EXTRAS.items() if o != "size"}}
REFERENCE_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "resize_mode": 0,
        "gfpgan_visibility": 0,
        "codeformer_visibility": 0,
        "upscaling_resize": 2,
        "upscaling_resize_w": 512,
        "upscaling_resize_h": 512,
        "upscaling_crop": True,
        "upscaler_1": "None",
        "upscaler_2": "None",
        "extras_upscaler_2_visibility": 0,
    }
)


def reference_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields but its pictures, from the words of the reference's API."""
    asked = {**REFERENCE_DEFAULTS, **{name: each for name, each in values.items() if each is not None}}
    mode = asked["resize_mode"]
    if mode not in (0, 1):
        raise RequestError("resize_mode", mode, "give 0 (by a factor) or 1 (to a size)")
    size = (asked["upscaling_resize_w"], asked["upscaling_resize_h"]) if mode == 1 else None
    return {"size": size, **{ours: asked[theirs] for ours, theirs in _READ_PLAINLY.items()}}


@dataclass(frozen=True)
class ExtrasResult:
    """An enlarged picture, what was done to it, and the infotext it was painted with, if it had one."""

    image: Picture
    fields: Mapping[str, object]
    infotext: str | None
    warnings: tuple[str, ...] = ()

    @property
    def info(self) -> str:
        """The fields as one text: `Postprocess upscale by: 2, Postprocess upscaler: Lanczos`."""
        return ", ".join(f"{name}: {quote(value)}" for name, value in self.fields.items())


def run_extras(
    request: ExtrasRequest,
    settings: Settings | None = None,
    known: Mapping[str, Upscaler] | None = None,
    *,
    max_pixels: int = LARGEST_RESULT,
) -> Iterator[ExtrasResult]:
    """The pictures one after another, each when it is asked for; what cannot be used is refused before the first."""
    settings = settings or Settings()
    names = ("upscaler", "second_upscaler")
    strict = replace(settings.quirks, unknown_names_fall_back=False)  # EX-3: here the reference, too, refuses them
    first, second = (find_upscaler(getattr(request, each), strict, known, field=each) for each in names)
    for index, picture in enumerate(request.images):
        _check_limits(f"images[{index}]", picture, request, settings, max_pixels)
    blended = second if request.second_visibility > 0 else None
    return (_result(picture, request, settings, first, blended) for picture in request.images)


def _result(
    picture: Picture, request: ExtrasRequest, settings: Settings, first: Upscaler | None, second: Upscaler | None
) -> ExtrasResult:
    infotext, _ = read_infotext(picture)
    if first is None:  # EX-3
        return ExtrasResult(picture, {}, infotext)
    image = _deeply_enlarged(picture, request, settings)
    warnings: tuple[str, ...] = ()
    if image is None:
        source = _usable(picture, drops_alpha=settings.quirks.drop_source_extras)
        image = _enlarged(source, request, first, settings)
        if second is not None:
            image = Image.blend(image, _enlarged(source, request, second, settings), request.second_visibility)
        warnings = _depth_lost(picture, settings)
    return ExtrasResult(image, _fields(request, has_second=second is not None), infotext, warnings)


def _deeply_enlarged(picture: Picture, request: ExtrasRequest, settings: Settings) -> Picture | None:
    """With 16 bits a channel, where the picture has them and all that is done is resampling; None elsewhere."""
    deep = None if settings.quirks.drop_source_extras else deep_of(picture)
    share = request.second_visibility
    names = (request.upscaler, *((request.second_upscaler,) if share > 0 and request.second_upscaler != "None" else ()))
    if deep is None or not all(name in _RESAMPLING for name in names):
        return None
    size = request.size
    width, height = scaled_size(picture.size, request.scale) if size is None else _covering_size(picture, size)
    larger = max(width / picture.width, height / picture.height) > 1
    filters = [_RESAMPLING[name] if larger else Image.Resampling.LANCZOS for name in names]
    found = [resized(deep, (width, height), each) for each in filters]
    image = DeepPicture.of_pixels(found[0] if len(found) == 1 else mixed(found[0], found[1], share), picture.info)
    return _middle(image, size) if size is not None and request.crop else image


def _depth_lost(picture: Picture, settings: Settings) -> tuple[str, ...]:
    if settings.quirks.drop_source_extras or deep_of(picture) is None:
        return ()
    return ("its 16 bits per channel became 8, which is what the upscaler's network gives; Lanczos keeps 16",)


def _enlarged(source: Picture, request: ExtrasRequest, enlarge: Upscaler, settings: Settings) -> Picture:
    quirks = settings.quirks
    if request.size is None:
        return upscaled(source, request.scale, enlarge, quirks)
    scale = _covering_scale(source, request.size)
    if quirks.upscale_to_multiples_of_8:  # NOTE: which may fall short of the size and leave black edges
        image = upscaled(source, scale, enlarge, quirks)
        return _on_canvas(image, request.size) if request.crop else image
    width, height = _covering_size(source, request.size)
    image = upscaled_to(source, width, height, enlarge, scale)
    return _middle(image, request.size) if request.crop else image


def _covering_scale(source: Picture, size: tuple[int, int]) -> float:
    return max(size[0] / source.width, size[1] / source.height)


def _covering_size(source: Picture, size: tuple[int, int]) -> tuple[int, int]:
    """The source's shape, just large enough for `size`: one side is exactly that."""
    (wide, high), (width, height) = size, source.size
    if wide * height >= high * width:
        return wide, height * wide // width
    return width * high // height, high


def _middle(image: Picture, size: tuple[int, int]) -> Picture:
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def _on_canvas(image: Picture, size: tuple[int, int]) -> Picture:
    canvas = Image.new("RGB", size)
    canvas.paste(image, (size[0] // 2 - image.width // 2, size[1] // 2 - image.height // 2))
    return canvas


def _usable(picture: Picture, *, drops_alpha: bool) -> Picture:
    """In a mode that can be resampled."""
    if drops_alpha:
        return picture.convert("RGB")
    if picture.mode in _KEPT_MODES and "transparency" not in picture.info:
        return picture
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _fields(request: ExtrasRequest, *, has_second: bool) -> dict[str, object]:
    """EX-3."""
    done: dict[str, object] = {}
    if request.size is None:
        done["Postprocess upscale by"] = request.scale
    else:
        wanted = f"{request.size[0]}x{request.size[1]}"
        done["Postprocess upscale to"] = wanted
        if request.crop:
            done["Postprocess crop to"] = wanted
    done["Postprocess upscaler"] = request.upscaler
    if has_second:
        done["Postprocess upscaler 2"] = request.second_upscaler
    return done


def _check_limits(name: str, picture: Picture, request: ExtrasRequest, settings: Settings, max_pixels: int) -> None:
    size = f"{picture.width}x{picture.height}"
    if picture.width * picture.height > settings.max_source_pixels:
        raise RequestError(name, size, f"give a picture of at most max_source_pixels={settings.max_source_pixels}")
    if request.size is None:
        width, height = (int(side * request.scale) for side in picture.size)
    else:
        width, height = _covering_size(picture, request.size)
    if width * height > max_pixels:
        field, value = ("scale", request.scale) if request.size is None else ("size", request.size)
        raise RequestError(
            field, value, f"{name} would become {width}x{height}, more than {max_pixels} pixels; ask less"
        )


def _check_pictures(images: tuple[Picture, ...]) -> None:
    if not isinstance(images, tuple) or not images:
        raise RequestError("images", images, "give at least one picture")
    for index, picture in enumerate(images):
        name = f"images[{index}]"
        if not isinstance(picture, Image.Image):
            raise RequestError(name, picture, "give a PIL picture, or open it with overpaint.open_picture")
        if min(picture.size) < 1:
            raise RequestError(name, picture.size, "give a picture of at least one pixel")
        check_decodes(name, picture)


def _check_size(size: Sequence[int]) -> None:
    if not isinstance(size, tuple) or len(size) != 2:
        raise RequestError("size", size, "give (width, height)")
    for side in size:
        check_number("size", side, low=1, high=_LARGEST_SIDE, whole=True)
