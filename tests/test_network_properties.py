"""What every metric on networks claims of itself, and that none crashes or makes something up."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import networks_drawn as networks
import numpy as np
import numpy.testing as npt
import pytest

import trajtools as tt
from trajtools.distances.graphs import DELTACON, STRUCTURAL
from trajtools.distances.metric import METRICS, bind_metric, find_metric
from trajtools.distances.permutation import SYMMETRIES
from trajtools.distances.spectral import QUANTUM, SCALE, SPECTRAL, SWITCH, UNITS
from trajtools.distances.symmetry import find_units
from trajtools.errors import DataError
from trajtools.wiring import describe

NAMES = tuple(metric.name for metric in (*SPECTRAL, *STRUCTURAL, DELTACON, QUANTUM, *SYMMETRIES))
QUOTIENTS = tuple(name for name in NAMES if name.startswith("permutation"))
KINDS = ("layers", "biases", "convolution", "loop")


def states(kind, count, seed=0):
    tables = networks.table(kind)
    return np.random.default_rng(seed).normal(size=(count, networks.size(tables[0]))), tables


def between(a, b, tables, name):
    return tt.distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=name)


def reordered(x, tables, rng, signs=False):
    """The same networks with the hidden units of all layers in another order, and other signs."""
    x = x.copy()
    for units in find_units(*tables).sets:
        order, sign = rng.permutation(units.size), rng.choice([-1.0, 1.0], units.size)
        if (order == np.arange(units.size)).all():
            order = order[::-1]
        for state in x:
            for use in units.uses:
                view = use.view(state)
                view[...] = view[order]
                if signs:
                    view *= sign.reshape(-1, *(1,) * (view.ndim - 1))
    return x


def test_the_issue_names_what_there_is():
    assert {*QUOTIENTS, "singular-values", "adjacency-spectrum", "laplacian-spectrum", "heat-trace"} <= set(NAMES)
    assert {"strengths", "netsimile", "deltacon", "quantum-jensen-shannon"} <= set(NAMES)
    assert len(QUOTIENTS) == 4
    assert all(METRICS[name].name == name and METRICS[name].bind is not None for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_metric_says_what_it_is(name):
    metric = METRICS[name]
    assert metric.kind in ("pseudo-metric", "divergence")
    assert metric.kind == ("divergence" if name in QUOTIENTS else "pseudo-metric")
    assert metric.symmetric
    assert metric.invariant_to
    assert metric.cost
    assert metric.description


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_distance_is_zero_on_itself_symmetric_and_not_zero_elsewhere(name, kind):
    x, tables = states(kind, 12)
    a, b = x[:6], x[6:]
    npt.assert_array_equal(between(a, a, tables, name), 0)
    found = between(a, b, tables, name)
    assert (found > 1e-3).all()
    npt.assert_allclose(between(b, a, tables, name), found, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in NAMES if METRICS[name].obeys_triangle])
def test_triangle_inequality_holds_where_it_is_claimed(name, kind):
    x, tables = states(kind, 90)
    near = x[:30] + 0.1 * x[30:60]
    for a, b, c in ((x[:30], x[30:60], x[60:]), (x[:30], near, x[60:]), (near, x[:30], 2 * near - x[:30])):
        direct = between(a, c, tables, name)
        assert (direct <= between(a, b, tables, name) + between(b, c, tables, name) + 1e-12).all()


@pytest.mark.parametrize("base", ["l1", "l2"])
def test_triangle_inequality_holds_for_the_true_minimum(base):
    # With one hidden layer the search is exact, and the minimum over a group of isometries is a pseudo-metric.
    x, tables = states("layers", 90)
    metric = tt.distances.permutation_metric(base=base)
    a, b, c = x.reshape(3, 30, -1)
    whole = between(a, b, tables, metric) + between(b, c, tables, metric)
    assert (between(a, c, tables, metric) <= whole + 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_1e_12_moves_no_distance_far(name, kind):
    x, tables = states(kind, 12, seed=1)
    a, b = x[:6], x[6:]
    moved = b + 1e-12 * np.random.default_rng(2).uniform(-1, 1, size=b.shape)
    assert np.abs(between(a, moved, tables, name) - between(a, b, tables, name)).max() < 1e-9
    assert between(b, moved, tables, name).max() < 1e-9


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("heat-trace", "quantum-jensen-shannon", "netsimile")])
def test_a_unit_that_dies_is_no_jump(name):
    # DeltaCon takes roots of influences, and so of the change of those that vanish: 1e-12 becomes 1e-6.
    x, tables = states("biases", 8, seed=3)
    for p_name, axis in (("W1", 1), ("b1", 0), ("W2", 0)):
        for state in x:
            np.moveaxis(networks.of_parameter(state, tables[0], p_name), axis, 0)[1] = 0.0
    moved = x + 1e-12 * np.random.default_rng(4).uniform(-1, 1, size=x.shape)
    assert between(x, moved, tables, name).max() < (1e-5 if name in ("deltacon", "permutation-scale") else 1e-9)
    assert np.isfinite(between(x, x[::-1].copy(), tables, name)).all()


@pytest.mark.parametrize("name", ["heat-trace", "quantum-jensen-shannon"])
def test_a_node_that_loses_its_last_weight_is_a_jump_where_that_is_said(name):
    x, tables = states("layers", 1)
    networks.of_parameter(x[0], tables[0], "W1")[0] = 0.0
    moved = x.copy()
    networks.of_parameter(moved[0], tables[0], "W1")[0] = 1e-12
    assert between(x, moved, tables, name)[0] > 0.01
    npt.assert_array_equal(between(x, x, tables, name), 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_distance_does_not_see_what_it_claims_not_to_see(name, kind):
    x, tables = states(kind, 10, seed=5)
    a, b = x[:5], x[5:]
    claims = METRICS[name].invariant_to
    rng, found = np.random.default_rng(6), between(a, b, tables, name)
    units = UNITS in claims or name in QUOTIENTS
    if units:
        other = between(a, reordered(b, tables, rng), tables, name)
        # The search is exact for one hidden layer; for more it may end elsewhere, but begins at every planted order.
        exact = name not in QUOTIENTS or len(find_units(*tables).sets) == 1
        if exact and kind != "loop":
            npt.assert_allclose(other, found, rtol=1e-9)
        npt.assert_allclose(between(a, reordered(a, tables, rng), tables, name), 0, atol=1e-12)
    else:
        assert (between(a, reordered(a, tables, rng), tables, name) > 1e-3).any()
        both = [reordered(y, tables, np.random.default_rng(7)) for y in (a, b)]
        npt.assert_allclose(between(*both, tables, name), found, rtol=1e-9)
    if SWITCH in claims:
        npt.assert_allclose(between(a, reordered(b, tables, rng, signs=True), tables, name), found, rtol=1e-9)
    if SCALE in claims:
        npt.assert_allclose(between(4 * a, b, tables, name), found, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_states_are_not_changed(name, dtype):
    x, tables = states("biases", 4)
    x = x.astype(dtype)
    before = x.copy()
    between(x[:2], x[2:], tables, name)
    x.flags.writeable = False
    between(x[:2], x[2:], tables, name)
    npt.assert_array_equal(x, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_weight_that_is_not_finite_is_nan_at_its_own_state_only(name, bad):
    x, tables = states("biases", 8)
    a, b = x[:4], x[4:]
    found = between(a, b, tables, name)
    b = b.copy()
    b[2, 5] = bad
    now = between(a, b, tables, name)
    npt.assert_array_equal(np.isnan(now), [False, False, True, False])
    npt.assert_allclose(now[[0, 1, 3]], found[[0, 1, 3]], rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_any_size_give_a_number_or_nan(name, scale):
    x, tables = states("biases", 4)
    found = between(scale * x[:2], scale * x[2:], tables, name)
    assert ((found >= 0) | np.isnan(found)).all()
    if name not in ("netsimile", "deltacon"):
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_weights_is_a_network(name):
    x, tables = states("biases", 2)
    zero = np.zeros_like(x)
    npt.assert_array_equal(between(zero, zero, tables, name), 0)
    assert np.isfinite(between(x, zero, tables, name)).all()


@pytest.mark.parametrize("name", NAMES)
def test_degenerate_networks_are_at_distance_zero_of_themselves(name):
    # Complete layers of equal weights, and layers cut in two components: every eigenvalue many times.
    tables = networks.table("biases")
    equal = np.full(networks.size(tables[0]), 0.25)
    cut = np.zeros_like(equal)
    for p, ones in (("W1", [(0, 0), (1, 1)]), ("W2", [(0, 0), (1, 1)]), ("W3", [(0, 0), (1, 1)])):
        for place in ones:
            networks.of_parameter(cut, tables[0], p)[place] = 1.0
    for state in (equal, cut):
        npt.assert_array_equal(between(state, state, tables, name), 0)
        assert np.isfinite(between(state, 2 * state, tables, name)).all()
    assert between(equal, cut, tables, name)[0] > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_edges_and_a_bare_array_are_refused_with_the_way_out(name):
    tables = describe({"scale": ((3,), "float64"), "alpha": ((2, 2, 2), "float64")})
    with pytest.raises(DataError, match=r"no parameter of this state is an edge|no hidden units"):
        between(np.ones((1, 11)), np.ones((1, 11)), tables, name)
    with pytest.raises(DataError, match="parameters"):
        tt.distance(np.ones((2, 11)), np.ones((2, 11)), metric=name)


@pytest.mark.parametrize("name", NAMES)
def test_all_pairs_are_the_pairs_one_by_one(name):
    x, tables = states("biases", 5)
    x[3, 0] = np.nan
    alone = [between(np.tile(x[i], (5, 1)), x, tables, name) for i in range(5)]
    if name in QUOTIENTS:
        # One after the other, a search begins where the last one ended; in tiles, which have no order, it does not.
        alone = [[between(x[i : i + 1], x[j : j + 1], tables, name)[0] for j in range(5)] for i in range(5)]
    npt.assert_allclose(tt.pairwise(networks.trajectory(x, tables), metric=name), alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_metric_travels_to_another_process(name):
    x, tables = states("biases", 4)
    there = pickle.loads(pickle.dumps(METRICS[name]))
    npt.assert_array_equal(between(x[:2], x[2:], tables, there), between(x[:2], x[2:], tables, name))
    bound = pickle.loads(pickle.dumps(bind_metric(there, networks.trajectory(x, tables))))
    assert bound.name == name


def test_a_metric_with_named_sets_works_for_all_pairs():
    x, tables = states("biases", 3)
    trajectory = networks.trajectory(x, tables)
    named = tt.pairwise(trajectory, metric=tt.distances.permutation_metric(signs=["W1", "W2"]))
    npt.assert_allclose(named, tt.pairwise(trajectory, metric="permutation-sign"))
    one = tt.pairwise(trajectory, metric=tt.distances.permutation_metric(signs="W1"))
    assert (np.asarray(one) >= np.asarray(named) - 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_company_do_not_change_a_distance(name):
    # Many pairs at once, and one by one: features are shared, numbers are the same.
    x, tables = states("biases", 6)
    metric = bind_metric(find_metric(name), networks.trajectory(x, tables))
    block = metric.described(x.reshape(2, 3, -1))
    left, right = np.array([0, 1, 2, 0]), np.array([1, 1, 0, 2])
    together = metric.pairs(block, block, left, right)
    for k, (i, j) in enumerate(zip(left, right, strict=True)):
        alone = metric.pairs(block[:, i : i + 1], block[:, j : j + 1], np.zeros(1, int), np.zeros(1, int))
        npt.assert_allclose(together[:, k], alone[:, 0], rtol=1e-12, atol=1e-15)
    npt.assert_array_equal(together[:, 1], 0)


def test_the_documentation_lists_every_metric_with_its_kind():
    page = (Path(__file__).parent.parent / "docs" / "distances.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.+?) \| ([\w-]+) \|", page, flags=re.MULTILINE)
    ours = [name for name in METRICS if METRICS.is_everywhere(METRICS[name])]
    assert sorted(name for name, _, _ in rows) == sorted(ours)
    assert {name: kind for name, _, kind in rows} == {name: METRICS[name].kind for name in ours}
