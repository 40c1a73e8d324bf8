"""Systems with known exponents, training-like ones first, with code to recompute the exponents.

The estimators are tested on these systems; nothing in trajtools is tuned to one of them.
"""

from __future__ import annotations

from collections.abc import Callable

from trajtools.systems.flows import hopf, lorenz, lorenz96, mackey_glass, oscillator, rossler, van_der_pol
from trajtools.systems.maps import (
    bernoulli,
    cat,
    coupled_bernoulli,
    globally_coupled,
    henon,
    ikeda,
    logistic,
    standard_map,
)
from trajtools.systems.system import Spectrum, System
from trajtools.systems.temporal import darn, darn_autocorrelation, periodic_networks, white_networks
from trajtools.systems.training import (
    dictionary_orbit,
    heavy_ball,
    linear_network,
    quadratic_descent,
    quartic_descent,
    saddle_escape,
    softmax_map,
)

SYSTEMS: dict[str, Callable[..., System]] = {
    make.__name__: make
    for make in (
        quadratic_descent,
        quartic_descent,
        saddle_escape,
        heavy_ball,
        linear_network,
        softmax_map,
        coupled_bernoulli,
        globally_coupled,
        logistic,
        bernoulli,
        henon,
        ikeda,
        cat,
        standard_map,
        lorenz,
        rossler,
        lorenz96,
        mackey_glass,
        van_der_pol,
        hopf,
        oscillator,
    )
}
"""Name -> function that creates the system; every parameter has a default."""

__all__ = [  # noqa: PLE0604
    "SYSTEMS",
    "Spectrum",
    "System",
    "darn",
    "darn_autocorrelation",
    "dictionary_orbit",
    "periodic_networks",
    "white_networks",
    *SYSTEMS,
]
