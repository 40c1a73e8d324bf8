"""Tangent exponents of torch trainings: known answers, the whole Jacobian by hand, the edge of stability."""

import warnings
from copy import deepcopy

import naive_probes as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_probes import FULL, ONE, Quadratic, Quartic, chebyshev, data, flat, follow, half_mse, itself, small  # noqa: E402

from recorders.torch import (  # noqa: E402
    Shadow,
    Tangents,
    Twins,
    sharpness,
    tangent_exponents,
)
from trajtools.errors import ArchitectureError, DataError  # noqa: E402

pytestmark = pytest.mark.torch


# -------------------------------------------------------------------------------------------------- tangent exponents


def test_exponents_of_quadratic_descent_are_those_of_its_multipliers() -> None:
    h, rate = np.array([3.0, 1.0, -0.2]), 0.3
    model = Quadratic(h.tolist())
    found = tangent_exponents(
        model, itself, torch.optim.SGD(model.parameters(), lr=rate), [(ONE,)] * 300, k=3, discard=100, window=100
    )
    assert_allclose(found.values, np.sort(np.log(np.abs(1 - rate * h)))[::-1], atol=1e-10)
    assert found.kaplan_yorke == pytest.approx(naive.kaplan_yorke(found.values))
    assert flat(model).tolist() == [1, 1, 1]  # a copy was trained


def test_exponents_of_the_heavy_ball_come_in_pairs() -> None:
    model = Quadratic([4.0, 1.0])
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = tangent_exponents(model, itself, opt, [(ONE,)] * 600, k=4, vectors="kept")
    assert_allclose(found.values, [0.5 * np.log(0.9)] * 4, atol=5e-3)
    assert found.values.sum() == pytest.approx(2 * np.log(0.9), abs=1e-9)  # the determinant is beta for each weight
    assert ((found.intervals[:, 0] < -0.05268) & (found.intervals[:, 1] > -0.05268)).all()


def test_tangent_shadow_and_twins_agree_on_the_chaos_of_the_quartic() -> None:
    batches = [(ONE,)] * 500
    model = Quartic()
    opt = torch.optim.SGD(model.parameters(), lr=2.0)
    tangent = tangent_exponents(model, itself, opt, batches, window=125)
    assert tangent.intervals[0, 0] < np.log(3) < tangent.intervals[0, 1]
    orbit, w = Quartic(), []
    descent = torch.optim.SGD(orbit.parameters(), lr=2.0)
    for _ in range(501):
        w.append(orbit.w.item())
        descent.zero_grad()
        orbit(ONE).backward()
        descent.step()
    # sqrt(2) cos a goes to sqrt(2) cos 3a: whatever the orbit, the growth over n steps is 3^n sin a_n / sin a_0.
    sines = np.sqrt(1 - np.square(w)[::125] / 2)
    assert_allclose(tangent.windows[:, 0], np.log(3) + np.diff(np.log(sines)) / 125, atol=1e-6)
    _, growth = follow(model, opt, 500, directions=("forward",))
    assert growth.mean() == pytest.approx(tangent.values[0], abs=1e-4)  # the same orbit
    slopes = []
    for phase in np.random.default_rng(0).uniform(0, np.pi, 12):  # starts as the orbit visits them
        twins = Twins(
            Quartic((np.sqrt(2) * np.cos(phase),)), itself, lambda p: torch.optim.SGD(p, lr=2.0),
            epsilon=1e-13, members=4, seed=0, vectorize=False, only="all",
        )  # fmt: skip
        distances = []
        for _ in range(21):
            w = twins.state["w"]
            distances.append((w[1:] - w[0]).abs().log().mean().item())
            twins.step(ONE)
        slopes.append((distances[20] - distances[0]) / 20)
    assert abs(np.mean(slopes) - np.log(3)) < 3 * np.std(slopes) / np.sqrt(12)


@pytest.mark.parametrize("name", ["sgd", "heavy ball", "nesterov", "adam"])
def test_local_exponents_are_those_of_the_whole_jacobian_by_hand(name) -> None:
    model, (x, y) = small(), data()
    batches = [(x[i::4], y[i::4]) for i in range(4)] * 2
    arrays = [(a.numpy(), b.numpy()) for a, b in batches]
    n, parameters = naive.N, model.parameters()
    start = np.r_[flat(model), np.zeros(n)]
    size = 1e-5
    if name == "adam":  # not from its first step: there the second moments are zero, and the square root has no slope
        opt, start = torch.optim.Adam(parameters, lr=0.05, eps=1e-2), np.r_[start, np.zeros(n)]
        for t, (a, b) in enumerate(batches[:3], 1):
            start = naive.adam(0.05, t, eps=1e-2)(start, a.numpy(), b.numpy())
            opt.zero_grad()
            half_mse(model(a), b).backward()
            opt.step()
        steps = [naive.adam(0.05, t, eps=1e-2) for t in range(4, 12)]
        size = np.r_[np.full(2 * n, 1e-5), 1e-3 * start[2 * n :]]
    else:
        momentum = 0.0 if name == "sgd" else 0.9
        opt = torch.optim.SGD(parameters, lr=0.3, momentum=momentum, nesterov=name == "nesterov", weight_decay=0.01)
        steps = [naive.sgd(0.3, momentum, 0.01, name == "nesterov")] * 8
    found = tangent_exponents(model, half_mse, opt, batches, k=3, window=8, vectors="kept")
    drawn = np.zeros((len(start), 3))
    drawn[:n] = np.random.default_rng(0).standard_normal((n, 3))
    expected = naive.benettin(steps, start, arrays, np.linalg.qr(drawn)[0], size)
    assert_allclose(found.local, expected, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3, betas=(0.8, 0.9)),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9),
    ],
)
def test_the_pure_step_is_the_step_of_the_optimiser(make) -> None:
    from recorders.torch.tangents import rule

    model, (x, y) = small(), data()
    opt = make(model.parameters())
    for _ in range(4):
        opt.zero_grad()
        half_mse(model(x), y).backward()
        expected = []
        for p in model.parameters():
            made = rule(opt, opt.param_groups[0], opt.state.get(p, {}))
            buffers = [opt.state.get(p, {}).get(name) for name in made.names]
            buffers = [torch.zeros_like(p) if b is None else b.clone() for b in buffers]
            expected.append((made, *made.update(p.detach().clone(), p.grad.clone(), buffers)))
        opt.step()
        for p, (made, weight, buffers) in zip(model.parameters(), expected, strict=True):
            assert_allclose(p.detach().numpy(), weight.numpy(), rtol=1e-12, atol=1e-14)
            for name, buffer in zip(made.names, buffers, strict=True):
                assert_allclose(opt.state[p][name].numpy(), buffer.numpy(), rtol=1e-12, atol=1e-14)


def test_adam_on_a_weight_without_gradient_has_a_derivative() -> None:
    model = Quadratic([2.0, 0.0])
    found = tangent_exponents(model, itself, torch.optim.Adam(model.parameters(), lr=0.01), [(ONE,)] * 20, k=2)
    assert found.n_lost == 0
    assert np.isfinite(found.local).all()


def test_an_optimiser_in_the_middle_of_its_training_is_taken_as_it_stands() -> None:
    model, (x, y) = small(), data()
    opt = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(5):
        opt.zero_grad()
        half_mse(model(x), y).backward()
        opt.step()
    follower = Tangents(model, half_mse, opt, vectors="kept")
    expected = tangent_exponents(model, half_mse, opt, [(x, y)] * 4, vectors="kept")
    for _ in range(4):
        follower.step(x, y)
        opt.zero_grad()
        half_mse(model(x), y).backward()
        opt.step()
    assert_allclose(follower.result().local, expected.local, rtol=1e-12)


def test_an_unknown_optimiser_is_refused_with_the_ways_out() -> None:
    model = small()
    with pytest.raises(ArchitectureError, match=r"Adam, AdamW, RMSprop, SGD.*twins"):
        Tangents(model, half_mse, torch.optim.Adagrad(model.parameters()))
    with pytest.raises(DataError, match="no batches"):
        tangent_exponents(model, half_mse, torch.optim.SGD(model.parameters(), lr=0.1), [])


# ------------------------------------------------------------------------------------------- the edge of stability


@pytest.mark.slow
def test_tangent_shadow_and_twin_agree_on_digits_in_windows() -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    pixels, labels = load_digits(return_X_y=True)
    x, y, loss_fn = torch.tensor(pixels / 16), torch.tensor(labels), nn.CrossEntropyLoss()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).to(FULL)
    opt = torch.optim.SGD(model.parameters(), lr=1.5)
    shadow, tangents = Shadow(model, loss_fn, opt, window=50), Tangents(model, loss_fn, opt, window=50, vectors="fresh")
    growth, twins = [], []
    for t in range(200):
        if t % 50 == 0:
            twin, its = deepcopy((model, opt))
            offset = np.random.default_rng(t).standard_normal(len(flat(model)))
            vector = torch.tensor(1e-9 * offset / np.linalg.norm(offset))
            with torch.no_grad():
                for p, part in zip(
                    twin.parameters(), vector.split([p.numel() for p in twin.parameters()]), strict=True
                ):
                    p.add_(part.reshape(p.shape))
        batch = torch.randint(len(x), (64,), generator=torch.Generator().manual_seed(t))
        tangents.step(x[batch], y[batch])
        opt.zero_grad()
        growth.append((shadow.backward(x[batch], y[batch]), shadow.growth)[1])
        opt.step()
        its.zero_grad()
        loss_fn(twin(x[batch]), y[batch]).backward()
        its.step()
        if t % 50 == 49:
            twins.append(np.log(np.linalg.norm(flat(twin) - flat(model)) / 1e-9) / 50)
    by_shadow, by_tangent = np.reshape(growth, (-1, 50)).mean(1), tangents.result().windows[:, 0]
    # The first window is violent, and its three vectors begin in three directions, which is worth a nat or two in fifty
    # steps; in the later ones nothing grows.
    assert by_tangent[0] > 0.1
    assert_allclose(by_shadow, by_tangent, atol=0.015)
    assert_allclose(twins, by_tangent, atol=0.05)


def grown(epsilon):
    """Mean growth of a forward shadow of the toy over the passage through the edge of stability, and its doubts."""
    model, x, y = chebyshev()
    opt = torch.optim.SGD(model.parameters(), lr=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is asked for below
        shadow, growth = follow(model, opt, 600, half_mse, (x, y), directions=("forward",), epsilon=epsilon)
    return growth.mean(), shadow.warnings


def test_delayed_loss_of_stability_shows_in_fresh_windows_only() -> None:
    # The sharpness passes 2 / eta at t = 410, the burst comes at 580. Vectors that are kept from the start see nothing
    # of it; those of a fresh window do; a shadow follows what rounding has put back, and says so. When the burst comes
    # is rounding's doing too, so nothing here is known to better than a few steps of it.
    model, x, y = chebyshev()
    opt = torch.optim.SGD(model.parameters(), lr=0.4)
    found = tangent_exponents(model, half_mse, opt, [(x, y)] * 600, window=100, of="full")
    burst = found.window_gains[5] / 100
    assert burst > 0.15
    assert 0.1 < found.windows[5, 0] <= burst
    assert np.abs(found.windows[:4]).max() < 2e-3
    assert abs(found.values[0]) < burst / 20
    assert np.abs(found.window_kept).max() < burst / 5
    assert "in 1 of 6 windows, the first from step 500" in found.warnings[0].text
    assert "delayed loss of stability" in found.warnings[0].text
    mean, doubts = grown(1e-8)
    assert mean > 3 * abs(found.values[0])
    assert "was quiet for" in doubts[0].text


@pytest.mark.slow
def test_the_exponent_of_a_shadow_depends_on_epsilon_where_stability_is_lost_late() -> None:
    # By how much from one epsilon to the next is up to rounding, which decides when the burst comes.
    small, large = (grown(epsilon)[0] for epsilon in (1e-8, 1e-4))
    assert small > 1.3 * large


@pytest.mark.slow
def test_the_sharpness_hovers_at_two_over_eta() -> None:
    model, x, y = chebyshev()
    opt = torch.optim.SGD(model.parameters(), lr=0.4)
    found = []
    for t in range(11001):
        if t >= 1000 and t % 100 == 0:
            found.append(sharpness(model, half_mse, x, y, which="largest", of="full").h_max)
        opt.zero_grad()
        half_mse(model(x), y).backward()
        opt.step()
    assert np.mean(found) == pytest.approx(5.0, rel=0.04)
    assert found[-1] == pytest.approx(5.011, abs=0.02)
