"""Records that share what a null says and nothing else: what an estimator's answer is compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from trajtools.errors import DataError, UnknownNameError
from trajtools.results import Floats

ROUNDS = 60  # of IAAFT at most; it stops earlier where nothing changes any more

STATIONARY = ("phase-randomised", "iaaft")
DRIFTING = ("random-walk", "shuffled-increments")
WORDS = {
    "phase-randomised": "a stationary linear Gaussian process with the same spectra and cross-spectra",
    "iaaft": "a stationary linear process with the same spectrum, seen through a static function "
    "(same values, shuffled)",
    "random-walk": "a random walk whose steps have the same mean and covariance",
    "shuffled-increments": "a walk with the same steps in random order",
}


def surrogate(x: ArrayLike, null: str, *, rng: np.random.Generator) -> Floats:
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
        random order.
    rng : numpy.random.Generator
        Source of the draw.

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
    if null not in _MAKERS:
        raise UnknownNameError(f"there is no null {null!r}; there are {', '.join(_MAKERS)}")
    if states.ndim != 2 or len(states) < 4 or not states.shape[1]:
        raise DataError(f"a surrogate takes at least 4 states (T, d) or (T,), got shape {np.shape(x)}")
    if not np.isfinite(states).all():
        raise DataError("a surrogate takes finite states; select a window without NaN and inf")
    return _MAKERS[null](states, rng)


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
