"""The static tables of a run, and which nodes the entries of each parameter connect."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import nan, prod

from trajtools.errors import ArchitectureError, SelectionError

KINDS = ("dense", "conv", "bias", "norm", "embedding", "recurrent", "other")
NOISES = ("common", "independent")
Shape = tuple[int, ...]
Axes = tuple[int, int]  # source axis, target axis; -1 for none
Ends = tuple[str, str]  # source set, target set
BIAS_NODE = "bias"
INPUT = "input"
NOWHERE: Axes = (-1, -1)
KERNELS = ("dense", "conv", "recurrent", "embedding")
_BIAS = re.compile(r"bias(es)?|(^|_)[bB]_?\d*$|^[bB](?=[_\d]|[hxio]+$)")
_WEIGHT = re.compile(r"weights?|kernels?")
_LETTER = re.compile(r"^[wWbB]")
_SCALE = re.compile(r"^(weight|scale|gamma|beta)$")
_NORM = re.compile(r"norm|^bn_?\d*$|^ln(_\w+|\d*)$", re.IGNORECASE)
_RECURRENT = re.compile(r"_hh|_ih|recurrent")
_HIDDEN_TO_HIDDEN = re.compile(r"_hh|recurrent|(^|\.)h[figonrz]?\.(kernel|weight)$")
_INPUT_TO_HIDDEN = re.compile(r"_ih|(^|\.)i[figonrz]?\.(kernel|weight)$")
_GATE = re.compile(r"^[hi][figonrz]?$")


@dataclass(frozen=True)
class Parameter:
    """One named array of the network and its place in the flat state.

    Attributes
    ----------
    name : str
        As the framework calls it, e.g. ``0.weight``.
    kind : str
        One of `KINDS`.
    shape : tuple of int
        Shape of the array; the state holds it in C order.
    dtype : str
        NumPy name of the dtype in training (``bfloat16`` included), before any promotion.
    offset, size : int
        The entries ``offset .. offset + size`` of the state.
    source, target : str or None
        Node sets that the edges start and end at; None where the entries are no edges.
    source_axis, target_axis : int
        Axes of `shape` that run over the source and the target nodes; -1 where there is none
        (a bias has no source axis: all its edges start at the one bias node).
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    size: int
    source: str | None = None
    target: str | None = None
    source_axis: int = -1
    target_axis: int = -1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"parameter {self.name!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if prod(self.shape) != self.size:
            raise ValueError(
                f"parameter {self.name!r}: shape {self.shape} holds {prod(self.shape)} entries, size says {self.size}"
            )


@dataclass(frozen=True)
class NodeSet:
    """A named set of nodes of the graph (a layer of units, the one bias node, ...)."""

    name: str
    size: int


@dataclass(frozen=True)
class Member:
    """One network of a run.

    Attributes
    ----------
    name : str
        Free; unique in the run.
    reference : int
        Index of the member that this one is a perturbed copy of; -1 for a reference.
    epsilon : float
        Size of the perturbation, as `norm` measures it; NaN where there was none or it is unknown.
    norm : str
        ``"uniform"``: every perturbed entry drawn from Uniform(-epsilon, epsilon); ``"gaussian"``: epsilon is the
        standard deviation of an entry; ``""``: not perturbed, or unknown.
    seed : int
        Seed of the perturbation (of twins) or of the initial condition; -1 where unknown.
    noise : str
        ``"common"``: the same batches as its reference; ``"independent"``: its own.
    """

    name: str
    reference: int = -1
    epsilon: float = nan
    norm: str = ""
    seed: int = -1
    noise: str = "common"

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise ValueError(f"member {self.name!r}: noise {self.noise!r} is none of {', '.join(NOISES)}")


def describe(
    shapes: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    kinds: Mapping[str, str] | None = None,
    axes: Mapping[str, tuple[int, int]] | None = None,
    wiring: Mapping[str, tuple[str, str] | None] | None = None,
) -> tuple[tuple[Parameter, ...], tuple[NodeSet, ...]]:
    """Describe the state of a network: which edge of the graph each entry is.

    Notes
    -----
    The rules, where nothing else is said. What is before the last dot (or slash) is the layer, the rest the
    parameter.

    *Kinds.* 2 axes: dense, or embedding or recurrent (``_ih``, ``_hh``) by name. 4 axes: conv; 3 or 5 axes: conv if
    the name says so. 1 axis: bias if its name says so, or its size is one of a kernel in its layer; norm if the layer
    or the parameter is named so, or it is a ``weight`` without a kernel, together with its bias. All else: other.

    *Axes.* Kernels are (in, out), convolutions (..., in, out). If the bias of a layer only fits the other axis, the
    kernel is (out, in, ...); if all that tell are so, then all kernels without given axes are.

    *Edges.* A layer reads the node set of the layer before it in the state where the sizes agree, else a new set
    ``<layer>:in``: a flattened image, say, has more entries than the convolution has channels. The first reads
    ``input``. A layer ends at a set named after it. Every position of a convolution kernel is a parallel edge. A
    recurrent cell has one set of hidden units that it starts and ends at (through ``<cell>:gates`` where there are
    several gates); the next layer reads the hidden units. An embedding goes from ``<layer>:vocabulary`` to its
    features. A bias goes from the one node ``bias`` to the target set of the kernel beside it. Norm, other, and kernels
    whose axes run over no whole set (grouped convolutions) are no edges.

    The order of the state is taken for the order of the layers, and branches for a chain: skip connections, attention
    and parallel heads need `wiring` where their sizes happen to agree.

    Examples
    --------
    >>> table, nodes = describe({"W1": ((4, 10), "float64"), "b1": ((10,), "float64"), "W2": ((10, 3), "float64")})
    >>> [(p.name, p.source, p.target) for p in table]
    [('W1', 'input', 'W1'), ('b1', 'bias', 'W1'), ('W2', 'W1', 'W2')]
    >>> [(n.name, n.size) for n in nodes]
    [('input', 4), ('W1', 10), ('W2', 3), ('bias', 1)]
    """
    bare = {name: tuple(int(n) for n in shape) for name, (shape, _) in shapes.items()}
    for name in bare:
        if kinds is not None and kinds.get(name, "other") not in KINDS:
            raise ArchitectureError(f"parameter {name!r}: kind {kinds[name]!r} is none of {', '.join(KINDS)}")
    known = infer_kinds(bare, kinds or {})
    ends, used, sizes = connect(bare, known, infer_axes(bare, known, axes or {}), wiring or {})
    table, offset = [], 0
    for name, shape in bare.items():
        source, target = ends.get(name, (None, None))
        size = prod(shape)
        table.append(Parameter(name, known[name], shape, shapes[name][1], offset, size, source, target, *used[name]))
        offset += size
    return tuple(table), tuple(NodeSet(name, size) for name, size in sizes.items())


def infer_kinds(shapes: Mapping[str, Shape], given: Mapping[str, str]) -> dict[str, str]:
    """Kind of every parameter: as given, else from its name and its number of axes."""
    kinds = {name: given.get(name) or _kernel_kind(name, shape) for name, shape in shapes.items()}
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(_split(name)[0], []).append(name)
    for name, shape in shapes.items():
        if kinds[name]:
            continue
        prefix, short = _split(name)
        kernels = [n for n in groups[prefix] if kinds[n] in KERNELS]
        if len(shape) == 1 and _in_norm(prefix, short, bool(kernels)):
            kinds[name] = "norm"
        elif len(shape) == 1 and (_BIAS.search(short) or any(shape[0] in shapes[n] for n in kernels)):
            kinds[name] = "bias"
        else:
            kinds[name] = "other"
    for names in groups.values():
        # A bias beside a scale and no kernel shifts a normalised activity: it is part of the norm.
        found = {kinds[n] for n in names}
        if "norm" in found and not found & set(KERNELS):
            kinds.update({n: "norm" for n in names if kinds[n] == "bias" and n not in given})
    return kinds


def _split(name: str) -> tuple[str, str]:
    """Split into the layer's path and the parameter's own short name: ``fc.weight`` -> ``fc``, ``weight``."""
    prefix, _, short = name.removesuffix(":0").replace("/", ".").rpartition(".")
    return prefix, short


def _kernel_kind(name: str, shape: Shape) -> str:
    """Kind of an array of two axes or more by its name and shape; empty where it is no kernel."""
    if len(shape) < 2 or _BIAS.search(_split(name)[1]):
        return ""
    if len(shape) == 2:
        if "embed" in name.lower():
            return "embedding"
        return "recurrent" if _RECURRENT.search(name) else "dense"
    if len(shape) == 4 or (len(shape) in (3, 5) and "conv" in name.lower()):
        return "conv"
    return ""


def _in_norm(prefix: str, short: str, has_kernel: bool) -> bool:
    """Whether a parameter that is no kernel belongs to a normalisation."""
    if _NORM.search(prefix.rpartition(".")[2]) or short in ("scale", "gamma", "beta"):
        return True
    return not has_kernel and bool(_SCALE.search(short))


def connect(
    shapes: Mapping[str, Shape],
    kinds: Mapping[str, str],
    axes: Mapping[str, Axes],
    wiring: Mapping[str, tuple[str, str] | None],
) -> tuple[dict[str, Ends], dict[str, Axes], dict[str, int]]:
    """Say for every parameter which node sets it connects, along which of its axes."""
    graph = _Graph(shapes, kinds, axes, _spread(wiring, list(shapes)))
    for name in shapes:
        if kinds[name] != "bias":
            graph.place(name)
    for name in shapes:
        if kinds[name] == "bias":
            graph.place(name)
    sizes = {n: s for n, s in graph.sizes.items() if n != BIAS_NODE}
    if BIAS_NODE in graph.sizes:
        sizes[BIAS_NODE] = graph.sizes[BIAS_NODE]
    return graph.ends, graph.used, sizes


class _Graph:
    """The graph while it is being put together: `place` is called kernel by kernel, then bias by bias."""

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        kinds: Mapping[str, str],
        axes: Mapping[str, Axes],
        wired: Mapping[str, Ends | None],
    ) -> None:
        self.shapes, self.kinds, self.axes, self.wired = shapes, kinds, axes, wired
        self.ends: dict[str, Ends] = {}
        self.used: dict[str, Axes] = dict.fromkeys(shapes, NOWHERE)
        self.sizes: dict[str, int] = {}
        self._because: dict[str, str] = {}  # node set -> parameter that gave it its size
        self._target: dict[str, str] = {}  # kernel -> set that its biases end at
        self._beside: dict[tuple[str, int], list[tuple[int, str]]] = {}  # layer, size of a set -> place, set of kernels
        self._current: str | None = None  # the set that the last layer ends at
        self._begun = False
        self._order = {name: index for index, name in enumerate(shapes)}
        self._kernel = _partners(kinds)
        kernels = [n for n in shapes if kinds[n] in KERNELS]
        prefixes = [_split(n)[0] for n in kernels]
        alone = {p for p, count in Counter(prefixes).items() if p and count == 1 and p not in kinds}
        self._cells: dict[str, list[str]] = {}
        for name in (n for n in kernels if kinds[n] == "recurrent"):
            self._cells.setdefault(_cell(name), []).append(name)
        self._labels = {n: p if p in alone else n for n, p in zip(kernels, prefixes, strict=True)}

    def place(self, name: str) -> None:
        """Give the parameter its ends."""
        kind = self.kinds[name]
        if name in self.wired:
            self._place_wired(name, self.wired[name])
        elif kind == "bias":
            self._place_bias(name)
        elif kind in KERNELS and name not in self._target:
            if -1 in self.axes[name]:
                self._place_unknown(name)
            elif kind == "recurrent":
                self._place_cell(name)
            else:
                self._place_kernel(name)
            self._begun = True

    def _place_kernel(self, name: str) -> None:
        source, target = self._counts(name)
        if self.kinds[name] == "embedding":
            start = self._declare(f"{self._label(name)}:vocabulary", source, name)
        else:
            start = self._start(name, source)
        self._join(name, start, self._declare(self._label(name), target, name))
        self._current = self._target[name]

    def _place_cell(self, first: str) -> None:
        """Place all kernels of a recurrent cell: they share the set of hidden units, which the cell ends at."""
        members = [n for n in self._cells[_cell(first)] if n not in self.wired and -1 not in self.axes[n]]
        loops = [n for n in members if _hidden_to_hidden(n, *self._counts(n))]
        hidden = self._counts(loops[0])[0] if loops else self._counts(first)[1]
        cell, before = _cell(first) or self._label(first), self._current
        # Without a kernel from the input, the units of the layer before are the ones that loop.
        own = before if before and len(loops) == len(members) and self.sizes[before] == hidden else cell
        inputs = {n: self._start(n, self._counts(n)[0]) for n in members if n not in loops}
        self._declare(own, hidden, (loops or members)[0])
        for name in members:
            target = self._counts(name)[1]
            end = own if target == hidden else self._declare(f"{cell}:gates", target, name)
            self._join(name, inputs.get(name, own), end)
        self._current = own

    def _place_unknown(self, name: str) -> None:
        """Leave out a kernel whose axes run over no whole node set, but let its biases say what it ends at."""
        biases = [bias for bias, kernel in self._kernel.items() if kernel == name]
        self._current = None
        if biases and len(self.shapes[biases[0]]) == 1:
            self._current = self._declare(self._label(name), self.shapes[biases[0]][0], biases[0])
            self._end(name, self._current)

    def _place_bias(self, name: str) -> None:
        shape = self.shapes[name]
        # Frameworks that broadcast give the bias of a convolution the shape (channels, 1, 1).
        if not shape or self.axes[name] == NOWHERE or any(n != 1 for n in shape[1:]):
            return
        size = shape[0]
        target = self._end_of_bias(name, size) or self._declare(self._free(_split(name)[0] or name), size, name)
        self._declare(BIAS_NODE, 1, name)
        self.ends[name], self.used[name] = (BIAS_NODE, target), (-1, 0)

    def _end_of_bias(self, name: str, size: int) -> str | None:
        """Set of this size that the kernel of a bias ends at: its own kernel, else the nearest one beside it."""
        own = self._kernel.get(name)
        if own in self._target and self.sizes[self._target[own]] == size:
            return self._target[own]
        beside = self._beside.get((_split(name)[0], size), [])
        place = bisect_left(beside, (self._order[name], ""))
        return beside[max(0, place - 1)][1] if beside else None

    def _place_wired(self, name: str, ends: Ends | None) -> None:
        if ends is None:
            return
        axes, shape = self.axes[name], self.shapes[name]
        if self.kinds[name] == "bias" or len(shape) == 1:
            axes = (-1, 0)
        elif -1 in axes:
            axes = (len(shape) - 2, len(shape) - 1)
        if not shape:
            raise ArchitectureError(f"wiring of {name!r}: a single number connects no nodes; wire it to None")
        source, target = (1 if a < 0 else shape[a] for a in axes)
        for node_set, size in zip(ends, (source, target), strict=True):
            if self.sizes.get(node_set, size) != size:
                raise ArchitectureError(
                    f"wiring of {name!r}: its shape {shape} connects {source} -> {target} nodes, but {node_set!r} has "
                    f"{self.sizes[node_set]} nodes by {self._because[node_set]!r}; name a set of {size} nodes, "
                    "or a new one"
                )
            self._declare(node_set, size, name)
        self.ends[name], self.used[name] = ends, axes
        if self.kinds[name] != "bias":
            self._current = ends[1]
            self._end(name, ends[1])
            self._begun = True

    def _start(self, name: str, size: int) -> str:
        """Set that a layer reads: the one before where the sizes agree, else one of its own."""
        if not self._begun:
            return self._declare(INPUT, size, name)
        if self._current is not None and self.sizes[self._current] == size:
            return self._current
        return self._declare(f"{self._label(name)}:in", size, name)

    def _join(self, name: str, source: str, target: str) -> None:
        self.ends[name], self.used[name] = (source, target), self.axes[name]
        self._end(name, target)

    def _end(self, name: str, target: str) -> None:
        """Let the biases of a kernel end where it ends."""
        self._target[name] = target
        insort(self._beside.setdefault((_split(name)[0], self.sizes[target]), []), (self._order[name], target))

    def _declare(self, node_set: str, size: int, name: str) -> str:
        known = self.sizes.setdefault(node_set, size)
        if known != size:
            raise ArchitectureError(
                f"node set {node_set!r} has {known} nodes by {self._because[node_set]!r}, but {size} by {name!r}; "
                f"say what {name!r} connects with wiring={{{name!r}: (source, target)}}"
            )
        self._because.setdefault(node_set, name)
        return node_set

    def _counts(self, name: str) -> tuple[int, int]:
        source, target = self.axes[name]
        return self.shapes[name][source], self.shapes[name][target]

    def _label(self, name: str) -> str:
        label = self._labels[name]
        return f"{label}:out" if label in (INPUT, BIAS_NODE) else label

    def _free(self, label: str) -> str:
        return f"{label}:out" if label in (INPUT, BIAS_NODE) or label in self.sizes else label


def _partners(kinds: Mapping[str, str]) -> dict[str, str]:
    """The kernel that each bias belongs to: the one in its layer that is called as it is, or the only one."""
    layers: dict[str, list[str]] = {}
    tagged: dict[tuple[str, str], list[str]] = {}
    for name in (n for n, kind in kinds.items() if kind in KERNELS):
        prefix, short = _split(name)
        layers.setdefault(prefix, []).append(name)
        tagged.setdefault((prefix, _tag(short)), []).append(name)
    partners = {}
    for name in (n for n, kind in kinds.items() if kind == "bias"):
        prefix, short = _split(name)
        found = tagged.get((prefix, _tag(short))) or layers.get(prefix, [])
        if len(found) == 1:
            partners[name] = found[0]
    return partners


def _tag(short: str) -> str:
    """What a short name says beside "weight" or "bias": ``b1`` -> ``1``, ``bias_ih_l0`` -> ``_ih_l0``."""
    tag = _WEIGHT.sub("", re.sub(r"bias(es)?", "", short))
    return _LETTER.sub("", tag) if tag == short else tag


def _hidden_to_hidden(name: str, source: int, target: int) -> bool:
    """Whether a recurrent kernel starts at the hidden units: its name says so, else it is square."""
    if _INPUT_TO_HIDDEN.search(name):
        return False
    return bool(_HIDDEN_TO_HIDDEN.search(name)) or source == target


def _cell(name: str) -> str:
    """The recurrent cell that a kernel belongs to: gates, and torch's ``_ih`` and ``_hh``, are pieces of one."""
    prefix, short = _split(name)
    parent, _, last = prefix.rpartition(".")
    if _GATE.search(last):
        return parent or last
    layer = re.search(r"_[ih]h_?(.*)$", short)
    number = layer[1] if layer else re.sub(r"^.*?(\d*)$", r"\1", short)
    return ".".join(part for part in (prefix, number) if part)


def _spread(wiring: Mapping[str, tuple[str, str] | None], names: Sequence[str]) -> dict[str, Ends | None]:
    """What the user says, name by name: an exact name wins over a glob, a later glob over an earlier one."""
    wired: dict[str, Ends | None] = {}
    for glob, ends in sorted(wiring.items(), key=lambda item: item[0] in names):
        matched = [glob] if glob in names else [n for n in names if fnmatchcase(n, glob)]
        if not matched:
            raise SelectionError(f"wiring names {glob!r}, which no parameter matches; they are {', '.join(names[:20])}")
        if ends is not None and (len(ends) != 2 or isinstance(ends, str) or not all(isinstance(e, str) for e in ends)):
            raise SelectionError(f"wiring of {glob!r} is {ends!r}; it must be (source, target), two names, or None")
        wired.update(dict.fromkeys(matched, None if ends is None else (ends[0], ends[1])))
    return wired


def infer_axes(shapes: Mapping[str, Shape], kinds: Mapping[str, str], given: Mapping[str, Axes]) -> dict[str, Axes]:
    """Source and target axis of every parameter: as given, else (in, out), unless the biases fit (out, in) alone."""
    for name, axis in given.items():
        if name in shapes and not all(-1 <= a < len(shapes[name]) for a in axis):
            raise ArchitectureError(f"axes {axis} of {name!r} do not exist: its shape is {shapes[name]}")
    axes = {name: _default_axes(kinds[name], len(shape)) for name, shape in shapes.items()}
    flipped = {name: _flipped(kinds[name], len(shape)) for name, shape in shapes.items()}
    votes: dict[str, set[bool]] = {}
    for name, kernel in _partners(kinds).items():
        if len(shapes[name]) != 1 or kernel in given:
            continue
        size, ways = shapes[name][0], (axes[kernel], flipped[kernel])
        fits, fits_flipped = (way != NOWHERE and shapes[kernel][way[1]] == size for way in ways)
        if fits != fits_flipped:
            votes.setdefault(kernel, set()).add(fits_flipped)
    axes.update({kernel: flipped[kernel] for kernel, ballots in votes.items() if ballots == {True}})
    if votes and all(ballots == {True} for ballots in votes.values()):
        axes.update({n: a for n, a in flipped.items() if a != NOWHERE})
    axes.update({n: a for n, a in given.items() if n in shapes})
    return axes


def _default_axes(kind: str, ndim: int) -> Axes:
    if kind == "bias":
        return (-1, 0) if ndim == 1 else NOWHERE
    if kind == "conv" and ndim >= 3:
        return (ndim - 2, ndim - 1)
    return (0, 1) if kind in KERNELS and ndim == 2 else NOWHERE


def _flipped(kind: str, ndim: int) -> Axes:
    """Axes of a kernel that is stored as (out, in, ...)."""
    if (kind == "conv" and ndim >= 3) or (kind in ("dense", "recurrent") and ndim == 2):
        return (1, 0)
    return NOWHERE
