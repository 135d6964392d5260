"""What was chosen on this machine, why, and what would be faster: what `overpaint doctor` tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from overpaint.backends.choice import backend_for
from overpaint.backends.torch_backend import resolve_dtypes
from overpaint.machine import MachineFacts
from overpaint.models.find import choose_device
from overpaint.models.memory import GIB, free_memory, total_memory
from overpaint.networks.layers import can_pack

_TIGHT = 4 * GIB  # Stable Diffusion 1.5 in half precision at 512 pixels, with room for its maps


@dataclass(frozen=True)
class Decision:
    """What a word such as "auto" came to."""

    name: str
    asked: str
    chosen: str
    why: str


@dataclass(frozen=True)
class DeviceFacts:
    """A device that torch can compute on."""

    name: str
    title: str
    memory: int
    free: int | None  # None: the system does not tell


@dataclass(frozen=True)
class TorchFacts:
    """This build of torch, here."""

    version: str
    threads: int
    packs: bool  # oneDNN's packed kernels work
    devices: tuple[DeviceFacts, ...]


def torch_facts() -> TorchFacts:
    return TorchFacts(torch.__version__, torch.get_num_threads(), can_pack(), tuple(_devices()))


def decisions(device: str, dtype: str, backend: str) -> tuple[Decision, ...]:
    """Device, number format and backend, as an engine that is asked for these takes them."""
    chosen = choose_device(device)
    row = backend_for(chosen, backend)
    kind = torch.device(chosen).type
    numbers = str(row.dtypes(chosen, dtype).unet).removeprefix("torch.")
    return (
        Decision("device", device, chosen, _why_device(kind) if device == "auto" else "you named it"),
        Decision("dtype", dtype, numbers, _why_dtype(kind, numbers) if dtype == "auto" else "you named it"),
        Decision("backend", backend, row.name, _why_backend(kind) if backend == "auto" else "you named it"),
    )


def faster(machine: MachineFacts, device: str, dtype: str, has_openvino: bool) -> Iterator[str]:
    """What a user could change, each with what it would bring; `device` and `dtype` are those in use."""
    kind = torch.device(device).type
    if kind != "cuda" and machine.has_nvidia and not torch.cuda.is_available():
        yield "an NVIDIA driver is here, but this torch cannot use it; install a torch with CUDA (pytorch.org says how)"
    if kind == "cpu":
        threads = torch.get_num_threads()
        if threads < machine.cores:
            yield f"torch uses {threads} of {machine.cores} cores; unset OMP_NUM_THREADS, or set it to {machine.cores}"
        best = str(resolve_dtypes("cpu").unet).removeprefix("torch.")
        if dtype == "float32" and best != dtype:
            yield f"--dtype {best}: a step took 0.6 of float32's time where it was measured"
        if not can_pack():
            yield "this build of torch has no oneDNN kernels, which are faster; install the one of PyPI"
        how = "" if has_openvino else "pip install 'overpaint[openvino]' and "
        price = "it compiles first, for as long as a step or two, and holds the weights twice"
        yield f"{how}--backend openvino: a step took 0.9 of torch's time where it was measured; {price}"
    free = free_memory(torch.device("cpu"))
    if free is not None and free < _TIGHT:
        yield f"only {free / GIB:.1f} GiB of memory are free; close other programs before a large model swaps"
    yield "steps that do less: token_merging_ratio, deepcache_interval, skip_late_cond; see `overpaint bench --quality`"


def _devices() -> Iterator[DeviceFacts]:
    cpu = torch.device("cpu")
    yield DeviceFacts("cpu", "processor", total_memory(cpu), free_memory(cpu))
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, whole = torch.cuda.mem_get_info(i)
        yield DeviceFacts(f"cuda:{i}", torch.cuda.get_device_name(i), whole, free)
    if torch.backends.mps.is_available():
        yield DeviceFacts("mps", "Apple graphics, which shares the machine's memory", total_memory(cpu), None)


def _why_device(kind: str) -> str:
    return "torch sees no graphics processor" if kind == "cpu" else "it is the fastest that torch sees"


def _why_dtype(kind: str, chosen: str) -> str:
    if kind != "cpu":
        return "graphics processors compute it faster than float32, in half the memory"
    if chosen == "bfloat16":
        return "this processor has instructions for it: a step took 0.6 of float32's time where it was measured"
    return "this processor has no instructions for narrower numbers"


def _why_backend(kind: str) -> str:
    if kind != "cpu":
        return "it alone computes there"
    return "it begins at once and holds the weights once; openvino compiles first"
