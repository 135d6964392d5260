"""What a model takes beside its weights while it paints: predicted from its specification and a size. Torch-free.

The figures were measured: all tensors that live at once in a call of the published networks, without what attention
takes inside its kernel. A test measures again.
"""

from __future__ import annotations

from collections.abc import Mapping

from overpaint.models.specs import ModelSpec, NetworkKind, UNetSpec

# Numbers that live at once in a call, for each token, as multiples of the network's width.
NUMBERS_OF_TOKEN: Mapping[NetworkKind, float] = {
    "zimage": 20,
    "flux": 22,
    "chroma": 22,
    "mmdit": 20,
    "qwen_image": 13,
    "flux2": 24,
}
NUMBERS_OF_PIXEL = 6.1  # in a decoder, for each pixel, as multiples of its first width
_NUMBERS_OF_CELL = 40.0  # in a U-Net, for each cell of its latents, the same
_WORDS = 512
_UNPACKING = 10  # bytes for each number of the largest layer while it is unpacked


def working_bytes(
    spec: ModelSpec, latent_size: tuple[int, int] | None = None, rows: int = 1, *, itemsize: int = 2
) -> int:
    """The most of what a call of the denoiser and a decoding take; without a size, at that of the family's training."""
    side = spec.native_size // spec.latent.factor
    wide, high = latent_size or (side, side)
    pixels = wide * high * spec.latent.factor**2
    decoding = NUMBERS_OF_PIXEL * spec.vae.channels * pixels
    return int(max(_numbers(spec, (wide, high)) * rows, decoding) * itemsize)


def unpacking_bytes(spec: ModelSpec) -> int:
    """What the largest layer takes while it is made of what its file stores."""
    if isinstance(spec.denoiser, UNetSpec):
        return 0
    width = spec.denoiser.width
    return _UNPACKING * width * (3 * width + spec.denoiser.inner)


def _numbers(spec: ModelSpec, latent_size: tuple[int, int]) -> float:
    network = spec.denoiser
    if isinstance(network, UNetSpec):
        return _NUMBERS_OF_CELL * network.model_channels * latent_size[0] * latent_size[1]
    return NUMBERS_OF_TOKEN[network.network] * network.width * (spec.tokens(latent_size) + _WORDS)
