"""The reference systems: their tangent maps, and the exponents that come out of them."""

import numpy as np
import pytest

from trajtools.errors import DataError
from trajtools.systems import SYSTEMS, Spectrum, dictionary_orbit, logistic, quartic_descent, saddle_escape

# Value and tolerance: exact where the system says so, else from the literature, with the spread of a short run
# (16 initial conditions, the samples given) in the tolerance.
LITERATURE = {
    "henon": (3000, [0.4192, -1.6232], 0.006),
    "lorenz": (3000, [0.9056, 0.0, -14.5723], 0.04),
    "rossler": (3000, [0.0714, 0.0, -5.3943], 0.012),
    "van_der_pol": (2000, [0.0, -1.0594], 0.003),
}


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_tangent_map_is_the_derivative_of_the_rule(name):
    system, rng = SYSTEMS[name](), np.random.default_rng(1)
    states = system.start(rng, 3)
    for _ in range(3):
        states = system.advance(states)
    h = 1e-6
    steps = h * np.eye(system.dimension)
    numeric = np.stack([(system.rule(states + e) - system.rule(states - e)) / (2 * h) for e in steps], axis=2)
    # Central differences: h^2 times the third derivative, and rounding / h.
    np.testing.assert_allclose(system.jacobian(states), numeric, rtol=0, atol=1e-8 * max(1, np.abs(numeric).max()))


@pytest.mark.parametrize("name", sorted(name for name, make in SYSTEMS.items() if make().exact))
def test_exponents_equal_the_closed_form(name):
    system = SYSTEMS[name]()
    k = min(len(system.exact), 4)
    spectrum = system.exponents(1500, rng=np.random.default_rng(2), k=k, transient=500)
    # Linear systems converge like 1/T from the direction of the first frame, the others scatter by their own error.
    tolerance = 5 * np.nan_to_num(spectrum.standard_errors) + 1.5 / 1500
    assert (np.abs(spectrum.values - system.exact[:k]) <= tolerance).all(), spectrum.values


@pytest.mark.parametrize("name", sorted(LITERATURE))
def test_exponents_equal_the_literature(name):
    T, values, tolerance = LITERATURE[name]
    spectrum = SYSTEMS[name]().exponents(T, rng=np.random.default_rng(3), k=len(values))
    np.testing.assert_allclose(spectrum.values, values, rtol=0, atol=tolerance)


def test_saturated_softmax_training_is_chaotic():
    # Most initial conditions reach the chaotic band, a few a periodic orbit beside it: hence the median.
    samples = SYSTEMS["softmax_map"]().exponents(5000, rng=np.random.default_rng(3), k=1).samples
    assert np.median(samples) == pytest.approx(0.242, abs=0.004)


def test_kaplan_yorke_dimension_interpolates_the_spectrum():
    def dimension(*values):
        return Spectrum(np.array(values), np.zeros(len(values)), np.zeros((1, len(values))), {}).kaplan_yorke_dimension

    assert dimension(0.2, 0.1, -0.4, -1.0) == pytest.approx(2.75)
    assert dimension(-0.1, -0.2) == 0.0
    assert np.isnan(dimension(0.2, 0.1))


def test_saddle_escape_grows_for_twenty_e_folds_and_meets_again():
    system = saddle_escape()
    (reference, copies), *_ = system.twins(1, 3, 700, epsilon=1e-10, rng=np.random.default_rng(4), transient=0)
    for copy in copies:
        d = np.abs(copy - reference)[:, 0]
        assert d.max() / d[0] > np.exp(18)
        assert d[-1] < 1e-12


def test_dictionary_of_graphs_has_the_distances_of_the_orbit():
    rng = np.random.default_rng(5)
    orbit = logistic().trajectory(60, rng=rng)[:, 0]
    networks = dictionary_orbit(orbit, nodes=20, bins=150, rng=rng).astype(int)
    index = np.minimum((orbit * 150).astype(int), 149)
    distances = np.abs(networks[:, None] - networks[None]).sum(axis=2)
    np.testing.assert_array_equal(distances, np.abs(index[:, None] - index[None]))
    with pytest.raises(ValueError, match="use more nodes"):
        dictionary_orbit(orbit, nodes=5, bins=100, rng=rng)


def test_a_system_prints_in_one_line_and_refuses_impossible_lengths():
    assert repr(logistic()) == "System: logistic(r=4), a map of dimension 1"
    assert "a flow of dimension 3, sampled every 0.01" in repr(SYSTEMS["lorenz"]())
    for wrong in (-5, 2.5, "many"):
        with pytest.raises(DataError, match="T must be an integer, at least 0"):
            logistic().trajectory(wrong)


def test_states_that_run_away_are_counted_not_hidden():
    system = quartic_descent(eta=2.6)
    with np.errstate(all="ignore"):
        spectrum = quartic_descent(eta=1.9).exponents(200, rng=np.random.default_rng(6), n=8)
    assert spectrum.settings["n_escaped"] == 0
    with pytest.raises(ValueError, match="all 8 initial conditions diverged"):
        system.exponents(500, rng=np.random.default_rng(6), n=8)
