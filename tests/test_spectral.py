"""Spectra of networks against full matrices and known spectra; what they are blind to."""

from __future__ import annotations

import naive_graphs as naive
import networks_drawn as networks
import numpy as np
import numpy.testing as npt
import pytest

from trajtools.distances.equal_times import distance
from trajtools.distances.graphs import Skeleton
from trajtools.distances.metric import METRICS
from trajtools.distances.spectral import AdjacencySpectrum, HeatTrace, LaplacianSpectrum, SingularValues, heat_trace
from trajtools.errors import DataError, TooLargeError
from trajtools.wiring import describe

NAMES = (
    "singular-values",
    "adjacency-spectrum",
    "laplacian-spectrum",
    "adjacency-wasserstein",
    "laplacian-wasserstein",
    "heat-trace",
)


@pytest.mark.filterwarnings("ignore::trajtools.errors.InputWarning")  # of weights that are no edges
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", networks.SHAPES)
def test_distance_is_that_of_full_matrices(name, kind):
    tables = networks.table(kind)
    a, b = np.random.default_rng(1).normal(size=(2, networks.size(tables[0])))
    graphs = [naive.drawn(state, *tables) for state in (a, b)]
    expected = getattr(naive, name.replace("-", "_"))(*graphs)
    found = distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=name)
    # The naive singular values are roots of eigenvalues: their zeros are only good to 1e-8.
    npt.assert_allclose(found, [expected], rtol=1e-7 if name == "singular-values" else 1e-9)


def test_two_layers_of_equal_weights_have_the_spectrum_that_is_known():
    # All 3 x 4 and 4 x 2 weights are w: the even nodes (5) and the odd ones (4) are a complete bipartite graph, whose
    # eigenvalues are +-w sqrt(20) and zeros, and whose Laplacian has 0, 9 w, 4 w (4 times) and 5 w (3 times).
    tables = networks.table("layers")
    skeleton, w = Skeleton(*tables), 0.5
    state = np.full(20, w)
    root = w * np.sqrt(20)
    npt.assert_allclose(AdjacencySpectrum(skeleton)(state), [-root, *[0] * 7, root], atol=1e-14)
    npt.assert_allclose(LaplacianSpectrum(skeleton)(state), [0, *[4 * w] * 4, *[5 * w] * 3, 9 * w], atol=1e-14)
    npt.assert_allclose(SingularValues(skeleton)(state), [w * np.sqrt(12), 0, 0, w * np.sqrt(8), 0], atol=1e-14)
    npt.assert_allclose(HeatTrace(skeleton).eigenvalues(state), [0, *[1] * 7, 2], atol=1e-14)


def test_signed_laplacian_of_a_balanced_network_is_that_of_its_absolute_weights():
    # Signs that come from two camps of nodes change no eigenvalue; one edge of the wrong sign lifts the lowest one.
    tables = networks.table("layers")
    rng = np.random.default_rng(2)
    state = np.abs(rng.normal(size=20)) + 0.1
    camps = rng.choice([-1.0, 1.0], size=9)
    signs = np.concatenate([np.outer(camps[:3], camps[3:7]).ravel(), np.outer(camps[3:7], camps[7:]).ravel()])
    spectrum = LaplacianSpectrum(Skeleton(*tables))
    npt.assert_allclose(spectrum(signs * state), spectrum(state), atol=1e-13)
    assert abs(spectrum(state)[0]) < 1e-14
    wrong = signs * state
    wrong[0] *= -1
    assert spectrum(wrong)[0] > 1e-3


def test_heat_trace_counts_a_node_without_weights_as_a_component():
    tables = networks.table("biases")
    state = np.random.default_rng(3).normal(size=networks.size(tables[0]))
    dead = state.copy()
    for name, axis in (("W1", 1), ("b1", 0), ("W2", 0)):
        np.moveaxis(networks.of_parameter(dead, tables[0], name), axis, 0)[2] = 0.0
    graphs = [naive.drawn(x, *tables) for x in (state, dead)]
    found = distance(networks.trajectory(state, tables), networks.trajectory(dead, tables), metric="heat-trace")
    npt.assert_allclose(found, [naive.heat_trace(*graphs)], rtol=1e-10)
    layers = networks.table("layers")
    one = np.random.default_rng(4).normal(size=20)
    one[[0, 1, 2, 3]] = 0.0  # the first input of a bipartite network sends nothing
    values = HeatTrace(Skeleton(*layers)).eigenvalues(one)
    npt.assert_allclose(values, naive.eigenvalues(naive.laplacian(naive.drawn(one, *layers), True)), atol=1e-13)


def test_singular_values_keep_digits_that_a_gram_matrix_loses():
    # Twins whose smallest singular values are 1e-9 apart: squared, they are 1e-18, and lost beside 1.
    tables = describe({"W1": ((6, 6), "float64"), "W2": ((6, 2), "float64")})
    rng = np.random.default_rng(5)
    left, right = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    states = []
    for smallest in (1e-9, 3e-9):
        block = left @ np.diag([1, 0.9, 0.8, 0.7, 0.6, smallest]) @ right
        states.append(np.concatenate([block.ravel(), np.zeros(12)]))
    found = distance(*(networks.trajectory(x, tables) for x in states), metric="singular-values")
    npt.assert_allclose(found, [2e-9], rtol=1e-5)


@pytest.mark.parametrize("name", ["adjacency-spectrum", "singular-values", "laplacian-spectrum"])
def test_spectra_are_no_farther_than_the_matrices(name):
    # Hoffman and Wielandt, Mirsky: sorted spectra differ by at most the Frobenius norm of the difference.
    tables = networks.table("biases")
    rng = np.random.default_rng(6)
    for scale in (1e-6, 1.0):
        a = rng.normal(size=(20, networks.size(tables[0])))
        b = a + scale * rng.normal(size=a.shape)
        found = distance(networks.trajectory(a, tables), networks.trajectory(b, tables), metric=name)
        for d, x, y in zip(found, a, b, strict=True):
            one, two = (naive.drawn(z, *tables) for z in (x, y))
            of = naive.laplacian if name == "laplacian-spectrum" else naive.matrix
            bound = np.linalg.norm(of(one) - of(two)) if name != "singular-values" else np.linalg.norm(x - y)
            assert d <= bound * (1 + 1e-9) + 1e-14


def test_a_layer_is_half_the_size_only_where_no_biases_join_the_layers():
    first, second, bipartite = Skeleton(*networks.table("layers")).sides
    assert bipartite
    assert (first.tolist(), second.tolist()) == ([0, 1, 2, 7, 8], [3, 4, 5, 6])
    first, second, bipartite = Skeleton(*networks.table("biases")).sides
    assert not bipartite
    assert sorted([*first, *second]) == list(range(13))
    tables = networks.table("biases")
    weights = naive.matrix(naive.drawn(np.ones(networks.size(tables[0])), *tables))
    assert not weights[np.ix_(first, first)].any()


def test_times_of_the_heat_trace_are_positive_numbers():
    for times in ([], [0.0, 1.0], [-1.0], [np.inf], 3.0):
        with pytest.raises(DataError, match="positive numbers"):
            heat_trace(times)
    tables = networks.table("layers")
    a, b = (networks.trajectory(x, tables) for x in np.random.default_rng(7).normal(size=(2, 20)))
    npt.assert_allclose(distance(a, b, metric=heat_trace([1e-12])), [0.0], atol=1e-10)
    assert distance(a, b, metric=heat_trace([1.0]))[0] > 1e-3
    assert METRICS["heat-trace"].bind is not None


def test_a_network_too_large_for_a_dense_matrix_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("trajtools.distances.graphs.MAX_NODES", 8)
    x = networks.trajectory(np.ones(20), networks.table("layers"))
    with pytest.raises(TooLargeError, match="select layers first"):
        distance(x, x, metric="adjacency-spectrum")
    assert distance(x, x, metric="singular-values")[0] == 0
