"""How results show themselves: a few lines, HTML, JSON, tables of pandas and xarray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from importlib import import_module
from math import isfinite
from textwrap import wrap
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.errors import MissingDependencyError, TrajtoolsError
from trajtools.reasons import Reason, in_order
from trajtools.wording import MOST_ROWS, WIDTH, short

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import Dataset

AxisNames = Mapping[str, tuple[str, ...]]  # of arrays, by the name of their field
MOST_LINES = 24  # of a repr
MOST_REMARKS = 8  # reasons and warnings that a repr lists
LABELS = {"bound": ("low", "high"), "side": ("before", "after")}  # axes whose entries have names
MOST_COLUMNS = 64  # that one array becomes in a table


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


class Shown:
    """What shows itself, in a terminal and in a notebook.

    A class says what it is with `_sentence`, and may add a number (`_head`), lines below it (`_lines`), a table
    (`_facts`) and a figure (`plot`).
    """

    def summary(self) -> str:
        """Say what it is in plain English.

        Returns
        -------
        str
            A sentence, or a few lines.
        """
        return self._sentence()

    def _sentence(self) -> str:
        """What `summary` returns."""
        return ""

    def _head(self) -> str:
        """The number, in the first line."""
        return ""

    def _remarks(self) -> tuple[str, ...]:
        """Reasons and warnings, each once."""
        both = (*getattr(self, "doubts", ()), *getattr(self, "reasons", ()), *getattr(self, "warnings", ()))
        return tuple(dict.fromkeys(map(str, in_order(both))))

    def _lines(self) -> Sequence[str]:
        """What stands below the summary, one entry a line."""
        return ()

    def _facts(self) -> Sequence[tuple[str, ...]]:
        """Rows of the table in HTML."""
        return ()

    def __repr__(self) -> str:
        return "\n".join(self._text())

    def _text(self) -> Iterator[str]:
        name = type(self).__name__
        first, *rest = [part for part in (self._head(), *self.summary().splitlines()) if part] or [""]
        lines = wrap(f"{name}: {first}" if first else name, WIDTH, subsequent_indent="  ")
        for line in rest:
            lines += wrap(line, WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines += [line if len(line) <= 2 * WIDTH else f"{line[: 2 * WIDTH - 4]} ..." for line in self._lines()]
        remarks = self._remarks()
        for at, remark in enumerate(remarks):
            bullet = wrap(remark, WIDTH, initial_indent="- ", subsequent_indent="  ")
            more = at < len(remarks) - 1
            if at == MOST_REMARKS or len(lines) + len(bullet) + more > MOST_LINES:
                places = [source for source in ("doubts", "reasons", "warnings") if getattr(self, source, ())]
                where = f", in .{' and .'.join(places)}" if places else ""
                lines.append(f"- ... and {len(remarks) - at} more{where}")
                break
            lines += bullet
        yield from lines

    def _repr_html_(self) -> str:
        """Show the result in a notebook: the answer, a small figure, the reasons, and the numbers folded away."""
        head, words = escape(self._head()), escape(self.summary()).replace("\n", "<br>")
        parts = [f"<p style='margin:0 0 .3em'><b>{type(self).__name__}</b> {head}</p>"]
        if words:
            parts.append(f"<p style='margin:0 0 .5em'>{words}</p>")
        figure = self._figure()
        if figure:
            parts.append(f"<img alt='{escape(type(self).__name__)}' style='width:34em;max-width:100%' src='{figure}'>")
        remarks = [f"<li>{escape(remark)}</li>" for remark in self._remarks()]
        if remarks:
            few, more = remarks[:MOST_REMARKS], remarks[MOST_REMARKS:]
            parts.append(f"<ul style='margin:.3em 0'>{''.join(few)}</ul>")
            if more:
                parts.append(_folded(f"{len(more)} more remarks", f"<ul>{''.join(more)}</ul>"))
        facts = self._facts()
        if facts:
            cell = "<td style='text-align:left;padding-right:1em'>{}</td>"
            rows = ("".join(cell.format(escape(text)) for text in row) for row in facts)
            table = f"<table><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
            is_short = len(facts) <= MOST_ROWS + 1 and (len(facts[0]) > 2 or not figure)
            parts.append(table if is_short else _folded("numbers", table))
        return f"<div style='max-width:52em'>{''.join(parts)}</div>"

    def _figure(self) -> str:
        """The figure of `plot`, small, as a data URL; empty without one, or where there is nothing to draw."""
        plot = getattr(self, "plot", None)
        if plot is None:
            return ""
        from trajtools.plots._axes import thumbnail

        try:
            return thumbnail(plot)
        except TrajtoolsError:  # a sweep over two hyper-parameters has no curve, and a result without states no plot
            return ""


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown):
    """Base class of all results.

    `_dims` names the axes of the arrays, field by field; an axis with the name of a field is labelled by it. The axes
    of the first entry are the rows of `to_dataframe`, unless `_one_row` says that the scalars are its only row.
    """

    _dims: ClassVar[AxisNames] = {}
    _one_row: ClassVar[bool] = False

    def _lines(self) -> Sequence[str]:
        arrays = [f"{n} {v.shape}" for n, v in self._values() if isinstance(v, np.ndarray)]
        return wrap("arrays: " + ", ".join(arrays), WIDTH, subsequent_indent="  ") if arrays else ()

    def _values(self) -> Iterator[tuple[str, Any]]:
        return ((one.name, getattr(self, one.name)) for one in fields(self))

    def _scalars(self) -> dict[str, Any]:
        """Numbers, names, and both ends of intervals."""
        out: dict[str, Any] = {}
        for name, value in self._values():
            if isinstance(value, np.generic):
                out[name] = value.item()
            elif isinstance(value, (bool, int, float, str)):
                out[name] = value
            elif isinstance(value, tuple) and 1 < len(value) < 4 and all(isinstance(v, (int, float)) for v in value):
                ends = ("low", "high") if len(value) == 2 else ("low", "middle", "high")
                out |= {f"{name}_{end}": number for end, number in zip(ends, value, strict=True)}
        return out

    def _facts(self) -> Sequence[tuple[str, ...]]:
        plain = [(name, short(value)) for name, value in self._scalars().items() if value != ""]
        settings = getattr(self, "settings", {})
        return [*plain, *((f"settings: {name}", short(value)) for name, value in settings.items())]

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

    def to_dataframe(self) -> DataFrame:
        """Convert the result to a table of pandas.

        Returns
        -------
        pandas.DataFrame
            One row per entry of the arrays (per state, lag, window, ...); one row of the numbers, with both ends of the
            intervals, where the result is a number.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        frame = import_optional("pandas").DataFrame
        if self._one_row or not self._dims:
            return frame({name: [value] for name, value in self._scalars().items()})
        arrays = self._arrays()
        axes, shape = next((dims, array.shape) for dims, array in arrays.values())
        columns: dict[str, Any] = {}
        for at, axis in enumerate(axes):
            labels = arrays[axis][1] if axis in arrays else np.arange(shape[at])
            columns[axis] = _spread(labels, (axis,), axes, shape)
        for name, (dims, array) in arrays.items():
            extra = [axis for axis in dims if axis not in axes]
            if name in columns or len(extra) > 1 or not set(dims) & set(axes):
                continue
            if extra and array.shape[dims.index(extra[0])] > MOST_COLUMNS:
                continue
            if not extra:
                columns[name] = _spread(array, dims, axes, shape)
                continue
            (axis,) = extra
            parts = np.moveaxis(array, dims.index(axis), 0)
            labels = arrays[axis][1] if axis in arrays else LABELS.get(axis, range(len(parts)))
            rest = tuple(one for one in dims if one != axis)
            stem = "interval" if name == "intervals" else name
            for label, part in zip(labels, parts, strict=True):
                columns[f"{stem}_{label}"] = _spread(part, rest, axes, shape)
        return frame(columns)

    def to_xarray(self) -> Dataset:
        """Convert the result to a dataset of xarray, with named axes.

        Returns
        -------
        xarray.Dataset
            The arrays, labelled; numbers and names are its attributes.

        Raises
        ------
        MissingDependencyError
            If xarray is not installed.
        """
        dataset = import_optional("xarray").Dataset
        attributes = {name: int(value) if isinstance(value, bool) else value for name, value in self._scalars().items()}
        arrays = self._arrays()
        used = {axis for dims, _ in arrays.values() for axis in dims}
        coords = {name: arrays[name] for name in used if name in arrays}
        coords |= {name: ((name,), np.array(LABELS[name])) for name in used if name in LABELS}
        data = {name: value for name, value in arrays.items() if name not in coords}
        return dataset(data, coords=coords, attrs=attributes)

    def _arrays(self) -> dict[str, tuple[tuple[str, ...], Any]]:
        """The arrays of `_dims` and the labels of their axes, each with the names of its axes."""
        out: dict[str, tuple[tuple[str, ...], Any]] = {}
        for name, dims in self._dims.items():
            value = getattr(self, name)
            if isinstance(value, dict):
                out |= {f"{name}_{key}" if key in out else str(key): (dims, np.asarray(v)) for key, v in value.items()}
            elif value is not None:
                out[name] = (dims, np.asarray(value))
        for axis in {axis for dims, _ in list(out.values()) for axis in dims}:
            labels = getattr(self, axis, None)
            if axis not in out and isinstance(labels, (np.ndarray, tuple)):
                out[axis] = ((axis,), np.asarray(labels))
        return out


def _spread(array: Any, dims: tuple[str, ...], axes: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    """One value per row of a table whose rows are all combinations of `axes`."""
    order = sorted(range(len(dims)), key=lambda at: axes.index(dims[at]))
    sizes = [shape[axes.index(axis)] if axis in dims else 1 for axis in axes]
    return np.broadcast_to(np.transpose(array, order).reshape(sizes), shape).ravel()


def import_optional(name: str) -> Any:
    """Import an optional package, or say how to install it.

    Parameters
    ----------
    name : str
        The package.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as missing:
        raise MissingDependencyError(f"this needs {name}, which is not installed: pip install {name}") from missing
