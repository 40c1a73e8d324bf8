"""Exponents of tangent vectors without a framework: known maps, and what is said where they miss something."""

import math

import naive_probes as naive
import numpy as np
import pytest
from hypothesis import given, strategies as st
from naive_probes import symmetric
from numpy.testing import assert_allclose

from recorders.tangents import Frame, Tangents, by_blocks, kaplan_yorke
from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import codes


def test_the_kaplan_yorke_dimension_of_known_spectra() -> None:
    assert kaplan_yorke([0.2, 0.1, -0.4, -1.0]) == pytest.approx(2.75)
    assert kaplan_yorke([0.419, -1.623]) == pytest.approx(1 + 0.419 / 1.623)  # Henon
    assert kaplan_yorke([-0.1, -0.2]) == 0.0
    assert kaplan_yorke([0.0, -0.2]) == 1.0
    assert kaplan_yorke([0.3, 0.1], complete=True) == 2.0
    assert math.isnan(kaplan_yorke([0.3, 0.1]))
    assert math.isnan(kaplan_yorke([0.3, np.nan]))
    assert math.isnan(kaplan_yorke([]))


@given(st.lists(st.floats(-2, 2).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=8))
def test_the_dimension_follows_its_definition(exponents) -> None:
    expected = naive.kaplan_yorke(exponents)
    found = kaplan_yorke(exponents)
    assert math.isnan(found) if expected is None else found == pytest.approx(expected)


def follow(matrices, n_weights=None, discard=0, **options):
    n = len(matrices[0])
    tangents = Tangents(
        n if n_weights is None else n_weights,
        n,
        **{"window": 10, "vectors": "both", "of": "full", "seed": 0, **options},
    )
    for m in matrices:
        tangents._advance(lambda columns, m=m: m @ columns)
    return tangents.result(discard=discard)


def test_exponents_of_constant_and_of_random_triangular_maps() -> None:
    m = symmetric([2.0, 0.5, -0.25])
    found = follow([m] * 200, k=3, discard=50)
    assert_allclose(found.values, np.log([2, 0.5, 0.25]), atol=1e-9)
    assert found.kaplan_yorke == pytest.approx(2.0)  # ln 2 - ln 2 = 0, and the third is negative
    assert found.entropy == pytest.approx(np.log(2))
    rng = np.random.default_rng(0)
    diagonals = rng.uniform(0.2, 2, (4000, 3)) * [4, 1, 0.2]
    upper = [np.triu(rng.standard_normal((3, 3)), 1) * 0.1 + np.diag(d) for d in diagonals]
    found = follow(upper, k=3, window=100)
    # Exponents of triangular maps are the means of the logarithms of their diagonals.
    assert_allclose(found.values, np.log(diagonals).mean(0), atol=5e-3)
    assert (
        (found.intervals[:, 0] < np.log(diagonals).mean(0)) & (np.log(diagonals).mean(0) < found.intervals[:, 1])
    ).all()
    assert found.windows.shape == (40, 3)
    assert_allclose(found.windows.mean(0), found.values, atol=0.05)


def test_a_window_sees_what_kept_vectors_have_forgotten() -> None:
    # The second direction is damped to nothing, then unstable: a slow passage through a bifurcation, in two numbers.
    early, late = np.diag([1.0, 0.1]), np.diag([1.0, 3.0])
    found = follow([early] * 30 + [late] * 10, k=1, window=10)
    assert found.windows[-1, 0] == pytest.approx(np.log(3), rel=0.2)
    assert found.windows[:3, 0].max() < 0.01
    assert found.local[-10:].max() < 1e-6  # 0.1^30 3^10 is nothing yet
    assert found.window_starts.tolist() == [0, 10, 20, 30]
    assert found.window_gains[-1] == pytest.approx(10 * found.windows[-1, 0], rel=0.2)


def test_kept_vectors_that_have_lost_what_grows_are_called_delayed() -> None:
    early, late = np.diag([1.0, 0.1]), np.diag([1.0, 3.0])
    found = follow([early] * 30 + [late] * 10, k=1, window=10)
    (words,) = (one.text for one in found.warnings if one.code == "delayed-loss-of-stability")
    assert "in 1 of 4 windows, the first from step 30" in words
    assert "up to 11.1 nats against 0.0" in words or f"up to {10 * found.windows[-1, 0]:.1f} nats" in words
    assert_allclose(found.window_kept, found.local[:, 0].reshape(4, 10).mean(1), atol=1e-12)


@pytest.mark.parametrize(
    "maps",
    [
        [np.diag([1.0, 3.0])] * 40,  # grows from the start
        [np.diag([1.0, 0.1])] * 40,  # never grows
        [np.diag([1.0, 0.8])] * 10 + [np.diag([1.0, 3.0])] * 30,  # was damped by two nats only
        [np.diag([3.0, 1.0])] * 20 + [np.diag([0.2, 1.0])] * 20,  # kept vectors shrink with what grew before
    ],
)
def test_kept_vectors_that_see_what_grows_are_not_called_delayed(maps) -> None:
    found = follow(maps, k=1, window=10)
    assert "delayed-loss-of-stability" not in codes(found.warnings)
    assert len(found.window_kept) == 4


def test_the_growth_of_kept_vectors_in_windows_is_that_of_the_weights() -> None:
    # The second number is a buffer: what goes into it is no growth of the weight.
    found = follow([np.array([[0.5, 0.0], [7.0, 0.0]])] * 40, n_weights=1, k=1, window=10)
    assert_allclose(found.window_kept, np.log(0.5), atol=1e-12)
    assert_allclose(found.windows[:, 0], np.log(0.5), atol=1e-12)
    assert np.isnan(follow([np.eye(2)] * 20, vectors="fresh", k=1).window_kept).all()


def test_growth_in_a_window_is_that_of_the_weights_whatever_the_unit_of_the_buffers() -> None:
    # Heavy ball on one weight of curvature h, the velocity measured in units that differ by a factor of a thousand.
    def maps(unit, h=2.0, eta=0.1, beta=0.9):
        plain = np.array([[1 - eta * h, -eta * beta], [h, beta]])
        scale = np.diag([1.0, unit])
        return [scale @ plain @ np.linalg.inv(scale)] * 20

    one, other = (follow(maps(unit), n_weights=1, k=1, vectors="fresh") for unit in (1.0, 1000.0))
    assert_allclose(one.windows, other.windows, rtol=1e-9)


def test_a_step_without_a_derivative_counts_as_lost() -> None:
    m = np.diag([2.0, 0.5])
    found = follow([m] * 40 + [np.full((2, 2), np.nan)] + [m] * 40, k=1)
    assert found.n_lost == 1
    assert found.values[0] == pytest.approx(np.log(2), rel=0.1)
    assert np.isnan(found.local).sum() == 1
    assert found.warnings[0].code == "not-finite"


def test_a_direction_that_is_wiped_out_has_the_exponent_minus_infinity() -> None:
    found = follow([np.diag([0.5, 0.0])] * 100, k=2)
    assert found.values[0] == pytest.approx(np.log(0.5), rel=0.05)
    assert found.values[1] == -np.inf
    assert np.isnan(found.intervals[1]).all()


def test_too_few_steps_give_values_without_an_interval_and_say_so() -> None:
    found = follow([np.diag([2.0, 0.5])] * 9, k=1)
    assert np.isnan(found.intervals).all()
    assert "interval-unknown" in codes(found.warnings)
    assert "too-few-steps" in codes(found.warnings)


def test_intervals_from_blocks_cover_the_mean_of_correlated_noise() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        noise = rng.standard_normal(1010)
        series = np.convolve(noise, np.ones(11) / 11, "valid")[:1000, None]
        low, high = by_blocks(series, 0.95)[0]
        inside += low < 0 < high
    # 95 % of 300 with a binomial standard deviation of 3.8; blocks of 50 over a memory of 11 lose a little.
    assert 268 <= inside <= 297


@pytest.mark.parametrize(
    ("options", "words"),
    [({"k": 3}, "1 to 2 are possible"), ({"k": 0}, "1 to 2"), ({"window": 0}, "at least one step")],
)
def test_tangents_refuse_what_makes_no_sense(options, words) -> None:
    with pytest.raises(DataError, match=words):
        follow([np.eye(2)], **{"k": 1, **options})


def test_a_result_needs_steps_and_a_level() -> None:
    with pytest.raises(DataError, match="of 0 steps leaves none"):
        Tangents(2, 2, k=1, window=5, vectors="both", of="full", seed=0).result()
    with pytest.raises(DataError, match="discard=5"):
        follow([np.eye(2)] * 5, k=1, discard=5)
    with pytest.raises(UnknownNameError, match='"fresh" or "kept"'):
        follow([np.eye(2)], k=1, vectors="new")


def test_frames_stay_orthonormal() -> None:
    rng = np.random.default_rng(0)
    frame = Frame(rng.standard_normal((6, 3)))
    for _ in range(50):
        frame.advance(rng.standard_normal((6, 6)) @ frame.columns)
    assert_allclose(frame.columns.T @ frame.columns, np.eye(3), atol=1e-12)
