"""Noise that looks like a picture: what outpainting mk2 starts the new part from (SCR-5).

White noise takes on the spectrum of the known part: its magnitudes, raised to a fall-off, and its phases. What comes
out is given the known part's histogram, colour by colour. The rule leaves open how the spectra are scaled; here nothing
is scaled, for the histogram decides about the values in the end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_FIXED_SEED = 0


def matched_noise(picture: Values, mask: Values, fall_off: float, color_variation: float) -> Values:
    """`picture` (h, w, 3) in 0..1, its masked part replaced by noise; `mask` is (h, w), 1 = new."""
    new, old = mask > 0, mask == 0
    if not new.any() or not old.any():
        return picture
    share = mask[:, :, None]
    source = np.fft.rfft2(picture * (1 - share), axes=(0, 1))
    spectrum = _noise_spectrum(picture.shape[:2], color_variation)
    spectrum *= np.abs(source) ** fall_off * np.exp(1j * np.angle(source))
    noise = np.fft.irfft2(spectrum, s=picture.shape[:2], axes=(0, 1))
    noise[new] = with_histogram(noise[new], picture[old])
    mixed: Values = picture + (noise - picture) * share
    return np.clip(mixed, 0, 1)


def with_histogram(values: Values, like: Values) -> Values:
    """`values` (n, channels) with the distribution of `like` (m, channels), each channel by itself."""
    matched = np.empty_like(values)
    for channel in range(values.shape[1]):
        _, place, counts = np.unique(values[:, channel], return_inverse=True, return_counts=True)
        levels, known = np.unique(like[:, channel], return_counts=True)
        ours, theirs = np.cumsum(counts) / len(values), np.cumsum(known) / len(like)
        matched[:, channel] = np.interp(ours, theirs, levels)[place]
    return matched


def _noise_spectrum(size: tuple[int, int], color_variation: float) -> npt.NDArray[np.complex128]:
    """Of white noise, mostly gray; high frequencies are held back."""
    noise = np.random.default_rng(_FIXED_SEED).random((*size, 3))
    gray = noise.mean(axis=2, keepdims=True)
    spectrum = np.fft.rfft2(gray + (noise - gray) * color_variation, axes=(0, 1))
    down, across = 2 * np.fft.fftfreq(size[0])[:, None], 2 * np.fft.rfftfreq(size[1])[None, :]  # 1 is the highest
    return spectrum / ((across**2 + 1) * (down**2 + 1))[:, :, None]
