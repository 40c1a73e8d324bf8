"""Thresholds, windows, networks, intervals, borders and figures of recurrence plots."""

import json
import pickle

import naive_recurrence as naive
import networkx as nx
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.recurrences import measures as module, thresholds
from trajtools.recurrences.lines import Lines
from trajtools.recurrences.measures import MEASURES
from trajtools.recurrences.rows import make_pair, prepare


def walk(length, channels=1, seed=0, gaps=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(length, channels)).cumsum(axis=0)
    x[rng.integers(0, length, gaps)] = np.nan
    return x


def outside(distances, theiler, symmetric):
    lags = np.subtract.outer(np.arange(distances.shape[0]), np.arange(distances.shape[1]))
    kept = lags >= theiler if symmetric else np.abs(lags) >= theiler
    return np.sort(distances[kept & np.isfinite(distances)])


@pytest.mark.parametrize("metric", ["linf", "l2", "l1"])
@pytest.mark.parametrize("kept", [2**20, 40])
@pytest.mark.parametrize("discrete", [False, True])
def test_every_rank_is_the_exact_quantile(metric, kept, discrete, monkeypatch):
    # `kept`: with little room the distances are narrowed down in bins, pass by pass.
    monkeypatch.setattr(thresholds, "_KEPT", kept)
    rng = np.random.default_rng(3)
    x, y = (rng.integers(0, 4, (n, 2)).astype(float) if discrete else rng.normal(size=(n, 2)) for n in (130, 70))
    x[7] = np.nan
    for other, theiler in ((x, 1), (x, 6), (y, 0), (y, 3)):
        a = prepare(x, dim=2, delay=3)
        b = a if other is x else prepare(other, dim=2, delay=3)
        pair = make_pair(a, b, metric)
        wanted = outside(naive.distances(a.points(), b.points(), metric), theiler, other is x)
        assert thresholds.count_pairs(pair, theiler) == len(wanted)
        for rank in (1, 2, len(wanted) // 20, len(wanted) // 2, len(wanted)):
            assert_allclose(thresholds.nth_distance(pair, rank, theiler), wanted[rank - 1], rtol=1e-15)


@pytest.mark.parametrize("kept", [2**20, 40])
def test_quantile_of_distances_that_are_read_is_exact(kept, monkeypatch):
    monkeypatch.setattr(thresholds, "_KEPT", kept)
    x = walk(90, 2, gaps=2)
    for values in (x, np.round(x)):
        distances = naive.distances(values, values, "l2")
        wanted = outside(distances, 2, False)
        finite = (np.isfinite(values).all(axis=1),) * 2
        for rank in (1, len(wanted) // 10, len(wanted)):
            found = thresholds.nth_of_rows(lambda a, b, d=distances: d[a:b], finite, rank, 2)
            assert found == wanted[rank - 1]


@pytest.mark.parametrize("theiler", [1, 5])
@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_recurrence_rate_is_what_was_asked_for(theiler, rate):
    x = walk(150, 2, gaps=2)
    found = tt.recurrence(x, threshold=tt.RecurrenceRate(rate), theiler=theiler)
    pairs = found.lines.outside(theiler)[1]
    assert rate <= found.RR < rate + 2 / pairs


def test_nearest_neighbours_are_as_many_as_asked_for():
    x = np.round(walk(120, 2, gaps=2) * 2) / 2  # with many equal distances
    found = tt.recurrence(x, threshold=tt.NearestK(6), theiler=3)
    distances = naive.distances(x, x, "l2")
    wanted = np.zeros((120, 120), bool)
    for i in np.flatnonzero(np.isfinite(x).all(axis=1)):
        apart = [j for j in range(120) if abs(i - j) >= 3 and np.isfinite(distances[i, j])]
        wanted[i, sorted(apart, key=lambda j, i=i: (distances[i, j], j))[:6]] = True
    far = np.abs(np.subtract.outer(np.arange(120), np.arange(120))) >= 3
    assert_array_equal(found.matrix() & far, wanted)
    share = tt.recurrence(x, threshold=tt.RecurrenceRate(0.1, local=True), theiler=1)
    degree = (share.matrix() & ~np.eye(120, dtype=bool)).sum(axis=1)
    assert set(degree[np.isfinite(x).all(axis=1)]) == {int(np.ceil(0.1 * (np.isfinite(x).all(axis=1).sum() - 1)))}
    assert np.isnan(share.threshold)


def test_scaled_thresholds_are_multiples_of_the_size():
    x = walk(100, 2, gaps=1)
    assert_allclose(
        tt.recurrence(x, threshold=tt.neighbors.ScaledRadius(0.2)).threshold,
        0.2 * np.sqrt(np.nanvar(x, axis=0).mean()),
        rtol=1e-12,
    )
    largest = np.nanmax(naive.distances(x, x, "l2"))
    for given, metric in ((x, "l2"), (naive.distances(x, x, "l2"), "precomputed")):
        found = tt.recurrence(given, metric=metric, threshold=tt.neighbors.ScaledRadius(0.1, by="max"))
        assert_allclose(found.threshold, 0.1 * largest, rtol=1e-14)
    with pytest.raises(DataError, match="by='max'"):
        tt.recurrence(naive.distances(x, x, "l2"), metric="precomputed", threshold=tt.neighbors.ScaledRadius(0.1))


@pytest.mark.parametrize(
    "rule", [(tt.RecurrenceRate, 0.0), (tt.RecurrenceRate, 1.5), (tt.neighbors.ScaledRadius, -1.0)]
)
def test_rules_refuse_numbers_that_mean_nothing(rule):
    with pytest.raises(DataError, match=rule[0].__name__):
        rule[0](rule[1])
    with pytest.raises(DataError, match="'std' or 'max'"):
        tt.neighbors.ScaledRadius(1.0, by="mean")


def test_windows_are_the_analysis_of_their_states():
    x = walk(200, 2, seed=2, gaps=2)
    whole = tt.recurrence(x, threshold=tt.RecurrenceRate(0.1), theiler=2, dt=0.5)
    found = whole.windowed(60, 35)
    assert found.start.tolist() == [0, 35, 70, 105, 140]
    assert_allclose(found.time, (found.start + 29.5) * 0.5)
    own = whole.windowed(60, 35, each=True)
    for at, start in enumerate(found.start):
        part = x[start : start + 60]
        alone = tt.recurrence(part, threshold=whole.threshold, theiler=2, dt=0.5)
        again = tt.recurrence(part, threshold=tt.RecurrenceRate(0.1), theiler=2, dt=0.5)
        for name in MEASURES:
            assert_allclose(found[name][at], alone[name], rtol=1e-13, err_msg=name)
            assert_allclose(own[name][at], again[name], rtol=1e-13, err_msg=name)
        assert own.threshold[at] == again.threshold


def test_windows_of_embedded_joint_and_given_plots():
    x, y = walk(150, seed=1), walk(150, seed=2)
    embedded = tt.recurrence(x, dim=3, delay=4, threshold=2.0).windowed(50, 50)
    alone = tt.recurrence(tt.embedding.embed(x, 3, 4)[50:100], threshold=2.0)
    assert embedded["DET"][1] == alone.DET
    joint = tt.recurrence(x, y=y, kind="joint", threshold=2.0).windowed(50, 50)
    assert joint["RR"][2] == tt.recurrence(x[100:], y=y[100:], kind="joint", threshold=2.0).RR
    distances = naive.distances(x, x, "l2")
    given = tt.recurrence(distances, metric="precomputed", threshold=tt.NearestK(3)).windowed(50, 50, each=True)
    assert given["LAM"][1] == tt.recurrence(x[50:100], threshold=tt.NearestK(3)).LAM
    lost = x.copy()
    lost[50:100] = np.nan
    gap = tt.recurrence(lost, threshold=2.0).windowed(50, 50)
    assert np.isnan(gap["RR"]).tolist() == [False, True, False]
    assert "1 of 3 windows" in gap.warnings[0].text
    with pytest.raises(DataError, match="between 3 states"):
        tt.recurrence(x, threshold=2.0).windowed(151)


def test_network_is_the_plot_without_the_window():
    x = walk(150, 2, seed=3, gaps=2)
    found = tt.recurrence(x, threshold=2.0, theiler=3)
    graph, measures = found.network(), found.network_measures()
    far = np.abs(np.subtract.outer(np.arange(150), np.arange(150))) >= 3
    assert graph.number_of_edges() == measures.n_edges == np.count_nonzero(found.matrix() & far) // 2
    assert graph.number_of_nodes() == measures.n_nodes == 150 - found.n_excluded
    assert_allclose(measures.transitivity, nx.transitivity(graph), rtol=1e-14)
    assert_allclose(measures.average_clustering, nx.average_clustering(graph), rtol=1e-14)
    assert_allclose(measures.density, nx.density(graph), rtol=1e-14)
    assert_allclose(measures.transitivity_dimension, np.log(measures.transitivity) / np.log(0.75), rtol=1e-14)
    local = nx.clustering(graph)
    for node, degree in graph.degree:
        assert measures.degree[node] == degree
        if degree > 1:
            assert_allclose(measures.clustering[node], local[node], rtol=1e-14)
        else:
            assert np.isnan(measures.clustering[node])


def test_network_of_known_transitivity_and_density():
    # Donner et al. 2010 style example: 7 edges, 12 pairs of neighbours, one triangle.
    edges = {(0, 1), (0, 3), (1, 2), (1, 3), (1, 4), (3, 5), (4, 5)}
    distances = np.ones((6, 6))
    for i, j in edges:
        distances[i, j] = distances[j, i] = 0.0
    measures = tt.recurrence(distances, metric="precomputed", threshold=0.5).network_measures()
    assert (measures.n_edges, measures.transitivity, measures.density) == (7, 0.25, 7 / 15)


def test_networks_that_are_none_are_refused(monkeypatch):
    x = walk(60)
    with pytest.raises(DataError, match="one set of states"):
        tt.recurrence(x, y=x[:40], threshold=1.0).network()
    with pytest.raises(TooLargeError, match="raise it"):
        tt.recurrence(x, threshold=1.0).network(max_edges=3)
    nearest = tt.recurrence(x, threshold=tt.NearestK(2))
    assert isinstance(nearest.network(), nx.DiGraph)
    assert nearest.network().number_of_edges() == 120
    with pytest.raises(DataError, match="directed"):
        nearest.network_measures()
    monkeypatch.setattr(module, "_LARGEST", 100)
    with pytest.raises(TooLargeError, match="thin the states"):
        tt.recurrence(x, threshold=1.0).network_measures()


def test_intervals_hold_the_measures_and_shrink_with_their_number():
    rng = np.random.default_rng(0)
    few, many = (tt.recurrence(rng.random(n), threshold=0.05) for n in (300, 1200))
    for plot in (few, many):
        found = plot.bootstrap(rng=1)
        for name, (low, high) in found.intervals.items():
            assert low <= plot[name] <= high, name
    widths = [np.ptp(plot.bootstrap(rng=1)["DET"]) for plot in (few, many)]
    assert 2.5 < widths[0] / widths[1] < 6  # 16 times as many lines: about a fourth
    assert few.bootstrap(rng=2).intervals == few.bootstrap(rng=np.random.default_rng(2)).intervals
    with pytest.raises(DataError, match="100 resamples"):
        few.bootstrap(n=10)


def test_intervals_of_independent_numbers_cover_the_truth():
    p = 2 * 0.05 - 0.05**2
    truth, covered = 1 - (1 - p) ** 2, 0
    for seed in range(40):
        x = np.random.default_rng(seed).random(400)
        low, high = tt.recurrence(x, threshold=0.05).bootstrap(n=200, rng=seed)["DET"]
        covered += low <= truth <= high
    # 93 of 100 do with other seeds; neighbouring lines are not quite independent.
    assert covered >= 33


def test_borders_of_periodic_motion_are_corrected():
    # All lines of a periodic series are cut at both ends: its entropy is that of the border, and zero without it.
    found = tt.recurrence(np.tile([0.0, 1.0, 5.0, 2.0], 30), threshold=0.0)
    assert found.ENTR > 3
    assert_array_equal(found.lines.both_ends, found.lines.diagonal)
    assert found.measures(border="censi").ENTR == 0.0
    assert found.measures(border="censi").L == 116
    longest = found.measures(border="longest")
    assert (longest.ENTR, longest.L, longest.Lmax) == (0.0, 116, 116)
    assert np.isnan(found.measures(border="discard").L)
    with pytest.raises(UnknownNameError, match="keep"):
        found.measures(border="cut")


def test_lines_with_one_end_at_the_border_are_corrected_if_asked_for():
    x = walk(120, seed=1)
    found = tt.recurrence(x, threshold=1.0)
    lines = naive.lines(found.matrix())
    assert lines["one_end"]
    whole, cut = found.measures(border="discard"), found.measures(border="discard", semi=True)
    for measures, borders in ((whole, ("both_ends",)), (cut, ("both_ends", "one_end"))):
        left = lines["diagonal"].copy()
        for name in borders:
            left.subtract(lines[name])
        kept = naive.longer(+left, 2)
        assert_allclose(measures.L, naive.points(kept) / kept.total(), rtol=1e-13)


def test_matrix_is_the_plot_and_large_ones_are_refused():
    x = walk(70, 2, gaps=1)
    found = tt.recurrence(x, threshold=1.5)
    with np.errstate(invalid="ignore"):
        assert_array_equal(found.matrix(), naive.distances(x, x, "l2") <= 1.5)
    assert_array_equal(found.matrix(10, 20), found.matrix()[10:20])
    with pytest.raises(TooLargeError, match="fewer rows"):
        tt.recurrence(np.arange(40_000.0), threshold=0.5).matrix()


def test_results_are_plain_data_and_travel_between_processes():
    found = tt.recurrence(walk(60), threshold=1.0)
    plain = json.loads(found.to_json())
    assert plain["DET"] == found.DET
    assert plain["lines"]["diagonal"] == found.lines.diagonal.tolist()
    assert "plot_source" not in plain
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again.lines, Lines)
    assert again.windowed(30)["RR"].tolist() == found.windowed(30)["RR"].tolist()
    assert json.loads(found.windowed(30).to_json())["size"] == 30
    assert "DET" in str(found)
    with pytest.raises(KeyError, match="no measure 'det'"):
        found["det"]


def test_figures_show_the_plot_its_distances_and_its_lines():
    x = walk(90, seed=1, gaps=2)
    found = tt.recurrence(x, threshold=1.0, dt=0.5)
    image = found.plot().images[0].get_array()
    good = np.isfinite(x[:, 0])
    assert_array_equal(np.ma.getdata(image)[np.ix_(good, good)], found.matrix()[np.ix_(good, good)])
    small = tt.plots.recurrence(found, pixels=9).images[0].get_array()
    cells = found.matrix().reshape(9, 10, 9, 10).sum(axis=(1, 3))
    pairs = np.outer(good, good).reshape(9, 10, 9, 10).sum(axis=(1, 3))
    assert_allclose(np.ma.getdata(small), cells / pairs, rtol=1e-12)
    distances = tt.plots.recurrence(found, distances=True)
    assert distances.images[0].get_clim()[1] == pytest.approx(np.nanmax(naive.distances(x, x, "l2")))
    line = tt.plots.recurrence_lines(found, "vertical").lines[0]
    assert_array_equal(line.get_ydata(), found.lines.vertical[found.lines.vertical > 0])
    windows = tt.plots.recurrence_windows(found.windowed(30))
    assert [each.get_label() for each in windows.lines] == ["RR", "DET", "LAM"]
    with pytest.raises(DataError, match="not a kind of line; choose from diagonal"):
        tt.plots.recurrence_lines(found, "black")
