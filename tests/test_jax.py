"""The recorder of pytrees in Python loops: every state, once, bit for bit; the training stays as it was."""

import os
import subprocess
import sys
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax_training import WHOLE, batches, exact, flat, loss_of, mlp, quiet_environment, read, sgd, tables  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import Sketch  # noqa: E402
from recorders.jax import Recorder, record_scan  # noqa: E402
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402
from trajtools.exponents.one_trajectory import full_state  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.recorders]


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


def test_every_state_of_a_loop_is_recorded_bit_for_bit_with_the_loss_it_gave(path):
    step, params, states, losses = jax.jit(sgd), mlp(), [], []
    with Recorder(path, params, quiet=True) as rec:
        for batch in zip(*batches(), strict=True):
            new, out = step(params, batch)
            rec.record(params, loss=out["loss"])
            states.append(flat(params))
            losses.append(float(out["loss"]))
            params = new
        rec.record(params)
    found, steps, metrics = read(path)
    np.testing.assert_array_equal(found, [*states, flat(params)])
    assert steps == list(range(21))
    np.testing.assert_array_equal(metrics["loss"], [*losses, np.nan])


def test_recording_after_the_update_gives_the_same_states(path):
    params = WHOLE
    with Recorder(path, params, quiet=True) as rec:
        for x in range(1, 5):
            params, out = exact(params, float(x))
            rec.record(params, loss=out["loss"])
    found, steps, metrics = read(path)
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found[:, 0], [1.0, 2.0, 4.0, 7.0, 11.0])
    np.testing.assert_array_equal(metrics["loss"], [np.nan, 2.0, 4.0, 6.0, 8.0])


@pytest.mark.parametrize("before", [True, False])
def test_an_update_that_changes_nothing_counts(path, before):
    optax = pytest.importorskip("optax")
    params = mlp()
    optimizer = optax.sgd(optax.linear_schedule(0.0, 0.1, 2))
    state, expected = optimizer.init(params), [flat(params)]
    with Recorder(path, params) as rec:
        for x, y in zip(*batches(4), strict=True):
            if before:
                rec.record(params)
            updates, state = optimizer.update(jax.grad(loss_of)(params, x, y), state)
            params = optax.apply_updates(params, updates)
            expected.append(flat(params))
            if not before:
                rec.record(params)
    stored, step, _ = read(path)
    assert step == list(range(4 if before else 5))
    assert (np.sort(stored, axis=1) == np.sort(expected[: len(step)], axis=1)).all()
    np.testing.assert_array_equal(stored[0], stored[1])


def test_training_is_bit_identical_with_and_without_a_recorder(path):
    step = jax.jit(sgd)

    def trained(rec):
        params = mlp()
        for batch in zip(*batches(), strict=True):
            params, out = step(params, batch)
            if rec is not None:
                rec.record(params, **out)
        return flat(params)

    alone, options = trained(None), dict(jax.config.values)
    with Recorder(path, mlp(), quiet=True) as rec:
        recorded = trained(rec)
    np.testing.assert_array_equal(recorded, alone)
    assert dict(jax.config.values) == options


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_states_keep_every_bit_of_their_dtype(path, dtype):
    bits = np.arange(2**16, dtype=np.uint16) if "16" in dtype else np.arange(0, 2**32, 65521, dtype=np.uint32)
    params = {"w": jnp.asarray(bits.view(jnp.dtype(dtype)))}
    with Recorder(path, params, quiet=True):
        pass
    with tt.open(path) as run:
        assert run.parameters[0].dtype == dtype
        stored = np.asarray(run.trajectory().read(0, 1))[0]
    expected = bits.view(jnp.dtype(dtype))
    same = stored.astype(np.float32) == expected.astype(np.float32)
    assert (same | np.isnan(expected.astype(np.float32))).all()


def test_mixed_dtypes_are_promoted_without_loss(path):
    params = {"a": jnp.asarray([1.0009765625], jnp.bfloat16), "b": jnp.asarray([1 / 3], jnp.float32)}
    with Recorder(path, params, quiet=True):
        pass
    found, _, _ = read(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], [float(params["a"][0]), np.float32(1 / 3)])
    assert [p.dtype for p in tables(path).values()] == ["bfloat16", "float32"]


def test_float64_is_recorded_where_it_is_enabled(path, float64):
    params = mlp(dtype=np.float64)
    with Recorder(path, params, quiet=True) as rec:
        params, out = jax.jit(sgd)(params, tuple(a[0] for a in batches(dtype=np.float64)))
        rec.record(params, **out)
    found, _, _ = read(path)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found[1], flat(params))


def test_members_of_a_vmapped_ensemble_are_members_of_one_run(path):
    stacked = jax.vmap(lambda s: {"w": s * jnp.ones((2, 3)), "b": -s * jnp.ones(3)})(jnp.arange(4.0))
    with Recorder(path, stacked, members=4, quiet=True) as rec:
        rec.record(stacked, loss=jnp.arange(4.0))
    with tt.open(path) as run:
        assert (run.n_members, run.n_parameters, run.metrics["loss"].shape) == (4, 9, (1, 4))
        np.testing.assert_array_equal(run.states[:][0, :, 0], [0.0, -1.0, -2.0, -3.0])


def test_a_list_of_networks_is_recorded_as_members(path):
    with Recorder(path, [WHOLE, WHOLE], members=2, quiet=True) as rec:
        rec.record([exact(WHOLE, 1.0)[0], WHOLE])
    with tt.open(path) as run:
        np.testing.assert_array_equal(run.states[:][:, :, 0], [[1.0, 1.0], [2.0, 1.0]])


# ---------------------------------------------------------------------------------------------------------- trees


class Pair(NamedTuple):
    weight: object
    bias: object


def test_names_are_key_paths_and_numbers_sort_as_numbers(path):
    tree = {f"Dense_{i}": Pair(jnp.ones((2, 2)), jnp.ones(2)) for i in (10, 2, 1)} | {
        "pair": (jnp.ones(1), jnp.ones(2))
    }
    with Recorder(path, tree, quiet=True) as rec:
        names = ("Dense_1.weight", "Dense_1.bias", "Dense_2.weight", "Dense_2.bias", "Dense_10.weight", "Dense_10.bias")
        assert rec.names == (*names, "pair.0", "pair.1")


def test_flax_parameters_have_the_kinds_and_axes_of_their_layers(path):
    nn = pytest.importorskip("flax.linen")

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm()(nn.Conv(4, (3, 3))(x))
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    with Recorder(path, Network().init(jax.random.key(0), jnp.ones((1, 5, 5, 2))), quiet=True):
        pass
    found = {n: (p.kind, p.shape, p.source_axis, p.target_axis) for n, p in tables(path).items()}
    assert found["params.Conv_0.kernel"] == ("conv", (3, 3, 2, 4), 2, 3)
    assert found["params.Dense_0.kernel"] == ("dense", (100, 3), 0, 1)
    assert found["params.Dense_0.bias"] == ("bias", (3,), -1, 0)
    assert found["params.LayerNorm_0.scale"][0] == found["params.LayerNorm_0.bias"][0] == "norm"


def test_flax_nnx_modules_are_recorded_under_the_names_of_their_attributes(path):
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with Recorder(path, nnx.state(model, nnx.Param), quiet=True) as rec:
        assert rec.names == ("bias", "kernel")
        rec.record(nnx.state(model, nnx.Param))
        assert rec.step == 0


def test_equinox_modules_are_recorded_without_their_functions(path):
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.Sequential(
        [eqx.nn.Conv2d(1, 2, 3, key=jax.random.key(0)), eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(1))]
    )
    with Recorder(path, model, quiet=True) as rec:
        rec.record(model)
        rec.record(eqx.tree_at(lambda m: m.layers[1].layers[0].bias, model, jnp.ones(4)))
    found = {n: (p.kind, p.source_axis, p.target_axis) for n, p in tables(path).items()}
    assert found["layers.0.weight"] == ("conv", 1, 0)
    assert found["layers.0.bias"][0] == "bias"
    assert found["layers.1.layers.0.weight"] == ("dense", 1, 0)
    assert read(path)[1] == [0, 1]


def test_optax_states_are_recorded_without_their_counters(path):
    optax = pytest.importorskip("optax")
    with Recorder(path, optax.adam(0.1).init(WHOLE), quiet=True) as rec:
        assert rec.names == ("0.mu.b", "0.mu.w", "0.nu.b", "0.nu.w")


def test_kinds_and_axes_can_be_corrected_name_by_name(path):
    with Recorder(path, WHOLE, kinds={"w": "recurrent"}, axes={"w": (1, 0)}, quiet=True):
        pass
    found = tables(path)
    assert (found["w"].kind, found["w"].source_axis, found["b"].kind) == ("recurrent", 1, "bias")


def test_consecutive_dense_layers_share_their_units(path):
    with Recorder(path, mlp(), quiet=True):
        pass
    found = tables(path)
    assert found["hidden.kernel"].target == found["out.kernel"].source == found["hidden.bias"].target
    with tt.open(path) as run:
        graph = run.trajectory().network(0)
    assert graph.number_of_edges() == 6 * 9 + 9 + 9 * 3 + 3


# ------------------------------------------------------------------------------------------------------- refusals


def test_a_state_that_was_donated_is_refused_and_one_recorded_before_is_safe(path):
    step = jax.jit(lambda p, x: exact(p, x)[0], donate_argnums=0)
    params = jax.tree_util.tree_map(jnp.array, WHOLE)
    with Recorder(path, params, quiet=True) as rec:
        for x in (1.0, 2.0):
            before, params = params, step(params, x)
            rec.record(params)
        with pytest.raises(RecordingError, match="Record a state before it is donated"):
            rec.record(before)
    np.testing.assert_array_equal(read(path)[0][:, 0], [1.0, 2.0, 4.0])


def test_recording_while_tracing_is_refused_and_names_the_way(path):
    with Recorder(path, WHOLE, quiet=True) as rec, pytest.raises(RecordingError, match=r"record_scan.*tap"):
        jax.jit(rec.record)(WHOLE)


def test_another_architecture_is_refused(path):
    with Recorder(path, WHOLE, strict=True, quiet=True) as rec:
        with pytest.raises(ArchitectureError, match="Record a changed network as a separate run"):
            rec.record({**WHOLE, "new": jnp.ones(2)})
        with pytest.raises(ArchitectureError, match="shape"):
            rec.record({"w": jnp.ones((3, 3)), "b": jnp.ones(3)})


@pytest.mark.parametrize(
    ("state", "members", "words"),
    [
        ({"f": jax.nn.relu, "n": 3}, None, "has no floating-point array"),
        ({"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, None, "names must be unique"),
        ([WHOLE, WHOLE], None, "members or layers"),
        ([{"w": jnp.ones((2, 2))}] * 2, 2, "pass stack"),
        (WHOLE, 5, "leading axis of 5"),
        ({"w": jnp.ones(2, jnp.complex64)}, None, "complex64"),
    ],
)
def test_states_that_mean_nothing_or_two_things_are_refused(path, state, members, words):
    with pytest.raises((ArchitectureError, RecordingError), match=words):
        Recorder(path, state, members=members, quiet=True)
    assert not path.exists()


SHARDED = """
import sys
import jax, numpy as np, jax.numpy as jnp
jax.distributed.initialize("localhost:" + sys.argv[2], 2, int(sys.argv[1]))
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from recorders.jax import Recorder
from trajtools.errors import ArchitectureError
from trajtools.wiring import Member

mesh = Mesh(np.array(jax.devices()), "x")
assert (len(jax.devices()), len(jax.local_devices())) == (4, 2)


def spread(values, *axes):
    return jax.make_array_from_callback(values.shape, NamedSharding(mesh, PartitionSpec(*axes)), lambda i: values[i])


def tree(epsilon):
    draw = np.random.default_rng(0)
    kernel, out, bias = (draw.normal(size=n).astype(np.float32) + np.float32(epsilon) for n in ((8, 6), (6, 4), 6))
    return {"l1": {"kernel": spread(kernel, "x"), "bias": spread(bias)}, "l2": {"kernel": spread(out, None, "x")}}


step = jax.jit(lambda p: jax.tree_util.tree_map(lambda w: w - jnp.sin(w) / 8, p))
members = [Member("reference"), Member("twin", reference=0, epsilon=1e-2)]
distances = {metric: {"store": "distances", "metric": metric} for metric in ("l1", "l2", "linf")}
for name, options in {"weights": {}, "sketch": {"store": "sketch"}, **distances}.items():
    state = [tree(0.0), tree(1e-2)]
    with Recorder(f"{sys.argv[3]}/{name}.h5", state, members=members, quiet=True, **options) as rec:
        for _ in range(4):
            rec.record(state, loss=float(sys.argv[1]))
            state = [step(one) for one in state]
if sys.argv[1] == "1":
    open(f"{sys.argv[3]}/taken.rank1.h5", "w").close()
try:
    Recorder(f"{sys.argv[3]}/taken.h5", tree(0.0), quiet=True)
except Exception as error:
    print(type(error).__name__)
copies = Recorder(f"{sys.argv[3]}/copies.h5", {"b": spread(np.ones(3, np.float32))}, quiet=True)
print(type(copies).__name__)
copies.close()
"""


def test_arrays_spread_over_processes_are_recorded_by_each(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(i), port, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=quiet_environment(XLA_FLAGS="--xla_force_host_platform_device_count=2"),
        )
        for i in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in both]
    assert [out.split()[-2:] for out, _ in answers] == [
        ["RecordingError", "Recorder"],
        ["FileExistsError", "_OtherRank"],
    ], answers
    assert not (tmp_path / "taken.rank0.h5").exists()
    assert not (tmp_path / "copies.rank1.h5").exists()

    draw = np.random.default_rng(0)
    kernel, out, bias = (draw.normal(size=n).astype(np.float32) for n in ((8, 6), (6, 4), 6))
    start = np.concatenate([bias, kernel.ravel(), out.ravel()])
    with tt.open(tmp_path / "weights.rank*.h5") as run:
        assert [(p.name, p.shape) for p in run.parameters] == [
            ("l1.bias", (6,)), ("l1.kernel", (8, 6)), ("l2.kernel", (6, 4))
        ]  # fmt: skip
        assert run.parameters[2].source == run.parameters[1].target
        assert [shard.n_parameters for shard in run.shards] == [6 + 24 + 12, 24 + 12]
        states = run.states.read()
        np.testing.assert_array_equal(states[0, 0], start)
        np.testing.assert_array_equal(states[0, 1], start + np.float32(1e-2))
        np.testing.assert_array_equal(run.states.read(columns=slice(3, 61)), states[:, :, 3:61])
        assert run.metrics["loss"].tolist() == [0.5] * 4
    gap = np.abs(states[:, 1].astype(float) - states[:, 0])
    wanted = {"l1": gap.sum(1), "l2": np.linalg.norm(gap, axis=1), "linf": gap.max(1)}
    for metric, values in wanted.items():
        with tt.open(tmp_path / f"{metric}.rank*.h5") as run:
            np.testing.assert_allclose(run.distances[:, 1], values, rtol=1e-12)
    with tt.open(tmp_path / "sketch.rank*.h5") as run:
        np.testing.assert_allclose(run.sketch, Sketch(1024)(states), rtol=0, atol=1e-12)


def test_arrays_spread_over_devices_of_one_process_are_one_file(tmp_path):
    code = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from recorders.jax import Recorder, perturb, record_scan
assert len(jax.devices()) == 2
sharding = NamedSharding(Mesh(np.array(jax.devices()), "x"), PartitionSpec("x"))
params = {"w": jax.device_put(np.arange(12, dtype=np.float32).reshape(4, 3), sharding)}
assert perturb(params, 1e-2, 1, 0)[0]["w"].sharding == sharding
with Recorder(sys.argv[1], params, quiet=True) as rec:
    record_scan(rec, lambda p, x: ({"w": p["w"] + x}, None), params, np.ones(3, np.float32))
"""
    environment = quiet_environment(XLA_FLAGS="--xla_force_host_platform_device_count=2")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.h5")], check=True, env=environment)
    found, _, _ = read(tmp_path / "run.h5")
    np.testing.assert_array_equal(found, np.arange(12.0) + np.arange(4.0)[:, None])


def test_importing_recorders_loads_no_jax():
    code = "import sys, recorders; recorders.Recorder; assert not {'jax', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=quiet_environment())


@pytest.mark.parametrize("listed", [False, True])
def test_the_state_of_the_optimiser_is_recorded_beside_the_weights(path, listed):
    optax = pytest.importorskip("optax")
    params, optimizer = mlp(), optax.adam(1e-2)
    states, members = [(params, optimizer.init(params))], 2 if listed else None
    for _ in range(5):
        now, held = states[-1]
        updates, held = optimizer.update(jax.tree_util.tree_map(jnp.cos, now), held)
        states.append((optax.apply_updates(now, updates), held))

    def given(tree):
        return [tree, jax.tree_util.tree_map(lambda leaf: 2 * leaf, tree)] if listed else tree

    with Recorder(path, given(params), members=members, buffers=given(states[0][1]), quiet=True) as rec:
        for now, held in states:
            rec.record(given(now), buffers=given(held))
        with pytest.raises(RecordingError, match="record parameters only"):
            record_scan(rec, lambda p, _: (p, {}), given(now), length=2)
    with tt.open(path) as run:
        assert run.step.tolist() == list(range(6))
        names = [p.name for p in run.optimizer_parameters]
        assert names == [f"0.{moment}.{p.name}" for moment in ("mu", "nu") for p in run.parameters]
        found = run.optimizer.read(slice(None))
        for t, (_, held) in enumerate(states):
            wanted = np.concatenate([flat(held[0].mu), flat(held[0].nu)])
            np.testing.assert_array_equal(found[t, 0], wanted)
            np.testing.assert_array_equal(found[t, -1], wanted * (2 if listed else 1))
        if not listed:
            _, settings = full_state(run)
            assert set(settings["buffer_scales"]) == {"0.mu", "0.nu"}


def test_plain_gradient_descent_has_no_buffers_to_record(path):
    optax = pytest.importorskip("optax")
    params = mlp()
    held = optax.sgd(0.1).init(params)
    with Recorder(path, params, buffers=held, quiet=True) as rec:
        rec.record(params, buffers=held)
    with tt.open(path) as run:
        assert run.optimizer is None


def test_equinox_biases_of_convolutions_are_edges_to_their_channels(path):
    eqx = pytest.importorskip("equinox")
    with Recorder(path, {"conv": eqx.nn.Conv2d(2, 4, 3, key=jax.random.key(0))}, quiet=True):
        pass
    with tt.open(path) as run:
        weight, bias = run.parameters
        assert (bias.shape, bias.source, bias.target) == ((4, 1, 1), "bias", weight.target)
        edges = run.trajectory().network(0)
        assert sum(one == "bias" or one[0] == "bias" for one, _ in edges.edges()) == 4
        assert run.provenance["jax"]["version"] == jax.__version__
        assert "user" not in run.provenance
