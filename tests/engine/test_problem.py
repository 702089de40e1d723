"""What training starts from."""

import numpy as np
import pytest

from nearfar.engine.problem import initial_points
from nearfar.method.geometry import density


@pytest.mark.parametrize("dim", [3, 16, 128])
def test_initial_points_are_uniform_directions(dim):
    points = initial_points(0, 2_000, dim).astype(np.float64)
    assert np.allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-6)
    s = np.sum(points[:1_000] * points[1_000:], axis=1)
    middle = np.linspace(-1, 1, 4_001)
    below = np.cumsum(density(middle, dim)) * (middle[1] - middle[0])
    expected = np.interp(np.sort(s), middle, below)
    distance = np.abs(expected - (np.arange(len(s)) + 0.5) / len(s)).max()
    assert distance < 1.95 / np.sqrt(len(s))  # Kolmogorov's bound at 0.1 %
    assert not np.array_equal(points, initial_points(1, 2_000, dim))
