"""The second stage's kernels against `nearfar.method.geometry`."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nearfar.engine.cpu.choose import draw_weighted, sum_pieces, weigh
from nearfar.method.geometry import stage_two_weight


def weights(s, dim):
    n = len(s)
    weight, power = np.empty(n, np.float32), np.empty(n, np.float32)
    weigh(np.ascontiguousarray(s)[None], 0, n, dim, weight, power)
    return weight


EDGE = np.array([1.0, -1.0, 0.0, -0.0, 1e-8, 0.9999999, 1.0000001], np.float32)


@given(
    dim=st.integers(2, 4096),
    s=arrays(np.float32, st.integers(1, 200), elements=st.floats(-1, 1, width=32)),
)
@example(dim=2, s=EDGE)
@example(dim=3, s=EDGE)
@example(dim=128, s=EDGE)
@example(dim=4096, s=EDGE)
def test_weights_are_those_of_the_formula(dim, s):
    found, expected = weights(s, dim), stage_two_weight(s, dim)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert not found[s < 0].any()
    # the ratio of two gaps is rounded to float32 and then raised to the power (d-3)/2
    slack = 1e-6 * max(1.0, dim / 2)
    assert found == pytest.approx(expected, rel=slack, abs=1e-30)


@given(
    weight=arrays(np.float32, st.integers(1, 300), elements=st.sampled_from([0.0, 0.5, 1.0])),
    u=st.floats(0, 1, exclude_max=True),
)
def test_a_draw_has_weight_and_its_place_in_the_sum(weight, u):
    pieces = np.empty(len(weight), np.float32)
    sum_pieces(weight, len(weight), pieces)
    found = draw_weighted(weight, len(weight), pieces, u)
    if not weight.any():
        assert found == -1
        return
    # sums of halves are exact, so the place is exactly that of the inverse distribution function
    cumulative = np.cumsum(weight.astype(np.float64))
    assert found == np.searchsorted(cumulative, u * cumulative[-1], side="right")
    assert weight[found] > 0
