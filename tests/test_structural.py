"""Strengths, NetSimile's summaries, DeltaCon and quantum Jensen-Shannon against definitions taken edge by edge."""

from __future__ import annotations

import naive_graphs as naive
import networks_drawn as networks
import networkx as nx
import numpy as np
import numpy.testing as npt
import pytest

from trajtools.distances.equal_times import distance
from trajtools.distances.graphs import Influence, Skeleton
from trajtools.distances.spectral import DensityMatrix, quantum_jensen_shannon, root_divergence
from trajtools.errors import DataError
from trajtools.networks import Network
from trajtools.wiring import describe

NAMES = (
    "strengths",
    "absolute-strengths",
    "strength-distribution",
    "netsimile",
    "deltacon",
    "quantum-jensen-shannon",
)


@pytest.mark.filterwarnings("ignore::trajtools.errors.InputWarning")  # of weights that are no edges
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", networks.SHAPES)
def test_distance_is_that_of_the_definition(name, kind):
    tables = networks.table(kind)
    a, b = np.random.default_rng(1).normal(size=(2, networks.size(tables[0])))
    expected = getattr(naive, name.replace("-", "_"))(*(naive.drawn(state, *tables) for state in (a, b)))
    found = distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=name)
    npt.assert_allclose(found, [expected], rtol=1e-9)


def test_strengths_are_those_of_the_network():
    tables = networks.table("biases")
    a, b = np.random.default_rng(2).normal(size=(2, networks.size(tables[0])))
    for name, kind in (("strengths", "signed"), ("absolute-strengths", "absolute")):
        one, two = (Network(x, *tables).strengths(kind) for x in (a, b))
        expected = np.abs(one.incoming - two.incoming).sum() + np.abs(one.outgoing - two.outgoing).sum()
        found = distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=name)
        npt.assert_allclose(found, [expected], rtol=1e-13)


def test_strengths_tell_signs_and_directions_apart():
    # Two networks of equal absolute weights, and two that differ in which end of the edges is strong.
    tables = describe({"W": ((2, 2), "float64")})
    plain, negative = np.ones(4), np.array([1.0, 1.0, -1.0, -1.0])
    rows, columns = np.array([2.0, 2.0, 0.0, 0.0]), np.array([2.0, 0.0, 2.0, 0.0])

    def apart(a, b, name):
        return distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=name)[0]

    assert apart(plain, negative, "absolute-strengths") == 0
    assert apart(plain, negative, "strengths") == 8
    assert apart(rows, columns, "strengths") == 8
    assert apart(rows, columns, "strength-distribution") == 4


def test_deltacon_of_graphs_without_signs_is_the_published_one():
    # Koutra, Vogelstein, Faloutsos (2013), with networkx' matrices, on graphs of weights 0 and 1.
    tables = describe({"W1": ((3, 4), "float64"), "W2": ((4, 3), "float64")})
    a, b = (np.random.default_rng(3).random((2, 24)) < 0.6).astype(float)
    roots = []
    for state in (a, b):
        graph = nx.Graph(Network(state, *tables).to_networkx())
        graph.remove_edges_from([(i, j) for i, j, w in graph.edges(data="weight") if w == 0])
        adjacency = nx.to_numpy_array(graph, nodelist=Network(state, *tables).labels, weight=None)
        degree = np.diag(adjacency.sum(axis=1))
        epsilon = 1 / (1 + degree.max())
        roots.append(np.sqrt(np.linalg.inv(np.eye(10) + epsilon**2 * degree - epsilon * adjacency)))
    found = distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric="deltacon")
    npt.assert_allclose(found, [np.linalg.norm(roots[0] - roots[1])], rtol=1e-12)


@pytest.mark.filterwarnings("ignore::trajtools.errors.InputWarning")  # of weights that are no edges
def test_influence_of_signed_weights_is_defined_and_follows_the_sign_of_the_path():
    # One path of three nodes, weights + and -: the ends influence each other negatively.
    tables = describe({"W1": ((1, 1), "float64"), "W2": ((1, 1), "float64")})
    skeleton = Skeleton(*tables)
    first, second, _ = skeleton.sides
    order = np.argsort(np.concatenate([first, second]))
    influence = Influence(skeleton)(np.array([2.0, -3.0])).reshape(3, 3)[np.ix_(order, order)]
    npt.assert_array_equal(np.sign(influence), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    rng = np.random.default_rng(4)
    for kind in networks.SHAPES:
        tables = networks.table(kind)
        for scale in (1e-3, 1.0, 1e3):
            assert np.isfinite(Influence(Skeleton(*tables))(scale * rng.normal(size=networks.size(tables[0])))).all()


def test_close_networks_have_a_quantum_distance_in_proportion():
    # The entropies cancel: computed as it is written, a change of 1e-9 would drown in rounding.
    tables = networks.table("biases")
    rng = np.random.default_rng(5)
    state, direction = rng.normal(size=(2, networks.size(tables[0])))
    sizes = 10.0 ** -np.arange(2, 12)
    moved = state + sizes[:, None] * direction
    found = distance(
        networks.trajectory(np.tile(state, (10, 1)), tables), networks.trajectory(moved, tables), metric=NAMES[-1]
    )
    npt.assert_allclose(found / sizes, found[3] / sizes[3], rtol=0.02)


def test_both_forms_of_the_quantum_distance_agree_where_they_meet(monkeypatch):
    tables = networks.table("biases")
    rng = np.random.default_rng(6)
    density = DensityMatrix(Skeleton(*tables), beta=1.0)
    state, direction = rng.normal(size=(2, networks.size(tables[0])))
    one, two = density(state), density(state + 0.01 * direction)
    direct = root_divergence(one, two)
    assert 1e-6 < direct**2 < 1e-3
    monkeypatch.setattr("trajtools.distances.spectral.CLOSE", 1.0)
    npt.assert_allclose(root_divergence(one, two), direct, rtol=1e-4)


def test_quantum_distance_of_disjoint_states_is_the_largest():
    # Density matrices of two pure states at right angles: one bit, in nats.
    one, two = (np.append(np.diag(v).ravel(), 0.0) for v in ([1.0, 0.0], [0.0, 1.0]))
    npt.assert_allclose(root_divergence(one, two), np.sqrt(np.log(2)), rtol=1e-14)


def test_beta_is_bounded():
    for beta in (0.0, -1.0, 11.0, np.nan, True):
        with pytest.raises(DataError, match=r"\(0, 10\]"):
            quantum_jensen_shannon(beta)


def test_netsimile_is_between_zero_and_one_and_knows_no_scale():
    tables = networks.table("biases")
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 30, networks.size(tables[0])))
    found = distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric="netsimile")
    assert ((found > 0) & (found < 1)).all()
    scaled = distance(networks.trajectory(8 * a, tables), networks.trajectory(8 * b, tables), metric="netsimile")
    npt.assert_allclose(scaled, found, rtol=1e-13)
