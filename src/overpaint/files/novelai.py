"""Pictures of NovelAI: the prompt is their description, the parameters are JSON in their comment (STORE-5)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from overpaint.text.infotext import format_infotext

_SAMPLERS = {
    "k_euler": "Euler",
    "k_euler_ancestral": "Euler a",
    "k_dpm_2": "DPM2",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpm_fast": "DPM fast",
    "k_dpm_adaptive": "DPM adaptive",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_sde": "DPM++ SDE",
    "k_heun": "Heun",
    "k_lms": "LMS",
    "ddim": "DDIM",
    "ddim_v3": "DDIM",
    "plms": "PLMS",
}


def infotext_of_novelai(items: Mapping[str, object], size: tuple[int, int]) -> str | None:
    """The infotext that the text items of such a picture stand for; None if they cannot be read."""
    try:
        values = json.loads(str(items.get("Comment", "")))
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    fields: dict[str, object] = {
        "Steps": values.get("steps"),
        "Sampler": _SAMPLERS.get(str(values.get("sampler")), "Euler a"),
        "CFG scale": values.get("scale"),
        "Seed": values.get("seed"),
        "Size": f"{size[0]}x{size[1]}",
        "Clip skip": 2,
        "ENSD": 31337,
    }
    return format_infotext(str(items.get("Description", "")), str(values.get("uc") or ""), fields)
