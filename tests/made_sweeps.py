"""Sweeps made by hand, with what is planted in them known."""

from __future__ import annotations

import numpy as np

from trajtools.exponents.exponent import Exponent
from trajtools.sweeps.sweep import Sweep, SweepPoint

RATES = np.geomspace(0.01, 10, 13)


def exponent(value, verdict, error=0.01, duration=100.0):
    return Exponent(
        value, (value - 1.96 * error, value + 1.96 * error), 0.95, 0.001, "power-law", 10, 10, verdict, (),
        (0, duration), np.empty(0), np.empty(0), 0.0, "twins", "1/step",
    )  # fmt: skip


def point(x, value=None, verdict="regular", times=(10.0,), *, y=np.nan, control=False, error=0.01, **hparams):
    found = None if value is None else exponent(value, verdict, error)
    return SweepPoint(
        x, y, "made.h5", f"lr={x:g}", control, found, np.array([times], dtype=float), np.array([0.1]), np.array([0.9]),
        np.nan, 100, {"lr": x, **hparams},
    )  # fmt: skip


def made(points, y_name=""):
    return Sweep("lr", y_name, tuple(points), (0.9,), "step")
