"""What every result can do: become plain data and JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import numpy as np

from trajtools.reasons import Reason


def to_plain(value: Any) -> Any:
    """Turn a result into what JSON can hold.

    Parameters
    ----------
    value : object
        A result, array, NumPy scalar, container, number or string.

    Returns
    -------
    object
        Dicts, lists, strings, numbers, booleans and None. Numbers keep every digit; NaN and the infinities,
        which JSON does not know, become None.
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
    """What all results can do."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that JSON can hold.

        Returns
        -------
        dict
            One entry per field. Arrays are lists, numbers keep every digit, NaN and the infinities are None.
        """
        plain: dict[str, Any] = to_plain(self)
        return plain

    def to_json(self, indent: int | None = None) -> str:
        """Return the result as a JSON document.

        Parameters
        ----------
        indent : int or None
            Spaces per level; None puts everything on one line.

        Returns
        -------
        str
            The document; NaN and the infinities are null.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)
