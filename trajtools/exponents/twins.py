"""Twins: divergence between a trajectory and its perturbed copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.equal_times import as_states, check_alike, chunk_of, common, read_rows, to_references
from trajtools.distances.metric import MetricLike, bind_metric, find_metric
from trajtools.errors import DataError, SelectionError, UnknownNameError
from trajtools.exponents.applicability import optimizer_of
from trajtools.exponents.divergence import (
    Divergence,
    Record,
    align_records,
    clean,
    count_left_out,
    left_out_warnings,
    size_classes,
)
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.statistics import AVERAGES, ROUNDING_MARGIN, average_curves, mean_curve
from trajtools.trajectory import Pair
from trajtools.types import Floats, Ints, TimeStepLike
from trajtools.wording import counted

if TYPE_CHECKING:
    from trajtools.store import Run

TwinsLike: TypeAlias = "Run | Pair | Sequence[Run | Pair]"
"""Twins of one or several initial conditions."""
LEAST_ABOVE = 9.0  # 2 e-folds of alignment, 3 of growth, and ln 50 below saturation


@takes_states("x", pairs=True, runs=True)
def twins(
    x: TwinsLike,
    *,
    metric: MetricLike | None = None,
    average: str = "mean-log",
    dt: TimeStepLike = None,
    window: tuple[int, int] | None = None,
    start: int | Sequence[int] | None = None,
    select: Sequence[str] = (),
) -> Divergence:
    r"""Growth of the distance between a trajectory and its perturbed copies.

    Parameters
    ----------
    x : Run, pair, or list of Runs or pairs
        A run with twins; or ``(reference, [perturbed, ...])``, each a Trajectory or an array (T, P) or (T,), all of
        the same length; or a list of these. Every reference is one initial condition; pairs with the same reference
        object share it.
    metric : str, callable, Metric or None
        Distance between states, see `tt.distances.METRICS`. A run that stores distances supports only its own metric,
        one that stores sketches only ``"l2"``. None: these, and ``"l1"`` where weights are stored.
    average : str
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``; see Notes.
    dt : float, duration, array_like or None
        Time between two steps: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples of an array. None keeps the unit of the data (one
        optimiser step for runs).
    window : (int, int) or None
        Use only the states whose step s fulfils ``window[0] <= s < window[1]``.
    start : int, sequence of int or None
        Step of the first state of each pair, for arrays that are segments of longer trajectories; one number, or one
        per pair. None: 0, or the step of the Trajectory.
    select : sequence of str
        Globs of parameter names, for runs that store weights: only these are compared.

    Returns
    -------
    Divergence
        One curve per twin and planting, aligned at the step of its perturbation: the first recorded step at which it
        differs from its reference.

    Raises
    ------
    DataError
        If there is no twin, a run comes twice, shapes or steps do not match, or stored distances have another metric.
    UnknownNameError
        If there is no such metric or average.
    SelectionError
        If no state lies in the window.

    Notes
    -----
    .. math:: S(t) = \langle \langle \ln d_{ij}(t) \rangle_j \rangle_i

    over the copies j of the initial conditions i: the mean of the logarithms, as in [1]_ and [2]_ for neighbours of one
    trajectory. ``"log-mean"`` is :math:`\ln \langle d_{ij} \rangle_j`, the logarithm of the mean over the copies of
    *one* initial condition, as in [3]_; it is larger and dominated by the fastest copy. ``"rms"`` is the same with the
    root mean square. No option averages over initial conditions before the logarithm: the few fastest would dominate
    that mean, which grows with the generalised exponent L(1), larger than the exponent.

    Twins that were planted anew beside their reference give a curve for each stretch from one planting to the next. The
    copies that were planted at one step are copies of one start (`Divergence.planting`). If some of them were planted
    again before the others, their shorter curves are left out and counted as ``n_cut_short``: they repeat the beginning
    of the others, and a mean over them would jump where they end. Copies whose first distances differ in size, because
    they were planted with different epsilons, are curves of their own (`Divergence.size`), which the fit compares at
    equal times of the training.

    A file is read and compared on as many threads of this process as numba is allowed (``NUMBA_NUM_THREADS``,
    `numba.set_num_threads`), each with about 16 MiB of states; the results do not depend on them.

    A curve ends where a weight becomes NaN or infinite (diverged training), or where the twin merges with its
    reference; both are counted. Distances of zero have no logarithm; they are excluded and counted.

    References
    ----------
    .. [1] M. T. Rosenstein, J. J. Collins, C. J. De Luca, Physica D 65, 117 (1993), doi:10.1016/0167-2789(93)90009-P
    .. [2] U. Parlitz, in Chaos Detection and Predictability (2016), doi:10.1007/978-3-662-48410-4_1
    .. [3] K. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), doi:10.3389/fcpxs.2024.1367957

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(40.0)
    >>> growth = tt.twins((1.1**t, [1.1**t + 1e-9 * 1.5**t]))
    >>> bool(np.allclose(np.diff(growth.log_distance), np.log(1.5)))
    True
    """
    if average not in AVERAGES:
        raise UnknownNameError(f"there is no average {average!r}; there are {', '.join(AVERAGES)}")
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise DataError(f"dt must be a positive number, got {dt}")
    whole = _sources(x)
    runs = [source for source in whole if _is_run(source)]
    chosen = find_metric(_only_metric(runs) if metric is None else metric)
    _refuse_repeated(runs)
    sources = [part for source in whole for part in (_selected(source, select) if select else [source])]
    offsets = _offsets(start, len(sources))
    parts: list[_TwinDistances] = []
    orbits: dict[int, int] = {}
    for source, offset in zip(sources, offsets, strict=True):
        part = _pair_distances(source, chosen, window, offset)
        # Pairs with the same reference object share an initial condition; the labels of runs are made unique here.
        known = orbits.get(id(source[0]), -1) if isinstance(source, tuple) else -1
        first = known if known >= 0 else sum(len(np.unique(p.group)) for p in parts)
        if isinstance(source, tuple):
            orbits[id(source[0])] = first
        parts.append(replace(part, group=part.group + first))
    growth = _assemble(parts, chosen.name, average, dt, window)
    return replace(growth, warnings=(*growth.warnings, *_differences(runs)))


def _sources(x: Any) -> list[Any]:
    """Return x as a list of Runs and of tuples (reference, copies)."""
    if _is_run(x):
        return [x]
    if _is_pair(x):
        return [_pair(x)]
    if isinstance(x, (list, tuple)) and x and all(_is_run(item) or _is_pair(item) for item in x):
        return [item if _is_run(item) else _pair(item) for item in x]
    raise DataError(
        "twins need a Run with members, a pair (reference, [perturbed, ...]) or a list of these, got "
        f"{type(x).__name__}; "
        "a single trajectory has no twins"
    )


def _only_metric(runs: Sequence[Any]) -> str:
    """The metric that runs without weights support, if there are any; one that supports no other names it."""
    without = [run for run in runs if run.stored != "weights"]
    return (without[0].distance_metric or "l2") if without else "l1"


def _refuse_repeated(runs: Sequence[Any]) -> None:
    """Refuse a run that comes twice, also in a copy of its file: its curves would count as independent."""
    by_uuid: dict[str, Any] = {}
    for run in runs:
        if run.uuid in by_uuid:
            first = by_uuid[run.uuid]
            raise DataError(f"{first.path} and {run.path} hold one run, which would count twice: pass it once")
        by_uuid[run.uuid] = run


def _differences(runs: Sequence[Any]) -> list[Reason]:
    """Warn of runs that are pooled and differ in more than their seeds."""
    names = sorted({name for run in runs for name in run.hparams if "seed" not in name})
    differing = [name for name in names if len({repr(run.hparams.get(name)) for run in runs}) > 1]
    if not differing:
        return []
    text = "the pooled runs differ in {names}: the exponent is one for trainings that may have several"
    return [Reason.of("runs-differ", text, names=", ".join(differing))]


def _is_run(x: Any) -> bool:
    return hasattr(x, "members") and hasattr(x, "trajectory") and not isinstance(x, (tuple, list))


def _is_pair(x: Any) -> bool:
    if not (isinstance(x, (list, tuple)) and len(x) == 2 and _is_state_like(x[0])):
        return False
    return _is_state_like(x[1]) or (isinstance(x[1], (list, tuple)) and all(_is_state_like(y) for y in x[1]))


def _is_state_like(x: Any) -> bool:
    return isinstance(x, np.ndarray) or (hasattr(x, "read") and hasattr(x, "step"))


def _pair(x: Any) -> tuple[Any, list[Any]]:
    reference, copies = x
    depth = getattr(reference, "ndim", 2)
    several = isinstance(copies, (list, tuple)) or copies.ndim == depth + 1
    return reference, list(copies) if several else [copies]


def _offsets(start: int | Sequence[int] | None, count: int) -> list[int | None]:
    if start is None:
        return [None] * count
    steps = np.atleast_1d(np.asarray(start))
    if steps.dtype.kind not in "iu" or steps.ndim != 1 or len(steps) not in (1, count):
        raise DataError(f"start must be one step or {count} of them (one per pair), as integers; got {start!r}")
    return [int(s) for s in np.broadcast_to(steps, (count,))]


class _SelectedPair(tuple[Any, list[Any]]):
    """A reference and its copies, out of a run whose twins were planted anew."""

    stretches: list[list[slice]]


def _selected(source: Any, select: Sequence[str]) -> list[_SelectedPair]:
    """Return the references of a run with their copies, some parameters of each."""
    if not _is_run(source) or source.stored != "weights":
        raise DataError(
            "select= takes parameters out of runs that store weights; of other trajectories, select them beforehand: "
            "Trajectory.select"
        )
    copies: dict[int, list[int]] = {}
    for index, member in enumerate(source.members):
        if member.reference >= 0:
            copies.setdefault(member.reference, []).append(index)
    pairs = []
    for i, twins_of_i in copies.items():
        states = [source.trajectory(j).select(*select) for j in (i, *twins_of_i)]
        pairs.append(_SelectedPair((states[0], states[1:])))
        pairs[-1].stretches = [source.stretches(j) for j in twins_of_i]
    return pairs


@dataclass(frozen=True, eq=False)
class _TwinDistances:
    """Twins of one run or pair, before alignment in time: distance (T, U), floor (T, U), the rest (U,).

    `stretches` are the rows of each twin between its plantings; None if they were planted once.
    """

    step: Ints
    distance: Floats
    floor: Floats
    scale: Floats
    group: Ints
    dt: float
    time_unit: str
    settings: dict[str, Any]
    warnings: tuple[Reason, ...] = ()
    stretches: list[list[slice]] | None = None
    speed: Floats | None = None  # of the reference, (T, U)

    def curves(self) -> Iterator[tuple[Ints, Record, bool]]:
        """Yield the curves: the twins, their record, and whether the next planting ended it.

        Consecutive twins whose curves lie beside each other come together.
        """
        length, count = len(self.step), self.distance.shape[1]
        distance, floor = (np.ascontiguousarray(one.T) for one in (self.distance, self.floor))
        is_plain = (np.isfinite(distance) & (distance != 0)).all(axis=1).tolist()
        stretches = [[slice(0, length)]] * count if self.stretches is None else self.stretches
        steps: dict[tuple[int, int], Ints] = {}  # one object for equal rows, which are then known to be equal
        first = 0
        while first < count:
            rows, last = stretches[first], first + 1
            while is_plain[first] and len(rows) == 1 and last < count and is_plain[last] and stretches[last] == rows:
                last += 1
            lasting = rows if len(rows) == 1 else [part for part in rows if part.stop - part.start > 1] or rows[:1]
            for part in lasting:
                step = steps.setdefault((part.start, part.stop), self.step[part])
                if is_plain[first] and len(step):
                    record = Record(step, distance[first:last, part], floor[first:last, part])
                else:
                    record = clean(step, distance[first, part], floor[first, part])
                yield np.arange(first, last), record, part.stop < length
            first = last


def _little_room(run: Any) -> list[Reason]:
    """Warn of a perturbation that can hardly grow, or that rounding disturbs, where the recorder measured its room."""
    made = getattr(run, "provenance", {}).get("perturbations") or [{}]
    room = made[0].get("room") if isinstance(made[0], dict) else None
    if not isinstance(room, dict):
        return []
    above, below = (float(room.get(name) or np.nan) for name in ("above", "below"))
    if not (above < LEAST_ABOVE or below < ROUNDING_MARGIN):
        return []
    if below + above > ROUNDING_MARGIN + LEAST_ABOVE:
        way = f"take a {'smaller' if above < LEAST_ABOVE else 'larger'} epsilon"
    else:
        way = "train in float64"
    return [
        Reason.of(
            "little-room",
            "the perturbation leaves {above:.0f} e-folds up to the size of the weights and {below:.0f} down to "
            "rounding; to follow it takes {least_above:.0f} and {least_below:.0f}: {way}",
            above=above,
            below=below,
            least_above=LEAST_ABOVE,
            least_below=ROUNDING_MARGIN,
            way=way,
        )
    ]


def _within(stretches: list[list[slice]], rows: slice) -> list[list[slice]]:
    """Return the stretches as rows of a window; one without rows in it has none."""
    if rows.start == 0 and all(part.stop <= rows.stop for of_twin in stretches for part in of_twin[-1:]):
        return stretches
    return [
        [
            slice(max(part.start, rows.start) - rows.start, min(part.stop, rows.stop) - rows.start)
            for part in of_twin
            if part.stop > rows.start and part.start < rows.stop
        ]
        for of_twin in stretches
    ]


def _cut_short(curves: Sequence[tuple[_TwinDistances, Ints, Record, bool]]) -> list[NDArray[np.bool_]]:
    """Say which curves a planting ended before the other copies of the same start."""
    if not any(is_cut for *_, is_cut in curves):
        return [np.zeros(len(units), bool) for _, units, _, _ in curves]
    sizes = size_classes(np.concatenate([record.distance[:, 0] for _, _, record, _ in curves])).tolist()
    groups = np.concatenate([part.group[units] for part, units, _, _ in curves]).tolist()
    records = [(record, is_cut) for _, units, record, is_cut in curves for _ in units]
    starts = [
        (group, int(record.step[0]), size) for group, size, (record, _) in zip(groups, sizes, records, strict=True)
    ]
    longest: dict[tuple[int, int, int], int] = {}
    for start, (record, _) in zip(starts, records, strict=True):
        longest[start] = max(longest.get(start, 0), len(record.step))
    each = zip(starts, records, strict=True)
    is_short = np.array([is_cut and len(record.step) < longest[start] for start, (record, is_cut) in each])
    return np.split(is_short, np.cumsum([len(units) for _, units, _, _ in curves])[:-1])


def _assemble(
    parts: list[_TwinDistances], metric: str, average: str, dt: float | None, window: tuple[int, int] | None
) -> Divergence:
    units = {(part.time_unit, part.dt) for part in parts}
    if dt is None and len(units) > 1:
        raise DataError(f"the trajectories have different units of time, {sorted(units)}; give dt= to use a common one")
    scale_of_time = parts[0].dt if dt is None else float(dt)
    every = [(part, *curve) for part in parts for curve in part.curves()]
    is_short = _cut_short(every)
    chosen = [
        (part, units[~short], replace(record, distance=record.distance[~short], floor=record.floor[~short]))
        if short.any()
        else (part, units, record)
        for (part, units, record, _), short in zip(every, is_short, strict=True)
        if not short.all()
    ]
    rows = [record for _, _, record in chosen]
    grid, distances, floor = align_records(rows)
    group = np.concatenate([part.group[units] for part, units, _ in chosen]).astype(np.int64)
    start = np.repeat(np.array([row.step[0] for row in rows], np.int64), [len(units) for _, units, _ in chosen])
    curves = average_curves(distances, group, start, average)
    counts = count_left_out(rows)
    settings: dict[str, Any] = {"metric": metric, "average": average, "dt": scale_of_time, "window": window}
    settings |= {
        "n_units": len(group),
        "n_references": len(np.unique(group)),
        "n_plantings": len(set(zip(group.tolist(), start.tolist(), strict=True))),
        "n_cut_short": int(sum(short.sum() for short in is_short)),
        **{f"n_{k}": v for k, v in counts.items()},
    }
    for name in dict.fromkeys(key for part in parts for key in part.settings):
        values = [part.settings.get(name) for part in parts]
        settings[name] = values[0] if all(value == values[0] for value in values) else values
    if "noise" in settings:
        settings["noise"] = _one_or_mixed({part.settings["noise"] for part in parts if "noise" in part.settings})
    warnings = [warning for part in parts for warning in part.warnings]
    return Divergence(
        method="twins",
        metric=metric,
        average=average,
        time=grid * scale_of_time,
        time_unit=parts[0].time_unit if dt is None else getattr(dt, "unit", "time"),
        log_distance=mean_curve(curves[0], curves[1]),
        distances=distances,
        group=group,
        start=start,
        floor=floor,
        scale=np.concatenate([part.scale[units] for part, units, _ in chosen]),
        speed=_aligned_speed([(part, units) for part, units, _ in chosen], start, distances.shape[1]),
        n_references=len(np.unique(group)),
        settings=settings,
        warnings=tuple(dict.fromkeys([*warnings, *left_out_warnings(counts, rows, "step")])),
    )


def _aligned_speed(curves: list[tuple[_TwinDistances, Ints]], start: Ints, length: int) -> Floats | None:
    """Speed of the reference of each unit from its perturbation on, (U, K + 1); None if any is unknown."""
    speed = np.full((len(start), length), np.nan)
    alike: dict[tuple[int, int], tuple[_TwinDistances, list[int], list[int]]] = {}  # of one part, from one step on
    at, begins = 0, start.tolist()
    for part, units in curves:
        _, rows, twins = alike.setdefault((id(part), begins[at]), (part, [], []))
        rows += range(at, at + len(units))
        twins += units.tolist()
        at += len(units)
    for (_, begin), (part, rows, twins) in alike.items():
        if part.speed is None:
            return None
        first = int(np.searchsorted(part.step, begin))
        own = part.speed[first : first + length, twins]
        speed[rows, : len(own)] = own.T
    return speed


def _one_or_mixed(noises: set[str]) -> str:
    """Batches of the twins: ``"common"``, ``"independent"`` or ``"mixed"``."""
    return noises.pop() if len(noises) == 1 else "mixed"


def _pair_distances(source: Any, metric: Any, window: tuple[int, int] | None, offset: int | None) -> _TwinDistances:
    if _is_run(source):
        return _run_distances(source, metric, window)
    reference, copies = source
    members = tuple(as_states(member, "a trajectory") for member in (reference, *copies))
    if len(members) < 2:
        raise DataError("a reference has no perturbed copy; give (reference, [perturbed, ...])")
    for member in members[1:]:
        check_alike(members[0], member)
    ensemble = _Copies(members)
    step = np.asarray(ensemble.step, dtype=np.int64)
    if offset is not None:
        step = step - step[0] + offset if len(step) else step
    rows = _rows(step, window)
    # The rounding floor is that of the narrowest dtype, whose rounding dominates the distance.
    dtypes = [str(member.dtype) for member in members]
    dtype = next((narrow for narrow in ("float16", "float32") if narrow in dtypes), dtypes[0])
    index = np.arange(1, len(members))
    bound = bind_metric(metric, *members)
    result = to_references(
        ensemble, index, np.zeros_like(index), bound, rows=rows, dtype=dtype, size=members[0].shape[1]
    )
    count = len(index)
    return _TwinDistances(
        step[rows],
        result.distance,
        np.repeat(result.floor, count, axis=1),
        np.repeat(result.scale, count),
        np.zeros(count, dtype=np.int64),
        float(getattr(reference, "dt", 1.0)),
        str(getattr(reference, "time_unit", "step")),
        {"stored": "weights", "dtype": dtype},
        stretches=_within(source.stretches, rows) if isinstance(source, _SelectedPair) else None,
        speed=np.repeat(result.speed, count, axis=1),
    )


@dataclass(frozen=True, eq=False)
class _Copies:
    """A reference and its copies as arrays or Trajectories, with the interface of a `Run`."""

    members: tuple[Any, ...]

    @property
    def step(self) -> Any:
        first = self.members[0]
        return np.asarray(first.step) if hasattr(first, "step") else np.arange(len(first), dtype=np.int64)

    @property
    def chunk(self) -> tuple[int, int]:
        """States and entries of a chunk of the files."""
        chunks = [chunk_of(member) for member in self.members]
        return max(rows for rows, _ in chunks), max(columns for _, columns in chunks)

    def by_member(self, rows: slice, members: Any, columns: slice) -> Any:
        """Return the states of some members, (m, t, p)."""
        blocks = [read_rows(self.members[m], rows.start, rows.stop, columns) for m in members]
        if len({block.dtype for block in blocks}) > 1:
            blocks = [common(block, np.empty((0, 0)))[0] for block in blocks]
        return np.stack(blocks)


def _rows(step: Ints, window: tuple[int, int] | None) -> slice:
    if len(step) == 0:
        raise DataError("the trajectories have no states")
    if window is None:
        return slice(0, len(step))
    inside = np.flatnonzero((step >= window[0]) & (step < window[1]))
    if len(inside) == 0:
        raise SelectionError(f"no state lies in the window {window}; the steps run from {step[0]} to {step[-1]}")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _run_distances(run: Any, metric: Any, window: tuple[int, int] | None) -> _TwinDistances:
    reference = np.array([member.reference for member in run.members], dtype=np.int64)
    twin = np.flatnonzero(reference >= 0)
    if len(twin) == 0:
        raise DataError(
            f"run {run.name!r} has {counted(len(reference), 'member')}, and none is a perturbed copy of another; "
            "record twins (`perturb`), or give pairs (reference, [perturbed, ...])"
        )
    origin = reference[twin]
    step = np.asarray(run.step, dtype=np.int64)
    rows = _rows(step, window)
    members = [run.members[i] for i in twin]
    warnings: list[Reason] = []
    if any(member.noise == "independent" for member in members):
        text = (
            "each twin used its own batches, so the distance grows by diffusion under any dynamics; only twins on "
            "common batches show sensitivity"
        )
        warnings.append(Reason("independent-batches", text))
    warnings += _little_room(run)
    settings = {
        "run": run.name,
        "stored": run.stored,
        "dtype": str(run.logical_dtype),
        "epsilon": sorted({float(member.epsilon) for member in members if np.isfinite(member.epsilon)}),
        "noise": _one_or_mixed({member.noise for member in members}),
        "optimizer": asdict(optimizer_of(run)),
    }
    speed = None
    if run.stored == "weights":
        bound = bind_metric(metric, run)
        dtype, size = str(run.logical_dtype), run.n_parameters
        result = to_references(run.states, twin, origin, bound, rows=rows, dtype=dtype, size=size)
        place = np.searchsorted(result.references, origin)
        distance, floor, scale = result.distance, result.floor[:, place], result.scale[place]
        speed = result.speed[:, place]
    else:
        distance, warning = _stored_distance(run, metric.name, twin=twin, origin=origin, rows=rows, settings=settings)
        floor, scale = np.full(distance.shape, np.nan), np.full(len(twin), np.nan)
        warnings.append(warning)
    group = np.unique(_orbits(reference)[twin], return_inverse=True)[1].astype(np.int64)
    stretches = _within([run.stretches(m) for m in twin.tolist()], rows)
    return _TwinDistances(
        step[rows], distance, floor, scale, group, 1.0, run.time_unit, settings, tuple(warnings), stretches, speed
    )


def _stored_distance(
    run: Any, metric: str, *, twin: Ints, origin: Ints, rows: slice, settings: dict[str, Any]
) -> tuple[Floats, Reason]:
    if run.stored == "distances":
        if run.distance_metric != metric:
            raise DataError(
                f"run {run.name!r} stores distances in the metric {run.distance_metric!r} and no weights, so "
                f"{metric!r} is not available; use metric={run.distance_metric!r}"
            )
        distance = np.asarray(run.distances[rows], dtype=np.float64)[:, twin]
        text = "the run stores distances only: the rounding floor of its weights is unknown and was not checked"
        return distance, Reason("floor-unknown", text)
    if metric != "l2":
        raise DataError(
            f"run {run.name!r} stores sketches, which only preserve Euclidean distances; use metric='l2', not {metric}"
        )
    sketch = run.sketch
    width = int(sketch.shape[-1])
    error = (0.5 / width) ** 0.5
    settings.update(sketch_width=width, sketch_relative_error=error)
    distance = np.empty((rows.stop - rows.start, len(twin)))
    for start in range(rows.start, rows.stop, 64):
        stop = min(start + 64, rows.stop)
        block = np.asarray(sketch[start:stop], dtype=np.float64)
        distance[start - rows.start : stop - rows.start] = np.linalg.norm(block[:, twin] - block[:, origin], axis=2)
    return distance, Reason.of(
        "sketched",
        "distances come from sketches of width {width}: their relative error is about {error:.1%} (one standard "
        "deviation), and their rounding floor is unknown",
        width=width,
        error=error,
    )


def _orbits(reference: Ints) -> Ints:
    """First ancestor of each member: copies of copies share the orbit of the original."""
    orbit = np.arange(len(reference))
    for _ in range(len(reference)):
        parent = reference[orbit]
        if np.all(parent < 0):
            return orbit
        orbit = np.where(parent >= 0, parent, orbit)
    raise DataError("the references of the members form a cycle; every chain must end at a member with reference -1")


def has_twins(x: Any) -> bool:
    """Whether `x` contains twins: a Run with several members, a pair, or a list of these."""
    if _is_run(x):
        return len(x.members) > 1 or getattr(x, "stored", "weights") != "weights"
    if _is_pair(x):
        return True
    return isinstance(x, (list, tuple)) and bool(x) and all(_is_run(item) or _is_pair(item) for item in x)
