"""Recorded jobs that run only with `-m long`, each with those that go the same ways in the default run.

A job is here if it differs from others in a number, or puts together what they show one by one. A job with a branch,
an option or a kind of model of its own is not.
"""

from __future__ import annotations

from typing import Any

import pytest

COVERED: dict[str, tuple[str, ...]] = {
    # More steps of the same sampler.
    "sampler20_euler_a": ("sampler_euler_a",),
    "sampler20_unipc": ("sampler_unipc",),
    "sampler20_dpmpp_sde": ("sampler_dpmpp_sde",),
    "sampler_restart_48": ("sampler_restart_30",),
    "steps_7_ddim": ("steps_1_ddim", "sampler_ddim"),
    # Schedules whose sigmas are recorded one by one, in unit/.
    "sched_uniform": ("sampler_euler", "sched_karras"),
    "sched_exponential": ("sched_karras",),
    "sched_polyexponential": ("sched_karras",),
    "sched_sgm_uniform": ("sched_karras",),
    "sched_kl_optimal": ("sched_karras",),
    "sched_align_your_steps": ("sched_ays_11",),
    "sched_simple": ("sched_karras",),
    "sched_normal": ("sched_karras",),
    "sched_ddim": ("sched_karras",),
    "sched_karras_euler_a": ("sched_karras", "sampler_euler_a"),
    "sched_simple_dpmpp3m": ("sched_karras", "sampler_dpmpp_3m_sde"),
    # Another strength.
    "strength_euler_0.04": ("strength_euler_0.0", "strength_euler_1.0"),
    "strength_unipc_1.0": ("sampler_unipc", "strength_euler_1.0"),
    "fix_steps_ddim": ("fix_steps", "sampler_ddim"),
    # Another size; the resizes of pictures are recorded in unit/.
    "resize_crop_up": ("resize_crop_tall_to_wide",),
    "resize_fill_tall_to_wide": ("resize_fill_wide",),
    "resize_fill_up": ("resize_fill_wide",),
    "resize_latent_tall_to_wide": ("resize_latent_up",),
    "size_192": ("size_136x152",),
    # A mask and a sampler: the mask acts on what the sampler is told, whichever it is.
    "inpaint_only_pad48": ("inpaint_only_pad16",),
    "inpaint_only_resizefill": ("inpaint_only_pad16", "resize_fill_wide"),
    "inpaint_resize_just": ("inpaint_resize_crop", "size_136x152"),
    "inpaint_euler_a": ("inpaint_whole_nothing", "sampler_euler_a"),
    "inpaint_dpmpp_2m_sde": ("inpaint_whole_nothing", "sampler_dpmpp_2m_sde"),
    "inpaint_lcm": ("inpaint_whole_nothing", "sampler_lcm"),
    "inpmodel_only": ("inpmodel_fill", "inpaint_only_pad16"),
    "inpmodel_noround": ("inpmodel_fill", "inpaint_noround"),
    "edit_resize": ("edit_1.5", "resize_crop_tall_to_wide"),
    # Prompts put together of what others have alone.
    "prompt_and_batch": ("prompt_and", "batch2_euler_a"),
    "prompt_and_editing": ("prompt_and", "prompt_editing_frac"),
    "prompt_long_and": ("prompt_and", "prompt_long_padcond"),
    "prompt_clipskip12": ("prompt_clipskip2",),
    "prompt_cfg15": ("prompt_cfg1", "sampler_euler"),
    # Seeds and random numbers.
    "subseed_full": ("subseed_batch",),
    "seed_resize_subseed": ("seed_resize_big", "subseed_batch"),
    "rng_CPU_euler_a": ("rng_CPU", "rng_CPU_sde_batch"),
    "rng_NV_euler_a": ("rng_NV", "rng_NV_sde_batch"),
    "rng_NV_subseed": ("rng_NV", "subseed_batch"),
    "color_correction_batch": ("inpaint_colorcorr", "batch2_two_images"),
    # Other models with what the first one has shown.
    "sd21v_dpmpp2m_karras": ("sd21v_euler", "sampler_dpmpp_2m", "sched_karras"),
    "sd21v_plms": ("sd21v_ddim", "sampler_plms"),
    "sd21v_ddim_cfgpp": ("sd21v_ddim", "sampler_ddim_cfgpp"),
    "sd21v_lcm": ("sd21v_euler", "sampler_lcm"),
    "sd21v_sde": ("sd21v_euler", "sampler_dpmpp_sde"),
    "sd21v_batch2_euler_a_inpaint_only": ("sd21v_euler", "batch2_euler_a", "inpaint_only_pad16"),
    "sdxl_inpaint": ("sdxl_euler", "inpaint_whole_nothing"),
    "sdxl_sde_batch2": ("sdxl_euler", "sampler_dpmpp_sde", "batch2_euler_a"),
    # What one job leaves for the next.
    "downcast_alphas_second_run": ("downcast_alphas", "sched_ztsnr_second_run"),
    "sd21v_ztsnr_second_run": ("sd21v_ztsnr", "sched_ztsnr_second_run"),
}

COVERED_EXTRA: dict[str, tuple[str, ...]] = {
    # LoRAs: the weights of every kind of file are recorded layer by layer, and compared in `test_lora_layers`.
    "lora_loraldm_w0.6": ("lora_lora_w0.6",),
    "lora_lora_w0.8": ("lora_lora_w0.6",),
    "lora_weight_2": ("lora_lora_w0.6",),
    "lora_loha32_w1": ("lora_loha_w1",),
    "lora_two_dora_swapped": ("lora_two_dora",),
    "lora_two_oft_swapped": ("lora_two_oft",),
    "lora_same_by_alias": ("lora_same_twice", "lora_alias"),
    "lora_named_mixed": ("lora_named", "lora_te_unet_positional"),
    "lora_missing_and_found": ("lora_missing", "lora_lora_w0.6"),
    "lora_clip_skip2": ("lora_lora_w0.6",),
    "lora_inpaint_mask": ("lora_lora_w0.6",),
    "lora_sdxl_te_only": ("lora_sdxl_w1", "lora_te_only"),
    # Embeddings: the encodings of every one of these texts are compared in `test_embeddings`.
    "ti_one_twice": ("ti_three",),
    "ti_three_twice": ("ti_three",),
    "ti_both": ("ti_three",),
    "ti_weird_spaced": ("ti_three",),
    "ti_uppercase": ("ti_three",),
    "ti_inside_word": ("ti_three",),
    "ti_png": ("ti_three",),
    "ti_neg": ("ti_pos_and_neg",),
    "ti_partial_weight": ("ti_weighted",),
    "ti_alternate": ("ti_scheduled",),
    "ti_border74": ("ti_border75",),
    "ti_comma_backtrack2": ("ti_border75",),
    "ti_sdxl_border": ("ti_sdxl_neg_weighted", "ti_border75"),
    # Hypernetworks: the latents of each are compared in `test_hypernets`.
    "hypernet_w0.5": ("hypernet_w1",),
    "hypernet_twice": ("hypernet_w1",),
    # txt2img and hires fix with what others have shown.
    "t2i_subseed": ("t2i_euler_a",),
    "t2i_sdxl_odd": ("t2i_odd_size2", "t2i_sdxl_dpmpp_2m"),
    "t2i_and_schedule": ("t2i_euler_a",),
    "hires_latent_bicubic_aa": ("hires_latent_bicubic", "hires_latent"),
    "hires_nearest": ("hires_lanczos",),
    "hires_upscaler_None": ("hires_none_default",),
    "hires_lanczos_steps5": ("hires_lanczos", "hires_latent_steps12_euler_a"),
    "hires_sd21_lanczos": ("hires_lanczos", "t2i_sd21_euler"),
    "vae_inpaint": ("vae_override",),
}


def case_of(case: dict[str, Any], covered: dict[str, tuple[str, ...]]) -> Any:
    """A recorded job as a parameter of a test."""
    return pytest.param(case, id=case["name"], marks=pytest.mark.long if case["name"] in covered else ())
