"""Twins of pytrees: how they are made, and that they train as they would alone."""

import os
from unittest.mock import patch

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import perturb as perturb_arrays  # noqa: E402
from recorders.jax import Recorder, Twins, perturb, record_scan, stack  # noqa: E402
from recorders.jax.twins import LARGEST_STACKED  # noqa: E402
from trajtools.errors import ArchitectureError, PerturbationError, RecordingError  # noqa: E402

pytestmark = pytest.mark.jax

STEPS, BATCH = 25, 17


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    jax.config.update("jax_enable_x64", request.param == "float64")
    yield np.dtype(request.param)
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def network(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = {"conv.kernel": (3, 2, 4), "hidden.kernel": (24, 9), "hidden.bias": (9,), "out.kernel": (9, 3)}
    return {name: jnp.asarray(0.5 * rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def loss_fn(params, x, y):
    x = jax.lax.conv_general_dilated(x, params["conv.kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    x = jax.nn.gelu(x.reshape(len(x), -1) @ params["hidden.kernel"] + params["hidden.bias"])
    return optax.softmax_cross_entropy_with_integer_labels(x @ params["out.kernel"], y).mean()


def batches(dtype=np.float32, steps=STEPS):
    rng = np.random.default_rng(1)
    return rng.normal(size=(steps, BATCH, 6, 2)).astype(dtype), rng.integers(0, 3, (steps, BATCH))


def flat(params):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree_util.tree_leaves(params)])


def twins_of(params, *, epsilon=1e-3, optimizer=None, members=3, loss_fn=loss_fn, vectorize="auto", **options):
    """Twins; ``vectorize="apart"``: members with arrays of their own, as those of large networks are."""
    options |= {"epsilon": epsilon, "members": members, "seed": 3}
    with patch("recorders.jax.twins.LARGEST_STACKED", 0 if vectorize == "apart" else LARGEST_STACKED):
        path = False if vectorize == "apart" else vectorize
        return Twins(params, loss_fn, optimizer or optax.adam(0.01), vectorize=path, **options)


def distances(run):
    states = run.states[:].astype(np.float64)
    return np.abs(states - states[:, :1]).sum(2)


# ------------------------------------------------------------------------------------------------------- making twins


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_twins_have_the_bits_of_the_numpy_twins(dtype, distribution):
    params = network(dtype)
    arrays = {name: np.asarray(leaf) for name, leaf in params.items()}
    ours = perturb(params, 1e-3, 4, 11, distribution=distribution)
    theirs = perturb_arrays(arrays, 1e-3, 4, 11, distribution=distribution)
    assert ours.members == theirs.members
    assert ours.rounded_fraction == theirs.rounded_fraction
    for twin, expected in zip(ours, theirs, strict=True):
        for name, leaf in twin.items():
            assert isinstance(leaf, jax.Array)
            np.testing.assert_array_equal(leaf, expected[name], strict=True)
        np.testing.assert_array_equal(twin["hidden.bias"], params["hidden.bias"])


def test_only_weights_are_perturbed_unless_told_otherwise():
    params = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "n": {"scale": jnp.ones(3), "bias": jnp.ones(3)}}

    def moved(**options):
        (twin,) = perturb(params, options.pop("epsilon", 1e-2), 1, 0, **options)
        same = jax.tree_util.tree_map(lambda a, b: bool((a == b).any()), twin, params)
        return {f"{k}.{name}" for k, inner in same.items() for name, kept in inner.items() if not kept}

    assert moved() == {"a.kernel"}
    assert moved(only="all") == {"a.kernel", "a.bias", "n.scale", "n.bias"}
    assert moved(only=["*.bias"]) == {"a.bias", "n.bias"}
    assert moved(epsilon={"n.*": 0.1}) == {"n.scale", "n.bias"}


def test_twins_of_an_equinox_module_are_modules_that_share_its_functions():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    twin = perturb(model, 1e-2, 2, 0)[1]
    assert twin.activation is model.activation
    assert not np.array_equal(twin.layers[0].weight, model.layers[0].weight)
    np.testing.assert_array_equal(twin.layers[0].bias, model.layers[0].bias)
    assert twin(jnp.ones(2)).shape == (3,)


def test_an_epsilon_that_float32_swallows_is_refused_with_the_name_of_the_option():
    params = network()
    with pytest.raises(PerturbationError, match="jax_enable_x64"):
        perturb(params, 1e-12, 2, 0)
    assert perturb(params, 1e-12, 2, 0, allow_rounded=True).rounded_fraction > 0.5
    assert perturb(params, 0.0, 2, 0).rounded_fraction == 0


def test_float64_has_room_for_a_small_epsilon(float64):
    params = network(np.float64)
    twins = perturb(params, 1e-12, 2, 0)
    assert twins.rounded_fraction < 0.01
    assert twins[0]["out.kernel"].dtype == np.float64
    assert 0 < float(jnp.abs(twins[0]["out.kernel"] - params["out.kernel"]).max()) <= 1.001e-12


def test_numpy_weights_that_jax_would_round_are_refused():
    with pytest.raises(PerturbationError, match="jax_enable_x64"):
        perturb({"w": np.ones((2, 2))}, 1e-3, 1, 0)


def test_stacked_and_listed_twins_make_the_same_file(tmp_path):
    params = network()
    twins = perturb(params, 1e-3, 3, 5)
    for name, state in (("list", [params, *twins]), ("stack", stack(params, twins))):
        with Recorder(tmp_path / f"{name}.h5", state, members=twins, quiet=True) as rec:
            rec.record(jax.tree_util.tree_map(lambda leaf: 2 * leaf, state), loss=jnp.arange(4.0))
    with tt.open(tmp_path / "list.h5") as a, tt.open(tmp_path / "stack.h5") as b:
        assert repr(a.members) == repr(b.members)  # NaN equals no NaN
        assert [m.reference for m in a.members] == [-1, 0, 0, 0]
        assert {m.epsilon for m in a.members[1:]} == {1e-3}
        assert a.parameters == b.parameters
        assert a.provenance["perturbations"] == b.provenance["perturbations"]
        np.testing.assert_array_equal(a.states[:], b.states[:])
        np.testing.assert_array_equal(a.states[:][0, 2], flat(twins[1]))


def test_trees_that_differ_cannot_be_stacked():
    with pytest.raises(ArchitectureError, match="differs in structure"):
        stack({"w": jnp.ones(2)}, [{"v": jnp.ones(2)}])
    with pytest.raises(ArchitectureError, match="different shapes"):
        stack({"w": jnp.ones(2)}, [{"w": jnp.ones(3)}])


# ---------------------------------------------------------------------------------------------------------- lock-step


@pytest.mark.parametrize("vectorize", ["auto", False, "apart"])
@pytest.mark.parametrize("by", ["step", "scan"])
def test_a_twin_that_was_not_perturbed_never_leaves_its_reference(tmp_path, dtype, vectorize, by):
    twins = twins_of(network(dtype), epsilon=0.0, vectorize=vectorize)
    x, y = batches(dtype)
    with Recorder(tmp_path / "run.h5", twins, quiet=True):
        if by == "step":
            for i in range(STEPS):
                twins.step(x[i], y[i])
        else:
            twins.scan((x, y), block=10)
    with tt.open(tmp_path / "run.h5") as run:
        assert run.dtype == dtype
        assert run.step.tolist() == list(range(STEPS + 1))
        assert np.abs(run.states[:][-1, 0] - run.states[:][0, 0]).max() > 0.01
        np.testing.assert_array_equal(distances(run), 0.0)
        np.testing.assert_array_equal(run.metrics["loss"][:-1], np.repeat(run.metrics["loss"][:-1, :1], 4, 1))


@pytest.mark.parametrize("vectorize", [True, False, "apart"])
def test_every_twin_trains_as_it_would_alone(float64, vectorize):
    params, optimizer = network(np.float64), optax.adam(0.01)
    twins = twins_of(params, optimizer=optimizer, vectorize=vectorize)

    @jax.jit
    def alone(params, state, x, y):
        loss, gradients = jax.value_and_grad(loss_fn)(params, x, y)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    singles = [(p, optimizer.init(p)) for p in [params, *perturb(params, 1e-3, 3, 3)]]
    for x, y in zip(*batches(np.float64), strict=True):
        losses = twins.step(x, y)
        found = [alone(p, s, x, y) for p, s in singles]
        # float64, other fusions and sums: a few units in the last place of a step, grown over 25 of them
        np.testing.assert_allclose(losses, [loss for _, _, loss in found], rtol=1e-10)
        singles = [(p, s) for p, s, _ in found]
    for i, (single, _) in enumerate(singles):
        np.testing.assert_allclose(flat(twins.member(i)), flat(single), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("by", ["step", "scan"])
def test_distances_in_a_parabola_follow_the_known_law(tmp_path, float64, by):
    eta, curvature = 0.3, jnp.asarray([0.5, 2.0, 7.5])  # the last one grows: |1 - eta h| = 1.25
    twins = Twins(
        {"w": jnp.asarray([[1.0, -2.0, 3.0]])},
        lambda params, scale: 0.5 * scale * (curvature * params["w"] ** 2).sum(),
        optax.sgd(eta),
        epsilon=1e-6,
        members=4,
        seed=0,
        replant=None,
    )
    with Recorder(tmp_path / "run.h5", twins, quiet=True):
        if by == "scan":
            twins.scan((np.ones(40),), block=16)
        else:
            for _ in range(40):
                twins.step(1.0)
    with tt.open(tmp_path / "run.h5") as run:
        states = run.states[:]
        curve = tt.twins(run, metric="l1")
    apart = np.abs(states[:, 1:] - states[:, :1])
    expected = np.abs(1 - eta * np.asarray(curvature)) ** np.arange(41.0)[:, None, None] * apart[0]
    moving = expected > 1e-12 * np.abs(states[:, 1:]).max()
    np.testing.assert_allclose(apart[moving], expected[moving], rtol=1e-6)
    np.testing.assert_allclose(curve.distances, apart.sum(2).T, rtol=1e-9)


@pytest.mark.parametrize("vectorize", [False, "apart"])
def test_steps_and_scans_record_the_same_states(tmp_path, float64, vectorize):
    x, y = batches(np.float64)
    for by in ("step", "scan"):
        twins = twins_of(network(np.float64), vectorize=vectorize)
        with Recorder(tmp_path / f"{by}.h5", twins, every=5, quiet=True):
            if by == "scan":
                losses = np.concatenate([twins.scan((x[:7], y[:7]), block=4), twins.scan((x[7:], y[7:]), block=4)])
            else:
                losses = [np.asarray(twins.step(*batch)) for batch in zip(x, y, strict=True)]
        assert np.shape(losses) == (STEPS, 4)
    with tt.open(tmp_path / "step.h5") as a, tt.open(tmp_path / "scan.h5") as b:
        assert a.step.tolist() == b.step.tolist() == [0, 5, 10, 15, 20, 25]
        np.testing.assert_allclose(a.states[:], b.states[:], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(a.metrics["loss"], b.metrics["loss"], rtol=1e-10)


@pytest.mark.parametrize("vectorize", ["auto", "apart"])
def test_the_pure_step_runs_in_any_scan(tmp_path, vectorize):
    twins, again = (twins_of(network(), vectorize=vectorize) for _ in range(2))
    xs = batches()
    with Recorder(tmp_path / "run.h5", again, quiet=True) as rec:
        again.carry, ys = record_scan(rec, again.pure_step, again.carry, xs, params=lambda carry: carry[0])
        assert rec.step == STEPS
    carry, metrics = jax.jit(lambda c, xs: jax.lax.scan(twins.pure_step, c, xs))(twins.carry, xs)
    np.testing.assert_array_equal(flat(carry[0]), flat(again.state))
    np.testing.assert_array_equal(metrics["loss"], ys["loss"])


def test_equinox_modules_train_whole(tmp_path):
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))

    def loss(model, x, y):
        return ((jax.vmap(model)(x) - y) ** 2).mean()

    twins = Twins(model, loss, optax.adam(0.1), epsilon=1e-3, members=2, seed=0)
    with Recorder(tmp_path / "run.h5", twins, quiet=True) as rec:
        losses = [float(twins.step(jnp.ones((5, 2)), jnp.ones((5, 3)))[0]) for _ in range(20)]
        assert rec.names == ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
    assert losses[-1] < 0.1 * losses[0]
    trained = twins.reference()
    assert trained.activation is model.activation
    with tt.open(tmp_path / "run.h5") as run:
        np.testing.assert_array_equal(run.states[:][-1, 0], flat(eqx.filter(trained, eqx.is_array)))


def noisy(params, x, key):
    return ((params["w"] * x + jax.random.normal(key, x.shape)) ** 2).mean()


@pytest.mark.parametrize("vectorize", ["auto", False, "apart"])
@pytest.mark.parametrize(("noise", "equal"), [("common", True), ("independent", False)])
def test_a_random_key_is_common_to_all_members_unless_told_otherwise(vectorize, noise, equal):
    options = {"epsilon": 0.0, "noise": noise, "vectorize": vectorize}
    twins = twins_of({"w": jnp.ones((3, 4))}, loss_fn=noisy, optimizer=optax.sgd(0.1), **options)
    losses = np.asarray(twins.step(jnp.ones((3, 4)), jax.random.key(7)))
    assert (len(set(losses.tolist())) == 1) is equal
    assert {member.noise for member in twins.members} == {noise}
    if noise == "common":
        alone = noisy({"w": jnp.ones((3, 4))}, jnp.ones((3, 4)), jax.random.key(7))
        np.testing.assert_allclose(losses[0], alone, rtol=1e-6)  # float32, sums in another order


@pytest.mark.parametrize("vectorize", ["auto", "apart"])
def test_independent_noise_needs_a_key_that_can_be_told(vectorize):
    twins = twins_of({"w": jnp.ones((3, 4))}, loss_fn=noisy, noise="independent", vectorize=vectorize)
    with pytest.raises(ValueError, match=r"jax\.random\.key"):
        twins.step(jnp.ones((3, 4)), jax.random.PRNGKey(7))


def test_auxiliary_outputs_are_recorded_with_the_loss(tmp_path):
    def loss(params, x):
        return (params["w"] * x).sum(), {"size": jnp.abs(params["w"]).sum(), "rows": params["w"].sum(1)}

    twins = Twins({"w": jnp.ones((2, 3))}, loss, optax.sgd(0.1), epsilon=1e-2, members=1, seed=0, has_aux=True)
    with Recorder(tmp_path / "run.h5", twins, quiet=True):
        twins.step(1.0)
        twins.scan((np.ones(3, np.float32),))
    with tt.open(tmp_path / "run.h5") as run:
        metrics = run.metrics
        assert {name: values.shape for name, values in metrics.items()} == {
            "loss": (5, 2),
            "size": (5, 2),
            "rows": (5, 2, 2),
        }
        np.testing.assert_allclose(metrics["size"][:4, 0], 6 - 0.6 * np.arange(4), rtol=1e-6)


def test_vectorised_or_not_is_told_with_the_reason(monkeypatch):
    twins = twins_of(network())
    assert twins.vectorized is None
    x, y = batches(steps=1)
    monkeypatch.setattr(twins._lockstep, "rounds_unevenly", lambda *_: "members differ")
    twins.step(x[0], y[0])
    assert (twins.vectorized, twins.reason) == (False, "members differ")
    forced = twins_of(network(), vectorize=True)
    monkeypatch.setattr(forced._lockstep, "rounds_unevenly", lambda *_: "members differ")
    forced.step(x[0], y[0])
    assert (forced.vectorized, forced.reason) == (True, "vectorize=True although members differ")
    looped = twins_of(network(), vectorize=False)
    assert looped.reason == looped.made["path"] == "vectorize=False"
    assert twins.made["path"].startswith("at once where")


def test_the_path_follows_from_the_size_of_the_network():
    paths = {}
    for width in (4_000, 6_000, 160_000):
        twins = Twins(
            {"w": jnp.ones((width, 1))}, lambda p, x: (x * p["w"]).sum() ** 2, optax.sgd(1e-9), members=2, seed=0
        )
        start = flat(twins.member(1))
        twins.step(1.0)
        assert np.abs(flat(twins.member(1)) - start).max() > 0
        paths[width] = (
            twins.vectorized,
            len(jax.tree_util.tree_leaves(twins.held)),
            "more than 5000" in twins.made["path"],
        )
    assert paths == {4_000: (True, 1, False), 6_000: (False, 1, True), 160_000: (False, 3, True)}


def test_the_carry_can_be_set():
    for vectorize in (False, "apart"):
        twins, other = (twins_of(network(), epsilon=epsilon, vectorize=vectorize) for epsilon in (1e-3, 1e-2))
        x, y = batches(steps=1)
        other.step(x[0], y[0])
        twins.carry = other.carry
        for ours, theirs in zip(*map(jax.tree_util.tree_leaves, (twins.carry, other.carry)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(flat(twins.member(2)), flat(other.member(2)))


def test_members_that_a_vectorised_loss_rounds_differently_are_found():
    # the member's place in the batch leaks into the result, as a SIMD remainder would let it
    @jax.custom_batching.custom_vmap
    def leaky(w):
        return w

    @leaky.def_vmap
    def _rule(axis_size, in_batched, w):
        return w * (1 + 1e-6 * jnp.arange(axis_size)[:, None]), in_batched[0]

    @jax.custom_gradient
    def straight(w):
        return leaky(w), lambda g: g

    options = {"epsilon": 0.0, "members": 2, "seed": 0}
    twins = Twins(
        {"w": jnp.ones(40)}, lambda p, x: (straight(p["w"]) * x).sum() ** 2, optax.sgd(1e-4), **options, only="all"
    )
    losses = twins.step(1.0)
    assert (twins.vectorized, len(set(losses.tolist()))) == (False, 1)
    assert "round equal members differently" in twins.reason


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_second_recorder_is_refused_and_closing_the_first_frees_the_twins(tmp_path):
    twins = twins_of(network())
    with (
        Recorder(tmp_path / "a.h5", twins, quiet=True),
        pytest.raises(RecordingError, match="already follows these twins"),
    ):
        Recorder(tmp_path / "b.h5", twins, quiet=True)
    assert not (tmp_path / "b.h5").exists()
    first = Recorder(tmp_path / "c.h5", twins, quiet=True)
    first.close()
    with Recorder(tmp_path / "d.h5", twins, quiet=True) as rec:
        first.close()
        twins.step(*(a[0] for a in batches()))
        assert rec.step == 1
    twins.step(*(a[0] for a in batches()))
    assert rec.step == 1


def test_twins_say_what_they_cannot_do():
    with pytest.raises(ValueError, match="vectorize"):
        twins_of(network(), vectorize="perhaps")
    with pytest.raises(ValueError, match="noise"):
        twins_of(network(), noise="shared")
    with pytest.raises(RecordingError, match=r"open Recorder\(path, twins\) first"):
        twins_of(network()).scan(batches())
    with pytest.raises(ValueError, match="take the mean or the sum"):
        Twins({"w": jnp.ones((2, 2))}, lambda p: p["w"], optax.sgd(1), epsilon=0, members=1, seed=0).step()
