from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import naive_distances as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from recorders import Recorder
from trajtools.distances import tiles
from trajtools.errors import DataError

to_orbit = import_module("trajtools.neighbors.to_orbit")


def cycles(count=200, size=30, shift=0.003):
    """The same curve, sampled at two sets of times."""
    rng = np.random.default_rng(0)
    ways = rng.normal(size=(3, size))
    times = np.linspace(0, 6, count)[:, None]
    return [np.sin(t) * ways[0] + np.cos(2 * t) * ways[1] + t * ways[2] for t in (times + shift, times)]


@pytest.fixture
def pruned(monkeypatch):
    monkeypatch.setattr(to_orbit, "WORTH", 0)
    monkeypatch.setattr(to_orbit, "SIDE", 8)


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms", "relative", "cosine", "sign"])
def test_the_nearest_state_is_that_of_the_definition(metric):
    a, b = np.random.default_rng(1).normal(size=(2, 9, 12))
    found = tt.to_orbit(a, b[:7], metric=metric)
    distance, place = naive.nearest(a, b[:7], metric)
    assert_allclose(found.distance, distance, rtol=1e-12)
    assert_array_equal(found.argmin, place)
    assert found.n_computed == 63


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms", "relative"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_landmarks_rule_out_was_not_the_nearest(metric, dtype, pruned, monkeypatch):
    a, b = (x.astype(dtype) for x in cycles(size=1100 if dtype == "float32" else 30))
    a[17, 3] = np.nan
    b[40:60] = np.inf
    found = tt.to_orbit(a, b, metric=metric)
    assert found.settings["search"] == "landmarks"
    assert found.n_computed < 0.4 * len(a) * len(b)
    monkeypatch.setattr(to_orbit, "WORTH", np.inf)
    everything = tt.to_orbit(a, b, metric=metric)
    assert everything.settings["search"] == "all distances"
    assert everything.n_computed == len(a) * len(b)
    assert_array_equal(found.distance, everything.distance)
    assert_array_equal(found.argmin, everything.argmin)


@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms"])
@pytest.mark.parametrize("kind", ["cycle", "noise", "lattice"])
def test_a_tree_finds_what_all_distances_say(metric, kind, monkeypatch):
    rng = np.random.default_rng(5)
    if kind == "cycle":
        a, b = cycles(size=6)
    else:
        a, b = rng.normal(size=(2, 150, 5)) if kind == "noise" else rng.integers(0, 3, (2, 150, 2)).astype(float)
    a[17, 1], b[40:60, 0], b[3, 1] = np.nan, np.inf, np.nan
    monkeypatch.setattr(to_orbit, "TREE_PAYS", np.inf)
    everything = tt.to_orbit(a, b, metric=metric)
    monkeypatch.setattr(to_orbit, "TREE_PAYS", 0)
    found = tt.to_orbit(a, b, metric=metric)
    assert found.settings["search"] == "tree"
    assert_array_equal(found.argmin, everything.argmin)  # on the lattice: the first of equals
    assert_allclose(found.distance, everything.distance, rtol=1e-14)
    assert_array_equal(found.excluded, everything.excluded)
    assert_array_equal(found.orbit_excluded, everything.orbit_excluded)
    if kind == "cycle":
        assert found.n_computed < 0.3 * len(a) * len(b)
    moved = tt.to_orbit(a[:, ::-1], b[:, ::-1], metric=metric)  # a tree splits other axes
    assert_array_equal(moved.argmin, found.argmin)


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_numbers_whose_squares_leave_the_range_take_no_tree(scale, monkeypatch):
    monkeypatch.setattr(to_orbit, "TREE_PAYS", 0)
    a, b = np.random.default_rng(6).normal(size=(2, 30, 3))
    found, plain = tt.to_orbit(scale * a, scale * b), tt.to_orbit(a, b)
    assert found.settings["search"] == "all distances"
    assert_array_equal(found.argmin, plain.argmin)
    assert_allclose(found.distance, scale * plain.distance, rtol=1e-12)


def test_the_search_of_a_tree_compiled_equals_interpreted():
    from trajtools._kernels import orbits
    from trajtools._kernels.neighbors import make_room
    from trajtools.neighbors.search import Strategy, build
    from trajtools.neighbors.states import States
    from trajtools.types import L1, L2, LINF

    a, b = np.random.default_rng(7).normal(size=(2, 20, 3))
    for code in (L1, L2, LINF):
        index = build(States(b, np.empty((0, 0)), "", code, np.ones(20, bool), 1, 0, 0), Strategy("tree", -1, ""))
        results = []
        for kernel in (orbits.tree_to_orbit, orbits.tree_to_orbit.py_func):
            gap, place = np.full(20, np.inf), np.full(20, -1)
            arrays = index.leaves, index.times, index.groups, code, make_room(3)
            kernel(a, np.ones(20, bool), 0, 20, *arrays, gap, place)
            results.append((gap, place))
        assert_allclose(results[0][0], results[1][0], rtol=1e-14)
        assert_array_equal(results[0][1], results[1][1])


def test_landmarks_are_given_up_where_they_rule_out_little(pruned):
    a, b = np.random.default_rng(2).normal(size=(2, 100, 50))
    found = tt.to_orbit(a, b)
    assert found.settings["search"] == "all distances"
    assert_array_equal(found.distance, tt.pairwise(a, y=b)[:].min(axis=1))


def test_a_metric_that_claims_no_triangle_is_not_pruned(pruned):
    a, b = cycles()
    assert tt.to_orbit(a, b, metric="cosine").settings["search"] == "all distances"
    assert tt.to_orbit(a, b, metric=lambda x, y: np.square(x - y).sum(axis=1)).settings["search"] == "all distances"


def test_of_equal_states_the_first_is_named(pruned, monkeypatch):
    orbit = np.tile(np.arange(20.0), 5)[:, None]
    for worth in (0, np.inf):
        monkeypatch.setattr(to_orbit, "WORTH", worth)
        found = tt.to_orbit(np.arange(20.0), orbit)
        assert_array_equal(found.argmin, np.arange(20))
        assert_array_equal(found.distance, 0)


def test_a_phase_lag_is_read_from_the_place():
    t = np.arange(400)
    orbit = np.stack([np.cos(0.05 * t), np.sin(0.05 * t)], axis=1)
    found = tt.to_orbit(orbit[5:105], orbit)
    assert_array_equal(found.argmin, np.arange(5, 105))
    assert_array_equal(found.distance, 0)


def test_files_threads_tiles_and_executors_change_no_bit(tmp_path, monkeypatch):
    a, b = (x.astype(np.float32) for x in cycles(count=150, size=1500))
    runs = []
    for name, x in (("a", a), ("b", b)):
        with Recorder(tmp_path / f"{name}.h5", {"w": x[0]}, quiet=True) as recorder:
            for row in x[1:]:
                recorder.record({"w": row})
        runs.append(tt.open(tmp_path / f"{name}.h5").trajectory())
    alone = tt.to_orbit(a, b)
    monkeypatch.setattr("trajtools.distances.tiles.threads", lambda: 3)
    found = [tt.to_orbit(*runs)]
    with ProcessPoolExecutor(1) as pool:
        found += [tt.to_orbit(*runs, executor=pool), tt.to_orbit(a, b, executor=pool)]
    monkeypatch.setattr(to_orbit, "WORTH", 0)
    monkeypatch.setattr(to_orbit, "SIDE", 16)
    found.append(tt.to_orbit(*runs))
    monkeypatch.setattr(tiles, "BUDGET", 500_000)
    found.append(tt.to_orbit(*runs))
    assert found[-1].settings["search"] == "landmarks"
    for each in found:
        assert_array_equal(each.distance, alone.distance)
        assert_array_equal(each.argmin, alone.argmin)


def test_states_that_are_not_finite_are_excluded_on_both_sides():
    a, b = np.random.default_rng(3).normal(size=(2, 6, 4))
    a[1, 0], b[2, 3], b[4] = np.nan, np.inf, np.nan
    found = tt.to_orbit(a, b)
    assert_array_equal(found.excluded, np.arange(6) == 1)
    assert_array_equal(found.orbit_excluded, np.isin(np.arange(6), [2, 4]))
    assert np.isnan(found.distance[1])
    assert found.argmin[1] == -1
    assert found.n_excluded == 1
    rest = [0, 1, 3, 5]
    whole, part = tt.to_orbit(a[[0, 2, 3]], b), tt.to_orbit(a[[0, 2, 3]], b[rest])
    assert_array_equal(whole.distance, part.distance)
    assert_array_equal(whole.argmin, np.array(rest)[part.argmin])
    assert len(found.warnings) == 2
    assert "1 of 6 states contain NaN" in found.warnings[0].text
    assert found.to_dict()["distance"][1] is None


def test_an_orbit_without_a_finite_state_is_refused_and_no_state_is_no_error():
    with pytest.raises(DataError, match="there is no nearest state"):
        tt.to_orbit(np.zeros((2, 3)), np.full((2, 3), np.nan))
    with pytest.raises(DataError, match="3 and 4 weights"):
        tt.to_orbit(np.zeros((2, 3)), np.zeros((2, 4)))
    assert tt.to_orbit(np.zeros((0, 3)), np.zeros((2, 3))).distance.shape == (0,)
    assert np.isnan(tt.to_orbit(np.full((2, 3), np.inf), np.zeros((2, 3))).distance).all()
