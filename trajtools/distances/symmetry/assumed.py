"""Which symmetries of a network are assumed, and the metric that does not see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trajtools.distances.graphs import EUCLIDEAN
from trajtools.distances.metric import METRICS, Metric
from trajtools.distances.symmetries import Units, UnitSet, balanced, find_units
from trajtools.distances.symmetry.matching import Anchor, Match, Matcher
from trajtools.errors import DataError, SelectionError, UnknownNameError
from trajtools.parameters import NodeSet, Parameter
from trajtools.types import Floats, Ints

BASES = ("l1", "l2")


@dataclass(frozen=True)
class Symmetry:
    """What is assumed of the hidden units, and how hard to search.

    Attributes
    ----------
    base : str
        ``"l1"`` or ``"l2"``.
    signs, scales : bool or sequence of str
        Node sets whose activation is odd, and positively homogeneous; True: all of them.
    restarts, seed : int
        Random starts of the search, and their seed.
    flatten : str
        Order of the entries of a flattened image.
    """

    base: str = "l2"
    signs: bool | Sequence[str] = False
    scales: bool | Sequence[str] = False
    restarts: int = 2
    seed: int = 0
    flatten: str = "auto"

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise UnknownNameError(f"hidden units are matched in {' or '.join(BASES)}, not in {self.base!r}")
        for name in ("signs", "scales"):
            given = getattr(self, name)
            if not isinstance(given, bool):  # a tuple, so that the metric can be a key
                object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 0:
            raise DataError(f"restarts={self.restarts!r}; it must be a whole number, 0 or more")

    def bound(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> BoundSymmetry:
        """Find the hidden units of the network with these tables."""
        units = find_units(parameters, nodes, flatten=self.flatten)
        signed = _chosen(self.signs, units, "signs")
        scaled = _chosen(self.scales, units, "scales")
        looping = [s.name for s in scaled if s.loops]
        if looping and self.scales is not True:
            raise DataError(f"the units of {looping[0]!r} lead to themselves: their scales are no free choice")
        matcher = Matcher(units, self.base, frozenset(s.name for s in signed), self.restarts, self.seed)
        return BoundSymmetry(self, matcher, tuple(s for s in scaled if not s.loops))


@dataclass(frozen=True)
class BoundSymmetry:
    """The symmetries of one network.

    Attributes
    ----------
    asked : Symmetry
        What was assumed.
    matcher : Matcher
        The search for the best order.
    scaled : tuple of UnitSet
        Units that are scaled first.
    """

    asked: Symmetry
    matcher: Matcher
    scaled: tuple[UnitSet, ...]

    def prepared(self, state: Any) -> Floats:
        """Return a finite state as it is compared: in float64, with balanced scales where these are assumed free."""
        given = np.array(state, dtype=np.float64)
        return balanced(given, self.scaled, self.matcher.base) if self.scaled else given

    def left_out(self) -> list[str]:
        """Say which hidden units were not given the freedom that was asked for."""
        sets = self.matcher.units.sets
        words = [f"{name!r} is left in its order: {why}" for name, why in self.matcher.units.fixed.items()]
        if self.asked.signs is True or self.asked.scales is True:
            words += [
                f"{s.name!r} keeps signs and scales: a normalisation stands at its units" for s in sets if s.normalised
            ]
        if self.asked.scales is True:
            words += [f"{s.name!r} keeps its scales: its units lead to themselves" for s in sets if s.loops]
        return words


@dataclass(frozen=True)
class QuotientPairs:
    """Distances of states modulo the symmetries.

    Attributes
    ----------
    symmetry : BoundSymmetry
        What is assumed.
    last : dict or None
        What was found for each pair in the last call, where calls follow in time; None: every call begins anew.
    """

    symmetry: BoundSymmetry
    last: dict[tuple[int, int], Match] | None = None

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of ``a[:, left[k]]`` and ``b[:, right[k]]``, following each pair along t."""
        out = np.full((a.shape[0], len(left)), np.nan)
        warm = {} if self.last is None else self.last
        pairs = list(zip(np.asarray(left).tolist(), np.asarray(right).tolist(), strict=True))
        for t in range(a.shape[0]):
            anchors = {i: self._anchor(a[t, i]) for i in {i for i, _ in pairs}}
            for k, (i, j) in enumerate(pairs):
                one, two = anchors[i], b[t, j]
                if one is None or not np.isfinite(two).all():
                    continue
                found = self.symmetry.matcher.match(one, self.symmetry.prepared(two), warm.get((i, j)))
                out[t, k] = found.distance
                if two.any():  # the zero state, from which norms are measured, is the same in every order
                    warm[i, j] = replace(found, state=np.empty(0))
        return out

    def _anchor(self, state: Any) -> Anchor | None:
        return Anchor(self.symmetry.prepared(state)) if np.isfinite(state).all() else None


@dataclass(frozen=True)
class _Rounding:
    """What rounding alone gives in the distance of the weights as they stand; no order makes it larger."""

    base: str

    def __call__(self, sums: Any, size: int) -> Any:
        """Return the floor; see `Metric`."""
        rounding = METRICS[self.base].rounding
        return np.nan if rounding is None else rounding(sums, size)


@dataclass(frozen=True)
class _Binding:
    metric: Metric
    symmetry: Symmetry

    def __call__(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Metric:
        """Return the metric for networks with these tables."""
        bound = self.symmetry.bound(parameters, nodes)
        return replace(self.metric, pairs=QuotientPairs(bound), following=_Follower(bound), bind=None)


@dataclass(frozen=True)
class _Follower:
    symmetry: BoundSymmetry

    def __call__(self) -> QuotientPairs:
        """Return pairs that remember from one call to the next."""
        return QuotientPairs(self.symmetry, {})


def permutation_metric(
    *,
    base: str = "l2",
    signs: bool | Sequence[str] = False,
    scales: bool | Sequence[str] = False,
    restarts: int = 2,
    seed: int = 0,
    flatten: str = "auto",
) -> Metric:
    r"""Metric modulo the order of the hidden units: the smallest distance found over their permutations.

    Parameters
    ----------
    base : {"l1", "l2"}
        The distance of the weights that is made small.
    signs : bool or sequence of str
        Node sets (or True: all) whose activation is odd, such as tanh: a unit may change the sign of all its weights.
    scales : bool or sequence of str
        Node sets (or True: all) whose activation is positively homogeneous, such as ReLU: both networks are brought to
        the scales of their units at which their weights are smallest, and then compared.
    restarts : int
        Random starts of the search, besides the order as it stands, the order found at the states before, one found
        layer by layer from either end, and one by the sorted weights of the units.
    seed : int
        Of the random starts.
    flatten : {"auto", "channels-first", "channels-last"}
        Order of the entries of a flattened image between a convolution and a dense layer; "auto": channels first where
        the kernel of the convolution has its channels first (torch), else last (jax).

    Returns
    -------
    Metric
        For `between`, `twins`, ...; ``METRICS`` holds "permutation", "permutation-l1", "permutation-sign" and
        "permutation-scale".

    Raises
    ------
    UnknownNameError
        If there is no such base.
    DataError
        If `restarts` is not a whole number.

    Notes
    -----
    .. math:: d(a, b) \approx \min_{\pi} |a - \pi b|

    over all orders of the units of every hidden layer. The search gives an upper bound: one layer at a time is solved
    exactly, the others held, in turn and from several starts. With one hidden layer it is the minimum, and also where
    the two networks are closer than half the distance of the first to itself in another order (`trajtools.align` says
    which). What may be permuted is read from the wiring of the run: say there what is connected otherwise than in a
    chain, a skip connection for one joins the node sets at its ends to one. Units of a recurrent cell with gates, and
    sets that a parameter of unknown wiring may belong to, keep their order.

    Nobody can see from the weights whether an activation is odd or homogeneous: `signs` and `scales` state it.

    References
    ----------
    .. [1] S. K. Ainsworth, J. Hayase, S. Srinivasa, ICLR (2023), arXiv:2209.04836

    Examples
    --------
    >>> permutation_metric(base="l1").name
    'permutation-l1'
    """
    symmetry = Symmetry(base, signs, scales, restarts, seed, flatten)
    tail = "".join([f"-{base}"] * (base != "l2") + ["-sign"] * bool(signs) + ["-scale"] * bool(scales))
    freedom = ["a permutation of the hidden units of either network"]
    freedom += ["the signs of hidden units"] * bool(signs) + ["the positive scales of hidden units"] * bool(scales)
    metric = Metric(
        f"permutation{tail}",
        f"smallest {base} distance found over the orders of the hidden units: an upper bound of the smallest",
        EUCLIDEAN,
        rounding=None if scales else _Rounding(base),
        kind="divergence",
        symmetric=True,
        invariant_to=tuple(freedom),
        cost="a few assignments (n^3) and products (n P) for each layer of n units and pair of states",
    )
    return replace(metric, bind=_Binding(metric, symmetry))


def _chosen(asked: bool | Sequence[str], units: Units, what: str) -> tuple[UnitSet, ...]:
    if isinstance(asked, bool):
        return tuple(s for s in units.sets if asked and not s.normalised)
    names = {s.name: s for s in units.sets}
    for name in asked:
        if name not in names:
            raise SelectionError(f"{what} names {name!r}; the hidden node sets are {', '.join(names)}")
        if names[name].normalised:
            raise DataError(f"{what} names {name!r}, at whose units a normalisation stands: it takes that freedom away")
    return tuple(names[name] for name in asked)


SYMMETRIES = (
    permutation_metric(),
    permutation_metric(base="l1"),
    permutation_metric(signs=True),
    permutation_metric(scales=True),
)
