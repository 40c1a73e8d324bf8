"""The recorder of pytrees: every state, once, bit for bit, in loops, scans and taps; the training stays as it was."""

import os
import subprocess
import sys
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import AtSteps, LogSpaced  # noqa: E402
from recorders import jax_scan as scan_module  # noqa: E402
from recorders.jax import Recorder, record_scan, tap  # noqa: E402
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.recorders]


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def mlp(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {
        "hidden": {"kernel": jnp.asarray(rng.normal(size=(6, 9)), dtype), "bias": jnp.zeros(9, dtype)},
        "out": {"kernel": jnp.asarray(rng.normal(size=(9, 3)), dtype), "bias": jnp.zeros(3, dtype)},
    }


def batches(n=20, size=8, dtype=np.float32):
    rng = np.random.default_rng(1)
    return np.asarray(rng.normal(size=(n, size, 6)), dtype), rng.integers(0, 3, (n, size)).astype(np.int32)


def loss_of(params, x, y):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    scores = jax.nn.log_softmax(hidden @ params["out"]["kernel"] + params["out"]["bias"])
    return -jnp.take_along_axis(scores, y[:, None], 1).mean()


def sgd(params, batch):
    loss, gradients = jax.value_and_grad(loss_of)(params, *batch)
    return jax.tree_util.tree_map(lambda p, g: p - 0.1 * g, params, gradients), {"loss": loss}


def exact(params, x):
    """An update that no order of operations can round: sums of small whole numbers."""
    new = jax.tree_util.tree_map(lambda p: p + x, params)
    return new, {"loss": x * 2.0, "norm": params["w"].sum()}


WHOLE = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}


def flat(params):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree_util.tree_leaves(params)])


def read(path, name="run"):
    with tt.open(path) as file:
        run = file[name]
        return run.states(slice(None))[:, 0], run.step.tolist(), {k: np.asarray(v) for k, v in run.metrics.items()}


def tables(path, name="run"):
    with tt.open(path) as file:
        return {parameter.name: parameter for parameter in file[name].parameters}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


# ---------------------------------------------------------------------------------------------------------- loops


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
    with tt.open(path) as file:
        assert file["run"].parameters[0].dtype == dtype
        stored = np.asarray(file["run"].trajectory().read(0, 1))[0]
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
    with tt.open(path) as file:
        run = file["run"]
        assert (run.n_members, run.n_parameters, run.metrics["loss"].shape) == (4, 9, (1, 4))
        np.testing.assert_array_equal(run.states(slice(None))[0, :, 0], [0.0, -1.0, -2.0, -3.0])


def test_a_list_of_networks_is_recorded_as_members(path):
    with Recorder(path, [WHOLE, WHOLE], members=2, quiet=True) as rec:
        rec.record([exact(WHOLE, 1.0)[0], WHOLE])
    with tt.open(path) as file:
        np.testing.assert_array_equal(file["run"].states(slice(None))[:, :, 0], [[1.0, 1.0], [2.0, 1.0]])


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
    with tt.open(path) as file:
        graph = file["run"].trajectory().network(0)
    assert graph.number_of_edges() == 6 * 9 + 9 + 9 * 3 + 3


# ---------------------------------------------------------------------------------------------------------- scans


def looped(path, step, params, xs, **options):
    """The Python loop that `record_scan` promises to equal."""
    compiled = jax.jit(step)
    with Recorder(path, params, quiet=True, **options) as rec:
        for i in range(len(jax.tree_util.tree_leaves(xs)[0])):
            new, out = compiled(params, jax.tree_util.tree_map(lambda x, i=i: x[i], xs))
            if rec._wants(i) or i == 0:
                rec.record(params, step=i, **out)
            params = new
        rec.advance(params, step=i + 1)
    return params


@pytest.mark.parametrize("every", [1, 3, 7, 100, LogSpaced(5), AtSteps([2, 11, 12, 40]), lambda step: step in (5, 37)])
@pytest.mark.parametrize("block", [1, 8, 64])
def test_a_scan_records_the_states_of_the_loop_in_their_order(tmp_path, every, block):
    xs = np.arange(1.0, 41.0, dtype=np.float32)
    loop, scan = tmp_path / "loop.h5", tmp_path / "scan.h5"
    expected = looped(loop, exact, WHOLE, xs, every=every)
    with Recorder(scan, WHOLE, every=every, quiet=True) as rec:
        carry, ys = record_scan(rec, exact, WHOLE, xs, block=block)
        assert rec.step == 40
    np.testing.assert_array_equal(flat(carry), flat(expected))
    np.testing.assert_array_equal(ys["loss"], 2 * xs)
    for a, b in zip(read(loop)[:2], read(scan)[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("loss", "norm"):
        np.testing.assert_array_equal(read(loop)[2][name], read(scan)[2][name])


def test_a_scanned_network_agrees_with_the_loop_to_rounding_and_with_a_plain_scan_exactly(tmp_path):
    # XLA may fuse a step inside a scan otherwise than alone: float32 rounding, grown over 20 steps, may differ.
    loop, scan = tmp_path / "loop.h5", tmp_path / "scan.h5"
    looped(loop, sgd, mlp(), batches())
    with Recorder(scan, mlp(), quiet=True) as rec:
        carry, ys = record_scan(rec, sgd, mlp(), batches(), block=8)
    np.testing.assert_allclose(read(scan)[0], read(loop)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(read(scan)[2]["loss"][:-1], ys["loss"].astype(np.float64))
    plain, outputs = jax.jit(lambda c, xs: jax.lax.scan(sgd, c, xs))(mlp(), batches())
    np.testing.assert_array_equal(flat(carry), flat(plain))
    np.testing.assert_array_equal(ys["loss"], outputs["loss"])
    np.testing.assert_array_equal(read(scan)[0][-1], flat(carry))


def test_scans_continue_each_other_and_a_loop(path):
    xs = np.arange(1.0, 31.0, dtype=np.float32)
    expected = looped(path.with_name("loop.h5"), exact, WHOLE, xs)
    with Recorder(path, WHOLE, quiet=True) as rec:
        params = WHOLE
        for part in (xs[:7], xs[7:8], xs[8:20]):
            params, _ = record_scan(rec, exact, params, part, block=5)
        for x in xs[20:25]:
            params, _ = exact(params, x)
            rec.record(params)
        params, _ = record_scan(rec, exact, jax.tree_util.tree_map(jnp.array, params), xs[25:])
    np.testing.assert_array_equal(flat(params), flat(expected))
    # the first state of the last scan came as a copy of arrays that a loop had recorded: it cannot be recognised
    steps = read(path)[1]
    assert steps == list(range(len(steps)))
    np.testing.assert_array_equal(
        np.unique(read(path)[0], axis=0), np.unique(read(path.with_name("loop.h5"))[0], axis=0)
    )


def test_a_scan_that_begins_elsewhere_records_where_it_begins(path):
    moved = exact(WHOLE, 5.0)[0]
    with Recorder(path, WHOLE, quiet=True) as rec:
        record_scan(rec, exact, moved, np.ones(3, np.float32))
    found, steps, _ = read(path)
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found[:, 0], [1.0, 6.0, 7.0, 8.0, 9.0])


def test_whole_blocks_and_the_last_one_compile_once_each_also_for_new_lambdas(path):
    traces = []

    def step(carry, x):
        traces.append(1)
        return (exact(carry[0], x)[0], carry[1] + 1), None

    with Recorder(path, WHOLE, quiet=True) as rec:
        carry = (WHOLE, 0)
        for _ in range(3):
            carry, _ = record_scan(rec, step, carry, np.ones(20, np.float32), params=lambda carry: carry[0], block=8)
        (program,) = [kept[0] for kept in rec._programs.values()]
        assert program._cache_size() == 2
    assert len(traces) <= 4  # a scan may look at its body twice to settle the types
    assert read(path)[1] == list(range(61))
    assert int(carry[1]) == 60


def test_a_block_is_written_while_the_next_one_runs_and_no_third_is_started(path, monkeypatch):
    events, write, program = [], scan_module._write, scan_module._program

    def told_write(recorder, block, metrics):
        events.append(("write", block.start))
        return write(recorder, block, metrics)

    def told_program(*given):
        run = program(*given)

        def told(*args, **kwargs):
            events.append(("run", len([e for e in events if e[0] == "run"]) * 4))
            return run(*args, **kwargs)

        return told

    monkeypatch.setattr(scan_module, "_write", told_write)
    monkeypatch.setattr(scan_module, "_program", told_program)
    with Recorder(path, WHOLE, quiet=True) as rec:
        record_scan(rec, exact, WHOLE, np.ones(12, np.float32), block=4)
    runs_and_writes = [("run", 0), ("run", 4), ("write", 0), ("run", 8), ("write", 4), ("write", 8)]
    assert events == runs_and_writes


def test_unwanted_states_never_leave_the_device(path, monkeypatch):
    moved = []
    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: moved.append(jax.tree_util.tree_leaves(tree)) or get(tree))
    with Recorder(path, WHOLE, every=50, quiet=True) as rec:
        moved.clear()
        record_scan(rec, exact, WHOLE, np.ones(100, np.float32), block=25)
    states = sum(leaf.shape[0] for leaves in moved for leaf in leaves if leaf.shape[1:] == (2, 3))
    assert states <= 4 * 2  # a slot and a slot for scrap for each of four blocks, not 100
    assert read(path)[1] == [0, 50, 100]


def test_scans_take_inputs_of_any_form(path):
    keys = jax.random.split(jax.random.key(0), 5)

    def step(carry, x):
        key, (number, missing) = x
        assert missing is None
        return {"w": carry["w"] + number, "b": carry["b"]}, jax.random.uniform(key)

    with Recorder(path, WHOLE, quiet=True) as rec:
        carry, ys = record_scan(rec, step, WHOLE, (keys, (jnp.ones(5), None)), metrics="draw", block=2)
        carry, nothing = record_scan(rec, lambda c, x: (c, None), carry, length=3, block=2)
        empty = record_scan(rec, exact, carry, np.ones(0, np.float32))[1]
    assert nothing is None
    assert empty["loss"].shape == (0,)
    expected = [float(jax.random.uniform(key)) for key in keys]
    np.testing.assert_array_equal(ys, np.float32(expected))
    np.testing.assert_array_equal(read(path)[2]["draw"], [*np.float32(expected), *[np.nan] * 4])


def test_scans_record_members_and_chosen_parameters_only(path):
    stacked = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros((2, 1))}

    def step(params, x):
        return {"w": params["w"] + x, "b": params["b"]}, {"loss": params["w"].sum(1), "other": jnp.ones((4, 4))}

    with Recorder(path, stacked, members=2, include="w", quiet=True) as rec:
        record_scan(rec, step, stacked, np.ones(3, np.float32), metrics=["loss"])
    with tt.open(path) as file:
        run = file["run"]
        np.testing.assert_array_equal(run.states(slice(None))[:, 1], [[3, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8]])
        np.testing.assert_array_equal(run.metrics["loss"][:3], [[3, 12], [6, 15], [9, 18]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"block": 0}, "steps between two transfers"),
        ({"length": 5}, "one row a step"),
        ({"metrics": ("accuracy",)}, "'accuracy' is not in y, which has 'loss', 'norm'"),
    ],
)
def test_scans_say_what_they_cannot_do(path, given, words):
    with Recorder(path, WHOLE, quiet=True) as rec, pytest.raises(RecordingError, match=words):
        record_scan(rec, exact, WHOLE, np.ones(4, np.float32), **given)


def test_a_scan_on_a_closed_recorder_is_refused_before_anything_is_computed(path):
    rec, traced = Recorder(path, WHOLE, quiet=True), []
    rec.close()
    with pytest.raises(RecordingError, match="closed"):
        record_scan(rec, lambda c, x: traced.append(1) or (c, None), WHOLE, np.ones(3, np.float32))
    assert not traced


def test_a_scan_of_another_tree_is_refused_with_the_structures(path):
    with Recorder(path, WHOLE, quiet=True) as rec, pytest.raises(ArchitectureError, match="has the structure"):
        record_scan(rec, lambda c, x: (c, None), (WHOLE, 0), np.ones(3, np.float32))


def test_the_stacked_states_of_a_scan_of_ones_own_are_recorded_as_a_block(path):
    def step(params, x):
        new, out = exact(params, x)
        return new, (params, out)

    with Recorder(path, WHOLE, quiet=True) as rec:
        params = WHOLE
        for _ in range(3):
            params, (states, out) = jax.lax.scan(step, params, jnp.ones(25))
            rec.record_block(states, **out)
        rec.record(params)
        rec.record_block(jax.tree_util.tree_map(lambda p: p[None] + jnp.ones(4).reshape(4, *[1] * p.ndim), params))
        record_scan(rec, lambda c, x: (c, None), jax.tree_util.tree_map(lambda p: p + 1, params), length=0)
    found, steps, metrics = read(path)
    assert steps == list(range(80))
    np.testing.assert_array_equal(found[:76, 0], 1.0 + np.arange(76))
    np.testing.assert_array_equal(metrics["norm"][:75], 15 + 6.0 * np.arange(75))


def test_an_equinox_carry_is_put_together_for_the_recorder(path):
    eqx = pytest.importorskip("equinox")
    arrays, rest = eqx.partition(eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array)

    def step(carry, x):
        return (jax.tree_util.tree_map(lambda a: a + x, carry[0]), carry[1] + 1), None

    with Recorder(path, eqx.combine(arrays, rest), quiet=True) as rec:
        record_scan(rec, step, (arrays, 0), np.ones(5, np.float32), params=lambda carry: eqx.combine(carry[0], rest))
    found, steps, _ = read(path)
    assert steps == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(found[-1] - found[0], 5.0, rtol=1e-6)


def test_a_run_goes_on_in_a_scan_after_it_was_closed(path):
    xs = np.arange(1.0, 101.0, dtype=np.float32)
    with Recorder(path, WHOLE, quiet=True) as rec:
        carry, _ = record_scan(rec, exact, WHOLE, xs[:37])
    with Recorder(path, carry, resume=True, quiet=True) as rec:
        assert rec.step == 37
        record_scan(rec, exact, carry, xs[37:])
    found, steps, metrics = read(path)
    assert steps == list(range(101))
    np.testing.assert_array_equal(found[:, 0], 1 + np.concatenate([[0], np.cumsum(xs)]))
    np.testing.assert_array_equal(metrics["loss"][:-1], 2 * xs)


# ----------------------------------------------------------------------------------------------------------- taps


def test_taps_inside_a_scan_arrive_once_and_in_order(path):
    with Recorder(path, WHOLE, quiet=True) as rec:

        def step(params, x):
            tap(rec, params, loss=2.0 * x)
            return exact(params, x)[0], None

        jax.jit(lambda c, xs: jax.lax.scan(step, c, xs))(WHOLE, jnp.arange(1.0, 101.0))
    found, steps, metrics = read(path)
    assert steps == list(range(100))
    np.testing.assert_array_equal(found[:, 0], 1 + np.cumsum(np.arange(100.0)))
    np.testing.assert_array_equal(metrics["loss"], 2 * np.arange(1.0, 101.0))


def test_taps_may_name_their_step(path):
    with Recorder(path, WHOLE, quiet=True) as rec:
        follow = jax.jit(lambda params, at: tap(rec, params, step=at))
        for at in (0, 10, 25):
            follow(exact(WHOLE, float(at))[0], at)
    found, steps, _ = read(path)
    assert steps == [0, 10, 25]
    np.testing.assert_array_equal(found[:, 0], [1.0, 11.0, 26.0])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins a process to one core")
def test_taps_of_large_states_do_not_hang_on_one_core(tmp_path):
    # On one core XLA's CPU client waits for ever where a callback gets an array of more than 100 kB in one piece.
    code = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp
from recorders.jax import Recorder, tap
params = {"w": jnp.zeros((300, 500)), "b": jnp.zeros(7)}
rec = Recorder(sys.argv[1], params, quiet=True)
def step(params, x):
    params = jax.tree_util.tree_map(lambda p: p + x, params)
    tap(rec, params, loss=x)
    return params, None
jax.jit(lambda c, xs: jax.lax.scan(step, c, xs))(params, jnp.ones(30))
rec.close()
"""
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.h5")], check=True, timeout=120, env=quiet_environment()
    )
    found, steps, _ = read(tmp_path / "run.h5")
    assert steps == list(range(31))
    np.testing.assert_array_equal(found, np.broadcast_to(np.arange(31.0)[:, None], (31, 150007)))


def quiet_environment(**extra):
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(["."]), **extra}


def test_what_goes_wrong_in_a_tap_is_told(path):
    rec = Recorder(path, WHOLE, quiet=True)
    follow = jax.jit(lambda params, at: tap(rec, params, step=at))
    follow(WHOLE, 5)
    with pytest.raises((RecordingError, jax.errors.JaxRuntimeError), match="steps rise"):  # noqa: PT012
        follow(WHOLE, 3)
        rec.close()
    rec.close()
    assert read(path)[1] == [0, 5]


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
    with Recorder(path, WHOLE, quiet=True) as rec:
        with pytest.raises(ArchitectureError, match="Record a changed network as a run of its own"):
            rec.record({**WHOLE, "new": jnp.ones(2)})
        with pytest.raises(ArchitectureError, match="shape"):
            rec.record({"w": jnp.ones((3, 3)), "b": jnp.ones(3)})


@pytest.mark.parametrize(
    ("state", "members", "words"),
    [
        ({"f": jax.nn.relu, "n": 3}, None, "holds no floating-point array"),
        ({"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, None, "names must be unique"),
        ([WHOLE, WHOLE], None, "members or layers"),
        ([{"w": jnp.ones((2, 2))}] * 2, 2, "give stack"),
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
import jax, numpy as np
jax.distributed.initialize("localhost:" + sys.argv[2], 2, int(sys.argv[1]))
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from recorders.jax import Recorder
from trajtools.store import ArchitectureError
mesh = Mesh(np.array(jax.devices()), "x")
whole = np.ones((4, 3), np.float32)
spread = jax.make_array_from_callback((4, 3), NamedSharding(mesh, PartitionSpec("x")), lambda part: whole[part])
try:
    Recorder(sys.argv[3], {"w": spread}, quiet=True)
except ArchitectureError as error:
    print(error)
"""


def test_arrays_spread_over_processes_are_refused(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(i), port, str(tmp_path / f"run{i}.h5")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=quiet_environment(),
        )
        for i in range(2)
    ]
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert "'w' is sharded over several processes" in out, errors
        assert "process_allgather" in out


def test_arrays_spread_over_devices_of_one_process_are_gathered(tmp_path):
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
