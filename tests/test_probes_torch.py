"""Probes of torch trainings: against networks differentiated by hand, known answers, and trainings left alone."""

import random
import warnings
from copy import deepcopy

import naive_probes as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_probes import FULL, ONE, Noisy, Quadratic, Quartic, chebyshev, data, flat, half_mse, itself, small  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.torch import (  # noqa: E402
    Batches,
    CurvatureLR,
    Recorder,
    Shadow,
    Tangents,
    Twins,
    batch_sharpness,
    hessian_vector_product,
    sharpness,
    spectral_density,
    tangent_exponents,
    trace,
)
from trajtools.store import ArchitectureError, DataError  # noqa: E402

pytestmark = pytest.mark.torch


# --------------------------------------------------------------------------------------------------------- curvature


def test_products_and_ends_are_those_of_the_hessian_by_hand() -> None:
    model, (x, y) = small(), data()
    h = naive.hessian(flat(model), x.numpy(), y.numpy())
    v = np.random.default_rng(0).standard_normal(naive.N)
    assert_allclose(hessian_vector_product(model, half_mse, v, x, y), h @ v, atol=1e-8)
    found = sharpness(model, half_mse, x, y, k=2, of="full")
    values = np.linalg.eigvalsh((h + h.T) / 2)
    assert_allclose(found.largest, values[::-1][:2], atol=1e-8)
    assert_allclose(found.smallest, values[:2], atol=1e-8)
    assert found.metrics["h_max_full"] == found.h_max
    g = naive.gradient(flat(model), x.numpy(), y.numpy())
    assert_allclose(batch_sharpness(model, half_mse, x, y).value, g @ h @ g / (g @ g), rtol=1e-8)
    estimate = trace(model, half_mse, x, y, samples=300, of="full")
    assert abs(estimate.value - np.trace(h)) < 4 * estimate.standard_error
    value, error = spectral_density(model, half_mse, x, y, steps=20, samples=50).moment(2)
    assert abs(value - np.mean(values**2)) < 4 * error


def test_products_with_named_tensors_and_with_a_tensor_are_the_same() -> None:
    model, (x, y) = small(), data()
    v = np.random.default_rng(0).standard_normal(naive.N)
    expected = hessian_vector_product(model, half_mse, v, x, y)
    assert_allclose(hessian_vector_product(model, half_mse, torch.tensor(v), x, y), expected)
    names = [name for name, _ in model.named_parameters()]
    named = {n: torch.tensor(part) for n, part in zip(names, naive.pieces(v), strict=True)}
    found = hessian_vector_product(model, half_mse, named, x, y)
    assert [found[n].shape for n in names] == [p.shape for p in model.parameters()]
    assert_allclose(np.concatenate([found[n].numpy().ravel() for n in names]), expected)


def test_batches_stand_for_the_data_they_come_from() -> None:
    model, (x, y) = small(), data()
    whole = sharpness(model, half_mse, x, y).metrics
    uneven = Batches([(x[:3], y[:3]), (x[3:], y[3:])])
    assert sharpness(model, half_mse, uneven).metrics == pytest.approx(whole, rel=1e-9)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=7, shuffle=True)
    before = torch.get_rng_state()
    assert sharpness(model, half_mse, Batches(loader)).metrics == pytest.approx(whole, rel=1e-9)
    assert torch.equal(before, torch.get_rng_state())
    total = Batches([(x[:3], y[:3]), (x[3:], y[3:])], reduction="sum")
    summed = sharpness(model, lambda o, t: ((o - t) ** 2).sum(), total)
    assert summed.h_max == pytest.approx(2 * y.numel() * whole["h_max_batch"], rel=1e-9)
    assert batch_sharpness(model, half_mse, uneven).samples.shape == (2,)


def test_tied_frozen_and_unused_weights_are_counted_as_they_train() -> None:
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor([2.0], dtype=FULL))
            self.also_a = self.a
            self.frozen = nn.Parameter(torch.tensor([3.0], dtype=FULL), requires_grad=False)
            self.unused = nn.Parameter(torch.zeros(2, dtype=FULL))

        def forward(self, x):
            return x * (self.a * self.also_a * self.frozen).sum()

    found = sharpness(Odd(), itself, ONE)
    assert_allclose([found.h_max, found.h_min], [6, 0], atol=1e-12)
    assert found.settings["n"] == 3


def test_a_loss_without_curvature_has_none() -> None:
    model = nn.Linear(3, 1).to(FULL)
    found = sharpness(model, torch.sum, torch.ones(2, 3, dtype=FULL))
    assert (found.h_max, found.h_min) == (0.0, 0.0)


def test_float32_is_as_good_as_float32_can_be() -> None:
    model, (x, y) = small(), data()
    fine = sharpness(model, half_mse, x, y)
    coarse = sharpness(model.float(), half_mse, x.float(), y.float())
    assert coarse.converged
    assert_allclose([coarse.h_max, coarse.h_min], [fine.h_max, fine.h_min], atol=2e-6 * fine.h_max)


def test_inputs_may_be_several_or_named() -> None:
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones((), dtype=FULL))

        def forward(self, a, b):
            return (a + b) * self.w**2

    for x in ((ONE, ONE), {"a": ONE, "b": ONE}):
        assert sharpness(Sum(), itself, x).h_max == pytest.approx(4.0)


def test_what_cannot_be_probed_is_refused_in_words() -> None:
    model, (x, y) = small(), data()
    with pytest.raises(DataError, match="there are 43 weights"):
        hessian_vector_product(model, half_mse, np.ones(42), x, y)
    with pytest.raises(ArchitectureError, match="one tensor for each trainable parameter"):
        hessian_vector_product(model, half_mse, {"w": torch.ones(1)}, x, y)
    wrong = {name: torch.ones(1) for name, _ in model.named_parameters()}
    with pytest.raises(ArchitectureError, match="has shape"):
        hessian_vector_product(model, half_mse, wrong, x, y)
    with pytest.raises(ValueError, match="take the mean or the sum"):
        sharpness(model, lambda o, t: o - t, x, y)
    with pytest.raises(DataError, match="no data"):
        sharpness(model, half_mse)
    with pytest.raises(DataError, match="not finite"):
        sharpness(model, half_mse, x * torch.nan, y)
    with pytest.raises(ArchitectureError, match="there is no state to record"):
        sharpness(model.requires_grad_(False), half_mse, x, y)


# --------------------------------------------------------------------------------------------- the user's training


def train(probed, optimizer, by_backward=False, steps=6):
    """Train the noisy network, probed at every step or not; everything that the training leaves behind."""
    model = Noisy()
    opt = optimizer(p for p in model.parameters() if p.requires_grad)
    loss_fn = nn.CrossEntropyLoss()
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    random.seed(4)
    shadow = Shadow(model, loss_fn, opt) if isinstance(opt, torch.optim.SGD) and probed else None
    tangents = Tangents(model, loss_fn, opt, k=2, window=3) if probed else None
    for _ in range(steps):
        x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
        if probed:
            sharpness(model, loss_fn, x, y, max_products=8)
            batch_sharpness(model, loss_fn, Batches([(x, y)]))
            trace(model, loss_fn, x, y, samples=2)
            spectral_density(model, loss_fn, x, y, steps=3, samples=1)
            tangents.step(x, y)
        opt.zero_grad()
        if shadow and by_backward:
            shadow.backward(x, y)
        else:
            if shadow:
                shadow.step(x, y)
            loss_fn(model(x), y).backward()
        opt.step()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad for p in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    return model, state, gradients, generators


@pytest.mark.parametrize(("name", "by_backward"), [("sgd", False), ("sgd", True), ("adam", False)])
def test_a_training_is_the_same_to_the_bit_with_and_without_probes(name, by_backward) -> None:
    kinds = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "adam": lambda p: torch.optim.Adam(p, lr=0.01)}
    alone = train(False, kinds[name])
    probed = train(True, kinds[name], by_backward)
    assert all(torch.equal(alone[1][key], probed[1][key]) for key in alone[1])
    for one, other in zip(alone[2], probed[2], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert torch.equal(alone[3][0], probed[3][0])
    assert alone[3][1:] == probed[3][1:]
    assert all(module.training for module in probed[0].modules())


def test_gradients_that_were_there_are_added_to() -> None:
    model, (x, y) = small(), data()
    shadow = Shadow(model, half_mse, torch.optim.SGD(model.parameters(), lr=0.1))
    half_mse(model(x), y).backward()
    once = [p.grad.clone() for p in model.parameters()]
    shadow.backward(x, y)
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(model.parameters(), once, strict=True))
    fresh = Shadow(model, half_mse, torch.optim.SGD(model.parameters(), lr=0.1))
    fresh.step(x, y)
    assert shadow.h_max == pytest.approx(fresh.h_max, rel=1e-6)


def test_probes_work_where_gradients_are_switched_off() -> None:
    model, (x, y) = small(), data()
    with torch.no_grad():
        assert sharpness(model, half_mse, x, y).h_max > 0
        assert np.isfinite(Shadow(model, half_mse, directions=("reverse",)).step(x, y)["shadow_h_max_batch"])
        assert np.isfinite(tangent_exponents(model, half_mse, torch.optim.SGD(model.parameters()), [(x, y)]).values[0])


def test_the_numbers_are_recorded_as_metrics(tmp_path) -> None:
    model, (x, y) = small(), data()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    shadow, tangents = Shadow(model, half_mse, opt, of="full"), Tangents(model, half_mse, opt, k=2, window=2, of="full")
    with Recorder(tmp_path / "run.h5", model, optimizer=opt, quiet=True) as rec:
        for _ in range(5):
            opt.zero_grad()
            tangents.step(x, y)
            loss = shadow.backward(x, y)
            rec.record(loss=loss, **shadow.metrics, **tangents.metrics, **sharpness(model, half_mse, x, y).metrics)
            opt.step()
    with tt.open(tmp_path / "run.h5") as file:
        metrics = {name: np.asarray(values) for name, values in file["run"].metrics.items()}
    assert set(shadow.metrics) | {"tangent_growth_full", "h_max_batch", "loss"} <= set(metrics)
    assert np.isfinite(metrics["shadow_h_max_full"][:5]).all()
    assert metrics["tangent_growth_full"].shape == (6, 1, 2)
    assert np.isnan(metrics["tangent_window_full"][:5, 0, 0]).tolist() == [True, False, True, False, True]


# ----------------------------------------------------------------------------------------------------------- shadows


def follow(model, opt, steps, loss_fn=itself, batch=(ONE,), **options):
    shadow = Shadow(model, loss_fn, opt, of="full", **options)
    growth = []
    for _ in range(steps):
        opt.zero_grad()
        shadow.backward(*batch)
        opt.step()
        growth.append(shadow.growth)
    return shadow, np.array(growth)


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
    from recorders.offsets import random_direction

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
            curves.append(shadow._book.last["forward_curvature"])
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
    with pytest.raises(ArchitectureError, match=r"Adam came\. Use tangent_exponents"):
        Shadow(model, half_mse, torch.optim.Adam(model.parameters()))
    with pytest.raises(ArchitectureError, match=r'no optimiser came.*directions=."reverse",'):
        Shadow(model, half_mse)
    with pytest.raises(ArchitectureError, match="trains no parameter of this model"):
        Shadow(model, half_mse, torch.optim.SGD(small().parameters(), lr=0.1))
    with pytest.raises(DataError, match="rounds the whole offset away"):
        Shadow(model, half_mse, directions=("reverse",), epsilon=1e-30).step(x, y)


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
    assert_allclose(tangent.windows, np.log(3), atol=0.05)
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
    from recorders.torch.updates import rule

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
    # of it; those of a fresh window do; a shadow follows what rounding has put back, and says so.
    model, x, y = chebyshev()
    opt = torch.optim.SGD(model.parameters(), lr=0.4)
    found = tangent_exponents(model, half_mse, opt, [(x, y)] * 600, window=100, of="full")
    assert found.windows[5, 0] == pytest.approx(0.2404, rel=0.05)
    assert found.window_gains[5] > 20
    assert np.abs(found.windows[:4]).max() < 2e-3
    assert abs(found.values[0]) < 2e-3
    mean, doubts = grown(1e-8)
    assert mean > 10 * abs(found.values[0])
    assert "was quiet for" in doubts[0]


@pytest.mark.slow
def test_the_exponent_of_a_shadow_depends_on_epsilon_where_stability_is_lost_late() -> None:
    means = [grown(epsilon)[0] for epsilon in (1e-8, 1e-6, 1e-4)]
    assert means[0] > 1.3 * means[1] > 1.3 * 1.05 * means[2]


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
