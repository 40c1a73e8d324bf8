"""Verdicts on one trajectory: chaos, cycles and noise of known kinds, and the two tests that tell them apart."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

import trajtools as tt
from trajtools.exponents.local_jacobian import local_jacobian
from trajtools.exponents.returns import EARLIEST, returning
from trajtools.reasons import codes
from trajtools.systems import SYSTEMS

SEEDS = range(3)


def logistic(r, states, skip, noise=0.0, seed=0):
    x, kicks = 0.3, noise * np.random.default_rng(seed).standard_normal(states + skip)
    out = np.empty(states + skip)
    for t, kick in enumerate(kicks):
        x = float(np.clip(r * x * (1 - x) + kick, 0.001, 0.999))
        out[t] = x
    return out[skip:]


def sheared_cycle(seed, states=3000):
    """Stuart and Landau's oscillator with shear and noise; two copies under the same noise approach each other."""
    rng, z, out = np.random.default_rng(seed), 1.0 + 0j, np.empty(states + 500, dtype=complex)
    for t in range(len(out)):
        z += 0.05 * (z * (1 + 2j) - (1 + 3j) * abs(z) ** 2 * z) + 0.02 * (rng.normal() + 1j * rng.normal())
        out[t] = z
    return np.stack([out.real, out.imag], axis=1)[500:]


def autoregression(rng, states=1000, keep=0.9):
    x = np.zeros(states + 200)
    for t in range(1, len(x)):
        x[t] = keep * x[t - 1] + rng.standard_normal()
    return x[200:]


def one_over_f(rng, states=1500):
    frequency = np.fft.rfftfreq(2 * states)
    size = np.r_[0.0, frequency[1:] ** -0.5]
    return np.fft.irfft(size * (rng.normal(size=len(size)) + 1j * rng.normal(size=len(size))))[:states]


def telegraph(rng, states=1500):
    sign = np.where(np.cumsum(rng.random(states + 200) < 0.05) % 2, 1.0, -1.0)
    x = np.zeros(len(sign))
    for t in range(1, len(x)):
        x[t] = 0.9 * x[t - 1] + 0.1 * sign[t]
    return x[200:]


NOISE = {
    "autoregression": autoregression,
    "moving average": lambda rng: np.convolve(rng.standard_normal(1009), np.ones(10), "valid"),
    "interpolated": lambda rng: np.interp(np.arange(0, 150, 0.1), np.arange(151), rng.standard_normal(151)),
    "1/f": one_over_f,
    "telegraph": telegraph,
}


# -- noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISE)
def test_coloured_noise_is_inconclusive_and_said_to_look_stochastic(name):
    for seed in SEEDS:
        found = tt.lyapunov(NOISE[name](np.random.default_rng(seed)))
        assert (found.verdict, found.growth, found.persistence) == ("inconclusive", "undecided", "not tested")
        assert "stochastic" in codes(found.reasons), found


@pytest.mark.parametrize(
    "make",
    [sheared_cycle, lambda seed: sheared_cycle(seed)[:, 0], lambda seed: logistic(3.84, 3000, 500, 1e-3, seed)],
    ids=["cycle with shear", "its first coordinate", "cycle of period 3"],
)
def test_noisy_cycles_are_never_chaotic(make):
    for seed in SEEDS:
        found = tt.lyapunov(make(seed))
        assert found.verdict == "inconclusive"
        assert "stochastic" in codes(found.reasons) or "error-unknown" in codes(found.reasons)


def test_a_walk_that_never_returns_points_to_twins():
    way = np.random.default_rng(0).standard_normal((1500, 20)).cumsum(axis=0)
    found = tt.lyapunov(way)
    assert found.verdict == "inconclusive"
    assert "use-twins" in codes(found.reasons)


# -- cycles and tori ---------------------------------------------------------------------------------------------------

T = np.arange(2000)
PERIODIC = {
    "logistic 3.2": (logistic(3.2, 1500, 5000), 2),
    "logistic 3.5": (logistic(3.5, 1500, 5000), 4),
    "logistic 3.83": (logistic(3.83, 1500, 5000), 3),
    "sine of period 50": (np.sin(2 * np.pi * T / 50), 50),
    "the same in float32": (np.sin(2 * np.pi * T / 50).astype(np.float32), 50),
    "square wave": (np.where(T % 40 < 20, 1.0, -1.0), 40),
    "three states": (np.tile(np.random.default_rng(0).random((3, 2)), (300, 1)), 3),
}


def embedded(x):
    """The reason that says how a series was embedded."""
    return ("embedding",) if np.ndim(x) == 1 else ()


@pytest.mark.parametrize("name", PERIODIC)
def test_exact_cycles_are_regular_with_their_period_and_a_bound(name):
    x, period = PERIODIC[name]
    found = tt.lyapunov(x)
    assert (found.verdict, found.growth) == ("regular", "none")
    assert codes(found.reasons) == ("periodic", *embedded(x))
    assert found.settings["period"] == found.reasons[0].numbers["period"] == period
    assert 0 < found.settings["largest_exponent"] < 0.01
    assert np.isnan(found.value)
    assert "copies" not in found.summary()


@pytest.mark.parametrize(
    ("x", "period"),
    [
        (np.sin(0.2 * T), 2 * np.pi / 0.2),
        (np.sin(0.012 * T), 2 * np.pi / 0.012),
        (SYSTEMS["hopf"]().trajectory(2000, rng=np.random.default_rng(0), transient=1000), 2 * np.pi / 0.1),
    ],
    ids=["sine", "slow sine", "hopf"],
)
def test_cycles_between_samples_are_regular_with_their_period(x, period):
    found = tt.lyapunov(x, dt=0.5)
    assert (found.verdict, found.growth) == ("regular", "none")
    assert codes(found.reasons) == ("periodic", *embedded(x))
    assert_allclose(found.settings["period"], period, rtol=1e-3)
    assert found.interval[0] <= 0 <= found.interval[1] < 0.01


def test_a_sampled_torus_is_quasi_periodic():
    angles = 0.7 * T, 0.7 * np.sqrt(3) * T
    states = np.stack([f(a) for a in angles for f in (np.cos, np.sin)], axis=1)
    for x in (states, states[:, 0] + states[:, 2]):
        found = tt.lyapunov(x)
        assert (found.verdict, found.growth) == ("regular", "none")
        assert codes(found.reasons) == ("quasi-periodic", *embedded(x))
        assert found.settings["period"] is None
        assert found.interval[0] <= 0 <= found.interval[1]


def test_returns_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    x = np.stack([np.sin(0.3 * np.arange(400)), np.cos(0.31 * np.arange(400))], axis=1)
    x += 0.01 * rng.standard_normal(x.shape)
    found = returning(x, level=0.95)
    close, second, later = naive.returns(x.tolist(), found.lag, int(len(x) * EARLIEST))
    typical = np.sqrt(2 * x.var(axis=0).sum())
    # Means over blocks of nearly equal length.
    assert_allclose(found.closeness, close - np.log(typical), atol=0.02)
    assert_allclose(found.smoothness, second - close, atol=0.02)
    assert_allclose(found.rate, (later - close) / found.lag, atol=0.02 / found.lag)


def test_stochastic_displacements_are_rough_and_those_of_a_torus_smooth():
    walk = np.random.default_rng(2).standard_normal(3000).cumsum() * 0.01
    phase = 0.2 * np.arange(3000)
    noisy, torus = (np.stack([np.cos(a), np.sin(a)], axis=1) for a in (phase + walk, phase))
    assert not returning(noisy, level=0.95).regular
    assert returning(torus, level=0.95).regular
    assert returning(torus * 1e-3 + 7, level=0.95).regular


# -- chaos -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def henon():
    return SYSTEMS["henon"]().trajectory(1500, rng=np.random.default_rng(3), transient=100)


def test_chaos_passes_every_test_and_says_so_in_two_fields(henon):
    found = tt.lyapunov(henon)
    assert (found.verdict, found.growth, found.persistence) == ("chaotic", "exponential", "shown")
    assert codes(found.reasons) == ("growth", "persistent", "null-rejected", "local-jacobian")
    assert "copies" not in found.summary()
    jacobian = found.settings["local_jacobian"]
    assert jacobian["positive"]
    assert found.reasons[-1].numbers["first"] == jacobian["values"][0]
    assert_allclose(jacobian["values"], 0.42, rtol=0.15)
    assert jacobian["neighbors"][0] < jacobian["neighbors"][1]


def test_too_few_surrogates_are_said_to_be_too_few(henon):
    found = tt.lyapunov(henon, surrogates=19)
    assert found.verdict == "inconclusive"
    few = found.reasons[-1]
    assert few.code == "too-few-surrogates"
    assert few.numbers["needed"] == 99
    assert found.p_value == 0.05


def test_jacobians_are_least_squares_of_the_nearest_states(henon):
    x = henon[:500]
    found = local_jacobian(x, rng=np.random.default_rng(0))
    said = found.reason(0.5, "time")
    assert said.numbers["first"] == 2 * found.values[0]  # the unit of the exponent
    assert "per unit of time, and" in said.text
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    assert found.span == 1
    for value, inflation, count in zip(found.values, found.inflation, found.neighbors, strict=True):
        slow = naive.jacobian_exponent(standard, 1, count, 20)
        assert_allclose(value + max(inflation, 0.0), slow, atol=2e-3)  # blocks of nearly equal length


def test_jacobians_do_not_depend_on_units(henon):
    one, other = (local_jacobian(x, rng=np.random.default_rng(0)) for x in (henon, henon * [1e-4, 1e5] + 3))
    assert_allclose(one.values, other.values, rtol=1e-6)


def test_jacobians_grow_in_chaos_and_not_in_noisy_cycles():
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        chaos = logistic(3.9, 1500, 500, seed=seed) + 0.003 * rng.standard_normal(1500)
        assert local_jacobian(tt.embedding.embed(chaos, 2), rng=rng).positive
        assert not local_jacobian(sheared_cycle(seed), rng=rng).positive
        noisy = logistic(3.84, 3000, 500, 1e-3, seed)
        assert not local_jacobian(tt.embedding.embed(noisy, 3), rng=rng).positive
    assert local_jacobian(chaos[:60, None], rng=rng) is None


def test_a_map_with_slow_lobes_is_followed_step_by_step():
    """Holmes' cubic map stays in one half for long, so its autocorrelation decays slowly."""
    x = np.empty((1500, 2))
    x[0] = 0.5, 0.4
    for t in range(1499):
        x[t + 1] = x[t, 1], -0.2 * x[t, 0] + 2.77 * x[t, 1] - x[t, 1] ** 3
    found = local_jacobian(x, rng=np.random.default_rng(0))
    assert found.span == 1
    assert_allclose(found.values, 0.59, rtol=0.15)
    assert found.positive


def test_growth_that_stops_short_of_saturation_is_too_little(henon):
    found = tt.lyapunov(henon, horizon=4, null=None)
    assert found.settings["gain"] < 2
    assert found.verdict == "inconclusive"
    assert found.reasons[1].code == "too-little-growth"
    assert found.reasons[1].numbers["times"] == pytest.approx(
        np.exp((2 - found.settings["gain"]) * found.settings["density_dimension"])
    )


def test_a_record_with_too_few_states_says_how_many_would_do():
    made = kicked_rotor()
    few = tt.lyapunov(made[:5000], null=None, theiler=1)
    assert few.reasons[0].code == "no-exponential-regime"
    times = few.reasons[0].numbers["times"]
    assert 3 < times < 9
    enough = tt.lyapunov(made[: int(1.3 * times * 5000)], null=None, theiler=1)
    assert enough.interval[0] < 1.275 < enough.interval[1]


def kicked_rotor(states=60_000):
    """The standard map at K = 7 on two circles; the exponent is 1.275."""
    angle, momentum = np.empty((2, states))
    angle[0], momentum[0] = 1.0, 2.0
    for t in range(states - 1):
        momentum[t + 1] = (momentum[t] + 7 * np.sin(angle[t])) % (2 * np.pi)
        angle[t + 1] = (angle[t] + momentum[t + 1]) % (2 * np.pi)
    return np.stack([np.cos(angle), np.sin(angle), np.cos(momentum), np.sin(momentum)], axis=1)


def softmax_descent(seed, eta=40.0, states=1500):
    """Softmax regression of random labels at a large rate, and the exponent of its tangent map."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((30, 4)), np.eye(3)[rng.integers(0, 3, 30)]
    w, v, out, logs = 0.1 * rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), [], []
    for t in range(states + 1000):
        z = x @ w
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        moved = x @ v
        v = v - eta * x.T @ (p * (moved - np.sum(p * moved, axis=1, keepdims=True))) / len(x)
        size = np.linalg.norm(v)
        v, w = v / size, w - eta * x.T @ (p - y) / len(x)
        if t >= 1000:
            out.append(w.ravel())
            logs.append(np.log(size))
    return np.array(out), float(np.mean(logs))


def test_training_in_many_dimensions_is_right_or_inconclusive():
    for seed in SEEDS:
        states, true = softmax_descent(seed)
        found = tt.lyapunov(states)
        assert (
            found.verdict == "inconclusive"
            or found.settings.get("period")
            or (found.interval[0] - 0.01 <= true <= found.interval[1] + 0.01)
        )


# -- fixed points ------------------------------------------------------------------------------------------------------


def descent(steps, stop=1e-6):
    """Gradient descent that reaches its minimum to the bit."""
    w, out = np.array([1.0, 2.0]), []
    for _ in range(steps):
        out.append(w)
        w = w * (1 - 0.1 * np.array([1.0, 3.0]))
        w = np.where(np.abs(w) < stop, 0.0, w)
    return np.array(out)


@pytest.mark.parametrize(
    "x",
    [
        np.full(300, 2.5),
        np.zeros((300, 4), np.float32),
        np.ones(100, int),
        np.where(np.arange(300) % 7 == 0, np.nan, 1.0),
        descent(800),
        descent(800)[:, 0],
        tt.pairwise(np.ones((60, 3))),
    ],
    ids=["constant", "float32 states", "integers", "gaps", "descent", "one weight", "distances"],
)
def test_a_trajectory_that_stands_still_is_a_fixed_point(x):
    found = tt.lyapunov(x)
    assert (found.verdict, found.growth, found.settings["period"]) == ("regular", "none", 1.0)
    assert codes(found.reasons) == ("at-rest", "periodic")
    assert 0 < found.bound <= 2 / (len(x) - found.settings["at_rest"])
    assert f": below {found.bound:.2g} 1/" in str(found)
    assert found.summary() == "The trajectory stands still."


def test_a_fixed_point_up_to_rounding_has_a_larger_bound():
    x = 0.3 + np.finfo(float).eps * np.tile([0.0, 1.0], 200)
    assert tt.lyapunov(x).bound > tt.lyapunov(np.full(400, 0.3)).bound


def test_a_record_that_stands_still_for_less_than_half_says_so():
    found = tt.lyapunov(np.r_[np.random.default_rng(0).standard_normal(900), np.zeros(300)])
    assert found.verdict == "inconclusive"
    assert found.reasons[0].code == "at-rest"
    assert found.reasons[0].numbers["count"] == 300


def test_a_record_that_ends_in_nan_does_not_stand_still():
    found = tt.lyapunov(np.r_[np.ones(300), np.full(500, np.nan)])
    assert found.verdict == "inconclusive"


def test_a_periodic_orbit_prints_its_bound():
    found = tt.lyapunov(np.tile([0.1, 0.5, 0.9], 200))
    assert f": below {found.bound:.2g} 1/sample: regular, period 3" in str(found)
    per = found.per("step", steps_per_sample=2)
    assert np.isclose(per.bound, found.bound / 2)


def test_twins_of_a_dead_network_are_named():
    x = np.ones((60, 3))
    found = tt.lyapunov((x, [x + 1e-8, x + 2e-8]))
    assert found.verdict == "regular"
    assert "at-rest" in codes(found.warnings)
    moving = x * (1 + 0.01 * np.sin(np.arange(60)))[:, None]
    assert "at-rest" not in codes(tt.lyapunov((moving, [moving + 1e-8])).warnings)


def test_noise_in_the_states_is_named_and_curvature_is_not():
    x = SYSTEMS["henon"]().trajectory(5000, rng=0, transient=1000)
    noise = np.random.default_rng(0).standard_normal(x.shape) * x.std(axis=0)
    clean, noisy = (tt.lyapunov(x + size * noise) for size in (0.0, 0.01))
    assert "measurement-noise" not in codes(clean.warnings)
    assert "measurement-noise" in codes(noisy.warnings)
    assert clean.interval[0] < 0.4185 < clean.interval[1]
    assert noisy.value < 0.95 * 0.4185  # what the warning is about


@pytest.mark.parametrize("name", ["henon", "ikeda", "lorenz"])
def test_jacobians_tell_noise_from_curvature(name):
    x = SYSTEMS[name]().trajectory(5000, rng=1, transient=1000)
    noise = 0.02 * x.std(axis=0) * np.random.default_rng(2).standard_normal(x.shape)
    clean, noisy = (local_jacobian(states, rng=np.random.default_rng(0)) for states in (x, x + noise))
    assert (clean.noisy, noisy.noisy) == (False, True)
