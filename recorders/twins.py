"""Perturbed copies of a network: seeded, framework-free, mapping in, mappings out.

The numbers are drawn here, in float64 and in the order of the parameters, whatever framework the weights live in; so
the same seed makes bit-equal twins in numpy, torch and jax.
"""

from __future__ import annotations

import logging
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from recorders.adapter import dtype_name
from recorders.live import Growth
from recorders.planting import CACHED, Planting, Replant, Room, Schedule, seed_of, squared_gaps
from trajtools.errors import PerturbationError, RecordingError
from trajtools.wiring import FLOATS, Member, describe, listed, select
from trajtools.wording import counted

_log = logging.getLogger("recorders")

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

    Examples
    --------
    >>> import numpy as np
    >>> from recorders import perturb
    >>> twin = perturb({"w": np.ones(4)}, epsilon=1e-6, members=1, seed=0)[0]
    >>> twin.member.epsilon, twin["w"].shape
    (1e-06, (4,))
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
    perturbation : Perturbation, optional
        What moved them, to move other copies in the same way.

    Examples
    --------
    >>> import numpy as np
    >>> from recorders import perturb
    >>> twins = perturb({"w": np.ones(4)}, epsilon=1e-6, members=2, seed=0)
    >>> len(twins), twins.rounded_fraction
    (2, 0.0)
    """

    def __init__(
        self, twins: Iterable[Twin], rounded_fraction: float, perturbation: Perturbation | None = None
    ) -> None:
        super().__init__(twins)
        self.rounded_fraction = rounded_fraction
        self.perturbation = perturbation

    @property
    def members(self) -> tuple[Member, ...]:
        """The rows of the members table, one per copy."""
        return tuple(twin.member for twin in self)


@dataclass
class _Count:
    """Perturbed entries, and how many of them rounding left as they were."""

    perturbed: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class Perturbation:
    """Sizes and distribution of a perturbation: all but the seed and the network.

    Attributes
    ----------
    sizes : tuple of dict of str to ndarray of float64
        For each epsilon, the size of every perturbed parameter, a number or an array that broadcasts to it, in the
        order of the parameters. Copies take the epsilons in turn.
    distribution : str
        ``"uniform"`` or ``"gaussian"``.
    """

    sizes: tuple[dict[str, np.ndarray], ...]
    distribution: str

    def moved(
        self, params: Mapping[str, Any], seed: int, copy: int, count: _Count | None = None
    ) -> dict[str, np.ndarray]:
        """Arrays of a copy of the network, moved by the draws of ``default_rng([seed, copy])``."""
        sizes, rng = self.sizes[copy % len(self.sizes)], np.random.default_rng([seed, copy])
        return _copy(params, sizes, rng, self.distribution, _Count() if count is None else count)


def perturb(
    params: Mapping[str, Any],
    epsilon: float | Sequence[float] | Mapping[str, Any] | None,
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
    epsilon : float, list of float, mapping of str to float or array, or None
        Size of the perturbation of an entry, in units of the weights: the half-width of the uniform, the standard
        deviation of the Gaussian distribution. A mapping glob -> size gives each parameter the size of the first glob
        that matches it (an array: per entry, broadcast to the parameter); the others stay as they are. 0 makes exact
        copies, as a control. A list: the copies take its sizes in turn; their rates at equal times show whether they
        depend on epsilon. None: from the dtype and the size of the weights, see `default_epsilon`.
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

    Examples
    --------
    >>> import numpy as np
    >>> from recorders import perturb
    >>> twins = perturb({"w": np.ones(4)}, epsilon=1e-6, members=2, seed=0)
    >>> len(twins), bool(np.allclose(twins[0]["w"], 1.0, atol=1e-5))
    (2, True)
    """
    _check(params, members, seed, distribution)
    if epsilon is None:
        epsilon, allow_rounded = default_epsilon(params, only, kinds), True
    epsilons = _in_turn(epsilon, members)
    perturbation = Perturbation(tuple(_sizes(params, one, only, kinds) for one in epsilons), distribution)
    sizes, count = perturbation.sizes[0], _Count()
    copies = [perturbation.moved(params, seed, i, count) for i in range(members)]
    fraction = count.unchanged / count.perturbed if count.perturbed else 0.0
    if fraction > LARGEST_ROUNDED and not allow_rounded:
        _refuse_rounded(params, sizes, fraction)
    # The members table has room for one size; sizes per parameter stand in the provenance.
    values = [float("nan") if isinstance(one, Mapping) else float(one) for one in epsilons]
    made = {
        "epsilon": {g: _summary(e) for g, e in epsilon.items()}
        if isinstance(epsilon, Mapping)
        else values
        if len(values) > 1
        else values[0],
        "distribution": distribution,
        "seed": int(seed),
        "copies": int(members),
        "perturbed": list(sizes),
        "rounded_fraction": fraction,
    }
    rows = [Member(f"twin {i}", 0, values[i % len(values)], distribution, int(seed)) for i in range(members)]
    made["room"] = room_of(params, copies, sizes, several=len(values) > 1)._asdict()
    twins = [Twin(c, member=m, made=made) for c, m in zip(copies, rows, strict=True)]
    return TwinList(twins, fraction, perturbation)


def _in_turn(epsilon: Any, members: int) -> list[Any]:
    """Return the epsilons that the copies take in turn."""
    if not isinstance(epsilon, Sequence) or isinstance(epsilon, str):
        return [epsilon]
    numbers = all(isinstance(one, int | float | np.number) and 0 < one < float("inf") for one in epsilon)
    if not (0 < len(epsilon) <= members and numbers):
        raise PerturbationError(
            f"a list of epsilons holds positive numbers, at most one for each of the {members} copies, got {epsilon!r}"
        )
    return list(epsilon)


def default_epsilon(
    params: Mapping[str, Any], only: str | Sequence[str] = "weights", kinds: Mapping[str, str] | None = None
) -> float:
    """Size of a perturbation that rounding does not disturb and that leaves room to grow.

    Parameters
    ----------
    params : mapping of str to ndarray
        The network.
    only, kinds : as for `perturb`
        What is perturbed.

    Returns
    -------
    float
        The root mean square s of what is perturbed (1 where all of it is 0) times ``max(1e-11, min(256 u, sqrt(u)))``,
        u the roundoff of the coarsest dtype among it: 1e-11 s in float64, 1.5e-5 s in float32, rounded to two digits.

    Notes
    -----
    Rounding adds about u s to the distance at every step, and the dynamics multiply it as they multiply the
    perturbation: over the time of an e-fold it adds up to u s times the steps of an e-fold, at most. The factor 256
    keeps a growth of an e-fold in a hundred steps that of the perturbation. The size of an update is not known before
    the first one, and does not enter: it bounds the room (see `Twins.room`), not the rounding of the weights.
    """
    chosen = [params[name] for name in _chosen(params, only, kinds)]
    count = sum(array.size for array in chosen)
    square = sum(float((piece**2).sum()) for array in chosen for (piece,) in _pieces(array))
    scale = (square / count) ** 0.5 if count else 0.0
    u = max(roundoff(array) for array in chosen)
    return float(f"{(scale if np.isfinite(scale) and scale > 0 else 1.0) * max(1e-11, min(256 * u, u**0.5)):.2g}")


def roundoff(array: Any) -> float:
    """Half the distance from 1 to the next number of the dtype of an array."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}[dtype_name(array)]


def floor_of(params: Mapping[str, Any]) -> float:
    """Euclidean distance of two copies of a network that were rounded independently, as `tt.distances` has it."""
    squares = 0.0
    with np.errstate(over="ignore"):
        for array in params.values():
            bits = _bits(np.asarray(array).reshape(-1))
            infinity = _bits(np.array(np.inf, array.dtype))  # its bits are those of the exponent
            for at in range(0, bits.size, CACHED):
                powers = (bits[at : at + CACHED] & infinity).view(array.dtype).astype(np.float64)
                squares += (2 * roundoff(array)) ** 2 * float(np.dot(powers, powers))
    return (squares / 6) ** 0.5


def _pieces(*arrays: Any) -> Iterator[list[np.ndarray]]:
    """Yield equal stretches of arrays of one shape in float64, short enough to need no memory beside a network."""
    flat = [np.asarray(array).reshape(-1) for array in arrays]
    for at in range(0, flat[0].size, CACHED):
        yield [np.asarray(one[at : at + CACHED], np.float64) for one in flat]


def are_beside(params: Mapping[str, Any], copies: Iterable[Mapping[str, Any]]) -> bool:
    """Whether copies lie beside a network: farther than rounding alone, which beside huge weights they do not."""
    floor, copies = floor_of(params), list(copies)
    squares: Any = sum(squared_gaps(array, [copy[name] for copy in copies]) for name, array in params.items())
    return bool(np.isfinite(floor) and (squares**0.5 > floor).all())


def room_of(
    params: Mapping[str, Any], copies: Sequence[Mapping[str, Any]], sizes: Mapping[str, Any], *, several: bool = False
) -> Room:
    """Room of a perturbation before anything is known of the training: up to the size of the perturbed weights.

    Of several epsilons, the largest leaves least above it, the smallest least below.
    """

    def norm(network: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> float:
        both = (network,) if other is None else (network, other)
        pieces = (piece for n in sizes for piece in _pieces(*(one[n] for one in both)))
        gaps = (piece[0] - piece[1] if len(piece) > 1 else piece[0] for piece in pieces)
        return float(np.sqrt(sum(float((gap**2).sum()) for gap in gaps)))

    moved = [norm(copy, params) for copy in copies]
    smallest, largest = (min(moved), max(moved)) if several else (float(np.mean(moved)),) * 2
    return Room(_e_folds(largest, norm(params)), _e_folds(floor_of(params), smallest))


def _e_folds(start: float, end: float) -> float:
    return float(np.log(end / start)) if start > 0 and end > 0 else float("nan")


def _summary(epsilon: Any) -> float | str:
    array = np.asarray(epsilon, np.float64)
    return float(array) if array.ndim == 0 else f"array {array.shape}, {array.min():.3g} to {array.max():.3g}"


def _check(params: Mapping[str, Any], members: int, seed: int, distribution: str) -> None:
    for name, value, least in (("members", members, 1), ("seed", seed, 0)):
        if not hasattr(value, "__index__") or operator.index(value) < least:
            raise PerturbationError(f"{name}={value!r}: it must be an integer of at least {least}")
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
        try:
            array = np.asarray(size, np.float64)
        except (TypeError, ValueError) as error:
            raise PerturbationError(f"epsilon of {name!r} must be numbers, got {size!r:.60}") from error
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
        copy[name] = array = np.array(original, order="C")
        if name not in sizes:
            continue
        flat, size = array.reshape(-1), sizes[name]
        size = size if size.ndim == 0 else np.broadcast_to(size, array.shape).reshape(-1)
        for at in range(0, flat.size, CACHED):
            piece = flat[at : at + CACHED]
            each = size if size.ndim == 0 else size[at : at + CACHED]
            unit = rng.uniform(-1.0, 1.0, len(piece)) if distribution == "uniform" else rng.standard_normal(len(piece))
            moved = (piece.astype(np.float64) + each * unit).astype(array.dtype)
            perturbed = np.broadcast_to(each > 0, piece.shape)
            count.perturbed += int(np.count_nonzero(perturbed))
            count.unchanged += int(np.count_nonzero((_bits(moved) == _bits(piece)) & perturbed))
            piece[...] = moved
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


class Twins(ABC):
    """What the twins of torch and JAX share: their members, the choice of a vectorised step, and who records them.

    Attributes
    ----------
    members : tuple of Member
        Entries of the members table; the reference is the first.
    made : dict
        Settings of the perturbation, as the provenance of a run gets them, and the fraction that was rounded away.
    plantings : list of Planting
        Every planting so far, the first at step 0 included; steps as the recorder counts them where one follows.
    """

    def __init__(
        self,
        members: Sequence[Member],
        made: Mapping[str, Any],
        vectorize: bool | str,
        *,
        perturbation: Perturbation,
        replant: Replant,
    ) -> None:
        self.members = tuple(members)
        self.made = {**made, "replant": replant}
        self.plantings: list[Planting] = []
        self._perturbation = perturbation
        self._schedule = Schedule(range(1, len(self.members)), replant)
        if not any(np.any(size > 0) for sizes in perturbation.sizes for size in sizes.values()):
            self._schedule.is_over = True  # exact copies are a control
        self._updates = 0
        self._growth = Growth()
        self._gaps: dict[int, float] = {}  # distances of copies after the newest update
        self._vectorize = vectorize
        self._plan: tuple[bool, str] | None = (False, "vectorize=False") if vectorize is False else None
        self._plans: dict[Any, tuple[bool, str]] = {}
        self._recorder: Any = None

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        copies = counted(len(self) - 1, "copy", "copies")
        sizes = sorted({member.epsilon for member in self.members[1:]})
        epsilon = f"epsilon={sizes[0]:.3g}" + (f" to {sizes[-1]:.3g}" if len(sizes) > 1 else "")
        later = len(self.plantings) - len(self) + 1
        planted = f", planted anew {counted(later, 'time')}" if later > 0 else ""
        recorder = self._recorder
        path = "" if recorder is None else f", recorded to {str(recorder.path)!r}"
        after = counted(self._updates, "update")
        return f"<{type(self).__name__}: a reference and {copies}, {epsilon}, after {after}{planted}{path}>"

    @property
    def vectorized(self) -> bool | None:
        """Whether the last step computed all members in one vectorised pass; None before the first."""
        return self._plan[0] if self._plan else None

    @property
    def reason(self) -> str:
        """Why the steps are vectorised or not, in words; empty before the first step."""
        return self._plan[1] if self._plan else ""

    @property
    def room(self) -> Room:
        """Room of the newest plantings, in e-folds: up to saturation, and down to rounding."""
        newest = {row.member: row.norm for row in self.plantings}
        above, below = self.made["room"]["above"], self.made["room"]["below"]
        if np.isfinite(self._schedule.saturation):
            above = _e_folds(float(np.mean(list(newest.values()))), self._schedule.saturation)
        return Room(above, below)

    @property
    def live(self) -> dict[str, float]:
        """Numbers of the copies now, see `recorders.live.Growth`; a look costs one pass over the weights."""
        return self._growth.numbers(self._updates, self._measure())

    def _measure(self, copies: Iterable[int] | None = None) -> np.ndarray:
        """Distances of all copies now, NaN where they are not known; these copies (or all) are measured if need be."""
        every = range(1, len(self.members))
        missing = [copy for copy in copies or every if copy not in self._gaps]
        if missing:
            new = dict(zip(missing, self._distances(missing).tolist(), strict=True))
            self._growth.note(self._updates, self._in_order(new))
            self._gaps |= new
        return self._in_order(self._gaps)

    def _in_order(self, distances: Mapping[int, float]) -> np.ndarray:
        return np.array([distances.get(copy, np.nan) for copy in range(1, len(self.members))])

    def _start(self) -> None:
        """Enter the first planting, once the members stand."""
        self._enter_plantings(0, range(1, len(self.members)), self._network())
        narrow = sorted({dtype_name(array) for array in self._network().values()} - {"float64"})
        if narrow and not self._schedule.is_over:
            room = Room(**self.made["room"])
            _log.warning(
                "the twins are %s: %.0f e-folds lie between their perturbation and the size of the weights, %.0f "
                "between rounding and their perturbation (float64: 25 and 11). Growth and decay are measured within "
                "these; train in float64 where more is needed",
                " and ".join(narrow), room.above, room.below,
            )  # fmt: skip

    @abstractmethod
    def _network(self) -> dict[str, np.ndarray]:
        """The parameters of the reference, on the host."""

    @abstractmethod
    def _distances(self, copies: Sequence[int]) -> np.ndarray:
        """Euclidean distances of some copies to the reference, (len(copies),) float64."""

    @abstractmethod
    def _plant(self, moved: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Make members anew from the reference: parameters as given, all else of the training copied."""

    def _replant(self, updates: int = 1, step: int | None = None) -> None:
        """Plant what the schedule wants after updates, before the state is recorded; `step` is the recorder's."""
        self._updates += updates
        self._gaps = {}
        recorder = self._recorder
        if step is None:
            step = self._updates if recorder is None else recorder.step + 1
        due = self._due(step)
        if not due:
            return
        network = self._network()
        seed = seed_of(self._seed, self._updates)
        moved = {copy: self._perturbation.moved(network, seed, copy - 1) for copy in due}
        if not are_beside(network, moved.values()):
            self._schedule.is_over = True  # a training that has diverged does not come back
            return
        self._measure(due)  # where the stretches end
        self._plant(moved)
        self._enter_plantings(step, due, network)

    def _due(self, step: int) -> tuple[int, ...]:
        """Copies to plant in the state of a step."""
        recorder = self._recorder
        if self._schedule.is_over or not (recorder is None or recorder._takes_plantings(step)):
            return ()
        return self._schedule.due(self._updates, self._measure, self._network)

    def _enter_plantings(self, step: int, copies: Iterable[int], network: Mapping[str, np.ndarray]) -> None:
        copies = tuple(copies)
        new = dict(zip(copies, self._distances(copies).tolist(), strict=True))
        distances = self._in_order(new)
        self._schedule.planted(self._updates, copies, distances, floor_of(network))
        self._growth.planted(self._updates, copies, distances)
        self._gaps |= new
        seed = seed_of(self._seed, self._updates)
        rows = [Planting(step, copy, self.members[copy].epsilon, seed, new[copy]) for copy in copies]
        self.plantings += rows
        if self._recorder is not None:
            self._recorder.plant(rows)

    @property
    def _seed(self) -> int:
        return self.members[1].seed

    def _newest_plantings(self) -> list[Planting]:
        """How the copies stand beside the reference now, for a recorder that opens."""
        newest = {row.member: row for row in self.plantings}
        distances = self._distances(list(newest)).tolist()
        return [row._replace(norm=norm) for row, norm in zip(newest.values(), distances, strict=True)]

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
