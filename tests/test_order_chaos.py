"""Order and chaos of a layer: mean-field theory, the path of a trained kernel, trunks iterated as maps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

import trajtools as tt
from trajtools.errors import DataError, SelectionError
from trajtools.reasons import codes
from trajtools.training.order_chaos import mean_field, mean_field_boundary
from trajtools.wiring import NodeSet, Parameter


def gaussian(function):
    """Slow twin of the Gaussian average."""
    return quad(lambda z: function(z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -12, 12, limit=500, epsabs=1e-13)[0]


@pytest.mark.parametrize(
    ("J", "exponent"),
    [(0.5, -0.6931), (0.8, -0.2231), (1.1, 0.00507), (1.25, 0.02354), (1.5, 0.06522), (2, 0.15472), (3, 0.31025)],
)
def test_mean_field_exponents_are_the_known_ones(J, exponent):
    assert mean_field(J).exponent == pytest.approx(exponent, abs=1e-4)


@pytest.mark.parametrize(
    ("inverse", "ratio"),
    [(0.9, 1.0094), (0.8, 1.0361), (0.7, 1.0795), (0.6, 1.1403), (0.5, 1.2204), (0.4, 1.3238), (0.3, 1.4589)],
)
def test_the_boundary_is_the_known_one(inverse, ratio):
    assert mean_field_boundary(inverse) == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize("inverse", [0.9, 0.5, 0.2])
def test_the_boundary_solves_the_equations_by_slow_quadrature(inverse):
    J = 1 / inverse
    J0 = mean_field_boundary(inverse) * J
    found = mean_field(J, J0)
    u, q = found.mean, found.square
    argument = lambda z: J0 * u + J * np.sqrt(q) * z  # noqa: E731
    assert gaussian(lambda z: np.tanh(argument(z))) == pytest.approx(u, abs=1e-8)
    assert gaussian(lambda z: np.tanh(argument(z)) ** 2) == pytest.approx(q, abs=1e-8)
    assert J**2 * gaussian(lambda z: np.cosh(argument(z)) ** -4.0) == pytest.approx(1, abs=1e-6)
    assert found.exponent == pytest.approx(0, abs=1e-6)


def test_the_sign_of_the_mean_does_not_matter():
    assert mean_field(2.0, -2.6) == mean_field(2.0, 2.6)


def test_a_strong_mean_orders_the_map():
    assert mean_field(2.0, 2.4).exponent > 0 > mean_field(2.0, 2.5).exponent


def test_the_exponent_of_a_large_random_map_is_that_of_the_theory():
    rng = np.random.default_rng(1)
    weights = 3.0 / np.sqrt(500) * rng.standard_normal((500, 500))
    found = tt.training.iterated_trunk(
        lambda x: np.tanh(x @ weights), rng.standard_normal((2, 500)), steps=400, product=False
    )
    assert found.exponent == pytest.approx(mean_field(3.0).exponent, abs=0.04)
    assert (found.norm > 1).all()
    assert (found.distance > 1).all()


def test_the_asymptotic_distance_tells_order_from_chaos():
    assert tt.training.asymptotic_distance(0.8, size=300, steps=300) < 1e-9
    assert tt.training.asymptotic_distance(2.0, size=300, steps=300) > 1
    assert tt.training.asymptotic_distance(2.0, 3.2, size=300, steps=300) < 1e-3


@pytest.mark.parametrize(("arguments", "words"), [({"size": 0}, "size=0"), ({"epsilon": 0}, "epsilon=0")])
def test_the_asymptotic_distance_refuses_nonsense(arguments, words):
    with pytest.raises(DataError, match=words):
        tt.training.asymptotic_distance(1.0, **arguments)


def path(J_squared, size=50, seed=0):
    """Kernels along training whose J^2 is as given, exactly."""
    start = np.random.default_rng(seed).standard_normal((size, size))
    start = (start - start.mean()) / start.std() / np.sqrt(size)
    return np.sqrt(np.asarray(J_squared))[:, None, None] * start


def test_a_planted_law_is_found_with_its_constants():
    epochs = 40
    law = 0.25 + 0.02 * np.arange(epochs)
    given = {"rate": 0.02, "momentum": 0.5, "batch": 32, "samples": 32}
    found = tt.training.order_chaos(path(law), **given)
    assert found.time_unit == "epoch"
    assert pytest.approx(law, rel=1e-12) == found.J**2
    assert pytest.approx(0, abs=1e-9) == found.J0
    assert found.slope == pytest.approx(0.02, rel=1e-9)
    assert found.slope_interval == pytest.approx((0.02, 0.02), rel=1e-6)
    assert found.constant == pytest.approx(0.02 * 0.5 * 32 / 0.02, rel=1e-9)
    assert found.crossing == pytest.approx(37.5, rel=1e-9)
    assert found.predicted_crossing == pytest.approx(37.5, rel=1e-9)
    assert found.weight_decay == pytest.approx(found.constant / (4 * 32), rel=1e-12)
    assert found.exponents()[0] == pytest.approx(np.log(0.5), abs=1e-9)


def test_the_slope_stops_at_the_edge_unless_a_window_is_given():
    law = np.concatenate([0.5 + 0.1 * np.arange(6), 1.0 + 0.01 * np.arange(1, 20)])
    assert tt.training.order_chaos(path(law)).slope == pytest.approx(0.1)
    assert tt.training.order_chaos(path(law), window=(8, 20)).slope == pytest.approx(0.01)


def test_intervals_of_noisy_paths_cover_the_slope():
    covered = 0
    for seed in range(40):
        noise = np.cumsum(np.random.default_rng(seed).normal(0, 0.004, 60))
        low, high = tt.training.order_chaos(path(0.2 + 0.01 * np.arange(60) + noise, size=20), rng=seed).slope_interval
        covered += low <= 0.01 <= high
    assert covered >= 33


def test_a_path_without_drift_says_so():
    noise = np.cumsum(np.random.default_rng(3).normal(0, 0.01, 60))
    found = tt.training.order_chaos(path(0.4 + noise - noise[-1] * np.arange(60) / 59))
    assert "zero-not-excluded" in codes(found.warnings)


def test_states_that_are_not_finite_are_counted():
    kernels = path(0.25 + 0.02 * np.arange(20))
    kernels[7, 0, 0] = np.nan
    kernels[9, 1, 1] = np.inf
    found = tt.training.order_chaos(kernels)
    assert np.flatnonzero(np.isnan(found.J)).tolist() == [7, 9]
    assert found.slope == pytest.approx(0.02)
    assert any("2 states" in words.text for words in found.warnings)


def network(T=12):
    """A trajectory with a square kernel stored (out, in), a readout and a bias."""
    rng = np.random.default_rng(0)
    nodes = (NodeSet("in", 6), NodeSet("out", 3), NodeSet("bias", 1))
    parameters = (
        Parameter("hidden.weight", "dense", (6, 6), "float64", 0, 36, "in", "in", 1, 0),
        Parameter("head.weight", "dense", (3, 6), "float64", 36, 18, "in", "out", 1, 0),
        Parameter("head.bias", "bias", (3,), "float64", 54, 3, "bias", "out", -1, 0),
    )
    return tt.Trajectory.from_array(rng.standard_normal((T, 57)), parameters=parameters, nodes=nodes)


def test_the_square_kernel_is_taken_and_others_go_by_name():
    x = network()
    kernel = np.asarray(x)[:, :36]
    assert tt.training.order_chaos(x).layer == "hidden.weight"
    assert pytest.approx(kernel.std(axis=1) * np.sqrt(6)) == tt.training.order_chaos(x).J
    assert pytest.approx(kernel.mean(axis=1) * 6) == tt.training.order_chaos(x).J0
    head = tt.training.order_chaos(x, "head.weight")
    assert pytest.approx(np.asarray(x)[:, 36:54].std(axis=1) * np.sqrt(6)) == head.J
    assert "not-square" in codes(head.warnings)


def test_an_unknown_layer_is_refused_with_the_names():
    with pytest.raises(SelectionError, match=r"hidden\.weight"):
        tt.training.order_chaos(network(), "tail.weight")


@pytest.mark.parametrize("J_squared", [[0.3], [0.3, 0.3], [2.0, 2.1, 2.2]])
def test_too_little_before_the_edge_gives_no_interval_and_no_crash(J_squared):
    found = tt.training.order_chaos(path(J_squared))
    assert np.isnan(found.slope_interval).all()
    assert found.warnings
    found.to_json()


def test_the_path_does_not_depend_on_the_order_of_the_units():
    kernels = path(0.25 + 0.02 * np.arange(15), size=12)
    order = np.random.default_rng(5).permutation(12)
    shuffled = tt.training.order_chaos(kernels[:, order][:, :, order])
    assert pytest.approx(tt.training.order_chaos(kernels).J, rel=1e-12) == shuffled.J


def test_the_methods_of_the_paper_agree_where_they_must():
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0]
    found = tt.training.iterated_trunk(lambda x: 0.8 * x @ rotation, np.ones((2, 5)), steps=60)
    for values in (found.exponent, found.by_norm, found.by_product, found.by_separation):
        assert values == pytest.approx(np.log(0.8), abs=1e-6)
    assert found.radius == pytest.approx(0.8, abs=1e-9)


def test_the_tangent_of_the_logistic_map_gives_ln_2_where_the_separation_saturates():
    start = np.random.default_rng(0).uniform(0.1, 0.9, (20, 1))
    found = tt.training.iterated_trunk(lambda x: 4 * x * (1 - x), start, steps=4000, product=False)
    assert np.mean(found.exponent) == pytest.approx(np.log(2), rel=0.02)
    assert np.abs(found.by_separation).max() < 0.01  # saturated: the published M3 says "no exponent"


def test_orbits_that_run_away_are_counted_not_reported():
    found = tt.training.iterated_trunk(lambda x: x**2, np.array([[0.5, 0.2], [3.0, 4.0]]), steps=50)
    assert np.isnan(found.norm).tolist() == [False, True]
    assert any("1 of 2" in words.text for words in found.warnings)


def test_a_trunk_that_changes_the_shape_is_refused():
    with pytest.raises(DataError, match="shape of its input"):
        tt.training.iterated_trunk(lambda x: x[:, :2], np.ones((1, 3)))


def test_the_path_is_drawn_on_the_diagram():
    found = tt.training.order_chaos(path(0.25 + 0.02 * np.arange(20)))
    ax = found.plot()
    drawn = ax.get_lines()[3]
    assert drawn.get_ydata() == pytest.approx(1 / found.J)
    assert drawn.get_xdata() == pytest.approx(found.J0 / found.J, abs=1e-9)
