"""Who shares a call of the denoiser, and how large such a call may be. Decided here and nowhere else.

Jobs that need the same network (the same model with the same adapters, for latents of one shape) may share a call.
These stay apart: jobs that want exact bytes, for a larger call rounds otherwise; jobs that want each row in its own
call; and steps in which a ControlNet is on, for it follows one job's picture.

On a CPU a call of eight rows takes as long as eight calls of one, so there calls are not shared. A GPU is busier with
more rows, as far as its memory goes. The bound below is an estimate that no GPU has confirmed yet; it is halved where
it proves too high.
"""

from __future__ import annotations

import torch

MOST_ROWS = 32
BYTES_PER_CELL = 64 * 1024  # of a row's latent: what the widest maps of a U-Net take at a time in half precision
PART_OF_FREE = 0.5


def rows_per_call(device: torch.device, cells: int) -> int:
    """How many rows jobs may put into one call; 1: each job has its own. `cells` are a latent's height x width."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return rows_in(free + unused, cells)


def rows_in(free: int, cells: int) -> int:
    """How many rows so many bytes have room for."""
    return max(1, min(MOST_ROWS, int(free * PART_OF_FREE) // (BYTES_PER_CELL * cells)))
