"""The path of a layer through the phase diagram of order and chaos."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.results.plain import Result
from trajtools.types import Floats


@dataclass(frozen=True, eq=False)
class OrderChaos(Result):
    """How disordered a layer's weights are along training, and where that leads; see `trajtools.order_chaos`.

    Attributes
    ----------
    layer : str
        Name of the kernel.
    time : ndarray of float64, shape (T,)
        Times of the states, in `time_unit`.
    time_unit : str
        ``"epoch"`` where the steps of an epoch are known, else that of the trajectory.
    J, J0 : ndarray of float64, shape (T,)
        Standard deviation of the weights times the root of the fan-in N, and their mean times N. NaN where a weight is
        not finite.
    slope : float
        A, the growth of J^2 per unit of time before it reaches `edge`; NaN where it cannot be measured.
    slope_interval : (float, float)
        Its interval, from blocks of the increments of J^2; NaN where there are fewer than 8.
    window : (float, float)
        Times between which the slope was measured.
    constant : float
        K = A (1 - momentum) batch / rate; NaN where one of them is unknown.
    constant_interval : (float, float)
        Its interval.
    crossing : float
        Time at which J first reached 1; NaN if it did not.
    predicted_crossing : float
        Time at which the slope alone leads from the first state to J = 1; NaN without a slope.
    weight_decay : float
        Coefficient that holds J at 1: A (1 - momentum) batch / (4 rate samples), for a penalty of coefficient times the
        sum of the squared weights; a decay w -= rate c w is c = 2 times this. NaN where something is unknown.
    level : float
        Confidence level of the intervals.
    settings : dict
        What was given or found in the run.
    warnings : tuple of str
        Doubts.
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
    warnings: tuple[str, ...] = ()

    def exponents(self) -> Floats:
        """Mean-field exponent of the layer, iterated as x -> tanh(W x), for every state.

        Returns
        -------
        ndarray of float64, shape (T,)
            Per iteration, natural logarithm; NaN where J is. It is that of a random matrix with the same mean and
            variance: structure that training has given to the weights is not in it.
        """
        from trajtools.random_maps import mean_field

        known = np.isfinite(self.J) & np.isfinite(self.J0) & (self.J > 0)
        found = np.full(len(self.J), np.nan)
        found[known] = [mean_field(J, J0).exponent for J, J0 in zip(self.J[known], self.J0[known], strict=True)]
        return found

    def plot(self, ax: Any = None) -> Any:
        """Draw the path on the phase diagram; see `trajtools.plots.order_chaos`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.order_chaos(self, ax=ax)


@dataclass(frozen=True, eq=False)
class TrunkStability(Result):
    """A trunk iterated as a map, and the three published exponents beside the true one; see `trajtools.iterated_trunk`.

    Attributes
    ----------
    norm : ndarray of float64, shape (n,)
        Frobenius norm of the Jacobian at the last iterate over the root of N; 1 is the published edge.
    radius : ndarray of float64, shape (n,)
        Spectral radius of that Jacobian: a fixed point is stable below 1.
    exponent : ndarray of float64, shape (n,)
        Largest Lyapunov exponent per iteration from a renormalised tangent; NaN where the orbit ran away.
    by_norm : ndarray of float64, shape (n,)
        Published method M1, ln of `norm`.
    by_product : ndarray of float64, shape (n,)
        Published method M2: ln of the spectral radius of the product of the Jacobians of the second half, over their
        number; NaN where it was not asked for.
    by_separation : ndarray of float64, shape (n,)
        Published method M3: ln of the growth of a finite perturbation, not renormalised, over the iterations.
    distance : ndarray of float64, shape (n,)
        Asymptotic distance: mean distance to the perturbed copy over the last half.
    orbit : ndarray of float64, shape (steps + 1, n)
        Projection of the iterates on the mean input, for a return map.
    settings : dict
        What was chosen.
    warnings : tuple of str
        Doubts.
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
    warnings: tuple[str, ...] = ()
