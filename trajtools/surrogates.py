"""Records that share what a null says and nothing else: what an estimator's answer is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trajtools.errors import DataError, UnknownNameError
from trajtools.optimizers import Optimizer
from trajtools.types import Floats

ROUNDS = 60  # of IAAFT at most; it stops earlier where nothing changes any more

STATIONARY = ("phase-randomised", "iaaft")
DRIFTING = ("random-walk", "shuffled-increments")
BASIN = "quadratic-basin"
NULLS = (*STATIONARY, *DRIFTING, BASIN)
WORDS = {
    "phase-randomised": "a stationary linear Gaussian process with the same spectra and cross-spectra",
    "iaaft": "a stationary linear process with the same spectrum, seen through a static function "
    "(same values, shuffled)",
    "random-walk": "a random walk whose steps have the same mean and covariance",
    "shuffled-increments": "a walk with the same steps in random order",
    BASIN: "gradient descent in a quadratic basin, whose rates are fitted to the steps and whose noise is what is left "
    "of them, in random order",
}
PLAIN = Optimizer()


def surrogate(x: ArrayLike, null: str, *, rng: np.random.Generator, optimizer: Optimizer = PLAIN) -> Floats:
    r"""Draw a record that could have come from a null.

    Parameters
    ----------
    x : array_like, shape (T, d) or (T,)
        The record, finite.
    null : str
        ``"phase-randomised"``: the Fourier amplitudes of every coordinate and the phase differences between the
        coordinates are kept, the phases drawn (Prichard and Theiler 1994). ``"iaaft"``: amplitudes and the values
        themselves are kept, for one series (Schreiber and Schmitz 1996). ``"random-walk"``: Gaussian steps with the
        mean and covariance of the steps, from the first state. ``"shuffled-increments"``: the steps themselves in
        random order. ``"quadratic-basin"``: a descent from the first state, see `Basin`.
    rng : numpy.random.Generator
        Source of the draw.
    optimizer : Optimizer
        Of ``"quadratic-basin"``: with momentum or without.

    Returns
    -------
    ndarray of float64, shape (T, d)
        The surrogate.

    Raises
    ------
    UnknownNameError
        If there is no such null.
    DataError
        If the record is too short, not finite, or has several coordinates where one is needed.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.sin(np.arange(64.0))
    >>> made = surrogate(x, "iaaft", rng=np.random.default_rng(0))
    >>> bool(np.allclose(np.sort(made[:, 0]), np.sort(x)))
    True
    """
    states = np.asarray(x, dtype=np.float64)
    states = states[:, None] if states.ndim == 1 else states
    if null not in NULLS:
        raise UnknownNameError(f"there is no null {null!r}; there are {', '.join(NULLS)}")
    if states.ndim != 2 or len(states) < 4 or not states.shape[1]:
        raise DataError(f"a surrogate takes at least 4 states (T, d) or (T,), got shape {np.shape(x)}")
    if not np.isfinite(states).all():
        raise DataError("a surrogate takes finite states; select a window without NaN and inf")
    if null == BASIN:
        return fit_basin(states, optimizer).draw(rng)
    return _MAKERS[null](states, rng)


@dataclass(frozen=True, eq=False)
class Basin:
    r"""A descent in a quadratic basin that was fitted to a record.

    Attributes
    ----------
    optimizer : Optimizer
        Its law.
    axes : ndarray of float64, shape (d, d)
        Columns: the principal axes of the basin.
    rates : ndarray of float64, shape (d,)
        :math:`\eta h` along each, between 0 (flat) and the largest that the optimiser is stable at.
    drift : ndarray of float64, shape (d,)
        Mean of the part of the steps that momentum does not explain, along the axes.
    middle : ndarray of float64, shape (d,)
        Mean of the states that the gradients belong to, along the axes.
    start : ndarray of float64, shape (2, d)
        First two states, along the axes.
    noise : ndarray of float64, shape (T - 2, d) or (T - 1, d)
        What the basin leaves of the steps, along the axes.

    Notes
    -----
    .. math:: x_{t+1} - x_t = \mu (x_t - x_{t-1}) - \eta H (x_t + \nu (x_t - x_{t-1}) - x^*) + \xi_t

    with the momentum :math:`\mu` of the optimiser and :math:`\nu = \mu` for Nesterov's, else 0. :math:`\eta H` is
    the symmetric matrix of least squares, its eigenvalues brought into the stable range: a basin. A record of this law
    is as predictable as its noise lets it be, and two records with the same noise come together.
    """

    optimizer: Optimizer
    axes: Floats
    rates: Floats
    drift: Floats
    middle: Floats
    start: Floats
    noise: Floats

    def draw(self, rng: np.random.Generator) -> Floats:
        """Return a record (T, d) that starts as the fitted one did, with the noise in random order."""
        mu, nu = self.optimizer.momentum, self.optimizer.momentum * self.optimizer.nesterov
        given = 2 if mu else 1
        noise = self.drift + rng.permutation(self.noise, axis=0)
        out = np.empty((given + len(noise), len(self.rates)))
        out[:given] = self.start[:given]
        step = self.start[1] - self.start[0] if mu else np.zeros(len(self.rates))
        for t in range(given, len(out)):
            step = mu * step - self.rates * (out[t - 1] + nu * step - self.middle) + noise[t - given]
            out[t] = out[t - 1] + step
        return np.asarray(out @ self.axes.T)


def fit_basin(states: Floats, optimizer: Optimizer = PLAIN) -> Basin:
    """Fit a descent in a quadratic basin to the steps of a record.

    Parameters
    ----------
    states : ndarray of float64, shape (T, d)
        The record, finite, T at least 4.
    optimizer : Optimizer
        Its law; with what momentum is known, the rates are fitted.

    Returns
    -------
    Basin

    Raises
    ------
    DataError
        If the optimiser knows no basin, see `steepest`.
    """
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
    known = size > 1e-13 * max(float(variance[-1]), 1e-300)
    law = axes @ np.where(known, (both + both.T) / np.where(known, size, 1.0), 0.0) @ axes.T
    rates, axes = np.linalg.eigh(-law)
    rates = np.clip(rates, 0.0, top)
    noise = y @ axes + (x @ axes) * rates
    return Basin(optimizer, axes, rates, drift @ axes, middle @ axes, states[:2] @ axes, noise)


def steepest(optimizer: Optimizer) -> float:
    r"""Largest curvature times learning rate at which an optimiser is stable.

    Parameters
    ----------
    optimizer : Optimizer
        Gradient descent, with momentum or without.

    Returns
    -------
    float
        2; with momentum :math:`2 (1 + \mu)`; with Nesterov's :math:`2 (1 + \mu) / (1 + 2 \mu)`.

    Raises
    ------
    DataError
        If the optimiser is adaptive (its steps are no linear function of the weights in any basin), or its momentum
        lets it leave every basin.
    """
    mu = optimizer.momentum
    if optimizer.adaptive:
        raise DataError(
            f"null {BASIN!r} knows gradient descent, with and without momentum; this run was trained with "
            f"{optimizer.adaptive}: use another null"
        )
    if not 0 <= mu < 1:
        raise DataError(f"null {BASIN!r}: a basin holds momentum between 0 and 1, got {mu:g}")
    return 2 * (1 + mu) / (1 + 2 * mu) if optimizer.nesterov else 2 * (1 + mu)


def _phase_randomised(states: Floats, rng: np.random.Generator) -> Floats:
    middle = states.mean(axis=0)
    spectrum = np.fft.rfft(states - middle, axis=0)
    phases = np.exp(2j * np.pi * rng.random(len(spectrum)))
    phases[0] = 1.0
    if len(states) % 2 == 0:
        phases[-1] = 1.0 if rng.random() < 0.5 else -1.0
    return np.asarray(np.fft.irfft(spectrum * phases[:, None], len(states), axis=0) + middle)


def _iaaft(states: Floats, rng: np.random.Generator) -> Floats:
    if states.shape[1] != 1:
        raise DataError(
            f"'iaaft' keeps the values of one series, these states have {states.shape[1]} coordinates; use "
            "'phase-randomised'"
        )
    series = states[:, 0]
    ordered = np.sort(series)
    amplitude = np.abs(np.fft.rfft(series))
    made = rng.permutation(series)
    order = np.empty(0, dtype=np.int64)
    for _ in range(ROUNDS):
        spectrum = np.fft.rfft(made)
        size = np.abs(spectrum)
        made = np.fft.irfft(np.where(size > 0, spectrum / np.where(size > 0, size, 1.0), 1.0) * amplitude, len(series))
        ranks = np.argsort(made, kind="stable")
        if len(order) and np.array_equal(ranks, order):
            break
        order = ranks
        made[ranks] = ordered
    made[order] = ordered
    return made[:, None]


def _random_walk(states: Floats, rng: np.random.Generator) -> Floats:
    steps = np.diff(states, axis=0)
    drift = steps.mean(axis=0)
    # Gaussian weights of the steps themselves have their covariance, in any dimension and at any rank.
    count = len(steps)
    if states.shape[1] <= count:
        _, size, axes = np.linalg.svd((steps - drift) / np.sqrt(count - 1), full_matrices=False)
        drawn = rng.standard_normal((count, len(size))) * size @ axes
    else:
        drawn = rng.standard_normal((count, count)) @ ((steps - drift) / np.sqrt(count - 1))
    return np.concatenate([states[:1], states[:1] + np.cumsum(drift + drawn, axis=0)])


def _shuffled_increments(states: Floats, rng: np.random.Generator) -> Floats:
    steps = np.diff(states, axis=0)
    return np.concatenate([states[:1], states[:1] + np.cumsum(rng.permutation(steps, axis=0), axis=0)])


_MAKERS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "phase-randomised": _phase_randomised,
    "iaaft": _iaaft,
    "random-walk": _random_walk,
    "shuffled-increments": _shuffled_increments,
}


def matched_ends(series: Floats, *, most: float = 0.1) -> slice:
    """Longest stretch whose two ends fit together, so that its Fourier series has no step.

    Parameters
    ----------
    series : ndarray of float64, shape (T, d)
        The record.
    most : float
        At most this share of the record is cut away.

    Returns
    -------
    slice
        The stretch.

    Notes
    -----
    A step between the last and the first state leaks into all frequencies, and surrogates are then rougher than the
    record: the usual cause of false alarms. The mismatch is that of values and of slopes, relative to the spread.
    """
    length = len(series)
    cut = max(1, int(most * length))
    scale = np.maximum(series.std(axis=0), 1e-300)
    z = series / scale
    steps = np.diff(z, axis=0)
    first, last = np.arange(min(cut, length // 4)), length - 2 - np.arange(min(cut, length // 4))
    stride = max(1, len(first) // 100)
    first, last = first[::stride], last[::stride]
    jump = np.zeros((len(first), len(last)))
    for column in range(z.shape[1]):
        jump += (z[first, column][:, None] - z[last + 1, column][None]) ** 2
        jump += (steps[first, column][:, None] - steps[last, column][None]) ** 2
    a, b = np.unravel_index(int(np.argmin(jump)), jump.shape)
    return slice(int(first[a]), int(last[b]) + 1)


def rank_p(value: float, drawn: Floats) -> float:
    """One-sided p-value of a statistic among those of surrogates.

    Parameters
    ----------
    value : float
        Of the data.
    drawn : ndarray of float64, shape (n,)
        Of the surrogates.

    Returns
    -------
    float
        ``(k + 1) / (n + 1)`` with k surrogates at least as large; NaN if the value is not finite.
    """
    if not np.isfinite(value):
        return float("nan")
    return (int(np.sum(~(drawn < value))) + 1) / (len(drawn) + 1)
