"""Recurrence thresholds as distances: fixed, scaled, or the exact quantile of all distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.rules import RecurrenceRate, ScaledRadius, WithinRadius
from trajtools.recurrences.lines import pairs_of_lags, rows_at_a_time
from trajtools.statistics import largest_finite, unit_scale
from trajtools.types import Bools, Floats

if TYPE_CHECKING:
    from trajtools.recurrences.rows import Pair

# Largest number of distances of a bracket to sort (32 MB); a larger bracket is narrowed first.
_KEPT = 2**22


_BINS = 4096
# One pair in so many is sampled to find the bracket, within limits; one bracket in 2000 misses.
_SHARE, _SAMPLE, _MOST_SAMPLED = 2**10, 2**16, 2**22
_SIGMAS = 3.5


def absolute(pair: Pair, rule: Any, theiler: int) -> tuple[float, dict[str, Any]]:
    """Convert a threshold rule to a distance."""
    if isinstance(rule, ScaledRadius):
        if rule.by == "std":
            size = spread(pair)
        else:
            size = nth_distance(pair, count_pairs(pair, theiler), theiler)
        if not size > 0:
            raise DataError(f"{rule}: all states are equal, so there is no size to scale by; pass a fixed threshold")
        return rule.factor * size, {"size": size}
    if isinstance(rule, RecurrenceRate):
        pairs = count_pairs(pair, theiler)
        rank = max(1, int(np.ceil(rule.rate * pairs - 1e-9)))
        return nth_distance(pair, rank, theiler), {"pairs": pairs, "rank": rank}
    return fixed(rule), {}


def count_pairs(pair: Pair, theiler: int) -> int:
    """Number of pairs of finite states outside the Theiler window; each once if the plot is symmetric."""
    rows, columns = pair.rows.finite, pair.columns.finite
    near = range(0 if pair.symmetric else 1 - theiler, theiler)
    inside = sum(int(np.count_nonzero(on_lag(rows, columns, lag))) for lag in near)
    both = int(np.count_nonzero(rows)) * int(np.count_nonzero(columns))
    if pair.symmetric:
        both = (both + int(np.count_nonzero(rows))) // 2
    if both == inside:
        raise DataError(
            f"no two finite states are theiler={theiler} or more samples apart among {pair.shape}; lower theiler or "
            "record more"
        )
    return both - inside


def on_lag(rows: Bools, columns: Bools, lag: int) -> Bools:
    """Columns j with a finite state whose row j + lag is also finite."""
    low, high = max(0, -lag), min(len(columns), len(rows) - lag)
    if low >= high:
        return np.zeros(0, dtype=bool)
    return rows[low + lag : high + lag] & columns[low:high]


def fixed(rule: Any) -> float:
    """Check a threshold that is a distance."""
    value = rule.radius if isinstance(rule, WithinRadius) and not rule.relative else rule
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value) and value >= 0:
        return float(value)
    raise DataError(
        f"threshold={rule!r} is not a threshold: pass a distance of at least 0, WithinRadius(radius), "
        "ScaledRadius(factor), "
        "RecurrenceRate(rate) or NearestK(k)"
    )


def spread(pair: Pair) -> float:
    """Standard deviation of the coordinates: root mean square over the channels of both systems."""
    series = (pair.rows.series,) if pair.symmetric else (pair.rows.series, pair.columns.series)
    scale = unit_scale(max(largest_finite(s) for s in series))
    finite = [np.where(np.isfinite(s), s, np.nan) * scale for s in series]
    return float(np.sqrt(np.mean([np.nanvar(s, axis=1) for s in finite]))) / scale


def nth_distance(pair: Pair, rank: int, theiler: int) -> float:
    """Exact distance of a given rank among all pairs outside the Theiler window.

    Notes
    -----
    The function passes once or twice over all distances without storing them. A sample brackets the rank; the distances
    in the bracket are stored, or counted in bins until few enough to store. The sample affects the number of passes,
    not the result.
    """
    rows, columns = pair.shape
    plane = pair.plane(0.0, True)
    first = max(theiler, 1) if pair.symmetric else 1 - columns
    lags = np.array([lag for lag in range(first, rows) if abs(lag) >= theiler], dtype=np.int64)
    top = _upper_bound(pair)
    low, high = 0.0, top
    pairs = count_pairs(pair, theiler)
    if pairs > 4 * _SAMPLE:
        low, high = _bracket(pair, rank, pairs, theiler, top)
    while True:
        under, inside, number, smallest, largest, bracketed = _pass(plane, (rows, columns), lags, low, high)
        if rank <= under:
            low, high = 0.0, low
        elif rank > under + inside:
            low, high = high, top
        elif inside == len(bracketed):
            return _distance(pair, float(np.partition(bracketed, rank - under - 1)[rank - under - 1]))
        else:
            part = int(np.searchsorted(np.cumsum(number), rank - under))
            low, high = float(smallest[part]), float(largest[part])
            if low == high:
                return _distance(pair, low)


def _upper_bound(pair: Pair) -> float:
    """Upper bound of the distances, as the kernels compare them."""
    gaps = []
    for left, right in zip(pair.rows.series, pair.columns.series, strict=True):
        both = np.concatenate([left[np.isfinite(left)], right[np.isfinite(right)]])
        gaps.append((both.max() - both.min()) * pair.scale)
    size, delays = np.array(gaps), len(pair.rows.offsets)
    if pair.code == 2:
        return float(np.sum(size**2)) * delays * (1 + 1e-9)
    return float(np.sum(size)) * delays * (1 + 1e-9) if pair.code == 1 else float(np.max(size)) * (1 + 1e-9)


def _bracket(pair: Pair, rank: int, pairs: int, theiler: int, top: float) -> tuple[float, float]:
    """Bracket of the distance of a rank from a sample, as the kernels compare distances."""
    rng, plane, share = np.random.default_rng(0), pair.plane(0.0, True), rank / pairs
    rows, columns = np.flatnonzero(pair.rows.finite), np.flatnonzero(pair.columns.finite)
    parts = []
    for _ in range(min(max(pairs // _SHARE, _SAMPLE), _MOST_SAMPLED) // _SAMPLE):  # a part at a time needs less memory
        i, j = rows[rng.integers(len(rows), size=_SAMPLE)], columns[rng.integers(len(columns), size=_SAMPLE)]
        apart = np.abs(i - j) >= theiler
        parts.append(_sample(plane, i[apart], j[apart]))
    values = np.concatenate(parts)
    if len(values) < _SAMPLE // 16:
        return 0.0, top
    margin = _SIGMAS * np.sqrt(share * (1 - share) / len(values)) + 2 / len(values)
    below, above = int(np.floor((share - margin) * len(values))), int(np.ceil((share + margin) * len(values)))
    values.partition([max(below, 0), min(above, len(values) - 1)])
    return (float(values[below]) if below >= 0 else 0.0, float(values[above]) if above < len(values) else top)


def _sample(plane: Any, i: Any, j: Any) -> Floats:
    """Distances of sampled pairs as the kernels compare them (L2 squared)."""
    from trajtools._kernels.recurrence_lines import BEFORE
    from trajtools.types import L1, L2

    out = np.zeros(len(i))
    for offset in plane.offsets:
        for left, right in zip(plane.rows, plane.columns, strict=True):
            gap = np.abs(left[BEFORE + i + offset] - right[BEFORE + j + offset])
            if plane.code == L2:
                out += gap * gap
            elif plane.code == L1:
                out += gap
            else:
                np.maximum(out, gap, out=out)
    return out


def _pass(plane: Any, shape: tuple[int, int], lags: Any, low: float, high: float) -> tuple[Any, ...]:
    """One pass over all distances, on several threads; collects those in the bracket if they fit."""
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.recurrence_lines import threads
    from trajtools._kernels.recurrence_rows import lag_ranks, make_bins

    parts = max(1, min(threads(), len(lags) // 256))
    room = np.empty((parts, min(_KEPT, len(lags) * min(shape)) // parts + 1))
    results: list[Any] = [None] * parts
    bins = [make_bins(plane, shape[1], _BINS) for _ in range(parts)]
    lower, upper = plane._replace(level=float(np.nextafter(low, -np.inf))), plane._replace(level=float(high))

    def work(begin: int, end: int) -> None:
        for part in range(begin, end):
            found = lag_ranks(lower, upper, shape, lags[part::parts].copy(), low, high, bins[part], room[part])
            results[part] = found

    in_parts(work, parts)
    bracketed = np.concatenate([room[p, : min(f[1], room.shape[1])] for p, f in enumerate(results)])
    return (
        sum(f[0] for f in results),
        sum(f[1] for f in results),
        np.sum([each.number for each in bins], axis=0),
        np.min([each.smallest for each in bins], axis=0),
        np.max([each.largest for each in bins], axis=0),
        bracketed,
    )


def _distance(pair: Pair, value: float) -> float:
    return float(np.sqrt(value)) / pair.scale if pair.code == 2 else value


def just_reached(level: float, rule: Any, inclusive: bool) -> float:
    """Threshold that reaches a recurrence rate if pairs at the threshold do not recur."""
    return float(np.nextafter(level, np.inf)) if isinstance(rule, RecurrenceRate) and not inclusive else level


def absolute_of_rows(read: Any, finite: tuple[Bools, Bools], rule: Any, theiler: int) -> tuple[float, dict[str, Any]]:
    """Convert a threshold rule to a distance, for rows of distances."""
    if not isinstance(rule, (RecurrenceRate, ScaledRadius)):
        return fixed(rule), {}
    pairs = pairs_of_lags(*finite)
    lags = np.arange(1 - len(finite[1]), len(finite[0]))
    total = int(pairs[np.abs(lags) >= theiler].sum())
    if not total:
        raise DataError(f"no two finite states are theiler={theiler} or more samples apart; lower theiler")
    if isinstance(rule, RecurrenceRate):
        rank = max(1, int(np.ceil(rule.rate * total - 1e-9)))
        return nth_of_rows(read, finite, rank, theiler), {"pairs": total, "rank": rank}
    if rule.by == "std":
        raise DataError(f"{rule}: distances have no coordinates; pass the states, or ScaledRadius(factor, by='max')")
    size = max((float(values.max()) for values in _outside(read, finite, theiler) if len(values)), default=0.0)
    if not size > 0:
        raise DataError(f"{rule}: all states are equal, so there is no size to scale by; pass a fixed threshold")
    return rule.factor * size, {"size": size}


def nth_of_rows(read: Any, finite: tuple[Bools, Bools], rank: int, theiler: int) -> float:
    """Exact distance of a given rank among all ordered pairs outside the Theiler window, from rows."""
    low, high = 0.0, np.inf
    while True:
        under, inside, bracketed, edges, number = 0, 0, [], None, np.zeros(_BINS, dtype=np.int64)
        top, bottom = 0.0, np.inf
        for values in _outside(read, finite, theiler):
            under += int(np.count_nonzero(values < low))
            selected = values[(values >= low) & (values <= high)]
            if not len(selected):
                continue
            bottom, top = min(bottom, float(selected.min())), max(top, float(selected.max()))
            if inside < _KEPT:
                bracketed.append(selected)
            inside += len(selected)
            if np.isfinite(high):
                edges = np.linspace(low, high, _BINS + 1)
                number += np.histogram(selected, edges)[0]
        if inside <= _KEPT or bottom == top:
            return float(np.partition(np.concatenate(bracketed), rank - under - 1)[rank - under - 1])
        if edges is None:
            low, high = bottom, top
            continue
        part = int(np.searchsorted(np.cumsum(number), rank - under))
        low, high = float(np.nextafter(edges[part], -np.inf)), float(np.nextafter(edges[part + 1], np.inf))
        low, high = max(low, bottom), min(high, top)


def _outside(read: Any, finite: tuple[Bools, Bools], theiler: int) -> Any:
    """Yield the distances of all pairs outside the Theiler window, a few rows at a time."""
    rows, columns = finite
    step = rows_at_a_time(len(columns))
    j = np.arange(len(columns))
    for start in range(0, len(rows), step):
        i = np.arange(start, min(start + step, len(rows)))
        counted = rows[i][:, None] & columns & (np.abs(i[:, None] - j) >= theiler)
        yield read(int(i[0]), int(i[-1]) + 1)[counted]
