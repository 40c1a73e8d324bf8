"""What a recording will cost, said before the first step, and what it did cost, kept in the file."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Meter:
    """What recording cost so far.

    Attributes
    ----------
    opened : float
        `time.perf_counter` at opening.
    record_seconds : float
        Inside `record`, `advance` and `record_block`.
    blocked_seconds : float
        Part of it: waiting for a free buffer, or writing in the training loop itself.
    states, skipped : int
        Stored, and left out because no buffer was free.
    bytes : int
        Handed to the writer; more than the states hold where a block was written before it was full.
    """

    opened: float
    record_seconds: float = 0.0
    blocked_seconds: float = 0.0
    states: int = 0
    skipped: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, float | int]:
        """As the file keeps it."""
        return {
            "seconds_total": time.perf_counter() - self.opened,
            "seconds_in_record": self.record_seconds,
            "seconds_blocked": self.blocked_seconds,
            "states": self.states,
            "skipped": self.skipped,
            "bytes": self.bytes,
        }


@dataclass(frozen=True)
class Forecast:
    """What a recording will take on the disk, before compression.

    Attributes
    ----------
    bytes_per_state : int
        Of all members.
    states : int or None
        How many will be stored; None where the training has no known end.
    free_bytes : int
        Room on the disk when the recorder opened.
    """

    bytes_per_state: int
    states: int | None
    free_bytes: int

    @property
    def bytes(self) -> int | None:
        """Of the whole run; None where the training has no known end."""
        return None if self.states is None else self.states * self.bytes_per_state

    @property
    def words(self) -> str:
        """One line for people."""
        each = f"{self.bytes_per_state / 1e6:.3g} MB per state"
        room = f"{self.free_bytes / 1e9:.3g} GB free"
        if self.states is None or self.bytes is None:
            return f"{each}, {room}: enough for about {self.free_bytes // max(1, self.bytes_per_state):,} states"
        return f"{each}, {self.states:,} states, {self.bytes / 1e9:.3g} GB in all, {room}"
