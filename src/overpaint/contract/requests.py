"""The contract's field names as a request: one reading for its Python door and its REST door. Torch-free.

A job here is anything that has the fields of the contract as attributes.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from overpaint.errors import RequestError
from overpaint.parts import Hires, SoftInpainting
from overpaint.request import MASK_FIELDS, MaskedContent, ResizeMode
from overpaint.request_checks import NUMBERS, check_number_of
from overpaint.seeds import fix_seed

_E = TypeVar("_E", bound=Enum)

_NO_REFINER = (None, "", "None", "none")
_UNOFFERED = ("restore_faces", "token_merging_ratio", "token_merging_ratio_hr")


def common_fields(job: Any) -> dict[str, Any]:
    """The request's fields that all jobs have."""
    _refuse_unoffered(job)
    extras = job.seed_enable_extras
    resize = (int(job.seed_resize_from_w or 0), int(job.seed_resize_from_h or 0))
    return {
        "prompt": texts(job.prompt),
        "negative_prompt": texts(job.negative_prompt),
        "styles": tuple(job.styles or ()),
        "width": whole(job.width),
        "height": whole(job.height),
        "seed": job.seed if isinstance(job.seed, int) else fix_seed(job.seed),
        "variation_seed": _subseed(job) if extras else -1,
        "variation_strength": job.subseed_strength if extras else 0,
        "seed_resize": resize if extras and min(resize) > 0 else None,
        "batch_size": job.batch_size,
        "iterations": job.n_iter,
        "sampler": job.sampler_name or "",
        "scheduler": job.scheduler or "",
        "steps": whole(job.steps) or 0,
        "cfg_scale": job.cfg_scale,
        "eta": job.eta,
        "s_churn": job.s_churn,
        "s_tmin": job.s_tmin,
        "s_tmax": job.s_tmax,
        "s_noise": job.s_noise,
        "s_min_uncond": job.s_min_uncond,
        "tiling": job.tiling,
        "use_networks": not job.disable_extra_networks,
        "refiner": None if job.refiner_checkpoint in _NO_REFINER else job.refiner_checkpoint,
        "refiner_switch_at": job.refiner_switch_at,
        "overrides": job.override_settings or {},
    }


def img2img_fields(job: Any, soft: SoftInpainting | None, *, masked: bool = True) -> dict[str, Any]:
    """All fields of an `Img2ImgRequest` but its pictures.

    The reference's clients send what is about a mask with every job; without one it is left out.
    """
    fields = _img2img_fields(job, soft)
    if masked:
        return fields
    for name in MASK_FIELDS & NUMBERS.keys():
        check_number_of(name, fields[name])
    return {name: value for name, value in fields.items() if name not in MASK_FIELDS}


def _img2img_fields(job: Any, soft: SoftInpainting | None) -> dict[str, Any]:
    return {
        "strength": job.denoising_strength,
        "resize_mode": _chosen("resize_mode", job.resize_mode, ResizeMode),
        "invert_mask": bool(job.inpainting_mask_invert),
        "mask_blur_x": job.mask_blur_x,
        "mask_blur_y": job.mask_blur_y,
        "round_mask": job.mask_round and not soft,
        "only_masked": bool(job.inpaint_full_res),
        "padding": whole(job.inpaint_full_res_padding) or 0,
        "masked_content": _chosen("inpainting_fill", job.inpainting_fill, MaskedContent),
        "soft_inpainting": soft,
        "image_cfg_scale": job.image_cfg_scale,
        "noise_multiplier": job.initial_noise_multiplier,
        **common_fields(job),
    }


def txt2img_fields(job: Any) -> dict[str, Any]:
    """All fields of a `Txt2ImgRequest`."""
    fields = common_fields(job)
    if job.enable_hr and (job.firstphase_width or job.firstphase_height):
        fields["width"], fields["height"] = whole(job.firstphase_width), whole(job.firstphase_height)
    return {"hires": _hires(job) if job.enable_hr else None, **fields}


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


def _subseed(job: Any) -> int | tuple[int, ...]:
    return job.subseed if isinstance(job.subseed, int) else fix_seed(job.subseed)


def _hires(job: Any) -> Hires:
    return Hires(
        scale=job.hr_scale,
        width=whole(job.hr_resize_x) or None,
        height=whole(job.hr_resize_y) or None,
        upscaler=job.hr_upscaler or None,
        steps=whole(job.hr_second_pass_steps) or None,
        strength=job.denoising_strength,
        sampler=_unless_same(job.hr_sampler_name, "Use same sampler"),
        scheduler=_unless_same(job.hr_scheduler, "Use same scheduler"),
        checkpoint=_unless_same(job.hr_checkpoint_name, "Use same checkpoint"),
        prompt=texts(job.hr_prompt),
        negative_prompt=texts(job.hr_negative_prompt),
    )


def _unless_same(name: str | None, same: str) -> str | None:
    """The page's word for "as in the first pass"."""
    return None if name in (None, "", same) else name


def _chosen(name: str, number: Any, kind: type[_E]) -> _E:
    """The reference counts these choices from 0."""
    options = list(kind)
    if isinstance(number, kind):
        return number
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(options):
        names = ", ".join(f"{i} {each.value}" for i, each in enumerate(options))
        raise RequestError(name, number, f"choose one of {names}")
    return options[number]
