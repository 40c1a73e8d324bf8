"""The static tables of a run: which edge of the graph each entry of the state is, and who its members are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan, prod

from trajtools import wiring as rules
from trajtools.errors import ArchitectureError

KINDS = ("dense", "conv", "bias", "norm", "embedding", "recurrent", "other")
NOISES = ("common", "independent")


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

    Parameters
    ----------
    shapes : mapping of str to (tuple of int, str)
        Name to shape and dtype name, in the order of the state.
    kinds : mapping of str to str, optional
        Name to one of `KINDS`, as far as the framework knows; names that are not in `shapes` are passed over.
    axes : mapping of str to (int, int), optional
        Name to source and target axis, as far as the framework knows; -1 for none. Torch's ``Linear`` is (1, 0).
    wiring : mapping of str to (str, str) or None, optional
        What the user says: name or glob to the names of source and target set, or to None for "no edges".
        Wins over all rules; an exact name wins over a glob, a later glob over an earlier one.

    Returns
    -------
    parameters : tuple of Parameter
        In the order of the state.
    nodes : tuple of NodeSet
        In the order of the layers, the bias node last.

    Raises
    ------
    SelectionError
        If the wiring names a parameter that does not exist.
    ArchitectureError
        If the sizes of a wiring or the axes do not fit the shapes; the message says which.

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
    known = rules.infer_kinds(bare, kinds or {})
    ends, used, sizes = rules.connect(bare, known, rules.infer_axes(bare, known, axes or {}), wiring or {})
    table, offset = [], 0
    for name, shape in bare.items():
        source, target = ends.get(name, (None, None))
        size = prod(shape)
        table.append(Parameter(name, known[name], shape, shapes[name][1], offset, size, source, target, *used[name]))
        offset += size
    return tuple(table), tuple(NodeSet(name, size) for name, size in sizes.items())
