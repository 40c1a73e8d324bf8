"""Distances that are complete: opened from their file, written to a new one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trajtools.errors import FormatError
from trajtools.results.distances import Distances
from trajtools.store.matrices import VECTORS, MatrixFile, create_matrix


def read_distances(path: Path) -> Distances:
    """Open the distances in a file."""
    with MatrixFile(path) as file:
        about = file.about
        if not about.get("complete"):
            raise FormatError(
                f"the distances in {path} are not complete; call pairwise with the same states, metric and out= again, "
                "and it continues"
            )
        vectors = {name: file.vector(name) for name in VECTORS}
        values = file.mapped()
    return Distances(
        values=values,
        metric=str(about["metric"]),
        step=vectors["step"],
        column_step=vectors["column_step"],
        dt=float(about["dt"]),
        time_unit=str(about["time_unit"]),
        excluded=vectors["excluded"].astype(bool),
        column_excluded=vectors["column_excluded"].astype(bool),
        floor=vectors["floor"],
        square=bool(about["square"]),
        symmetric=bool(about["symmetric"]),
        path=str(path),
        settings=dict(about["settings"]),
        warnings=tuple(about["warnings"]),
    )


def write_distances(distances: Distances, path: Path) -> Distances:
    """Write distances to a new file."""
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another name or delete it")
    side = max(1, *distances.shape)
    about = {name: getattr(distances, name) for name in ("metric", "dt", "time_unit", "square", "symmetric")}
    about |= {"settings": distances.settings, "warnings": distances.warnings}
    vectors = {name: np.asarray(getattr(distances, name)) for name in VECTORS}
    create_matrix(path, distances.shape, side, about, vectors)
    with MatrixFile(path, write=True) as file:
        for start in range(0, len(distances), 256):
            rows = slice(start, min(start + 256, len(distances)))
            file.put(rows, slice(0, distances.shape[1]), distances.read(rows.start, rows.stop))
        file.set_about(about | {"complete": True})
    return read_distances(path)
