"""What the recorder of JAX knows of an optimiser of optax, and what curvature makes of it."""

import warnings

import pytest

pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from command_line import call  # noqa: E402
from jax_training import batches, loss_of, mlp  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders.jax import Recorder, Twins  # noqa: E402
from trajtools.errors import DataError, RecordingError  # noqa: E402
from trajtools.exponents.applicability import optimizer_of  # noqa: E402
from trajtools.reasons import codes  # noqa: E402

pytestmark = pytest.mark.jax
FALLING = optax.linear_schedule(0.1, 0.01, 10)
RISING = optax.linear_schedule(0.0, 0.1, 10)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


def matrices(tree):
    return jax.tree_util.tree_map(lambda leaf: leaf.ndim > 1, tree)


def recorded(path, params=None, steps=0, metric="h_max_full", **options):
    """What the file says of the optimiser after a run with a curvature of 1."""
    params = mlp() if params is None else params
    with Recorder(path, params, mode="w", quiet=True, **options) as rec:
        for _ in range(steps):
            params = jax.tree_util.tree_map(lambda leaf: leaf + 1, params)
            rec.record(params, **{metric: 1.0})
    with tt.open(path) as run:
        return run.provenance.get("optimizer")


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (optax.sgd(0.1), {"name": "SGD", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}),
        (optax.sgd(0.05, 0.9), {"name": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": False}),
        (optax.sgd(0.05, 0.9, nesterov=True), {"name": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": True}),
        (optax.adam(1e-3, b1=0.8), {"name": "Adam", "lr": 1e-3, "betas": [0.8, 0.999], "eps": 1e-8}),
        (optax.adamw(1e-3, weight_decay=0.02), {"name": "AdamW", "lr": 1e-3, "weight_decay": 0.02}),
        (
            optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05, 0.9)),
            {"name": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
        ),
        (
            optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05, 0.9, nesterov=True)),
            {"name": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        ),
        (
            optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.1), optax.scale(-0.05)),
            {"name": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": True},
        ),
        (
            optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.05)),
            {"name": "Adam", "lr": 0.05, "weight_decay": 0.1},
        ),
        (optax.MultiSteps(optax.sgd(0.1), 3), {"name": "SGD", "lr": 0.1}),
        (
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)),
            {"name": "Adam", "lr": 0.01, "clips": True},
        ),
        (optax.chain(optax.clip(1.0), optax.sgd(0.01)), {"name": "SGD", "lr": 0.01, "clips": True}),
        (optax.adamw(1e-3, mask=matrices), {"name": "AdamW", "lr": 1e-3, "weight_decay": 1e-4}),
        (
            optax.inject_hyperparams(optax.sgd)(0.2, 0.9),
            {"name": "SGD", "lr": 0.2, "momentum": 0.9, "injected": ["learning_rate", "momentum"]},
        ),
        (optax.inject_hyperparams(optax.adam)(0.2), {"name": "Adam", "lr": 0.2, "betas": [0.9, 0.999]}),
    ],
)
def test_settings_are_measured(path, optimizer, settings):
    found = recorded(path, optimizer=optimizer)
    assert found["is_known"] is True
    assert {key: found[key] for key in settings} == settings
    assert found["clips"] is settings.get("clips", False)
    assert "missing" not in found


def test_arrays_that_are_trained_otherwise_are_named(path):
    found = recorded(path, optimizer=optax.adamw(1e-3, mask=matrices))
    assert found["others"] == [name for name, leaf in flat_names(mlp()) if leaf.ndim == 1]


def flat_names(tree):
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        (".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in keys), leaf) for keys, leaf in pairs
    ]


@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd(FALLING), optax.adam(RISING), optax.inject_hyperparams(optax.sgd)(FALLING, 0.9), optax.adamw(FALLING)],
)
def test_a_schedule_is_said_and_its_rate_is_left_out(path, optimizer):
    found = recorded(path, steps=12, optimizer=optimizer)
    assert found["is_known"]
    assert "lr" not in found
    assert "learning_rate" in found["missing"]
    with (
        tt.open(path) as run,
        pytest.raises(DataError, match=r"no learning rate.* the schedule of 'learning_rate' is not in the file"),
    ):
        tt.training.curvature(run)


@pytest.mark.parametrize(
    "optimizer",
    [optax.sign_sgd(0.1), optax.nadam(0.1), optax.lion(0.1), optax.rmsprop(0.1), optax.lbfgs(), optax.sgd(-0.1)],
)
def test_an_optimiser_of_another_formula_gets_no_threshold(path, optimizer):
    found = recorded(path, steps=12, optimizer=optimizer, hparams={"lr": 0.1})
    assert found["is_known"] is False
    with tt.open(path) as run:
        result = tt.training.curvature(run)
    assert (result.verdict, codes(result.reasons)) == ("inconclusive", ("no-threshold",))
    assert str(result.reasons[0]).endswith(found["missing"])


def test_hparams_name_an_optimiser_that_cannot_be_recognised(path):
    hparams = {"lr": 0.1, "optimizer": "Adam", "betas": [0.9, 0.999]}
    recorded(path, steps=12, metric="preconditioned_h_max_full", optimizer=optax.nadam(0.1), hparams=hparams)
    with tt.open(path) as run:
        assert tt.training.curvature(run).threshold == pytest.approx(38.0)


def test_the_state_alone_names_its_transformations_and_the_way_out(path):
    params, optimizer = mlp(), optax.sgd(0.1, 0.9)
    with Recorder(path, params, buffers=optimizer.init(params), hparams={"lr": 0.1}, quiet=True) as rec:
        for _ in range(12):
            rec.record(params, h_max_full=1.0, buffers=optimizer.init(params))
            params = jax.tree_util.tree_map(lambda leaf: leaf + 1, params)
    with tt.open(path) as run:
        found = run.provenance["optimizer"]
        result = tt.training.curvature(run)
    assert found["transforms"] == ["TraceState", "EmptyState"]
    assert "optimizer=" in found["missing"]
    assert result.verdict == "inconclusive"  # momentum, but how much of it?
    assert "optimizer=" in str(result.reasons[0])


def test_a_state_without_content_says_nothing(path):
    params = mlp()
    assert recorded(path, buffers=optax.sgd(0.1).init(params)) is None


def test_injected_rates_are_recorded_as_the_loop_sets_them(path):
    params = mlp()
    optimizer = optax.inject_hyperparams(optax.sgd)(0.5, 0.9)
    held, rates = optimizer.init(params), [0.5, 0.25, 0.25, 0.125]
    with Recorder(path, params, optimizer=optimizer, buffers=held, quiet=True) as rec:
        for rate, batch in zip(rates, zip(*batches(4), strict=True), strict=True):
            held.hyperparams["learning_rate"] = jnp.asarray(rate)
            rec.record(params, buffers=held, h_max_full=2.0)
            assert rec.live["h_max_full_over_threshold"] == pytest.approx(2.0 * rate / 3.8)
            gradient = jax.grad(loss_of)(params, *batch)
            updates, held = optimizer.update(gradient, held, params)
            params = optax.apply_updates(params, updates)
    with tt.open(path) as run:
        assert run.metrics["learning_rate"].tolist() == rates
        assert run.provenance["optimizer"]["injected"] == ["learning_rate", "momentum"]


def test_an_injected_rate_without_the_state_is_that_at_opening(path):
    recorded(path, steps=12, optimizer=optax.inject_hyperparams(optax.sgd)(0.5))
    with tt.open(path) as run:
        result = tt.training.curvature(run)
    assert result.threshold == pytest.approx(2.0)
    assert "rate-at-opening" in codes(result.warnings)


@pytest.mark.parametrize(
    ("optimizer", "metric", "threshold"),
    [
        (optax.sgd(0.1), "h_max_full", 2.0),
        (optax.sgd(0.1, 0.9), "h_max_full", 3.8),
        (optax.sgd(0.1, 0.9, nesterov=True), "h_max_full", 3.8 / 2.8),
        (optax.chain(optax.add_decayed_weights(2.0), optax.sgd(0.1)), "h_max_full", 1.8),
        (optax.chain(optax.trace(0.5), optax.add_decayed_weights(2.0), optax.scale(-0.1)), "h_max_full", 2.7),
        (optax.adam(0.1), "preconditioned_h_max_full", 38.0),
        (optax.adam(0.1), "h_max_full", None),
    ],
)
def test_curvature_knows_rate_and_threshold_without_hparams(path, optimizer, metric, threshold):
    recorded(path, steps=12, metric=metric, optimizer=optimizer)
    with tt.open(path) as run:
        result = tt.training.curvature(run)
    assert result.rate.tolist() == [0.1] * 13
    if threshold is None:
        assert result.verdict == "inconclusive"
        return
    assert result.verdict == "below the edge"
    assert result.threshold == pytest.approx(threshold)
    if metric == "h_max_full":  # at this curvature a quadratic neither grows nor shrinks
        assert growth(optimizer, 0.97 * threshold / 0.1) < 1 < growth(optimizer, 1.03 * threshold / 0.1)


def growth(optimizer, h):
    """Factor of a weight in a quadratic of this curvature over 500 steps, after 400 others."""
    with jax.enable_x64(True):
        w = jnp.ones((1, 1))
        held, sizes = optimizer.init(w), []
        step = jax.jit(lambda w, held: optimizer.update(h * w, held, w))
        for _ in range(1000):
            updates, held = step(w, held)
            w = w + updates
            sizes.append(abs(float(w[0, 0])))
    return max(sizes[900:]) / max(sizes[400:500])


def test_twins_know_their_optimiser(path):
    twins = Twins(mlp(), loss_of, optax.adamw(0.01, mask=matrices), epsilon=1e-3, members=2, seed=0)
    with Recorder(path, twins, quiet=True):
        for batch in zip(*batches(2), strict=True):
            twins.step(*batch)
    with tt.open(path) as run:
        found = run.provenance["optimizer"]
        assert (found["name"], found["lr"], found["weight_decay"]) == ("AdamW", 0.01, 1e-4)
        assert len(found["others"]) == sum(leaf.ndim == 1 for leaf in jax.tree_util.tree_leaves(mlp()))
        assert optimizer_of(run).adaptive == "adamw"
    with pytest.raises(RecordingError, match="omit buffers= and optimizer="):
        Recorder(path, twins, mode="w", optimizer=optax.sgd(0.1))


def test_holders_of_a_transformation_are_understood(path):
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, 0.9), wrt=nnx.Param)
    found = recorded(path, params=model, optimizer=optimizer)
    assert (found["name"], found["lr"], found["momentum"]) == ("SGD", 0.1, 0.9)
    with pytest.raises(RecordingError, match="pass the transformation of optax"):
        recorded(path, optimizer=optax.sgd(0.1).init(mlp()))


def test_reading_the_optimiser_does_not_touch_the_training(path):
    def trained(record):
        params, optimizer = mlp(), optax.adam(0.01)
        held = optimizer.init(params)
        with Recorder(path, params, optimizer=optimizer, mode="w", quiet=True) if record else warnings.catch_warnings():
            for batch in zip(*batches(3), strict=True):
                gradient = jax.grad(loss_of)(params, *batch)
                updates, held = optimizer.update(gradient, held, params)
                params = optax.apply_updates(params, updates)
        assert not jax.config.jax_enable_x64
        return [np.asarray(leaf).tobytes() for leaf in jax.tree_util.tree_leaves((params, held))]

    assert trained(True) == trained(False)


def test_info_shows_the_optimiser(path):
    recorded(path, optimizer=optax.sgd(FALLING, 0.9))
    shown = " ".join(call("info", path).stdout.split())
    assert "optimizer SGD momentum=0.9 (the schedule of 'learning_rate' is not in the file" in shown
