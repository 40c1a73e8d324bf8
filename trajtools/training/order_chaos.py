"""Order and chaos of one layer along training (Zhang et al. 2021), and of an iterated trunk (Feng et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.errors import DataError, SelectionError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import moving_blocks, random_generator
from trajtools.trajectory import StatesLike, Trajectory
from trajtools.types import Floats, RealArrayLike, RNGLike
from trajtools.wiring import Parameter
from trajtools.wording import bounds, counted, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.store import Run

# Gaussian averages are sums over an even grid: for smooth integrands that vanish at both ends the error decreases
# faster than any power of the spacing, and a steep tanh needs a dense grid, not a high order.
_Z = np.linspace(-9.0, 9.0, 1801)


_DENSITY = np.exp(-0.5 * _Z**2) / np.exp(-0.5 * _Z**2).sum()
_STEPS = 200  # of a bisection, to the spacing of float64
_WIDEST = 60.0
FEWEST_INCREMENTS = 8
N_RESAMPLES = 999


# Usual names of these hyperparameters.
_NAMES = {
    "rate": ("lr", "learning_rate", "eta"),
    "momentum": ("momentum",),
    "batch": ("batch_size", "batch"),
    "samples": ("samples", "n_train", "train_samples"),
}


Trunk = Callable[[Any], Any]
RUN_AWAY = 1e10
_STEP = 1e-6  # of the central differences, relative to the size of the state, with errors near 1e-11
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class OrderChaos(Result):
    """Order parameters of a layer along training, and their law; see `trajtools.training.order_chaos`.

    Attributes
    ----------
    layer : str
        Name of the kernel.
    time : ndarray of float64, shape (T,)
        Times of the states, in `time_unit`.
    time_unit : str
        ``"epoch"`` if the steps per epoch are known, else the unit of the trajectory.
    J, J0 : ndarray of float64, shape (T,)
        Standard deviation of the weights times the root of the fan-in N, and their mean times N. NaN if a weight is not
        finite.
    slope : float
        A, the growth of J^2 per unit of time before it reaches `edge`; NaN if not measurable.
    slope_interval : (float, float)
        Its confidence interval, from blocks of the increments of J^2; NaN for fewer than 8.
    window : (float, float)
        Time window of the slope.
    constant : float
        K = A (1 - momentum) batch / rate; NaN if one of them is unknown.
    constant_interval : (float, float)
        Its confidence interval.
    crossing : float
        Time at which J first reaches 1; NaN if it does not.
    predicted_crossing : float
        Time at which J reaches 1 at this slope from the first state on; NaN without a slope.
    weight_decay : float
        Coefficient that holds J at 1: A (1 - momentum) batch / (4 rate samples), for a penalty of coefficient times the
        sum of the squared weights; a decay w -= rate c w is c = 2 times this. NaN if a factor is unknown.
    level : float
        Confidence level of the intervals.
    settings : dict
        All parameters used, from arguments or the run.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> weights = np.random.default_rng(0).standard_normal((5, 30, 30)) / 30**0.5
    >>> result = tt.training.order_chaos(weights)
    >>> result.J.shape
    (5,)
    """

    layer: str
    time: Floats
    time_unit: str
    J: Floats
    J0: Floats
    slope: float
    slope_interval: tuple[float, float]
    window: tuple[float, float]
    constant: float
    constant_interval: tuple[float, float]
    crossing: float
    predicted_crossing: float
    weight_decay: float
    level: float = 0.95
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {"J": ("time",), "J0": ("time",)}

    def _sentence(self) -> str:
        known = np.flatnonzero(np.isfinite(self.J))
        text = f"{self.layer}: " + (
            f"J goes from {self.J[known[0]]:.3g} to {self.J[known[-1]]:.3g}" if len(known) else "no J"
        )
        if np.isfinite(self.crossing):
            text += f", and crosses the edge of chaos (J = 1) at {self.time_unit} {spoken(self.crossing)}"
        if np.isfinite(self.slope):
            text += f"; J^2 grows by {self.slope:.3g} {bounds(self.slope_interval)} per {self.time_unit}"
        return text + "."

    def exponents(self) -> Floats:
        """Mean-field exponent of the layer, iterated as x -> tanh(W x), for every state.

        Returns
        -------
        ndarray of float64, shape (T,)
            Per iteration, natural logarithm; NaN where J is. It is that of a random matrix with the same mean and
            variance and ignores any structure of the trained weights.
        """
        finite = np.isfinite(self.J) & np.isfinite(self.J0) & (self.J > 0)
        exponents = np.full(len(self.J), np.nan)
        exponents[finite] = [mean_field(J, J0).exponent for J, J0 in zip(self.J[finite], self.J0[finite], strict=True)]
        return exponents

    @staticmethod
    def boundary() -> tuple[Floats, Floats]:
        """Edge of chaos of the mean field, the part below 1 / J = 1; for abs(J0) < J the edge is the line 1 / J = 1.

        Returns
        -------
        (ndarray, ndarray)
            J0 / J and 1 / J of points on the edge. The sign of J0 does not matter.
        """
        heights = np.linspace(0.05, 0.99, 48)
        return np.array([mean_field_boundary(height) for height in heights]), heights

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the path on the phase diagram; see `trajtools.plots.order_chaos`.

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

        return plots.order_chaos(self, ax=ax)


def mean_field(J: float, J0: float = 0.0) -> MeanField:
    r"""Solve the self-consistent equations of the map x -> tanh(W x).

    Parameters
    ----------
    J : float
        Standard deviation of the entries of W times the root of N; positive.
    J0 : float
        Mean of the entries of W times N. With a negative mean the activity alternates in sign, with the same
        statistics.

    Returns
    -------
    MeanField
        Stable state, with mean activity if such a state exists.

    Raises
    ------
    DataError
        If J is not positive, or a number is not finite.

    Notes
    -----
    .. math:: u = E \tanh(J_0 u + J \sqrt{q} z), \quad q = E \tanh^2(J_0 u + J \sqrt{q} z), \quad
       \lambda = \tfrac12 \ln\left(J^2 E\, \mathrm{sech}^4(J_0 u + J \sqrt{q} z)\right)

    with z from N(0, 1). Where q = 0 the exponent is ln J, or ln \|J0\| if the uniform direction is the slowest.

    Examples
    --------
    >>> round(mean_field(2.0).exponent, 5), round(mean_field(0.5).exponent, 4)
    (0.15472, -0.6931)
    """
    if not (np.isfinite(J) and np.isfinite(J0)) or J <= 0:
        raise DataError(f"J={J} and J0={J0} must be finite and J positive")
    size = abs(J0)
    spread = _spread(J, 0.0)
    if size * _average(_derivative(0.0, spread)) > 1:
        shift = _root(lambda m: size * _average(np.tanh(m + _spread(J, m) * _Z)) - m, 1e-9, size)
        spread = _spread(J, shift)
        return _state(J, shift, spread)
    if spread == 0.0:
        return MeanField(0.0, 0.0, float(np.log(max(J, size))))
    return _state(J, 0.0, spread)


@dataclass(frozen=True, repr=False)
class MeanField(Result):
    """The stationary state of a large random tanh map.

    Attributes
    ----------
    mean : float
        u, the mean activity over the units; zero or positive (the state with -u is its mirror image).
    square : float
        q, the mean squared activity.
    exponent : float
        Largest Lyapunov exponent per iteration, natural logarithm; zero on the boundary of chaos.
    """

    mean: float
    square: float
    exponent: float

    def _sentence(self) -> str:
        state = "chaotic" if self.exponent > 0 else "ordered"
        return (
            f"{state}: exponent {spoken(self.exponent)}, mean {spoken(self.mean)}, mean square {spoken(self.square)}."
        )


def _spread(J: float, shift: float) -> float:
    """Solve for s = J sqrt(q), the standard deviation of the input of a unit, at a given mean input."""

    def excess(s: float) -> float:
        return J * float(np.sqrt(_average(np.tanh(shift + s * _Z) ** 2))) - s

    if shift == 0.0 and J <= 1.0:
        return 0.0
    return _root(excess, 1e-12, J)


def _root(function: object, low: float, high: float) -> float:
    """Bisect between positive `low` and negative `high`; else return the end nearest to a change of sign."""
    from scipy.optimize import brentq

    at_low, at_high = function(low), function(high)  # type: ignore[operator]
    if at_low <= 0:
        return low
    if at_high >= 0:
        return high
    return float(brentq(function, low, high, xtol=1e-14, maxiter=_STEPS))


def _average(values: Floats) -> float:
    return float(_DENSITY @ values)


def _state(J: float, shift: float, spread: float) -> MeanField:
    activity = np.tanh(shift + spread * _Z)
    growth = J**2 * _average(_derivative(shift, spread) ** 2)
    return MeanField(_average(activity), _average(activity**2), 0.5 * float(np.log(growth)))


def _derivative(shift: float, spread: float) -> Floats:
    """Derivative of tanh, sech^2; large arguments underflow to zero."""
    slope: Floats = 1.0 - np.tanh(shift + spread * _Z) ** 2
    return slope


def mean_field_boundary(inverse_J: float) -> float:
    """Edge of chaos J0/J at a given 1/J, in the phase diagram of J0/J against 1/J.

    Parameters
    ----------
    inverse_J : float
        1/J, between 0 and 1 (excluded); for J0 < J the boundary is the line 1/J = 1.

    Returns
    -------
    float
        J0/J; larger values are ordered, smaller ones chaotic.

    Raises
    ------
    DataError
        If `inverse_J` is not between 0 and 1.

    Examples
    --------
    >>> round(mean_field_boundary(0.5), 4)
    1.2204
    """
    if not 0 < inverse_J < 1:
        raise DataError(f"inverse_J={inverse_J}: it must lie between 0 and 1, the curved part of the boundary")
    J = 1.0 / inverse_J
    shift = _root(lambda m: J**2 * _average(_derivative(m, _spread(J, m)) ** 2) - 1.0, 1e-6, _WIDEST)
    return float(shift / _average(np.tanh(shift + _spread(J, shift) * _Z)) / J)


@dataclass(frozen=True, eq=False, repr=False)
class TrunkStability(Result):
    """Stability of an iterated trunk: three published exponents and the Lyapunov exponent; see `iterated_trunk`.

    Attributes
    ----------
    norm : ndarray of float64, shape (n,)
        Frobenius norm of the Jacobian at the last iterate over the root of N; 1 is the published edge.
    radius : ndarray of float64, shape (n,)
        Spectral radius of that Jacobian: a fixed point is stable below 1.
    exponent : ndarray of float64, shape (n,)
        Largest Lyapunov exponent per iteration from a renormalised tangent; NaN where the orbit diverged.
    by_norm : ndarray of float64, shape (n,)
        Published method M1, ln of `norm`.
    by_product : ndarray of float64, shape (n,)
        Published method M2: ln of the spectral radius of the product of the Jacobians of the second half, over their
        number; NaN with ``product=False``.
    by_separation : ndarray of float64, shape (n,)
        Published method M3: ln of the growth of a finite perturbation, not renormalised, over the iterations.
    distance : ndarray of float64, shape (n,)
        Asymptotic distance: mean distance to the perturbed copy over the last half.
    orbit : ndarray of float64, shape (steps + 1, n)
        Projection of the iterates on the mean input, for a return map.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> weights = 0.1 * np.eye(5)
    >>> result = tt.training.iterated_trunk(lambda x: np.tanh(x @ weights), np.ones(5), steps=50)
    >>> round(float(np.max(result.exponent)), 2)
    -2.3
    """

    norm: Floats
    radius: Floats
    exponent: Floats
    by_norm: Floats
    by_product: Floats
    by_separation: Floats
    distance: Floats
    orbit: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = dict.fromkeys(
        ("exponent", "norm", "radius", "by_norm", "by_product", "by_separation", "distance"), ("trunk",)
    ) | {"orbit": ("iterate", "trunk")}

    def _sentence(self) -> str:
        stable = int((self.exponent < 0).sum())
        return f"{counted(len(self.norm), 'trunk')}, {stable} with a negative Lyapunov exponent."


@takes_states("x", runs=True, matrices=True)
def order_chaos(
    x: Run | StatesLike,
    layer: str | None = None,
    *,
    rate: float | None = None,
    momentum: float | None = None,
    batch: float | None = None,
    samples: float | None = None,
    edge: float = 1.0,
    window: tuple[float, float] | None = None,
    level: float = 0.95,
    rng: RNGLike = None,
) -> OrderChaos:
    r"""Compute the order parameters J and J0 of a layer along training, and fit its approach to the edge of chaos.

    Parameters
    ----------
    x : Run or Trajectory; or array_like, shape (T, fan_out, fan_in)
        A recorded training, or the kernel of one layer along training.
    layer : str or None
        Name of a two-dimensional kernel; None: the only square one.
    rate, momentum, batch, samples : float or None
        Learning rate, momentum, size of the batches, size of the training set. None: from the `hparams` of the run
        (``lr``, ``momentum``, ``batch_size``, ``samples`` and their usual synonyms); momentum defaults to 0.
    edge : float
        J at the end of the window of the slope; 1 is the edge of chaos of a layer with mean 0.
    window : (float, float) or None
        Time window of the slope; None: from the start until J reaches `edge`.
    level : float
        Confidence level.
    rng : int, numpy.random.Generator or None
        Generator of the resampling; None is the seed 0.

    Returns
    -------
    OrderChaos
        Times are in epochs if `samples` and `batch` are known.

    Raises
    ------
    SelectionError
        If there is no such layer, or it is ambiguous; the message lists the candidates.
    DataError
        If an argument is invalid, or the kernel is not two-dimensional.

    Notes
    -----
    .. math:: J = \sqrt{N}\, \mathrm{std}(W), \quad J_0 = N\, \mathrm{mean}(W), \quad J^2(t) = J^2(0) + A t, \quad
       A = K \eta / ((1 - \alpha) B)

    with t in epochs and N the fan-in of the layer. The network of the paper is square; for another shape the map cannot
    be iterated, and J describes the growth of the variance of the input. The published K of about 11 holds for that
    network and data only: K depends on the data, so it is measured. Above J = 1 the growth is slower than the law.

    The interval of A comes from a moving-block bootstrap of the increments of J^2. It applies to this run, not to other
    seeds.

    References
    ----------
    .. [1] L. Zhang, L. Feng, K. Chen and C. H. Lai, Edge of chaos as a guiding principle for modern neural network
       training, arXiv:2107.09437 (2021), equations 2 to 9

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> start = np.random.default_rng(0).standard_normal((60, 60)) / 60**0.5
    >>> path = np.sqrt(0.25 + 0.05 * np.arange(20))[:, None, None] * start / start.std() / 60**0.5
    >>> result = tt.training.order_chaos(path)
    >>> round(result.slope, 6), round(result.crossing, 3)
    (0.05, 15.0)
    """
    if not (np.isfinite(edge) and edge > 0 and 0 < level < 1):
        raise DataError(f"edge={edge} must be positive and level={level} between 0 and 1")
    trajectory, kernel = _read(x, layer)
    values = _hyperparameters(
        getattr(x, "hparams", {}), {"rate": rate, "momentum": momentum, "batch": batch, "samples": samples}
    )
    J, J0 = _parameters_of(trajectory, kernel)
    per_epoch = values["samples"] / values["batch"]
    unit = "epoch" if np.isfinite(per_epoch) else trajectory.time_unit
    time = trajectory.step / per_epoch if np.isfinite(per_epoch) else trajectory.time
    first, last = _window(time, J, edge, window)
    slope, interval = _slope(time, J**2, (first, last), level, random_generator(rng))
    factor = (1 - values["momentum"]) * values["batch"] / values["rate"] if unit == "epoch" else float("nan")
    start = float(J[first] ** 2) if last > first else float("nan")
    away = (edge**2 - start) / slope if slope > 0 else float("nan")
    excluded = int(np.count_nonzero(~np.isfinite(J)))
    return OrderChaos(
        layer=kernel.name,
        time=np.asarray(time, dtype=np.float64),
        time_unit=unit,
        J=J,
        J0=J0,
        slope=slope,
        slope_interval=interval,
        window=(float(time[first]), float(time[last])) if len(time) else (float("nan"),) * 2,
        constant=slope * factor,
        constant_interval=(interval[0] * factor, interval[1] * factor),
        crossing=_crossing(time, J, edge),
        predicted_crossing=float(time[first]) + away,
        weight_decay=slope * factor / (4 * values["samples"]),
        level=level,
        settings=values | {"edge": edge, "fan_in": _fan_in(kernel), "shape": kernel.shape, "states": len(J)},
        warnings=_warnings(kernel, values, slope, interval, excluded),
    )


def _read(x: Any, layer: str | None) -> tuple[Trajectory, Parameter]:
    """Return the states of one kernel."""
    if hasattr(x, "hparams") and hasattr(x, "trajectory"):
        x = x.trajectory()
    if isinstance(x, Trajectory):
        selected_kernel = _choose(x.parameters, layer)
        selected = x.select(selected_kernel.name)
        return selected, selected.parameters[0]
    array = np.asarray(x)
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise DataError(
            f"pass a Run, a Trajectory with parameters, or the kernel along training (T, fan_out, fan_in); got "
            f"{array.dtype} of shape {array.shape}"
        )
    shape = (int(array.shape[1]), int(array.shape[2]))
    kernel = Parameter(layer or "kernel", "dense", shape, "float64", 0, shape[0] * shape[1], "in", "out", 1, 0)
    return Trajectory.from_array(array.reshape(len(array), -1)), kernel


def _choose(parameters: tuple[Parameter, ...], layer: str | None) -> Parameter:
    kernels = [p for p in parameters if len(p.shape) == 2 and p.source is not None]
    named = [p for p in kernels if p.name == layer or (layer is None and p.shape[0] == p.shape[1])]
    if len(named) == 1:
        return named[0]
    available = ", ".join(f"{p.name} {p.shape}" for p in kernels) or "none"
    request = f"layer={layer!r}" if layer is not None else "without layer= there must be exactly one square kernel"
    raise SelectionError(f"{request}: {len(named)} match; the kernels of two dimensions are: {available}")


def _hyperparameters(hparams: Mapping[str, Any], arguments: dict[str, float | None]) -> dict[str, float]:
    values = {}
    for key, value in arguments.items():
        candidates = [value] if value is not None else [hparams[n] for n in _NAMES[key] if n in hparams]
        usable = [float(c) for c in candidates if isinstance(c, (int, float)) and not isinstance(c, bool)]
        values[key] = usable[0] if usable else (0.0 if key == "momentum" else float("nan"))
        if value is not None and not (usable and np.isfinite(values[key]) and values[key] >= 0):
            raise DataError(f"{key}={value!r} must be a number of at least 0")
    return values


def _parameters_of(x: Trajectory, kernel: Parameter) -> tuple[Floats, Floats]:
    """Compute J and J0 of every state, in blocks."""
    N = _fan_in(kernel)
    J, J0 = np.empty(len(x)), np.empty(len(x))
    with np.errstate(all="ignore"):
        for rows, block in x.blocks():
            wide = np.asarray(block, dtype=np.float64)
            J[rows], J0[rows] = np.sqrt(N) * wide.std(axis=1), N * wide.mean(axis=1)
    broken = ~(np.isfinite(J) & np.isfinite(J0))
    J[broken] = J0[broken] = np.nan
    return J, J0


def _fan_in(kernel: Parameter) -> int:
    return kernel.shape[kernel.source_axis]


def _window(time: Floats, J: Floats, edge: float, window: tuple[float, float] | None) -> tuple[int, int]:
    """First and last state of the window of the slope; equal if it is empty."""
    usable = np.isfinite(J)
    if window is not None:
        usable &= (time >= window[0]) & (time <= window[1])
    else:
        over = np.flatnonzero(usable & (edge <= J))
        usable[over[0] + 1 if len(over) else len(J) :] = False
    at = np.flatnonzero(usable)
    return (int(at[0]), int(at[-1])) if len(at) else (0, 0)


def _slope(
    time: Floats, square: Floats, span: tuple[int, int], level: float, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """Least-squares slope, and its interval from blocks of the increments."""
    from trajtools.statistics import fit_slope

    nothing = (float("nan"), float("nan"))
    keep = np.arange(span[0], span[1] + 1)
    keep = keep[np.isfinite(square[keep])]
    if len(keep) < 2:
        return float("nan"), nothing
    slope = fit_slope(time[keep], square[keep]).slope
    gain, took = np.diff(square[keep]), np.diff(time[keep])
    n = len(gain)
    if n < FEWEST_INCREMENTS:
        return slope, nothing
    length = max(1, round(n ** (1 / 3)))
    starts = moving_blocks(n, length, N_RESAMPLES, rng)
    at = (starts[:, :, None] + np.arange(length)).reshape(N_RESAMPLES, -1)[:, :n]
    resampled = gain[at].sum(axis=1) / took[at].sum(axis=1)
    low, high = np.quantile(resampled - gain.sum() / took.sum(), [(1 - level) / 2, (1 + level) / 2])
    return slope, (float(slope + low), float(slope + high))


def _crossing(time: Floats, J: Floats, edge: float) -> float:
    """Time at which J first reaches the edge, interpolated linearly in J^2."""
    over = np.flatnonzero(edge <= J)
    if not len(over):
        return float("nan")
    at = int(over[0])
    if at == 0 or not np.isfinite(J[at - 1]):
        return float(time[at])
    before, after = J[at - 1] ** 2, J[at] ** 2
    return float(time[at - 1] + (edge**2 - before) / (after - before) * (time[at] - time[at - 1]))


def _warnings(
    kernel: Parameter, values: dict[str, float], slope: float, interval: tuple[float, float], excluded: int
) -> tuple[Reason, ...]:
    warnings = []
    if kernel.shape[0] != kernel.shape[1]:
        text = "{name} is {shape}, not square: it cannot be iterated as a map, so J = 1 is not its edge of chaos"
        warnings.append(Reason.of("not-square", text, name=kernel.name, shape=kernel.shape))
    if excluded:
        text = "{excluded} states contain NaN or inf in this layer and are excluded"
        warnings.append(Reason.of("not-finite", text, excluded=excluded))
    missing = [key for key in ("rate", "batch", "samples") if not np.isfinite(values[key])]
    if missing:
        text = "{names} missing in the arguments and in hparams: no epochs, no constant, no weight decay"
        warnings.append(Reason.of("unknown-hyper-parameters", text, names=", ".join(missing)))
    if not np.isfinite(slope):
        warnings.append(Reason("too-few-states", "no slope: fewer than two states before the edge"))
    elif not np.isfinite(interval[0]):
        text = "no interval of the slope: fewer than {needed} increments before the edge"
        warnings.append(Reason.of("interval-unknown", text, needed=FEWEST_INCREMENTS))
    elif interval[0] <= 0 <= interval[1]:
        text = "the interval of the slope of J^2 contains zero: the prediction is not reliable"
        warnings.append(Reason("zero-not-excluded", text))
    return tuple(warnings)


def asymptotic_distance(
    J: float, J0: float = 0.0, *, size: int = 1000, steps: int = 500, epsilon: float = 1e-4, rng: RNGLike = None
) -> float:
    """Asymptotic distance of two nearby states of a random tanh map.

    Parameters
    ----------
    J, J0 : float
        The entries of W are drawn with mean J0 / N and standard deviation J / sqrt(N).
    size : int
        N; 10,000 in the paper.
    steps : int
        Iterations; the distance is the mean over the last fifth.
    epsilon : float
        Standard deviation of the perturbation of every unit.
    rng : int, numpy.random.Generator or None
        Generator of W, the state and the perturbation; None is the seed 0.

    Returns
    -------
    float
        Euclidean distance: 0 in the ordered phase, of the order of sqrt(N) in the chaotic one.

    Raises
    ------
    DataError
        If an argument is out of range.

    References
    ----------
    .. [1] L. Zhang, L. Feng, K. Chen and C. H. Lai, arXiv:2107.09437 (2021), figure 1b

    Examples
    --------
    >>> asymptotic_distance(0.5, size=200, steps=100) < 1e-6 < 1 < asymptotic_distance(3.0, size=200, steps=100)
    True
    """
    if size < 1 or steps < 5 or not epsilon > 0 or not J > 0:
        raise DataError(
            f"size={size}, steps={steps}, epsilon={epsilon}, J={J}; need size >= 1, steps >= 5, epsilon > 0, J > 0"
        )
    random = random_generator(rng)
    weights = J0 / size + J / np.sqrt(size) * random.standard_normal((size, size))
    state = random.standard_normal(size)
    both = np.stack([state, state + epsilon * random.standard_normal(size)])
    distances = np.empty(steps)
    for t in range(steps):
        both = np.tanh(both @ weights)
        distances[t] = np.linalg.norm(both[1] - both[0])
    return float(distances[-max(1, steps // 5) :].mean())


@takes_states("x", single=True)
def iterated_trunk(
    trunk: Trunk,
    x: RealArrayLike,
    *,
    steps: int = 500,
    epsilon: float = 1e-4,
    product: bool = True,
    rng: RNGLike = None,
) -> TrunkStability:
    r"""Iterate a trunk as a map, and test whether it is ordered or chaotic.

    Parameters
    ----------
    trunk : callable
        ``trunk(x)`` maps states (n, N) to states (n, N), row by row, in float64; e.g.
        ``lambda x: np.tanh(x @ W)`` with a recorded kernel W.
    x : array_like, shape (n, N)
        Inputs, e.g. 100 test images.
    steps : int
        Iterations.
    epsilon : float
        Standard deviation of the perturbation of M3.
    product : bool
        Whether to compute M2, which takes a Jacobian at every second-half iterate.
    rng : int, numpy.random.Generator or None
        Generator of the perturbation and the tangent vectors; None is the seed 0.

    Returns
    -------
    TrunkStability
        One entry per input.

    Raises
    ------
    DataError
        If the trunk changes the shape of its input, or an argument is out of range.

    Notes
    -----
    The paper's edge of chaos is \|J*\|_F / sqrt(N) = 1 with J* the Jacobian at the asymptotic state. Its logarithm (M1)
    is a mean over all directions, so it lies below the largest exponent. M3 saturates, because the perturbation is
    finite and never renormalised. `exponent` is the standard one, from a tangent vector renormalised at every iterate.
    Jacobians are central differences of `trunk` in float64, 2 N evaluations each.

    References
    ----------
    .. [1] L. Feng, L. Zhang and C. H. Lai, Optimal Machine Intelligence at the Edge of Chaos, arXiv:1909.05176 (2019)

    Examples
    --------
    >>> import numpy as np
    >>> result = iterated_trunk(lambda x: 0.5 * x, np.ones((1, 3)), steps=40)
    >>> np.round([result.exponent[0], result.by_norm[0], result.by_product[0]], 6)
    array([-0.693147, -0.693147, -0.693147])
    """
    states = np.array(x, dtype=np.float64, ndmin=2)
    if states.ndim != 2 or steps < 4 or not epsilon > 0:
        raise DataError(
            f"x has shape {states.shape} (n, N needed), steps={steps} (at least 4), epsilon={epsilon} (> 0)"
        )
    apply = _checked(trunk)
    random = random_generator(rng)
    n, size = states.shape
    direction = states.mean(axis=0)
    length = float(np.linalg.norm(direction)) or 1.0
    with np.errstate(all="ignore"):
        walk = _iterate(apply, states, steps, epsilon, random)
        orbit, separations, exponent = walk
        last = orbit[-1]
        jacobians = [_jacobian(apply, state) for state in last]
        norm = np.array([np.linalg.norm(j) / np.sqrt(size) for j in jacobians])
        radius = np.array([_radius(j) for j in jacobians])
        by_product = np.array([_product(apply, orbit[steps // 2 : steps, k]) for k in range(n)]) if product else None
        by_separation = np.log(separations[-1] / separations[0]) / steps
        by_norm = np.log(norm)
    away = ~np.isfinite(last).all(axis=1) | (np.abs(last).mean(axis=1) > RUN_AWAY)
    ran_away = Reason.of("diverged", "{diverged} of {orbits} orbits diverged", diverged=away.sum(), orbits=n)
    for values in (exponent, norm, radius, by_norm, by_separation):
        values[away] = np.nan
    return TrunkStability(
        norm=norm,
        radius=radius,
        exponent=exponent,
        by_norm=by_norm,
        by_product=np.full(n, np.nan) if by_product is None else np.where(away, np.nan, by_product),
        by_separation=by_separation,
        distance=np.where(away, np.nan, separations[steps // 2 :].mean(axis=0)),
        orbit=orbit @ (direction / length),
        settings={"steps": steps, "epsilon": epsilon, "product": product, "N": size, "n": n},
        warnings=(ran_away,) if away.any() else (),
    )


def _checked(trunk: Trunk) -> Trunk:
    def apply(states: Floats) -> Floats:
        output = np.asarray(trunk(states), dtype=np.float64)
        if output.shape != states.shape:
            raise DataError(
                f"the trunk returned shape {output.shape} for states {states.shape}: it can be iterated only if its "
                "output has the shape of its input; cut it at such a layer"
            )
        return output

    return apply


def _iterate(
    apply: Trunk, states: Floats, steps: int, epsilon: float, random: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Orbits (steps + 1, n, N), distances to the perturbed copies (steps + 1, n), largest exponents (n,)."""
    n = len(states)
    copies = states + epsilon * random.standard_normal(states.shape)
    tangent = random.standard_normal(states.shape)
    orbit = np.empty((steps + 1, *states.shape))
    separations, growth = np.empty((steps + 1, n)), np.zeros(n)
    orbit[0], separations[0] = states, np.linalg.norm(copies - states, axis=1)
    counted = 0
    for t in range(steps):
        small = _STEP * (1.0 + np.linalg.norm(states, axis=1, keepdims=True))
        tangent *= small / np.linalg.norm(tangent, axis=1, keepdims=True)
        pushed = apply(np.concatenate([states, copies, states + tangent, states - tangent]))
        states, copies = pushed[:n], pushed[n : 2 * n]
        tangent = 0.5 * (pushed[2 * n : 3 * n] - pushed[3 * n :])
        if t >= steps // 2:  # after transients of the tangent and the orbit
            growth += np.log(np.linalg.norm(tangent, axis=1) / small[:, 0])
            counted += 1
        dead = ~(np.linalg.norm(tangent, axis=1) > 0)
        tangent[dead] = random.standard_normal(tangent[dead].shape)
        orbit[t + 1], separations[t + 1] = states, np.linalg.norm(copies - states, axis=1)
    return orbit, separations, growth / counted


def _jacobian(apply: Trunk, state: Floats) -> Floats:
    """Jacobian by central differences: entry (i, j) is the derivative of output i by input j."""
    size = len(state)
    small = _STEP * (1.0 + float(np.linalg.norm(state)) / np.sqrt(size))
    out = np.empty((size, size))
    few = max(1, _AT_ONCE // size)
    for start in range(0, size, few):
        rows = np.arange(start, min(start + few, size))
        moved = np.zeros((len(rows), size))
        moved[np.arange(len(rows)), rows] = small
        out[:, rows] = ((apply(state + moved) - apply(state - moved)) / (2 * small)).T
    return out


def _radius(jacobian: Floats) -> float:
    return float(np.abs(np.linalg.eigvals(jacobian)).max()) if np.isfinite(jacobian).all() else float("nan")


def _product(apply: Trunk, orbit: Floats) -> float:
    """Ln of the spectral radius of the product of the Jacobians along an orbit (t, N), over t."""
    product, scale = np.eye(orbit.shape[1]), 0.0
    for state in orbit:
        product = _jacobian(apply, state) @ product
        size = float(np.linalg.norm(product))
        if not np.isfinite(size) or size == 0.0:
            return float("nan") if size else float("-inf")
        product, scale = product / size, scale + float(np.log(size))
    return (scale + float(np.log(_radius(product)))) / len(orbit)
