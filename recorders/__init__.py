"""Recorders write a training, state by state, to a trajtools file; this package knows no framework.

Names are loaded when they are first used: importing `recorders` costs nothing. The doors to the frameworks are
`recorders.torch` and `recorders.jax`, imported by whoever uses them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Recorder": "recorder",
    "perturb": "twins",
    "Twin": "twins",
    "TwinList": "twins",
    "Sketch": "sketch",
    "LogSpaced": "policies",
    "AtSteps": "policies",
}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"recorders has no {name!r}; it has {', '.join(sorted(__all__))}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
