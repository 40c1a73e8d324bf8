"""States as NumPy archives: all of them in one file, or a file for each, which `trajtools convert` reads again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.exports.part import Part, original
from trajtools.trajectory import Trajectory

BLOCK_BYTES = 16 * 2**20

Tick = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Entry:
    """An array of an archive, given in pieces, so that it never has to be in memory as a whole.

    Attributes
    ----------
    name : str
        Its name.
    shape : tuple of int
        Of the array.
    dtype : numpy.dtype
        Of the array.
    pieces : callable
        Gives the array in C order, some of it at a time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Callable[[], Iterator[NDArray[Any]]]


def entries_of(part: Part) -> list[Entry]:
    """List the arrays of a part of a run."""
    run, cut = part.run, 0 if part.single else slice(None)
    found = [_whole("step", part.step[cut])]
    if run.stored == "weights" or part.select:
        part = replace(part, member=part.member or 0)  # the metrics are of the member whose weights stand beside them
        found += _parameters(part.weights(), "", part.single)
    else:
        values: Any = getattr(run, run.stored)[part.rows]
        found.append(_whole(run.stored, (values if part.member is None else values[:, part.member])[cut]))
    buffers = part.buffers()
    if buffers is not None:
        found += _parameters(buffers, "optimizer/", part.single)
    found += [_whole(f"metrics/{name}", part.metric(name)[cut]) for name in run.metrics]
    names = [entry.name for entry in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"run {run.name!r} has several arrays called {twice[0]!r}: leave one out with --select")
    return found


def _whole(name: str, values: Any) -> Entry:
    array = np.asarray(values)
    return Entry(name, array.shape, array.dtype, lambda: iter([array]))


def _parameters(states: Trajectory, prefix: str, single: bool) -> list[Entry]:
    found = []
    for p in states.parameters:
        dtype = original(np.empty(0, states.dtype), p.dtype).dtype
        shape = p.shape if single else (len(states), *p.shape)
        found.append(Entry(prefix + p.name, shape, dtype, _reader(states, slice(p.offset, p.offset + p.size), dtype)))
    return found


def _reader(states: Trajectory, columns: slice, dtype: np.dtype[Any]) -> Callable[[], Iterator[NDArray[Any]]]:
    rows = max(1, BLOCK_BYTES // max(1, (columns.stop - columns.start) * states.dtype.itemsize))

    def pieces() -> Iterator[NDArray[Any]]:
        for start in range(0, len(states), rows):
            yield original(states.read(start, min(start + rows, len(states)), columns), dtype.name)

    return pieces


def write_npz(path: Path, entries: list[Entry], tick: Tick = lambda _: None) -> None:
    """Write an archive that `numpy.load` opens."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            about = {"descr": npy.dtype_to_descr(entry.dtype), "fortran_order": False, "shape": entry.shape}
            with archive.open(f"{entry.name}.npy", "w", force_zip64=True) as stream:
                npy.write_array_header_1_0(stream, about)
                for piece in entry.pieces():
                    stream.write(np.ascontiguousarray(piece).tobytes())
            tick(1)


def write_folder(folder: Path, part: Part, tick: Tick = lambda _: None) -> None:
    """Write an archive for each state, with the weights alone and the step in its name."""
    states = part.weights()
    digits = len(str(states.step[-1]))
    folder.mkdir()
    for rows, block in states.blocks():
        for step, state in zip(states.step[rows], block, strict=True):
            arrays = [
                _whole(p.name, original(state[p.offset : p.offset + p.size], p.dtype).reshape(p.shape))
                for p in states.parameters
            ]
            write_npz(folder / f"step_{step:0{digits}d}.npz", arrays)
            tick(1)
