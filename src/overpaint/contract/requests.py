"""The contract's field names as a request: one reading for its Python door and its REST door. Torch-free.

A job here is anything that has the fields of the contract as attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar

from overpaint.errors import RequestError
from overpaint.models.usual import USUAL
from overpaint.other_names import REFERENCE
from overpaint.parts import Hires, SoftInpainting
from overpaint.request import MASK_FIELDS, PICTURE_FIELDS, SOURCE_FIELDS, MaskedContent, PaintRequest, ResizeMode
from overpaint.request_checks import NUMBERS, check_number_of
from overpaint.seeds import fix_seed

_E = TypeVar("_E", bound=Enum)

_NO_REFINER = (None, "", "None", "none")
_AS_BEFORE = (None, "", "Use same sampler", "Use same scheduler", "Use same checkpoint")
_UNOFFERED = ("restore_faces",)
_OPTIONS_OF_A_JOB = ("token_merging_ratio", "token_merging_ratio_hr")  # fields of a job there, options here (JOB-12)
_SEED_EXTRAS = frozenset({"variation_seed", "variation_strength"})

_SAID_IN_SEVERAL = frozenset({"hires", "seed_resize", "use_networks"})  # fields of the reference, or by their opposite
_OF_A_SOURCE = SOURCE_FIELDS | {"noise_multiplier"}


def common_fields(job: Any) -> dict[str, Any]:
    """The request's fields that all jobs have."""
    _refuse_unoffered(job)
    resize = (int(job.seed_resize_from_w or 0), int(job.seed_resize_from_h or 0))
    own = {name: getattr(job, name) for name in _OPTIONS_OF_A_JOB if getattr(job, name, None)}
    names = PaintRequest.field_names() - _OF_A_SOURCE - _SAID_IN_SEVERAL
    fields = _read(job, names if job.seed_enable_extras else names - _SEED_EXTRAS)
    return {
        **fields,
        **({"overrides": {**fields.get("overrides", {}), **own}} if own else {}),
        "seed_resize": resize if job.seed_enable_extras and min(resize) > 0 else None,
        "use_networks": not job.disable_extra_networks,
    }


def img2img_fields(job: Any, soft: SoftInpainting | None, *, masked: bool = True) -> dict[str, Any]:
    """All fields of an `Img2ImgRequest` but its pictures.

    The reference's clients send what is about a mask with every job; without one it is left out.
    """
    own = _read(job, _OF_A_SOURCE - PICTURE_FIELDS)
    fields = {**own, "round_mask": job.mask_round and not soft, "soft_inpainting": soft, **common_fields(job)}
    if masked:
        return fields
    for name in MASK_FIELDS & NUMBERS.keys():
        check_number_of(name, fields[name])
    return {name: value for name, value in fields.items() if name not in MASK_FIELDS}


def txt2img_fields(job: Any) -> dict[str, Any]:
    """All fields of a `Txt2ImgRequest`."""
    fields = common_fields(job)
    if job.enable_hr and (job.firstphase_width or job.firstphase_height):
        fields["width"], fields["height"] = whole(job.firstphase_width), whole(job.firstphase_height)
    return {"hires": _hires(job) if job.enable_hr else None, **fields}


def _read(job: Any, names: Collection[str]) -> dict[str, Any]:
    """Fields of a request by the names that the reference has for them, as far as its jobs have them.

    NOTE: only declared fields count. Scripts may leave attributes of any name on a job.
    """
    declared = getattr(job, "__dataclass_fields__", None) or vars(job)
    pairs = ((name, REFERENCE.get(name, name)) for name in PaintRequest.__dataclass_fields__ if name in names)
    return {name: _value(job, name, theirs) for name, theirs in pairs if theirs in declared}


def _hires(job: Any) -> Hires:
    names = ((name, f"hires.{name}") for name in Hires.__dataclass_fields__)
    return Hires(**{name: _value(job, ours, REFERENCE[ours]) for name, ours in names})


def _value(job: Any, ours: str, theirs: str) -> Any:
    value = getattr(job, theirs)
    if ours in _CHOICES:
        return _chosen(theirs, value, _CHOICES[ours])
    return _FORMS[ours](value) if ours in _FORMS else value


def texts(value: Any) -> str | tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else value


def whole(value: Any) -> Any:
    """Clients send 512.0 for 512."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_unoffered(job: Any) -> None:
    """Fields of the reference that would change the picture and are not offered are refused, not ignored."""
    for name in _UNOFFERED:
        value = getattr(job, name, None)
        if value:
            raise RequestError(name, value, "this version does not offer it; leave it out")


def _seeds(value: Any) -> int | tuple[int, ...]:
    return value if isinstance(value, int) else fix_seed(value)


def _unless_same(name: str | None) -> str | None:
    """The page's words for "as in the first pass"."""
    return None if name in _AS_BEFORE else name


def _unless_unchosen(scale: Any) -> Any:
    """NOTE: jobs there always have a scale, so its default cannot be told from a choice; flow models know another.

    Of Stable Diffusion it comes out as the same float. A whole 7 was written by somebody, and infotexts show it so.
    """
    return None if isinstance(scale, float) and scale == USUAL["cfg_scale"] else scale


def _chosen(name: str, number: Any, kind: type[_E]) -> _E:
    """The reference counts these choices from 0."""
    options = list(kind)
    if isinstance(number, kind):
        return number
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(options):
        names = ", ".join(f"{i} {each.value}" for i, each in enumerate(options))
        raise RequestError(name, number, f"choose one of {names}")
    return options[number]


_FORMS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "prompt": texts,
        "negative_prompt": texts,
        "styles": lambda names: tuple(names or ()),
        "width": whole,
        "height": whole,
        "seed": _seeds,
        "variation_seed": _seeds,
        "sampler": lambda name: name or "",
        "scheduler": lambda name: name or "",
        "steps": lambda count: whole(count) or 0,
        "cfg_scale": _unless_unchosen,
        "refiner": lambda name: None if name in _NO_REFINER else name,
        "overrides": lambda options: options or {},
        "invert_mask": bool,
        "only_masked": bool,
        "padding": lambda pixels: whole(pixels) or 0,
        "hires.width": lambda side: whole(side) or None,
        "hires.height": lambda side: whole(side) or None,
        "hires.steps": lambda count: whole(count) or None,
        "hires.upscaler": lambda name: name or None,
        "hires.sampler": _unless_same,
        "hires.scheduler": _unless_same,
        "hires.checkpoint": _unless_same,
        "hires.prompt": texts,
        "hires.negative_prompt": texts,
    }
)
_CHOICES: Mapping[str, type[Enum]] = MappingProxyType({"resize_mode": ResizeMode, "masked_content": MaskedContent})
