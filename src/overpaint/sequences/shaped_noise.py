"""Noise that looks like a picture: what the reference's outpainting starts the new part from (SCR-5).

The spectrum of the known part shapes white noise: its magnitudes raised to a fall-off exponent, its phases kept. What
comes out is given the known part's histogram, colour by colour.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complex128]

_FIXED_SEED = 0
_IS_NEW, _IS_OLD = 1e-6, 1e-3  # of a mask's value


def matched_noise(picture: Values, mask: Values, fall_off: float, color_variation: float) -> Values:
    """`picture` (h, w, 3) in 0..1, its masked part replaced by noise; `mask` is (h, w), 1 = new."""
    new, old = mask > _IS_NEW, mask < _IS_OLD
    if not new.any() or not old.any():
        return picture
    soft = mask[:, :, None]
    known = picture * (1 - soft)
    known = known / max(float(known.max()), np.finfo(np.float64).tiny)
    known = known + picture.mean() * soft  # black in its place would ring through the spectrum
    shape = _spectrum(known)
    magnitude = np.abs(shape)
    phase = np.divide(shape, magnitude, out=np.zeros_like(shape), where=magnitude > 0)
    start = _spectrum(_smooth_noise(picture.shape[:2], color_variation))
    phase *= np.abs(start) ** 2 * magnitude**fall_off
    noise = _pixels(phase)
    noise = noise - noise.min()
    noise = noise / max(float(noise.max()), np.finfo(np.float64).tiny)
    noise[new] = with_histogram(noise[new], picture[old])
    mixed: Values = np.clip(picture * (1 - soft) + noise * soft, 0, 1)
    return mixed


def with_histogram(values: Values, like: Values) -> Values:
    """`values` (n, channels) with the distribution of `like` (m, channels), each channel by itself."""
    matched = np.empty_like(values)
    for channel in range(values.shape[1]):
        _, place, counts = np.unique(values[:, channel], return_inverse=True, return_counts=True)
        levels, known = np.unique(like[:, channel], return_counts=True)
        ours, theirs = np.cumsum(counts) / len(values), np.cumsum(known) / len(like)
        matched[:, channel] = np.interp(ours, theirs, levels)[place]
    return matched


def _smooth_noise(size: tuple[int, int], color_variation: float) -> Values:
    """White noise, mostly gray, of which low frequencies pass more than high ones."""
    high, wide = size
    noise = np.random.default_rng(_FIXED_SEED).random((high, wide, 3))
    noise = noise * color_variation + (1 - color_variation) * noise.mean(axis=2, keepdims=True)
    shorter = min(size)
    y, x = (((np.arange(side) / side) * 2 - 1) * (side / shorter) for side in size)
    window = 1 / ((x[None, :] ** 2 + 1) * (y[:, None] ** 2 + 1))
    spectrum = _spectrum(noise)
    spectrum *= window[:, :, None]
    return _pixels(spectrum)


def _spectrum(values: Values) -> Spectrum:
    """The orthonormal spectrum, its zero frequency in the middle."""
    moved = np.fft.fft2(np.fft.fftshift(values, axes=(0, 1)), axes=(0, 1), norm="ortho")
    return np.fft.ifftshift(moved, axes=(0, 1))


def _pixels(spectrum: Spectrum) -> Values:
    back = np.fft.ifft2(np.fft.fftshift(spectrum, axes=(0, 1)), axes=(0, 1), norm="ortho")
    return np.real(np.fft.ifftshift(back, axes=(0, 1)))
