"""Curvature of torch networks, against networks differentiated by hand; and trainings left alone by probes."""

import random

import naive_probes as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch_probes import FULL, ONE, Noisy, data, flat, half_mse, itself, small  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.torch import (  # noqa: E402
    Batches,
    Recorder,
    Shadow,
    Tangents,
    batch_sharpness,
    hessian_vector_product,
    preconditioner,
    sharpness,
    spectral_density,
    tangent_exponents,
    trace,
)
from trajtools.errors import ArchitectureError, DataError  # noqa: E402

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


def test_a_call_of_the_wrong_form_says_the_right_one() -> None:
    model, (x, y) = small(), data()
    for batch in ((x, y),), (x,):
        with pytest.raises(TypeError) as caught:
            sharpness(model, half_mse, *batch)
        assert "(..., x, y)" in caught.value.__notes__[0]


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
    with tt.open(tmp_path / "run.h5") as run:
        metrics = {name: np.asarray(values) for name, values in run.metrics.items()}
    assert set(shadow.metrics) | {"tangent_growth_full", "h_max_batch", "loss"} <= set(metrics)
    assert np.isfinite(metrics["shadow_h_max_full"][:5]).all()
    assert metrics["tangent_growth_full"].shape == (6, 1, 2)
    assert np.isnan(metrics["tangent_window_full"][:5, 0, 0]).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Adam", {"betas": (0.8, 0.9)}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {"weight_decay": 0.0}),
        ("RMSprop", {"eps": 1e-3}),
        ("RMSprop", {"centered": True}),
    ],
)
def test_the_preconditioner_is_what_divides_the_step(kind, settings) -> None:
    model, (x, y) = small(), data()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, **settings)
    with pytest.raises(DataError, match=r"has no second moments of '0\.weight'"):
        preconditioner(model, optimizer)
    for _ in range(4):
        before = flat(model)
        optimizer.zero_grad()
        half_mse(model(x), y).backward()
        optimizer.step()
    diagonal = preconditioner(model, optimizer)
    first = np.concatenate([optimizer.state[p].get("exp_avg", p.grad).numpy().ravel() for p in model.parameters()])
    flat_p = np.concatenate([part.numpy().ravel() for part in diagonal.values()])
    assert_allclose(before - flat(model), 0.1 * first / flat_p, rtol=1e-9)
    by_name = sharpness(model, half_mse, x, y, preconditioner=diagonal)
    assert "of P^-1 H" in str(by_name)
    with pytest.raises(DataError, match=r"is the optimiser \w+; needed its diagonal"):
        sharpness(model, half_mse, x, y, preconditioner=optimizer)
    assert_allclose(sharpness(model, half_mse, x, y, preconditioner=flat_p).h_max, by_name.h_max, rtol=1e-9)
