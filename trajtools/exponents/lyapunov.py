"""Lyapunov exponent of twins or of one trajectory, in one call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trajtools.distances.metric import MetricLike
from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.nulls import BASIN, NULLS, steepest
from trajtools.exponents.one_trajectory import Options, read_record, states_exponent
from trajtools.exponents.twins import TwinsLike, has_twins, twins
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.reasons import Reason
from trajtools.statistics import AVERAGES
from trajtools.trajectory import StatesLike
from trajtools.types import RNGLike, TimeStepLike

if TYPE_CHECKING:
    from trajtools.distances.pairwise import Distances

METHODS = ("twins", "rosenstein", "kantz", "wolf", "hybrid")


@takes_states("x", pairs=True, runs=True, matrices=True, single=True)
def lyapunov(
    x: TwinsLike | StatesLike | Distances,
    *,
    method: str = "auto",
    metric: MetricLike | None = None,
    scale: str | None = None,
    average: str | None = None,
    neighbors: NearestK | WithinRadius | None = None,
    theiler: int | None = None,
    horizon: int | None = None,
    dim: int | None = None,
    delay: int | None = None,
    nodes: int | None = None,
    buffers: bool | None = None,
    dt: TimeStepLike = None,
    window: tuple[int, int] | None = None,
    region: str | tuple[float, float] = "auto",
    null: str | None = "auto",
    surrogates: int = 99,
    procedure: str | None = None,
    level: float = 0.95,
    rng: RNGLike = None,
) -> Exponent:
    """Lyapunov exponent with its interval and a verdict, in one call.

    Parameters
    ----------
    x : Run, pair, list of Runs or pairs; or Trajectory, array_like (T, d) or (T,); or Distances
        Twins, as in `trajtools.twins`; or one trajectory, whose recurrences replace twins. A series is embedded.
        Also `Distances` of all pairs of states of one trajectory, or adjacency matrices (T, N, N) or networkx graphs
        with ``metric="graph-l1"``. Masked arrays, tensors, and tables with a clock (pandas, polars, xarray) are read as
        the page on input describes.
    method : str
        ``"twins"``, ``"rosenstein"``, ``"kantz"``, ``"wolf"`` or ``"hybrid"``. ``"auto"``: twins if `x` contains twins,
        else rosenstein, which leaves the most room for growth.
    metric : str, callable, Metric or None
        Distance between states, see `tt.distances.METRICS`. None: for twins as in `trajtools.twins`, ``"l2"``
        for recurrences.
        Recurrences also accept ``"graph-l1"``, the sum of the absolute differences of all links over N(N-1), and
        ``"precomputed"`` for distances (T, T); metrics other than ``"l1"``, ``"l2"``, ``"linf"`` and ``"rms"`` are
        evaluated for all pairs, of at most 8192 states.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    average : str or None
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``, of twins and of kantz; see `trajtools.twins` and
        `trajtools.kantz`. None: their default.
    neighbors : NearestK, WithinRadius or None
        Which states are neighbours; None: the default of the method.
    theiler : int or None, in samples
        States closer in time are not neighbours; None: three times the correlation time, see `theiler_window`.
    horizon : int or None, in samples
        How long pairs are followed; None: about 1.3 times the saturation time (a sixteenth of the saturation time for
        wolf and hybrid).
    dim, delay : int or None
        Embedding of a series: dimension, and delay in samples. None: each from the data, see `estimate_dimension` and
        `estimate_delay`; a reason of the result names both with how they were chosen. ``dim=1`` uses a series as the
        whole state. States are embedded only for ``dim > 1``, by a delay of 1 unless passed.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); matrices and Trajectories of networks define it.
    buffers : bool or None
        For a run whose optimiser has momentum or moments: whether to append its recorded buffers to the weights, which
        alone are not the full state; see `trajtools.exponents.one_trajectory.full_state`. None: if they are
        recorded and no delay coordinates are requested.
    dt : float, duration, array_like or None
        Time between two steps: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples of an array. None keeps the unit of the data.
    window : (int, int) or None
        Use only the states whose step s fulfils ``window[0] <= s < window[1]``.
    region : "auto" or (float, float)
        Times since the perturbation between which the growth is measured.
    null : str or None
        Null hypothesis for the growth. ``"auto"``: ``"power-law"`` for twins; for recurrences a stationary linear
        process, ``"iaaft"`` (series) or ``"phase-randomised"`` (states). Also ``"shuffled-increments"`` and
        ``"random-walk"`` (recurrences), and for both ``"quadratic-basin"``: descent in a quadratic basin by the
        optimiser of the run (gradient descent, with momentum if its hyper-parameters include it); see
        `trajtools.exponents.nulls`. None: no test; the verdict is then inconclusive or regular.
    surrogates : int
        Number of surrogates drawn from the null of recurrences; below 99 no p-value reaches the 1 % level.
    procedure : None or "danovski2024"
        None: the procedure of this toolkit; a name: a published one, for twins.
    level : float
        Confidence level of the interval.
    rng : int, numpy.random.Generator or None
        Random numbers for resampling and surrogates; None is the seed 0.

    Returns
    -------
    Exponent
        In 1 / (unit of time), natural logarithm; `curve` is the fitted divergence, `settings` contains all automatic
        choices. Data that cannot be analysed give the verdict ``"inconclusive"`` with the reason.

    Raises
    ------
    UnknownNameError
        If there is no such method, metric, average, null or procedure.
    DataError
        If ``method="twins"`` and `x` has no twins, or an argument is invalid.

    Notes
    -----
    The verdict on one trajectory is ``"chaotic"`` (growth exponential, persistence shown) if it is stationary and
    recurrent, an exponent of zero is excluded at the 1 % level, the local slopes have a plateau, Jacobians fitted to
    two sizes of neighbourhoods grow (see `trajtools.exponents.local_jacobian`; noise alone does not grow there), and
    the surrogates are less predictable (p <= 0.01). It is ``"regular"`` if the orbit repeats exactly, stands still for
    the second half of the record (a fixed point), or returns as periodic and quasi-periodic motion does, at the 1 %
    level (see `trajtools.exponents.returns`); the period, if there is one, is in ``settings["period"]``, and the upper
    bound of the exponent in ``settings["largest_exponent"]``. Measurement noise makes the value too low, beyond its
    interval; the warning ``measurement-noise`` says where the fitted Jacobians show it.
    A trajectory that ends in NaN or infinity is ``"diverging"`` if its last finite step is its largest and more than
    20 times the usual one; otherwise the states before are analysed, and warnings say from where on and how it went.
    What no test tells from noise is ``"inconclusive"`` with the reason ``stochastic``. The test against surrogates
    uses at most 3000 states, the checks at most 20,000, and both a random projection of states with more than 64
    dimensions. A flow whose samples lie further apart than its neighbours is interpolated by cubic splines first, and
    Euclidean distances are measured across the motion: a lag along the orbit does not grow by itself, but shear mixes
    it into the growing direction, which would bias exponents of flows by up to a quarter.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> pairs = [(x * 0.9**t, [x * 0.9**t + 1e-6 * 0.5**t]) for x in (1.0, 2.0, 3.0)]
    >>> exponent = tt.lyapunov(pairs, window=(0, 20))
    >>> round(exponent.value, 6), exponent.verdict
    (-0.693147, 'regular')
    >>> x = np.empty(2000)
    >>> x[0] = 0.4
    >>> for t in range(1999):
    ...     x[t + 1] = 1 - 2 * x[t] ** 2 * 0.999
    >>> exponent = tt.lyapunov(x)
    >>> bool(abs(exponent.value - np.log(2)) < 0.03), exponent.verdict
    (True, 'chaotic')
    """
    if method not in ("auto", *METHODS):
        raise UnknownNameError(f"there is no method {method!r}; there are {', '.join(METHODS)}, and 'auto'")
    if window is not None and np.shape(window) != (2,):
        raise DataError(f"window must be two steps, (start, stop); got {window!r}")
    if method == "twins" or (method == "auto" and has_twins(x)):
        if buffers or nodes is not None:
            raise DataError("buffers= and nodes= apply to the neighbours of one trajectory; omit them for twins")
        growth = twins(cast("TwinsLike", x), metric=metric, average=average or "mean-log", dt=dt, window=window)
        null = "power-law" if null == "auto" else null
        return growth.fit(region, null=null, procedure=procedure, level=level, rng=rng)
    if procedure is not None:
        raise UnknownNameError(f"procedure {procedure!r} is for twins; for one trajectory give procedure=None")
    null, dim, level = _null(null), _count("dim", dim, 1), _level(level)
    method = "rosenstein" if method == "auto" else method
    _check_rules(method, average, neighbors)
    record = read_record(x, metric=metric, dt=dt, window=window, dim=dim, nodes=nodes, buffers=buffers)
    if null == BASIN:
        steepest(record.optimizer)
    options = Options(
        method=method,
        metric=record.metric,
        average=average,
        neighbors=neighbors,
        theiler=_count("theiler", theiler, 0),
        horizon=_count("horizon", horizon, 1),
        dim=dim,
        delay=_count("delay", delay, 1),
        dt=dt,
        region=region,
        null=null,
        surrogates=_count("surrogates", surrogates, 1) or 1,
        level=level,
        rng=rng,
        optimizer=record.optimizer,
    )
    exponent = states_exponent(record.states, options, clock=record.clock, step=record.trained, issues=record.issues)
    return record.complete(_with_embedding(exponent, {"dim": dim, "delay": delay}))


def _with_embedding(exponent: Exponent, passed: dict[str, int | None]) -> Exponent:
    """Say how a series was embedded, and how dimension and delay were chosen."""
    numbers: dict[str, Any] = {name: exponent.settings.get(name) for name in ("dim", "delay")}
    chosen = {name: exponent.settings[f"{name}_choice"] for name in numbers if f"{name}_choice" in exponent.settings}
    if numbers["dim"] is None or (numbers["dim"] == 1 and not chosen):
        return exponent
    why = {
        name: chosen[name]["reason"] if name in chosen else "as passed" if passed[name] else "default"
        for name in numbers
    }
    parts = [f"{name}={value} ({why[name]})" for name, value in numbers.items()]
    reason = Reason("embedding", f"delay vectors with {' and '.join(parts)}", numbers)
    return replace(exponent, reasons=(*exponent.reasons, reason))


def _null(null: str | None) -> str | None:
    if null is not None and null not in ("auto", *NULLS):
        raise UnknownNameError(
            f"there is no null {null!r} for one trajectory; there are {', '.join(NULLS)}, 'auto', and None for no test"
        )
    return null


def _check_rules(method: str, average: str | None, neighbors: Any) -> None:
    """Raise if the estimator has no such average, or follows other neighbours."""
    if average is not None and average not in AVERAGES:
        raise UnknownNameError(f"there is no average {average!r}; there are {', '.join(AVERAGES)}")
    if average is not None and method != "kantz":
        raise DataError(f"average={average!r} applies to twins and to kantz, not to {method}; omit it")
    nearest = method in ("rosenstein", "wolf")
    if neighbors is not None and not isinstance(neighbors, NearestK if nearest else NearestK | WithinRadius):
        needed = "a NearestK (kantz and hybrid accept a WithinRadius)" if nearest else "a NearestK or a WithinRadius"
        raise DataError(f"neighbors must be {needed} for {method}; got {neighbors!r}")


def _count(name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"{name} must be an integer, at least {least}; got {value!r}")
    return int(value)


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    return level
