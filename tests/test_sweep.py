"""Sweeps: many runs against their hyper-parameters, the onset of chaos, the fastest training, scaling."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_sweeps import RATES, made, point

import trajtools as tt
from recorders import Recorder
from recorders.iris import record
from trajtools.errors import DataError, SelectionError
from trajtools.reasons import codes
from trajtools.sweeps.onset import median
from trajtools.sweeps.sweep import mean_growth, training_times


def planted(onset=1.0, noise=0.0, seed=0):
    """Exponents 0.001 x below the onset and 0.2 ln(x / onset) beyond it; times 100 / x up to the onset, then longer."""
    rng = np.random.default_rng(seed)
    points = []
    for x in RATES:
        value = 0.001 * x + max(0.0, 0.2 * np.log(x / onset)) + noise * rng.standard_normal()
        time = 100 / x if x <= onset * 1.01 else 100 * x
        times = time * rng.lognormal(0, 0.05, 9)
        points.append(point(x, value, "chaotic" if x > onset else "regular", times, error=max(noise, 1e-4)))
    return made(points)


def test_a_planted_onset_is_found():
    found = planted(onset=1.2).onset()
    assert found.found
    assert 1.0 <= found.value <= RATES[9]  # no more can be known from the values of the sweep
    assert found.interval[0] <= 1.2 <= found.interval[1]
    assert found.bracket == pytest.approx((1.0, RATES[9]))
    assert found.above == pytest.approx(0.01)  # one e-fold in 100 steps


def test_the_interval_of_the_onset_covers_it_when_exponents_are_noisy():
    covered = [planted(1.2, noise=0.01, seed=seed).onset(above=0.01, rng=seed) for seed in range(40)]
    assert sum(f.found and f.interval[0] <= 1.25 <= f.interval[1] for f in covered) >= 36


def test_no_onset_is_said_with_the_way_out():
    low = made(point(x, 0.001 * x) for x in RATES).onset()
    assert not low.found
    assert low.reasons[0].code == "onset-above-range"
    high = made(point(x, 0.5, "chaotic") for x in RATES).onset()
    assert not high.found
    assert high.reasons[0].code == "onset-below-range"
    assert not made([point(1.0, 0.5, "chaotic")]).onset().found


def test_noise_that_hides_the_onset_is_said():
    found = made([point(0.1, -0.001, error=0.5), point(1.0, 0.02, "inconclusive", error=0.5)]).onset(above=0.0)
    assert not found.found
    assert "hidden-by-noise" in codes(found.reasons)


def test_a_single_sensitive_value_between_stable_ones_is_no_onset():
    values = np.where(np.arange(13) == 6, 0.3, 0.0)
    found = made(point(x, v, "transient" if v else "regular") for x, v in zip(RATES, values, strict=True)).onset()
    assert not found.found
    assert "1 isolated values" in found.reasons[0].text


def test_slow_growth_along_negative_curvature_is_not_an_onset():
    points = [point(x, 0.02 * x, duration := "regular") for x in RATES[:9]]
    assert duration == "regular"
    points += [point(x, 0.02 * x + 0.4 * np.log(x), "transient") for x in RATES[9:]]
    found = made(points).onset()
    assert found.found
    assert found.value > 0.99


def test_onset_does_not_depend_on_the_unit_of_the_rate():
    scaled = made(
        point(1000 * p.x, p.exponent.value, p.exponent.verdict, p.times[0], error=1e-4) for p in planted(1.2).points
    )
    assert scaled.onset(rng=1).value == pytest.approx(1000 * planted(1.2).onset(rng=1).value, rel=1e-9)


def test_the_fastest_rate_is_found_with_its_neighbours():
    found = planted(onset=1.0).fastest()
    assert found.value == pytest.approx(1.0)
    assert found.inside
    assert found.interval == pytest.approx((RATES[7], RATES[9]))
    assert found.within[0] <= found.value <= found.within[1]


def test_a_minimum_at_the_end_of_the_range_is_said():
    found = made(point(x, 0.0, times=[100 / x] * 5) for x in RATES).fastest()
    assert not found.inside
    assert "end-of-range" in codes(found.reasons)


def test_runs_that_never_arrive_count_as_infinite():
    points = [
        point(0.1, times=[50.0] * 4),
        point(1.0, times=[5.0, np.inf, np.inf, np.inf]),
        point(10.0, times=[np.inf]),
    ]
    assert made(points).fastest().value == 0.1
    assert np.isnan(made(points[2:]).fastest().value)


def test_the_lower_middle_value_counts_where_the_upper_is_infinite():
    assert median(np.array([3.0, np.inf])) == 3.0
    assert median(np.array([3.0, 5.0])) == 4.0
    assert median(np.array([3.0, np.inf, np.inf])) == np.inf


def test_onset_and_minimum_coincide_where_they_were_planted_together_and_not_else():
    together = planted(onset=1.0).coincidence()
    assert together.verdict == "coincide"
    assert together.ratio == pytest.approx(1.0, rel=0.1)
    apart = [point(p.x, p.exponent.value, p.exponent.verdict, [100 * abs(np.log(p.x / 0.05)) + 1] * 6, error=1e-4) for p in planted(1.0).points]  # noqa: E501  # fmt: skip
    assert made(apart).coincidence().verdict == "apart"


@pytest.mark.parametrize(("at_the_end", "code"), [(5.0, "control-faster"), (500.0, "control-no-faster")])
def test_the_control_says_what_makes_the_minimum(at_the_end, code):
    points = [*planted(onset=1.0).points, *(point(x, times=[at_the_end] * 5, control=True) for x in RATES[10:])]
    assert code in codes(made(points).coincidence().reasons)
    assert "no-control" in codes(planted(1.0).coincidence().reasons)


def test_a_power_law_of_the_training_time_is_found_where_training_is_stable():
    rng = np.random.default_rng(0)
    points = [
        point(x, 0.0, times=200 * (1 - m) / x * rng.lognormal(0, 0.02, 7), y=m, momentum=m)
        for x in RATES[:8]
        for m in (0.0, 0.5, 0.9)
    ]
    points.append(point(20.0, 1.0, "chaotic", times=[1.0], y=0.0, momentum=0.0))
    found = made(points, "momentum").scaling(("lr", "1-momentum"))
    assert found.powers == pytest.approx([-1, 1], abs=0.03)
    assert all(low <= power <= high for (low, high), power in zip(found.intervals, (-1, 1), strict=True))
    assert (found.n_used, found.n_total) == (24, 25)
    assert found.scatter < 0.05
    assert "sensitive" in codes(found.reasons)


def test_a_law_with_too_few_runs_is_refused():
    with pytest.raises(DataError, match="needs at least 3"):
        made([point(0.1), point(0.2)]).scaling()
    with pytest.raises(SelectionError, match="no number 'batch'"):
        made(point(x) for x in RATES).scaling(("batch",))


def test_a_single_factor_needs_no_tuple():
    sweep = made(point(x) for x in RATES)
    assert sweep.scaling("lr").powers.tolist() == sweep.scaling(("lr",)).powers.tolist()


def test_two_hyper_parameters_make_a_diagram():
    points = [
        point(x, 0.2 * np.log(x * y) + 0.001, "chaotic" if x * y > 1 else "regular", y=y, error=1e-3)
        for x in RATES
        for y in (0.5, 1.0, 2.0)
    ]
    found = made(points, "scale").phase_diagram()
    assert found.exponent.shape == (3, 13) == found.count.shape
    assert found.boundary == pytest.approx([2.0, 1.0, 0.5], rel=0.2)
    assert found.verdict[0][0] == "regular"
    assert found.verdict[2][12] == "chaotic"
    with pytest.raises(SelectionError, match="two hyper-parameters"):
        made(points, "scale").onset()
    assert made(points, "scale").where(1.0).onset().found


def test_training_times_are_those_of_a_slow_search():
    rng = np.random.default_rng(1)
    accuracy = rng.uniform(0, 1, (40, 5))
    accuracy[rng.uniform(size=accuracy.shape) < 0.3] = np.nan
    step = 3 * np.arange(40)
    for stays in (1, 2, 3):
        found = training_times(step, accuracy, (0.5, 0.8, 1.1), stays)
        for row, threshold in enumerate((0.5, 0.8, 1.1)):
            for column in range(5):
                known = [(s, a) for s, a in zip(step, accuracy[:, column], strict=True) if not np.isnan(a)]
                hits = [
                    known[k][0]
                    for k in range(len(known) - stays + 1)
                    if all(a >= threshold for _, a in known[k : k + stays])
                ]
                assert found[row, column] == (hits[0] if hits else np.inf)


def test_mean_growth_covers_the_mean_of_correlated_growth():
    covered = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).standard_normal(600)
        series = 0.1 + np.convolve(noise, np.ones(5) / 5, "same")
        _, (low, high) = mean_growth(series[:, None], np.random.default_rng(seed))
        covered += low <= 0.1 <= high
    assert covered >= 52


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for rate in (0.05, 0.3, 2.0):
        record(folder, rate, inits=6, copies=2, steps=150)
    return folder


def test_recorded_runs_become_a_sweep(iris):
    found = tt.sweep(iris, "lr", thresholds=(0.8, 0.6))
    assert [p.x for p in found.points] == [0.05, 0.3, 2.0]
    assert found.thresholds == (0.6, 0.8)
    for p in found.points:
        assert p.times.shape == (2, 6)  # references only, not their twins
        with tt.open(p.path) as run:
            references = [k for k, m in enumerate(run.members) if m.reference < 0]
            accuracy = run.metrics["accuracy"][:, references]
            assert p.final_accuracy == pytest.approx(accuracy[-1])
            assert p.times[0] == pytest.approx(training_times(run.step, accuracy, (0.6,))[0])
            assert p.exponent.value == tt.lyapunov(run).value
    assert found.points[0].exponent.value < found.points[2].exponent.value
    assert tt.sweep(tt.open_runs(iris), thresholds=(0.8, 0.6)).to_json() == found.to_json()
    assert "lr" in str(found)
    assert str(found).count("\n") >= 3
    found.to_json()


def test_an_executor_gives_the_same_sweep(iris):
    with ThreadPoolExecutor(2) as pool:
        counted = []
        other = tt.sweep(iris, executor=pool, progress=lambda done, total: counted.append((done, total)))
    assert other.to_json() == tt.sweep(iris).to_json()
    assert counted == [(1, 3), (2, 3), (3, 3)]


def test_runs_without_the_hyper_parameter_are_named(iris, tmp_path):
    path = tmp_path / "odd.h5"
    with Recorder(path, {"w": np.zeros(3)}, hparams={"lr": "high"}, quiet=True) as recorder:
        recorder.record({"w": np.ones(3)})
    found = tt.sweep([iris, path], exponent=None)
    assert len(found.points) == 3
    assert "odd" in found.warnings[0].text
    with pytest.raises(DataError, match="no run with the hyper-parameter 'width'"):
        tt.sweep(iris, "width")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        tt.sweep(str(tmp_path / "none*.h5"))


def test_recorded_growth_is_an_exponent(tmp_path):
    path = tmp_path / "growth.h5"
    rng = np.random.default_rng(0)
    with Recorder(path, {"w": np.zeros(2)}, hparams={"lr": 0.1}, quiet=True) as recorder:
        for _ in range(200):
            recorder.record({"w": rng.standard_normal(2)}, growth=0.05 + 0.02 * rng.standard_normal())
    found = tt.sweep(path, exponent="metric:growth").points[0].exponent
    assert found.value == pytest.approx(0.05, abs=0.01)
    assert found.interval[0] < 0.05 < found.interval[1]
    assert found.verdict == "transient"
    assert tt.sweep(path).points[0].exponent is None
    with pytest.raises(SelectionError, match="no metric 'shrinkage'"):
        tt.sweep(path, exponent="metric:shrinkage")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"thresholds": ()}, "at least one"), ({"stays": 0}, "stays=0"), ({"thresholds": (np.nan,)}, "at least one")],
)
def test_nonsense_is_refused(iris, arguments, words):
    with pytest.raises(DataError, match=words):
        tt.sweep(iris, **arguments)


def test_sweeps_and_diagrams_are_drawn():
    figure = planted(1.2).plot()
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]
    points = [point(x, np.log(x * y), y=y) for x in RATES for y in (0.5, 2.0)]
    ax = tt.plots.phase_diagram(made(points, "scale").phase_diagram(), ("lr", "scale"))
    assert ax.get_xlabel() == "lr"
