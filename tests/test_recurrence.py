"""Recurrence quantification against the matrix counted cell by cell, against exact answers, and under symmetries."""

import itertools
from fractions import Fraction
from math import log

import naive_recurrence as naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import codes
from trajtools.recurrences import lines, rows
from trajtools.recurrences.measures import MEASURES
from trajtools.recurrences.rows import make_pair, prepare

NAMES = ("diagonal", "one_end", "both_ends", "vertical", "white", "white_cut", "times")


def counts(histogram):
    return {int(length): int(number) for length, number in enumerate(histogram) if number}


def same_lines(found, expected):
    for name in NAMES:
        assert counts(getattr(found, name)) == dict(expected[name]), name


def walk(length, channels=1, seed=0, gaps=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(length, channels)).cumsum(axis=0)
    x[rng.integers(0, length, gaps)] = np.nan
    return x


def plot_of(x, y, metric, dim, delay):
    """The pair of the package, and all distances of the twin."""
    a = prepare(x, dim=dim, delay=delay)
    b = a if y is x else prepare(y, dim=dim, delay=delay)
    return make_pair(a, b, metric), naive.distances(a.points(), b.points(), metric)


def between_two(distances, share):
    """A threshold that no distance lies on: there the order of a sum would decide."""
    values = np.unique(distances[np.isfinite(distances)])
    at = int(share * len(values))
    while at + 2 < len(values) and values[at + 1] - values[at] < 1e-9:
        at += 1
    return (values[at] + values[at + 1]) / 2


@pytest.mark.parametrize("metric", ["linf", "l2", "l1"])
@pytest.mark.parametrize(
    "case",
    [(90, None, 1, 1, 1), (140, None, 3, 5, 1), (75, None, 2, 40, 2), (70, 131, 1, 1, 3), (131, 66, 2, 7, 1)],
    ids=str,
)
@pytest.mark.parametrize("gaps", [0, 3])
def test_lines_equal_those_of_the_matrix(metric, case, gaps):
    rows, columns, dim, delay, channels = case
    x = walk(rows, channels, seed=rows, gaps=gaps)
    y = x if columns is None else walk(columns, channels, seed=columns)
    pair, distances = plot_of(x, y, metric, dim, delay)
    threshold = between_two(distances, 0.2)
    with np.errstate(invalid="ignore"):
        matrix = distances <= threshold
    good = {"good_rows": pair.rows.finite, "good_columns": pair.columns.finite}
    for windows in ((1, 1), (0, 0), (4, 4), (2, 0)):
        for middles in (False, True):
            found = lines.count_lags(pair, threshold, windows=windows, middles=middles)
            wanted = naive.lines(
                matrix, diagonal_window=windows[0], vertical_window=windows[1], middles=middles, **good
            )
            same_lines(found, wanted)
    assert found.recurrences.sum() == np.count_nonzero(matrix)
    lags = np.subtract.outer(np.arange(matrix.shape[0]), np.arange(matrix.shape[1]))
    for lag in (0, 1, -3, 20):
        assert found.recurrences[lag + matrix.shape[1] - 1] == np.count_nonzero(matrix[lags == lag])
        assert found.cells[lag + matrix.shape[1] - 1] == np.count_nonzero(np.isfinite(distances[lags == lag]))


@pytest.mark.parametrize("shape", [(80, 80), (64, 64), (70, 150), (129, 40), (3, 2)])
@pytest.mark.parametrize("gaps", [0, 2])
def test_lines_of_distances_read_row_by_row_equal_those_of_the_matrix(shape, gaps):
    rng = np.random.default_rng(shape[0])
    distances = rng.random(shape)
    good = [np.ones(n, bool) for n in shape]
    if min(shape) > 10:
        for flags in good:
            flags[rng.integers(0, len(flags), gaps)] = False
    distances[~good[0]] = np.nan
    distances[:, ~good[1]] = np.nan
    with np.errstate(invalid="ignore"):
        matrix = distances <= 0.4
    for windows in ((0, 0), (1, 1), (3, 3), (2, 0), (70, 70)):
        found = lines.count_rows(
            lambda a, b: rows.to_bits(distances[a:b], 0.4, True), shape, tuple(good), windows=windows, middles=False
        )
        wanted = naive.lines(
            matrix,
            good_rows=good[0],
            good_columns=good[1],
            diagonal_window=windows[0],
            vertical_window=windows[1],
        )
        same_lines(found, wanted)
    assert found.cells.sum() == good[0].sum() * good[1].sum()
    assert found.recurrences.sum() == matrix.sum()


def test_several_threads_count_the_same_lines(monkeypatch):
    from trajtools._kernels import recurrence_lines

    for x, y in ((walk(700, gaps=5), None), (walk(300, seed=1), walk(411, seed=2))):
        options = {"threshold": 1.5, "theiler": 2, "metric": "linf", "dim": 2, "delay": 9}
        alone = tt.recurrence(x, y=y, **options).lines
        with monkeypatch.context() as patch:
            patch.setattr(lines, "_SHORTEST_BLOCK", 64)
            patch.setattr(recurrence_lines, "threads", lambda: 5)
            together = tt.recurrence(x, y=y, **options).lines
        for name in (*NAMES, "recurrences", "cells", "square_recurrences", "square_cells"):
            assert_array_equal(getattr(alone, name), getattr(together, name))


def test_measures_follow_from_the_matrix_by_their_definitions():
    x = walk(120, 2, seed=4, gaps=2)
    found = tt.recurrence(x, threshold=2.0, theiler=3, lmin=3, vmin=2, trend_border=7)
    distances = naive.distances(x, x, "l2")
    with np.errstate(invalid="ignore"):
        matrix = distances <= 2.0
    good = np.isfinite(x).all(axis=1)
    lines = naive.lines(matrix, good_rows=good, good_columns=good, diagonal_window=3, vertical_window=3)
    apart = np.abs(np.subtract.outer(np.arange(120), np.arange(120))) >= 3
    assert matrix[apart].sum() / np.isfinite(distances[apart]).sum() == found.RR
    diagonal, vertical = naive.longer(lines["diagonal"], 3), naive.longer(lines["vertical"], 2)
    assert_allclose(found.DET, naive.points(diagonal) / naive.points(lines["diagonal"]), rtol=1e-14)
    assert_allclose(found.L, naive.points(diagonal) / diagonal.total(), rtol=1e-14)
    assert_allclose(found.LAM, naive.points(vertical) / naive.points(lines["vertical"]), rtol=1e-14)
    assert_allclose(found.TT, naive.points(vertical) / vertical.total(), rtol=1e-14)
    assert_allclose(found.MRT, naive.points(lines["times"]) / lines["times"].total(), rtol=1e-14)
    for name, kind in (("ENTR", diagonal), ("VENTR", vertical), ("RTE", lines["times"])):
        assert_allclose(found[name], naive.entropy(kind), rtol=1e-12)
    assert (found.Lmax, found.Vmax) == (max(lines["diagonal"]), max(lines["vertical"]))
    assert 1 / found.Lmax == found.DIV
    assert max(lines["times"].values()) == found.NMPRT
    rates = naive.lag_rates(matrix, good)[3 : 120 - 7]
    assert_allclose(found.TREND, 1000 * np.polyfit(np.arange(3, 113), rates, 1)[0], rtol=1e-9)
    assert found.n_excluded == np.count_nonzero(~good)


@pytest.mark.parametrize(("period", "cycles"), [(4, 50), (7, 20)])
def test_periodic_series_has_the_measures_of_its_period(period, cycles):
    length = period * cycles
    found = tt.recurrence(np.tile(np.arange(float(period)) ** 2, cycles), threshold=0.0, theiler=1)
    assert Fraction(*found.lines.outside(1)) == Fraction(cycles - 1, length - 1)
    assert (found.DET, found.Lmax, found.L, found.MRT, found.RTE) == (1.0, length - period, length / 2, period, 0.0)
    assert_allclose(found.ENTR, log(cycles - 1), rtol=1e-14)
    assert found.LAM == 0.0
    assert np.isnan(found.TT)


def test_measures_of_a_short_sequence_worked_out_by_hand():
    # Equal letters recur: (0,2) (1,3) | (2,5) (3,6) | (0,5) (1,6), three diagonal lines of two on each side.
    found = tt.recurrence([0.0, 1.0, 0.0, 1.0, 2.0, 0.0, 1.0], threshold=0.0, trend_border=0)
    assert float(Fraction(6, 21)) == found.RR
    assert (found.DET, found.L, found.Lmax, found.DIV, found.ENTR) == (1.0, 2.0, 2, 0.5, 0.0)
    assert (found.LAM, found.Vmax) == (0.0, 1)
    assert counts(found.lines.diagonal) == {2: 6}
    assert counts(found.lines.one_end) == {2: 4}  # of lag 2 at the beginning, of lag 3 at the end
    assert counts(found.lines.both_ends) == {2: 2}  # all of lag 5
    assert counts(found.lines.times) == {2: 2, 3: 2}  # down the columns 0 and 1, up the columns 5 and 6
    assert (2.5, log(2), 2) == (found.MRT, found.RTE, found.NMPRT)
    assert_allclose(found.TREND, 1000 * np.polyfit(range(1, 7), [0, 2 / 5, 2 / 4, 0, 1, 0], 1)[0], rtol=1e-12)


def test_states_that_are_not_finite_are_excluded_and_counted():
    x = walk(90, 2, seed=7)
    lost = x.copy()
    lost[[10, 40, 41, 70], [0, 1, 0, 1]] = [np.nan, np.inf, -np.inf, np.nan]
    for metric in ("linf", "l2", "l1"):
        for threshold in (2.0, tt.RecurrenceRate(0.1), tt.NearestK(4), tt.neighbors.ScaledRadius(0.3, by="max")):
            found = tt.recurrence(lost, metric=metric, threshold=threshold)
            assert found.n_excluded == 4
            kept = np.delete(np.arange(90), [10, 40, 41, 70])
            alone = tt.recurrence(x[kept], metric=metric, threshold=threshold)
            assert_array_equal(found.matrix()[np.ix_(kept, kept)], alone.matrix())
            assert found.RR == alone.RR
            assert not found.matrix()[[10, 40, 41, 70]].any()


@pytest.mark.parametrize("length", [2, 3, 12])
def test_few_states_are_no_reason_to_fail(length):
    for threshold in (0.5, tt.RecurrenceRate(0.5), tt.NearestK(1)):
        for theiler in (1, 2):
            if theiler < length:
                found = tt.recurrence(np.arange(float(length)) ** 2, threshold=threshold, theiler=theiler)
                assert 0.0 <= found.RR <= 1.0
    empty = tt.recurrence(np.arange(float(length)), threshold=0.5, theiler=length)
    assert np.isnan(empty.RR)


def test_independent_numbers_have_the_measures_of_independence():
    found = tt.recurrence(np.random.default_rng(1).random(3000), threshold=0.05)
    p = 2 * 0.05 - 0.05**2
    # Spread over 20 seeds: RR .0004, DET .001, L .002, ENTR .004, LAM .003; LAM averages over columns at the edge.
    assert_allclose(found.RR, p, atol=0.0015)
    assert_allclose(found.DET, 1 - (1 - p) ** 2, atol=0.005)
    assert_allclose(found.L, 2 + p / (1 - p), atol=0.008)
    assert_allclose(found.ENTR, -(log(1 - p) + p / (1 - p) * log(p)), atol=0.02)
    column = np.where((grid := np.linspace(0, 1, 200_001)) < 0.05, grid + 0.05, np.where(grid > 0.95, 1.05 - grid, 0.1))
    assert_allclose(found.LAM, np.mean(column * (1 - (1 - column) ** 2)) / np.mean(column), atol=0.01)


def test_constant_series_recurs_always():
    length = 60
    found = tt.recurrence(np.ones(length), threshold=0.0)
    assert (found.RR, found.Lmax) == (1.0, length - 1)
    assert np.isnan(found.MRT)
    # Two lines of one cell: the corners of the plot, and the columns beside the first and the last cell.
    assert_allclose([found.DET, found.LAM], 1 - 2 / (length * (length - 1)), rtol=1e-14)
    assert_allclose(found.ENTR, log(length - 2), rtol=1e-14)


def test_ramp_recurs_with_nothing_but_itself():
    found = tt.recurrence(np.arange(50.0), threshold=0.5)
    assert (found.RR, found.Lmax, found.NMPRT) == (0.0, 0, 0)
    assert np.inf == found.DIV
    assert all(np.isnan(found[name]) for name in ("DET", "L", "ENTR", "LAM", "TT", "MRT", "K2"))
    assert "no-recurrence" in codes(found.warnings)


def test_correlation_entropy_of_the_logistic_map_is_its_exponent():
    x = np.empty(5000)
    x[0] = 0.3
    for t in range(1, 5000):
        x[t] = 4 * x[t - 1] * (1 - x[t - 1])
    tent = 2 / np.pi * np.arcsin(np.sqrt(x))  # coordinates in which the slope is 2 everywhere
    found = tt.recurrence(tent, threshold=0.05)
    assert_allclose(found.K2, log(2), rtol=0.1)
    assert_allclose(tt.recurrence(tent, threshold=0.05, dt=0.5).K2, 2 * found.K2, rtol=1e-12)


def test_small_steps_on_large_weights_keep_their_recurrences():
    # Weights near 1 move by 1e-8: float32 cannot tell them apart, and packages that cast to it report 0.026.
    steps = np.random.default_rng(0).normal(size=(400, 3)).cumsum(axis=0)
    x = 1.0 + 1e-8 * steps
    for metric in ("linf", "l2", "l1"):
        found = tt.recurrence(x, threshold=tt.RecurrenceRate(0.1), metric=metric)
        assert f"{found.RR:.4f}" == "0.1000"
        expected = tt.recurrence(x - 1.0, threshold=found.threshold, metric=metric)
        assert found.RR == expected.RR
        cast = tt.recurrence(x.astype(np.float32), threshold=found.threshold, metric=metric)
        assert abs(cast.RR - 0.1) > 0.01


INVARIANT = tuple(name for name in MEASURES if name not in ("MRT", "RTE", "NMPRT"))


@pytest.mark.parametrize("metric", ["linf", "l2", "l1"])
def test_measures_do_not_depend_on_direction_of_time_order_of_coordinates_or_scale(metric):
    x = walk(300, 3, seed=8, gaps=3)
    options = {"metric": metric, "theiler": 2, "threshold": tt.RecurrenceRate(0.1)}
    found = tt.recurrence(x, **options)
    backwards, shuffled = tt.recurrence(x[::-1], **options), tt.recurrence(x[:, [2, 0, 1]], **options)
    larger = tt.recurrence(x * 4096.0, **options)
    for name in MEASURES:
        assert_allclose(larger[name], found[name], rtol=1e-13, err_msg=name)
        assert_allclose(shuffled[name], found[name], rtol=2e-3 if metric == "l1" else 1e-12, err_msg=name)
    for name in INVARIANT:
        assert_allclose(backwards[name], found[name], rtol=1e-12, err_msg=name)
    for name in ("diagonal", "one_end", "both_ends", "vertical", "white", "white_cut"):
        assert_array_equal(getattr(backwards.lines, name), getattr(found.lines, name))
    assert_allclose(larger.threshold, 4096.0 * found.threshold, rtol=1e-15)


def test_a_plot_is_symmetric_and_a_system_recurs_with_itself_as_across():
    x = walk(200, 2, seed=5)
    alone = tt.recurrence(x, threshold=2.0, theiler=1)
    across = tt.recurrence(x, y=x.copy(), threshold=2.0, theiler=1)
    assert_array_equal(alone.matrix(), alone.matrix().T)
    assert_array_equal(alone.lines.recurrences, alone.lines.recurrences[::-1])
    for name in MEASURES:
        assert_allclose(across[name], alone[name], rtol=1e-13, err_msg=name)


def test_cross_recurrences_turned_round_have_the_same_diagonals():
    x, y = walk(90, seed=1), walk(140, seed=2)
    found, turned = tt.recurrence(x, y=y, threshold=1.0), tt.recurrence(y, y=x, threshold=1.0)
    assert found.kind == "cross"
    assert found.theiler == 0
    assert_array_equal(found.matrix(), turned.matrix().T)
    for name in ("RR", "DET", "L", "Lmax", "ENTR"):
        assert found[name] == turned[name]


def test_joint_recurrences_are_those_of_both_systems():
    x, y = walk(160, 2, seed=1, gaps=2), walk(160, seed=2, gaps=1)
    both = tt.recurrence(x, y=y, kind="joint", threshold=(2.0, 1.0), metric="linf")
    one, other = (tt.recurrence(s, threshold=t, metric="linf") for s, t in ((x, 2.0), (y, 1.0)))
    assert_array_equal(both.matrix(), one.matrix() & other.matrix())
    good = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    same_lines(both.lines, naive.lines(both.matrix(), good_rows=good, good_columns=good))
    assert both.n_excluded == np.count_nonzero(~good)


def test_embedding_is_that_of_embed():
    x = walk(150, seed=3)[:, 0]
    for metric in ("linf", "l2", "l1"):
        found = tt.recurrence(x, dim=3, delay=4, metric=metric, threshold=1.7)
        same = tt.recurrence(tt.embedding.embed(x, 3, 4), metric=metric, threshold=1.7)
        assert [found[name] for name in INVARIANT] == pytest.approx([same[name] for name in INVARIANT], nan_ok=True)


def test_states_of_many_dimensions_and_their_distances_give_the_same():
    x = np.random.default_rng(2).normal(size=(90, 150))
    x[7, 3] = np.nan
    for metric in ("linf", "l2", "l1"):
        for threshold in (tt.RecurrenceRate(0.1), tt.NearestK(4)):
            found = tt.recurrence(x, metric=metric, threshold=threshold, theiler=2)
            distances = naive.distances(x, x, metric)
            given = tt.recurrence(distances, metric="precomputed", threshold=threshold, theiler=2)
            assert_array_equal(found.matrix(), given.matrix())
            for name in MEASURES:
                assert_allclose(found[name], given[name], rtol=1e-12, err_msg=name)
            assert (found.n_excluded, given.n_excluded) == (1, 1)


def test_many_states_of_many_dimensions_are_compared_tile_by_tile(monkeypatch):
    x = np.random.default_rng(2).normal(size=(400, 140)).cumsum(axis=0)
    x[3, 3] = np.nan
    monkeypatch.setattr(rows, "_BAND_BYTES", 8 * 400 * 40)
    for metric in ("l2", "l1", "linf"):
        found = tt.recurrence(x, metric=metric, threshold=tt.RecurrenceRate(0.1), theiler=2)
        assert isinstance(found.plot_source.source, rows.TileRows)
        given = tt.recurrence(tt.pairwise(x, metric=metric), threshold=tt.RecurrenceRate(0.1), theiler=2)
        assert_array_equal(found.matrix(), given.matrix())
        assert [found[n] for n in MEASURES] == [given[n] for n in MEASURES]
        assert found.windowed(100)["DET"].tolist() == given.windowed(100)["DET"].tolist()
    recorded = tt.Trajectory.from_array(x.astype(np.float32), dt=0.5)
    assert_allclose(tt.recurrence(recorded, threshold=tt.RecurrenceRate(0.1)).RR, 0.1, atol=1e-4)
    assert tt.recurrence(recorded, y=recorded[:200], threshold=tt.NearestK(3)).lines.shape == (400, 200)


def test_other_metrics_are_those_of_pairwise():
    x = walk(60, 5, seed=3)
    for metric in ("cosine", "rms", lambda a, b: np.abs(a - b).sum(axis=1)):
        found = tt.recurrence(x, metric=metric, threshold=tt.RecurrenceRate(0.1))
        assert found.DET == tt.recurrence(tt.pairwise(x, metric=metric), threshold=tt.RecurrenceRate(0.1)).DET
    across = tt.recurrence(x, y=x[:40], metric="cosine", threshold=0.1)
    assert (across.kind, across.theiler) == ("cross", 0)
    assert tt.recurrence(x[:, 0], metric="rms", dim=3, delay=2, threshold=1.0).lines.shape == (56, 56)
    with pytest.raises(DataError, match="project the states"):
        tt.recurrence(x, y=x, kind="joint", metric="cosine", threshold=0.1)


def test_strict_conventions_reach_the_recurrence_rate():
    x = walk(100, seed=1)
    found = tt.recurrence(x, threshold=tt.RecurrenceRate(0.1), convention="pyrqa")
    recurrences, pairs = found.lines.outside(1)
    assert recurrences == 2 * np.ceil(0.1 * pairs / 2)


def test_distances_as_a_result_and_a_trajectory_give_the_same():
    x = walk(80, 2, seed=6)
    held = tt.recurrence(x, threshold=1.0)
    distances = tt.Distances.from_array(naive.distances(x, x, "l2"), metric="l2")
    assert tt.recurrence(distances, threshold=1.0).DET == held.DET
    assert tt.recurrence(distances, threshold=1.0).metric == "l2"
    recorded = tt.Trajectory.from_array(x, dt=0.1)
    assert tt.recurrence(recorded, threshold=1.0).RR == held.RR
    assert tt.recurrence(recorded, threshold=1.0).dt == 0.1


def test_lengths_can_be_chosen_after_counting():
    x = walk(200, seed=9)
    found = tt.recurrence(x, threshold=1.0, lmin=2, vmin=2)
    again = tt.recurrence(x, threshold=1.0, lmin=5, vmin=4)
    later = found.measures(lmin=5, vmin=4)
    assert [later[name] for name in MEASURES] == pytest.approx([again[name] for name in MEASURES], nan_ok=True)
    assert later.DET != found.DET


def test_large_and_tiny_numbers_are_squared_without_harm():
    x = walk(100, 2, seed=3)
    found = tt.recurrence(x, threshold=tt.RecurrenceRate(0.1))
    for power in (600, -600):
        scaled = tt.recurrence(x * 2.0**power, threshold=tt.RecurrenceRate(0.1))
        assert scaled.threshold == found.threshold * 2.0**power
        assert_array_equal(scaled.lines.diagonal, found.lines.diagonal)


def test_identical_states_are_warned_about_but_counted():
    found = tt.recurrence(np.repeat([0.0, 1.0], 20), threshold=tt.RecurrenceRate(0.1))
    assert found.threshold == 0.0
    assert pytest.approx(2 * 20 * 19 / (40 * 39)) == found.RR
    assert "equal-distances" in codes(found.warnings)
    assert "zero-threshold" in codes(found.warnings)
    moving = tt.recurrence(walk(80, 2), threshold=tt.RecurrenceRate(0.1))
    assert "zero-threshold" not in codes(moving.warnings)


def test_inputs_are_left_as_they_are():
    x = walk(80, 2, gaps=1)
    before = x.copy()
    x.flags.writeable = False
    tt.recurrence(x).windowed(40)
    assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.ones(1), {}, "2 samples are needed"),
        (np.ones((3, 2, 2)), {}, "shape"),
        (np.array(["a", "b"]), {}, "real numbers"),
        (np.full(20, np.nan), {}, "0 of 20 states are finite"),
        (np.arange(20.0), {"dim": 5, "delay": 5}, "lower dim or delay"),
        (np.arange(20.0), {"dim": 0}, "dim=0"),
        (np.arange(20.0), {"theiler": -1}, "theiler=-1"),
        (np.arange(20.0), {"theiler": 30, "threshold": tt.RecurrenceRate(0.1)}, "lower theiler"),
        (np.arange(20.0), {"lmin": 0, "threshold": 1.0}, "lmin=0"),
        (np.arange(20.0), {"threshold": -1.0}, "is not a threshold"),
        (np.arange(20.0), {"threshold": "all"}, "is not a threshold"),
        (np.arange(20.0), {"kind": "cross"}, "needs the second system"),
        (np.arange(20.0), {"y": np.arange(20.0), "kind": "auto"}, "takes no y"),
        (np.arange(20.0), {"y": np.arange(9.0), "kind": "joint", "threshold": 1.0}, "at the same times"),
        (np.ones((9, 2)), {"y": np.ones((9, 3)), "threshold": 1.0}, "2 coordinates"),
        (np.arange(20.0), {"convention": "pyunicorn", "theiler": 2, "threshold": 1.0}, "needs convention 'standard'"),
        (-np.ones((4, 4)), {"metric": "precomputed", "threshold": 1.0}, "negative"),
        (np.ones((4, 4)), {"metric": "precomputed", "threshold": 1.0, "dim": 2}, "apply to states"),
        (np.arange(20.0), {"dt": 0.0, "threshold": 1.0}, "dt=0.0"),
        (np.ones(20), {"threshold": tt.neighbors.ScaledRadius(0.1)}, "no size to scale by"),
        (np.array([[1.0, 1e-5], [2.0, 3.0]]), {"threshold": 1e-150}, "underflows when squared"),
    ],
)
def test_what_cannot_be_analysed_is_refused_with_a_way_out(x, options, words):
    with pytest.raises(DataError, match=words):
        tt.recurrence(x, **options)


@pytest.mark.parametrize("option", [{"metric": "cosinus"}, {"convention": "own"}, {"border": "cut"}])
def test_unknown_names_are_refused_with_those_there_are(option):
    with pytest.raises(UnknownNameError, match=r"is none of|there are"):
        tt.recurrence(np.arange(20.0), threshold=1.0, **option)


@pytest.mark.parametrize("scale", [2.0**532, 2.0**-664])
@pytest.mark.parametrize("by", ["std", "max"])
def test_scaled_thresholds_do_not_depend_on_numbers_whose_squares_overflow(scale, by):
    x = np.random.default_rng(50).normal(size=(200, 2))
    rule = tt.neighbors.ScaledRadius(0.3, by=by)
    one, other = (tt.recurrence(y, threshold=rule).to_dict()["RR"] for y in (x, x * scale))
    assert 0 < one == other < 1


def test_a_trajectory_that_drifts_is_said_to_and_one_that_returns_is_not():
    rng = np.random.default_rng(0)
    angle = np.arange(400) / 5
    for returns in (rng.standard_normal((300, 3)), np.c_[np.sin(angle), np.cos(angle)]):
        assert "drift" not in codes(tt.recurrence(returns).warnings)
    for drifts in (np.arange(300.0)[:, None], np.cumsum(rng.standard_normal((300, 3)), axis=0)):
        result = tt.recurrence(drifts)
        assert "drift" in codes(result.warnings)
        # The slow twin: every pair of states by itself.
        plot = result.matrix()
        pairs = [(abs(i - j), plot[i, j]) for i in range(300) for j in range(300) if abs(i - j) >= result.theiler]
        close, all_pairs = np.mean([lag for lag, recurs in pairs if recurs]), np.mean([lag for lag, _ in pairs])
        np.testing.assert_allclose(result.lines.time_apart(result.theiler), close / all_pairs, rtol=1e-12)


@pytest.mark.parametrize("lmin", [2, 3])
def test_states_in_random_order_have_the_determinism_of_chance(lmin):
    x = np.random.default_rng(0).standard_normal((1500, 2))
    result = tt.recurrence(x, threshold=tt.RecurrenceRate(0.1), lmin=lmin, vmin=lmin)
    chance = result.in_random_order()
    assert pytest.approx(chance["LAM"], abs=0.01) == result.LAM
    assert pytest.approx(chance["TT"], abs=0.03) == result.TT
    # About 1e5 recurrences in lines; they share states, so the scatter is several times that of independent ones.
    assert pytest.approx(chance["DET"], abs=0.01) == result.DET
    assert pytest.approx(chance["L"], abs=0.02) == result.L
    angle = np.arange(400) / 5
    ordered = tt.recurrence(np.c_[np.sin(angle), np.cos(angle)])
    assert 5 * ordered.in_random_order()["DET"] < ordered.DET


@pytest.mark.parametrize("lmin", [2, 3])
def test_chance_of_few_states_is_that_of_all_independent_diagonals(lmin):
    # The slow twin: every pattern of recurrences along the diagonals of four states.
    # So are vertical lines, with the rate of each column on both sides of the line of identity.
    result = tt.recurrence(np.array([0.0, 1.0, 0.1, 5.0]), threshold=1.0, lmin=lmin, vmin=lmin)
    recurrences, cells = result.lines.outside(result.theiler)
    diagonals = [(n, recurrences / cells) for n in (3, 2, 1)]
    columns = [(n, rate) for sides, rate in (((3,), 2 / 3), ((1, 2), 2 / 3), ((2, 1), 2 / 3)) for n in sides]
    chance = result.in_random_order()
    for cells_and_rates, share, mean in ((diagonals, "DET", "L"), ([*columns, (3, 0.0)], "LAM", "TT")):
        points, long_points, long_lines = 0.0, 0.0, 0.0
        for n, p in cells_and_rates:
            for pattern in itertools.product((0, 1), repeat=n):
                weight = p ** sum(pattern) * (1 - p) ** (n - sum(pattern))
                runs = [len(list(run)) for recurs, run in itertools.groupby(pattern) if recurs]
                points += weight * sum(runs)
                long_points += weight * sum(run for run in runs if run >= lmin)
                long_lines += weight * sum(run >= lmin for run in runs)
        assert chance[share] == pytest.approx(long_points / points, rel=1e-12)
        assert chance[mean] == pytest.approx(long_points / long_lines, rel=1e-12)


def test_constant_states_are_one_line_a_diagonal_by_chance_too():
    result = tt.recurrence(np.ones(20), threshold=1.0)
    assert result.in_random_order() == {name: pytest.approx(result[name]) for name in ("DET", "L", "LAM", "TT")}


def test_the_vertical_lines_of_chance_are_unknown_where_columns_are_not_rows():
    x, y = np.random.default_rng(0).standard_normal((2, 60, 2))
    for result in (
        tt.recurrence(x, y=y),
        tt.recurrence(x, threshold=tt.NearestK(3)),
        tt.recurrence(x, convention="pyrqa"),
    ):
        chance = result.in_random_order()
        assert np.isnan([chance["LAM"], chance["TT"]]).all()
        assert chance["DET"] > 0
        assert "LAM" in str(result)


def test_states_that_are_left_out_are_counted_in_a_warning():
    x, y = np.random.default_rng(3).standard_normal((2, 60, 2))
    assert "not-finite" not in codes(tt.recurrence(x).warnings)
    x[[5, 30]], y[7] = np.nan, np.inf
    (warning,) = [w for w in tt.recurrence(x).warnings if w.code == "not-finite"]
    assert warning.numbers["excluded"] == 2
    of_both = [w.numbers["excluded"] for w in tt.recurrence(x, y=y).warnings if w.code == "not-finite"]
    assert of_both == [2, 1]


def test_every_measure_has_a_line_of_meaning():
    result = tt.recurrence(np.random.default_rng(0).standard_normal((100, 2)))
    table = result.to_dataframe()
    assert list(table["measure"]) == list(MEASURES)
    assert all(20 < len(meaning) < 120 for meaning in table["meaning"])
    assert all(meaning in repr(result) for meaning in table["meaning"])
