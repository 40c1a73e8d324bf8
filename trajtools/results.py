"""Base class of results: conversion to plain data and JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import numpy as np

from trajtools.reasons import Reason


def to_plain(value: Any) -> Any:
    """Convert a result to values that JSON can represent.

    Parameters
    ----------
    value : object
        A result, array, NumPy scalar, container, number or string.

    Returns
    -------
    object
        Dicts, lists, strings, numbers, booleans and None. Numbers keep every digit; NaN and infinities,
        which JSON cannot represent, become None.
    """
    if isinstance(value, (Result, Reason)):
        return {name.name: to_plain(getattr(value, name.name)) for name in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


@dataclass(frozen=True, eq=False)
class Result:
    """Base class of all results; those with `repr=False` have the short one."""

    def __repr__(self) -> str:
        """Numbers and names, then the shapes of the arrays, then one warning per line."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = [f"{n}={v!r}" for n, v in values.items() if isinstance(v, (bool, int, float, str, np.generic))]
        arrays = [f"{n} {v.shape}" for n, v in values.items() if isinstance(v, np.ndarray)]
        warnings = [f"- {text}" for text in values.get("warnings", ())]
        head = f"{type(self).__name__}({', '.join(plain)})"
        return "\n".join([head, *(["arrays: " + ", ".join(arrays)] if arrays else []), *warnings])

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a dict that JSON can represent.

        Returns
        -------
        dict
            One entry per field. Arrays become lists, numbers keep every digit, NaN and infinities become None.
        """
        plain: dict[str, Any] = to_plain(self)
        return plain

    def to_json(self, indent: int | None = None) -> str:
        """Convert the result to a JSON document.

        Parameters
        ----------
        indent : int or None
            Spaces per level; None puts everything on one line.

        Returns
        -------
        str
            The document; NaN and infinities are null.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)
