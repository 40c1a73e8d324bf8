"""Where the tiles of a matrix of distances are kept: in memory, or in a file that an interrupted work continues."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.comparison import Comparison
from trajtools.distances.metric import METRICS
from trajtools.errors import DataError, TooLargeError
from trajtools.results.distances import Distances
from trajtools.results.plain import to_plain
from trajtools.store.matrices import MatrixFile, create_matrix
from trajtools.types import Floats

Rectangle = tuple[slice, slice]

MAX_MATRIX_BYTES = 4 * 2**30
"""A matrix larger than this is not kept in memory."""

_ARITHMETIC = 1  # to be raised when the numbers change: files of before are then not continued


class Keeper:
    """Keeps the tiles of one matrix and counts what is noteworthy in them."""

    def __init__(self, what: Comparison, side: int, path: Path | None) -> None:
        self._what = what
        self._below = self._undefined = self._pairs = self._resumed = 0
        self._silent = np.zeros(len(what.x), dtype=bool)  # finite, and yet without a distance to themselves
        self._file: MatrixFile | None = None
        self._matrix = np.empty((0, 0))
        if path is None:
            self._matrix = _in_memory(what)
            self.side = side
        else:
            self._file = _opened(what, side, path)
            self.side = self._file.side

    def tiles(self) -> list[Rectangle]:
        """All tiles that are computed."""
        rows, columns = (
            [slice(start, min(start + self.side, len(states))) for start in range(0, len(states), self.side)]
            for states in (self._what.x, self._what.y)
        )
        # The halves on the diagonal last: what is left to wait for at the end is short.
        tiles = [(r, c) for r in rows for c in columns if not self._what.symmetric or c.start <= r.start]
        return sorted(tiles, key=lambda tile: tile[0] == tile[1])

    def missing(self) -> list[Rectangle]:
        """The tiles that are not there yet; those that are there are looked at."""
        if self._file is None:
            return self.tiles()
        left = []
        for rows, columns in self.tiles():
            block = self._file.finished(rows, columns)
            if block is None:
                left.append((rows, columns))
            else:
                self._resumed += 1
                self._look(rows, columns, block)
        return left

    def keep(self, task: Rectangle, block: Floats) -> None:
        """Keep a tile that was computed."""
        rows, columns = task
        block = self._what.blank(rows, columns, block)
        mirrored = self._what.symmetric and rows != columns
        if self._file is None:
            self._matrix[rows, columns] = block
            if mirrored:
                self._matrix[columns, rows] = block.T
        else:
            self._file.put(rows, columns, block)
            if mirrored:
                self._file.put(columns, rows, block.T)
            self._file.mark(rows, columns, block)
        self._look(rows, columns, block)

    def _look(self, rows: slice, columns: slice, block: Floats) -> None:
        """Count the distances below the floor, and those that are missing though both states are finite."""
        what = self._what
        one = what.square and rows == columns
        counted: NDArray[np.bool_] = np.ones(block.shape, dtype=bool)
        if one:
            counted = np.tri(len(block), k=-1, dtype=bool) if what.symmetric else ~np.eye(len(block), dtype=bool)
            self._silent[rows] = np.isnan(np.diagonal(block)) & what.rows.finite[rows]
        floor = np.maximum(what.rows.floor[rows, None], what.columns.floor[None, columns])
        self._below += int(np.count_nonzero((block < floor) & counted))
        self._pairs += int(np.count_nonzero(np.isfinite(block) & counted))
        there = what.rows.finite[rows, None] & what.columns.finite[None, columns]
        self._undefined += int(np.count_nonzero(np.isnan(block) & there & counted))

    def result(self) -> Distances:
        """Return the distances, all of which are there."""
        what = self._what
        known = _known(what)
        vectors = _vectors(what)
        if what.square:
            vectors["excluded"] = vectors["excluded"] | self._silent
            vectors["column_excluded"] = vectors["excluded"]
        known |= {
            "settings": known["settings"]
            | {"block": self.side, "pairs": self._pairs, "below_floor": self._below, "tiles_resumed": self._resumed},
            "warnings": tuple(self._words(int(np.count_nonzero(vectors["excluded"])))),
        }
        if self._file is None:
            self._matrix.flags.writeable = False
            values: Floats = self._matrix
        else:
            for name in ("excluded", "column_excluded"):
                self._file.set_vector(name, vectors[name])
            self._file.set_about(self._file.about | to_plain(known) | {"complete": True})
            values = self._file.mapped()
        path = None if self._file is None else str(self._file.path)
        return Distances(values=values, path=path, **known, **vectors)

    def _words(self, excluded: int) -> list[str]:
        what, words = self._what, []
        if excluded:
            words.append(
                f"{excluded} of {len(what.x)} states hold NaN or inf, or have no distance in this metric, and are "
                "excluded: their distances are NaN"
            )
        others = int(np.count_nonzero(~what.columns.finite))
        if others and not what.square:
            words.append(f"{others} of the {len(what.y)} states of the columns hold NaN or inf and are excluded")
        if self._below:
            words.append(
                f"{self._below} of {self._pairs} distances lie below what rounding of the stored weights alone "
                "produces (`floor`): they say nothing about the dynamics"
            )
        elif np.isnan(what.rows.floor[what.rows.finite]).any():
            words.append(f"the distance that rounding alone produces is not known for metric {what.metric.name!r}")
        if self._undefined and not self._silent.any():
            words.append(f"{self._undefined} distances between finite states are NaN: the metric gave none")
        return words

    def close(self) -> None:
        """Let go of the file; what was kept stays."""
        if self._file is not None:
            self._file.close()


def _known(what: Comparison) -> dict[str, Any]:
    return {
        "metric": what.metric.name,
        "dt": what.x.dt,
        "time_unit": what.x.time_unit,
        "square": what.square,
        "symmetric": what.symmetric,
        "settings": {
            "metric": what.metric.name,
            "kind": what.metric.kind,
            "n_parameters": what.size,
            "dtype": what.dtype,
            "differences": "float32" if what.single else "float64",
        },
    }


def _vectors(what: Comparison) -> dict[str, Any]:
    return {
        "step": np.asarray(what.x.step),
        "excluded": ~what.rows.finite,
        "floor": what.rows.floor,
        "column_step": np.asarray(what.y.step),
        "column_excluded": ~what.columns.finite,
    }


def _in_memory(what: Comparison) -> Floats:
    size = 8 * len(what.x) * len(what.y)
    if size > MAX_MATRIX_BYTES:
        raise TooLargeError(
            f"the distances of {len(what.x)} x {len(what.y)} states are {size / 2**30:.1f} GiB, more than the "
            f"{MAX_MATRIX_BYTES / 2**30:.1f} GiB that are kept in memory; give out=path to keep them on disk, or thin "
            "the states out (x.window(every=k))"
        )
    return np.empty((len(what.x), len(what.y)))


def _key(what: Comparison) -> str:
    """Hash of all that the numbers depend on. A function that was given may change: it never has a key twice."""
    metric = what.which.metric if isinstance(what.which.metric, str) else uuid.uuid4().hex
    content = {
        "arithmetic": _ARITHMETIC,
        "states": [what.rows.digest, what.columns.digest],
        "metric": metric,
        "wiring": [repr(what.which.parameters), repr(what.which.nodes)],
        "single": what.single,
        "time": [what.x.dt, what.x.time_unit, what.square],
        "steps": [hashlib.sha256(np.asarray(x.step, "<i8").tobytes()).hexdigest() for x in (what.x, what.y)],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _opened(what: Comparison, side: int, path: Path) -> MatrixFile:
    key = _key(what)
    file = path / f"{key[:32]}.h5" if path.is_dir() else path
    if not file.exists():
        create_matrix(
            file, (len(what.x), len(what.y)), side, _known(what) | {"key": key, "warnings": ()}, _vectors(what)
        )
    opened = MatrixFile(file, write=True)
    if opened.about.get("key") == key:
        return opened
    held = f"{opened.about.get('metric')} distances of {opened.shape[0]} x {opened.shape[1]} states"
    opened.close()
    if METRICS.is_everywhere(what.metric) or isinstance(what.which.metric, str):
        raise DataError(
            f"{file} holds the {held}, which are not these: other states, steps or another metric. Choose another "
            "file, or delete this one: it can be computed again"
        )
    raise DataError(
        f"{file} exists, and a metric that is a function cannot be recognised, so it is not known whether these are "
        "its distances; choose another file, or delete this one"
    )
