"""The counter-based generator against plain Python integers, and its distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nearfar.runtime import counter
from nearfar.runtime.counter import Purpose

MASK = 2**64 - 1


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def plain_stream(seed: int, purpose: int, step: int) -> int:
    key = 0
    for part in (seed, purpose, step):
        key = mix((key + 0x9E3779B97F4A7C15 + part) & MASK)
    return key


def plain_bits(key: int, position: int, attempt: int) -> int:
    z = mix((key + 0x9E3779B97F4A7C15 * (position + 1)) & MASK)
    return mix((z + 0xD1342543DE82EF95 * (attempt + 1)) & MASK)


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    purpose=st.sampled_from(Purpose),
    step=st.integers(0, 2**40),
    position=st.integers(0, 2**40),
    attempt=st.integers(0, 1000),
)
def test_kernels_and_arrays_equal_plain_integers(seed, purpose, step, position, attempt):
    key = counter.stream(seed, purpose, step)
    assert int(key) == plain_stream(seed % 2**64, purpose, step)
    assert counter.stream_at(counter.stream_base(seed, purpose), step) == key
    expected = plain_bits(int(key), position, attempt)
    assert int(counter.bits(key, position, attempt)[0]) == expected
    assert int(counter.bits_at(key, position, attempt)) == expected
    assert counter.uniform_at(key, position, attempt) == (expected >> 11) / 2**53
    assert counter.uniform(key, position, attempt)[0] == (expected >> 11) / 2**53


def test_uniform_is_uniform_and_attempts_are_unrelated():
    key = counter.stream(1, Purpose.NEGATIVE, 7)
    first = counter.uniform(key, np.arange(50_000), 0)
    second = counter.uniform(key, np.arange(50_000), 1)
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.02
    # the test would notice: a slightly bent distribution is rejected
    assert stats.kstest(first**1.05, "uniform").pvalue < 1e-6


def test_every_coordinate_matters():
    def draw(seed=0, purpose=Purpose.ORDER, step=0, position=0, attempt=0):
        return int(counter.bits(counter.stream(seed, purpose, step), position, attempt)[0])

    drawn = {
        draw(),
        draw(seed=1),
        draw(purpose=Purpose.NEGATIVE),
        draw(step=1),
        draw(position=1),
        draw(attempt=1),
    }
    assert len(drawn) == 6


def test_normal_is_standard_gaussian():
    sample = counter.normal(counter.stream(3, Purpose.INITIAL), np.arange(50_000))
    assert stats.kstest(sample, "norm").pvalue > 1e-3


@given(n=st.integers(1, 3000), seed=st.integers(0, 1000))
def test_permutation_is_a_bijection(n, seed):
    key = counter.stream(seed, Purpose.ORDER)
    order = counter.permutation(key, n)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert counter.permuted_at(key, n - 1, n) == order[-1]


@pytest.mark.parametrize("n", [7, 16, 33])
def test_permutation_sends_every_place_everywhere_equally_often(n):
    runs = 4000
    table = np.zeros((n, n))
    for seed in range(runs):
        table[np.arange(n), counter.permutation(counter.stream(seed, Purpose.ORDER), n)] += 1
    chi2 = ((table - runs / n) ** 2 / (runs / n)).sum()
    assert stats.chi2.sf(chi2, (n - 1) ** 2) > 1e-4


def test_neighbours_in_an_epoch_are_unrelated():
    order = counter.permutation(counter.stream(0, Purpose.ORDER, 5), 20_000)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03
