"""Training as a dynamical system: record the weights, measure the dynamics.

The names below are the public interface. Each is loaded when it is first used, so importing the package costs
nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "distance": "distances.equal_times",
    "open": "store",
    "open_runs": "store",
    "Run": "store",
    "validate": "store",
    "repair": "store",
    "convert": "checkpoints.convert",
    "export": "exports",
    "Trajectory": "trajectory",
    "Distances": "distances.pairwise",
    "Divergence": "exponents.divergence",
    "Exponent": "exponents.exponent",
    "twins": "exponents.twins",
    "lyapunov": "exponents.lyapunov",
    "lyapunov_spectrum": "exponents.spectrum",
    "lyapunov_windows": "exponents.windows",
    "kantz": "exponents.neighbor_methods",
    "rosenstein": "exponents.neighbor_methods",
    "wolf": "exponents.wolf",
    "hybrid": "exponents.wolf",
    "pairwise": "distances.pairwise",
    "to_orbit": "neighbors.to_orbit",
    "align": "distances.permutation",
    "recurrence": "recurrences.recurrence",
    "orbital_stability": "stability.orbital",
    "autocorrelation": "structure.autocorrelation",
    "correlation_dimension": "structure.dimension",
    "sweep": "sweeps.sweep",
    "NearestK": "neighbors.rules",
    "WithinRadius": "neighbors.rules",
    "RecurrenceRate": "neighbors.rules",
}
_MODULES = (
    "distances",
    "embedding",
    "errors",
    "exponents",
    "neighbors",
    "networks",
    "plots",
    "recurrences",
    "stability",
    "statistics",
    "structure",
    "sweeps",
    "systems",
    "training",
    "wiring",
)

__all__ = [*_HOME, *_MODULES, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:  # the same names for type checkers and editors; a test holds both to each other
    from trajtools import (
        distances as distances,
        embedding as embedding,
        errors as errors,
        exponents as exponents,
        neighbors as neighbors,
        networks as networks,
        plots as plots,
        recurrences as recurrences,
        stability as stability,
        statistics as statistics,
        structure as structure,
        sweeps as sweeps,
        systems as systems,
        training as training,
        wiring as wiring,
    )
    from trajtools.checkpoints.convert import convert as convert
    from trajtools.distances.equal_times import distance as distance
    from trajtools.distances.pairwise import Distances as Distances, pairwise as pairwise
    from trajtools.distances.permutation import align as align
    from trajtools.exponents.divergence import Divergence as Divergence
    from trajtools.exponents.exponent import Exponent as Exponent
    from trajtools.exponents.lyapunov import lyapunov as lyapunov
    from trajtools.exponents.neighbor_methods import kantz as kantz, rosenstein as rosenstein
    from trajtools.exponents.spectrum import lyapunov_spectrum as lyapunov_spectrum
    from trajtools.exponents.twins import twins as twins
    from trajtools.exponents.windows import lyapunov_windows as lyapunov_windows
    from trajtools.exponents.wolf import hybrid as hybrid, wolf as wolf
    from trajtools.exports import export as export
    from trajtools.neighbors.rules import (
        NearestK as NearestK,
        RecurrenceRate as RecurrenceRate,
        WithinRadius as WithinRadius,
    )
    from trajtools.neighbors.to_orbit import to_orbit as to_orbit
    from trajtools.recurrences.recurrence import recurrence as recurrence
    from trajtools.stability.orbital import orbital_stability as orbital_stability
    from trajtools.store import (
        Run as Run,
        open as open,
        open_runs as open_runs,
        repair as repair,
        validate as validate,
    )
    from trajtools.structure.autocorrelation import autocorrelation as autocorrelation
    from trajtools.structure.dimension import correlation_dimension as correlation_dimension
    from trajtools.sweeps.sweep import sweep as sweep
    from trajtools.trajectory import Trajectory as Trajectory
else:
    from importlib import import_module

    def _place(name: str) -> str:
        """The module in which a name is, or the names that there are."""
        if not name.startswith("_"):
            for module in sorted(_MODULES, key="plots".__eq__):  # figures have the names of what they draw
                if hasattr(import_module(f"{__name__}.{module}"), name):
                    return f"it is in tt.{module}: tt.{module}.{name}"
        return f"it has {', '.join(sorted(__all__))}"

    def __getattr__(name: str) -> object:
        if name in _HOME:
            value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        elif name in _MODULES:
            value = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"trajtools has no {name!r}; {_place(name)}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _OwnRecorders:
    """Warns when `recorders` is imported and a file or folder of the user hides that of trajtools."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        """Warn, and leave the search to the other finders."""
        if name == "recorders":
            spec = PathFinder.find_spec(name, path)
            _compare(spec.origin if spec else None)


def _compare(file: str | None) -> None:
    ours = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "recorders", "__init__.py")
    if file is not None and os.path.realpath(file) != os.path.realpath(ours) and os.path.exists(ours):
        warnings.warn(
            f"`import recorders` finds {file}, which hides the package of that name that came with trajtools: "
            "rename it, or `recorders.torch` and the other recorders cannot be imported",
            stacklevel=3,
        )


sys.meta_path.insert(0, _OwnRecorders)
if "recorders" in sys.modules:
    _compare(getattr(sys.modules["recorders"], "__file__", None))
