"""Probes of JAX trainings: the numbers of torch's, known answers, and what only JAX has (trees, jit, scan, optax)."""

import naive_probes as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.jax import (  # noqa: E402
    Batches,
    CurvatureLR,
    Recorder,
    Shadow,
    Tangents,
    batch_sharpness,
    hessian_vector_product,
    preconditioner,
    record_scan,
    sharpness,
    spectral_density,
    tangent_exponents,
    trace,
)
from trajtools.errors import ArchitectureError, DataError, RecordingError  # noqa: E402

pytestmark = pytest.mark.jax


@pytest.fixture(autouse=True)
def _wide():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


NAMES = ("a", "b", "c", "d")


def flat_start():
    return 0.5 * np.random.default_rng(3).standard_normal(naive.N)


def params(dtype=np.float64):
    """The network of `naive_probes`; its names are in the order of its vector."""
    return {name: jnp.asarray(part, dtype) for name, part in zip(NAMES, naive.pieces(flat_start()), strict=True)}


def loss_fn(p, x, y):
    return 0.5 * jnp.mean((jnp.tanh(x @ p["a"].T + p["b"]) @ p["c"].T + p["d"] - y) ** 2)


def data(n=20, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.standard_normal((n, 3))


def flat(tree):
    return np.concatenate([np.asarray(leaf, float).ravel() for leaf in jax.tree_util.tree_leaves(tree)])


def quadratic(w, h):
    return 0.5 * jnp.sum(h * w**2)


def quartic(w):
    return jnp.sum(w**4 / 4 - w**2 / 2)


def trainer(tx):
    """One compiled update."""

    @jax.jit
    def update(p, state, gradient):
        updates, state = tx.update(gradient, state, p)
        return optax.apply_updates(p, updates), state

    return update


# --------------------------------------------------------------------------------------------------------- curvature


def test_products_and_ends_are_those_of_the_hessian_by_hand() -> None:
    p, (x, y) = params(), data()
    h = naive.hessian(flat_start(), x, y)
    v = np.random.default_rng(0).standard_normal(naive.N)
    assert_allclose(hessian_vector_product(p, loss_fn, v, x, y), h @ v, atol=1e-8)
    tree = dict(zip(NAMES, map(jnp.asarray, naive.pieces(v)), strict=True))
    found = hessian_vector_product(p, loss_fn, tree, x, y)
    assert_allclose(flat(found), h @ v, atol=1e-8)
    assert jax.tree_util.tree_structure(found) == jax.tree_util.tree_structure(p)
    values = np.linalg.eigvalsh((h + h.T) / 2)
    found = sharpness(p, loss_fn, x, y, k=2, of="full")
    assert_allclose(found.largest, values[::-1][:2], atol=1e-8)
    assert_allclose(found.smallest, values[:2], atol=1e-8)
    g = naive.gradient(flat_start(), x, y)
    assert_allclose(batch_sharpness(p, loss_fn, x, y).value, g @ h @ g / (g @ g), rtol=1e-8)
    estimate = trace(p, loss_fn, x, y, samples=300)
    assert abs(estimate.value - np.trace(h)) < 4 * estimate.standard_error
    value, error = spectral_density(p, loss_fn, x, y, steps=20, samples=50).moment(2)
    assert abs(value - np.mean(values**2)) < 4 * error


def test_batches_stand_for_the_data_they_come_from() -> None:
    p, (x, y) = params(), data()
    whole = sharpness(p, loss_fn, x, y).metrics
    assert sharpness(p, loss_fn, Batches([(x[:3], y[:3]), (x[3:], y[3:])])).metrics == pytest.approx(whole, rel=1e-9)
    assert sharpness(p, lambda q: loss_fn(q, x, y)).metrics == pytest.approx(whole, rel=1e-9)  # holds its data itself


def test_trees_may_hold_what_is_no_weight() -> None:
    tree = {"w": jnp.array([2.0, 1.0]), "activation": jnp.tanh, "count": jnp.array(3), "name": "net", "none": None}

    def loss(p, factor):
        return factor * jnp.sum(p["activation"](p["w"]) ** 2) * p["count"]

    expected = np.linalg.eigvalsh(jax.hessian(lambda w: 3 * jnp.sum(jnp.tanh(w) ** 2))(tree["w"]))
    found = sharpness(tree, loss, 1.0)
    assert_allclose([found.h_max, found.h_min], expected[::-1], rtol=1e-10)
    shadow = Shadow(tree, loss, learning_rate=0.1)
    _, gradient = shadow.value_and_grad(tree, 1.0)
    assert gradient["activation"] is None
    assert_allclose(gradient["w"], jax.grad(lambda w: 3 * jnp.sum(jnp.tanh(w) ** 2))(tree["w"]))
    once = shadow.h_max
    other = Shadow(tree, loss, learning_rate=0.1)
    other.step(tree, 1.0, gradients=gradient)
    assert other.h_max == pytest.approx(once)


def test_a_loss_is_compiled_once_for_a_function_and_a_shape() -> None:
    p, (x, y) = params(), data()
    traced = []

    def counted(q, a, b):
        traced.append(1)
        return loss_fn(q, a, b)

    sharpness(p, counted, x, y)
    n = len(traced)
    sharpness(jax.tree_util.tree_map(lambda leaf: leaf + 1, p), counted, x, y)
    assert len(traced) == n


def test_what_cannot_be_probed_is_refused_in_words() -> None:
    p, (x, y) = params(), data()
    with pytest.raises(DataError, match="there are 43 weights"):
        hessian_vector_product(p, loss_fn, np.ones(42), x, y)
    with pytest.raises(ValueError, match="take the mean or the"):
        sharpness(p, lambda q, a, b: a, x, y)
    with pytest.raises(ArchitectureError, match="no floating-point array"):
        sharpness({"n": 3}, loss_fn, x, y)
    with pytest.raises(RecordingError, match="is a tracer"):
        jax.jit(lambda q: sharpness(q, loss_fn, x, y).h_max)(p)
    with pytest.raises(DataError, match="not finite"):
        sharpness(p, loss_fn, x * np.nan, y)


# ----------------------------------------------------------------------------------------------------- parity to torch


def test_torch_and_jax_agree_on_the_same_network() -> None:
    torch = pytest.importorskip("torch")
    import torch_probes as other

    import recorders.torch as of_torch

    p, (x, y) = params(), data()
    model = other.small()
    with torch.no_grad():
        for mine, its in zip(model.parameters(), naive.pieces(flat_start()), strict=True):
            mine.copy_(torch.tensor(its))
    tx, ty = torch.tensor(x), torch.tensor(y)
    one, two = of_torch.sharpness(model, other.half_mse, tx, ty, k=3), sharpness(p, loss_fn, x, y, k=3)
    assert_allclose(one.largest, two.largest, atol=1e-10)
    assert_allclose(one.smallest, two.smallest, atol=1e-10)
    assert_allclose(of_torch.trace(model, other.half_mse, tx, ty).samples, trace(p, loss_fn, x, y).samples, atol=1e-10)
    one = of_torch.spectral_density(model, other.half_mse, tx, ty, steps=8, samples=2)
    assert_allclose(one.nodes, spectral_density(p, loss_fn, x, y, steps=8, samples=2).nodes, atol=1e-10)
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    opt = torch.optim.SGD(model.parameters(), lr=0.2, **options)
    shadows = (
        of_torch.Shadow(model, other.half_mse, opt, epsilon=1e-3),
        Shadow(p, loss_fn, learning_rate=0.2, epsilon=1e-3, **options),
    )
    tangents = (
        of_torch.Tangents(model, other.half_mse, opt, k=3, window=10),
        Tangents(
            p, loss_fn, tx_ := optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.2, 0.9, True)), k=3, window=10
        ),
    )
    state, update = tx_.init(p), trainer(tx_)
    for _ in range(20):
        tangents[0].step(tx, ty)
        tangents[1].step(p, state, x, y)
        opt.zero_grad()
        shadows[0].backward(tx, ty)
        opt.step()
        _, gradient = shadows[1].value_and_grad(p, x, y)
        p, state = update(p, state, gradient)
        assert shadows[0].metrics == pytest.approx(shadows[1].metrics, abs=1e-10, nan_ok=True)
    assert_allclose(tangents[0].result().local, tangents[1].result().local, atol=1e-10)
    assert_allclose(tangents[0].result().windows, tangents[1].result().windows, atol=1e-10)


# ----------------------------------------------------------------------------------------------------------- shadows


def test_a_quadratic_tells_its_curvatures_and_the_edge() -> None:
    h = jnp.array([3.0, 1.0, -0.5])
    for rate, dominant in ((0.1, -0.5), (0.9, 3.0)):
        shadow = Shadow(jnp.zeros(3), quadratic, learning_rate=rate, epsilon=1e-3, of="full")
        for _ in range(150):
            shadow.step(jnp.zeros(3), h)
        assert shadow.growth == pytest.approx(np.log(abs(1 - rate * dominant)), abs=1e-7)
        assert shadow.h_max == pytest.approx(3.0, abs=1e-7)
        assert (shadow.h_min == pytest.approx(-0.5, abs=1e-7)) if dominant < 0 else np.isnan(shadow.h_min)


def test_the_quartic_is_chaotic_at_ln_3_by_shadow_and_tangent() -> None:
    w = jnp.array([0.3])
    shadow, growth = Shadow(w, quartic, learning_rate=2.0, directions=("forward",)), []
    found = tangent_exponents(w, quartic, optax.sgd(2.0), [()] * 400, window=100)
    for _ in range(400):
        _, gradient = shadow.value_and_grad(w)
        w = w - 2.0 * gradient
        growth.append(shadow.growth)
    assert np.mean(growth) == pytest.approx(found.values[0], abs=1e-4)
    assert found.intervals[0, 0] < np.log(3) < found.intervals[0, 1]


def test_value_and_grad_gives_the_bits_of_jax() -> None:
    p, (x, y) = params(), data()
    shadow = Shadow(p, loss_fn, learning_rate=0.1)
    loss, gradient = shadow.value_and_grad(p, x, y)
    expected_loss, expected = jax.jit(jax.value_and_grad(loss_fn))(p, x, y)
    assert loss == expected_loss
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(lambda a, b: (a == b).all(), gradient, expected))
    assert shadow.n_gradients == 2


def test_keys_in_the_batch_give_all_copies_the_same_noise() -> None:
    def noisy(w, key):
        return jnp.sum(w**2 * jax.random.bernoulli(key, 0.5, w.shape))

    shadow = Shadow(jnp.ones(50), noisy, directions=("reverse",), epsilon=1e-3)
    shadow.step(jnp.ones(50), jax.random.key(0))
    assert 0 < shadow.h_max < 2 + 1e-9


def test_a_schedule_or_a_rate_of_each_step_is_followed() -> None:
    h = jnp.array([2.0])
    by_schedule = Shadow(jnp.zeros(1), quadratic, learning_rate=lambda step: 0.1 * (1 + step), epsilon=1e-3)
    by_hand = Shadow(jnp.zeros(1), quadratic, epsilon=1e-3)
    for step in range(3):
        rate = 0.1 * (1 + step)
        assert by_schedule.step(jnp.zeros(1), h)["shadow_growth_batch"] == pytest.approx(np.log(1 - 2 * rate))
        by_hand.step(jnp.zeros(1), h, learning_rate=rate)
        assert by_hand.growth == pytest.approx(by_schedule.growth)
    with pytest.raises(DataError, match="needs the learning rate"):
        by_hand.step(jnp.zeros(1), h)


def test_the_pure_step_in_a_scan_is_the_step_of_the_loop(tmp_path) -> None:
    p, (x, y) = params(), data()
    xs = np.stack([x[i % 4 :: 4] for i in range(12)]), np.stack([y[i % 4 :: 4] for i in range(12)])
    options = {"learning_rate": 0.2, "momentum": 0.9, "epsilon": 1e-4}
    tx = optax.sgd(0.2, 0.9)
    shadow = Shadow(p, loss_fn, **options)

    def step(carry, batch):
        q, state, copies = carry
        loss, gradient = jax.value_and_grad(loss_fn)(q, *batch)
        copies, metrics = shadow.pure_step(copies, q, *batch, gradients=gradient)
        updates, state = tx.update(gradient, state, q)
        return (optax.apply_updates(q, updates), state, copies), {"loss": loss, **metrics}

    with Recorder(tmp_path / "run.h5", p, quiet=True) as rec:
        record_scan(rec, step, (p, tx.init(p), shadow.init()), xs, params=lambda carry: carry[0], block=12)
    with tt.open(tmp_path / "run.h5") as run:
        scanned = {name: np.asarray(values) for name, values in run.metrics.items()}
    state, update = tx.init(p), trainer(tx)
    for t in range(12):
        _, gradient = shadow.value_and_grad(p, xs[0][t], xs[1][t])
        for name, value in shadow.metrics.items():
            assert scanned[name][t] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name
        p, state = update(p, state, gradient)


def test_fresh_offsets_lost_steps_and_late_growth_are_what_they_are_in_torch() -> None:
    p, (x, y) = params(), data()
    shadow = Shadow(p, loss_fn, learning_rate=0.0, window=5, epsilon=1e-4)
    curves = []
    for _ in range(10):
        shadow.step(p, x, y)
        curves.append(shadow._last["forward_curvature"])
    assert len({round(c, 6) for c in curves}) == 2  # at rate 0 an offset stays as it is
    assert np.isnan(shadow.step(p, x * np.nan, y)["shadow_h_max_batch"])
    assert shadow.n_lost == 2
    assert np.isfinite(shadow.step(p, x, y)["shadow_h_max_batch"])
    late = Shadow(jnp.ones(1), quadratic, learning_rate=1.0, epsilon=1e-8, directions=("forward",))
    for _ in range(50):
        late.step(jnp.ones(1), jnp.array([0.0]))
    late._state = {**late._state, "climb": late._state["climb"]._replace(total=jnp.asarray(15.0))}
    with pytest.warns(UserWarning, match="was quiet for 5"):
        late.step(jnp.ones(1), jnp.array([5.0]))
    assert late.warnings
    with pytest.raises(DataError, match="rounds the whole offset away"):
        Shadow(p, loss_fn, directions=("reverse",), epsilon=1e-30).step(p, x, y)


@pytest.mark.slow  # the same in test_probes_torch.py; compiling costs seconds here
def test_float32_offsets_are_those_that_rounding_made() -> None:
    p, (x, y) = params(), data()
    exact = sharpness(p, loss_fn, x, y).h_max
    p = params(np.float32)
    shadow = Shadow(p, loss_fn, directions=("reverse",))
    for _ in range(40):
        shadow.step(p, x.astype(np.float32), y.astype(np.float32))
    assert shadow.h_max == pytest.approx(exact, rel=2e-3)
    found = sharpness(p, loss_fn, x.astype(np.float32), y.astype(np.float32))
    assert found.converged
    assert found.h_max == pytest.approx(exact, rel=1e-5)


# -------------------------------------------------------------------------------------------------- tangent exponents


def test_exponents_of_the_heavy_ball_come_in_pairs() -> None:
    found = tangent_exponents(
        jnp.ones(2), quadratic, optax.sgd(0.1, 0.9), [(jnp.array([4.0, 1.0]),)] * 400, k=4, vectors="kept"
    )
    assert_allclose(found.values, [0.5 * np.log(0.9)] * 4, atol=6e-3)
    assert found.values.sum() == pytest.approx(2 * np.log(0.9), abs=1e-9)


def test_local_exponents_are_those_of_the_whole_jacobian_by_hand() -> None:
    p, (x, y) = params(), data()
    batches = [(x[i::4], y[i::4]) for i in range(4)] * 2
    found = tangent_exponents(p, loss_fn, optax.sgd(0.3, 0.9), batches, k=3, window=8, vectors="kept")
    drawn = np.zeros((2 * naive.N, 3))
    drawn[: naive.N] = np.random.default_rng(0).standard_normal((naive.N, 3))
    start = np.r_[flat_start(), np.zeros(naive.N)]
    expected = naive.benettin([naive.sgd(0.3, 0.9)] * 8, start, batches, np.linalg.qr(drawn)[0])
    assert_allclose(found.local, expected, atol=1e-6)


def test_adam_without_a_gradient_has_no_derivative_and_eps_root_gives_it_one() -> None:
    h = (jnp.array([2.0, 0.0]),)
    lost = tangent_exponents(jnp.ones(2), quadratic, optax.adam(0.01), [h] * 5, k=2)
    assert lost.n_lost == 5
    assert lost.warnings[0].code == "not-finite"
    found = tangent_exponents(jnp.ones(2), quadratic, optax.adam(0.01, eps_root=1e-16), [h] * 5, k=2)
    assert found.n_lost == 0


@pytest.mark.slow  # the same in test_probes_torch.py; compiling costs seconds here
def test_a_training_in_its_middle_goes_on_from_its_state() -> None:
    p, (x, y) = params(), data()
    tx = optax.adam(0.05)
    state, update, gradient_of = tx.init(p), trainer(tx), jax.jit(jax.grad(loss_fn))
    follower = Tangents(p, loss_fn, tx, vectors="kept")
    local = []
    for t in range(8):
        if t == 4:
            expected = tangent_exponents(p, loss_fn, tx, [(x, y)] * 4, vectors="kept", state=state)
        if t >= 4:
            local.append(follower.step(p, state, x, y)["tangent_growth_batch"])
        p, state = update(p, state, gradient_of(p, x, y))
    assert_allclose(local, expected.local[:, 0], rtol=1e-9)
    with pytest.raises(DataError, match="no batches"):
        tangent_exponents(p, loss_fn, tx, [])


# --------------------------------------------------------------------------------------------------- learning rates


def test_the_rate_follows_the_curvature_inside_a_scan() -> None:
    w, h = jnp.ones(2), jnp.array([8.0, 1.0])
    shadow = Shadow(w, quadratic, directions=("reverse",))
    tx = optax.chain(optax.trace(0.0), CurvatureLR(shadow, 0.01, c=0.5, warm_up=40, smoothing=0.5))

    def step(carry, _):
        q, state = carry
        gradient = jax.grad(quadratic)(q, h)
        updates, state = tx.update(gradient, state, q, batch=(h,), gradients=gradient)
        return (q + updates, state), (state[1].learning_rate, updates / -gradient)

    _, (rates, applied) = jax.lax.scan(step, (w, tx.init(w)), length=60)
    assert_allclose(rates[:40], 0.01)
    assert_allclose(rates[40:], 0.5 / 8, rtol=1e-4)
    assert_allclose(applied[:, 0], rates, rtol=1e-9)


def test_the_rates_of_torch_and_jax_are_the_same_one_update_apart() -> None:
    torch = pytest.importorskip("torch")
    import torch_probes as other

    import recorders.torch as of_torch

    model = other.Quadratic([8.0, 1.0, -1.0])
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    mine = of_torch.Shadow(model, other.itself, directions=("reverse",), epsilon=1e-4)
    schedule = of_torch.CurvatureLR(opt, mine, warm_up=3, highest=0.13, interval=2)
    h = jnp.array([8.0, 1.0, -1.0])
    tx = CurvatureLR(
        Shadow(jnp.ones(3), quadratic, directions=("reverse",), epsilon=1e-4), 0.01, warm_up=3, highest=0.13, interval=2
    )
    state = tx.init(jnp.ones(3))
    for _ in range(12):
        opt.zero_grad()
        mine.backward(other.ONE)
        w = jnp.asarray(model.w.detach().numpy())
        _, state = tx.update(jax.grad(quadratic)(w, h), state, w, batch=(h,))
        opt.step()
        schedule.step()
        assert opt.param_groups[0]["lr"] == pytest.approx(float(state.learning_rate), rel=1e-9)
    with pytest.raises(DataError, match="measures at the weights"):
        tx.update(h, state, batch=(h,))
    with pytest.raises(DataError, match="no reverse copy"):
        CurvatureLR(Shadow(jnp.ones(3), quadratic, learning_rate=0.1, directions=("forward",)), 0.1)


def test_the_preconditioner_is_what_divides_the_step_of_adam() -> None:
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    optimizer = optax.chain(optax.clip(10.0), optax.adam(0.1, b1=0.8, b2=0.9))
    state = optimizer.init(params)
    with pytest.raises(DataError, match=r"1 states of Adam in a tuple.*after an update"):
        preconditioner(state)
    for scale in (1.0, -3.0, 2.0):
        updates, state = optimizer.update(jax.tree_util.tree_map(lambda w, s=scale: s * w, params), state)
    diagonal = preconditioner(state, b1=0.8, b2=0.9)
    first = state[1][0].mu
    for name in params:
        assert_allclose(updates[name], -0.1 * first[name] / diagonal[name], rtol=1e-5)

    def loss_fn(params):
        return 3 * params["w"][0] ** 2 + params["w"][1] ** 2 + params["b"] ** 2

    found = sharpness(params, loss_fn, preconditioner=diagonal)
    values = [6 / diagonal["w"][0], 2 / diagonal["w"][1], 2 / diagonal["b"]]
    assert_allclose(found.metrics["preconditioned_h_max_batch"], max(values), rtol=1e-5)
