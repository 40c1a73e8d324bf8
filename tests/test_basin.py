"""Twins in a quadratic basin: what their modes do, and that the null knows them from sensitivity."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_surrogates import LAWS

import trajtools as tt
from recorders import Recorder
from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.applicability import Optimizer
from trajtools.exponents.nulls import BASIN, against_surrogates, modes, steepest
from trajtools.wiring import Member


def twins(optimizer, curvatures, steps, rng, epsilon=1e-6):
    """Difference of two descents of a quadratic, a perturbation of the weights alone; the noise cancels."""
    turn = np.linalg.qr(rng.standard_normal((len(curvatures), len(curvatures))))[0]
    hessian = turn * curvatures @ turn.T
    apart, velocity, out = epsilon * rng.uniform(-1, 1, len(curvatures)), np.zeros(len(curvatures)), []
    for _ in range(steps):
        out.append(apart)
        look = apart + optimizer.momentum * velocity if optimizer.nesterov else apart
        velocity = optimizer.momentum * velocity - hessian @ look
        apart = apart + velocity
    return np.array(out)


def growth_of(differences, optimizer, metric="l2"):
    # The references lie at zero, where nothing is rounded away.
    pairs = [(np.zeros_like(one), [one]) for one in differences]
    found = tt.twins(pairs, metric=metric)
    return replace(found, settings=found.settings | {"optimizer": asdict(optimizer)})


@pytest.mark.parametrize("optimizer", LAWS, ids=lambda law: law.description)
def test_modes_are_what_a_descent_does_to_a_perturbation(optimizer):
    rng = np.random.default_rng(0)
    found = modes(np.arange(40), optimizer)
    top = steepest(optimizer)
    rates = np.linspace(0, top, 24)
    for at in (0, 5, 17, 23):
        by_hand = twins(optimizer, rates[[at]], 40, rng, epsilon=1.0)[:, 0]
        assert_allclose(found[at], by_hand / by_hand[0], atol=1e-9)
    assert_allclose(modes(np.array([3, 7]), optimizer), found[:, [3, 7]])


def test_only_momentum_lets_a_basin_grow():
    steps = np.arange(500)
    assert np.abs(modes(steps, Optimizer())).max() <= 1 + 1e-9
    grown = np.abs(modes(steps, Optimizer(0.9))).max()
    assert 10 < grown < 2 / (1 - 0.9) + 1e-6
    with pytest.raises(DataError, match="adam"):
        modes(steps, Optimizer(adaptive="adam"))


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_growth_by_momentum_near_the_edge_is_a_basin_and_no_sensitivity(metric):
    optimizer, rng = Optimizer(0.98), np.random.default_rng(1)
    curvatures = np.array([1.0, 0.999, 0.9]) * steepest(optimizer)
    growth = growth_of([twins(optimizer, curvatures, 60, rng) for _ in range(10)], optimizer, metric)
    assert np.nanmax(growth.log_distance) - growth.log_distance[0] > 3  # e-folds, without any sensitivity
    found = growth.fit(null=BASIN, region=(0, 40))
    assert found.verdict in ("regular", "inconclusive")
    assert found.p_value > 0.9
    assert "momentum 0.98" in found.null
    assert "quadratic basin" in found.reasons[-1].text


@pytest.mark.parametrize("optimizer", LAWS, ids=lambda law: law.description)
def test_sensitivity_is_no_basin(optimizer):
    rng = np.random.default_rng(2)
    rates = 0.4 + 0.3 * rng.standard_normal((10, 60))
    differences = 1e-9 * np.exp(rates.cumsum(axis=1))[:, :, None]
    found = growth_of(differences, optimizer).fit(null=BASIN)
    assert_allclose(found.value, 0.4, atol=0.1)
    assert found.p_value < 0.01
    assert found.verdict == "sensitive"  # one time of perturbation shows no persistence
    assert any("a quadratic basin under the same optimiser is rejected" in reason.text for reason in found.reasons)
    assert found.settings["null"] == BASIN


def test_descent_stays_regular_under_either_null():
    rng = np.random.default_rng(3)
    differences = [twins(Optimizer(), np.array([0.02, 0.3, 1.9]), 200, rng) for _ in range(8)]
    for null in (BASIN, "power-law"):
        assert growth_of(differences, Optimizer()).fit(null=null).verdict == "regular"


def test_runs_tell_their_optimiser_and_an_adaptive_one_is_refused(tmp_path):
    members = [Member("m0"), Member("m1", reference=0, epsilon=1e-8)]
    for name, hparams in (("sgd", {"momentum": 0.9}), ("adam", {"optimizer": "Adam"})):
        path = tmp_path / f"{name}.h5"
        with Recorder(path, {"w": np.ones((2, 4))}, members=members, hparams=hparams, quiet=True) as recorder:
            for t in range(60):
                recorder.record({"w": np.ones((2, 4)) + np.array([[0], [1e-8 * 1.3**t]])})
        with tt.open(path) as run:
            if name == "sgd":
                found = tt.lyapunov(run, null=BASIN)
                assert "gradient descent with momentum 0.9" in found.null
                continue
            with pytest.raises(DataError, match="trained with adam"):
                tt.lyapunov(run, null=BASIN)


def test_an_unknown_null_of_twins_lists_both():
    with pytest.raises(UnknownNameError, match="power-law, quadratic-basin"):
        tt.twins((np.ones(30), [1 + 1e-6 * 1.5 ** np.arange(30.0)])).fit(null="iaaft")


def noisy_descent(optimizer, seed, length=600):
    """Descent on batches around the minimum of a quadratic: what the null says, with noise that is not Gaussian."""
    rng = np.random.default_rng(seed)
    curvatures = rng.uniform(0.05, 0.6, 3) * steepest(optimizer)
    x, velocity, out = np.zeros(3), np.zeros(3), []
    for kick in rng.exponential(size=(length + 200, 3)) - 1:
        look = x + optimizer.momentum * velocity if optimizer.nesterov else x
        velocity = optimizer.momentum * velocity - curvatures * look + 0.1 * kick
        x = x + velocity
        out.append(x)
    return np.array(out[200:])


def against_basin(x, optimizer, surrogates, seed):
    return against_surrogates(
        x,
        BASIN,
        embedding=(1, 1),
        theiler=5,
        horizon=12,
        count=surrogates,
        rng=np.random.default_rng(seed),
        optimizer=optimizer,
    )


@pytest.mark.parametrize("optimizer", LAWS, ids=lambda law: law.description)
def test_one_descent_is_as_predictable_as_its_basin_and_chaos_is_more_so(optimizer):
    found = [against_basin(noisy_descent(optimizer, seed), optimizer, 19, seed).p_value for seed in range(12)]
    assert np.mean(np.array(found) <= 0.05) <= 0.25  # one in twenty is expected
    assert min(found) < 0.5 < max(found)
    chaos = tt.systems.henon().trajectory(600, rng=np.random.default_rng(0), transient=100)
    sensitive = against_basin(chaos, optimizer, 19, 0)
    assert sensitive.p_value == 0.05  # the least there is with 19
    assert optimizer.description in sensitive.description
    assert sensitive.settings["basin_momentum"] == optimizer.momentum


def test_the_basin_of_one_trajectory_is_that_of_its_run():
    x = tt.Trajectory.from_array(tt.systems.henon().trajectory(800, rng=np.random.default_rng(1), transient=100))
    heavy = SimpleNamespace(hparams={"momentum": 0.9}, optimizer=None, trajectory=lambda: x)
    found = tt.lyapunov(heavy, null=BASIN, surrogates=19)
    assert found.settings["basin_momentum"] == 0.9
    assert "momentum 0.9 in a quadratic basin" in found.null
    plain = tt.lyapunov(x, null=BASIN, surrogates=19)
    assert plain.settings["basin_momentum"] == 0
    assert plain.p_value == 0.05
    with pytest.raises(DataError, match="trained with rmsprop"):
        tt.lyapunov(SimpleNamespace(hparams={"opt": "RMSprop"}, optimizer=None, trajectory=lambda: x), null=BASIN)
