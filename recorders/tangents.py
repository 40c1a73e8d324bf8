"""Tangent-space exponents of a training run: k vectors through the Jacobian of every step, with QR (Benettin).

Framework-free part of `recorders.torch.Tangents` and `recorders.jax.Tangents`, which provide the products of vectors
with the Jacobian of the step of the optimiser. The state is (weights, optimiser buffers).

Training is not stationary, and one number for all of it misleads. While a direction is damped, a tangent vector loses
its component along it; when the direction becomes unstable later, the vector grows only after this component has
recovered (the bifurcation delay of a slow passage: hundreds of steps in exact arithmetic, fewer with rounding).
Exponents are therefore measured in windows with fresh vectors, besides those of vectors kept from the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from recorders.hessian import check_extent
from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.types import Floats, Ints
from trajtools.wording import bounds, counted, spoken

VECTORS = ("both", "fresh", "kept")
SHARE_LOST = math.log(100)  # nats; a fresh vector has a hundredth of the component of another in 1 of 160 windows
BLOCKS = 20
FEWEST_BLOCKS = 8
SHORTEST_BLOCK = 8  # steps
Push = Callable[[Floats], Floats]
DELAYED = (
    "in {count} of {total} windows, the first from step {start}, fresh vectors grew by up to {fresh:.1f} nats against "
    "{kept:.1f} of the kept one, which was damped along the unstable direction before (delayed loss of stability). Use "
    "`windows`, not `values`; start shadows and twins at the window, too"
)


@dataclass(frozen=True, eq=False, repr=False)
class TangentExponents(Result):
    """Finite-time exponents of a training run, in nats per step.

    Attributes
    ----------
    values : ndarray of float64, shape (k,)
        Exponents of the kept vectors over all steps not discarded, largest first; NaN without kept vectors.
    intervals : ndarray of float64, shape (k, 2)
        Confidence intervals at `level`, from the scatter of blocks of time; NaN with too few steps. They ignore drift
        over the run: compare the windows.
    level : float
        Confidence level.
    local : ndarray of float64, shape (T, k)
        ln of the stretching in every step, kept vectors; NaN in lost steps.
    windows : ndarray of float64, shape (W, k)
        Exponents of fresh vectors, window by window, largest first: growth of perturbations of the weights, measured in
        the weights.
    window_starts : ndarray of int64, shape (W,)
        First step of each window, counted from the first step followed.
    window_gains : ndarray of float64, shape (W,)
        Largest growth of the leading fresh vector within each window, in nats.
    window_kept : ndarray of float64, shape (W,)
        Exponent of the leading kept vector in the same windows, also measured in the weights; NaN without kept vectors.
        It exceeds that of fresh vectors, which must align first; if it stays far below, see `warnings`.
    window : int
        Steps per window. Steps after the last full window are in `local` only.
    kaplan_yorke : float
        Kaplan-Yorke dimension of `values`; NaN if it needs more than k exponents.
    entropy : float
        Sum of the positive `values`, nats per step.
    condition : float
        Largest ratio of the stretchings of two kept vectors in one step.
    n_lost : int
        Steps without numbers because a derivative was not finite.
    unit : str
        ``"1/step"``.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.
    """

    values: Floats
    intervals: Floats
    level: float
    local: Floats
    windows: Floats
    window_starts: Ints
    window_gains: Floats
    window_kept: Floats
    window: int
    kaplan_yorke: float
    entropy: float
    condition: float
    n_lost: int
    unit: str = "1/step"
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "values": ("exponent",),
        "intervals": ("exponent", "bound"),
        "windows": ("window_starts", "fresh"),
        "window_gains": ("window_starts",),
        "window_kept": ("window_starts",),
        "local": ("step", "exponent"),
    }

    def _head(self) -> str:
        largest = (f"{spoken(value)} {bounds(ends)}" for value, ends in zip(self.values, self.intervals, strict=True))
        return f"{', '.join(list(largest)[:4])} {self.unit}" if len(self.values) else ""

    def _sentence(self) -> str:
        steps = f"over {counted(len(self.local), 'step')}"
        lost = f", {self.n_lost} of them without numbers" if self.n_lost else ""
        return (
            f"Growth of perturbations {steps}{lost}, in {counted(len(self.windows), 'window')} of {self.window} steps."
        )


class Tangents:
    """Common part of the tangent vectors of torch and JAX: frames, their growth per step, and the result.

    Attributes
    ----------
    n_weights, n_state : int
        Numbers in the weights, and in the whole state: weights and buffers.
    k : int
        Number of vectors.
    window : int
        Steps per window.
    vectors : {"both", "fresh", "kept"}
        Kinds of vectors.
    of : str
        Extent of the data.
    n_lost : int
        Steps without numbers because a derivative was not finite.
    """

    def __init__(
        self,
        n_weights: int,
        n_state: int,
        *,
        k: int,
        window: int,
        vectors: str,
        of: str,
        seed: int,
        **settings: Any,
    ) -> None:
        if vectors not in VECTORS:
            raise UnknownNameError(f'vectors={vectors!r}: it must be "both", "fresh" or "kept"')
        most = n_weights if vectors != "kept" else n_state
        if not 1 <= k <= most:
            raise DataError(
                f"k={k} tangent vectors: 1 to {most} are possible here ({n_weights} weights, {n_state} numbers in the "
                'state; vectors="kept" allows as many as the state has)'
            )
        if window < 1:
            raise DataError(f"window={window}: a window needs at least one step")
        self.n_weights, self.n_state, self.k, self.window, self.vectors = n_weights, n_state, k, window, vectors
        self.of, self._rng = check_extent(of), np.random.default_rng(seed)
        self._settings = {"seed": seed, **settings}
        self._kept_frame: Frame | None = None
        self._fresh: Frame | None = None
        self._local: list[Floats] = []
        self._windows: list[tuple[int, Floats, float, float]] = []
        self._condition = 1.0
        self.n_lost = 0
        self._began = self._kept_from = 0
        self._gain_before = math.nan
        self._delays: list[tuple[float, float, int]] = []

    def _advance(self, push: Push) -> None:
        """Advance all vectors by one step."""
        at = len(self._local)
        if self.vectors != "fresh" and self._kept_frame is None:
            self._kept_frame = Frame(self._random(self.n_state if self.k > self.n_weights else self.n_weights))
            self._kept_from = at
        if self.vectors != "kept" and self._fresh is None:
            self._fresh, self._began = Frame(self._random(self.n_weights)), at
            self._gain_before = self._kept_gain()
        frames = [frame for frame in (self._kept_frame, self._fresh) if frame is not None]
        images = push(np.hstack([frame.columns for frame in frames]))
        local = np.full(self.k, np.nan)
        if np.isfinite(images).all():
            if self._fresh is not None:
                self._fresh.advance(images[:, -self.k :])
            if self._kept_frame is not None:
                local = self._kept_frame.advance(images[:, : self.k])
                if np.isfinite(local).all():
                    span = local.max() - local.min()
                    self._condition = max(self._condition, math.exp(min(span, 700.0)))
        else:
            self.n_lost += 1
            self._kept_frame = self._fresh = None
        self._local.append(local)
        if self._fresh is not None and len(self._local) - self._began == self.window:
            fresh = self._fresh
            # Young vectors may not be sorted yet.
            exponents = np.sort(fresh.of_weights(self.n_weights))[::-1] / self.window
            kept_gain = self._kept_gain() - self._gain_before
            self._windows.append((self._began, exponents, fresh.highest, kept_gain / self.window))
            self._compare(float(exponents[0]) * self.window, kept_gain)
            self._fresh = None

    def _kept_gain(self) -> float:
        """Growth of the leading kept vector so far, in the weights; NaN without kept vectors."""
        if self._kept_frame is None:
            return math.nan
        length = float(np.linalg.norm(self._kept_frame.columns[: self.n_weights, 0]))
        return float(self._kept_frame.sums[0]) + math.log(length) if length > 0 else math.nan

    def _compare(self, fresh: float, kept_gain: float) -> None:
        """Record a window in which fresh vectors grew but an old kept one did not."""
        if self._kept_from < self._began and fresh > SHARE_LOST and fresh - kept_gain > SHARE_LOST:
            self._delays.append((fresh, kept_gain, self._began))

    def _random(self, extent: int) -> Floats:
        """Draw random vectors in the first `extent` directions of the state."""
        columns = np.zeros((self.n_state, self.k))
        columns[:extent] = self._rng.standard_normal((extent, self.k))
        return columns

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the last step, for ``rec.record(**tangents.metrics)``.

        ``tangent_growth_<of>``: ln of the stretching of the kept vectors, nats; ``tangent_window_<of>``: exponents of
        the fresh vectors, nats per step, at the end of a window, else NaN. Numbers for k = 1, else arrays (k,).
        """
        nothing = np.full(self.k, np.nan)
        metrics = {}
        if self.vectors != "fresh":
            metrics[f"tangent_growth_{self.of}"] = self._local[-1] if self._local else nothing
        if self.vectors != "kept":
            ended = bool(self._windows) and self._windows[-1][0] + self.window == len(self._local)
            metrics[f"tangent_window_{self.of}"] = self._windows[-1][1] if ended else nothing
        return {name: float(value[0]) if self.k == 1 else value for name, value in metrics.items()}

    def result(self, *, discard: int = 0, level: float = 0.95) -> TangentExponents:
        """Compute the exponents from all steps so far.

        Parameters
        ----------
        discard : int
            Initial steps excluded from the exponents of the kept vectors.
        level : float
            Confidence level of the intervals.

        Returns
        -------
        TangentExponents
            Exponents of the kept vectors with intervals, and of the windows.

        Raises
        ------
        DataError
            If no step is left.
        """
        if not 0 < level < 1:
            raise DataError(f"level={level}: it must lie between 0 and 1, e.g. 0.95")
        if not 0 <= discard < max(len(self._local), 1) or not self._local:
            raise DataError(f"discard={discard} of {len(self._local)} steps leaves none")
        local = np.array(self._local)
        counted = local[discard:][~np.isnan(local[discard:]).any(1)]  # lost steps do not count
        values = counted.mean(0) if len(counted) else np.full(self.k, np.nan)
        intervals = by_blocks(counted, level)
        order = np.argsort(-values)
        starts, windows, gains, kept_exponents = zip(*self._windows, strict=True) if self._windows else ((), (), (), ())
        complete = self.k == self.n_state
        return TangentExponents(
            values[order],
            intervals[order],
            level,
            local,
            np.array(windows).reshape(-1, self.k),
            np.array(starts, np.int64),
            np.array(gains, np.float64),
            np.array(kept_exponents, np.float64),
            self.window,
            kaplan_yorke(values, complete=complete),
            float(values[values > 0].sum()) if not np.isnan(values).any() else math.nan,
            self._condition,
            self.n_lost,
            settings={
                "k": self.k, "window": self.window, "vectors": self.vectors, "of": self.of, "discard": discard,
                "n_weights": self.n_weights, "n_state": self.n_state, "n_steps": len(local), **self._settings,
            },
            warnings=tuple(self._warnings(intervals)),
        )  # fmt: skip

    def _warnings(self, intervals: Floats) -> list[Reason]:
        """Caveats of the result."""
        warnings = []
        if self.n_lost:
            text = "{steps} steps have no numbers: a derivative was not finite; the vectors were redrawn"
            warnings.append(Reason.of("not-finite", text, steps=self.n_lost))
        if self.vectors != "fresh" and np.isnan(intervals).any():
            text = "too few steps for an interval, which needs at least {blocks} blocks of {length}"
            warnings.append(Reason.of("interval-unknown", text, blocks=FEWEST_BLOCKS, length=SHORTEST_BLOCK))
        if self.vectors != "kept" and not self._windows:
            warnings.append(Reason.of("too-few-steps", "no full window of {window} steps", window=self.window))
        if self._delays:
            fresh, kept_gain, _ = max(self._delays)
            count, start = len(self._delays), self._delays[0][2]
            numbers = {"count": count, "total": len(self._windows), "start": start, "fresh": fresh, "kept": kept_gain}
            warnings.append(Reason.of("delayed-loss-of-stability", DELAYED, **numbers))
        return warnings


class Frame:
    """Orthonormal tangent vectors that advance through a sequence of Jacobians."""

    def __init__(self, columns: Floats) -> None:
        self.columns: Floats = np.linalg.qr(columns)[0]
        self.sums = np.zeros(columns.shape[1])
        self.highest = 0.0

    def advance(self, images: Floats) -> Floats:
        """Replace the vectors by their orthonormalised images."""
        self.columns, triangle = np.linalg.qr(images)
        with np.errstate(divide="ignore"):
            local: Floats = np.log(np.abs(np.diag(triangle)))
        self.sums += local
        self.highest = max(self.highest, float(self.sums[0]))
        return local

    def of_weights(self, n_weights: int) -> Floats:
        """Return the growth since the start in the weights only."""
        triangle = np.linalg.qr(self.columns[:n_weights], mode="r")
        with np.errstate(divide="ignore"):
            return self.sums + np.log(np.abs(np.diag(triangle)))


def kaplan_yorke(exponents: Any, *, complete: bool = False) -> float:
    r"""Kaplan-Yorke dimension of a set of exponents.

    Examples
    --------
    >>> kaplan_yorke([0.2, 0.1, -0.4, -1.0])
    2.75
    """
    ordered = np.sort(np.asarray(exponents, np.float64))[::-1]
    if not len(ordered) or np.isnan(ordered).any():
        return math.nan
    sums = np.cumsum(ordered)
    if ordered[0] < 0:
        return 0.0
    j = int(np.flatnonzero(sums >= 0)[-1]) + 1
    if j == len(ordered):
        return float(j) if complete else math.nan
    return float(j + sums[j - 1] / abs(ordered[j]))


def by_blocks(local: Floats, level: float) -> Floats:
    """Confidence intervals of means over time, from the scatter of the means of consecutive blocks."""
    from scipy.special import stdtrit

    n_blocks = min(BLOCKS, len(local) // SHORTEST_BLOCK)
    intervals = np.full((local.shape[1], 2), np.nan)
    if n_blocks < FEWEST_BLOCKS:
        return intervals
    cut = len(local) - len(local) % n_blocks
    means = local[len(local) - cut :].reshape(n_blocks, -1, local.shape[1]).mean(1)
    good = np.isfinite(means).all(0)
    half = stdtrit(n_blocks - 1, 0.5 + level / 2) * means[:, good].std(0, ddof=1) / math.sqrt(n_blocks)
    middle = local[:, good].mean(0)
    intervals[good] = np.stack([middle - half, middle + half], axis=1)
    return intervals
