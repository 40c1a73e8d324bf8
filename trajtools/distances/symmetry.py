"""Hidden units that may be permuted, sign-flipped or rescaled, and the position of their weights in the state."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, UnknownNameError
from trajtools.types import Floats
from trajtools.wiring import NodeSet, Parameter

KERNELS = ("dense", "conv", "recurrent", "embedding")
FLATTENINGS = ("auto", "channels-first", "channels-last")
_SCALE_OR_SHIFT = re.compile(r"weight|scale|gamma|bias|shift|offset|beta")
STEPS = 10_000
TOLERANCE = 1e-14


@dataclass(frozen=True)
class UnitSet:
    """Hidden units that may be permuted.

    Attributes
    ----------
    name : str
        The node set.
    size : int
        Number of units.
    uses : tuple of Use
        All parameters permuted with them.
    """

    name: str
    size: int
    uses: tuple[Use, ...]

    @property
    def loops(self) -> bool:
        """Whether a parameter connects the units to themselves."""
        return any(use.other == self.name for use in self.uses)

    @property
    def normalised(self) -> bool:
        """Whether a normalisation with its own scales or shifts acts on the units."""
        return any(use.role == "norm" for use in self.uses)


@dataclass(frozen=True)
class Use:
    """A parameter with an axis that runs over the units of a set.

    Attributes
    ----------
    name : str
        The parameter.
    entries : slice
        Its position in the state.
    shape : tuple of int
        Its shape, with the axis of a flattened image split into channels and positions.
    axis : int
        The axis of `shape` that runs over the units.
    role : str
        ``"in"``: its edges end at the units, ``"out"``: they start there, ``"norm"``: no edge, one entry per unit.
    other : str or None
        The node set at the other end, if any.
    """

    name: str
    entries: slice
    shape: tuple[int, ...]
    axis: int
    role: str
    other: str | None

    def rows(self, state: Floats) -> Floats:
        """Return the weights (n, F) of every unit."""
        return np.moveaxis(state[self.entries].reshape(self.shape), self.axis, 0).reshape(self.shape[self.axis], -1)

    def view(self, state: Floats) -> Floats:
        """Return the weights with the axis of the units first, as a view into the state."""
        return np.moveaxis(state[self.entries].reshape(self.shape), self.axis, 0)


@dataclass(frozen=True)
class Units:
    """The hidden units of a network.

    Attributes
    ----------
    sets : tuple of UnitSet
        Units that may be permuted, in the order of the layers.
    fixed : dict of str to str
        Hidden node sets that keep their order, and why.
    flattened : dict of str to str
        Node sets that are a flattened image, and the assumed order of its entries.
    """

    sets: tuple[UnitSet, ...]
    fixed: dict[str, str] = field(default_factory=dict)
    flattened: dict[str, str] = field(default_factory=dict)


def find_units(parameters: Sequence[Parameter], nodes: Sequence[NodeSet], *, flatten: str = "auto") -> Units:
    """Find the hidden units whose permutation leaves the function of the network unchanged."""
    if flatten not in FLATTENINGS:
        raise UnknownNameError(
            f"there is no order of flattened entries {flatten!r}; there are {', '.join(FLATTENINGS)}"
        )
    kernels = [p for p in parameters if p.kind in KERNELS and p.source is not None and p.source_axis >= 0]
    targets = {str(p.target) for p in kernels}
    images, flattened = _flattened(parameters, kernels, targets, {n.name: n.size for n in nodes}, flatten)
    sources = {images.get(str(p.source), str(p.source)) for p in kernels}
    hidden = {n.name: n.size for n in nodes if n.name in targets & sources}
    uses: dict[str, list[Use]] = {name: [] for name in hidden}
    for p in parameters:
        for use_of, use in _edge_uses(p, images, hidden, flattened):
            uses[use_of].append(use)
    fixed = _attach_norms(parameters, hidden, uses)
    sets = tuple(UnitSet(name, size, tuple(uses[name])) for name, size in hidden.items() if name not in fixed)
    if not sets:
        reasons = "; ".join(f"{name!r}: {why}" for name, why in fixed.items()) or "no kernel starts where another ends"
        raise DataError(
            f"this network has no hidden units that may be permuted ({reasons}); record or select two layers in a row, "
            "or use 'l1' or 'l2', which compare the weights in their stored order"
        )
    return Units(sets, fixed, flattened)


def _flattened(
    parameters: Sequence[Parameter], kernels: Sequence[Parameter], targets: set[str], sizes: dict[str, int], order: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return sets that are a flattened image -> set of its channels, and -> order of its entries."""
    images, orders = {}, {}
    for p in kernels:
        source = str(p.source)
        if p.kind != "dense" or source in targets or source in images:
            continue
        before = [q for q in parameters[: list(parameters).index(p)] if q.kind in KERNELS]
        if not before or before[-1].kind != "conv" or before[-1].target is None:
            continue
        conv = before[-1]
        if sizes[source] % sizes[str(conv.target)] == 0:
            images[source] = str(conv.target)
            first = conv.target_axis < len(conv.shape) - 2 if order == "auto" else order == "channels-first"
            orders[source] = "channels-first" if first else "channels-last"
    return images, orders


def _attach_norms(
    parameters: Sequence[Parameter], hidden: dict[str, int], uses: dict[str, list[Use]]
) -> dict[str, str]:
    """Assign normalisation parameters to their units; return the sets for which this is ambiguous."""
    homes = _homes(parameters)
    # Two normalisations after one kernel: the state is not in the order of the layers.
    layers: dict[str, set[str]] = {}
    for name, home in homes.items():
        layers.setdefault(home, set()).add(_SCALE_OR_SHIFT.sub("", name))
    fixed: dict[str, str] = {}
    for p in parameters:
        if p.source is not None or p.size == 1:
            continue
        home = homes.get(p.name, "")
        if len(layers.get(home, ())) == 1:
            if home in uses:
                entries = slice(p.offset, p.offset + p.size)
                uses[home].append(Use(p.name, entries, p.shape, 0, "norm", None))
            continue
        for name, size in hidden.items():
            if any(n % size == 0 for n in p.shape):
                fixed.setdefault(name, f"parameter {p.name!r} may belong to its units, and its wiring is unknown")
    return fixed


def _homes(parameters: Sequence[Parameter]) -> dict[str, str]:
    """Return norm parameters -> target set of the kernel before them, where the sizes agree."""
    homes: dict[str, str] = {}
    last: Parameter | None = None
    for p in parameters:
        if p.kind in KERNELS:
            last = p
        elif p.kind != "norm" or p.source is not None or last is None or last.target is None:
            continue
        elif p.shape == (last.shape[last.target_axis],):
            homes[p.name] = last.target
    return homes


def _edge_uses(
    p: Parameter, images: dict[str, str], hidden: dict[str, int], orders: dict[str, str]
) -> Iterable[tuple[str, Use]]:
    """Yield the hidden sets at the ends of an edge parameter."""
    if p.source is None or p.target is None:
        return
    entries = slice(p.offset, p.offset + p.size)
    source = images.get(p.source, p.source)
    if p.target in hidden:
        yield p.target, Use(p.name, entries, p.shape, p.target_axis, "in", source)
    if source in hidden and p.source_axis >= 0:
        shape, axis = p.shape, p.source_axis
        if p.source in images:
            count = hidden[source]
            split = (count, shape[axis] // count)
            if orders[p.source] == "channels-last":
                split = split[::-1]
            shape = (*shape[:axis], *split, *shape[axis + 1 :])
            axis += orders[p.source] == "channels-last"
        yield source, Use(p.name, entries, shape, axis, "out", p.target)


def unit_rows(unit_set: UnitSet, state: Any, roles: Iterable[str] | None = None) -> Floats:
    """Return the weights (n, F) of the units, of all parameters or of those with these roles, concatenated."""
    rows = [use.rows(state) for use in unit_set.uses if roles is None or use.role in roles]
    return np.concatenate(rows, axis=1) if rows else np.zeros((unit_set.size, 0))


def balanced(state: Floats, sets: Sequence[UnitSet], base: str) -> Floats:
    r"""Return the network of smallest weights with the same function.

    Notes
    -----
    The norm is a convex function of the logarithms of the scales, so the network is unique. The scales are optimised
    layer by layer in turn until none changes.
    """
    exponent = exponent_of(state)
    out = np.ldexp(state, -exponent)
    for _ in range(STEPS):
        largest = 0.0
        for units in sets:
            incoming, outgoing = (_norms(unit_rows(units, out, (role,)), base) for role in ("in", "out"))
            alive = (incoming > 0) & (outgoing > 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.where(alive, np.sqrt(outgoing / incoming), 0.0)
            _multiply(units, out, scale)
            largest = max(largest, float(np.abs(np.log(scale[alive])).max(initial=0.0)))
        if largest <= TOLERANCE:
            return np.ldexp(out, exponent)
    raise DataError(
        f"the scales of the hidden units did not converge in {STEPS} rounds over {len(sets)} layers; compare fewer "
        "layers at a time (trajectory.select(...)), or keep the stored scales (scales=False)"
    )


def exponent_of(*states: Floats) -> int:
    """Return e such that the largest weight of the states divided by 2**e lies between 1/2 and 1."""
    return int(np.frexp(max(float(np.abs(state).max(initial=0.0)) for state in states))[1])


def _multiply(units: UnitSet, state: Floats, scale: Floats) -> None:
    """Multiply the incoming weights of every unit, and divide the outgoing ones; a scale of 0 clears both."""
    with np.errstate(divide="ignore"):
        inverse = np.where(scale > 0, 1.0 / scale, 0.0)
    for use in units.uses:
        view = use.view(state)
        view *= (scale if use.role == "in" else inverse).reshape(-1, *(1,) * (view.ndim - 1))


def _norms(rows: Floats, base: str) -> Floats:
    if base == "l1":
        return np.abs(rows).sum(axis=1)
    return np.sqrt(np.einsum("nf,nf->n", rows, rows))


def profile(units: UnitSet, state: Floats, movable: Collection[str], *, absolute: bool) -> Floats:
    """Return the weights of each unit, sorted where they connect to permutable units."""
    parts = []
    for use in units.uses:
        rows = np.abs(use.rows(state)) if absolute else use.rows(state)
        parts.append(np.sort(rows, axis=1) if use.other in movable else rows)
    return np.concatenate(parts, axis=1)


def propagate_signs(
    units: Units, signed: Collection[str], a: Floats, b: Floats, flip: Callable[[UnitSet, Floats], None]
) -> None:
    """Choose the signs of units in order, from those determined by weights to and from the fixed nodes.

    Notes
    -----
    A unit whose sign is not determined by its decided neighbours waits. When all wait, the heaviest of them keeps its
    sign: no decided unit is connected to it, so the sign is free.
    """
    sets = [s for s in units.sets if s.name in signed]
    waiting = {s.name: np.ones(s.size, dtype=bool) for s in sets}
    while any(w.any() for w in waiting.values()):
        changed = False
        for group in (*sets, *sets[::-1]):
            agreement = np.einsum("nf,nf->n", unit_rows(group, _decided(units, group, a, waiting)), unit_rows(group, b))
            new = waiting[group.name] & (agreement != 0)
            if new.any():
                flip(group, np.where(new & (agreement < 0), -1.0, 1.0))
                waiting[group.name] &= ~new
                changed = True
        if not changed:
            sizes = {s.name: np.abs(unit_rows(s, a)).sum(axis=1) * waiting[s.name] for s in sets}
            heaviest = max(sizes, key=lambda name: float(sizes[name].max()))
            if sizes[heaviest].max() == 0:
                return
            waiting[heaviest][np.argmax(sizes[heaviest])] = False


def _decided(units: Units, group: UnitSet, a: Floats, waiting: dict[str, NDArray[np.bool_]]) -> Floats:
    """Return the network without the weights of waiting units, except those of one set to decided ones."""
    weights = a.copy()
    for other in units.sets:
        if other.name in waiting and (other is not group or group.loops):
            for use in other.uses:
                if other is not group or use.other == group.name:
                    use.view(weights)[waiting[other.name]] = 0.0
    return weights
