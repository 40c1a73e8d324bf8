"""Recording from inside jit: scans in blocks record what a loop records, taps arrive once and in order."""

import os
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax_training import WHOLE, batches, exact, flat, mlp, quiet_environment, read, sgd  # noqa: E402

import trajtools as tt  # noqa: E402
from recorders import AtSteps, LogSpaced, RecordingWarning  # noqa: E402
from recorders.jax import (  # noqa: E402
    Recorder,
    record_scan,
    scan as scan_module,
    tap,
)
from trajtools.errors import ArchitectureError, RecordingError  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.recorders]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


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
    with tt.open(path) as run:
        np.testing.assert_array_equal(run.states[:][:, 1], [[3, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8]])
        np.testing.assert_array_equal(run.metrics["loss"][:3], [[3, 12], [6, 15], [9, 18]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"block": 0}, "steps between two transfers"),
        ({"length": 5}, "one row per step"),
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


def test_scans_taps_and_loops_go_on_where_the_disk_is_full(path, full_disk):
    xs = np.arange(1.0, 41.0, dtype=np.float32)

    def recorded():
        with Recorder(path, WHOLE, quiet=True) as rec:
            follow = jax.jit(lambda params: tap(rec, params, loss=1.0))
            params = WHOLE
            for _ in range(5):
                params, ys = record_scan(rec, exact, params, xs)
                np.testing.assert_array_equal(ys["loss"], 2 * xs)
                for x in xs:
                    params = exact(params, x)[0]
                    rec.record(params, loss=1.0)
                params = exact(params, 1.0)[0]
                follow(params)
                jax.effects_barrier()
            return params

    full_disk()
    with pytest.warns(RecordingWarning, match="The training goes on") as warned:
        last = recorded()
    assert len(warned) == 1
    np.testing.assert_array_equal(last["b"], 1 + 5 * (2 * xs.sum() + 1))
    found, steps, _ = read(path)
    assert steps == list(range(64))
    np.testing.assert_array_equal(found[:41, 0], 1 + np.concatenate([[0], np.cumsum(xs)]))


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


def test_what_goes_wrong_in_a_tap_is_told(path):
    rec = Recorder(path, WHOLE, quiet=True)
    follow = jax.jit(lambda params, at: tap(rec, params, step=at))
    follow(WHOLE, 5)
    with pytest.raises((RecordingError, jax.errors.JaxRuntimeError), match="steps must increase"):  # noqa: PT012
        follow(WHOLE, 3)
        rec.close()
    rec.close()
    assert read(path)[1] == [0, 5]
