"""What every entrywise metric claims of itself, and what each part of a network contributes to a distance."""

from __future__ import annotations

import pickle

import naive_distances as naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from trajtools.distances.entrywise import ENTRYWISE
from trajtools.distances.metric import METRICS, bind_metric, find_metric
from trajtools.distances.tiles import Which
from trajtools.errors import DataError, UnknownNameError
from trajtools.wiring import describe

NAMES = tuple(metric.name for metric in ENTRYWISE)
NORMS = ("l1", "l2", "linf", "rms")
SHAPES = {"a.weight": ((3, 4), "float64"), "a.bias": ((4,), "float64"), "n.scale": ((4,), "float64")}
TABLE, NODES = describe(SHAPES, kinds={"n.scale": "norm"})
SIZE = 20


def network(x):
    return tt.Trajectory.from_array(x, parameters=TABLE, nodes=NODES)


def between(a, b, metric):
    return tt.distance(network(a), network(b), metric=metric)


def drawn(seed, count=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, count, SIZE)) * 10.0 ** rng.integers(-3, 4, (3, count, 1))
    x[rng.random(x.shape) < 0.2] = 0.0
    return x


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_says_what_it_is(name):
    metric = METRICS[name]
    assert metric.kind in ("metric", "pseudo-metric", "divergence")
    assert metric.symmetric is True
    assert metric.invariant_to
    assert metric.cost
    assert metric.description


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_what_is_claimed_holds(name, seed):
    a, b, c = drawn(seed)
    metric = METRICS[name]
    ab, ba, bc, ac = (between(*pair, name)[0] for pair in ((a, b), (b, a), (b, c), (a, c)))
    assert between(a, a, name)[0] == 0
    assert ab == ba
    assert ab >= 0
    if metric.obeys_triangle:
        assert ac <= (ab + bc) * (1 + 1e-12)
    if metric.kind == "metric":
        assert ab > 0


@pytest.mark.parametrize("name", [n for n in NAMES if n != "sign"])
def test_a_perturbation_of_1e_12_moves_the_distance_by_little(name):
    a, b, _ = np.random.default_rng(0).normal(size=(3, 50, SIZE))
    moved = a + 1e-12 * np.random.default_rng(1).uniform(-1, 1, a.shape)
    assert np.abs(between(moved, b, name) - between(a, b, name)).max() < 1e-10
    assert between(a, moved, name).max() < 1e-10
    assert between(a, moved, name).min() > 0


def test_signs_jump_where_a_weight_crosses_zero_and_nowhere_else():
    a = np.ones((1, SIZE))
    b = a.copy()
    b[0, 3] = 1e-300
    assert between(a, b, "sign")[0] == 0
    b[0, 3] = -1e-300
    assert between(a, b, "sign")[0] == 1 / SIZE
    b[0, 3] = 0.0
    assert between(a, b, "sign")[0] == 1 / SIZE


def test_metrics_are_invariant_to_what_they_say():
    rng = np.random.default_rng(2)
    a, b, _ = rng.normal(size=(3, 30, SIZE))
    order = rng.permutation(SIZE)
    turn = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    for name in NORMS:
        assert_allclose(between(a + 3, b + 3, name), between(a, b, name), rtol=1e-12)
        assert_allclose(between(a[:, order], b[:, order], name), between(a, b, name), rtol=1e-13)
    for name in ("relative", "cosine"):
        assert_allclose(between(7 * a, 7 * b, name), between(a, b, name), rtol=1e-12)
        assert_allclose(between(a @ turn, b @ turn, name), between(a, b, name), rtol=1e-12)
    assert_allclose(between(3 * a, 0.1 * b, "cosine"), between(a, b, "cosine"), rtol=1e-12)
    assert_array_equal(between(a * rng.uniform(0.1, 9, a.shape), b, "sign"), between(a, b, "sign"))
    other = b.copy()
    other[:, 16:] += 5  # the scale of the norm is no edge
    assert_array_equal(between(a, other, "graph-l1"), between(a, b, "graph-l1"))


@pytest.mark.parametrize("name", ["relative", "cosine", "sign"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_distance_is_that_of_the_definition(name, dtype):
    x = np.random.default_rng(3).normal(size=(2, 9, 13)).astype(dtype)
    truth = [naive.distance(a, b, name) for a, b in zip(*x, strict=True)]
    assert_allclose(tt.distance(*x, metric=name), truth, rtol=1e-12)


def test_the_graph_distance_is_the_published_one():
    a, b, _ = np.random.default_rng(4).normal(size=(3, 5, SIZE))
    nodes = sum(each.size for each in NODES)
    edges = [k for p in TABLE if p.source is not None for k in range(p.offset, p.offset + p.size)]
    assert len(edges) == 16
    truth = [naive.edges_l1(x, y, edges, nodes) for x, y in zip(a, b, strict=True)]
    assert_allclose(between(a, b, "graph-l1"), truth, rtol=1e-13)
    assert_allclose(np.diagonal(tt.pairwise(network(a), y=network(b), metric="graph-l1")[:]), truth, rtol=1e-13)


def test_one_edge_more_is_one_pair_of_nodes():
    """Of binary graphs with both directions listed it is the part of the pairs of nodes that differ."""
    table, nodes = describe({"w": ((2, 2), "float64")}, wiring={"w": ("left", "right")})
    a = tt.Trajectory.from_array(np.zeros((1, 4)), parameters=table, nodes=nodes)
    b = tt.Trajectory.from_array(np.array([[0.0, 1.0, 0.0, 0.0]]), parameters=table, nodes=nodes)
    assert tt.distance(a, b, metric="graph-l1")[0] == 1 / 12


def test_a_network_without_edges_or_without_wiring_is_refused():
    table, nodes = describe({"scale": ((4,), "float64")}, kinds={"scale": "norm"})
    bare = tt.Trajectory.from_array(np.zeros((1, 4)), parameters=table, nodes=nodes)
    with pytest.raises(DataError, match="0 parameters that are edges"):
        tt.distance(bare, bare, metric="graph-l1")
    with pytest.raises(DataError, match="an array has none"):
        tt.distance(np.zeros((1, 4)), np.zeros((1, 4)), metric="graph-l1")
    other = tt.Trajectory.from_array(np.zeros((1, 4)), parameters=[tt.wiring.Parameter("q", "other", (4,), "f8", 0, 4)])
    with pytest.raises(DataError, match="different wiring"):
        bind_metric(find_metric("graph-l1"), bare, other)


def test_a_metric_travels_by_name_and_finds_its_wiring():
    x = network(np.zeros((1, SIZE)))
    which = pickle.loads(pickle.dumps(Which.of(METRICS["graph-l1"], x)))
    assert which.metric == "graph-l1"
    assert which.resolve().sums is not None
    assert Which.of(METRICS["l1"], x).parameters == ()


@pytest.mark.parametrize("name", ["relative", "cosine", "sign"])
def test_nan_in_a_weight_is_nan_in_its_distance_only(name):
    a, b, _ = np.random.default_rng(5).normal(size=(3, 6, SIZE))
    a[2, 4] = np.nan
    assert_array_equal(np.isnan(tt.distance(a, b, metric=name)), np.arange(6) == 2)


def test_growth_of_twins_is_measured_in_every_metric():
    t = np.arange(60.0)[:, None]
    reference = np.ones((60, SIZE)) + np.arange(SIZE)
    twin = reference + 1e-9 * np.exp(0.2 * t) * np.linspace(-1, 1, SIZE)
    for name in ("relative", "graph-l1"):
        growth = tt.twins((network(reference), [network(twin)]), metric=name)
        assert_allclose(np.diff(growth.log_distance), 0.2, atol=1e-3)


# ------------------------------------------------------------------------------------------------------ contributions


@pytest.mark.parametrize("per", ["layer", "parameter", "kind"])
@pytest.mark.parametrize("metric", ["l1", "l2", "linf", "rms", "sign"])
def test_contributions_are_distances_of_the_parts(metric, per, monkeypatch):
    a, b, _ = np.random.default_rng(6).normal(size=(3, 9, SIZE))
    monkeypatch.setattr("trajtools.distances.equal_times.BLOCK_BYTES", 1000)
    found = tt.distances.contributions(network(a), network(b), metric=metric, per=per)
    expected = {
        "layer": {"a": slice(0, 16), "n": slice(16, 20)},
        "parameter": {"a.weight": slice(0, 12), "a.bias": slice(12, 16), "n.scale": slice(16, 20)},
        "kind": {"dense": slice(0, 12), "bias": slice(12, 16), "norm": slice(16, 20)},
    }[per]
    assert found.names == tuple(expected)
    for k, part in enumerate(expected.values()):
        assert_allclose(found.distance[:, k], tt.distance(a[:, part], b[:, part], metric=metric), rtol=1e-13)
        assert found.sizes[k] == part.stop - part.start
    assert_allclose(found.whole, tt.distance(a, b, metric=metric), rtol=1e-13)
    if metric == "linf":
        assert np.isnan(found.share).all()
        assert_array_equal(found.whole, found.distance.max(axis=1))
    else:
        assert_allclose(found.share.sum(axis=1), 1, rtol=1e-13)


def test_contributions_of_l1_and_of_squared_l2_add_up():
    a, b, _ = np.random.default_rng(7).normal(size=(3, 9, SIZE))
    l1, l2 = (tt.distances.contributions(network(a), b, metric=metric) for metric in ("l1", "l2"))
    assert_allclose(l1.distance.sum(axis=1), tt.distance(a, b), rtol=1e-13)
    assert_allclose((l2.distance**2).sum(axis=1), tt.distance(a, b, metric="l2") ** 2, rtol=1e-13)
    assert_allclose(l1.share, l1.distance / l1.whole[:, None], rtol=1e-14)


def test_equal_states_have_no_shares_and_nan_stays_in_its_row():
    a = np.random.default_rng(8).normal(size=(3, SIZE))
    b = a.copy()
    b[1, 0] = np.nan
    found = tt.distances.contributions(network(a), network(b))
    assert np.isnan(found.share).all()
    assert_array_equal(found.distance[0], 0)
    assert_array_equal(np.isnan(found.distance[1]), [True, False])
    assert found.to_dict()["names"] == ["a", "n"]


def test_contributions_of_what_has_no_parts_are_refused():
    x = network(np.zeros((2, SIZE)))
    with pytest.raises(DataError, match="no table of parameters"):
        tt.distances.contributions(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(DataError, match="does not merge over parts"):
        tt.distances.contributions(x, x, metric="cosine")
    with pytest.raises(UnknownNameError, match="layer, parameter, kind"):
        tt.distances.contributions(x, x, per="neuron")
