"""Whether the writer of a run still lives: its heartbeat, and its process if it is on this machine."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Owner:
    """The process that writes a run.

    Attributes
    ----------
    process : int
        Process number.
    host : str
        Name of its machine.
    boot : str
        What tells one boot (and one container) of that machine from another; empty where unknown.
    started : int
        When the process started, in clock ticks since boot; -1 where unknown. Process numbers are used again, this
        is not.
    """

    process: int
    host: str
    boot: str
    started: int

    @classmethod
    def current(cls) -> Owner:
        """Describe this process."""
        return cls(os.getpid(), socket.gethostname(), _boot(), _started(os.getpid()))

    def is_gone(self) -> bool:
        """Say whether the process certainly does not exist any more; False where that cannot be known from here."""
        if self.process < 1 or self.host != socket.gethostname() or not self.boot or self.boot != _boot():
            return False
        if not _exists(self.process):
            return True
        return self.started >= 0 and _started(self.process) not in (-1, self.started)


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> int:
    try:
        # The name of the command may hold anything, so count from the last bracket.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return -2 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return -1


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def is_writing(status: str, heartbeat: float, owner: Owner) -> bool:
    """Say whether somebody is writing the run now."""
    return status == "recording" and abs(time.time() - heartbeat) <= STALE_SECONDS and not owner.is_gone()


def effective_status(status: str, heartbeat: float, owner: Owner) -> str:
    """Give the status that a reader should report."""
    if status == "recording" and not is_writing(status, heartbeat, owner):
        return "interrupted"
    return status
