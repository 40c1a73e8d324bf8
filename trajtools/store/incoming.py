"""One block of states from a recorder, checked against the run before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import RecordingError
from trajtools.store.geometry import StreamLayout

Array = NDArray[Any]


@dataclass(frozen=True)
class Block:
    """The arguments of `RunWriter.write`, which describes them."""

    start: int
    count: int
    step: Array
    metrics: Mapping[str, Array]
    tiles: Array | None
    optimizer_tiles: Array | None
    distances: Array | None
    sketch: Array | None
    final: bool

    def check_place(self, rows: int, committed: int, before: int, *, whole: bool) -> None:
        """Check where the block goes."""
        last_block = max(0, committed - 1) // rows * rows
        if self.start % rows or not last_block <= self.start <= committed or not 1 <= self.count <= rows:
            raise ValueError(
                f"a block of {self.count} states at {self.start}: needed 1 to {rows} states from a multiple of {rows} "
                f"on, in the last block ({last_block}) or right behind the {committed} committed states"
            )
        if self.start + self.count < committed:
            raise ValueError(f"{committed} states are committed; a shorter block would drop some of them")
        if whole and self.count < rows and not self.final:
            raise ValueError("a compressed run takes whole blocks only; pass final=True for the last one")
        if self.step.shape != (self.count,) or (np.diff(self.step) <= 0).any() or self.step[0] <= before:
            raise ValueError(f"step must be {self.count} increasing numbers above {before}, got {self.step}")

    def check_tiles(self, layout: StreamLayout | None, optimizer_layout: StreamLayout | None) -> None:
        """Check the tiles."""
        for name, given, wanted in (
            ("tiles", self.tiles, layout),
            ("optimizer_tiles", self.optimizer_tiles, optimizer_layout),
        ):
            if given is None and wanted is not None:
                raise ValueError(f"{name}: this run stores them, so every block needs them")
            if given is not None and wanted is None:
                raise ValueError(f"{name}: this run does not store them")
            if given is None or wanted is None:
                continue
            shape = (wanted.n_members, wanted.n_column_chunks, wanted.rows, wanted.columns)
            if given.shape != shape or given.dtype != wanted.dtype or not given.flags.c_contiguous:
                raise ValueError(
                    f"{name}: needed a C-contiguous array {shape} of {wanted.dtype}, as new_tiles() gives, "
                    f"got {given.shape} of {given.dtype}"
                )

    def series(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Give everything that is not tiles, by the name of its dataset."""
        given: dict[str, Array] = {"step": self.step}
        given |= {f"metrics/{name}": np.asarray(values, np.float64) for name, values in self.metrics.items()}
        for name, values in (("distances", self.distances), ("sketch", self.sketch)):
            if values is not None:
                given[name] = np.asarray(values, np.float64)
        if given.keys() != shapes.keys():
            raise RecordingError(
                f"this run records {sorted(shapes)}, the block has {sorted(given)}; "
                "names and shapes of metrics are fixed at the first record"
            )
        for name, values in given.items():
            if values.shape != (self.count, *shapes[name]):
                raise ValueError(f"{name}: needed shape {(self.count, *shapes[name])}, got {values.shape}")
        return given
