"""The count sketch: linear, seeded, norm-keeping, the same bits however the state is cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from recorders import Sketch
from recorders.storage import Sketcher
from trajtools.errors import RecordingError

MASK = (1 << 64) - 1


def naive_mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def naive_sketch(x, k, seed):
    """The formula of the docstring, one entry at a time, in Python integers."""
    out = [0.0] * k
    for i, value in enumerate(x):
        h = naive_mix((naive_mix(seed) + (i + 1) * 0x9E3779B97F4A7C15) & MASK)
        out[(h >> 1) % k] += (1 - 2 * (h & 1)) * float(value)
    return np.array(out)


@pytest.mark.parametrize(("k", "seed"), [(1, 0), (7, 3), (64, 2**64 - 1)])
def test_the_sketch_is_the_documented_sum(k, seed):
    x = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    assert_array_equal(Sketch(k, seed)(x), naive_sketch(x, k, seed))


@pytest.mark.parametrize("k", [1, 3, 4096, 2**31 - 3, 2**31 + 11])
def test_places_are_remainders_of_the_hash_for_every_size(k):
    place, sign = Sketch(k, 5).places(np.arange(10, 300))
    expected = [naive_mix((naive_mix(5) + (i + 1) * 0x9E3779B97F4A7C15) & MASK) for i in range(10, 300)]
    assert place.tolist() == [(h >> 1) % k for h in expected]
    assert sign.tolist() == [1 - 2 * (h & 1) for h in expected]


def test_the_hash_is_pinned():
    place, sign = Sketch(1000, 42).places(np.arange(4))
    expected = [naive_mix((naive_mix(42) + (i + 1) * 0x9E3779B97F4A7C15) & MASK) for i in range(4)]
    assert place.tolist() == [(h >> 1) % 1000 for h in expected]
    assert sign.tolist() == [1 - 2 * (h & 1) for h in expected]
    # splitmix64 seeded with 0 begins with this number in every published implementation.
    assert naive_mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_every_bit_is_the_same_however_the_state_is_cut():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(300_000)
    whole = Sketch(50, 9)(x)
    for cuts in ([1, 2, 77_777], [65_536, 131_072], [150_000]):
        out = np.zeros(50)
        sketcher = Sketcher(Sketch(50, 9), x.size)
        for part, offset in zip(np.split(x, cuts), [0, *cuts], strict=True):
            sketcher.add(part, offset, out)
        assert_array_equal(out, whole)


def test_large_states_hash_as_they_go(monkeypatch):
    x = np.random.default_rng(3).standard_normal(200_000)
    kept = Sketch(33, 1)(x)
    monkeypatch.setattr("recorders.storage._CACHED", 10)
    assert_array_equal(Sketch(33, 1)(x), kept)


def test_the_sketch_is_linear():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 1000))
    s = Sketch(40, 5)
    # Sums of 25 terms in another order: 1e-12 is thousands of roundings.
    assert_allclose(s(2 * a - 3 * b), 2 * s(a) - 3 * s(b), rtol=0, atol=1e-12)


def test_squared_norms_are_kept_on_average_over_seeds():
    x = np.random.default_rng(5).standard_normal(400)
    k, n = 100, 400
    squares = np.array([(Sketch(k, seed)(x) ** 2).sum() for seed in range(n)]) / (x**2).sum()
    # Variance of one is at most 2 / k, so the mean of n has a standard deviation of at most sqrt(2 / (k n)) = 0.007.
    assert abs(squares.mean() - 1) < 5 * np.sqrt(2 / (k * n))
    assert squares.var() < 1.5 * 2 / k


def test_several_states_are_sketched_at_once():
    x = np.random.default_rng(6).standard_normal((3, 2, 50))
    s = Sketch(8, 1)
    assert_array_equal(s(x)[2, 1], s(x[2, 1]))


def test_bad_settings_are_refused():
    with pytest.raises(RecordingError, match="at least one number"):
        Sketch(0)
    with pytest.raises(RecordingError, match=r"0 \.\. 2\*\*64 - 1"):
        Sketch(4, -1)
