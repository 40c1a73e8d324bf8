"""The structure of the states of a run: names, shapes, dtypes, members; fixed at opening, checked at every state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from trajtools.errors import ArchitectureError, RecordingError, SelectionError
from trajtools.parameters import Parameter
from trajtools.store import promote
from trajtools.store import widen as widen_bits

FLOATS = ("float16", "bfloat16", "float32", "float64")


_NAMES: dict[Any, str] = {}


def dtype_name(leaf: Any) -> str:
    """NumPy's name of the dtype of an array of any framework (``torch.bfloat16`` is ``bfloat16``)."""
    dtype = leaf.dtype
    name = _NAMES.get(dtype)
    if name is None:
        name = _NAMES[dtype] = getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]
    return name


def common_dtype(names: Iterable[str]) -> str:
    """The smallest dtype that holds every value of the named dtypes exactly."""
    return promote(sorted(set(names)))


def widen(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """The values of `array`, of dtype name `source`, in a form that can be assigned to tiles of dtype name `target`."""
    if source != "bfloat16":
        return array
    bits = array.view(np.uint16)
    if target == "bfloat16":
        return bits
    return widen_bits(bits)


def select(names: Sequence[str], include: str | Sequence[str], exclude: str | Sequence[str]) -> list[str]:
    """The names that match a glob of `include` (none given: all) and none of `exclude`, in their order."""
    include, exclude = ([given] if isinstance(given, str) else list(given) for given in (include, exclude))
    if not names:
        raise SelectionError("the state holds no parameter; needed one array at least")
    for glob in [*include, *exclude]:
        if not any(fnmatchcase(name, glob) for name in names):
            raise SelectionError(f"no parameter matches {glob!r}; the parameters are {listed(names)}")
    chosen = [name for name in names if is_selected(name, include, exclude)]
    if not chosen:
        raise SelectionError(f"include and exclude together leave no parameter of {listed(names)}")
    return chosen


def is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a name matches a glob of `include`, or there is none, and none of `exclude`."""
    included = not include or any(fnmatchcase(name, glob) for glob in include)
    return included and not any(fnmatchcase(name, glob) for glob in exclude)


def listed(names: Iterable[str], limit: int = 20) -> str:
    """Names for a message, cut after `limit` of them."""
    found = list(names)
    more = f", ... ({len(found)} in all)" if len(found) > limit else ""
    return ", ".join(map(repr, found[:limit])) + more


@dataclass(frozen=True)
class Structure:
    """What every state of the run must look like.

    Attributes
    ----------
    all_names : tuple of str
        Every name of a state, in order, also those that are not recorded.
    names, shapes, dtypes : tuple
        Of the recorded parameters; shapes without the member axis, dtypes by name.
    n_members : int
        Number of networks in a state.
    stacked : bool
        True where one mapping holds all members on a leading axis, False where every member has a mapping.
    """

    all_names: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    n_members: int
    stacked: bool

    @classmethod
    def of(
        cls,
        mappings: Sequence[Mapping[str, Any]],
        *,
        n_members: int,
        stacked: bool,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
    ) -> Structure:
        """Read the structure of the first state."""
        first = mappings[0]
        names = select(list(first), include, exclude)
        shapes = []
        for name in names:
            if not (hasattr(first[name], "shape") and hasattr(first[name], "dtype")):
                raise RecordingError(f"{name!r} is a {type(first[name]).__name__}; a state maps names to arrays")
            shape = tuple(first[name].shape)
            if stacked and (not shape or shape[0] != n_members):
                raise ArchitectureError(
                    f"{name!r} has shape {shape}; with members={n_members} and one mapping every array needs a leading "
                    f"axis of {n_members}"
                )
            shapes.append(shape[1:] if stacked else shape)
            if dtype_name(first[name]) not in FLOATS:
                raise RecordingError(
                    f"{name!r} is {dtype_name(first[name])}; a state holds {', '.join(FLOATS)}. "
                    f"Leave it out with exclude=({name!r},), or convert it in a copy of the mapping"
                )
        if sum(map(prod, shapes)) == 0:
            raise RecordingError(f"the selected parameters hold no entry at all: {listed(names)}")
        dtypes = tuple(dtype_name(first[name]) for name in names)
        made = cls(tuple(first), tuple(names), tuple(shapes), dtypes, n_members, stacked)
        made.check(mappings)
        return made

    @property
    def dtype(self) -> str:
        """Name of the dtype of the stored state."""
        return common_dtype(self.dtypes)

    @property
    def n_entries(self) -> int:
        """P, the number of entries of one network."""
        return sum(map(prod, self.shapes))

    def described(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, dtype name), as `trajtools.wiring.describe` takes them."""
        return {n: (s, d) for n, s, d in zip(self.names, self.shapes, self.dtypes, strict=True)}

    def table(self) -> tuple[Parameter, ...]:
        """The arrays one after the other, none of them edges of the graph."""
        rows, offset = [], 0
        for name, shape, dtype in self._fields:
            rows.append(Parameter(name, "other", shape, dtype, offset, prod(shape)))
            offset += prod(shape)
        return tuple(rows)

    def check(self, mappings: Sequence[Mapping[str, Any]], lead: tuple[int, ...] = ()) -> list[Any]:
        """The leaves of the recorded parameters, member by member, after checking names, shapes and dtypes."""
        expected = 1 if self.stacked else self.n_members
        if len(mappings) != expected:
            raise ArchitectureError(f"this state has {len(mappings)} members, the run was opened with {expected}")
        extra = (*lead, self.n_members) if self.stacked else lead
        wanted = [(n, (*extra, *s), d) for n, s, d in self._fields] if extra else self._fields
        leaves = []
        for member, mapping in enumerate(mappings):
            if mapping.keys() != self._keys:
                self._refuse_names(member, mapping)
            for name, shape, dtype in wanted:
                leaf = mapping[name]
                if getattr(leaf, "shape", None) != shape or dtype_name(leaf) != dtype:
                    self._refuse(member, name, leaf, shape, dtype)
                leaves.append(leaf)
        return leaves

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(self.all_names)

    @cached_property
    def _fields(self) -> list[tuple[str, tuple[int, ...], str]]:
        return list(zip(self.names, self.shapes, self.dtypes, strict=True))

    def _refuse_names(self, member: int, mapping: Mapping[str, Any]) -> None:
        gone = [name for name in self.all_names if name not in mapping]
        new = [name for name in mapping if name not in self.all_names]
        words = [f"lacks {listed(gone)}"] * bool(gone) + [f"has the new {listed(new)}"] * bool(new)
        raise ArchitectureError(
            f"the state of member {member} {' and '.join(words)}; the parameters of a run are fixed when the recorder "
            "opens. Record a changed network as a run of its own: Recorder(path, state, run=..., mode='a')"
        )

    @staticmethod
    def _refuse(member: int, name: str, leaf: Any, shape: tuple[int, ...], dtype: str) -> None:
        is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        came = f"{dtype_name(leaf)} of shape {tuple(leaf.shape)}" if is_array else f"a {type(leaf).__name__}"
        raise ArchitectureError(
            f"{name!r} of member {member} is {came}; the run was opened with {dtype} of shape {shape}. "
            "Record a changed network as a run of its own: "
            "Recorder(path, state, run=..., mode='a')"
        )
