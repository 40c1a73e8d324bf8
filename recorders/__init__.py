"""Recorders write a training, state by state, to a trajtools file; this package needs no framework.

Names are loaded when they are first used: importing `recorders` is cheap. For torch and JAX import
`recorders.torch` or `recorders.jax`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorders.background import RecordingWarning as RecordingWarning
    from recorders.planting import Planting as Planting
    from recorders.recorder import AtSteps as AtSteps, LogSpaced as LogSpaced, Recorder as Recorder
    from recorders.storage import Sketch as Sketch
    from recorders.twins import Twin as Twin, TwinList as TwinList, perturb as perturb
    from trajtools.wiring import Member as Member

_HOME = {
    "Recorder": "recorders.recorder",
    "perturb": "recorders.twins",
    "Twin": "recorders.twins",
    "TwinList": "recorders.twins",
    "Sketch": "recorders.storage",
    "LogSpaced": "recorders.recorder",
    "AtSteps": "recorders.recorder",
    "RecordingWarning": "recorders.background",
    "Planting": "recorders.planting",
    "Member": "trajtools.wiring",
}

__all__ = [
    "AtSteps",
    "LogSpaced",
    "Member",
    "Planting",
    "Recorder",
    "RecordingWarning",
    "Sketch",
    "Twin",
    "TwinList",
    "perturb",
]

if not TYPE_CHECKING:  # to a type checker, names that are not listed above are errors

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"recorders has no {name!r}; it has {', '.join(sorted(__all__))}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
