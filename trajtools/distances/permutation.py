"""Distances modulo the order, sign and scale of hidden units: the search, the metric and the alignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.equal_times import as_states, check_alike, read_rows
from trajtools.distances.graphs import EUCLIDEAN
from trajtools.distances.metric import METRICS, Metric, bind_metric
from trajtools.distances.symmetry import (
    Units,
    UnitSet,
    balanced,
    exponent_of,
    find_units,
    profile,
    propagate_signs,
    unit_rows,
)
from trajtools.errors import DataError, SelectionError, TooLargeError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.trajectory import MAX_ARRAY_BYTES, StatesLike, Trajectory
from trajtools.types import Floats, Ints
from trajtools.wiring import NodeSet, Parameter
from trajtools.wording import counted, spoken

GAIN = 1e-12  # smaller relative decreases may be rounding
SAFE = 200  # largest power of two without rescaling: squares and their sums stay in range
_ONE = np.zeros(1, dtype=np.int64)
BASES = ("l1", "l2")


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Result):
    """Networks with hidden units reordered to be closest to other networks.

    Attributes
    ----------
    metric : str
        The minimised distance of the weights.
    step : ndarray of int64, shape (T,)
        Step of each state.
    distance : ndarray of float64, shape (T,)
        The smallest distance found: an upper bound of the minimum over all orders. NaN where a weight of either
        network is not finite.
    unaligned : ndarray of float64, shape (T,)
        The distance before alignment.
    proven : ndarray of bool, shape (T,)
        Whether no order is closer, up to rounding.
    states : ndarray, shape (T, P)
        The second networks, aligned: each computes the same function as before; `distance` is its distance.
    reference : ndarray, shape (T, P), or None
        The first networks, if their units were scaled as well; else None.
    orders : dict of str to ndarray of int64, shape (T, n)
        For every reordered node set: the original index of the unit at each position.
    signs : dict of str to ndarray of float64, shape (T, n)
        For every node set that may change sign: +1 or -1 at each position.
    excluded : ndarray of bool, shape (T,)
        Pairs with a weight that is not finite; they are unchanged.
    settings : dict
        All parameters used; ``fixed``: node sets that kept their order, and why.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"W1": ((2, 3), "float64"), "W2": ((3, 1), "float64")})
    >>> one = np.arange(9.0)
    >>> aligned = tt.align(one, one[[2, 0, 1, 5, 3, 4, 8, 6, 7]], parameters=table, nodes=nodes)
    >>> float(aligned.distance[0]), bool(aligned.proven[0])
    (0.0, True)
    """

    metric: str
    step: NDArray[np.int64]
    distance: NDArray[np.float64]
    unaligned: NDArray[np.float64]
    proven: NDArray[np.bool_]
    states: NDArray[Any]
    reference: NDArray[np.float64] | None
    orders: dict[str, NDArray[np.int64]]
    signs: dict[str, NDArray[np.float64]]
    excluded: NDArray[np.bool_]
    settings: dict[str, Any]
    warnings: tuple[Reason, ...]
    _dims: ClassVar[AxisNames] = {
        "distance": ("step",),
        "unaligned": ("step",),
        "proven": ("step",),
        "excluded": ("step",),
        "states": ("step", "weight"),
    }

    def _sentence(self) -> str:
        before, after = (
            float(np.nanmedian(d)) if np.isfinite(d).any() else np.nan for d in (self.unaligned, self.distance)
        )
        text = f"{counted(len(self.step), 'pair')} of networks: median {self.metric} distance {spoken(before)} before"
        proven = int(self.proven.sum())
        text += f" reordering the hidden units, {spoken(after)} after; the order is proven the best in "
        return text + f"{'all' if proven == len(self.step) else proven or 'none'} of them."


def permutation_metric(
    *,
    base: str = "l2",
    signs: bool | Sequence[str] = False,
    scales: bool | Sequence[str] = False,
    restarts: int = 2,
    seed: int = 0,
    flatten: str = "auto",
) -> Metric:
    r"""Metric modulo permutations of the hidden units: the smallest distance found over their orders.

    Parameters
    ----------
    base : {"l1", "l2"}
        The minimised distance of the weights.
    signs : bool or sequence of str
        Node sets (or True: all) whose activation is odd, such as tanh: a unit may change the sign of all its weights.
    scales : bool or sequence of str
        Node sets (or True: all) whose activation is positively homogeneous, such as ReLU: the units of both networks
        are first rescaled to the smallest weights.
    restarts : int
        Random starts of the search, besides the stored order, the order found at the previous state, one found layer
        by layer from either end, and one from the sorted weights of the units.
    seed : int
        Seed of the random starts.
    flatten : {"auto", "channels-first", "channels-last"}
        Order of the entries of a flattened image between a convolution and a dense layer; "auto": channels first if
        the kernel of the convolution has its channels first (torch), else last (jax).

    Returns
    -------
    Metric
        For `distance`, `twins`, ...; ``METRICS`` holds "permutation", "permutation-l1", "permutation-sign" and
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

    over all orders of the units of every hidden layer. The search gives an upper bound: it solves one layer at a time
    exactly with the others fixed, in turn and from several starts. The result is the minimum for one hidden layer, and
    also if the two networks are closer than half the distance of the first to itself in another order (see ``proven``
    of `trajtools.align`). The wiring of the run determines what may be permuted; declare there any connections other
    than a chain: a skip connection, for example, merges the node sets at its ends. Units of a recurrent cell with
    gates, and sets that a parameter of unknown wiring may belong to, keep their order.

    The weights do not determine whether an activation is odd or homogeneous: `signs` and `scales` declare it.

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


@dataclass(frozen=True)
class Symmetry:
    """Assumed symmetries of the hidden units, and settings of the search.

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
            raise UnknownNameError(f"base={self.base!r}; it must be {' or '.join(BASES)}")
        for name in ("signs", "scales"):
            value = getattr(self, name)
            if not isinstance(value, bool):  # a tuple, so that the metric can be a key
                object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 0:
            raise DataError(f"restarts={self.restarts!r}; it must be a whole number, 0 or more")

    def bound(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> BoundSymmetry:
        """Find the hidden units of the network with these tables."""
        units = find_units(parameters, nodes, flatten=self.flatten)
        signed = _selected_sets(self.signs, units, "signs")
        scaled = _selected_sets(self.scales, units, "scales")
        looping = [s.name for s in scaled if s.loops]
        if looping and self.scales is not True:
            raise DataError(f"the units of {looping[0]!r} connect to themselves, so their scales cannot change")
        matcher = Matcher(units, self.base, frozenset(s.name for s in signed), self.restarts, self.seed)
        return BoundSymmetry(self, matcher, tuple(s for s in scaled if not s.loops))


@dataclass(frozen=True)
class BoundSymmetry:
    """The symmetries of one network.

    Attributes
    ----------
    symmetry : Symmetry
        The assumed symmetries.
    matcher : Matcher
        The search for the best order.
    scaled : tuple of UnitSet
        Units to rescale first.
    """

    symmetry: Symmetry
    matcher: Matcher
    scaled: tuple[UnitSet, ...]

    def prepared(self, state: Any) -> Floats:
        """Return a finite state in float64, with balanced scales if these are free."""
        values = np.array(state, dtype=np.float64)
        return balanced(values, self.scaled, self.matcher.base) if self.scaled else values

    def left_out(self) -> list[Reason]:
        """Warn of hidden units without the requested symmetry."""
        sets, fixed = self.matcher.units.sets, self.matcher.units.fixed
        warnings = [Reason("order-fixed", f"{name!r} keeps its order: {why}") for name, why in fixed.items()]
        if self.symmetry.signs is True or self.symmetry.scales is True:
            normalised = "{name!r} has fixed signs and scales: its units are normalised"
            warnings += [Reason.of("scales-fixed", normalised, name=s.name) for s in sets if s.normalised]
        if self.symmetry.scales is True:
            loops = "{name!r} has fixed scales: its units connect to themselves"
            warnings += [Reason.of("scales-fixed", loops, name=s.name) for s in sets if s.loops]
        return warnings


@dataclass(frozen=True)
class Matcher:
    """Search for the best order of the hidden units.

    Attributes
    ----------
    units : Units
        What may be reordered.
    base : str
        ``"l1"`` or ``"l2"``: the minimised distance.
    signed : frozenset of str
        Sets whose units may change sign.
    restarts : int
        Random starts, besides the fixed ones.
    seed : int
        Seed of the random starts.
    """

    units: Units
    base: str
    signed: frozenset[str] = field(default_factory=frozenset)
    restarts: int = 2
    seed: int = 0

    def match(self, a: Anchor, b: Floats, warm: Match | None = None) -> Match:
        """Reorder b to be close to a."""
        exponent = exponent_of(a.state, b)
        if abs(exponent) <= SAFE:
            return self._search(a, a.state, b, warm, 0)
        # A power of two is exact, and keeps the squares in range.
        best = self._search(a, np.ldexp(a.state, -exponent), np.ldexp(b, -exponent), warm, exponent)
        best.state, best.distance = np.ldexp(best.state, exponent), float(np.ldexp(best.distance, exponent))
        return best

    def _search(self, anchor: Anchor, a: Floats, b: Floats, warm: Match | None, exponent: int) -> Match:
        """Search from every start; a and b are divided by 2**exponent, the anchor is not."""
        single = len(self.units.sets) == 1 and not self.units.sets[0].loops
        best = Match({}, {}, b)
        for candidate, climb in self._starts(a, b, warm):
            if climb:
                self._climb(a, candidate)
            candidate.distance = entry_distance(a, candidate.state, self.base)
            if candidate.distance < best.distance:
                best = candidate
            if best.distance == 0 or (climb and single) or not (a.any() and b.any()):
                best.proven = True
            elif not climb:
                best.proven = 2 * best.distance < np.ldexp(self.margin(anchor), -exponent)
            if best.proven:
                break
        return best

    def _starts(self, a: Floats, b: Floats, warm: Match | None) -> Iterator[tuple[Match, bool]]:
        """Yield the starts, and whether to search from each."""
        yield self._as_it_stands(b), False
        if warm is not None and not warm.as_it_stands():
            yield self._reordered(b, warm.orders, warm.signs), False
            yield self._reordered(b, warm.orders, warm.signs), True
        yield self._as_it_stands(b), True
        for sets in (self.units.sets, self.units.sets[::-1]):
            yield self._layer_by_layer(a, b, sets), True
        yield self._by_profile(a, b), True
        rng = np.random.default_rng(self.seed)
        for _ in range(self.restarts):
            orders = {s.name: _involution(s.size, rng) for s in self.units.sets}
            yield self._reordered(b, orders, {}), True

    def _as_it_stands(self, b: Floats) -> Match:
        orders = {s.name: np.arange(s.size) for s in self.units.sets}
        signs = {s.name: np.ones(s.size) for s in self.units.sets if s.name in self.signed}
        return Match(orders, signs, b.copy())

    def _reordered(self, b: Floats, orders: dict[str, Ints], signs: dict[str, Floats]) -> Match:
        match = self._as_it_stands(b)
        for units in self.units.sets:
            match.apply(units, orders[units.name], signs.get(units.name))
        return match

    def _layer_by_layer(self, a: Floats, b: Floats, sets: tuple[UnitSet, ...]) -> Match:
        """Match each set by its weights to and from sets already ordered, from one end on."""
        match = self._as_it_stands(b)
        open_sets = {s.name for s in self.units.sets}
        for units in sets:
            ordered = UnitSet(units.name, units.size, tuple(u for u in units.uses if u.other not in open_sets))
            if ordered.uses:
                order, sign = self._assign(
                    unit_rows(ordered, a), unit_rows(ordered, match.state), signed=units.name in self.signed
                )
                match.apply(units, order, sign)
            open_sets.discard(units.name)
        return match

    def _by_profile(self, a: Floats, b: Floats) -> Match:
        """Match each set by features invariant to the order of the others; better in sparse layers."""
        match = self._as_it_stands(b)
        movable = {s.name for s in self.units.sets}
        for units in self.units.sets:
            # The order of the sets before this one changes nothing in its sorted weights.
            rows = (profile(units, x, movable, absolute=bool(self.signed)) for x in (a, b))
            match.apply(units, self._assign(*rows, signed=False)[0], None)
        propagate_signs(
            self.units,
            self.signed,
            a,
            match.state,
            lambda units, sign: match.apply(units, np.arange(units.size), sign),
        )
        return match

    def _climb(self, a: Floats, match: Match) -> None:
        """Optimise the sets in turn until none improves."""
        rows = {s.name: unit_rows(s, a) for s in self.units.sets}
        improved = True
        while improved:
            improved = False
            for units in self.units.sets:
                mine, theirs = rows[units.name], unit_rows(units, match.state)
                order, sign = self._assign(mine, theirs, signed=units.name in self.signed)
                candidate = theirs[order] if sign is None else theirs[order] * sign[:, None]
                if units.loops:
                    # Rows and columns of a loop move together, but the assignment fixed one of them.
                    copy = Match(dict(match.orders), dict(match.signs), match.state.copy())
                    copy.apply(units, order, sign)
                    candidate = unit_rows(units, copy.state)
                # Direct differences: inner products do not resolve the gain of close networks.
                if entry_distance(mine, candidate, self.base) < entry_distance(mine, theirs, self.base) * (1 - GAIN):
                    match.apply(units, order, sign)
                    improved = True

    def _assign(self, a: Floats, b: Floats, *, signed: bool) -> tuple[Ints, Floats | None]:
        """Return the order of the rows of b, and the signs if they may change, closest to a."""
        from scipy.optimize import linear_sum_assignment

        if self.base == "l2":
            worth = a @ b.T
            better, flipped = (np.abs(worth), worth < 0) if signed else (worth, None)
        else:
            worth = -_taxicab(a, b)
            other = -_taxicab(a, -b) if signed else worth
            better, flipped = (np.maximum(worth, other), other > worth) if signed else (worth, None)
        order = linear_sum_assignment(better, maximize=True)[1]
        if flipped is None:
            return order, None
        return order, np.where(flipped[np.arange(len(order)), order], -1.0, 1.0)

    def margin(self, anchor: Anchor) -> float:
        r"""Return a lower bound of the distance of a network to itself in any other order or with other signs.

        The first set whose units move has weights from sets that do not move; at least two of the rows change places.
        So a network b with :math:`|a - b| < m / 2` is closest in its stored order: in another order g,
        :math:`|a - g b| \ge |a - g a| - |g a - g b| \ge m - |a - b|`.
        """
        if anchor.margin is None:
            exponent = exponent_of(anchor.state)
            anchor.margin = float(np.ldexp(self._margin(np.ldexp(anchor.state, -exponent)), exponent))
        return anchor.margin

    def _margin(self, a: Floats) -> float:
        margin, open_sets = np.inf, {s.name for s in self.units.sets}
        for units in self.units.sets:
            ordered = UnitSet(units.name, units.size, tuple(u for u in units.uses if u.other not in open_sets))
            rows = unit_rows(ordered, a)
            squares = np.einsum("nf,nf->n", rows, rows)
            products = rows @ rows.T
            if units.name in self.signed:
                products = np.abs(products)
                margin = min(margin, 2 * float(np.sqrt(squares.min())))
            apart = squares[:, None] + squares - 2 * products
            np.fill_diagonal(apart, np.inf)
            # Twice: two rows move. Subtract what rounding may have added to the squares.
            margin = min(margin, float(np.sqrt(2 * max(0.0, apart.min() - 1e-12 * squares.max()))))
            open_sets.discard(units.name)
        return margin


@dataclass
class Match:
    """Order and signs of the units of one network, and its distance to another.

    Attributes
    ----------
    orders : dict of str to ndarray of int64, shape (n,)
        For each set: the unit of the second network at the position of each unit of the first.
    signs : dict of str to ndarray of float64, shape (n,)
        For each set that may change sign: +1 or -1, after reordering.
    state : ndarray of float64, shape (P,)
        The second network, reordered.
    distance : float
        Distance to the first network.
    proven : bool
        Whether no other order is closer, up to rounding.
    """

    orders: dict[str, Ints]
    signs: dict[str, Floats]
    state: Floats
    distance: float = np.inf
    proven: bool = False

    def as_it_stands(self) -> bool:
        """Whether no unit moved or changed sign."""
        moved = any((order != np.arange(len(order))).any() for order in self.orders.values())
        return not moved and not any((sign < 0).any() for sign in self.signs.values())

    def apply(self, units: UnitSet, order: Ints, sign: Floats | None) -> None:
        """Reorder the units of one set once more."""
        for use in units.uses:
            view = use.view(self.state)
            view[...] = view[order]
            if sign is not None:
                view *= sign.reshape(-1, *(1,) * (view.ndim - 1))
        self.orders[units.name] = self.orders[units.name][order]
        if sign is not None:
            self.signs[units.name] = self.signs[units.name][order] * sign


@dataclass
class Anchor:
    """A network that others are matched to.

    Attributes
    ----------
    state : ndarray of float64, shape (P,)
        A finite state.
    margin : float or None
        Lower bound of its distance to itself in another order; None: not yet computed.
    """

    state: Floats
    margin: float | None = None


def entry_distance(a: Floats, b: Floats, base: str) -> float:
    """Return the l1 or l2 distance of two arrays."""
    from trajtools._kernels import distances

    kernel = distances.pairs_l1 if base == "l1" else distances.pairs_l2
    return float(kernel(a.reshape(1, 1, -1), b.reshape(1, 1, -1), _ONE, _ONE)[0, 0])


def _involution(size: int, rng: np.random.Generator) -> Ints:
    """Return a random order that is its own inverse, so that the searches a to b and b to a start alike."""
    order, shuffled = np.arange(size), rng.permutation(size)
    pairs = shuffled[: size - size % 2].reshape(-1, 2)
    order[pairs[:, 0]], order[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return order


def _taxicab(a: Floats, b: Floats) -> Floats:
    """Sum of the absolute differences of every row of a (n, F) and every row of b (n, F)."""
    from trajtools._kernels.distances import pairs_l1

    left, right = np.divmod(np.arange(len(a) * len(b)), len(b))
    distances: Any = pairs_l1(np.ascontiguousarray(a)[None], np.ascontiguousarray(b)[None], left, right)
    return distances.reshape(len(a), len(b))


def _selected_sets(option: bool | Sequence[str], units: Units, what: str) -> tuple[UnitSet, ...]:
    if isinstance(option, bool):
        return tuple(s for s in units.sets if option and not s.normalised)
    names = {s.name: s for s in units.sets}
    for name in option:
        if name not in names:
            raise SelectionError(f"{what} names {name!r}; the hidden node sets are {', '.join(names)}")
        if names[name].normalised:
            raise DataError(f"{what} names {name!r}, whose units follow a normalisation: signs and scales are fixed")
    return tuple(names[name] for name in option)


@dataclass(frozen=True)
class _Binding:
    metric: Metric
    symmetry: Symmetry

    def __call__(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Metric:
        """Return the metric for networks with these tables."""
        bound = self.symmetry.bound(parameters, nodes)
        return replace(self.metric, pairs=QuotientPairs(bound), following=_Follower(bound), bind=None)


@dataclass(frozen=True)
class QuotientPairs:
    """Distances of states modulo the symmetries.

    Attributes
    ----------
    symmetry : BoundSymmetry
        The symmetries of the network.
    last : dict or None
        Match of each pair in the previous call, if calls follow in time; None: every call starts afresh.
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
                match = self.symmetry.matcher.match(one, self.symmetry.prepared(two), warm.get((i, j)))
                out[t, k] = match.distance
                if two.any():  # the zero state (used for norms) is the same in every order
                    warm[i, j] = replace(match, state=np.empty(0))
        return out

    def _anchor(self, state: Any) -> Anchor | None:
        return Anchor(self.symmetry.prepared(state)) if np.isfinite(state).all() else None


@dataclass(frozen=True)
class _Follower:
    symmetry: BoundSymmetry

    def __call__(self) -> QuotientPairs:
        """Return pairs that start from their previous matches."""
        return QuotientPairs(self.symmetry, {})


@dataclass(frozen=True)
class _Rounding:
    """Rounding floor of the distance in the stored order; no reordering increases it."""

    base: str

    def __call__(self, sums: Any, size: int) -> Any:
        """Return the floor; see `Metric`."""
        rounding = METRICS[self.base].rounding
        return np.nan if rounding is None else rounding(sums, size)


@takes_states("a", "b", single=True)
def align(
    a: StatesLike,
    b: StatesLike,
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
    """Reorder the hidden units of networks to be closest to other networks.

    Parameters
    ----------
    a : Trajectory or ndarray, shape (T, P), (1, P) or (P,)
        The reference networks; a single one serves for all states of `b`.
    b : Trajectory or ndarray, shape (T, P) or (P,)
        The networks whose units are reordered. The search for each state also starts from the order of the state
        before.
    base : {"l1", "l2"}
        The minimised distance of the weights.
    signs : bool or sequence of str
        Node sets (or True: all) whose activation is odd, such as tanh.
    scales : bool or sequence of str
        Node sets (or True: all) whose activation is positively homogeneous, such as ReLU: the units of both networks
        are first rescaled to the smallest weights.
    restarts : int
        Random starts of the search.
    seed : int
        Seed of the random starts.
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
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"W1": ((2, 3), "float64"), "W2": ((3, 1), "float64")})
    >>> one = np.arange(9.0)
    >>> two = one[[2, 0, 1, 5, 3, 4, 8, 6, 7]]                       # its hidden units in another order
    >>> result = tt.align(one, two, parameters=table, nodes=nodes)
    >>> result.orders["W1"].tolist(), float(result.distance[0])
    ([[1, 2, 0]], 0.0)
    """
    symmetry = Symmetry(base, signs, scales, restarts, seed, flatten)
    left, right = (_trajectory(x, name, parameters, nodes) for x, name in ((a, "a"), (b, "b")))
    if len(left) != 1:
        check_alike(left, right)
    elif left.shape[1] != right.shape[1]:
        raise DataError(f"the states have {left.shape[1]} and {right.shape[1]} weights; only one architecture aligns")
    metric = permutation_metric(**asdict(symmetry))
    bind_metric(metric, left, right)  # raises if the wirings differ
    bound = symmetry.bound(right.parameters or left.parameters, right.nodes or left.nodes)
    copies = 2 if bound.scaled else 1
    size = copies * len(right) * right.shape[1] * 8
    if size > MAX_ARRAY_BYTES:
        raise TooLargeError(
            f"the aligned states take {size:,} bytes, the limit is {MAX_ARRAY_BYTES:,}: align a window of the "
            "trajectory (x.window(start, stop, every)), or compute the distances only, with metric='permutation'"
        )
    work = _Work.begin(bound, left, right)
    for t in range(len(right)):
        work.one(t)
    settings = {**asdict(symmetry), "sets": [s.name for s in bound.matcher.units.sets]}
    settings |= {"fixed": bound.matcher.units.fixed, "flattened": bound.matcher.units.flattened}
    return work.result(metric.name, base, np.asarray(right.step), settings, bound.left_out())


def _trajectory(x: Any, name: str, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Trajectory:
    """Return a Trajectory unchanged, and an array of one or more states with these tables."""
    if isinstance(x, Trajectory):
        return x
    array = np.asarray(x)
    states = as_states(array[None] if array.ndim == 1 else array, name)
    return Trajectory.from_array(states, parameters=parameters, nodes=nodes)


@dataclass(eq=False)
class _Work:
    """Alignment in progress."""

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
        """Allocate the results, with every unit in its stored position."""
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
        a, b = read_rows(self.left, at, at + 1)[0], read_rows(self.right, t, t + 1)[0]
        self.states[t] = b
        if self.reference is not None:
            self.reference[t] = a
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return
        base = self.bound.matcher.base
        self.unaligned[t] = entry_distance(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), base)
        one, two = self.bound.prepared(a), self.bound.prepared(b)
        match = self.bound.matcher.match(Anchor(one), two, self.warm)
        self.warm = match
        self.distance[t], self.proven[t], self.states[t] = match.distance, match.proven, match.state
        if self.reference is not None:
            self.reference[t] = one
        for name, order in match.orders.items():
            self.orders[name][t] = order
        for name, sign in match.signs.items():
            self.signs[name][t] = sign

    def result(
        self, name: str, base: str, step: NDArray[np.int64], settings: dict[str, Any], warnings: list[Reason]
    ) -> Alignment:
        """Return the alignment of all states."""
        excluded = np.isnan(self.distance)
        if excluded.any():
            text = "{excluded} of {pairs} pairs have a weight that is not finite"
            warnings = [*warnings, Reason.of("not-finite", text, excluded=excluded.sum(), pairs=len(excluded))]
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
            warnings=tuple(warnings),
        )


SYMMETRIES = (
    permutation_metric(),
    permutation_metric(base="l1"),
    permutation_metric(signs=True),
    permutation_metric(scales=True),
)
