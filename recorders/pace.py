"""How far the file may lag behind the training, and who writes it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from trajtools.errors import RecordingError

ON_FULL = ("block", "skip", "error")
WRITERS = ("auto", "thread", "direct")


@dataclass(frozen=True)
class Pace:
    """How far the file may lag behind, and what happens when the disk is slower than the training.

    Attributes
    ----------
    threaded : bool
        Full blocks are written by a thread.
    on_full : str
        One of `ON_FULL`.
    n_blocks : int
        Largest number of blocks in memory, at least 2.
    flush_seconds : float
        A captured state waits at most so long.
    flush_bytes : int
        So many captured bytes at most wait for their block to fill.
    partial : bool
        False for filtered files, whose blocks are written whole only.
    """

    threaded: bool
    on_full: str
    n_blocks: int
    flush_seconds: float
    flush_bytes: int
    partial: bool

    @classmethod
    def settle(
        cls,
        *,
        writer: str,
        busy_cores: int,
        on_full: str,
        block_bytes: int,
        buffer_bytes: int,
        flush_seconds: float,
        flush_bytes: int,
        partial: bool,
    ) -> Pace:
        """Settle buffers and times from what the user asks."""
        if writer not in WRITERS:
            raise RecordingError(f"writer={writer!r}: it may be {', '.join(WRITERS)}")
        if on_full not in ON_FULL:
            raise RecordingError(f"on_full={on_full!r}: it may be {', '.join(ON_FULL)}")
        positive = {"buffer_bytes": buffer_bytes, "flush_seconds": flush_seconds, "flush_bytes": flush_bytes}
        for name, value in positive.items():
            if not value > 0:
                raise RecordingError(f"{name}={value}: it must be positive")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        threaded = writer == "thread" or (writer == "auto" and cores > busy_cores)
        # Blocks that wait for a slow disk are behind, too: together they keep the promise of flush_bytes.
        n_blocks = max(2, int(min(buffer_bytes, flush_bytes) // block_bytes))
        return cls(threaded, on_full, n_blocks, flush_seconds, flush_bytes, partial)
