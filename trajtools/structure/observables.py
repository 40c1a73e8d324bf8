"""Scalar observables of a trajectory: norm, displacement, step length; measures of complexity by nolds."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.equal_times import ONE, as_states, pairs, read_rows
from trajtools.distances.metric import MetricLike, bind_metric, find_metric
from trajtools.errors import DataError, MissingDependencyError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.trajectory import StatesLike
from trajtools.types import Bools, Floats, Ints
from trajtools.wording import counted, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLOCK_BYTES = 32 * 2**20


# The functions of nolds, and changes of their defaults: RANSAC draws from a global generator, so its fits differ from
# call to call, and also if scikit-learn is missing.
MEASURES: dict[str, tuple[str, dict[str, str]]] = {
    "dfa": ("dfa", {"fit_exp": "poly"}),
    "hurst": ("hurst_rs", {"fit": "poly"}),
    "sample-entropy": ("sampen", {}),
}


SERIES = ("norm", "step_length", "displacement", "path_length", "value")
_FEWEST = 50


@dataclass(frozen=True, eq=False, repr=False)
class Observables(Result):
    """Scalar observables of a trajectory, one value per state.

    Attributes
    ----------
    metric : str
        Distance between states.
    step : ndarray of int64, shape (T,)
        Step of each state.
    time : ndarray of float64, shape (T,)
        Time of each state, in `time_unit`.
    time_unit : str
        Unit of `time`.
    norm : ndarray of float64, shape (T,)
        Distance to the zero state; in L1 the sum of the absolute weights.
    step_length : ndarray of float64, shape (T,)
        Distance to the previous state; NaN for the first.
    path_length : ndarray of float64, shape (T,)
        Cumulative sum of the step lengths.
    displacement : ndarray of float64, shape (T,)
        Distance to the first finite state.
    relative_displacement : ndarray of float64, shape (T,)
        The displacement over the norm of that state (Delta of Danovski et al. 2024).
    layers : tuple of str
        Names of the parameters; only ``"all"`` if unknown.
    layer_mean, layer_sd : ndarray of float64, shape (T, L)
        Mean and standard deviation of the weights of each.
    measures : dict of str to dict of str to float
        For each requested series: ``"dfa"`` (exponent), ``"hurst"`` (exponent), ``"sample-entropy"`` (nats).
    n_excluded : int
        States with NaN or inf; their entries are NaN.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> result = tt.structure.observables(np.array([[3.0, 4.0], [0.0, 4.0]]), metric="l2")
    >>> result.norm.tolist(), result.path_length.tolist()
    ([5.0, 4.0], [0.0, 3.0])
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
    _dims: ClassVar[AxisNames] = {
        "norm": ("step",),
        "time": ("step",),
        "step_length": ("step",),
        "path_length": ("step",),
        "displacement": ("step",),
        "relative_displacement": ("step",),
        "layer_mean": ("step", "layers"),
        "layer_sd": ("step", "layers"),
    }

    def _sentence(self) -> str:
        last = np.flatnonzero(np.isfinite(self.displacement))
        if not len(last):
            return f"{counted(len(self.step), 'state')}, none finite."
        k = last[-1]
        start, end, path, away = (
            spoken(float(value))
            for value in (self.norm[last[0]], self.norm[k], self.path_length[k], self.displacement[k])
        )
        return (
            f"{counted(len(self.step), 'state')} ({self.metric}): the norm goes from {start} to {end}, along a path of "
            f"length {path}; the last state is {away} from the first."
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot norm, displacement and step length; see `trajtools.plots.observables`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the plot.
        """
        from trajtools import plots

        return plots.observables(self, ax=ax)


@takes_states("x")
def observables(
    x: StatesLike, *, metric: MetricLike = "l1", measures: Sequence[str] = (), series: Sequence[str] = ("step_length",)
) -> Observables:
    r"""Norm, step length, path length and displacement of a trajectory, and statistics of the weights of its layers.

    Parameters
    ----------
    x : Trajectory or array_like, shape (T, P) or (T,)
        States; read once, in blocks.
    metric : str, callable or Metric
        Distance between states, see `METRICS`; ``"l1"`` is that of [1]_.
    measures : sequence of str
        ``"dfa"``, ``"hurst"``, ``"sample-entropy"``: computed by nolds with its defaults, except that exponents are
        fitted by least squares: RANSAC, its default, is not reproducible.
    series : sequence of str
        Series for the measures: ``"norm"``, ``"step_length"``, ``"displacement"``, ``"path_length"``; ``"value"`` is
        `x` itself, if it is a series.

    Returns
    -------
    Observables
        One value per state each. States with NaN or inf have NaN; the path length continues from the next two finite
        states.

    Raises
    ------
    DataError
        If `x` is no trajectory, or none of its states is finite.
    UnknownNameError
        If a metric, measure or series of this name does not exist.
    MissingDependencyError
        If a measure is requested and nolds cannot be imported.

    Notes
    -----
    DFA and the rescaled range assume a stationary series, and sample entropy one without trend. A step length that
    decreases during training is neither.

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
        raise DataError(f"x has no states: shape {states.shape}")
    _check_names(measures, series, states.shape[1] == 1)
    bound = bind_metric(find_metric(metric), states)
    names, spans = layers_of(states)
    path = walk(states, bound, spans)
    usable, norm, steps, displacement = path.usable, path.norm, path.steps, path.displacement
    if not usable.any():
        raise DataError(f"none of {len(states)} states is finite")
    first = int(np.argmax(usable))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = displacement / norm[first]
    length = np.where(usable, np.cumsum(np.where(np.isfinite(steps), steps, 0.0)), np.nan)
    step, time, unit = clock_of(states)
    series_by_name = {"norm": norm, "step_length": steps[1:], "displacement": displacement, "path_length": length}
    if states.shape[1] == 1 and "value" in series:
        series_by_name["value"] = np.asarray(read_rows(states, 0, len(states)), dtype=np.float64)[:, 0]
    warnings: list[Reason] = []
    excluded = int(np.count_nonzero(~usable))
    if excluded:
        text = "{excluded} states contain NaN or inf: the path has gaps, its length is a lower bound"
        warnings.append(Reason.of("not-finite", text, excluded=excluded))
    if norm[first] == 0:
        warnings.append(Reason("zero-start", "the first state is zero: the relative displacement is undefined"))
    values = {
        name: {m: _measure(m, series_by_name[name], name, warnings) for m in measures} for name in series if measures
    }
    return Observables(
        metric=bound.name,
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
            "metric": bound.name,
            "measures": {name: MEASURES[name] for name in measures},
            "series": tuple(series) if measures else (),
        },
        warnings=tuple(warnings),
    )


def _check_names(measures: Sequence[str], series: Sequence[str], scalar: bool) -> None:
    for names, available, kind in ((measures, tuple(MEASURES), "measure"), (series, SERIES, "series")):
        if isinstance(names, str):
            raise DataError(f"{kind}s must be a sequence of names, got the string {names!r}; pass ({names!r},)")
        for name in names:
            if name not in available:
                raise UnknownNameError(f"no {kind} {name!r}; there are {', '.join(available)}")
    if "value" in series and not scalar:
        raise DataError("series 'value' is for a series (T,); the states have several weights: use another observable")


def layers_of(states: Any) -> tuple[tuple[str, ...], list[slice]]:
    """Names of the parameters of a trajectory, and their entries; only ``"all"`` if unknown."""
    parameters = getattr(states, "parameters", ())
    if not parameters:
        return ("all",), [slice(0, states.shape[1])]
    return tuple(p.name for p in parameters), [slice(p.offset, p.offset + p.size) for p in parameters]


def walk(states: Any, metric: Any, spans: list[slice]) -> Path:
    """Compute the path from one pass over the states."""
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
        states_of_block = block[:, None]
        norm[here] = np.where(
            good, pairs(metric, states_of_block, np.zeros_like(states_of_block), ONE, ONE)[:, 0], np.nan
        )
        if origin is not None:
            from_origin = np.broadcast_to(origin, block.shape)[:, None]
            displacement[here] = np.where(good, pairs(metric, states_of_block, from_origin, ONE, ONE)[:, 0], np.nan)
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
    """Observables of one pass over the states; NaN where a state is not finite.

    Attributes
    ----------
    usable : ndarray of bool, shape (T,)
        Finite states.
    norm, steps, displacement : ndarray of float64, shape (T,)
        Distances to zero, to the previous state (NaN for the first), and to the first finite state.
    layer_mean, layer_sd : ndarray of float64, shape (T, L)
        Mean and standard deviation of the weights of each layer.
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
    """Compute a measure by nolds; NaN and a warning if it is undefined."""
    finite = values[np.isfinite(values)]
    if len(finite) < _FEWEST or np.ptp(finite) == 0:
        if len(finite) >= _FEWEST:
            warnings.append(Reason.of("constant", "no {measure} of {name}: it is constant", measure=measure, name=name))
            return float("nan")
        text = "no {measure} of {name}: it has {values} finite values and needs {needed}"
        numbers = {"values": len(finite), "needed": _FEWEST}
        warnings.append(Reason.of("too-few-states", text, measure=measure, name=name, **numbers))
        return float("nan")
    if len(finite) < len(values):
        text = "{measure} of {name}: {excluded} values that are not finite are excluded"
        excluded = len(values) - len(finite)
        warnings.append(Reason.of("not-finite", text, measure=measure, name=name, excluded=excluded))
    with python_warnings.catch_warnings():
        # From imports of nolds, and from fits to too few points, which give NaN.
        python_warnings.simplefilter("ignore")
        function, options = MEASURES[measure]
        value = float(getattr(_nolds(), function)(finite, **options))
    if not np.isfinite(value):
        text = "no {measure} of {name}: nolds returns {value}"
        warnings.append(Reason.of("no-measure", text, measure=measure, name=name, value=str(value)))
        return float("nan")
    return value


def _nolds() -> Any:
    try:
        import nolds
    except Exception as broken:  # its import can fail with other errors than ImportError
        raise MissingDependencyError(
            f"dfa, hurst and sample-entropy need nolds, which cannot be imported here ({broken}): "
            'pip install "nolds==0.6.2" "setuptools<81" on Python 3.11, pip install "nolds>=0.6.3" on later ones'
        ) from broken
    return nolds
