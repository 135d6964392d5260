"""Samplers that use earlier predictions: the coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.samplers.multistep import lms_coefficient


@given(st.lists(st.floats(0.2, 1.0), min_size=2, max_size=5))
def test_lms_coefficients_integrate_polynomials_exactly(gaps: list[float]) -> None:  # UPD-7
    *nodes, end = reversed(np.cumsum(gaps).tolist())
    start = nodes[-1]
    nodes = nodes[::-1]
    weights = [lms_coefficient(nodes, j, start, end) for j in range(len(nodes))]
    for power in range(len(nodes)):
        exact = (end ** (power + 1) - start ** (power + 1)) / (power + 1)
        got = sum(weight * node**power for weight, node in zip(weights, nodes, strict=True))
        assert got == pytest.approx(exact, rel=1e-6, abs=1e-8)


def test_lms_coefficient_against_scipy() -> None:  # UPD-7
    integrate = pytest.importorskip("scipy.integrate")
    nodes = [2.0, 3.1, 4.7, 7.5]
    for j in range(4):

        def basis(tau: float, j: int = j) -> float:
            return float(np.prod([(tau - nodes[k]) / (nodes[j] - nodes[k]) for k in range(4) if k != j]))

        assert lms_coefficient(nodes, j, 2.0, 1.2) == pytest.approx(integrate.quad(basis, 2.0, 1.2)[0], rel=1e-9)
