"""Training as a dynamical system: record the weights, measure the dynamics.

The names below are the public interface. Each is loaded when it is first used, so importing the package costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "open": "store",
    "File": "store",
    "Run": "store",
    "validate": "store",
    "repair": "store",
    "Trajectory": "trajectory",
    "Parameter": "wiring",
    "NodeSet": "wiring",
    "Member": "wiring",
    "align": "distances.permutation",
    "between": "distances.equal_times",
    "contributions": "distances.equal_times",
    "pairwise": "distances.pairwise",
    "to_orbit": "neighbors.to_orbit",
    "permutation_metric": "distances.permutation",
    "heat_trace": "distances.spectral",
    "quantum_jensen_shannon": "distances.spectral",
    "Alignment": "distances.permutation",
    "floor": "distances.metric",
    "METRICS": "distances",
    "register_metric": "distances.metric",
    "twins": "estimators.twins",
    "rosenstein": "exponents.neighbor_methods",
    "kantz": "exponents.neighbor_methods",
    "wolf": "exponents.wolf",
    "hybrid": "exponents.wolf",
    "correlation_sum": "structure.correlation_sum",
    "correlation_dimension": "structure.dimension",
    "pca": "structure.projection",
    "mds": "structure.projection",
    "observables": "structure.observables",
    "change_points": "structure.change_points",
    "system_states": "structure.system_states",
    "zero_one_test": "structure.zero_one",
    "lyapunov_spectrum": "exponents.spectrum",
    "lyapunov": "estimators.lyapunov",
    "lyapunov_windows": "estimators.windows",
    "Windows": "growth.windows",
    "sweep": "sweeps.sweep",
    "curvature": "training.curvature",
    "order_chaos": "training.order_chaos",
    "asymptotic_distance": "training.order_chaos",
    "iterated_trunk": "training.order_chaos",
    "mean_field": "training.order_chaos",
    "mean_field_boundary": "training.order_chaos",
    "find_nearest": "neighbors.search",
    "NearestK": "neighbors.rules",
    "WithinRadius": "neighbors.rules",
    "recurrence": "recurrences.recurrence",
    "RecurrenceRate": "neighbors.rules",
    "ScaledRadius": "neighbors.rules",
    "fit_slope": "statistics",
    "embed": "embedding",
    "estimate_delay": "embedding",
    "estimate_dimension": "embedding",
    "theiler_window": "embedding",
    "Contributions": "distances.equal_times",
    "Distances": "distances.pairwise",
    "ToOrbit": "neighbors.to_orbit",
    "orbital_stability": "stability.orbital",
    "OrbitalStability": "stability.orbital",
    "autocorrelation": "structure.autocorrelation",
    "Autocorrelation": "structure.autocorrelation",
    "find_cycles": "structure.cycles",
    "Cycles": "structure.cycles",
    "node_correlation": "structure.autocorrelation",
    "Divergence": "results.divergence",
    "Exponent": "results.exponent",
    "TrajtoolsError": "errors",
}
_MODULES = ("errors", "plots", "networks", "systems")

__all__ = [*_HOME, *_MODULES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"trajtools has no {name!r}; it has {', '.join(sorted(__all__))}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
