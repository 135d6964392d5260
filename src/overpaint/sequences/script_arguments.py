"""The reference's selectable scripts: their titles and their arguments by position (LIST-2, LIST-3). Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScriptArgument:
    """One argument as its listing shows it. One without a name is shown only; what is given for it does not count."""

    name: str
    label: str
    value: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ScriptEntry:
    """A script that can be chosen for a job."""

    title: str
    arguments: tuple[ScriptArgument, ...]
    in_txt2img: bool = False


A = ScriptArgument
_SIDES = ("left", "right", "up", "down")

_ALTERNATIVE = (
    A("", "", "* `CFG Scale` should be 2 or lower."),
    A("override_sampler", "Override `Sampling method` to Euler?(this method is built for it)", True),
    A(
        "override_prompt",
        "Override `prompt` to the same value as `original prompt`?(and `negative prompt`)",
        True,
    ),
    A("original_prompt", "Original prompt", ""),
    A("original_negative_prompt", "Original negative prompt", ""),
    A("override_steps", "Override `Sampling Steps` to the same value as `Decode steps`?", True),
    A("decode_steps", "Decode steps", 50, 1, 150, 1),
    A("override_strength", "Override `Denoising strength` to 1?", True),
    A("decode_cfg_scale", "Decode CFG scale", 1.0, 0.0, 15.0, 0.1),
    A("randomness", "Randomness", 0.0, 0.0, 1.0, 0.01),
    A("sigma_adjustment", "Sigma adjustment for finding noise for image", False),
)
_LOOPBACK = (
    A("loops", "Loops", 4, 1, 32, 1),
    A("final_strength", "Final denoising strength", 0.5, 0, 1, 0.01),
    A("curve", "Denoising strength curve", "Linear", choices=("Aggressive", "Linear", "Lazy")),
    A("interrogation", "Append interrogated prompt at each iteration", "None", choices=("None", "CLIP", "DeepBooru")),
)
_MK2 = (
    A(
        "",
        "",
        '<p style="margin-bottom:0.75em">Recommended settings: Sampling Steps: 80-100, Sampler: Euler a,'
        " Denoising strength: 0.8</p>",
    ),
    A("pixels", "Pixels to expand", 128, 8, 256, 8),
    A("mask_blur", "Mask blur", 8, 0, 64, 1),
    A("directions", "Outpainting direction", list(_SIDES), choices=_SIDES),
    A("fall_off", "Fall-off exponent (lower=higher detail)", 1.0, 0.0, 4.0, 0.01),
    A("color_variation", "Color variation", 0.05, 0.0, 1.0, 0.01),
)
_POOR_MAN = (
    A("pixels", "Pixels to expand", 128, 8, 256, 8),
    A("mask_blur", "Mask blur", 4, 0, 64, 1),
    A("masked_content", "Masked content", "fill", choices=("fill", "original", "latent noise", "latent nothing")),
    A("directions", "Outpainting direction", list(_SIDES), choices=_SIDES),
)
_MATRIX = (
    A("at_start", "Put variable parts at start of prompt", False),
    A("different_seeds", "Use different seed for each picture", False),
    A("which", "Select prompt", "positive", choices=("positive", "negative")),
    A("joined_by", "Select joining char", "comma", choices=("comma", "space")),
    A("margin", "Grid margins (px)", 0, 0, 500, 2),
)
_FROM_FILE = (
    A("iterate_seed", "Iterate seed every line", False),
    A("same_random_seed", "Use same random seed for all lines", False),
    A("place", "Insert prompts at the", "start", choices=("start", "end")),
    A("text", "List of prompt inputs", ""),
)
_UPSCALE = (
    A(
        "",
        "",
        '<p style="margin-bottom:0.75em">Will upscale the image by the selected scale factor; use width and height'
        " sliders to set tile size</p>",
    ),
    A("overlap", "Tile overlap", 64, 0, 256, 16),
    A("upscaler", "Upscaler", "None"),
    A("scale", "Scale Factor", 2.0, 1.0, 4.0, 0.05),
)
AXIS_TYPES = (
    *("Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "CFG Scale", "Image CFG Scale", "Prompt S/R"),
    *("Prompt order", "Sampler", "Checkpoint name", "Negative Guidance minimum sigma", "Sigma Churn", "Sigma min"),
    *("Sigma max", "Sigma noise", "Schedule type", "Schedule min sigma", "Schedule max sigma", "Schedule rho"),
    *("Beta schedule alpha", "Beta schedule beta", "Eta", "Clip skip", "Denoising", "Initial noise multiplier"),
    *("Extra noise", "Cond. Image Mask Weight", "VAE", "Styles", "UniPC Order", "Face restore"),
    *("Token merging ratio", "Token merging ratio high-res", "Always discard next-to-last sigma"),
    *("SGM noise multiplier", "Refiner checkpoint", "Refiner switch at", "RNG source", "FP8 mode", "Size"),
)
_OF_IMG2IMG = ("Image CFG Scale", "Cond. Image Mask Weight")
_OF_TXT2IMG = {"Steps": "Hires steps", "Sampler": "Hires sampler", "Extra noise": "Hires upscaler"}  # each comes after


def axis_types(*, is_img2img: bool) -> tuple[str, ...]:
    """What an axis of the plot may be."""
    if is_img2img:
        return AXIS_TYPES
    kept = (each for each in AXIS_TYPES if each not in _OF_IMG2IMG)
    return tuple(name for each in kept for name in (each, _OF_TXT2IMG.get(each)) if name is not None)


_PLOT = (
    A("x_type", "X type", "Seed", choices=AXIS_TYPES),
    A("x_values", "X values", ""),
    A("x_list", "X values", None, choices=()),
    A("y_type", "Y type", "Nothing", choices=AXIS_TYPES),
    A("y_values", "Y values", ""),
    A("y_list", "Y values", None, choices=()),
    A("z_type", "Z type", "Nothing", choices=AXIS_TYPES),
    A("z_values", "Z values", ""),
    A("z_list", "Z values", None, choices=()),
    A("legend", "Draw legend", True),
    A("with_cells", "Include Sub Images", False),
    A("with_sheets", "Include Sub Grids", False),
    A("keep_random_seeds", "Keep -1 for seeds", False),
    A("vary_seeds_x", "Vary seeds for X", False),
    A("vary_seeds_y", "Vary seeds for Y", False),
    A("vary_seeds_z", "Vary seeds for Z", False),
    A("margin", "Grid margins (px)", 0, 0, 500, 2),
    A("as_text", "Use text inputs instead of dropdowns", False),
)

SCRIPTS: tuple[ScriptEntry, ...] = (
    ScriptEntry("img2img alternative test", _ALTERNATIVE),
    ScriptEntry("Loopback", _LOOPBACK),
    ScriptEntry("Outpainting mk2", _MK2),
    ScriptEntry("Poor man's outpainting", _POOR_MAN),
    ScriptEntry("Prompt matrix", _MATRIX, in_txt2img=True),
    ScriptEntry("Prompts from file or textbox", _FROM_FILE, in_txt2img=True),
    ScriptEntry("SD upscale", _UPSCALE),
    ScriptEntry("X/Y/Z plot", _PLOT, in_txt2img=True),
)
