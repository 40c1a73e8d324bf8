"""A sweep as a table for people."""

from __future__ import annotations

import numpy as np

from trajtools.results.sweep import Sweep, SweepPoint
from trajtools.sweeps.onset import median
from trajtools.sweeps.reading import RATE_NAMES


def header(sweep: Sweep) -> list[str]:
    """Titles of the columns."""
    names = [sweep.x_name, *([sweep.y_name] if sweep.y_name else []), *others(sweep)]
    times = [f"{sweep.time_unit}s to {value:g} (reached)" for value in sweep.thresholds]
    return [*names, "run", "exponent", "95 % interval", "verdict", *times, "final loss", "accuracy", "sharpness"]


def rows(sweep: Sweep) -> list[list[str]]:
    """Cells of the table."""
    names = others(sweep)
    return [_row(sweep, point, names) for point in sweep.points]


def others(sweep: Sweep) -> list[str]:
    """Hyper-parameters beside x and y that tell the runs apart."""
    known = {sweep.x_name, sweep.y_name, sweep.settings.get("control")}
    if known & set(RATE_NAMES):
        known |= set(RATE_NAMES)
    names = dict.fromkeys(name for p in sweep.points for name in p.hparams if name not in known)
    values = {name: {repr(p.hparams.get(name)) for p in sweep.points} for name in names}
    return [name for name in names if 1 < len(values[name]) < len(sweep.points)]


def as_text(sweep: Sweep) -> str:
    """Columns of equal width, with the warnings below."""
    lines = [header(sweep), *rows(sweep)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    doubts = [f"- {point.run}: {words}" for point in sweep.points for words in point.warnings]
    return "\n".join([*table, *doubts, *(f"- left out: {words}" for words in sweep.warnings)])


def _row(sweep: Sweep, point: SweepPoint, names: list[str]) -> list[str]:
    found = point.exponent
    middle = [_time(point, k) for k in range(len(sweep.thresholds))]
    return [
        f"{point.x:g}",
        *([f"{point.y:g}"] if sweep.y_name else []),
        *(_value(point.hparams.get(name)) for name in names),
        point.run + (" (control)" if point.control else ""),
        "-" if found is None else f"{found.value:.4g}",
        "-" if found is None else f"[{found.interval[0]:.3g}, {found.interval[1]:.3g}]",
        "-" if found is None else found.verdict,
        *middle,
        _typical(point.final_loss),
        _typical(point.final_accuracy),
        f"{point.sharpness:.4g}" if np.isfinite(point.sharpness) else "-",
    ]


def _value(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _time(point: SweepPoint, k: int) -> str:
    if not point.times.shape[1]:
        return "-"
    middle = median(point.times[k])
    return f"{middle:g} ({point.reached[k]:.0%})" if np.isfinite(middle) else f"not ({point.reached[k]:.0%})"


def _typical(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    lost = f" ({len(values) - len(known)} not finite)" if len(known) < len(values) else ""
    return (f"{np.median(known):.4g}" if len(known) else "-") + lost
