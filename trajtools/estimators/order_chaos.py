"""Order and chaos of one layer along training, after Zhang, Feng, Chen and Lai (2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trajtools.errors import DataError, SelectionError
from trajtools.results.order_chaos import OrderChaos
from trajtools.significance import moving_blocks
from trajtools.trajectory import Trajectory
from trajtools.types import Floats
from trajtools.wiring import Parameter

FEWEST_INCREMENTS = 8
N_RESAMPLES = 999
# What a training may call these; looked up where they are not given.
_NAMES = {
    "rate": ("lr", "learning_rate", "eta"),
    "momentum": ("momentum",),
    "batch": ("batch_size", "batch"),
    "samples": ("samples", "n_train", "train_samples"),
}


def order_chaos(
    x: Any,
    layer: str | None = None,
    *,
    rate: float | None = None,
    momentum: float | None = None,
    batch: float | None = None,
    samples: float | None = None,
    edge: float = 1.0,
    window: tuple[float, float] | None = None,
    level: float = 0.95,
    rng: Any = 0,
) -> OrderChaos:
    r"""Follow the order parameters J and J0 of a layer, and the law by which it approaches the edge of chaos.

    Parameters
    ----------
    x : Run or Trajectory; or array_like, shape (T, fan_out, fan_in)
        A recorded training, or the kernel of one layer along training.
    layer : str or None
        Name of a kernel of two dimensions; None: the only one that maps a space onto itself.
    rate, momentum, batch, samples : float or None
        Learning rate, momentum, size of the batches, size of the training set. None: from the `hparams` of the run
        (``lr``, ``momentum``, ``batch_size``, ``samples`` and their usual synonyms); without momentum there, 0.
    edge : float
        J at which the slope ends to be measured; 1 is the edge of chaos of a layer without a mean.
    window : (float, float) or None
        Times between which the slope is measured; None: from the start until J reaches `edge`.
    level : float
        Confidence level.
    rng : int, numpy.random.Generator or None
        Source of the resampling.

    Returns
    -------
    OrderChaos
        In epochs where the samples and the batch are known.

    Raises
    ------
    SelectionError
        If there is no such layer, or several could be meant; the message lists the candidates.
    DataError
        If an argument makes no sense or the kernel has no two dimensions.

    Notes
    -----
    .. math:: J = \sqrt{N}\, \mathrm{std}(W), \quad J_0 = N\, \mathrm{mean}(W), \quad J^2(t) = J^2(0) + A t, \quad
       A = K \eta / ((1 - \alpha) B)

    with t in epochs and N the fan-in of the layer. The paper's network is square; for another shape the map cannot be
    iterated, and J is the growth of the input's variance. The published K of about 11 holds for the paper's network
    and data only: K depends on the data, so it is measured. Once J is above 1 the growth is slower than the law.

    The interval of A comes from a moving-block bootstrap of the increments of J^2. It is that of this training, not of
    other seeds.

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
    >>> found = tt.order_chaos(path)
    >>> round(found.slope, 6), round(found.crossing, 3)
    (0.05, 15.0)
    """
    if not (np.isfinite(edge) and edge > 0 and 0 < level < 1):
        raise DataError(f"edge={edge} must be positive and level={level} between 0 and 1")
    trajectory, chosen = _read(x, layer)
    known = _known(getattr(x, "hparams", {}), {"rate": rate, "momentum": momentum, "batch": batch, "samples": samples})
    J, J0 = _parameters_of(trajectory, chosen)
    per_epoch = known["samples"] / known["batch"]
    unit = "epoch" if np.isfinite(per_epoch) else trajectory.time_unit
    time = trajectory.step / per_epoch if np.isfinite(per_epoch) else trajectory.time
    first, last = _window(time, J, edge, window)
    slope, interval = _slope(time, J**2, (first, last), level, np.random.default_rng(rng))
    factor = (1 - known["momentum"]) * known["batch"] / known["rate"] if unit == "epoch" else float("nan")
    start = float(J[first] ** 2) if last > first else float("nan")
    away = (edge**2 - start) / slope if slope > 0 else float("nan")
    lost = int(np.count_nonzero(~np.isfinite(J)))
    return OrderChaos(
        layer=chosen.name,
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
        weight_decay=slope * factor / (4 * known["samples"]),
        level=level,
        settings=known | {"edge": edge, "fan_in": _fan_in(chosen), "shape": chosen.shape, "states": len(J)},
        warnings=_warnings(chosen, known, slope, interval, lost),
    )


def _read(x: Any, layer: str | None) -> tuple[Trajectory, Parameter]:
    """Select the states of one kernel."""
    if hasattr(x, "hparams") and hasattr(x, "trajectory"):
        x = x.trajectory()
    if isinstance(x, Trajectory):
        chosen = _choose(x.parameters, layer)
        selected = x.select(chosen.name)
        return selected, selected.parameters[0]
    array = np.asarray(x)
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise DataError(
            f"give a Run, a Trajectory with its parameters, or the kernel along training (T, fan_out, fan_in); got "
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
    there = ", ".join(f"{p.name} {p.shape}" for p in kernels) or "none"
    asked = f"layer={layer!r}" if layer is not None else "without layer= there must be exactly one square kernel"
    raise SelectionError(f"{asked}: {len(named)} match; the kernels of two dimensions are: {there}")


def _known(hparams: Mapping[str, Any], given: dict[str, float | None]) -> dict[str, float]:
    found = {}
    for key, value in given.items():
        candidates = [value] if value is not None else [hparams[n] for n in _NAMES[key] if n in hparams]
        usable = [float(c) for c in candidates if isinstance(c, (int, float)) and not isinstance(c, bool)]
        found[key] = usable[0] if usable else (0.0 if key == "momentum" else float("nan"))
        if value is not None and not (usable and np.isfinite(found[key]) and found[key] >= 0):
            raise DataError(f"{key}={value!r} must be a number, zero or positive")
    return found


def _fan_in(kernel: Parameter) -> int:
    return kernel.shape[kernel.source_axis]


def _parameters_of(x: Trajectory, kernel: Parameter) -> tuple[Floats, Floats]:
    """J and J0 of every state, in blocks."""
    N = _fan_in(kernel)
    J, J0 = np.empty(len(x)), np.empty(len(x))
    with np.errstate(all="ignore"):
        for rows, block in x.blocks():
            wide = np.asarray(block, dtype=np.float64)
            J[rows], J0[rows] = np.sqrt(N) * wide.std(axis=1), N * wide.mean(axis=1)
    broken = ~(np.isfinite(J) & np.isfinite(J0))
    J[broken] = J0[broken] = np.nan
    return J, J0


def _window(time: Floats, J: Floats, edge: float, window: tuple[float, float] | None) -> tuple[int, int]:
    """First and last state between which the slope is measured; equal where there is nothing to measure."""
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
    from trajtools.fitting import fit_slope

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
    drawn = gain[at].sum(axis=1) / took[at].sum(axis=1)
    low, high = np.quantile(drawn - gain.sum() / took.sum(), [(1 - level) / 2, (1 + level) / 2])
    return slope, (float(slope + low), float(slope + high))


def _crossing(time: Floats, J: Floats, edge: float) -> float:
    """Time at which J first reaches the edge, between two states by a straight line in J^2."""
    over = np.flatnonzero(edge <= J)
    if not len(over):
        return float("nan")
    at = int(over[0])
    if at == 0 or not np.isfinite(J[at - 1]):
        return float(time[at])
    before, after = J[at - 1] ** 2, J[at] ** 2
    return float(time[at - 1] + (edge**2 - before) / (after - before) * (time[at] - time[at - 1]))


def _warnings(
    kernel: Parameter, known: dict[str, float], slope: float, interval: tuple[float, float], lost: int
) -> tuple[str, ...]:
    words = []
    if kernel.shape[0] != kernel.shape[1]:
        words.append(
            f"{kernel.name} is {kernel.shape}, not square: it cannot be iterated as a map, so J = 1 is no edge of "
            "chaos for it"
        )
    if lost:
        words.append(f"{lost} states hold NaN or inf in this layer and were left out")
    missing = [key for key in ("rate", "batch", "samples") if not np.isfinite(known[key])]
    if missing:
        words.append(f"{', '.join(missing)} not given and not in hparams: no epochs, no constant, no weight decay")
    if not np.isfinite(slope):
        words.append("no slope: fewer than two states before the edge")
    elif not np.isfinite(interval[0]):
        words.append(f"no interval of the slope: fewer than {FEWEST_INCREMENTS} increments before the edge")
    elif interval[0] <= 0 <= interval[1]:
        words.append("the slope of J^2 cannot be told from zero: nothing is predicted with confidence")
    return tuple(words)
