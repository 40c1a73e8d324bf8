r"""The search for the order of hidden units in which two networks are closest.

One node set at a time is a linear assignment problem, which is solved exactly while the others are held; the sets take
turns until none gains. That ends in a local minimum, so there are several starts, and the smallest distance found is an
upper bound of the smallest one. It is known to be the smallest where there is one set only, and where the networks are
so close that any other order must be farther (`Matcher.margin`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.distances.symmetries import Units, UnitSet, exponent_of, profile, propagate_signs, rows_of
from trajtools.types import Floats, Ints

GAIN = 1e-12  # a distance that shrinks by a smaller part has not shrunk: it may be rounding
SAFE = 200  # powers of two between which no scaling is needed: squares and their sums stay in range
_ONE = np.zeros(1, dtype=np.int64)


@dataclass
class Match:
    """Order and signs of the units of one network, and how far it then is from another.

    Attributes
    ----------
    orders : dict of str to ndarray of int64, shape (n,)
        Of each set: the unit of the second network that stands at the place of each unit of the first.
    signs : dict of str to ndarray of float64, shape (n,)
        Of each set that may change sign: +1 or -1, after reordering.
    state : ndarray of float64, shape (P,)
        The second network, reordered.
    distance : float
        From the first network.
    proven : bool
        Whether no other order is closer, up to rounding.
    """

    orders: dict[str, Ints]
    signs: dict[str, Floats]
    state: Floats
    distance: float = np.inf
    proven: bool = False

    def as_it_stands(self) -> bool:
        """Whether nothing moved."""
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
        Once it is known: how far the network is at least from itself in another order.
    """

    state: Floats
    margin: float | None = None


@dataclass(frozen=True)
class Matcher:
    """Search for the best order of the hidden units.

    Attributes
    ----------
    units : Units
        What may be reordered.
    base : str
        ``"l1"`` or ``"l2"``: the distance that is made small.
    signed : frozenset of str
        Sets whose units may change sign.
    restarts : int
        Random starts, beside the ones that are always taken.
    seed : int
        Of the random starts.
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
        """Try every start; a and b are divided by two to this exponent, the anchor is not."""
        single = len(self.units.sets) == 1 and not self.units.sets[0].loops
        best = Match({}, {}, b)
        for candidate, climb in self._starts(a, b, warm):
            if climb:
                self._climb(a, candidate)
            candidate.distance = distance(a, candidate.state, self.base)
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
        """Yield where to begin, and whether to search from there."""
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
        """Match each set by its weights from and to what has its order already, beginning at one end."""
        match = self._as_it_stands(b)
        open_sets = {s.name for s in self.units.sets}
        for units in sets:
            known = UnitSet(units.name, units.size, tuple(u for u in units.uses if u.other not in open_sets))
            if known.uses:
                order, sign = self._assign(
                    rows_of(known, a), rows_of(known, match.state), signed=units.name in self.signed
                )
                match.apply(units, order, sign)
            open_sets.discard(units.name)
        return match

    def _by_profile(self, a: Floats, b: Floats) -> Match:
        """Match each set by what no order of the others changes: in sparse layers the better guide."""
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
        """Let the sets take turns until none gains."""
        rows = {s.name: rows_of(s, a) for s in self.units.sets}
        moved = True
        while moved:
            moved = False
            for units in self.units.sets:
                mine, theirs = rows[units.name], rows_of(units, match.state)
                order, sign = self._assign(mine, theirs, signed=units.name in self.signed)
                tried = theirs[order] if sign is None else theirs[order] * sign[:, None]
                if units.loops:
                    # Rows and columns of a loop move together, and the assignment saw one of them at rest.
                    copy = Match(dict(match.orders), dict(match.signs), match.state.copy())
                    copy.apply(units, order, sign)
                    tried = rows_of(units, copy.state)
                # By direct differences: inner products do not resolve how much closer close networks come.
                if distance(mine, tried, self.base) < distance(mine, theirs, self.base) * (1 - GAIN):
                    match.apply(units, order, sign)
                    moved = True

    def _assign(self, a: Floats, b: Floats, *, signed: bool) -> tuple[Ints, Floats | None]:
        """Return the order of the rows of b, and the signs where they may change, that come closest to a."""
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
        r"""Return how far a network is at least from itself in any other order of its units, and with other signs.

        The first set whose units move has weights from sets that do not move; at least two of the rows change places.
        So a network b with :math:`|a - b| < m / 2` is closest as it stands: in another order g,
        :math:`|a - g b| \ge |a - g a| - |g a - g b| \ge m - |a - b|`.
        """
        if anchor.margin is None:
            exponent = exponent_of(anchor.state)
            anchor.margin = float(np.ldexp(self._margin(np.ldexp(anchor.state, -exponent)), exponent))
        return anchor.margin

    def _margin(self, a: Floats) -> float:
        margin, open_sets = np.inf, {s.name for s in self.units.sets}
        for units in self.units.sets:
            known = UnitSet(units.name, units.size, tuple(u for u in units.uses if u.other not in open_sets))
            rows = rows_of(known, a)
            squares = np.einsum("nf,nf->n", rows, rows)
            products = rows @ rows.T
            if units.name in self.signed:
                products = np.abs(products)
                margin = min(margin, 2 * float(np.sqrt(squares.min())))
            apart = squares[:, None] + squares - 2 * products
            np.fill_diagonal(apart, np.inf)
            # Twice: two rows move. What rounding may have added to the squares is taken off.
            margin = min(margin, float(np.sqrt(2 * max(0.0, apart.min() - 1e-12 * squares.max()))))
            open_sets.discard(units.name)
        return margin


def distance(a: Floats, b: Floats, base: str) -> float:
    """Return the distance of all entries of two arrays, as the metric of this name has it."""
    from trajtools._kernels import distances

    kernel = distances.pairs_l1 if base == "l1" else distances.pairs_l2
    return float(kernel(a.reshape(1, 1, -1), b.reshape(1, 1, -1), _ONE, _ONE)[0, 0])


def _taxicab(a: Floats, b: Floats) -> Floats:
    """Sum of the absolute differences of every row of a (n, F) and every row of b (n, F)."""
    from trajtools._kernels.distances import pairs_l1

    left, right = np.divmod(np.arange(len(a) * len(b)), len(b))
    found: Any = pairs_l1(np.ascontiguousarray(a)[None], np.ascontiguousarray(b)[None], left, right)
    return found.reshape(len(a), len(b))


def _involution(size: int, rng: np.random.Generator) -> Ints:
    """Return a random order that is its own inverse: the search from b to a then begins where that from a to b does."""
    order, shuffled = np.arange(size), rng.permutation(size)
    pairs = shuffled[: size - size % 2].reshape(-1, 2)
    order[pairs[:, 0]], order[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return order
