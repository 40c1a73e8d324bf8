"""One trajectory, as the caller gave it: its states, its clock, its metric, and what is known to be wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trajtools.distances.metric import MetricLike, bind_metric, find_metric
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent, with_steps
from trajtools.exponents.following import GRAPH_L1, LENGTHS, as_links, check_nodes, normalised, sampling
from trajtools.exponents.nulls import PLAIN
from trajtools.neighbors.states import GIVEN, METRICS
from trajtools.optimizers import Optimizer, optimizer_of
from trajtools.reasons import Reason
from trajtools.trajectory import Trajectory
from trajtools.types import Floats
from trajtools.wiring import Parameter

COUNTERS = ("step", "count", "steps")  # buffers that only say how late it is
CHECKED = "Euclidean distances of the states: the checks and the null use these, whatever the metric"


@dataclass(frozen=True, eq=False)
class Record:
    """States that are ready to be analysed, or their distances.

    Attributes
    ----------
    states : array_like, shape (T, d) or (T,); or Distances
        Numbers, finite or not.
    metric : str or callable
        As `trajtools.neighbors.states.prepare` takes it.
    clock : (float, str)
        Time between two samples, and its unit.
    step : ndarray of int64 or None
        Steps of the states.
    optimizer : Optimizer
        Of the training.
    factor : float
        What distances are multiplied with to be those of the metric that was asked for: 1 but for graphs.
    doubts : tuple of Reason
        Objections that are known already.
    settings : dict
        What was chosen here.
    """

    states: Any
    metric: Any
    clock: tuple[float, str]
    step: Any = None
    optimizer: Optimizer = PLAIN
    factor: float = 1.0
    doubts: tuple[Reason, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def told(self, found: Exponent) -> Exponent:
        """Return an exponent of these states with their steps, in the metric that was asked for."""
        curve = found.curve
        settings = found.settings | self.settings
        if curve is not None and "distances" in self.settings:
            curve = replace(curve, metric=self.settings["distances"])
        if self.factor != 1.0 and curve is not None:
            curve = normalised(curve, self.factor)
            settings |= {name: curve.settings[name] for name in LENGTHS if name in curve.settings}
            settings["saturation_level"] = found.settings.get("saturation_level", np.nan) + np.log(self.factor)
            found = replace(found, intercept=found.intercept + np.log(self.factor))
        if self.factor != 1.0:
            settings |= {"metric": GRAPH_L1, "factor": self.factor}
        found = replace(found, curve=curve, settings=settings)
        return found if self.step is None else with_steps(found, self.step)


def record_of(
    x: Any,
    *,
    metric: MetricLike | None,
    dt: float | None,
    window: tuple[int, int] | None,
    dim: int | None,
    nodes: int | None,
    buffers: bool | None,
) -> Record:
    """Read what `trajtools.lyapunov` was given.

    Parameters
    ----------
    x : Run, Trajectory, Distances, array_like
        One trajectory.
    metric : str, callable, Metric or None
        As asked.
    dt : float or None
        Time between two steps.
    window : (int, int) or None, in steps
        Only these.
    dim : int or None
        Embedding dimension that was asked for.
    nodes : int or None
        Of ``"graph-l1"``.
    buffers : bool or None
        Whether to join the weights of a run with the buffers of its optimiser; None: where they are recorded, and no
        delay coordinates are asked for in their place.

    Returns
    -------
    Record

    Raises
    ------
    DataError
        If `x` is no such thing, or the arguments do not fit it.
    UnknownNameError
        If there is no such metric.
    """
    doubts: tuple[Reason, ...] = ()
    settings: dict[str, Any] = {}
    optimizer = PLAIN
    if hasattr(x, "hparams") and hasattr(x, "trajectory"):
        optimizer = optimizer_of(x.hparams)
        x, doubts, settings = _of_run(x, optimizer, dim, buffers)
    elif buffers:
        raise DataError("buffers=True joins the weights of a Run with its optimiser's buffers; this is not a Run")
    if window is not None:
        x = _windowed(x, window)
    kernel, name = _metric(metric, x)
    if kernel == GIVEN:
        if dim is not None:
            raise DataError(f"dim={dim}: distances have no coordinates to embed; give the states, or leave dim= out")
        check_nodes(nodes, GIVEN)
        return _of_distances(x, dt, optimizer, doubts)
    spacing, unit, step = sampling(x, dt)
    factor = 1.0
    if kernel == GRAPH_L1:
        x, factor = as_links(x, nodes)
        kernel = "l1"
    else:
        check_nodes(nodes, name)
    states = np.asarray(x)
    if states.dtype.kind not in "fiub" or states.ndim not in (1, 2):
        raise DataError(
            f"a trajectory is an array (T,) or (T, d) of real numbers, got {states.dtype} {states.shape}; for networks "
            "give their links as rows, or name metric='graph-l1'"
        )
    if kernel != "l2":
        settings["checked_with"] = CHECKED
    return Record(states, kernel, (spacing, unit), step, optimizer, factor, doubts, settings)


def _metric(metric: MetricLike | None, x: Any) -> tuple[Any, str]:
    """The metric as the neighbour search takes it, and its name."""
    if isinstance(x, Distances):
        if metric not in (None, GIVEN, x.metric):
            raise DataError(
                f"these distances are in the metric {x.metric!r}, so {metric!r} cannot be had from them; leave metric= "
                "out, or give the states"
            )
        return GIVEN, GIVEN
    if metric is None:
        return "l2", "l2"
    if isinstance(metric, str) and metric in (*METRICS, GRAPH_L1):
        return metric, metric
    try:
        # Bound here: what is analysed are arrays, which know no wiring.
        found = bind_metric(find_metric(metric), x)
    except UnknownNameError as unknown:
        raise UnknownNameError(
            f"{unknown}; for one trajectory there are also {GRAPH_L1!r} and {GIVEN!r} (distances of all pairs)"
        ) from None
    return found, found.name


def _of_distances(x: Any, dt: float | None, optimizer: Optimizer, doubts: tuple[Reason, ...]) -> Record:
    """Distances of all pairs of states."""
    if not isinstance(x, Distances):
        x = Distances.from_array(np.asarray(x), time_unit="sample")
    if x.shape[0] != x.shape[1]:
        raise DataError(
            f"one trajectory is analysed by the distances of its own states (T, T); these are {x.shape}, of two "
            "trajectories"
        )
    spacing, unit, step = sampling(x, dt)
    return Record(x, GIVEN, (spacing, unit), step, optimizer, doubts=doubts, settings={"distances": x.metric})


def _of_run(
    run: Any, optimizer: Optimizer, dim: int | None, buffers: bool | None
) -> tuple[Trajectory, tuple[Reason, ...], dict[str, Any]]:
    """Weights, or weights and buffers, of a run; what is missing of its state; and what was joined."""
    delayed = dim is not None and dim > 1
    recorded = getattr(run, "optimizer", None) is not None
    if buffers and not recorded:
        raise DataError(
            "buffers=True: the run holds no buffers of its optimiser; give delay coordinates in their place "
            "(dim=2 or more, delay=1)"
        )
    joined = recorded and (buffers or (buffers is None and not delayed))
    if joined:
        states, settings = full_state(run)
        covered = settings["buffer_entries"] >= _buffers_of(optimizer) * settings["weight_entries"]
        if covered:
            return states, (), settings
        hidden = Reason.of(
            "hidden-state",
            "{buffers} recorded entries of the optimiser's buffers do not cover {weights} weights: " + HIDDEN,
            buffers=settings["buffer_entries"],
            weights=settings["weight_entries"],
        )
        return states, (hidden,), settings
    if delayed or not (optimizer.has_buffers or recorded):
        return run.trajectory(), (), {}
    return run.trajectory(), (Reason("hidden-state", f"the weights alone are not the state: {HIDDEN}"),), {}


def full_state(run: Any) -> tuple[Trajectory, dict[str, Any]]:
    r"""Weights of a run beside the buffers of its optimiser: a state that says where the training goes next.

    Parameters
    ----------
    run : Run
        With recorded buffers; or what is like one with one member, of which `run`, `member` and `select` say where the
        buffers are.

    Returns
    -------
    states : Trajectory
        Weights, then buffers (T, P + P').
    settings : dict
        What was joined, and how it was scaled.

    Notes
    -----
    A buffer has a unit of its own (a momentum is a sum of gradients, a second moment that of their squares), so all
    buffers of one kind are multiplied by one constant, after which their spread over the record,
    :math:`\sqrt{\sum_i \mathrm{var}_t}`, equals that of the weights. Exponents do not depend on it; which states are
    neighbours does. Counters (how many steps were made) are time, not state, and are left out.
    """
    source = getattr(run, "run", run)
    path, member = run.trajectory(), int(getattr(run, "member", 0) or 0)
    weights = np.asarray(path, dtype=np.float64)
    rows = np.searchsorted(np.asarray(source.step), path.step)
    names = {one.name for one in source.parameters}
    # Of a selection of parameters only their own buffers; one that names no parameter belongs to all.
    mine = {"", *(one.name for one in path.parameters)}
    table = [one for one in source.optimizer_parameters if not _is_counter(one) and _owner(one.name, names) in mine]
    held = source.optimizer.read(slice(int(rows[0]), int(rows[-1]) + 1), slice(member, member + 1))[:, 0][
        rows - rows[0]
    ]
    room = _spread(weights)
    blocks, scales = [weights], {}
    for kind in dict.fromkeys(_kind(one.name, names) for one in table):
        alike = [held[:, one.offset : one.offset + one.size] for one in table if _kind(one.name, names) == kind]
        block = np.concatenate(alike, axis=1).astype(np.float64)
        size = _spread(block)
        scales[kind] = room / size if size > 0 and room > 0 else 1.0
        blocks.append(block * scales[kind])
    states = np.concatenate(blocks, axis=1)
    settings = {
        "state": "weights and the buffers of the optimiser, each kind scaled to the spread of the weights",
        "buffer_scales": scales,
        "buffer_entries": states.shape[1] - weights.shape[1],
        "weight_entries": weights.shape[1],
    }
    return Trajectory.from_array(states, step=path.step, dt=path.dt, time_unit=path.time_unit), settings


HIDDEN = (
    "the optimiser keeps buffers (momentum or moments), so nearby weights can part without sensitivity; record the "
    "buffers, too, give delay coordinates (dim=2 or more, delay=1), or use twins"
)


def _buffers_of(optimizer: Optimizer) -> int:
    """How many entries of buffers each weight has."""
    return 2 if optimizer.adaptive.startswith(("adam", "nadam", "radam", "lamb")) else 1


def _is_counter(buffer: Parameter) -> bool:
    return buffer.size == 1 and any(word in COUNTERS for word in buffer.name.lower().replace("/", ".").split("."))


def _owner(name: str, parameters: set[str]) -> str:
    """The parameter that a buffer is of, the longest whose whole name it holds; empty if there is none."""
    words = f".{name.replace('/', '.')}."
    return max((one for one in parameters if f".{one.replace('/', '.')}." in words), key=len, default="")


def _kind(name: str, parameters: set[str]) -> str:
    """What is left of the name of a buffer without that of its parameter: ``"momentum_buffer"``."""
    held = _owner(name, parameters)
    return (name.replace(held, "", 1) if held else name).strip("./: ") or name


def _spread(states: Floats) -> float:
    finite = states[np.isfinite(states).all(axis=1)]
    return float(np.sqrt(finite.var(axis=0).sum())) if len(finite) else 0.0


def _windowed(x: Any, window: tuple[int, int]) -> Any:
    if isinstance(x, (Trajectory, Distances)):
        return x.window(*window)
    return Trajectory.from_array(x).window(*window)
