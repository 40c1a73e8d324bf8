"""Shadows of torch trainings and the rate that follows them: known answers, and a second network by hand."""

import naive_probes as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_probes import FULL, ONE, Quadratic, chebyshev, data, flat, follow, half_mse, itself, small  # noqa: E402

from recorders.torch import (  # noqa: E402
    CurvatureLR,
    Shadow,
    sharpness,
)
from trajtools.errors import ArchitectureError, DataError  # noqa: E402

pytestmark = pytest.mark.torch


# ----------------------------------------------------------------------------------------------------------- shadows


@pytest.mark.parametrize(("rate", "dominant"), [(0.1, -0.5), (0.9, 3.0)])
def test_a_quadratic_tells_its_curvatures_to_the_last_digits(rate, dominant) -> None:
    model = Quadratic([3.0, 1.0, -0.5], start=0.0)
    shadow, growth = follow(model, torch.optim.SGD(model.parameters(), lr=rate), 150, epsilon=1e-3)
    assert growth[-1] == pytest.approx(np.log(abs(1 - rate * dominant)), abs=1e-7)
    assert shadow.h_max == pytest.approx(3.0, abs=1e-7)
    if dominant < 0:
        assert shadow.h_min == pytest.approx(-0.5, abs=1e-7)
    else:  # at the edge of stability the forward copy points along h_max, and does not pretend otherwise
        assert np.isnan(shadow.h_min)


def test_the_heavy_ball_shrinks_by_the_root_of_its_momentum() -> None:
    model = Quadratic([4.0, 1.0])
    _, growth = follow(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 1000)
    # Complex multipliers turn, so the mean converges as 1 / t.
    assert growth.mean() == pytest.approx(0.5 * np.log(0.9), abs=2e-3)
    assert 0.5 * np.log(0.9) == pytest.approx(-0.052680, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.8, "weight_decay": 0.05},
        {"weight_decay": 0.3},
    ],
    ids=str,
)
def test_the_forward_copy_moves_as_a_second_network_would(options) -> None:
    model, (x, y) = small(), data()
    start, epsilon = np.r_[flat(model), np.zeros(naive.N)], 1e-5
    shadow = Shadow(model, half_mse, torch.optim.SGD(model.parameters(), lr=0.3, **options), epsilon=epsilon)
    opt = shadow._optimizer
    growth = []
    batches = [(x[i % 4 :: 4], y[i % 4 :: 4]) for i in range(40)]
    for batch in batches:
        opt.zero_grad()
        shadow.backward(*batch)
        opt.step()
        growth.append(shadow.growth)
    from recorders.shadows import random_direction

    offset = np.r_[epsilon * random_direction(naive.N, 0, "forward", 0), np.zeros(naive.N)]
    step = naive.sgd(
        0.3, options.get("momentum", 0.0), options.get("weight_decay", 0.0), options.get("nesterov", False)
    )
    twin = naive.two_networks(step, start, offset, [(a.numpy(), b.numpy()) for a, b in batches], 0.3)
    # Velocities enter the length where there is momentum; the difference is rounding of 1e-16 over 1e-5.
    assert_allclose(growth, twin, atol=1e-9)


def test_settings_of_torch_that_optax_has_not_are_followed_as_well() -> None:
    # Dampening (left out of the first step), maximize, groups with rates of their own, a group without momentum.
    torch.manual_seed(0)

    def make():
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(FULL)
        groups = [
            {"params": model[0].parameters(), "lr": 0.1, "momentum": 0.9, "dampening": 0.5},
            {"params": model[2].parameters(), "lr": 0.02, "momentum": 0.0, "dampening": 0.5, "maximize": True},
        ]
        return model, torch.optim.SGD(groups)

    (model, opt), (x, y) = make(), data()
    copy, its = make()
    copy.load_state_dict(model.state_dict())
    epsilon = 1e-6
    shadow = Shadow(model, half_mse, opt, directions="forward", epsilon=epsilon)
    opt.zero_grad()
    shadow.backward(x, y)  # the first offset is in place once the shadow has moved: begin the comparison here
    opt.step()
    with torch.no_grad():
        copy.load_state_dict(
            {k: v + d for (k, v), d in zip(model.state_dict().items(), shadow._offsets["forward"], strict=True)}
        )
    for p, mine, v in zip(copy.parameters(), model.parameters(), shadow._momenta, strict=True):
        if "momentum_buffer" in opt.state[mine] and opt.state[mine]["momentum_buffer"] is not None:
            its.state[p]["momentum_buffer"] = opt.state[mine]["momentum_buffer"] + v
    for _ in range(3):
        before = np.linalg.norm(flat(copy) - flat(model))
        shadow.step(x, y)
        for one, how in ((model, opt), (copy, its)):
            how.zero_grad()
            half_mse(one(x), y).backward()
            how.step()
        after = flat(copy) - flat(model)
        drawn_back = np.concatenate([d.numpy().ravel() for d in shadow._offsets["forward"]])
        assert_allclose(after / np.linalg.norm(after), drawn_back / np.linalg.norm(drawn_back), atol=1e-7)
        assert before > 0


def test_the_reverse_copy_tracks_the_sharpness_of_the_toy_before_the_edge_of_stability() -> None:
    model, x, y = chebyshev()
    opt = torch.optim.SGD(model.parameters(), lr=0.4)
    shadow = Shadow(model, half_mse, opt, directions=("reverse",), of="full")
    for t in range(401):
        opt.zero_grad()
        shadow.backward(x, y)
        if t in (50, 100, 200, 300, 400):
            exact = sharpness(model, half_mse, x, y, which="largest", of="full").h_max
            assert shadow.h_max == pytest.approx(exact, rel=1e-4)  # asked for: 1e-3
        opt.step()
    assert exact == pytest.approx(4.956, abs=1e-3)  # 2 / eta = 5 is near
    assert shadow.n_gradients == 401


def test_an_absolute_ascent_gives_the_curvature_by_growth_too() -> None:
    model = Quadratic([3.0, 1.0, -0.5])
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    shadow, _ = follow(model, opt, 200, ascent=0.2, epsilon=1e-3)
    growth = shadow.metrics["shadow_reverse_growth_full"]
    assert (np.exp(growth) - 1) / 0.2 == pytest.approx(3.0, abs=1e-6)


def test_negative_curvature_stronger_than_positive_does_not_deceive_the_reverse_copy() -> None:
    model = Quadratic([2.0, 0.5, -4.0])
    shadow, _ = follow(model, torch.optim.SGD(model.parameters(), lr=0.01), 300, epsilon=1e-3)
    assert shadow.h_max == pytest.approx(2.0, abs=1e-4)
    assert shadow.h_min == pytest.approx(-4.0, abs=1e-2)


def test_the_copies_see_the_dropout_masks_of_the_training() -> None:
    # With other masks the gradients would differ by O(1) at a distance of 1e-7, and curvatures would be 1e7.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(50, 1, bias=False)).to(FULL)
    x, y = torch.randn(4, 50, dtype=FULL), torch.zeros(4, 1, dtype=FULL)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    bound = 2 * (2 * x).pow(2).sum().item()  # of any batch Hessian
    by_backward, beside = Shadow(model, half_mse, opt), Shadow(model, half_mse, opt)
    beside.step(x, y)
    by_backward.backward(x, y)
    assert 0 < by_backward.h_max < bound
    assert by_backward.metrics == pytest.approx(beside.metrics, nan_ok=True)


def test_readings_of_mini_batches_average_to_the_curvature_of_the_whole_set() -> None:
    # Linear regression, where Hessians do not depend on the weights: H_B = x' x / n of each batch.
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((2000, 20)) * np.r_[2.0, np.ones(19)])
    y, model = torch.zeros(2000, 1, dtype=FULL), nn.Linear(20, 1, bias=False).to(FULL)
    top = [np.linalg.eigvalsh((a.T @ a / len(a)).numpy())[-1] for a in (x, *x.split(25))]
    shadow = Shadow(model, half_mse, directions=("reverse",))
    read = [shadow.step(a, b)["shadow_h_max_batch"] for a, b in zip(x.split(25) * 4, y.split(25) * 4, strict=True)]
    # Below the top of the whole set by the angle that the noise of the batches keeps open; far below their own tops.
    assert 0.9 * top[0] < np.mean(read[80:]) < top[0]
    assert np.mean(read[80:]) < 0.8 * np.mean(top[1:])
    assert np.std(read[80:]) > 0.1 * top[0]


def test_fresh_offsets_are_drawn_at_every_window_and_the_same_by_the_same_seed() -> None:
    model, (x, y) = small(), data()
    runs = []
    for seed in (0, 0, 1):
        opt = torch.optim.SGD(model.parameters(), lr=0.0)
        shadow = Shadow(model, half_mse, opt, window=5, seed=seed, directions=("forward",), epsilon=1e-4)
        curves = []
        for _ in range(10):
            shadow.step(x, y)
            curves.append(shadow._last["forward_curvature"])
        runs.append(curves)
    # At rate 0 an offset stays as it is, so its Rayleigh quotient tells which one it is.
    assert len({round(c, 6) for c in runs[0]}) == 2
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_given_gradients_save_a_pass() -> None:
    model, (x, y) = small(), data()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    one, other = Shadow(model, half_mse, opt), Shadow(model, half_mse, opt)
    half_mse(model(x), y).backward()
    one.step(x, y, gradients=[p.grad for p in model.parameters()])
    other.step(x, y)
    assert one.metrics == other.metrics
    assert (one.n_gradients, other.n_gradients) == (2, 3)


def test_a_step_that_is_not_finite_is_lost_and_the_next_is_not() -> None:
    model, (x, y) = small(), data()
    shadow = Shadow(model, half_mse, torch.optim.SGD(model.parameters(), lr=0.1))
    shadow.step(x, y)
    lost = shadow.step(x * torch.nan, y)
    assert np.isnan(lost["shadow_h_max_batch"])
    assert np.isnan(lost["shadow_growth_batch"])
    assert shadow.n_lost == 2
    assert np.isfinite(shadow.step(x, y)["shadow_h_max_batch"])


def test_float32_offsets_are_those_that_rounding_made() -> None:
    model, (x, y) = small(), data()
    exact = sharpness(model, half_mse, x, y).h_max
    model.float()
    shadow = Shadow(model, half_mse, directions=("reverse",))
    for _ in range(40):
        shadow.step(x.float(), y.float())
    assert shadow.epsilon == pytest.approx(2.0**-12 * np.linalg.norm(flat(model)), rel=1e-6)
    assert shadow.h_max == pytest.approx(exact, rel=2e-3)


def test_what_a_shadow_cannot_follow_is_refused_in_words() -> None:
    model, (x, y) = small(), data()
    with pytest.raises(ArchitectureError, match=r"got Adam\. Use tangent_exponents"):
        Shadow(model, half_mse, torch.optim.Adam(model.parameters()))
    with pytest.raises(ArchitectureError, match=r'got no optimiser.*directions=."reverse",'):
        Shadow(model, half_mse)
    with pytest.raises(ArchitectureError, match="trains no parameter of this model"):
        Shadow(model, half_mse, torch.optim.SGD(small().parameters(), lr=0.1))
    with pytest.raises(DataError, match="rounds the whole offset away"):
        Shadow(model, half_mse, directions=("reverse",), epsilon=1e-30).step(x, y)


# --------------------------------------------------------------------------------------------------- learning rates


def test_the_rate_follows_the_curvature_of_a_quadratic() -> None:
    model = Quadratic([8.0, 1.0])
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    shadow = Shadow(model, itself, directions=("reverse",))
    schedule = CurvatureLR(opt, shadow, c=0.5, warm_up=40, smoothing=0.5)
    rates = []
    for _ in range(60):
        opt.zero_grad()
        shadow.backward(ONE)
        opt.step()
        schedule.step()
        rates.append(opt.param_groups[0]["lr"])
    assert rates[:40] == [0.01] * 40
    assert_allclose(rates[40:], 0.5 / 8, rtol=1e-4)
    assert schedule.metrics["curvature_rate"] == rates[-1] == schedule.get_last_lr()[0]


def test_groups_keep_their_ratios_and_a_state_can_be_kept() -> None:
    model = small()
    groups = [{"params": model[0].parameters(), "lr": 0.02}, {"params": model[2].parameters(), "lr": 0.01}]
    opt, (x, y) = torch.optim.SGD(groups), data()
    shadow = Shadow(model, half_mse, opt)
    schedule = CurvatureLR(opt, shadow, warm_up=0)
    for _ in range(4):
        opt.zero_grad()
        shadow.backward(x, y)
        opt.step()
        schedule.step()
    first, second = (group["lr"] for group in opt.param_groups)
    assert first == pytest.approx(2 * second)
    assert first == pytest.approx(1 / schedule.smoothed)
    kept = schedule.state_dict()
    assert "shadow" not in kept
    later = CurvatureLR(torch.optim.SGD(model.parameters(), lr=0.5), shadow, warm_up=0)
    later.load_state_dict(kept)
    assert later.smoothed == schedule.smoothed
    with pytest.raises(DataError, match="no reverse copy"):
        CurvatureLR(opt, Shadow(model, half_mse, opt, directions=("forward",)))
