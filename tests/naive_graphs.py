"""Distances of networks, slow and obvious: edge by edge from a list, full matrices, every permutation tried.

Imports nothing of the package. A network is what `drawn` gives: the names of its nodes and its edges one by one.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy.linalg


def drawn(state, parameters, nodes):
    """Nodes (set, index) and edges (from, to, weight, name, position), one for every entry of an edge parameter."""
    labels = [(s.name, i) for s in nodes for i in range(s.size)]
    edges = []
    for p in parameters:
        if p.source is None:
            continue
        block = np.asarray(state)[p.offset : p.offset + p.size].reshape(p.shape)
        for index in itertools.product(*(range(n) for n in p.shape)):
            start = (p.source, 0 if p.source_axis < 0 else index[p.source_axis])
            end = (p.target, index[p.target_axis])
            rest = tuple(k for axis, k in enumerate(index) if axis not in (p.source_axis, p.target_axis))
            edges.append((start, end, float(block[index]), p.name, rest))
    return labels, edges


def matrix(graph):
    """Symmetric weights: both directions and all parallel edges added."""
    labels, edges = graph
    place = {label: i for i, label in enumerate(labels)}
    found = np.zeros((len(labels), len(labels)))
    for start, end, weight, _, _ in edges:
        found[place[start], place[end]] += weight
        found[place[end], place[start]] += weight
    return found


def laplacian(graph, normalized=False):
    weights = matrix(graph)
    size = len(weights)
    degree = [sum(abs(weights[i, j]) for j in range(size)) for i in range(size)]
    found = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            entry = (degree[i] if i == j else 0.0) - weights[i, j]
            if normalized:
                entry = entry / math.sqrt(degree[i] * degree[j]) if degree[i] * degree[j] > 0 else 0.0
            found[i, j] = entry
    return found


def eigenvalues(symmetric):
    """By the solver for matrices without any symmetry."""
    return np.sort(np.linalg.eigvals(symmetric).real)


def layer_singular_values(graph):
    edges = graph[1]
    found = []
    for name in dict.fromkeys(edge[3] for edge in edges):
        mine = [edge for edge in edges if edge[3] == name]
        rows = sorted({(edge[0], edge[4]) for edge in mine})
        columns = sorted({edge[1] for edge in mine})
        block = np.zeros((len(rows), len(columns)))
        for start, end, weight, _, position in mine:
            block[rows.index((start, position)), columns.index(end)] = weight
        gram = block.T @ block if len(columns) <= len(rows) else block @ block.T
        found += sorted(np.sqrt(np.maximum(0.0, np.linalg.eigvals(gram).real)), reverse=True)
    return np.array(found)


def root_sum_squares(x, y):
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))


def singular_values(a, b):
    return root_sum_squares(layer_singular_values(a), layer_singular_values(b))


def adjacency_spectrum(a, b):
    return root_sum_squares(eigenvalues(matrix(a)), eigenvalues(matrix(b)))


def laplacian_spectrum(a, b):
    return root_sum_squares(eigenvalues(laplacian(a)), eigenvalues(laplacian(b)))


def wasserstein(x, y):
    """Area between the two cumulative distributions."""
    grid = sorted([*x, *y])
    area = 0.0
    for low, high in itertools.pairwise(grid):
        area += (high - low) * abs(sum(v <= low for v in x) / len(x) - sum(v <= low for v in y) / len(y))
    return area


def adjacency_wasserstein(a, b):
    return wasserstein(eigenvalues(matrix(a)), eigenvalues(matrix(b)))


def laplacian_wasserstein(a, b):
    return wasserstein(eigenvalues(laplacian(a)), eigenvalues(laplacian(b)))


def heat_trace(a, b):
    times = [10 ** (-2 + 4 * k / 249) for k in range(250)]
    one, two = laplacian(a, normalized=True), laplacian(b, normalized=True)
    return root_sum_squares(*([np.trace(scipy.linalg.expm(-t * x)) for t in times] for x in (one, two)))


def deltacon(a, b):
    roots = []
    for graph in (a, b):
        weights = matrix(graph)
        degree = np.diag(np.abs(weights).sum(axis=1))
        epsilon = 1 / (1 + degree.max())
        influence = np.linalg.inv(np.eye(len(weights)) + epsilon**2 * degree - epsilon * weights)
        roots.append([math.copysign(math.sqrt(abs(s)), s) for s in influence.ravel()])
    return root_sum_squares(*roots)


def quantum_jensen_shannon(a, b):
    def entropy(rho):
        return -np.trace(rho @ scipy.linalg.logm(rho)).real

    densities = [scipy.linalg.expm(-laplacian(graph, normalized=True)) for graph in (a, b)]
    one, two = (density / np.trace(density) for density in densities)
    return math.sqrt(max(0.0, entropy((one + two) / 2) - (entropy(one) + entropy(two)) / 2))


def node_strengths(graph, absolute=False):
    labels, edges = graph
    incoming, outgoing = dict.fromkeys(labels, 0.0), dict.fromkeys(labels, 0.0)
    for start, end, weight, _, _ in edges:
        outgoing[start] += abs(weight) if absolute else weight
        incoming[end] += abs(weight) if absolute else weight
    return incoming, outgoing


def strengths(a, b, absolute=False):
    one, two = node_strengths(a, absolute), node_strengths(b, absolute)
    return sum(abs(x[node] - y[node]) for x, y in zip(one, two, strict=True) for node in x)


def absolute_strengths(a, b):
    return strengths(a, b, absolute=True)


def strength_distribution(a, b):
    total = 0.0
    for one, two in zip(node_strengths(a), node_strengths(b), strict=True):
        for name in dict.fromkeys(node[0] for node in one):
            total += wasserstein(*([x[node] for node in x if node[0] == name] for x in (one, two)))
    return total


def node_features(graph):
    labels, edges = graph
    found = [dict.fromkeys(labels, 0.0) for _ in range(10)]
    for start, end, weight, _, _ in edges:
        for row, value in ((0, weight), (2, abs(weight)), (4, weight**2)):
            found[row][end] += value
            found[row + 1][start] += value
    for start, end, weight, _, _ in edges:
        for row, value in ((6, weight), (8, abs(weight))):
            found[row][end] += value * found[row - 6][start]
            found[row + 1][start] += value * found[row - 5][end]
    for row in (4, 5):
        found[row] = {node: math.sqrt(value) for node, value in found[row].items()}
    return found


def l_moments(sample):
    """With the Legendre polynomials written out, at the middles of n equal parts of [-1, 1]."""
    n = len(sample)
    places = [(2 * i + 1 - n) / n for i in range(n)]
    polynomials = (lambda x: 1, lambda x: x, lambda x: (3 * x**2 - 1) / 2, lambda x: (5 * x**3 - 3 * x) / 2)
    return [sum(p(x) * s for x, s in zip(places, sorted(sample), strict=True)) / n for p in polynomials]


def netsimile(a, b):
    ratios = []
    for one, two in zip(node_features(a), node_features(b), strict=True):
        for name in dict.fromkeys(node[0] for node in one):
            x, y = (l_moments([v for node, v in side.items() if node[0] == name]) for side in (one, two))
            size = math.hypot(*x) + math.hypot(*y)
            ratios.append(math.hypot(*(p - q for p, q in zip(x, y, strict=True))) / size if size > 0 else 0.0)
    return sum(ratios) / len(ratios)


def permuted(graph, hidden, signs=False):
    """Every graph that differs in the order of the hidden units, and in their signs."""
    labels, edges = graph
    sets = {name: [node for node in labels if node[0] == name] for name in hidden}
    orders = itertools.product(*(itertools.permutations(group) for group in sets.values()))
    for order in orders:
        to = {
            old: new
            for group, chosen in zip(sets.values(), order, strict=True)
            for old, new in zip(group, chosen, strict=True)
        }
        units = [node for group in sets.values() for node in group]
        for flips in itertools.product((1.0, -1.0), repeat=len(units) if signs else 0):
            sign = dict(zip(units, flips, strict=False))
            yield {
                (to.get(s, s), to.get(e, e), name, position): weight * sign.get(s, 1.0) * sign.get(e, 1.0)
                for s, e, weight, name, position in edges
            }


def permutation(a, b, hidden, base="l2", signs=False):
    """Try every order."""
    here = {(s, e, name, position): weight for s, e, weight, name, position in a[1]}
    best = math.inf
    for there in permuted(b, hidden, signs):
        gaps = [abs(here[key] - there[key]) for key in here]
        best = min(best, sum(gaps) if base == "l1" else math.sqrt(sum(gap * gap for gap in gaps)))
    return best
