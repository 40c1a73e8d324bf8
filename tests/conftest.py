"""What holds for all tests, whatever the machine and however many of them run at once."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Hypothesis judges no test by its time: a busy machine is not a fault.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """Give each worker of `pytest -n` one thread of BLAS: several would wait for each other, spinning."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture
def full_disk(monkeypatch):
    """A function: from this state on, a run cannot be written any more."""
    from trajtools.store import RunWriter

    def from_state(start=64):
        write = RunWriter.write

        def failing(self, at, *args, **options):
            if at >= start:
                raise OSError(28, "No space left on device")
            write(self, at, *args, **options)

        monkeypatch.setattr(RunWriter, "write", failing)

    return from_state
