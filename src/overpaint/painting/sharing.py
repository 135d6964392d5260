"""Which jobs go on side by side, who shares a call of the denoiser, and how large it may be: decided here alone.

Jobs that need the same network (the same model with the same adapters, for latents of one shape) may share a call.
These stay apart: jobs that want exact bytes, for a larger call rounds otherwise; jobs that want each row in its own
call; and canvases seen in parts or through a window, and steps in which a ControlNet is on, for these follow one job's
picture. Rows share a call only with rows that leave out the same (`drive`).

On a CPU a call of eight rows takes as long as eight calls of one, so there calls are not shared. A GPU is busier with
more rows, as far as its memory goes. The bound below is an estimate that no GPU has confirmed yet; it is halved where
it proves too high.

A worker takes as many jobs at once as one such call has room for, and so one at a time on a CPU. Jobs go on side by
side in it if they use the same models with the same adapters. Others take turns: with every tick other weights would
have to be merged, and memory would have to hold the models of all.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch

from overpaint.flow_levels import FlowTable
from overpaint.painting.drive import Run
from overpaint.planning.plans import Plan

MOST_ROWS = 32
BYTES_PER_CELL = 64 * 1024  # of a row: what the widest maps of a U-Net take at a time in half precision
PART_OF_FREE = 0.5
MOST_JOBS = 8
ROWS_OF_A_JOB = 2  # a picture with a negative text


def rows_per_call(device: torch.device, cells: int) -> int:
    """How many rows jobs may put into one call; 1: each job has its own. `cells` are those of a row."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return rows_in(free + unused, cells)


def cells_of(run: Run) -> int:
    """Of a row: the latent's, and those of all pictures that an edit model looks at, which it holds as tokens, too."""
    denoiser, (_, channels, high, wide) = run.denoiser, run.start.shape
    beside = denoiser.image_conditioning
    is_flow = isinstance(denoiser.meaning.table, FlowTable)
    sees_source = is_flow and beside is not None and beside.shape[1] == channels
    seen = sum(each.shape[-2] * each.shape[-1] for each in denoiser.references)
    return high * wide * (2 if sees_source else 1) + seen


def rows_in(free: int, cells: int) -> int:
    """How many rows so many bytes have room for."""
    return max(1, min(MOST_ROWS, int(free * PART_OF_FREE) // (BYTES_PER_CELL * cells)))


def jobs_at_once(device: torch.device, side: int) -> int:
    """How many jobs a worker takes, if their pictures have this side in pixels."""
    return max(1, min(MOST_JOBS, rows_per_call(device, (side // 8) ** 2) // ROWS_OF_A_JOB))


def company(plan: Plan) -> Hashable:
    """Jobs go on side by side where this is equal: what they have in memory and what it wears."""
    second = plan.hires.plan if plan.hires is not None else plan
    worn = frozenset(
        (each.checkpoint, batch[0].networks, tuple(control.model for control in each.controls))
        for each in (plan, second)
        for batch in each.batches
    )
    refiner = plan.refiner.model.path if plan.refiner is not None else None
    return worn, refiner, plan.settings.sd_vae, plan.settings.tiling, plan.settings.lora_functional
