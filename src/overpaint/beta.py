"""The quantile function of the beta distribution, which the "Beta" schedule needs and numpy lacks."""

from __future__ import annotations

import math

_TINY = 1e-300


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x in [0, 1] below which a Beta(a, b) variable lies with the given probability."""
    if probability <= 0 or probability >= 1:
        return float(probability >= 1)
    if probability > beta_cdf(0.5, a, b):
        return 1 - _quantile(1 - probability, b, a)
    return _quantile(probability, a, b)


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    log_front = a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _fraction(1 - x, b, a) / b


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _quantile(probability: float, a: float, b: float) -> float:
    """Newton's method in log x, kept inside a shrinking bracket: the density may be infinite at 0."""
    probability = max(probability, 1e-290)  # keeps the slope above zero
    leading = math.exp((math.log(probability * a) + _log_beta(a, b)) / a)
    if leading < 1e-18:
        return leading
    low, high, x = 0.0, 1.0, min(0.5, leading)
    for _ in range(100):
        error = beta_cdf(x, a, b) - probability
        low, high = (x, high) if error < 0 else (low, x)
        log_slope = a * math.log(x) + (b - 1) * math.log1p(-x) - _log_beta(a, b)  # of the distribution, over log x
        step = -error / math.exp(log_slope)
        moved = x * math.exp(min(max(step, -50.0), 50.0))
        if not low < moved < high:
            moved = (low + high) / 2
        if abs(moved - x) <= 1e-15 * x:
            return moved
        x = moved
    return x


def _fraction(x: float, a: float, b: float) -> float:
    """Lentz's method on the continued fraction of DLMF 8.17.22."""
    c, d = 1.0, 1.0 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
