"""The device of a run, and how its arithmetic is made fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Hardware:
    device: torch.device
    half: bool = True  # bfloat16 where it is safe

    @staticmethod
    def cpu() -> Hardware:
        return Hardware(torch.device("cpu"))

    @staticmethod
    def named(name: str) -> Hardware:
        """`auto` takes a GPU if there is one."""
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda"):
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        return Hardware(torch.device(name))

    def placed(self, network: _Network) -> _Network:
        """On the device, its maps laid out as convolutions like them best."""
        return network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def fast(self) -> Iterator[None]:
        """bfloat16 products. On CPUs attention is plain products too: the fused kernel's way back is several times
        slower for heads this narrow."""
        backends = [SDPBackend.MATH] if self.device.type == "cpu" else list(_ALL)
        before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half), sdpa_kernel(backends):
                yield
        finally:
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


_ALL = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
