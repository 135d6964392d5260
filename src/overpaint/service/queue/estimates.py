"""How long a job is likely to take, as earlier jobs of its kind and model tell. Where none tells, nothing is said."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from overpaint.sampler_table import SAMPLERS
from overpaint.service.jobs import Job, JobState, Live, Record

KEPT = 100  # jobs that are remembered
NEAREST = 5  # of them, in size, that tell how long another one takes
FARTHEST = 32.0  # times larger or smaller, beyond which a job tells nothing of another one

_UNIT = 512 * 512  # pixels
_PIXELS = 512 * 512  # where a request names no size
_OVERHEAD = 128 * 128  # pixels that a step costs besides its own
_AROUND = 1.0  # steps that reading, encoding and decoding cost together
_TWO_CALLS = frozenset(name.lower() for each in SAMPLERS if each.second_order for name in (each.name, *each.aliases))


@dataclass(frozen=True)
class Example:
    """A job that was done from its beginning to its end."""

    likeness: Hashable
    work: float
    seconds: float


class Experience:
    """What the last jobs took."""

    def __init__(self) -> None:
        self._examples: deque[Example] = deque(maxlen=KEPT)

    def learn(self, record: Record) -> None:
        """A job has ended. One that was broken off, or taken up again, does not tell what the whole of it takes."""
        is_whole = record.state is JobState.FINISHED and not record.result.stopped and record.attempts <= 1
        started, ended = record.uptimes.started, record.uptimes.ended
        if is_whole and started is not None and ended is not None:
            seconds = max(0.0, ended - started)
            self._examples.append(Example(likeness_of(record.job), work_of(record.job), seconds))

    def seconds(self, job: Job) -> float | None:
        """From its start to its end.

        The lower median of a few rates: a job that had to wait for its model to be read is an outlier upwards.
        """
        likeness, work = likeness_of(job), work_of(job)
        alike = [each for each in self._examples if each.likeness == likeness]
        apart = [(abs(math.log(each.work / work)), -place, each) for place, each in enumerate(alike)]
        near = sorted(each for each in apart if each[0] <= math.log(FARTHEST))[:NEAREST]
        return work * statistics.median_low([each.seconds / each.work for *_, each in near]) if near else None

    def seconds_left(self, job: Job, live: Live, now: float) -> float | None:
        """Of a running job: by its own steps as soon as two were heard of, before by what others took."""
        ahead = live.steps - live.step + _AROUND
        if live.step > live.first_step and live.steps:
            pace = max(0.0, live.step_at - live.first_at) / (live.step - live.first_step)
            return max(0.0, pace * ahead - max(0.0, now - live.step_at))
        whole = self.seconds(job)
        if whole is None or not live.steps:
            return whole
        return whole * min(1.0, max(0.0, ahead / (live.steps + _AROUND)))


def likeness_of(job: Job) -> Hashable:
    """Equal for jobs that tell of one another: the model that was asked for, or the upscalers."""
    request = job.request
    if job.kind == "extras":
        return ("extras", request.get("upscaler"), request.get("second_upscaler"))
    if job.kind == "sequence":  # how many pictures it paints, only the very same tool tells
        tool = json.dumps(request.get("sequence"), sort_keys=True, default=str)
        return ("sequence", tool, request.get("checkpoint") or job.settings.get("sd_model_checkpoint"))
    return ("paint", request.get("checkpoint") or job.settings.get("sd_model_checkpoint"))


def work_of(job: Job) -> float:
    """A job's size: calls of the network for one picture of 512x512, and what comes around them."""
    request = job.request
    if job.kind == "extras":
        return float(max(1, len(request.get("images") or ())))
    width, height = request.get("width"), request.get("height")
    pixels = width * height if width and height else _PIXELS
    work = _work_of_pass(request, pixels, request.get("strength"))
    hires = request.get("hires")
    if isinstance(hires, Mapping):
        named = {name: hires.get(name) or request.get(name) for name in ("steps", "sampler", "cfg_scale")}
        named["references"] = request.get("references")
        work += _work_of_pass(named, _enlarged(hires, width, height, pixels), hires.get("strength"))
    return work * (request.get("batch_size") or 1) * (request.get("iterations") or 1)


def _work_of_pass(request: Mapping[str, Any], pixels: float, strength: float | None) -> float:
    steps = (request.get("steps") or 20) * (1.0 if strength is None else float(strength))
    calls = 2 if str(request.get("sampler")).lower() in _TWO_CALLS else 1
    rows = 1 if request.get("cfg_scale") == 1 else 2
    seen = 1 + len(request.get("references") or ())  # each costs about as much at every step as the canvas does
    return (max(1.0, steps) * calls * rows * seen / 2 + _AROUND) * (pixels + _OVERHEAD) / _UNIT


def _enlarged(hires: Mapping[str, Any], width: int | None, height: int | None, pixels: float) -> float:
    """Pixels of the second pass; one side alone keeps the shape."""
    wide, high = hires.get("width"), hires.get("height")
    if wide and high:
        return float(wide * high)
    if wide or high:
        shape = width / height if width and height else 1.0
        return float(wide * wide / shape if wide else (high or 0) * (high or 0) * shape)
    return float(pixels * (hires.get("scale") or 1.0) ** 2)
