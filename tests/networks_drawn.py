"""Small networks for the tests of network metrics: tables, random states, hidden units in another order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from trajtools.trajectory import Trajectory
from trajtools.wiring import describe

SHAPES = {
    "layers": {"W1": (3, 4), "W2": (4, 2)},  # bipartite
    "biases": {"W1": (3, 4), "b1": (4,), "W2": (4, 3), "b2": (3,), "W3": (3, 2), "b3": (2,)},
    "convolution": {
        "c1.weight": (3, 2, 2, 2),
        "c1.bias": (3,),
        "c2.weight": (2, 3, 2, 1),
        "c2.bias": (2,),
        "fc.weight": (2, 8),
        "fc.bias": (2,),
    },
    "loop": {"weight_ih": (3, 2), "weight_hh": (3, 3), "bias_ih": (3,), "out.weight": (2, 3)},
    "normalised": {"l1.weight": (4, 3), "l1.bias": (4,), "norm.weight": (4,), "norm.bias": (4,), "l2.weight": (2, 4)},
}


def table(kind):
    return describe({name: (shape, "float64") for name, shape in SHAPES[kind].items()})


def mlp(*sizes, bias=True):
    """Tables of a multilayer perceptron, kernels (out, in) as torch has them."""
    shapes = {}
    for i, (before, after) in enumerate(pairwise(sizes)):
        shapes[f"{i}.weight"] = ((after, before), "float64")
        if bias:
            shapes[f"{i}.bias"] = ((after,), "float64")
    axes = {name: (1, 0) for name in shapes if name.endswith("weight")}
    return describe(shapes, axes=axes)


def size(parameters):
    return sum(p.size for p in parameters)


def trajectory(states, tables):
    parameters, nodes = tables
    return Trajectory.from_array(np.atleast_2d(states), parameters=parameters, nodes=nodes)


def of_parameter(state, parameters, name):
    """View of one parameter of a state (P,)."""
    p = next(p for p in parameters if p.name == name)
    return state[p.offset : p.offset + p.size].reshape(p.shape)
