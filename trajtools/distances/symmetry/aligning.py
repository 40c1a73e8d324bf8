"""Networks with their hidden units in the order in which they are closest to other networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import bind_metric
from trajtools.distances.paths import as_states, check_alike, rows_of
from trajtools.distances.symmetry.assumed import BoundSymmetry, Symmetry, permutation_metric
from trajtools.distances.symmetry.matching import Anchor, Match, distance
from trajtools.errors import DataError, TooLargeError
from trajtools.parameters import NodeSet, Parameter
from trajtools.results.alignment import Alignment
from trajtools.trajectory import MAX_ARRAY_BYTES, Trajectory
from trajtools.types import Floats


def align(
    a: Any,
    b: Any,
    *,
    base: str = "l2",
    signs: bool | Sequence[str] = False,
    scales: bool | Sequence[str] = False,
    restarts: int = 2,
    seed: int = 0,
    flatten: str = "auto",
    parameters: Sequence[Parameter] = (),
    nodes: Sequence[NodeSet] = (),
) -> Alignment:
    """Put the hidden units of networks in the order in which they are closest to other networks.

    Parameters
    ----------
    a : Trajectory or ndarray, shape (T, P), (1, P) or (P,)
        The networks that stay as they are; one network serves all states of `b`.
    b : Trajectory or ndarray, shape (T, P) or (P,)
        The networks whose units are reordered. Each state is searched for anew and also from the order at the state
        before.
    base : {"l1", "l2"}
        The distance of the weights that is made small.
    signs : bool or sequence of str
        Node sets (or True: all) whose activation is odd, such as tanh.
    scales : bool or sequence of str
        Node sets (or True: all) whose activation is positively homogeneous, such as ReLU: then both networks are
        brought to the scales of their units at which their weights are smallest.
    restarts : int
        Random starts of the search.
    seed : int
        Of the random starts.
    flatten : {"auto", "channels-first", "channels-last"}
        Order of the entries of a flattened image, see `trajtools.distances.permutation_metric`.
    parameters : sequence of Parameter
        Table of the parameters, for arrays; a Trajectory of a run has its own.
    nodes : sequence of NodeSet
        The node sets, for arrays.

    Returns
    -------
    Alignment
        The aligned states, the orders, and distances before and after.

    Raises
    ------
    DataError
        If states, lengths or tables do not fit, or the network has no hidden units.
    TooLargeError
        If the aligned states would not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from trajtools.parameters import describe
    >>> table, nodes = describe({"W1": ((2, 3), "float64"), "W2": ((3, 1), "float64")})
    >>> one = np.arange(9.0)
    >>> two = one[[2, 0, 1, 5, 3, 4, 8, 6, 7]]                       # its hidden units in another order
    >>> found = tt.align(one, two, parameters=table, nodes=nodes)
    >>> found.orders["W1"].tolist(), float(found.distance[0])
    ([[1, 2, 0]], 0.0)
    """
    symmetry = Symmetry(base, signs, scales, restarts, seed, flatten)
    left, right = (_trajectory(x, name, parameters, nodes) for x, name in ((a, "a"), (b, "b")))
    if len(left) != 1:
        check_alike(left, right)
    elif left.shape[1] != right.shape[1]:
        raise DataError(f"the states have {left.shape[1]} and {right.shape[1]} weights; only one architecture aligns")
    metric = permutation_metric(**asdict(symmetry))
    bind_metric(metric, left, right)  # refuses networks of different wiring
    bound = symmetry.bound(right.parameters or left.parameters, right.nodes or left.nodes)
    copies = 2 if bound.scaled else 1
    size = copies * len(right) * right.shape[1] * 8
    if size > MAX_ARRAY_BYTES:
        raise TooLargeError(
            f"the aligned states take {size:,} bytes, the limit is {MAX_ARRAY_BYTES:,}: align a window of the "
            "trajectory (x.window(start, stop, every)), or ask for the distances only, with metric='permutation'"
        )
    work = _Work.begin(bound, left, right)
    for t in range(len(right)):
        work.one(t)
    settings = {**asdict(symmetry), "sets": [s.name for s in bound.matcher.units.sets]}
    settings |= {"fixed": bound.matcher.units.fixed, "flattened": bound.matcher.units.flattened}
    return work.result(metric.name, base, np.asarray(right.step), settings, bound.left_out())


@dataclass(eq=False)
class _Work:
    """States that are being aligned."""

    bound: BoundSymmetry
    left: Trajectory
    right: Trajectory
    states: NDArray[Any]
    reference: Floats | None
    distance: Floats
    unaligned: Floats
    proven: NDArray[np.bool_]
    orders: dict[str, NDArray[np.int64]]
    signs: dict[str, Floats]
    warm: Match | None = None

    @classmethod
    def begin(cls, bound: BoundSymmetry, left: Trajectory, right: Trajectory) -> _Work:
        """Make room for all states, with every unit in its own place."""
        count, sets = len(right), bound.matcher.units.sets
        scaled = bool(bound.scaled)
        return cls(
            bound,
            left,
            right,
            np.empty(right.shape, dtype=np.float64 if scaled else right.dtype),
            np.empty(right.shape) if scaled else None,
            np.full(count, np.nan),
            np.full(count, np.nan),
            np.zeros(count, dtype=bool),
            {s.name: np.tile(np.arange(s.size), (count, 1)) for s in sets},
            {s.name: np.ones((count, s.size)) for s in sets if s.name in bound.matcher.signed},
        )

    def one(self, t: int) -> None:
        """Align one state."""
        at = 0 if len(self.left) == 1 else t
        a, b = rows_of(self.left, at, at + 1)[0], rows_of(self.right, t, t + 1)[0]
        self.states[t] = b
        if self.reference is not None:
            self.reference[t] = a
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return
        base = self.bound.matcher.base
        self.unaligned[t] = distance(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), base)
        one, two = self.bound.prepared(a), self.bound.prepared(b)
        found = self.bound.matcher.match(Anchor(one), two, self.warm)
        self.warm = found
        self.distance[t], self.proven[t], self.states[t] = found.distance, found.proven, found.state
        if self.reference is not None:
            self.reference[t] = one
        for name, order in found.orders.items():
            self.orders[name][t] = order
        for name, sign in found.signs.items():
            self.signs[name][t] = sign

    def result(
        self, name: str, base: str, step: NDArray[np.int64], settings: dict[str, Any], words: list[str]
    ) -> Alignment:
        """Return what was found."""
        excluded = np.isnan(self.distance)
        if excluded.any():
            words = [*words, f"{int(excluded.sum())} of {len(excluded)} pairs hold a weight that is not finite"]
        settings = {**settings, "metric": name, "n_proven": int(self.proven.sum()), "n_total": len(step)}
        return Alignment(
            metric=base,
            step=step,
            distance=self.distance,
            unaligned=self.unaligned,
            proven=self.proven,
            states=self.states,
            reference=self.reference,
            orders=self.orders,
            signs=self.signs,
            excluded=excluded,
            settings=settings,
            warnings=tuple(words),
        )


def _trajectory(x: Any, name: str, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Trajectory:
    """Return a Trajectory as it is, and an array of one or more states with the tables that were given."""
    if isinstance(x, Trajectory):
        return x
    array = np.asarray(x)
    states = as_states(array[None] if array.ndim == 1 else array, name)
    return Trajectory.from_array(states, parameters=parameters, nodes=nodes)
