"""Check that every committed state is present: all chunks allocated, and inside the file."""

from __future__ import annotations

import h5py
import numpy as np

from trajtools.errors import FormatError

GROWING = ("step", "weights", "distances", "sketch", "optimizer")


def missing_chunks(dataset: h5py.Dataset, length: int, size: int) -> int:
    """Count the chunks of the first `length` rows that are not in the file."""
    wanted = int(np.prod([-(-n // c) for n, c in zip((length, *dataset.shape[1:]), dataset.chunks, strict=True)]))
    found = 0

    def look(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal found
        found += (
            chunk.chunk_offset[0] < length
            and chunk.byte_offset is not None
            and (chunk.byte_offset + chunk.size <= size)
        )

    if wanted:
        dataset.id.chunk_iter(look)
    return wanted - found


def check_committed(group: h5py.Group, size: int) -> None:
    """Check that all committed states of a run are in the file."""
    committed = int(group["committed"][()])
    datasets = [group[name] for name in GROWING if name in group] + list(group["metrics"].values())
    for dataset in datasets:
        if dataset.shape[0] < committed:
            raise FormatError(f"{dataset.name} holds {dataset.shape[0]} states, {committed} were committed")
        gone = missing_chunks(dataset, committed, size)
        if gone:
            raise FormatError(
                f"{dataset.name} lacks {gone} of the chunks of its {committed} committed states: the file was "
                "truncated or damaged after it was written. Use another copy."
            )
