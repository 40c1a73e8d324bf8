"""Scalar observables of a trajectory: how large, how far, how fast; and measures of complexity by nolds."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.distances.equal_times import as_states, read_rows
from trajtools.distances.metric import MetricLike, bind_metric, find_metric
from trajtools.errors import DataError, MissingDependencyError, UnknownNameError
from trajtools.estimators.walk import clock_of, layers_of, walk
from trajtools.results.observables import Observables
from trajtools.types import Floats

# The functions of nolds, and what differs from their defaults: RANSAC draws from a global generator, and gives another
# answer every time and another one again where scikit-learn is missing.
MEASURES: dict[str, tuple[str, dict[str, str]]] = {
    "dfa": ("dfa", {"fit_exp": "poly"}),
    "hurst": ("hurst_rs", {"fit": "poly"}),
    "sample-entropy": ("sampen", {}),
}
SERIES = ("norm", "step_length", "displacement", "path_length", "value")
_FEWEST = 50


def observables(
    x: Any, *, metric: MetricLike = "l1", measures: Sequence[str] = (), series: Sequence[str] = ("step_length",)
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
    >>> o = tt.observables([[1.0, 1.0], [1.0, 2.0], [3.0, 2.0]])
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
    words: list[str] = []
    excluded = int(np.count_nonzero(~usable))
    if excluded:
        words.append(f"{excluded} states hold NaN or inf: the path is cut there, its length is a lower bound")
    if norm[first] == 0:
        words.append("the first state is zero: there is no relative displacement")
    values = {name: {m: _measure(m, known[name], name, words) for m in measures} for name in series if measures}
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
        warnings=tuple(words),
    )


def _check_names(measures: Sequence[str], series: Sequence[str], scalar: bool) -> None:
    for asked, there, what in ((measures, tuple(MEASURES), "measure"), (series, SERIES, "series")):
        if isinstance(asked, str):
            raise DataError(f"{what}s are a sequence of names, got the string {asked!r}; give ({asked!r},)")
        for name in asked:
            if name not in there:
                raise UnknownNameError(f"no {what} {name!r}; there are {', '.join(there)}")
    if "value" in series and not scalar:
        raise DataError("series 'value' is for a series (T,); the states have several weights: name another observable")


def _measure(measure: str, values: Floats, name: str, words: list[str]) -> float:
    """One number by nolds; NaN, and words, where it has none."""
    finite = values[np.isfinite(values)]
    if len(finite) < _FEWEST or np.ptp(finite) == 0:
        why = "is constant" if len(finite) >= _FEWEST else f"has {len(finite)} finite values, {_FEWEST} are needed"
        words.append(f"no {measure} of {name}: it {why}")
        return float("nan")
    if len(finite) < len(values):
        words.append(f"{measure} of {name}: {len(values) - len(finite)} values that are not finite were left out")
    with python_warnings.catch_warnings():
        # Of the package's own imports, and of fits to too few points, which come out as NaN.
        python_warnings.simplefilter("ignore")
        function, options = MEASURES[measure]
        found = float(getattr(_nolds(), function)(finite, **options))
    if not np.isfinite(found):
        words.append(f"no {measure} of {name}: nolds gives {found}")
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
