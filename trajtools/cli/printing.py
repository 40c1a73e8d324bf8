"""Results as text: tables that fit the terminal, lists, JSON documents; whole in a pipe or a file."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from trajtools import __version__
from trajtools.cli import printable

GAP = "  "  # between columns
NARROWEST = 24  # of a column of sentences, in a table that is wider than the terminal


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes
    ----------
    head : tuple of str or None
        Titles of the columns.
    rows : tuple of tuple of str
        The cells.
    right : frozenset of int
        Columns that are right-aligned.
    keys : int
        The leading columns that say what a row is about.
    prose : frozenset of int
        Columns of sentences, which may be wrapped. Numbers never are.
    """

    head: tuple[str, ...] | None
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    keys: int = 1
    prose: frozenset[int] = frozenset()


Part = str | Grid
Block = Part | list[Part]


def table(
    head: Sequence[str] | None,
    rows: Iterable[Sequence[str]],
    *,
    right: Iterable[int] = (),
    keys: int = 1,
    prose: Iterable[int] = (),
) -> Grid:
    """Return a table, see `Grid`; one without a head lists names and values."""

    def line(cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(printable(cell).replace("\n", "\\n") for cell in cells)

    titles = None if head is None else line(head)
    return Grid(titles, tuple(map(line, rows)), frozenset(right), keys, frozenset(prose))


def bullets(title: str, items: Iterable[object]) -> str:
    """Return a title and a list, each item once."""
    return "\n".join([title, *(f"  - {item}" for item in dict.fromkeys(map(str, items)))])


def document(schema: str, **content: Any) -> str:
    """Return a JSON document without NaN or infinities; `content` must be plain."""
    head = {"schema": f"trajtools/{schema}", "version": __version__}
    return json.dumps({**head, **content}, indent=2, allow_nan=False)


def emit(content: str | Sequence[Block], output: Path | None = None) -> None:
    """Print text and tables, or write them to a file; there is an empty line between blocks, not within one.

    On a terminal, text is wrapped and tables fit. In a pipe and in a file, each row is one line.
    """
    blocks = [content] if isinstance(content, str) else content
    parts = [block if isinstance(block, list) else [block] for block in blocks]
    if output is not None:
        output.write_text(_text(parts, None) + "\n", encoding="utf-8")
        click.echo(f"Written to {printable(str(output))}.", err=True)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() and not isinstance(content, str) else None
    click.echo(printable(_text(parts, width)))


def _text(blocks: list[list[Part]], width: int | None) -> str:
    """Everything as text of at most `width` cells a line; None: as wide as it is."""
    return "\n\n".join("\n".join(line for part in block for line in _lines(part, width)) for block in blocks)


def _lines(part: Part, width: int | None) -> Iterator[str]:
    if isinstance(part, str):
        lines = printable(part).split("\n")
        return iter(lines) if width is None else (one for line in lines for one in _hanging(line, width))
    if part.head is None:
        return _listed(part.rows, width)
    return _tabled(part, part.head, width)


def _hanging(line: str, width: int) -> list[str]:
    """A line that wraps below its text and not below its bullet."""
    indent = line[: len(line) - len(line.lstrip(" -"))] if line.startswith((" ", "- ")) else ""
    first, *rest = _wrapped(line[len(indent) :], max(width - len(indent), 1))
    return [indent + first, *(" " * len(indent) + one for one in rest)]


def _listed(rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Names and values, the values below each other, however long they are."""
    names = max((_cells(row[0]) for row in rows), default=0)
    left = None if width is None else max(width - names - len(GAP), NARROWEST)
    for name, value in rows:
        lines = [value] if left is None else _wrapped(value, left)
        yield from _side_by_side([[name], lines], [names, 0], frozenset())


def _tabled(grid: Grid, head: Sequence[str], width: int | None) -> Iterator[str]:
    """The table in the first of these forms that is narrow enough.

    The head wrapped; sentences wrapped, too; groups of columns one below the other, each with the columns that say
    what the rows are about; and each row as a list.
    """
    columns = range(len(head))
    content = [max((_cells(row[at]) for row in grid.rows), default=0) for at in columns]
    full = [max(_cells(title), cells) for title, cells in zip(head, content, strict=True)]
    least = [
        max(*map(_cells, title.split()), 1, cells) if title else cells
        for title, cells in zip(head, content, strict=True)
    ]
    shrunk = [
        max(min(least[at], NARROWEST), *map(_cells, head[at].split()), 1) if at in grid.prose else least[at]
        for at in columns
    ]
    if width is None or _total(full) <= width:
        yield from _grid_lines(grid, head, columns, full, ruled=width is not None)
        return
    groups = [list(columns)] if _total(shrunk) <= width else _groups(shrunk, grid.keys, width)
    if not groups or (len(groups) > 1 and len(grid.rows) == 1):
        for at, row in enumerate(grid.rows):
            yield from [""] if at else []
            yield from _listed(list(zip(head, row, strict=True)), width)
        return
    for number, group in enumerate(groups):
        yield from [""] if number else []
        widths = _widened(*([sizes[at] for at in group] for sizes in (shrunk, least, full)), width=width)
        yield from _grid_lines(grid, head, group, widths, ruled=True)


def _groups(widths: Sequence[int], keys: int, width: int) -> list[list[int]]:
    """Groups of columns that fit, each with the first `keys`; none where not even one column fits beside these."""
    first = list(range(keys))
    groups: list[list[int]] = []
    for at in range(keys, len(widths)):
        if _total([widths[c] for c in (*first, at)]) > width:
            return []
        if not groups or _total([widths[c] for c in (*groups[-1], at)]) > width:
            groups.append(list(first))
        groups[-1].append(at)
    return groups


def _widened(widths: list[int], *wider: list[int], width: int) -> list[int]:
    """Use the room that is left: for sentences first, then for the head."""
    spare = width - _total(widths)
    for sizes in wider:
        for at, size in enumerate(sizes):
            more = min(size - widths[at], spare)
            widths[at] += more
            spare -= more
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _grid_lines(
    grid: Grid, head: Sequence[str], columns: Sequence[int], widths: Sequence[int], *, ruled: bool
) -> Iterator[str]:
    right = frozenset(place for place, at in enumerate(columns) if at in grid.right)

    def block(row: Sequence[str]) -> list[list[str]]:
        return [_wrapped(row[at], wide) for at, wide in zip(columns, widths, strict=True)]

    titles = block(head)
    tall = max(map(len, titles))
    yield from _side_by_side([[""] * (tall - len(one)) + one for one in titles], widths, right)
    if ruled:
        yield GAP.join("-" * wide for wide in widths)
    for row in grid.rows:
        yield from _side_by_side(block(row), widths, right)


def _side_by_side(cells: Sequence[Sequence[str]], widths: Sequence[int], right: frozenset[int]) -> Iterator[str]:
    """The lines of some cells beside each other."""
    for line in range(max(map(len, cells))):
        out = []
        for at, (lines, wide) in enumerate(zip(cells, widths, strict=True)):
            text = lines[line] if line < len(lines) else ""
            blank = " " * (wide - _cells(text))
            out.append(blank + text if at in right else text + blank)
        yield GAP.join(out).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` cells, broken at blanks, and within words that are wider."""
    if _cells(text) <= width:
        return [text]
    from rich.cells import chop_cells

    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if _cells(joined) <= width:
            lines[-1] = joined
            continue
        pieces = chop_cells(word, width)
        lines += pieces if lines[-1] else []
        if not lines[-1]:
            lines[-1:] = pieces
    return lines


def _cells(text: str) -> int:
    """How many cells of a terminal a text takes: a Chinese character takes two, an accent none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
