"""Scales of hidden units with positively homogeneous activations, such as ReLU: the smallest weights of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trajtools.distances.symmetry.units import UnitSet, rows_of
from trajtools.errors import DataError
from trajtools.types import Floats

STEPS = 10_000
TOLERANCE = 1e-14


def balanced(state: Floats, sets: Sequence[UnitSet], base: str) -> Floats:
    r"""Return the network that computes the same with the smallest weights.

    Notes
    -----
    The norm is a convex function of the logarithms of the scales, so the network is unique; the units take turns, layer
    by layer, until no scale changes.
    """
    exponent = exponent_of(state)
    out = np.ldexp(state, -exponent)
    for _ in range(STEPS):
        largest = 0.0
        for units in sets:
            incoming, outgoing = (_norms(rows_of(units, out, (role,)), base) for role in ("in", "out"))
            alive = (incoming > 0) & (outgoing > 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.where(alive, np.sqrt(outgoing / incoming), 0.0)
            _multiply(units, out, scale)
            largest = max(largest, float(np.abs(np.log(scale[alive])).max(initial=0.0)))
        if largest <= TOLERANCE:
            return np.ldexp(out, exponent)
    raise DataError(
        f"the scales of the hidden units did not settle in {STEPS} rounds over {len(sets)} layers; compare fewer "
        "layers at a time (trajectory.select(...)), or leave the scales as they are (scales=False)"
    )


def exponent_of(*states: Floats) -> int:
    """Return the power of two that brings the largest weight of some states to between 1/2 and 1."""
    return int(np.frexp(max(float(np.abs(state).max(initial=0.0)) for state in states))[1])


def _norms(rows: Floats, base: str) -> Floats:
    if base == "l1":
        return np.abs(rows).sum(axis=1)
    return np.sqrt(np.einsum("nf,nf->n", rows, rows))


def _multiply(units: UnitSet, state: Floats, scale: Floats) -> None:
    """Multiply the incoming weights of every unit, and divide the outgoing ones; a scale of 0 clears both."""
    with np.errstate(divide="ignore"):
        inverse = np.where(scale > 0, 1.0 / scale, 0.0)
    for use in units.uses:
        view = use.view(state)
        view *= (scale if use.role == "in" else inverse).reshape(-1, *(1,) * (view.ndim - 1))
