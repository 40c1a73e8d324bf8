"""Null hypotheses: surrogate records, growth in a quadratic basin, and tests against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from trajtools.embedding import embed
from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.applicability import Optimizer
from trajtools.statistics import DECISION
from trajtools.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

ROUNDS = 60  # most iterations of IAAFT
MISFIT = 0.01  # of the amplitudes, relative, at which IAAFT has converged
IMPROVEMENT = 0.01  # relative fall of the misfit in one iteration, below which IAAFT ends as well
STATIONARY = ("phase-randomised", "iaaft")
DRIFTING = ("random-walk", "shuffled-increments")
BASIN = "quadratic-basin"
NULLS = (*STATIONARY, *DRIFTING, BASIN)
DESCRIPTIONS = {
    "phase-randomised": "a stationary linear Gaussian process with the same spectra and cross-spectra",
    "iaaft": "a stationary linear process with the same spectrum, observed through a static function "
    "(same values, reordered)",
    "random-walk": "a random walk whose steps have the same mean and covariance",
    "shuffled-increments": "a walk with the same steps in random order",
    BASIN: "gradient descent in a quadratic basin, whose rates are fitted to the steps and whose noise is their "
    "residuals, in random order",
}


PLAIN = Optimizer()
RATES = 48  # curvatures of a basin: half spaced evenly, half logarithmically, from flat to unstable
FLATTEST = 1e-6  # smallest curvature over the largest
SMALLEST = 1e-9  # lower bound of a fitted curve over its maximum: all modes may pass through zero at once
MOST_STATES = 3000  # used in the test against surrogates
REFERENCES = 500
LAGS = 24
LEAST_DRAWN = 19  # surrogates before a test may end: enough for a band of 5 to 95 %
BLOCK = 20  # surrogates drawn at once after those
HEAVY_TAILS = 3.0  # excess kurtosis from which a series is also tested against surrogates of its ranks
LARGEST_FACTOR = 11  # of the length of a segment; a Fourier transform of other lengths takes up to ten times longer


def steepest(optimizer: Optimizer) -> float:
    r"""Largest curvature times learning rate at which an optimiser is stable."""
    mu = optimizer.momentum
    if optimizer.adaptive:
        raise DataError(
            f"null {BASIN!r} covers gradient descent with and without momentum; this run was trained with "
            f"{optimizer.adaptive}: use another null"
        )
    if not 0 <= mu < 1:
        raise DataError(f"null {BASIN!r}: momentum must lie between 0 and 1, got {mu:g}")
    return 2 * (1 + mu) / (1 + 2 * mu) if optimizer.nesterov else 2 * (1 + mu)


def twins_optimizer(growth: Divergence) -> Optimizer:
    """Optimiser of the training of twins."""
    settings = growth.settings.get("optimizer")
    if isinstance(settings, list):
        raise DataError(f"null {BASIN!r} needs a single optimiser; these runs used several: analyse them one by one")
    optimizer = Optimizer(**settings) if settings else Optimizer()
    steepest(optimizer)
    return optimizer


def basin_null(growth: Divergence) -> Callable[[Floats, Floats, Floats, Floats], Floats]:
    r"""Null of twins in a quadratic basin, as a residual function for `trajtools.statistics.shape_evidence`.

    Notes
    -----
    In a basin :math:`x_{t+1} = x_t + \mu(x_t - x_{t-1}) - \eta H(\cdot - x^*)` on common batches the noise cancels
    between twins: their difference is a sum of modes, one for each curvature, and :math:`\eta h` determines each mode.
    Without momentum no mode grows. With momentum, modes near the edge of stability grow transiently, by up to
    :math:`2 / (1 - \mu)`, without sensitive dependence; this null covers such growth. The perturbation is assumed to be
    one of the weights alone, at the start of the curve, even for a window that begins later.
    """
    optimizer = twins_optimizer(growth)
    per_step = float(growth.settings.get("dt", 1.0))

    def residuals(y: Floats, mask: Floats, count: Floats, time: Floats) -> Floats:
        from scipy.optimize import nnls

        shapes = np.abs(modes(np.round(time / per_step).astype(np.int64), optimizer))
        out = np.zeros_like(y)
        for row in range(len(y)):
            inside = mask[row] > 0
            fits = [_best(y[row, inside], shapes[:, inside] ** p, p, nnls) for p in (1, 2)]
            out[row, inside] = min(fits, key=lambda rest: float(np.sum(rest**2)))
        return out

    return residuals


def modes(steps: Ints, optimizer: Optimizer) -> Floats:
    """Response to a unit perturbation along each curvature, step by step."""
    top, mu = steepest(optimizer), optimizer.momentum
    nu = mu * optimizer.nesterov
    half = RATES // 2
    rates = np.concatenate([np.linspace(0, top, half), top * np.geomspace(FLATTEST, 1 - 1 / half, RATES - half)])
    out = np.empty((len(rates), len(steps)))
    position, step, at = np.ones(len(rates)), np.zeros(len(rates)), 0
    for column, target in enumerate(steps.tolist()):
        while at < target:
            step = mu * step - rates * (position + nu * step)
            position = position + step
            at += 1
        out[:, column] = position
    return out


def _best(y: Floats, shapes: Floats, power: int, nnls: Any) -> Floats:
    """Residuals of ln d from the best sum of modes, weighted by relative error."""
    weight = np.exp(-power * y)
    used = shapes.max(axis=1) > 0
    columns = (shapes[used] * weight).T
    scale = columns.max(axis=0)
    share, _ = nnls(columns / scale, np.ones(len(y)))
    model = (columns / scale) @ share
    rest = -np.log(np.maximum(model, SMALLEST * max(float(model.max()), 1e-300))) / power
    return np.asarray(rest - rest.mean())


@dataclass(frozen=True, eq=False)
class Tested:
    """Result of a test against surrogates.

    Attributes
    ----------
    p_value : float
        ``(k + 1) / (n + 1)``; NaN without a test.
    name, description : str
        The null; empty without a test.
    settings : dict
        Settings of the test.
    """

    p_value: float = float("nan")
    name: str = ""
    description: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def against_surrogates(
    series: Floats,
    null: str,
    *,
    embedding: tuple[int, int],
    theiler: int,
    horizon: int,
    count: int,
    rng: np.random.Generator,
    optimizer: Optimizer = PLAIN,
) -> Tested:
    """Test whether neighbours stay close for longer than in surrogates.

    Notes
    -----
    The statistic is minus the mean logarithm of the distance between nearest neighbours, averaged over the lags up to
    saturation, on a segment of at most `MOST_STATES` states; its ends are matched for the stationary nulls. It is the
    area under the divergence curve: neighbours stay close for longer in chaos than in a stochastic process with the
    same spectrum.

    Surrogates are drawn until the null can no longer be rejected, at most `count` (Besag and Clifford 1991). A null is
    rejected exactly when `count` surrogates would reject it, so the level is that of the fixed number.

    In a series with heavy tails, such as the exponential of an autoregression, a few large values make up the spectrum:
    IAAFT leaves the order of the many small ones to chance, and neighbours among them separate at once. Where IAAFT is
    rejected there, surrogates of the normal scores must be rejected, too; the p-value is the larger one.
    """
    part = _longest_finite(series)[: MOST_STATES + (embedding[0] - 1) * embedding[1]]
    name = null
    if null == "auto":
        name = "phase-randomised" if part.shape[1] > 1 else "iaaft"
    if len(part) < 64:
        return Tested(settings={"tested_states": len(part)})
    if name in STATIONARY:
        part = part[matched_ends(part)]
    draw, description, fitted = _source(part, name, optimizer)
    lags, curve = _separation(part, embedding, theiler, horizon)
    value = _closeness(curve)

    def drawn_from(source: Callable[[np.random.Generator, int], Any]) -> tuple[Floats, Floats]:
        curves, drawn = np.empty((0, len(lags))), np.empty(0)
        while len(drawn) < count and not is_accepted(value, drawn, count):
            more = min(BLOCK if len(drawn) else LEAST_DRAWN, count - len(drawn))
            new = _separations(source(rng, more), embedding, theiler, horizon)
            curves = np.concatenate([curves, new])
            drawn = np.concatenate([drawn, [_closeness(c) for c in new]])
        return curves, drawn

    curves, drawn = drawn_from(draw)
    if name == "iaaft" and not is_accepted(value, drawn, count) and _excess_kurtosis(part[:, 0]) > HEAVY_TAILS:
        others = drawn_from(lambda rng, count: _iaaft_of_ranks(part, rng, count))
        curves, drawn = max((curves, drawn), others, key=lambda each: rank_p(value, each[1]))
    settings = {
        "tested_states": len(part),
        "surrogates": len(drawn),
        "statistic": "minus the mean log distance of nearest neighbours over the lags up to saturation",
        "statistic_value": value,
        "statistic_of_surrogates": np.quantile(drawn, [0, 0.05, 0.5, 0.95, 1]) if np.isfinite(drawn).all() else drawn,
        "null_band": _band(lags, curve, curves),
        **fitted,
    }
    return Tested(rank_p(value, drawn), name, description, settings)


def is_accepted(value: float, drawn: Floats, count: int) -> bool:
    """Whether the null cannot be rejected at the level `DECISION` by `count` surrogates, of which some are drawn."""
    reached = int(np.sum(~(drawn < value)))
    # With too few surrogates for the level all are drawn, since they show how far the record is from the null.
    return reached > 0 and (reached + 1) / (count + 1) > DECISION


def _source(
    part: Floats, null: str, optimizer: Optimizer
) -> tuple[Callable[[np.random.Generator, int], Any], str, dict[str, Any]]:
    """Function that draws surrogates, description of the null, and fitted parameters."""
    if null != BASIN:
        return lambda rng, count: _MAKERS[null](part, rng, count), DESCRIPTIONS[null], {}
    basin = fit_basin(part, optimizer)  # once, for all surrogates
    fitted = {"basin_rates": basin.rates, "basin_momentum": optimizer.momentum, "basin_nesterov": optimizer.nesterov}
    text = DESCRIPTIONS[null].replace("gradient descent", optimizer.description)
    return lambda rng, count: [basin.draw(rng) for _ in range(count)], text, fitted


def fit_basin(states: Floats, optimizer: Optimizer = PLAIN) -> Basin:
    """Fit descent in a quadratic basin to the steps of a record."""
    top = steepest(optimizer)
    mu, nu = optimizer.momentum, optimizer.momentum * optimizer.nesterov
    steps = np.diff(states, axis=0)
    here, pull = states[:-1], steps
    if mu:
        here, pull = states[1:-1] + nu * steps[:-1], steps[1:] - mu * steps[:-1]
    middle, drift = here.mean(axis=0), pull.mean(axis=0)
    x, y = here - middle, pull - drift
    variance, axes = np.linalg.eigh(x.T @ x)
    both = axes.T @ (x.T @ y) @ axes
    size = variance[:, None] + variance[None, :]
    resolved = size > 1e-13 * max(float(variance[-1]), 1e-300)
    law = axes @ np.where(resolved, (both + both.T) / np.where(resolved, size, 1.0), 0.0) @ axes.T
    rates, axes = np.linalg.eigh(-law)
    rates = np.clip(rates, 0.0, top)
    noise = y @ axes + (x @ axes) * rates
    return Basin(optimizer, axes, rates, drift @ axes, middle @ axes, states[:2] @ axes, noise)


@dataclass(frozen=True, eq=False)
class Basin:
    r"""Descent in a quadratic basin, fitted to a record.

    Attributes
    ----------
    optimizer : Optimizer
        Its optimiser.
    axes : ndarray of float64, shape (d, d)
        Columns: the principal axes of the basin.
    rates : ndarray of float64, shape (d,)
        :math:`\eta h` along each axis, from 0 (flat) to the stability limit of the optimiser.
    drift : ndarray of float64, shape (d,)
        Mean of the steps minus their momentum term, along the axes.
    middle : ndarray of float64, shape (d,)
        Mean of the states at which the gradients are evaluated, along the axes.
    start : ndarray of float64, shape (2, d)
        First two states, along the axes.
    noise : ndarray of float64, shape (T - 2, d) or (T - 1, d)
        Residuals of the steps, along the axes.

    Notes
    -----
    .. math:: x_{t+1} - x_t = \mu (x_t - x_{t-1}) - \eta H (x_t + \nu (x_t - x_{t-1}) - x^*) + \xi_t

    with the momentum :math:`\mu` of the optimiser and :math:`\nu = \mu` for Nesterov's, else 0. :math:`\eta H` is
    the symmetric least-squares matrix with its eigenvalues clipped to the stable range. Only the noise limits the
    predictability of such a record, and two records with the same noise converge.
    """

    optimizer: Optimizer
    axes: Floats
    rates: Floats
    drift: Floats
    middle: Floats
    start: Floats
    noise: Floats

    def draw(self, rng: np.random.Generator) -> Floats:
        """Simulate a record (T, d) from the same start, with the noise in random order."""
        mu, nu = self.optimizer.momentum, self.optimizer.momentum * self.optimizer.nesterov
        n_start = 2 if mu else 1
        noise = self.drift + rng.permutation(self.noise, axis=0)
        out = np.empty((n_start + len(noise), len(self.rates)))
        out[:n_start] = self.start[:n_start]
        step = self.start[1] - self.start[0] if mu else np.zeros(len(self.rates))
        for t in range(n_start, len(out)):
            step = mu * step - self.rates * (out[t - 1] + nu * step - self.middle) + noise[t - n_start]
            out[t] = out[t - 1] + step
        return np.asarray(out @ self.axes.T)


def surrogate(x: ArrayLike, null: str, *, rng: np.random.Generator, optimizer: Optimizer = PLAIN) -> Floats:
    r"""Draw a surrogate record from a null.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.sin(np.arange(64.0))
    >>> y = surrogate(x, "iaaft", rng=np.random.default_rng(0))
    >>> bool(np.allclose(np.sort(y[:, 0]), np.sort(x)))
    True
    """
    states = np.asarray(x, dtype=np.float64)
    states = states[:, None] if states.ndim == 1 else states
    if null not in NULLS:
        raise UnknownNameError(f"there is no null {null!r}; there are {', '.join(NULLS)}")
    if states.ndim != 2 or len(states) < 4 or not states.shape[1]:
        raise DataError(f"a surrogate needs at least 4 states (T, d) or (T,), got shape {np.shape(x)}")
    if not np.isfinite(states).all():
        raise DataError("a surrogate needs finite states; select a window without NaN and inf")
    if null == BASIN:
        return fit_basin(states, optimizer).draw(rng)
    return np.asarray(_MAKERS[null](states, rng, 1)[0])


def _separation(part: Floats, embedding: tuple[int, int], theiler: int, horizon: int) -> tuple[Ints, Floats]:
    """Lags, and the mean log distance of nearest neighbours at each; NaN where there is none."""
    # Imported here: the search loads h5py, which fits of twins do not need.
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    states = embed(part, *embedding) if embedding[0] > 1 else part
    horizon = min(horizon, len(states) // 4)
    lags = np.unique(np.linspace(0, horizon, LAGS).astype(np.int64))
    curve = np.full(len(lags), np.nan)
    try:
        nearest = find_nearest(states, neighbors=NearestK(1), theiler=theiler, horizon=horizon)
    except DataError:
        return lags, curve
    i = np.flatnonzero(nearest.index[:, 0] >= 0)
    if not len(i):
        return lags, curve
    i = i[:: max(1, len(i) // REFERENCES)]
    j = nearest.index[i, 0]
    for k, lag in enumerate(lags):
        apart = states[i + lag] - states[j + lag]
        gaps = np.einsum("ij,ij->i", apart, apart)
        gaps = gaps[gaps > 0]
        if len(gaps):
            curve[k] = float(np.log(gaps).sum()) / len(gaps) / 2
    return lags, curve


def _separations(records: Any, embedding: tuple[int, int], theiler: int, horizon: int) -> list[Floats]:
    """Curve of `_separation` of each record, on the threads allowed for numba."""
    from trajtools._kernels._jit import in_parts

    curves: list[Floats] = [np.empty(0)] * len(records)

    def separate(first: int, last: int) -> None:
        for at in range(first, last):
            curves[at] = _separation(records[at], embedding, theiler, horizon)[1]

    in_parts(separate, len(records))
    return curves


def _longest_finite(series: Floats) -> Floats:
    broken = np.flatnonzero(~np.isfinite(series).all(axis=1))
    edges = np.concatenate([[-1], broken, [len(series)]])
    at = int(np.argmax(np.diff(edges)))
    return series[edges[at] + 1 : edges[at + 1]]


def _closeness(curve: Floats) -> float:
    finite = curve[np.isfinite(curve)]
    return -float(finite.mean()) if len(finite) else float("nan")


def _band(lags: Ints, curve: Floats, curves: Floats) -> dict[str, Floats | Ints]:
    """Curve of the record, and the 5 % and 95 % quantiles of those of the surrogates; lags in samples."""
    finite = curves[np.isfinite(curves).all(axis=1)]
    nan = np.full(len(lags), np.nan)
    low, high = np.quantile(finite, [0.05, 0.95], axis=0) if len(finite) else (nan, nan)
    return {"lag": lags, "record": curve, "low": low, "high": high}


def rank_p(value: float, drawn: Floats) -> float:
    """One-sided p-value of a statistic by its rank among those of surrogates."""
    if not np.isfinite(value):
        return float("nan")
    return (int(np.sum(~(drawn < value))) + 1) / (len(drawn) + 1)


def matched_ends(series: Floats, *, most: float = 0.1) -> slice:
    """Longest segment with matching ends, so that its periodic extension has no step.

    Notes
    -----
    A step between the last and the first state leaks into all frequencies, so surrogates are rougher than the record:
    the usual cause of false alarms. The mismatch is that of values and slopes, relative to the standard deviation.
    """
    length = len(series)
    cut = min(max(1, int(most * length)), length // 4)
    z = series / np.maximum(series.std(axis=0), 1e-300)
    steps = np.diff(z, axis=0)
    first, last = np.arange(cut), length - 2 - np.arange(cut)
    jump = np.zeros((cut, cut))
    for column in range(z.shape[1]):
        jump += (z[first, column][:, None] - z[last + 1, column][None]) ** 2
        jump += (steps[first, column][:, None] - steps[last, column][None]) ** 2
    lengths = last[None, :] + 1 - first[:, None]
    quick = _without_large_factors(np.arange(length + 1))[lengths]
    if quick.any():
        jump[~quick] = np.inf
    a, b = np.unravel_index(int(np.argmin(jump)), jump.shape)
    return slice(int(first[a]), int(last[b]) + 1)


def _without_large_factors(numbers: Ints) -> Bools:
    """Whether all prime factors of a number are at most `LARGEST_FACTOR`."""
    rest = np.maximum(numbers, 1)
    for prime in (2, 3, 5, 7, LARGEST_FACTOR):
        while True:
            divisible = rest % prime == 0
            if not divisible.any():
                break
            rest = np.where(divisible, rest // prime, rest)
    return np.asarray((rest == 1) & (numbers > 0))


def _phase_randomised(states: Floats, rng: np.random.Generator, count: int) -> list[Floats]:
    middle = states.mean(axis=0)
    spectrum = np.fft.rfft(states - middle, axis=0)
    made = []
    for _ in range(count):
        phases = np.exp(2j * np.pi * rng.random(len(spectrum)))
        phases[0] = 1.0
        if len(states) % 2 == 0:
            phases[-1] = 1.0 if rng.random() < 0.5 else -1.0
        made.append(np.fft.irfft(spectrum * phases[:, None], len(states), axis=0) + middle)
    return made


def _iaaft(states: Floats, rng: np.random.Generator, count: int) -> Floats:
    """Iterative amplitude-adjusted surrogates (Schreiber and Schmitz 1996), shape (count, T, 1)."""
    if states.shape[1] != 1:
        raise DataError(
            f"'iaaft' needs a single series; these states have {states.shape[1]} coordinates; use 'phase-randomised'"
        )
    from trajtools._kernels._jit import in_parts

    ordered = np.sort(states[:, 0])
    # Values of order one: their ranks are taken at single precision.
    scale = float(np.abs(ordered - ordered.mean()).max())
    series = (states[:, 0] - ordered.mean()) / (scale if scale > 0 else 1.0)
    amplitude = np.abs(np.fft.rfft(series))
    target = np.sort(series)
    start = np.array([rng.permutation(series) for _ in range(count)])
    ranks = np.empty(start.shape, dtype=np.int64)

    def converge(first: int, last: int) -> None:
        ranks[first:last] = _converged_ranks(start[first:last], target, amplitude)

    in_parts(converge, count)
    return ordered[ranks][:, :, None]


def _iaaft_of_ranks(states: Floats, rng: np.random.Generator, count: int) -> Floats:
    """IAAFT of the normal scores, mapped back by rank: a Gaussian process observed through a monotone function."""
    from scipy.special import ndtri

    length = len(states)
    order = np.lexsort((rng.random(length), states[:, 0]))  # equal values in random order
    scores = np.empty((length, 1))
    scores[order, 0] = ndtri((np.arange(length) + 0.5) / length)
    ranks = _iaaft(scores, rng, count)[:, :, 0].argsort(axis=1).argsort(axis=1)
    return np.asarray(np.sort(states[:, 0])[ranks][:, :, None])


def _excess_kurtosis(series: Floats) -> float:
    z = series - series.mean()
    variance = float(np.mean(z**2))
    return float(np.mean((z / variance**0.5) ** 4)) - 3 if variance > 0 else 0.0


def _converged_ranks(values: Floats, target: Floats, amplitude: Floats) -> Ints:
    """Alternate between the spectrum and the values (rows, n) until each row has converged; ranks of its values."""
    from trajtools._kernels.iaaft import impose_spectrum, rank_rows

    ranks = np.empty(values.shape, dtype=np.int64)
    open_rows, last = np.arange(len(values)), np.full(len(values), np.inf)
    power = float(np.sum(amplitude**2))
    for _ in range(ROUNDS):
        spectra = np.fft.rfft(values)
        misfit = np.empty(len(values))
        impose_spectrum(spectra, amplitude, misfit)
        misfit = np.sqrt(misfit / power) if power > 0 else np.zeros(len(values))
        new = np.empty(values.shape, dtype=np.int64)
        rank_rows(np.fft.irfft(spectra, len(target)).astype(np.float32), new)
        ranks[open_rows] = new
        still = (misfit > MISFIT) & (misfit < (1 - IMPROVEMENT) * last)
        if not still.any():
            break
        open_rows, last, values = open_rows[still], misfit[still], target[new[still]]
    return ranks


def _random_walk(states: Floats, rng: np.random.Generator, count: int) -> list[Floats]:
    steps = np.diff(states, axis=0)
    drift = steps.mean(axis=0)
    # Gaussian combinations of the steps have the covariance of the steps, in any dimension and at any rank.
    length = len(steps)
    mix = (steps - drift) / np.sqrt(length - 1)
    if states.shape[1] <= length:
        _, size, axes = np.linalg.svd(mix, full_matrices=False)
        mix = size[:, None] * axes
    made = []
    for _ in range(count):
        drawn = rng.standard_normal((length, len(mix))) @ mix
        made.append(np.concatenate([states[:1], states[:1] + np.cumsum(drift + drawn, axis=0)]))
    return made


def _shuffled_increments(states: Floats, rng: np.random.Generator, count: int) -> list[Floats]:
    steps = np.diff(states, axis=0)
    return [
        np.concatenate([states[:1], states[:1] + np.cumsum(rng.permutation(steps, axis=0), axis=0)])
        for _ in range(count)
    ]


_MAKERS: dict[str, Callable[[Floats, np.random.Generator, int], Any]] = {
    "phase-randomised": _phase_randomised,
    "iaaft": _iaaft,
    "random-walk": _random_walk,
    "shuffled-increments": _shuffled_increments,
}
