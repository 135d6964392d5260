"""What a site may change, and which accidents of the reference are wanted.

`Settings` carries the reference's option names: people know them, and saved configurations use them.
`Quirks` names each accident of the reference; code asks `if quirks.truncate_pixels`, never `if compat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args, get_origin, get_type_hints

from overpaint.errors import SettingError
from overpaint.hints import did_you_mean
from overpaint.named import by_name
from overpaint.option_checks import coerced

REFERENCE_QUALITY = 80  # of JPEG, at the reference's doors

RandomSource = Literal["GPU", "CPU", "NV"]
Emphasis = Literal["Original", "No norm", "Ignore", "None"]


@by_name
@dataclass(frozen=True, kw_only=True)
class Quirks:
    """One flag per accident of the reference; true = as the reference. The rule ids are those of the specification."""

    # Pixels
    truncate_pixels: bool = False  # DEC-3: 255*v is cut, not rounded, so every pass darkens
    resample_latent_mask: bool = False  # LAT-1: bicubic to latent size; sane: a cell that holds a masked pixel changes
    blur_erodes_mask: bool = False  # MASK-3: blur thins the mask itself; sane: what is white stays white
    blank_mask_is_whole_picture: bool = False  # MASK-6, MASK-8: a black mask repaints or re-encodes everything
    latent_resize_fills_mask: bool = False  # RESIZE-6: "latent" stretches the picture but pads its mask
    mask_keeps_its_size: bool = False  # MASK-9: a crop box found on a mask of another size is applied as it is
    floor_odd_sizes: bool = False  # IMG-6: 513 px in, 512 px out
    drop_source_extras: bool = False  # alpha, EXIF and ICC of the source are lost
    bare_crop_without_overlay: bool = False  # OUT-2: without overlay the crop is returned, not pasted back
    bicubic_fill_bands: bool = False  # RESIZE-5: zero-height box resampling and an odd black line
    upscale_to_multiples_of_8: bool = False  # EX-3: a named upscaler rounds its target down to multiples of 8
    # Latents and noise
    sample_posterior: bool = False  # ENC-2: the encoder's posterior is sampled; sane: its mean
    encode_each_copy: bool = False  # ENC-5: equal pictures of a batch are encoded, and sampled, one by one
    reuse_first_fill_noise: bool = False  # LAT-5: every iteration fills with the first iteration's noise
    slerp_over_rows: bool = False  # NZ-3: norms along the height axis, swapped weights when nearly parallel
    unseeded_batch_brownian: bool = False  # DRAW-1: no_dpmpp_sde_batch_determinism draws an unseeded tree
    # Steps and schedules
    flow_starts_at_a_step: bool = False  # STEP-4: flow models start at a step of their schedule, never between two
    strength_zero_runs_a_step: bool = False  # STEP-4: strength 0 still noises and denoises once
    skip_last_timestep: bool = False  # STEP-5: timestep samplers start one index too noisy and skip the last call
    short_runs_fail: bool = False  # STEP-4, TUP-5: DPM fast, DPM adaptive and UniPC refuse runs below their order
    unipc_stray_weight: bool = False  # TUP-5: vary_coeff's corrector drops part of its last weight
    long_ddim_schedule: bool = False  # STEP-4: the DDIM schedule may exceed steps+1 and starts one entry early
    kl_optimal_keeps_noise: bool = False  # SCH-7: no final zero
    late_schedule_tables: bool = False  # SIG-11: table options reach k samplers one job late
    batch_wide_error_norm: bool = False  # UPD-15: pictures of a batch change one another's step sizes
    timestep_blend_on_input: bool = False  # BLEND-2: the clean source is blended into the noisy input
    timestep_is_sigma: bool = False  # CFG-5: sigma thresholds are compared with timestep numbers
    merge_full_size_tokens_only: bool = (
        False  # JOB-12: token merging does nothing for SDXL, whose largest maps have none
    )
    # Prompts
    late_prompt_switch: bool = False  # SCHED-8: the first entry lasts one call too long
    stray_bar_is_literal: bool = False  # SCHED-3: a lone "|" switches all editing off
    malformed_weight_fails: bool = False  # ATT-4: "(a:1.2.3)" ends the job
    weighted_break_is_text: bool = False  # ATT-7: BREAK inside weighted parentheses is a word
    pad_to_longest_text: bool = False  # CFG-8, ENCODE-8: a text is padded to its longest neighbour in the batch
    shared_emphasis_mean: bool = False  # ENCODE-2: the variants of one prompt share one renormalising factor
    stranded_embeddings: bool = False  # TOK-4: relocated tokens leave their embedding vectors behind
    colon_weight_without_and: bool = False  # AND-1: "a:1.5" alone is read as a weight
    short_prompt_lists: bool = False  # JOB-3: a short list ends the job early, a long one is cut
    # Extra networks
    first_prompt_rules_networks: bool = False  # XN-3: the first prompt's tags count for its whole batch
    bad_network_weight_drops_all: bool = False  # XN-5: one weight that is no number switches every LoRA off
    same_network_one_weight: bool = False  # XN-7: a LoRA named twice takes the last weight both times
    networks_in_file_precision: bool = False  # LORA-6: LoHa, LoKr and their kin are added in the file's own type
    dora_norm_per_input: bool = False  # LORA-5: DoRA's magnitudes are taken per input, whatever the file has
    functional_loras_are_plain: bool = False  # LORA-7: lora_functional leaves out CP factors, DoRA and biases
    ill_fitting_networks_pass: bool = False  # LORA-4, LORA-6: a layer that does not fit is left out with a comment
    # Hires fix
    hires_keeps_conditioning_size: bool = False  # an inpainting model's conditioning stays at the first pass's size
    hires_conditioning_unscaled: bool = False  # its second one is made from a picture in 0..1 instead of -1..1
    # Scripts
    first_step_speaks_for_all: bool = False  # SCR-2, SCR-3: every picture of a script carries the first job's infotext
    # Requests
    unknown_names_fall_back: bool = False  # NAME-1: unknown samplers and schedulers become the default
    options_beat_request: bool = False  # PAR-3: a changed s_* option overrules the request's value
    early_noise_multiplier: bool = False  # STEP-1: read at construction, so an override has no effect
    fewer_images_shrink_batch: bool = False  # IMG-3: two pictures in a batch of three make two
    sparse_infotext_field: bool = False  # I2I-6: REST takes little of "infotext" for img2img, and swaps resized sides
    infotext_fields_add_up: bool = False  # INFO-10: what one batch brings about is said of all that follow
    unread_beta_schedule: bool = False  # PARSE-9: "Beta schedule alpha" is written, "Beta scheduler alpha" is read

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        known = frozenset(each.name for each in fields(cls))
        unknown = sorted(set(given) - known)
        if unknown:
            remedy = did_you_mean(unknown[0], sorted(known)) or "docs/reference/quirks.md lists them"
            raise SettingError(f"quirks.{unknown[0]}", given[unknown[0]], remedy)

    def __post_init__(self) -> None:
        for each in fields(self):
            if not isinstance(getattr(self, each.name), bool):
                raise SettingError(f"quirks.{each.name}", getattr(self, each.name), "give True or False")

    @classmethod
    def reference(cls) -> Quirks:
        """Every accident on: the picture the reference paints."""
        return cls(**{each.name: True for each in fields(cls)})

    @classmethod
    def none(cls) -> Quirks:
        """Every accident off: the sane behaviour."""
        return cls()


@by_name
@dataclass(frozen=True, kw_only=True)
class Settings:
    """A site's options, by the reference's names and with its defaults, unless a comment says otherwise."""

    quirks: Quirks = field(default_factory=Quirks)

    # Folders: where models and the things hung on them are looked for
    models_dir: str = ""
    vae_dir: str = ""
    taesd_dir: str = ""
    lora_dir: str = ""
    embeddings_dir: str = ""
    hypernetwork_dir: str = ""
    controlnet_dir: str = ""
    esrgan_dir: str = ""
    realesrgan_dir: str = ""
    swinir_dir: str = ""
    scunet_dir: str = ""
    dat_dir: str = ""
    styles_file: str = ""

    # Checkpoint and networks
    sd_model_checkpoint: str | None = None
    sd_vae: str = "Automatic"
    sd_vae_overrides_per_model_preferences: bool = True
    sd_vae_encode_method: Literal["Full", "TAESD"] = "Full"
    sd_vae_decode_method: Literal["Full", "TAESD"] = "Full"
    auto_vae_precision: bool = True
    auto_vae_precision_bfloat16: bool = False
    CLIP_stop_at_last_layers: int = 1
    batch_cond_uncond: bool = True
    tiling: bool = False
    backend: Literal["auto", "torch", "openvino"] = "auto"  # who computes; an engine keeps the one it began with
    text_encoder_files: tuple[str, ...] = ()  # for checkpoints that bring none; not an option of the reference
    model_memory: float = 0.0  # GiB that models which are not in use may keep; 0: a third of the device's memory
    device_memory: float = 0.0  # GiB of the device that a model may take; 0: what is free. Not of the reference either
    weights_kept: Literal["auto", "whole", "stored"] = "auto"  # an engine keeps a model as it was loaded
    encodings_memory: float = 0.25  # GiB that an engine may keep of encoded texts and pictures; 0: nothing is kept
    refiner_switch_by_sample_steps: bool = False

    # Extra networks
    sd_lora: str = "None"
    sd_hypernetwork: str = "None"
    extra_networks_default_multiplier: float = 1.0
    lora_functional: bool = False
    lora_add_hashes_to_infotext: bool = True
    lora_bundled_ti_to_infotext: bool = True
    textual_inversion_add_hashes_to_infotext: bool = True

    # txt2img and hires fix
    sgm_noise_multiplier: bool = False
    hires_fix_refiner_pass: Literal["first pass", "second pass", "both passes"] = "second pass"

    # Upscalers
    ESRGAN_tile: int = 192
    ESRGAN_tile_overlap: int = 8

    # img2img
    initial_noise_multiplier: float = 1.0
    img2img_extra_noise: float = 0.0
    img2img_fix_steps: bool = False
    img2img_color_correction: bool = False
    img2img_background_color: str = "#ffffff"
    upscaler_for_img2img: str | None = None
    inpainting_mask_weight: float = 1.0
    inpaint_window: str = "off"  # not an option of the reference
    overlay_inpaint: bool = True
    return_mask: bool = False
    return_mask_composite: bool = False
    face_restoration: bool = False

    # Noise
    randn_source: RandomSource = "GPU"
    eta_noise_seed_delta: int = 0
    no_dpmpp_sde_batch_determinism: bool = False

    # Samplers and schedules
    eta_ddim: float = 0.0
    eta_ancestral: float = 1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    s_min_uncond: float = 0.0
    s_min_uncond_all: bool = False
    skip_early_cond: float = 0.0
    skip_late_cond: float = 0.0  # not an option of the reference
    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    flow_shift: float = 0.0  # 0: as the family has it; not an option of the reference
    always_discard_next_to_last_sigma: bool = False
    use_old_karras_scheduler_sigmas: bool = False
    enable_quantization: bool = False
    sd_noise_schedule: Literal["Default", "Zero Terminal SNR"] = "Default"
    use_downcasted_alpha_bar: bool = False
    beta_dist_alpha: float = 0.6
    beta_dist_beta: float = 0.6
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"] = "bh1"
    uni_pc_skip_type: Literal["time_uniform", "time_quadratic", "logSNR"] = "time_uniform"
    uni_pc_order: int = 3
    uni_pc_lower_order_final: bool = True

    # Prompts
    emphasis: Emphasis = "Original"
    enable_prompt_comments: bool = True
    comma_padding_backtrack: int = 20
    pad_cond_uncond: bool = False
    pad_cond_uncond_v0: bool = False
    use_old_scheduling: bool = False
    sdxl_crop_top: int = 0
    sdxl_crop_left: int = 0
    sdxl_clip_l_skip: bool = False
    sdxl_refiner_low_aesthetic_score: float = 2.5
    sdxl_refiner_high_aesthetic_score: float = 6.0
    token_merging_ratio: float = 0.0
    token_merging_ratio_img2img: float = 0.0
    token_merging_ratio_hr: float = 0.0
    deepcache_interval: int = 1  # not an option of the reference

    # Saving
    outdir_samples: str = ""
    outdir_txt2img_samples: str = "outputs/txt2img-images"
    outdir_img2img_samples: str = "outputs/img2img-images"
    outdir_grids: str = ""
    outdir_txt2img_grids: str = "outputs/txt2img-grids"
    outdir_img2img_grids: str = "outputs/img2img-grids"
    outdir_init_images: str = "outputs/init-images"
    samples_save: bool = True
    samples_format: Literal["png", "jpg", "jpeg", "webp", "avif", "tif", "tiff", "heic"] = "png"
    samples_filename_pattern: str = ""
    save_images_add_number: bool = True
    save_images_replace_action: Literal["Replace", "Add number suffix"] = "Replace"
    save_to_dirs: bool = True
    grid_save_to_dirs: bool = True
    directories_filename_pattern: str = "[date]"
    directories_max_prompt_words: int = 8
    grid_save: bool = True
    grid_format: str = "png"
    grid_extended_filename: bool = False
    return_grid: bool = False  # the reference's default is true; here images[0] is always the picture unless asked
    grid_only_if_multiple: bool = True
    grid_prevent_empty_spots: bool = False
    grid_background_color: str = "#ffffff"
    n_rows: int = -1
    save_mask: bool = False
    save_mask_composite: bool = False
    save_images_before_color_correction: bool = False
    save_init_img: bool = False
    save_incomplete_images: bool = False
    save_txt: bool = False
    jpeg_quality: int = 95  # at the reference's doors 80
    webp_lossless: bool = False
    recipe_whole_paths: bool = False
    export_for_4chan: bool = True
    img_downscale_threshold: float = 4.0
    target_side_length: int = 4000

    # Infotext
    enable_pnginfo: bool = True
    add_model_name_to_info: bool = True
    add_model_hash_to_info: bool = True
    add_vae_name_to_info: bool = True
    add_vae_hash_to_info: bool = True
    add_version_to_infotext: bool = True
    infotext_styles: Literal["Ignore", "Apply", "Discard", "Apply if any"] = "Apply if any"
    infotext_skip_pasting: tuple[str, ...] = ()
    auto_backcompat: bool = True
    disable_weights_auto_swap: bool = True

    # Progress
    live_previews_enable: bool = True
    show_progress_type: Literal["Full", "Approx NN", "Approx cheap", "TAESD"] = "Approx NN"
    show_progress_every_n_steps: int = 10

    # The reference's API
    unoffered_features: Literal["warn", "refuse"] = "warn"

    # Limits (docs/reference/limits.md)
    max_source_pixels: int = 100_000_000
    max_pixels_per_pass: int = 4_194_304
    max_steps: int = 1000
    max_images: int = 1000
    max_prompt_chars: int = 32_000

    @classmethod
    def reference(cls, **changes: Any) -> Settings:
        """The settings of the reference's doors: all its accidents on."""
        return cls(**{"quirks": Quirks.reference(), "jpeg_quality": REFERENCE_QUALITY, **changes})

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        unknown = sorted(set(given) - OPTION_NAMES - {"quirks"})
        if unknown:
            raise SettingError(unknown[0], given[unknown[0]], _nearest_option(unknown[0]))

    def __post_init__(self) -> None:
        if not isinstance(self.quirks, Quirks):
            raise SettingError("quirks", self.quirks, "give an overpaint.Quirks, such as Quirks.reference()")
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value is not default:
                object.__setattr__(self, name, coerced(name, value, _DEFAULTS[name], _CHOICES.get(name, ())))

    def with_changes(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with some options replaced, as `override_settings` asks; an unknown name is an error."""
        self._refuse_unknown({name: value for name, value in changes.items() if name != "quirks"})
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values."""
        changed = {name: getattr(self, name) for name in sorted(OPTION_NAMES) if getattr(self, name) != _DEFAULTS[name]}
        quirks = [each.name for each in fields(Quirks) if getattr(self.quirks, each.name)]
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
        return {"options": plain, "quirks": quirks}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` wrote."""
        quirks = Quirks(**dict.fromkeys(values.get("quirks", ()), True))
        return replace(cls(), quirks=quirks).with_changes(values.get("options", {}))


@cache
def inert_options() -> frozenset[str]:
    """Options of the reference that change no picture here: of its page, its server, its training."""
    return frozenset(files("overpaint").joinpath("inert_options.txt").read_text("utf-8").split())


@cache
def option_meanings() -> dict[str, str]:
    """What each option is for, in one line. `docs/generate.py` writes the list from docs/meanings.yaml."""
    lines = files("overpaint").joinpath("option_meanings.txt").read_text("utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


OPTION_NAMES = frozenset(each.name for each in fields(Settings)) - {"quirks"}
_DEFAULTS = {each.name: each.default for each in fields(Settings) if each.name != "quirks"}


def _nearest_option(name: str) -> str:
    return did_you_mean(name, sorted(OPTION_NAMES)) or "there is no such option; `overpaint settings` lists them"


# The options that are one of a few words
_CHOICES = {name: get_args(hint) for name, hint in get_type_hints(Settings).items() if get_origin(hint) is Literal}
