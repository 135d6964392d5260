"""What a call is told to take, against all tensors that live at once in one: of the published widths, on no device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from overpaint.models.families import SD1_SPEC
from overpaint.models.specs import ChromaSpec, FluxSpec, MmditSpec
from overpaint.models.working_memory import NUMBERS_OF_PIXEL, NUMBERS_OF_TOKEN, working_bytes
from overpaint.networks import chroma, flux, flux2, mmdit, qwen_image, zimage
from overpaint.networks.codecs import codec_network
from overpaint.networks.denoisers import denoiser_network
from overpaint.networks.layers import laid_out
from tests.published_specs import CHROMA_HD, FLUX_DEV, KLEIN_4B, QWEN_IMAGE, SD35_LARGE, Z_IMAGE_TURBO

SIDE, WORDS = 32, 128  # tokens


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are not a network's parameters, as long as they live."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._sizes = {each.untyped_storage()._cdata: 0 for each in network.parameters()}

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = call(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self._count(each.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def most_at_once(network: torch.nn.Module, call: Callable[[], object]) -> int:
    living = _Living(network)
    with torch.no_grad(), living:
        call()
    return living.most


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:2], q.shape[2] * v.shape[3])


@pytest.mark.parametrize("spec", [FLUX_DEV, CHROMA_HD, SD35_LARGE, Z_IMAGE_TURBO, QWEN_IMAGE, KLEIN_4B])
def test_a_call_takes_what_is_told(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more, and not much less."""
    for module in (flux, chroma, mmdit, zimage, qwen_image, flux2):
        monkeypatch.setattr(module, "attend", _fused, raising=False)
    depths = {"double_blocks", "single_blocks", "blocks", "layers", "refiner_layers"} & vars(spec).keys()
    spec = replace(spec, **dict.fromkeys(depths, 2))  # more blocks take no more at once
    network = laid_out(partial(denoiser_network, spec), torch.bfloat16)
    side = SIDE * spec.patch
    empty = partial(torch.empty, device="meta", dtype=torch.bfloat16)
    vector = {FluxSpec: 769, MmditSpec: getattr(spec, "vector_dim", 0), ChromaSpec: 1}.get(type(spec))
    given = (empty(1, spec.in_channels, side, side), empty(1), empty(1, WORDS, spec.context_dim))
    most = most_at_once(network, lambda: network(*given, empty(1, vector) if vector else None))
    told = 2 * NUMBERS_OF_TOKEN[spec.network] * spec.width * (SIDE**2 + WORDS)
    assert 0.6 * told <= most <= told


def test_a_decoding_takes_what_is_told() -> None:
    network = laid_out(partial(codec_network, SD1_SPEC.vae), torch.bfloat16)
    z = torch.empty(1, 4, 32, 32, device="meta", dtype=torch.bfloat16)
    most = most_at_once(network, lambda: network.decode(z))
    assert 0.8 <= most / (2 * NUMBERS_OF_PIXEL * SD1_SPEC.vae.channels * 256**2) <= 1


def test_it_grows_with_the_picture_and_with_the_rows_of_a_call() -> None:
    small, large = (working_bytes(SD1_SPEC, (side, side)) for side in (64, 128))
    assert large == pytest.approx(4 * small)
    assert working_bytes(SD1_SPEC, (64, 64), rows=16) > small
    assert working_bytes(SD1_SPEC) == small
