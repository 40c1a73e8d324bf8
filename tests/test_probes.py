"""Curvature, shadows and rates without a framework: against dense linear algebra and known answers."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from naive_probes import symmetric
from numpy.testing import assert_allclose

from recorders.hessian import Basis, Batches, HessianProbes, Precision, examples, norm, pieces, rademacher
from recorders.shadows import (
    GROUND,
    CurvatureRule,
    Floor,
    Shadow,
    climb,
    floor_of,
    own_ascent,
    points_down,
    random_direction,
    read,
)
from trajtools.errors import DataError, UnknownNameError


class Dense:
    """A Hessian that is known: a matrix, and what each batch says of its gradient."""

    precision = Precision(np.dtype(np.float64), float(np.finfo(np.float64).eps))

    def __init__(self, matrix, _loss_fn, batch) -> None:
        self.n, self._matrix, self._batch = len(matrix), matrix, batch

    def __call__(self, vector):
        return self._matrix @ vector

    def flatten(self, vector):
        return np.asarray(vector), lambda product: product

    def along_gradients(self):
        return self._batch


PROBES = HessianProbes(Dense)


def extremes(h, **options):
    return PROBES.sharpness(h, None, **{"of": "full", "tolerance": 1e-8, "max_products": 500, **options})


SPREAD = np.r_[-3.0, -1.0, np.linspace(-0.2, 0.3, 295), 2.0, 5.0, 9.0]


def test_a_preconditioner_changes_the_units_of_the_hessian() -> None:
    rng = np.random.default_rng(0)
    h, p = symmetric(SPREAD), rng.uniform(0.1, 10, len(SPREAD))
    dense = np.sort(np.linalg.eigvals(h / p[:, None]).real)  # of P^-1 H
    found = extremes(h, preconditioner=p, k=2)
    assert_allclose(found.largest, dense[::-1][:2], rtol=1e-7)
    assert_allclose(found.smallest, dense[:2], rtol=1e-7)
    assert set(found.metrics) == {
        f"preconditioned_{name}_full" for name in ("h_max", "h_min", "h_largest", "h_smallest")
    }
    assert_allclose(extremes(h, preconditioner=2 * p, k=2).largest, found.largest / 2, rtol=1e-7)
    with pytest.raises(DataError, match="1 of 300 entries of the preconditioner are not finite and positive"):
        extremes(h, preconditioner=np.r_[0.0, p[1:]])


@pytest.mark.parametrize("values", [SPREAD, np.arange(1.0, 40), [2.5], [-1.0, 4.0]], ids=["large", "dense", "1", "2"])
def test_both_ends_of_a_spectrum_are_found(values) -> None:
    k = min(3, len(values))
    found = extremes(symmetric(values), k=k)
    assert found.converged
    assert_allclose(found.largest, np.sort(values)[::-1][:k], rtol=1e-9, atol=1e-9)
    assert_allclose(found.smallest, np.sort(values)[:k], rtol=1e-9, atol=1e-9)


def test_residuals_are_those_of_the_vectors() -> None:
    h = symmetric(SPREAD)
    found = extremes(h, k=2, tolerance=1e-3)
    for value, vector, residual in zip(found.smallest, found.smallest_vectors, found.smallest_residuals, strict=True):
        assert_allclose(np.linalg.norm(vector), 1, rtol=1e-12)
        assert_allclose(np.linalg.norm(h @ vector - value * vector), residual, rtol=1e-6, atol=1e-12)
        assert np.abs(np.linalg.eigvalsh(h) - value).min() <= residual + 1e-12


def test_a_search_that_is_longer_than_its_basis_goes_on_after_a_restart() -> None:
    # Eigenvalues that crowd at both ends need more products than the 64 vectors that are held.
    values = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    found = extremes(symmetric(values), k=2, tolerance=1e-5, max_products=3000)
    assert found.converged
    assert found.n_products > 64
    assert_allclose(found.largest, np.sort(values)[::-1][:2], atol=1e-6)
    assert_allclose(found.smallest, np.sort(values)[:2], atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "roundoff", "most"), [("float32", 1e-7, 120), ("float32", 1e-3, 160), ("float64", 1e-16, 60)]
)
def test_the_basis_stays_orthogonal_where_few_vectors_are_orthogonalised_again(dtype, roundoff, most) -> None:
    rng = np.random.default_rng(1)
    values = np.r_[-1.0, rng.normal(0, 0.1, 3000), 2.0, 3.0].astype(dtype)
    left, right = rng.normal(0, 1 / math.sqrt(len(values)), (2, len(values))).astype(dtype)

    def product(v):
        return values * v + roundoff * left * (right @ v)  # not symmetric, by the roundoff

    def basis(level=None):
        one = Basis(product, 80, np.ones(len(values)), np.random.default_rng(0), precision)
        one.level = one.level if level is None else level
        return one

    def overlap(one):
        inside = one.vectors[: one.size].astype(np.float64)
        return np.abs(inside @ inside.T - np.eye(one.size)).max()

    precision = Precision(np.dtype(dtype), roundoff)
    loose, partial = basis(level=np.inf), basis()
    for one in (loose, partial):
        while one.size < one.room:
            one.grow()
    assert overlap(loose) > 100 * partial.level  # orthogonality is lost without it
    assert overlap(partial) <= partial.level
    for _ in range(2):  # and after restarts
        partial.shrink(*partial.ritz(), np.r_[:20, 60:80])
        while partial.size < partial.room:
            partial.grow()
        assert overlap(partial) <= partial.level
    assert partial.n_products == 160
    assert 2 <= partial.n_orthogonalised <= most
    found, weights = partial.ritz()
    assert_allclose(found[[0, -2, -1]], [-1, 2, 3], atol=20 * max(roundoff, np.finfo(dtype).eps))
    assert_allclose(np.linalg.norm(partial.combine(weights), axis=1), 1, rtol=1e-12)


def test_float32_keeps_its_range() -> None:
    for size in (1e-22, 1.0, 1e22):
        vector = np.full(200_000, size, np.float32)
        assert_allclose(norm(vector), float(np.float32(size)) * math.sqrt(200_000), rtol=1e-6)


def test_a_search_that_is_cut_short_says_so() -> None:
    found = extremes(symmetric(SPREAD), tolerance=1e-12, max_products=6)
    assert not found.converged
    assert found.n_products == 6
    assert found.warnings[0].code == "not-converged"


def test_eigenvalues_of_low_rank_and_none_at_all_are_found() -> None:
    low = symmetric(np.r_[4.0, 3.0, -1.0, np.zeros(197)])
    found = extremes(low, k=2)
    assert_allclose(found.largest, [4, 3], atol=1e-10)
    assert_allclose(found.smallest, [-1, 0], atol=1e-10)
    assert found.n_products < 40
    nothing = extremes(np.zeros((100, 100)))
    assert nothing.converged
    assert (nothing.h_max, nothing.h_min) == (0.0, 0.0)


def test_multiplicities_are_right_where_all_directions_are_looked_at() -> None:
    found = extremes(symmetric([3.0, 3.0, 1.0, -2.0, -2.0]), k=2)
    assert_allclose(found.largest, [3, 3], atol=1e-12)
    assert_allclose(found.smallest, [-2, -2], atol=1e-12)


def test_one_end_alone_leaves_the_other_empty_and_unrecorded() -> None:
    found = extremes(symmetric(SPREAD), which="largest", of="subset")
    assert found.metrics == {"h_max_subset": found.h_max}
    assert math.isnan(found.h_min)
    assert found.smallest.shape == (0,)


def test_the_scale_of_the_loss_scales_its_curvature() -> None:
    h = symmetric(SPREAD)
    one, other = extremes(h), extremes(1e-6 * h)
    assert_allclose(other.largest, 1e-6 * one.largest, rtol=1e-9)
    assert_allclose(other.smallest, 1e-6 * one.smallest, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 0}, DataError, "must be 1 to 4"),
        ({"k": 9}, DataError, "must be 1 to 4"),
        ({"which": "top"}, UnknownNameError, '"largest" or "smallest"'),
        ({"of": "test"}, UnknownNameError, '"full", "subset" or "batch"'),
        ({"max_products": 3}, DataError, "at least 4 products"),
        ({"tolerance": 0.0}, DataError, "must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_way_out(options, error, words) -> None:
    with pytest.raises(error, match=words):
        extremes(np.eye(4), **options)


def test_a_curvature_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        extremes(np.full((4, 4), np.nan))
    with pytest.raises(DataError, match="not finite"):
        PROBES.trace(np.diag([np.inf] * 3), None, samples=2, of="full")


def test_the_trace_of_a_diagonal_is_exact_and_of_others_within_its_error() -> None:
    exact = PROBES.trace(np.diag(np.arange(5.0)), None, samples=4, of="full")
    assert (exact.value, exact.standard_error) == (10.0, 0.0)
    h = symmetric(SPREAD)
    found = PROBES.trace(h, None, samples=400, of="full", seed=1)
    # The variance of one sample is 2 sum of the squared entries off the diagonal.
    theory = math.sqrt(2 * (np.sum(h**2) - np.sum(np.diag(h) ** 2)) / 400)
    assert_allclose(found.standard_error, theory, rtol=0.2)
    assert abs(found.value - np.trace(h)) < 4 * theory
    assert math.isnan(PROBES.trace(np.eye(3), None, samples=1, of="full").standard_error)


def test_the_quadrature_has_the_moments_of_the_spectrum() -> None:
    h = symmetric(SPREAD)
    found = PROBES.spectral_density(h, None, steps=12, samples=60, of="full")
    assert_allclose(found.weights.sum(1), 1, rtol=1e-12)
    for power in range(1, 6):
        value, error = found.moment(power)
        assert abs(value - np.mean(SPREAD**power)) < 4 * error
    # For its own vector the quadrature is exact up to degree 2 x 12 - 1.
    z = rademacher(len(h), np.random.default_rng(0))
    moment, v = [], z
    for _ in range(24):
        moment.append(z @ v / len(z))
        v = h @ v
    assert_allclose([(found.weights[0] * found.nodes[0] ** p).sum() for p in range(24)], moment, rtol=1e-9)


def test_a_density_integrates_to_one_and_peaks_where_the_eigenvalues_are() -> None:
    h = np.diag(np.repeat([-1.0, 2.0], [300, 100]))
    found = PROBES.spectral_density(h, None, steps=5, samples=3, of="full")
    at = np.linspace(-3, 4, 2001)
    density = found.density(at, width=0.1)
    assert_allclose(np.trapezoid(density, at), 1, rtol=1e-9)
    assert_allclose(np.trapezoid(density[at < 0.5], at[at < 0.5]), 0.75, rtol=1e-9)
    with pytest.raises(DataError, match="width=0"):
        found.density(at, 0)


def test_curvature_along_gradients_counts_batches_without_one() -> None:
    found = PROBES.batch_sharpness(np.eye(2), None, (6.0, 2.0), (0.0, 0.0), (5.0, 1.0))
    assert (found.value, found.standard_error) == (4.0, 1.0)
    assert found.settings["n_without_gradient"] == 1
    assert_allclose(found.samples, [3, np.nan, 5])


# ----------------------------------------------------------------------------------------------------------- batches


def test_batches_are_gone_through_again_and_generators_are_refused() -> None:
    twice = Batches([(1, 2), [3, 4], 5])
    assert list(twice) == list(twice) == [(1, 2), (3, 4), (5,)]
    with pytest.raises(DataError, match="Pass the loader itself"):
        Batches(iter([1]))
    with pytest.raises(UnknownNameError, match='"mean" or "sum"'):
        Batches([1], reduction="none")
    with pytest.raises(DataError, match="empty"):
        list(Batches([]))


def test_data_come_as_one_batch_or_as_batches() -> None:
    assert pieces((1, 2)) == (((1, 2),), "one")
    assert pieces((Batches([1], reduction="sum"),))[1] == "sum"
    with pytest.raises(DataError, match="pass them alone"):
        pieces((Batches([1]), 2))
    with pytest.raises(DataError, match="no data"):
        pieces(())


def test_examples_are_counted_on_the_first_array() -> None:
    assert examples(({"a": [np.zeros((7, 2))]}, 3)) == 7
    with pytest.raises(DataError, match="no number of examples"):
        examples((np.float64(3), "x"))


# ----------------------------------------------------------------------------------------------------------- shadows


def test_a_step_of_a_copy_is_read_exactly() -> None:
    h, d = np.array([4.0, -1.0]), np.array([3e-6, 4e-6])
    q, eta = h * d, 0.3
    growth, curvature, residual = read(np, (d @ d, d @ q, q @ q), d @ d, (d - eta * q) @ (d - eta * q))
    assert_allclose(growth, np.log(np.linalg.norm((1 - eta * h) * d) / np.linalg.norm(d)), rtol=1e-12)
    assert_allclose(curvature, 0.36 * 4 - 0.64, rtol=1e-12)
    assert_allclose(residual, np.linalg.norm(q - curvature * d) / np.linalg.norm(d), rtol=1e-9)
    assert own_ascent(np, d @ d, 4 * (d @ d)) == 0.5
    assert own_ascent(np, d @ d, 0.0) == 0.0


@pytest.mark.parametrize(
    ("curvature", "residual", "momentum", "down"),
    [(-0.1, 0, False, True), (9.9, 0, False, True), (10.1, 0, False, False), (1, 2, False, False), (1, 0, True, False)],
)
def test_a_copy_says_which_end_it_points_to(curvature, residual, momentum, down) -> None:
    assert bool(points_down(curvature, residual, 0.1, momentum)) is down


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_the_gain_is_the_largest_rise_of_the_sum(growths) -> None:
    state = GROUND
    for growth in [*growths, math.nan]:
        state = climb(np, state, growth)
    sums = np.r_[0, np.cumsum(growths)]
    assert_allclose(
        state.gain, max(sums[j] - sums[i] for i in range(len(sums)) for j in range(i, len(sums))), atol=1e-9
    )
    assert_allclose(state.rise, sums[-1] - sums.min(), atol=1e-9)


def test_what_a_quiet_copy_has_missed_is_counted_at_the_rate_of_its_rise() -> None:
    state = GROUND
    for growth in [0.0] * 100 + [0.5] * 20:
        state = climb(np, state, growth)
    assert state.quiet == 101  # the first half nat does not count yet
    assert_allclose(state.missed, 101 * 10 / 20)


def test_the_floor_is_that_of_the_formula() -> None:
    assert_allclose(floor_of(np, 2.0**-53, 10.0, 1e-6, 9.0), 2.0**-53 * 10 / 1e-6 * np.exp(9), rtol=1e-12)


def test_growth_that_begins_late_is_doubted_in_words_and_once() -> None:
    floor = Floor(2.0**-53)
    for _ in range(20):
        floor.note(-0.01, 1.0, 1e-8)
    with pytest.warns(UserWarning, match=r"quiet for 20 steps .* fresh offsets \(window=\) or tangent_exponents"):
        floor.note(20.0, 1.0, 1e-8)
    floor.note(1.0, 1.0, 1e-8)  # no second warning
    assert floor.warning.code == "delayed-loss-of-stability"


def test_growth_from_the_beginning_is_not_doubted() -> None:
    floor = Floor(2.0**-53)
    for _ in range(40):  # chaos from the start; and pytest turns warnings into errors
        floor.note(1.0, 1.0, 1e-8)
    assert floor.value > 1e6
    assert floor.warning is None
    floor.afresh()
    assert floor.climb.gain == 0.0


def shadow(**options):
    settings = {"epsilon": None, "ascent": None, "window": None, "of": "batch", "roundoff": 2.0**-53, **options}
    return Shadow(settings.pop("directions", ("forward", "reverse")), **settings)


def test_epsilon_is_chosen_from_the_weights() -> None:
    assert_allclose(shadow()._choose_epsilon(2.0), 2 * math.sqrt(2.0**-53), rtol=1e-12)
    assert shadow(epsilon=0.5)._choose_epsilon(0.0) == 0.5
    with pytest.raises(DataError, match="pass epsilon="):
        shadow()._choose_epsilon(0.0)


def test_metrics_have_their_names_before_the_first_step() -> None:
    before = shadow().metrics
    after = shadow(epsilon=1e-6)
    after._note("forward", (0.1, -1.0, 0.0))
    after._note("reverse", (0.7, 5.0, 0.0))
    after._judge(0.1, False, 1.0)
    assert before.keys() == after.metrics.keys()
    assert all(math.isnan(value) for value in before.values())
    assert after.metrics["shadow_h_min_batch"] == after.h_min == -1.0
    assert after.metrics["shadow_h_max_batch"] == after.h_max == 5.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"directions": ("up",)}, UnknownNameError, '"forward", "reverse" or both'),
        ({"epsilon": 0.0}, DataError, "epsilon=0.0: it must be positive"),
        ({"window": -1}, DataError, "window=-1"),
        ({"of": "x"}, UnknownNameError, "choose the Hessian"),
    ],
)
def test_a_shadow_refuses_what_makes_no_sense(options, error, words) -> None:
    with pytest.raises(error, match=words):
        shadow(**options)


def test_offsets_are_unit_vectors_that_differ_between_copies_and_draws() -> None:
    drawn = [random_direction(50, 0, *which) for which in (("forward", 0), ("reverse", 0), ("forward", 1))]
    assert_allclose(np.array(drawn) @ np.array(drawn).T, np.eye(3), atol=0.5)
    assert_allclose([np.linalg.norm(d) for d in drawn], 1, rtol=1e-12)
    assert (random_direction(50, 0, "forward", 1) == drawn[2]).all()


# ------------------------------------------------------------------------------------------------------------- rates


def rates(rule, curvatures, start=0.1):
    smoothed, rate, found = math.nan, start, []
    for n, h in enumerate(curvatures, 1):
        smoothed = rule.smooth(np, smoothed, h, n)
        rate = float(rule.rate(np, rate, smoothed, n))
        found.append(rate)
    return found


def test_the_rate_is_c_over_the_smoothed_curvature() -> None:
    assert rates(CurvatureRule(c=1.5, smoothing=0.0, warm_up=0), [5.0, 10.0, 3.0]) == [0.3, 0.15, 0.5]
    assert_allclose(rates(CurvatureRule(smoothing=0.5, warm_up=0), [2.0, 4.0, 8.0]), [1 / 2, 1 / 3, 1 / 5.5])


def test_the_rate_waits_keeps_to_its_interval_and_to_its_bounds() -> None:
    assert rates(CurvatureRule(smoothing=0.0, warm_up=2), [5.0] * 4) == [0.1, 0.1, 0.2, 0.2]
    late = CurvatureRule(smoothing=0.0, warm_up=1, interval=3)
    assert_allclose(rates(late, [5.0, 5.0, 4.0, 2.0, 1.0]), [0.1, 0.2, 0.2, 0.2, 1.0])
    bounded = CurvatureRule(smoothing=0.0, warm_up=0, lowest=0.2, highest=0.4)
    assert rates(bounded, [100.0, 0.01, 4.0]) == [0.2, 0.4, 0.25]


def test_curvature_that_is_not_positive_leaves_the_rate_alone() -> None:
    rule = CurvatureRule(smoothing=0.0, warm_up=0)
    assert rates(rule, [math.nan, -3.0, math.inf, 5.0, -1.0, 0.0]) == [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]


@pytest.mark.parametrize("options", [{"c": 0}, {"smoothing": 1.0}, {"lowest": 2, "highest": 1}, {"interval": 0}])
def test_a_rule_refuses_what_makes_no_sense(options) -> None:
    with pytest.raises(DataError, match=next(iter(options))):
        CurvatureRule(**options)
