"""Which checkpoint a job wants: what the queue places jobs by, and what a pool knows of its workers."""

from __future__ import annotations

import re

from overpaint.service.jobs import Job

OWN_MODEL = ""  # the server's own, which jobs mean that name none

PATIENCE = 300.0  # seconds of waiting after which no other job, of whatever priority or client, may go before
HALF_LIFE = 600.0  # seconds in which half of what a client had is forgotten
USUAL_SECONDS = 10.0  # of a job, where none was done yet
LEAST_LOAD = 5.0  # that reading one counts for: it takes disk and memory from all others, and may be cold the next time

_HASH = re.compile(r"\s*\[[0-9a-fA-F]+\]$")  # at the end of a title


def model_of(job: Job) -> str | None:
    """The checkpoint that a job wants, so that different names of one file are one; None if it needs none."""
    if job.kind == "extras":
        return None
    overridden = (job.request.get("overrides") or {}).get("sd_model_checkpoint")
    return model_name(job.request.get("checkpoint") or overridden or job.settings.get("sd_model_checkpoint"))


def model_name(named: str | None) -> str:
    """A name, a title or a path of a checkpoint in its plainest form. Two files of one name in two folders are taken
    for one, which costs time and nothing else."""
    file = _HASH.sub("", named or OWN_MODEL).replace("\\", "/").rpartition("/")[2].lower()
    stem, _, suffix = file.rpartition(".")
    return stem if suffix in ("safetensors", "ckpt", "pt", "pth", "bin") else file
