import os
import threading
from types import SimpleNamespace

import damaged_runs as dr
import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from planted import from_distances, logistic_growth, orbit

from trajtools._kernels import _jit
from trajtools.distances import equal_times
from trajtools.errors import DamagedError, DataError, SelectionError, UnknownNameError
from trajtools.exponents.twins import twins
from trajtools.reasons import codes
from trajtools.store import Run, RunSpec, RunWriter
from trajtools.trajectory import Trajectory
from trajtools.wiring import Member, Parameter


@pytest.fixture
def walks():
    """Three references with two copies each, (T, 3, 3, 7); the first of each three is the reference."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3, 3, 7)).cumsum(axis=0)


def as_pairs(walks):
    return [(walks[:, i, 0], [walks[:, i, 1], walks[:, i, 2]]) for i in range(walks.shape[1])]


def stored(states):
    """States in memory that read like those of a file."""
    return SimpleNamespace(chunk=(3, 2), by_member=lambda rows, m, c: states[rows][:, m][:, :, c].transpose(1, 0, 2))


def as_run(walks, **more):
    """A run in memory, members in another order than the pairs: twins first, references last."""
    t, n, copies, p = walks.shape
    order = [(i, c) for c in reversed(range(copies)) for i in range(n)]
    states = np.stack([walks[:, i, c] for i, c in order], axis=1)
    members = tuple(
        Member(f"{i}.{c}", -1 if c == 0 else order.index((i, 0)), np.nan if c == 0 else 0.5) for i, c in order
    )
    fields = {
        "name": "made", "uuid": "0", "hparams": {}, "members": members,
        "step": np.arange(t), "n_parameters": p, "dtype": states.dtype,
        "stored": "weights", "distance_metric": None, "logical_dtype": str(states.dtype), "time_unit": "step",
        "states": stored(states), "trajectory": lambda m: states[:, m], "stretches": lambda m: [slice(0, t)],
    }  # fmt: skip
    return SimpleNamespace(**(fields | more))


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms"])
@pytest.mark.parametrize("average", ["mean-log", "log-mean", "rms"])
def test_curves_are_those_of_the_naive_twin(walks, metric, average):
    growth = twins(as_pairs(walks), metric=metric, average=average)
    distances = [naive.between(walks[:, i, 0], walks[:, i, c], metric) for i in range(3) for c in (1, 2)]
    assert_allclose(growth.distances, distances, rtol=1e-13)
    curves = [naive.averaged(distances[2 * i : 2 * i + 2], average) for i in range(3)]
    assert_allclose(growth.log_distance, np.mean(curves, axis=0), rtol=1e-12)
    assert growth.n_references == 3
    assert growth.group.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_run_and_its_pairs_give_the_same(walks):
    run, listed = twins(as_run(walks)), twins(as_pairs(walks))
    key = np.lexsort(run.distances.T[::-1])
    assert_allclose(run.distances[key], listed.distances[np.lexsort(listed.distances.T[::-1])], rtol=1e-15)
    assert_allclose(run.log_distance, listed.log_distance, rtol=1e-14)
    assert np.bincount(run.group).tolist() == [2, 2, 2]
    assert run.settings["epsilon"] == [0.5]


def test_a_copy_of_a_copy_belongs_to_the_same_initial_condition(walks):
    members = (Member("a"), Member("b", 0), Member("c", 1), Member("d"), Member("e", 3))
    states = walks.reshape(20, 9, 7)[:, :5]
    run = as_run(walks, members=members, states=stored(states))
    growth = twins(run)
    assert growth.group.tolist() == [0, 0, 1]
    assert_allclose(growth.distances[1], naive.between(states[:, 1], states[:, 2], "l1"), rtol=1e-13)


def test_members_that_refer_to_each_other_are_refused(walks):
    with pytest.raises(DataError, match="cycle"):
        twins(as_run(walks, members=(Member("a", 1), Member("b", 0))))


@pytest.mark.parametrize("kind", ["array", "stack", "single", "trajectory", "list of one"])
def test_one_pair_may_come_in_several_shapes(walks, kind):
    reference, copies = walks[:, 0, 0], [walks[:, 0, 1]]
    given = {
        "array": (reference, copies),
        "stack": (reference, np.stack(copies)),
        "single": (reference, copies[0]),
        "trajectory": (Trajectory.from_array(reference), [Trajectory.from_array(copies[0])]),
        "list of one": [(reference, copies)],
    }[kind]
    assert_allclose(twins(given).distances[0], naive.between(reference, copies[0], "l1"), rtol=1e-13)


def test_a_scalar_series_is_a_trajectory():
    growth = twins((np.arange(5.0), [np.arange(5.0) + 2.0 ** np.arange(5)]))
    assert_allclose(growth.log_distance, np.log(2.0) * np.arange(5))


def test_pairs_of_the_same_reference_share_an_initial_condition(walks):
    reference = walks[:, 0, 0]
    growth = twins([(reference, [walks[:, 0, 1]]), (walks[:, 1, 0], [walks[:, 1, 1]]), (reference, [walks[:, 0, 2]])])
    assert growth.group[0] == growth.group[2] != growth.group[1]
    assert growth.n_references == 2


def test_a_perturbation_counts_from_the_step_where_it_was_introduced():
    reference = orbit(lambda x: 0.9 * x, 1.0, 30)
    late = reference.copy()
    late[10:] = orbit(lambda x: 0.9 * x, reference[10] + 1e-3, 20)
    early = orbit(lambda x: 0.9 * x, 1.0 + 1e-3, 30)
    growth = twins((reference, [early, late]))
    assert growth.start.tolist() == [0, 10]
    assert_allclose(growth.distances[0, :21], growth.distances[1, :21], rtol=1e-9)
    assert np.isnan(growth.distances[1, 21:]).all()


def test_start_says_where_pieces_of_a_longer_training_begin(walks):
    growth = twins(as_pairs(walks), start=[0, 100, 200])
    assert growth.start.tolist() == [0, 0, 100, 100, 200, 200]
    assert twins(as_pairs(walks), start=7).start.tolist() == [7] * 6
    assert twins(as_pairs(walks), start=7, window=(10, 15)).start.tolist() == [10] * 6
    with pytest.raises(DataError, match="one per pair"):
        twins(as_pairs(walks), start=[1, 2])


def test_times_of_uneven_recordings_are_only_aligned_where_they_can_be():
    step = np.array([0, 1, 2, 4, 8, 16])
    reference = np.zeros((6, 1))
    early, late = np.ones((6, 1)), np.ones((6, 1))
    late[:2] = 0
    pair = [Trajectory.from_array(x, step=step) for x in (reference, early, late)]
    assert twins((pair[0], [pair[1]])).time.tolist() == step.tolist()
    with pytest.raises(DataError, match="cannot be aligned"):
        twins((pair[0], [pair[1], pair[2]]))


def test_a_diverged_twin_ends_and_is_counted(walks):
    broken = walks.copy()
    broken[8, 1, 2, 3] = np.nan
    broken[9, 0, 0, 0] = np.inf
    growth = twins(as_pairs(broken))
    alive = np.isfinite(growth.distances)
    assert alive.sum(axis=1).tolist() == [9, 9, 20, 8, 20, 20]
    assert growth.settings["n_diverged"] == 3
    (ended,) = [one.numbers for one in growth.warnings if one.code == "diverged"]
    assert ended == {"count": 3, "total": 6, "first": 8}
    assert np.isfinite(growth.fit().value)


def test_a_twin_that_was_never_perturbed_is_zero_for_ever_and_says_so(walks):
    reference = walks[:, 0, 0]
    growth = twins((reference, [reference.copy(), reference.copy()]))
    assert_array_equal(growth.distances, 0)
    assert np.isnan(growth.log_distance).all()
    exponent = growth.fit()
    assert exponent.verdict == "inconclusive"
    assert "none of the 2 twins differs" in exponent.reasons[0].text
    assert np.isnan(exponent.value)


def test_one_unperturbed_twin_among_others_is_left_out_and_counted(walks):
    reference = walks[:, 0, 0]
    both, one = twins((reference, [walks[:, 0, 1], reference])), twins((reference, [walks[:, 0, 1]]))
    assert_allclose(both.log_distance, one.log_distance)
    assert both.settings["n_unperturbed"] == 1
    assert any("1 of 2 twins never differ" in words.text for words in both.warnings)


def test_merged_twins_end_and_are_counted():
    growth = from_distances([[1e-3, 1e-4, 1e-5, 0, 0], [1e-3, 1e-4, 0, 1e-6, 1e-7]])
    assert growth.settings["n_merged"] == 1
    assert growth.settings["n_zeros"] == 3
    assert np.isfinite(growth.log_distance[[0, 1, 2, 4]]).all()


def test_dt_puts_time_into_another_unit(walks):
    growth = twins(as_pairs(walks), dt=0.5)
    assert_allclose(growth.time, 0.5 * np.arange(20))
    assert growth.time_unit == "time"
    pairs = [
        (Trajectory.from_array(a, dt=0.1), [Trajectory.from_array(b, dt=0.1) for b in bs]) for a, bs in as_pairs(walks)
    ]
    assert_allclose(twins(pairs).time, 0.1 * np.arange(20))
    with pytest.raises(DataError, match="dt must be a positive number"):
        twins(as_pairs(walks), dt=0)
    with pytest.raises(DataError, match="different units of time"):
        twins([*as_pairs(walks), pairs[0]])


def test_window_cuts_by_step(walks):
    growth = twins(as_pairs(walks), window=(5, 12))
    assert_allclose(growth.distances, twins(as_pairs(walks)).distances[:, 5:12])
    assert growth.start.tolist() == [5] * 6
    with pytest.raises(SelectionError, match="steps run from 0 to 19"):
        twins(as_pairs(walks), window=(30, 40))


def test_stored_distances_are_used_in_their_own_metric_only(walks):
    weights = twins(as_run(walks))
    run = as_run(walks)
    stored = np.full((20, 9), np.nan)
    stored[:, [i for i, m in enumerate(run.members) if m.reference >= 0]] = weights.distances.T
    run = as_run(walks, stored="distances", distances=stored, distance_metric="l1")
    growth = twins(run)
    assert_array_equal(growth.distances, weights.distances)
    assert np.isnan(growth.floor).all()
    assert "floor-unknown" in codes(growth.warnings)
    with pytest.raises(DataError, match="use metric='l1'"):
        twins(run, metric="l2")


def test_sketches_give_euclidean_distances_and_state_their_error(walks):
    run = as_run(walks)
    width = 50
    sketch = np.random.default_rng(1).normal(size=(20, 9, width))
    run = as_run(walks, stored="sketch", sketch=sketch)
    growth = twins(run, metric="l2")
    twin = [i for i, m in enumerate(run.members) if m.reference >= 0]
    of = [run.members[i].reference for i in twin]
    assert_allclose(growth.distances.T, np.sqrt(((sketch[:, twin] - sketch[:, of]) ** 2).sum(axis=2)), rtol=1e-12)
    assert_allclose(growth.settings["sketch_relative_error"], 0.1)
    assert any("10.0%" in words.text for words in growth.warnings)
    with pytest.raises(DataError, match="metric='l2'"):
        twins(run, metric="l1")


@pytest.mark.parametrize("odd", [(), (2,), (0, 5), (1, 2, 3)])
def test_copies_together_are_copies_one_by_one(odd):
    rng = np.random.default_rng(4)
    reference = rng.normal(size=(20, 5)).cumsum(axis=0)
    copies = [reference + rng.normal(size=(20, 5)) for _ in range(6)]
    for k in odd:
        copies[k][:3] = reference[:3]  # perturbed later
        copies[k][12:] = np.nan if k % 2 else copies[k][12:]
    together = twins((reference, copies))
    for u, copy in enumerate(copies):
        alone = twins((reference, [copy]))
        length = alone.distances.shape[1]
        assert_array_equal(together.distances[u, :length], alone.distances[0])
        assert np.isnan(together.distances[u, length:]).all()
        assert_array_equal(together.floor[u, :length], alone.floor[0])
        assert_array_equal(together.speed[u, :length], alone.speed[0])
        assert (together.start[u], together.scale[u]) == (alone.start[0], alone.scale[0])


def test_without_a_metric_a_run_is_measured_in_the_one_that_it_stores(walks):
    width = 50
    sketched = as_run(walks, stored="sketch", sketch=np.random.default_rng(1).normal(size=(20, 9, width)), uuid="1")
    apart = as_run(walks, stored="distances", distances=np.ones((20, 9)), distance_metric="linf", uuid="2")
    assert [twins(run).metric for run in (as_run(walks), sketched, apart)] == ["l1", "l2", "linf"]
    assert twins([as_run(walks), sketched]).metric == "l2"
    with pytest.raises(DataError, match="use metric='linf'"):
        twins([sketched, apart])


def test_twins_on_their_own_batches_are_never_called_sensitive(walks):
    run = as_run(walks)
    noisy = tuple(Member(m.name, m.reference, m.epsilon, noise="independent") for m in run.members)
    t = np.arange(20)[:, None, None]
    states = walks[:1].repeat(20, axis=0).reshape(20, 9, 7) + np.arange(9)[:, None] * 1e-8 * np.exp(t)
    growth = twins(as_run(walks, members=noisy, states=stored(states)))
    assert "independent-batches" in codes(growth.warnings)
    assert growth.fit().verdict == "inconclusive"


def test_what_has_no_twins_is_refused(walks):
    with pytest.raises(DataError, match="none is a perturbed copy"):
        twins(as_run(walks, members=(Member("alone"),)))
    with pytest.raises(DataError, match="a single trajectory has no twins"):
        twins(walks[:, 0, 0])
    with pytest.raises(DataError, match="has no perturbed copy"):
        twins((walks[:, 0, 0], []))
    with pytest.raises(DataError, match="7 and 6 weights"):
        twins((walks[:, 0, 0], [walks[:, 0, 1, :6]]))
    with pytest.raises(UnknownNameError, match="mean-log, log-mean, rms"):
        twins(as_pairs(walks), average="median")
    with pytest.raises(UnknownNameError, match="l1, l2, linf, rms"):
        twins(as_pairs(walks), metric="manhattan")


@pytest.mark.parametrize("dtype", ["int64", "float16", "float32"])
def test_other_dtypes_are_states_too(dtype):
    rng = np.random.default_rng(2)
    a, b = rng.integers(-9, 9, (2, 12, 4)).astype(dtype)
    assert_allclose(twins((a, [b])).distances[0], naive.between(a, b, "l1"))


def test_floor_is_that_of_the_narrowest_format():
    a = np.ones((5, 3), np.float32)
    growth = twins((a.astype(np.float64), [a + np.float32(0.5)]))
    assert_allclose(growth.floor[0], 3 * np.spacing(np.float32(1)) / 3)


def test_ten_thousand_weights_and_long_records_fit_into_blocks():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(300, 10_000)).astype(np.float32)
    growth = twins((reference, [reference + np.float32(1e-3)]))
    assert_allclose(growth.distances[0], np.abs(reference - (reference + np.float32(1e-3))).astype(float).sum(axis=1))


def test_scale_of_the_weights_shifts_the_curve_and_nothing_else():
    growth = logistic_growth(0, inits=5)
    rng_states = [(8 * np.ones((3, 2)), [8 * np.ones((3, 2)) + 8e-3])]
    plain = [(np.ones((3, 2)), [np.ones((3, 2)) + 1e-3])]
    assert_allclose(twins(rng_states).log_distance - twins(plain).log_distance, np.log(8))
    assert growth.scale.max() <= 1


def write_twins(path, count, n_twins, size, dtype="float32"):
    """A run of one reference and its twins; returns its states (T, M, P)."""
    rng = np.random.default_rng(size)
    states = rng.standard_normal((count, 1 + n_twins, size)).cumsum(axis=0).astype(dtype)
    members = [Member("0"), *(Member(str(i), reference=0, epsilon=1e-6) for i in range(1, 1 + n_twins))]
    spec = RunSpec([Parameter("w", "other", (size,), dtype, 0, size)], members, dtype)
    writer = RunWriter.create(path, spec)
    rows = writer.layout.rows
    for start in range(0, count, rows):
        part = states[start : start + rows]
        writer.write(start, len(part), step=np.arange(start, start + len(part)), weights=dr.tiles(writer.layout, part))
    writer.close()
    return states


@pytest.mark.parametrize("shape", [(130, 2, 9000), (70, 30, 50)])  # several chunks across, and several batches of twins
@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_twins_of_a_file_do_not_depend_on_the_threads(shape, metric, tmp_path, monkeypatch):
    states = write_twins(tmp_path / "run.h5", *shape)
    monkeypatch.setattr(equal_times, "BLOCK_BYTES", 2**20)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(_jit, "get_num_threads", lambda threads=threads: threads)
        before = threading.active_count()
        with Run(tmp_path / "run.h5") as run:
            results.append(twins(run, metric=metric))
        assert threading.active_count() == before
    first = results[0]
    for other in results[1:]:
        for name in ("distances", "floor", "scale", "speed"):
            assert_array_equal(getattr(other, name), getattr(first, name))
    few = slice(5, None, 40)
    each = [naive.between(states[few, 1 + k], states[few, 0], metric) for k in range(shape[1])]
    assert_allclose(first.distances[:, few], each, rtol=1e-12)
    lengths = naive.between(states[:, 0], np.zeros_like(states[:, 0]), metric)
    assert_allclose(first.scale, lengths.max(), rtol=1e-12)
    moves = naive.between(states[1:, 0], states[:-1, 0], "l1")
    assert_allclose(first.speed[0, 1:], moves, rtol=1e-12)


def test_what_batches_share_does_not_depend_on_which_ends_last(tmp_path, monkeypatch):
    """Of 15 twins, 8 are compared and then 7, in pieces of another width."""
    write_twins(tmp_path / "run.h5", 3, 15, 140_000, "float64")

    def backwards(work, count, metric):
        for k in reversed(range(count)):
            work(k, k + 1)

    results = []
    for order in (equal_times._in_parts, backwards):
        monkeypatch.setattr(_jit, "get_num_threads", lambda: 1)
        monkeypatch.setattr(equal_times, "_in_parts", order)
        with Run(tmp_path / "run.h5") as run:
            results.append(twins(run))
    for name in ("distances", "floor", "scale", "speed"):
        assert_array_equal(getattr(results[0], name), getattr(results[1], name))


@pytest.mark.parametrize("threads", [1, 3])
def test_damage_is_named_from_any_thread(threads, tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    write_twins(path, 130, 2, 9000)
    monkeypatch.setattr(equal_times, "BLOCK_BYTES", 2**20)
    monkeypatch.setattr(_jit, "get_num_threads", lambda: threads)
    dr.flip(path, dr.chunk_place(path, "weights", 1, 2) + 5)
    os.utime(path, (0, 0))
    before = threading.active_count()
    with Run(path) as run, pytest.raises(DamagedError, match=r"states 64 to 127 \(member 1\)"):
        twins(run)
    assert threading.active_count() == before


def test_a_run_that_comes_twice_is_refused_and_differences_are_said(walks):
    one, other = (as_run(walks, uuid=uuid, path=f"{uuid}.h5", hparams={"lr": 0.1, "seed": uuid}) for uuid in "ab")
    with pytest.raises(DataError, match=r"a\.h5 and a\.h5 hold one run"):
        twins([one, one])
    assert "runs-differ" not in codes(twins([one, other]).warnings)
    other.hparams["lr"] = 0.2
    (warning,) = [reason for reason in twins([one, other]).warnings if reason.code == "runs-differ"]
    assert "lr" in warning.text
    assert "seed" not in warning.text
