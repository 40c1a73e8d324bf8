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
