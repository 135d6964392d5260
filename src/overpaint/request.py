"""What was asked: a frozen, validated request that reads from and writes to JSON.

Nothing here knows a model. Values that a site decides (`None` fields) are resolved once, in `plan`.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from PIL import Image

from overpaint.errors import RequestError, RequestTypeError
from overpaint.named import by_name
from overpaint.parts import (
    Blend,
    ControlUnit,
    Hires,
    Lora,
    Picture,
    SoftInpainting,
    nearest,
    part_from_json,
)
from overpaint.request_checks import check_numbers, check_seeds, check_texts_of, check_word
from overpaint.request_help import IMG2IMG_HELP, PAINT_HELP, TXT2IMG_HELP
from overpaint.taking import as_picture, as_pictures

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from overpaint.request_fields import Img2ImgFields, PaintFields, Txt2ImgFields

__all__ = [
    "ControlUnit",
    "Hires",
    "Img2ImgRequest",
    "Lora",
    "MaskedContent",
    "PaintRequest",
    "Picture",
    "ResizeMode",
    "SoftInpainting",
    "Txt2ImgRequest",
]

RequestKind = Literal["img2img", "txt2img"]

_E = TypeVar("_E", bound=Enum)
_P = TypeVar("_P")


class ResizeMode(str, Enum):
    """How a source of another shape becomes the requested size; the order is the reference's 0 to 3."""

    STRETCH = "stretch"
    CROP = "crop"
    FILL = "fill"
    LATENT = "latent"


class MaskedContent(str, Enum):
    """What the masked part starts from; the order is the reference's 0 to 3."""

    FILL = "fill"
    ORIGINAL = "original"
    NOISE = "noise"
    NOTHING = "nothing"


def _no_overrides() -> Mapping[str, Any]:
    return MappingProxyType({})


@by_name
@dataclass(frozen=True, kw_only=True)
class PaintRequest:
    """One job. Run it twice, get the same pictures twice (give a seed: -1 means a new one each time).

    Every request is an `Img2ImgRequest` or a `Txt2ImgRequest`: this name makes the one that the pictures call for.
    """

    images: tuple[Picture, ...] = ()
    prompt: str | tuple[str, ...] = ""
    negative_prompt: str | tuple[str, ...] = ""
    styles: tuple[str, ...] = ()

    strength: float | None = None  # None: the model's own, which often is 0.75
    width: int | None = None  # None: the source's own size
    height: int | None = None
    resize_mode: ResizeMode = ResizeMode.STRETCH

    mask: Picture | None = None  # white, or opaque where it has alpha: repaint
    latent_mask: Picture | None = None
    invert_mask: bool = False
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    round_mask: bool = True
    only_masked: bool = False
    padding: int = 32
    masked_content: MaskedContent = MaskedContent.ORIGINAL
    soft_inpainting: SoftInpainting | None = None
    strength_map: Picture | None = None  # gray: how much of `strength` each place has
    references: tuple[Picture, ...] = ()  # what an edit model looks at beside the source
    blend: Blend = "auto"  # colours near the mask's edge are mended where that hides the seam; "plain": never

    seed: int | tuple[int, ...] = -1
    variation_seed: int | tuple[int, ...] = -1
    variation_strength: float = 0.0
    seed_resize: tuple[int, int] | None = None  # (width, height) the seed was found at
    batch_size: int = 1
    iterations: int = 1

    sampler: str = "DPM++ 2M"
    scheduler: str = "Automatic"
    steps: int | None = None  # None: the model's own, which often is 20
    cfg_scale: float | None = None  # None: the model's own, which often is 7
    image_cfg_scale: float | None = None
    guidance: float | None = None  # told to networks that are made for it, such as Flux.1 dev; None: the family's own
    eta: float | None = None
    s_churn: float | None = None
    s_tmin: float | None = None
    s_tmax: float | None = None
    s_noise: float | None = None
    s_min_uncond: float | None = None
    noise_multiplier: float | None = None

    tiling: bool | None = None
    color_correction: bool | None = None
    clip_skip: int | None = None
    loras: tuple[Lora, ...] = ()  # beside those that the prompt's tags name
    use_networks: bool = True  # false: the prompt's tags are read and left out
    controls: tuple[ControlUnit, ...] = ()
    checkpoint: str | None = None  # title, hash or file name; None: the one in force
    refiner: str | None = None  # another checkpoint for the last part of the steps
    refiner_switch_at: float | None = None  # None: 0.8
    overrides: Mapping[str, Any] = field(default_factory=_no_overrides)  # option name -> value, for this job
    exact: bool = False  # never share a network call between pictures
    hires: Hires | None = None

    if TYPE_CHECKING:  # more may be given than is kept: one bare picture, arrays, lists, the words of enums

        def __init__(self, **fields: Unpack[PaintFields]) -> None: ...

    def __new__(cls, *_: object, **fields: Any) -> Self:
        kind: Any = cls
        if cls is PaintRequest:
            kind = Img2ImgRequest if _has_any(fields.get("images")) else Txt2ImgRequest
        made: Self = object.__new__(kind)
        return made

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt", "styles", "seed", "variation_seed", "seed_resize"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "resize_mode", _as_enum("resize_mode", self.resize_mode, ResizeMode))
        object.__setattr__(self, "masked_content", _as_enum("masked_content", self.masked_content, MaskedContent))
        object.__setattr__(self, "overrides", MappingProxyType(_table("overrides", self.overrides)))
        for name, kind in (("loras", Lora), ("controls", ControlUnit)):
            object.__setattr__(self, name, _parts(name, getattr(self, name), kind))
        check_word("blend", self.blend, Blend)
        check_numbers(self)
        _take_pictures(self)
        check_texts_of(self)
        check_seeds(self)

    @property
    def has_source(self) -> bool:
        """Whether there is a picture to paint over; without one the job starts from noise alone."""
        return bool(self.images)

    @property
    def kind(self) -> RequestKind:
        """The word for it in files and in the service's answers."""
        return "img2img" if self.has_source else "txt2img"

    @classmethod
    def field_names(cls) -> frozenset[str]:
        return frozenset(each.name for each in fields(cls))

    def with_changes(self, **changes: Unpack[PaintFields]) -> Self:
        """A copy with some fields replaced, validated again."""
        changed: dict[str, Any] = {**changes}
        return replace(self, **changed)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "overrides": dict(self.overrides)}  # a read-only view cannot be pickled

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update({**state, "overrides": MappingProxyType(state["overrides"])})

    def to_json(self, *, pictures: bool = True) -> dict[str, Any]:
        """Plain JSON values; pictures become PNG data URLs, or are left out."""
        known = self.field_names() - (frozenset() if pictures else PICTURE_FIELDS)
        names = [each.name for each in fields(self) if each.name in known]
        return {name: _plain(getattr(self, name), pictures) for name in names}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The request that `to_json` wrote; unknown names are errors that name the nearest."""
        given = dict(values)
        cls._refuse_unknown(given)
        for name in PICTURE_FIELDS & given.keys():
            given[name] = pictures_from_json(name, given[name])
        for name, kind in (("soft_inpainting", SoftInpainting), ("hires", Hires)):
            if given.get(name) is not None:
                given[name] = part_from_json(name, kind, given[name])
        if "controls" in given:
            given["controls"] = _controls_from_json(given["controls"])
        if "images" not in given and cls is Img2ImgRequest:
            raise RequestError("images", None, _NEEDS_SOURCE)
        return cls(**given)

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        unknown = sorted(set(given) - PaintRequest.field_names())
        if unknown:
            raise RequestTypeError(unknown[0], given[unknown[0]], nearest(unknown[0], cls.field_names()))

    def _check_kind(self) -> None:
        """Refuse fields that a request of this kind has no use for."""
        raise NotImplementedError


@by_name
@dataclass(frozen=True, kw_only=True)
class Img2ImgRequest(PaintRequest):
    """A `PaintRequest` with a source: one picture or more. It has no second pass."""

    images: tuple[Picture, ...] = field()

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[Img2ImgFields]) -> None: ...

    @classmethod
    def field_names(cls) -> frozenset[str]:
        return PaintRequest.field_names() - {"hires"}

    def _check_kind(self) -> None:
        if not self.images:
            raise RequestError("images", self.images, _NEEDS_SOURCE)
        if self.hires is not None:
            raise RequestError("hires", self.hires, "leave it out; only a job without a source has a second pass")


@by_name
@dataclass(frozen=True, kw_only=True)
class Txt2ImgRequest(PaintRequest):
    """A `PaintRequest` without a source. It leaves the fields about one alone; `hires` adds a second pass."""

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[Txt2ImgFields]) -> None: ...

    def _check_kind(self) -> None:
        if self.strength == 1:  # how older recipes and jobs say that there is none
            object.__setattr__(self, "strength", None)
        for each in fields(self):
            if each.name in SOURCE_FIELDS - _KEPT_OF_OLD and getattr(self, each.name) != each.default:
                remedy = "leave it out, since txt2img has no source, or give a source picture"
                raise RequestError(each.name, getattr(self, each.name), remedy)
        if self.hires is not None and not isinstance(self.hires, Hires):
            raise RequestTypeError("hires", self.hires, "give an overpaint.Hires")


PaintRequest.__doc__ = f"{PaintRequest.__doc__}\n\n{PAINT_HELP}"
Img2ImgRequest.__doc__ = f"{Img2ImgRequest.__doc__}\n\n{IMG2IMG_HELP}"
Txt2ImgRequest.__doc__ = f"{Txt2ImgRequest.__doc__}\n\n{TXT2IMG_HELP}"

PICTURE_LISTS = frozenset({"images", "references"})
PICTURE_FIELDS = PICTURE_LISTS | {"mask", "latent_mask", "strength_map"}
MASK_FIELDS = frozenset(
    {
        *("invert_mask", "mask_blur_x", "mask_blur_y", "round_mask", "only_masked", "padding", "masked_content"),
        *("latent_mask", "soft_inpainting", "blend"),
    }
)
SOURCE_FIELDS = (
    (PICTURE_FIELDS - {"references"}) | MASK_FIELDS | {"strength", "resize_mode", "image_cfg_scale", "color_correction"}
)
_KEPT_OF_OLD = frozenset({"blend"})  # means nothing without a mask, and recipes have it with another default
_NEEDS_SOURCE = "give at least one source picture"


def decided(value: _P | None) -> _P:
    """A field of a request that planning has filled in where nothing was said."""
    assert value is not None
    return value


def _has_any(images: Any) -> bool:
    return images is not None and not (isinstance(images, list | tuple) and not images)


def _take_pictures(request: PaintRequest) -> None:
    given: Any = request.images
    object.__setattr__(request, "images", as_pictures("images", given) if _has_any(given) else ())
    seen: Any = request.references
    object.__setattr__(request, "references", as_pictures("references", seen) if _has_any(seen) else ())
    for name in ("mask", "latent_mask", "strength_map"):
        if getattr(request, name) is not None:
            object.__setattr__(request, name, as_picture(name, getattr(request, name)))
    request._check_kind()
    if len(request.images) > request.batch_size:
        remedy = f"raise batch_size to {len(request.images)} or give at most {request.batch_size}"
        raise RequestError("images", f"{len(request.images)} pictures", remedy)


def _as_enum(name: str, value: object, kind: type[_E]) -> _E:
    try:
        return kind(value)
    except ValueError:
        options = ", ".join(str(each.value) for each in kind)
        raise RequestError(name, value, f"choose one of {options}") from None


def _parts(name: str, given: Any, kind: type[_P]) -> tuple[_P, ...]:
    if not isinstance(given, list | tuple):
        raise RequestTypeError(name, given, f"give a list of overpaint.{kind.__name__}")
    return tuple(part_from_json(f"{name}[{i}]", kind, each) for i, each in enumerate(given))


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestTypeError(name, value, "give a table of options, such as {'eta_ancestral': 0.5}")
    return dict(value)


def _plain(value: Any, pictures: bool) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, SoftInpainting | Hires | Lora | ControlUnit):
        own = {each.name: getattr(value, each.name) for each in fields(value)}
        return {k: _plain(v, pictures) for k, v in own.items() if pictures or not isinstance(v, Image.Image)}
    if isinstance(value, Image.Image):
        return data_url(value)
    if isinstance(value, Mapping):
        return {key: _plain(each, pictures) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each, pictures) for each in value]
    if isinstance(value, float) and math.isinf(value):
        return 0.0  # only s_tmax may be infinite, and 0 means that there too
    return value


def data_url(picture: Picture) -> str:
    """The picture as a PNG in a text, as `pictures_from_json` reads it."""
    data = io.BytesIO()
    picture.save(data, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _controls_from_json(value: Any) -> Any:
    """Control units with their pictures opened."""
    if not isinstance(value, list | tuple):
        raise RequestError("controls", value, "give a list")
    return tuple(_with_pictures(f"controls[{i}]", each) for i, each in enumerate(value))


def _with_pictures(name: str, unit: Any) -> Any:
    if not isinstance(unit, Mapping):
        return unit
    given = {each: pictures_from_json(f"{name}.{each}", unit[each]) for each in ("image", "mask") if each in unit}
    return {**unit, **given}


def pictures_from_json(name: str, value: Any) -> Any:
    """Base64 or a data URL as a picture, also in lists; what is a picture already, or None, stays as it is."""
    from overpaint.pictures import open_picture

    if value is None or isinstance(value, Image.Image):
        return value
    if isinstance(value, list | tuple):
        return tuple(pictures_from_json(f"{name}[{i}]", each) for i, each in enumerate(value))
    if not isinstance(value, str):
        raise RequestError(name, value, "give a picture as base64 or as a data URL")
    encoded = value.split(",", 1)[1] if value.startswith("data:") and "," in value else value
    try:
        return open_picture(base64.b64decode(encoded, validate=True))
    except ValueError as error:
        raise RequestError(name, value, f"give a picture as base64 or as a data URL ({error})") from None
