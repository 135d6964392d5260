"""What clients of the reference call the fields of our requests: complaints name what they sent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from overpaint.errors import RequestError

_PAINTING: Mapping[str, str] = {
    "images": "init_images",
    "strength": "denoising_strength",
    "iterations": "n_iter",
    "batch_size x iterations": "batch_size x n_iter",
    "padding": "inpaint_full_res_padding",
    "only_masked": "inpaint_full_res",
    "masked_content": "inpainting_fill",
    "invert_mask": "inpainting_mask_invert",
    "round_mask": "mask_round",
    "variation_seed": "subseed",
    "variation_strength": "subseed_strength",
    "sampler": "sampler_name",
    "noise_multiplier": "initial_noise_multiplier",
    "refiner": "refiner_checkpoint",
    "checkpoint": "override_settings.sd_model_checkpoint",
    "clip_skip": "override_settings.CLIP_stop_at_last_layers",
    "color_correction": "override_settings.img2img_color_correction",
    "overrides": "override_settings",
    "controls": "alwayson_scripts.controlnet.args",
    "soft_inpainting": "alwayson_scripts.soft inpainting",
    "hires.width": "hr_resize_x",
    "hires.height": "hr_resize_y",
    "hires.steps": "hr_second_pass_steps",
    "hires.strength": "denoising_strength",
    "hires.checkpoint": "hr_checkpoint_name",
    "hires.sampler": "hr_sampler_name",
    "hires.width x height": "hr_scale",
    **{f"hires.{name}": f"hr_{name}" for name in ("scale", "upscaler", "scheduler", "prompt", "negative_prompt")},
}
_EXTRAS: Mapping[str, str] = {
    "scale": "upscaling_resize",
    "size": "upscaling_resize_w",
    "crop": "upscaling_crop",
    "upscaler": "upscaler_1",
    "second_upscaler": "upscaler_2",
    "second_visibility": "extras_upscaler_2_visibility",
}
_PART = re.compile(r"([a-z_]+)(\[\d+\])?(.*)", re.DOTALL)


def as_they_call_it(error: RequestError, path: str) -> RequestError:
    """The same complaint of the field that the client sent; each of the two kinds of job has names of its own."""
    name = _their_name(error.field, _images_of(path) if "/extra-" in path else _PAINTING)
    return error if name == error.field else type(error)(name, error.value, error.remedy)


def _images_of(path: str) -> Mapping[str, str]:
    return {**_EXTRAS, "images": "imageList" if "batch" in path else "image"}


def _their_name(field: str, names: Mapping[str, str]) -> str:
    found = _PART.fullmatch(field)
    if field in names or found is None:
        return names.get(field, field)
    name, place, rest = found.groups()
    if name not in names:
        return field
    return names[name] + ("" if names[name] == "image" else place or "") + rest
