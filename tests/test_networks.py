"""One state as a network: hand-drawn graphs, and what must hold for all of them."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, strategies as st

from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.networks import STRENGTHS, Network
from trajtools.trajectory import Trajectory
from trajtools.wiring import NodeSet, Parameter, describe

IRIS = {"W1": (4, 10), "b1": (10,), "W2": (10, 3), "b2": (3,)}


def made(shapes: dict[str, tuple[int, ...]], state: object = None, **options: object) -> Network:
    parameters, nodes = describe({n: (s, "float64") for n, s in shapes.items()}, **options)
    size = sum(p.size for p in parameters)
    return Network(np.arange(1.0, size + 1) if state is None else state, parameters, nodes)


def drawn() -> Network:
    """Draw two inputs, two hidden units, one output: x0 -1-> h0, x0 -(-2)-> h1, x1 -3-> h0, x1 -0-> h1, ..."""
    return made(
        {"h.kernel": (2, 2), "h.bias": (2,), "y.kernel": (2, 1), "y.bias": (1,)},
        [1.0, -2.0, 3.0, 0.0, 0.5, -0.5, 4.0, -5.0, 7.0],
    )


def test_a_drawn_network_has_the_drawn_edges() -> None:
    network = drawn()
    assert network.labels == [("input", 0), ("input", 1), ("h", 0), ("h", 1), ("y", 0), ("bias", 0)]
    expected = np.zeros((6, 6))
    expected[0, 2:4] = [1.0, -2.0]
    expected[1, 2:4] = [3.0, 0.0]
    expected[5, 2:5] = [0.5, -0.5, 7.0]
    expected[2:4, 4] = [4.0, -5.0]
    npt.assert_array_equal(network.adjacency().toarray(), expected)
    assert network.adjacency().nnz == 9  # the weight zero is an edge


def test_a_drawn_network_has_the_drawn_strengths() -> None:
    network = drawn()
    cases = {
        "signed": ([0, 0, 4.5, -2.5, 6, 0], [-1, 3, 4, -5, 0, 7]),
        "absolute": ([0, 0, 4.5, 2.5, 16, 0], [3, 3, 4, 5, 0, 8]),
        "positive": ([0, 0, 4.5, 0, 11, 0], [1, 3, 4, 0, 0, 7.5]),
        "negative": ([0, 0, 0, -2.5, -5, 0], [-2, 0, 0, -5, 0, -0.5]),
    }
    assert set(cases) == set(STRENGTHS)
    for kind, (incoming, outgoing) in cases.items():
        found = network.strengths(kind)
        npt.assert_array_equal(found.incoming, incoming, err_msg=kind)
        npt.assert_array_equal(found.outgoing, outgoing, err_msg=kind)


def test_the_iris_network_is_packed_as_in_the_paper() -> None:
    # Danovski et al. put 4-10-3 into a 16 x 13 matrix: W1, its bias row, W2, its bias row.
    state = np.random.default_rng(1).standard_normal(83)
    network = made(IRIS, state)
    assert (network.n_nodes, network.n_edges) == (18, 83)
    assert [(n.name, n.size) for n in network.nodes] == [("input", 4), ("W1", 10), ("W2", 3), ("bias", 1)]
    blocks = network.blocks()
    packed = np.zeros((16, 13))
    packed[0:4, 0:10], packed[4, 0:10] = state[:40].reshape(4, 10), state[40:50]
    packed[5:15, 10:13], packed[15, 10:13] = state[50:80].reshape(10, 3), state[80:83]
    ours = np.zeros((16, 13))
    ours[:5, :10] = np.vstack([blocks["W1"], blocks["b1"]])
    ours[5:, 10:] = np.vstack([blocks["W2"], blocks["b2"]])
    npt.assert_array_equal(ours, packed)
    adjacency = network.adjacency().toarray()
    npt.assert_array_equal(adjacency[:4, 4:14], packed[0:4, 0:10])
    npt.assert_array_equal(adjacency[4:14, 14:17], packed[5:15, 10:13])
    npt.assert_array_equal(adjacency[17, 4:17], np.concatenate([packed[4, :10], packed[15, 10:]]))
    npt.assert_allclose(np.abs(adjacency).sum(), np.abs(packed).sum(), rtol=1e-14)


def test_torch_and_numpy_orientation_give_the_same_graph() -> None:
    rng = np.random.default_rng(2)
    w1, b1, w2, b2 = (rng.standard_normal(s) for s in [(4, 5), (5,), (5, 5), (5,)])
    ours = made(
        {"0.weight": (4, 5), "0.bias": (5,), "2.weight": (5, 5), "2.bias": (5,)},
        np.concatenate([w.ravel() for w in (w1, b1, w2, b2)]),
    )
    theirs = made(
        {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (5, 5), "2.bias": (5,)},
        np.concatenate([w.ravel() for w in (w1.T, b1, w2.T, b2)]),
        axes={"0.weight": (1, 0), "2.weight": (1, 0)},
    )
    npt.assert_array_equal(ours.adjacency().toarray(), theirs.adjacency().toarray())
    assert ours.labels == theirs.labels


def test_convolutions_connect_channels_with_parallel_edges() -> None:
    shapes = {"c1.kernel": (3, 3, 1, 2), "c1.bias": (2,), "c2.kernel": (1, 1, 2, 4), "fc.kernel": (16, 2)}
    network = made(shapes)
    assert [(n.name, n.size) for n in network.nodes] == [
        ("input", 1), ("c1", 2), ("c2", 4), ("fc:in", 16), ("fc", 2), ("bias", 1),
    ]  # fmt: skip
    kernel = np.arange(1.0, 19.0).reshape(3, 3, 1, 2)
    npt.assert_array_equal(network.blocks(positions=True)["c1.kernel"], kernel)
    npt.assert_array_equal(network.blocks()["c1.kernel"], kernel.sum(axis=(0, 1)))
    graph = network.to_networkx()
    weights = sorted(d["weight"] for d in graph.get_edge_data(("input", 0), ("c1", 1)).values())
    assert weights == kernel[..., 0, 1].ravel().tolist()
    assert graph.number_of_edges(("c1", 0), ("c2", 3)) == 1


def test_torch_convolutions_give_the_same_graph_as_jax_ones() -> None:
    kernel = np.random.default_rng(3).standard_normal((3, 3, 2, 5))
    hwio = made({"c.kernel": (3, 3, 2, 5)}, kernel.ravel())
    oihw = made({"c.weight": (5, 2, 3, 3)}, kernel.transpose(3, 2, 0, 1).ravel(), axes={"c.weight": (1, 0)})
    npt.assert_allclose(oihw.adjacency().toarray(), hwio.adjacency().toarray(), rtol=1e-14)
    for kind in STRENGTHS:
        npt.assert_allclose(oihw.strengths(kind).incoming, hwio.strengths(kind).incoming, rtol=1e-13)


def test_tied_weights_are_edges_once() -> None:
    # Encoder and decoder share one matrix: the state holds it once, and the graph has it once.
    network = made({"tied": (6, 3), "enc_b": (3,), "dec_b": (6,)}, wiring={"dec_b": ("bias", "input")})
    assert network.n_edges == 27
    assert network.strengths().incoming[network.labels.index(("input", 0))] == 22.0


def test_a_diverged_network_is_a_network_of_nan() -> None:
    network = made(IRIS, np.full(83, np.nan))
    assert np.isnan(network.adjacency().data).all()
    strengths = network.strengths("positive")
    assert np.isnan(strengths.incoming[4:17]).all()
    npt.assert_array_equal(strengths.incoming[[0, 1, 2, 3, 17]], 0.0)
    assert all(np.isnan(w) for _, _, w in network.to_networkx().edges(data="weight"))


def test_infinite_weights_of_both_signs_add_to_nan() -> None:
    network = made({"w": (2, 1)}, [np.inf, -np.inf])
    assert np.isnan(network.strengths().incoming[2])
    assert network.strengths("absolute").incoming[2] == np.inf
    assert np.isnan(made({"c": (2, 1, 1, 1)}, [np.inf, -np.inf]).adjacency().data).all()


def test_a_dead_unit_keeps_its_edges_and_has_no_strength() -> None:
    state = np.ones(83)
    state[[3, 13, 23, 33, 43]] = 0.0  # all that enters hidden unit 3
    network = made(IRIS, state)
    unit = network.labels.index(("W1", 3))
    assert network.strengths("absolute").incoming[unit] == 0.0
    assert network.strengths("absolute").outgoing[unit] == 3.0
    assert network.to_networkx().in_degree(("W1", 3)) == 5


def test_the_networkx_graph_names_layers_parameters_and_entries() -> None:
    network = drawn()
    graph = network.to_networkx()
    assert isinstance(graph, nx.MultiDiGraph)
    assert list(graph.nodes) == network.labels
    assert graph.nodes["h", 1] == {"layer": "h", "index": 1}
    assert graph.edges[("h", 1), ("y", 0), 0] == {"weight": -5.0, "parameter": "y.kernel", "entry": 7}
    adjacency = nx.to_scipy_sparse_array(graph, weight="weight")
    npt.assert_array_equal(adjacency.toarray(), network.adjacency().toarray())


def test_a_network_too_large_for_networkx_names_the_way_out() -> None:
    with pytest.raises(TooLargeError, match=r"83 edges.*max_edges=82.*select.*'W1' with 40.*adjacency\(\)"):
        made(IRIS).to_networkx(max_edges=82)
    assert made(IRIS).to_networkx(max_edges=83).number_of_edges() == 83


def test_a_trajectory_gives_the_network_of_a_state_and_of_a_selection() -> None:
    parameters, nodes = describe({n: (s, "float64") for n, s in IRIS.items()})
    states = np.random.default_rng(4).standard_normal((5, 83))
    x = Trajectory.from_array(states, parameters=parameters, nodes=nodes)
    assert x.network(2).edges[("W1", 0), ("W2", 0), 0]["weight"] == states[2, 50]
    part = x.select("W2").network(-1)
    assert part.number_of_edges() == 30
    assert part.edges[("W1", 0), ("W2", 0), 0]["weight"] == states[4, 50]
    with pytest.raises(TooLargeError, match="max_edges=10"):
        x.network(0, max_edges=10)


def test_what_does_not_fit_together_is_refused() -> None:
    parameters, nodes = describe({n: (s, "float64") for n, s in IRIS.items()})
    with pytest.raises(DataError, match=r"shape \(83,\); this one has \(82,\)"):
        Network(np.zeros(82), parameters, nodes)
    with pytest.raises(DataError, match=r"'W1' needs a node set 'W1' of 10 nodes; the table has 'input' \(4\)"):
        Network(np.zeros(83), parameters, (NodeSet("input", 4), NodeSet("W1", 9)))
    with pytest.raises(DataError, match=r"no parameter of this state is an edge.*wiring="):
        Network([1.0], (Parameter("scale", "norm", (1,), "float64", 0, 1),), ())
    with pytest.raises(DataError, match="'w' ends at 'y', but none of its axes"):
        Network([1.0], (Parameter("w", "dense", (1,), "float64", 0, 1, "x", "y"),), (NodeSet("x", 1), NodeSet("y", 1)))
    with pytest.raises(UnknownNameError, match="no strength 'in'; there are signed, absolute"):
        made(IRIS).strengths("in")


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (source, target) in enumerate(pairwise(widths)):
        kernel = draw(st.sampled_from([(), (2, 1), (3, 2)]))
        shapes[f"l{i}.kernel"] = (*kernel, source, target)
        if draw(st.booleans()):
            shapes[f"l{i}.bias"] = (target,)
    seed = draw(st.integers(0, 2**32 - 1))
    size = sum(int(np.prod(s)) for s in shapes.values())
    return made(shapes, np.random.default_rng(seed).standard_normal(size))


@given(networks())
def test_strengths_add_up_to_the_weights(network: Network) -> None:
    weights = np.concatenate([b.ravel() for b in network.blocks(positions=True).values()])
    sums = {
        "signed": weights.sum(),
        "absolute": np.abs(weights).sum(),
        "positive": weights[weights > 0].sum(),
        "negative": weights[weights < 0].sum(),
    }
    for kind, expected in sums.items():
        found = network.strengths(kind)
        npt.assert_allclose(found.incoming.sum(), expected, rtol=1e-12, atol=1e-12)
        npt.assert_allclose(found.outgoing.sum(), expected, rtol=1e-12, atol=1e-12)
    adjacency = network.adjacency()
    npt.assert_allclose(network.strengths().incoming, adjacency.sum(axis=0), rtol=1e-12, atol=1e-12)
    npt.assert_allclose(network.strengths().outgoing, adjacency.sum(axis=1), rtol=1e-12, atol=1e-12)


@given(networks())
def test_every_entry_of_an_edge_parameter_is_one_edge(network: Network) -> None:
    graph = network.to_networkx()
    assert network.n_edges == sum(p.size for p in network.edge_parameters) == graph.number_of_edges()
    assert network.n_nodes == sum(n.size for n in network.nodes) == graph.number_of_nodes()
    assert sorted(e for _, _, e in graph.edges(data="entry")) == list(range(network.n_edges))
