"""What is taken out of a drifting trajectory before it is correlated: every filter is linear and acts along time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.types import Bools, Floats

DETRENDS = ("linear", "quadratic", "difference")
DEGREES = {"linear": 1, "quadratic": 2}


@dataclass(frozen=True, eq=False)
class Filter:
    """A linear filter along time.

    Attributes
    ----------
    apply : callable
        (T, p) with zeros where a state is missing -> (T', p), likewise, each column of mean zero.
    fine : ndarray of bool, shape (T',)
        States that are left.
    """

    apply: Callable[[Floats], Floats]
    fine: Bools


def make_filter(detrend: str | int | None, fine: Bools) -> Filter:
    """Choose the filter."""
    if detrend is None:
        return Filter(_polynomial(0, fine), fine)
    if isinstance(detrend, str) and detrend in DEGREES:
        return Filter(_polynomial(DEGREES[detrend], fine), fine)
    if detrend == "difference":
        left = fine[1:] & fine[:-1]
        centre = _polynomial(0, left)
        return Filter(lambda x: centre(np.where(left[:, None], np.diff(x, axis=0), 0.0)), left)
    if isinstance(detrend, (int, np.integer)) and not isinstance(detrend, bool):
        return _running(int(detrend), fine)
    raise UnknownNameError(
        f"there is no detrending {detrend!r}; there are None, {', '.join(map(repr, DETRENDS))}, and an odd number of "
        "states whose running mean is taken out"
    )


def _polynomial(degree: int, fine: Bools) -> Callable[[Floats], Floats]:
    if fine.sum() < degree + 2:
        raise DataError(f"{int(fine.sum())} states are left for a polynomial of degree {degree}; give more states")
    time = np.linspace(-1, 1, len(fine))
    columns = np.where(fine[:, None], time[:, None] ** np.arange(degree + 1), 0.0)
    basis = np.linalg.qr(columns)[0]
    return lambda x: np.where(fine[:, None], x - basis @ (basis.T @ x), 0.0)


def _running(width: int, fine: Bools) -> Filter:
    if width < 3 or width % 2 == 0 or width > len(fine):
        raise DataError(
            f"a running mean over {width} of {len(fine)} states cannot be taken out; give an odd number from 3 to "
            f"{len(fine)}"
        )
    count = _window_sums(fine.astype(np.float64)[:, None], width)
    centre = _polynomial(0, fine)

    def apply(x: Floats) -> Floats:
        return centre(np.where(fine[:, None], x - _window_sums(x, width) / np.maximum(count, 1.0), 0.0))

    return Filter(apply, fine)


def _window_sums(x: Floats, width: int) -> Floats:
    """Sums over the window around each state, shorter at the ends."""
    half = width // 2
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    index = np.arange(len(x))
    return total[np.minimum(index + half + 1, len(x))] - total[np.maximum(index - half, 0)]
