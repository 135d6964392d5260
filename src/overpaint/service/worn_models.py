"""What a model has to wear for a job: jobs for which that is equal can be painted side by side."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable

from overpaint.service.jobs import Job

_TAG = re.compile(r"<[a-z]+:[^<>]+>", re.IGNORECASE)  # of a LoRA or hypernetwork in a prompt
_MODEL_SETTINGS = ("sd_model_checkpoint", "sd_vae", "sd_hypernetwork", "quirks")
_MODEL_FIELDS = ("checkpoint", "refiner", "loras", "styles", "use_networks", "overrides")


def worn_by(job: Job) -> Hashable:
    """Equal for jobs that share a model; None if it shares it with nobody."""
    if job.kind != "paint":
        return None
    request, settings, hires = job.request, job.settings, job.request.get("hires") or {}
    texts = [part.get(name) or "" for part in (request, hires) for name in ("prompt", "negative_prompt")]
    controls = tuple(str(each.get("model")) for each in request.get("controls") or ())
    return (
        tuple(sorted(_TAG.findall(str(texts)))),
        hires.get("checkpoint"),
        controls,
        *(repr(request.get(name) or None) for name in _MODEL_FIELDS),
        *(repr(settings.get(name)) for name in _MODEL_SETTINGS),
    )


def worn_name(job: Job) -> str | None:
    """The same as a short text."""
    worn = worn_by(job)
    return None if worn is None else hashlib.sha256(repr(worn).encode()).hexdigest()[:32]
