from __future__ import annotations

import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module

import naive_distances as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from recorders import Recorder
from trajtools.distances import tiles
from trajtools.distances.metric import METRICS, rounding_floor
from trajtools.errors import DataError, TooLargeError, UnknownNameError

pairwise = import_module("trajtools.distances.pairwise")

ENTRYWISE = ("l1", "l2", "linf", "rms", "relative", "cosine", "sign")
DTYPES = ("float16", "float32", "float64")


def states(count, size, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(dtype)


def far(shape):
    return ~np.eye(shape[0], shape[1], dtype=bool)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of 150 states of 2100 float32 weights, and the states."""
    path = tmp_path_factory.mktemp("runs") / "run.h5"
    walk = states(150, 2100, "float32").cumsum(axis=0, dtype=np.float32)
    with Recorder(path, {"a.weight": walk[0, :2000].reshape(40, 50), "a.bias": walk[0, 2000:]}, quiet=True) as recorder:
        for row in walk[1:]:
            recorder.record({"a.weight": row[:2000].reshape(40, 50), "a.bias": row[2000:]})
    return path, walk


# ------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("metric", ENTRYWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_are_those_of_the_definition(metric, dtype):
    x, y = states(11, 37, dtype), states(6, 37, dtype, seed=1)
    found = tt.pairwise(x, metric=metric)
    assert_allclose(found[:], naive.matrix(x, x, metric), rtol=1e-13, atol=1e-15 if metric == "cosine" else 0)
    assert_allclose(tt.pairwise(x, y=y, metric=metric)[:], naive.matrix(x, y, metric), rtol=1e-13)
    assert_array_equal(np.diagonal(found[:]), 0)
    assert_array_equal(found[:], found[:].T)


@pytest.mark.parametrize("metric", ENTRYWISE)
def test_float32_states_are_right_to_1e_7_and_float64_ones_to_1e_12_near_and_far(metric):
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=(5, 9001)), np.zeros((5, 9001))])
    x[5:] = x[4] + 1e-6 * rng.normal(size=(5, 9001)).cumsum(axis=0)
    # States are divided by their norms before they are subtracted, which costs the cosine digits of what is left.
    for dtype, tolerance in (("float32", 1e-7), ("float64", 1e-11 if metric == "cosine" else 1e-12)):
        stored = x.astype(dtype)
        found, truth = tt.pairwise(stored, metric=metric), naive.long_matrix(stored, stored, metric)
        off = far(truth.shape) & (truth > 0)
        assert np.abs(found[:] / np.where(off, truth, 1) - 1)[off].max() <= tolerance
    assert tt.pairwise(x.astype("f4"), metric="l1").settings["differences"] == "float32"


@pytest.mark.parametrize("metric", ["l1", "l2"])
@pytest.mark.parametrize("period", [1, 16, 48, 64, 100, 512])
def test_equal_float32_differences_do_not_add_up_their_rounding(period, metric):
    x = np.zeros((200, 20_000), np.float32)
    differences = 10 ** np.random.default_rng(3).uniform(-6, 2, (199, period))
    x[1:] = np.tile(differences, -(-20_000 // period))[:, :20_000]
    found = tt.pairwise(x, y=x[:1], metric=metric)[1:, 0]
    assert np.abs(found / naive.long_matrix(x[1:], x[:1], metric)[:, 0] - 1).max() <= 1e-7


def test_steps_of_1e_8_on_weights_near_1_keep_their_order():
    x = 1.0 + 1e-8 * np.arange(20)[:, None] * np.ones(50)
    found = tt.pairwise(x, metric="l2")[:]
    truth = naive.matrix(x, x, "l2")
    assert_allclose(found, truth, rtol=1e-14)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1e-30, "float32"), (1e30, "float32"), (1e-200, "float64"), (1e-30, "float64"), (1e200, "float64")],
)
def test_euclidean_distances_neither_underflow_nor_overflow(scale, dtype):
    x = (scale * states(6, 1100 if dtype == "float32" else 40)).astype(dtype)
    x[3] = x[2]
    x[5] = x[4]
    x[5, 7] = np.nextafter(x[5, 7], np.asarray(np.inf, dtype))
    for metric in ("l2", "rms", "relative"):
        assert_allclose(tt.pairwise(x, metric=metric)[:], naive.long_matrix(x, x, metric), rtol=1e-7)


def test_scaling_by_a_power_of_two_scales_every_bit():
    x = states(20, 3000, "float32")
    for metric in ("l1", "l2", "linf", "rms"):
        assert_array_equal(tt.pairwise(8 * x, metric=metric)[:], 8 * tt.pairwise(x, metric=metric)[:])


def test_every_shape_of_the_last_register_tile_and_block_is_computed():
    for size in (1, 3, 15, 16, 17, 1023, 1024, 1025, 2047, 2048, 2049):
        x = states(9, size, "float32")
        truth = np.abs(x[:, None].astype(float) - x[None]).sum(axis=2)
        for count in (1, 2, 3, 4, 5, 9):
            assert_allclose(tt.pairwise(x[:count], metric="l1")[:], truth[:count, :count], rtol=1e-7)


def test_rows_that_are_strided_reversed_or_integers_are_states():
    x = states(12, 20)
    for given in (x[::3], x[::-1], x[:, ::2], np.asfortranarray(x), (10 * x).astype(int), x[:, 0]):
        table = np.asarray(given, float).reshape(len(given), -1)
        assert_allclose(tt.pairwise(given, metric="l1")[:], naive.matrix(table, table, "l1"), rtol=1e-13)


def test_input_is_left_unchanged():
    x = states(10, 2000, "float32")
    before = x.copy()
    x.flags.writeable = False
    for metric in ENTRYWISE:
        tt.pairwise(x, metric=metric)
    assert_array_equal(x, before)


def test_pairwise_agrees_with_between():
    x, y = states(12, 600), states(12, 600, seed=5)
    for metric in ENTRYWISE:
        assert_allclose(
            np.diagonal(tt.pairwise(x, y=y, metric=metric)[:]), tt.distance(x, y, metric=metric), rtol=1e-13
        )


# -------------------------------------------------------------------------------------------- tiles, threads, executors


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "cosine", lambda a, b: np.abs(a - b).sum(axis=1)])
def test_tiles_and_memory_change_no_bit(metric, monkeypatch):
    x = states(70, 5000, "float32")
    whole = tt.pairwise(x, metric=metric)[:]
    for block in (1, 16, 33):
        assert_array_equal(tt.pairwise(x, metric=metric, block=block)[:], whole)
    monkeypatch.setattr(tiles, "BUDGET", 400_000)
    assert_array_equal(tt.pairwise(x, metric=metric)[:], whole)


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_threads_and_executors_change_no_bit(metric, recorded, monkeypatch):
    path, walk = recorded
    x = tt.open(path).trajectory()
    alone = tt.pairwise(walk, metric=metric)[:]
    monkeypatch.setattr("trajtools.distances.tiles.threads", lambda: 3)
    assert_array_equal(tt.pairwise(x, metric=metric, block=32)[:], alone)
    with ProcessPoolExecutor(2) as pool:
        assert_array_equal(tt.pairwise(x, metric=metric, block=64, executor=pool)[:], alone)
        assert_array_equal(tt.pairwise(walk, metric=metric, block=64, executor=pool)[:], alone)


def test_the_executor_scans_states_in_files(recorded, tmp_path):
    path, walk = recorded
    x = tt.open(path).trajectory()
    scanned = []

    class Pool(ThreadPoolExecutor):
        def submit(self, work, *args):
            if work is tiles._scan_rows:
                scanned.append(len(args[0].states))
                assert len(pickle.dumps(args[0])) < 8000
            return super().submit(work, *args)

    with Pool(2) as pool:
        result = tt.pairwise(x, metric="l2", out=tmp_path / "d.h5", executor=pool)
        assert sum(scanned) == len(x)
        tt.pairwise(walk, metric="l2", executor=pool)
        assert sum(scanned) == len(x)  # states in memory stay where they are
    again = tt.pairwise(x, metric="l2", out=tmp_path / "d.h5")
    assert again.settings["tiles_resumed"] > 0  # the hash of the states is the same
    assert_array_equal(result.floor, tt.pairwise(walk, metric="l2").floor)


def test_a_task_is_a_place_in_a_file(recorded):
    path, _ = recorded
    x = tt.open(path).trajectory().select("a.bias")
    what = tiles.compare(x, None, "l1", digest=False, executor=None)
    assert len(pickle.dumps(what.tile(slice(0, 64), slice(64, 128), travels=True))) < 8000


def test_a_metric_of_the_users_own_travels(recorded):
    path, walk = recorded
    x = tt.open(path).trajectory()[:20]
    with ProcessPoolExecutor(1) as pool:
        found = tt.pairwise(x, metric=mean_gap, executor=pool)
    assert_allclose(found[:], tt.pairwise(walk[:20].astype(float), metric="l1")[:] / 2100, rtol=1e-6)


def mean_gap(a, b):
    return np.abs(a - b).mean(axis=1)


def test_dask_gives_the_same_bits(recorded):
    distributed = pytest.importorskip("distributed")
    path, walk = recorded
    x = tt.open(path).trajectory()
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        found = tt.pairwise(x, metric="l1", executor=client.get_executor())
    assert_array_equal(found[:], tt.pairwise(walk, metric="l1")[:])


def test_progress_counts_tiles():
    told = []
    tt.pairwise(states(64, 5), block=16, progress=lambda done, total: told.append((done, total)))
    assert told == [(k, 10) for k in range(11)]


# ------------------------------------------------------------------------------------------------- files as sources


def test_a_file_is_as_far_as_its_states(recorded):
    path, walk = recorded
    x = tt.open(path).trajectory()
    assert_array_equal(tt.pairwise(x, metric="l1")[:], tt.pairwise(walk, metric="l1")[:])
    part = x.select("a.bias").window(10, 100, every=3)
    found = tt.pairwise(part, metric="l1")
    assert_array_equal(found[:], tt.pairwise(walk[10:100:3, 2000:], metric="l1")[:])
    assert_array_equal(found.step, np.arange(10, 100, 3))


def test_a_file_is_read_in_blocks_of_the_budget(recorded, monkeypatch):
    path, walk = recorded
    x = tt.open(path).trajectory()
    sizes = []
    read = type(x.source).read

    def watched(self, *asked):
        found = read(self, *asked)
        sizes.append(found.nbytes)
        return found

    monkeypatch.setattr(tiles, "BUDGET", 2**20)
    monkeypatch.setattr(tiles, "BLOCK_BYTES", 2**18)
    monkeypatch.setattr(type(x.source), "read", watched)
    tt.pairwise(x, metric="l1")
    assert max(sizes) <= 2**20
    assert sum(sizes) < 10 * walk.nbytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_formats_are_compared_exactly_and_have_the_floor_of_their_format(tmp_path, dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    x = states(20, 40).astype(kind)
    with Recorder(tmp_path / "x.h5", {"w": x[0]}, quiet=True) as recorder:
        for row in x[1:]:
            recorder.record({"w": row})
    found = tt.pairwise(tt.open(tmp_path / "x.h5").trajectory(), metric="l1")
    assert_allclose(found[:], naive.matrix(x, x, "l1"), rtol=1e-13)
    assert_allclose(found.floor, rounding_floor(x.astype(np.float32), "l1", dtype=dtype), rtol=1e-13)


# ------------------------------------------------------------------------------------- what is not finite, what is low


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", ["l1", "l2", "cosine", mean_gap])
def test_states_that_are_not_finite_are_excluded_and_counted(bad, metric):
    x = states(9, 1500, "float32")
    x[4, 1499] = bad
    found = tt.pairwise(x, metric=metric)
    assert found.n_excluded == 1
    assert_array_equal(np.flatnonzero(found.excluded), [4])
    assert np.isnan(found[4]).all()
    assert np.isnan(found[:, 4]).all()
    rest = np.delete(np.arange(9), 4)
    assert_array_equal(found[np.ix_(rest, rest)], tt.pairwise(x[rest], metric=metric)[:])
    assert [one.numbers["first"] for one in found.warnings if one.code == "not-finite"] == [4]


def test_a_state_without_a_direction_has_no_cosine():
    x = states(4, 5)
    x[2] = 0
    found = tt.pairwise(x, metric="cosine")
    assert_array_equal(found.excluded, [False, False, True, False])
    assert np.isnan(found[2]).all()
    assert np.isnan(tt.distance(x, x, metric="cosine")[2])
    assert_array_equal(tt.pairwise(np.zeros((2, 3)), metric="relative")[:], 0)


def test_distances_below_the_floor_are_counted_and_said():
    x = np.float32(0.3) + np.arange(6)[:, None] * np.spacing(np.float32(0.3)) * np.array([1.0, 0, 0, 0, 0])
    found = tt.pairwise(x.astype(np.float32), metric="l1")
    assert_allclose(found.floor, rounding_floor(x.astype(np.float32), "l1"))
    truth = naive.matrix(x.astype("f4"), x.astype("f4"), "l1")
    low = np.count_nonzero(np.tril(truth < found.floor[0], -1))
    assert low > 0
    assert found.settings["below_floor"] == low
    assert found.settings["pairs"] == 15
    assert any(f"{low} of 15 distances lie below" in word.text for word in found.warnings)
    assert not tt.pairwise(states(5, 5), metric="l1").warnings


def test_no_state_one_state_and_no_weight_are_no_error():
    assert tt.pairwise(np.empty((0, 3))).shape == (0, 0)
    assert tt.pairwise(np.ones((1, 3)))[:].tolist() == [[0.0]]
    assert tt.pairwise(np.ones((2, 0)), metric="l1")[:].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert tt.pairwise(np.ones((2, 3)), y=np.empty((0, 3))).shape == (2, 0)
    assert tt.pairwise(np.full((3, 2), np.nan)).n_excluded == 3


def test_a_metric_that_is_not_symmetric_is_asked_both_ways():
    x = states(20, 3)
    found = tt.pairwise(x, metric=lambda a, b: (a - b).clip(0).sum(axis=1), block=8)
    assert not found.symmetric
    assert_allclose(found[:], np.clip(x[:, None] - x[None], 0, None).sum(axis=2), rtol=1e-14)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_cannot_be_compared_is_refused(monkeypatch):
    with pytest.raises(DataError, match="3 and 4 weights"):
        tt.pairwise(np.ones((2, 3)), y=np.ones((2, 4)))
    with pytest.raises(DataError, match="real numbers"):
        tt.pairwise(np.ones((2, 3), complex))
    with pytest.raises(UnknownNameError, match="l1, l2"):
        tt.pairwise(np.ones((2, 3)), metric="manhattan")
    with pytest.raises(DataError, match="must be a positive integer"):
        tt.pairwise(np.ones((2, 3)), block=0)
    with pytest.raises(DataError, match="needs their wiring"):
        tt.pairwise(np.ones((2, 3)), metric="graph-l1")
    monkeypatch.setattr(pairwise, "MAX_MATRIX_BYTES", 100)
    with pytest.raises(TooLargeError, match="pass out=path"):
        tt.pairwise(np.ones((4, 3)))
    monkeypatch.setattr(tiles, "BUDGET", 100)
    with pytest.raises(TooLargeError, match="needs whole states"):
        tt.pairwise(np.ones((2, 300)), metric=mean_gap)


def test_interrupted_threads_end(monkeypatch):
    monkeypatch.setattr("trajtools.distances.tiles.threads", lambda: 2)
    before, compared = threading.active_count(), []

    def gap(a, b):
        compared.append(threading.current_thread())
        return np.abs(a - b).max(axis=1)

    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tt.pairwise(states(100, 20), metric=gap, block=8, progress=interrupt)
    assert len(compared) < 100 * 99 / 2 / 2  # what was waiting is not begun
    assert threading.main_thread() not in compared
    assert threading.active_count() == before


def test_pairwise_may_be_called_from_many_threads():
    x = states(40, 1500, "float32")
    alone = tt.pairwise(x, metric="l1")[:]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: tt.pairwise(x, metric="l1")[:], range(8)):
            assert_array_equal(found, alone)


def test_all_metrics_by_name_are_there():
    assert {*ENTRYWISE, "graph-l1"} <= set(METRICS)


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_equal_differences_do_not_add_up_their_rounding(metric):
    """Sign descent moves every weight by one step: each float32 sum of it rounds the same way."""
    steps = np.random.default_rng(3).uniform(1e-3, 2e-3, 40).astype(np.float32)
    x = np.repeat(np.r_[np.float32(0), steps][:, None], 4096, axis=1)
    found = tt.pairwise(x, metric=metric)[0, 1:]
    exact = steps.astype(np.float64) * (4096 if metric == "l1" else 64)
    assert_allclose(found, exact, rtol=5e-8)
