"""SCH-12: the quantile function of the beta distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.beta import beta_cdf, beta_quantile


@given(st.floats(0.2, 5), st.floats(0.2, 5), st.floats(0, 1))
def test_beta_quantile_inverts_its_distribution(a: float, b: float, probability: float) -> None:  # SCH-12
    x = beta_quantile(probability, a, b)
    assert 0 <= x <= 1
    # Beyond these ends a double cannot tell neighbouring quantiles apart.
    if 1e-12 < x < 1 - 1e-12:
        assert beta_cdf(x, a, b) == pytest.approx(probability, abs=1e-9)


def test_beta_quantile_against_scipy() -> None:  # SCH-12
    stats = pytest.importorskip("scipy.stats")
    y = np.linspace(0, 1, 41)
    for a, b in ((0.6, 0.6), (0.3, 2.0), (4.0, 0.5), (1.0, 1.0), (7.0, 9.0)):
        ours = [beta_quantile(float(each), a, b) for each in y]
        np.testing.assert_allclose(ours, stats.beta.ppf(y, a, b), rtol=1e-7, atol=1e-12)
