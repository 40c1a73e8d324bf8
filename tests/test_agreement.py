"""Exponents of tangent vectors, shadows and twins agree: on a training with a known exponent, and window by window."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from torch_probes import FULL, data, flat, half_mse, small  # noqa: E402

from benchmarks.agreement import (  # noqa: E402
    Estimate,
    Loss,
    agree,
    apart,
    begun,
    in_windows,
    itself,
    known,
    of_known,
    rows,
)
from recorders.shadows import random_direction  # noqa: E402
from recorders.torch import Shadow, Tangents  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def trainings():
    return {training.name: training for training in known()}


def test_estimates_agree_up_to_the_root_of_the_sum_of_squares_of_their_half_intervals() -> None:
    middle = Estimate(1.0, 0.3, 0.1)
    assert apart(Estimate(1.2, 0.4), middle) == pytest.approx(0.2 / np.hypot(0.4, 0.1))
    assert apart(middle, Estimate(1.2, 0.4)) == pytest.approx(-0.2 / np.hypot(0.4, 0.1))
    assert apart(Estimate(0.5, 0.4), middle) == pytest.approx(-0.5 / 0.5)
    assert agree(Estimate(0.5001, 0.4), middle)
    assert not agree(Estimate(0.4999, 0.4), middle)
    assert not agree(Estimate(0.5, 0.0), Estimate(0.6, 0.0))
    assert agree(Estimate(0.5, 0.0), Estimate(0.5, 0.0))


def test_a_step_on_a_loss_is_the_step_of_its_system(trainings) -> None:
    with_system = [training for training in trainings.values() if training.system is not None]
    assert len(with_system) == 8
    for training in with_system:
        states = training.system.start(np.random.default_rng(0), 3)
        for state, after in zip(states, training.system.advance(states), strict=True):
            model = Loss(training.loss, state)
            opt = training.optimizer(model.parameters())
            itself(model(torch.ones((), dtype=FULL))).backward()
            opt.step()
            assert_allclose(model.w.detach().numpy(), after, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["quartic, rate 2", "curvature 1 or 3, rate 1.5", "heavy ball, stable"])
def test_three_estimators_find_the_known_exponent(trainings, name) -> None:
    found = of_known(trainings[name], 400)
    exact = Estimate(trainings[name].exact, 0.0)
    # Three standard errors: rounding decides which orbits twins start from, and two miss once in twenty.
    assert all(abs(apart(one, exact)) < 1.5 for one in found), found
    assert all(abs(apart(a, b)) < 1.5 for i, a in enumerate(found) for b in found[:i]), found
    if not trainings[name].momentum:  # one orbit; with momentum they measure buffers in different units
        assert found[1].value == pytest.approx(found[0].value, abs=1e-6)


@pytest.mark.parametrize(("rate", "momentum"), [(2.0, 0.0), (0.5, 0.9)])
def test_what_begins_in_one_direction_grows_alike(rate, momentum) -> None:
    model, (x, y) = small(), data(64)
    start, steps = flat(model), 20
    opt = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    twins = begun(model, half_mse, opt, epsilon=1e-8, copies=1, seed=0)
    tangents = Tangents(model, half_mse, opt, window=steps, vectors="fresh", seed=0)
    shadow = Shadow(model, half_mse, opt, directions=("forward",), seed=0)
    offset, drawn = rows(twins.models)[1] - start, random_direction(len(start), 0, "forward", 0)
    by_hand = np.random.default_rng(0).standard_normal(len(start))  # what tangent vectors draw
    for other in (drawn, by_hand / np.linalg.norm(by_hand)):
        assert_allclose(offset / np.linalg.norm(offset), other, atol=1e-7)
    growth = 0.0
    for i in range(steps):
        batch = x[i % 4 :: 4], y[i % 4 :: 4]
        tangents.step(*batch)
        opt.zero_grad()
        shadow.backward(*batch)
        growth += shadow.growth
        opt.step()
        twins.step(*batch)
    reference, copy = rows(twins.models)
    assert_allclose(reference, flat(model), rtol=0, atol=0)
    exact = tangents.result().windows[0, 0] * steps
    assert np.log(np.linalg.norm(copy - reference) / np.linalg.norm(offset)) == pytest.approx(exact, abs=1e-5)
    # Lengths of a shadow are taken over the buffers as well, in units of the weights.
    d, v = (sum(float((one**2).sum()) for one in parts) for parts in (shadow._offsets["forward"], shadow._momenta))
    assert growth - 0.5 * np.log1p(rate**2 * v / d) == pytest.approx(exact, abs=1e-5)


def test_three_estimators_agree_on_a_network_in_windows() -> None:
    x, y = data(64)
    batches = [(x[i % 4 :: 4], y[i % 4 :: 4]) for i in range(60)]
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=1.5, momentum=0.9)
    found = in_windows(model, half_mse, opt, batches, window=20, copies=12)
    for three, (low, high) in zip(found.estimates, found.library.interval, strict=True):
        # Three standard errors: nine pairs exceed that once in forty draws.
        assert all(abs(apart(a, b)) < 1.5 for i, a in enumerate(three) for b in three[:i])
        assert low <= three[0].value <= high
        assert three[0].value - three[0].below > 0  # it does grow
    assert len(found.estimates) == 3
