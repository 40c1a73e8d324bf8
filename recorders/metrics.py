"""Metrics of the states: names and shapes that are fixed once, values that may come late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from recorders.adapter import listed
from trajtools.errors import RecordingError

Shape = tuple[int, ...]


class MetricTable:
    """Names and shapes of a run's metrics, and the check of every value that arrives."""

    def __init__(self, n_members: int, declared: Mapping[str, Shape] | Iterable[str] | None = None) -> None:
        self.n_members = n_members
        self._fixed = False
        self._numbers: frozenset[str] = frozenset()  # the usual metrics, which need no look
        self._shapes: dict[str, Shape | None] = {}
        if isinstance(declared, Mapping):
            for name, shape in declared.items():
                self._shapes[str(name)] = self._allowed(str(name), tuple(shape))
        else:
            names = (declared,) if isinstance(declared, str) else declared or ()
            for name in map(str, names):
                self._allowed(name, ())
                self._shapes[name] = None

    @property
    def fixed(self) -> bool:
        """Whether names and shapes are settled for good."""
        return self._fixed

    def fix(self) -> None:
        """Settle names and shapes for good; a name without a value so far is a number per state."""
        self._fixed = True
        self._numbers = frozenset(name for name, shape in self.shapes.items() if shape == ())

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape per state."""
        return {name: shape or () for name, shape in self._shapes.items()}

    def parse(self, values: Mapping[str, Any], lead: Shape = ()) -> Mapping[str, Any]:
        """Check values against the table; before it is fixed, new names join it."""
        if all(type(value) is float and name in self._numbers for name, value in values.items()) and not lead:
            return values
        parsed = {name: self._array(name, value) for name, value in values.items()}
        joining: dict[str, Shape] = {}
        for name, array in parsed.items():
            if array.shape[: len(lead)] != lead:
                raise RecordingError(
                    f"metric {name!r} has shape {array.shape}; it needs a leading axis of {lead[0]} states"
                )
            shape = array.shape[len(lead) :]
            if self.n_members == 1 and len(shape) == 1 and shape != (1,):
                shape = (1, *shape)  # k numbers of the one member
                parsed[name] = array.reshape((*lead, *shape))
            known = self._known(name)
            if known is None:
                joining[name] = self._allowed(name, shape)
            elif known != shape:
                raise RecordingError(
                    f"metric {name!r} has shape {shape} per state, it was first given as {known}; "
                    f"give it one shape, named at opening if need be: metrics={{{name!r}: {shape}}}"
                )
        self._shapes.update(joining)
        return parsed

    def _known(self, name: str) -> Shape | None:
        if self.fixed and name not in self._shapes:
            there = f"holds {listed(self._shapes)}" if self._shapes else "holds none"
            raise RecordingError(
                f"metric {name!r} is new; the run {there}, and a file that is being written takes no new ones. "
                f"Name it when the recorder opens: metrics=({', '.join(map(repr, [*self._shapes, name]))},)"
            )
        return self.shapes[name] if self.fixed else self._shapes.get(name)

    def _allowed(self, name: str, shape: Shape) -> Shape:
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            allowed = name.replace("/", "_").strip(".") or "metric"
            raise RecordingError(f"metric {name!r} cannot be named so in a file; call it {allowed!r}")
        per_member = len(shape) in (1, 2) and shape[0] == self.n_members and min(shape) > 0
        if shape == () or per_member:
            return shape
        raise RecordingError(
            f"metric {name!r} has shape {shape} per state; with {self.n_members} members it may be a number (), "
            f"({self.n_members},) or ({self.n_members}, k)"
        )

    @staticmethod
    def _array(name: str, value: Any) -> np.ndarray:
        try:
            # tolist() reads arrays and tensors of every framework and dtype, and asks no gradient.
            return np.asarray(value.tolist() if hasattr(value, "tolist") else value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RecordingError(
                f"metric {name!r} is a {type(value).__name__} that is no real number or array of them: {value!r:.80}"
            ) from error

    def new_rows(self, rows: int) -> dict[str, np.ndarray]:
        """Room for the metrics of `rows` states, all NaN."""
        return {name: np.full((rows, *shape), np.nan) for name, shape in self.shapes.items()}
