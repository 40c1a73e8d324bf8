"""Scalar observables of a trajectory: how large, how far, how fast; and measures of complexity by nolds."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.equal_times import ONE, as_states, pairs, read_rows
from trajtools.distances.metric import MetricLike, bind_metric, find_metric
from trajtools.errors import DataError, MissingDependencyError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.results import Result
from trajtools.types import Bools, Floats, Ints, StatesLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLOCK_BYTES = 32 * 2**20


# The functions of nolds, and what differs from their defaults: RANSAC draws from a global generator, and gives another
# answer every time and another one again where scikit-learn is missing.
MEASURES: dict[str, tuple[str, dict[str, str]]] = {
    "dfa": ("dfa", {"fit_exp": "poly"}),
    "hurst": ("hurst_rs", {"fit": "poly"}),
    "sample-entropy": ("sampen", {}),
}


SERIES = ("norm", "step_length", "displacement", "path_length", "value")
_FEWEST = 50


@dataclass(frozen=True, eq=False)
class Observables(Result):
    """Numbers that follow a trajectory, state by state.

    Attributes
    ----------
    metric : str
        Distance in which lengths are measured.
    step : ndarray of int64, shape (T,)
        Step of each state.
    time : ndarray of float64, shape (T,)
        Its time, in `time_unit`.
    time_unit : str
        Unit of `time`.
    norm : ndarray of float64, shape (T,)
        Distance to the state of zeros; in L1 the sum of the absolute weights.
    step_length : ndarray of float64, shape (T,)
        Distance to the state before; NaN for the first.
    path_length : ndarray of float64, shape (T,)
        Sum of the steps so far.
    displacement : ndarray of float64, shape (T,)
        Distance to the first finite state.
    relative_displacement : ndarray of float64, shape (T,)
        The displacement over the norm of that state (Delta of Danovski et al. 2024).
    layers : tuple of str
        Names of the parameters; one, ``"all"``, where they are not known.
    layer_mean, layer_sd : ndarray of float64, shape (T, L)
        Mean and standard deviation of the weights of each.
    measures : dict of str to dict of str to float
        For each series that was asked for: ``"dfa"`` (exponent), ``"hurst"`` (exponent), ``"sample-entropy"`` (nats).
    n_excluded : int
        States that hold NaN or inf; their entries are NaN.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of Reason
        What the reader should know.
    """

    metric: str
    step: Ints
    time: Floats
    time_unit: str
    norm: Floats
    step_length: Floats
    path_length: Floats
    displacement: Floats
    relative_displacement: Floats
    layers: tuple[str, ...]
    layer_mean: Floats
    layer_sd: Floats
    measures: dict[str, dict[str, float]]
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw norm, displacement and step length; see `trajtools.plots.observables`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.observables(self, ax=ax)


def observables(
    x: StatesLike, *, metric: MetricLike = "l1", measures: Sequence[str] = (), series: Sequence[str] = ("step_length",)
) -> Observables:
    r"""Norm, step length, path length and displacement of a trajectory, and the weights of its layers.

    Parameters
    ----------
    x : Trajectory or array_like, shape (T, P) or (T,)
        States; they are read once, in blocks.
    metric : str, callable or Metric
        Distance between states, see `METRICS`; ``"l1"`` is that of [1]_.
    measures : sequence of str
        ``"dfa"``, ``"hurst"``, ``"sample-entropy"``: computed by nolds, with its defaults but for the
        fit of exponents, which is least squares: RANSAC, its default, gives another answer every time.
    series : sequence of str
        What they are computed for: ``"norm"``, ``"step_length"``, ``"displacement"``, ``"path_length"``; ``"value"`` is
        the series itself, where `x` is one.

    Returns
    -------
    Observables
        One number per state each. States that hold NaN or inf have NaN; the path goes on where it is known, from the
        next two finite states.

    Raises
    ------
    DataError
        If `x` is no trajectory, or none of its states is finite.
    UnknownNameError
        If a metric, measure or series of this name does not exist.
    MissingDependencyError
        If a measure is asked for and nolds cannot be imported.

    Notes
    -----
    DFA and the rescaled range assume a stationary series, and sample entropy one without trend; a step length that
    shrinks during training is neither.

    References
    ----------
    .. [1] K. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024),
       doi:10.3389/fcpxs.2024.1367957

    Examples
    --------
    >>> import trajtools as tt
    >>> o = tt.structure.observables([[1.0, 1.0], [1.0, 2.0], [3.0, 2.0]])
    >>> o.path_length.tolist(), o.relative_displacement.tolist()
    ([0.0, 1.0, 3.0], [0.0, 0.5, 1.5])
    """
    states = as_states(x, "x")
    if not len(states) or not states.shape[1]:
        raise DataError(f"there is no state to observe: x has shape {states.shape}")
    _check_names(measures, series, states.shape[1] == 1)
    chosen = bind_metric(find_metric(metric), states)
    names, spans = layers_of(states)
    path = walk(states, chosen, spans)
    usable, norm, steps, displacement = path.usable, path.norm, path.steps, path.displacement
    if not usable.any():
        raise DataError(f"none of {len(states)} states is finite")
    first = int(np.argmax(usable))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = displacement / norm[first]
    length = np.where(usable, np.cumsum(np.where(np.isfinite(steps), steps, 0.0)), np.nan)
    step, time, unit = clock_of(states)
    known = {"norm": norm, "step_length": steps[1:], "displacement": displacement, "path_length": length}
    if states.shape[1] == 1 and "value" in series:
        known["value"] = np.asarray(read_rows(states, 0, len(states)), dtype=np.float64)[:, 0]
    warnings: list[Reason] = []
    excluded = int(np.count_nonzero(~usable))
    if excluded:
        words = "{excluded} states hold NaN or inf: the path is cut there, its length is a lower bound"
        warnings.append(Reason.of("not-finite", words, excluded=excluded))
    if norm[first] == 0:
        warnings.append(Reason("zero-start", "the first state is zero: there is no relative displacement"))
    values = {name: {m: _measure(m, known[name], name, warnings) for m in measures} for name in series if measures}
    return Observables(
        metric=chosen.name,
        step=step,
        time=time,
        time_unit=unit,
        norm=norm,
        step_length=steps,
        path_length=length,
        displacement=displacement,
        relative_displacement=relative,
        layers=names,
        layer_mean=path.layer_mean,
        layer_sd=path.layer_sd,
        measures=values,
        n_excluded=excluded,
        settings={
            "metric": chosen.name,
            "measures": {name: MEASURES[name] for name in measures},
            "series": tuple(series) if measures else (),
        },
        warnings=tuple(warnings),
    )


def _check_names(measures: Sequence[str], series: Sequence[str], scalar: bool) -> None:
    for asked, there, what in ((measures, tuple(MEASURES), "measure"), (series, SERIES, "series")):
        if isinstance(asked, str):
            raise DataError(f"{what}s must be a sequence of names, got the string {asked!r}; give ({asked!r},)")
        for name in asked:
            if name not in there:
                raise UnknownNameError(f"no {what} {name!r}; there are {', '.join(there)}")
    if "value" in series and not scalar:
        raise DataError("series 'value' is for a series (T,); the states have several weights: name another observable")


def layers_of(states: Any) -> tuple[tuple[str, ...], list[slice]]:
    """Names of the parameters of a trajectory, and their entries; one, ``"all"``, where they are not known."""
    parameters = getattr(states, "parameters", ())
    if not parameters:
        return ("all",), [slice(0, states.shape[1])]
    return tuple(p.name for p in parameters), [slice(p.offset, p.offset + p.size) for p in parameters]


def walk(states: Any, metric: Any, spans: list[slice]) -> Path:
    """Read the states once, in blocks."""
    length, size = len(states), int(states.shape[1])
    usable = np.zeros(length, dtype=bool)
    norm, steps, displacement = (np.full(length, np.nan) for _ in range(3))
    mean, sd = np.full((length, len(spans)), np.nan), np.full((length, len(spans)), np.nan)
    origin, before = None, None
    rows = max(1, _BLOCK_BYTES // (8 * size))
    for start in range(0, length, rows):
        block = np.asarray(read_rows(states, start, min(start + rows, length)))
        here = slice(start, start + len(block))
        good = np.isfinite(block).all(axis=1)
        usable[here] = good
        if origin is None and good.any():
            origin = np.array(block[np.argmax(good)])[None]
        shown = block[:, None]
        norm[here] = np.where(good, pairs(metric, shown, np.zeros_like(shown), ONE, ONE)[:, 0], np.nan)
        if origin is not None:
            from_origin = np.broadcast_to(origin, block.shape)[:, None]
            displacement[here] = np.where(good, pairs(metric, shown, from_origin, ONE, ONE)[:, 0], np.nan)
        joined = block if before is None else np.concatenate([before, block])
        if len(joined) > 1:
            moved = pairs(metric, joined[1:, None], joined[:-1, None], ONE, ONE)[:, 0]
            steps[here.stop - len(moved) : here.stop] = moved
        whole = np.where(good[:, None], block, 0)
        for at, span in enumerate(spans):
            mean[here, at] = np.where(good, whole[:, span].mean(axis=1, dtype=np.float64), np.nan)
            sd[here, at] = np.where(good, whole[:, span].std(axis=1, dtype=np.float64), np.nan)
        before = np.array(block[-1:])
    follows = np.concatenate([[False], usable[1:] & usable[:-1]])
    return Path(usable, norm, np.where(follows, steps, np.nan), displacement, mean, sd)


@dataclass(frozen=True, eq=False)
class Path:
    """What one reading gives, NaN where a state is not finite.

    Attributes
    ----------
    usable : ndarray of bool, shape (T,)
        Finite states.
    norm, steps, displacement : ndarray of float64, shape (T,)
        Distances to zero, to the state before (NaN for the first), and to the first finite state.
    layer_mean, layer_sd : ndarray of float64, shape (T, L)
        Of the weights of each layer.
    """

    usable: Bools
    norm: Floats
    steps: Floats
    displacement: Floats
    layer_mean: Floats
    layer_sd: Floats


def clock_of(states: Any) -> tuple[Ints, Floats, str]:
    """Steps, times and their unit."""
    if hasattr(states, "step"):
        return states.step, states.time, states.time_unit
    return np.arange(len(states)), np.arange(len(states), dtype=np.float64), "sample"


def _measure(measure: str, values: Floats, name: str, warnings: list[Reason]) -> float:
    """One number by nolds; NaN, and a warning, where it has none."""
    finite = values[np.isfinite(values)]
    if len(finite) < _FEWEST or np.ptp(finite) == 0:
        if len(finite) >= _FEWEST:
            warnings.append(Reason.of("constant", "no {measure} of {name}: it is constant", measure=measure, name=name))
            return float("nan")
        words = "no {measure} of {name}: it has {values} finite values, {needed} are needed"
        numbers = {"values": len(finite), "needed": _FEWEST}
        warnings.append(Reason.of("too-few-states", words, measure=measure, name=name, **numbers))
        return float("nan")
    if len(finite) < len(values):
        words = "{measure} of {name}: {excluded} values that are not finite were left out"
        excluded = len(values) - len(finite)
        warnings.append(Reason.of("not-finite", words, measure=measure, name=name, excluded=excluded))
    with python_warnings.catch_warnings():
        # Of the package's own imports, and of fits to too few points, which come out as NaN.
        python_warnings.simplefilter("ignore")
        function, options = MEASURES[measure]
        found = float(getattr(_nolds(), function)(finite, **options))
    if not np.isfinite(found):
        words = "no {measure} of {name}: nolds gives {value}"
        warnings.append(Reason.of("no-measure", words, measure=measure, name=name, value=str(found)))
        return float("nan")
    return found


def _nolds() -> Any:
    try:
        import nolds
    except Exception as broken:  # it has failed on import with more than ImportError
        raise MissingDependencyError(
            f"dfa, hurst and sample-entropy are computed by nolds, which cannot be imported here ({broken}): "
            'pip install "nolds==0.6.2" "setuptools<81" on Python 3.11, pip install "nolds>=0.6.3" on later ones'
        ) from broken
    return nolds
