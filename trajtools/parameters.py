"""The static tables of a run: which edge of the graph each entry of the state is, and who its members are."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, prod

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
