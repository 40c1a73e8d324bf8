"""The 0-1 test for chaos (Gottwald and Melbourne 2004, 2009)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.embedding import estimate_delay
from trajtools.errors import DataError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import least_absolute_slopes, random_generator
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, RNGLike
from trajtools.wording import spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("correlation", "regression")


# Choices of this toolkit, listed in the settings of every result.
LOW, HIGH = 0.2, 0.8  # largest K of regular and smallest K of irregular motion


SPREAD = 0.3  # largest interquartile range of K over the frequencies
DRIFT = 0.25  # largest change of K from the first half of the series to all of it
FEWEST = 200  # samples
BAND = (np.pi / 5, 4 * np.pi / 5)  # away from the resonances at 0 and pi (Gottwald and Melbourne 2009, section 3.1)
_LEAST = 20
_ROUNDING = 64.0  # spacings of the numbers: smaller motion is rounding
_OVERSAMPLED = 10.0  # range over mean step above which a series looks oversampled


@dataclass(frozen=True, eq=False, repr=False)
class ZeroOne(Result):
    """Result of the 0-1 test.

    Attributes
    ----------
    value : float
        K, the median over the frequencies: near 0 for regular motion, near 1 for irregular motion.
    verdict : str
        ``"irregular"``: chaos or noise, which this test does not distinguish. ``"regular"``: periodic, quasi-periodic
        or at rest. ``"inconclusive"``: see `reasons`.
    reasons : tuple of Reason
        Reasons for it, with numbers.
    method : str
        ``"correlation"`` or ``"regression"``.
    frequencies : ndarray of float64, shape (C,)
        The frequencies c, in radians per (thinned) sample.
    values : ndarray of float64, shape (C,)
        K for each frequency; a resonance gives an isolated value near 0 or 1.
    spread : (float, float)
        Quartiles of `values`; not a confidence interval.
    half : float
        K of the first half of the series.
    every : int, in samples
        Sampling interval used: every k-th sample.
    n_used, n_total : int
        Samples used, and all samples.
    displacement : ndarray of float64, shape (L,)
        Mean square displacement at the median frequency, for lags 1 .. L, of the series over its largest absolute
        value.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import trajtools as tt
    >>> x = tt.systems.logistic().trajectory(1000, rng=0)[:, 0]
    >>> test = tt.structure.zero_one_test(x)
    >>> test.value > 0.5, test.method
    (True, 'correlation')
    """

    value: float
    verdict: str
    reasons: tuple[Reason, ...]
    method: str
    frequencies: Floats
    values: Floats
    spread: tuple[float, float]
    half: float
    every: int
    n_used: int
    n_total: int
    displacement: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {"values": ("frequencies",)}
    _one_row: ClassVar[bool] = True

    def _sentence(self) -> str:
        return {
            "irregular": "The series is chaotic or noisy, which this test does not tell apart.",
            "regular": "The series is periodic, quasi-periodic or at rest.",
        }.get(self.verdict, "The test does not decide; the reasons say why.")

    def _head(self) -> str:
        return f"K = {spoken(self.value, 3)}: {self.verdict}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot K over the frequencies; see `trajtools.plots.zero_one_test`.

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

        return plots.zero_one_test(self, ax=ax)


@takes_states("x")
def zero_one_test(
    x: StatesLike,
    *,
    method: str = "correlation",
    every: int | str = "auto",
    frequencies: int = 100,
    damping: float = 0.0,
    most: int = 100_000,
    rng: RNGLike = None,
) -> ZeroOne:
    r"""0-1 test for chaos: K near 0 for regular motion, K near 1 for irregular motion.

    Parameters
    ----------
    x : array_like, shape (T,) or (T, 1)
        A series, such as a loss, one weight or a principal component.
    method : str
        ``"correlation"``: K is the correlation of the mean square displacement with time; ``"regression"``: its slope
        in logarithms, by least absolute deviations.
    every : int or "auto", in samples
        Use every k-th sample. ``"auto"``: the first minimum of the mutual information, because an oversampled smooth
        signal always looks regular.
    frequencies : int
        Number of frequencies c drawn from (pi/5, 4 pi/5).
    damping : float
        Strength alpha of the damping term, which makes the test less sensitive to weak noise; 0: none.
    most : int
        Only the first `most` samples are used, after `every`; more rarely change K, and a warning counts the others.
    rng : int, numpy.random.Generator or None
        Generator of the frequencies; None is the seed 0.

    Returns
    -------
    ZeroOne
        K, its distribution over the frequencies, verdict and reasons.

    Raises
    ------
    DataError
        If `x` is not a real series, or an argument is out of range.
    UnknownNameError
        If there is no such method.

    Notes
    -----
    .. math::
        z_c(n) = \sum_{j \le n} (\phi_j - \bar\phi) e^{i j c}, \quad
        D_c(n) = \frac{1}{N - L} \sum_{j=1}^{N - L} |z_c(j + n) - z_c(j)|^2 + \alpha \bar\phi^2 \sin(\sqrt{2} n)

    for n = 1 .. L, L = N / 10; K is the median over c of the correlation of D with n, or of the slope of ln D against
    ln n. The paper includes the mean in the sum and subtracts the oscillation due to it,
    :math:`\bar\phi^2 (1 - \cos nc) / (1 - \cos c)`; subtracting the mean first is equivalent and loses no digits to a
    large mean. The damping term is that of the paper (section 4.2), with the mean of the original series.

    Noise has K = 1, like chaos: the verdict is ``"irregular"``. A record with samples that are not finite is cut to its
    longest finite stretch.

    References
    ----------
    .. [1] G. A. Gottwald, I. Melbourne, Proc. R. Soc. A 460, 603 (2004), doi:10.1098/rspa.2003.1183
    .. [2] G. A. Gottwald, I. Melbourne, SIAM J. Appl. Dyn. Syst. 8, 129 (2009), doi:10.1137/080718851

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = [0.4]
    >>> for _ in range(1999):
    ...     x.append(3.97 * x[-1] * (1 - x[-1]))
    >>> k = tt.structure.zero_one_test(x)
    >>> k.verdict, bool(k.value > 0.9)
    ('irregular', True)
    >>> tt.structure.zero_one_test(np.cos(2.2 * np.arange(2000))).verdict
    'regular'
    """
    if method not in METHODS:
        raise UnknownNameError(f"no method {method!r}; there are {', '.join(METHODS)}")
    if isinstance(frequencies, bool) or not isinstance(frequencies, (int, np.integer)) or frequencies < 1:
        raise DataError(f"frequencies={frequencies!r}: it must be a positive integer")
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < FEWEST:
        raise DataError(f"most={most!r}: it must be an integer, at least {FEWEST}")
    if not (np.isfinite(damping) and damping >= 0):
        raise DataError(f"damping={damping!r}; it must be a non-negative number")
    full, spacing = _series(x)
    series, warnings = _longest_stretch(full)
    peak = float(np.abs(series).max())
    if peak > 0:  # squares must neither overflow nor underflow
        series, spacing = series / peak, spacing / peak
    step, why, more, doubt = _every(series, every)
    thinned = series[::step]
    if len(thinned) > most:
        text = "the first {used} of {samples} samples are used; most= sets the number"
        more += (Reason.of("thinned", text, used=int(most), samples=len(thinned)),)
        thinned = thinned[:most]
    settings: dict[str, Any] = {
        "method": method, "every": step, "every_why": why, "frequencies": int(frequencies), "band": BAND,
        "damping": float(damping), "most": int(most), "low": LOW, "high": HIGH, "spread": SPREAD, "drift": DRIFT,
        "fewest": FEWEST,
    }  # fmt: skip
    c = np.sort(random_generator(rng).uniform(*BAND, frequencies))
    head: dict[str, Any] = {"method": method,
            "frequencies": c, "every": step, "n_used": len(thinned), "n_total": len(full),
            "settings": settings, "warnings": (*warnings, *more)}  # fmt: skip
    if len(thinned) < _LEAST or np.ptp(thinned) <= _ROUNDING * spacing:
        return _constant(thinned, head)
    values, displacement = _k_values(thinned, c, method, float(damping))
    half, _ = _k_values(thinned[: len(thinned) // 2], c, method, float(damping))
    value, before = float(np.median(values)), float(np.median(half))
    low, high = np.quantile(values, [0.25, 0.75])
    verdict, reasons = _verdict(value, (float(low), float(high)), before, len(thinned), doubt)
    return ZeroOne(
        value=value,
        verdict=verdict,
        reasons=reasons,
        values=values,
        spread=(float(low), float(high)),
        half=before,
        displacement=displacement[np.argsort(values, kind="stable")[(len(values) - 1) // 2]],
        **head,
    )


def _series(x: Any) -> tuple[Floats, float]:
    array = np.asarray(x)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError(
            f"the 0-1 test takes one real series, (T,); got shape {array.shape} of {array.dtype}. For networks pass an "
            "observable: a metric of the run, one weight, or a coordinate of `trajtools.structure.pca`"
        )
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise DataError(f"none of {len(values)} samples is finite")
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return values, float(np.spacing(np.abs(finite).max().astype(dtype)))


def _longest_stretch(series: Floats) -> tuple[Floats, tuple[Reason, ...]]:
    """Longest run of finite samples; joining across a gap would create false neighbours."""
    good = np.isfinite(series)
    if good.all():
        return series, ()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    best = int(np.argmax(stops - starts))
    stretch = series[starts[best] : stops[best]]
    gap = Reason.of(
        "not-finite",
        "{excluded} of {samples} samples are not finite; the test uses the longest finite stretch, {tested} samples "
        "from sample {start} on",
        excluded=np.count_nonzero(~good),
        samples=len(series),
        tested=len(stretch),
        start=starts[best],
    )
    return stretch, (gap,)


def _every(series: Floats, every: int | str) -> tuple[int, str, tuple[Reason, ...], Reason | None]:
    """Sampling interval, its reason, warnings, and a reason to doubt the verdict."""
    if every != "auto":
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise DataError(f"every={every!r}; it must be a positive integer, in samples, or 'auto'")
        subset = series[:: int(every)]
        steps = np.mean(np.abs(np.diff(subset))) if len(subset) > 1 else 0.0
        over = bool(steps > 0 and np.ptp(subset) > _OVERSAMPLED * steps)
        if not over:
            return int(every), "as given", (), None
        text = (
            "the series traverses its range in {steps:.0f} mean steps: it looks oversampled, and oversampled chaos "
            "looks regular; use every='auto'"
        )
        dense = Reason.of("oversampled", text, steps=np.ptp(subset) / max(steps, 1e-300))
        return int(every), "as given", (dense,), Reason("oversampled", "the series looks oversampled")
    if len(series) < _LEAST or np.ptp(series) == 0:
        return 1, "too short or constant", (), None
    choice = estimate_delay(series)
    doubt = Reason("drift", "the series drifts; the test needs a stationary one") if choice.warnings else None
    if choice.value == 1:
        return 1, choice.reason, choice.warnings, doubt
    text = "the series is oversampled: one sample in {every} is used ({why})"
    thinned = Reason.of("oversampled", text, every=choice.value, why=choice.reason)
    return choice.value, choice.reason, (thinned, *choice.warnings), doubt


def _k_values(series: Floats, c: Floats, method: str, damping: float) -> tuple[Floats, Floats]:
    """K (C,) and the displacements (C, L) for all frequencies."""
    displacement = np.stack([_displacement(series, float(each)) for each in c])
    lags = np.arange(1, displacement.shape[1] + 1)
    displacement = displacement + damping * float(np.mean(series)) ** 2 * np.sin(np.sqrt(2.0) * lags)
    if method == "regression":
        # Rounding of the transform may leave a displacement slightly below zero.
        tiny = np.finfo(np.float64).eps * np.abs(displacement).max(axis=1, keepdims=True)
        return least_absolute_slopes(np.log(lags), np.log(np.maximum(displacement, tiny))), displacement
    centred = displacement - displacement.mean(axis=1, keepdims=True)
    time = lags - lags.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        k = centred @ time / np.sqrt((centred**2).sum(axis=1) * (time**2).sum())
    return np.where(np.isfinite(k), k, 0.0), displacement


def _displacement(series: Floats, c: float) -> Floats:
    """Mean square displacement for lags 1 .. N / 10, by Fourier transforms."""
    from scipy.fft import next_fast_len

    length = len(series)
    cut = max(2, length // 10)
    z = np.cumsum((series - series.mean()) * np.exp(1j * c * np.arange(1, length + 1)))
    z -= z.mean()
    used = length - cut
    power = z.real**2 + z.imag**2
    squares = np.concatenate([[0.0], np.cumsum(power)])
    # Products of all pairs at a lag, less those whose first is among the last `cut`.
    size, small = next_fast_len(length + cut), next_fast_len(2 * cut)
    product = _lagged_products(z, size, cut) - _lagged_products(z[used:], small, cut)
    lags = np.arange(1, cut + 1)
    return np.asarray((squares[used] + squares[lags + used] - squares[lags] - 2 * product) / used)


def _lagged_products(z: Any, size: int, longest: int) -> Floats:
    """Sums of Re z(j + n) z(j)* at lags n = 1 .. longest, by transforms of `size` without wrap-around."""
    spectrum = np.fft.fft(z, size)
    power = spectrum.real**2 + spectrum.imag**2
    # The real part of the sums has the even part of the power as its spectrum: a real transform of half the length.
    half = size // 2 + 1
    even = power[:half].copy()
    even[1:] += power[: size - half : -1] if size % 2 == 0 else power[: half - 1 : -1]
    even[1:] /= 2
    return np.asarray(np.fft.irfft(even, size)[1 : longest + 1])


def _verdict(
    value: float, spread: tuple[float, float], half: float, length: int, doubt: Reason | None
) -> tuple[str, tuple[Reason, ...]]:
    text = "K = {k:.3f} (quartiles over the frequencies {low:.3f} and {high:.3f})"
    k = Reason.of("k", text, k=value, low=spread[0], high=spread[1])
    doubts = []
    if length < FEWEST:
        doubts.append(_too_few(length))
    if doubt is not None:
        doubts.append(doubt)
    if LOW <= value <= HIGH:
        text = "K is between {low} and {high}: record more"
        doubts.append(Reason.of("k-between", text, low=LOW, high=HIGH))
    if spread[1] - spread[0] > SPREAD:
        doubts.append(Reason("k-varies", "K depends on the frequency"))
    if abs(value - half) > DRIFT:
        text = "the first half of the series gives K = {half:.3f}: K has not converged"
        doubts.append(Reason.of("not-converged", text, half=half))
    if doubts:
        return "inconclusive", (k, *doubts)
    if value > HIGH:
        text = "the translation variables perform a random walk: chaos or noise, which K cannot distinguish"
        return "irregular", (k, Reason("wanders", text))
    return "regular", (
        k,
        Reason("bounded", "the translation variables stay bounded: periodic, quasi-periodic or at rest"),
    )


def _too_few(length: int) -> Reason:
    text = "{samples} samples are left; the test needs {needed}"
    return Reason.of("too-few-states", text, samples=length, needed=FEWEST)


def _constant(series: Floats, head: dict[str, Any]) -> ZeroOne:
    unknown, constant = float("nan"), bool(len(series) >= FEWEST and np.ptp(series) == 0)
    reason = _too_few(len(series))
    if len(series) >= _LEAST and np.ptp(series) > 0:
        reason = Reason("below-rounding-floor", "the series moves by no more than rounding")
    elif len(series) >= _LEAST:
        reason = Reason("constant", "the series is constant")
    return ZeroOne(
        value=0.0 if constant else unknown,
        verdict="regular" if constant else "inconclusive",
        reasons=(reason,),
        values=np.full(len(head["frequencies"]), 0.0 if constant else unknown),
        spread=(unknown, unknown),
        half=unknown,
        displacement=np.empty(0),
        **head,
    )
