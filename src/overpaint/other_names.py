"""What other programs call the fields of our requests: one table for each, read in both directions.

Doors that speak another program's language name its fields in their complaints; the native doors tell whoever gives
such a name what it is called here. A dot leads into a part of a request: `hires.scale`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

Names = Mapping[str, str]  # ours -> theirs

REFERENCE: Names = MappingProxyType(
    {
        "images": "init_images",
        "strength": "denoising_strength",
        "iterations": "n_iter",
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
        **{f"hires.{name}": f"hr_{name}" for name in ("scale", "upscaler", "scheduler", "prompt", "negative_prompt")},
    }
)
REFERENCE_EXTRAS: Names = MappingProxyType(
    {
        "scale": "upscaling_resize",
        "size": "upscaling_resize_w",
        "crop": "upscaling_crop",
        "upscaler": "upscaler_1",
        "second_upscaler": "upscaler_2",
        "second_visibility": "extras_upscaler_2_visibility",
    }
)
REFERENCE_CONTROLS: Names = MappingProxyType(
    {
        "image": "input_image",
        "preprocessor": "module",
        "start": "guidance_start",
        "end": "guidance_end",
        "canny_low": "threshold_a",
        "canny_high": "threshold_b",
    }
)
DIFFUSERS: Names = MappingProxyType(
    {
        "images": "image",
        "mask": "mask_image",
        "cfg_scale": "guidance_scale",
        "image_cfg_scale": "image_guidance_scale",
        "steps": "num_inference_steps",
        "batch_size": "num_images_per_prompt",
        "seed": "generator",
        "refiner_switch_at": "denoising_end",
        "controls": "control_image",
    }
)
OPENAI: Names = MappingProxyType(
    {"images": "image", "iterations": "n", "width": "size", "height": "size", "checkpoint": "model"}
)

# Names that stand for several of ours, and second names for one: theirs -> ours
_FURTHER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "init_image": ("images",),
        "image_mask": ("mask",),
        "mask_blur": ("mask_blur_x", "mask_blur_y"),
        "padding_mask_crop": ("only_masked", "padding"),
        "sampler_index": ("sampler",),
        "seed_resize_from_w": ("seed_resize",),
        "seed_resize_from_h": ("seed_resize",),
        "disable_extra_networks": ("use_networks",),
        "alwayson_scripts": ("controls", "soft_inpainting"),
        "controlnet_conditioning_scale": ("controls",),
        "enable_hr": ("hires",),
        "sd_model": ("checkpoint",),
        "lora": ("loras",),
        "cross_attention_kwargs": ("loras",),
        "upscaling_resize_h": ("size",),
        "imagelist": ("images",),
    }
)
_OPPOSITES = frozenset({"disable_extra_networks"})
# What these ask for has no field here, however much a name of ours looks like one of them.
_NOTHING_HERE = frozenset(
    {
        *("send_images", "save_images", "do_not_save_samples", "do_not_save_grid", "include_init_images"),
        *("restore_faces", "firstpass_image", "script_name", "script_args", "infotext", "force_task_id", "comments"),
        *("override_settings_restore_afterwards", "token_merging_ratio", "token_merging_ratio_hr"),
        *("latents", "timesteps", "sigmas", "guidance_rescale", "prompt_embeds", "negative_prompt_embeds"),
        *("output_type", "return_dict", "ip_adapter_image", "callback_on_step_end"),
    }
)


_PART = re.compile(r"([a-z_]+)(\[\d+\])?(.*)", re.DOTALL)
_SINGLE = ("image",)  # what they call a list of ours by has no places
_BOTH = " x "  # a complaint may be about the product of two fields


def theirs_of(field: str, names: Names) -> str:
    """What another program calls a field, one of its places or parts, or two fields at once: complaints name these."""
    if field in names:
        return names[field]
    if _BOTH in field:
        return _BOTH.join(dict.fromkeys(theirs_of(each, names) for each in field.split(_BOTH)))
    found = _PART.fullmatch(field)
    if found is None or found[1] not in names:
        return field
    name = names[found[1]]
    return name + ("" if name in _SINGLE else found[2] or "") + found[3]


def ours_of(name: str, known: Collection[str]) -> tuple[str, ...] | None:
    """What a field of another program is called here, as far as `known` has it; None if it is no other program's."""
    name = name.lower().replace("-", "_")
    meant = (*_OURS.get(name, ()), *_FURTHER.get(name, ()))
    if not meant and name not in _NOTHING_HERE:
        return None
    found = [each for each in (_within(each, known) for each in meant) if each is not None]
    nearer = [each for each in found if "." not in each]  # a field of the request itself rather than one of its parts
    return tuple(dict.fromkeys(nearer or found))


def hint(name: str, known: Collection[str]) -> str | None:
    """The end of a complaint about a field that belongs to another program; None if it does not."""
    found = ours_of(name, known)
    if found is None:
        return None
    if not found:
        return "there is no such field"
    opposite = ", which says the opposite" if name in _OPPOSITES else ""
    return f"there is no such field; did you mean {' or '.join(map(repr, found))}{opposite}?"


def _within(ours: str, known: Collection[str]) -> str | None:
    """The name as it is to be given: among a request's fields, or within the part that has it."""
    part, _, field = ours.rpartition(".")
    if (part or field) in known:
        return ours
    is_that_part = bool(part) and field in known and "images" not in known
    return field if is_that_part else None


def _turned() -> Iterator[tuple[str, str]]:
    """(theirs, ours). Of a name that leads into an option or a script, its last part is what is asked for."""
    for table in (REFERENCE, REFERENCE_EXTRAS, REFERENCE_CONTROLS, DIFFUSERS, OPENAI):
        for ours, theirs in table.items():
            yield theirs.rpartition(".")[2].lower(), ours


_OURS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(ours for theirs, ours in _turned() if theirs == name) for name, _ in _turned()}
)
