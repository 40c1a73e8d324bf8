r"""Mean-field theory of the random map x -> tanh(W x), W_ij of mean J0 / N and variance J^2 / N.

References
----------
.. [1] H. Sompolinsky, A. Crisanti and H.-J. Sommers, Phys. Rev. Lett. 61, 259 (1988), doi:10.1103/PhysRevLett.61.259
.. [2] L. Zhang, L. Feng, K. Chen and C. H. Lai, Edge of chaos as a guiding principle for modern neural network
   training, arXiv:2107.09437 (2021), equation 3
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError
from trajtools.types import Floats

# The Gaussian average as a sum over an even grid: for smooth integrands that vanish at both ends its error falls faster
# than any power of the spacing, and a steep tanh needs the density of the grid, not a high order.
_Z = np.linspace(-9.0, 9.0, 1801)
_DENSITY = np.exp(-0.5 * _Z**2) / np.exp(-0.5 * _Z**2).sum()
_STEPS = 200  # of a bisection: far below the spacing of float64
_WIDEST = 60.0


@dataclass(frozen=True)
class MeanField:
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


def mean_field(J: float, J0: float = 0.0) -> MeanField:
    r"""Solve the self-consistent equations of the map x -> tanh(W x).

    Parameters
    ----------
    J : float
        Standard deviation of the entries of W times the root of N; positive.
    J0 : float
        Mean of the entries of W times N. With a negative mean the activity alternates, with the same statistics.

    Returns
    -------
    MeanField
        Stable state: without mean activity if there is no other, else the one with it.

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
    if size * _average(_slope(0.0, spread)) > 1:
        shift = _root(lambda m: size * _average(np.tanh(m + _spread(J, m) * _Z)) - m, 1e-9, size)
        spread = _spread(J, shift)
        return _state(J, shift, spread)
    if spread == 0.0:
        return MeanField(0.0, 0.0, float(np.log(max(J, size))))
    return _state(J, 0.0, spread)


def mean_field_boundary(inverse_J: float) -> float:
    """Where the edge of chaos crosses a given 1/J in the phase diagram of J0/J against 1/J.

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
        raise DataError(f"inverse_J={inverse_J}: the curved part of the boundary lies at 0 < 1/J < 1")
    J = 1.0 / inverse_J
    shift = _root(lambda m: J**2 * _average(_slope(m, _spread(J, m)) ** 2) - 1.0, 1e-6, _WIDEST)
    return float(shift / _average(np.tanh(shift + _spread(J, shift) * _Z)) / J)


def _state(J: float, shift: float, spread: float) -> MeanField:
    activity = np.tanh(shift + spread * _Z)
    growth = J**2 * _average(_slope(shift, spread) ** 2)
    return MeanField(_average(activity), _average(activity**2), 0.5 * float(np.log(growth)))


def _average(values: Floats) -> float:
    return float(_DENSITY @ values)


def _slope(shift: float, spread: float) -> Floats:
    """Derivative of tanh, sech^2; the larger arguments underflow to zero, as they should."""
    slope: Floats = 1.0 - np.tanh(shift + spread * _Z) ** 2
    return slope


def _spread(J: float, shift: float) -> float:
    """Solve s = J sqrt(q), the width of the input of a unit, for a given mean of that input."""

    def excess(s: float) -> float:
        return J * float(np.sqrt(_average(np.tanh(shift + s * _Z) ** 2))) - s

    if shift == 0.0 and J <= 1.0:
        return 0.0
    return _root(excess, 1e-12, J)


def _root(function: object, low: float, high: float) -> float:
    """Bisect: positive at `low`, negative at `high`, else the end that is nearest to a change of sign."""
    from scipy.optimize import brentq

    at_low, at_high = function(low), function(high)  # type: ignore[operator]
    if at_low <= 0:
        return low
    if at_high >= 0:
        return high
    return float(brentq(function, low, high, xtol=1e-14, maxiter=_STEPS))
