"""The static tables and JSON attributes of a run: Python objects <-> arrays of fixed-length text and numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import ArchitectureError, FormatError
from trajtools.wiring import Member, NodeSet, Parameter

JSON_BYTES = 16 * 2**20
JSON_DEPTH = 64


def text_dtype(values: Sequence[str]) -> np.dtype[np.bytes_]:
    """Give the fixed-length UTF-8 dtype that holds all the given texts."""
    for value in values:
        if "\0" in value:
            raise ArchitectureError(f"the name {value!r} holds a NUL character, which the file cannot store; rename it")
    longest = max((len(value.encode()) for value in values), default=0)
    return h5py.string_dtype("utf-8", max(1, longest))


def _rows(fields: dict[str, tuple[Any, list[Any]]]) -> NDArray[np.void]:
    dtype = np.dtype([(name, *(kind if isinstance(kind, tuple) else (kind,))) for name, (kind, _) in fields.items()])
    count = len(next(iter(fields.values()))[1])
    table = np.zeros(count, dtype)
    for name, (_, values) in fields.items():
        if count:
            table[name] = [value.encode() if isinstance(value, str) else value for value in values]
    return table


def _text(values: list[str]) -> tuple[Any, list[Any]]:
    return text_dtype(values), values


def parameters_table(parameters: Sequence[Parameter]) -> NDArray[np.void]:
    """Give the table of parameters."""
    depth = max([1, *(len(p.shape) for p in parameters)])
    return _rows(
        {
            "name": _text([p.name for p in parameters]),
            "kind": _text([p.kind for p in parameters]),
            "ndim": ("<i8", [len(p.shape) for p in parameters]),
            "shape": (("<i8", (depth,)), [p.shape + (1,) * (depth - len(p.shape)) for p in parameters]),
            "dtype": _text([p.dtype for p in parameters]),
            "offset": ("<i8", [p.offset for p in parameters]),
            "size": ("<i8", [p.size for p in parameters]),
            "source": _text([p.source or "" for p in parameters]),
            "target": _text([p.target or "" for p in parameters]),
            "source_axis": ("<i8", [p.source_axis for p in parameters]),
            "target_axis": ("<i8", [p.target_axis for p in parameters]),
        }
    )


def nodes_table(nodes: Sequence[NodeSet]) -> NDArray[np.void]:
    """Give the table of node sets."""
    return _rows({"name": _text([n.name for n in nodes]), "size": ("<i8", [n.size for n in nodes])})


def members_table(members: Sequence[Member]) -> NDArray[np.void]:
    """Give the table of members."""
    return _rows(
        {
            "name": _text([m.name for m in members]),
            "reference": ("<i8", [m.reference for m in members]),
            "epsilon": ("<f8", [m.epsilon for m in members]),
            "norm": _text([m.norm for m in members]),
            "seed": ("<i8", [m.seed for m in members]),
            "noise": _text([m.noise for m in members]),
        }
    )


def check_parameters(parameters: Sequence[Parameter]) -> int:
    """Check that the parameters tile the state without gap or overlap."""
    at, names = 0, set()
    for p in parameters:
        if p.offset != at or p.size < 0:
            raise ArchitectureError(
                f"parameter {p.name!r} is declared to hold entries {p.offset} to {p.offset + p.size} of the state, "
                f"but the previous one ends at {at}; offsets must follow each other without gaps"
            )
        if p.name in names:
            raise ArchitectureError(f"two parameters are named {p.name!r}; names must be unique in a run")
        names.add(p.name)
        at += p.size
    if at == 0:
        raise ArchitectureError("the state is empty: no parameter is selected, or all are of size 0")
    return at


def check_members(members: Sequence[Member]) -> None:
    """Check the members of a run."""
    if not members:
        raise ArchitectureError("a run needs at least one member")
    if len({m.name for m in members}) != len(members):
        raise ArchitectureError("two members of the run share a name; names must be unique in a run")
    for index, member in enumerate(members):
        if not -1 <= member.reference < len(members) or member.reference == index:
            raise ArchitectureError(
                f"member {member.name!r} refers to member {member.reference}; needed: the index of another member "
                f"(0 to {len(members) - 1}), or -1 for a reference"
            )


def _decode(value: Any) -> str:
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"a text in the file is not UTF-8: {error}") from error


def parameters_from(table: NDArray[np.void]) -> tuple[Parameter, ...]:
    """Read the table of parameters back."""
    found = []
    for row in table:
        ndim = int(row["ndim"])
        sizes = [int(n) for n in np.atleast_1d(row["shape"])]
        if not 0 <= ndim <= len(sizes) or min(sizes, default=0) < 0:
            raise FormatError(f"the parameter table declares a shape of {ndim} axes with sizes {sizes}")
        text = {name: _decode(row[name]) for name in ("name", "kind", "dtype", "source", "target")}
        try:
            found.append(
                Parameter(
                    text["name"],
                    text["kind"],
                    tuple(sizes[:ndim]),
                    text["dtype"],
                    int(row["offset"]),
                    int(row["size"]),
                    text["source"] or None,
                    text["target"] or None,
                    int(row["source_axis"]),
                    int(row["target_axis"]),
                )
            )
        except ValueError as error:
            raise FormatError(f"the parameter table is wrong: {error}") from error
    return tuple(found)


def nodes_from(table: NDArray[np.void]) -> tuple[NodeSet, ...]:
    """Read the table of node sets back."""
    return tuple(NodeSet(_decode(row["name"]), int(row["size"])) for row in table)


def members_from(table: NDArray[np.void]) -> tuple[Member, ...]:
    """Read the table of members back."""
    names, norms, noises = ([_decode(v) for v in table[field]] for field in ("name", "norm", "noise"))
    numbers = zip(table["reference"].tolist(), table["epsilon"].tolist(), table["seed"].tolist(), strict=True)
    try:
        return tuple(
            Member(name, reference, epsilon, norm, seed, noise)
            for name, norm, noise, (reference, epsilon, seed) in zip(names, norms, noises, numbers, strict=True)
        )
    except ValueError as error:
        raise FormatError(f"the table of members is wrong: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be stored as JSON; pass numbers, strings, lists and dicts "
        "(or str(value))"
    )


def to_json(value: object) -> str:
    """Write a value as JSON; NumPy numbers and arrays, paths, sets and dataclasses are turned into plain ones."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def from_json(text: str, where: str) -> dict[str, Any]:
    """Read a JSON object from a file that may come from a stranger."""
    if len(text) > JSON_BYTES:
        raise FormatError(f"{where} holds {len(text)} characters of JSON; at most {JSON_BYTES} are read")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict) or _depth(value) > JSON_DEPTH:
        raise FormatError(f"{where} must be a JSON object nested at most {JSON_DEPTH} levels deep")
    return value


def _depth(value: object) -> int:
    level, deepest = [value], 0
    while level and deepest <= JSON_DEPTH:
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
        deepest += 1
    return deepest
