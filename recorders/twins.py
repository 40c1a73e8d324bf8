"""Perturbed copies of a network: seeded, framework-free, mapping in, mappings out.

The numbers are drawn here, in float64 and in the order of the parameters, whatever framework the weights live in; so
the same seed makes bit-equal twins in numpy, torch and jax.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from recorders.adapter import dtype_name
from trajtools.errors import PerturbationError, RecordingError
from trajtools.wiring import FLOATS, Member, describe, listed, select

DISTRIBUTIONS = ("uniform", "gaussian")
LARGEST_ROUNDED = 0.01


class Twin(dict[str, Any]):
    """A perturbed copy, {name: array}, that knows how it was made.

    Parameters
    ----------
    arrays : mapping of str to array
        The parameters.
    member : Member
        What the members table of a run says about it; `reference` counts from the network it was copied from.
    made : mapping, optional
        Settings of the perturbation, for the provenance of the run.
    """

    def __init__(self, arrays: Mapping[str, Any], *, member: Member, made: Mapping[str, Any] | None = None) -> None:
        super().__init__(arrays)
        self.member = member
        self.made = dict(made or {})


class TwinList(list[Twin]):
    """The copies that `perturb` made.

    Parameters
    ----------
    twins : iterable of Twin
        The copies.
    rounded_fraction : float
        Fraction of the perturbed entries, pooled over the copies, that rounding left unchanged.
    """

    def __init__(self, twins: Iterable[Twin], rounded_fraction: float) -> None:
        super().__init__(twins)
        self.rounded_fraction = rounded_fraction

    @property
    def members(self) -> tuple[Member, ...]:
        """The rows of the members table, one per copy."""
        return tuple(twin.member for twin in self)


@dataclass
class _Count:
    """Perturbed entries, and how many of them rounding left as they were."""

    perturbed: int = 0
    unchanged: int = 0


def perturb(
    params: Mapping[str, Any],
    epsilon: float | Mapping[str, Any],
    members: int,
    seed: int,
    *,
    distribution: str = "uniform",
    only: str | Sequence[str] = "weights",
    allow_rounded: bool = False,
    kinds: Mapping[str, str] | None = None,
) -> TwinList:
    """Make perturbed copies of a network.

    Parameters
    ----------
    params : mapping of str to ndarray
        The reference, real floating-point arrays; it is not changed. Order matters: it is the order of the draws.
    epsilon : float or mapping of str to float or array
        Size of the perturbation of an entry, in units of the weights: the half-width of the uniform, the standard
        deviation of the Gaussian distribution. A mapping glob -> size gives each parameter the size of the first glob
        that matches it (an array: per entry, broadcast to the parameter); the others stay as they are. 0 makes exact
        copies, as a control.
    members : int
        Number of copies.
    seed : int
        Copy i draws from ``numpy.random.default_rng([seed, i])``, in float64.
    distribution : {"uniform", "gaussian"}
        Uniform(-epsilon, epsilon), or normal with standard deviation epsilon.
    only : {"weights", "all"} or globs of parameter names
        What is perturbed; "weights" is everything but biases and normalisation. With a mapping, its globs decide.
    allow_rounded : bool
        Accept an epsilon that the dtype rounds away; the fraction is recorded in any case.
    kinds : mapping of str to str, optional
        Kinds of parameters (see `trajtools.wiring.Parameter`) that their names and shapes do not tell.

    Returns
    -------
    TwinList
        Of `Twin`, with ``.members`` and ``.rounded_fraction``.

    Raises
    ------
    PerturbationError
        If rounding leaves more than 1 % of all perturbed entries unchanged, pooled over the copies, or if the
        arguments make no perturbation.
    SelectionError
        If a glob matches no parameter.
    """
    _check(params, members, seed, distribution)
    sizes = _sizes(params, epsilon, only, kinds)
    count = _Count()
    copies = [_copy(params, sizes, np.random.default_rng([seed, i]), distribution, count) for i in range(members)]
    fraction = count.unchanged / count.perturbed if count.perturbed else 0.0
    if fraction > LARGEST_ROUNDED and not allow_rounded:
        _refuse_rounded(params, sizes, fraction)
    # The members table has room for one size; sizes per parameter stand in the provenance.
    size = float("nan") if isinstance(epsilon, Mapping) else float(epsilon)
    made = {
        "epsilon": {g: _summary(e) for g, e in epsilon.items()} if isinstance(epsilon, Mapping) else size,
        "distribution": distribution,
        "seed": int(seed),
        "copies": int(members),
        "perturbed": list(sizes),
        "rounded_fraction": fraction,
    }
    rows = [Member(f"twin {i}", 0, size, distribution, int(seed)) for i in range(members)]
    return TwinList([Twin(c, member=m, made=made) for c, m in zip(copies, rows, strict=True)], fraction)


def _summary(epsilon: Any) -> float | str:
    array = np.asarray(epsilon, np.float64)
    return float(array) if array.ndim == 0 else f"array {array.shape}, {array.min():.3g} to {array.max():.3g}"


def _check(params: Mapping[str, Any], members: int, seed: int, distribution: str) -> None:
    if operator.index(members) < 1:
        raise PerturbationError(f"members={members}: it must be at least one copy")
    if operator.index(seed) < 0:
        raise PerturbationError(f"seed={seed}: it must be at least 0")
    if distribution not in DISTRIBUTIONS:
        raise PerturbationError(f"distribution={distribution!r}: it must be one of {', '.join(DISTRIBUTIONS)}")
    for name, array in params.items():
        if not hasattr(array, "dtype") or dtype_name(array) not in FLOATS:
            kind = dtype_name(array) if hasattr(array, "dtype") else type(array).__name__
            raise PerturbationError(
                f"{name!r} is {kind}; a network is perturbed in {', '.join(FLOATS)}. Remove it from the mapping"
            )


def _sizes(
    params: Mapping[str, Any], epsilon: Any, only: str | Sequence[str], kinds: Mapping[str, str] | None
) -> dict[str, np.ndarray]:
    """Size of the perturbation of each perturbed parameter, in the order of the parameters."""
    names = list(params)
    if isinstance(epsilon, Mapping):
        if not (isinstance(only, str) and only == "weights"):
            raise PerturbationError("a mapping epsilon already selects the perturbed parameters: omit only=")
        for glob in epsilon:
            select(names, [glob], ())
        size_of = {n: next((size for glob, size in epsilon.items() if fnmatchcase(n, glob)), None) for n in names}
    else:
        chosen = set(_chosen(params, only, kinds))
        size_of = {n: epsilon if n in chosen else None for n in names}
    sizes = {}
    for name, size in size_of.items():
        if size is None:
            continue
        array = np.asarray(size, np.float64)
        try:
            np.broadcast_to(array, params[name].shape)
        except ValueError as error:
            raise PerturbationError(
                f"epsilon of {name!r} has shape {array.shape}, the parameter {params[name].shape}"
            ) from error
        if not np.isfinite(array).all() or (array < 0).any():
            raise PerturbationError(f"epsilon of {name!r} must be finite and not negative, got {size!r:.60}")
        sizes[name] = array
    return sizes


def _chosen(params: Mapping[str, Any], only: str | Sequence[str], kinds: Mapping[str, str] | None) -> list[str]:
    if isinstance(only, str) and only == "all":
        return list(params)
    if not (isinstance(only, str) and only == "weights"):
        return select(list(params), only, ())
    table, _ = describe({n: (tuple(a.shape), dtype_name(a)) for n, a in params.items()}, kinds=kinds)
    weights = [parameter.name for parameter in table if parameter.kind not in ("bias", "norm")]
    if not weights:
        raise PerturbationError(
            f"there are no weights among {listed(params)}, by their names and shapes; pass only='all' or globs"
        )
    return weights


def _copy(
    params: Mapping[str, Any],
    sizes: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    distribution: str,
    count: _Count,
) -> dict[str, Any]:
    copy = {}
    for name, original in params.items():
        array = np.array(original)  # a copy, C order or not
        if name in sizes:
            unit = (
                rng.uniform(-1.0, 1.0, array.shape) if distribution == "uniform" else rng.standard_normal(array.shape)
            )
            moved = (array.astype(np.float64) + sizes[name] * unit).astype(array.dtype)
            perturbed = np.broadcast_to(sizes[name] > 0, array.shape)
            count.perturbed += int(perturbed.sum())
            count.unchanged += int((_bits(moved) == _bits(array))[perturbed].sum())
            array = moved
        copy[name] = array
    return copy


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))


def _refuse_rounded(params: Mapping[str, Any], sizes: Mapping[str, np.ndarray], fraction: float) -> None:
    dtypes = sorted({dtype_name(params[name]) for name in sizes})
    largest = max((float(np.abs(np.asarray(params[n], np.float64)).max(initial=0.0)) for n in sizes), default=0.0)
    raise PerturbationError(
        f"rounding to {' and '.join(dtypes)} leaves {fraction:.1%} of the perturbed entries as they were (allowed: "
        f"{LARGEST_ROUNDED:.0%}; the largest weight is {largest:.3g}), so the copies would not differ as intended. "
        "Take a larger epsilon, train in float64, or accept it with allow_rounded=True: the fraction is then recorded"
    )


class Twins:
    """What the twins of torch and JAX share: their members, the choice of a vectorised step, and who records them.

    Attributes
    ----------
    members : tuple of Member
        Entries of the members table; the reference is the first.
    made : dict
        Settings of the perturbation, as the provenance of a run gets them, and the fraction that was rounded away.
    """

    def __init__(self, members: Sequence[Member], made: Mapping[str, Any], vectorize: bool | str) -> None:
        self.members = tuple(members)
        self.made = dict(made)
        self._vectorize = vectorize
        self._plan: tuple[bool, str] | None = (False, "vectorize=False") if vectorize is False else None
        self._plans: dict[Any, tuple[bool, str]] = {}
        self._recorder: Any = None

    def __len__(self) -> int:
        return len(self.members)

    @property
    def vectorized(self) -> bool | None:
        """Whether the last step computed all members in one vectorised pass; None before the first."""
        return self._plan[0] if self._plan else None

    @property
    def reason(self) -> str:
        """Why the steps are vectorised or not, in words; empty before the first step."""
        return self._plan[1] if self._plan else ""

    def attach(self, recorder: Any) -> None:
        """Let a recorder follow every step; a recorder opened on the twins does this by itself.

        Parameters
        ----------
        recorder : Recorder or None
            What gets the losses and the new state; None ends it.

        Raises
        ------
        RecordingError
            If another recorder follows already.
        """
        if recorder is not None and self._recorder is not None:
            raise RecordingError("a recorder already follows these twins: close it before opening another one")
        self._recorder = recorder


def check_vectorize(vectorize: bool | str) -> None:
    """Refuse what `vectorize` cannot be."""
    if vectorize not in (True, False, "auto"):
        raise ValueError(f'vectorize={vectorize!r}: it must be True, False or "auto"')
