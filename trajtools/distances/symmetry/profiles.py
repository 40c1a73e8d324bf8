"""What of a hidden unit no order of the other units changes, and the signs that follow once the order is known."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.symmetry.units import Units, UnitSet, rows_of
from trajtools.types import Floats


def profile(units: UnitSet, state: Floats, movable: Collection[str], *, absolute: bool) -> Floats:
    """Return the weights of each unit, those from and to units that may move sorted."""
    parts = []
    for use in units.uses:
        rows = np.abs(use.rows(state)) if absolute else use.rows(state)
        parts.append(np.sort(rows, axis=1) if use.other in movable else rows)
    return np.concatenate(parts, axis=1)


def propagate_signs(
    units: Units, signed: Collection[str], a: Floats, b: Floats, flip: Callable[[UnitSet, Floats], None]
) -> None:
    """Choose the signs of units in order, beginning at those that weights from and to the fixed nodes tell.

    Notes
    -----
    A unit whose known neighbours do not tell its sign waits. When all wait, the heaviest of them keeps its sign, which
    is free: no decided unit is connected to it.
    """
    sets = [s for s in units.sets if s.name in signed]
    waiting = {s.name: np.ones(s.size, dtype=bool) for s in sets}
    while any(w.any() for w in waiting.values()):
        told = False
        for group in (*sets, *sets[::-1]):
            agreement = np.einsum("nf,nf->n", rows_of(group, _decided(units, group, a, waiting)), rows_of(group, b))
            new = waiting[group.name] & (agreement != 0)
            if new.any():
                flip(group, np.where(new & (agreement < 0), -1.0, 1.0))
                waiting[group.name] &= ~new
                told = True
        if not told:
            sizes = {s.name: np.abs(rows_of(s, a)).sum(axis=1) * waiting[s.name] for s in sets}
            heaviest = max(sizes, key=lambda name: float(sizes[name].max()))
            if sizes[heaviest].max() == 0:
                return
            waiting[heaviest][np.argmax(sizes[heaviest])] = False


def _decided(units: Units, group: UnitSet, a: Floats, waiting: dict[str, NDArray[np.bool_]]) -> Floats:
    """Return the network without the weights of units that wait, except those of one set to decided ones."""
    weights = a.copy()
    for other in units.sets:
        if other.name in waiting and (other is not group or group.loops):
            for use in other.uses:
                if other is not group or use.other == group.name:
                    use.view(weights)[waiting[other.name]] = 0.0
    return weights
