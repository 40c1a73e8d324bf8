"""Static tables of a run: parameters, members, and the nodes that each parameter connects."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import nan, prod

from trajtools.errors import ArchitectureError, SelectionError

FLOATS = ("float16", "bfloat16", "float32", "float64")  # dtypes of a state
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
        Name in the framework, e.g. ``0.weight``.
    kind : str
        One of `KINDS`.
    shape : tuple of int
        Shape of the array; stored in C order.
    dtype : str
        NumPy name of the dtype in training (``bfloat16`` included), before any promotion.
    offset, size : int
        The entries ``offset .. offset + size`` of the state.
    source, target : str or None
        Node sets at which the edges start and end; None if the entries are not edges.
    source_axis, target_axis : int
        Axes of `shape` that run over the source and the target nodes; -1 if there is none
        (a bias has no source axis: all its edges start at the single bias node).
    undirected : bool
        Whether the entries (i, j) and (j, i) are one undirected edge, so that the array is symmetric.

    Examples
    --------
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"0.weight": ((3, 2), "float64"), "0.bias": ((3,), "float64")})
    >>> table[0].name, table[0].shape, table[0].offset, table[1].kind
    ('0.weight', (3, 2), 0, 'bias')
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
    undirected: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"parameter {self.name!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if prod(self.shape) != self.size:
            raise ValueError(
                f"parameter {self.name!r}: shape {self.shape} has {prod(self.shape)} entries, but size is {self.size}"
            )


@dataclass(frozen=True)
class NodeSet:
    """A named set of nodes of the graph (a layer of units, the bias node, ...).

    Examples
    --------
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"0.weight": ((3, 2), "float64"), "0.bias": ((3,), "float64")})
    >>> [(node.name, node.size) for node in nodes]
    [('input', 2), ('0', 3), ('bias', 1)]
    """

    name: str
    size: int


@dataclass(frozen=True)
class Member:
    """One network of a run.

    Attributes
    ----------
    name : str
        Any name, unique in the run.
    reference : int
        Index of the member of which this one is a perturbed copy; -1 for a reference.
    epsilon : float
        Size of the perturbation in `norm`; NaN if there was none or it is unknown.
    norm : str
        ``"uniform"``: every perturbed entry drawn from Uniform(-epsilon, epsilon); ``"gaussian"``: epsilon is the
        standard deviation of an entry; ``""``: not perturbed, or unknown.
    seed : int
        Seed of the perturbation (of twins) or of the initial condition; -1 if unknown.
    noise : str
        ``"common"``: the batches of its reference; ``"independent"``: its own.

    Examples
    --------
    >>> Member("copy", reference=0, epsilon=1e-8, norm="relative", seed=1).reference
    0
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
    """Parameters and node sets of a network: the edge that each entry of the state represents.

    Notes
    -----
    These rules apply unless the arguments override them. In a name, the part before the last dot (or slash) is the
    layer, the rest the parameter.

    *Kinds.* 2 axes: dense, or embedding or recurrent (``_ih``, ``_hh``) by name. 4 axes: conv; 3 or 5 axes: conv by
    name. 1 axis: bias by name, or if its size is that of an axis of a kernel in its layer; norm by the name of the
    layer or the parameter, or if it is a ``weight`` without a kernel, together with its bias. All others: other.

    *Axes.* Kernels are (in, out), convolutions (..., in, out). If the bias of a layer only fits the other axis, the
    kernel is (out, in, ...); if this holds for every kernel with a decisive bias, it applies to all kernels without
    explicit axes.

    *Edges.* A layer reads the node set of the previous layer in the state if the sizes agree, else a new set
    ``<layer>:in`` (a flattened image has more entries than the convolution has channels). The first layer reads
    ``input``. A layer ends at a set with its name. Every position of a convolution kernel is a parallel edge. A
    recurrent cell has one set of hidden units at which it starts and ends (through ``<cell>:gates`` if there are
    several gates); the next layer reads the hidden units. An embedding goes from ``<layer>:vocabulary`` to its
    features. A bias goes from the node ``bias`` to the target set of its kernel. Norm, other, and kernels whose axes do
    not run over a full set (grouped convolutions) are not edges.

    The order of the state is assumed to be the order of the layers, in a single chain: skip connections, attention and
    parallel heads need `wiring` where their sizes agree by coincidence.

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


def infer_kinds(shapes: Mapping[str, Shape], explicit: Mapping[str, str]) -> dict[str, str]:
    """Kind of every parameter: explicit, else from its name and its number of axes.

    Examples
    --------
    >>> infer_kinds({"W": (2, 3), "b": (3,)}, {})
    {'W': 'dense', 'b': 'bias'}
    """
    kinds = {name: explicit.get(name) or _kernel_kind(name, shape) for name, shape in shapes.items()}
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
        # A bias with a scale and without a kernel shifts a normalised activation: it belongs to the norm.
        group_kinds = {kinds[n] for n in names}
        if "norm" in group_kinds and not group_kinds & set(KERNELS):
            kinds.update({n: "norm" for n in names if kinds[n] == "bias" and n not in explicit})
    return kinds


def _split(name: str) -> tuple[str, str]:
    """Split into layer and parameter: ``fc.weight`` -> ``fc``, ``weight``."""
    prefix, _, short = name.removesuffix(":0").replace("/", ".").rpartition(".")
    return prefix, short


def _kernel_kind(name: str, shape: Shape) -> str:
    """Kind of an array with two or more axes, from its name and shape; empty if it is not a kernel."""
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
    """Whether a parameter other than a kernel belongs to a normalisation."""
    if _NORM.search(prefix.rpartition(".")[2]) or short in ("scale", "gamma", "beta"):
        return True
    return not has_kernel and bool(_SCALE.search(short))


def connect(
    shapes: Mapping[str, Shape],
    kinds: Mapping[str, str],
    axes: Mapping[str, Axes],
    wiring: Mapping[str, tuple[str, str] | None],
) -> tuple[dict[str, Ends], dict[str, Axes], dict[str, int]]:
    """Source and target set of every parameter, its axes, and the sizes of the node sets.

    Examples
    --------
    >>> shapes = {"W": (2, 3), "b": (3,)}
    >>> kinds = infer_kinds(shapes, {})
    >>> ends, _, sizes = connect(shapes, kinds, infer_axes(shapes, kinds, {}), {})
    >>> sizes
    {'input': 2, 'W': 3, 'bias': 1}
    """
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
    """Graph under construction: call `place` for every kernel, then for every bias."""

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
        self._origin: dict[str, str] = {}  # node set -> parameter that determined its size
        self._target: dict[str, str] = {}  # kernel -> target set of its biases
        self._current: str | None = None  # target set of the last layer
        self._beside: dict[tuple[str, int], list[tuple[int, str]]] = {}  # layer, size of a set -> place, set of kernels
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
        """Determine source and target of the parameter."""
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
        """Place all kernels of a recurrent cell, which share its set of hidden units."""
        members = [n for n in self._cells[_cell(first)] if n not in self.wired and -1 not in self.axes[n]]
        loops = [n for n in members if _hidden_to_hidden(n, *self._counts(n))]
        hidden = self._counts(loops[0])[0] if loops else self._counts(first)[1]
        cell, before = _cell(first) or self._label(first), self._current
        # Without an input kernel, the units of the previous layer are the hidden units.
        own = before if before and len(loops) == len(members) and self.sizes[before] == hidden else cell
        inputs = {n: self._start(n, self._counts(n)[0]) for n in members if n not in loops}
        self._declare(own, hidden, (loops or members)[0])
        for name in members:
            target = self._counts(name)[1]
            end = own if target == hidden else self._declare(f"{cell}:gates", target, name)
            self._join(name, inputs.get(name, own), end)
        self._current = own

    def _place_unknown(self, name: str) -> None:
        """Exclude a kernel whose axes do not run over a full node set; its biases define its target set."""
        biases = [bias for bias, kernel in self._kernel.items() if kernel == name]
        self._current = None
        if biases and len(self.shapes[biases[0]]) == 1:
            self._current = self._declare(self._label(name), self.shapes[biases[0]][0], biases[0])
            self._end(name, self._current)

    def _place_bias(self, name: str) -> None:
        shape = self.shapes[name]
        # With broadcasting, the bias of a convolution has shape (channels, 1, 1).
        if not shape or self.axes[name] == NOWHERE or any(n != 1 for n in shape[1:]):
            return
        size = shape[0]
        target = self._end_of_bias(name, size) or self._declare(self._free(_split(name)[0] or name), size, name)
        self._declare(BIAS_NODE, 1, name)
        self.ends[name], self.used[name] = (BIAS_NODE, target), (-1, 0)

    def _end_of_bias(self, name: str, size: int) -> str | None:
        """Target set of this size of the kernel of a bias, else of the nearest kernel in its layer."""
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
            raise ArchitectureError(f"wiring of {name!r}: a scalar connects no nodes; set its wiring to None")
        source, target = (1 if a < 0 else shape[a] for a in axes)
        for node_set, size in zip(ends, (source, target), strict=True):
            if self.sizes.get(node_set, size) != size:
                raise ArchitectureError(
                    f"wiring of {name!r}: its shape {shape} connects {source} -> {target} nodes, but {node_set!r} has "
                    f"{self.sizes[node_set]} nodes from {self._origin[node_set]!r}; use a set of {size} nodes, or a "
                    "new one"
                )
            self._declare(node_set, size, name)
        self.ends[name], self.used[name] = ends, axes
        if self.kinds[name] != "bias":
            self._current = ends[1]
            self._end(name, ends[1])
            self._begun = True

    def _start(self, name: str, size: int) -> str:
        """Source set of a layer: the target of the previous layer if the sizes agree, else a new set."""
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
                f"node set {node_set!r} has {known} nodes from {self._origin[node_set]!r}, but {size} from {name!r}; "
                f"specify the nodes of {name!r} with wiring={{{name!r}: (source, target)}}"
            )
        self._origin.setdefault(node_set, name)
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
    """Kernel of each bias: the one in its layer with a matching name, or the only one."""
    layers: dict[str, list[str]] = {}
    tagged: dict[tuple[str, str], list[str]] = {}
    for name in (n for n, kind in kinds.items() if kind in KERNELS):
        prefix, short = _split(name)
        layers.setdefault(prefix, []).append(name)
        tagged.setdefault((prefix, _tag(short)), []).append(name)
    partners = {}
    for name in (n for n, kind in kinds.items() if kind == "bias"):
        prefix, short = _split(name)
        candidates = tagged.get((prefix, _tag(short))) or layers.get(prefix, [])
        if len(candidates) == 1:
            partners[name] = candidates[0]
    return partners


def _tag(short: str) -> str:
    """Part of a short name other than "weight" or "bias": ``b1`` -> ``1``, ``bias_ih_l0`` -> ``_ih_l0``."""
    tag = _WEIGHT.sub("", re.sub(r"bias(es)?", "", short))
    return _LETTER.sub("", tag) if tag == short else tag


def _hidden_to_hidden(name: str, source: int, target: int) -> bool:
    """Whether a recurrent kernel starts at the hidden units: by name, else if it is square."""
    if _INPUT_TO_HIDDEN.search(name):
        return False
    return bool(_HIDDEN_TO_HIDDEN.search(name)) or source == target


def _cell(name: str) -> str:
    """Recurrent cell of a kernel: gates, and ``_ih`` and ``_hh`` in torch, belong to one cell."""
    prefix, short = _split(name)
    parent, _, last = prefix.rpartition(".")
    if _GATE.search(last):
        return parent or last
    layer = re.search(r"_[ih]h_?(.*)$", short)
    number = layer[1] if layer else re.sub(r"^.*?(\d*)$", r"\1", short)
    return ".".join(part for part in (prefix, number) if part)


def _spread(wiring: Mapping[str, tuple[str, str] | None], names: Sequence[str]) -> dict[str, Ends | None]:
    """Wiring by parameter name: an exact name takes precedence over a glob, a later glob over an earlier one."""
    wired: dict[str, Ends | None] = {}
    for glob, ends in sorted(wiring.items(), key=lambda item: item[0] in names):
        matched = [glob] if glob in names else [n for n in names if fnmatchcase(n, glob)]
        if not matched:
            raise SelectionError(f"wiring contains {glob!r}, which matches none of {', '.join(names[:20])}")
        if ends is not None and (len(ends) != 2 or isinstance(ends, str) or not all(isinstance(e, str) for e in ends)):
            raise SelectionError(f"wiring of {glob!r} is {ends!r}; it must be (source, target), two names, or None")
        wired.update(dict.fromkeys(matched, None if ends is None else (ends[0], ends[1])))
    return wired


def infer_axes(shapes: Mapping[str, Shape], kinds: Mapping[str, str], explicit: Mapping[str, Axes]) -> dict[str, Axes]:
    """Source and target axis of every parameter: explicit, else (in, out), or (out, in) if the biases require it.

    Examples
    --------
    >>> shapes = {"W": (2, 3), "b": (3,)}
    >>> infer_axes(shapes, infer_kinds(shapes, {}), {})["W"]
    (0, 1)
    """
    for name, axis in explicit.items():
        if name in shapes and not all(-1 <= a < len(shapes[name]) for a in axis):
            raise ArchitectureError(f"axes {axis} of {name!r} do not exist: its shape is {shapes[name]}")
    axes = {name: _default_axes(kinds[name], len(shape)) for name, shape in shapes.items()}
    flipped = {name: _flipped(kinds[name], len(shape)) for name, shape in shapes.items()}
    votes: dict[str, set[bool]] = {}
    for name, kernel in _partners(kinds).items():
        if len(shapes[name]) != 1 or kernel in explicit:
            continue
        size, ways = shapes[name][0], (axes[kernel], flipped[kernel])
        fits, fits_flipped = (way != NOWHERE and shapes[kernel][way[1]] == size for way in ways)
        if fits != fits_flipped:
            votes.setdefault(kernel, set()).add(fits_flipped)
    axes.update({kernel: flipped[kernel] for kernel, ballots in votes.items() if ballots == {True}})
    if votes and all(ballots == {True} for ballots in votes.values()):
        axes.update({n: a for n, a in flipped.items() if a != NOWHERE})
    axes.update({n: a for n, a in explicit.items() if n in shapes})
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


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Names for a message, cut after `limit` of them.

    Examples
    --------
    >>> listed("abcd", limit=2)
    "'a', 'b', ... (4 in all)"
    """
    all_names = list(names)
    more = f", ... ({len(all_names)} in all)" if len(all_names) > limit else ""
    return ", ".join(map(repr, all_names[:limit])) + more


def select(names: Sequence[str], include: str | Sequence[str], exclude: str | Sequence[str]) -> list[str]:
    """The names that match a glob of `include` (none given: all) and none of `exclude`, in their order.

    Examples
    --------
    >>> select(["0.weight", "0.bias", "2.weight"], "*.weight", "2.*")
    ['0.weight']
    """
    include, exclude = ([value] if isinstance(value, str) else list(value) for value in (include, exclude))
    if not names:
        raise SelectionError("the state has no parameters; it needs at least one array")
    for glob in [*include, *exclude]:
        if not any(fnmatchcase(name, glob) for name in names):
            raise SelectionError(f"no parameter matches {glob!r}; the parameters are {listed(names)}")
    chosen = [name for name in names if is_selected(name, include, exclude)]
    if not chosen:
        raise SelectionError(f"include and exclude together select no parameter of {listed(names)}")
    return chosen


def is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a name matches a glob of `include`, or there is none, and none of `exclude`.

    Examples
    --------
    >>> is_selected("0.bias", ["*.weight"], [])
    False
    """
    included = not include or any(fnmatchcase(name, glob) for glob in include)
    return included and not any(fnmatchcase(name, glob) for glob in exclude)
